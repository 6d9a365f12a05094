//! Carries out what is asked, step by step, in the kernel. Blocking; [`crate::Links`] calls it off the async threads.

mod ports;

use crate::model::{
    LinkConfig, Netns, NetworkLinks, Observed, ObservedPort, RouterInterface, RouterLinks, RouterSpec, Uplink,
};
use crate::nl::{Link, Route, Socket, Veth};
use crate::plan::{self, Desired, Op, View};
use crate::{arp, names, ns};
use maru_agent_api::slice::Network;
use maru_base::{Error, Result};
use nix::errno::Errno;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

/// What the kernel refused, and what would help where that is known.
fn kernel(what: impl std::fmt::Display, e: Errno) -> Error {
    let help = match e {
        Errno::EPERM | Errno::EACCES => " It needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).",
        Errno::EOPNOTSUPP => " This kernel lacks the driver (bridge, veth and tun are needed).",
        Errno::EBUSY => " Another process holds it.",
        Errno::EEXIST => " Something of that name is there already and is not Maru's.",
        _ => "",
    };
    Error::internal(format!("{what}: the kernel refused ({e}).{help}"), e)
}

/// The sockets of one instance.
#[derive(Debug)]
pub(crate) struct Driver {
    config: LinkConfig,
    home: Netns,
    /// In Maru's namespace.
    maru: Socket,
    /// In the namespace that this process lives in.
    host: Socket,
}

impl Driver {
    pub(crate) fn open(config: LinkConfig) -> Result<Self> {
        let home = Netns::named(&config.instance);
        load_modules();
        ns::create(&home)?;
        let maru = ns::in_namespace(&home.path(), || -> Result<Socket> {
            // Bridges carry tenants' frames; the namespace's own stack must never answer on them.
            ns::sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            ns::sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            ns::sysctl("net/ipv4/ip_forward", "0")?;
            bridge_netfilter()?;
            // Without this a connection whose rule was deleted could be picked up again in the middle by the guest's next
            // packet, as if the guest had begun it.
            ns::sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
            Socket::open().map_err(|e| kernel("A netlink socket", e))
        })??;
        let host = Socket::open().map_err(|e| kernel("A netlink socket", e))?;
        let mut driver = Self {
            config,
            home,
            maru,
            host,
        };
        let lo = driver.maru_link("lo")?;
        if let Some(lo) = lo.filter(|l| !l.up) {
            driver.maru.set_up(lo.index, true).map_err(|e| kernel("Loopback", e))?;
        }
        Ok(driver)
    }

    fn maru_link(&mut self, name: &str) -> Result<Option<Link>> {
        self.maru
            .link(name)
            .map_err(|e| kernel(format!("Looking for {name}"), e))
    }

    fn remove_maru_link(&mut self, name: &str) -> Result<()> {
        match self.maru_link(name)? {
            Some(link) => {
                gone_is_fine(self.maru.del_link(link.index)).map_err(|e| kernel(format!("Removing {name}"), e))
            }
            None => Ok(()),
        }
    }

    // ---- networks

