//! The compiled text against the real nft: attack class E4 (no input, however malformed, stops the rules of others).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::*;
use ipnet::IpNet;
use maru_agent_api::slice::{
    ConntrackHelper, FloatingIp, Forwarding, Gateway, Network, Port, PortQos, RateLimit, Router, Rule, SecurityGroup,
};
use maru_firewall::{FirewallInput, RouterNat, compile, compile_nat};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::net::IpAddr;

type World = (Vec<Network>, Vec<Port>, Vec<SecurityGroup>);

fn input((networks, ports, groups): &World) -> FirewallInput<'_> {
    FirewallInput {
        networks: networks.iter().collect(),
        ports: ports.iter().collect(),
        groups: groups.iter().collect(),
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, p)| IpNet::new(IpAddr::from(a), p).unwrap()),
        (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(a, p)| IpNet::new(IpAddr::from(a), p).unwrap()),
        Just("0.0.0.0/0".parse().unwrap()),
        Just("10.0.0.0/8".parse().unwrap()),
        Just("10.0.0.5/32".parse().unwrap()),
    ]
}

fn any_port_number() -> impl Strategy<Value = Option<u16>> {
    prop_oneof![
        Just(None),
        any::<u16>().prop_map(Some),
        (0_u16..300).prop_map(Some),
        Just(Some(0)),
        Just(Some(u16::MAX))
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![
        Just(None),
        any::<u8>().prop_map(Some),
        prop::sample::select(vec![0_u8, 1, 6, 17, 33, 58, 132, 136]).prop_map(Some)
    ];
    let version = prop_oneof![4 => Just(4_u8), 4 => Just(6), 1 => any::<u8>()];
    let remote_group = prop::option::weighted(0.3, prop_oneof!["g[0-4]", "[ -~]{0,8}"]);
    (
        any::<bool>(),
        version,
        protocol,
        any_port_number(),
        any_port_number(),
        prop::option::of(any_net()),
        remote_group,
    )
        .prop_map(
            |(ingress, ip_version, protocol, port_min, port_max, remote_cidr, remote_group)| Rule {
                id: "r".into(),
                ingress,
                ip_version,
                protocol,
                port_min,
                port_max,
                remote_cidr,
                remote_group,
            },
        )
}

fn any_group() -> impl Strategy<Value = SecurityGroup> {
    let id = prop_oneof![8 => "g[0-4]", 1 => "[ -~]{0,8}"];
    let members = prop::collection::vec(any_net().prop_map(|n| n.addr()), 0..6);
    (id, any::<bool>(), prop::collection::vec(any_rule(), 0..6), members).prop_map(|(id, stateful, rules, members)| {
        SecurityGroup {
            id,
            stateful,
            rules,
            members,
        }
    })
}

fn any_port() -> impl Strategy<Value = Port> {
    let id = prop_oneof![8 => (0_u32..6).prop_map(|n| format!("{n:08x}-aaaa-4000")), 1 => "[ -~]{0,12}"];
    let mac = prop_oneof![8 => "fa:16:3e:00:00:0[0-9]", 1 => "[ -~]{0,17}", 1 => Just("ff:ff:ff:ff:ff:ff".to_owned())];
    let net = prop::sample::select(vec!["n1", "n2", "n3"]);
    let ips = prop::collection::vec(any_net().prop_map(|n| ("s".to_owned(), n.addr())), 0..4);
    let pair_mac = prop::option::of(prop_oneof![4 => "fa:16:3e:00:01:0[0-9]", 1 => "[ -~]{0,17}"]);
    let pairs = prop::collection::vec((any_net(), pair_mac), 0..5);
    let groups = prop::collection::vec("g[0-5]", 0..4);
    let rate = || {
        prop::option::of((any::<u32>(), any::<u32>()).prop_map(|(kbps, burst_kbits)| RateLimit { kbps, burst_kbits }))
    };
    let qos = (rate(), rate(), prop::option::of(any::<u8>()));
    let qos = qos.prop_map(|(ingress, egress, dscp)| PortQos { ingress, egress, dscp });
    (
        id,
        mac,
        net,
        ips,
        pairs,
        groups,
        any::<bool>(),
        prop::bool::weighted(0.9),
        prop_oneof![Just(PortQos::default()), qos],
    )
        .prop_map(|(id, mac, net, fixed_ips, pairs, groups, security, up, qos)| Port {
            id,
            network_id: net.into(),
            mac,
            fixed_ips,
            allowed_address_pairs: pairs,
            security_groups: groups,
            port_security: security,
            admin_up: up,
            // Nothing of this may reach the rules at all.
            project_id: "\"; drop".into(),
            dns_name: "a\nflush ruleset".into(),
            qos,
            ..port(1, &network("n1", 1, 1, "10.0.0.0/24"), &[], &[])
        })
}

fn any_world() -> impl Strategy<Value = World> {
    let networks = (0_u16..3, 0_u16..3).prop_map(|(a, b)| {
        vec![
            network("n1", 100, a, "10.0.0.0/24"),
            network("n2", 16_777_215, b, "10.0.0.0/24"),
        ]
    });
    (
        networks,
        prop::collection::vec(any_port(), 0..6),
        prop::collection::vec(any_group(), 0..5),
    )
}

/// What the kernel has, in an order that does not depend on how it came to be: chains, sets and maps by table and name; the
/// rules of a chain as they stand; the elements of a set, which the kernel keeps by hash, sorted.
fn listed() -> BTreeMap<String, Vec<String>> {
    let text = nft(&["list", "ruleset"], "").unwrap();
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = "";
    let mut block: Option<String> = None;
    for line in text.lines() {
        let name = line.trim().trim_end_matches(" {");
        match (line.chars().take_while(|c| *c == '\t').count(), &block) {
            (0, _) if line.starts_with("table ") => table = name,
            (1, None) if line.ends_with('{') => block = Some(format!("{table} {name}")),
            (1, _) if name == "}" => block = None,
            (_, Some(block)) => blocks.entry(block.clone()).or_default().push(name.to_owned()),
            _ => {}
        }
    }
    for (name, lines) in &mut blocks {
        if !name.contains(" chain ") {
            // nft breaks a long list of elements into lines.
            let joined = lines.join(" ");
            *lines = joined
                .split([' ', ','])
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect();
            lines.sort_unstable();
        }
    }
    assert!(blocks.len() > 10, "{text}");
    blocks
}

/// In a namespace of its own, for a number of random cases.
fn cases(n: u32, test: impl FnOnce(&mut TestRunner) + Send) {
    std::thread::scope(|s| {
        s.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            test(&mut TestRunner::new(Config {
                cases: n,
                failure_persistence: None,
                ..Config::default()
            }));
        });
    });
}

