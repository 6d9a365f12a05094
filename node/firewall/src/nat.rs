//! A router's NAT, compiled to one table in its own namespace. Pure.
//!
//! * out through the gateway: a guest with a floating address has that one, everyone else the gateway's (if SNAT is on);
//! * in through the gateway to a floating address: to its guest. To a tenant's address without that: dropped while SNAT is
//!   on, so that no neighbour on the external network can route into it;
//! * in through the gateway to a forwarded port of a floating address: to its guest's port;
//! * from a tenant to a floating address of the same router (hairpin): translated on both sides, so that the answer comes
//!   back through the router;
//! * between the router's tenants: untouched. IPv6: routed, never translated; where the router answers for some addresses on its
//!   gateway's network, connections from there are opened to these alone;
//! * protocols that open further connections (`ct helper`): read along with, so that those are translated like their first.

use crate::conntrack::Entry;
use crate::model::{RouterNat, RuleFault};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The NAT of one router.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompiledNat {
    /// Text for `nft -f`: one transaction that replaces the table.
    pub text: String,
    /// What was left out and why.
    pub faults: Vec<RuleFault>,
    inward: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// By address, protocol and port.
    forwarded: BTreeMap<(Ipv4Addr, u8, u16), (Ipv4Addr, u16)>,
    outward: BTreeMap<Ipv4Addr, Ipv4Addr>,
    shared: Option<Ipv4Addr>,
    /// Helpers that the text needs of the kernel.
    pub(crate) helpers: BTreeSet<Helper>,
}

/// A conntrack helper of the kernel: its name, and the IP protocol that it reads.
pub(crate) type Helper = (String, u8);

/// Compiles the NAT of one router.
#[must_use]
pub fn compile_nat(nat: &RouterNat<'_>) -> CompiledNat {
    compile_nat_without(nat, &BTreeSet::new())
}

/// Compiles the NAT of one router on a kernel that has not these helpers.
pub(crate) fn compile_nat_without(nat: &RouterNat<'_>, missing: &BTreeSet<Helper>) -> CompiledNat {
    let mut c = CompiledNat {
        text: String::from("table ip maru\ndelete table ip maru\ntable ip6 maru\ndelete table ip6 maru\n"),
        ..CompiledNat::default()
    };
    let router = nat.router;
    let Some(gateway) = router.gateway.as_ref().filter(|_| router.admin_up) else {
        return c;
    };
    let device = gateway.port_id.get(..11).unwrap_or(&gateway.port_id);
    if !device.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        c.faults.push(RuleFault {
            what: "port",
            id: gateway.port_id.clone(),
            reason: "its id cannot be a device's name".into(),
        });
        return c;
    }
    let device = format!("\"qg-{device}\"");
    let own = nat.ports.iter().find(|p| p.id == gateway.port_id);
    let own = own.and_then(|p| {
        p.fixed_ips
            .iter()
            .find_map(|(_, ip)| if let IpAddr::V4(a) = ip { Some(*a) } else { None })
    });
    c.shared = own.filter(|_| gateway.snat);

    let mut floating: Vec<_> = router.floating_ips.iter().collect();
    floating.sort_by(|a, b| a.id.cmp(&b.id));
    for f in floating {
        if c.inward.contains_key(&f.floating) || c.outward.contains_key(&f.fixed) {
            let reason = format!("{} or {} already has a translation on this router", f.floating, f.fixed);
            c.faults.push(RuleFault {
                what: "floatingip",
                id: f.id.clone(),
                reason,
            });
            continue;
        }
        c.inward.insert(f.floating, f.fixed);
        c.outward.insert(f.fixed, f.floating);
    }

    let mut forwardings: Vec<_> = router.forwardings.iter().collect();
    forwardings.sort_by(|a, b| a.id.cmp(&b.id));
    for f in forwardings {
        let outer = (f.floating, f.protocol, f.external_port);
        let reason = if !matches!(f.protocol, TCP | UDP) {
            format!("protocol {} has no ports that could be forwarded", f.protocol)
        } else if c.inward.contains_key(&f.floating) || c.forwarded.contains_key(&outer) {
            format!(
                "{} port {} already has a translation on this router",
                f.floating, f.external_port
            )
        } else {
            c.forwarded.insert(outer, (f.fixed, f.internal_port));
            continue;
        };
        c.faults.push(RuleFault {
            what: "port_forwarding",
            id: f.id.clone(),
            reason,
        });
    }

    let helped = helped(nat, missing, &mut c);
    let t = &mut c.text;
    t.push_str("table ip maru {\n");
    t.push_str(&helped);
    t.push_str("\tmap forwarded { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;");
    if !c.forwarded.is_empty() {
        let all: Vec<String> = c
            .forwarded
            .iter()
            .map(|((to, protocol, port), (fixed, inner))| format!("{to} . {protocol} . {port} : {fixed} . {inner}"))
            .collect();
        let _ = write!(t, " elements = {{ {} }}", all.join(", "));
    }
    t.push_str(" }\n");
    for (name, map) in [("inward", &c.inward), ("outward", &c.outward)] {
        let _ = write!(t, "\tmap {name} {{ type ipv4_addr : ipv4_addr;");
        if !map.is_empty() {
            let all: Vec<String> = map.iter().map(|(k, v)| format!("{k} : {v}")).collect();
            let _ = write!(t, " elements = {{ {} }}", all.join(", "));
        }
        t.push_str(" }\n");
    }
    t.push_str("\tchain inbound {\n\t\ttype nat hook prerouting priority -100; policy accept;\n");
    t.push_str("\t\tdnat to ip daddr map @inward\n");
    t.push_str("\t\tdnat ip to ip daddr . meta l4proto . th dport map @forwarded\n\t}\n");
    t.push_str("\tchain forwarding {\n\t\ttype filter hook forward priority 0; policy accept;\n");
    // What is not of a tracked connection would pass untranslated.
    let _ = writeln!(t, "\t\toifname {device} ct state invalid drop");
    if c.shared.is_some() {
        let _ = writeln!(t, "\t\tiifname {device} ct state new ct status & dnat != dnat drop");
        let _ = writeln!(t, "\t\tiifname {device} ct state invalid drop");
    }
    t.push_str("\t}\n\tchain outbound {\n\t\ttype nat hook postrouting priority 100; policy accept;\n");
    let _ = writeln!(t, "\t\tiifname {device} accept");
    let _ = writeln!(t, "\t\toifname != {device} ct status & dnat != dnat accept");
    t.push_str("\t\tsnat to ip saddr map @outward\n");
    if let Some(shared) = c.shared {
        let _ = writeln!(t, "\t\toifname {device} snat to {shared}");
    }
    if let Some(own) = own {
        let _ = writeln!(t, "\t\toifname != {device} snat to {own}");
    }
    t.push_str("\t}\n}\n");
    if let Some(proxies) = &router.ndp_proxies {
        t.push_str("table ip6 maru {\n\tchain forwarding {\n\t\ttype filter hook forward priority 0; policy accept;\n");
        let _ = writeln!(t, "\t\tiifname {device} ct state established,related accept");
        let all: BTreeSet<String> = proxies.iter().map(ToString::to_string).collect();
        if !all.is_empty() {
            let all: Vec<String> = all.into_iter().collect();
            let _ = writeln!(t, "\t\tiifname {device} ip6 daddr {{ {} }} accept", all.join(", "));
        }
        let _ = writeln!(t, "\t\tiifname {device} drop\n\t}}\n}}");
    }
    c
}

