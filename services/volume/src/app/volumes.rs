//! Volumes: what a create request must be, and what is done to a volume.

use crate::{
    App,
    api::{
        volumes::CreateBody,
        wire::{self, invalid},
    },
};
use maru_base::{Error, Result};
use maru_http::Request;
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    self as model, Backend, Backup, BackupId, BackupStatus, DEFAULT_TYPE, NewVolume, SnapshotId, SnapshotStatus,
    Source, Status, Volume, VolumeId, VolumeType, find_snapshot, find_volume, plan_create_volume, plan_delete_snapshot,
    plan_delete_volume, quota, visible_type,
};
use std::collections::BTreeMap;

/// The largest volume, in GiB: 64 TiB, what a disk file may hold.
const MOST_GB: i64 = 65_536;

/// Makes a volume; gives its id.
///
/// `near` is a server that it shall be on the node of.
pub(crate) async fn create(app: &App, request: &Request, body: CreateBody, near: Option<String>) -> Result<VolumeId> {
    check(request, &body)?;
    // The id is fixed before the plan: a transaction that is planned again makes the same volume.
    let id = VolumeId::new_uuid();
    app.store
        .plan(|snapshot| {
            let mut volume = resolve(snapshot, request, &body)?;
            volume.wanted_host = near
                .as_deref()
                .map(|id| host_of(snapshot, &volume, id))
                .transpose()?
                .flatten();
            let mut txn = Txn::new();
            plan_create_volume(snapshot, &mut txn, &id, &volume)?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    Ok(id)
}

/// The node of a server of the same project.
fn host_of(snapshot: &Snapshot, volume: &Volume, server: &str) -> Result<Option<String>> {
    snapshot
        .get::<maru_compute_model::Server>(&server.into())
        .filter(|s| s.value.project_id == volume.project_id)
        .map(|s| s.value.host.clone())
        .ok_or_else(|| {
            Error::bad_request(format!(
                "Invalid input received: Instance {server} of the hint local_to_instance could not be found."
            ))
        })
}

/// Checks all that can be known without the store.
fn check(request: &Request, body: &CreateBody) -> Result<()> {
    if let Some(metadata) = &body.metadata {
        wire::check_metadata("volume.metadata", metadata)?;
    }
    wire::field_since(request, 47, "volume.backup_id", body.backup_id.is_some())?;
    for (field, id) in [
        ("volume.snapshot_id", &body.snapshot_id),
        ("volume.source_volid", &body.source_volid),
        ("volume.backup_id", &body.backup_id),
    ] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(field, format!("'{id}' is not a 'uuid'")));
        }
    }
    wire::field_since(request, 13, "volume.group_id", body.group_id.is_some())?;
    if body.consistencygroup_id.is_some() && body.group_id.is_some() {
        return Err(Error::bad_request(
            "Invalid input received: a volume is in one group; name a group_id or a consistencygroup_id.",
        ));
    }
    for (field, id) in [
        ("volume.group_id", &body.group_id),
        ("volume.consistencygroup_id", &body.consistencygroup_id),
    ] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(field, format!("'{id}' is not a 'uuid'")));
        }
    }
    let grouped = body.group_id.is_some() || body.consistencygroup_id.is_some();
    if grouped && body.volume_type.as_deref().is_none_or(str::is_empty) {
        return Err(Error::bad_request(
            "Invalid input received: volume_type must be provided when creating a volume in a group.",
        ));
    }
    let sources = [&body.snapshot_id, &body.source_volid, &body.image, &body.backup_id];
    if sources.iter().filter(|s| s.is_some()).count() > 1 {
        return Err(Error::bad_request(
            "Invalid input received: a volume is made of one of snapshot_id, source_volid, imageRef, backup_id; name one.",
        ));
    }
    if let Some(size) = body.size
        && size.0 < 1
    {
        return Err(invalid(
            "volume.size",
            format!("Volume size '{}' must be an integer and greater than 0", size.0),
        ));
    }
    if body.size.is_some_and(|s| s.0 > MOST_GB) {
        return Err(invalid("volume.size", format!("A volume has at most {MOST_GB} GiB.")));
    }
    Ok(())
}

