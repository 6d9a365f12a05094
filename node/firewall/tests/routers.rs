//! Routers with real guests (network namespaces with a kernel's own stack behind the ports): SNAT, floating addresses, metadata,
//! and that nothing leaks between routers (attack class E).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::wire::Machine;
use common::*;
use maru_agent_api::slice::{ConntrackHelper, FloatingIp, Forwarding, Gateway, Network, Port, Router};
use maru_firewall::{Applied, RouterNat};
use maru_link::{Netns, RouterSpec, in_namespace};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A guest with a whole network stack: the port's device is a veth of the tap's name.
async fn guest(m: &mut Machine, port: Port, address: &str, via: &str) -> Netns {
    let network = m.network(&port.network_id);
    let netns = Netns::named(&format!("{}-g{}", m.name, m.ports.len()));
    ip(&format!("netns add {}", netns.name));
    let (tap, bridge) = (maru_link::tap_name(&port.id), maru_link::bridge_name(network.vni));
    in_namespace(&m.links.namespace().path(), || {
        ip(&format!(
            "link add {tap} type veth peer name e0 address {} netns {}",
            port.mac, netns.name
        ));
        ip(&format!("link set {tap} alias port:{} master {bridge}", port.id));
    })
    .unwrap();
    let id = port.id.clone();
    m.ports.push(port);
    m.apply().await;
    m.links.port_up(&id, true).await.unwrap();
    in_namespace(&netns.path(), || {
        ip("link set lo up");
        ip(&format!("addr add {address} dev e0"));
        ip("link set e0 up");
        ip(&format!("route add default via {via}"));
    })
    .unwrap();
    netns
}

fn listen(netns: Option<&Netns>, address: &str) -> TcpListener {
    let open = || TcpListener::bind(address).unwrap();
    match netns {
        Some(n) => in_namespace(&n.path(), open).unwrap(),
        None => open(),
    }
}

/// Connects; `None` if nothing answers in time.
fn dial(netns: Option<&Netns>, to: &str) -> Option<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let open = || match TcpStream::connect_timeout(&to, Duration::from_millis(1500)) {
        Ok(s) => Some(s),
        Err(e) => {
            assert!(
                matches!(
                    e.kind(),
                    ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                ),
                "{to}: {e}"
            );
            None
        }
    };
    match netns {
        Some(n) => in_namespace(&n.path(), open).unwrap(),
        None => open(),
    }
}

struct Site {
    router: Router,
    gateway: Port,
    interface: Port,
    netns: Netns,
}

impl Site {
    async fn apply(&self, m: &Machine) -> Applied {
        let networks: Vec<&Network> = m.networks.iter().collect();
        let ports = vec![&self.gateway, &self.interface];
        let netns = m.links.ensure_router_namespace(&self.router.id).await.unwrap();
        let nat = RouterNat {
            router: &self.router,
            ports: ports.clone(),
            networks: networks.clone(),
        };
        let applied = m.firewall.apply_router(&netns.path(), &nat).await.unwrap();
        let links = m
            .links
            .ensure_router(&RouterSpec {
                router: &self.router,
                ports,
                networks,
            })
            .await
            .unwrap();
        assert!(links.faults.is_empty(), "{:?}", links.faults);
        applied
    }

    fn float(&mut self, last: u8, fixed: [u8; 4]) {
        let id = format!("fip-{last}");
        self.router.floating_ips.push(FloatingIp {
            id,
            floating: [203, 0, 113, last].into(),
            fixed: fixed.into(),
            port_id: "x".into(),
        });
    }
}

