//! The rules that new security groups begin with: what the cloud brings, and what an administrator adds or takes away.
//!
//! The four that the cloud brings are not stored. One that was deleted is remembered as gone under its own id.

use crate::{Direction, RuleRequest, SecurityGroupId, errors, keys, security_group_rule::check};
use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a rule of new groups, a UUID.
    DefaultRuleId
);

/// What `remote_group_id` says for "the group that the rule will be in".
pub const PARENT: &str = "PARENT";

/// A rule that new groups begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRule {
    /// Which way.
    pub direction: Direction,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// Name or number; any if `None`.
    pub protocol: Option<String>,
    /// Lowest port, or ICMP type.
    pub port_range_min: Option<i64>,
    /// Highest port, or ICMP code.
    pub port_range_max: Option<i64>,
    /// Remote block.
    pub remote_ip_prefix: Option<IpNet>,
    /// Whether it lets the members of its own group in.
    pub from_parent: bool,
    /// Whether a project's group `default` begins with it.
    pub in_default: bool,
    /// Whether every other group begins with it.
    pub in_others: bool,
    /// Free text.
    pub description: String,
    /// Whether it is one of the cloud's own that was deleted.
    pub gone: bool,
}

impl Kind for DefaultRule {
    type Id = DefaultRuleId;
    const NAME: &'static str = "default_security_group_rule";
    fn indexes() -> Vec<Index<Self>> {
        Vec::new()
    }
}

impl DefaultRule {
    /// The rule that a group gets by it.
    #[must_use]
    pub fn request(&self, project: &ProjectId, group: &SecurityGroupId) -> RuleRequest {
        RuleRequest {
            protocol: self.protocol.clone(),
            port_range_min: self.port_range_min,
            port_range_max: self.port_range_max,
            remote_ip_prefix: self.remote_ip_prefix,
            remote_group_id: self.from_parent.then(|| group.clone()),
            description: self.description.clone(),
            ..RuleRequest::new(project.clone(), group.clone(), self.direction, &self.ethertype)
        }
    }
    /// Whether two would make the same rule.
    fn same(&self, other: &Self) -> bool {
        let what = |r: &Self| {
            let block = r.remote_ip_prefix.map(|n| n.trunc());
            let ports = (r.port_range_min, r.port_range_max);
            (
                r.direction,
                r.ethertype.clone(),
                r.protocol.clone(),
                ports,
                block,
                r.from_parent,
            )
        };
        what(self) == what(other)
    }
}

/// What the cloud brings, as upstream: everything may go out of every group; in a default group its members reach one another.
fn brought() -> Vec<(DefaultRuleId, DefaultRule)> {
    let rule = |n: u8, direction, ethertype: &str| {
        let ingress = direction == Direction::Ingress;
        let rule = DefaultRule {
            direction,
            ethertype: ethertype.to_owned(),
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            from_parent: ingress,
            in_default: true,
            in_others: !ingress,
            description: String::new(),
            gone: false,
        };
        (
            DefaultRuleId::from(format!("00000000-0000-4000-8000-00000000000{n}")),
            rule,
        )
    };
    vec![
        rule(1, Direction::Egress, "IPv4"),
        rule(2, Direction::Egress, "IPv6"),
        rule(3, Direction::Ingress, "IPv4"),
        rule(4, Direction::Ingress, "IPv6"),
    ]
}

/// All rules that new groups begin with.
#[must_use]
pub fn default_rules(snapshot: &Snapshot) -> Vec<(DefaultRuleId, DefaultRule)> {
    let stored: Vec<_> = snapshot.list::<DefaultRule>().collect();
    let mut all = brought();
    all.retain(|(id, _)| !stored.iter().any(|o| o.id == *id));
    all.extend(
        stored
            .into_iter()
            .filter(|o| !o.value.gone)
            .map(|o| (o.id, (*o.value).clone())),
    );
    all
}

/// The rules of one new group.
#[must_use]
pub fn rules_of_new(
    snapshot: &Snapshot,
    project: &ProjectId,
    group: &SecurityGroupId,
    is_default: bool,
) -> Vec<RuleRequest> {
    default_rules(snapshot)
        .into_iter()
        .filter(|(_, r)| if is_default { r.in_default } else { r.in_others })
        .map(|(_, r)| r.request(project, group))
        .collect()
}

/// Plans a new one.
///
/// # Errors
/// 400 for what no firewall can carry out; 409 `DefaultSecurityGroupRuleExists`.
pub fn plan_create_default_rule(snapshot: &Snapshot, txn: &mut Txn, rule: &DefaultRule) -> Result<DefaultRuleId> {
    check(&rule.request(&ProjectId::from(""), &SecurityGroupId::from("")))?;
    keys::hold_epoch(snapshot, txn, "default-rules");
    if let Some((other, _)) = default_rules(snapshot).iter().find(|(_, r)| r.same(rule)) {
        return Err(errors::conflict(
            "DefaultSecurityGroupRuleExists",
            format!("Default Security group rule already exists. Rule id is {other}."),
        ));
    }
    let id = DefaultRuleId::new_uuid();
    txn.create(&id, rule);
    Ok(id)
}

/// Plans the deletion of one. Groups that are there keep their rules.
///
/// # Errors
/// 404.
pub fn plan_delete_default_rule(snapshot: &Snapshot, txn: &mut Txn, id: &DefaultRuleId) -> Result<()> {
    let missing = || errors::not_found("DefaultSecurityGroupRuleNotFound", "Default security group rule", id);
    let (_, rule) = default_rules(snapshot)
        .into_iter()
        .find(|(i, _)| i == id)
        .ok_or_else(missing)?;
    keys::hold_epoch(snapshot, txn, "default-rules");
    match snapshot.get::<DefaultRule>(id) {
        Some(read) => {
            txn.delete(&read);
        }
        None => {
            txn.create(id, &DefaultRule { gone: true, ..rule });
        }
    }
    Ok(())
}
