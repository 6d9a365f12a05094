//! The seam between the agent and whatever runs guests. QEMU is the first driver; others follow behind the same trait.

use crate::config::{GuestConfig, GuestDisk, GuestNic};
use async_trait::async_trait;
use maru_agent_api::lane::Duplex;
use maru_agent_api::observed::PowerState;
use maru_base::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tokio::sync::broadcast;

/// How guests run on this machine, and why so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// `kvm` or `tcg`.
    pub kind: AcceleratorKind,
    /// The reason, for people: `/proc/cpuinfo has neither vmx nor svm`.
    pub why: String,
    /// The hypervisor's version as Nova counts: major * 1,000,000 + minor * 1,000 + micro.
    pub version: u64,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.why)
    }
}

/// What executes guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorKind {
    /// The processor, through Linux' KVM.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

impl AcceleratorKind {
    /// QEMU's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A guest as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestStatus {
    /// The server's id.
    pub id: String,
    /// What it does.
    pub power: PowerState,
    /// What it was defined as; `None` for a process of ours whose configuration is lost (only `destroy` helps).
    pub config: Option<GuestConfig>,
    /// Port ids and disk names that are really attached; of a guest that is off, those that the next start attaches.
    pub attached: Vec<String>,
    /// QEMU's process, while there is one.
    pub pid: Option<u32>,
    /// Why it is in [`PowerState::Crashed`], or what else went wrong unasked (a disk error that paused it).
    pub problem: Option<String>,
}

/// Something happened to a guest that the agent should look at: its [`GuestStatus`] is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEvent {
    /// The server's id.
    pub id: String,
    /// What it does now.
    pub power: PowerState,
    /// What happened: `started`, `guest-shutdown`, `crashed`, `reset`, `io-error`, ...
    pub what: String,
}

/// How long each step of a start took, for the server's story.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartTimes {
    /// Steps in order: name, start and end in microseconds since the epoch.
    pub steps: Vec<(String, i64, i64)>,
}

/// A driver of guests. Every call is idempotent: asked again for what is already so, it answers `Ok`.
///
/// Calls about an unknown id are `NotFound`; a call that the guest's present state forbids is `Conflict` and says which
/// state it is in. A call that is dropped half-way does not leave the guest half-way: its task finishes the work.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Finds out how guests run here. The first answer is kept.
    async fn probe(&self) -> Result<Accelerator>;
    /// Takes over every guest of an earlier process; call it once, before anything else. Guests are never stopped by it.
    async fn adopt_all(&self) -> Result<Vec<GuestStatus>>;
    /// All guests that are known.
    async fn list(&self) -> Result<Vec<GuestStatus>>;
    /// One guest.
    async fn status(&self, id: &str) -> Result<GuestStatus>;
    /// Keeps a configuration; starts nothing. A running guest takes everything but the notes on its next cold start.
    async fn define(&self, config: GuestConfig) -> Result<()>;
    /// Makes it run: boots it, or continues it from disk when it was suspended. A paused guest stays paused.
    async fn start(&self, id: &str) -> Result<StartTimes>;
    /// Stops it: presses the power button and waits up to `timeout` (zero: not at all), then ends it. A second call with
    /// a shorter timeout overtakes the first. A suspended guest's saved memory is thrown away.
    async fn stop(&self, id: &str, timeout: Duration) -> Result<()>;
    /// Reboots it. Soft: power button, up to `timeout`, then as hard. Hard: a new process from the newest configuration.
    async fn reboot(&self, id: &str, hard: bool, timeout: Duration) -> Result<()>;
    /// Stops its processors.
    async fn pause(&self, id: &str) -> Result<()>;
    /// Lets its processors run on.
    async fn resume(&self, id: &str) -> Result<()>;
    /// Saves its memory to disk and ends the process.
    async fn suspend(&self, id: &str) -> Result<()>;
    /// Continues from the saved memory; boots when there is none.
    async fn resume_from_disk(&self, id: &str) -> Result<()>;
    /// Ends it at once and forgets it; its directory is removed. Disks elsewhere are the agent's. Unknown ids are fine.
    async fn destroy(&self, id: &str) -> Result<()>;
    /// Adds a NIC, at once if it runs, and to its configuration.
    async fn attach_nic(&self, id: &str, nic: GuestNic) -> Result<()>;
    /// Takes a NIC away; returns when the guest has let go of it.
    async fn detach_nic(&self, id: &str, port_id: &str) -> Result<()>;
    /// Adds a disk, at once if it runs, and to its configuration.
    async fn attach_disk(&self, id: &str, disk: GuestDisk) -> Result<()>;
    /// Takes a disk away; returns when the guest has let go of it.
    async fn detach_disk(&self, id: &str, name: &str) -> Result<()>;
    /// A disk of a running guest gets its limits anew; a remote one is opened where and as large as it is now. One that is not
    /// attached is fine.
    async fn follow_disk(&self, id: &str, disk: GuestDisk) -> Result<()>;
    /// Tells a running guest that a disk has grown to `bytes`; of a guest that is off the file must be grown instead.
    async fn resize_disk(&self, id: &str, name: &str, bytes: u64) -> Result<()>;
    /// Writes disk `name` as one flat qcow2 to `target`, consistent as of one moment, while the guest goes on.
    async fn snapshot(&self, id: &str, name: &str, target: &Path) -> Result<()>;
    /// The newest `lines` lines of its serial log (all that is kept, if `None`).
    async fn console_log(&self, id: &str, lines: Option<usize>) -> Result<Vec<u8>>;
    /// Its VNC socket.
    async fn vnc(&self, id: &str) -> Result<Box<dyn Duplex>>;
    /// Its serial console; one at a time, a newer caller takes it over from an older one.
    async fn serial(&self, id: &str) -> Result<Box<dyn Duplex>>;
    /// Live figures in the form of Nova's diagnostics (microversion 2.48).
    async fn diagnostics(&self, id: &str) -> Result<serde_json::Value>;
    /// Sends a running guest a non-maskable interrupt: one whose kernel is set up for it writes a crash dump.
    async fn inject_nmi(&self, id: &str) -> Result<()>;
    /// Changes from now on; a receiver that lags must [`Hypervisor::list`].
    fn events(&self) -> broadcast::Receiver<GuestEvent>;
}