    pub(crate) fn ensure_network(&mut self, network: &Network, mac: &str) -> Result<NetworkLinks> {
        names::check_id("network", &network.id)?;
        let name = names::bridge_name(network.vni);
        let alias = format!("network:{}", network.id);
        let mtu = network.mtu.clamp(68, 65_535);
        let bridge = match self.maru_link(&name)? {
            Some(link) => link,
            None => {
                self.maru
                    .add_bridge(&name, mtu, &alias)
                    .map_err(|e| kernel(format!("Bridge {name}"), e))?;
                self.maru_link(&name)?
                    .ok_or_else(|| kernel(format!("Bridge {name}"), Errno::ENODEV))?
            }
        };
        if !bridge.alias.is_empty() && bridge.alias != alias {
            return Err(Error::conflict(format!(
                "Bridge {name} belongs to {}; segment {} is in use twice on this node.",
                bridge.alias, network.vni
            )));
        }
        if bridge.alias.is_empty() {
            self.maru
                .set_alias(bridge.index, &alias)
                .map_err(|e| kernel(format!("Bridge {name}"), e))?;
        }
        if bridge.mtu != mtu {
            self.maru
                .set_mtu(bridge.index, mtu)
                .map_err(|e| kernel(format!("MTU {mtu} of bridge {name}"), e))?;
        }
        if bridge.up != network.admin_up {
            self.maru
                .set_up(bridge.index, network.admin_up)
                .map_err(|e| kernel(format!("Bridge {name} up"), e))?;
        }
        let netns = Netns::named(&names::responder_namespace(&self.config.instance, &network.id));
        let responder = if !network.external || network.subnets.iter().any(|s| s.dhcp_address.is_some()) {
            let desired = plan::responder(network, plan::parse_mac(mac)?);
            ns::create(&netns)?;
            self.apply_inner(&netns, &desired, responder_switches)?;
            Some(crate::Responder {
                netns,
                device: names::RESPONDER_DEVICE.into(),
                mac: mac.into(),
            })
        } else {
            self.remove_maru_link(&names::responder_peer(network.vni))?;
            ns::remove(&netns)?;
            None
        };
        let way_out = if network.external {
            Some(self.way_out(network, bridge.index, mtu)?)
        } else {
            None
        };
        Ok(NetworkLinks {
            bridge: name,
            responder,
            way_out,
        })
    }

    fn way_out(&mut self, network: &Network, bridge: u32, mtu: u32) -> Result<String> {
        match self.config.uplink.clone() {
            Uplink::Routed => self.host_end(network, bridge, mtu),
            Uplink::Device(device) => self.uplink(network, bridge, &device),
        }
    }

    /// The veth pair between the external network's bridge and the host's namespace.
    fn host_end(&mut self, network: &Network, bridge: u32, mtu: u32) -> Result<String> {
        let inner = names::external_peer(network.vni);
        let outer = names::external_host(&self.config.instance, network.vni);
        let refused = |e| {
            kernel(
                format!("The way from external network {} to the host ({outer})", network.id),
                e,
            )
        };
        if self.host.link(&outer).map_err(refused)?.is_none() {
            self.remove_maru_link(&inner)?;
            let host = File::open("/proc/thread-self/ns/net")
                .map_err(|e| Error::internal("The host's network namespace cannot be opened.", e))?;
            let veth = Veth {
                name: &inner,
                peer: &outer,
                peer_netns: host.as_raw_fd(),
                peer_mac: None,
                mtu,
                master: bridge,
                alias: &format!("external:{}", network.id),
            };
            self.maru.add_veth(&veth).map_err(refused)?;
        }
        let link = self
            .host
            .link(&outer)
            .map_err(refused)?
            .ok_or(Errno::ENODEV)
            .map_err(refused)?;
        // Guests of the external network must not configure the host: no router advertisements, no redirects.
        for switch in ["accept_ra", "accept_redirects", "autoconf"] {
            if let Err(e) = ns::sysctl(&format!("net/ipv6/conf/{outer}/{switch}"), "0") {
                tracing::debug!(
                    device = outer,
                    switch,
                    error = e.chain(),
                    "the host has no IPv6 on this device"
                );
            }
        }
        if link.mtu != mtu {
            self.host.set_mtu(link.index, mtu).map_err(refused)?;
        }
        self.host
            .set_alias(link.index, &format!("maru:{}:{}", self.config.instance, network.id))
            .map_err(refused)?;
        let wanted: Vec<(IpAddr, u8)> = network
            .subnets
            .iter()
            .filter_map(|s| Some((s.gateway?, s.cidr.prefix_len())))
            .collect();
        let there = self.host.addrs().map_err(refused)?;
        for a in there
            .iter()
            .filter(|a| a.index == link.index && !(a.link_scope && a.ip.is_ipv6()))
        {
            if !wanted.contains(&(a.ip, a.prefix)) {
                self.host.del_addr(link.index, a.ip, a.prefix).map_err(refused)?;
            }
        }
        for (ip, prefix) in wanted {
            if there
                .iter()
                .any(|a| a.index == link.index && a.ip == ip && a.prefix == prefix)
            {
                continue;
            }
            match self.host.add_addr(link.index, ip, prefix) {
                // A host with IPv6 switched off still serves IPv4.
                Err(e) if ip.is_ipv6() => {
                    tracing::warn!(device = outer, %ip, error = %e, "the host refused an IPv6 address")
                }
                other => other.map_err(refused)?,
            }
        }
        if !link.up {
            self.host.set_up(link.index, true).map_err(refused)?;
        }
        let peer = self.maru_link(&inner)?.ok_or(Errno::ENODEV).map_err(refused)?;
        self.attach(&peer, bridge)?;
        Ok(outer)
    }

