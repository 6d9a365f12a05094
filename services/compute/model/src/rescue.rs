//! A server that does not start any more is started from another image, with its own boot disk as the second.
//!
//! ```text
//!  active, stopped, error ─ rescue ─► task rescuing ─► rescued ─ unrescue ─► task unrescuing ─► active
//!                                          │ the node cannot                     ▲
//!                                          └─────────────────────────────────────┘
//! ```
//!
//! The disk of the rescue image is made anew each time and goes with the end of it.

use crate::{Power, Server, ServerImage, Task, VmState};
use maru_base::{Error, Result};
use maru_store::{Object, Snapshot};

/// Asks for a start from `image`; gives the server as it is to be written. Its states are checked by the caller.
///
/// # Errors
/// 409 while a change of its flavor is not over.
pub fn plan_rescue(
    snapshot: &Snapshot,
    server: &Object<Server>,
    image: ServerImage,
    password: &str,
    request_id: &str,
) -> Result<Server> {
    if server.resize.is_some() {
        return Err(Error::conflict(format!(
            "Cannot 'rescue' instance {}: a change of its flavor is not over. Confirm or revert it first.",
            server.id
        )));
    }
    let mut new = (*server.value).clone();
    new.touch(request_id, snapshot);
    new.admin_pass = Some(password.to_owned());
    new.rescue = Some(image);
    new.resizes += 1;
    new.power = Power::Running;
    new.task = Some(Task::Rescuing);
    Ok(new)
}

/// Asks for a start from its own boot disk again.
#[must_use]
pub fn plan_unrescue(snapshot: &Snapshot, server: &Object<Server>, request_id: &str) -> Server {
    let mut new = (*server.value).clone();
    new.touch(request_id, snapshot);
    new.power = Power::Running;
    take_back(&mut new);
    new
}

fn take_back(server: &mut Server) {
    server.rescue = None;
    server.resizes += 1;
    server.task = Some(Task::Unrescuing);
}

/// A rescue that the node refuses for good is undone: `old` is what is stored, `new` what the node's report made of it.
pub(crate) fn follow_rescue(snapshot: &Snapshot, old: &Object<Server>, new: &mut Server) {
    if old.task == Some(Task::Rescuing) && new.task.is_none() && new.vm_state == VmState::Error {
        new.vm_state = old.vm_state;
        new.asked_after = snapshot.revision();
        take_back(new);
    }
}
