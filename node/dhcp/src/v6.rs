//! DHCPv6 (RFC 8415): fixed addresses and the name servers. Pure.
//!
//! ```text
//!  SOLICIT                                 -> ADVERTISE, or REPLY if it asked for rapid commit
//!  REQUEST, RENEW (our server id), REBIND  -> REPLY with the port's addresses
//!  CONFIRM                                 -> REPLY: on the link or not
//!  INFORMATION-REQUEST                     -> REPLY with name servers only
//!  RELEASE, DECLINE (our server id)        -> REPLY: success; the address stays the port's
//!  anything else, relayed messages         -> nothing
//! ```
//!
//! A subnet in mode `dhcpv6-stateful` gives addresses, one in `dhcpv6-stateless` only the rest, `slaac` nothing at all.

use crate::duid::duid;
use crate::frame::{self, Datagram};
use crate::options::{ExtraOption, extra_option};
use crate::{Me, NetworkView};
use dhcproto::v6::{DhcpOption, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use maru_agent_api::slice::{Port, Subnet};
use std::net::{IpAddr, Ipv6Addr};

/// Seconds that an address is preferred and valid.
const LIFE: u32 = 86_400;
/// The responder's address on each link: metadata's, which the link driver puts on its device.
const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

fn mode(subnet: &Subnet) -> &str {
    subnet.ipv6_address_mode.as_deref().unwrap_or_default()
}

/// The answer to a datagram for port 547.
pub(crate) fn answer(view: &NetworkView, me: Me, udp: &Datagram<'_, Ipv6Addr>) -> Option<Vec<u8>> {
    if udp.target_port != 547 || udp.payload.len() < 4 || !(udp.source.is_unicast_link_local()) {
        return None;
    }
    // Only what a client sends; 12 and 13 are relays.
    if !matches!(udp.payload[0], 1 | 3..=6 | 8 | 9 | 11) {
        return None;
    }
    let request = Message::decode(&mut Decoder::new(udp.payload)).ok()?;
    let port = &view.resident(udp.source_mac)?.port;
    let reply = decide(view, me, port, &request)?;
    let bytes = reply.to_vec().ok()?;
    frame::udp6((me.mac, SOURCE, 547), (udp.source_mac, udp.source, 546), &bytes)
}

fn decide(view: &NetworkView, me: Me, port: &Port, request: &Message) -> Option<Message> {
    use MessageType as T;
    let options = request.opts();
    let identity = duid(me.mac);
    let named = match options.get(OptionCode::ServerId) {
        Some(DhcpOption::ServerId(id)) => Some(*id == identity),
        _ => None,
    };
    let client = match options.get(OptionCode::ClientId) {
        Some(DhcpOption::ClientId(id)) if (1..=130).contains(&id.len()) => Some(id.clone()),
        _ => None,
    };
    let all: Vec<_> = view
        .v6_of(port)
        .filter(|(_, s)| mode(s).starts_with("dhcpv6-"))
        .collect();
    if all.is_empty() {
        return None;
    }
    let stateful: Vec<Ipv6Addr> = all
        .iter()
        .filter(|(_, s)| mode(s) == "dhcpv6-stateful")
        .map(|(ip, _)| *ip)
        .collect();
    let kind = match (request.msg_type(), named) {
        (T::Solicit, None) if options.get(OptionCode::RapidCommit).is_some() => T::Reply,
        (T::Solicit, None) => T::Advertise,
        (T::Request | T::Renew | T::Release | T::Decline, Some(true)) => T::Reply,
        (T::Rebind | T::Confirm, None) => T::Reply,
        (T::InformationRequest, None | Some(true)) => T::Reply,
        _ => return None,
    };
    if client.is_none() && request.msg_type() != T::InformationRequest {
        return None;
    }
    let mut reply = Message::new_with_id(kind, request.xid());
    let out = reply.opts_mut();
    out.insert(DhcpOption::ServerId(identity));
    if let Some(client) = client {
        out.insert(DhcpOption::ClientId(client));
    }
    match request.msg_type() {
        T::Solicit | T::Request | T::Renew | T::Rebind => {
            if kind == T::Reply && request.msg_type() == T::Solicit {
                out.insert(DhcpOption::RapidCommit);
            }
            addresses(request, &stateful, out);
        }
        T::Confirm => {
            let on_link = asked(request)
                .iter()
                .all(|ip| all.iter().any(|(_, s)| s.cidr.contains(&IpAddr::V6(*ip))));
            out.insert(status(if on_link { Status::Success } else { Status::NotOnLink }));
        }
        T::Release | T::Decline => out.insert(status(Status::Success)),
        _ => {}
    }
    let dns: Vec<Ipv6Addr> = all.iter().flat_map(|(_, s)| &s.dns).filter_map(v6).collect();
    if !dns.is_empty() {
        out.insert(DhcpOption::DomainNameServers(dns));
    }
    for (name, value, version) in port.extra_dhcp_opts.iter().filter(|o| o.2 == 6) {
        match extra_option(name, value, *version) {
            Ok(ExtraOption::Option6(code, bytes)) => {
                let code = OptionCode::from(code);
                out.remove_all(code);
                out.insert(DhcpOption::Unknown(UnknownOption::new(code, bytes)));
            }
            Ok(_) => {}
            Err(e) => tracing::debug!(port = %port.id, error = %e, "an extra DHCPv6 option is left out"),
        }
    }
    Some(reply)
}

fn v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    }
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode {
        status,
        msg: String::new(),
    })
}

