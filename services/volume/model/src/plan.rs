//! Making and removing volumes and snapshots, to be composed into others' transactions.

use crate::{
    Group, GroupSnapshot, GroupSnapshotId, GroupType, Snapshot, SnapshotId, SnapshotStatus, Source, Status, Volume,
    VolumeId, VolumeType, attachments_of, group_epoch, quota,
};
use maru_base::{Error, Result};
use maru_store::{Guard, Key, Object, Op, Txn};

/// A volume that exists.
///
/// # Errors
/// 404 in upstream's words.
pub fn find_volume(snapshot: &maru_store::Snapshot, id: &str) -> Result<Object<Volume>> {
    snapshot
        .get::<Volume>(&VolumeId::from(id))
        .ok_or_else(|| Error::not_found(format!("Volume {id} could not be found.")))
}

/// A snapshot that exists.
///
/// # Errors
/// 404 in upstream's words.
pub fn find_snapshot(snapshot: &maru_store::Snapshot, id: &str) -> Result<Object<Snapshot>> {
    snapshot
        .get::<Snapshot>(&SnapshotId::from(id))
        .ok_or_else(|| Error::not_found(format!("Snapshot {id} could not be found.")))
}

/// Makes a volume: quota, its type's life, and the life of what it is made from until it is made.
///
/// # Errors
/// 413 over quota.
pub fn plan_create_volume(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    id: &VolumeId,
    volume: &Volume,
) -> Result<()> {
    let most = quota::limit(snapshot, &volume.project_id, "per_volume_gigabytes");
    if most >= 0 && i64::from(volume.size) > most {
        return Err(Error::too_large(format!(
            "Requested volume size {}G is larger than maximum allowed limit {most}G.",
            volume.size
        ))
        .with_code("overLimit"));
    }
    quota::take(
        snapshot,
        txn,
        &volume.project_id,
        &quota::of_volume(&volume.type_id, i64::from(volume.size)),
    )?;
    txn.alive::<VolumeType>(&volume.type_id);
    txn.bump_epoch(&type_epoch(&volume.type_id));
    if let Some(group) = &volume.group_id {
        // One that is made in this very transaction needs no guard.
        if snapshot.get::<Group>(group).is_some() {
            txn.alive::<Group>(group);
        }
        txn.bump_epoch(&group_epoch(group));
    }
    match &volume.source {
        // What has no volume any more is guarded by who takes it over.
        Source::Volume(_) if volume.takes_over.is_some() => {}
        Source::Volume(source) => {
            txn.alive::<Volume>(source);
        }
        Source::Snapshot(source) => {
            txn.alive::<Snapshot>(source);
        }
        Source::Blank | Source::Image { .. } | Source::Backup { .. } => {}
    }
    txn.create(id, volume);
    Ok(())
}

/// The epoch that volumes of a type meet its deletion in.
#[must_use]
pub fn type_epoch(id: &str) -> String {
    format!("volume_type:{id}")
}

/// Ends an epoch together with its parent: of this and a transaction that bumps it at the same moment, one is planned again.
pub fn plan_end_epoch(snapshot: &maru_store::Snapshot, txn: &mut Txn, epoch: &str) {
    let key = Key::of(&["epoch", epoch]);
    txn.guard(match snapshot.raw(&key) {
        Some((revision, _)) => Guard::At(key.clone(), revision),
        None => Guard::Absent(key.clone()),
    });
    txn.op(Op::Delete(key));
}

/// What refuses a deletion whatever the status is: snapshots, attachments, copies that are being made of it.
fn held(snapshot: &maru_store::Snapshot, volume: &Object<Volume>) -> Result<()> {
    if volume.value.snapshots > 0 {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume must not have dependent snapshots; it has {}, delete them first (or pass cascade).",
            volume.value.snapshots
        )));
    }
    if attachments_of(snapshot, &volume.id).next().is_some() {
        return Err(Error::bad_request(
            "Invalid volume: Volume must not be attached to a server; detach it first.",
        ));
    }
    if copying(snapshot, |s| matches!(s, Source::Volume(id) if *id == volume.id)) {
        return Err(Error::bad_request(
            "Invalid volume: another volume is being copied from it; wait until that is available.",
        ));
    }
    Ok(())
}

/// Whether a volume is being made from such a source.
fn copying(snapshot: &maru_store::Snapshot, of: impl Fn(&Source) -> bool) -> bool {
    [Status::Creating, Status::Downloading, Status::RestoringBackup]
        .iter()
        .any(|status| {
            snapshot
                .find::<Volume>("status", status.word())
                .any(|v| of(&v.value.source))
        })
}

/// Asks for a volume's deletion: at once when no host has it, else its host removes the bytes first. `force` is for
/// administrators: it does not mind the status.
///
/// # Errors
/// 400 that names what holds it.
pub fn plan_delete_volume(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    force: bool,
    request_id: &str,
) -> Result<()> {
    if let Some(group) = &volume.value.group_id
        && !volume.value.removing
    {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume must not belong to a group; remove it from the group {group} first, or delete that with \
             its volumes."
        )));
    }
    plan_remove_volume(snapshot, txn, volume, force, request_id)
}

