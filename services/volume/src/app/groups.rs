//! Groups of volumes: what is done to all volumes of one, in one transaction each.

use maru_base::{Error, Result};
use maru_http::Request;
use maru_store::{Object, Snapshot as View, Txn};
use maru_volume_model::{
    Group, GroupId, GroupSnapshot, GroupSnapshotId, GroupStatus, GroupType, GroupTypeId, NewVolume, Snapshot,
    SnapshotId, SnapshotStatus, Source, Status, Volume, VolumeId, VolumeType, VolumeTypeId, group_epoch,
    group_type_epoch, plan_create_snapshot, plan_create_volume, plan_remove_snapshot, plan_remove_volume, quota,
    type_epoch,
};
use std::collections::BTreeSet;

/// What a new group is told of itself.
pub(crate) struct NewGroup {
    pub name: Option<String>,
    pub description: Option<String>,
    pub zone: String,
}

/// The volumes of a group.
pub(crate) fn volumes_of(snapshot: &View, group: &str) -> Vec<Object<Volume>> {
    snapshot.find::<Volume>("group", group).collect()
}

/// The snapshots of a group snapshot.
pub(crate) fn snapshots_of(snapshot: &View, of: &str) -> Vec<Object<Snapshot>> {
    snapshot.find::<Snapshot>("group_snapshot", of).collect()
}

/// A group of a type for volumes of these types, all but written: who calls this writes it.
fn plan_new(
    snapshot: &View,
    txn: &mut Txn,
    request: &Request,
    new: &NewGroup,
    kind: &Object<GroupType>,
    types: &BTreeSet<VolumeTypeId>,
) -> Result<Group> {
    let caller = request.caller()?;
    let project = caller.require_project()?;
    quota::take(snapshot, txn, project, &[("groups".to_owned(), 1)])?;
    txn.alive::<GroupType>(&kind.id);
    txn.bump_epoch(&group_type_epoch(&kind.id));
    for id in types {
        txn.alive::<VolumeType>(id);
        txn.bump_epoch(&type_epoch(id));
    }
    let unmet = kind.value.unmet();
    Ok(Group {
        project_id: project.clone(),
        user_id: caller.user_id.clone(),
        name: new.name.clone(),
        description: new.description.clone(),
        type_id: kind.id.clone(),
        volume_types: types.clone(),
        zone: new.zone.clone(),
        status: if unmet.is_some() {
            GroupStatus::Error
        } else {
            GroupStatus::Available
        },
        making: false,
        removing: false,
        group_snapshot_id: None,
        source_group_id: None,
        fault: unmet.map(|spec| format!("No back end offers what the group type's spec {spec} asks for.")),
        request_id: request.id.to_string(),
        created: maru_base::time::now(),
        updated: None,
    })
}

/// Makes an empty group.
pub(crate) fn plan_create(
    snapshot: &View,
    txn: &mut Txn,
    request: &Request,
    id: &GroupId,
    new: &NewGroup,
    (kind, types): (&Object<GroupType>, &BTreeSet<VolumeTypeId>),
) -> Result<()> {
    let group = plan_new(snapshot, txn, request, new, kind, types)?;
    txn.create(id, &group);
    Ok(())
}

/// What a group is made of.
pub(crate) enum Origin {
    Group(Object<Group>),
    Snapshot(Object<GroupSnapshot>),
}

