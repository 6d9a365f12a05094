//! Backups.

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, body, invalid, links, time, time_or_null, typed},
    },
    app::volumes as app_volumes,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    Backup, BackupId, BackupStatus, NewVolume, Source, Status, Volume, VolumeId, plan_create_volume, quota,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    volume_id: String,
    name: Option<String>,
    description: Option<String>,
    container: Option<String>,
    incremental: Option<Flag>,
    force: Option<Flag>,
    snapshot_id: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    availability_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    description: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    volume_id: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    status: String,
}

impl Row for Object<Backup> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let b = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "name" => b.name.clone(),
            "description" => b.description.clone(),
            "status" => Some(b.status.word().to_owned()),
            "volume_id" => Some(b.volume_id.to_string()),
            "size" => Some(b.size.to_string()),
            "project_id" => Some(b.project_id.to_string()),
            "created_at" => Some(b.created.to_string()),
            "updated_at" => b.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &["id", "name", "description", "status", "volume_id", "size", "project_id"];
const SORT_KEYS: &[&str] = &["id", "name", "status", "size", "created_at", "updated_at"];

/// A backup that the caller may see: a foreign one does not exist.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Backup>> {
    wire::find_own(request, snapshot, "Backup", id, |b: &Backup| &b.project_id)
}

pub(crate) fn short(request: &Request, backup: &Object<Backup>) -> Value {
    let mut out = json!({
        "id": backup.id.as_str(), "name": backup.value.name, "links": links(request, "backups", &backup.id),
    });
    if request.at_least(3, 43) {
        out["metadata"] = json!(backup.value.metadata);
    }
    out
}

fn view(request: &Request, snapshot: &Snapshot, backup: &Object<Backup>) -> Value {
    let b = &backup.value;
    let mut out = json!({
        "id": backup.id.as_str(), "name": b.name, "description": b.description, "status": b.status.word(),
        "volume_id": b.volume_id.as_str(), "snapshot_id": b.snapshot_id, "container": b.container, "size": b.size,
        "object_count": u32::from(b.digest.is_some()), "availability_zone": b.zone, "fail_reason": b.fail_reason,
        "is_incremental": b.parent.is_some(),
        "has_dependent_backups": snapshot.find::<Backup>("parent", &backup.id).next().is_some(),
        "created_at": time(b.created), "updated_at": time_or_null(b.updated), "data_timestamp": time(b.data),
        "links": links(request, "backups", &backup.id),
    });
    if request.at_least(3, 18) && request.may("backup:backup_project_attribute", &Target::none()) {
        out["os-backup-project-attr:project_id"] = b.project_id.as_str().into();
    }
    if request.at_least(3, 43) {
        out["metadata"] = json!(b.metadata);
    }
    if request.at_least(3, 56) {
        out["user_id"] = b.user_id.as_str().into();
    }
    if request.at_least(3, 64) {
        out["encryption_key_id"] = Value::Null;
        if let Value::Object(map) = &mut out {
            map.remove("encryption_key_id");
        }
    }
    out
}

async fn listed(app: &App, request: &Request) -> Result<(Snapshot, list::Listed<Object<Backup>>)> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Backup>> = list::of_project(request, &snapshot)?;
    list::filter(request, &mut rows, FILTERS)?;
    let page = list::page(request, rows, SORT_KEYS)?;
    Ok((snapshot, page))
}

/// `GET /backups`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, page) = listed(&app, &request).await?;
    let views = page
        .items
        .iter()
        .map(|b| json!({"id": b.id.as_str(), "name": b.value.name, "links": links(&request, "backups", &b.id)}))
        .collect();
    Reply::json(200, &list::body(&request, "backups", &page, views)?)
}

/// `GET /backups/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, page) = listed(&app, &request).await?;
    let views = page.items.iter().map(|b| view(&request, &snapshot, b)).collect();
    Reply::json(200, &list::body(&request, "backups", &page, views)?)
}

/// `GET /backups/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let backup = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"backup": view(&request, &snapshot, &backup)}))
}

