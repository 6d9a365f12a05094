//! Networks. Gone at once: a deleted network is 404 for clients, a tombstone holds its segment number and conntrack zone
//! until every host it was on has reported it removed.
//!
//! ```text
//!  create ──► ACTIVE ──► delete ──► (tombstone: hosts still have it) ──► numbers free
//!                          └── never was on a host ───────────────────────┘
//! ```

use crate::{
    FloatingIp, Meta, Port, QosPolicyId, RbacPolicy, Subnet, TombstoneNetwork, dhcp, errors, keys, qos, quota,
    subnet::plan_drop_subnet, topology,
};
use maru_base::{ErrorKind, ProjectId, Result, random};
use maru_store::{Index, Kind, Object, Op, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a network, a UUID.
    NetworkId
);

/// Bytes of a frame's payload on a tenant's network: 1500 without the 50 of VXLAN over IPv4.
pub const MTU_VXLAN: u32 = 1450;
/// Bytes of a frame's payload on an external network.
pub const MTU_EXTERNAL: u32 = 1500;
/// Smallest MTU (RFC 791).
pub const MTU_MIN: u32 = 68;
/// Highest VXLAN network identifier (RFC 7348: 24 bits).
pub const VNI_MAX: u64 = (1 << 24) - 1;
/// Highest conntrack zone.
pub const ZONE_MAX: u64 = 65_535;

/// Domain of ports' names where their network has none (Neutron's default), without its last dot.
pub const DNS_DOMAIN: &str = "openstacklocal";

/// The domain of the names on a network, without its last dot.
#[must_use]
pub fn dns_domain(snapshot: &Snapshot, id: &NetworkId) -> String {
    snapshot
        .get::<Network>(id)
        .map(|n| n.value.dns_domain.trim_end_matches('.').to_owned())
        .filter(|d| !d.is_empty())
        .unwrap_or_else(|| DNS_DOMAIN.to_owned())
}

/// A network: one layer 2 segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Administrative state.
    pub admin_state_up: bool,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether routers may have their gateway on it (`router:external`).
    pub external: bool,
    /// Whether it is the default external network.
    pub is_default: bool,
    /// Bytes.
    pub mtu: u32,
    /// Segment number, unique in the cloud: VXLAN id and the name of the bridge.
    pub vni: u32,
    /// Conntrack zone, unique in the cloud.
    pub zone: u16,
    /// What its ports get unless they say otherwise.
    pub port_security_enabled: bool,
    /// Domain of its ports' names.
    pub dns_domain: String,
    /// `vxlan` or `flat`.
    pub network_type: String,
    /// Physical network of a flat one.
    pub physical_network: Option<String>,
    /// Wished zones.
    pub availability_zone_hints: Vec<String>,
    /// Projects that may use it besides its own, by RBAC policies.
    #[serde(default)]
    pub shared_with: Vec<ProjectId>,
    /// Nodes that an administrator told to answer DHCP here, whether or not there is a subnet for it.
    #[serde(default)]
    pub dhcp_on: Vec<String>,
    /// Nodes that an administrator told not to answer DHCP here.
    #[serde(default)]
    pub dhcp_off: Vec<String>,
    /// The QoS policy of its ports that have none of their own.
    #[serde(default)]
    pub qos_policy_id: Option<QosPolicyId>,
    /// Standard attributes.
    pub meta: Meta,
}

impl Network {
    /// Whether a project may use it as a shared one.
    #[must_use]
    pub fn shared_to(&self, project: Option<&ProjectId>) -> bool {
        self.shared || project.is_some_and(|p| self.shared_with.contains(p))
    }
    /// Whether a node answers DHCP here: every node does for its own guests, unless it was told otherwise. `port` says whether the
    /// network has a DHCP port.
    #[must_use]
    pub fn dhcp_on_host(&self, host: &str, port: bool) -> bool {
        let told = |hosts: &[String]| hosts.iter().any(|h| h == host);
        (port || told(&self.dhcp_on)) && !told(&self.dhcp_off)
    }
}

