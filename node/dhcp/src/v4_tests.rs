#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::frame::{Udp, udp4};
use maru_agent_api::slice::Network;
use proptest::prelude::*;

const ME: Me = Me {
    mac: Mac([0x0a, 0, 0, 0, 0, 9]),
};
const GUEST: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

pub(crate) fn network(gateway: bool) -> Network {
    Network {
        id: "net".into(),
        vni: 100,
        zone: 1,
        mtu: 1450,
        external: false,
        admin_up: true,
        subnets: vec![Subnet {
            id: "sub".into(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            gateway: gateway.then(|| "10.0.0.1".parse().unwrap()),
            dhcp: true,
            dns: vec!["8.8.8.8".parse().unwrap()],
            routes: vec![("10.9.0.0/16".parse().unwrap(), "10.0.0.7".parse().unwrap())],
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            dhcp_address: Some(SERVER.into()),
        }],
    }
}

pub(crate) fn port() -> Port {
    Port {
        id: "port".into(),
        network_id: "net".into(),
        project_id: "p".into(),
        host: None,
        device_id: "vm".into(),
        device_owner: "compute:nova".into(),
        mac: GUEST.to_string(),
        fixed_ips: vec![("sub".into(), IP.into())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: "web-1.example.org.".into(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    }
}

fn ask(kind: MessageType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, none, none, none, none, &GUEST.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    change(&mut message);
    udp4(
        (GUEST, none, 68),
        (BROADCAST, Ipv4Addr::BROADCAST, 67),
        &message.to_vec().unwrap(),
    )
    .unwrap()
}

struct Got {
    mac: Mac,
    target: Ipv4Addr,
    message: Message,
}

fn reply(view: &NetworkView, request: &[u8]) -> Option<Got> {
    let bytes = crate::answer(view, ME, request)?;
    let mac = Mac(bytes[..6].try_into().unwrap());
    let Some(Udp::V4(udp)) = Udp::parse(&bytes) else {
        panic!("no datagram")
    };
    assert_eq!((udp.source_mac, udp.source_port, udp.target_port), (ME.mac, 67, 68));
    let message = Message::decode(&mut Decoder::new(udp.payload)).unwrap();
    Some(Got {
        mac,
        target: udp.target,
        message,
    })
}

fn view() -> NetworkView {
    NetworkView::new(&network(true), [&port()])
}

fn option(got: &Got, code: u8) -> Option<DhcpOption> {
    got.message.opts().get(OptionCode::from(code)).cloned()
}

fn route_bytes(got: &Got, code: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    option(got, code)
        .unwrap()
        .encode(&mut dhcproto::Encoder::new(&mut bytes))
        .unwrap();
    bytes[2..].to_vec()
}

#[test]
fn a_discover_is_offered_the_ports_own_address_and_everything_else() {
    let got = reply(&view(), &ask(MessageType::Discover, |_| {})).unwrap();
    assert_eq!(got.message.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!((got.mac, got.target, got.message.yiaddr()), (GUEST, IP, IP));
    assert_eq!(
        option(&got, 1),
        Some(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)))
    );
    assert_eq!(
        option(&got, 3),
        Some(DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 0, 1)]))
    );
    assert_eq!(
        option(&got, 6),
        Some(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(8, 8, 8, 8)]))
    );
    assert_eq!(option(&got, 12), Some(DhcpOption::Hostname("web-1".into())));
    assert_eq!(option(&got, 15), Some(DhcpOption::DomainName("example.org".into())));
    assert_eq!(option(&got, 26), Some(DhcpOption::InterfaceMtu(1450)));
    assert_eq!(option(&got, 51), Some(DhcpOption::AddressLeaseTime(86_400)));
    assert_eq!(option(&got, 54), Some(DhcpOption::ServerIdentifier(SERVER)));
    let routes = [
        &[16, 10, 9, 10, 0, 0, 7][..],
        &[32, 169, 254, 169, 254, 10, 0, 0, 2],
        &[0, 10, 0, 0, 1],
    ]
    .concat();
    assert_eq!(route_bytes(&got, 121), routes);
    assert_eq!(route_bytes(&got, 249), routes);
}

#[test]
fn without_gateway_there_is_no_router_and_metadata_is_reached_by_the_responder() {
    let view = NetworkView::new(&network(false), [&port()]);
    let got = reply(&view, &ask(MessageType::Discover, |_| {})).unwrap();
    assert_eq!(option(&got, 3), None);
    let routes = [&[16, 10, 9, 10, 0, 0, 7][..], &[32, 169, 254, 169, 254, 10, 0, 0, 2]].concat();
    assert_eq!(route_bytes(&got, 121), routes);
}