/// The addresses that a client names.
fn asked(request: &Message) -> Vec<Ipv6Addr> {
    let mut found = Vec::new();
    for option in request.opts().iter() {
        if let DhcpOption::IANA(ia) = option {
            found.extend(ia.opts.iter().filter_map(|o| match o {
                DhcpOption::IAAddr(a) => Some(a.addr),
                _ => None,
            }));
        }
    }
    found
}

/// One identity association gets the port's addresses, any other none; addresses that are not the port's are told dead.
fn addresses(request: &Message, mine: &[Ipv6Addr], out: &mut dhcproto::v6::DhcpOptions) {
    let mut given = false;
    let wanted = request
        .opts()
        .iter()
        .filter_map(|o| if let DhcpOption::IANA(ia) = o { Some(ia) } else { None });
    for ia in wanted.take(4) {
        let mut inside = dhcproto::v6::DhcpOptions::new();
        let address = |addr, life| {
            let opts = dhcproto::v6::DhcpOptions::new();
            DhcpOption::IAAddr(IAAddr {
                addr,
                preferred_life: life,
                valid_life: life,
                opts,
            })
        };
        if mine.is_empty() || given {
            inside.insert(status(Status::NoAddrsAvail));
        } else {
            mine.iter().for_each(|ip| inside.insert(address(*ip, LIFE)));
        }
        for old in ia.opts.iter().take(8) {
            if let DhcpOption::IAAddr(old) = old
                && !mine.contains(&old.addr)
            {
                inside.insert(address(old.addr, 0));
            }
        }
        given = true;
        out.insert(DhcpOption::IANA(IANA {
            id: ia.id,
            t1: LIFE / 2,
            t2: LIFE / 5 * 4,
            opts: inside,
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::Mac;
    use crate::frame::{Udp, udp6};
    use maru_agent_api::slice::Network;
    use proptest::prelude::*;

    const ME: Me = Me {
        mac: Mac([0x0a, 0, 0, 0, 0, 9]),
    };
    const GUEST: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);

    fn view(mode: &str) -> NetworkView {
        let subnet = Subnet {
            id: "six".into(),
            cidr: "2001:db8::/64".parse().unwrap(),
            gateway: None,
            dhcp: true,
            dns: vec!["2001:db8::53".parse().unwrap()],
            routes: vec![],
            ipv6_address_mode: Some(mode.into()),
            ipv6_ra_mode: Some(mode.into()),
            dhcp_address: Some("2001:db8::2".parse().unwrap()),
        };
        let network = Network {
            id: "net".into(),
            vni: 1,
            zone: 1,
            mtu: 1450,
            external: false,
            admin_up: true,
            subnets: vec![subnet],
        };
        let port = Port {
            id: "port".into(),
            network_id: "net".into(),
            project_id: "p".into(),
            host: None,
            device_id: "vm".into(),
            device_owner: "compute:nova".into(),
            mac: GUEST.to_string(),
            fixed_ips: vec![("six".into(), "2001:db8::5".parse().unwrap())],
            allowed_address_pairs: vec![],
            security_groups: vec![],
            port_security: true,
            admin_up: true,
            extra_dhcp_opts: vec![],
            dns_name: String::new(),
            qos: maru_agent_api::slice::PortQos::default(),
            trunk: None,
        };
        NetworkView::new(&network, [&port])
    }

    fn send(kind: MessageType, from: Mac, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new_with_id(kind, [1, 2, 3]);
        message.opts_mut().insert(DhcpOption::ClientId(vec![0, 3, 0, 1, 1]));
        change(&mut message);
        let all = "ff02::1:2".parse().unwrap();
        udp6(
            (from, from.link_local(), 546),
            (Mac([0x33, 0x33, 0, 1, 0, 2]), all, 547),
            &message.to_vec().unwrap(),
        )
        .unwrap()
    }

    fn ia(address: Option<&str>) -> DhcpOption {
        let mut opts = dhcproto::v6::DhcpOptions::new();
        if let Some(address) = address {
            let none = dhcproto::v6::DhcpOptions::new();
            opts.insert(DhcpOption::IAAddr(IAAddr {
                addr: address.parse().unwrap(),
                preferred_life: 1,
                valid_life: 1,
                opts: none,
            }));
        }
        DhcpOption::IANA(IANA {
            id: 9,
            t1: 0,
            t2: 0,
            opts,
        })
    }

    fn reply(view: &NetworkView, frame: &[u8]) -> Option<Message> {
        let bytes = crate::answer(view, ME, frame)?;
        let Some(Udp::V6(udp)) = Udp::parse(&bytes) else {
            panic!("no datagram")
        };
        assert_eq!(
            (udp.source, udp.target, udp.target_port),
            (SOURCE, GUEST.link_local(), 546)
        );
        Some(Message::decode(&mut Decoder::new(udp.payload)).unwrap())
    }

    fn given(message: &Message) -> Vec<(Ipv6Addr, u32)> {
        let Some(DhcpOption::IANA(ia)) = message.opts().get(OptionCode::IANA) else {
            return vec![];
        };
        let each = ia.opts.iter().filter_map(|o| match o {
            DhcpOption::IAAddr(a) => Some((a.addr, a.valid_life)),
            _ => None,
        });
        each.collect()
    }

    #[test]
    fn stateful_gives_the_ports_address_and_ends_others() {
        let view = view("dhcpv6-stateful");
        let got = reply(
            &view,
            &send(MessageType::Solicit, GUEST, |m| m.opts_mut().insert(ia(None))),
        )
        .unwrap();
        assert_eq!(got.msg_type(), MessageType::Advertise);
        assert_eq!(given(&got), [("2001:db8::5".parse().unwrap(), LIFE)]);
        let request = send(MessageType::Request, GUEST, |m| {
            m.opts_mut().insert(DhcpOption::ServerId(duid(ME.mac)));
            m.opts_mut().insert(ia(Some("2001:db8::66")));
        });
        let got = reply(&view, &request).unwrap();
        assert_eq!(got.msg_type(), MessageType::Reply);
        let mut addresses = given(&got);
        addresses.sort();
        assert_eq!(
            addresses,
            [
                ("2001:db8::5".parse().unwrap(), LIFE),
                ("2001:db8::66".parse().unwrap(), 0)
            ]
        );
        assert!(got.opts().get(OptionCode::DomainNameServers).is_some());
    }

    #[test]
    fn stateless_gives_the_rest_and_slaac_nothing() {
        let ask = || send(MessageType::InformationRequest, GUEST, |_| {});
        let got = reply(&view("dhcpv6-stateless"), &ask()).unwrap();
        assert!(got.opts().get(OptionCode::DomainNameServers).is_some());
        assert!(reply(&view("slaac"), &ask()).is_none());
        let solicit = send(MessageType::Solicit, GUEST, |m| m.opts_mut().insert(ia(None)));
        assert_eq!(given(&reply(&view("dhcpv6-stateless"), &solicit).unwrap()), []);
    }

    #[test]
    fn strangers_and_other_servers_clients_get_nothing() {
        let view = view("dhcpv6-stateful");
        assert!(
            reply(
                &view,
                &send(MessageType::Solicit, Mac([2; 6]), |m| m.opts_mut().insert(ia(None)))
            )
            .is_none()
        );
        let other = send(MessageType::Request, GUEST, |m| {
            m.opts_mut().insert(DhcpOption::ServerId(vec![1, 2, 3]))
        });
        assert!(reply(&view, &other).is_none());
        assert!(reply(&view, &send(MessageType::Request, GUEST, |_| {})).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(flips in proptest::collection::vec((54_usize..200, any::<u8>()), 0..20)) {
            let mut bytes = send(MessageType::Solicit, GUEST, |m| m.opts_mut().insert(ia(Some("2001:db8::66"))));
            for (at, byte) in flips {
                if let Some(b) = bytes.get_mut(at) { *b = byte; }
            }
            let _ = crate::answer(&view("dhcpv6-stateful"), ME, &bytes);
        }
    }
}
