//! The compiler: what the slice says → [`Ruleset`], and the same as a [`Policy`] for judging live connections. Pure.

use crate::flows::{Guard, Policy};
use crate::model::{FirewallInput, RuleFault};
use crate::rules::Match;
use crate::text::{Family, Ruleset};
use ipnet::IpNet;
use maru_agent_api::slice::{Port, RateLimit, SecurityGroup};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// The result of compiling.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The kernel's rules.
    pub ruleset: Ruleset,
    /// What was left out and why.
    pub faults: Vec<RuleFault>,
    pub(crate) policy: Policy,
}

/// Compiles. Never fails: what cannot be compiled allows nothing and is named in the faults (attack class E4).
#[must_use]
pub fn compile(input: &FirewallInput<'_>) -> Compiled {
    let mut c = Compiled::default();
    let zones = networks(input, &mut c);
    groups(input, &mut c);
    let mut marks = BTreeSet::new();
    let mut taps = BTreeSet::new();
    let mut ports: Vec<&Port> = input.ports.clone();
    ports.sort_by(|a, b| a.id.cmp(&b.id));
    ports.dedup_by(|a, b| a.id == b.id);
    for port in ports {
        if let Err(reason) = one_port(
            port,
            zones.get(port.network_id.as_str()).copied(),
            &mut marks,
            &mut taps,
            &mut c,
        ) {
            c.faults.push(RuleFault {
                what: "port",
                id: port.id.clone(),
                reason,
            });
        }
    }
    c
}

fn fault(c: &mut Compiled, what: &'static str, id: &str, reason: impl Into<String>) {
    c.faults.push(RuleFault {
        what,
        id: id.into(),
        reason: reason.into(),
    });
}

/// Only what nft takes as a part of a name, and no more than fits; ids of the API are UUIDs.
fn good_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn networks<'a>(input: &FirewallInput<'a>, c: &mut Compiled) -> BTreeMap<&'a str, u16> {
    let mut zones = BTreeMap::new();
    let mut used = BTreeSet::new();
    for network in &input.networks {
        if network.zone == 0 || !used.insert(network.zone) {
            fault(
                c,
                "network",
                &network.id,
                format!(
                    "conntrack zone {} is not its own; its ports are cut off until it has one from 1 to 65535",
                    network.zone
                ),
            );
            continue;
        }
        c.ruleset.map(
            Family::Inet,
            "zones",
            format!("\"br{}\"", network.vni),
            network.zone.to_string(),
        );
        zones.insert(network.id.as_str(), network.zone);
    }
    zones
}

fn set_name(group: &str, v6: bool) -> String {
    format!("{}-{group}", if v6 { "g6" } else { "g4" })
}

/// A chain a group and direction; a pair of sets for each group that a rule names as remote.
fn groups(input: &FirewallInput<'_>, c: &mut Compiled) {
    let by_id: BTreeMap<&str, &SecurityGroup> = input.groups.iter().map(|g| (g.id.as_str(), *g)).collect();
    let used: BTreeSet<&str> = input
        .ports
        .iter()
        .flat_map(|p| p.security_groups.iter().map(String::as_str))
        .collect();
    let mut remotes: BTreeSet<String> = BTreeSet::new();
    for (id, group) in by_id.iter().filter(|(id, _)| used.contains(*id)) {
        if !good_id(id) {
            fault(c, "group", id, "its id cannot be a name in the kernel's rules");
            continue;
        }
        let mut texts: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        let mut matches = Vec::new();
        let mut seen = BTreeSet::new();
        for rule in &group.rules {
            let m = match Match::of(rule) {
                Ok(m) => m,
                Err(reason) => {
                    fault(c, "rule", &rule.id, reason);
                    continue;
                }
            };
            if let crate::rules::Remote::Group(remote) = &m.remote {
                if !good_id(remote) {
                    fault(
                        c,
                        "rule",
                        &rule.id,
                        "the id of its remote group cannot be a name in the kernel's rules",
                    );
                    continue;
                }
                remotes.insert(remote.clone());
            }
            let text = format!("{} accept", m.text(set_name));
            // The same allowance twice is one rule.
            if seen.insert((m.ingress, text.clone())) {
                texts[usize::from(m.ingress)].push(text);
            }
            matches.push(m);
        }
        let [egress, ingress] = texts;
        c.ruleset.chain(Family::Inet, format!("ge-{id}"), egress);
        c.ruleset.chain(Family::Inet, format!("gi-{id}"), ingress);
        c.policy.groups.insert((*id).to_owned(), (group.stateful, matches));
    }
    for remote in remotes {
        // A group that is not in the slice has no members here: the rule allows no one.
        let members: BTreeSet<IpAddr> = by_id
            .get(remote.as_str())
            .map(|g| g.members.iter().copied().collect())
            .unwrap_or_default();
        for v6 in [false, true] {
            let texts = members
                .iter()
                .filter(|ip| ip.is_ipv6() == v6)
                .map(ToString::to_string)
                .collect();
            c.ruleset.sets.insert(
                set_name(&remote, v6),
                (if v6 { "ipv6_addr" } else { "ipv4_addr" }, texts),
            );
        }
        c.policy.members.insert(remote, members);
    }
}