/// Makes a group with a copy of every volume of another, as it is or as it was when a group snapshot was made. `ids` gives
/// each copy its id: the same when the transaction is planned again.
pub(crate) fn plan_create_from(
    snapshot: &View,
    txn: &mut Txn,
    request: &Request,
    id: &GroupId,
    new: &NewGroup,
    origin: &Origin,
    mut ids: impl FnMut(&str) -> VolumeId,
) -> Result<()> {
    let (source, status) = match origin {
        Origin::Group(group) => (group.id.clone(), group.value.status),
        Origin::Snapshot(of) => (of.value.group_id.clone(), of.value.status),
    };
    if status != GroupStatus::Available {
        return Err(Error::bad_request(format!(
            "Invalid group: what a group is made of must be available, it is {}.",
            status.word()
        )));
    }
    let gone = || Error::bad_request("Invalid group: the group that this is a snapshot of is gone.");
    let source = snapshot.get::<Group>(&source).ok_or_else(gone)?;
    let kind = snapshot
        .get::<GroupType>(&GroupTypeId::from(source.value.type_id.as_str()))
        .ok_or_else(|| Error::bad_request("Invalid group: its group type is gone."))?;
    // Of two changes of the source's volumes planned at once, one is planned again.
    txn.over_set(snapshot, &group_epoch(&source.id));
    let new = NewGroup {
        name: new.name.clone(),
        description: new.description.clone(),
        zone: source.value.zone.clone(),
    };
    let mut made = plan_new(snapshot, txn, request, &new, &kind, &source.value.volume_types)?;
    let mut copies: Vec<(Object<Volume>, Source, u32)> = Vec::new();
    match origin {
        Origin::Group(_) => {
            made.source_group_id = Some(source.id.clone());
            for v in volumes_of(snapshot, &source.id) {
                if !matches!(v.value.status, Status::Available | Status::InUse) {
                    return Err(Error::bad_request(format!(
                        "Invalid volume: the volume {} of the group must be available or in-use, it is {}.",
                        v.id,
                        v.value.status.word()
                    )));
                }
                let size = v.value.size;
                copies.push((v.clone(), Source::Volume(v.id.clone()), size));
            }
        }
        Origin::Snapshot(of) => {
            made.group_snapshot_id = Some(of.id.clone());
            for s in snapshots_of(snapshot, &of.id) {
                let v = maru_volume_model::find_volume(snapshot, &s.value.volume_id)?;
                copies.push((v, Source::Snapshot(s.id.clone()), s.value.size));
            }
        }
    }
    if copies.is_empty() {
        return Err(Error::bad_request(
            "Invalid group: there is no volume in what this group shall be made of; make an empty one with POST /groups.",
        ));
    }
    let caller = request.caller()?;
    let project = caller.require_project()?;
    for (v, source, size) in copies {
        let kind = snapshot
            .get::<VolumeType>(&v.value.type_id)
            .ok_or_else(|| Error::bad_request(format!("The type of the volume {} is gone.", v.id)))?;
        let copy = Volume {
            name: v.value.name.clone(),
            description: v.value.description.clone(),
            metadata: v.value.metadata.clone(),
            image_metadata: v.value.image_metadata.clone(),
            bootable: v.value.bootable,
            source_volid: match &source {
                Source::Volume(id) => Some(id.clone()),
                _ => None,
            },
            snapshot_id: match &source {
                Source::Snapshot(id) => Some(id.clone()),
                _ => None,
            },
            group_id: Some(id.clone()),
            ..Volume::new(
                snapshot,
                NewVolume {
                    project_id: project,
                    user_id: &caller.user_id,
                    size,
                    kind: &kind,
                    zone: v.value.zone.clone(),
                    source,
                    request_id: &request.id,
                },
            )
        };
        plan_create_volume(snapshot, txn, &ids(&v.id), &copy)?;
    }
    made.status = GroupStatus::Creating;
    made.making = true;
    txn.create(id, &made);
    Ok(())
}

/// Asks for a group's deletion: with its volumes, or only when it is empty.
pub(crate) fn plan_delete(
    snapshot: &View,
    txn: &mut Txn,
    group: &Object<Group>,
    with_volumes: bool,
    request_id: &str,
) -> Result<()> {
    let g = &group.value;
    if g.removing {
        return Ok(());
    }
    if !matches!(g.status, GroupStatus::Available | GroupStatus::Error) {
        return Err(Error::bad_request(format!(
            "Invalid group: Group status must be available or error, but current status is: {}.",
            g.status.word()
        )));
    }
    if snapshot.find::<GroupSnapshot>("group", &group.id).next().is_some() {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} still has group snapshots; delete them first.",
            group.id
        )));
    }
    let volumes = volumes_of(snapshot, &group.id);
    if !with_volumes && !volumes.is_empty() {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} still contains volumes. The delete-volumes flag is required to delete it.",
            group.id
        )));
    }
    txn.over_set(snapshot, &group_epoch(&group.id));
    for volume in &volumes {
        plan_remove_volume(snapshot, txn, volume, false, request_id)?;
    }
    let mut new = (**g).clone();
    new.status = GroupStatus::Deleting;
    new.making = false;
    new.removing = true;
    request_id.clone_into(&mut new.request_id);
    new.updated = Some(maru_base::time::now());
    txn.update(group, &new);
    Ok(())
}

