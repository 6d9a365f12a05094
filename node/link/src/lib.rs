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
//! Guests get there in these ways, and all keep the guest's source address, which is what identifies it:
//!
//! * without a router: DHCP option 121 (RFC 3442) names the DHCP address as next hop of 169.254.169.254/32. A guest that looks
//!   for 169.254.0.0/16 on its link (zeroconf) is answered too, since the responder answers ARP for the address;
//! * with a router, also for guests without that option: the router has, for each interface, a routing rule "what comes in here
//!   for 169.254.169.254" whose table has the address on that same link. No NAT is done; the responder answers the guest
//!   directly on the link. So it does for subnets without DHCP.
//!
//! The same device has `fe80::a9fe:a9fe`, the metadata address of IPv6 guests.
//!
//! # Router advertisements
//!
//! A guest takes the sender of an advertisement as its gateway, so they are sent from the router's own interfaces:
//! [`RouterLinks::interfaces`] names namespace and device; [`in_namespace`] opens the socket there.

mod arp;
mod driver;
mod model;
mod names;
mod nl;
mod ns;
mod plan;
mod tap;

pub use model::{
    Known, LinkConfig, Netns, NetworkLinks, Observed, ObservedPort, PortLink, Responder, RouterInterface, RouterLinks,
    RouterSpec, Uplink,
};
pub use names::{bridge_name, tap_name};
pub use ns::in_namespace;

use driver::Driver;
use maru_agent_api::slice::{Network, Port};
use maru_base::{Error, Result};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// The driver of one instance's links. Cheap to clone; calls are carried out one after another, off the async threads.
#[derive(Debug, Clone)]
pub struct Links {
    instance: Arc<str>,
    driver: Arc<Mutex<Driver>>,
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("A step on the machine's links panicked; the log has where.", e))?
}

impl Links {
    /// Makes (or finds) the instance's namespace and sets its kernel switches.
    ///
    /// # Errors
    /// A malformed instance name, no right to make namespaces, or a kernel without br_netfilter; the message says what helps.
    pub async fn open(config: LinkConfig) -> Result<Self> {
        names::check_instance(&config.instance)?;
        let instance = Arc::from(config.instance.as_str());
        let driver = blocking(move || Driver::open(config)).await?;
        Ok(Self {
            instance,
            driver: Arc::new(Mutex::new(driver)),
        })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Driver) -> Result<T> + Send + 'static) -> Result<T> {
        let driver = Arc::clone(&self.driver);
        // A panic in an earlier step left no half-made value behind: the driver's only state is its sockets.
        blocking(move || work(&mut driver.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// The namespace with all bridges and taps; the firewall's rules belong there.
    #[must_use]
    pub fn namespace(&self) -> Netns {
        Netns::named(&self.instance)
    }

    /// The namespace of a router, whether it is there or not.
    #[must_use]
    pub fn router_namespace(&self, router_id: &str) -> Netns {
        Netns::named(&names::router_namespace(&self.instance, router_id))
    }

    /// Where DHCP, metadata and DNS of a network are answered, whether it is there or not. `port` is the network's
    /// `network:dhcp` port, if the slice has one: its MAC address is used; else one is derived from the network's id.
    #[must_use]
    pub fn responder(&self, network_id: &str, port: Option<&Port>) -> Responder {
        Responder {
            netns: Netns::named(&names::responder_namespace(&self.instance, network_id)),
            device: names::RESPONDER_DEVICE.into(),
            mac: port.map_or_else(|| names::responder_mac(network_id), |p| p.mac.clone()),
        }
    }

    /// Makes the network's bridge and, if a subnet has a DHCP address, its responder namespace; for an external network
    /// also the way to the host or the uplink. Idempotent: repairs what differs.
    ///
    /// # Errors
    /// What the kernel refused and what would help.
    pub async fn ensure_network(&self, network: &Network, dhcp_port: Option<&Port>) -> Result<NetworkLinks> {
        let mac = self.responder(&network.id, dhcp_port).mac;
        let network = network.clone();
        self.run(move |d| d.ensure_network(&network, &mac)).await
    }

    /// Removes the bridge, the responder and the way out of a network. Ports still on the bridge are removed by their own calls.
    /// No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_network(&self, network_id: &str) -> Result<()> {
        let id = network_id.to_owned();
        self.run(move |d| d.remove_network(&id)).await
    }

    /// Makes the port's persistent tap on the network's bridge, **down** if it is new. Idempotent; an existing tap keeps its state.
    /// For a subport it makes a VLAN device over its parent's tap, of the same name as the tap would have: whatever goes by
    /// that name, the firewall first of all, holds for both alike.
    ///
    /// # Errors
    /// Another port has the same first 11 characters, the network's bridge or the parent's tap is missing, or the kernel
    /// refused.
    pub async fn ensure_port(&self, port: &Port, network: &Network) -> Result<PortLink> {
        let (port, network) = (port.clone(), network.clone());
        self.run(move |d| d.ensure_port(&port, &network)).await
    }

    /// Brings the tap up (`up`) or down; to be called when the firewall of the port is in place.
    ///
    /// # Errors
    /// There is no such tap.
    pub async fn port_up(&self, port_id: &str, up: bool) -> Result<()> {
        let id = port_id.to_owned();
        self.run(move |d| d.port_up(&id, up)).await
    }

    /// Opens the tap for a hypervisor process (`-netdev tap,fd=N`, with `IFF_VNET_HDR`). The descriptor is close-on-exec.
    ///
    /// # Errors
    /// There is no such tap, or another process has it open (`EBUSY`).
    pub async fn open_tap(&self, port_id: &str) -> Result<OwnedFd> {
        let id = port_id.to_owned();
        self.run(move |d| d.open_tap(&id)).await
    }

    /// Removes the port's tap. No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_port(&self, port_id: &str) -> Result<()> {
        let id = port_id.to_owned();
        self.run(move |d| d.remove_port(&id)).await
    }