/// A router between a tenant's network and the external one.
async fn site(m: &Machine, n: u32, tenant: &str) -> Site {
    let ext = m.network("ext");
    let gateway = port(0x1000 + n, &ext, &[&format!("203.0.113.{n}")], &[]);
    let interface = port(0x2000 + n, &m.network(tenant), &["10.0.0.1"], &[]);
    let router = Router {
        id: format!("router-{n}"),
        admin_up: true,
        gateway: Some(Gateway {
            port_id: gateway.id.clone(),
            network_id: "ext".into(),
            snat: true,
        }),
        interfaces: vec![interface.id.clone()],
        routes: vec![],
        floating_ips: vec![],
        forwardings: vec![],
        helpers: vec![],
        ndp_proxies: None,
    };
    let netns = m.links.router_namespace(&router.id);
    let site = Site {
        router,
        gateway,
        interface,
        netns,
    };
    site.apply(m).await;
    site
}

async fn machine(first: u32) -> Machine {
    let mut ext = network("ext", first, 100, "203.0.113.0/24");
    ext.external = true;
    ext.subnets[0].gateway = Some("203.0.113.1".parse().unwrap());
    let nets = vec![
        ext,
        network("n1", first + 1, 101, "10.0.0.0/24"),
        network("n2", first + 2, 102, "10.0.0.0/24"),
    ];
    let open = group("open", [egress_all(), vec![rule("in4", true, 4)]].concat());
    Machine::new(nets, vec![open]).await
}

fn peer(listener: &TcpListener) -> IpAddr {
    listener.set_nonblocking(false).unwrap();
    listener.accept().unwrap().1.ip()
}

#[test]
fn guests_go_out_by_the_gateway_and_are_reached_by_their_floating_address() {
    host(|| async {
        let mut m = machine(700).await;
        let (n1, n2) = (m.network("n1"), m.network("n2"));
        let mut r1 = site(&m, 10, "n1").await;
        let mut r2 = site(&m, 20, "n2").await;
        // Two tenants with the same addresses behind two routers.
        let a = guest(
            &mut m,
            port(0xa, &n1, &["10.0.0.5"], &["open"]),
            "10.0.0.5/24",
            "10.0.0.1",
        )
        .await;
        let a2 = guest(
            &mut m,
            port(0xb, &n1, &["10.0.0.6"], &["open"]),
            "10.0.0.6/24",
            "10.0.0.1",
        )
        .await;
        let b = guest(
            &mut m,
            port(0xc, &n2, &["10.0.0.5"], &["open"]),
            "10.0.0.5/24",
            "10.0.0.1",
        )
        .await;
        let on_host = listen(None, "203.0.113.1:7000");
        let on_a = listen(Some(&a), "10.0.0.5:80");
        let on_b = listen(Some(&b), "10.0.0.5:80");

        // Out: each as its own router.
        let _s = dial(Some(&a), "203.0.113.1:7000").expect("a goes out");
        assert_eq!(peer(&on_host), IpAddr::from([203, 0, 113, 10]));
        let _s = dial(Some(&b), "203.0.113.1:7000").expect("b goes out");
        assert_eq!(peer(&on_host), IpAddr::from([203, 0, 113, 20]));

        // In: by floating addresses, each to its own guest; the guest sees who asks.
        r1.float(50, [10, 0, 0, 5]);
        r2.float(60, [10, 0, 0, 5]);
        r1.apply(&m).await;
        r2.apply(&m).await;
        let mut to_a = dial(None, "203.0.113.50:80").expect("a is reached");
        let (mut at_a, from) = on_a.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::from([203, 0, 113, 1]));
        let _to_b = dial(None, "203.0.113.60:80").expect("b is reached");
        assert_eq!(peer(&on_b), IpAddr::from([203, 0, 113, 1]));
        // With a floating address the guest goes out as that.
        let _s = dial(Some(&a), "203.0.113.1:7000").unwrap();
        assert_eq!(peer(&on_host), IpAddr::from([203, 0, 113, 50]));
        // Hairpin: a neighbour asks for the floating address; and the guest for its own.
        let _s = dial(Some(&a2), "203.0.113.50:80").expect("hairpin");
        assert_eq!(peer(&on_a), IpAddr::from([203, 0, 113, 10]));
        // From tenant to tenant over floating addresses.
        let _s = dial(Some(&b), "203.0.113.50:80").expect("from the other tenant");
        assert_eq!(peer(&on_a), IpAddr::from([203, 0, 113, 60]));

        // No way into a tenant's network by routing at its gateway, and none from router to router.
        ip("route add 10.0.0.0/24 via 203.0.113.10");
        assert!(
            dial(None, "10.0.0.5:80").is_none(),
            "a neighbour on the external network routed into a tenant"
        );

        // The live connection through a floating address ends when the address goes; the other's goes on.
        to_a.write_all(b"x").unwrap();
        at_a.read_exact(&mut [0]).unwrap();
        r1.router.floating_ips.clear();
        assert!(r1.apply(&m).await.ended >= 1);
        assert!(dial(None, "203.0.113.50:80").is_none());
        // It moves to the other tenant: announced, so that the host finds it at once.
        r2.router.floating_ips.clear();
        r2.float(50, [10, 0, 0, 5]);
        r2.apply(&m).await;
        let _s = dial(None, "203.0.113.50:80").expect("the address has moved");
        assert_eq!(peer(&on_b), IpAddr::from([203, 0, 113, 1]));

        m.links.remove_router(&r1.router.id).await.unwrap();
        assert!(!r1.netns.path().exists());
        m.done().await;
    });
}

