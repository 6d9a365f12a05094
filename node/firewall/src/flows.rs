//! Which live connections may go on. Pure.
//!
//! The kernel lets packets of an established connection pass whatever the rules say now. So after every change each tracked
//! connection is judged as if its first packet came now; those that no rule allows any more are forgotten by the kernel, and
//! their next packet is dropped. A connection that another rule still allows is never touched.

use crate::conntrack::Entry;
use crate::rules::{Flow, ICMPV6, Match};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port as the judge sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    pub id: String,
    pub zone: u16,
    pub addresses: Vec<IpNet>,
    pub stateful: bool,
    pub groups: Vec<String>,
}

/// The rules as the judge sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Policy {
    pub ports: Vec<Guard>,
    /// Stateful or not, and the rules.
    pub groups: BTreeMap<String, (bool, Vec<Match>)>,
    pub members: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Policy {
    /// The single addresses of ports, and whose they are.
    fn owners(&self) -> BTreeMap<(u16, IpAddr), &str> {
        let single = |g: &'_ IpNet| (g.prefix_len() == g.max_prefix_len()).then(|| g.addr());
        self.ports
            .iter()
            .flat_map(|p| {
                p.addresses
                    .iter()
                    .filter_map(single)
                    .map(|ip| ((p.zone, ip), p.id.as_str()))
            })
            .collect()
    }

    fn port_allows(&self, port: &Guard, ingress: bool, flow: &Flow) -> bool {
        port.groups.iter().filter_map(|g| self.groups.get(g)).any(|(_, rules)| {
            rules.iter().any(|m| {
                m.ingress == ingress
                    && m.allows(flow, |group, ip| {
                        self.members.get(group).is_some_and(|s| s.contains(ip))
                    })
            })
        })
    }

    /// Whether the rules allow the flow in this zone to begin.
    fn allows(&self, zone: u16, flow: &Flow) -> bool {
        let side = |ip: &IpAddr, ingress: bool| {
            let mut ports = self
                .ports
                .iter()
                .filter(|p| p.zone == zone && p.addresses.iter().any(|a| a.contains(ip)))
                .peekable();
            // Several ports may share an address (allowed address pairs): one that allows it is enough.
            ports.peek().is_none() || ports.any(|p| !p.stateful || self.port_allows(p, ingress, flow))
        };
        always(flow) || (side(&flow.source, false) && side(&flow.target, true))
    }
}

/// What passes whatever the rules say; the same list as in the base of the ruleset.
fn always(flow: &Flow) -> bool {
    const METADATA: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    ];
    (flow.protocol == 17 && matches!(flow.port, 67 | 547 | 68 | 546))
        || (flow.protocol == 6 && flow.port == 80 && METADATA.contains(&flow.target))
        || (flow.protocol == ICMPV6 && flow.icmp.is_some_and(|(t, _)| (130..=143).contains(&t)))
}

/// The entries that end on the way from `old` to `new`. Without `old` (the first ruleset of this process) addresses are not
/// known to have changed hands.
pub(crate) fn ended<'a>(old: Option<&Policy>, new: &Policy, entries: &'a [Entry]) -> Vec<&'a Entry> {
    let before = old.map(Policy::owners);
    let now = new.owners();
    // An address that has another owner now, or none: nothing of the former one may live on (conntrack reuse).
    let moved = |zone: u16, ip: &IpAddr| {
        before
            .as_ref()
            .is_some_and(|before| before.get(&(zone, *ip)) != now.get(&(zone, *ip)))
    };
    entries
        .iter()
        .filter(|e| e.zone != 0)
        .filter(|e| {
            let f = &e.flow;
            moved(e.zone, &f.source) || moved(e.zone, &f.target) || !(e.expected || new.allows(e.zone, f))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rules::{Payload, Remote};

    fn guard(id: &str, zone: u16, ip: &str, groups: &[&str]) -> Guard {
        Guard {
            id: id.into(),
            zone,
            addresses: vec![IpNet::from(ip.parse::<IpAddr>().unwrap())],
            stateful: true,
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        }
    }

    fn policy(ports: Vec<Guard>, ingress: Option<(u16, u16)>) -> Policy {
        let out = Match {
            ingress: false,
            v6: false,
            payload: Payload::Any,
            remote: Remote::Any,
        };
        let mut rules = vec![out];
        if let Some((min, max)) = ingress {
            rules.push(Match {
                ingress: true,
                v6: false,
                payload: Payload::Ports(6, min, max),
                remote: Remote::Any,
            });
        }
        let groups = [("g".to_owned(), (true, rules))].into();
        Policy {
            ports,
            groups,
            members: BTreeMap::new(),
        }
    }

    fn entry(zone: u16, source: &str, target: &str, port: u16) -> Entry {
        let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
        Entry::for_test(
            zone,
            Flow {
                source,
                target,
                protocol: 6,
                port,
                icmp: None,
            },
        )
    }

    #[test]
    fn a_narrower_rule_ends_only_what_it_no_longer_allows() {
        let ports = || vec![guard("p", 7, "10.0.0.5", &["g"])];
        let entries = [
            entry(7, "1.2.3.4", "10.0.0.5", 22),
            entry(7, "1.2.3.4", "10.0.0.5", 80),
            entry(7, "10.0.0.5", "1.2.3.4", 22),
            entry(8, "1.2.3.4", "10.0.0.5", 22),
            entry(0, "1.2.3.4", "10.0.0.5", 22),
        ];
        let (old, new) = (policy(ports(), Some((1, 100))), policy(ports(), Some((80, 80))));
        let doomed = ended(Some(&old), &new, &entries);
        assert_eq!(
            doomed,
            [&entries[0]],
            "not the other port, the other direction, the other network, the host's own"
        );
        assert!(ended(Some(&old), &old, &entries).is_empty());
    }

    #[test]
    fn an_address_that_changes_hands_carries_nothing_over_but_a_restart_is_no_change() {
        let old = policy(vec![guard("p", 7, "10.0.0.5", &["g"])], Some((1, 100)));
        let new = policy(vec![guard("q", 7, "10.0.0.5", &["g"])], Some((1, 100)));
        let entries = [entry(7, "1.2.3.4", "10.0.0.5", 22), entry(7, "10.0.0.5", "1.2.3.4", 5)];
        assert_eq!(ended(Some(&old), &new, &entries).len(), 2);
        assert_eq!(ended(None, &new, &entries).len(), 0);
        assert_eq!(
            ended(Some(&old), &Policy::default(), &entries).len(),
            2,
            "the port is gone"
        );
    }

    #[test]
    fn metadata_is_never_cut() {
        let silent = Policy {
            ports: vec![guard("p", 7, "10.0.0.5", &[])],
            ..Policy::default()
        };
        let entries = [
            entry(7, "10.0.0.5", "169.254.169.254", 80),
            entry(7, "10.0.0.5", "1.1.1.1", 80),
        ];
        assert_eq!(ended(None, &silent, &entries), [&entries[1]]);
    }
}
