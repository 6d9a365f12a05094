//! `/floatingips/{id}/port_forwardings`.

use super::{
    body::{self, Body, invalid},
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    FloatingIp, PortForwarding, PortForwardingId, PortId,
    port_forwarding::{
        ForwardingRequest, PROTOCOLS, forwarding_not_found, forwardings_of, plan_delete_forwarding, plan_forwarding,
    },
};
use maru_store::{Object, Snapshot};
use serde_json::Value;
use std::{net::IpAddr, sync::Arc};

const LIST: List = List {
    plural: "port_forwardings",
    filters: &[],
    attributes: &[
        "id",
        "protocol",
        "external_port",
        "internal_port",
        "internal_port_id",
        "internal_ip_address",
        "description",
    ],
    missing: |id| forwarding_not_found(id),
};

fn row_of(id: &str, f: &PortForwarding) -> Row {
    Row::new(id)
        .with("protocol", f.protocol.as_str())
        .with("external_port", f.external_port)
        .with("internal_port", f.internal_port)
        .with("internal_port_id", f.internal_port_id.as_str())
        .with("internal_ip_address", f.internal_ip_address.to_string())
        .with("description", f.description.as_str())
}

/// The forwardings of a floating IP, as the floating IP itself shows them.
pub(super) fn shown(snapshot: &Snapshot, fip: &str) -> Vec<Value> {
    forwardings_of(snapshot, fip)
        .iter()
        .filter_map(|f| serde_json::to_value(row_of(&f.id, &f.value)).ok())
        .collect()
}

/// The floating IP of the address, whose forwardings the caller may see or change.
fn floating_ip(request: &Request, snapshot: &Snapshot) -> Result<Object<FloatingIp>> {
    let fip = access::floating_ip(request, snapshot, request.param("id"))?;
    request.authorize(&Target::project(&fip.value.project_id))?;
    Ok(fip)
}

fn forwarding(request: &Request, snapshot: &Snapshot, fip: &Object<FloatingIp>) -> Result<Object<PortForwarding>> {
    let id = request.param("forwarding_id");
    snapshot
        .get::<PortForwarding>(&PortForwardingId::from(id))
        .filter(|f| f.floatingip_id == fip.id)
        .ok_or_else(|| forwarding_not_found(id))
}

/// What a body says; nothing but what is there.
struct Given {
    protocol: Option<String>,
    external_port: Option<u16>,
    internal_port: Option<u16>,
    internal_port_id: Option<PortId>,
    internal_ip_address: Option<IpAddr>,
    description: Option<String>,
}

fn given(mut b: Body) -> Result<Given> {
    let protocol = b.text("protocol", 16)?.map(|p| p.to_lowercase());
    if let Some(p) = protocol
        .as_ref()
        .filter(|p| !PROTOCOLS.iter().any(|(name, _)| name == p))
    {
        return Err(invalid("protocol", format!("'{p}' is not in ['tcp', 'udp']")));
    }
    let mut port = |name: &str| match b.integer(name)? {
        None => Ok(None),
        Some(n) => match u16::try_from(n).ok().filter(|n| *n > 0) {
            Some(n) => Ok(Some(n)),
            None => Err(invalid(name, format!("'{n}' is not in [1, 65535]"))),
        },
    };
    let (external_port, internal_port) = (port("external_port")?, port("internal_port")?);
    let given = Given {
        protocol,
        external_port,
        internal_port,
        internal_port_id: b.nullable_uuid("internal_port_id")?.flatten().map(PortId::from),
        internal_ip_address: b.nullable_address("internal_ip_address")?.flatten(),
        description: b.text("description", 255)?,
    };
    b.finish(&["project_id", "tenant_id"])?;
    Ok(given)
}

fn required<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| invalid(name, "it is required"))
}

/// The inner port must be visible and the caller's to change: a forwarding opens it to the outside.
fn own_port(request: &Request, snapshot: &Snapshot, id: &PortId) -> Result<()> {
    let port = access::port(request, snapshot, id)?;
    request.authorize_rule("update_port", &access::of_port(snapshot, &port.value))
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let fip = floating_ip(&request, &snapshot)?;
    let rows = forwardings_of(&snapshot, &fip.id)
        .iter()
        .map(|f| row_of(&f.id, &f.value))
        .collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let fip = floating_ip(&request, &snapshot)?;
    let f = forwarding(&request, &snapshot, &fip)?;
    row::one(200, "port_forwarding", row_of(&f.id, &f.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    floating_ip(&request, &app.store.snapshot())?;
    let (bulk, bodies) = body::create(&mut request, "port_forwarding", "port_forwardings").await?;
    // Each writes its floating IP, so one call makes one.
    let mut bodies = bodies.into_iter();
    let (Some(one), None) = (bodies.next(), bodies.next()) else {
        return Err(invalid("port_forwardings", "one port forwarding is made by one call"));
    };
    let given = given(one)?;
    let wanted = ForwardingRequest {
        protocol: required("protocol", given.protocol)?,
        external_port: required("external_port", given.external_port)?,
        internal_port: required("internal_port", given.internal_port)?,
        internal_port_id: required("internal_port_id", given.internal_port_id)?,
        internal_ip_address: given.internal_ip_address,
        description: given.description.unwrap_or_default(),
    };
    let (id, made) = app
        .plan(|snapshot, txn| {
            let fip = floating_ip(&request, snapshot)?;
            own_port(&request, snapshot, &wanted.internal_port_id)?;
            plan_forwarding(snapshot, txn, &fip, None, wanted.clone())
        })
        .await?;
    row::created(bulk, "port_forwarding", "port_forwardings", vec![row_of(&id, &made)])
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    {
        let snapshot = app.store.snapshot();
        let fip = floating_ip(&request, &snapshot)?;
        forwarding(&request, &snapshot, &fip)?;
    }
    let given = given(body::update(&mut request, "port_forwarding").await?)?;
    let (id, made) = app
        .plan(|snapshot, txn| {
            let fip = floating_ip(&request, snapshot)?;
            let old = forwarding(&request, snapshot, &fip)?;
            if let Some(port) = &given.internal_port_id {
                own_port(&request, snapshot, port)?;
            }
            // Another port has other addresses.
            let same_port = given
                .internal_port_id
                .as_ref()
                .is_none_or(|p| *p == old.internal_port_id);
            let kept = same_port.then_some(IpAddr::V4(old.internal_ip_address));
            let wanted = ForwardingRequest {
                protocol: given.protocol.clone().unwrap_or_else(|| old.protocol.clone()),
                external_port: given.external_port.unwrap_or(old.external_port),
                internal_port: given.internal_port.unwrap_or(old.internal_port),
                internal_port_id: given
                    .internal_port_id
                    .clone()
                    .unwrap_or_else(|| old.internal_port_id.clone()),
                internal_ip_address: given.internal_ip_address.or(kept),
                description: given.description.clone().unwrap_or_else(|| old.description.clone()),
            };
            plan_forwarding(snapshot, txn, &fip, Some(&old), wanted)
        })
        .await?;
    row::one(200, "port_forwarding", row_of(&id, &made), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let fip = floating_ip(&request, snapshot)?;
        let read = forwarding(&request, snapshot, &fip)?;
        plan_delete_forwarding(txn, &fip, &read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