/// A forwarded port leads to its guest's port, from outside and from a neighbour; no other port does, and none of another protocol.
#[test]
fn a_forwarded_port_leads_to_its_guest_and_no_other_does() {
    host(|| async {
        let mut m = machine(720).await;
        let n1 = m.network("n1");
        let mut site = site(&m, 10, "n1").await;
        let at = |last: u8| port(0x20 + u32::from(last), &n1, &[&format!("10.0.0.{last}")], &["open"]);
        let (p5, p6) = (at(5), at(6));
        let a = guest(&mut m, p5, "10.0.0.5/24", "10.0.0.1").await;
        let b = guest(&mut m, p6, "10.0.0.6/24", "10.0.0.1").await;
        let on_a = listen(Some(&a), "10.0.0.5:80");
        let on_b = listen(Some(&b), "10.0.0.6:81");
        let udp = in_namespace(&a.path(), || UdpSocket::bind("10.0.0.5:53").unwrap()).unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let forward = |id: &str, protocol, external_port, last: u8, internal_port| Forwarding {
            id: id.into(),
            floating: [203, 0, 113, 50].into(),
            protocol,
            external_port,
            fixed: [10, 0, 0, last].into(),
            internal_port,
        };
        site.router.forwardings = vec![
            forward("one", 6, 8080, 5, 80),
            forward("two", 6, 8081, 6, 81),
            forward("dns", 17, 5353, 5, 53),
        ];
        assert!(site.apply(&m).await.faults.is_empty());
        let mut to_a = dial(None, "203.0.113.50:8080").expect("the first port");
        let (mut at_a, from) = on_a.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::from([203, 0, 113, 1]));
        let _b = dial(None, "203.0.113.50:8081").expect("the second port");
        assert_eq!(peer(&on_b), IpAddr::from([203, 0, 113, 1]));
        let from_host = UdpSocket::bind("203.0.113.1:0").unwrap();
        from_host.send_to(b"who", "203.0.113.50:5353").unwrap();
        let mut bytes = [0; 8];
        let (n, asks) = udp.recv_from(&mut bytes).expect("the datagram comes in");
        assert_eq!((&bytes[..n], asks.ip()), (&b"who"[..], IpAddr::from([203, 0, 113, 1])));
        // A neighbour of the guest, by the outer address.
        let _c = dial(Some(&b), "203.0.113.50:8080").expect("hairpin");
        assert_eq!(peer(&on_a), IpAddr::from([203, 0, 113, 10]));
        // Nothing else of the address leads in: it is the router's own, which has nothing there.
        for port in [80, 81, 5353] {
            let to: SocketAddr = format!("203.0.113.50:{port}").parse().unwrap();
            assert!(
                TcpStream::connect_timeout(&to, Duration::from_millis(1500)).is_err(),
                "{port}"
            );
        }
        // The live connection ends with its forwarding, the other forwarding goes on.
        to_a.write_all(b"x").unwrap();
        at_a.read_exact(&mut [0]).unwrap();
        site.router.forwardings.remove(0);
        assert!(site.apply(&m).await.ended >= 1);
        let to: SocketAddr = "203.0.113.50:8080".parse().unwrap();
        assert!(TcpStream::connect_timeout(&to, Duration::from_millis(1500)).is_err());
        let _b = dial(None, "203.0.113.50:8081").expect("the second port still");
        m.links.remove_router(&site.router.id).await.unwrap();
        m.done().await;
    });
}

