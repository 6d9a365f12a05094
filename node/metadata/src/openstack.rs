//! OpenStack's form: JSON documents.

use crate::{Answer, GuestView};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// The dated versions, oldest first; `latest` is one more. All answer alike: later ones only added fields.
const VERSIONS: &[&str] = &[
    "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
    "2020-10-14",
];

pub(crate) fn respond(rest: &[&str], guest: &GuestView) -> Answer {
    match rest {
        [] => Answer::text(format!("{}\nlatest", VERSIONS.join("\n"))),
        [version, rest @ ..] if VERSIONS.contains(version) || *version == "latest" => match rest {
            [] => {
                let mut names = vec!["meta_data.json"];
                if guest.server.metadata.user_data.is_some() {
                    names.push("user_data");
                }
                names.extend(["password", "vendor_data.json", "network_data.json", "vendor_data2.json"]);
                Answer::text(names.join("\n"))
            }
            ["meta_data.json"] => Answer::json(&meta_data(guest)),
            ["network_data.json"] => Answer::json(&network_data(guest)),
            ["vendor_data.json" | "vendor_data2.json"] => Answer::json(&json!({})),
            ["password"] => Answer::text(""),
            ["user_data"] => match guest.user_data() {
                Some(body) => Answer { status: 200, content_type: "application/octet-stream", body },
                None => Answer::not_found(),
            },
            ["content", number] => match number.parse::<usize>().ok().and_then(|n| file(guest, n)) {
                Some(body) => Answer { status: 200, content_type: "application/octet-stream", body },
                None => Answer::not_found(),
            },
            _ => Answer::not_found(),
        },
        _ => Answer::not_found(),
    }
}

/// The contents of an injected file.
pub(crate) fn file(guest: &GuestView, n: usize) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let (_, text) = guest.server.metadata.files.get(n)?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// `meta_data.json`.
pub(crate) fn meta_data(guest: &GuestView) -> Value {
    let server = &guest.server;
    let m = &server.metadata;
    let mut out = Map::new();
    out.insert("uuid".into(), server.id.clone().into());
    out.insert("hostname".into(), guest.hostname().into());
    out.insert("name".into(), server.name.clone().into());
    out.insert("launch_index".into(), m.launch_index.into());
    out.insert("availability_zone".into(), m.availability_zone.clone().into());
    out.insert("project_id".into(), server.project_id.clone().into());
    out.insert("devices".into(), json!([]));
    out.insert("dedicated_cpus".into(), json!([]));
    if !m.meta.is_empty() {
        out.insert("meta".into(), json!(m.meta));
    }
    if !m.public_keys.is_empty() {
        let keys: Map<String, Value> = m.public_keys.iter().map(|(n, k)| (n.clone(), k.clone().into())).collect();
        out.insert("public_keys".into(), keys.into());
        let list: Vec<Value> =
            m.public_keys.iter().map(|(n, k)| json!({"name": n, "type": "ssh", "data": k})).collect();
        out.insert("keys".into(), list.into());
    }
    if let Some(password) = &m.admin_pass {
        out.insert("admin_pass".into(), password.clone().into());
    }
    if !m.files.is_empty() {
        let files: Vec<Value> = m
            .files
            .iter()
            .enumerate()
            .map(|(i, (path, _))| json!({"content_path": format!("/content/{i:04}"), "path": path}))
            .collect();
        out.insert("files".into(), files.into());
    }
    out.into()
}

/// `network_data.json`.
pub(crate) fn network_data(guest: &GuestView) -> Value {
    let mut links = Vec::new();
    let mut networks = Vec::new();
    let mut services = Vec::new();
    for (port, network) in &guest.ports {
        let link = format!("tap{}", port.id.chars().take(11).collect::<String>());
        links.push(json!({
            "id": link, "vif_id": port.id, "type": "ovs", "mtu": network.mtu, "ethernet_mac_address": port.mac,
        }));
        for (subnet_id, address) in &port.fixed_ips {
            let Some(subnet) = network.subnets.iter().find(|s| s.id == *subnet_id) else { continue };
            let v4 = subnet.cidr.addr().is_ipv4();
            let mut routes: Vec<Value> = Vec::new();
            if let Some(gateway) = subnet.gateway {
                let zero = if v4 { "0.0.0.0" } else { "::" };
                routes.push(json!({"network": zero, "netmask": zero, "gateway": gateway}));
            }
            for (to, via) in &subnet.routes {
                routes.push(json!({"network": to.network(), "netmask": to.netmask(), "gateway": via}));
            }
            let kind = match (v4, subnet.dhcp, subnet.ipv6_address_mode.as_deref()) {
                (true, true, _) => "ipv4_dhcp",
                (true, false, _) => "ipv4",
                (false, true, Some("slaac")) => "ipv6_slaac",
                (false, true, Some("dhcpv6-stateful")) => "ipv6_dhcpv6-stateful",
                (false, true, Some("dhcpv6-stateless")) => "ipv6_dhcpv6-stateless",
                (false, ..) => "ipv6",
            };
            let mut entry = json!({
                "id": format!("network{}", networks.len()), "type": kind, "link": link, "network_id": network.id,
            });
            if !subnet.dhcp {
                entry["ip_address"] = address.to_string().into();
                entry["netmask"] = match subnet.cidr {
                    IpNet::V4(n) => n.netmask().to_string(),
                    IpNet::V6(n) => n.netmask().to_string(),
                }
                .into();
                entry["routes"] = routes.into();
                let dns: Vec<Value> = subnet.dns.iter().map(|a| json!({"type": "dns", "address": a})).collect();
                entry["services"] = dns.into();
            }
            for a in &subnet.dns {
                let service = json!({"type": "dns", "address": a});
                if !services.contains(&service) {
                    services.push(service);
                }
            }
            networks.push(entry);
        }
    }
    json!({"links": links, "networks": networks, "services": services})
}