/// The same for a volume that may be in a group: the group's deletion takes it along.
///
/// # Errors
/// As [`plan_delete_volume`].
pub fn plan_remove_volume(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    force: bool,
    request_id: &str,
) -> Result<()> {
    if volume.value.removing {
        return Ok(());
    }
    if !force && !volume.value.status.deletable() {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume status must be available or error or error_restoring or error_extending or \
             error_managing and must not be migrating, attached, belong to a group, have snapshots or be disassociated \
             from snapshots after volume transfer. It is {}.",
            volume.value.status.word()
        )));
    }
    held(snapshot, volume)?;
    if volume.value.host.is_none() {
        return plan_forget_volume(snapshot, txn, volume);
    }
    let mut new = (*volume.value).clone();
    new.status = Status::Deleting;
    new.removing = true;
    new.touch(request_id, snapshot);
    txn.update(volume, &new);
    Ok(())
}

/// Removes the record of a volume that no host has (any more), and gives its quota back.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_forget_volume(snapshot: &maru_store::Snapshot, txn: &mut Txn, volume: &Object<Volume>) -> Result<()> {
    let v = &volume.value;
    let size = i64::from(v.extending_from.unwrap_or(v.size).max(v.size));
    quota::give(snapshot, txn, &v.project_id, &quota::of_volume(&v.type_id, size));
    txn.delete(volume);
    Ok(())
}

/// Makes a snapshot of a volume.
///
/// # Errors
/// 400 when the volume is not in a status for it, 413 over quota.
pub fn plan_create_snapshot(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    id: &SnapshotId,
    value: &Snapshot,
    force: bool,
) -> Result<()> {
    let status = volume.value.status;
    let may = status == Status::Available || (force && status == Status::InUse);
    if !may {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} status must be available{}, but current status is: {}.",
            volume.id,
            if force { " or in-use" } else { "" },
            status.word()
        )));
    }
    quota::take(
        snapshot,
        txn,
        &value.project_id,
        &quota::of_snapshot(&value.type_id, i64::from(value.size)),
    )?;
    let mut new = (*volume.value).clone();
    new.snapshots += 1;
    txn.update(volume, &new);
    if let Some(group) = &new.group_id {
        txn.bump_epoch(&group_epoch(group));
    }
    txn.create(id, value);
    Ok(())
}

/// Refuses to let a volume be written to while the snapshot of it is not made yet that its group has with those of its other
/// volumes as of one moment.
///
/// # Errors
/// 400 that names the group snapshot.
pub fn check_still(snapshot: &maru_store::Snapshot, volume: &VolumeId) -> Result<()> {
    let consistent = |id: &GroupSnapshotId| {
        snapshot
            .get::<GroupSnapshot>(id)
            .and_then(|of| snapshot.get::<GroupType>(&of.value.type_id))
            .is_some_and(|kind| kind.value.consistent())
    };
    let making = snapshot
        .find::<Snapshot>("volume", volume)
        .filter(|s| s.value.status == SnapshotStatus::Creating)
        .find_map(|s| s.value.group_snapshot_id.clone().filter(consistent));
    match making {
        Some(of) => Err(Error::bad_request(format!(
            "Invalid volume: Volume {volume} must stay as it is until its snapshot of the group snapshot {of} is made; try again then."
        ))),
        None => Ok(()),
    }
}

/// Asks for a snapshot's deletion.
///
/// # Errors
/// 400 that names what holds it.
pub fn plan_delete_snapshot(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    read: &Object<Snapshot>,
    force: bool,
    request_id: &str,
) -> Result<()> {
    if let Some(group) = &read.value.group_snapshot_id
        && !read.value.removing
    {
        return Err(Error::bad_request(format!(
            "Invalid snapshot: Snapshot must not be part of a group snapshot; delete the group snapshot {group}."
        )));
    }
    plan_remove_snapshot(snapshot, txn, read, force, request_id)
}

/// The same for a snapshot that may be of a group snapshot: that one's deletion takes it along.
///
/// # Errors
/// As [`plan_delete_snapshot`].
pub fn plan_remove_snapshot(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    read: &Object<Snapshot>,
    force: bool,
    request_id: &str,
) -> Result<()> {
    let status = read.value.status;
    if read.value.removing {
        return Ok(());
    }
    if !force
        && !matches!(
            status,
            SnapshotStatus::Available | SnapshotStatus::Error | SnapshotStatus::ErrorDeleting
        )
    {
        return Err(Error::bad_request(format!(
            "Invalid snapshot: Snapshot status must be available or error; it is {}.",
            status.word()
        )));
    }
    if copying(snapshot, |s| matches!(s, Source::Snapshot(id) if *id == read.id)) {
        return Err(Error::bad_request(
            "Invalid snapshot: a volume is being made of it; wait until that is available.",
        ));
    }
    if read.value.host.is_none() {
        return plan_forget_snapshot(snapshot, txn, read);
    }
    let mut new = (*read.value).clone();
    new.status = SnapshotStatus::Deleting;
    new.removing = true;
    request_id.clone_into(&mut new.request_id);
    new.updated = Some(maru_base::time::now());
    txn.update(read, &new);
    Ok(())
}

/// Removes the record of a snapshot that no host has (any more).
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_forget_snapshot(snapshot: &maru_store::Snapshot, txn: &mut Txn, read: &Object<Snapshot>) -> Result<()> {
    let s = &read.value;
    quota::give(
        snapshot,
        txn,
        &s.project_id,
        &quota::of_snapshot(&s.type_id, i64::from(s.size)),
    );
    if let Some(volume) = snapshot.get::<Volume>(&s.volume_id) {
        let mut new = (*volume.value).clone();
        new.snapshots = new.snapshots.saturating_sub(1);
        txn.update(&volume, &new);
    }
    txn.delete(read);
    Ok(())
}
