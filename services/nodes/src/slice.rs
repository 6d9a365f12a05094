//! What a node shall have: a pure function of the snapshot.

use maru_agent_api::{
    NodeName,
    slice::{self as api, Item, ItemKey},
};
use maru_compute_model as compute;
use maru_network_model as network;
use maru_store::{Change, Object, Snapshot};
use maru_volume_model as volume;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// A node's slice: what shall be, and what shall be removed and has not been reported removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slice {
    /// What shall be.
    pub items: BTreeMap<ItemKey, Item>,
    /// What shall be removed.
    pub gone: BTreeSet<ItemKey>,
}

/// Kinds that a slice is made of.
const KINDS: &[&str] = &[
    "server",
    "aggregate",
    "network",
    "subnet",
    "port",
    "router",
    "floating_ip",
    "port_forwarding",
    "ndp_proxy",
    "qos_policy",
    "trunk",
    "security_group",
    "security_group_rule",
    "address_group",
    "tombstone_port",
    "tombstone_network",
    "tombstone_router",
    "volume",
    "volume_attachment",
    "volume_snapshot",
    "volume_unmanaged",
];

/// Whether a change may change a node's slice, of which this was told. It may say yes too often, never no.
#[must_use]
pub fn concerns(change: &Change, node: &NodeName, told: &BTreeMap<ItemKey, Item>) -> bool {
    let text = change.key.as_str();
    let kind = KINDS
        .iter()
        .find(|k| text.strip_prefix(*k).is_some_and(|rest| rest.starts_with('/')));
    match kind {
        None => false,
        Some(&"server") => {
            // Or it has a volume that this node holds, and that is offered to wherever the server is.
            let here = |s: Arc<compute::Server>| {
                s.host.as_deref() == Some(node.as_str())
                    || s.volumes
                        .iter()
                        .any(|v| told.contains_key(&ItemKey::Volume(v.id.clone())))
            };
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here)
        }
        Some(&"volume") => {
            let here = |v: Arc<volume::Volume>| {
                v.host.as_deref() == Some(node.as_str()) || v.moved_from.as_deref() == Some(node.as_str())
            };
            // A server of this node may reach it where it is.
            let id = text.strip_prefix("volume/").unwrap_or_default();
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here) || reaches(told, id)
        }
        Some(&"volume_attachment") => {
            let here = |a: Arc<volume::Attachment>| {
                told.contains_key(&ItemKey::Volume(a.volume_id.to_string()))
                    || a.server_id
                        .as_ref()
                        .is_some_and(|s| told.contains_key(&ItemKey::Server(s.clone())))
            };
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here)
        }
        Some(&"volume_unmanaged") => {
            let here = |u: Arc<volume::Unmanaged>| u.host == node.as_str();
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here)
        }
        Some(&"volume_snapshot") => {
            let here = |s: Arc<volume::Snapshot>| s.host.as_deref() == Some(node.as_str());
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here)
        }
        // A port of this node, of a server, a network or a router that is here, or of a group whose members matter here.
        Some(&"port") => {
            let here = |p: Arc<network::Port>| {
                p.host == node.as_str()
                    || told.contains_key(&ItemKey::Network(p.network_id.to_string()))
                    || told.contains_key(&ItemKey::Server(p.device_id.clone()))
                    || told.contains_key(&ItemKey::Router(p.device_id.clone()))
                    || p.security_groups
                        .iter()
                        .any(|g| told.contains_key(&ItemKey::SecurityGroup(g.to_string())))
            };
            change.old_as().is_some_and(here) || change.new_as().is_some_and(here)
        }
        Some(_) => true,
    }
}

/// Whether a server that was told of has this volume of another node.
fn reaches(told: &BTreeMap<ItemKey, Item>, volume: &str) -> bool {
    told.values().any(|item| match item {
        Item::Server(server) => server
            .disks
            .iter()
            .any(|d| matches!(&d.source, api::DiskSource::Volume { id, remote: Some(_), .. } if id == volume)),
        _ => false,
    })
}

