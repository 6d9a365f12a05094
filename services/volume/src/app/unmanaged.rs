//! Letting go of volumes and snapshots, and taking what was let go of back.

use crate::api::wire::invalid;
use maru_base::{Error, Result};
use maru_store::{Object, Snapshot as View, Txn};
use maru_volume_model::{
    Backend, Snapshot, SnapshotStatus, Status, Unmanaged, UnmanagedId, Volume, attachments_of, find_backend,
    plan_forget_snapshot, plan_forget_volume,
};
use serde_json::Value;

/// How references of volumes begin, as upstream's drivers of files name them.
pub(crate) const VOLUME: &str = "volume-";
/// How references of snapshots begin.
pub(crate) const SNAPSHOT: &str = "_snapshot-";

/// Lets go of a volume: its record goes, its bytes stay.
pub(crate) fn plan_unmanage(snapshot: &View, txn: &mut Txn, volume: &Object<Volume>, request_id: &str) -> Result<()> {
    let v = &volume.value;
    let refuse = |why: String| {
        Error::bad_request(format!(
            "Invalid volume: Volume {} cannot be unmanaged: {why}",
            volume.id
        ))
    };
    if !matches!(v.status, Status::Available | Status::Error | Status::ErrorManaging) {
        return Err(refuse(format!(
            "it must be available or error, it is {}.",
            v.status.word()
        )));
    }
    if v.snapshots > 0 || attachments_of(snapshot, &volume.id).next().is_some() {
        return Err(refuse("it has snapshots or is attached.".to_owned()));
    }
    if let Some(group) = &v.group_id {
        return Err(refuse(format!("it is in the group {group}.")));
    }
    let host = v
        .host
        .clone()
        .filter(|_| v.moved_from.is_none())
        .ok_or_else(|| refuse("no back end has its bytes alone now.".to_owned()))?;
    txn.create(
        &UnmanagedId::from(volume.id.as_str()),
        &Unmanaged {
            host,
            snapshot_of: None,
            size: v.size,
            content: v.content,
            name: v.name.clone(),
            removing: false,
            request_id: request_id.to_owned(),
            created: maru_base::time::now(),
        },
    );
    plan_forget_volume(snapshot, txn, volume)
}

/// Lets go of a snapshot.
pub(crate) fn plan_unmanage_snapshot(
    snapshot: &View,
    txn: &mut Txn,
    read: &Object<Snapshot>,
    request_id: &str,
) -> Result<()> {
    let s = &read.value;
    let refuse = |why: &str| Error::bad_request(format!("Invalid snapshot: {} cannot be unmanaged: {why}", read.id));
    if s.status != SnapshotStatus::Available || s.removing {
        return Err(refuse("it must be available."));
    }
    if s.group_snapshot_id.is_some() {
        return Err(refuse("it is part of a group snapshot."));
    }
    let host = s.host.clone().ok_or_else(|| refuse("no back end has its bytes."))?;
    txn.create(
        &UnmanagedId::from(s.bytes_of(&read.id)),
        &Unmanaged {
            host,
            snapshot_of: Some(s.volume_id.clone()),
            size: s.size,
            content: 0,
            name: s.name.clone(),
            removing: false,
            request_id: request_id.to_owned(),
            created: maru_base::time::now(),
        },
    );
    plan_forget_snapshot(snapshot, txn, read)
}

/// The back end of a `host` as clients write it: `n1@local#local`.
pub(crate) fn backend(snapshot: &View, host: &str) -> Result<Object<Backend>> {
    let (node, rest) = host.split_once('@').unwrap_or((host, "local"));
    let pool = rest.split_once('#').map_or(rest, |(b, p)| if b == p { b } else { "" });
    find_backend(snapshot, node).filter(|_| pool == "local").ok_or_else(|| {
        Error::bad_request(format!(
            "Service with host {host} could not be found; see GET /os-services."
        ))
    })
}

/// What a reference names, on a node.
pub(crate) fn find(snapshot: &View, reference: &Value, of: Option<&Object<Volume>>) -> Result<Object<Unmanaged>> {
    let field = if of.is_some() { "snapshot.ref" } else { "volume.ref" };
    let name = ["source-name", "source-id"]
        .iter()
        .find_map(|k| reference.get(k))
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(field, "It must be an object with source-name."))?;
    let start = if of.is_some() { SNAPSHOT } else { VOLUME };
    let id = name.strip_prefix(start).unwrap_or(name);
    snapshot
        .get::<Unmanaged>(&UnmanagedId::from(id))
        .filter(|u| !u.value.removing && u.value.snapshot_of.as_ref() == of.map(|v| &v.id))
        .ok_or_else(|| {
            Error::bad_request(format!(
                "Invalid input received: Failed to manage existing {name}, because the reference is not one of what can be \
                 managed."
            ))
        })
}
