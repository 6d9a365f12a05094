//! The observed state: what an agent sees on its machine.

use crate::NodeName;
use serde::{Deserialize, Serialize};

/// What a node says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name.
    pub node: NodeName,
    /// A random number of this connection.
    pub session: u64,
    /// Maru's version on the node.
    pub version: String,
    /// `QEMU` (what Nova's hypervisor list calls the type).
    pub hypervisor_type: String,
    /// Hypervisor version as Nova counts: major * 1,000,000 + minor * 1,000 + micro.
    pub hypervisor_version: u64,
    /// How guests run and why: `tcg: /proc/cpuinfo has neither vmx nor svm`.
    pub accelerator: String,
    /// How volumes are kept: `qcow2 files; copies share their blocks (FICLONE)`.
    #[serde(default)]
    pub storage: String,
    /// Processor description.
    pub cpu_model: String,
    /// `x86_64`.
    pub arch: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Room for disks in GiB.
    pub disk_gib: u64,
    /// Address other nodes reach it at.
    pub address: String,
}

/// One observed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// A virtual machine's state.
    Server(ServerState),
    /// A virtual machine's item is gone from the slice and nothing of it is left here.
    ServerRemoved(String),
    /// A port's data path.
    Port(PortState),
    /// A volume's bytes.
    Volume(VolumeState),
    /// A snapshot's bytes.
    VolumeSnapshot(VolumeSnapshotState),
    /// Everything of a port, network or router that was here is removed.
    Removed(crate::slice::ItemKey),
    /// An event of a server's story, with its time.
    Event(ServerEvent),
    /// A guest, disk or network that the slice does not know; it is kept until it is adopted or discarded.
    Unknown(UnknownThing),
    /// Room and use of the node.
    Resources(Resources),
}

/// What a virtual machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Not made yet.
    Nostate,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// Powered off.
    Shutdown,
    /// Its process ended unasked.
    Crashed,
    /// Saved to disk.
    Suspended,
}

impl PowerState {
    /// Nova's number of this state.
    #[must_use]
    pub const fn nova(self) -> u8 {
        match self {
            Self::Nostate => 0,
            Self::Running => 1,
            Self::Paused => 3,
            Self::Shutdown => 4,
            Self::Crashed => 6,
            Self::Suspended => 7,
        }
    }
}

/// A virtual machine's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerState {
    /// The server.
    pub id: String,
    /// The revision of the intent that this state answers.
    pub revision: u64,
    /// What it does.
    pub power: PowerState,
    /// Reboots carried out so far.
    pub reboots: u64,
    /// Rebuilds carried out so far.
    pub rebuilds: u64,
    /// Changes of size carried out so far.
    #[serde(default)]
    pub resizes: u64,
    /// The intent cannot be carried out: what, why, and what would help. `None` when all is well.
    pub fault: Option<String>,
    /// Whether the fault is final (the server goes to ERROR) or tried again.
    pub fault_final: bool,
    /// NICs and disks that are really attached, by port id and disk name.
    pub attached: Vec<String>,
}

/// A port's data path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortState {
    /// The port.
    pub id: String,
    /// The revision of the intent that this state answers.
    pub revision: u64,
    /// Whether frames flow and the firewall is in place.
    pub up: bool,
    /// Why not.
    pub fault: Option<String>,
}

/// A volume's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// The volume.
    pub id: String,
    /// The revision of the intent that this state answers.
    pub revision: u64,
    /// Which making of the bytes is here; `None` when none is.
    pub content: Option<u64>,
    /// Bytes of the disk that is here.
    pub size: u64,
    /// Where it is offered, address and port, while it has exports ([`crate::slice::Volume::exports`]).
    #[serde(default)]
    pub offered_at: Option<String>,
    /// Names of the exports that are open there.
    #[serde(default)]
    pub exports: Vec<String>,
    /// The intent cannot be carried out: what, why, and what would help.
    pub fault: Option<String>,
    /// Whether that is final or tried again.
    pub fault_final: bool,
}

/// A snapshot's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshotState {
    /// The snapshot.
    pub id: String,
    /// The revision of the intent that this state answers.
    pub revision: u64,
    /// Whether the copy is here, whole.
    pub made: bool,
    /// The intent cannot be carried out: what, why, and what would help.
    pub fault: Option<String>,
    /// Whether that is final or tried again.
    pub fault_final: bool,
}

/// One event of a server's story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerEvent {
    /// The server.
    pub server: String,
    /// The request it belongs to.
    pub request_id: String,
    /// What was done: `link`, `firewall`, `disk`, `spawn`, `qmp`, `running`; `attempt` for a try that failed.
    pub event: String,
    /// When it began, microseconds since the epoch.
    pub start_us: i64,
    /// When it ended.
    pub finish_us: i64,
    /// Whether it went well.
    pub ok: bool,
    /// What went wrong.
    pub message: Option<String>,
}

/// Something on the machine that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownThing {
    /// `server`, `disk`, `network`, `router`.
    pub what: String,
    /// Its id.
    pub id: String,
    /// What is known of it.
    pub description: String,
}

/// Room and use of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in use, MiB.
    pub memory_used_mib: u64,
    /// Disk in use, GiB.
    pub disk_used_gib: u64,
    /// Disk free, GiB.
    pub disk_free_gib: u64,
    /// Load averages as `uptime` prints them.
    pub load: String,
    /// Virtual machines running.
    pub running: u32,
}