/// Whether a server or a volume of this node is made from the image with this digest.
#[must_use]
pub fn pulls(snapshot: &Snapshot, node: &NodeName, digest: &str) -> bool {
    snapshot.find::<compute::Server>("host", node).any(|s| {
        let mut images = [&s.image, &s.root, &s.rescue].into_iter().flatten();
        images.any(|i| i.digest == digest)
    }) || volume::pulls(snapshot, node, digest)
}

/// The slice of a node.
#[must_use]
pub fn of(snapshot: &Snapshot, node: &NodeName) -> Slice {
    let mut slice = Slice::default();
    let mut ports: BTreeMap<String, Object<network::Port>> = BTreeMap::new();
    let mut networks: BTreeSet<network::NetworkId> = BTreeSet::new();
    let put = |item: Item, slice: &mut Slice| {
        slice.items.insert(item.key(), item);
    };
    let mut hostnames: BTreeMap<String, String> = BTreeMap::new();

    for server in snapshot.find::<compute::Server>("host", node) {
        match compute::guest_intent(snapshot, &server) {
            Some(intent) => {
                for id in &intent.ports {
                    if let Some(port) = snapshot.get::<network::Port>(&network::PortId::from(id.as_str())) {
                        networks.insert(port.network_id.clone());
                        hostnames.insert(id.clone(), intent.hostname.clone());
                        ports.insert(id.clone(), port);
                    }
                }
                put(Item::Server(server_item(intent)), &mut slice);
            }
            None if server.placed => {
                slice.gone.insert(ItemKey::Server(server.id.to_string()));
            }
            None => {}
        }
    }
    // Ports that are bound here and whose server is on its way out keep their network here.
    for port in snapshot.find::<network::Port>("host", node) {
        networks.insert(port.network_id.clone());
        ports.insert(port.id.to_string(), port);
    }
    for router in snapshot.find::<network::Router>("host", node) {
        for port in network::router::ports(snapshot, &router.id) {
            networks.insert(port.network_id.clone());
            ports.insert(port.id.to_string(), port);
        }
        put(Item::Router(router_item(snapshot, &router)), &mut slice);
    }
    // Declared neighbours: the other ports of networks that are here.
    for id in &networks {
        if let Some(found) = snapshot.get::<network::Network>(id) {
            for port in snapshot.find::<network::Port>("network", id) {
                ports.entry(port.id.to_string()).or_insert(port);
            }
            put(Item::Network(network_item(snapshot, &found, node)), &mut slice);
        }
    }
    let mut groups: BTreeSet<network::SecurityGroupId> = BTreeSet::new();
    for port in ports.values() {
        if port.host == node.as_str() {
            groups.extend(port.security_groups.iter().cloned());
        }
        let hostname = hostnames.get(port.id.as_str());
        put(Item::Port(port_item(snapshot, port, node, hostname)), &mut slice);
    }
    // Remote groups of rules, for their members; their own rules do not matter here but do no harm.
    let mut todo: Vec<network::SecurityGroupId> = groups.iter().cloned().collect();
    while let Some(id) = todo.pop() {
        for rule in snapshot.find::<network::SecurityGroupRule>("group", &id) {
            if let Some(remote) = &rule.remote_group_id
                && groups.insert(remote.clone())
            {
                todo.push(remote.clone());
            }
        }
    }
    for id in groups {
        if let Some(group) = snapshot.get::<network::SecurityGroup>(&id) {
            put(Item::SecurityGroup(group_item(snapshot, &group)), &mut slice);
        }
    }
    for intent in volume::volume_intents(snapshot, node) {
        match intent.wanted {
            Some(wanted) => {
                let exports = wanted
                    .read
                    .as_ref()
                    .map(|read| compute::exports_of(snapshot, read))
                    .unwrap_or_default();
                put(Item::Volume(volume_item(intent.id, wanted, exports)), &mut slice);
            }
            None => {
                slice.gone.insert(ItemKey::Volume(intent.id));
            }
        }
    }
    for intent in volume::snapshot_intents(snapshot, node) {
        if intent.wanted {
            let item = api::VolumeSnapshot {
                id: intent.id,
                volume_id: intent.volume_id,
                request_id: intent.request_id,
            };
            put(Item::VolumeSnapshot(item), &mut slice);
        } else {
            slice.gone.insert(ItemKey::VolumeSnapshot(intent.id));
        }
    }
    for t in snapshot.find::<network::TombstonePort>("host", node) {
        slice.gone.insert(ItemKey::Port(t.id.to_string()));
    }
    for t in snapshot.find::<network::TombstoneNetwork>("host", node) {
        slice.gone.insert(ItemKey::Network(t.id.to_string()));
    }
    for t in snapshot.find::<network::TombstoneRouter>("host", node) {
        slice.gone.insert(ItemKey::Router(t.id.to_string()));
    }
    let items = &slice.items;
    slice.gone.retain(|key| !items.contains_key(key));
    slice
}

