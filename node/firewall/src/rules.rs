//! One security group rule: checked, then either turned into nft text or asked whether it allows a flow. Both come from the
//! same typed value, so the kernel's answer and ours about live connections cannot drift apart.

use ipnet::IpNet;
use maru_agent_api::slice::Rule;
use std::net::IpAddr;

/// Protocols with ports: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA numbers).
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// What follows the addresses in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Anything.
    Any,
    /// A protocol by number.
    Protocol(u8),
    /// A protocol and a range of destination ports.
    Ports(u8, u16, u16),
    /// ICMP or ICMPv6 by type and perhaps code.
    Icmp(u8, u8, Option<u8>),
}

/// The other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    Any,
    Block(IpNet),
    Group(String),
}

/// A rule that can be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub ingress: bool,
    pub v6: bool,
    pub payload: Payload,
    pub remote: Remote,
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: u8,
    /// Of the target; 0 where the protocol has none.
    pub port: u16,
    /// Type and code, for ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

impl Match {
    /// Checks every field of a rule. The reason is for its owner.
    pub(crate) fn of(rule: &Rule) -> Result<Self, String> {
        let v6 = match rule.ip_version {
            4 => false,
            6 => true,
            n => return Err(format!("IP version {n} does not exist; it must be 4 or 6")),
        };
        let remote = match (&rule.remote_cidr, &rule.remote_group) {
            (Some(_), Some(_)) => {
                return Err("it names a remote block and a remote group; only one of them can be given".into());
            }
            (Some(block), None) if block.addr().is_ipv6() != v6 => {
                return Err(format!(
                    "the remote block {block} is not of IP version {}",
                    rule.ip_version
                ));
            }
            (Some(block), None) => Remote::Block(block.trunc()),
            (None, Some(group)) => Remote::Group(group.clone()),
            (None, None) => Remote::Any,
        };
        Ok(Self {
            ingress: rule.ingress,
            v6,
            payload: payload(rule, v6)?,
            remote,
        })
    }

    /// The nft rule, without its verdict. `set` names the set of a group's members.
    pub(crate) fn text(&self, set: impl Fn(&str, bool) -> String) -> String {
        let mut text = String::from(if self.v6 {
            "meta nfproto ipv6"
        } else {
            "meta nfproto ipv4"
        });
        let side = match (self.v6, self.ingress) {
            (false, true) => "ip saddr",
            (false, false) => "ip daddr",
            (true, true) => "ip6 saddr",
            (true, false) => "ip6 daddr",
        };
        match &self.remote {
            // Every address of the family: as no condition at all.
            Remote::Block(block) if block.prefix_len() == 0 => {}
            Remote::Any => {}
            Remote::Block(block) => text.push_str(&format!(" {side} {block}")),
            Remote::Group(id) => text.push_str(&format!(" {side} @{}", set(id, self.v6))),
        }
        match self.payload {
            Payload::Any => {}
            Payload::Protocol(p) => text.push_str(&format!(" meta l4proto {p}")),
            Payload::Ports(p, 0, u16::MAX) => text.push_str(&format!(" meta l4proto {p}")),
            Payload::Ports(p, min, max) if min == max => text.push_str(&format!(" meta l4proto {p} th dport {min}")),
            Payload::Ports(p, min, max) => text.push_str(&format!(" meta l4proto {p} th dport {min}-{max}")),
            Payload::Icmp(p, typ, code) => {
                let name = if p == ICMPV6 { "icmpv6" } else { "icmp" };
                text.push_str(&format!(" {name} type {typ}"));
                if let Some(code) = code {
                    text.push_str(&format!(" {name} code {code}"));
                }
            }
        }
        text
    }

    /// Whether it allows the flow. `member` says whether an address is in a group.
    pub(crate) fn allows(&self, flow: &Flow, member: impl Fn(&str, &IpAddr) -> bool) -> bool {
        let other = if self.ingress { &flow.source } else { &flow.target };
        if other.is_ipv6() != self.v6 {
            return false;
        }
        let remote = match &self.remote {
            Remote::Any => true,
            Remote::Block(block) => block.contains(other),
            Remote::Group(id) => member(id, other),
        };
        remote
            && match self.payload {
                Payload::Any => true,
                Payload::Protocol(p) => p == flow.protocol,
                Payload::Ports(p, min, max) => p == flow.protocol && (min..=max).contains(&flow.port),
                Payload::Icmp(p, typ, code) => {
                    p == flow.protocol
                        && flow
                            .icmp
                            .is_some_and(|(t, c)| t == typ && code.is_none_or(|code| code == c))
                }
            }
    }
}

fn payload(rule: &Rule, v6: bool) -> Result<Payload, String> {
    let protocol = match rule.protocol {
        // 0 is how old clients say "any".
        None | Some(0) => {
            return match (rule.port_min, rule.port_max) {
                (None, None) => Ok(Payload::Any),
                _ => Err("it has ports but no protocol that has ports".into()),
            };
        }
        // Upstream takes `icmp` in an IPv6 rule for ICMPv6.
        Some(ICMP) if v6 => ICMPV6,
        Some(ICMPV6) if !v6 => return Err("ICMPv6 (58) cannot be in an IPv4 rule".into()),
        Some(p) => p,
    };
    if protocol == ICMP || protocol == ICMPV6 {
        let byte = |n: u16, what: &str| u8::try_from(n).map_err(|_| format!("the ICMP {what} {n} is above 255"));
        return match (rule.port_min, rule.port_max) {
            (None, None) => Ok(Payload::Protocol(protocol)),
            (Some(typ), None) => Ok(Payload::Icmp(protocol, byte(typ, "type")?, None)),
            (Some(typ), Some(code)) => Ok(Payload::Icmp(protocol, byte(typ, "type")?, Some(byte(code, "code")?))),
            (None, Some(_)) => Err("it has an ICMP code (port_range_max) but no ICMP type (port_range_min)".into()),
        };
    }
    match (rule.port_min, rule.port_max) {
        (None, None) => Ok(Payload::Protocol(protocol)),
        _ if !WITH_PORTS.contains(&protocol) => {
            Err(format!("protocol {protocol} has no ports; leave the port range out"))
        }
        (Some(min), Some(max)) if min <= max => Ok(Payload::Ports(protocol, min, max)),
        (Some(min), Some(max)) => Err(format!("the port range {min}-{max} runs backwards")),
        _ => Err("only one end of the port range is given; give both".into()),
    }
}
