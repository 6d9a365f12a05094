//! What to do so that an inner namespace (a router's or a responder's) becomes as desired. Pure: no kernel here.

use crate::model::RouterSpec;
use crate::names;
use crate::nl::{Addr, Link, MAIN, PolicyRule, Route};
use maru_agent_api::slice::{Network, Port};
use maru_base::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where guests ask for their metadata.
pub(crate) const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The same for IPv6 guests (fe80::a9fe:a9fe).
pub(crate) const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// A link of an inner namespace and its other end on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredLink {
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub up: bool,
    pub addrs: BTreeSet<(IpAddr, u8)>,
    pub peer: String,
    pub bridge: String,
    pub alias: String,
}

/// A route by device name, for devices that may not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DesiredRoute {
    pub table: u32,
    pub dst: IpAddr,
    pub prefix: u8,
    pub via: Option<IpAddr>,
    pub dev: Option<String>,
}

/// What an inner namespace shall have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Desired {
    pub links: Vec<DesiredLink>,
    pub routes: BTreeSet<DesiredRoute>,
    pub rules: BTreeSet<PolicyRule>,
    /// Addresses that are answered for on a device.
    pub proxies: BTreeSet<(String, IpAddr)>,
}

/// What it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub links: Vec<Link>,
    pub addrs: Vec<Addr>,
    pub routes: Vec<Route>,
    pub rules: Vec<PolicyRule>,
    pub proxies: Vec<(u32, IpAddr)>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    DelRule(PolicyRule),
    DelRoute(Route),
    DelLink(u32),
    MakeLink(DesiredLink),
    Mac(String, [u8; 6]),
    Mtu(String, u32),
    DelAddr(String, IpAddr, u8),
    AddAddr(String, IpAddr, u8),
    Up(String, bool),
    AddRoute(DesiredRoute),
    AddRule(PolicyRule),
    Proxy(String, IpAddr, bool),
}