/// E4: whatever the API let through, the text is one that nft takes, and one port's fault leaves the others' rules.
#[test]
fn any_input_compiles_to_what_nft_accepts() {
    cases(96, |runner| {
        runner
            .run(&any_world(), |mut world| {
                world.1.push(port(0xffff, &world.0[0], &["10.0.0.9"], &["healthy"]));
                world.0[0].zone = 7;
                world.2.push(group("healthy", vec![ports("ok", true, 6, 22, 22)]));
                let compiled = compile(&input(&world));
                let text = compiled.ruleset.full();
                prop_assert!(text.contains("meta l4proto 6 th dport 22 accept"));
                prop_assert!(text.contains("goto s-0000ffff-0000-4000-8000-000000000000"));
                prop_assert!(!text.contains("flush ruleset"));
                if let Err(e) = nft(&["-c", "-f", "-"], &text) {
                    return Err(TestCaseError::fail(format!("{e}\n{text}")));
                }
                Ok(())
            })
            .unwrap();
    });
}

/// A change sent as a difference leads to the same rules as the whole.
#[test]
fn a_difference_leads_to_the_same_rules_as_the_whole() {
    cases(48, |runner| {
        runner
            .run(&(any_world(), any_world()), |(a, b)| {
                let (a, b) = (compile(&input(&a)), compile(&input(&b)));
                let by_delta = nft(&["-f", "-"], &a.ruleset.full())
                    .and_then(|_| nft(&["-f", "-"], &b.ruleset.delta(&a.ruleset)))
                    .map(|_| listed());
                let whole = nft(&["-f", "-"], &b.ruleset.full()).map(|_| listed());
                match (by_delta, whole) {
                    (Ok(x), Ok(y)) => prop_assert_eq!(x, y),
                    (x, y) => {
                        let text = b.ruleset.delta(&a.ruleset);
                        return Err(TestCaseError::fail(format!("{:?} {:?}\n{text}", x.err(), y.err())));
                    }
                }
                prop_assert_eq!(b.ruleset.delta(&b.ruleset), "");
                Ok(())
            })
            .unwrap();
    });
}

