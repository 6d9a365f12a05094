//! What is kept of a guest on disk, `<dir>/servers/<id>/config.json`: its configuration, and the devices of its process.

use crate::config::{GuestConfig, GuestDisk, GuestNic};
use maru_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Units that a guest has at least; every device but those on IDE takes a hot-plug port of its own.
const UNITS: u8 = 16;
/// Units that stay free for hot-plug.
const SPARE: usize = 6;
/// Units that there are ports for.
pub const MAX_UNITS: u8 = 32;

/// What was last known of the guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Last {
    /// Defined, never started.
    Defined,
    /// A process was about to be started; no guest instruction had run.
    Starting,
    /// A process had begun to run the guest.
    Running,
    /// Powered off.
    Off,
    /// Saved to disk: `memory.state` is whole.
    Suspended,
    /// Its process ended unasked.
    Crashed,
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The newest configuration; the next cold start uses it.
    pub config: GuestConfig,
    /// The devices of the process, and of the memory saved from it.
    pub live: Option<Live>,
    /// See [`Last`].
    pub last: Last,
    /// The boot of the machine (`/proc/sys/kernel/random/boot_id`) in which `last` was written.
    pub boot: String,
    /// Why it crashed, or what else is wrong.
    pub problem: Option<String>,
}

/// A guest as its process has it: the configuration that it was started with, with what was plugged since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The configuration.
    pub config: GuestConfig,
    /// QEMU's machine type: `q35`, or the exact versioned one that saved memory belongs to.
    pub machine: String,
    /// Hot-plug ports.
    pub ports: u8,
    /// Devices and controllers by [`nic_key`], [`disk_key`] or a controller's name: each has a unit of its own.
    pub units: BTreeMap<String, u8>,
    /// Units plugged into the running guest: they are not booted from.
    pub plugged: Vec<u8>,
}

/// Key of a NIC.
#[must_use]
pub fn nic_key(nic: &GuestNic) -> String {
    format!("nic {}", nic.port_id)
}

/// Key of a disk.
#[must_use]
pub fn disk_key(disk: &GuestDisk) -> String {
    format!("disk {}", disk.name)
}

/// The controller that a disk on this bus needs, other than those that the machine always has.
#[must_use]
pub fn controller(bus: &str) -> Option<&'static str> {
    match bus {
        "scsi" => Some("controller scsi"),
        "usb" => Some("controller usb"),
        _ => None,
    }
}

impl Live {
    /// Lays out the devices of a cold start.
    ///
    /// # Errors
    /// `BadRequest` when there are more devices than ports.
    pub fn plan(config: &GuestConfig) -> Result<Self> {
        let mut live = Self {
            config: config.clone(),
            machine: "q35".to_owned(),
            ports: UNITS,
            units: BTreeMap::new(),
            plugged: Vec::new(),
        };
        let wanted = config.disks.len() + config.nics.len() + SPARE;
        live.ports = u8::try_from(wanted).unwrap_or(u8::MAX).clamp(UNITS, MAX_UNITS);
        for disk in &config.disks {
            if let Some(controller) = controller(&disk.bus) {
                live.unit(controller.to_owned())?;
            }
            live.unit(disk_key(disk))?;
        }
        for nic in &config.nics {
            live.unit(nic_key(nic))?;
        }
        Ok(live)
    }

    /// The unit of `key`, the lowest free one if it has none yet.
    ///
    /// # Errors
    /// `Conflict` when every port is taken.
    pub fn unit(&mut self, key: String) -> Result<u8> {
        if let Some(unit) = self.units.get(&key) {
            return Ok(*unit);
        }
        let free = (0..self.ports).find(|u| !self.units.values().any(|taken| taken == u));
        let unit = free.ok_or_else(|| {
            Error::conflict(format!(
                "the device was refused: all {} slots of the server are taken; detach something first",
                self.ports
            ))
        })?;
        self.units.insert(key, unit);
        Ok(unit)
    }

    /// Forgets the device of this key.
    pub fn forget(&mut self, key: &str) {
        if let Some(unit) = self.units.remove(key) {
            self.plugged.retain(|u| *u != unit);
        }
        self.config.disks.retain(|d| disk_key(d) != key);
        self.config.nics.retain(|n| nic_key(n) != key);
    }

    /// Port ids and disk names of what is attached.
    #[must_use]
    pub fn attached(&self) -> Vec<String> {
        attached(&self.config)
    }
}

/// Port ids and disk names of a configuration.
#[must_use]
pub fn attached(config: &GuestConfig) -> Vec<String> {
    config
        .disks
        .iter()
        .map(|d| d.name.clone())
        .chain(config.nics.iter().map(|n| n.port_id.clone()))
        .collect()
}

/// The guest's directory and the names in it.
#[derive(Debug, Clone)]
pub struct Home(pub PathBuf);

impl Home {
    /// Makes the directory if it is missing.
    ///
    /// # Errors
    /// `Internal` when it cannot be made.
    pub fn make(&self) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.0)
            .map_err(|e| Error::internal(format!("{} was not made", self.0.display()), e))
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Saved memory, whole.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.file("memory.state")
    }

    /// Memory that is being saved.
    #[must_use]
    pub fn memory_part(&self) -> PathBuf {
        self.file("memory.part")
    }

    /// Memory that a process has taken up: useless from the guest's next write on.
    #[must_use]
    pub fn memory_used(&self) -> PathBuf {
        self.file("memory.used")
    }

    /// Reads the record; `None` when there is none (or a crash left an unreadable one, which rename prevents).
    ///
    /// # Errors
    /// `Internal` when it is there and cannot be read.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.file("config.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::internal(format!("{} is not understood", path.display()), e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::internal(format!("{} was not read", path.display()), e)),
        }
    }

    /// Writes the record: temporary file, rename. Without fsync: after a crash of the machine no process is there to be
    /// described, and the agent's own intent defines the guest anew.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub fn write(&self, record: &Record) -> Result<()> {
        let bytes =
            serde_json::to_vec_pretty(record).map_err(|e| Error::internal("a guest's record was not made", e))?;
        self.put("config.json", &bytes)
    }

    /// Writes a small file by rename, readable by its owner only.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, temporary) = (self.file(name), self.file(&format!("{name}.part")));
        let write = || {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|e| Error::internal(format!("{} was not written", path.display()), e))
    }
}

/// This boot of the machine.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