/// What a volume inherits from what it is made of.
pub(crate) struct Origin {
    pub(crate) source: Source,
    /// Least size in GiB.
    pub(crate) least: u32,
    type_id: Option<model::VolumeTypeId>,
    pub(crate) image_metadata: BTreeMap<String, String>,
    bootable: bool,
    assemble: Option<BackupId>,
    snapshot_id: Option<SnapshotId>,
    source_volid: Option<VolumeId>,
}

impl Origin {
    fn blank() -> Self {
        Self {
            source: Source::Blank,
            least: 1,
            type_id: None,
            image_metadata: BTreeMap::new(),
            bootable: false,
            assemble: None,
            snapshot_id: None,
            source_volid: None,
        }
    }
}

/// Finds what the request names, and makes the volume of it.
fn resolve(snapshot: &Snapshot, request: &Request, body: &CreateBody) -> Result<Volume> {
    let caller = request.caller()?;
    let project = caller.require_project()?.clone();
    let origin = origin(snapshot, request, body)?;
    let size = match body.size {
        Some(size) => u32::try_from(size.0).unwrap_or(u32::MAX),
        None if matches!(origin.source, Source::Blank | Source::Image { .. }) => {
            return Err(invalid(
                "volume.size",
                "Volume size must be specified: a whole number of GiB greater than 0",
            ));
        }
        None => origin.least,
    };
    if size < origin.least {
        return Err(Error::bad_request(format!(
            "Invalid input received: Volume size {size}GB cannot be smaller than {}GB, the size of what it is made of.",
            origin.least
        )));
    }
    let named = body.volume_type.as_deref().filter(|t| !t.is_empty());
    let kind = match (named, &origin.type_id) {
        (Some(name), _) => visible_type(snapshot, name, Some(&project), caller.is_admin())
            .ok_or_else(|| Error::not_found(format!("Volume type with name {name} could not be found.")))?,
        (None, Some(id)) => snapshot
            .get::<VolumeType>(id)
            .ok_or_else(|| Error::bad_request(format!("The volume type {id} is gone; name another.")))?,
        (None, None) => default_type(snapshot, &project)?,
    };
    if let Some(id) = &body.consistencygroup_id {
        crate::api::consistency_groups::find(request, snapshot, id)?;
    }
    let group = body
        .group_id
        .as_deref()
        .or(body.consistencygroup_id.as_deref())
        .map(|id| group_for(snapshot, request, id, &kind))
        .transpose()?;
    if kind.value.encryption.is_some() {
        return Err(Error::not_implemented(format!(
            "The volume type {} asks for encryption, which this cloud does not do yet; take another type.",
            kind.value.name
        )));
    }
    let zone = zone(snapshot, body.availability_zone.as_deref())?;
    if body.multiattach.is_some_and(|f| f.0) && !kind.value.multiattach() {
        return Err(Error::bad_request(
            "Invalid input received: multiattach is asked for by a volume type with the extra spec multiattach='<is> True'.",
        ));
    }
    let new = NewVolume {
        project_id: &project,
        user_id: &caller.user_id,
        size,
        kind: &kind,
        zone,
        source: origin.source,
        request_id: &request.id,
    };
    Ok(Volume {
        name: wire::text("volume.name", body.name.clone().or_else(|| body.display_name.clone()))?,
        description: wire::text(
            "volume.description",
            body.description.clone().or_else(|| body.display_description.clone()),
        )?,
        metadata: body.metadata.clone().unwrap_or_default(),
        image_metadata: origin.image_metadata,
        bootable: origin.bootable,
        source_volid: origin.source_volid,
        snapshot_id: origin.snapshot_id,
        group_id: group,
        assemble: origin.assemble,
        ..Volume::new(snapshot, new)
    })
}

