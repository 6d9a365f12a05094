#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use maru_agent_api::slice::{FloatingIp, Gateway, Router, Subnet};
use proptest::prelude::*;

fn network(id: &str, vni: u32, cidr: &str, gateway: &str, external: bool) -> Network {
    Network {
        id: id.into(),
        vni,
        zone: 7,
        mtu: 1450,
        external,
        admin_up: true,
        subnets: vec![Subnet {
            id: format!("sub-{id}"),
            cidr: cidr.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            dhcp: true,
            dns: vec![],
            routes: vec![],
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            dhcp_address: None,
        }],
    }
}

fn port(id: &str, network: &Network, ip: &str) -> Port {
    Port {
        id: id.into(),
        network_id: network.id.clone(),
        project_id: "p".into(),
        host: None,
        device_id: String::new(),
        device_owner: String::new(),
        mac: "fa:16:3e:00:00:01".into(),
        fixed_ips: vec![(network.subnets[0].id.clone(), ip.parse().unwrap())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: false,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    }
}

fn router_fixture() -> (Router, Vec<Port>, Vec<Network>) {
    let inside = network("net1", 100, "10.0.0.0/24", "10.0.0.1", false);
    let outside = network("ext", 200, "203.0.113.0/24", "203.0.113.1", true);
    let ports = vec![
        port("aaaaaaaa-aaaa", &inside, "10.0.0.1"),
        port("bbbbbbbb-bbbb", &outside, "203.0.113.10"),
    ];
    let router = Router {
        id: "r1".into(),
        admin_up: true,
        gateway: Some(Gateway {
            port_id: ports[1].id.clone(),
            network_id: outside.id.clone(),
            snat: true,
        }),
        interfaces: vec![ports[0].id.clone()],
        routes: vec![("192.168.0.0/16".parse().unwrap(), "10.0.0.9".parse().unwrap())],
        floating_ips: vec![FloatingIp {
            id: "f".into(),
            floating: [203, 0, 113, 20].into(),
            fixed: [10, 0, 0, 5].into(),
            port_id: "x".into(),
        }],
        forwardings: vec![],
        helpers: vec![],
        ndp_proxies: Some(vec!["2001:db8::5".parse().unwrap()]),
    };
    (router, ports, vec![inside, outside])
}

/// Carries out ops on a view, as the kernel would.
fn carry_out(ops: &[Op], view: &mut View) {
    let at = |view: &View, name: &str| view.links.iter().find(|l| l.name == name).map(|l| l.index).unwrap_or(0);
    for op in ops {
        match op {
            Op::DelRule(r) => view.rules.retain(|x| x != r),
            Op::DelRoute(r) => view.routes.retain(|x| x != r),
            Op::DelLink(i) => {
                view.links.retain(|l| l.index != *i);
                view.addrs.retain(|a| a.index != *i);
                view.routes.retain(|r| r.oif != *i);
                view.proxies.retain(|(index, _)| index != i);
            }
            Op::MakeLink(l) => {
                let index = view.links.iter().map(|l| l.index).max().unwrap_or(1) + 1;
                view.links.push(Link {
                    index,
                    name: l.name.clone(),
                    mac: l.mac.to_vec(),
                    mtu: l.mtu,
                    ..Link::default()
                });
            }
            Op::Mac(n, m) => view
                .links
                .iter_mut()
                .filter(|l| l.name == *n)
                .for_each(|l| l.mac = m.to_vec()),
            Op::Mtu(n, m) => view.links.iter_mut().filter(|l| l.name == *n).for_each(|l| l.mtu = *m),
            Op::Up(n, up) => view.links.iter_mut().filter(|l| l.name == *n).for_each(|l| l.up = *up),
            Op::DelAddr(n, ip, p) => {
                let i = at(view, n);
                view.addrs.retain(|a| (a.index, a.ip, a.prefix) != (i, *ip, *p));
            }
            Op::AddAddr(n, ip, p) => {
                let index = at(view, n);
                view.addrs.push(Addr {
                    index,
                    ip: *ip,
                    prefix: *p,
                    link_scope: false,
                });
            }
            Op::AddRoute(r) => {
                let oif = r.dev.as_deref().map_or(0, |d| at(view, d));
                view.routes.push(Route {
                    table: r.table,
                    dst: r.dst,
                    prefix: r.prefix,
                    via: r.via,
                    oif,
                });
            }
            Op::AddRule(r) => view.rules.push(r.clone()),
            Op::Proxy(n, ip, add) => {
                let index = at(view, n);
                view.proxies.retain(|p| *p != (index, *ip));
                if *add {
                    view.proxies.push((index, *ip));
                }
            }
        }
    }
}

#[test]
fn a_router_gets_links_addresses_routes_and_the_way_to_its_metadata() {
    let (router, ports, networks) = router_fixture();
    let spec = RouterSpec {
        router: &router,
        ports: ports.iter().collect(),
        networks: networks.iter().collect(),
    };
    let desired = super::router(&spec).unwrap();
    let gw = desired.links.iter().find(|l| l.name.starts_with("qg-")).unwrap();
    assert!(gw.addrs.contains(&("203.0.113.10".parse().unwrap(), 24)));
    assert!(
        gw.addrs.contains(&("203.0.113.20".parse().unwrap(), 32)),
        "the floating address lives on the gateway"
    );
    assert!(
        desired
            .routes
            .iter()
            .any(|r| r.prefix == 0 && r.via == Some("203.0.113.1".parse().unwrap()))
    );
    assert!(
        desired
            .rules
            .iter()
            .any(|r| r.iif.starts_with("qr-") && r.dst == IpAddr::from(METADATA_V4))
    );
}

#[test]
fn a_router_that_is_down_keeps_links_but_neither_routes_nor_rules() {
    let (mut router, ports, networks) = router_fixture();
    router.admin_up = false;
    let spec = RouterSpec {
        router: &router,
        ports: ports.iter().collect(),
        networks: networks.iter().collect(),
    };
    let desired = super::router(&spec).unwrap();
    assert!(desired.links.iter().all(|l| !l.up) && desired.routes.is_empty() && desired.rules.is_empty());
}

#[test]
fn a_missing_port_is_named() {
    let (router, _, networks) = router_fixture();
    let spec = RouterSpec {
        router: &router,
        ports: vec![],
        networks: networks.iter().collect(),
    };
    assert!(super::router(&spec).unwrap_err().message().contains("aaaaaaaa-aaaa"));
}

#[test]
fn planning_twice_does_nothing_the_second_time() {
    let (router, ports, networks) = router_fixture();
    let spec = RouterSpec {
        router: &router,
        ports: ports.iter().collect(),
        networks: networks.iter().collect(),
    };
    let desired = super::router(&spec).unwrap();
    let mut view = View {
        links: vec![Link {
            index: 1,
            name: "lo".into(),
            up: true,
            ..Link::default()
        }],
        ..View::default()
    };
    let ops = plan(&desired, &view);
    carry_out(&ops, &mut view);
    assert_eq!(plan(&desired, &view), vec![]);
}

fn any_link() -> impl Strategy<Value = DesiredLink> {
    (
        0_u8..4,
        0_u8..3,
        1000_u32..1003,
        any::<bool>(),
        prop::collection::btree_set((0_u8..6, 24_u8..26), 0..4),
    )
        .prop_map(|(n, m, mtu, up, ips)| DesiredLink {
            name: format!("qr-{n}"),
            mac: [2, 0, 0, 0, 0, m],
            mtu,
            up,
            addrs: ips.into_iter().map(|(i, p)| (IpAddr::from([10, 0, n, i]), p)).collect(),
            peer: format!("rt-{n}"),
            bridge: "br1".into(),
            alias: "x".into(),
        })
}

fn any_desired() -> impl Strategy<Value = Desired> {
    (
        prop::collection::vec(any_link(), 0..4),
        prop::collection::btree_set(0_u8..5, 0..4),
        prop::collection::btree_set((0_u8..5, 0_u16..3), 0..4),
    )
        .prop_map(|(mut links, routes, proxies)| {
            links.sort_by(|a, b| a.name.cmp(&b.name));
            links.dedup_by(|a, b| a.name == b.name);
            let routes = routes
                .into_iter()
                .filter_map(|n| {
                    let dev = links.get(usize::from(n))?.name.clone();
                    Some(DesiredRoute {
                        table: MAIN,
                        dst: [172, 16, n, 0].into(),
                        prefix: 24,
                        via: None,
                        dev: Some(dev),
                    })
                })
                .collect();
            let proxies = proxies
                .into_iter()
                .filter_map(|(n, i)| {
                    let dev = links.get(usize::from(n))?.name.clone();
                    Some((dev, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, i])))
                })
                .collect();
            Desired {
                links,
                routes,
                rules: BTreeSet::new(),
                proxies,
            }
        })
}

proptest! {
    /// From any state to any other, then nothing is left to do.
    #[test]
    fn a_plan_reaches_what_is_desired(first in any_desired(), second in any_desired()) {
        let mut view = View { links: vec![Link { index: 1, name: "lo".into(), ..Link::default() }], ..View::default() };
        for desired in [&first, &second] {
            let ops = plan(desired, &view);
            carry_out(&ops, &mut view);
            prop_assert_eq!(plan(desired, &view), vec![]);
        }
    }

    #[test]
    fn a_mac_is_six_bytes_or_refused(text in "[0-9a-f:]{0,20}") {
        if let Ok(mac) = parse_mac(&text) {
            prop_assert_eq!(mac.map(|b| format!("{b:02x}")).join(":"), text);
        }
    }
}
