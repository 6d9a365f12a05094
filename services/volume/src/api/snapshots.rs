//! Snapshots of volumes.

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, invalid, time, time_or_null},
    },
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Txn};
use maru_volume_model::{
    Snapshot, SnapshotId, SnapshotStatus, find_snapshot, plan_create_snapshot, plan_delete_snapshot, quota,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The body of `POST /snapshots`, under `snapshot`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    volume_id: Option<String>,
    name: Option<String>,
    display_name: Option<String>,
    description: Option<String>,
    display_description: Option<String>,
    force: Option<Flag>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    display_name: Option<String>,
    description: Option<String>,
    display_description: Option<String>,
}

impl Row for Object<Snapshot> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let s = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "name" | "display_name" => s.name.clone(),
            "description" => s.description.clone(),
            "status" => Some(s.status.word().to_owned()),
            "volume_id" => Some(s.volume_id.to_string()),
            "volume_size" | "size" => Some(s.size.to_string()),
            "project_id" => Some(s.project_id.to_string()),
            "user_id" => Some(s.user_id.to_string()),
            "created_at" => Some(s.created.to_string()),
            "updated_at" => s.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &[
    "id",
    "name",
    "display_name",
    "description",
    "status",
    "volume_id",
    "volume_size",
    "project_id",
    "user_id",
    "created_at",
    "updated_at",
];
const SORT_KEYS: &[&str] = &["id", "name", "display_name", "status", "created_at", "updated_at"];

/// A snapshot that the caller may see: a foreign one does not exist.
pub(crate) fn find(request: &Request, snapshot: &maru_store::Snapshot, id: &str) -> Result<Object<Snapshot>> {
    wire::find_own(request, snapshot, "Snapshot", id, |s: &Snapshot| &s.project_id)
}

pub(crate) fn view(request: &Request, read: &Object<Snapshot>, whole: bool) -> Value {
    let s = &read.value;
    let mut out = json!({
        "id": read.id.as_str(), "volume_id": s.volume_id.as_str(), "name": s.name, "description": s.description,
        "status": s.status.word(), "size": s.size, "metadata": s.metadata,
        "created_at": time(s.created), "updated_at": time_or_null(s.updated),
    });
    if whole {
        out["os-extended-snapshot-attributes:progress"] = s.progress.as_deref().unwrap_or("0%").into();
        out["os-extended-snapshot-attributes:project_id"] = s.project_id.as_str().into();
    }
    if request.at_least(3, 14) {
        out["group_snapshot_id"] = json!(s.group_snapshot_id);
    }
    if request.at_least(3, 41) {
        out["user_id"] = s.user_id.as_str().into();
    }
    if request.at_least(3, 65) {
        out["consumes_quota"] = true.into();
    }
    out
}

async fn listed(app: &App, request: &Request) -> Result<list::Listed<Object<Snapshot>>> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Snapshot>> = list::of_project(request, &snapshot)?;
    if let Some(text) = request.query.get("metadata") {
        let pairs = list::dictionary("metadata", text)?;
        rows.retain(|s| pairs.iter().all(|(k, v)| s.value.metadata.get(k) == Some(v)));
    }
    list::filter_but(request, &mut rows, FILTERS, &["metadata"])?;
    list::page(request, rows, SORT_KEYS)
}

/// `GET /snapshots`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(|s| view(&request, s, false)).collect();
    Reply::json(200, &list::body(&request, "snapshots", &page, views)?)
}

/// `GET /snapshots/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(|s| view(&request, s, true)).collect();
    Reply::json(200, &list::body(&request, "snapshots", &page, views)?)
}

/// `GET /snapshots/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"snapshot": view(&request, &found, true)}))
}