/// The group that a volume shall be in, if its type is one of the group's.
fn group_for(snapshot: &Snapshot, request: &Request, id: &str, kind: &Object<VolumeType>) -> Result<model::GroupId> {
    let group = crate::api::groups::find(request, snapshot, id)?;
    if group.value.removing {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {id} is being deleted."
        )));
    }
    if !group.value.volume_types.contains(&kind.id) {
        return Err(Error::bad_request(format!(
            "Invalid input received: Invalid volume_type {} provided for the group {id}; choose one of the group's volume \
             types.",
            kind.value.name
        )));
    }
    Ok(group.id)
}

/// The type of a project's volumes whose maker named none: the project's own default, else the cloud's.
pub(crate) fn default_type(snapshot: &Snapshot, project: &str) -> Result<Object<VolumeType>> {
    let own = snapshot
        .get::<model::DefaultType>(&model::DefaultTypeId::from(project))
        .and_then(|d| snapshot.get::<VolumeType>(&d.value.type_id));
    own.or_else(|| model::find_type(snapshot, DEFAULT_TYPE)).ok_or_else(|| {
        Error::not_found(format!(
            "Default volume type can not be found: {DEFAULT_TYPE} was removed; name a volume_type."
        ))
    })
}

/// The zone: as asked, if some backend is in it; else that of any.
pub(crate) fn zone(snapshot: &Snapshot, asked: Option<&str>) -> Result<String> {
    let mut zones: Vec<String> = snapshot.list::<Backend>().map(|b| b.value.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    match asked.filter(|z| !z.is_empty()) {
        Some(zone) if zones.iter().any(|z| z == zone) || (zones.is_empty() && zone == "nova") => Ok(zone.to_owned()),
        Some(zone) => Err(Error::bad_request(format!(
            "Invalid input received: Availability zone '{zone}' is invalid; choose from {}.",
            zones.join(", ")
        ))),
        None => Ok(zones.into_iter().next().unwrap_or_else(|| "nova".to_owned())),
    }
}

fn origin(snapshot: &Snapshot, request: &Request, body: &CreateBody) -> Result<Origin> {
    if let Some(id) = &body.snapshot_id {
        let from = crate::api::snapshots::find(request, snapshot, id)?;
        if from.value.status != SnapshotStatus::Available {
            return Err(Error::bad_request(format!(
                "Invalid snapshot: Originating snapshot status must be one of 'available' values, it is {}.",
                from.value.status.word()
            )));
        }
        let volume = find_volume(snapshot, &from.value.volume_id)?;
        return Ok(Origin {
            source: Source::Snapshot(from.id.clone()),
            least: from.value.size,
            type_id: Some(from.value.type_id.clone()),
            image_metadata: volume.value.image_metadata.clone(),
            bootable: volume.value.bootable,
            snapshot_id: Some(from.id.clone()),
            assemble: None,
            source_volid: None,
        });
    }
    if let Some(id) = &body.source_volid {
        let from = crate::api::volumes::find(request, snapshot, id)?;
        if !matches!(from.value.status, Status::Available | Status::InUse) {
            return Err(Error::bad_request(format!(
                "Invalid volume: Source volume status must be available or in-use, it is {}.",
                from.value.status.word()
            )));
        }
        return Ok(Origin {
            source: Source::Volume(from.id.clone()),
            least: from.value.size,
            type_id: Some(from.value.type_id.clone()),
            image_metadata: from.value.image_metadata.clone(),
            bootable: from.value.bootable,
            snapshot_id: None,
            assemble: None,
            source_volid: Some(from.id.clone()),
        });
    }
    if let Some(id) = &body.backup_id {
        let from = crate::api::backups::find(request, snapshot, id)?;
        let (BackupStatus::Available, Some(_)) = (from.value.status, &from.value.digest) else {
            return Err(Error::bad_request(format!(
                "Invalid backup: Backup status must be available, it is {}.",
                from.value.status.word()
            )));
        };
        let (source, assemble) = from.value.source(&from.id);
        return Ok(Origin {
            source,
            assemble,
            least: from.value.size,
            image_metadata: from.value.image_metadata.clone(),
            bootable: from.value.bootable,
            ..Origin::blank()
        });
    }
    match body.image.as_deref().filter(|i| !i.is_empty()) {
        Some(id) => image(snapshot, request, id),
        None => Ok(Origin::blank()),
    }
}

/// What a volume takes over from an image.
pub(crate) fn image(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Origin> {
    let missing =
        || Error::bad_request("Invalid input received: Invalid image identifier or unable to access requested image.");
    let image: Object<Image> =
        maru_image_model::find_visible(snapshot, request.caller()?, &ImageId::from(id)).ok_or_else(missing)?;
    let refuse = |why: String| Err(Error::bad_request(format!("Invalid image {id}: {why}")));
    if image.value.status != ImageStatus::Active {
        return refuse(format!("it is {}, and must be active.", image.value.status.as_str()));
    }
    let (Some(digest), Some(format)) = (&image.value.digest, &image.value.proven_format) else {
        return refuse("it has no data.".to_owned());
    };
    let format = match format.as_str() {
        "iso" | "raw" => "raw",
        "qcow2" => "qcow2",
        other => {
            return refuse(format!(
                "a volume cannot be made of the format {other}; convert it to qcow2 or raw."
            ));
        }
    };
    let gib = |bytes: u64| u32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(u32::MAX);
    let least = gib(image.value.virtual_size.or(image.value.size).unwrap_or(0))
        .max(u32::try_from(image.value.min_disk).unwrap_or(u32::MAX))
        .max(1);
    let mut metadata = image.value.properties.clone();
    for (key, value) in [
        ("image_id", Some(id.to_owned())),
        ("image_name", image.value.name.clone()),
        ("checksum", image.value.checksum.clone()),
        ("container_format", image.value.container_format.clone()),
        ("disk_format", image.value.disk_format.clone()),
        ("min_disk", Some(image.value.min_disk.to_string())),
        ("min_ram", Some(image.value.min_ram.to_string())),
        ("size", image.value.size.map(|n| n.to_string())),
    ] {
        if let Some(value) = value {
            metadata.insert(key.to_owned(), value);
        }
    }
    Ok(Origin {
        source: Source::Image {
            id: id.to_owned(),
            digest: digest.clone(),
            format: format.to_owned(),
        },
        least,
        image_metadata: metadata,
        bootable: true,
        ..Origin::blank()
    })
}

/// Deletes a volume with its snapshots: these first, the volume when they are gone (its controller waits for that).
pub(crate) fn plan_cascade(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    request_id: &str,
) -> Result<()> {
    let children: Vec<Object<model::Snapshot>> = snapshot.find::<model::Snapshot>("volume", &volume.id).collect();
    if children.is_empty() {
        return plan_delete_volume(snapshot, txn, volume, false, request_id);
    }
    if !volume.value.status.deletable() {
        // The same words as without cascade.
        return plan_delete_volume(snapshot, txn, volume, false, request_id);
    }
    for child in &children {
        plan_delete_snapshot(snapshot, txn, child, false, request_id)?;
    }
    let mut new = (*volume.value).clone();
    new.status = Status::Deleting;
    new.removing = true;
    new.touch(request_id, snapshot);
    txn.update(volume, &new);
    Ok(())
}

/// Makes a volume larger.
pub(crate) fn plan_extend(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    size: i64,
    request: &Request,
) -> Result<()> {
    let v = &volume.value;
    let attached = v.status == Status::InUse;
    if v.status != Status::Available && !(attached && request.at_least(3, 42)) {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} status must be '{{'status': 'available'}}' to extend, currently {}{}.",
            volume.id,
            v.status.word(),
            if attached {
                "; use microversion 3.42 or later for one that is in use"
            } else {
                ""
            }
        )));
    }
    if size > MOST_GB {
        return Err(invalid(
            "os-extend.new_size",
            format!("A volume has at most {MOST_GB} GiB."),
        ));
    }
    let new_size = u32::try_from(size).unwrap_or(0);
    if new_size <= v.size {
        return Err(Error::bad_request(format!(
            "Invalid input received: New size for extend must be greater than current size. (current: {}, extended: {size}).",
            v.size
        )));
    }
    let most = quota::limit(snapshot, &v.project_id, "per_volume_gigabytes");
    if most >= 0 && size > most {
        return Err(Error::too_large(format!(
            "Requested volume size {size}G is larger than maximum allowed limit {most}G."
        ))
        .with_code("overLimit"));
    }
    let by = i64::from(new_size - v.size);
    quota::take(snapshot, txn, &v.project_id, &quota::of_growth(&v.type_id, by))?;
    let mut new = (**v).clone();
    new.extending_from = Some(v.size);
    new.size = new_size;
    new.status = Status::Extending;
    new.touch(&request.id, snapshot);
    txn.update(volume, &new);
    Ok(())
}

