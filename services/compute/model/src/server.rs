//! Servers.
//!
//! ```text
//!  POST ─► building/scheduling ─► building/networking ─► building/spawning ─► active
//!               │ no valid host        │ network refused       │ node refuses for good
//!               └──────────────────────┴───────────────────────┴──► error
//!  active ⇄ stopped, paused, suspended (power intent, fulfilled by what the node observes)
//!  active, stopped ─ resize ─► resized ─ confirm or revert ─► active, stopped (see `resize`)
//!  active, stopped, error ─ rescue ─► rescued ─ unrescue ─► active
//!  active, paused, stopped, suspended ─ shelve ─► shelved_offloaded ─ unshelve ─► active (see `shelve`)
//!  any ─ DELETE ─► task deleting ─ node reports removal ─► gone (404)
//! ```

use crate::{
    GroupId, MigrationId,
    states::{Power, Task, VmState},
};
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of a server, a UUID.
    ServerId
);

/// The flavor as it was when the server was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerFlavor {
    /// Id of the flavor.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Root disk in GiB; 0 takes the image's own size.
    pub root_gb: u64,
    /// Second disk in GiB.
    pub ephemeral_gb: u64,
    /// Swap disk in MiB.
    pub swap_mb: u64,
    /// Extra specs.
    pub extra_specs: BTreeMap<String, String>,
}

impl ServerFlavor {
    /// What it asks of a provider, by resource class.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<String, u64> {
        let disk = self.root_gb + self.ephemeral_gb + self.swap_mb.div_ceil(1024);
        [
            ("VCPU", u64::from(self.vcpus)),
            ("MEMORY_MB", self.memory_mb),
            ("DISK_GB", disk),
        ]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(class, n)| (class.to_owned(), n))
        .collect()
    }
}

/// The image as it was when the server was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerImage {
    /// Glance's id.
    pub id: String,
    /// sha512 of the blob.
    pub digest: String,
    /// The format that inspection proved.
    pub format: String,
    /// Its properties (`hw_disk_bus`, `hw_architecture`, ...).
    pub properties: BTreeMap<String, String>,
}

/// The key pair as it was when the server was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKey {
    /// Its name.
    pub name: String,
    /// The public key.
    pub public_key: String,
}

/// One port that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WantedPort {
    /// On this network; `None` together with no port is "whatever the project has" (auto).
    pub network: Option<String>,
    /// This existing port.
    pub port: Option<String>,
    /// With this address.
    pub fixed_ip: Option<std::net::IpAddr>,
    /// Device tag.
    pub tag: Option<String>,
}

/// A change of flavor that waits for the owner's word, or is being taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// The flavor before; while it is being taken back, the one that it was to have.
    pub other: ServerFlavor,
    /// Its record.
    pub migration: MigrationId,
    /// Under which number the node keeps the disks as they were before; `None` when no disk changes.
    pub kept: Option<u64>,
}

/// What `createBackup` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// `daily`, `weekly`, or another word of the owner's.
    pub kind: String,
    /// How many of this kind stay.
    pub rotation: u32,
}

/// What networks were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Networks {
    /// The project's network, if there is one (before 2.37 also when nothing was said).
    Auto,
    /// None at all.
    None,
    /// These.
    Listed(Vec<WantedPort>),
}

/// A port of a server, in NIC order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPort {
    /// Neutron's id.
    pub id: String,
    /// Whether it was made for this server and goes with it.
    pub ours: bool,
    /// Device tag.
    pub tag: Option<String>,
}

/// A counted reboot request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reboot {
    /// How many reboots were asked so far.
    pub count: u64,
    /// Whether the newest is a hard one.
    pub hard: bool,
}

/// A block device as asked for: today the boot disk from the image, blank local disks and swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// `root`, `ephemeral0`, `swap`.
    pub name: String,
    /// Size in MiB; 0 takes the flavor's.
    pub size_mb: u64,
    /// `virtio`, `scsi`, ... or the image's default.
    pub bus: Option<String>,
    /// `disk` or `cdrom`.
    pub device: Option<String>,
    /// Device tag.
    pub tag: Option<String>,
}

/// A volume of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerVolume {
    /// Cinder's volume id.
    pub id: String,
    /// Cinder's attachment id.
    pub attachment: String,
    /// The device that the guest most likely shows it as: `/dev/vdb`.
    pub device: String,
    /// Whether the server boots from it.
    pub boot: bool,
    /// `virtio`, `scsi`, ... or the image's default.
    pub bus: Option<String>,
    /// Device tag.
    pub tag: Option<String>,
    /// Whether it is deleted with the server.
    pub delete_on_termination: bool,
    /// Whether the guest shall let go of it.
    pub detaching: bool,
    /// The request that asked for the attachment, then for its end.
    pub request_id: String,
}

/// Why a server is in ERROR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// HTTP-like code.
    pub code: u16,
    /// What everyone with access sees.
    pub message: String,
    /// What an administrator sees as well.
    pub details: String,
    /// When.
    pub created: jiff::Timestamp,
}

/// A lock on changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Whether an administrator set it: the owner then cannot override it.
    pub by_admin: bool,
    /// Why (2.73).
    pub reason: Option<String>,
}

