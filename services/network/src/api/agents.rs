//! `/agents`, `/availability_zones`, and what agents host.

use super::{
    body,
    row::{self, List, Row, Wrapped},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::{Result, time};
use maru_http::{Reply, Request};
use maru_network_model::{
    Agent, AgentId, Network, Router, agent, dhcp, errors,
    router::{plan_put_router, plan_take_router},
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "agents",
    filters: &[],
    attributes: &[
        "id",
        "agent_type",
        "binary",
        "topic",
        "host",
        "admin_state_up",
        "alive",
        "created_at",
        "started_at",
        "heartbeat_timestamp",
        "description",
        "availability_zone",
        "configurations",
        "resources_synced",
    ],
    missing: |id| errors::agent_not_found(id),
};

fn stamp(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn row_of(id: &str, a: &Agent) -> Row {
    // A node that is connected is heard all the time; only transitions are stored.
    let heard = if a.alive { time::now() } else { a.heartbeat_at };
    let zone = if matches!(a.agent_type.as_str(), agent::L3 | agent::DHCP) {
        a.availability_zone.as_str().into()
    } else {
        Value::Null
    };
    Row::new(id)
        .with("agent_type", a.agent_type.as_str())
        .with("binary", a.binary.as_str())
        .with("topic", a.topic.as_str())
        .with("host", a.host.as_str())
        .with("admin_state_up", a.admin_state_up)
        .with("alive", a.alive)
        .with("created_at", stamp(a.created_at))
        .with("started_at", stamp(a.started_at))
        .with("heartbeat_timestamp", stamp(heard))
        .with(
            "description",
            Value::from(Some(a.description.as_str()).filter(|d| !d.is_empty())),
        )
        .with("availability_zone", zone)
        .with("configurations", json!({}))
        .with("resources_synced", Value::Null)
}

fn find(request: &Request, snapshot: &Snapshot) -> Result<Object<Agent>> {
    request.authorize(&Target::none())?;
    let id = request.param("id");
    snapshot
        .get::<Agent>(&AgentId::from(id))
        .ok_or_else(|| errors::agent_not_found(id))
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let rows = app
        .store
        .snapshot()
        .list::<Agent>()
        .map(|a| row_of(&a.id, &a.value))
        .collect();
    LIST.answer(&request, rows, |row, name, values| {
        // Upstream's data base compares these without regard to case, and clients rely on it.
        let text = row.get(name).filter(|_| name == "agent_type")?.as_str()?;
        Some(values.iter().any(|v| v.eq_ignore_ascii_case(text)))
    })
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let a = find(&request, &app.store.snapshot())?;
    row::one(200, "agent", row_of(&a.id, &a.value), &request.query)
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "agent").await?;
    let up = b.boolean("admin_state_up")?;
    let description = b.nullable_text("description", 255)?;
    b.finish(&[
        "agent_type",
        "binary",
        "topic",
        "host",
        "alive",
        "created_at",
        "started_at",
        "heartbeat_timestamp",
        "configurations",
        "availability_zone",
    ])?;
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = find(&request, snapshot)?;
            let mut value = (*read.value).clone();
            value.admin_state_up = up.unwrap_or(value.admin_state_up);
            if let Some(text) = &description {
                value.description = text.clone().unwrap_or_default();
            }
            txn.update(&read, &value);
            Ok((read.id, value))
        })
        .await?;
    row::one(200, "agent", row_of(&id, &value), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = find(&request, snapshot)?;
        if read.value.alive {
            return Err(errors::conflict(
                "AgentInUse",
                format!(
                    "Agent {} is alive on node {}; take the node out of the cloud first.",
                    read.id, read.value.host
                ),
            ));
        }
        agent::plan_delete_agent(txn, &read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn zones(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let mut rows: Vec<(String, &str, bool)> = Vec::new();
    for (kind, resource) in [(agent::DHCP, "network"), (agent::L3, "router")] {
        for a in snapshot.find::<Agent>("type", kind) {
            let up = a.value.alive && a.value.admin_state_up;
            match rows
                .iter_mut()
                .find(|(z, r, _)| *z == a.value.availability_zone && *r == resource)
            {
                Some(row) => row.2 |= up,
                None => rows.push((a.value.availability_zone.clone(), resource, up)),
            }
        }
    }
    rows.sort();
    let list = List {
        plural: "availability_zones",
        filters: &[],
        attributes: &["name", "resource", "state"],
        missing: |id| errors::not_found("AvailabilityZoneNotFound", "Availability zone", id),
    };
    let rows: Vec<Row> = rows
        .iter()
        .map(|(zone, resource, up)| {
            Row::default()
                .with("name", zone.as_str())
                .with("resource", *resource)
                .with("state", if *up { "available" } else { "unavailable" })
        })
        .collect();
    list.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn routers(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let a = find(&request, &snapshot)?;
    let rows: Vec<Row> = if a.value.agent_type == agent::L3 {
        snapshot
            .find::<Router>("host", &a.value.host)
            .map(|r| {
                Row::new(&r.id)
                    .with("name", r.value.name.as_str())
                    .project(&r.value.project_id)
                    .with("admin_state_up", r.value.admin_state_up)
            })
            .collect()
    } else {
        Vec::new()
    };
    Reply::json(200, &Wrapped("routers", rows))
}

pub(crate) async fn networks(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let a = find(&request, &snapshot)?;
    let serves = |n: &Object<Network>| {
        n.value
            .dhcp_on_host(&a.value.host, dhcp::dhcp_port(&snapshot, &n.id).is_some())
    };
    let rows: Vec<Row> = snapshot
        .list::<Network>()
        .filter(|n| a.value.agent_type == agent::DHCP && serves(n))
        .map(|n| {
            Row::new(&n.id)
                .with("name", n.value.name.as_str())
                .project(&n.value.project_id)
                .with("admin_state_up", n.value.admin_state_up)
        })
        .collect();
    Reply::json(200, &Wrapped("networks", rows))
}

/// Tells a node to answer DHCP on a network, or (`on` false) not to.
async fn switch_dhcp(app: &App, request: &Request, network: &str, on: bool) -> Result<()> {
    app.plan(|snapshot, txn| {
        let a = find(request, snapshot)?;
        if a.value.agent_type != agent::DHCP {
            return Err(errors::conflict(
                "InvalidDHCPAgent",
                format!("Agent {} is not a valid DHCP Agent; choose another.", a.id),
            ));
        }
        let read = access::network(request, snapshot, network)?;
        let has = read
            .value
            .dhcp_on_host(&a.value.host, dhcp::dhcp_port(snapshot, &read.id).is_some());
        if has == on {
            let (code, text) = if on {
                ("NetworkHostedByDHCPAgent", "has been already hosted by")
            } else {
                ("NetworkNotHostedByDhcpAgent", "is not hosted by")
            };
            return Err(errors::conflict(
                code,
                format!("The network {} {text} the DHCP Agent {}.", read.id, a.id),
            ));
        }
        let mut value = (*read.value).clone();
        value.dhcp_on.retain(|h| *h != a.value.host);
        value.dhcp_off.retain(|h| *h != a.value.host);
        let told = if on { &mut value.dhcp_on } else { &mut value.dhcp_off };
        told.push(a.value.host.clone());
        txn.update(&read, &value);
        Ok(())
    })
    .await
}

pub(crate) async fn add_network(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let network = b.uuid("network_id")?;
    let network = b.required("network_id", network)?;
    b.finish(&[])?;
    switch_dhcp(&app, &request, &network, true).await?;
    Reply::json(201, &Value::Null)
}

pub(crate) async fn remove_network(app: Arc<App>, request: Request) -> Result<Reply> {
    switch_dhcp(&app, &request, request.param("network"), false).await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn add_router(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let router = b.uuid("router_id")?;
    let router = b.required("router_id", router)?;
    b.finish(&[])?;
    app.plan(|snapshot, txn| {
        let a = find(&request, snapshot)?;
        let read = access::router(&request, snapshot, &router)?;
        plan_put_router(snapshot, txn, &read, &a)
    })
    .await?;
    Reply::json(201, &Value::Null)
}

pub(crate) async fn remove_router(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let a = find(&request, snapshot)?;
        let read = access::router(&request, snapshot, request.param("router"))?;
        plan_take_router(snapshot, txn, &read, &a)
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn of_router(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    request.authorize(&Target::none())?;
    let router = access::router(&request, &snapshot, request.param("id"))?;
    let rows: Vec<Row> = router
        .value
        .host
        .iter()
        .flat_map(|h| snapshot.find::<Agent>("host", h).collect::<Vec<_>>())
        .filter(|a| a.value.agent_type == agent::L3)
        .map(|a| row_of(&a.id, &a.value).with("ha_state", Value::Null))
        .collect();
    Reply::json(200, &Wrapped("agents", rows))
}

pub(crate) async fn of_network(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    request.authorize(&Target::none())?;
    let network = access::network(&request, &snapshot, request.param("id"))?;
    let port = dhcp::dhcp_port(&snapshot, &network.id).is_some();
    let rows: Vec<Row> = snapshot
        .find::<Agent>("type", agent::DHCP)
        .filter(|a| network.value.dhcp_on_host(&a.value.host, port))
        .map(|a| row_of(&a.id, &a.value))
        .collect();
    Reply::json(200, &Wrapped("agents", rows))
}
