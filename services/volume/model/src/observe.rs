//! What a node says of its volumes, and how their statuses follow.

use crate::{
    Backup, BackupStatus, SnapshotId, SnapshotStatus, Source, Status, Unmanaged, UnmanagedId, Volume, VolumeId,
    message, plan_forget_snapshot, plan_forget_volume, quota, snapshot_of_bytes, status_by_attachments,
};
use maru_base::Result;
use maru_store::Txn;

/// What a node says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSeen {
    /// The revision of the intent that this answers.
    pub revision: u64,
    /// Which making of the bytes is there; `None` when none is.
    pub content: Option<u64>,
    /// Bytes of the disk that is there.
    pub size: u64,
    /// Where it is offered, while it has exports.
    pub offered_at: Option<String>,
    /// Names of the exports that are open there.
    pub exports: Vec<String>,
    /// What cannot be carried out.
    pub fault: Option<String>,
    /// Whether that is final.
    pub fault_final: bool,
}

/// What a node says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSeen {
    /// Whether the copy is whole.
    pub made: bool,
    /// What cannot be carried out.
    pub fault: Option<String>,
    /// Whether that is final.
    pub fault_final: bool,
}

/// Moves a volume's status after a report of its host; a report of another node, or of a volume that is gone, is ignored.
pub fn plan_observe_volume(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    node: &str,
    id: &VolumeId,
    seen: &VolumeSeen,
) {
    let Some(volume) = snapshot.get::<Volume>(id) else {
        return;
    };
    let v = &volume.value;
    if v.host.as_deref() != Some(node) {
        return;
    }
    // Names are of one attachment and one node: no older intent can have meant them.
    if let Some(address) = &seen.offered_at {
        crate::plan_offered(snapshot, txn, id, address, &seen.exports);
    }
    if seen.revision <= v.asked_after || v.assemble.is_some() {
        return;
    }
    let made = seen.content == Some(v.content) && seen.size >= v.bytes();
    let failed = seen.fault.is_some() && seen.fault_final;
    let mut new = (**v).clone();
    if let Some(from) = v.moved_from.as_deref().filter(|_| !v.moved) {
        moved(snapshot, &mut new, id, from, made, failed);
        if new != **v {
            txn.update(&volume, &new);
        }
        return;
    }
    match v.status {
        Status::Managing if made => {
            new.status = Status::Available;
            if let Some(old) = new.takes_over.take().and_then(|u| snapshot.get::<Unmanaged>(&u)) {
                let mut gone = (*old.value).clone();
                gone.removing = true;
                txn.update(&old, &gone);
            }
        }
        Status::Managing if failed => new.status = Status::ErrorManaging,
        // A server may wait for it already.
        Status::Creating | Status::Downloading if made => new.status = status_by_attachments(snapshot, id),
        Status::Creating | Status::Downloading if failed => new.status = Status::Error,
        Status::RestoringBackup if made => new.status = Status::Available,
        Status::RestoringBackup if failed => new.status = Status::ErrorRestoring,
        Status::Extending if made => {
            new.extending_from = None;
            new.status = status_by_attachments(snapshot, id);
        }
        Status::Extending if failed => {
            // The room that was asked for is not there: the volume keeps the size it had.
            if let Some(before) = new.extending_from.take() {
                let by = i64::from(new.size) - i64::from(before);
                quota::give(snapshot, txn, &new.project_id, &quota::of_growth(&new.type_id, by));
                new.size = before;
            }
            new.status = Status::ErrorExtending;
        }
        _ => return,
    }
    new.fault = seen.fault.clone().filter(|_| failed);
    new.updated = Some(maru_base::time::now());
    if failed {
        let (action, detail) = what_failed(v);
        let event = message::Event {
            resource: "VOLUME",
            action,
            detail,
        };
        message::plan_message(txn, &v.project_id, id, &v.request_id, event);
    }
    if let Some(backup) = new.backup.take().and_then(|b| snapshot.get::<Backup>(&b))
        && backup.value.status == BackupStatus::Restoring
    {
        let mut done = (*backup.value).clone();
        done.status = BackupStatus::Available;
        done.updated = new.updated;
        txn.update(&backup, &done);
    }
    txn.update(&volume, &new);
}

