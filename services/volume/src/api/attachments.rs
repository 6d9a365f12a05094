//! The attachment API (3.27).

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, body, invalid, own, time_or_null},
    },
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    Attachment, AttachmentId, AttachmentStatus, Mode, Status, Volume, find_volume, plan_attached, plan_detach,
    plan_reserve,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    volume_uuid: String,
    #[serde(alias = "instance_uuid")]
    server_uuid: Option<String>,
    connector: Option<Value>,
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    connector: Value,
}

impl Row for Object<Attachment> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let a = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "volume_id" => Some(a.volume_id.to_string()),
            "instance_id" | "instance" => a.server_id.clone(),
            "status" | "attach_status" => Some(a.status.word().to_owned()),
            "project_id" => Some(a.project_id.to_string()),
            "created_at" => Some(a.created.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &[
    "id",
    "volume_id",
    "instance_id",
    "status",
    "attach_status",
    "project_id",
];
const SORT_KEYS: &[&str] = &["id", "volume_id", "created_at"];

fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Attachment>> {
    let missing = || {
        Error::not_found(format!(
            "Volume attachment could not be found with filter: attachment_id = {id}."
        ))
    };
    let found = snapshot
        .get::<Attachment>(&AttachmentId::from(id))
        .ok_or_else(missing)?;
    own(request, &found.value.project_id, missing)?;
    Ok(found)
}

fn view(read: &Object<Attachment>) -> Value {
    let a = &read.value;
    let info = if a.connector.is_some() {
        json!({
            "driver_volume_type": "local", "access_mode": a.mode.word(), "attachment_id": read.id.as_str(),
            "volume_id": a.volume_id.as_str(),
        })
    } else {
        json!({})
    };
    json!({
        "id": read.id.as_str(), "volume_id": a.volume_id.as_str(), "instance": a.server_id, "status": a.status.word(),
        "attach_mode": a.mode.word(), "attached_at": time_or_null(a.attached), "detached_at": Value::Null,
        "connection_info": info,
    })
}

fn summary(read: &Object<Attachment>) -> Value {
    let a = &read.value;
    json!({"id": read.id.as_str(), "volume_id": a.volume_id.as_str(), "instance": a.server_id, "status": a.status.word()})
}

async fn listed(app: &App, request: &Request) -> Result<list::Listed<Object<Attachment>>> {
    wire::since(request, 27)?;
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Attachment>> = list::of_project(request, &snapshot)?;
    list::filter(request, &mut rows, FILTERS)?;
    list::page(request, rows, SORT_KEYS)
}

/// `GET /attachments`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(summary).collect();
    Reply::json(200, &list::body(&request, "attachments", &page, views)?)
}

/// `GET /attachments/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(view).collect();
    Reply::json(200, &list::body(&request, "attachments", &page, views)?)
}

/// `GET /attachments/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 27)?;
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"attachment": view(&found)}))
}

fn connector_of(field: &str, value: Option<Value>) -> Result<Option<Value>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) if map.is_empty() => Ok(None),
        Some(Value::Object(map)) => {
            for name in ["host", "mountpoint", "ip", "initiator", "platform", "os_type"] {
                if map.get(name).is_some_and(|v| !v.is_string() && !v.is_null()) {
                    return Err(invalid(&format!("{field}.{name}"), "It must be a text."));
                }
            }
            let text = Value::Object(map);
            if text.to_string().len() > 4_096 {
                return Err(invalid(field, "At most 4,096 bytes."));
            }
            Ok(Some(text))
        }
        Some(_) => Err(invalid(field, "It must be an object.")),
    }
}