/// The port's number in `meta mark`: the first 32 bits of its id, so that it is the same in every ruleset.
fn mark_of(id: &str, taken: &mut BTreeSet<u32>) -> u32 {
    let first = id.get(..8).and_then(|h| u32::from_str_radix(h, 16).ok());
    let mut mark = first.unwrap_or_else(|| {
        id.bytes()
            .fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
    });
    while mark == 0 || !taken.insert(mark) {
        mark = mark.wrapping_add(1);
    }
    mark
}

/// `aa:bb:cc:dd:ee:ff`, lower case, unicast.
fn good_mac(text: &str) -> Result<String, String> {
    let bad = || format!("the MAC address {text:?} is not six hexadecimal bytes of a unicast address");
    let bytes: Vec<u8> = text
        .split(':')
        .map(|p| {
            if p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()) {
                u8::from_str_radix(p, 16).map_err(|_| bad())
            } else {
                Err(bad())
            }
        })
        .collect::<Result<_, _>>()?;
    match bytes.as_slice() {
        [first, _, _, _, _, _] if first & 1 == 0 && bytes.iter().any(|b| *b != 0) => Ok(text.to_ascii_lowercase()),
        _ => Err(bad()),
    }
}

/// The link-local address that a host derives from its MAC address (RFC 4291, appendix A).
fn link_local(mac: &str) -> Option<Ipv6Addr> {
    let b: Vec<u8> = mac.split(':').filter_map(|p| u8::from_str_radix(p, 16).ok()).collect();
    let [a, b, c, d, e, f] = *b.as_slice() else { return None };
    Some(Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]))
}

/// What a port may send from: for each MAC address its blocks.
fn sources(port: &Port, c: &mut Compiled) -> Result<BTreeMap<String, Vec<IpNet>>, String> {
    let own = good_mac(&port.mac)?;
    let mut by_mac: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    by_mac
        .entry(own.clone())
        .or_default()
        .extend(port.fixed_ips.iter().map(|(_, ip)| IpNet::from(*ip)));
    for (block, mac) in &port.allowed_address_pairs {
        let mac = match mac.as_deref().map(good_mac) {
            None => own.clone(),
            Some(Ok(mac)) => mac,
            Some(Err(reason)) => {
                fault(
                    c,
                    "port",
                    &port.id,
                    format!("an allowed address pair is left out: {reason}"),
                );
                continue;
            }
        };
        by_mac.entry(mac).or_default().push(block.trunc());
    }
    for (mac, blocks) in &mut by_mac {
        blocks.extend(link_local(mac).map(|ip| IpNet::from(IpAddr::from(ip))));
        // Overlapping blocks would be refused by the kernel's sets; merged they are the same allowance.
        *blocks = IpNet::aggregate(blocks);
        blocks.sort();
    }
    Ok(by_mac)
}

/// `{ a, b }`, or `a` alone.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    match texts.as_slice() {
        [one] => one.clone(),
        _ => format!("{{ {} }}", texts.join(", ")),
    }
}

/// Conditions `field value `, any of which allows; one that is always true where every address is meant.
fn within(field: &str, blocks: &[IpNet]) -> Vec<String> {
    if blocks.iter().any(|b| b.prefix_len() == 0) {
        return vec![String::new()];
    }
    match blocks.len() {
        0..=4 => blocks.iter().map(|b| format!("{field} {} ", short(b))).collect(),
        _ => vec![format!("{field} {} ", list(blocks.iter().map(short)))],
    }
}

/// A block without the length that says "this one address".
fn short(block: &IpNet) -> String {
    if block.prefix_len() == block.max_prefix_len() {
        block.addr().to_string()
    } else {
        block.to_string()
    }
}

