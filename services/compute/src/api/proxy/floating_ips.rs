//! `os-floating-ips` and `os-floating-ip-pools`, up to 2.35; the actions of a server with one, up to 2.43.

use super::{LAST, ask, one_of, text};
use crate::{
    App,
    api::wire::{self, invalid},
};
use http::Method;
use maru_base::{Error, Result};
use maru_compute_model::{Server, network};
use maru_http::{Reply, Request};
use maru_store::Object;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};

const FLOATING_IPS: &str = "/network/v2.0/floatingips";
const EXTERNAL: &str = "/network/v2.0/networks?router:external=true";

async fn pools(app: &App, request: &Request) -> Result<Vec<Value>> {
    let found = ask(app, request, Method::GET, EXTERNAL, None).await?;
    Ok(found["networks"].as_array().cloned().unwrap_or_default())
}

/// The server of a port, if it is one's.
async fn server_of(app: &App, request: &Request, port: &Value) -> Result<Value> {
    let Some(id) = port.as_str() else {
        return Ok(Value::Null);
    };
    let found = ask(app, request, Method::GET, &format!("/network/v2.0/ports/{id}"), None).await?;
    let port = &found["port"];
    Ok(if text(port, "device_owner").starts_with("compute:") {
        port["device_id"].clone()
    } else {
        Value::Null
    })
}

async fn view(app: &App, request: &Request, f: &Value, pools: &[Value]) -> Result<Value> {
    let pool = pools.iter().find(|p| p["id"] == f["floating_network_id"]);
    Ok(json!({
        "id": f["id"], "ip": f["floating_ip_address"], "pool": pool.map(|p| p["name"].clone()), "fixed_ip": f["fixed_ip_address"],
        "instance_id": server_of(app, request, &f["port_id"]).await?,
    }))
}

/// `GET /os-floating-ip-pools`.
pub(crate) async fn pool_index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let names: Vec<Value> = pools(&app, &request)
        .await?
        .iter()
        .map(|p| json!({"name": p["name"]}))
        .collect();
    Reply::json(200, &json!({"floating_ip_pools": names}))
}

/// The caller's own, as these addresses always listed them.
async fn own(app: &App, request: &Request) -> Result<Vec<Value>> {
    let project = request.caller()?.require_project()?;
    let path = format!("{FLOATING_IPS}?tenant_id={project}");
    let found = ask(app, request, Method::GET, &path, None).await?;
    Ok(found["floatingips"].as_array().cloned().unwrap_or_default())
}

/// `GET /os-floating-ips`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let pools = pools(&app, &request).await?;
    let mut shown = Vec::new();
    for f in own(&app, &request).await? {
        shown.push(view(&app, &request, &f, &pools).await?);
    }
    Reply::json(200, &json!({"floating_ips": shown}))
}

/// `GET /os-floating-ips/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(FLOATING_IPS, request.param("address"));
    let found = ask(&app, &request, Method::GET, &path, None).await?;
    let pools = pools(&app, &request).await?;
    let shown = view(&app, &request, &found["floatingip"], &pools).await?;
    Reply::json(200, &json!({"floating_ip": shown}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolBody {
    #[serde(default)]
    pool: Option<String>,
}

/// `POST /os-floating-ips`: from the pool of this name, or from the default external network, or from the first.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let Value::Object(body) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let body: PoolBody = wire::typed("", Value::Object(body))?;
    let name = body.pool.as_deref();
    let pools = pools(&app, &request).await?;
    let pool = match name {
        Some(name) => pools
            .iter()
            .find(|p| p["name"] == name || p["id"] == name)
            .ok_or_else(|| Error::not_found(format!("Floating IP pool {name} not found.")))?,
        None => pools
            .iter()
            .find(|p| p["is_default"] == true)
            .or(pools.first())
            .ok_or_else(|| Error::not_found("Floating IP pool not found: there is no external network."))?,
    };
    let body = json!({"floatingip": {"floating_network_id": pool["id"]}});
    let made = ask(&app, &request, Method::POST, FLOATING_IPS, Some(&body)).await?;
    let shown = view(&app, &request, &made["floatingip"], &pools).await?;
    Reply::json(200, &json!({"floating_ip": shown}))
}

/// `DELETE /os-floating-ips/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(FLOATING_IPS, request.param("address"));
    ask(&app, &request, Method::DELETE, &path, None).await?;
    Ok(Reply::empty(202))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressBody {
    address: String,
    #[serde(default)]
    fixed_address: Option<String>,
}

/// The last microversion with actions on addresses.
const LAST_ACTION: u16 = 43;

/// `addFloatingIp` and `removeFloatingIp`.
pub(crate) async fn act(
    app: &App,
    request: &Request,
    server: &Object<Server>,
    add: bool,
    body: Value,
) -> Result<Reply> {
    let name = if add { "addFloatingIp" } else { "removeFloatingIp" };
    if request.at_least(2, LAST_ACTION + 1) {
        return Err(Error::bad_request(format!("There is no such action: {name}")));
    }
    let body: AddressBody = wire::typed(name, body)?;
    let address: IpAddr = body
        .address
        .parse()
        .map_err(|_| invalid(&format!("{name}.address"), format!("'{}' is no address", body.address)))?;
    let path = format!("{FLOATING_IPS}?floating_ip_address={address}");
    let found = ask(app, request, Method::GET, &path, None).await?;
    let floating = found["floatingips"][0].clone();
    if floating.is_null() {
        return Err(Error::not_found("floating IP not found"));
    }
    let wanted = if add {
        let interfaces = network::interfaces(&app.store.snapshot(), server);
        let mut fixed = interfaces
            .iter()
            .flat_map(|i| i.port.fixed_ips.iter().map(|f| (i.port.id.clone(), f.ip_address)))
            .filter(|(_, ip)| ip.is_ipv4());
        let place = match &body.fixed_address {
            None => fixed.next(),
            Some(text) => fixed.find(|(_, ip)| ip.to_string() == *text),
        };
        let place = place.ok_or_else(|| match &body.fixed_address {
            Some(text) => Error::bad_request(format!("Specified fixed address {text} not assigned to instance")),
            None => Error::bad_request("No fixed IPs associated to instance"),
        })?;
        json!({"floatingip": {"port_id": place.0.as_str(), "fixed_ip_address": place.1}})
    } else {
        let on = server.ports.iter().any(|p| floating["port_id"] == p.id.as_str());
        if !on {
            return Err(Error::conflict(format!(
                "Floating IP {address} is not associated with instance {}.",
                server.id
            )));
        }
        json!({"floatingip": {"port_id": null}})
    };
    let path = one_of(FLOATING_IPS, text(&floating, "id"));
    ask(app, request, Method::PUT, &path, Some(&wanted)).await?;
    Ok(Reply::empty(202))
}
