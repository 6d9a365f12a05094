//! In which states what may be done to a server, and the refusals in upstream's words.

use crate::{Server, Task, VmState};
use VmState::{Active, Building, Error as Failed, Paused, Rescued, Resized, ShelvedOffloaded, Stopped, Suspended};
use maru_auth::Caller;
use maru_base::{Error, Result};

/// The states that an action is allowed in.
#[must_use]
pub fn allowed_states(action: &str) -> &'static [VmState] {
    match action {
        "stop" => &[Active, Failed],
        "start" => &[Stopped],
        "reboot" | "pause" | "suspend" | "changePassword" => &[Active],
        "reboot_hard" => &[Active, Stopped, Paused, Suspended, Failed],
        "unpause" => &[Paused],
        "resume" => &[Suspended],
        "rebuild" => &[Active, Stopped, Failed],
        "createImage" | "createBackup" | "update_metadata" | "delete_metadata" | "update tag" | "update tags"
        | "delete tag" | "delete tags" => &[Active, Paused, Suspended, Stopped],
        "attach_interface" | "detach_interface" => &[Active, Paused, Stopped],
        "attach_volume" | "detach_volume" => &[Active, Paused, Stopped, Resized, ShelvedOffloaded],
        "shelve" => &[Active, Paused, Stopped, Suspended],
        "unshelve" => &[ShelvedOffloaded],
        "trigger_crash_dump" => &[Active, Paused, Rescued, Resized, Failed],
        "rescue" => &[Active, Stopped, Failed],
        "unrescue" => &[Rescued],
        "resize" => &[Active, Stopped],
        // A change that a fault or an administrator left half-way can still be brought to an end.
        "confirmResize" | "revertResize" => &[Resized],
        "get_diagnostics" => &[Active, Paused, Suspended, Stopped],
        _ => &[
            Active,
            Building,
            Failed,
            Paused,
            Rescued,
            Resized,
            ShelvedOffloaded,
            Stopped,
            Suspended,
        ],
    }
}

/// Checks that an action fits the server's states and lock. `action` is the name in the refusal.
///
/// # Errors
/// 409 in upstream's words.
pub fn check_action(caller: &Caller, id: &str, server: &Server, action: &str) -> Result<()> {
    check_lock(caller, id, server)?;
    check_state(id, server, action)
}

/// Checks the lock alone.
///
/// # Errors
/// 409 when it is locked and the caller is no administrator.
pub fn check_lock(caller: &Caller, id: &str, server: &Server) -> Result<()> {
    if server.lock.is_some() && !caller.is_admin() {
        return Err(Error::conflict(format!("Instance {id} is locked")));
    }
    Ok(())
}

/// Checks the states alone.
///
/// # Errors
/// 409 in upstream's words.
pub fn check_state(id: &str, server: &Server, action: &str) -> Result<()> {
    let shown = if action == "reboot_hard" { "reboot" } else { action };
    if !allowed_states(action).contains(&server.vm_state) {
        return Err(wrong_state(id, shown, "vm_state", server.vm_state.as_str()));
    }
    let task_fits = match (action, server.task) {
        (_, None) => true,
        (
            "reboot_hard",
            Some(
                Task::Rebooting
                | Task::RebootingHard
                | Task::Resuming
                | Task::Unpausing
                | Task::Pausing
                | Task::Suspending,
            ),
        ) => true,
        // What does not touch the machine does not mind what is done to it.
        (
            "update_metadata" | "delete_metadata" | "update tag" | "update tags" | "delete tag" | "delete tags",
            Some(_),
        ) => true,
        (_, Some(_)) => false,
    };
    match server.task {
        Some(task) if !task_fits => Err(wrong_state(id, shown, "task_state", task.as_str())),
        _ => Ok(()),
    }
}

/// The refusal of an action in a state.
#[must_use]
pub fn wrong_state(id: &str, action: &str, attribute: &str, state: &str) -> Error {
    Error::conflict(format!(
        "Cannot '{action}' instance {id} while it is in {attribute} {state}"
    ))
}
