//! Volumes of servers: how they come, how they go, and what the node's word makes of them.
//!
//! ```text
//!  attach ─► attaching ─ the node has plugged it ─► in-use ─ detach ─► detaching ─ the node has unplugged it ─► available
//! ```
//!
//! The volume's own record is the volume service's; its planners are composed here.

use crate::{ObservedServer, Server, ServerId, ServerVolume, VmState, action::event, finish_action};
use maru_base::{Error, Result};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{self as volume, AttachmentId, Status, Volume, VolumeId};
use std::collections::BTreeMap;

/// Most volumes of a server: its machine has sixteen slots for disks and NICs at least, and a server has others of both.
pub const MOST_VOLUMES: usize = 10;

/// The next free device name, as the hypervisor counts: local disks first.
#[must_use]
pub fn next_device(server: &Server, boot: bool) -> String {
    let root = server.root_device();
    let prefix = root.get(..root.len() - 1).unwrap_or("/dev/vd");
    // Without an image it boots from a volume, the first disk.
    let boots = server.image.is_none();
    let listed = server
        .block_devices
        .iter()
        .filter(|d| d.name.starts_with("ephemeral"))
        .count();
    let ephemeral = if listed > 0 {
        listed
    } else {
        usize::from(server.flavor.ephemeral_gb > 0)
    };
    let local = usize::from(!boots) + ephemeral + usize::from(server.flavor.swap_mb > 0);
    (b'a'..=b'z')
        .map(|letter| format!("{prefix}{}", char::from(letter)))
        .enumerate()
        .filter(|(at, _)| {
            if boot {
                *at == 0
            } else {
                *at >= local + usize::from(boots)
            }
        })
        .map(|(_, name)| name)
        .find(|name| !server.volumes.iter().any(|v| v.device == *name))
        .unwrap_or_else(|| format!("{prefix}z"))
}

/// A volume that the server's project has, by id.
///
/// # Errors
/// 404 in upstream's words.
pub fn find_volume(snapshot: &Snapshot, project: &str, admin: bool, id: &str) -> Result<Object<Volume>> {
    snapshot
        .get::<Volume>(&VolumeId::from(id))
        .filter(|v| admin || v.value.project_id == *project)
        .ok_or_else(|| Error::not_found(format!("Volume {id} could not be found.")))
}

/// What is asked of an attachment.
#[derive(Debug, Clone, Default)]
pub struct WantedVolume {
    /// Whether the server boots from it.
    pub boot: bool,
    /// Bus.
    pub bus: Option<String>,
    /// Device tag.
    pub tag: Option<String>,
    /// Whether it is deleted with the server.
    pub delete_on_termination: bool,
    /// The request that asks for it.
    pub request_id: String,
}

/// Plans to plug a volume into a server; changes `server` and gives the volume's place in it.
///
/// # Errors
/// 400 and 403 in upstream's words.
pub fn plan_attach_volume(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server_id: &str,
    server: &mut Server,
    found: &Object<Volume>,
    wanted: WantedVolume,
) -> Result<ServerVolume> {
    room(server)?;
    if server.volumes.iter().any(|v| found.id == *v.id) {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume {} already attached to instance {server_id}.",
            found.id
        )));
    }
    let attachment = AttachmentId::new_uuid();
    let device = next_device(server, wanted.boot);
    let shelved = server.vm_state == VmState::ShelvedOffloaded;
    volume::plan_attach(snapshot, txn, found, &attachment, (server_id, shelved), &device)?;
    Ok(push(server, &found.id, &attachment, device, wanted))
}

/// Plans to plug a volume that is made in the same transaction.
///
/// # Errors
/// 403 when the server has too many.
pub fn plan_attach_new_volume(
    txn: &mut Txn,
    server_id: &str,
    server: &mut Server,
    (id, made): (&VolumeId, &Volume),
    wanted: WantedVolume,
) -> Result<ServerVolume> {
    room(server)?;
    let attachment = AttachmentId::new_uuid();
    let device = next_device(server, wanted.boot);
    volume::plan_attach_new(txn, id, made, &attachment, server_id, &device);
    Ok(push(server, id, &attachment, device, wanted))
}

