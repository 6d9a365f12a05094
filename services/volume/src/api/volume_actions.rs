//! `POST /volumes/{id}/action`.

use crate::{
    App,
    api::{
        volume_moves,
        volumes::find,
        wire::{self, Count, Flag, invalid, map_of, typed},
    },
    app::volumes as app_volumes,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_image_model::{Image, ImageId, Visibility};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    AttachmentId, AttachmentStatus, Mode, Status, Upload, Volume, attachments_of, plan_attached, plan_delete_volume,
    plan_detach, plan_detaching, plan_reserve, quota, visible_type,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// One change of one volume, in one transaction.
async fn change(
    app: &App,
    request: &Request,
    plan: impl Fn(&Snapshot, &mut Txn, &Object<Volume>) -> Result<()> + Send,
) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let volume = find(request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            plan(snapshot, &mut txn, &volume)?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)
}

/// The same, of the volume's own fields.
async fn edit(app: &App, request: &Request, change_it: impl Fn(&mut Volume) -> Result<()> + Send + Sync) -> Result<()> {
    change(app, request, |_, txn, volume| {
        let mut new = (*volume.value).clone();
        change_it(&mut new)?;
        new.updated = Some(maru_base::time::now());
        txn.update(volume, &new);
        Ok(())
    })
    .await
}

/// `POST /volumes/{id}/action`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, value) = wire::action(&mut request).await?;
    {
        let snapshot = app.store.current().await?;
        find(&request, &snapshot, request.param("id"))?;
    }
    if let Some(rule) = admin_rule(&name) {
        request.authorize_rule(rule, &Target::none())?;
    }
    match name.as_str() {
        "os-reserve" => change(&app, &request, |snapshot, txn, volume| {
            plan_reserve(snapshot, txn, volume, &AttachmentId::new_uuid(), None, None).map(drop)
        })
        .await
        .map(|()| Reply::empty(202)),
        "os-unreserve" => unreserve(&app, &request).await,
        "os-attach" => attach(&app, &request, typed("os-attach", value)?).await,
        "os-begin_detaching" => begin_detaching(&app, &request).await,
        "os-roll_detaching" => roll_detaching(&app, &request).await,
        "os-detach" | "os-force_detach" => detach(&app, &request, &map_of(&name, value)?).await,
        "os-initialize_connection" => connection(&app, &request).await,
        "os-terminate_connection" => Ok(Reply::empty(202)),
        "os-extend" => {
            let body: ExtendBody = typed("os-extend", value)?;
            let size = i64::try_from(body.new_size.at_least("os-extend.new_size", 1)?).unwrap_or(i64::MAX);
            change(&app, &request, |snapshot, txn, volume| {
                app_volumes::plan_extend(snapshot, txn, volume, size, &request)
            })
            .await?;
            Ok(Reply::empty(202))
        }
        "os-set_bootable" => {
            let body: BootableBody = typed("os-set_bootable", value)?;
            edit(&app, &request, |v| {
                v.bootable = body.bootable.0;
                Ok(())
            })
            .await?;
            Ok(Reply::empty(200))
        }
        "os-update_readonly_flag" => {
            let body: ReadonlyBody = typed("os-update_readonly_flag", value)?;
            edit(&app, &request, |v| {
                if v.status != Status::Available {
                    return Err(Error::bad_request(format!(
                        "Invalid volume: Volume must be available to update readonly flag. But current status is: {}",
                        v.status.word()
                    )));
                }
                v.readonly = Some(body.readonly.0);
                Ok(())
            })
            .await?;
            Ok(Reply::empty(202))
        }
        "os-set_image_metadata" => {
            let body: ImageMetadataBody = typed("os-set_image_metadata", value)?;
            wire::check_metadata("os-set_image_metadata.metadata", &body.metadata)?;
            edit(&app, &request, |v| {
                v.image_metadata.extend(body.metadata.clone());
                Ok(())
            })
            .await?;
            image_metadata(&app, &request)
        }
        "os-unset_image_metadata" => {
            let body: KeyBody = typed("os-unset_image_metadata", value)?;
            edit(&app, &request, |v| {
                v.image_metadata
                    .remove(&body.key)
                    .map(drop)
                    .ok_or_else(|| Error::not_found(format!("Metadata does not exist: {}.", body.key)))
            })
            .await?;
            Ok(Reply::empty(200))
        }
        "os-show_image_metadata" => image_metadata(&app, &request),
        "os-volume_upload_image" => upload(&app, &request, typed("os-volume_upload_image", value)?).await,
        "os-retype" => retype(&app, &request, typed("os-retype", value)?).await,
        "os-reset_status" => reset_status(&app, &request, typed("os-reset_status", value)?).await,
        "os-force_delete" => change(&app, &request, |snapshot, txn, volume| {
            plan_delete_volume(snapshot, txn, volume, true, &request.id)
        })
        .await
        .map(|()| Reply::empty(202)),
        "revert" => {
            wire::since(&request, 40)?;
            let body: RevertBody = typed("revert", value)?;
            change(&app, &request, |snapshot, txn, volume| {
                app_volumes::plan_revert(snapshot, txn, volume, &body.snapshot_id, &request.id)
            })
            .await?;
            Ok(Reply::empty(202))
        }
        "os-unmanage" => {
            map_of(&name, value)?;
            change(&app, &request, |snapshot, txn, volume| {
                crate::app::unmanaged::plan_unmanage(snapshot, txn, volume, &request.id)
            })
            .await?;
            Ok(Reply::empty(202))
        }
        "os-migrate_volume" => {
            let body = typed("os-migrate_volume", value)?;
            change(&app, &request, |snapshot, txn, volume| {
                volume_moves::plan_migrate(snapshot, txn, volume, &body, &request)
            })
            .await?;
            Ok(Reply::empty(202))
        }
        "os-migrate_volume_completion" | "os-extend_volume_completion" => {
            map_of(&name, value)?;
            Err(Error::bad_request(format!(
                "Invalid volume: nothing waits for {name}: this cloud finishes migrations and extensions itself."
            )))
        }
        "os-reimage" => {
            wire::since(&request, 68)?;
            let target = Target::of_caller(request.caller()?);
            request.authorize_rule("volume_extension:volume_actions:reimage", &target)?;
            let body = typed("os-reimage", value)?;
            volume_moves::check_reimage(&body)?;
            change(&app, &request, |snapshot, txn, volume| {
                volume_moves::plan_reimage(snapshot, txn, volume, &body, &request)
            })
            .await?;
            Ok(Reply::empty(202))
        }
        other => Err(Error::bad_request(format!("There is no such action: {other}"))),
    }
}

