//! `os-networks` and `os-tenant-networks`, up to 2.35: the network service's networks by the names of nova-network.

use super::{LAST, ask, one_of, text};
use crate::{App, api::wire};
use http::Method;
use maru_base::Result;
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

const NETWORKS: &str = "/network/v2.0/networks";

/// What a network of nova-network had and one of today has not.
const FIELDS: &[&str] = &[
    "cidr",
    "netmask",
    "gateway",
    "broadcast",
    "dns1",
    "dns2",
    "cidr_v6",
    "gateway_v6",
    "netmask_v6",
];
/// The same, for administrators.
const ADMIN_FIELDS: &[&str] = &[
    "created_at",
    "updated_at",
    "deleted_at",
    "deleted",
    "injected",
    "bridge",
    "vlan",
    "vpn_public_address",
    "vpn_public_port",
    "vpn_private_address",
    "dhcp_start",
    "project_id",
    "host",
    "bridge_interface",
    "multi_host",
    "priority",
    "rxtx_base",
    "mtu",
    "dhcp_server",
    "enable_dhcp",
    "share_address",
];

fn network(request: &Request, n: &Value) -> Value {
    let admin = request.caller().is_ok_and(|c| c.is_admin());
    let mut v = json!({"id": text(n, "id"), "label": text(n, "name")});
    for field in FIELDS.iter().chain(ADMIN_FIELDS.iter().filter(|_| admin)) {
        v[*field] = Value::Null;
    }
    v
}

fn tenant_network(n: &Value) -> Value {
    json!({"id": text(n, "id"), "label": text(n, "name"), "cidr": "None"})
}

async fn networks(app: &App, request: &Request) -> Result<Vec<Value>> {
    let found = ask(app, request, Method::GET, NETWORKS, None).await?;
    Ok(found["networks"].as_array().cloned().unwrap_or_default())
}

async fn one(app: &App, request: &Request) -> Result<Value> {
    let path = one_of(NETWORKS, request.param("network"));
    Ok(ask(app, request, Method::GET, &path, None).await?["network"].clone())
}

/// `GET /os-networks`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let shown: Vec<Value> = networks(&app, &request)
        .await?
        .iter()
        .map(|n| network(&request, n))
        .collect();
    Reply::json(200, &json!({"networks": shown}))
}

/// `GET /os-networks/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let found = one(&app, &request).await?;
    Reply::json(200, &json!({"network": network(&request, &found)}))
}

/// `GET /os-tenant-networks`.
pub(crate) async fn tenant_index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let shown: Vec<Value> = networks(&app, &request).await?.iter().map(tenant_network).collect();
    Reply::json(200, &json!({"networks": shown}))
}

/// `GET /os-tenant-networks/{id}`.
pub(crate) async fn tenant_show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let found = one(&app, &request).await?;
    Reply::json(200, &json!({"network": tenant_network(&found)}))
}