/// `POST /attachments`: keeps a volume for a server; with a connector it is being attached.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 27)?;
    let given: CreateBody = body(&mut request, "attachment").await?;
    for (field, id) in [
        ("attachment.volume_uuid", Some(&given.volume_uuid)),
        ("attachment.instance_uuid", given.server_uuid.as_ref()),
    ] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(field, format!("'{id}' is not a 'uuid'")));
        }
    }
    wire::field_since(&request, 54, "attachment.mode", given.mode.is_some())?;
    let mode = match given.mode.as_deref() {
        None => None,
        Some("rw") => Some(Mode::Rw),
        Some("ro") => Some(Mode::Ro),
        Some(other) => return Err(invalid("attachment.mode", format!("'{other}' is not one of rw, ro"))),
    };
    let connector = connector_of("attachment.connector", given.connector)?;
    let id = AttachmentId::new_uuid();
    app.store
        .plan(|snapshot| {
            let volume = super::volumes::find(&request, snapshot, &given.volume_uuid)?;
            let mut txn = Txn::new();
            let mut scratch = Txn::new();
            let mut made = plan_reserve(snapshot, &mut scratch, &volume, &id, given.server_uuid.as_deref(), mode)?;
            if let Some(connector) = &connector {
                made.connector = Some(connector.clone());
                made.host = connector.get("host").and_then(Value::as_str).map(str::to_owned);
                made.device = connector.get("mountpoint").and_then(Value::as_str).map(str::to_owned);
                made.status = AttachmentStatus::Attaching;
            }
            txn.create(&id, &made);
            let mut new = (*volume.value).clone();
            if new.status == Status::Available || new.status == Status::Reserved {
                new.status = if made.status == AttachmentStatus::Attaching {
                    Status::Attaching
                } else {
                    Status::Reserved
                };
            }
            new.updated = Some(maru_base::time::now());
            txn.update(&volume, &new);
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let made = find(&request, &snapshot, &id)?;
    Reply::json(200, &json!({"attachment": view(&made)}))
}

/// `PUT /attachments/{id}`: says who attaches it.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 27)?;
    let given: UpdateBody = body(&mut request, "attachment").await?;
    let connector = connector_of("attachment.connector", Some(given.connector))?
        .ok_or_else(|| invalid("attachment.connector", "It must say who connects."))?;
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            if read.value.connector.is_some() {
                return Err(Error::bad_request(
                    "Duplicate connectors are not allowed: the attachment has one already.",
                ));
            }
            let mut new = (*read.value).clone();
            new.connector = Some(connector.clone());
            new.host = connector.get("host").and_then(Value::as_str).map(str::to_owned);
            new.device = connector.get("mountpoint").and_then(Value::as_str).map(str::to_owned);
            new.status = AttachmentStatus::Attaching;
            let mut txn = Txn::new();
            txn.update(&read, &new);
            let volume: Object<Volume> = find_volume(snapshot, &read.value.volume_id)?;
            if volume.value.status == Status::Reserved {
                let mut v = (*volume.value).clone();
                v.status = Status::Attaching;
                txn.update(&volume, &v);
            }
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let read = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"attachment": view(&read)}))
}

/// `DELETE /attachments/{id}`: the attachments that are left. One that a server of this cloud has is compute's to end.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 27)?;
    let volume = app
        .store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            if compute_holds(&read) {
                return Err(Error::conflict(format!(
                    "Detach volume from instance {} using the Compute API: the attachment {} is its.",
                    read.value.server_id.as_deref().unwrap_or(""),
                    read.id
                )));
            }
            let mut txn = Txn::new();
            plan_detach(snapshot, &mut txn, &read.id);
            Ok((txn, read.value.volume_id.clone()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let left: Vec<Value> = snapshot
        .find::<Attachment>("volume", &volume)
        .map(|a| summary(&a))
        .collect();
    Reply::json(200, &json!({"attachments": left}))
}

/// Whether compute made the attachment.
pub(crate) fn compute_holds(read: &Object<Attachment>) -> bool {
    read.value.by_compute
}

/// `POST /attachments/{id}/action`: `os-complete` (3.44).
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 44)?;
    let (name, value) = wire::action(&mut request).await?;
    if name != "os-complete" {
        return Err(Error::bad_request(format!("There is no such action: {name}")));
    }
    // The stock client sends the attachment's id as the action's value.
    if value.as_str() != Some(request.param("id")) {
        wire::map_of(&name, value)?;
    }
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            if read.value.status != AttachmentStatus::Attaching {
                return Err(Error::bad_request(format!(
                    "Invalid volume: the attachment must be attaching to be completed, it is {}.",
                    read.value.status.word()
                )));
            }
            let mut txn = Txn::new();
            let host = read.value.host.clone().unwrap_or_default();
            plan_attached(snapshot, &mut txn, &read.id, &host);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(204))
}
