//! `os-volumes` and `os-snapshots`, up to 2.35: the block storage's volumes and snapshots by their names of old.

use super::{LAST, ask, one_of, text};
use crate::{
    App,
    api::wire::{self, Count, Flag},
};
use http::Method;
use maru_base::Result;
use maru_http::{Reply, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

const VOLUMES: &str = "/volume/v3/volumes";
const SNAPSHOTS: &str = "/volume/v3/snapshots";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeBody {
    size: Option<Count>,
    display_name: Option<String>,
    display_description: Option<String>,
    volume_type: Option<String>,
    snapshot_id: Option<String>,
    availability_zone: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotBody {
    volume_id: String,
    display_name: Option<String>,
    display_description: Option<String>,
    force: Option<Flag>,
}

fn volume(v: &Value) -> Value {
    let mut attachments: Vec<Value> = v["attachments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| json!({"id": a["volume_id"], "volumeId": a["volume_id"], "serverId": a["server_id"], "device": a["device"]}))
        .collect();
    if attachments.is_empty() {
        attachments.push(json!({}));
    }
    json!({
        "id": v["id"], "status": v["status"], "size": v["size"], "availabilityZone": v["availability_zone"], "createdAt": v["created_at"],
        "displayName": v["name"], "displayDescription": v["description"], "volumeType": v["volume_type"], "snapshotId": v["snapshot_id"],
        "metadata": v["metadata"], "attachments": attachments,
    })
}

fn snapshot(s: &Value) -> Value {
    json!({
        "id": s["id"], "status": s["status"], "size": s["size"], "volumeId": s["volume_id"], "createdAt": s["created_at"],
        "displayName": s["name"], "displayDescription": s["description"],
    })
}

/// The page that these addresses cut themselves.
fn page(request: &Request, mut items: Vec<Value>) -> Result<Vec<Value>> {
    let number = |key: &str| -> Result<Option<usize>> {
        request
            .query
            .get(key)
            .map(|t| {
                t.parse()
                    .map_err(|_| wire::invalid(key, format!("'{t}' is not a whole number from 0 on")))
            })
            .transpose()
    };
    let offset = number("offset")?.unwrap_or(0).min(items.len());
    items.drain(..offset);
    items.truncate(number("limit")?.unwrap_or(1_000));
    Ok(items)
}

async fn all(app: &App, request: &Request, path: &str, key: &str, view: fn(&Value) -> Value) -> Result<Reply> {
    wire::until(request, LAST)?;
    let found = ask(app, request, Method::GET, &format!("{path}/detail"), None).await?;
    let items = found[key].as_array().into_iter().flatten().map(view).collect();
    Reply::json(200, &json!({key: page(request, items)?}))
}

/// `GET /os-volumes` and `GET /os-volumes/detail`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    all(&app, &request, VOLUMES, "volumes", volume).await
}

/// `GET /os-volumes/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(VOLUMES, request.param("volume"));
    let found = ask(&app, &request, Method::GET, &path, None).await?;
    Reply::json(200, &json!({"volume": volume(&found["volume"])}))
}

/// `POST /os-volumes`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let body: VolumeBody = wire::body(&mut request, "volume").await?;
    let size = match body.size {
        Some(size) => size.0,
        None => return Err(wire::invalid("volume", "'size' is a required property")),
    };
    if size < 1 {
        return Err(wire::invalid(
            "volume.size",
            format!("{size} is less than the minimum of 1"),
        ));
    }
    let wanted = json!({"volume": {
        "size": size, "name": body.display_name, "description": body.display_description, "volume_type": body.volume_type,
        "snapshot_id": body.snapshot_id, "availability_zone": body.availability_zone, "metadata": body.metadata.unwrap_or_default(),
    }});
    let made = ask(&app, &request, Method::POST, VOLUMES, Some(&wanted)).await?;
    let made = &made["volume"];
    let location = format!("{}/v2.1/os-volumes/{}", request.base, text(made, "id"));
    Ok(Reply::json(200, &json!({"volume": volume(made)}))?.header("location", &location))
}

/// `DELETE /os-volumes/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(VOLUMES, request.param("volume"));
    ask(&app, &request, Method::DELETE, &path, None).await?;
    Ok(Reply::empty(202))
}

/// `GET /os-snapshots` and `GET /os-snapshots/detail`.
pub(crate) async fn snapshots(app: Arc<App>, request: Request) -> Result<Reply> {
    all(&app, &request, SNAPSHOTS, "snapshots", snapshot).await
}

/// `GET /os-snapshots/{id}`.
pub(crate) async fn show_snapshot(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(SNAPSHOTS, request.param("snapshot"));
    let found = ask(&app, &request, Method::GET, &path, None).await?;
    Reply::json(200, &json!({"snapshot": snapshot(&found["snapshot"])}))
}

/// `POST /os-snapshots`.
pub(crate) async fn create_snapshot(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let body: SnapshotBody = wire::body(&mut request, "snapshot").await?;
    let wanted = json!({"snapshot": {
        "volume_id": body.volume_id, "name": body.display_name, "description": body.display_description,
        "force": body.force.is_some_and(|f| f.0),
    }});
    let made = ask(&app, &request, Method::POST, SNAPSHOTS, Some(&wanted)).await?;
    Reply::json(200, &json!({"snapshot": snapshot(&made["snapshot"])}))
}

/// `DELETE /os-snapshots/{id}`.
pub(crate) async fn delete_snapshot(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(SNAPSHOTS, request.param("snapshot"));
    ask(&app, &request, Method::DELETE, &path, None).await?;
    Ok(Reply::empty(202))
}
