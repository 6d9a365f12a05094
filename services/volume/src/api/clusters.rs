//! Clusters of volume services (3.7) and what dead services left (3.24).
//!
//! Each node serves its own storage: no two share a back end, so there is no cluster, and nothing that one could take over.
//! What a node had under way goes on when it is back, whoever asks or not.

use crate::{
    App,
    api::{services::backends, wire},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /clusters`, `GET /clusters/detail`.
pub(crate) async fn index(_app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 7)?;
    Reply::json(200, &json!({"clusters": []}))
}

/// `GET /clusters/{id}`.
pub(crate) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 7)?;
    Err(missing(request.param("id")))
}

fn missing(name: &str) -> Error {
    Error::not_found(format!(
        "Cluster {name} could not be found: the volume services of this cloud are not clustered."
    ))
}

#[derive(Debug, Deserialize)]
struct ClusterBody {
    name: String,
}

/// `PUT /clusters/{id}`, where the id is `enable` or `disable`.
pub(crate) async fn update(_app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 7)?;
    let given: ClusterBody = request.json().await?;
    if !matches!(request.param("id"), "enable" | "disable") {
        return Err(Error::not_found(format!("Unknown action: {}", request.param("id"))));
    }
    Err(missing(&given.name))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct CleanupBody {
    cluster_name: Option<String>,
    service_id: Option<i64>,
    host: Option<String>,
    binary: Option<String>,
    is_up: Option<wire::Flag>,
    disabled: Option<wire::Flag>,
    resource_id: Option<String>,
    resource_type: Option<String>,
}

/// `POST /workers/cleanup`: no service can clean up what another has: each that is down is told as unavailable.
pub(crate) async fn cleanup(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 24)?;
    let given: CleanupBody = request.json().await?;
    if let Some(id) = &given.resource_id
        && !wire::is_uuid(id)
    {
        return Err(wire::invalid("resource_id", format!("'{id}' is not a 'uuid'")));
    }
    if let Some(kind) = &given.resource_type
        && !kind.eq_ignore_ascii_case("volume")
        && !kind.eq_ignore_ascii_case("snapshot")
    {
        return Err(wire::invalid(
            "resource_type",
            format!("'{kind}' is not one of Volume, Snapshot"),
        ));
    }
    let snapshot = app.store.current().await?;
    let unavailable: Vec<Value> = backends(&snapshot)
        .iter()
        .enumerate()
        .filter(|(_, b)| !b.value.up)
        .filter(|(_, b)| {
            given
                .host
                .as_deref()
                .is_none_or(|h| h.split('@').next() == Some(b.value.host.as_str()))
        })
        .map(|(at, b)| {
            json!({
                "id": at + 1, "host": format!("{}@local", b.value.host), "binary": "cinder-volume", "cluster_name": Value::Null,
            })
        })
        .collect();
    Reply::json(202, &json!({"cleaning": [], "unavailable": unavailable}))
}
