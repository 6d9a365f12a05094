//! The states of a server: `vm_state` (what it is), `task_state` (what is being done), power (what the machine does).

use serde::{Deserialize, Serialize};

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Being made.
    Building,
    /// Running.
    Active,
    /// In memory, not scheduled.
    Paused,
    /// Memory on disk.
    Suspended,
    /// Powered off.
    Stopped,
    /// It has another flavor, which waits to be confirmed or reverted; running or off as its power intent says.
    Resized,
    /// It runs from another image, its own boot disk beside that one.
    Rescued,
    /// On no node: its boot disk is an image, its volumes and ports wait for it.
    #[serde(rename = "shelved_offloaded")]
    ShelvedOffloaded,
    /// Failed; see the fault.
    Error,
}

impl VmState {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::Resized => "resized",
            Self::Rescued => "rescued",
            Self::ShelvedOffloaded => "shelved_offloaded",
            Self::Error => "error",
        }
    }
}

/// What is being done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A host is being chosen.
    Scheduling,
    /// Ports are being made.
    Networking,
    /// The node is making it.
    Spawning,
    /// Soft reboot.
    Rebooting,
    /// Hard reboot.
    RebootingHard,
    /// Being stopped.
    PoweringOff,
    /// Being started.
    PoweringOn,
    /// Being paused.
    Pausing,
    /// Being unpaused.
    Unpausing,
    /// Being suspended.
    Suspending,
    /// Being resumed.
    Resuming,
    /// Its boot disk is being made anew.
    Rebuilding,
    /// Its boot disk is being made an image.
    ImageUploading,
    /// It is being given another flavor.
    ResizeMigrating,
    /// It is being given its old flavor back.
    ResizeReverting,
    /// It is being started from another image.
    Rescuing,
    /// It is being started from its own boot disk again.
    Unrescuing,
    /// It is being powered off, to be shelved.
    Shelving,
    /// Its boot disk is being made the image that it is shelved in.
    ShelvingImageUploading,
    /// Its node is removing it.
    ShelvingOffloading,
    /// A host is being chosen for it again.
    Unshelving,
    /// Being deleted.
    Deleting,
}

impl Task {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduling => "scheduling",
            Self::Networking => "networking",
            Self::Spawning => "spawning",
            Self::Rebooting => "rebooting",
            Self::RebootingHard => "rebooting_hard",
            Self::PoweringOff => "powering-off",
            Self::PoweringOn => "powering-on",
            Self::Pausing => "pausing",
            Self::Unpausing => "unpausing",
            Self::Suspending => "suspending",
            Self::Resuming => "resuming",
            Self::Rebuilding => "rebuilding",
            Self::ImageUploading => "image_uploading",
            Self::ResizeMigrating => "resize_migrating",
            Self::ResizeReverting => "resize_reverting",
            Self::Rescuing => "rescuing",
            Self::Unrescuing => "unrescuing",
            Self::Shelving => "shelving",
            Self::ShelvingImageUploading => "shelving_image_uploading",
            Self::ShelvingOffloading => "shelving_offloading",
            Self::Unshelving => "unshelving",
            Self::Deleting => "deleting",
        }
    }
}

/// The power state that a server shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Running.
    Running,
    /// Powered off; the disk stays.
    Stopped,
    /// In memory, not scheduled.
    Paused,
    /// Memory on disk, no process.
    Suspended,
}

impl Power {
    /// The machine state that fulfils it.
    #[must_use]
    pub const fn fulfilled_by(self, seen: PowerState) -> bool {
        matches!(
            (self, seen),
            (Self::Running, PowerState::Running)
                | (Self::Stopped, PowerState::Shutdown | PowerState::Crashed)
                | (Self::Paused, PowerState::Paused)
                | (Self::Suspended, PowerState::Suspended)
        )
    }
    /// What a server that reached it is.
    #[must_use]
    pub const fn vm_state(self) -> VmState {
        match self {
            Self::Running => VmState::Active,
            Self::Stopped => VmState::Stopped,
            Self::Paused => VmState::Paused,
            Self::Suspended => VmState::Suspended,
        }
    }
}

/// What the machine does, as its node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Not made yet.
    #[default]
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
    /// The API's number.
    #[must_use]
    pub const fn number(self) -> u8 {
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

/// The status that the API derives from what a server is and what is being done to it.
#[must_use]
pub const fn status(vm: VmState, task: Option<Task>) -> &'static str {
    match (vm, task) {
        (VmState::Active, Some(Task::Rebooting)) => "REBOOT",
        (
            VmState::Active | VmState::Stopped | VmState::Paused | VmState::Suspended | VmState::Error,
            Some(Task::RebootingHard),
        ) => "HARD_REBOOT",
        (VmState::Active | VmState::Stopped | VmState::Error, Some(Task::Rebuilding)) => "REBUILD",
        (VmState::Active | VmState::Stopped, Some(Task::ResizeMigrating)) => "RESIZE",
        (_, Some(Task::ResizeReverting)) => "REVERT_RESIZE",
        (VmState::Resized, _) => "VERIFY_RESIZE",
        (VmState::Rescued, _) => "RESCUE",
        (VmState::ShelvedOffloaded, _) => "SHELVED_OFFLOADED",
        (VmState::Active, _) => "ACTIVE",
        (VmState::Building, _) => "BUILD",
        (VmState::Stopped, _) => "SHUTOFF",
        (VmState::Paused, _) => "PAUSED",
        (VmState::Suspended, _) => "SUSPENDED",
        (VmState::Error, _) => "ERROR",
    }
}
