//! Tenant links of one machine: namespaces, bridges, taps and routers, by netlink.
//!
//! ```text
//!  host namespace                Maru's namespace  /run/netns/<instance>
//!  +-----------------+          +---------------------------------------------------------------+
//!  | <instance>-<vni>|==veth====| up-<vni>                                                      |
//!  | 203.0.113.1/24  |          |    |                                                          |
//!  +-----------------+          |  br<vni> external          br<vni> tenant network              |
//!                               |    |                        |        |         |              |
//!                               |  rt-<port>               rt-<port> tap<port> dp-<vni>         |
//!                               +----||-----------------------||-----------------||--------------+
//!                                +---||-----------------------||---+   +---------||------------+
//!                                | qg-<port>        qr-<port>      |   | dh0                   |
//!                                | <instance>-r-<router id>        |   | <instance>-d-<net id> |
//!                                +---------------------------------+   +-----------------------+
//! ```
//!
//! Everything of an instance is in namespaces whose names begin with the instance's name, except the host ends of the
//! external networks, so that a leftover can be found and removed without any state file. The host's own firewall is never
//! touched.
//!
//! # Order of calls (the port security window)
//!
//! A tap is made down and stays down until [`Links::port_up`]. The agent applies the firewall between
//! [`Links::ensure_port`] and [`Links::port_up`]; so no frame of a guest ever meets a bridge without its rules. A router's
//! namespace is made by [`Links::ensure_router_namespace`], its NAT rules are loaded, and only then [`Links::ensure_router`]
//! gives it links.
//!
//! # Metadata at 169.254.169.254
//!
//! The responder namespace of a network holds `169.254.169.254/32`, and the DHCP addresses of its subnets, on one device.
//! Guests get there in two ways, and both keep the guest's source address, which is what identifies it:
//!
//! * without a router: DHCP option 121 (RFC 3442) names the DHCP address as next hop of 169.254.169.254/32;
//! * with a router, also for guests without that option: the router has, for each interface, a routing rule "from this
//!   interface to 169.254.169.254" with the network's DHCP address as next hop. No NAT is done; the responder answers the guest
//!   directly on the link.
//!
//! The same device has `fe80::a9fe:a9fe`, the metadata address of IPv6 guests.

mod model;
mod names;

pub use model::{
    Known, LinkConfig, Netns, NetworkLinks, Observed, ObservedPort, PortLink, Responder, RouterInterface, RouterLinks,
    RouterSpec, Uplink,
};
pub use names::{bridge_name, tap_name};

use maru_agent_api::slice::{Network, Port};
use maru_base::{Error, Result};
use std::os::fd::OwnedFd;

/// The driver of one instance's links. Cheap to share behind an `Arc`; calls are carried out one after another.
#[derive(Debug)]
pub struct Links {
    config: LinkConfig,
}

fn later() -> Error {
    Error::not_implemented("the link driver is not there yet")
}

impl Links {
    /// Makes (or finds) the instance's namespace and sets its kernel switches.
    ///
    /// # Errors
    /// A malformed instance name, no right to make namespaces, or a kernel without br_netfilter; the message says what helps.
    pub async fn open(config: LinkConfig) -> Result<Self> {
        names::check_instance(&config.instance)?;
        Ok(Self { config })
    }

    /// The namespace with all bridges and taps; the firewall's rules belong there.
    #[must_use]
    pub fn namespace(&self) -> Netns {
        Netns::named(&self.config.instance)
    }

    /// The namespace of a router, whether it is there or not.
    #[must_use]
    pub fn router_namespace(&self, router_id: &str) -> Netns {
        Netns::named(&names::router_namespace(&self.config.instance, router_id))
    }

    /// Where DHCP, metadata and DNS of a network are answered, whether it is there or not. `port` is the network's
    /// `network:dhcp` port, if the slice has one: its MAC address is used; else one is derived from the network's id.
    #[must_use]
    pub fn responder(&self, network_id: &str, port: Option<&Port>) -> Responder {
        Responder {
            netns: Netns::named(&names::responder_namespace(&self.config.instance, network_id)),
            device: names::RESPONDER_DEVICE.into(),
            mac: port.map_or_else(|| names::responder_mac(network_id), |p| p.mac.clone()),
        }
    }

    /// Makes the network's bridge and, if a subnet has a DHCP address, its responder namespace; for an external network
    /// also the way to the host or the uplink. Idempotent: repairs what differs.
    ///
    /// # Errors
    /// What the kernel refused and what would help.
    pub async fn ensure_network(&self, _network: &Network, _dhcp_port: Option<&Port>) -> Result<NetworkLinks> {
        Err(later())
    }

    /// Removes the bridge, the responder and the way out of a network. Ports still on the bridge are removed by their own calls.
    /// No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_network(&self, _network_id: &str) -> Result<()> {
        Err(later())
    }

    /// Makes the port's persistent tap on the network's bridge, **down** if it is new. Idempotent; an existing tap keeps its state.
    ///
    /// # Errors
    /// Another port has the same first 11 characters, the network's bridge is missing, or the kernel refused.
    pub async fn ensure_port(&self, _port: &Port, _network: &Network) -> Result<PortLink> {
        Err(later())
    }

    /// Brings the tap up (`up`) or down; to be called when the firewall of the port is in place.
    ///
    /// # Errors
    /// There is no such tap.
    pub async fn port_up(&self, _port_id: &str, _up: bool) -> Result<()> {
        Err(later())
    }

    /// Opens the tap for a hypervisor process (`-netdev tap,fd=N`, with `IFF_VNET_HDR`). The descriptor is close-on-exec.
    ///
    /// # Errors
    /// There is no such tap, or another process has it open (`EBUSY`).
    pub async fn open_tap(&self, _port_id: &str) -> Result<OwnedFd> {
        Err(later())
    }

    /// Removes the port's tap. No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_port(&self, _port_id: &str) -> Result<()> {
        Err(later())
    }

    /// Makes the router's empty namespace, so that its NAT rules can be loaded before it has links.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn ensure_router_namespace(&self, router_id: &str) -> Result<Netns> {
        names::check_id("router", router_id)?;
        Ok(self.router_namespace(router_id))
    }

    /// Gives the router its interfaces, addresses, routes and floating addresses, and announces new ones (gratuitous ARP).
    /// Interfaces that the spec does not name are removed. The bridges of its networks must be there.
    ///
    /// # Errors
    /// What the kernel refused; a port or network that the spec lacks.
    pub async fn ensure_router(&self, _spec: &RouterSpec<'_>) -> Result<RouterLinks> {
        Err(later())
    }

    /// Removes the router's namespace and its links. No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_router(&self, _router_id: &str) -> Result<()> {
        Err(later())
    }

    /// What of this instance is on the machine.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn observe(&self) -> Result<Observed> {
        Err(later())
    }

    /// Removes what is on the machine and not `known`; returns what was removed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_unknown(&self, _known: &Known) -> Result<Observed> {
        Err(later())
    }

    /// Removes everything of this instance from the machine, its namespace included (`maru down --guests`). A moved uplink
    /// device goes back to the host.
    ///
    /// # Errors
    /// What the kernel refused; everything else is removed all the same.
    pub async fn teardown(&self) -> Result<()> {
        Err(later())
    }
}