/// The new node of a volume has its bytes, or cannot have them: then it stays where it was.
fn moved(snapshot: &maru_store::Snapshot, new: &mut Volume, id: &VolumeId, from: &str, made: bool, failed: bool) {
    if made {
        new.moved = true;
        new.migration_status = Some("success".to_owned());
    } else if failed {
        new.host = Some(from.to_owned());
        new.moved_from = None;
        new.content = new.content.saturating_sub(1);
        new.migration_status = Some("error".to_owned());
    } else {
        return;
    }
    new.moving_to = None;
    if new.status == Status::Maintenance {
        new.status = new.before.take().unwrap_or_else(|| status_by_attachments(snapshot, id));
    }
    new.asked_after = snapshot.revision();
    new.updated = Some(maru_base::time::now());
}

/// What a failure was the failure of, for its user message.
fn what_failed(v: &Volume) -> (message::Words, message::Words) {
    match (v.status, &v.source) {
        (Status::Extending, _) => (message::EXTEND, message::NOT_EXTENDED),
        (Status::RestoringBackup, _) | (_, Source::Backup { .. }) => (message::BACKUP_RESTORE, message::NOT_RESTORED),
        (Status::Downloading, _) if v.content > 0 => (message::REIMAGE, message::NOT_REIMAGED),
        (_, Source::Image { .. }) => (message::COPY_IMAGE, message::IMAGE_TOO_BIG),
        _ => (message::CREATE, message::NOT_CREATED),
    }
}

/// Moves a snapshot's status after a report of its host.
pub fn plan_observe_snapshot(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    node: &str,
    id: &SnapshotId,
    seen: &SnapshotSeen,
) {
    let Some(read) = snapshot_of_bytes(snapshot, id) else {
        return;
    };
    if read.value.host.as_deref() != Some(node) || read.value.status != SnapshotStatus::Creating {
        return;
    }
    let mut new = (*read.value).clone();
    if seen.made {
        new.status = SnapshotStatus::Available;
        new.progress = Some("100%".to_owned());
    } else if seen.fault.is_some() && seen.fault_final {
        new.status = SnapshotStatus::Error;
        new.fault.clone_from(&seen.fault);
        let event = message::Event {
            resource: "VOLUME_SNAPSHOT",
            action: message::SNAPSHOT_CREATE,
            detail: message::NOT_SNAPPED,
        };
        message::plan_message(txn, &new.project_id, &read.id, &new.request_id, event);
    } else {
        return;
    }
    new.updated = Some(maru_base::time::now());
    txn.update(&read, &new);
}

/// Finishes a volume's deletion: nothing of it is left on its host.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_volume_removed(snapshot: &maru_store::Snapshot, txn: &mut Txn, node: &str, id: &VolumeId) -> Result<()> {
    if let Some(v) = snapshot.get::<Volume>(id) {
        let mut new = (*v.value).clone();
        if new.host.as_deref() == Some(node) && new.removing {
            let Some(from) = new.moved_from.take() else {
                return plan_forget_volume(snapshot, txn, &v);
            };
            // The node that had it before has bytes still.
            new.host = Some(from);
            txn.update(&v, &new);
        } else if new.moved_from.as_deref() == Some(node) && new.moved {
            new.moved_from = None;
            new.moved = false;
            txn.update(&v, &new);
        }
        return Ok(());
    }
    plan_unmanaged_removed(snapshot, txn, node, id);
    Ok(())
}

/// Nothing is left of bytes without a volume or a snapshot.
fn plan_unmanaged_removed(snapshot: &maru_store::Snapshot, txn: &mut Txn, node: &str, id: &str) {
    if let Some(u) = snapshot.get::<Unmanaged>(&UnmanagedId::from(id))
        && u.value.host == node
        && u.value.removing
    {
        txn.delete(&u);
    }
}

/// Finishes a snapshot's deletion.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_snapshot_removed(
    snapshot: &maru_store::Snapshot,
    txn: &mut Txn,
    node: &str,
    id: &SnapshotId,
) -> Result<()> {
    match snapshot_of_bytes(snapshot, id) {
        Some(s) if s.value.host.as_deref() == Some(node) && s.value.removing => {
            return plan_forget_snapshot(snapshot, txn, &s);
        }
        Some(_) => {}
        None => plan_unmanaged_removed(snapshot, txn, node, id),
    }
    Ok(())
}
