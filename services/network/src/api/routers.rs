//! `/routers`.

use super::{
    body::{self, Body, address_of, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{
    App,
    app::{access, routers::GatewaysChange},
};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    Agent, FixedIpRequest, Meta, NetworkId, Port, PortId, Router, SubnetId, agent, errors, ndp_proxy,
    router_plan::{GatewayRequest, InterfaceRequest, RouterChange, RouterRequest},
};
use maru_store::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "routers",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "admin_state_up",
        "status",
        "external_gateway_info",
        "external_gateways",
        "routes",
        "description",
        "availability_zone_hints",
        "availability_zones",
        "flavor_id",
        "conntrack_helpers",
        "enable_ndp_proxy",
        "distributed",
        "ha",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::router_not_found(id),
};
const FIXED: &[&str] = &["status", "availability_zones", "flavor_id", "conntrack_helpers"];

/// `shown` says who may see `distributed` and `ha`.
fn row_of(snapshot: &Snapshot, shown: [bool; 2], id: &str, r: &Router) -> Row {
    let gateway = r.gateway.as_ref().map_or(Value::Null, |g| {
        let fixed: Vec<Value> = snapshot
            .get::<Port>(&g.port_id)
            .map(|p| {
                p.value
                    .fixed_ips
                    .iter()
                    .map(|f| json!({"subnet_id": f.subnet_id.as_str(), "ip_address": f.ip_address.to_string()}))
                    .collect()
            })
            .unwrap_or_default();
        json!({"network_id": g.network_id.as_str(), "enable_snat": g.enable_snat, "external_fixed_ips": fixed})
    });
    let zones: Vec<Value> = r
        .host
        .iter()
        .flat_map(|h| {
            snapshot
                .find::<Agent>("host", h)
                .filter(|a| a.value.agent_type == agent::L3)
                .collect::<Vec<_>>()
        })
        .map(|a| a.value.availability_zone.as_str().into())
        .collect();
    let mut row = Row::new(id);
    for (name, may, value) in [("distributed", shown[0], r.distributed), ("ha", shown[1], r.ha)] {
        if may {
            row = row.with(name, value);
        }
    }
    row.with("name", r.name.as_str())
        .project(&r.project_id)
        .with("admin_state_up", r.admin_state_up)
        .with("status", "ACTIVE")
        .with(
            "external_gateways",
            Value::Array(Some(gateway.clone()).into_iter().filter(|g| !g.is_null()).collect()),
        )
        .with("external_gateway_info", gateway)
        .with("routes", routes_json(r))
        .with("availability_zone_hints", r.availability_zone_hints.clone())
        .with("availability_zones", zones)
        .with("flavor_id", Value::Null)
        .with("conntrack_helpers", helpers_json(r))
        .with("enable_ndp_proxy", ndp_proxy::enabled(r))
        .meta(&r.meta)
}

fn helpers_json(r: &Router) -> Vec<Value> {
    let helpers = r.conntrack_helpers.iter();
    helpers
        .map(|h| json!({"protocol": h.protocol, "port": h.port, "helper": h.helper}))
        .collect()
}

fn routes_json(r: &Router) -> Vec<Value> {
    r.routes
        .iter()
        .map(|route| json!({"destination": route.destination.to_string(), "nexthop": route.nexthop.to_string()}))
        .collect()
}

/// `Some(None)` takes the gateway away: null or an empty object.
fn gateway_of(b: &mut Body) -> Result<Option<Option<GatewayRequest>>> {
    let name = "external_gateway_info";
    let value = match b.raw(name) {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(None)),
        Some(Value::Object(map)) if map.is_empty() => return Ok(Some(None)),
        Some(value) => value,
    };
    gateway_in(b, name, value).map(Some)
}