/// The helpers as objects, and the chain that gives connections to them: once they are tracked (-200), before they are translated.
fn helped(nat: &RouterNat<'_>, missing: &BTreeSet<Helper>, c: &mut CompiledNat) -> String {
    let mut helpers: Vec<_> = nat.router.helpers.iter().collect();
    helpers.sort_by(|a, b| a.id.cmp(&b.id));
    let mut rules: Vec<(u8, u16, Helper)> = Vec::new();
    for h in helpers {
        let good = (1..=16).contains(&h.name.len())
            && h.name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        let helper = (h.name.clone(), h.protocol);
        let reason = if !good || !matches!(h.protocol, TCP | UDP) || h.port == 0 {
            "it is none that could be named to the kernel".to_owned()
        } else if missing.contains(&helper) {
            format!(
                "this machine's kernel has no conntrack helper {:?} for IP protocol {}",
                h.name, h.protocol
            )
        } else {
            rules.push((h.protocol, h.port, helper.clone()));
            c.helpers.insert(helper);
            continue;
        };
        c.faults.push(RuleFault {
            what: "conntrack_helper",
            id: h.id.clone(),
            reason,
        });
    }
    let mut text = String::new();
    let place = |helper: &Helper| c.helpers.iter().position(|h| h == helper).unwrap_or(0);
    for helper in &c.helpers {
        text.push_str(&object(&format!("helper{}", place(helper)), helper));
    }
    if !rules.is_empty() {
        text.push_str("\tchain helped {\n\t\ttype filter hook prerouting priority -150; policy accept;\n");
        for (protocol, port, helper) in &rules {
            let _ = writeln!(
                text,
                "\t\t{} dport {port} ct helper set \"helper{}\"",
                protocol_name(*protocol),
                place(helper)
            );
        }
        text.push_str("\t}\n");
    }
    text
}

fn protocol_name(protocol: u8) -> &'static str {
    if protocol == UDP { "udp" } else { "tcp" }
}

/// A helper as an object of a table.
fn object(name: &str, (helper, protocol): &Helper) -> String {
    let protocol = protocol_name(*protocol);
    format!("\tct helper {name} {{\n\t\ttype \"{helper}\" protocol {protocol};\n\t\tl3proto ip;\n\t}}\n")
}

/// A text that nft takes, and that changes nothing, where the kernel has this helper.
pub(crate) fn probe(helper: &Helper) -> String {
    let object = object("probe", helper);
    format!("table ip maru-probe {{\n{object}}}\ndelete table ip maru-probe\n")
}

impl CompiledNat {
    /// The connections whose translation is not today's any more: they end, so that an address that moved to another tenant
    /// carries nothing of the former one.
    pub(crate) fn ended<'a>(&self, entries: &'a [Entry]) -> Vec<&'a Entry> {
        entries
            .iter()
            .filter(|e| {
                let (IpAddr::V4(source), IpAddr::V4(target), Some((IpAddr::V4(answers_from), IpAddr::V4(answers_to)))) =
                    (e.flow.source, e.flow.target, e.reply)
                else {
                    return false;
                };
                let port = self.forwarded.get(&(target, e.flow.protocol, e.flow.port));
                let inner = self.inward.get(&target).or(port.map(|(fixed, _)| fixed));
                let wrong_in = e.target_nat && inner != Some(&answers_from);
                // A connection begun before its guest had a floating address keeps the shared one, as upstream.
                let wrong_out = e.source_nat
                    && answers_to != source
                    && self.outward.get(&source) != Some(&answers_to)
                    && self.shared != Some(answers_to);
                wrong_in || wrong_out
            })
            .collect()
    }
}