impl Kind for Network {
    type Id = NetworkId;
    const NAME: &'static str = "network";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |n| vec![n.project_id.to_string()],
            },
            // What others than the owner see.
            Index {
                name: "visible",
                values: |n| {
                    let mut v = Vec::new();
                    if n.shared {
                        v.push("shared".to_owned());
                    }
                    if n.external {
                        v.push("external".to_owned());
                    }
                    v.extend(n.shared_with.iter().map(|p| format!("to:{p}")));
                    v
                },
            },
            Index {
                name: "name",
                values: |n| vec![n.name.clone()],
            },
            Index {
                name: "qos_policy",
                values: |n| n.qos_policy_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

/// What a network shall be.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// See [`Network`].
    pub project_id: ProjectId,
    /// See [`Network`].
    pub name: String,
    /// See [`Meta`].
    pub description: String,
    /// See [`Network`].
    pub admin_state_up: bool,
    /// See [`Network`].
    pub shared: bool,
    /// See [`Network`].
    pub external: bool,
    /// See [`Network`].
    pub is_default: bool,
    /// `None` for the usual one.
    pub mtu: Option<u32>,
    /// See [`Network`].
    pub port_security_enabled: bool,
    /// See [`Network`].
    pub dns_domain: String,
    /// `None` for `vxlan`.
    pub network_type: Option<String>,
    /// See [`Network`].
    pub physical_network: Option<String>,
    /// Wished VXLAN id.
    pub segmentation_id: Option<u32>,
    /// See [`Network`].
    pub availability_zone_hints: Vec<String>,
    /// See [`Network`]; `None` for the default of its project.
    pub qos_policy_id: Option<Option<QosPolicyId>>,
    /// See [`Meta`].
    pub tags: Vec<String>,
}

