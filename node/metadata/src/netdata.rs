//! `network_data.json`: links, networks and services, in Nova's layout. One IPv4 and one IPv6 subnet a NIC, as there.

use crate::{GuestView, Nic};
use maru_agent_api::slice::Subnet;
use serde_json::{Value, json};
use std::net::IpAddr;

fn short(id: &str) -> &str {
    id.get(..11).unwrap_or(id)
}

pub(crate) fn network_data(guest: &GuestView) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::<Value>::new());
    for nic in guest.nics.iter().filter(|n| !n.network.subnets.is_empty()) {
        let link = format!("tap{}", short(&nic.port.id));
        links.push(json!({
            "id": link,
            "vif_id": nic.port.id,
            "type": "ovs",
            "mtu": nic.network.mtu,
            "ethernet_mac_address": nic.port.mac,
        }));
        for six in [false, true] {
            let Some((subnet, address)) = first(nic, six) else {
                continue;
            };
            let dns: Vec<Value> = subnet
                .dns
                .iter()
                .map(|ip| json!({ "type": "dns", "address": ip.to_string() }))
                .collect();
            for one in &dns {
                if !services.contains(one) {
                    services.push(one.clone());
                }
            }
            networks.push(network(nic, subnet, address, networks.len(), &link, dns));
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}

/// The first address of this family with its subnet.
fn first(nic: &Nic, six: bool) -> Option<(&Subnet, IpAddr)> {
    nic.port
        .fixed_ips
        .iter()
        .filter(|(_, ip)| ip.is_ipv6() == six)
        .find_map(|(id, ip)| {
            let subnet = nic.network.subnets.iter().find(|s| s.id == *id)?;
            Some((subnet, *ip))
        })
}

fn network(nic: &Nic, subnet: &Subnet, address: IpAddr, number: usize, link: &str, dns: Vec<Value>) -> Value {
    let version = if address.is_ipv6() { 6 } else { 4 };
    let id = format!("network{number}");
    let kind = match &subnet.ipv6_address_mode {
        Some(mode) if version == 6 => format!("ipv6_{mode}"),
        _ if subnet.dhcp => {
            return json!({
                "id": id,
                "type": format!("ipv{version}_dhcp"),
                "link": link,
                "network_id": nic.network.id,
            });
        }
        _ => format!("ipv{version}"),
    };
    let any = if version == 6 { "::" } else { "0.0.0.0" };
    let mut routes: Vec<Value> = Vec::new();
    if let Some(gateway) = subnet.gateway {
        routes.push(json!({ "network": any, "netmask": any, "gateway": gateway.to_string() }));
    }
    for (to, via) in &subnet.routes {
        routes.push(json!({
            "network": to.network().to_string(),
            "netmask": to.netmask().to_string(),
            "gateway": via.to_string(),
        }));
    }
    json!({
        "id": id,
        "type": kind,
        "link": link,
        "ip_address": address.to_string(),
        "netmask": subnet.cidr.netmask().to_string(),
        "routes": routes,
        "network_id": nic.network.id,
        "services": dns,
    })
}
