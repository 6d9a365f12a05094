//! Agents: the networking roles of registered nodes, as `GET /agents` shows them. Heartbeats live in memory; what is stored
//! are transitions.

use crate::keys;
use jiff::Timestamp;
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of an agent, a UUID.
    AgentId
);

/// Type of the agent that carries the data path.
pub const L2: &str = "Linux bridge agent";
/// Type of the agent that hosts routers.
pub const L3: &str = "L3 agent";
/// Type of the agent that answers DHCP.
pub const DHCP: &str = "DHCP agent";
/// Type of the agent that answers metadata requests.
pub const METADATA: &str = "Metadata agent";

/// The roles that each node has: type, binary, topic.
const ROLES: &[(&str, &str, &str)] = &[
    (L2, "neutron-linuxbridge-agent", "N/A"),
    (L3, "neutron-l3-agent", "l3_agent"),
    (DHCP, "neutron-dhcp-agent", "dhcp_agent"),
    (METADATA, "neutron-metadata-agent", "N/A"),
];

/// One role of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The node.
    pub host: String,
    /// Upstream's name of the role.
    pub agent_type: String,
    /// Upstream's binary of the role.
    pub binary: String,
    /// Upstream's message topic.
    pub topic: String,
    /// Whether the node is connected.
    pub alive: bool,
    /// Whether new routers may be put here.
    pub admin_state_up: bool,
    /// Zone of the node.
    pub availability_zone: String,
    /// Free text.
    pub description: String,
    /// When the node was first seen.
    pub created_at: Timestamp,
    /// When the node last connected.
    pub started_at: Timestamp,
    /// When it was last known alive, at the last transition.
    pub heartbeat_at: Timestamp,
}

impl Kind for Agent {
    type Id = AgentId;
    const NAME: &'static str = "agent";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "host",
                values: |a| vec![a.host.clone()],
            },
            Index {
                name: "type",
                values: |a| vec![a.agent_type.clone()],
            },
        ]
    }
}

/// Plans that a node is there with its networking roles, alive or not. Call it when a node registers and at each
/// transition; nothing is written when nothing changes.
pub fn plan_upsert_agent(snapshot: &Snapshot, txn: &mut Txn, host: &str, alive: bool, availability_zone: &str) {
    let now = maru_base::time::now();
    let known: Vec<Object<Agent>> = snapshot.find::<Agent>("host", host).collect();
    for (agent_type, binary, topic) in ROLES {
        match known.iter().find(|a| a.value.agent_type == *agent_type) {
            Some(agent) if agent.value.alive == alive && agent.value.availability_zone == availability_zone => {}
            Some(agent) => {
                let mut value = (*agent.value).clone();
                if alive && !value.alive {
                    value.started_at = now;
                }
                value.alive = alive;
                value.availability_zone = availability_zone.to_owned();
                value.heartbeat_at = now;
                txn.update(agent, &value);
            }
            None => {
                let id = AgentId::new_uuid();
                // Two processes that see a new node at once make one agent of each role.
                let name = keys::claim("agent", host, agent_type);
                if snapshot.raw(&name).is_some() {
                    continue;
                }
                txn.claim("agent", host, agent_type, &id);
                txn.create(
                    &id,
                    &Agent {
                        host: host.to_owned(),
                        agent_type: (*agent_type).to_owned(),
                        binary: (*binary).to_owned(),
                        topic: (*topic).to_owned(),
                        alive,
                        admin_state_up: true,
                        availability_zone: availability_zone.to_owned(),
                        description: String::new(),
                        created_at: now,
                        started_at: now,
                        heartbeat_at: now,
                    },
                );
            }
        }
    }
}

/// Plans the removal of an agent's record.
pub fn plan_delete_agent(txn: &mut Txn, read: &Object<Agent>) {
    txn.release("agent", &read.value.host, &read.value.agent_type);
    txn.delete(read);
}