    /// Moves the uplink device into Maru's namespace and onto the bridge.
    fn uplink(&mut self, network: &Network, bridge: u32, device: &str) -> Result<String> {
        let refused = |e| kernel(format!("Joining uplink {device} to external network {}", network.id), e);
        if self.maru_link(device)?.is_none() {
            let link = self.host.link(device).map_err(refused)?.ok_or_else(|| {
                Error::bad_request(format!(
                    "The uplink device {device} is not on this machine; `ip link` lists those that are."
                ))
            })?;
            let home =
                File::open(self.home.path()).map_err(|e| Error::internal("Maru's namespace cannot be opened.", e))?;
            self.host.set_netns(link.index, home.as_raw_fd()).map_err(refused)?;
        }
        let link = self.maru_link(device)?.ok_or(Errno::ENODEV).map_err(refused)?;
        if link.master != 0 && link.master != bridge {
            return Err(Error::conflict(format!(
                "The uplink {device} already serves another external network; one device joins one network to the LAN."
            )));
        }
        self.attach(&link, bridge)?;
        Ok(device.to_owned())
    }

    /// On the bridge and up.
    fn attach(&mut self, link: &Link, bridge: u32) -> Result<()> {
        let refused = |e| kernel(format!("Putting {} on its bridge", link.name), e);
        if link.master != bridge {
            self.maru.set_master(link.index, bridge).map_err(refused)?;
        }
        if !link.up {
            self.maru.set_up(link.index, true).map_err(refused)?;
        }
        Ok(())
    }

    pub(crate) fn remove_network(&mut self, network_id: &str) -> Result<()> {
        names::check_id("network", network_id)?;
        let alias = format!("network:{network_id}");
        let links = self.maru.links().map_err(|e| kernel("Listing links", e))?;
        for bridge in links.iter().filter(|l| l.alias == alias && l.kind == "bridge") {
            if let Uplink::Device(device) = self.config.uplink.clone()
                && links.iter().any(|l| l.name == device && l.master == bridge.index)
            {
                self.give_back(&device)?;
            }
            if let Some(vni) = bridge.name.strip_prefix("br").and_then(|v| v.parse().ok()) {
                self.remove_maru_link(&names::responder_peer(vni))?;
                self.remove_maru_link(&names::external_peer(vni))?;
            }
            gone_is_fine(self.maru.del_link(bridge.index))
                .map_err(|e| kernel(format!("Removing {}", bridge.name), e))?;
        }
        ns::remove(&Netns::named(&names::responder_namespace(
            &self.config.instance,
            network_id,
        )))
    }

    /// The uplink goes back to the host.
    fn give_back(&mut self, device: &str) -> Result<()> {
        let refused = |e| kernel(format!("Giving {device} back to the host"), e);
        let Some(link) = self.maru_link(device)? else {
            return Ok(());
        };
        let host = File::open("/proc/thread-self/ns/net")
            .map_err(|e| Error::internal("The host's network namespace cannot be opened.", e))?;
        self.maru.set_master(link.index, 0).map_err(refused)?;
        self.maru.set_netns(link.index, host.as_raw_fd()).map_err(refused)
    }

    // ---- routers

    pub(crate) fn router_netns(&self, router_id: &str) -> Netns {
        Netns::named(&names::router_namespace(&self.config.instance, router_id))
    }

    pub(crate) fn ensure_router_namespace(&mut self, router_id: &str) -> Result<Netns> {
        names::check_id("router", router_id)?;
        let netns = self.router_netns(router_id);
        ns::create(&netns)?;
        Ok(netns)
    }

