//! Transfers: a volume offered to another project, taken with a key.

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, body, invalid, links, own, time},
    },
};
use maru_base::{Error, Result, hex};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{self as model, Status, Transfer, TransferId, find_volume, quota};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    volume_id: String,
    name: Option<String>,
    no_snapshots: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptBody {
    auth_key: String,
}

impl Row for Object<Transfer> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.to_string()),
            "name" => self.value.name.clone(),
            "volume_id" => Some(self.value.volume_id.to_string()),
            "created_at" => Some(self.value.created.to_string()),
            _ => None,
        }
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Transfer {id} could not be found."))
}

fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Transfer>> {
    let found = snapshot
        .get::<Transfer>(&TransferId::from(id))
        .ok_or_else(|| missing(id))?;
    own(request, &found.value.project_id, || missing(id))?;
    Ok(found)
}

fn short(request: &Request, t: &Object<Transfer>) -> Value {
    json!({
        "id": t.id.as_str(), "volume_id": t.value.volume_id.as_str(), "name": t.value.name,
        "links": links(request, "volume-transfers", &t.id),
    })
}

fn view(request: &Request, t: &Object<Transfer>) -> Value {
    let mut out = short(request, t);
    out["created_at"] = time(t.value.created).into();
    if request.at_least(3, 55) {
        out["no_snapshots"] = t.value.no_snapshots.into();
    }
    if request.at_least(3, 57) {
        out["source_project_id"] = t.value.project_id.as_str().into();
        out["destination_project_id"] = Value::Null;
        out["accepted"] = false.into();
    }
    out
}

async fn listed(app: &App, request: &Request) -> Result<list::Listed<Object<Transfer>>> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Transfer>> = list::of_project(request, &snapshot)?;
    list::filter(request, &mut rows, &["id", "name", "volume_id", "created_at"])?;
    list::page(request, rows, &["id", "name", "created_at"])
}

/// `GET /os-volume-transfer`, `GET /volume-transfers`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(|t| short(&request, t)).collect();
    Reply::json(200, &list::body(&request, "transfers", &page, views)?)
}

/// `GET .../detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = listed(&app, &request).await?;
    let views = page.items.iter().map(|t| view(&request, t)).collect();
    Reply::json(200, &list::body(&request, "transfers", &page, views)?)
}

/// `GET .../{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"transfer": view(&request, &found)}))
}

fn hash(salt: &str, key: &str) -> String {
    hex(&Sha256::new().chain_update(salt).chain_update(key).finalize())
}

/// `POST ...`: the key is told in this answer and never again.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: CreateBody = body(&mut request, "transfer").await?;
    if !wire::is_uuid(&given.volume_id) {
        return Err(invalid(
            "transfer.volume_id",
            format!("'{}' is not a 'uuid'", given.volume_id),
        ));
    }
    wire::field_since(&request, 55, "transfer.no_snapshots", given.no_snapshots.is_some())?;
    let name = wire::text("transfer.name", given.name)?;
    let id = TransferId::new_uuid();
    let (salt, key) = (maru_base::random::hex32(), maru_base::random::hex32());
    app.store
        .plan(|snapshot| {
            let volume = super::volumes::find(&request, snapshot, &given.volume_id)?;
            if volume.value.status != Status::Available {
                return Err(Error::bad_request(format!(
                    "Invalid volume: status must be available, it is {}.",
                    volume.value.status.word()
                )));
            }
            if let Some(group) = &volume.value.group_id {
                return Err(Error::bad_request(format!(
                    "Invalid volume: it is in the group {group}; take it out before it is offered to another project."
                )));
            }
            let mut txn = Txn::new();
            txn.create(
                &id,
                &Transfer {
                    volume_id: volume.id.clone(),
                    project_id: volume.value.project_id.clone(),
                    name: name.clone(),
                    key_hash: hash(&salt, &key),
                    salt: salt.clone(),
                    no_snapshots: given.no_snapshots.is_some_and(|f| f.0),
                    created: maru_base::time::now(),
                },
            );
            let mut new = (*volume.value).clone();
            new.status = Status::AwaitingTransfer;
            new.updated = Some(maru_base::time::now());
            txn.update(&volume, &new);
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let made = find(&request, &snapshot, &id)?;
    let mut out = view(&request, &made);
    out["auth_key"] = key.into();
    Reply::json(202, &json!({"transfer": out}))
}

/// `POST .../{id}/accept`: whoever has the key takes the volume.
pub(crate) async fn accept(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: AcceptBody = body(&mut request, "accept").await?;
    let id = request.param("id").to_owned();
    let (volume_id, name) = app
        .store
        .plan(|snapshot| {
            let transfer = snapshot
                .get::<Transfer>(&TransferId::from(id.as_str()))
                .ok_or_else(|| missing(&id))?;
            let caller = request.caller()?;
            let project = caller.require_project()?.clone();
            if hash(&transfer.value.salt, &given.auth_key) != transfer.value.key_hash {
                return Err(Error::bad_request(format!(
                    "Invalid auth key: Attempt to transfer {id} with invalid auth key."
                )));
            }
            let volume = find_volume(snapshot, &transfer.value.volume_id)?;
            if volume.value.status != Status::AwaitingTransfer {
                return Err(Error::bad_request(format!(
                    "Invalid volume: Volume {} status must be awaiting-transfer, it is {}.",
                    volume.id,
                    volume.value.status.word()
                )));
            }
            let mut txn = Txn::new();
            let from = volume.value.project_id.clone();
            let counts = quota::of_volume(&volume.value.type_id, i64::from(volume.value.size));
            quota::give(snapshot, &mut txn, &from, &counts);
            quota::take(snapshot, &mut txn, &project, &counts)?;
            let snapshots: Vec<Object<model::Snapshot>> =
                snapshot.find::<model::Snapshot>("volume", &volume.id).collect();
            for child in &snapshots {
                if transfer.value.no_snapshots {
                    return Err(Error::bad_request(
                        "Invalid volume: a transfer without its snapshots needs a volume that has none; delete them first.",
                    ));
                }
                let counts = quota::of_snapshot(&child.value.type_id, i64::from(child.value.size));
                quota::give(snapshot, &mut txn, &from, &counts);
                quota::take(snapshot, &mut txn, &project, &counts)?;
                let mut new = (*child.value).clone();
                new.project_id = project.clone();
                new.user_id = caller.user_id.clone();
                txn.update(child, &new);
            }
            let mut new = (*volume.value).clone();
            new.project_id = project;
            new.user_id = caller.user_id.clone();
            new.status = Status::Available;
            new.updated = Some(maru_base::time::now());
            txn.update(&volume, &new);
            txn.delete(&transfer);
            Ok((txn, (volume.id.clone(), transfer.value.name.clone())))
        })
        .await
        .map_err(quota::refusal)?;
    Reply::json(
        202,
        &json!({"transfer": {
            "id": id, "volume_id": volume_id.as_str(), "name": name, "links": links(&request, "volume-transfers", &id),
        }}),
    )
}

/// `DELETE .../{id}`: the offer is taken back.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            txn.delete(&read);
            if let Ok(volume) = find_volume(snapshot, &read.value.volume_id)
                && volume.value.status == Status::AwaitingTransfer
            {
                let mut new = (*volume.value).clone();
                new.status = Status::Available;
                new.updated = Some(maru_base::time::now());
                txn.update(&volume, &new);
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}
