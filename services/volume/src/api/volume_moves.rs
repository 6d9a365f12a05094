//! Actions that make a volume's bytes elsewhere or anew: migration, reimaging (3.68).

use crate::{
    api::wire::{self, Flag, invalid},
    app::{unmanaged, volumes as app_volumes},
    control::placing,
};
use maru_base::{Error, Result};
use maru_http::Request;
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{AttachmentStatus, Status, Volume, attachments_of};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigrateBody {
    host: Option<String>,
    cluster: Option<String>,
    /// Bytes are always copied by the nodes here.
    #[allow(dead_code)]
    force_host_copy: Option<Flag>,
    /// The volume is always kept from others while it moves.
    #[allow(dead_code)]
    lock_volume: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReimageBody {
    image_id: String,
    reimage_reserved: Option<Flag>,
}

/// Sends a volume to another node.
pub(crate) fn plan_migrate(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    body: &MigrateBody,
    request: &Request,
) -> Result<()> {
    wire::field_since(request, 16, "os-migrate_volume.cluster", body.cluster.is_some())?;
    let host = body.host.as_deref().ok_or_else(|| {
        invalid(
            "os-migrate_volume.host",
            "'host' is a required property: the back end to move to (there are no clusters here)",
        )
    })?;
    let v = &volume.value;
    let refuse = |why: String| Error::bad_request(format!("Invalid volume: Volume {} {why}", volume.id));
    if v.status != Status::Available || v.moving_to.is_some() {
        return Err(refuse(format!(
            "status must be available to migrate, but it is {}; detach it first.",
            v.status.word()
        )));
    }
    if v.snapshots > 0 {
        return Err(refuse(
            "must not have snapshots to migrate: these stay where they are.".to_owned(),
        ));
    }
    if let Some(group) = &v.group_id {
        return Err(refuse(format!(
            "must not be part of a group to migrate; it is in {group}."
        )));
    }
    if v.moved_from.is_some() {
        return Err(refuse(
            "has just moved and left bytes behind that are being removed; try again soon.".to_owned(),
        ));
    }
    let to = unmanaged::backend(snapshot, host)?;
    if v.host.as_deref() == Some(to.value.host.as_str()) {
        return Err(Error::bad_request(
            "Invalid input received: Destination host must be different than the current host.",
        ));
    }
    if let Some(why) = placing::refused(snapshot, volume, &to.value) {
        return Err(Error::bad_request(format!(
            "Invalid host: {host} cannot have the volume: it {why}."
        )));
    }
    let mut new = (**v).clone();
    new.before = Some(v.status);
    new.status = Status::Maintenance;
    new.moving_to = Some(to.value.host.clone());
    new.migration_status = Some("starting".to_owned());
    new.touch(&request.id, snapshot);
    txn.update(volume, &new);
    Ok(())
}

/// Checks what can be known without the store.
pub(crate) fn check_reimage(body: &ReimageBody) -> Result<()> {
    if wire::is_uuid(&body.image_id) {
        Ok(())
    } else {
        Err(invalid(
            "os-reimage.image_id",
            format!("'{}' is not a 'uuid'", body.image_id),
        ))
    }
}

/// Makes a volume's bytes anew of an image.
pub(crate) fn plan_reimage(
    snapshot: &Snapshot,
    txn: &mut Txn,
    volume: &Object<Volume>,
    body: &ReimageBody,
    request: &Request,
) -> Result<()> {
    let v = &volume.value;
    let reserved = body.reimage_reserved.is_some_and(|f| f.0) && v.status == Status::Reserved;
    if !matches!(v.status, Status::Available | Status::Error) && !reserved {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume status must be available or error to be re-imaged, but current status is: {}.",
            v.status.word()
        )));
    }
    let used = attachments_of(snapshot, &volume.id).any(|a| a.value.status != AttachmentStatus::Reserved);
    if used || v.host.is_none() {
        return Err(Error::bad_request(
            "Invalid volume: it is attached, or no back end has it: its bytes cannot be made anew.",
        ));
    }
    let origin = app_volumes::image(snapshot, request, &body.image_id)?;
    if origin.least > v.size {
        return Err(Error::bad_request(format!(
            "Invalid image {}: it needs {} GiB and the volume has {}.",
            body.image_id, origin.least, v.size
        )));
    }
    let mut new = (**v).clone();
    new.status = Status::Downloading;
    new.source = origin.source;
    new.image_metadata = origin.image_metadata;
    new.bootable = true;
    new.content += 1;
    new.touch(&request.id, snapshot);
    txn.update(volume, &new);
    Ok(())
}