    pub(crate) fn ensure_router(&mut self, spec: &RouterSpec<'_>) -> Result<RouterLinks> {
        let router = spec.router;
        let netns = self.ensure_router_namespace(&router.id)?;
        let desired = plan::router(spec)?;
        let faults = self.apply_inner(&netns, &desired, router_switches)?;
        let described = |port_id: &String, device: String| {
            let port = spec.ports.iter().find(|p| p.id == *port_id)?;
            Some(RouterInterface {
                port_id: port_id.clone(),
                network_id: port.network_id.clone(),
                device,
                mac: port.mac.clone(),
            })
        };
        Ok(RouterLinks {
            netns,
            interfaces: router
                .interfaces
                .iter()
                .filter_map(|id| described(id, names::router_interface(id)))
                .collect(),
            gateway: router
                .gateway
                .as_ref()
                .and_then(|g| described(&g.port_id, names::router_gateway(&g.port_id))),
            faults,
        })
    }

    pub(crate) fn remove_router(&mut self, router_id: &str) -> Result<()> {
        names::check_id("router", router_id)?;
        self.remove_inner(&self.router_netns(router_id))
    }

    /// Removes a namespace's links first: then they are gone even while something still holds the namespace.
    fn remove_inner(&mut self, netns: &Netns) -> Result<()> {
        if netns.path().exists() {
            let swept = ns::in_namespace(&netns.path(), || -> nix::Result<()> {
                let mut socket = Socket::open()?;
                for link in socket.links()?.iter().filter(|l| l.kind == "veth") {
                    gone_is_fine(socket.del_link(link.index))?;
                }
                Ok(())
            });
            if let Err(e) | Ok(Err(e)) = swept.map(|r| r.map_err(|e| kernel(format!("Emptying {}", netns.name), e))) {
                tracing::debug!(
                    netns = netns.name,
                    error = e.chain(),
                    "a namespace could not be emptied before its removal"
                );
            }
        }
        ns::remove(netns)
    }

    // ---- inner namespaces

    /// Makes an inner namespace as desired. Returns routes that the kernel refused: they stop nothing else.
    fn apply_inner(&mut self, netns: &Netns, desired: &Desired, switches: fn() -> Result<()>) -> Result<Vec<String>> {
        let file = File::open(netns.path())
            .map_err(|e| Error::internal(format!("The network namespace {} cannot be opened.", netns.name), e))?;
        let mut inner = ns::in_namespace(&netns.path(), || -> Result<Socket> {
            switches()?;
            Socket::open().map_err(|e| kernel("A netlink socket", e))
        })??;
        let read = |inner: &mut Socket| -> nix::Result<View> {
            Ok(View {
                links: inner.links()?,
                addrs: inner.addrs()?,
                routes: inner.routes()?,
                rules: inner.rules()?,
                proxies: inner.proxies()?,
            })
        };
        let view = read(&mut inner).map_err(|e| kernel(format!("Reading {}", netns.name), e))?;
        let ops = plan::plan(desired, &view);
        let mut links = view.links;
        let mut faults = Vec::new();
        let mut announce: Vec<(String, Ipv4Addr)> = Vec::new();
        // The bridge's ends come up last: then the bridge sees the carrier at once.
        let mut plugged = false;
        for op in &ops {
            if !plugged && matches!(op, Op::AddRoute(_) | Op::AddRule(_) | Op::Proxy(..)) {
                self.plug(desired)?;
                plugged = true;
            }
            let done = match op {
                Op::MakeLink(link) => {
                    self.make_link(link, &file)?;
                    links = inner
                        .links()
                        .map_err(|e| kernel(format!("Reading {}", netns.name), e))?;
                    Ok(())
                }
                Op::AddRoute(route) => {
                    let oif = match &route.dev {
                        Some(dev) => index(&links, dev)?,
                        None => 0,
                    };
                    let r = Route {
                        table: route.table,
                        dst: route.dst,
                        prefix: route.prefix,
                        via: route.via,
                        oif,
                    };
                    if let Err(e) = inner.add_route(&r) {
                        let via = route.via.map(|v| format!(" via {v}")).unwrap_or_default();
                        faults.push(format!("The route to {}/{}{via} was refused by the kernel ({e}); is its next hop on a subnet of this router?", route.dst, route.prefix));
                    }
                    Ok(())
                }
                Op::AddAddr(dev, ip, prefix) => {
                    if let IpAddr::V4(v4) = ip {
                        announce.push((dev.clone(), *v4));
                    }
                    inner.add_addr(index(&links, dev)?, *ip, *prefix)
                }
                Op::DelAddr(dev, ip, prefix) => inner.del_addr(index(&links, dev)?, *ip, *prefix),
                Op::Mac(dev, mac) => inner.set_mac(index(&links, dev)?, *mac),
                Op::Mtu(dev, mtu) => inner.set_mtu(index(&links, dev)?, *mtu),
                Op::Up(dev, up) => inner.set_up(index(&links, dev)?, *up),
                Op::DelLink(link) => gone_is_fine(inner.del_link(*link)),
                Op::DelRoute(route) => inner.del_route(route),
                Op::DelRule(rule) => inner.del_rule(rule),
                Op::AddRule(rule) => inner.add_rule(rule),
                Op::Proxy(dev, ip, add) => inner.proxy(*add, index(&links, dev)?, *ip),
            };
            done.map_err(|e| kernel(format!("{op:?} in {}", netns.name), e))?;
        }
        if !plugged {
            self.plug(desired)?;
        }
        self.announce(netns, &links, desired, &announce);
        Ok(faults)
    }