fn volume_item(id: String, wanted: volume::Wanted, exports: Vec<volume::Export>) -> api::Volume {
    api::Volume {
        id,
        request_id: wanted.request_id,
        size: wanted.size,
        content: wanted.content,
        source: match wanted.source {
            volume::Source::Blank => api::VolumeSource::Blank,
            volume::Source::Image { digest, format, .. } => api::VolumeSource::Image { digest, format },
            volume::Source::Volume(id) => api::VolumeSource::Volume(id.to_string()),
            volume::Source::Snapshot(id) => api::VolumeSource::Snapshot(id.to_string()),
            volume::Source::Backup { digest, .. } => api::VolumeSource::Backup { digest },
        },
        exports: exports
            .into_iter()
            .map(|e| api::VolumeExport {
                name: e.name,
                key: e.key,
                readonly: e.readonly,
            })
            .collect(),
    }
}

fn server_item(intent: compute::GuestIntent) -> api::Server {
    let m = intent.metadata;
    api::Server {
        id: intent.id,
        project_id: intent.project_id,
        user_id: intent.user_id,
        name: intent.name,
        hostname: intent.hostname,
        request_id: intent.request_id,
        vcpus: intent.vcpus,
        memory_mib: intent.memory_mib,
        disks: intent
            .disks
            .into_iter()
            .map(|d| api::Disk {
                name: d.name,
                source: match d.source {
                    compute::DiskSource::Image {
                        image_id,
                        digest,
                        format,
                    } => api::DiskSource::Image {
                        image_id,
                        digest,
                        format,
                    },
                    compute::DiskSource::Blank => api::DiskSource::Blank,
                    compute::DiskSource::Volume {
                        id,
                        readonly,
                        remote,
                        limits,
                    } => api::DiskSource::Volume {
                        limits,
                        id,
                        readonly,
                        remote: remote.map(|r| api::RemoteVolume {
                            holder: r.holder,
                            address: r.address,
                            export: r.export,
                            key: r.key,
                            size: r.size,
                        }),
                    },
                },
                size: d.size,
                bus: d.bus,
                device: d.device,
            })
            .collect(),
        ports: intent.ports,
        power: match intent.power {
            compute::Power::Running => api::Power::Running,
            compute::Power::Stopped => api::Power::Stopped,
            compute::Power::Paused => api::Power::Paused,
            compute::Power::Suspended => api::Power::Suspended,
        },
        reboot: api::Reboot {
            count: intent.reboot.count,
            hard: intent.reboot.hard,
        },
        rebuild: intent.rebuild,
        resize: api::Resize {
            count: intent.resize.count,
            kept: intent.resize.kept,
            restore: intent.resize.restore,
        },
        config_drive: intent.config_drive,
        metadata: api::GuestMetadata {
            public_keys: m.public_keys,
            meta: m.meta,
            user_data: m.user_data,
            availability_zone: m.availability_zone,
            launch_index: m.launch_index,
            admin_pass: m.admin_pass,
            instance_type: m.instance_type,
            security_groups: m.security_groups,
            files: m.files,
        },
        stop_timeout: intent.stop_timeout,
        origin: intent.origin,
    }
}