/// Puts volumes into a group and takes others out of it.
pub(crate) fn plan_members(
    snapshot: &View,
    txn: &mut Txn,
    group: &Object<Group>,
    add: &[String],
    remove: &[String],
) -> Result<()> {
    let refuse = |id: &str, why: &str| Error::bad_request(format!("Invalid volume: Cannot change volume {id}: {why}"));
    txn.over_set(snapshot, &group_epoch(&group.id));
    for id in remove {
        let volume = snapshot
            .get::<Volume>(&VolumeId::from(id.as_str()))
            .filter(|v| v.value.group_id.as_ref() == Some(&group.id))
            .ok_or_else(|| refuse(id, &format!("it is not in the group {}.", group.id)))?;
        let may = matches!(
            volume.value.status,
            Status::Available | Status::InUse | Status::Error | Status::ErrorDeleting
        );
        if !may {
            return Err(refuse(id, &format!("it is {}.", volume.value.status.word())));
        }
        let mut new = (*volume.value).clone();
        new.group_id = None;
        new.updated = Some(maru_base::time::now());
        txn.update(&volume, &new);
    }
    for id in add {
        let volume = snapshot
            .get::<Volume>(&VolumeId::from(id.as_str()))
            .filter(|v| v.value.project_id == group.value.project_id)
            .ok_or_else(|| refuse(id, "it cannot be found."))?;
        let v = &volume.value;
        if let Some(other) = &v.group_id {
            return Err(refuse(id, &format!("it is in the group {other} already.")));
        }
        if !group.value.volume_types.contains(&v.type_id) {
            return Err(refuse(
                id,
                &format!("its type {} is not one of the group's volume types.", v.type_id),
            ));
        }
        if !matches!(v.status, Status::Available | Status::InUse) {
            return Err(refuse(
                id,
                &format!("it must be available or in-use, it is {}.", v.status.word()),
            ));
        }
        let mut new = (**v).clone();
        new.group_id = Some(group.id.clone());
        new.updated = Some(maru_base::time::now());
        txn.update(&volume, &new);
    }
    Ok(())
}

/// Makes a snapshot of every volume of a group.
pub(crate) fn plan_create_snapshots(
    snapshot: &View,
    txn: &mut Txn,
    request: &Request,
    id: &GroupSnapshotId,
    group: &Object<Group>,
    (name, description): (&Option<String>, &Option<String>),
    mut ids: impl FnMut(&str) -> SnapshotId,
) -> Result<()> {
    if group.value.status != GroupStatus::Available || group.value.removing {
        return Err(Error::bad_request(format!(
            "Invalid group: Group status must be available to make a snapshot of it, it is {}.",
            group.value.status.word()
        )));
    }
    let volumes = volumes_of(snapshot, &group.id);
    if volumes.is_empty() {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} has no volume that a snapshot could be made of.",
            group.id
        )));
    }
    // What no server has is not written to, and until its snapshot is made none gets it (`check_still`).
    let consistent = snapshot
        .get::<GroupType>(&group.value.type_id)
        .is_some_and(|t| t.value.consistent());
    if let Some(busy) = volumes
        .iter()
        .find(|v| consistent && v.value.status != Status::Available)
    {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} is {}; the group's type asks for snapshots as of one moment, which are made of volumes \
             that no server has. Detach it first.",
            busy.id,
            busy.value.status.word()
        )));
    }
    txn.over_set(snapshot, &group_epoch(&group.id));
    txn.unchanged(group);
    let caller = request.caller()?;
    let now = maru_base::time::now();
    for volume in &volumes {
        let v = &volume.value;
        let value = Snapshot {
            volume_id: volume.id.clone(),
            project_id: v.project_id.clone(),
            user_id: caller.user_id.clone(),
            name: name.clone(),
            description: description.clone(),
            size: v.size,
            type_id: v.type_id.clone(),
            host: v.host.clone(),
            status: SnapshotStatus::Creating,
            removing: false,
            progress: None,
            metadata: std::collections::BTreeMap::new(),
            group_snapshot_id: Some(id.clone()),
            bytes: None,
            fault: None,
            request_id: request.id.to_string(),
            created: now,
            updated: None,
        };
        plan_create_snapshot(snapshot, txn, volume, &ids(&volume.id), &value, true)?;
    }
    txn.create(
        id,
        &GroupSnapshot {
            group_id: group.id.clone(),
            type_id: group.value.type_id.clone(),
            project_id: group.value.project_id.clone(),
            user_id: caller.user_id.clone(),
            name: name.clone(),
            description: description.clone(),
            status: GroupStatus::Creating,
            making: true,
            removing: false,
            request_id: request.id.to_string(),
            created: now,
            updated: None,
        },
    );
    Ok(())
}

/// Asks for a group snapshot's deletion, with all its snapshots.
pub(crate) fn plan_delete_snapshots(
    snapshot: &View,
    txn: &mut Txn,
    of: &Object<GroupSnapshot>,
    request_id: &str,
) -> Result<()> {
    if of.value.removing {
        return Ok(());
    }
    if !matches!(of.value.status, GroupStatus::Available | GroupStatus::Error) {
        return Err(Error::bad_request(format!(
            "Invalid group snapshot: its status must be available or error, it is {}.",
            of.value.status.word()
        )));
    }
    for s in snapshots_of(snapshot, &of.id) {
        plan_remove_snapshot(snapshot, txn, &s, false, request_id)?;
    }
    let mut new = (*of.value).clone();
    new.status = GroupStatus::Deleting;
    new.making = false;
    new.removing = true;
    request_id.clone_into(&mut new.request_id);
    new.updated = Some(maru_base::time::now());
    txn.update(of, &new);
    Ok(())
}