    fn make_link(&mut self, link: &plan::DesiredLink, netns: &File) -> Result<()> {
        let bridge = self.maru_link(&link.bridge)?.ok_or_else(|| {
            Error::unavailable(format!(
                "{} waits: bridge {} of its network is not there yet.",
                link.alias, link.bridge
            ))
        })?;
        self.remove_maru_link(&link.peer)?;
        let veth = Veth {
            name: &link.peer,
            peer: &link.name,
            peer_netns: netns.as_raw_fd(),
            peer_mac: Some(link.mac),
            mtu: link.mtu,
            master: bridge.index,
            alias: &link.alias,
        };
        self.maru
            .add_veth(&veth)
            .map_err(|e| kernel(format!("Link {}", link.peer), e))
    }

    /// Brings the bridges' ends of the links up and onto the right bridges.
    fn plug(&mut self, desired: &Desired) -> Result<()> {
        for link in &desired.links {
            let Some(peer) = self.maru_link(&link.peer)? else {
                continue;
            };
            let Some(bridge) = self.maru_link(&link.bridge)? else {
                continue;
            };
            if peer.mtu != link.mtu {
                self.maru
                    .set_mtu(peer.index, link.mtu)
                    .map_err(|e| kernel(format!("MTU of {}", link.peer), e))?;
            }
            self.attach(&peer, bridge.index)?;
        }
        Ok(())
    }

    /// Says on the links that the new addresses live here. A failure delays neighbours; it is no reason to fail.
    fn announce(&self, netns: &Netns, links: &[Link], desired: &Desired, new: &[(String, Ipv4Addr)]) {
        for link in desired.links.iter().filter(|l| l.up) {
            let ips: Vec<Ipv4Addr> = new
                .iter()
                .filter(|(dev, _)| *dev == link.name)
                .map(|(_, ip)| *ip)
                .collect();
            let Some(found) = links.iter().find(|l| l.name == link.name) else {
                continue;
            };
            if ips.is_empty() {
                continue;
            }
            let sent = ns::in_namespace(&netns.path(), || arp::announce(found.index, link.mac, &ips));
            if !matches!(sent, Ok(Ok(()))) {
                tracing::warn!(
                    netns = netns.name,
                    device = link.name,
                    "new addresses could not be announced"
                );
            }
        }
    }

    // ---- the whole

    pub(crate) fn observe(&mut self) -> Result<Observed> {
        let mut seen = Observed::default();
        for link in self.maru.links().map_err(|e| kernel("Listing links", e))? {
            if let Some(id) = link.alias.strip_prefix("network:") {
                seen.networks.insert(id.into(), link.name);
            } else if let Some(id) = link.alias.strip_prefix("port:") {
                let port = ObservedPort {
                    tap: link.name,
                    up: link.up,
                    carrier: link.carrier,
                };
                seen.ports.insert(id.into(), port);
            } else if link.kind == "tun" {
                // Made, but the maker died before it was named: no one's, so it goes with the unknown.
                seen.nameless.insert(link.name);
            }
        }
        let of = |kind: &str| {
            let prefix = format!("{}-{kind}-", self.config.instance);
            ns::list(&prefix)
                .into_iter()
                .filter_map(move |n| n.strip_prefix(&prefix).map(str::to_owned))
                .collect()
        };
        seen.routers = of("r");
        seen.responders = of("d");
        Ok(seen)
    }