/// Every router's NAT is text that nft takes, with duplicate floating addresses and odd ids, too.
#[test]
fn any_router_compiles_to_what_nft_accepts() {
    let fip = (any::<[u8; 4]>(), 0_u8..4).prop_map(|(f, i)| FloatingIp {
        id: format!("f{i}"),
        floating: [203, 0, 113, f[0] & 3].into(),
        fixed: [10, 0, 0, f[1] & 3].into(),
        port_id: "x".into(),
    });
    let forwarding = (any::<[u8; 6]>(), 0_u8..4).prop_map(|(f, i)| Forwarding {
        id: format!("p{i}"),
        floating: [203, 0, 113, f[0] & 3].into(),
        protocol: [6, 17, 1][usize::from(f[1] % 3)],
        external_port: u16::from(f[2] & 3) + 1,
        fixed: [10, 0, 0, f[3] & 3].into(),
        internal_port: u16::from(f[4]) + 1,
    });
    let names = ["ftp", "tftp", "sip", "Q.931", "", "x y", "\"; }"];
    let helper = (any::<[u8; 4]>(), 0_usize..7).prop_map(move |(f, i)| ConntrackHelper {
        id: format!("h{}", f[0] & 7),
        // What the kernel has: it is asked first, the text is taken as it is here.
        name: names[i].into(),
        protocol: if names[i] == "tftp" {
            17
        } else {
            [6, 6, 0][usize::from(f[1] % 3)]
        },
        port: u16::from(f[2]),
    });
    let strategy = (
        prop::collection::vec(fip, 0..6),
        (
            prop::collection::vec(forwarding, 0..6),
            prop::collection::vec(helper, 0..6),
            prop::option::of(prop::collection::vec(any::<u128>().prop_map(Into::into), 0..4)),
        ),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just("aaaa-bbbb".to_owned()), "[ -~]{0,12}"],
    );
    cases(48, |runner| {
        runner
            .run(
                &strategy,
                |(floating_ips, (forwardings, helpers, proxies), snat, gateway, id)| {
                    let ext = network("ext", 5, 5, "203.0.113.0/24");
                    let gw = Port {
                        id: id.clone(),
                        ..port(1, &ext, &["203.0.113.10", "2001:db8::1"], &[])
                    };
                    let router = Router {
                        id: "r".into(),
                        admin_up: true,
                        gateway: gateway.then(|| Gateway {
                            port_id: id,
                            network_id: "ext".into(),
                            snat,
                        }),
                        interfaces: vec![],
                        routes: vec![],
                        floating_ips,
                        forwardings,
                        helpers,
                        ndp_proxies: proxies,
                    };
                    let c = compile_nat(&RouterNat {
                        router: &router,
                        ports: vec![&gw],
                        networks: vec![&ext],
                    });
                    nft(&["-c", "-f", "-"], &c.text).map_err(|e| TestCaseError::fail(format!("{e}\n{}", c.text)))?;
                    Ok(())
                },
            )
            .unwrap();
    });
}

