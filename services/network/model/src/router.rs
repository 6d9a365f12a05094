//! Routers. A router is hosted by one node, chosen when it first has something to route; its ports are bound to that node.

use crate::{
    Agent, ConntrackHelper, Meta, NetworkId, Port, PortId, agent, errors, port::PortChange, port_plan::plan_update_port,
};
use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

maru_base::typed_id!(
    /// Id of a router, a UUID.
    RouterId
);

/// Device owner of interface ports.
pub const INTERFACE: &str = "network:router_interface";
/// Device owner of gateway ports.
pub const GATEWAY: &str = "network:router_gateway";

/// A router's way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The external network.
    pub network_id: NetworkId,
    /// The gateway port; its addresses are the `external_fixed_ips`.
    pub port_id: PortId,
    /// Whether tenants' addresses are translated to the gateway's.
    pub enable_snat: bool,
}

/// An extra route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through which neighbour.
    pub nexthop: IpAddr,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Administrative state.
    pub admin_state_up: bool,
    /// Its way out.
    pub gateway: Option<Gateway>,
    /// Extra routes.
    pub routes: Vec<Route>,
    /// The node that hosts it.
    pub host: Option<String>,
    /// Wished zones.
    pub availability_zone_hints: Vec<String>,
    /// Whether an administrator wished it distributed: kept and shown, the data path is the same.
    #[serde(default)]
    pub distributed: bool,
    /// Whether an administrator wished it highly available: kept and shown, the data path is the same.
    #[serde(default)]
    pub ha: bool,
    /// Taken off its node by an administrator: it waits until it is put on one.
    #[serde(default)]
    pub parked: bool,
    /// What it reads along with.
    #[serde(default)]
    pub conntrack_helpers: Vec<ConntrackHelper>,
    /// Whether it may answer for addresses behind it (see [`crate::ndp_proxy`]).
    #[serde(default)]
    pub enable_ndp_proxy: bool,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for Router {
    type Id = RouterId;
    const NAME: &'static str = "router";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |r| vec![r.project_id.to_string()],
            },
            Index {
                name: "host",
                values: |r| r.host.iter().cloned().collect(),
            },
            Index {
                name: "name",
                values: |r| vec![r.name.clone()],
            },
            Index {
                name: "external",
                values: |r| r.gateway.iter().map(|g| g.network_id.to_string()).collect(),
            },
        ]
    }
}

/// Whether a port is a router's.
#[must_use]
pub fn is_router_port(port: &Port) -> bool {
    port.device_owner == INTERFACE || port.device_owner == GATEWAY
}

/// All ports of a router: interfaces and gateway.
pub fn ports(snapshot: &Snapshot, id: &RouterId) -> Vec<Object<Port>> {
    snapshot
        .find::<Port>("device", id)
        .filter(|p| is_router_port(&p.value))
        .collect()
}
/// The interface ports of a router.
#[must_use]
pub fn interfaces(snapshot: &Snapshot, id: &RouterId) -> Vec<Object<Port>> {
    snapshot
        .find::<Port>("device", id)
        .filter(|p| p.value.device_owner == INTERFACE)
        .collect()
}

/// The node for a new router: of the connected and enabled L3 agents, the one with the fewest routers.
#[must_use]
pub fn pick_host(snapshot: &Snapshot, hints: &[String]) -> Option<String> {
    snapshot
        .find::<Agent>("type", agent::L3)
        .filter(|a| a.value.alive && a.value.admin_state_up)
        .filter(|a| hints.is_empty() || hints.contains(&a.value.availability_zone))
        .map(|a| {
            (
                snapshot.find::<Router>("host", &a.value.host).count(),
                a.value.host.clone(),
            )
        })
        .min()
        .map(|(_, host)| host)
}

/// Plans hosts for routers that have something to route and no host: for the one of `only`, or all. Gives how many were
/// planned (at most 64 at a time).
///
/// # Errors
/// When a port cannot be bound.
pub fn plan_host_routers(snapshot: &Snapshot, txn: &mut Txn, only: Option<&RouterId>) -> Result<usize> {
    let unhosted: Vec<Object<Router>> = match only {
        Some(id) => snapshot.get::<Router>(id).into_iter().collect(),
        None => snapshot.list::<Router>().collect(),
    };
    let mut planned = 0;
    for router in unhosted
        .into_iter()
        .filter(|r| r.value.host.is_none() && !r.value.parked)
    {
        if planned >= 64 || ports(snapshot, &router.id).is_empty() {
            continue;
        }
        let Some(host) = pick_host(snapshot, &router.value.availability_zone_hints) else {
            continue;
        };
        put_on(snapshot, txn, &router, Some(host))?;
        planned += 1;
    }
    Ok(planned)
}

/// Binds a router and its ports to a node, or to none.
fn put_on(snapshot: &Snapshot, txn: &mut Txn, router: &Object<Router>, host: Option<String>) -> Result<()> {
    for port in ports(snapshot, &router.id) {
        let change = PortChange {
            host: Some(host.clone().unwrap_or_default()),
            ..PortChange::default()
        };
        plan_update_port(snapshot, txn, &port, change)?;
    }
    let mut value = (*router.value).clone();
    value.parked = host.is_none();
    value.host = host;
    // An interface that is added at this moment holds the same epoch and would not be bound.
    crate::keys::hold_epoch(snapshot, txn, &format!("router:{}", router.id));
    txn.update(router, &value);
    Ok(())
}

/// Plans to put a router on the node of an agent, as an administrator asks for it.
///
/// # Errors
/// 409 `InvalidL3Agent` for an agent that takes none, 409 `RouterHostedByL3Agent` while it is on another node.
pub fn plan_put_router(
    snapshot: &Snapshot,
    txn: &mut Txn,
    router: &Object<Router>,
    agent: &Object<Agent>,
) -> Result<()> {
    if agent.value.agent_type != agent::L3 || !agent.value.admin_state_up {
        return Err(errors::conflict(
            "InvalidL3Agent",
            format!(
                "Agent {} is not an L3 agent or has been disabled; choose another.",
                agent.id
            ),
        ));
    }
    match &router.value.host {
        Some(host) if *host == agent.value.host => Ok(()),
        Some(host) => Err(errors::conflict(
            "RouterHostedByL3Agent",
            format!(
                "The router {} has been already hosted by the L3 Agent on {host}; take it off there first.",
                router.id
            ),
        )),
        None => {
            // The agent may be switched off at this moment.
            txn.unchanged(agent);
            put_on(snapshot, txn, router, Some(agent.value.host.clone()))
        }
    }
}

/// Plans to take a router off the node of an agent; it is on none until it is put on one.
///
/// # Errors
/// 409 `RouterNotHostedByL3Agent`.
pub fn plan_take_router(
    snapshot: &Snapshot,
    txn: &mut Txn,
    router: &Object<Router>,
    agent: &Object<Agent>,
) -> Result<()> {
    if agent.value.agent_type != agent::L3 || router.value.host.as_ref() != Some(&agent.value.host) {
        return Err(errors::conflict(
            "RouterNotHostedByL3Agent",
            format!("The router {} is not hosted by L3 agent {}.", router.id, agent.id),
        ));
    }
    put_on(snapshot, txn, router, None)
}
