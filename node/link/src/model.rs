//! The words of this crate: what is asked of the driver and what it says.

use maru_agent_api::slice::{Network, Port, Router};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How the driver is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Name of this Maru on the machine, 1 to 8 of `a-z0-9`, beginning with a letter: prefix of all it makes.
    pub instance: String,
    /// How external networks reach the world.
    pub uplink: Uplink,
}

/// How external networks reach the world.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Uplink {
    /// The host has the gateway's address of each external subnet and reaches floating addresses by its connected route;
    /// no one else does, unless the host forwards.
    #[default]
    Routed,
    /// This network device of the host is moved into Maru's namespace and joins the first external network to a LAN.
    /// It must not carry the host's own address.
    Device(String),
}

/// A network namespace by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Netns {
    /// Name, as `ip netns` lists it.
    pub name: String,
}

impl Netns {
    /// The namespace of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into() }
    }
    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

/// Where DHCP, metadata and DNS of one network are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responder {
    /// The namespace.
    pub netns: Netns,
    /// The device in it.
    pub device: String,
    /// The device's MAC address.
    pub mac: String,
}

/// What there is of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLinks {
    /// Name of the bridge in Maru's namespace.
    pub bridge: String,
    /// Its responder, if a subnet has a DHCP address.
    pub responder: Option<Responder>,
    /// For an external network: the device in the host's namespace or the moved uplink, and what is reachable through it.
    pub way_out: Option<String>,
}

/// A port's tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLink {
    /// Name of the device in Maru's namespace.
    pub tap: String,
    /// Whether this call made it.
    pub created: bool,
}

/// A router with everything that it needs of the slice.
#[derive(Debug, Clone)]
pub struct RouterSpec<'a> {
    /// The router.
    pub router: &'a Router,
    /// Its interface ports and its gateway port; others are ignored.
    pub ports: Vec<&'a Port>,
    /// The networks of those ports; others are ignored.
    pub networks: Vec<&'a Network>,
}

/// One interface of a router; router advertisements are sent from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterInterface {
    /// The port.
    pub port_id: String,
    /// The network.
    pub network_id: String,
    /// The device in the router's namespace.
    pub device: String,
    /// Its MAC address.
    pub mac: String,
}

/// What there is of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterLinks {
    /// Its namespace.
    pub netns: Netns,
    /// Interfaces towards tenants.
    pub interfaces: Vec<RouterInterface>,
    /// The interface towards the external network.
    pub gateway: Option<RouterInterface>,
    /// Routes that the kernel refused, each with the reason; everything else holds.
    pub faults: Vec<String>,
}

/// What the slice knows, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Networks.
    pub networks: BTreeSet<String>,
    /// Ports of servers.
    pub ports: BTreeSet<String>,
    /// Routers.
    pub routers: BTreeSet<String>,
}

/// A tap that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPort {
    /// Device name.
    pub tap: String,
    /// Administratively up.
    pub up: bool,
    /// A process has it open and the link carries frames.
    pub carrier: bool,
}

/// What of the instance is on the machine, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Networks, with their bridge.
    pub networks: BTreeMap<String, String>,
    /// Ports.
    pub ports: BTreeMap<String, ObservedPort>,
    /// Routers.
    pub routers: BTreeSet<String>,
    /// Responder namespaces, by network.
    pub responders: BTreeSet<String>,
    /// Taps that a crash left without their port's id, by device name.
    pub nameless: BTreeSet<String>,
}
