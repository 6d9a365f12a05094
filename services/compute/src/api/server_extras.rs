//! What little is told of a server beside the rest: the password that its guest posted, its NUMA topology, its migrations.

use crate::{
    App,
    api::{
        servers::load,
        wire::{self, since},
    },
};
use maru_base::{Error, Result};
use maru_compute_model::Server;
use maru_http::{Reply, Request};
use maru_store::Object;
use serde_json::json;
use std::sync::Arc;

/// The node of a server, if it has been there.
fn host(server: &Object<Server>) -> Option<&str> {
    server.host.as_deref().filter(|_| server.placed)
}

/// `GET /servers/{id}/os-server-password`: what the guest posted, encrypted with its user's key; empty if it posted nothing.
pub(crate) async fn password(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id");
    let (_, server) = load(&app, &request, id).await?;
    let posted = match host(&server) {
        None => None,
        Some(host) => app.consoles.password(host, id).await?,
    };
    let text = String::from_utf8_lossy(&posted.unwrap_or_default()).into_owned();
    Reply::json(200, &json!({"password": text}))
}

/// `DELETE /servers/{id}/os-server-password`: it is forgotten, and the guest may post another.
pub(crate) async fn clear_password(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id");
    let (_, server) = load(&app, &request, id).await?;
    if let Some(host) = host(&server) {
        app.consoles.clear_password(host, id).await?;
    }
    Ok(Reply::empty(204))
}

/// `GET /servers/{id}/topology`, since 2.78: no guest has NUMA nodes or huge pages of its own, whatever its flavor says.
pub(crate) async fn topology(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 78)?;
    load(&app, &request, request.param("id")).await?;
    Reply::json(200, &json!({"nodes": [], "pagesize_kb": null}))
}

/// `GET /servers/{id}/migrations`, since 2.23: live migrations under way. Servers are not moved while they run yet, so there is none.
pub(crate) async fn migrations(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 23)?;
    load(&app, &request, request.param("id")).await?;
    Reply::json(200, &json!({"migrations": []}))
}

/// `GET /servers/{id}/migrations/{migration}`, since 2.23.
pub(crate) async fn migration(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 23)?;
    let id = request.param("id");
    load(&app, &request, id).await?;
    let migration = request.param("migration");
    if migration.is_empty() || !migration.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wire::invalid(
            "migration",
            format!("'{migration}' is not the number of a migration"),
        ));
    }
    Err(Error::not_found(format!(
        "In-progress live migration {migration} is not found for server {id}."
    )))
}
