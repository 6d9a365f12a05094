//! What nodes observe of ports.

use crate::{Port, PortId, dhcp, floating_ip, keys};
use maru_store::{Index, Kind, Op, Snapshot, Txn};
use serde::{Deserialize, Serialize};

/// What the node that has a port said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPort {
    /// The node that says so.
    pub host: String,
    /// Whether frames flow and the firewall is in place.
    pub up: bool,
    /// The revision of the intent that this answers.
    pub revision: u64,
    /// The connection in which it was said.
    pub session: u64,
    /// Why it is not up.
    pub fault: Option<String>,
}

impl Kind for ObservedPort {
    type Id = PortId;
    const NAME: &'static str = "observed_port";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |o| vec![o.host.clone()],
        }]
    }
}

/// Plans to keep what a node observes of a port. Gives `false`, and plans nothing, when the port is not (any more) on that
/// node or nothing is new.
pub fn plan_observe_port(snapshot: &Snapshot, txn: &mut Txn, id: &PortId, seen: &ObservedPort) -> bool {
    let Some(port) = snapshot.get::<Port>(id).filter(|p| p.value.host == seen.host) else {
        return false;
    };
    if snapshot.get::<ObservedPort>(id).is_some_and(|o| *o.value == *seen) {
        return false;
    }
    // The port may be deleted or moved meanwhile.
    txn.unchanged(&port);
    txn.put(id, seen);
    true
}

/// Plans to forget what was observed of a port (its node died or its session ended).
pub fn plan_forget_port(txn: &mut Txn, id: &PortId) {
    txn.op(Op::Delete(keys::object_key::<ObservedPort>(id)));
}

/// Whether a port's data path works.
#[must_use]
pub fn port_is_up(snapshot: &Snapshot, id: &PortId, port: &Port) -> bool {
    if !port.admin_state_up {
        return false;
    }
    // Answered on every node that has a guest of the network: there is no one place to observe.
    if port.device_owner == dhcp::OWNER {
        return true;
    }
    !port.host.is_empty()
        && snapshot
            .get::<ObservedPort>(id)
            .is_some_and(|o| o.value.up && o.value.host == port.host)
}

/// The status that the API shows.
#[must_use]
pub fn port_status(snapshot: &Snapshot, id: &PortId, port: &Port) -> &'static str {
    if port.device_owner == floating_ip::OWNER {
        "N/A"
    } else if port_is_up(snapshot, id, port) {
        "ACTIVE"
    } else {
        "DOWN"
    }
}