/// One gateway; `None` when its network is null.
fn gateway_in(b: &Body, name: &str, value: Value) -> Result<Option<GatewayRequest>> {
    let mut g = b.child(name, value)?;
    let network = g.nullable_uuid("network_id")?;
    let Some(network) = network else {
        return Err(invalid(name, "it needs its network_id"));
    };
    let enable_snat = g.boolean("enable_snat")?;
    let external_fixed_ips = match g.list("external_fixed_ips", 10)? {
        None => None,
        Some(items) => {
            let mut all = Vec::new();
            for item in items {
                let mut f = g.child(name, item)?;
                let subnet_id = f.nullable_uuid("subnet_id")?.flatten().map(SubnetId::from);
                let ip_address = match f.raw("ip_address") {
                    None | Some(Value::Null) => None,
                    Some(value) => Some(address_of(name, &value)?),
                };
                f.finish(&[])?;
                all.push(FixedIpRequest { subnet_id, ip_address });
            }
            Some(all)
        }
    };
    let _ = g.raw("qos_policy_id").filter(Value::is_null);
    g.finish(&[])?;
    Ok(network.map(|id| GatewayRequest {
        network_id: NetworkId::from(id),
        enable_snat,
        external_fixed_ips,
    }))
}

/// Whether the caller may see `distributed` and `ha`.
fn shown(request: &Request) -> [bool; 2] {
    ["get_router:distributed", "get_router:ha"].map(|rule| request.may(rule, &Target::none()))
}

/// A wish for a distributed or highly available router (`name`), which asks a rule of its own; null is no wish.
fn kind_of(request: &Request, b: &mut Body, name: &str, rule: &str) -> Result<Option<bool>> {
    if !b.has(name) {
        return Ok(None);
    }
    let wish = match b.raw(name) {
        None | Some(Value::Null) => None,
        Some(value) => b.put_back(name, value).boolean(name)?,
    };
    request.authorize_rule(rule, &Target::none())?;
    Ok(wish)
}

/// Router flavors are not served.
fn refuse_flavor(b: &mut Body) -> Result<()> {
    match b.raw("flavor_id") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(errors::bad_request(
            "router",
            "router flavors are not served here; leave flavor_id out",
        )),
    }
}

fn request_of(request: &Request, mut b: Body) -> Result<RouterRequest> {
    let project_id = access::project_for(request, b.project()?)?;
    let name = b.text("name", 255)?.unwrap_or_default();
    let admin_state_up = b.boolean("admin_state_up")?.unwrap_or(true);
    let meta = Meta::new(b.text("description", 255)?.unwrap_or_default());
    let gateway = gateway_of(&mut b)?.flatten();
    let availability_zone_hints = b.texts("availability_zone_hints", 255)?.unwrap_or_default();
    let distributed = kind_of(request, &mut b, "distributed", "create_router:distributed")?;
    let ha = kind_of(request, &mut b, "ha", "create_router:ha")?;
    let enable_ndp_proxy = b.boolean("enable_ndp_proxy")?.unwrap_or(false);
    refuse_flavor(&mut b)?;
    b.finish(FIXED)?;
    Ok(RouterRequest {
        enable_ndp_proxy,
        distributed: distributed.unwrap_or(false),
        ha: ha.unwrap_or(false),
        project_id,
        name,
        admin_state_up,
        gateway,
        availability_zone_hints,
        meta,
    })
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_router",
        &[("name", "name")],
        |_, r: &Router| Target::project(&r.project_id),
        |_, _| Vec::new(),
    );
    let rows = found
        .iter()
        .map(|o| row_of(&snapshot, shown(&request), &o.id, &o.value))
        .collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::router(&request, &snapshot, request.param("id"))?;
    row::one(
        200,
        "router",
        row_of(&snapshot, shown(&request), &o.id, &o.value),
        &request.query,
    )
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "router", "routers").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_routers(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    row::created(
        bulk,
        "router",
        "routers",
        made.iter()
            .map(|(id, r)| row_of(&snapshot, shown(&request), id, r))
            .collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "router").await?;
    let change = RouterChange {
        name: b.text("name", 255)?,
        description: b.text("description", 255)?,
        admin_state_up: b.boolean("admin_state_up")?,
        gateway: gateway_of(&mut b)?,
        routes: b.routes("routes")?,
        distributed: kind_of(&request, &mut b, "distributed", "update_router:distributed")?,
        ha: kind_of(&request, &mut b, "ha", "update_router:ha")?,
        enable_ndp_proxy: b.boolean("enable_ndp_proxy")?,
    };
    refuse_flavor(&mut b)?;
    b.finish(&["status", "availability_zones", "availability_zone_hints"])?;
    let (id, router) = app.update_router(&request, request.param("id"), change).await?;
    let snapshot = app.store.snapshot();
    row::one(
        200,
        "router",
        row_of(&snapshot, shown(&request), &id, &router),
        &request.query,
    )
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_router(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}

async fn interface(app: Arc<App>, mut request: Request, add: bool) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let wanted = InterfaceRequest {
        port_id: b.nullable_uuid("port_id")?.flatten().map(PortId::from),
        subnet_id: b.nullable_uuid("subnet_id")?.flatten().map(SubnetId::from),
    };
    b.finish(&[])?;
    let (id, router, made) = app
        .change_interface(&request, request.param("id"), &wanted, add)
        .await?;
    let subnets: Vec<&str> = made.subnet_ids.iter().map(SubnetId::as_str).collect();
    let subnet = wanted
        .subnet_id
        .as_ref()
        .map(SubnetId::as_str)
        .or_else(|| subnets.first().copied());
    Reply::json(
        200,
        &json!({
            "id": id.as_str(), "tenant_id": router.project_id.as_str(), "project_id": router.project_id.as_str(),
            "port_id": made.port_id.as_str(), "network_id": made.network_id.as_str(),
            "subnet_id": subnet, "subnet_ids": subnets, "tags": router.meta.tags,
        }),
    )
}