/// `POST /backups`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: CreateBody = body(&mut request, "backup").await?;
    for (field, id) in [
        ("backup.volume_id", Some(&given.volume_id)),
        ("backup.snapshot_id", given.snapshot_id.as_ref()),
    ] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(field, format!("'{id}' is not a 'uuid'")));
        }
    }
    wire::field_since(&request, 43, "backup.metadata", given.metadata.is_some())?;
    wire::field_since(
        &request,
        51,
        "backup.availability_zone",
        given.availability_zone.is_some(),
    )?;
    let metadata = given.metadata.clone().unwrap_or_default();
    wire::check_metadata("backup.metadata", &metadata)?;
    let name = wire::text("backup.name", given.name.clone())?;
    let description = wire::text("backup.description", given.description.clone())?;
    let container = wire::text("backup.container", given.container.clone())?;
    let force = given.force.is_some_and(|f| f.0);
    let incremental = given.incremental.is_some_and(|f| f.0);
    let id = BackupId::new_uuid();
    let now = maru_base::time::now();
    app.store
        .plan(|snapshot| {
            let volume = super::volumes::find(&request, snapshot, &given.volume_id)?;
            let v = &volume.value;
            let from = given
                .snapshot_id
                .as_deref()
                .map(|s| super::snapshots::find(&request, snapshot, s))
                .transpose()?;
            let may = v.status == Status::Available || (v.status == Status::InUse && (force || from.is_some()));
            if !may {
                return Err(Error::bad_request(format!(
                    "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"{}\"{}.",
                    v.status.word(),
                    if v.status == Status::InUse { "; pass force to read it while it is in use" } else { "" }
                )));
            }
            let parent = if incremental {
                let newest = snapshot
                    .find::<Backup>("volume", &volume.id)
                    .filter(|b| b.value.status == BackupStatus::Available)
                    .max_by_key(|b| b.value.created);
                Some(newest.ok_or_else(|| {
                    Error::bad_request(
                        "Invalid backup: No backups available to do an incremental backup; make a full one first.",
                    )
                })?)
            } else {
                None
            };
            let mut txn = Txn::new();
            if let Some(parent) = &parent {
                // Its deletion, planned at once, meets this and is planned again.
                txn.update(parent, &*parent.value);
            }
            quota::take(snapshot, &mut txn, &v.project_id, &quota::of_backup(i64::from(v.size)))?;
            txn.create(
                &id,
                &Backup {
                    volume_id: volume.id.clone(),
                    snapshot_id: from.as_ref().map(|s| s.id.clone()),
                    parent: parent.map(|p| p.id),
                    project_id: v.project_id.clone(),
                    user_id: request.caller()?.user_id.clone(),
                    name: name.clone(),
                    description: description.clone(),
                    container: container.clone(),
                    size: v.size,
                    zone: given.availability_zone.clone().or_else(|| Some(v.zone.clone())),
                    status: BackupStatus::Creating,
                    fail_reason: None,
                    digest: None,
                    delta: false,
                    bytes: 0,
                    metadata: metadata.clone(),
                    image_metadata: v.image_metadata.clone(),
                    bootable: v.bootable,
                    request_id: request.id.to_string(),
                    created: now,
                    data: from.as_ref().map_or(now, |s| s.value.created),
                    updated: None,
                },
            );
            let mut new = (**v).clone();
            new.before = Some(v.status);
            new.status = Status::BackingUp;
            new.backup = Some(id.clone());
            new.touch(&request.id, snapshot);
            txn.update(&volume, &new);
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    let snapshot = app.store.snapshot();
    let backup = find(&request, &snapshot, &id)?;
    Reply::json(202, &json!({"backup": short(&request, &backup)}))
}

/// `PUT /backups/{id}` (3.9).
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 9)?;
    let given: UpdateBody = body(&mut request, "backup").await?;
    if given.name.is_none() && given.description.is_none() && given.metadata.is_none() {
        return Err(invalid(
            "backup",
            "Must specify at least one of name, description, metadata.",
        ));
    }
    wire::field_since(&request, 43, "backup.metadata", given.metadata.is_some())?;
    if let Some(metadata) = &given.metadata {
        wire::check_metadata("backup.metadata", metadata)?;
    }
    let name = wire::text("backup.name", given.name.clone())?;
    let description = wire::text("backup.description", given.description.clone())?;
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            let mut new = (*read.value).clone();
            if given.name.is_some() {
                new.name.clone_from(&name);
            }
            if given.description.is_some() {
                new.description.clone_from(&description);
            }
            if let Some(metadata) = &given.metadata {
                new.metadata.clone_from(metadata);
            }
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            txn.update(&read, &new);
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let backup = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"backup": short(&request, &backup)}))
}