/// A protocol whose answers come from another port: they reach the guest behind the translation while the router reads along, on the
/// named port and no other.
#[test]
fn answers_from_another_port_come_in_where_the_router_reads_along() {
    host(|| async {
        let mut m = machine(730).await;
        let n1 = m.network("n1");
        let mut site = site(&m, 10, "n1").await;
        let p = port(0xa, &n1, &["10.0.0.5"], &["open"]);
        let a = guest(&mut m, p, "10.0.0.5/24", "10.0.0.1").await;
        // A read request (RFC 1350), answered with a first block from a port of its own.
        let fetches = |port: u16| {
            // A new connection each time: only the beginning of one is given to a helper.
            let on_a = in_namespace(&a.path(), || UdpSocket::bind("10.0.0.5:0").unwrap()).unwrap();
            on_a.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let server = UdpSocket::bind(format!("203.0.113.1:{port}")).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            on_a.send_to(b"\0\x01file\0octet\0", format!("203.0.113.1:{port}"))
                .unwrap();
            let mut bytes = [0; 64];
            let (_, from) = server.recv_from(&mut bytes).expect("the request goes out");
            assert_eq!(from.ip(), IpAddr::from([203, 0, 113, 10]));
            let answers = UdpSocket::bind("203.0.113.1:0").unwrap();
            answers.send_to(b"\0\x03\0\x01data", from).unwrap();
            match on_a.recv_from(&mut bytes) {
                Ok((n, by)) => bytes[..n].ends_with(b"data") && by == answers.local_addr().unwrap(),
                Err(_) => false,
            }
        };
        assert!(!fetches(69), "nothing tells the router that this is an answer");
        let helper = |id: &str, name: &str, protocol, port| ConntrackHelper {
            id: id.into(),
            name: name.into(),
            protocol,
            port,
        };
        site.router.helpers = vec![helper("a", "tftp", 17, 69), helper("b", "no-such-helper", 6, 70)];
        let faults = site.apply(&m).await.faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].id == "b" && faults[0].reason.contains("no conntrack helper"),
            "{faults:?}"
        );
        assert!(fetches(69), "it is the guest's");
        assert!(!fetches(6969), "another port is not read along with");
        site.router.helpers[0].port = 6969;
        site.apply(&m).await;
        assert!(fetches(6969));
        m.links.remove_router(&site.router.id).await.unwrap();
        m.done().await;
    });
}

