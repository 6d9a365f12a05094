//! Metering labels: names under which a project's traffic through its routers is counted, and the blocks that each counts.

use crate::{errors, keys};
use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a metering label, a UUID.
    MeteringLabelId
);
maru_base::typed_id!(
    /// Id of a rule of a metering label, a UUID.
    MeteringLabelRuleId
);

/// A metering label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringLabel {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether every project's routers are counted.
    pub shared: bool,
}

impl Kind for MeteringLabel {
    type Id = MeteringLabelId;
    const NAME: &'static str = "metering_label";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "project",
            values: |l| vec![l.project_id.to_string()],
        }]
    }
}

/// A rule: which traffic a label counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringLabelRule {
    /// Its label.
    pub label_id: MeteringLabelId,
    /// Owner of the label.
    pub project_id: ProjectId,
    /// `ingress` or `egress`.
    pub direction: String,
    /// The block at the other end, in the old form.
    pub remote_ip_prefix: Option<IpNet>,
    /// Where the traffic comes from.
    pub source_ip_prefix: Option<IpNet>,
    /// Where it goes to.
    pub destination_ip_prefix: Option<IpNet>,
    /// Whether it is left out instead of counted.
    pub excluded: bool,
}

impl Kind for MeteringLabelRule {
    type Id = MeteringLabelRuleId;
    const NAME: &'static str = "metering_label_rule";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |r| vec![r.project_id.to_string()],
            },
            Index {
                name: "label",
                values: |r| vec![r.label_id.to_string()],
            },
        ]
    }
}

/// Plans a new rule of a label.
///
/// # Errors
/// 404 for a label that is not there; 409 `MeteringLabelRuleOverlaps` for a block that another rule of the same direction counts.
pub fn plan_create_metering_rule(
    snapshot: &Snapshot,
    txn: &mut Txn,
    mut rule: MeteringLabelRule,
) -> Result<(MeteringLabelRuleId, MeteringLabelRule)> {
    let label = snapshot
        .get::<MeteringLabel>(&rule.label_id)
        .ok_or_else(|| label_not_found(&rule.label_id))?;
    rule.project_id = label.value.project_id.clone();
    keys::alive::<MeteringLabel>(txn, &rule.label_id);
    keys::hold_epoch(snapshot, txn, &format!("metering:{}", rule.label_id));
    if let Some(block) = rule.remote_ip_prefix {
        let other = snapshot.find::<MeteringLabelRule>("label", &rule.label_id).find(|r| {
            r.value.direction == rule.direction
                && r.value
                    .remote_ip_prefix
                    .is_some_and(|b| crate::subnet::overlap(&b, &block))
        });
        if let Some(other) = other {
            return Err(errors::conflict(
                "MeteringLabelRuleOverlaps",
                format!(
                    "Metering label rule with remote_ip_prefix {block} overlaps another, {}; name another block.",
                    other.id
                ),
            ));
        }
    }
    let id = MeteringLabelRuleId::new_uuid();
    txn.create(&id, &rule);
    Ok((id, rule))
}

/// Plans the deletion of a label and its rules.
pub fn plan_delete_label(snapshot: &Snapshot, txn: &mut Txn, read: &Object<MeteringLabel>) {
    let set = format!("metering:{}", read.id);
    keys::watch_epoch(snapshot, txn, &set);
    for rule in snapshot.find::<MeteringLabelRule>("label", &read.id) {
        txn.delete(&rule);
    }
    keys::bury(txn, keys::epoch(&set));
    txn.delete(read);
}

/// 404.
pub fn label_not_found(id: impl std::fmt::Display) -> maru_base::Error {
    errors::not_found("MeteringLabelNotFound", "Metering label", id)
}
