//! A server is put away: its boot disk becomes an image, and its node has nothing of it any more.
//!
//! ```text
//!  active, paused, suspended, stopped
//!    │ shelve
//!    ▼
//!  task shelving ─ the guest is off ─► task shelving_image_uploading ─ the image is there ─► task shelving_offloading
//!    │ it boots from a volume                     │ no image was made                              ▲        │ the node has removed it
//!    └────────────────────────────────────────────┼────────────────────────────────────────────────┘        ▼
//!                                                 └─► stopped                                         shelved_offloaded
//!                                                                                                           │ unshelve
//!  active ◄─ the node has started it: the image goes ── task spawning ◄── task networking ◄── task unshelving ◄┘
//!                                                                                no host ─► shelved_offloaded
//! ```
//!
//! Ports, volumes, addresses and quota stay the server's all the time; room on a host does not. What local disks beside the boot disk
//! had is gone, as upstream has it.

use crate::{
    Power, Server, ServerImage, Task, VmState,
    action::{event, finish_action},
    network,
    observe::{ObservedServer, ObservedServerId},
};
use maru_base::{Error, Result};
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_placement_model::{ConsumerId, plan_release};
use maru_store::{Object, Snapshot, Txn};

/// Upstream's name of the event that puts a server away.
pub(crate) const SHELVE_EVENT: &str = "compute_shelve_instance";
/// Upstream's name of the event that takes it from its node.
const OFFLOAD_EVENT: &str = "compute_shelve_offload_instance";
/// Upstream's name of the event that brings it back.
pub(crate) const UNSHELVE_EVENT: &str = "compute_unshelve_instance";

/// Asks for a server to be put away into `image`, which is queued in the same transaction; `None` for one that boots from a volume.
/// Its states are checked by the caller.
///
/// # Errors
/// 409 while a change of its flavor is not over.
pub fn plan_shelve(
    snapshot: &Snapshot,
    server: &Object<Server>,
    image: Option<&ImageId>,
    request_id: &str,
) -> Result<Server> {
    if server.resize.is_some() {
        return Err(Error::conflict(format!(
            "Cannot 'shelve' instance {}: a change of its flavor is not over. Confirm or revert it first.",
            server.id
        )));
    }
    let mut new = (*server.value).clone();
    new.touch(request_id, snapshot);
    new.power = Power::Stopped;
    new.task = Some(Task::Shelving);
    new.shelved_image = image.map(ToString::to_string);
    Ok(new)
}

/// Asks for a server to be brought back; its step list, begun in the same transaction, does it.
///
/// # Errors
/// 409 when the image that it is shelved in is gone or not there yet.
pub fn plan_unshelve(snapshot: &Snapshot, server: &Object<Server>, request_id: &str) -> Result<Server> {
    let mut new = (*server.value).clone();
    if let Some(id) = &server.shelved_image {
        let image = snapshot.get::<Image>(&ImageId::from(id.as_str()));
        let active = image.as_ref().filter(|i| i.status == ImageStatus::Active);
        let Some((digest, format)) = active.and_then(|i| i.digest.clone().zip(i.proven_format.clone())) else {
            return Err(Error::conflict(format!(
                "Cannot 'unshelve' instance {}: the image {id}, which its boot disk was put into, is {}. The disk cannot be made without it.",
                server.id,
                if image.is_some() { "not active" } else { "gone" }
            )));
        };
        new.root = Some(ServerImage {
            id: id.clone(),
            digest,
            format,
            properties: server.image.as_ref().map(|i| i.properties.clone()).unwrap_or_default(),
        });
    }
    new.touch(request_id, snapshot);
    new.power = Power::Running;
    new.task = Some(Task::Unshelving);
    Ok(new)
}

/// The guest is off, or the image is made: what follows. `new` is the server as its node's report or the upload left it, its task over.
pub(crate) fn next_task(new: &mut Server, was: Task) {
    new.task = match (was, &new.shelved_image) {
        (Task::Shelving, Some(image)) => {
            new.imaging = Some(image.clone());
            Some(Task::ShelvingImageUploading)
        }
        _ => Some(Task::ShelvingOffloading),
    };
}

/// What the end of the upload means for a server that is being put away: its node removes it, or it stays there, off.
pub fn follow_upload(
    snapshot: &Snapshot,
    txn: &mut Txn,
    old: &Object<Server>,
    new: &mut Server,
    failure: Option<&str>,
) {
    let Some(why) = failure else {
        let request = new.request_id.clone();
        new.touch(&request, snapshot);
        next_task(new, Task::ShelvingImageUploading);
        let done = event(SHELVE_EVENT, old.updated, old.host.as_deref(), None);
        finish_action(snapshot, txn, &old.id, &old.request_id, done, false);
        return;
    };
    new.task = None;
    new.vm_state = VmState::Stopped;
    drop_image(snapshot, txn, new);
    let done = event(SHELVE_EVENT, old.updated, old.host.as_deref(), Some(why));
    finish_action(snapshot, txn, &old.id, &old.request_id, done, true);
}

/// The node has nothing of the server any more.
///
/// # Errors
/// What the network planners refuse.
pub(crate) fn plan_offloaded(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<()> {
    give_up_host(snapshot, txn, server)?;
    if let Some(observed) = snapshot.get::<ObservedServer>(&ObservedServerId::from(server.id.as_str())) {
        txn.delete(&observed);
    }
    let mut new = (*server.value).clone();
    new.vm_state = VmState::ShelvedOffloaded;
    put_away(&mut new);
    txn.update(server, &new);
    let done = event(OFFLOAD_EVENT, server.updated, server.host.as_deref(), None);
    finish_action(snapshot, txn, &server.id, &server.request_id, done, true);
    Ok(())
}

/// It cannot be brought back now: it is as it was before it was asked for.
///
/// # Errors
/// What the network planners refuse.
pub fn plan_unshelve_failed(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, why: &str) -> Result<()> {
    give_up_host(snapshot, txn, server)?;
    let mut new = (*server.value).clone();
    put_away(&mut new);
    txn.update(server, &new);
    let done = event(UNSHELVE_EVENT, server.updated, None, Some(why));
    finish_action(snapshot, txn, &server.id, &server.request_id, done, true);
    Ok(())
}

fn give_up_host(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<()> {
    network::plan_park(snapshot, txn, server)?;
    plan_release(snapshot, txn, &ConsumerId::from(server.id.as_str()))
}

fn put_away(server: &mut Server) {
    server.task = None;
    server.power = Power::Stopped;
    server.host = None;
    server.provider = None;
    server.placed = false;
    server.updated = maru_base::time::now();
}

/// Removes the image that a server was put into; one that its owner protected stays.
pub(crate) fn drop_image(snapshot: &Snapshot, txn: &mut Txn, server: &mut Server) {
    let Some(id) = server.shelved_image.take() else { return };
    if let Some(image) = snapshot
        .get::<Image>(&ImageId::from(id.as_str()))
        .filter(|i| !i.protected)
    {
        maru_image_model::usage::plan_delete(snapshot, txn, &image);
    }
}