/// The steps from `view` to `desired`, in an order that works. Empty when nothing differs.
pub(crate) fn plan(desired: &Desired, view: &View) -> Vec<Op> {
    let mut ops = Vec::new();
    let names: BTreeMap<u32, &str> = view.links.iter().map(|l| (l.index, l.name.as_str())).collect();

    let have_rules: BTreeSet<&PolicyRule> = view.rules.iter().collect();
    ops.extend(
        have_rules
            .iter()
            .filter(|r| !desired.rules.contains(r))
            .map(|r| Op::DelRule((*r).clone())),
    );

    // A link that goes down loses its routes, so only routes of links that stay up count as there.
    let mut standing = BTreeSet::new();
    for route in &view.routes {
        let wanted = desired.routes.iter().find(|d| {
            (d.table, d.dst, d.prefix, d.via) == (route.table, route.dst, route.prefix, route.via)
                && d.dev.as_deref().is_none_or(|dev| names.get(&route.oif) == Some(&dev))
        });
        match wanted {
            Some(d) => drop(standing.insert(d)),
            None => ops.push(Op::DelRoute(route.clone())),
        }
    }

    let wanted: BTreeMap<&str, &DesiredLink> = desired.links.iter().map(|l| (l.name.as_str(), l)).collect();
    let stale = view
        .links
        .iter()
        .filter(|l| l.name != "lo" && !wanted.contains_key(l.name.as_str()));
    ops.extend(stale.map(|l| Op::DelLink(l.index)));

    for want in &desired.links {
        let Some(have) = view.links.iter().find(|l| l.name == want.name) else {
            ops.push(Op::MakeLink(want.clone()));
            ops.extend(
                want.addrs
                    .iter()
                    .map(|(ip, prefix)| Op::AddAddr(want.name.clone(), *ip, *prefix)),
            );
            if want.up {
                ops.push(Op::Up(want.name.clone(), true));
            }
            continue;
        };
        if have.mac != want.mac {
            ops.push(Op::Mac(want.name.clone(), want.mac));
        }
        if have.mtu != want.mtu {
            ops.push(Op::Mtu(want.name.clone(), want.mtu));
        }
        let there: BTreeSet<(IpAddr, u8)> = view
            .addrs
            .iter()
            .filter(|a| a.index == have.index)
            .map(|a| (a.ip, a.prefix))
            .collect();
        for a in view.addrs.iter().filter(|a| a.index == have.index) {
            // The kernel's own link-local IPv6 addresses are not ours to remove.
            let automatic = a.link_scope && a.ip.is_ipv6();
            if !want.addrs.contains(&(a.ip, a.prefix)) && !automatic {
                ops.push(Op::DelAddr(want.name.clone(), a.ip, a.prefix));
            }
        }
        for (ip, prefix) in want.addrs.difference(&there) {
            ops.push(Op::AddAddr(want.name.clone(), *ip, *prefix));
        }
        if have.up != want.up {
            ops.push(Op::Up(want.name.clone(), want.up));
        }
    }
    if view.links.iter().any(|l| l.name == "lo" && !l.up) {
        ops.push(Op::Up("lo".into(), true));
    }
    ops.extend(
        desired
            .routes
            .iter()
            .filter(|r| !standing.contains(r))
            .cloned()
            .map(Op::AddRoute),
    );
    ops.extend(
        desired
            .rules
            .iter()
            .filter(|r| !have_rules.contains(r))
            .cloned()
            .map(Op::AddRule),
    );
    // What is answered for on a link that goes is gone with it.
    let have: BTreeSet<(String, IpAddr)> = view
        .proxies
        .iter()
        .filter_map(|(index, ip)| Some(((*names.get(index)?).to_owned(), *ip)))
        .filter(|(name, _)| wanted.contains_key(name.as_str()))
        .collect();
    for (changed, add) in [
        (have.difference(&desired.proxies), false),
        (desired.proxies.difference(&have), true),
    ] {
        ops.extend(changed.map(|(dev, ip)| Op::Proxy(dev.clone(), *ip, add)));
    }
    ops
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bad = || {
        Error::bad_request(format!(
            "The MAC address {text:?} is refused: it must be six hexadecimal bytes with colons."
        ))
    };
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() || mac == [0; 6] || mac[0] & 1 == 1 {
        return Err(bad());
    }
    Ok(mac)
}

/// What a network's responder namespace shall have.
pub(crate) fn responder(network: &Network, mac: [u8; 6]) -> Desired {
    let mut addrs: BTreeSet<(IpAddr, u8)> = BTreeSet::new();
    let mut routes = BTreeSet::new();
    addrs.insert((METADATA_V4.into(), 32));
    addrs.insert((METADATA_V6.into(), 64));
    for subnet in &network.subnets {
        match subnet.dhcp_address {
            Some(ip) if subnet.cidr.contains(&ip) => drop(addrs.insert((ip, subnet.cidr.prefix_len()))),
            // Guests of a subnet without DHCP still ask for metadata: the answer must find them on this link.
            _ => drop(routes.insert(DesiredRoute {
                table: MAIN,
                dst: subnet.cidr.network(),
                prefix: subnet.cidr.prefix_len(),
                via: None,
                dev: Some(names::RESPONDER_DEVICE.into()),
            })),
        }
    }
    let link = DesiredLink {
        name: names::RESPONDER_DEVICE.into(),
        mac,
        mtu: network.mtu,
        up: true,
        addrs,
        peer: names::responder_peer(network.vni),
        bridge: names::bridge_name(network.vni),
        alias: format!("responder:{}", network.id),
    };
    Desired {
        links: vec![link],
        routes,
        ..Desired::default()
    }
}

/// The routing table in which a router keeps the metadata route of one interface: FNV-1a of the port's id, above the
/// tables that have names.
fn metadata_table(port_id: &str) -> u32 {
    let hash = port_id
        .bytes()
        .fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    hash | 0x1_0000
}