    /// Makes the router's empty namespace, so that its NAT rules can be loaded before it has links.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn ensure_router_namespace(&self, router_id: &str) -> Result<Netns> {
        let id = router_id.to_owned();
        self.run(move |d| d.ensure_router_namespace(&id)).await
    }

    /// Gives the router its interfaces, addresses, routes and floating addresses, and announces new ones (gratuitous ARP).
    /// Interfaces that the spec does not name are removed. The bridges of its networks must be there.
    ///
    /// # Errors
    /// What the kernel refused; a port or network that the spec lacks.
    pub async fn ensure_router(&self, spec: &RouterSpec<'_>) -> Result<RouterLinks> {
        let router = spec.router.clone();
        let ports: Vec<Port> = spec.ports.iter().map(|p| (*p).clone()).collect();
        let networks: Vec<Network> = spec.networks.iter().map(|n| (*n).clone()).collect();
        self.run(move |d| {
            let spec = RouterSpec {
                router: &router,
                ports: ports.iter().collect(),
                networks: networks.iter().collect(),
            };
            d.ensure_router(&spec)
        })
        .await
    }

    /// Removes the router's namespace and its links. No error if there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_router(&self, router_id: &str) -> Result<()> {
        let id = router_id.to_owned();
        self.run(move |d| d.remove_router(&id)).await
    }

    /// What of this instance is on the machine.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn observe(&self) -> Result<Observed> {
        self.run(Driver::observe).await
    }

    /// Removes what is on the machine and not `known`; returns what was removed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove_unknown(&self, known: &Known) -> Result<Observed> {
        let known = known.clone();
        self.run(move |d| {
            let mut seen = d.observe()?;
            seen.networks.retain(|id, _| !known.networks.contains(id));
            seen.responders.retain(|id| !known.networks.contains(id));
            seen.ports.retain(|id, _| !known.ports.contains(id));
            seen.routers.retain(|id| !known.routers.contains(id));
            seen.ports.keys().try_for_each(|id| d.remove_port(id))?;
            seen.nameless.iter().try_for_each(|tap| d.remove_nameless(tap))?;
            seen.routers.iter().try_for_each(|id| d.remove_router(id))?;
            seen.networks.keys().try_for_each(|id| d.remove_network(id))?;
            seen.responders.iter().try_for_each(|id| d.remove_responder(id))?;
            Ok(seen)
        })
        .await
    }

    /// Removes everything of this instance from the machine, its namespace included (`maru down --guests`). A moved uplink
    /// device goes back to the host.
    ///
    /// # Errors
    /// What the kernel refused; everything else is removed all the same.
    pub async fn teardown(&self) -> Result<()> {
        self.run(Driver::teardown).await
    }
}