/// Addresses that the router answers for on the external network are reached there as if they were on it; others are not, and a
/// neighbour who knows the way by the router comes no further.
#[test]
fn addresses_that_the_router_answers_for_are_reached_and_no_others() {
    host(|| async {
        let mut ext = network("ext", 740, 100, "2001:db8:1::/64");
        ext.external = true;
        ext.subnets[0].gateway = Some("2001:db8:1::1".parse().unwrap());
        let inner = network("n1", 741, 101, "2001:db8:2::/64");
        let open = group("open", [egress_all(), vec![rule("in6", true, 6)]].concat());
        let mut m = Machine::new(vec![ext.clone(), inner.clone()], vec![open]).await;
        let gateway = port(0x1000, &ext, &["2001:db8:1::10"], &[]);
        let interface = port(0x2000, &inner, &["2001:db8:2::1"], &[]);
        let router = Router {
            id: "router-6".into(),
            admin_up: true,
            gateway: Some(Gateway {
                port_id: gateway.id.clone(),
                network_id: "ext".into(),
                snat: true,
            }),
            interfaces: vec![interface.id.clone()],
            routes: vec![],
            floating_ips: vec![],
            forwardings: vec![],
            helpers: vec![],
            ndp_proxies: None,
        };
        let netns = m.links.router_namespace(&router.id);
        let mut site = Site {
            router,
            gateway,
            interface,
            netns,
        };
        site.apply(&m).await;
        let mut guests = Vec::new();
        for last in [5_u32, 6] {
            let address = format!("2001:db8:2::{last}");
            let p = port(last, &inner, &[&address], &["open"]);
            let at = format!("{address}/64 nodad");
            guests.push(guest(&mut m, p, &at, "2001:db8:2::1").await);
        }
        let listeners: Vec<TcpListener> = guests
            .iter()
            .zip([5, 6])
            .map(|(g, last)| listen(Some(g), &format!("[2001:db8:2::{last}]:80")))
            .collect();
        // The outside world has the whole scope on its link.
        let out = format!("{}-{:x}", m.name, 740);
        ip(&format!("route add 2001:db8:2::/64 dev {out}"));
        let reached = |last: u32| {
            let to: SocketAddr = format!("[2001:db8:2::{last}]:80").parse().unwrap();
            TcpStream::connect_timeout(&to, Duration::from_millis(2500)).is_ok()
        };
        assert!(!reached(5), "nobody answers for it");
        site.router.ndp_proxies = Some(vec!["2001:db8:2::5".parse().unwrap()]);
        site.apply(&m).await;
        assert!(reached(5));
        assert!(!reached(6), "nobody answers for that one");
        // By the router's own address as the next hop.
        ip(&format!("route add 2001:db8:2::6/128 via 2001:db8:1::10 dev {out}"));
        assert!(!reached(6), "it is not among those that are let in");
        // The guest that is not among them goes out, and its answers come in.
        let outside = listen(None, "[2001:db8:1::1]:7000");
        let dialled = in_namespace(&guests[1].path(), || {
            TcpStream::connect_timeout(&"[2001:db8:1::1]:7000".parse().unwrap(), Duration::from_secs(5)).is_ok()
        });
        assert!(dialled.unwrap());
        assert_eq!(peer(&outside), "2001:db8:2::6".parse::<IpAddr>().unwrap());
        site.router.ndp_proxies = Some(vec!["2001:db8:2::6".parse().unwrap()]);
        site.apply(&m).await;
        assert!(reached(6) && !reached(5), "it moved from one to the other");
        drop(listeners);
        m.links.remove_router(&site.router.id).await.unwrap();
        m.done().await;
    });
}

/// Metadata is reached through the router and on the link, and sees the guest's own address both times.
#[test]
fn metadata_sees_the_guests_own_address_through_a_router_and_without_one() {
    host(|| async {
        let mut m = machine(710).await;
        let (n1, n2) = (m.network("n1"), m.network("n2"));
        let _r = site(&m, 10, "n1").await;
        let a = guest(
            &mut m,
            port(0xa, &n1, &["10.0.0.5"], &["open"]),
            "10.0.0.5/24",
            "10.0.0.1",
        )
        .await;
        let b = guest(
            &mut m,
            port(0xb, &n2, &["10.0.0.7"], &["open"]),
            "10.0.0.7/24",
            "10.0.0.7",
        )
        .await;
        let at = |id: &str| listen(Some(&m.links.responder(id, None).netns), "169.254.169.254:80");
        let (meta1, meta2) = (at("n1"), at("n2"));
        let _s = dial(Some(&a), "169.254.169.254:80").expect("through the router");
        assert_eq!(peer(&meta1), IpAddr::from([10, 0, 0, 5]));
        in_namespace(&b.path(), || ip("route add 169.254.0.0/16 dev e0")).unwrap();
        let _s = dial(Some(&b), "169.254.169.254:80").expect("on the link, without a router");
        assert_eq!(peer(&meta2), IpAddr::from([10, 0, 0, 7]));
        m.done().await;
    });
}
