//! `/floatingips`.

use super::{
    body::{self, Body},
    candidates,
    networks::domain,
    port_forwardings,
    row::{self, List, Row},
};
use crate::{
    App,
    app::{access, floating_ips::FloatingIpChange},
};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    FloatingIp, FloatingIpRequest, NetworkId, Port, PortId, SubnetId, errors,
    floating_ip::{floating_ip_router, floating_ip_status},
    observed::port_status,
};
use maru_store::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "floatingips",
    filters: &[],
    attributes: &[
        "id",
        "tenant_id",
        "project_id",
        "floating_ip_address",
        "floating_network_id",
        "router_id",
        "port_id",
        "fixed_ip_address",
        "status",
        "description",
        "dns_name",
        "dns_domain",
        "port_details",
        "port_forwardings",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::floating_ip_not_found(id),
};

fn row_of(snapshot: &Snapshot, id: &str, f: &FloatingIp) -> Row {
    let port = f.port_id.as_ref().and_then(|p| snapshot.get::<Port>(p));
    let details = port.map_or(Value::Null, |p| {
        json!({
            "name": p.value.name, "network_id": p.value.network_id.as_str(), "mac_address": p.value.mac_address,
            "admin_state_up": p.value.admin_state_up, "status": port_status(snapshot, &p.id, &p.value),
            "device_id": p.value.device_id, "device_owner": p.value.device_owner,
        })
    });
    let text = |t: Option<&str>| t.map_or(Value::Null, Value::from);
    Row::new(id)
        .project(&f.project_id)
        .with("floating_ip_address", f.floating_ip_address.to_string())
        .with("floating_network_id", f.floating_network_id.as_str())
        .with(
            "router_id",
            text(floating_ip_router(snapshot, id, f).as_ref().map(|r| r.as_str())),
        )
        .with("port_id", text(f.port_id.as_ref().map(|p| p.as_str())))
        .with(
            "fixed_ip_address",
            f.fixed_ip_address.map_or(Value::Null, |a| a.to_string().into()),
        )
        .with("status", floating_ip_status(snapshot, id, f))
        .with("dns_name", f.dns_name.as_str())
        .with("dns_domain", f.dns_domain.as_str())
        .with("port_details", details)
        .with("port_forwardings", port_forwardings::shown(snapshot, id))
        .meta(&f.meta)
}

fn request_of(request: &Request, mut b: Body) -> Result<FloatingIpRequest> {
    let project_id = access::project_for(request, b.project()?)?;
    let network = b.uuid("floating_network_id")?;
    let r = FloatingIpRequest {
        project_id,
        network: NetworkId::from(b.required("floating_network_id", network)?),
        subnet: b.nullable_uuid("subnet_id")?.flatten().map(SubnetId::from),
        address: b.nullable_address("floating_ip_address")?.flatten(),
        port: b.nullable_uuid("port_id")?.flatten().map(PortId::from),
        fixed_ip: b.nullable_address("fixed_ip_address")?.flatten(),
        description: b.text("description", 255)?.unwrap_or_default(),
        dns_name: domain("dns_name", b.text("dns_name", 255)?.unwrap_or_default())?,
        dns_domain: domain("dns_domain", b.text("dns_domain", 255)?.unwrap_or_default())?,
        tags: Vec::new(),
    };
    if r.port.is_none() && r.fixed_ip.is_some() {
        return Err(errors::bad_request(
            "floatingip",
            "fixed_ip_address cannot be specified without a port_id",
        ));
    }
    b.finish(&["router_id", "port_details", "port_forwardings"])?;
    Ok(r)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_floatingip",
        // Not by router: one whose ports are forwarded has its router by those.
        &[("port_id", "port"), ("floating_ip_address", "address")],
        |_, f: &FloatingIp| Target::project(&f.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&snapshot, &o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::floating_ip(&request, &snapshot, request.param("id"))?;
    row::one(200, "floatingip", row_of(&snapshot, &o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "floatingip", "floatingips").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_floating_ips(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    row::created(
        bulk,
        "floatingip",
        "floatingips",
        made.iter().map(|(id, f)| row_of(&snapshot, id, f)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "floatingip").await?;
    let change = FloatingIpChange {
        port: b.nullable_uuid("port_id")?.map(|p| p.map(PortId::from)),
        fixed_ip: b.nullable_address("fixed_ip_address")?.flatten(),
        description: b.text("description", 255)?,
    };
    b.finish(&[
        "router_id",
        "port_details",
        "port_forwardings",
        "floating_ip_address",
        "floating_network_id",
        "subnet_id",
        "dns_name",
        "dns_domain",
    ])?;
    let (id, fip) = app.update_floating_ip(&request, request.param("id"), change).await?;
    let snapshot = app.store.snapshot();
    row::one(200, "floatingip", row_of(&snapshot, &id, &fip), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_floating_ip(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