/// What a router's namespace shall have.
pub(crate) fn router(spec: &RouterSpec<'_>) -> Result<Desired> {
    let router = spec.router;
    let mut desired = Desired::default();
    for id in &router.interfaces {
        let (port, network) = find(spec, id)?;
        let mut link = interface(port, network, names::router_interface(id), router.admin_up)?;
        add_fixed(&mut link, port, network);
        if link.up {
            let table = metadata_table(id);
            let dst = IpAddr::from(METADATA_V4);
            desired.routes.insert(DesiredRoute {
                table,
                dst,
                prefix: 32,
                via: None,
                dev: Some(link.name.clone()),
            });
            desired.rules.insert(PolicyRule {
                iif: link.name.clone(),
                dst,
                table,
            });
        }
        desired.links.push(link);
    }
    if let Some(gateway) = &router.gateway {
        let (port, network) = find(spec, &gateway.port_id)?;
        let mut link = interface(port, network, names::router_gateway(&port.id), router.admin_up)?;
        add_fixed(&mut link, port, network);
        for fip in &router.floating_ips {
            link.addrs.insert((fip.floating.into(), 32));
        }
        for forwarding in &router.forwardings {
            link.addrs.insert((forwarding.floating.into(), 32));
        }
        if link.up {
            for subnet in network
                .subnets
                .iter()
                .filter(|s| port.fixed_ips.iter().any(|(id, _)| *id == s.id))
            {
                let Some(via) = subnet.gateway else { continue };
                let any: IpAddr = if via.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                desired.routes.insert(DesiredRoute {
                    table: MAIN,
                    dst: any,
                    prefix: 0,
                    via: Some(via),
                    dev: Some(link.name.clone()),
                });
            }
        }
        for ip in router.ndp_proxies.iter().flatten() {
            desired.proxies.insert((link.name.clone(), IpAddr::from(*ip)));
        }
        desired.links.push(link);
    }
    if router.admin_up {
        for (dst, via) in &router.routes {
            if dst.addr().is_ipv4() == via.is_ipv4() {
                desired.routes.insert(DesiredRoute {
                    table: MAIN,
                    dst: dst.network(),
                    prefix: dst.prefix_len(),
                    via: Some(*via),
                    dev: None,
                });
            }
        }
    }
    Ok(desired)
}

fn find<'a>(spec: &RouterSpec<'a>, port_id: &str) -> Result<(&'a Port, &'a Network)> {
    let lacks = |what: &str, id: &str| {
        Error::unavailable(format!(
            "Router {} waits: its {what} {id} has not been delivered to this node yet.",
            spec.router.id
        ))
    };
    let port = spec
        .ports
        .iter()
        .find(|p| p.id == port_id)
        .ok_or_else(|| lacks("port", port_id))?;
    let network = spec
        .networks
        .iter()
        .find(|n| n.id == port.network_id)
        .ok_or_else(|| lacks("network", &port.network_id))?;
    Ok((port, network))
}

fn interface(port: &Port, network: &Network, name: String, up: bool) -> Result<DesiredLink> {
    names::check_id("port", &port.id)?;
    Ok(DesiredLink {
        name,
        mac: parse_mac(&port.mac)?,
        mtu: network.mtu,
        up: up && port.admin_up,
        addrs: BTreeSet::new(),
        peer: names::router_peer(&port.id),
        bridge: names::bridge_name(network.vni),
        alias: format!("router-port:{}", port.id),
    })
}

fn add_fixed(link: &mut DesiredLink, port: &Port, network: &Network) {
    for (subnet_id, ip) in &port.fixed_ips {
        let subnet = network.subnets.iter().find(|s| s.id == *subnet_id);
        let host = if ip.is_ipv4() { 32 } else { 128 };
        link.addrs.insert((*ip, subnet.map_or(host, |s| s.cidr.prefix_len())));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
