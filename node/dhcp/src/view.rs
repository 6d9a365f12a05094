//! What the server knows of a network: one index made of the slice, replaced as a whole when the slice changes.

use maru_agent_api::slice::{Network, Port, Subnet};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `fa:16:3e:00:00:01`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(mac))
    }

    /// The link-local address that SLAAC makes of it (RFC 4291, appendix A: modified EUI-64).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0xfe, 0x80]);
        bytes[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        bytes.into()
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A port that may be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    /// The port.
    pub port: Port,
}

/// One network as its DHCP server sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkView {
    /// The network.
    pub network: Network,
    residents: HashMap<Mac, Resident>,
}

impl NetworkView {
    /// The view of `network` with those of `ports` that are on it and belong to a guest. The caller gives the ports of its own
    /// machine only, so that each guest has one server.
    pub fn new<'a>(network: &Network, ports: impl IntoIterator<Item = &'a Port>) -> Self {
        let residents = ports
            .into_iter()
            .filter(|p| p.network_id == network.id && p.admin_up && !p.device_owner.starts_with("network:"))
            .filter_map(|p| Some((Mac::parse(&p.mac)?, Resident { port: p.clone() })))
            .collect();
        Self {
            network: network.clone(),
            residents,
        }
    }

    /// The port with this MAC address.
    #[must_use]
    pub fn resident(&self, mac: Mac) -> Option<&Resident> {
        self.residents.get(&mac)
    }

    /// The subnet with this id.
    #[must_use]
    pub fn subnet(&self, id: &str) -> Option<&Subnet> {
        self.network.subnets.iter().find(|s| s.id == id)
    }

    /// The IPv4 addresses that DHCP gives this port, with their subnet and the address that answers, in the port's order.
    pub(crate) fn v4_of<'a>(
        &'a self,
        port: &'a Port,
    ) -> impl Iterator<Item = (Ipv4Addr, ipnet::Ipv4Net, Ipv4Addr, &'a Subnet)> {
        port.fixed_ips.iter().filter_map(|(subnet, address)| {
            let subnet = self.subnet(subnet).filter(|s| s.dhcp)?;
            match (address, subnet.cidr, subnet.dhcp_address) {
                (IpAddr::V4(ip), ipnet::IpNet::V4(cidr), Some(IpAddr::V4(server))) => Some((*ip, cidr, server, subnet)),
                _ => None,
            }
        })
    }

    /// The IPv6 addresses of this port with their subnet, in the port's order.
    pub(crate) fn v6_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = (Ipv6Addr, &'a Subnet)> {
        port.fixed_ips.iter().filter_map(|(subnet, address)| match address {
            IpAddr::V6(ip) => Some((*ip, self.subnet(subnet).filter(|s| s.dhcp)?)),
            IpAddr::V4(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        let mac = Mac([0xfa, 0x16, 0x3e, 0, 1, 2]);
        assert_eq!(Mac::parse("fa:16:3e:00:01:02"), Some(mac));
        assert_eq!(mac.to_string(), "fa:16:3e:00:01:02");
        assert_eq!(mac.link_local().to_string(), "fe80::f816:3eff:fe00:102");
        for bad in [
            "",
            "fa:16:3e:00:01",
            "fa:16:3e:00:01:02:03",
            "fa:16:3e:00:01:2",
            "fa:16:3e:00:01:0g",
        ] {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
