//! What a guest is made of: the typed input of [`crate::argv`], kept in `config.json`.

use maru_block::Remote;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A guest as the agent wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// The server's id: a UUID, also the guest's SMBIOS UUID.
    pub id: String,
    /// Project that owns it (told to the guest as nothing; for people who look at the machine).
    pub project_id: String,
    /// Display name, for people who look at the machine; never on a command line.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks; the first one is booted from.
    pub disks: Vec<GuestDisk>,
    /// NICs in order.
    pub nics: Vec<GuestNic>,
    /// The agent's own notes on this guest, kept with it through restarts: counts of reboots carried out and the like.
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
}

/// A disk that QEMU opens by an explicit format; nothing is ever probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDisk {
    /// Stable name within the server: `root`, `ephemeral0`, `config`, or a volume id.
    pub name: String,
    /// The file (or block device).
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// What lies beneath it, opened read-only. The name that the file's own header has for it is never used.
    pub backing: Option<Backing>,
    /// `virtio`, `scsi`, `ide` (SATA), `usb`.
    pub bus: String,
    /// `disk` or `cdrom`.
    pub device: String,
    /// Whether the guest may only read it.
    pub readonly: bool,
    /// The node that it is reached on, and how; then `path` and `format` say nothing. `None`: `path` is opened here.
    #[serde(default)]
    pub remote: Option<Remote>,
    /// What the guest may do in a second ([`maru_agent_api::slice::DiskSource::Volume`]); empty: whatever it can.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
    /// The serial number that the guest sees (a volume's id); at most 20 characters reach a virtio guest.
    pub serial: Option<String>,
}

/// The file beneath an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// Formats that a guest's disk may have here. Everything else is refused long before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// Bytes as they are.
    Raw,
}

impl DiskFormat {
    /// QEMU's name of the driver.
    #[must_use]
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }

    /// The format named `qcow2` or `raw`.
    ///
    /// # Errors
    /// `BadRequest` for any other name.
    pub fn parse(name: &str) -> maru_base::Result<Self> {
        match name {
            "qcow2" => Ok(Self::Qcow2),
            "raw" => Ok(Self::Raw),
            other => Err(maru_base::Error::bad_request(format!(
                "a disk of format {other:?} cannot be attached: only qcow2 and raw are, convert the image first"
            ))),
        }
    }
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNic {
    /// Neutron's port id.
    pub port_id: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// The persistent tap's name inside the driver's network namespace, [`tap_name`] of the port.
    pub tap: String,
    /// The network's MTU in bytes, told to the guest; 0 tells nothing.
    pub mtu: u32,
}

/// The name of a port's tap: `tap` and the first 11 characters of the port's id.
#[must_use]
pub fn tap_name(port_id: &str) -> String {
    format!("tap{}", port_id.chars().take(11).collect::<String>())
}

/// How the driver works on this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of everything that the driver keeps; guests are in `<dir>/servers/<id>/`.
    pub state_dir: PathBuf,
    /// Network namespace that holds the taps (`/run/netns/<name>`); `None`: the process's own.
    pub netns: Option<PathBuf>,
    /// The QEMU program.
    pub program: PathBuf,
    /// Parent of the guests' control groups, beneath the root of each hierarchy; `None`: no control groups.
    pub cgroup: Option<String>,
    /// Bytes of serial log that are kept: this much in `console.log`, and this much once more in `console.log.1`.
    pub console_limit: u64,
    /// User and group that QEMU runs as; `None`: the agent's own. The guest's directory and writable disks are handed
    /// to that user, and every directory above them must be searchable for it.
    pub run_as: Option<(u32, u32)>,
    /// Forces the accelerator instead of probing (tests, and machines where the probe is wrong).
    pub accelerator: Option<crate::Accelerator>,
}

impl Options {
    /// The usual options over a state directory.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            netns: None,
            program: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            cgroup: Some("maru-guests".to_owned()),
            console_limit: 1 << 20,
            run_as: None,
            accelerator: None,
        }
    }
}
