//! Tombstones: what is gone for clients and may still be on nodes. services/nodes drops them when nodes report removal.

use crate::{Network, NetworkId, Port, PortId, Router, RouterId, keys, network};
use maru_base::Result;
use maru_store::{Guard, Index, Kind, Op, Snapshot, Txn};
use serde::{Deserialize, Serialize};

/// A deleted port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstonePort {
    /// The node it was on.
    pub host: String,
    /// Its network.
    pub network_id: NetworkId,
    /// The revision before its deletion.
    pub revision: u64,
}

impl Kind for TombstonePort {
    type Id = PortId;
    const NAME: &'static str = "tombstone_port";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |t| vec![t.host.clone()],
        }]
    }
}

/// A deleted network; it keeps its numbers until no host has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneNetwork {
    /// The nodes that may still have it.
    pub hosts: Vec<String>,
    /// Its segment number.
    pub vni: u32,
    /// Its conntrack zone.
    pub zone: u16,
    /// The revision before its deletion.
    pub revision: u64,
}

impl Kind for TombstoneNetwork {
    type Id = NetworkId;
    const NAME: &'static str = "tombstone_network";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |t| t.hosts.clone(),
        }]
    }
}

/// A deleted router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneRouter {
    /// The node it was on.
    pub host: String,
    /// The revision before its deletion.
    pub revision: u64,
}

impl Kind for TombstoneRouter {
    type Id = RouterId;
    const NAME: &'static str = "tombstone_router";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |t| vec![t.host.clone()],
        }]
    }
}

/// What a node says is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A port.
    Port(PortId),
    /// A network.
    Network(NetworkId),
    /// A router.
    Router(RouterId),
}

/// The hosts that a network is, or was and has not been reported removed, on.
#[must_use]
pub fn network_hosts(snapshot: &Snapshot, network: &NetworkId) -> Vec<String> {
    snapshot
        .raw_under(&keys::network_hosts(network))
        .filter_map(|(key, _)| key.parts().pop())
        .collect()
}

/// Plans what follows from a node's report that something is removed from it: its tombstone is dropped, and with the last
/// host of a deleted network its segment number and conntrack zone are free. A report about what is (again) meant to be on
/// that host changes nothing.
///
/// # Errors
/// None at present.
pub fn plan_removed(snapshot: &Snapshot, txn: &mut Txn, host: &str, what: &Removed) -> Result<()> {
    match what {
        Removed::Port(id) => {
            if let Some(tomb) = snapshot.get::<TombstonePort>(id).filter(|t| t.value.host == host) {
                txn.delete(&tomb);
            }
        }
        Removed::Router(id) => {
            if let Some(tomb) = snapshot.get::<TombstoneRouter>(id).filter(|t| t.value.host == host) {
                txn.delete(&tomb);
            }
        }
        Removed::Network(id) => plan_network_removed(snapshot, txn, host, id),
    }
    Ok(())
}

fn plan_network_removed(snapshot: &Snapshot, txn: &mut Txn, host: &str, id: &NetworkId) {
    let wanted_here = snapshot.find::<Port>("network", id).any(|p| p.value.host == host);
    if wanted_here {
        return;
    }
    let mark = keys::network_host(id, host);
    if let Some((revision, _)) = snapshot.raw(&mark) {
        // A port that is bound here at this moment writes the mark: then this conflicts and is planned again.
        txn.guard(Guard::At(mark.clone(), revision));
        txn.op(Op::Delete(mark));
    }
    let Some(tomb) = snapshot.get::<TombstoneNetwork>(id) else {
        // A deletion of the network at this moment reads the marks.
        if let Some(network) = snapshot.get::<Network>(id) {
            txn.unchanged(&network);
        }
        return;
    };
    let mut rest = (*tomb.value).clone();
    rest.hosts.retain(|h| h != host);
    if rest.hosts.is_empty() {
        txn.delete(&tomb);
        network::free_numbers(txn, rest.vni, rest.zone);
    } else if rest.hosts.len() < tomb.value.hosts.len() {
        txn.update(&tomb, &rest);
    }
}

/// Whether a router is meant to be on a host, for who maps reports.
#[must_use]
pub fn router_is_on(snapshot: &Snapshot, id: &RouterId, host: &str) -> bool {
    snapshot
        .get::<Router>(id)
        .is_some_and(|r| r.value.host.as_deref() == Some(host))
}