fn one_port(
    port: &Port,
    zone: Option<u16>,
    marks: &mut BTreeSet<u32>,
    taps: &mut BTreeSet<String>,
    c: &mut Compiled,
) -> Result<(), String> {
    let id = port.id.as_str();
    if !good_id(id) {
        return Err("its id cannot be a name in the kernel's rules; its tap is cut off".into());
    }
    let tap = format!("tap{}", id.get(..11).unwrap_or(id));
    if !taps.insert(tap.clone()) {
        return Err(format!(
            "another port's tap has the name {tap}, too; this one has no tap of its own"
        ));
    }
    let tap = format!("\"{tap}\"");
    let verdict = |c: &mut Compiled, text: &str| {
        c.ruleset.map(Family::Bridge, "source", tap.clone(), text.into());
        c.ruleset.map(Family::Bridge, "target", tap.clone(), text.into());
    };
    if !port.admin_up {
        verdict(c, "drop");
        return Ok(());
    }
    let Some(zone) = zone else {
        verdict(c, "drop");
        return Err(
            "its network has not been delivered, or has no conntrack zone of its own; its tap is cut off".into(),
        );
    };
    let (out, into) = qos_chains(port, c);
    if !port.port_security {
        for (map, chain) in [("source", out), ("target", into)] {
            let text = match chain {
                None => "accept".to_owned(),
                Some(limits) => {
                    let free = format!("f{limits}");
                    c.ruleset.chain(
                        Family::Bridge,
                        free.clone(),
                        vec![format!("jump {limits}"), "accept".into()],
                    );
                    format!("goto {free}")
                }
            };
            c.ruleset.map(Family::Bridge, map, tap.clone(), text);
        }
        return Ok(());
    }
    // A port whose addresses cannot be checked sends nothing.
    let by_mac = sources(port, c).inspect_err(|_| verdict(c, "drop"))?;

    source_chains(id, &by_mac, out.as_deref(), &mut c.ruleset);
    let macs = list(by_mac.keys());
    // Frames for others that the bridge floods are not for this guest to see (attack class E3).
    let foreign = format!("ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {macs} drop");
    let target = std::iter::once(foreign)
        .chain(into.map(|limits| format!("jump {limits}")))
        .chain(std::iter::once("goto known_types".to_owned()));
    c.ruleset.chain(Family::Bridge, format!("t-{id}"), target.collect());
    c.ruleset
        .map(Family::Bridge, "source", tap.clone(), format!("goto s-{id}"));
    c.ruleset
        .map(Family::Bridge, "target", tap.clone(), format!("goto t-{id}"));

    let mut groups: Vec<String> = Vec::new();
    for group in &port.security_groups {
        if c.policy.groups.contains_key(group) {
            groups.push(group.clone());
        } else {
            fault(
                c,
                "group",
                group,
                format!("it has not been delivered; port {id} has none of its allowances"),
            );
        }
    }
    groups.sort();
    groups.dedup();
    // As upstream: one stateful group makes the port stateful; only stateless ones make it stateless.
    let stateful = groups.is_empty()
        || groups
            .iter()
            .any(|g| c.policy.groups.get(g).is_some_and(|(stateful, _)| *stateful));
    let mark = format!("{:#010x}", mark_of(id, marks));
    for (direction, always, chain, map) in [
        ("ge", "from_always", format!("e-{id}"), "from_port"),
        ("gi", "to_always", format!("i-{id}"), "to_port"),
    ] {
        let mut rules = vec![format!("jump {always}")];
        if stateful {
            rules.push("ct state established,related accept".into());
            rules.push("ct state invalid drop".into());
        }
        rules.extend(groups.iter().map(|g| format!("jump {direction}-{g}")));
        rules.push("drop".into());
        c.ruleset.chain(Family::Inet, chain.clone(), rules);
        c.ruleset.map(Family::Inet, map, mark.clone(), format!("goto {chain}"));
    }
    c.ruleset.map(Family::Bridge, "mark_of", tap, mark);
    c.policy.ports.push(Guard {
        id: id.to_owned(),
        zone,
        addresses: by_mac.into_values().flatten().collect(),
        stateful,
        groups,
    });
    Ok(())
}

/// Least bytes at once: a guest hands over up to 64 KiB as one, and a bucket that never holds that much would never let it pass.
const LEAST_BURST: u64 = 128 << 10;

/// Most bytes in a second, and at once: the kernel counts rate and burst together in nanoseconds, in 64 bits.
const MOST_RATE: u64 = 16_000_000_000;
const MOST_BURST: u64 = 1 << 30;