fn room(server: &Server) -> Result<()> {
    if server.volumes.len() >= MOST_VOLUMES {
        return Err(Error::forbidden(format!(
            "The maximum allowed number of disk devices ({MOST_VOLUMES}) to attach to a single instance has been exceeded."
        )));
    }
    Ok(())
}

fn push(
    server: &mut Server,
    id: &VolumeId,
    attachment: &AttachmentId,
    device: String,
    wanted: WantedVolume,
) -> ServerVolume {
    let place = ServerVolume {
        id: id.to_string(),
        attachment: attachment.to_string(),
        device,
        boot: wanted.boot,
        bus: wanted.bus,
        tag: wanted.tag,
        delete_on_termination: wanted.delete_on_termination,
        detaching: false,
        request_id: wanted.request_id,
    };
    server.volumes.push(place.clone());
    place
}

/// Plans to unplug a volume; the node does it, or the record alone where no node has the server.
///
/// # Errors
/// 404 when it is not attached, 400 for the boot volume and one that is being attached or detached.
pub fn plan_detach_volume(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server_id: &str,
    server: &mut Server,
    id: &str,
    request_id: &str,
) -> Result<()> {
    let placed = server.placed;
    let Some(at) = server.volumes.iter().position(|v| v.id == id) else {
        return Err(Error::not_found(format!(
            "Instance {server_id} is not attached to volume {id}."
        )));
    };
    let place = &mut server.volumes[at];
    if place.boot {
        return Err(Error::forbidden("Cannot detach a root device volume"));
    }
    if let Some(found) = snapshot.get::<Volume>(&VolumeId::from(id))
        && found.value.status != Status::InUse
    {
        return Err(Error::bad_request(format!(
            "Invalid volume: Invalid input received: Invalid volume: Unable to detach volume. Volume status must be 'in-use' \
             and attach_status must be 'attached' to detach. Currently: status: '{}'.",
            found.value.status.word()
        )));
    }
    let attachment = AttachmentId::from(place.attachment.as_str());
    if placed {
        place.detaching = true;
        request_id.clone_into(&mut place.request_id);
        volume::plan_detaching(snapshot, txn, &attachment);
    } else {
        server.volumes.remove(at);
        volume::plan_detached(snapshot, txn, &attachment);
    }
    Ok(())
}