/// A server: intent, and the states that the API shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Display name.
    pub name: String,
    /// Host name inside the guest.
    pub hostname: String,
    /// Description (2.19).
    pub description: Option<String>,
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Flavor.
    pub flavor: ServerFlavor,
    /// Image.
    pub image: Option<ServerImage>,
    /// Disks beyond the flavor's, or with their particulars.
    pub block_devices: Vec<BlockDevice>,
    /// Volumes that are attached, or being attached or detached.
    #[serde(default)]
    pub volumes: Vec<ServerVolume>,
    /// Key pair.
    pub key: Option<ServerKey>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Tags (2.26).
    pub tags: BTreeSet<String>,
    /// User data, base64.
    pub user_data: Option<String>,
    /// Injected files: path, base64.
    pub files: Vec<(String, String)>,
    /// Whether a config drive was asked for.
    pub config_drive: bool,
    /// `AUTO` instead of `MANUAL`.
    pub auto_disk_config: bool,
    /// Initial password.
    pub admin_pass: Option<String>,
    /// Free text address of the owner's choice.
    pub access_ipv4: Option<String>,
    /// The same for IPv6.
    pub access_ipv6: Option<String>,
    /// Availability zone that was asked for.
    pub zone: Option<String>,
    /// Host that was asked for.
    pub wanted_host: Option<String>,
    /// Server group.
    pub group: Option<GroupId>,
    /// Scheduler hints as given.
    pub hints: BTreeMap<String, serde_json::Value>,
    /// Networks that were asked for.
    pub networks: Networks,
    /// Security groups that were asked for, by name or id.
    pub security_groups: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServerPort>,
    /// Host it is on (or assigned to).
    pub host: Option<String>,
    /// Provider that its allocation is at.
    pub provider: Option<String>,
    /// Whether the host may make it: allocation and ports are in place.
    pub placed: bool,
    /// What it is.
    pub vm_state: VmState,
    /// What is being done.
    pub task: Option<Task>,
    /// The power state it shall have.
    pub power: Power,
    /// Reboots asked.
    pub reboot: Reboot,
    /// Rebuilds asked.
    pub rebuild: u64,
    /// Changes of its flavor and of what it starts from that the node was asked for, those back included.
    #[serde(default)]
    pub resizes: u64,
    /// The change that is not confirmed yet.
    #[serde(default)]
    pub resize: Option<Resize>,
    /// The image that it runs from, its own boot disk beside it, while it is rescued.
    #[serde(default)]
    pub rescue: Option<ServerImage>,
    /// What its boot disk was last made from, when that is not `image`: the image that it was shelved in.
    #[serde(default)]
    pub root: Option<ServerImage>,
    /// Id of the image that it is shelved in; `None` for one that boots from a volume.
    #[serde(default)]
    pub shelved_image: Option<String>,
    /// The backups that are kept of a kind, when the image under way is one.
    #[serde(default)]
    pub backup: Option<Backup>,
    /// The image that its boot disk is being made, while that is under way.
    #[serde(default)]
    pub imaging: Option<String>,
    /// Store revision before the newest change of intent: reports that are not newer speak of an older intent.
    pub asked_after: u64,
    /// The request that last changed the intent.
    pub request_id: String,
    /// Place in a multi-create.
    pub launch_index: u32,
    /// Common to all of a multi-create.
    pub reservation_id: String,
    /// Lock.
    pub lock: Option<Lock>,
    /// Why it is in ERROR.
    pub fault: Option<Fault>,
    /// Certificates (2.63), kept as given.
    pub trusted_certs: Option<Vec<String>>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it last changed.
    pub updated: jiff::Timestamp,
    /// When it first ran.
    pub launched_at: Option<jiff::Timestamp>,
}

impl Kind for Server {
    type Id = ServerId;
    const NAME: &'static str = "server";
    const SECRETS: &'static [&'static str] = &["admin_pass", "user_data", "files"];
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |s| vec![s.project_id.to_string()],
            },
            Index {
                name: "host",
                values: |s| s.host.iter().cloned().collect(),
            },
            Index {
                name: "group",
                values: |s| s.group.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

impl Server {
    /// Marks a change: time, request, and the revision that it is newer than.
    pub fn touch(&mut self, request_id: &str, snapshot: &maru_store::Snapshot) {
        self.updated = maru_base::time::now();
        request_id.clone_into(&mut self.request_id);
        self.asked_after = snapshot.revision();
    }
    /// What it asks of a provider: its flavor's, without the boot disk where that is a volume. Of two flavors, as long as either
    /// may be its flavor in the end, the larger of each.
    #[must_use]
    pub fn resources(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for flavor in std::iter::once(&self.flavor).chain(self.resize.iter().map(|r| &r.other)) {
            let mut flavor = flavor.clone();
            if self.volumes.iter().any(|v| v.boot) {
                flavor.root_gb = 0;
            }
            for (class, n) in flavor.resources() {
                let most: &mut u64 = all.entry(class).or_default();
                *most = n.max(*most);
            }
        }
        all
    }
    /// The name that the hypervisor knows it by.
    #[must_use]
    pub fn instance_name(id: &str) -> String {
        format!("instance-{}", id.get(..8).unwrap_or(id))
    }
    /// The device name of the boot disk inside the guest.
    #[must_use]
    pub fn root_device(&self) -> &'static str {
        match self
            .image
            .as_ref()
            .and_then(|i| i.properties.get("hw_disk_bus"))
            .map(String::as_str)
        {
            Some("scsi" | "sata" | "usb") => "/dev/sda",
            Some("ide") => "/dev/hda",
            _ => "/dev/vda",
        }
    }
    /// The status of the API.
    #[must_use]
    pub fn status(&self) -> &'static str {
        crate::status(self.vm_state, self.task)
    }
}