pub(crate) async fn add_interface(app: Arc<App>, request: Request) -> Result<Reply> {
    interface(app, request, true).await
}
pub(crate) async fn remove_interface(app: Arc<App>, request: Request) -> Result<Reply> {
    interface(app, request, false).await
}

async fn extra_routes(app: Arc<App>, mut request: Request, add: bool) -> Result<Reply> {
    let mut b = body::update(&mut request, "router").await?;
    let routes = b.routes("routes")?;
    let routes = b.required("routes", routes)?;
    b.finish(&[])?;
    let (id, router) = app.change_routes(&request, request.param("id"), &routes, add).await?;
    let snapshot = app.store.snapshot();
    row::one(
        200,
        "router",
        row_of(&snapshot, shown(&request), &id, &router),
        &request.query,
    )
}

pub(crate) async fn add_routes(app: Arc<App>, request: Request) -> Result<Reply> {
    extra_routes(app, request, true).await
}
pub(crate) async fn remove_routes(app: Arc<App>, request: Request) -> Result<Reply> {
    extra_routes(app, request, false).await
}

/// `external_gateways` of the calls that change them one by one. A router has one here, so one is the most.
async fn gateways(app: Arc<App>, mut request: Request, how: GatewaysChange) -> Result<Reply> {
    let mut b = body::update(&mut request, "router").await?;
    let name = "external_gateways";
    let wanted: Vec<GatewayRequest> = match b.raw(name) {
        None => b.required::<Vec<GatewayRequest>>(name, None)?,
        // The stock client's word for "all of them".
        Some(Value::Object(map)) if map.is_empty() => Vec::new(),
        Some(Value::Array(items)) => {
            let all: Result<Vec<_>> = items.into_iter().map(|item| gateway_in(&b, name, item)).collect();
            all?.into_iter().flatten().collect()
        }
        Some(_) => return Err(invalid(name, "it is a list of gateways, each with its network_id")),
    };
    b.finish(&[])?;
    let (id, router) = app.change_gateways(&request, request.param("id"), &wanted, how).await?;
    let snapshot = app.store.snapshot();
    row::one(
        200,
        "router",
        row_of(&snapshot, shown(&request), &id, &router),
        &request.query,
    )
}

pub(crate) async fn add_gateways(app: Arc<App>, request: Request) -> Result<Reply> {
    gateways(app, request, GatewaysChange::Add).await
}
pub(crate) async fn update_gateways(app: Arc<App>, request: Request) -> Result<Reply> {
    gateways(app, request, GatewaysChange::Replace).await
}
pub(crate) async fn remove_gateways(app: Arc<App>, request: Request) -> Result<Reply> {
    gateways(app, request, GatewaysChange::Remove).await
}
