//! DHCPv4 (RFC 2131, options RFC 2132, routes RFC 3442). Pure.
//!
//! ```text
//!  DISCOVER                                     -> OFFER
//!  REQUEST  with our server id  (SELECTING)     -> ACK, or NAK if it asks for another address
//!           with another's server id            -> nothing: the client chose another server
//!           with an address, no server id       -> ACK or NAK             (INIT-REBOOT)
//!           with ciaddr                         -> ACK or NAK             (RENEWING, REBINDING)
//!  INFORM   from the port's own address         -> ACK without address and lease
//!  DECLINE, RELEASE, anything else              -> nothing
//! ```

use crate::frame::{self, BROADCAST, Datagram};
use crate::options::{ExtraOption, extra_option, routes};
use crate::{Mac, Me, NetworkView};
use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use maru_agent_api::slice::{Port, Subnet};
use std::net::{IpAddr, Ipv4Addr};

/// Seconds that a lease lasts: a day, as upstream gives.
const LEASE: u32 = 86_400;
/// The least length of a message; some old clients drop shorter ones (RFC 1542 section 2.1).
const LEAST: usize = 300;
/// What a client takes that does not say more (RFC 2131, option 57): 576 bytes less IP and UDP headers.
const LARGEST: usize = 1472;
/// Where metadata is.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The answer to a datagram for port 67.
pub(crate) fn answer(view: &NetworkView, me: Me, udp: &Datagram<'_, Ipv4Addr>) -> Option<Vec<u8>> {
    if udp.target_port != 67 || udp.payload.len() < 240 || udp.payload.len() > LARGEST {
        return None;
    }
    let request = Message::decode(&mut Decoder::new(udp.payload)).ok()?;
    // Relayed messages are not for us, and the hardware address inside must be the sender's own.
    let acceptable = request.opcode() == Opcode::BootRequest
        && request.htype() == HType::Eth
        && request.hlen() == 6
        && request.giaddr().is_unspecified()
        && request.hops() == 0
        && request.chaddr() == udp.source_mac.0;
    if !acceptable {
        return None;
    }
    let port = &view.resident(udp.source_mac)?.port;
    let reply = Reply::to(view, port, &request)?;
    let (to_mac, to) = reply.way(&request, udp.source_mac);
    frame::udp4(
        (me.mac, reply.server, 67),
        (to_mac, to, 68),
        &reply.encode(view, port, &request)?,
    )
}

/// What is said.
struct Reply<'a> {
    kind: MessageType,
    /// The client's address; unspecified in a NAK.
    address: Ipv4Addr,
    cidr: ipnet::Ipv4Net,
    /// Our address on that subnet.
    server: Ipv4Addr,
    subnet: &'a Subnet,
    lease: bool,
}