fn network_item(snapshot: &Snapshot, network: &Object<network::Network>, node: &NodeName) -> api::Network {
    let mut subnets: Vec<api::Subnet> = snapshot
        .find::<network::Subnet>("network", &network.id)
        .map(|s| api::Subnet {
            id: s.id.to_string(),
            cidr: s.cidr,
            gateway: s.gateway_ip,
            dhcp: s.enable_dhcp && network.value.dhcp_on_host(node.as_str(), true),
            dns: s.dns_nameservers.clone(),
            routes: s.host_routes.clone(),
            ipv6_address_mode: s.ipv6_address_mode.clone(),
            ipv6_ra_mode: s.ipv6_ra_mode.clone(),
            dhcp_address: network::dhcp::dhcp_address(snapshot, &network.id, &s.id),
        })
        .collect();
    subnets.sort_by(|a, b| a.id.cmp(&b.id));
    api::Network {
        id: network.id.to_string(),
        vni: network.vni,
        zone: network.zone,
        mtu: network.mtu,
        external: network.external,
        admin_up: network.admin_state_up,
        subnets,
    }
}

fn port_item(
    snapshot: &Snapshot,
    port: &Object<network::Port>,
    node: &NodeName,
    hostname: Option<&String>,
) -> api::Port {
    let dns_name = match hostname {
        _ if !port.dns_name.is_empty() => port.dns_name.clone(),
        Some(name) => name.clone(),
        None => String::new(),
    };
    // A router's interfaces are on the node that hosts it, whatever the port says.
    let host = if port.host.is_empty() {
        None
    } else {
        Some(port.host.clone())
    };
    let _ = node;
    api::Port {
        id: port.id.to_string(),
        network_id: port.network_id.to_string(),
        project_id: port.project_id.to_string(),
        host,
        device_id: port.device_id.clone(),
        device_owner: port.device_owner.clone(),
        mac: port.mac_address.clone(),
        fixed_ips: port
            .fixed_ips
            .iter()
            .map(|f| (f.subnet_id.to_string(), f.ip_address))
            .collect(),
        allowed_address_pairs: port
            .allowed_address_pairs
            .iter()
            .map(|p| (p.ip_address, p.mac_address.clone()))
            .collect(),
        security_groups: port.security_groups.iter().map(ToString::to_string).collect(),
        port_security: port.port_security_enabled,
        admin_up: port.admin_state_up,
        extra_dhcp_opts: port
            .extra_dhcp_opts
            .iter()
            .map(|o| (o.opt_name.clone(), o.opt_value.clone(), o.ip_version))
            .collect(),
        dns_name,
        qos: port_qos(snapshot, port),
        trunk: trunk_link(snapshot, port),
    }
}

fn trunk_link(snapshot: &Snapshot, port: &Object<network::Port>) -> Option<api::TrunkLink> {
    if port.device_owner != network::trunk::SUBPORT {
        return None;
    }
    let trunk = network::trunk::of_subport(snapshot, &port.id)?;
    let sub = trunk.sub_ports.iter().find(|s| s.port_id == port.id)?;
    Some(api::TrunkLink {
        parent: trunk.port_id.to_string(),
        vlan: sub.segmentation_id,
    })
}

fn port_qos(snapshot: &Snapshot, port: &network::Port) -> api::PortQos {
    let mut qos = api::PortQos::default();
    for says in network::qos::rules_of(snapshot, port) {
        match says {
            network::QosRuleKind::BandwidthLimit {
                max_kbps,
                max_burst_kbps,
                direction,
            } => {
                let limit = Some(api::RateLimit {
                    kbps: max_kbps,
                    burst_kbits: max_burst_kbps,
                });
                match direction {
                    network::Direction::Ingress => qos.ingress = limit,
                    network::Direction::Egress => qos.egress = limit,
                }
            }
            network::QosRuleKind::DscpMarking { dscp_mark } => qos.dscp = Some(dscp_mark),
        }
    }
    qos
}