async fn remove(app: &App, request: &Request, force: bool) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let read = find(request, snapshot, request.param("id"))?;
            let status = read.value.status;
            if !force && !matches!(status, BackupStatus::Available | BackupStatus::Error) {
                return Err(Error::bad_request(format!(
                    "Invalid backup: Backup status must be available or error, it is {}.",
                    status.word()
                )));
            }
            if snapshot.find::<Backup>("parent", &read.id).next().is_some() {
                return Err(Error::bad_request(
                    "Invalid backup: Incremental backups exist for this backup; delete them first.",
                ));
            }
            let making = snapshot
                .find::<Volume>("status", Status::Creating.word())
                .chain(snapshot.find::<Volume>("status", Status::RestoringBackup.word()))
                .any(|v| {
                    matches!(&v.value.source, Source::Backup { id, .. } if *id == read.id)
                        || v.value.assemble.as_ref() == Some(&read.id)
                });
            if making {
                return Err(Error::bad_request(
                    "Invalid backup: a volume is being made of it; wait until that is available.",
                ));
            }
            let mut new = (*read.value).clone();
            new.status = BackupStatus::Deleting;
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            txn.update(&read, &new);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `DELETE /backups/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    remove(&app, &request, false).await
}

/// `POST /backups/{id}/restore`: into a volume that is named, or into a new one.
pub(crate) async fn restore(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: RestoreBody = body(&mut request, "restore").await?;
    if let Some(id) = &given.volume_id
        && !wire::is_uuid(id)
    {
        return Err(invalid("restore.volume_id", format!("'{id}' is not a 'uuid'")));
    }
    let name = wire::text("restore.name", given.name)?;
    let fresh = VolumeId::new_uuid();
    let (volume_id, volume_name) = app
        .store
        .plan(|snapshot| {
            let backup = find(&request, snapshot, request.param("id"))?;
            if backup.value.status != BackupStatus::Available {
                return Err(Error::bad_request(format!(
                    "Invalid backup: Backup status must be available, it is {}.",
                    backup.value.status.word()
                )));
            }
            let mut txn = Txn::new();
            if let Some(id) = &given.volume_id {
                let volume = super::volumes::find(&request, snapshot, id)?;
                app_volumes::plan_restore(snapshot, &mut txn, &volume, &backup, &request.id)?;
                let name = volume.value.name.clone();
                return Ok((txn, (volume.id, name)));
            }
            let b = &backup.value;
            if b.digest.is_none() {
                return Err(Error::bad_request("Invalid backup: it has no data."));
            }
            let (source, assemble) = b.source(&backup.id);
            let volume_name = name.clone().unwrap_or_else(|| format!("restore_backup_{}", backup.id));
            let caller = request.caller()?;
            let kind = app_volumes::default_type(snapshot, caller.require_project()?)?;
            let new = NewVolume {
                project_id: caller.require_project()?,
                user_id: &caller.user_id,
                size: b.size,
                kind: &kind,
                zone: b.zone.clone().unwrap_or_else(|| "nova".to_owned()),
                source,
                request_id: &request.id,
            };
            let volume = Volume {
                name: Some(volume_name.clone()),
                description: b.description.clone(),
                image_metadata: b.image_metadata.clone(),
                bootable: b.bootable,
                backup: Some(backup.id.clone()),
                assemble,
                ..Volume::new(snapshot, new)
            };
            plan_create_volume(snapshot, &mut txn, &fresh, &volume)?;
            let mut restoring = (**b).clone();
            restoring.status = BackupStatus::Restoring;
            txn.update(&backup, &restoring);
            Ok((txn, (fresh.clone(), Some(volume_name))))
        })
        .await
        .map_err(quota::refusal)?;
    Reply::json(
        202,
        &json!({"restore": {
            "backup_id": request.param("id"), "volume_id": volume_id.as_str(), "volume_name": volume_name.unwrap_or_default(),
        }}),
    )
}

/// `POST /backups/{id}/action`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, value) = wire::action(&mut request).await?;
    match name.as_str() {
        "os-reset_status" => {
            request.authorize_rule("volume_extension:backup_admin_actions:reset_status", &Target::none())?;
            let given: ResetBody = typed("os-reset_status", value)?;
            let status = BackupStatus::parse(&given.status)
                .filter(|s| matches!(s, BackupStatus::Available | BackupStatus::Error))
                .ok_or_else(|| {
                    invalid(
                        "os-reset_status.status",
                        format!("'{}' is not one of available, error", given.status),
                    )
                })?;
            app.store
                .plan(|snapshot| {
                    let read = find(&request, snapshot, request.param("id"))?;
                    let mut new = (*read.value).clone();
                    new.status = status;
                    new.updated = Some(maru_base::time::now());
                    let mut txn = Txn::new();
                    txn.update(&read, &new);
                    Ok((txn, ()))
                })
                .await?;
            Ok(Reply::empty(202))
        }
        "os-force_delete" => {
            request.authorize_rule("volume_extension:backup_admin_actions:force_delete", &Target::none())?;
            remove(&app, &request, true).await
        }
        other => Err(Error::bad_request(format!("There is no such action: {other}"))),
    }
}