    pub(crate) fn remove_nameless(&mut self, tap: &str) -> Result<()> {
        self.remove_maru_link(tap)
    }

    pub(crate) fn remove_responder(&mut self, network_id: &str) -> Result<()> {
        names::check_id("network", network_id)?;
        self.remove_inner(&Netns::named(&names::responder_namespace(
            &self.config.instance,
            network_id,
        )))
    }

    pub(crate) fn teardown(&mut self) -> Result<()> {
        let mut first: Option<Error> = None;
        let mut keep = |r: Result<()>| {
            if let Err(e) = r {
                first.get_or_insert(e);
            }
        };
        for name in ns::list(&format!("{}-", self.config.instance)) {
            keep(self.remove_inner(&Netns::named(&name)));
        }
        if let Uplink::Device(device) = self.config.uplink.clone() {
            keep(self.give_back(&device));
        }
        // A hypervisor that still holds a tap would keep the namespace alive; its links go all the same.
        match self.maru.links() {
            Ok(links) => {
                for link in links.iter().filter(|l| l.name != "lo") {
                    keep(
                        gone_is_fine(self.maru.del_link(link.index))
                            .map_err(|e| kernel(format!("Removing {}", link.name), e)),
                    );
                }
            }
            Err(e) => keep(Err(kernel("Listing links", e))),
        }
        keep(ns::remove(&self.home));
        first.map_or(Ok(()), Err)
    }
}

fn gone_is_fine(r: nix::Result<()>) -> nix::Result<()> {
    match r {
        Err(Errno::ENODEV | Errno::ENXIO) => Ok(()),
        other => other,
    }
}

fn index(links: &[Link], name: &str) -> Result<u32> {
    links
        .iter()
        .find(|l| l.name == name)
        .map(|l| l.index)
        .ok_or_else(|| kernel(format!("Device {name}"), Errno::ENODEV))
}

/// Loads what is a module on most machines. Best effort: what is missing is named where it is needed.
fn load_modules() {
    let modprobe = |name: &str| drop(std::process::Command::new("modprobe").arg("-q").arg(name).status());
    if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").exists() {
        modprobe("nf_conntrack");
    }
    if !std::path::Path::new(BRIDGE_SWITCH).exists() {
        modprobe("br_netfilter");
        // Freshly loaded, it would send the host's own bridges through the host's firewall, where they were not before. Only
        // Maru's namespace wants that.
        for family in ["ip", "ip6", "arp"] {
            let _ = ns::sysctl(&format!("net/bridge/bridge-nf-call-{family}tables"), "0");
        }
    }
}

const BRIDGE_SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Bridged frames of IP go through the inet hooks, where connections are tracked; ARP stays with the bridge's own rules.
fn bridge_netfilter() -> Result<()> {
    if !std::path::Path::new(BRIDGE_SWITCH).exists() {
        return Err(Error::unavailable(
            "Security groups need the kernel's br_netfilter, which is not there; `modprobe br_netfilter` loads it where it is a module.",
        ));
    }
    ns::sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
    ns::sysctl("net/bridge/bridge-nf-call-ip6tables", "1")?;
    ns::sysctl("net/bridge/bridge-nf-call-arptables", "0")
}

fn set_all(switches: &[(&str, &str)]) -> Result<()> {
    switches.iter().try_for_each(|(path, value)| ns::sysctl(path, value))
}

/// A responder answers; it never forwards, and learns nothing from guests.
fn responder_switches() -> Result<()> {
    set_all(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ])
}

/// A router forwards, answers ARP only for the addresses of the asked link, checks the source of what comes in, and
/// believes no redirect and no router advertisement.
fn router_switches() -> Result<()> {
    set_all(&[
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/default/rp_filter", "1"),
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_source_route", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // For the addresses that it was told to answer for, and no others.
        ("net/ipv6/conf/all/proxy_ndp", "1"),
    ])
}