impl NetworkRequest {
    /// A plain network of a project.
    #[must_use]
    pub fn new(project_id: ProjectId, name: impl Into<String>) -> Self {
        Self {
            project_id,
            name: name.into(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            is_default: false,
            mtu: None,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: None,
            physical_network: None,
            segmentation_id: None,
            availability_zone_hints: Vec::new(),
            qos_policy_id: None,
            tags: Vec::new(),
        }
    }
}

/// Plans a new network with its segment number and conntrack zone.
///
/// # Errors
/// 409 over quota or when a wished number is in use; 400 for an MTU or type that cannot be; 503 when no number is free.
pub fn plan_create_network(
    snapshot: &Snapshot,
    txn: &mut Txn,
    request: NetworkRequest,
) -> Result<(NetworkId, Network)> {
    let id = NetworkId::new_uuid();
    quota::consume(snapshot, txn, &request.project_id, "network")?;
    let network_type = request.network_type.unwrap_or_else(|| "vxlan".to_owned());
    match (
        network_type.as_str(),
        &request.physical_network,
        request.segmentation_id,
    ) {
        ("vxlan", None, _) => {}
        ("flat", Some(physical), None) => {
            let key = keys::claim("flat", "", physical);
            if snapshot.raw(&key).is_some() || keys::written(txn, &key) {
                return Err(errors::conflict(
                    "FlatNetworkInUse",
                    format!("The physical network {physical} already carries a flat network; there can be one."),
                ));
            }
            txn.claim("flat", "", physical, &id);
        }
        ("vxlan", Some(_), _) => {
            return Err(errors::invalid_input(
                "a vxlan network has no provider:physical_network; leave it out",
            ));
        }
        ("flat", ..) => {
            return Err(errors::invalid_input(
                "a flat network needs provider:physical_network and has no provider:segmentation_id",
            ));
        }
        (other, ..) => {
            return Err(errors::invalid_input(format!(
                "provider:network_type '{other}' is not served; use vxlan or flat"
            )));
        }
    }
    let most = if request.external || network_type == "flat" {
        MTU_EXTERNAL
    } else {
        MTU_VXLAN
    };
    let mtu = match request.mtu {
        None | Some(0) => most,
        Some(n) if (MTU_MIN..=most).contains(&n) => n,
        Some(n) => {
            return Err(errors::invalid_input(format!(
                "mtu {n} is not within {MTU_MIN} and {most}"
            )));
        }
    };
    let vni = match request.segmentation_id {
        None => allocate_number(snapshot, txn, "vni", VNI_MAX, &id)?,
        Some(n) if n == 0 || u64::from(n) > VNI_MAX => {
            return Err(errors::invalid_input(format!(
                "provider:segmentation_id {n} is not within 1 and {VNI_MAX}"
            )));
        }
        Some(n) => {
            let key = keys::number("vni", u64::from(n));
            if snapshot.raw(&key).is_some() || keys::written(txn, &key) {
                return Err(errors::conflict(
                    "TunnelIdInUse",
                    format!("The segment {n} is in use by another network; choose another or leave it out."),
                ));
            }
            txn.allocate(key, &id);
            u64::from(n)
        }
    };
    let zone = allocate_number(snapshot, txn, "zone", ZONE_MAX, &id)?;
    let default = || qos::default_policy(snapshot, &request.project_id);
    let qos_policy_id = request.qos_policy_id.clone().unwrap_or_else(default);
    if let Some(policy) = &qos_policy_id {
        qos::hold_policy(txn, policy);
    }
    let network = Network {
        project_id: request.project_id,
        name: request.name,
        admin_state_up: request.admin_state_up,
        shared: request.shared,
        external: request.external,
        is_default: request.is_default,
        mtu,
        vni: u32::try_from(vni).unwrap_or(u32::MAX),
        zone: u16::try_from(zone).unwrap_or(u16::MAX),
        port_security_enabled: request.port_security_enabled,
        dns_domain: request.dns_domain,
        network_type,
        physical_network: request.physical_network,
        availability_zone_hints: request.availability_zone_hints,
        shared_with: Vec::new(),
        dhcp_on: Vec::new(),
        dhcp_off: Vec::new(),
        qos_policy_id,
        meta: Meta::new(request.description).with_tags(request.tags),
    };
    topology::plan_default_external(snapshot, txn, &id, false, network.external && network.is_default)?;
    txn.create(&id, &network);
    Ok((id, network))
}

/// Allocates a number in `1..=max` at random; a dense family is walked from a random place.
fn allocate_number(snapshot: &Snapshot, txn: &mut Txn, family: &str, max: u64, owner: &str) -> Result<u64> {
    let free = |txn: &Txn, n: &u64| {
        let key = keys::number(family, *n);
        snapshot.raw(&key).is_none() && !keys::written(txn, &key)
    };
    let found = (0..32)
        .map(|_| 1 + random::below(max))
        .find(|n| free(txn, n))
        .or_else(|| {
            let start = random::below(max);
            (0..max.min(1 << 17))
                .map(|i| 1 + (start + i) % max)
                .find(|n| free(txn, n))
        });
    let n = found.ok_or_else(|| {
        errors::refuse(
            ErrorKind::Unavailable,
            "NoNetworkAvailable",
            format!("No network can be made: all {max} numbers of the family '{family}' are in use; delete networks."),
        )
    })?;
    txn.allocate(keys::number(family, n), owner);
    Ok(n)
}

/// Plans the deletion of a network, its subnets, its DHCP port and the floating IPs of it that lead nowhere.
///
/// # Errors
/// 409 `NetworkInUse` while other ports are on it.
pub fn plan_delete_network(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Network>) -> Result<()> {
    let id = &read.id;
    let ports: Vec<Object<Port>> = snapshot.find::<Port>("network", id).collect();
    // As upstream: floating IPs that lead nowhere go with their external network.
    let idle: Vec<Object<FloatingIp>> = snapshot
        .find::<FloatingIp>("network", id)
        .filter(|f| f.value.port_id.is_none() && crate::port_forwarding::forwardings_of(snapshot, &f.id).is_empty())
        .collect();
    let goes =
        |p: &Object<Port>| p.value.device_owner == dhcp::OWNER || idle.iter().any(|f| f.value.floating_port_id == p.id);
    let in_the_way: Vec<&Object<Port>> = ports.iter().filter(|p| !goes(p)).collect();
    if let Some(first) = in_the_way.first() {
        return Err(errors::conflict(
            "NetworkInUse",
            format!(
                "Unable to complete operation on network {id}. There are one or more ports still in use on the network: {} of them, such as {} ({}); delete them first.",
                in_the_way.len(),
                first.id,
                if first.value.device_owner.is_empty() {
                    "no device"
                } else {
                    &first.value.device_owner
                }
            ),
        ));
    }
    keys::watch_epoch(snapshot, txn, &format!("ports:{id}"));
    keys::hold_epoch(snapshot, txn, &format!("subnets:{id}"));
    for fip in &idle {
        crate::floating_ip::plan_drop_idle(txn, fip);
    }
    for port in &ports {
        crate::port::plan_drop_port(snapshot, txn, port);
    }
    for subnet in snapshot.find::<Subnet>("network", id) {
        plan_drop_subnet(txn, &subnet);
    }
    for policy in snapshot.find::<RbacPolicy>("object", id) {
        crate::rbac::drop_policy(txn, &policy);
    }
    let network = &read.value;
    if let Some(physical) = &network.physical_network {
        txn.release("flat", "", physical);
    }
    topology::plan_default_external(snapshot, txn, id, network.external && network.is_default, false)?;
    topology::forget(snapshot, txn, id);
    quota::release(txn, &network.project_id, "network");
    let hosts = crate::tombstone::network_hosts(snapshot, id);
    if hosts.is_empty() {
        // A port that is bound at this moment would mark a host; binding guards that the network lives.
        free_numbers(txn, network.vni, network.zone);
    } else {
        txn.create(
            id,
            &TombstoneNetwork {
                hosts,
                vni: network.vni,
                zone: network.zone,
                revision: snapshot.revision(),
            },
        );
    }
    keys::bury(txn, keys::epoch(&format!("ports:{id}")));
    keys::bury(txn, keys::epoch(&format!("subnets:{id}")));
    txn.delete(read);
    Ok(())
}

/// Frees a network's segment number and conntrack zone.
pub(crate) fn free_numbers(txn: &mut Txn, vni: u32, zone: u16) {
    txn.op(Op::Delete(keys::number("vni", u64::from(vni))));
    txn.op(Op::Delete(keys::number("zone", u64::from(zone))));
}
