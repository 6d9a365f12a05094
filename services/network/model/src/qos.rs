//! QoS policies: what a guest may send and get in a second, and how its packets are marked. A port has its own policy, or its network's;
//! ports of the network's own devices (routers, DHCP) have none.

use crate::{Direction, Meta, Network, NetworkId, Port, errors, keys};
use maru_base::{Error, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a QoS policy, a UUID.
    QosPolicyId
);
maru_base::typed_id!(
    /// Id of a rule of a QoS policy, a UUID.
    QosRuleId
);

/// The marks that a packet may bear: upstream's list (class selectors, assured and expedited forwarding, voice admit).
pub const DSCP_MARKS: &[u8] = &[
    0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56,
];
const DEFAULT: &str = "qos-default";

/// A QoS policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosPolicy {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether new networks of its project have it.
    pub is_default: bool,
    /// Its rules: one of each kind and direction at most.
    pub rules: Vec<QosRule>,
    /// Standard attributes.
    pub meta: Meta,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosRule {
    /// Its id.
    pub id: QosRuleId,
    /// What it says.
    pub says: QosRuleKind,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosRuleKind {
    /// At most so much in a second.
    BandwidthLimit {
        /// Kilobits in a second.
        max_kbps: u32,
        /// Kilobits at once; 0 leaves it to the node.
        max_burst_kbps: u32,
        /// Into the guest, or out of it.
        direction: Direction,
    },
    /// Packets out of the guest bear this mark.
    DscpMarking {
        /// One of [`DSCP_MARKS`].
        dscp_mark: u8,
    },
}

impl QosRuleKind {
    /// What no two rules of a policy share.
    fn place(self) -> (u8, Option<Direction>) {
        match self {
            Self::BandwidthLimit { direction, .. } => (0, Some(direction)),
            Self::DscpMarking { .. } => (1, None),
        }
    }
}

impl Kind for QosPolicy {
    type Id = QosPolicyId;
    const NAME: &'static str = "qos_policy";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |p| vec![p.project_id.to_string()],
            },
            Index {
                name: "visible",
                values: |p| p.shared.then(|| "shared".to_owned()).into_iter().collect(),
            },
            Index {
                name: "rule",
                values: |p| p.rules.iter().map(|r| r.id.to_string()).collect(),
            },
        ]
    }
}

/// 404.
pub fn policy_not_found(id: impl std::fmt::Display) -> Error {
    errors::not_found("QosPolicyNotFound", "QoS policy", id)
}

/// 404.
pub fn rule_not_found(policy: impl std::fmt::Display, id: &str) -> Error {
    errors::not_found("QosRuleNotFound", &format!("QoS rule of policy {policy}"), id)
}

/// The default policy of a project, if it has one.
#[must_use]
pub fn default_policy(snapshot: &Snapshot, project: &ProjectId) -> Option<QosPolicyId> {
    let id = snapshot.owner(DEFAULT, project, "default")?;
    Some(QosPolicyId::from(id))
}

/// Plans a policy, or (`read`) what becomes of one.
///
/// # Errors
/// 409 `QoSPolicyDefaultAlreadyExists` for a second default of a project.
pub fn plan_policy(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: Option<&Object<QosPolicy>>,
    new: &QosPolicy,
) -> Result<QosPolicyId> {
    let id = read.map_or_else(QosPolicyId::new_uuid, |r| r.id.clone());
    let was = read.is_some_and(|r| r.is_default);
    if new.is_default && !was {
        if let Some(other) = default_policy(snapshot, &new.project_id) {
            return Err(errors::conflict(
                "QoSPolicyDefaultAlreadyExists",
                format!("A default QoS policy exists for project {}: {other}.", new.project_id),
            ));
        }
        txn.claim(DEFAULT, &new.project_id, "default", &id);
    } else if was && !new.is_default {
        txn.release(DEFAULT, &new.project_id, "default");
    }
    match read {
        None => txn.create(&id, new),
        Some(read) => txn.update(read, new),
    };
    Ok(id)
}

/// Puts a rule into a policy, or (`id`) another in its place.
///
/// # Errors
/// 404 for a rule that is not there; 409 `QoSRuleParameterConflict` for a second one of its kind and direction.
pub fn put_rule(policy: &mut QosPolicy, of: &QosPolicyId, id: Option<&str>, says: QosRuleKind) -> Result<QosRule> {
    let taken = policy
        .rules
        .iter()
        .find(|r| id.is_none_or(|id| r.id != *id) && r.says.place() == says.place());
    if let Some(other) = taken {
        return Err(errors::conflict(
            "QoSRulesConflict",
            format!(
                "Rule cannot be in QoS policy {of}: rule {} of the same kind and direction is there already; change that one.",
                other.id
            ),
        ));
    }
    let place = match id {
        None => {
            policy.rules.push(QosRule {
                id: QosRuleId::new_uuid(),
                says,
            });
            policy.rules.last()
        }
        Some(id) => {
            let place = policy.rules.iter_mut().find(|r| r.id == *id);
            let place = place.ok_or_else(|| rule_not_found(of, id))?;
            place.says = says;
            Some(&*place)
        }
    };
    let made = place.cloned().ok_or_else(|| policy_not_found(of))?;
    policy.meta.touch();
    Ok(made)
}

/// Marks that something has a policy from now on: its deletion at this moment conflicts.
pub fn hold_policy(txn: &mut Txn, id: &QosPolicyId) {
    keys::alive::<QosPolicy>(txn, id);
    txn.bump_epoch(&format!("qos:{id}"));
}

/// Plans the deletion of a policy.
///
/// # Errors
/// 409 `QosPolicyInUse` while a port or network has it.
pub fn plan_delete_policy(snapshot: &Snapshot, txn: &mut Txn, read: &Object<QosPolicy>) -> Result<()> {
    let id = &read.id;
    let set = format!("qos:{id}");
    keys::watch_epoch(snapshot, txn, &set);
    let network = snapshot
        .find::<Network>("qos_policy", id)
        .next()
        .map(|n| n.id.to_string());
    let port = snapshot.find::<Port>("qos_policy", id).next().map(|p| p.id.to_string());
    let user = network.map(|n| ("network", n)).or_else(|| port.map(|p| ("port", p)));
    if let Some((what, user)) = user {
        return Err(errors::conflict(
            "QosPolicyInUse",
            format!("QoS Policy {id} is used by {what} {user}; take it from there first."),
        ));
    }
    if read.is_default {
        txn.release(DEFAULT, &read.project_id, "default");
    }
    keys::bury(txn, keys::epoch(&set));
    txn.delete(read);
    Ok(())
}

/// The policy of a port's network, as the port shows it.
#[must_use]
pub fn network_policy(snapshot: &Snapshot, network: &NetworkId) -> Option<QosPolicyId> {
    snapshot.get::<Network>(network)?.qos_policy_id.clone()
}

/// The rules that bind a port.
#[must_use]
pub fn rules_of(snapshot: &Snapshot, port: &Port) -> Vec<QosRuleKind> {
    if port.device_owner.starts_with("network:") {
        return Vec::new();
    }
    let own = port.qos_policy_id.clone();
    own.or_else(|| network_policy(snapshot, &port.network_id))
        .and_then(|id| snapshot.get::<QosPolicy>(&id))
        .map(|p| p.rules.iter().map(|r| r.says).collect())
        .unwrap_or_default()
}