/// Rules of actions that are not the owner's.
fn admin_rule(action: &str) -> Option<&'static str> {
    Some(match action {
        "os-reset_status" => "volume_extension:volume_admin_actions:reset_status",
        "os-force_delete" => "volume_extension:volume_admin_actions:force_delete",
        "os-force_detach" => "volume_extension:volume_admin_actions:force_detach",
        "os-migrate_volume" => "volume_extension:volume_admin_actions:migrate_volume",
        "os-migrate_volume_completion" => "volume_extension:volume_admin_actions:migrate_volume_completion",
        "os-unmanage" => "volume_extension:volume_unmanage",
        _ => return None,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendBody {
    new_size: Count,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootableBody {
    bootable: Flag,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadonlyBody {
    readonly: Flag,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageMetadataBody {
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevertBody {
    snapshot_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachBody {
    instance_uuid: Option<String>,
    host_name: Option<String>,
    mountpoint: String,
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetypeBody {
    new_type: String,
    migration_policy: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    status: Option<String>,
    attach_status: Option<String>,
    migration_status: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadBody {
    image_name: String,
    force: Option<Flag>,
    disk_format: Option<String>,
    container_format: Option<String>,
    visibility: Option<String>,
    protected: Option<Flag>,
}

/// The attachment that this API's actions speak of: the one named, or the only one.
fn the_attachment(snapshot: &Snapshot, volume: &Object<Volume>, id: Option<&str>) -> Result<AttachmentId> {
    let mut all: Vec<AttachmentId> = attachments_of(snapshot, &volume.id).map(|a| a.id).collect();
    match (id, all.len()) {
        (Some(id), _) => all.into_iter().find(|a| a == id).ok_or_else(|| {
            Error::not_found(format!(
                "Volume attachment could not be found with filter: attachment_id={id}."
            ))
        }),
        (None, 1) => Ok(all.remove(0)),
        (None, 0) => Err(Error::bad_request(format!(
            "Invalid volume: volume {} has no attachment.",
            volume.id
        ))),
        (None, n) => Err(Error::bad_request(format!(
            "Invalid volume: volume {} has {n} attachments; name one by attachment_id.",
            volume.id
        ))),
    }
}

async fn unreserve(app: &App, request: &Request) -> Result<Reply> {
    change(app, request, |snapshot, txn, volume| {
        let reserved = attachments_of(snapshot, &volume.id).find(|a| a.value.status == AttachmentStatus::Reserved);
        if let Some(a) = reserved {
            plan_detach(snapshot, txn, &a.id);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Records an attachment that someone else made (bare metal, a host): nothing is plugged by this.
async fn attach(app: &App, request: &Request, body: AttachBody) -> Result<Reply> {
    if body.instance_uuid.is_none() && body.host_name.is_none() {
        return Err(invalid(
            "os-attach",
            "Invalid request to attach volume to an invalid target; name instance_uuid or host_name.",
        ));
    }
    if let Some(id) = &body.instance_uuid
        && !wire::is_uuid(id)
    {
        return Err(invalid("os-attach.instance_uuid", format!("'{id}' is not a 'uuid'")));
    }
    if body.mountpoint.is_empty() || body.mountpoint.len() > 255 {
        return Err(invalid("os-attach.mountpoint", "It has 1 to 255 characters."));
    }
    let mode = match body.mode.as_deref() {
        None | Some("rw") => Mode::Rw,
        Some("ro") => Mode::Ro,
        Some(other) => return Err(invalid("os-attach.mode", format!("'{other}' is neither rw nor ro."))),
    };
    let fresh = AttachmentId::new_uuid();
    change(app, request, |snapshot, txn, volume| {
        if volume.value.is_readonly() && mode == Mode::Rw {
            return Err(Error::bad_request(format!(
                "Invalid attachment mode 'rw' for volume '{}': it is read-only; use mode ro.",
                volume.id
            )));
        }
        let reserved = attachments_of(snapshot, &volume.id).find(|a| a.value.status == AttachmentStatus::Reserved);
        let id = match &reserved {
            Some(a) => {
                // Its planner writes the volume's status; the particulars go into the same object.
                let mut new = (*a.value).clone();
                new.server_id.clone_from(&body.instance_uuid);
                new.host.clone_from(&body.host_name);
                new.device = Some(body.mountpoint.clone());
                new.mode = mode;
                new.status = AttachmentStatus::Attached;
                new.attached = Some(maru_base::time::now());
                txn.update(a, &new);
                None
            }
            None => Some(&fresh),
        };
        if let Some(id) = id {
            let mut scratch = Txn::new();
            let mut made = plan_reserve(
                snapshot,
                &mut scratch,
                volume,
                id,
                body.instance_uuid.as_deref(),
                Some(mode),
            )?;
            made.host.clone_from(&body.host_name);
            made.device = Some(body.mountpoint.clone());
            made.status = AttachmentStatus::Attached;
            made.attached = Some(maru_base::time::now());
            txn.create(id, &made);
        }
        let mut new = (*volume.value).clone();
        new.status = Status::InUse;
        new.updated = Some(maru_base::time::now());
        txn.update(volume, &new);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn begin_detaching(app: &App, request: &Request) -> Result<Reply> {
    change(app, request, |snapshot, txn, volume| {
        if volume.value.status != Status::InUse {
            return Err(Error::bad_request(format!(
                "Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be \
                 'attached' to detach; it is {}.",
                volume.value.status.word()
            )));
        }
        let id = the_attachment(snapshot, volume, None)?;
        plan_detaching(snapshot, txn, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn roll_detaching(app: &App, request: &Request) -> Result<Reply> {
    change(app, request, |snapshot, txn, volume| {
        if volume.value.status == Status::Detaching
            && let Some(a) =
                attachments_of(snapshot, &volume.id).find(|a| a.value.status == AttachmentStatus::Detaching)
        {
            let host = a.value.host.clone().unwrap_or_default();
            plan_attached(snapshot, txn, &a.id, &host);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn detach(app: &App, request: &Request, body: &Map<String, Value>) -> Result<Reply> {
    let named = body.get("attachment_id").and_then(Value::as_str);
    change(app, request, |snapshot, txn, volume| {
        let id = the_attachment(snapshot, volume, named)?;
        let held = snapshot
            .get::<maru_volume_model::Attachment>(&id)
            .is_some_and(|a| super::attachments::compute_holds(&a));
        if held {
            return Err(Error::bad_request(
                "Invalid volume: it is attached to a server of this cloud; detach it there (server remove volume).",
            ));
        }
        plan_detach(snapshot, txn, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// How a host would reach the volume. Servers of this cloud never ask: compute tells their node.
async fn connection(app: &App, request: &Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let volume = find(request, &snapshot, request.param("id"))?;
    Reply::json(
        200,
        &json!({"connection_info": {
            "driver_volume_type": "local",
            "data": {
                "volume_id": volume.id.as_str(), "access_mode": if volume.value.is_readonly() { "ro" } else { "rw" },
                "host": volume.value.host, "encrypted": false, "qos_specs": Value::Null,
            },
        }}),
    )
}

fn image_metadata(app: &App, request: &Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let volume = find(request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"metadata": volume.value.image_metadata}))
}

/// Makes an image of the volume's bytes: the image is queued in the same transaction that marks the volume.
async fn upload(app: &App, request: &Request, body: UploadBody) -> Result<Reply> {
    let format = body.disk_format.as_deref().unwrap_or("raw");
    if !matches!(format, "raw" | "qcow2") {
        return Err(invalid(
            "os-volume_upload_image.disk_format",
            format!("'{format}' is not one of raw, qcow2: this cloud uploads no other."),
        ));
    }
    let container = body.container_format.as_deref().unwrap_or("bare");
    if container != "bare" {
        return Err(invalid(
            "os-volume_upload_image.container_format",
            format!("'{container}' is not one of bare: this cloud uploads no other."),
        ));
    }
    if body.image_name.is_empty() || body.image_name.chars().count() > 255 {
        return Err(invalid(
            "os-volume_upload_image.image_name",
            "It has 1 to 255 characters.",
        ));
    }
    wire::field_since(
        request,
        1,
        "os-volume_upload_image.visibility",
        body.visibility.is_some(),
    )?;
    wire::field_since(request, 1, "os-volume_upload_image.protected", body.protected.is_some())?;
    let visibility = match body.visibility.as_deref() {
        None | Some("private") => Visibility::Private,
        Some("shared") => Visibility::Shared,
        Some("community") => Visibility::Community,
        Some("public") => Visibility::Public,
        Some(other) => {
            return Err(invalid(
                "os-volume_upload_image.visibility",
                format!("'{other}' is not one of community, public, private, shared"),
            ));
        }
    };
    if visibility == Visibility::Public {
        request.authorize_rule("volume_extension:volume_actions:upload_public", &Target::none())?;
    }
    let force = body.force.is_some_and(|f| f.0);
    let image_id = ImageId::new_uuid();
    change(app, request, |snapshot, txn, volume| {
        let v = &volume.value;
        let may = v.status == Status::Available || (force && v.status == Status::InUse);
        if !may {
            return Err(Error::bad_request(format!(
                "Invalid volume: Volume {} status must be available{} to upload, it is {}.",
                volume.id,
                if v.status == Status::InUse {
                    ", or force must be true,"
                } else {
                    ""
                },
                v.status.word()
            )));
        }
        let owner = request.caller()?.require_project()?.clone();
        let mut properties = v.image_metadata.clone();
        for known in [
            "image_id",
            "image_name",
            "checksum",
            "container_format",
            "disk_format",
            "min_disk",
            "min_ram",
            "size",
        ] {
            properties.remove(known);
        }
        maru_image_model::usage::plan_count(txn, &owner, None);
        txn.create(
            &image_id,
            &Image {
                name: Some(body.image_name.clone()),
                visibility,
                protected: body.protected.is_some_and(|f| f.0),
                disk_format: Some(format.to_owned()),
                container_format: Some(container.to_owned()),
                properties,
                ..Image::queued(owner)
            },
        );
        let mut new = (**v).clone();
        new.before = Some(v.status);
        new.status = Status::Uploading;
        new.upload = Some(Upload {
            image_id: image_id.to_string(),
            format: format.to_owned(),
        });
        new.touch(&request.id, snapshot);
        txn.update(volume, &new);
        Ok(())
    })
    .await?;
    let snapshot = app.store.snapshot();
    let volume = find(request, &snapshot, request.param("id"))?;
    let kind = snapshot.get::<maru_volume_model::VolumeType>(&volume.value.type_id);
    let mut out = json!({
        "id": volume.id.as_str(), "image_id": image_id.as_str(), "image_name": body.image_name, "status": "uploading",
        "disk_format": format, "container_format": container, "size": volume.value.size,
        "display_description": volume.value.description, "updated_at": wire::time_or_null(volume.value.updated),
        "volume_type": kind.map(|t| super::types::view(&t, true)),
    });
    if request.at_least(3, 1) {
        out["visibility"] = visibility.as_str().into();
        out["protected"] = body.protected.is_some_and(|f| f.0).into();
    }
    Reply::json(202, &json!({"os-volume_upload_image": out}))
}

/// Another type, on the same host: nothing of the bytes changes.
async fn retype(app: &App, request: &Request, body: RetypeBody) -> Result<Reply> {
    if let Some(policy) = body.migration_policy.as_deref()
        && !matches!(policy, "never" | "on-demand")
    {
        return Err(invalid(
            "os-retype.migration_policy",
            format!("'{policy}' is not one of never, on-demand"),
        ));
    }
    change(app, request, |snapshot, txn, volume| {
        let v = &volume.value;
        let caller = request.caller()?;
        let kind = visible_type(snapshot, &body.new_type, Some(&v.project_id), caller.is_admin()).ok_or_else(|| {
            Error::not_found(format!("Volume type {} could not be found.", body.new_type))
        })?;
        if !matches!(v.status, Status::Available | Status::InUse) {
            return Err(Error::bad_request(format!(
                "Invalid volume: Volume {} status must be available or in-use to retype, it is {}.",
                volume.id,
                v.status.word()
            )));
        }
        if let Some(group) = &v.group_id {
            return Err(Error::bad_request(format!(
                "Invalid volume: Volume {} must not be part of a group to change its type; take it out of {group} first.",
                volume.id
            )));
        }
        if kind.id == v.type_id {
            return Err(Error::bad_request(format!(
                "Invalid input received: volume {} has the type {} already.",
                volume.id, kind.value.name
            )));
        }
        if kind.value.encryption.is_some() {
            return Err(Error::not_implemented(
                "Retyping to an encrypted type is not done by this cloud yet; take another type.",
            ));
        }
        if v.status == Status::InUse && kind.value.multiattach() != v.multiattach {
            return Err(Error::bad_request(
                "Invalid input received: Invalid volume_type passed: multiattach cannot change while the volume is in use.",
            ));
        }
        // What counts by type moves; what counts in all stays.
        let size = i64::from(v.size);
        for (resource, amount) in quota::of_volume(&v.type_id, size) {
            if resource.contains('_') {
                quota::consume(snapshot, txn, &v.project_id, &resource, -amount);
            }
        }
        let taken: Vec<(String, i64)> = quota::of_volume(&kind.id, size)
            .into_iter()
            .filter(|(r, _)| r.contains('_'))
            .collect();
        quota::take(snapshot, txn, &v.project_id, &taken)?;
        txn.alive::<maru_volume_model::VolumeType>(&kind.id);
        let mut new = (**v).clone();
        new.type_id = kind.id.clone();
        new.multiattach = kind.value.multiattach();
        new.updated = Some(maru_base::time::now());
        txn.update(volume, &new);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn reset_status(app: &App, request: &Request, body: ResetBody) -> Result<Reply> {
    let status = body
        .status
        .as_deref()
        .map(|word| {
            Status::parse(&word.to_lowercase())
                .ok_or_else(|| invalid("os-reset_status.status", format!("'{word}' is not a status of volumes")))
        })
        .transpose()?;
    if let Some(word) = body.attach_status.as_deref()
        && !matches!(word, "attached" | "detached")
    {
        return Err(invalid(
            "os-reset_status.attach_status",
            format!("'{word}' is neither attached nor detached"),
        ));
    }
    if status.is_none() && body.attach_status.is_none() && body.migration_status.is_none() {
        return Err(invalid(
            "os-reset_status",
            "Must specify 'status', 'attach_status', or 'migration_status' for update.",
        ));
    }
    edit(app, request, |v| {
        if let Some(status) = status {
            // A move that has not left the node yet is given up.
            if v.moved_from.is_none() {
                v.moving_to = None;
            }
            v.status = status;
            v.before = None;
            v.upload = None;
            v.fault = None;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