impl<'a> Reply<'a> {
    /// Decides.
    fn to(view: &'a NetworkView, port: &'a Port, request: &Message) -> Option<Self> {
        let make = |kind, (address, cidr, server, subnet), lease| Self {
            kind,
            address,
            cidr,
            server,
            subnet,
            lease,
        };
        let mine: Vec<_> = view.v4_of(port).collect();
        let first = *mine.first()?;
        let by_address = |ip: Ipv4Addr| mine.iter().copied().find(|m| m.0 == ip);
        let wanted = match request.opts().get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(ip)) => Some(*ip),
            _ => None,
        };
        match request.opts().msg_type()? {
            MessageType::Discover => Some(make(
                MessageType::Offer,
                wanted.and_then(by_address).unwrap_or(first),
                true,
            )),
            MessageType::Request => {
                if let Some(DhcpOption::ServerIdentifier(id)) = request.opts().get(OptionCode::ServerIdentifier)
                    && !mine.iter().any(|m| m.2 == *id)
                {
                    return None;
                }
                let asked = wanted.or_else(|| (!request.ciaddr().is_unspecified()).then(|| request.ciaddr()))?;
                Some(match by_address(asked) {
                    Some(found) => make(MessageType::Ack, found, true),
                    None => make(MessageType::Nak, first, false),
                })
            }
            MessageType::Inform => Some(make(MessageType::Ack, by_address(request.ciaddr())?, false)),
            _ => None,
        }
    }

    /// Where it goes (RFC 2131 section 4.1): MAC and IP address.
    fn way(&self, request: &Message, client: Mac) -> (Mac, Ipv4Addr) {
        if self.kind == MessageType::Nak {
            (BROADCAST, Ipv4Addr::BROADCAST)
        } else if !request.ciaddr().is_unspecified() {
            (client, request.ciaddr())
        } else if request.flags().broadcast() {
            (BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (client, self.address)
        }
    }

    fn encode(&self, view: &NetworkView, port: &Port, request: &Message) -> Option<Vec<u8>> {
        let refused = self.kind == MessageType::Nak;
        let yours = if self.lease {
            self.address
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let client = if refused {
            Ipv4Addr::UNSPECIFIED
        } else {
            request.ciaddr()
        };
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(request.xid(), client, yours, none, none, request.chaddr());
        message.set_opcode(Opcode::BootReply);
        message.set_flags(if refused {
            Flags::default().set_broadcast()
        } else {
            request.flags()
        });
        if !refused {
            message.set_siaddr(self.server);
            self.describe(view, port, &mut message);
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.kind));
        options.insert(DhcpOption::ServerIdentifier(self.server));
        if let Some(id @ DhcpOption::ClientIdentifier(_)) = request.opts().get(OptionCode::ClientIdentifier) {
            options.insert(id.clone()); // RFC 6842
        }
        let mut bytes = message.to_vec().ok()?;
        if bytes.len() > LARGEST {
            return None;
        }
        bytes.resize(bytes.len().max(LEAST), 0);
        Some(bytes)
    }

    /// The configuration of the client.
    fn describe(&self, view: &NetworkView, port: &Port, message: &mut Message) {
        let mut set = |option: DhcpOption| {
            message.opts_mut().insert(option);
        };
        if self.lease {
            set(DhcpOption::AddressLeaseTime(LEASE));
            set(DhcpOption::Renewal(LEASE / 2));
            set(DhcpOption::Rebinding(LEASE / 8 * 7));
        }
        set(DhcpOption::SubnetMask(self.cidr.netmask()));
        if self.cidr.prefix_len() < 31 {
            set(DhcpOption::BroadcastAddr(self.cidr.broadcast()));
        }
        if let Ok(mtu) = u16::try_from(view.network.mtu)
            && mtu >= 68
        {
            set(DhcpOption::InterfaceMtu(mtu));
        }
        let (host, domain) = names(port, self.address);
        set(DhcpOption::Hostname(host));
        set(DhcpOption::DomainName(domain));
        let dns: Vec<Ipv4Addr> = self.subnet.dns.iter().filter_map(v4).collect();
        if !dns.is_empty() {
            set(DhcpOption::DomainNameServer(dns));
        }
        let gateway = self.subnet.gateway.as_ref().and_then(v4);
        if let Some(gateway) = gateway {
            set(DhcpOption::Router(vec![gateway]));
        }
        let routes = routes(&self.routes(gateway));
        for code in [121, 249] {
            // 249 is the same under Microsoft's number, for guests that know no other.
            set(raw(code, routes.clone()));
        }
        for (name, value, version) in port.extra_dhcp_opts.iter().filter(|o| o.2 != 6) {
            match extra_option(name, value, *version) {
                Ok(ExtraOption::Option(code, bytes)) => {
                    message.opts_mut().insert(raw(code, bytes));
                }
                Ok(ExtraOption::NextServer(address)) => {
                    message.set_siaddr(address);
                }
                Ok(ExtraOption::Option6(..)) => {}
                Err(e) => tracing::debug!(port = %port.id, error = %e, "an extra DHCP option is left out"),
            }
        }
    }

    /// Routes to hand out: the subnet's, metadata on the link, and the default one, since a client that takes option 121
    /// must ignore option 3 (RFC 3442).
    fn routes(&self, gateway: Option<Ipv4Addr>) -> Vec<(ipnet::Ipv4Net, Ipv4Addr)> {
        let mut routes = Vec::new();
        for (to, via) in &self.subnet.routes {
            if let (ipnet::IpNet::V4(to), IpAddr::V4(via)) = (to, via) {
                routes.push((*to, *via));
            }
        }
        let metadata = ipnet::Ipv4Net::from(METADATA);
        if !routes.iter().any(|(to, _)| *to == metadata) {
            routes.push((metadata, self.server));
        }
        if let Some(gateway) = gateway
            && !routes.iter().any(|(to, _)| to.prefix_len() == 0)
        {
            routes.push((ipnet::Ipv4Net::default(), gateway));
        }
        routes
    }
}

fn raw(code: u8, bytes: Vec<u8>) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes))
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// Host name and domain: the port's, or those that Neutron makes of the address.
fn names(port: &Port, address: Ipv4Addr) -> (String, String) {
    let name = port.dns_name.trim_end_matches('.');
    match name.split_once('.') {
        Some((host, domain)) if !host.is_empty() => (host.to_owned(), domain.to_owned()),
        None if !name.is_empty() => (name.to_owned(), "openstacklocal".to_owned()),
        _ => (
            format!("host-{}", address.to_string().replace('.', "-")),
            "openstacklocal".to_owned(),
        ),
    }
}

#[cfg(test)]
#[path = "v4_tests.rs"]
pub(crate) mod tests;
