//! Routers. A router is hosted by one node, chosen when it first has something to route; its ports are bound to that node.

use crate::{Agent, Meta, NetworkId, Port, PortId, agent, port::PortChange, port_plan::plan_update_port};
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
    for router in unhosted.into_iter().filter(|r| r.value.host.is_none()) {
        let ports = ports(snapshot, &router.id);
        if ports.is_empty() || planned >= 64 {
            continue;
        }
        let Some(host) = pick_host(snapshot, &router.value.availability_zone_hints) else {
            continue;
        };
        for port in &ports {
            let change = PortChange {
                host: Some(host.clone()),
                ..PortChange::default()
            };
            plan_update_port(snapshot, txn, port, change)?;
        }
        let mut value = (*router.value).clone();
        value.host = Some(host);
        // An interface that is added at this moment holds the same epoch and would not be bound.
        crate::keys::hold_epoch(snapshot, txn, &format!("router:{}", router.id));
        txn.update(&router, &value);
        planned += 1;
    }
    Ok(planned)
}
