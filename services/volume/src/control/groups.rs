//! Groups and group snapshots follow their volumes and snapshots.
//!
//! ```text
//!  making ─► none of them is being made ─► available, or error when one could not be made
//!  removing ─► none is left ─► gone, its quota back
//! ```

use crate::app::groups::{snapshots_of, volumes_of};
use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_store::{Key, Kind, Op, Snapshot as View, Store, Txn};
use maru_volume_model::{
    Group, GroupId, GroupSnapshot, GroupSnapshotId, GroupStatus, Snapshot, SnapshotStatus, Status, Volume, VolumeId,
    group_epoch, quota,
};

/// The reconciler, keyed by `group/<id>` and `snapshot/<id>`.
pub(crate) struct Groups;

#[async_trait::async_trait]
impl Reconciler for Groups {
    fn name(&self) -> &'static str {
        "volume-groups"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Group::NAME, GroupSnapshot::NAME, Volume::NAME, Snapshot::NAME]
    }
    fn keys_for(&self, snapshot: &View, kind: &str, id: &str) -> Vec<String> {
        let group = |id: &GroupId| {
            snapshot
                .get::<Group>(id)
                .filter(|g| g.value.making || g.value.removing)
                .map(|g| format!("group/{}", g.id))
        };
        let of = |id: &GroupSnapshotId| {
            snapshot
                .get::<GroupSnapshot>(id)
                .filter(|g| g.value.making || g.value.removing)
                .map(|g| format!("snapshot/{}", g.id))
        };
        let key = match kind {
            Group::NAME => group(&id.into()),
            GroupSnapshot::NAME => of(&id.into()),
            Volume::NAME => match snapshot.get::<Volume>(&VolumeId::from(id)) {
                Some(v) => v.value.group_id.as_ref().and_then(group),
                // Whose it was is gone with it.
                None => return self.all(snapshot),
            },
            _ => match snapshot.get::<Snapshot>(&id.into()) {
                Some(s) => s.value.group_snapshot_id.as_ref().and_then(of),
                None => return self.all(snapshot),
            },
        };
        key.into_iter().collect()
    }
    fn all(&self, snapshot: &View) -> Vec<String> {
        let groups = snapshot
            .find::<Group>("work", "work")
            .map(|g| format!("group/{}", g.id));
        let snapshots = snapshot
            .find::<GroupSnapshot>("work", "work")
            .map(|g| format!("snapshot/{}", g.id));
        groups.chain(snapshots).collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                match key.split_once('/') {
                    Some(("group", id)) => group(snapshot, &mut txn, &GroupId::from(id)),
                    Some((_, id)) => group_snapshot(snapshot, &mut txn, &GroupSnapshotId::from(id)),
                    None => {}
                }
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}

fn group(snapshot: &View, txn: &mut Txn, id: &GroupId) {
    let Some(read) = snapshot.get::<Group>(id) else {
        return;
    };
    let volumes = volumes_of(snapshot, id);
    let mut new = (*read.value).clone();
    if new.removing {
        if volumes.is_empty() {
            quota::give(snapshot, txn, &new.project_id, &[("groups".to_owned(), 1)]);
            txn.op(Op::Delete(Key::of(&["epoch", &group_epoch(id)])));
            txn.delete(&read);
        }
        return;
    }
    if !new.making {
        return;
    }
    let waits = |s: Status| matches!(s, Status::Creating | Status::Downloading);
    if volumes.iter().any(|v| waits(v.value.status)) {
        return;
    }
    new.making = false;
    new.status = GroupStatus::Available;
    if let Some(failed) = volumes.iter().find(|v| v.value.status == Status::Error) {
        new.status = GroupStatus::Error;
        new.fault = Some(format!("The volume {} could not be made.", failed.id));
    }
    new.updated = Some(maru_base::time::now());
    txn.update(&read, &new);
}

fn group_snapshot(snapshot: &View, txn: &mut Txn, id: &GroupSnapshotId) {
    let Some(read) = snapshot.get::<GroupSnapshot>(id) else {
        return;
    };
    let children = snapshots_of(snapshot, id);
    let mut new = (*read.value).clone();
    if new.removing {
        if children.is_empty() {
            txn.delete(&read);
        }
        return;
    }
    if !new.making || children.iter().any(|s| s.value.status == SnapshotStatus::Creating) {
        return;
    }
    new.making = false;
    new.status = if children.iter().all(|s| s.value.status == SnapshotStatus::Available) {
        GroupStatus::Available
    } else {
        GroupStatus::Error
    };
    new.updated = Some(maru_base::time::now());
    txn.update(&read, &new);
}
