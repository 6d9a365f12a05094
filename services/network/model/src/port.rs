//! Ports. Gone at once: a deleted port is 404 for clients and its addresses are free; a tombstone tells the node to take
//! the data path away. Status is not stored: a port is ACTIVE when its node observes it up, DOWN otherwise.
//!
//! ```text
//!  unbound ──bind──► bound, DOWN ──observed up──► ACTIVE
//!     ▲                 │  ▲───── observed down ────┘
//!     └──── unbind ─────┘         delete ──► tombstone until the node reports it removed
//! ```

pub use crate::port_plan::{
    DhcpOptionChange, PortChange, plan_create_port, plan_delete_port, plan_drop_port, plan_update_port,
};
use crate::{Meta, NetworkId, QosPolicyId, SecurityGroupId, SubnetId};
use ipnet::IpNet;
use maru_base::ProjectId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

maru_base::typed_id!(
    /// Id of a port, a UUID.
    PortId
);

/// One address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// Its subnet.
    pub subnet_id: SubnetId,
    /// The address.
    pub ip_address: IpAddr,
}

/// An address that a port may use besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// Block, or one address as a /32 or /128.
    pub ip_address: IpNet,
    /// Whether the client named a block (`10.0.0.0/24`) and not one address.
    pub is_block: bool,
    /// MAC; the port's own if `None`.
    pub mac_address: Option<String>,
}

/// An extra DHCP option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Name or number.
    pub opt_name: String,
    /// Value.
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Owner; empty for what belongs to the cloud (gateways, floating IPs).
    pub project_id: ProjectId,
    /// Its network.
    pub network_id: NetworkId,
    /// Name; need not be unique.
    pub name: String,
    /// Lower case with colons; unique on its network.
    pub mac_address: String,
    /// Addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// The server, router or other device it belongs to.
    pub device_id: String,
    /// `compute:nova`, `network:router_interface`, `network:router_gateway`, `network:dhcp`, `network:floatingip`, ...
    pub device_owner: String,
    /// Administrative state.
    pub admin_state_up: bool,
    /// Its security groups.
    pub security_groups: Vec<SecurityGroupId>,
    /// Anti-spoofing and security groups on.
    pub port_security_enabled: bool,
    /// Further addresses it may use.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Extra DHCP options.
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// The node it is on; empty when unbound (`binding:host_id`).
    pub host: String,
    /// `normal`, `direct`, ...
    pub vnic_type: String,
    /// `binding:profile`, as the client gave it.
    pub profile: BTreeMap<String, serde_json::Value>,
    /// Host name in DNS and DHCP.
    pub dns_name: String,
    /// Its own QoS policy.
    #[serde(default)]
    pub qos_policy_id: Option<QosPolicyId>,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for Port {
    type Id = PortId;
    const NAME: &'static str = "port";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |p| vec![p.project_id.to_string()],
            },
            Index {
                name: "network",
                values: |p| vec![p.network_id.to_string()],
            },
            Index {
                name: "device",
                values: |p| some(&p.device_id),
            },
            Index {
                name: "owner",
                values: |p| some(&p.device_owner),
            },
            Index {
                name: "host",
                values: |p| some(&p.host),
            },
            Index {
                name: "subnet",
                values: |p| {
                    let mut all: Vec<String> = p.fixed_ips.iter().map(|f| f.subnet_id.to_string()).collect();
                    all.sort();
                    all.dedup();
                    all
                },
            },
            Index {
                name: "security_group",
                values: |p| p.security_groups.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "mac",
                values: |p| vec![p.mac_address.clone()],
            },
            Index {
                name: "qos_policy",
                values: |p| p.qos_policy_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "ip",
                values: |p| p.fixed_ips.iter().map(|f| f.ip_address.to_string()).collect(),
            },
        ]
    }
}

fn some(text: &str) -> Vec<String> {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![text.to_owned()]
    }
}

/// The host name that DHCP and DNS give to one of a port's addresses, without a domain.
#[must_use]
pub fn host_name(port: &Port, ip: IpAddr) -> String {
    if port.dns_name.is_empty() {
        format!("host-{}", ip.to_string().replace(['.', ':'], "-"))
    } else {
        port.dns_name.trim_end_matches('.').to_owned()
    }
}

/// A wished address: of a subnet, exactly this one, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FixedIpRequest {
    /// The subnet; found by the address if `None`.
    pub subnet_id: Option<SubnetId>,
    /// The address; chosen at random if `None`.
    pub ip_address: Option<IpAddr>,
}

impl FixedIpRequest {
    /// Any address of a subnet.
    #[must_use]
    pub fn in_subnet(id: SubnetId) -> Self {
        Self {
            subnet_id: Some(id),
            ip_address: None,
        }
    }
}

/// What a port shall be. [`PortRequest::new`] and struct update syntax leave the rest as usual.
#[derive(Debug, Clone)]
pub struct PortRequest {
    /// Its network.
    pub network: NetworkId,
    /// Owner; empty for what belongs to the cloud.
    pub project: ProjectId,
    /// Wished addresses; `None` for the usual: one IPv4 address, one IPv6 address, and one per autoconfigured subnet.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// `None` for the project's default group, which is made if it is not there.
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// Whether groups of other projects may be named.
    pub foreign_groups: bool,
    /// See [`Port`].
    pub name: String,
    /// See [`Meta`].
    pub description: String,
    /// See [`Port`].
    pub device_id: String,
    /// See [`Port`].
    pub device_owner: String,
    /// The node, empty for none yet.
    pub host: String,
    /// `None` for a random one.
    pub mac: Option<String>,
    /// See [`Port`].
    pub admin_state_up: bool,
    /// `None` for what the network says.
    pub port_security: Option<bool>,
    /// See [`Port`].
    pub allowed_address_pairs: Vec<AddressPair>,
    /// See [`Port`].
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// See [`Port`].
    pub vnic_type: String,
    /// See [`Port`].
    pub profile: BTreeMap<String, serde_json::Value>,
    /// See [`Port`].
    pub dns_name: String,
    /// See [`Port`].
    pub qos_policy_id: Option<QosPolicyId>,
    /// See [`Meta`].
    pub tags: Vec<String>,
    /// The cloud makes it by itself: it counts, but no quota refuses it.
    pub by_the_cloud: bool,
}

impl PortRequest {
    /// A plain port of a project.
    #[must_use]
    pub fn new(network: NetworkId, project: ProjectId) -> Self {
        Self {
            network,
            project,
            fixed_ips: None,
            security_groups: None,
            foreign_groups: false,
            name: String::new(),
            description: String::new(),
            device_id: String::new(),
            device_owner: String::new(),
            host: String::new(),
            mac: None,
            admin_state_up: true,
            port_security: None,
            allowed_address_pairs: Vec::new(),
            extra_dhcp_opts: Vec::new(),
            vnic_type: "normal".to_owned(),
            profile: BTreeMap::new(),
            dns_name: String::new(),
            qos_policy_id: None,
            tags: Vec::new(),
            by_the_cloud: false,
        }
    }
}