/// The chains that bind a port's traffic, out of the guest and into it, where something does.
fn qos_chains(port: &Port, c: &mut Compiled) -> (Option<String>, Option<String>) {
    let limit = |l: RateLimit| {
        let rate = (u64::from(l.kbps) * 125).clamp(1, MOST_RATE);
        // Upstream's share for TCP when nothing is said.
        let burst = match l.burst_kbits {
            0 => rate * 4 / 5,
            kbits => u64::from(kbits) * 125,
        };
        let burst = burst.clamp(LEAST_BURST, MOST_BURST);
        format!("limit rate over {rate} bytes/second burst {burst} bytes drop")
    };
    let mut out: Vec<String> = port.qos.egress.map(limit).into_iter().collect();
    if let Some(mark) = port.qos.dscp {
        let mark = mark & 0x3f;
        out.push(format!("ether type ip ip dscp set {mark}"));
        out.push(format!("ether type ip6 ip6 dscp set {mark}"));
    }
    let into: Vec<String> = port.qos.ingress.map(limit).into_iter().collect();
    let mut chain = |name: &str, rules: Vec<String>| {
        let name = format!("{name}-{}", port.id);
        (!rules.is_empty()).then(|| {
            c.ruleset.chain(Family::Bridge, name.clone(), rules);
            name
        })
    };
    (chain("qe", out), chain("qi", into))
}

/// What a guest may claim to be: MAC, ARP, IPv4, IPv6 and ND (attack classes E1 and E2).
///
/// Sets without a name cost the kernel time that grows with their number, so what is common to all ports is in shared chains
/// of the base, and a few addresses are a few rules.
fn source_chains(id: &str, by_mac: &BTreeMap<String, Vec<IpNet>>, limits: Option<&str>, ruleset: &mut Ruleset) {
    let macs = list(by_mac.keys());
    let mut rules = vec![format!("ether saddr != {macs} drop")];
    rules.extend(limits.map(|l| format!("jump {l}")));
    rules.extend([
        format!("ether type arp goto sa-{id}"),
        format!("ether type ip goto s4-{id}"),
        format!("ether type ip6 goto s6-{id}"),
        "drop".into(),
    ]);
    ruleset.chain(Family::Bridge, format!("s-{id}"), rules);
    let mut arp: Vec<String> = vec!["jump arp_form".into()];
    let mut ip4: Vec<String> = vec!["jump dhcp4".into()];
    let mut ip6 = vec![
        "jump never6".into(),
        format!("icmpv6 type 136 jump nd-{id}"),
        format!("ip6 saddr :: icmpv6 type 135 jump nd-{id}"),
        "ip6 saddr :: goto unspecified6".into(),
    ];
    let mut nd = Vec::new();
    for (mac, blocks) in by_mac {
        let of = |v6: bool| {
            blocks
                .iter()
                .filter(|b| b.addr().is_ipv6() == v6)
                .copied()
                .collect::<Vec<_>>()
        };
        let (four, six) = (of(false), of(true));
        let from = if by_mac.len() == 1 {
            String::new()
        } else {
            format!("ether saddr {mac} ")
        };
        // An address probe claims nothing (RFC 5227).
        arp.push(format!(
            "{from}arp saddr ether {mac} arp operation request arp saddr ip 0.0.0.0 accept"
        ));
        arp.extend(
            within("arp saddr ip", &four)
                .iter()
                .map(|w| format!("{from}arp saddr ether {mac} {w}accept")),
        );
        ip4.extend(within("ip saddr", &four).iter().map(|w| format!("{from}{w}accept")));
        ip6.extend(within("ip6 saddr", &six).iter().map(|w| format!("{from}{w}accept")));
        for block in &six {
            let IpNet::V6(block) = block else { continue };
            // The target address of NS and NA follows 8 bytes of header (RFC 4861, 4.3 and 4.4). `return` allows it.
            let (mask, value) = (u128::from(block.netmask()), u128::from(block.network()));
            nd.push(match block.prefix_len() {
                0 => "return".into(),
                128 => format!("@th,64,128 {value:#034x} return"),
                _ => format!("@th,64,128 & {mask:#034x} == {value:#034x} return"),
            });
        }
    }
    for rules in [&mut arp, &mut ip4, &mut ip6, &mut nd] {
        rules.push("drop".into());
    }
    for (kind, rules) in [("sa", arp), ("s4", ip4), ("s6", ip6), ("nd", nd)] {
        ruleset.chain(Family::Bridge, format!("{kind}-{id}"), rules);
    }
}
