//! Default volume types of projects (3.62).

use crate::{
    App,
    api::wire::{self, body},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Txn};
use maru_volume_model::{DefaultType, DefaultTypeId, VolumeType, find_type, type_epoch};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBody {
    volume_type: String,
}

fn view(read: &Object<DefaultType>) -> Value {
    json!({"project_id": read.id.as_str(), "volume_type_id": read.value.type_id.as_str()})
}

fn missing(project: &str) -> Error {
    Error::not_found(format!("Default type for project {project} not found."))
}

/// `GET /default-types`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 62)?;
    let snapshot = app.store.current().await?;
    let all: Vec<Value> = snapshot.list::<DefaultType>().map(|d| view(&d)).collect();
    Reply::json(200, &json!({"default_types": all}))
}

/// `GET /default-types/{project}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 62)?;
    let snapshot = app.store.current().await?;
    let project = request.param("project");
    let found = snapshot
        .get::<DefaultType>(&DefaultTypeId::from(project))
        .ok_or_else(|| missing(project))?;
    Reply::json(200, &json!({"default_type": view(&found)}))
}

/// `PUT /default-types/{project}`.
pub(crate) async fn set(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 62)?;
    let given: SetBody = body(&mut request, "default_type").await?;
    let id = DefaultTypeId::from(request.param("project"));
    if id.is_empty() || id.len() > 64 {
        return Err(Error::not_found(format!("Project {id} could not be found.")));
    }
    app.store
        .plan(|snapshot| {
            let kind = find_type(snapshot, &given.volume_type)
                .ok_or_else(|| Error::not_found(format!("Volume type {} could not be found.", given.volume_type)))?;
            let mut txn = Txn::new();
            txn.alive::<VolumeType>(&kind.id);
            txn.bump_epoch(&type_epoch(&kind.id));
            let new = DefaultType {
                type_id: kind.id.clone(),
            };
            match snapshot.get::<DefaultType>(&id) {
                Some(old) => txn.update(&old, &new),
                None => txn.create(&id, &new),
            };
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let set = snapshot.get::<DefaultType>(&id).ok_or_else(|| missing(&id))?;
    Reply::json(200, &json!({"default_type": view(&set)}))
}

/// `DELETE /default-types/{project}`.
pub(crate) async fn unset(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 62)?;
    let id = DefaultTypeId::from(request.param("project"));
    app.store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if let Some(old) = snapshot.get::<DefaultType>(&id) {
                txn.delete(&old);
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(204))
}