/// A rule as nodes carry it out: one that names an address group is one for each of its blocks of the rule's IP version.
fn rule_items(snapshot: &Snapshot, r: &Object<network::SecurityGroupRule>) -> Vec<api::Rule> {
    let rule = |id: String, remote_cidr| api::Rule {
        id,
        ingress: r.direction == network::Direction::Ingress,
        ip_version: r.ip_version(),
        protocol: r.protocol_number(),
        port_min: r.port_range_min,
        port_max: r.port_range_max,
        remote_cidr,
        remote_group: r.remote_group_id.as_ref().map(ToString::to_string),
    };
    let Some(id) = &r.remote_address_group_id else {
        return vec![rule(r.id.to_string(), r.remote_ip_prefix)];
    };
    let Some(blocks) = snapshot.get::<network::AddressGroup>(id) else {
        return Vec::new();
    };
    let of_version = |block: &&ipnet::IpNet| block.addr().is_ipv4() == (r.ip_version() == 4);
    let mine = blocks.value.addresses.iter().filter(of_version);
    mine.map(|block| rule(format!("{}/{block}", r.id), Some(*block)))
        .collect()
}

fn group_item(snapshot: &Snapshot, group: &Object<network::SecurityGroup>) -> api::SecurityGroup {
    let mut rules: Vec<api::Rule> = snapshot
        .find::<network::SecurityGroupRule>("group", &group.id)
        .flat_map(|r| rule_items(snapshot, &r))
        .collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let mut members: Vec<IpAddr> = snapshot
        .find::<network::Port>("security_group", &group.id)
        .flat_map(|p| p.fixed_ips.iter().map(|f| f.ip_address).collect::<Vec<_>>())
        .collect();
    members.sort_unstable();
    members.dedup();
    api::SecurityGroup {
        id: group.id.to_string(),
        stateful: group.stateful,
        rules,
        members,
    }
}

fn router_item(snapshot: &Snapshot, router: &Object<network::Router>) -> api::Router {
    let mut interfaces: Vec<String> = network::router::interfaces(snapshot, &router.id)
        .iter()
        .map(|p| p.id.to_string())
        .collect();
    interfaces.sort_unstable();
    let mut floating_ips: Vec<api::FloatingIp> = snapshot
        .find::<network::FloatingIp>("router", &router.id)
        .filter_map(|f| {
            let Some(IpAddr::V4(fixed)) = f.fixed_ip_address else {
                return None;
            };
            Some(api::FloatingIp {
                id: f.id.to_string(),
                floating: f.floating_ip_address,
                fixed,
                port_id: f.port_id.as_ref()?.to_string(),
            })
        })
        .collect();
    floating_ips.sort_by(|a, b| a.id.cmp(&b.id));
    let mut forwardings: Vec<api::Forwarding> = snapshot
        .find::<network::PortForwarding>("router", &router.id)
        .filter_map(|f| {
            let protocols = network::port_forwarding::PROTOCOLS;
            Some(api::Forwarding {
                id: f.id.to_string(),
                floating: snapshot
                    .get::<network::FloatingIp>(&f.floatingip_id)?
                    .floating_ip_address,
                protocol: protocols.iter().find(|(name, _)| *name == f.protocol)?.1,
                external_port: f.external_port,
                fixed: f.internal_ip_address,
                internal_port: f.internal_port,
            })
        })
        .collect();
    forwardings.sort_by(|a, b| a.id.cmp(&b.id));
    api::Router {
        id: router.id.to_string(),
        admin_up: router.admin_state_up,
        gateway: router.gateway.as_ref().map(|g| api::Gateway {
            port_id: g.port_id.to_string(),
            network_id: g.network_id.to_string(),
            snat: g.enable_snat,
        }),
        interfaces,
        routes: router.routes.iter().map(|r| (r.destination, r.nexthop)).collect(),
        floating_ips,
        forwardings,
        ndp_proxies: network::ndp_proxy::addresses_of(snapshot, router),
        helpers: router.conntrack_helpers.iter().filter_map(helper_item).collect(),
    }
}

fn helper_item(h: &network::ConntrackHelper) -> Option<api::ConntrackHelper> {
    let protocols = network::port_forwarding::PROTOCOLS;
    Some(api::ConntrackHelper {
        id: h.id.to_string(),
        name: h.kernel_name()?.to_owned(),
        protocol: protocols.iter().find(|(name, _)| *name == h.protocol)?.1,
        port: h.port,
    })
}