/// `POST /snapshots`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: CreateBody = wire::body(&mut request, "snapshot").await?;
    // Upstream takes a null for the id of a volume that does not exist.
    let volume_id = body
        .volume_id
        .ok_or_else(|| Error::not_found("Volume None could not be found."))?;
    if !wire::is_uuid(&volume_id) {
        return Err(invalid("snapshot.volume_id", format!("'{volume_id}' is not a 'uuid'")));
    }
    // Since 3.66 a snapshot of an attached volume needs no force, and refusing it is refused.
    let force = match body.force {
        Some(Flag(false)) if request.at_least(3, 66) => {
            return Err(invalid(
                "snapshot.force",
                "The 'force' flag is not needed since 3.66 and cannot be false.",
            ));
        }
        Some(Flag(force)) => force || request.at_least(3, 66),
        None => request.at_least(3, 66),
    };
    let metadata = body.metadata.clone().unwrap_or_default();
    wire::check_metadata("snapshot.metadata", &metadata)?;
    let name = wire::text("snapshot.name", body.name.or(body.display_name))?;
    let description = wire::text("snapshot.description", body.description.or(body.display_description))?;
    let id = SnapshotId::new_uuid();
    app.store
        .plan(|snapshot| {
            let volume = super::volumes::find(&request, snapshot, &volume_id)?;
            let value = Snapshot {
                volume_id: volume.id.clone(),
                project_id: volume.value.project_id.clone(),
                user_id: request.caller()?.user_id.clone(),
                name: name.clone(),
                description: description.clone(),
                size: volume.value.size,
                type_id: volume.value.type_id.clone(),
                host: volume.value.host.clone(),
                status: SnapshotStatus::Creating,
                removing: false,
                progress: None,
                metadata: metadata.clone(),
                group_snapshot_id: None,
                bytes: None,
                fault: None,
                request_id: request.id.to_string(),
                created: maru_base::time::now(),
                updated: None,
            };
            let mut txn = Txn::new();
            plan_create_snapshot(snapshot, &mut txn, &volume, &id, &value, force)?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    let snapshot = app.store.snapshot();
    let made = find_snapshot(&snapshot, &id)?;
    Reply::json(202, &json!({"snapshot": view(&request, &made, false)}))
}

/// `PUT /snapshots/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: UpdateBody = wire::body(&mut request, "snapshot").await?;
    let named = body.name.is_some() || body.display_name.is_some();
    let described = body.description.is_some() || body.display_description.is_some();
    if !named && !described {
        return Err(invalid("snapshot", "Must specify at least one of name, description."));
    }
    let name = wire::text("snapshot.name", body.name.or(body.display_name))?;
    let description = wire::text("snapshot.description", body.description.or(body.display_description))?;
    let id = request.param("id").to_owned();
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, &id)?;
            let mut new = (*read.value).clone();
            if named {
                new.name.clone_from(&name);
            }
            if described {
                new.description.clone_from(&description);
            }
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            txn.update(&read, &new);
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let read = find(&request, &snapshot, &id)?;
    Reply::json(200, &json!({"snapshot": view(&request, &read, false)}))
}

async fn remove(app: &App, request: &Request, force: bool) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let read = find(request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            plan_delete_snapshot(snapshot, &mut txn, &read, force, &request.id)?;
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `DELETE /snapshots/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    remove(&app, &request, false).await
}

/// `POST /snapshots/{id}/action`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, value) = wire::action(&mut request).await?;
    {
        let snapshot = app.store.current().await?;
        find(&request, &snapshot, request.param("id"))?;
    }
    let body = wire::map_of(&name, value)?;
    match name.as_str() {
        "os-reset_status" => {
            request.authorize_rule("volume_extension:snapshot_admin_actions:reset_status", &Target::none())?;
            let status = status_of("os-reset_status", &body)?;
            set_status(&app, &request, status, None).await
        }
        "os-update_snapshot_status" => {
            // Its owner was asked for when it was found.
            let target = Target::of_caller(request.caller()?);
            request.authorize_rule("snapshot_extension:snapshot_actions:update_snapshot_status", &target)?;
            let status = status_of("os-update_snapshot_status", &body)?;
            let progress = match body.get("progress") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) if text.len() <= 255 => Some(text.clone()),
                Some(_) => {
                    return Err(invalid(
                        "os-update_snapshot_status.progress",
                        "It must be a text like 50%.",
                    ));
                }
            };
            set_status(&app, &request, status, progress).await
        }
        "os-force_delete" => {
            request.authorize_rule("volume_extension:snapshot_admin_actions:force_delete", &Target::none())?;
            remove(&app, &request, true).await
        }
        "os-unmanage" => {
            request.authorize_rule("snapshot_extension:snapshot_unmanage", &Target::none())?;
            app.store
                .plan(|snapshot| {
                    let read = find(&request, snapshot, request.param("id"))?;
                    let mut txn = Txn::new();
                    crate::app::unmanaged::plan_unmanage_snapshot(snapshot, &mut txn, &read, &request.id)?;
                    Ok((txn, ()))
                })
                .await?;
            Ok(Reply::empty(202))
        }
        other => Err(Error::bad_request(format!("There is no such action: {other}"))),
    }
}

fn status_of(action: &str, body: &serde_json::Map<String, Value>) -> Result<SnapshotStatus> {
    let field = format!("{action}.status");
    let word = body
        .get("status")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid(&field, "'status' is a required property"))?;
    SnapshotStatus::parse(&word.to_lowercase()).ok_or_else(|| {
        invalid(
            &field,
            format!("'{word}' is not one of creating, available, backing-up, deleting, error, error_deleting"),
        )
    })
}

async fn set_status(app: &App, request: &Request, status: SnapshotStatus, progress: Option<String>) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let read = find(request, snapshot, request.param("id"))?;
            let mut new = (*read.value).clone();
            new.status = status;
            if progress.is_some() {
                new.progress.clone_from(&progress);
            }
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            txn.update(&read, &new);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}
