//! Security group rules. A rule that the firewall cannot carry out is refused here, with the reason: nothing malformed may
//! ever reach a node, where it could stop other tenants' rules from being applied.

use crate::{
    AddressGroup, AddressGroupId, Meta, SecurityGroup, SecurityGroupId, address_group::address_group_not_found, errors,
    keys, protocol, quota,
};
use ipnet::IpNet;
use maru_base::{Error, ErrorKind, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a security group rule, a UUID.
    SecurityGroupRuleId
);

const CLAIM: &str = "group-rule";

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the guest.
    Ingress,
    /// Out of the guest.
    Egress,
}

impl Direction {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Owner.
    pub project_id: ProjectId,
    /// Its group.
    pub security_group_id: SecurityGroupId,
    /// Which way.
    pub direction: Direction,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// Name or number as the client gave it; any if `None`.
    pub protocol: Option<String>,
    /// Lowest port, or ICMP type.
    pub port_range_min: Option<u16>,
    /// Highest port, or ICMP code.
    pub port_range_max: Option<u16>,
    /// Remote block.
    pub remote_ip_prefix: Option<IpNet>,
    /// Remote group.
    pub remote_group_id: Option<SecurityGroupId>,
    /// Remote blocks, by name.
    #[serde(default)]
    pub remote_address_group_id: Option<AddressGroupId>,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for SecurityGroupRule {
    type Id = SecurityGroupRuleId;
    const NAME: &'static str = "security_group_rule";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |r| vec![r.project_id.to_string()],
            },
            Index {
                name: "group",
                values: |r| vec![r.security_group_id.to_string()],
            },
            Index {
                name: "remote",
                values: |r| r.remote_group_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "address_group",
                values: |r| r.remote_address_group_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

impl SecurityGroupRule {
    /// The IP protocol number; any if `None`. ICMP means the one of the rule's IP version.
    #[must_use]
    pub fn protocol_number(&self) -> Option<u8> {
        let n = self.protocol.as_deref().and_then(protocol::number)?;
        Some(if n == protocol::ICMP && self.ethertype == "IPv6" {
            protocol::ICMPV6
        } else {
            n
        })
    }
    /// 4 or 6.
    #[must_use]
    pub fn ip_version(&self) -> u8 {
        if self.ethertype == "IPv6" { 6 } else { 4 }
    }
    /// What makes two rules of a group the same.
    fn identity(&self) -> String {
        let number = |n: Option<u16>| n.map(|n| n.to_string()).unwrap_or_default();
        format!(
            "{}|{}|{}|{}|{}|{}|{}{}",
            self.direction.as_str(),
            self.ethertype,
            self.protocol_number().map(|n| n.to_string()).unwrap_or_default(),
            number(self.port_range_min),
            number(self.port_range_max),
            self.remote_ip_prefix.map(|n| n.to_string()).unwrap_or_default(),
            self.remote_group_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            self.remote_address_group_id
                .as_ref()
                .map(|g| format!("|{g}"))
                .unwrap_or_default(),
        )
    }
}

/// What a rule shall be.
#[derive(Debug, Clone)]
pub struct RuleRequest {
    /// See [`SecurityGroupRule`].
    pub project_id: ProjectId,
    /// See [`SecurityGroupRule`].
    pub security_group_id: SecurityGroupId,
    /// See [`SecurityGroupRule`].
    pub direction: Direction,
    /// See [`SecurityGroupRule`].
    pub ethertype: String,
    /// See [`SecurityGroupRule`].
    pub protocol: Option<String>,
    /// As the client gave it; checked by [`plan_create_rule`].
    pub port_range_min: Option<i64>,
    /// As the client gave it.
    pub port_range_max: Option<i64>,
    /// See [`SecurityGroupRule`].
    pub remote_ip_prefix: Option<IpNet>,
    /// See [`SecurityGroupRule`].
    pub remote_group_id: Option<SecurityGroupId>,
    /// See [`SecurityGroupRule`].
    pub remote_address_group_id: Option<AddressGroupId>,
    /// See [`Meta`].
    pub description: String,
}

impl RuleRequest {
    /// A rule that allows everything one way.
    #[must_use]
    pub fn new(project_id: ProjectId, group: SecurityGroupId, direction: Direction, ethertype: &str) -> Self {
        Self {
            project_id,
            security_group_id: group,
            direction,
            ethertype: ethertype.to_owned(),
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
            remote_address_group_id: None,
            description: String::new(),
        }
    }
}

/// Plans a new rule.
///
/// # Errors
/// 400 for what no firewall can carry out, 404 for a group that is not there, 409 `SecurityGroupRuleExists`, 409 over quota.
pub fn plan_create_rule(
    snapshot: &Snapshot,
    txn: &mut Txn,
    request: RuleRequest,
) -> Result<(SecurityGroupRuleId, SecurityGroupRule)> {
    check(&request)?;
    let group = request.security_group_id.clone();
    for id in std::iter::once(&group).chain(&request.remote_group_id) {
        keys::look::<SecurityGroup>(snapshot, txn, id).ok_or_else(|| errors::group_not_found(id))?;
        keys::alive::<SecurityGroup>(txn, id);
        txn.bump_epoch(&format!("rules:{id}"));
    }
    if let Some(id) = &request.remote_address_group_id {
        keys::look::<AddressGroup>(snapshot, txn, id).ok_or_else(|| address_group_not_found(id))?;
        keys::alive::<AddressGroup>(txn, id);
        txn.bump_epoch(&format!("address-group:{id}"));
    }
    quota::consume(snapshot, txn, &request.project_id, "security_group_rule")?;
    let rule = build(request);
    let key = keys::claim(CLAIM, &group, &rule.identity());
    let there = snapshot
        .owner(CLAIM, &group, &rule.identity())
        .or_else(|| keys::pending_text(txn, &key));
    if let Some(other) = there {
        return Err(errors::conflict(
            "SecurityGroupRuleExists",
            format!("Security group rule already exists. Rule id is {other}."),
        ));
    }
    let id = put_built(txn, &rule);
    Ok((id, rule))
}

/// Plans the deletion of a rule.
pub fn plan_delete_rule(txn: &mut Txn, read: &Object<SecurityGroupRule>) {
    txn.bump_epoch(&format!("rules:{}", read.value.security_group_id));
    drop_rule(txn, read);
}

pub(crate) fn drop_rule(txn: &mut Txn, read: &Object<SecurityGroupRule>) {
    let rule = &read.value;
    txn.release(CLAIM, &rule.security_group_id, &rule.identity());
    quota::release(txn, &rule.project_id, "security_group_rule");
    txn.delete(read);
}

/// Writes a rule of the cloud's own making.
pub(crate) fn put_rule(txn: &mut Txn, request: RuleRequest) {
    let rule = build(request);
    put_built(txn, &rule);
}

fn put_built(txn: &mut Txn, rule: &SecurityGroupRule) -> SecurityGroupRuleId {
    let id = SecurityGroupRuleId::new_uuid();
    txn.claim(CLAIM, &rule.security_group_id, &rule.identity(), &id);
    txn.create(&id, rule);
    id
}

fn build(r: RuleRequest) -> SecurityGroupRule {
    let port = |n: Option<i64>| n.and_then(|n| u16::try_from(n).ok());
    SecurityGroupRule {
        project_id: r.project_id,
        security_group_id: r.security_group_id,
        direction: r.direction,
        ethertype: r.ethertype,
        protocol: r.protocol,
        port_range_min: port(r.port_range_min),
        port_range_max: port(r.port_range_max),
        remote_ip_prefix: r.remote_ip_prefix.map(|n| n.trunc()),
        remote_group_id: r.remote_group_id,
        remote_address_group_id: r.remote_address_group_id,
        meta: Meta::new(r.description),
    }
}

fn bad(code: &'static str, message: String) -> Error {
    errors::refuse(ErrorKind::BadRequest, code, message)
}

pub(crate) fn check(r: &RuleRequest) -> Result<()> {
    if !matches!(r.ethertype.as_str(), "IPv4" | "IPv6") {
        return Err(bad(
            "SecurityGroupRuleInvalidEtherType",
            format!(
                "Security group rule for ethertype '{}' is not supported; allowed are IPv4 and IPv6.",
                r.ethertype
            ),
        ));
    }
    if r.remote_address_group_id.is_some() && (r.remote_ip_prefix.is_some() || r.remote_group_id.is_some()) {
        return Err(bad(
            "SecurityGroupMultipleRemoteEntites",
            "A rule names one of remote_ip_prefix, remote_group_id and remote_address_group_id; make a rule for each."
                .to_owned(),
        ));
    }
    if r.remote_ip_prefix.is_some() && r.remote_group_id.is_some() {
        return Err(bad(
            "SecurityGroupRemoteGroupAndRemoteIpPrefix",
            "A rule names remote_ip_prefix or remote_group_id, not both; make two rules.".to_owned(),
        ));
    }
    if let Some(prefix) = &r.remote_ip_prefix
        && prefix.addr().is_ipv4() != (r.ethertype == "IPv4")
    {
        return Err(bad(
            "SecurityGroupRuleParameterConflict",
            format!(
                "Conflicting value ethertype {} for CIDR {prefix}; they must be of one IP version.",
                r.ethertype
            ),
        ));
    }
    let number = match &r.protocol {
        None => None,
        Some(text) => Some(protocol::number(text).ok_or_else(|| {
            bad(
                "SecurityGroupRuleInvalidProtocol",
                format!("Security group rule protocol '{text}' is not known; use a name such as tcp, udp, icmp or a number 0-255."),
            )
        })?),
    };
    if let Some(n) = number
        && r.ethertype == "IPv4"
        && protocol::is_ipv6_only(n)
    {
        return Err(bad(
            "SecurityGroupEthertypeConflictWithProtocol",
            format!(
                "Protocol {} belongs to IPv6; set ethertype to IPv6.",
                r.protocol.as_deref().unwrap_or_default()
            ),
        ));
    }
    check_ports(r, number)
}

fn check_ports(r: &RuleRequest, number: Option<u8>) -> Result<()> {
    let (min, max) = (r.port_range_min, r.port_range_max);
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(number) = number else {
        return Err(bad(
            "SecurityGroupProtocolRequiredWithPorts",
            "A rule with ports must name its protocol, such as tcp or udp.".to_owned(),
        ));
    };
    if matches!(number, protocol::ICMP | protocol::ICMPV6) {
        for (field, value) in [("type (port_range_min)", min), ("code (port_range_max)", max)] {
            if let Some(v) = value
                && !(0..=255).contains(&v)
            {
                return Err(bad(
                    "SecurityGroupInvalidIcmpValue",
                    format!("Invalid value for ICMP {field}: {v} is not within 0 and 255."),
                ));
            }
        }
        if min.is_none() {
            return Err(bad(
                "SecurityGroupMissingIcmpType",
                "ICMP code (port-range-max) is provided but ICMP type (port-range-min) is missing.".to_owned(),
            ));
        }
        return Ok(());
    }
    if !protocol::has_ports(number) {
        return Err(bad(
            "SecurityGroupInvalidProtocolForPort",
            format!(
                "Protocol {} has no ports; leave port_range_min and port_range_max out.",
                r.protocol.as_deref().unwrap_or_default()
            ),
        ));
    }
    for port in [min, max].into_iter().flatten() {
        if !(1..=65_535).contains(&port) {
            return Err(bad(
                "SecurityGroupInvalidPortValue",
                format!("Invalid value for port {port}: ports are within 1 and 65535."),
            ));
        }
    }
    match (min, max) {
        (Some(a), Some(b)) if a <= b => Ok(()),
        _ => Err(bad(
            "SecurityGroupInvalidPortRange",
            "For TCP/UDP protocols, port_range_min must be <= port_range_max, and both or neither are given."
                .to_owned(),
        )),
    }
}