/// Each malformed rule is named with its reason; the good ones beside it are compiled.
#[test]
fn malformed_rules_are_named_one_by_one() {
    let net = network("n1", 100, 7, "10.0.0.0/24");
    let p = port(1, &net, &["10.0.0.5"], &["g"]);
    let bad = vec![
        Rule {
            ip_version: 5,
            ..rule("version", true, 4)
        },
        Rule {
            remote_cidr: Some("2001:db8::/32".parse().unwrap()),
            ..rule("family", true, 4)
        },
        ports("backwards", true, 6, 80, 22),
        ports("no-ports", true, 47, 1, 2),
        Rule {
            port_min: Some(22),
            ..rule("any-with-port", true, 4)
        },
        Rule {
            protocol: Some(6),
            port_min: Some(22),
            ..rule("half", true, 4)
        },
        Rule {
            protocol: Some(1),
            port_min: Some(256),
            ..rule("icmp-type", true, 4)
        },
        Rule {
            protocol: Some(1),
            port_max: Some(1),
            ..rule("icmp-code-alone", true, 4)
        },
        Rule {
            protocol: Some(58),
            ..rule("icmpv6-in-4", true, 4)
        },
        Rule {
            remote_group: Some("x y; flush ruleset".into()),
            ..rule("group-id", true, 4)
        },
    ];
    let names: Vec<String> = bad.iter().map(|r| r.id.clone()).collect();
    let mut rules = bad;
    rules.insert(4, ports("good", true, 6, 443, 443));
    let g = group("g", rules);
    let compiled = compile(&FirewallInput {
        networks: vec![&net],
        ports: vec![&p],
        groups: vec![&g],
    });
    let faults: Vec<String> = compiled.faults.iter().map(|f| f.id.clone()).collect();
    assert_eq!(faults, names);
    assert!(compiled.faults.iter().all(|f| f.reason.len() > 20));
    assert_eq!(compiled.ruleset.full().matches("th dport").count(), 1);
}

#[test]
fn a_thousand_ports_and_one_more_is_a_small_change() {
    let net = network("n1", 100, 7, "10.0.0.0/16");
    let g = group("g", vec![ports("ssh", true, 6, 22, 22)]);
    let many: Vec<Port> = (1_u32..=1001)
        .map(|i| port(i, &net, &[&format!("10.0.{}.{}", i >> 8, i & 255)], &["g"]))
        .collect();
    let compiled = |n: usize| {
        compile(&FirewallInput {
            networks: vec![&net],
            ports: many[..n].iter().collect(),
            groups: vec![&g],
        })
    };
    let (a, b) = (compiled(1000), compiled(1001));
    let change = b.ruleset.delta(&a.ruleset);
    assert!(change.len() < 4096, "{} bytes", change.len());
    std::thread::scope(|s| {
        s.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let took = |text: &str| {
                let begin = std::time::Instant::now();
                nft(&["-f", "-"], text).unwrap();
                begin.elapsed()
            };
            let whole = took(&a.ruleset.full());
            let one_more = took(&change);
            println!("1000 ports as a whole: {whole:?}; one more: {one_more:?}");
        });
    });
}

/// The text of one port, one group with a remote group, and a floating address, word for word.
#[test]
fn the_text_is_as_it_was() {
    let net = network("n1", 100, 7, "10.0.0.0/24");
    let mut p = port(0xabc, &net, &["10.0.0.5", "2001:db8::5"], &["web"]);
    p.allowed_address_pairs = vec![("192.168.0.0/24".parse().unwrap(), None)];
    let mut g = group("web", egress_all());
    g.rules.push(ports("http", true, 6, 80, 81));
    g.rules.push(Rule {
        remote_group: Some("web".into()),
        ..rule("mates", true, 4)
    });
    g.rules.push(Rule {
        protocol: Some(1),
        port_min: Some(8),
        port_max: Some(0),
        ..rule("ping", true, 4)
    });
    g.members = vec!["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()];
    let compiled = compile(&FirewallInput {
        networks: vec![&net],
        ports: vec![&p],
        groups: vec![&g],
    });
    assert!(compiled.faults.is_empty());
    let text = compiled.ruleset.delta(&maru_firewall::Ruleset::default());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/port.nft");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(path).unwrap(),
        "run with UPDATE_GOLDEN=1 if the change is meant"
    );
}
