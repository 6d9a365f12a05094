//! Router advertisements (RFC 4861, DNS: RFC 8106). Pure.
//!
//! Neutron's `ipv6_ra_mode` says what is advertised:
//!
//! | mode               | M | O | prefix: A |
//! |--------------------|---|---|-----------|
//! | `slaac`            | 0 | 0 | 1         |
//! | `dhcpv6-stateless` | 0 | 1 | 1         |
//! | `dhcpv6-stateful`  | 1 | 1 | 0         |
//!
//! A subnet without mode is left to a router outside of Maru.

use crate::{Mac, frame};
use maru_agent_api::slice::Network;
use std::net::{IpAddr, Ipv6Addr};

/// Seconds that a guest keeps the router as its default one; three times the longest pause between advertisements.
const LIFETIME: u16 = 1800;
const ALL_NODES: (Mac, Ipv6Addr) = (
    Mac([0x33, 0x33, 0, 0, 0, 1]),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
);

/// A prefix that is advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaPrefix {
    /// The block.
    pub prefix: ipnet::Ipv6Net,
    /// Whether guests make addresses of it themselves.
    pub autonomous: bool,
}

/// What one interface of a router advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaView {
    /// The interface's MAC address; its link-local address is the EUI-64 of it, as Linux makes it.
    pub mac: Mac,
    /// The network's MTU in bytes.
    pub mtu: u32,
    /// Addresses by DHCPv6.
    pub managed: bool,
    /// The rest by DHCPv6.
    pub other: bool,
    /// The prefixes.
    pub prefixes: Vec<RaPrefix>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
}

impl RaView {
    /// What the interface with this MAC address advertises on `network`, for the subnets in `subnet_ids` (those that the router
    /// has an address on). `None` if no subnet has a mode.
    #[must_use]
    pub fn new(network: &Network, mac: Mac, subnet_ids: &[&str]) -> Option<Self> {
        let mut view = Self {
            mac,
            mtu: network.mtu,
            managed: false,
            other: false,
            prefixes: vec![],
            dns: vec![],
        };
        for subnet in network.subnets.iter().filter(|s| subnet_ids.contains(&s.id.as_str())) {
            let (ipnet::IpNet::V6(prefix), Some(mode)) = (subnet.cidr, subnet.ipv6_ra_mode.as_deref()) else {
                continue;
            };
            view.managed |= mode == "dhcpv6-stateful";
            view.other |= mode.starts_with("dhcpv6-");
            view.prefixes.push(RaPrefix {
                prefix: prefix.trunc(),
                autonomous: mode != "dhcpv6-stateful",
            });
            view.dns.extend(subnet.dns.iter().filter_map(|ip| match ip {
                IpAddr::V6(ip) => Some(*ip),
                IpAddr::V4(_) => None,
            }));
        }
        (!view.prefixes.is_empty()).then_some(view)
    }
}

/// The advertisement, to all nodes of the link or to one that asked. `last` says that the router goes away.
#[must_use]
pub fn advertise(view: &RaView, to: Option<(Mac, Ipv6Addr)>, last: bool) -> Option<Vec<u8>> {
    let life = if last { 0 } else { LIFETIME };
    let flags = u8::from(view.managed) << 7 | u8::from(view.other) << 6;
    let mut message = vec![134, 0, 0, 0, 64, flags];
    message.extend(life.to_be_bytes());
    message.extend([0; 8]); // reachable time and retransmit timer: the guest's own
    message.extend([1, 1]); // source link-layer address
    message.extend(view.mac.0);
    if view.mtu >= 1280 {
        message.extend([5, 1, 0, 0]);
        message.extend(view.mtu.to_be_bytes());
    }
    for p in view.prefixes.iter().take(16) {
        message.extend([3, 4, p.prefix.prefix_len(), 0x80 | u8::from(p.autonomous) << 6]);
        message.extend(86_400_u32.to_be_bytes());
        message.extend(14_400_u32.to_be_bytes());
        message.extend([0; 4]);
        message.extend(p.prefix.network().octets());
    }
    let dns = &view.dns[..view.dns.len().min(8)];
    if !dns.is_empty() {
        message.extend([25, 1 + 2 * dns.len() as u8, 0, 0]);
        message.extend(u32::from(life).to_be_bytes());
        dns.iter().for_each(|ip| message.extend(ip.octets()));
    }
    frame::icmp6((view.mac, view.mac.link_local()), to.unwrap_or(ALL_NODES), message)
}

/// The answer to a frame, if it is a router solicitation. One without a sender's address is answered to everyone.
#[must_use]
pub fn answer(view: &RaView, frame: &[u8]) -> Option<Vec<u8>> {
    let (mac, source) = frame::solicitation(frame)?;
    if source.is_unspecified() {
        return advertise(view, None, false);
    }
    source
        .is_unicast_link_local()
        .then(|| advertise(view, Some((mac, source)), false))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_mode_has_its_flags() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        for (mode, flags, prefix_flags) in [
            ("slaac", 0, 0xc0),
            ("dhcpv6-stateless", 0x40, 0xc0),
            ("dhcpv6-stateful", 0xc0, 0x80),
        ] {
            let mut network = crate::v4::tests::network(true);
            let subnet = &mut network.subnets[0];
            subnet.cidr = "2001:db8::/64".parse().unwrap();
            subnet.ipv6_ra_mode = Some(mode.into());
            subnet.dns = vec!["2001:db8::53".parse().unwrap()];
            let view = RaView::new(&network, mac, &["sub"]).unwrap();
            let frame = advertise(&view, None, false).unwrap();
            let icmp = &frame[54..];
            assert_eq!((icmp[0], icmp[5]), (134, flags), "{mode}");
            assert_eq!(frame[21], 255, "hop limit");
            // source address option 8, MTU 8, then the prefix
            assert_eq!(&icmp[32..36], &[3, 4, 64, prefix_flags], "{mode}");
            assert_eq!(icmp[64], 25, "name servers");
            network.subnets[0].ipv6_ra_mode = None;
            assert_eq!(RaView::new(&network, mac, &["sub"]), None);
        }
    }

    #[test]
    fn a_solicitation_is_answered_to_its_sender() {
        let (router, guest) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 7]));
        let prefix = RaPrefix {
            prefix: "2001:db8::/64".parse().unwrap(),
            autonomous: true,
        };
        let view = RaView {
            mac: router,
            mtu: 1450,
            managed: false,
            other: false,
            prefixes: vec![prefix],
            dns: vec![],
        };
        let all = (Mac([0x33, 0x33, 0, 0, 0, 2]), "ff02::2".parse().unwrap());
        let ask = frame::icmp6((guest, guest.link_local()), all, vec![133, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(answer(&view, &ask).unwrap()[..6], guest.0);
        let mut far = ask.clone();
        far[21] = 64;
        assert_eq!(answer(&view, &far), None, "from beyond a router");
        let nameless = frame::icmp6((guest, Ipv6Addr::UNSPECIFIED), all, vec![133, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(answer(&view, &nameless).unwrap()[..6], ALL_NODES.0.0);
    }
}