/// Makes a volume's bytes anew from its newest snapshot (3.40).
pub(crate) fn plan_revert(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    id: &str,
    request_id: &str,
) -> Result<()> {
    let from = find_snapshot(snapshot, id)?;
    let newest = snapshot
        .find::<model::Snapshot>("volume", &volume.id)
        .max_by_key(|s| s.value.created);
    if newest.is_none_or(|s| s.id != from.id) {
        return Err(Error::bad_request(format!(
            "Invalid input received: Specified snapshot {id} is not the latest one of volume {}.",
            volume.id
        )));
    }
    if volume.value.status != Status::Available || from.value.status != SnapshotStatus::Available {
        return Err(Error::conflict(format!(
            "Volume {} and its snapshot must be available to revert; they are {} and {}.",
            volume.id,
            volume.value.status.word(),
            from.value.status.word()
        )));
    }
    model::check_still(snapshot, &volume.id)?;
    if volume.value.size != from.value.size {
        return Err(Error::bad_request(
            "Invalid input received: the volume was extended after the snapshot and cannot be reverted to it.",
        ));
    }
    let mut new = (*volume.value).clone();
    new.source = Source::Snapshot(from.id.clone());
    new.content += 1;
    new.status = Status::RestoringBackup;
    new.touch(request_id, snapshot);
    txn.alive::<model::Snapshot>(&from.id);
    txn.update(volume, &new);
    Ok(())
}

/// Makes a volume's bytes anew from a backup.
pub(crate) fn plan_restore(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    backup: &Object<Backup>,
    request_id: &str,
) -> Result<()> {
    if backup.value.digest.is_none() {
        return Err(Error::bad_request(
            "Invalid backup: it has no data; only an available one can be restored.",
        ));
    }
    let (source, assemble) = backup.value.source(&BackupId::from(backup.id.as_str()));
    if volume.value.status != Status::Available {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume to be restored to must be available, it is {}.",
            volume.value.status.word()
        )));
    }
    model::check_still(snapshot, &volume.id)?;
    if volume.value.size < backup.value.size {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume size {} is too small to restore backup of size {}.",
            volume.value.size, backup.value.size
        )));
    }
    let mut new = (*volume.value).clone();
    if assemble.is_none() {
        new.source = source;
        new.content += 1;
    }
    new.assemble = assemble;
    new.status = Status::RestoringBackup;
    new.backup = Some(backup.id.clone());
    new.touch(request_id, snapshot);
    txn.update(volume, &new);
    let mut restoring = (*backup.value).clone();
    restoring.status = BackupStatus::Restoring;
    restoring.updated = new.updated;
    txn.update(backup, &restoring);
    Ok(())
}