#[test]
fn requests_are_acknowledged_refused_or_left_to_another_server() {
    let view = view();
    let request = |change: fn(&mut Message)| reply(&view, &ask(MessageType::Request, change));
    let kind = |got: &Option<Got>| got.as_ref().and_then(|g| g.message.opts().msg_type());

    // SELECTING
    let got = request(|m| {
        m.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
        m.opts_mut().insert(DhcpOption::RequestedIpAddress(IP));
    });
    assert_eq!(kind(&got), Some(MessageType::Ack));
    // another server was chosen
    let got = request(|m| {
        m.opts_mut()
            .insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 66)));
        m.opts_mut().insert(DhcpOption::RequestedIpAddress(IP));
    });
    assert!(got.is_none());
    // INIT-REBOOT with an old address
    let got = request(|m| {
        m.opts_mut()
            .insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 0, 77)));
    });
    assert_eq!(kind(&got), Some(MessageType::Nak));
    let got = got.unwrap();
    assert_eq!((got.mac, got.target), (BROADCAST, Ipv4Addr::BROADCAST));
    assert!(got.message.yiaddr().is_unspecified() && option(&got, 51).is_none());
    // RENEWING
    let got = request(|m| {
        m.set_ciaddr(IP);
    });
    assert_eq!(kind(&got), Some(MessageType::Ack));
    assert_eq!(got.unwrap().target, IP);
    // neither address
    assert!(request(|_| {}).is_none());
}

#[test]
fn inform_gets_options_and_no_lease() {
    let got = reply(
        &view(),
        &ask(MessageType::Inform, |m| {
            m.set_ciaddr(IP);
        }),
    )
    .unwrap();
    assert!(got.message.yiaddr().is_unspecified());
    assert_eq!(option(&got, 51), None);
    assert!(option(&got, 6).is_some());
}

#[test]
fn the_broadcast_flag_is_obeyed() {
    let got = reply(
        &view(),
        &ask(MessageType::Discover, |m| {
            m.set_flags(Flags::default().set_broadcast());
        }),
    )
    .unwrap();
    assert_eq!((got.mac, got.target), (BROADCAST, Ipv4Addr::BROADCAST));
}

#[test]
fn strangers_relays_and_liars_get_nothing() {
    let view = view();
    let none = Ipv4Addr::UNSPECIFIED;
    let stranger = Mac([2; 6]);
    let message = |mac: Mac| {
        let mut m = Message::new_with_id(7, none, none, none, none, &mac.0);
        m.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
        m.to_vec().unwrap()
    };
    let send = |from: Mac, inside: Mac| {
        udp4((from, none, 68), (BROADCAST, Ipv4Addr::BROADCAST, 67), &message(inside)).unwrap()
    };
    assert!(crate::answer(&view, ME, &send(GUEST, GUEST)).is_some());
    assert!(crate::answer(&view, ME, &send(stranger, stranger)).is_none());
    assert!(
        crate::answer(&view, ME, &send(stranger, GUEST)).is_none(),
        "a hardware address that is not the sender's"
    );
    assert!(
        crate::answer(
            &view,
            ME,
            &ask(MessageType::Discover, |m| {
                m.set_giaddr(SERVER);
            })
        )
        .is_none()
    );
    assert!(crate::answer(&view, ME, &ask(MessageType::Offer, |_| {})).is_none());
    assert!(
        crate::answer(
            &view,
            ME,
            &ask(MessageType::Release, |m| {
                m.set_ciaddr(IP);
            })
        )
        .is_none()
    );
    let off = Port {
        admin_up: false,
        ..port()
    };
    assert!(crate::answer(&NetworkView::new(&network(true), [&off]), ME, &send(GUEST, GUEST)).is_none());
    let elsewhere = Port {
        network_id: "other".into(),
        ..port()
    };
    assert!(crate::answer(&NetworkView::new(&network(true), [&elsewhere]), ME, &send(GUEST, GUEST)).is_none());
    let mut silent = network(true);
    silent.subnets[0].dhcp = false;
    assert!(crate::answer(&NetworkView::new(&silent, [&port()]), ME, &send(GUEST, GUEST)).is_none());
}

#[test]
fn extra_options_override_and_bad_ones_are_left_out() {
    let mut p = port();
    p.extra_dhcp_opts = vec![
        ("mtu".into(), "1300".into(), 4),
        ("bootfile-name".into(), "x\ny".into(), 4),
        ("tftp-server".into(), "10.0.0.3".into(), 4),
        ("server-ip-address".into(), "10.0.0.4".into(), 4),
        ("dns-server".into(), "2001:db8::1".into(), 6),
    ];
    let got = reply(
        &NetworkView::new(&network(true), [&p]),
        &ask(MessageType::Discover, |_| {}),
    )
    .unwrap();
    assert_eq!(option(&got, 26), Some(DhcpOption::InterfaceMtu(1300)));
    assert_eq!(option(&got, 67), None);
    assert_eq!(option(&got, 66), Some(DhcpOption::TFTPServerName(b"10.0.0.3".to_vec())));
    assert_eq!(got.message.siaddr(), Ipv4Addr::new(10, 0, 0, 4));
}

proptest! {
    /// Whatever a guest sends, an answer goes to its own port's address or to nobody else's.
    #[test]
    fn any_bytes_are_survived_and_answers_name_only_the_ports_address(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        flips in proptest::collection::vec((0_usize..320, any::<u8>()), 0..12),
        valid: bool,
    ) {
        if valid {
            bytes = ask(MessageType::Request, |m| { m.set_ciaddr(IP); });
            for (at, byte) in flips {
                if let Some(b) = bytes.get_mut(at) { *b = byte; }
            }
        }
        if let Some(got) = reply(&view(), &bytes) {
            prop_assert!([IP, Ipv4Addr::UNSPECIFIED].contains(&got.message.yiaddr()));
            prop_assert!([GUEST, BROADCAST].contains(&got.mac));
        }
    }
}