/// Gives back the volumes of a server that goes; those that go with it are deleted.
///
/// # Errors
/// What the volume's planner refuses.
pub(crate) fn plan_release_volumes(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<()> {
    for place in &server.volumes {
        let attachment = AttachmentId::from(place.attachment.as_str());
        let Some(found) = snapshot.get::<Volume>(&VolumeId::from(place.id.as_str())) else {
            continue;
        };
        let others = volume::attachments_of(snapshot, &found.id).any(|a| a.id != attachment);
        let status = found.value.status;
        if !place.delete_on_termination || others || found.value.snapshots > 0 {
            volume::plan_detach(snapshot, txn, &attachment);
            continue;
        }
        // One transaction may write a key once: the attachment goes, and the volume's record with its deletion.
        if let Some(a) = snapshot.get::<volume::Attachment>(&attachment) {
            txn.delete(&a);
        }
        let mut new = (*found.value).clone();
        if found.value.host.is_none() && status == Status::Creating {
            volume::plan_forget_volume(snapshot, txn, &found)?;
            continue;
        }
        new.status = Status::Deleting;
        new.removing = true;
        new.touch(&server.request_id, snapshot);
        txn.update(&found, &new);
    }
    Ok(())
}

/// Moves a server's volumes after a report of its node: `server` is changed where one is unplugged. Says whether it was.
pub(crate) fn follow_volumes(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &str,
    server: &mut Server,
    seen: &ObservedServer,
) -> bool {
    let there = |place: &ServerVolume| seen.attached.contains(&place.id);
    let answers = seen.revision > server.asked_after;
    let host = server.host.clone().unwrap_or_default();
    let mut gone = Vec::new();
    for place in &server.volumes {
        let attachment = AttachmentId::from(place.attachment.as_str());
        if !place.detaching && there(place) {
            let waits = snapshot
                .get::<volume::Attachment>(&attachment)
                .is_some_and(|a| a.value.status == volume::AttachmentStatus::Attaching);
            if waits {
                volume::plan_attached(snapshot, txn, &attachment, &host);
                finish(snapshot, txn, id, server, place, ("compute_attach_volume", None));
            }
        } else if place.detaching && answers && !there(place) {
            volume::plan_detached(snapshot, txn, &attachment);
            finish(snapshot, txn, id, server, place, ("compute_detach_volume", None));
            gone.push(place.id.clone());
        }
    }
    server.volumes.retain(|v| !gone.contains(&v.id));
    !gone.is_empty()
}

/// Takes from `server` the volumes that are being plugged and are not there after `why` was reported as final; says whether there
/// was one.
pub(crate) fn give_up_volumes(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ServerId,
    server: &mut Server,
    seen: &ObservedServer,
    why: &str,
) -> bool {
    let fails = |place: &ServerVolume| {
        !place.detaching
            && !place.boot
            && !seen.attached.contains(&place.id)
            && snapshot
                .get::<volume::Attachment>(&AttachmentId::from(place.attachment.as_str()))
                .is_some_and(|a| a.value.status == volume::AttachmentStatus::Attaching)
    };
    let (gone, kept): (Vec<ServerVolume>, Vec<ServerVolume>) = server.volumes.drain(..).partition(fails);
    server.volumes = kept;
    for place in &gone {
        volume::plan_detached(snapshot, txn, &AttachmentId::from(place.attachment.as_str()));
        finish(snapshot, txn, id, server, place, ("compute_attach_volume", Some(why)));
    }
    if !gone.is_empty() {
        server.updated = maru_base::time::now();
        server.asked_after = snapshot.revision();
    }
    !gone.is_empty()
}

fn finish(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &str,
    server: &Server,
    place: &ServerVolume,
    (what, why): (&str, Option<&str>),
) {
    // An action's record is one key: a report that ends two of them tells the first.
    let key = maru_store::object_key::<crate::ServerAction>(&crate::action_id(&ServerId::from(id), &place.request_id));
    if txn.ops().iter().any(|op| *op.key() == key) {
        return;
    }
    let done = event(what, server.updated, server.host.as_deref(), why);
    finish_action(snapshot, txn, &ServerId::from(id), &place.request_id, done, true);
}

/// How many of a server's volumes each node holds: beside its volumes it reads them as files, elsewhere over the network.
pub(crate) fn holders(snapshot: &Snapshot, server: &Server) -> BTreeMap<String, u32> {
    let mut holders = BTreeMap::new();
    for place in &server.volumes {
        if let Some(found) = snapshot.get::<Volume>(&VolumeId::from(place.id.as_str()))
            && let Some(host) = &found.value.host
        {
            *holders.entry(host.clone()).or_insert(0) += 1;
        }
    }
    holders
}

/// The exports that the holder of a volume shall offer: one for each server that reaches it from another node, or shares it, as
/// long as it is attached. A server that is moved to another node gets another export, and the old one is cut.
#[must_use]
pub fn exports_of(snapshot: &Snapshot, found: &Object<Volume>) -> Vec<volume::Export> {
    let mut exports: Vec<volume::Export> = volume::attachments_of(snapshot, &found.id)
        .filter(|a| a.value.by_compute)
        .filter_map(|a| {
            let server = snapshot.get::<Server>(&ServerId::from(a.value.server_id.as_deref()?))?;
            let host = server.value.host.as_deref().filter(|_| server.value.placed)?;
            volume::exported(&found.value, host).then(|| a.value.export(&a.id, host))?
        })
        .collect();
    exports.sort_by(|a, b| a.name.cmp(&b.name));
    exports
}

/// What the volumes of a server that is being made are waiting for: `Ok(true)` when all have a node.
///
/// # Errors
/// Why one could not be made.
pub fn volumes_placed(snapshot: &Snapshot, server: &Server) -> Result<bool, String> {
    let mut all = true;
    for place in &server.volumes {
        match snapshot.get::<Volume>(&VolumeId::from(place.id.as_str())) {
            None => return Err(format!("Volume {} is gone.", place.id)),
            Some(v) if v.value.status == Status::Error => {
                return Err(format!(
                    "Volume {} could not be made: {}",
                    place.id,
                    v.value.fault.clone().unwrap_or_default()
                ));
            }
            Some(v) => all &= v.value.host.is_some(),
        }
    }
    Ok(all)
}
