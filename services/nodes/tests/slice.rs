//! A slice is a pure function of the snapshot, and a stream tells an agent exactly that: the full set and the deltas after
//! it come to the same as the full set at the end, whatever happened in between.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{Agent, World, meta, net, port, server, world};
use maru_agent_api::{
    NodeName,
    slice::{Item, ItemKey},
};
use maru_compute_model as compute;
use maru_network_model as network;
use maru_nodes::slice;
use maru_store::{Key, Op, Txn};
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeSet;

/// The first port that is a router's.
const ROUTERS: u8 = 4;
/// How many servers there are.
const SERVERS: u8 = 3;
/// How long an agent may have to wait for a delivery.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
const HOSTS: [&str; 2] = ["here", "there"];

/// One change of the world, over few ids, so that changes meet. Nothing keeps references whole: a slice is defined for any
/// snapshot. Only this holds as in a real one: a port below `ROUTERS` is a server's, and only the server that it names as
/// its device lists it; the others are routers'.
#[derive(Debug, Clone)]
enum Change {
    Server(u8, Option<u8>, bool, bool, Vec<u8>, u8),
    Port(u8, u8, u8, u8, Vec<u8>),
    Network(u8, u32),
    Subnet(u8, u8, bool),
    Router(u8, Option<u8>, Option<u8>, bool),
    Group(u8, bool),
    Rule(u8, u8, Option<u8>, u16),
    FloatingIp(u8, Option<u8>, Option<u8>),
    Buried(u8, u8, u8),
    Aggregate(u8, bool),
    Removal(u8, u8),
    Noise(u8),
    /// The agent's connection is lost and made again.
    Reconnect,
    /// The agent listens for a while.
    Listen,
}

fn change() -> impl Strategy<Value = Change> {
    let id = 0..3_u8;
    let host = || prop::option::weighted(0.8, 0..2_u8);
    prop_oneof![
        3 => (id.clone(), host(), any::<bool>(), prop::bool::weighted(0.2), vec(0..4_u8, 0..3), 0..3_u8)
            .prop_map(|(i, h, p, d, ports, n)| Change::Server(i, h, p, d, ports, n)),
        4 => (0..7_u8, 0..3_u8, 0..3_u8, 0..4_u8, vec(0..3_u8, 0..3))
            .prop_map(|(i, n, h, d, g)| Change::Port(i, n, h, d, g)),
        2 => (id.clone(), 1_400..1_402_u32).prop_map(|(i, m)| Change::Network(i, m)),
        1 => (0..2_u8, id.clone(), any::<bool>()).prop_map(|(i, n, d)| Change::Subnet(i, n, d)),
        2 => (id.clone(), host(), prop::option::of(0..3_u8), any::<bool>()).prop_map(|(i, h, g, s)| Change::Router(i, h, g, s)),
        1 => (id.clone(), any::<bool>()).prop_map(|(i, s)| Change::Group(i, s)),
        2 => (id.clone(), 0..3_u8, prop::option::of(0..3_u8), 1..3_u16).prop_map(|(i, g, r, p)| Change::Rule(i, g, r, p)),
        1 => (0..2_u8, prop::option::of(0..3_u8), prop::option::of(0..4_u8)).prop_map(|(i, r, p)| Change::FloatingIp(i, r, p)),
        2 => (0..3_u8, id.clone(), 0..2_u8).prop_map(|(k, i, h)| Change::Buried(k, i, h)),
        1 => (0..2_u8, any::<bool>()).prop_map(|(h, z)| Change::Aggregate(h, z)),
        4 => (0..12_u8, 0..7_u8).prop_map(|(k, i)| Change::Removal(k, i)),
        2 => any::<u8>().prop_map(Change::Noise),
        1 => Just(Change::Reconnect),
        2 => Just(Change::Listen),
    ]
}

fn name(kind: &str, at: u8) -> String {
    format!("{kind}{at}")
}

fn names(kind: &str, at: &[u8]) -> Vec<String> {
    let set: BTreeSet<u8> = at.iter().copied().collect();
    set.into_iter().map(|a| name(kind, a)).collect()
}

fn ip(at: u8) -> std::net::IpAddr {
    std::net::Ipv4Addr::new(10, 0, 0, at).into()
}

#[allow(clippy::too_many_lines)]
fn write(txn: &mut Txn, change: &Change) {
    match change.clone() {
        Change::Server(i, host, placed, deleting, ports, what) => {
            let own: Vec<u8> = ports.into_iter().filter(|p| p % SERVERS == i).collect();
            let host = host.map(|h| HOSTS[usize::from(h)]);
            let mut s = server(&format!("n{what}"), host, placed, &names("port", &own));
            s.task = deleting.then_some(compute::Task::Deleting);
            txn.put(&compute::ServerId::from(name("server", i)), &s);
        }
        Change::Port(i, n, host, device, groups) => {
            let host = HOSTS.get(usize::from(host)).copied().unwrap_or("");
            let (device, owner) = if i >= ROUTERS {
                (name("router", device), "network:router_interface")
            } else {
                (name("server", i % SERVERS), "compute:nova")
            };
            let p = port(&name("net", n), host, &device, owner, &names("group", &groups), i + 1);
            txn.put(&network::PortId::from(name("port", i)), &p);
        }
        Change::Network(i, mtu) => {
            txn.put(&network::NetworkId::from(name("net", i)), &net(mtu));
        }
        Change::Subnet(i, n, dhcp) => {
            let subnet = network::Subnet {
                project_id: "p".into(),
                network_id: name("net", n).into(),
                name: String::new(),
                cidr: "10.0.0.0/24".parse().unwrap(),
                gateway_ip: None,
                enable_dhcp: dhcp,
                pools: Vec::new(),
                dns_nameservers: Vec::new(),
                host_routes: Vec::new(),
                ipv6_ra_mode: None,
                ipv6_address_mode: None,
                service_types: Vec::new(),
                subnetpool_id: None,
                meta: meta(),
            };
            txn.put(&network::SubnetId::from(name("subnet", i)), &subnet);
        }
        Change::Router(i, host, gateway, snat) => {
            let router = network::Router {
                project_id: "p".into(),
                name: String::new(),
                admin_state_up: true,
                gateway: gateway.map(|g| network::Gateway {
                    network_id: name("net", g).into(),
                    port_id: name("port", g).into(),
                    enable_snat: snat,
                }),
                routes: Vec::new(),
                host: host.map(|h| HOSTS[usize::from(h)].to_owned()),
                availability_zone_hints: Vec::new(),
                distributed: false,
                ha: false,
                parked: false,
                conntrack_helpers: Vec::new(),
                enable_ndp_proxy: false,
                meta: meta(),
            };
            txn.put(&network::RouterId::from(name("router", i)), &router);
        }
        Change::Group(i, stateful) => {
            let group = network::SecurityGroup {
                project_id: "p".into(),
                name: String::new(),
                stateful,
                is_default: false,
                meta: meta(),
            };
            txn.put(&network::SecurityGroupId::from(name("group", i)), &group);
        }
        Change::Rule(i, group, remote, port) => {
            let rule = network::SecurityGroupRule {
                project_id: "p".into(),
                security_group_id: name("group", group).into(),
                direction: network::Direction::Ingress,
                ethertype: "IPv4".to_owned(),
                protocol: Some("tcp".to_owned()),
                port_range_min: Some(port),
                port_range_max: Some(port),
                remote_ip_prefix: None,
                remote_group_id: remote.map(|r| name("group", r).into()),
                remote_address_group_id: None,
                meta: meta(),
            };
            txn.put(&network::SecurityGroupRuleId::from(name("rule", i)), &rule);
        }
        Change::FloatingIp(i, router, port) => {
            let fip = network::FloatingIp {
                project_id: "p".into(),
                floating_network_id: "net0".into(),
                floating_ip_address: std::net::Ipv4Addr::new(192, 0, 2, i),
                floating_port_id: "none".into(),
                port_id: port.map(|p| name("port", p).into()),
                fixed_ip_address: port.map(ip),
                router_id: router.map(|r| name("router", r).into()),
                dns_name: String::new(),
                dns_domain: String::new(),
                meta: meta(),
            };
            txn.put(&network::FloatingIpId::from(name("fip", i)), &fip);
        }
        Change::Buried(kind, i, host) => {
            let host = HOSTS[usize::from(host)].to_owned();
            match kind {
                0 => {
                    let tomb = network::TombstonePort {
                        host,
                        network_id: "net0".into(),
                        revision: 1,
                    };
                    txn.put(&network::PortId::from(name("port", i)), &tomb);
                }
                1 => {
                    let tomb = network::TombstoneNetwork {
                        hosts: vec![host],
                        vni: 7,
                        zone: 7,
                        revision: 1,
                    };
                    txn.put(&network::NetworkId::from(name("net", i)), &tomb);
                }
                _ => {
                    let tomb = network::TombstoneRouter { host, revision: 1 };
                    txn.put(&network::RouterId::from(name("router", i)), &tomb);
                }
            }
        }
        Change::Aggregate(host, zone) => {
            let aggregate: compute::Aggregate = serde_json::from_value(serde_json::json!({
                "uuid": "u", "name": "a", "hosts": [HOSTS[usize::from(host)]],
                "metadata": if zone { serde_json::json!({"availability_zone": "z"}) } else { serde_json::json!({}) },
                "created": "2026-01-01T00:00:00Z", "updated": null,
            }))
            .unwrap();
            txn.put(&compute::AggregateId::from("1"), &aggregate);
        }
        Change::Removal(kind, i) => {
            let (kind, prefix) = [
                ("server", "server"),
                ("port", "port"),
                ("network", "net"),
                ("subnet", "subnet"),
                ("router", "router"),
                ("security_group", "group"),
                ("security_group_rule", "rule"),
                ("floating_ip", "fip"),
                ("tombstone_port", "port"),
                ("tombstone_network", "net"),
                ("tombstone_router", "router"),
                ("aggregate", ""),
            ][usize::from(kind)];
            let id = if prefix.is_empty() {
                "1".to_owned()
            } else {
                name(prefix, i)
            };
            txn.op(Op::Delete(Key::of(&[kind, &id])));
        }
        Change::Noise(n) => {
            txn.add(Key::of(&["counter", "noise", &n.to_string()]), 1, None);
        }
        Change::Reconnect | Change::Listen => {}
    }
}

/// Every item has a reason to be there, and nothing is both wanted and gone.
fn justified(snapshot: &maru_store::Snapshot, node: &str, now: &slice::Slice) {
    let nets: BTreeSet<&String> = now
        .items
        .keys()
        .filter_map(|k| if let ItemKey::Network(n) = k { Some(n) } else { None })
        .collect();
    let groups = groups_of(snapshot, node, now);
    for (key, item) in &now.items {
        assert_eq!(*key, item.key());
        assert!(!now.gone.contains(key), "{key:?} shall be and shall not be");
        match item {
            Item::Server(s) => {
                let stored = snapshot
                    .get::<compute::Server>(&compute::ServerId::from(s.id.as_str()))
                    .unwrap();
                assert_eq!(stored.host.as_deref(), Some(node), "a server of another node");
                assert!(stored.placed && stored.task != Some(compute::Task::Deleting));
            }
            Item::Port(p) => {
                let router = snapshot
                    .get::<network::Router>(&network::RouterId::from(p.device_id.as_str()))
                    .is_some_and(|r| r.host.as_deref() == Some(node));
                // Its own, its router's, its server's, or a neighbour on a network that is here.
                let server = now
                    .items
                    .values()
                    .any(|i| matches!(i, Item::Server(s) if s.ports.contains(&p.id)));
                assert!(
                    p.host.as_deref() == Some(node) || router || server || nets.contains(&p.network_id),
                    "{p:?}"
                );
            }
            Item::Network(n) => {
                let used = now
                    .items
                    .values()
                    .any(|i| matches!(i, Item::Port(p) if p.network_id == n.id));
                assert!(used, "a network without a port");
            }
            Item::Router(r) => {
                let stored = snapshot
                    .get::<network::Router>(&network::RouterId::from(r.id.as_str()))
                    .unwrap();
                assert_eq!(stored.host.as_deref(), Some(node));
            }
            Item::SecurityGroup(g) => assert!(groups.contains(&g.id), "a group that nothing here names"),
            Item::Volume(_) | Item::VolumeSnapshot(_) => panic!("nobody made a volume here"),
        }
    }
}

/// The groups of a node's own ports, and those that rules of such groups name.
fn groups_of(snapshot: &maru_store::Snapshot, node: &str, now: &slice::Slice) -> BTreeSet<String> {
    let own = now.items.values().filter_map(|i| match i {
        Item::Port(p) if p.host.as_deref() == Some(node) => Some(p.security_groups.clone()),
        _ => None,
    });
    let mut groups: BTreeSet<String> = own.flatten().collect();
    loop {
        let rules = groups
            .iter()
            .flat_map(|g| snapshot.find::<network::SecurityGroupRule>("group", g));
        let remote: BTreeSet<String> = rules
            .filter_map(|r| r.remote_group_id.as_ref().map(ToString::to_string))
            .collect();
        if remote.is_subset(&groups) {
            return groups;
        }
        groups.extend(remote);
    }
}

async fn reconnect(world: &World, sessions: &mut u64) -> Agent {
    *sessions += 1;
    let (_, agent) = world.connect("here", *sessions).await;
    agent
}

/// Without any further write an agent hears how things are.
async fn hears(world: &World, agent: &mut Agent) {
    let now = slice::of(&world.store.snapshot(), &NodeName::from("here"));
    let told = |a: &Agent| a.synced > 0 && a.items == now.items && a.gone.is_superset(&now.gone);
    agent.within(PATIENCE, "that all is told", told).await;
}

async fn live_through(changes: &[Change]) {
    let world = world().await;
    let node = NodeName::from("here");
    let mut sessions = 0;
    let mut agent = reconnect(&world, &mut sessions).await;
    for change in changes {
        match change {
            Change::Reconnect => {
                agent = reconnect(&world, &mut sessions).await;
                continue;
            }
            Change::Listen => {
                hears(&world, &mut agent).await;
                continue;
            }
            _ => {}
        }
        world.write(|txn| write(txn, change)).await;
        let snapshot = world.store.snapshot();
        let now = slice::of(&snapshot, &node);
        assert_eq!(now, slice::of(&snapshot, &node), "not a function of the snapshot");
        justified(&snapshot, "here", &now);
    }
    hears(&world, &mut agent).await;
    agent.catch_up(&world, "here").await;
    assert_eq!(agent.synced, 1);
    let now = slice::of(&world.store.snapshot(), &node);
    assert_eq!(agent.items, now.items);
    assert!(
        agent.gone.is_superset(&now.gone),
        "not told: {:?}",
        now.gone.difference(&agent.gone)
    );
    // Whoever connects now hears the same at once.
    let mut fresh = reconnect(&world, &mut sessions).await;
    fresh.synced().await;
    assert_eq!(fresh.items, now.items);
    assert_eq!(fresh.gone, now.gone);
    assert!(fresh.heard == now.items.len() + now.gone.len() + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn deltas_come_to_the_same_as_the_full_set(changes in vec(change(), 1..60)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
            .block_on(live_through(&changes));
    }
}

/// What concerns no slice is not computed and not told: a stream stays silent however much else is written.
#[tokio::test]
async fn what_is_of_no_concern_is_not_told() {
    let world = world().await;
    // What is to be removed is told once, too.
    world.write(|txn| write(txn, &Change::Buried(0, 1, 0))).await;
    let (_, mut agent) = world.connect("here", 1).await;
    agent.catch_up(&world, "here").await;
    assert_eq!(agent.gone.len(), 1);
    let heard = agent.heard;
    for n in 0..200_u8 {
        world.write(|txn| write(txn, &Change::Noise(n))).await;
        world
            .write(|txn| write(txn, &Change::Server(0, Some(1), true, false, vec![], n)))
            .await;
    }
    agent.catch_up(&world, "here").await;
    assert_eq!(agent.heard, heard + 2, "only the sentinel's two changes");
}

#[tokio::test]
async fn a_node_that_is_told_not_to_answers_no_dhcp() {
    let world = world().await;
    for at in [0, 1] {
        world
            .write(|txn| write(txn, &Change::Port(4 + at, 0, at, 0, vec![])))
            .await;
    }
    world.write(|txn| write(txn, &Change::Subnet(0, 0, true))).await;
    for (off, here) in [(Vec::new(), true), (vec!["here".to_owned()], false)] {
        let mut network = net(1_400);
        network.dhcp_off = off;
        let id = network::NetworkId::from(name("net", 0));
        world
            .write(|txn| {
                txn.put(&id, &network);
            })
            .await;
        let snapshot = world.store.snapshot();
        for (host, wanted) in [("here", here), ("there", true)] {
            let told = slice::of(&snapshot, &NodeName::from(host));
            let Some(Item::Network(told)) = told.items.get(&ItemKey::Network(id.to_string())) else {
                panic!("{host} has not the network");
            };
            assert_eq!(told.subnets[0].dhcp, wanted, "{host}");
        }
    }
}

/// A subport is told with the port that carries it, and again when its VLAN id is another one.
#[tokio::test]
async fn a_subport_is_told_with_its_parent() {
    let world = world().await;
    for at in [0, 1] {
        world.write(|txn| write(txn, &Change::Port(at, 0, 0, 0, vec![]))).await;
    }
    let [parent, sub] = [0, 1].map(|at| network::PortId::from(name("port", at)));
    let mut port = (*world.store.snapshot().get::<network::Port>(&sub).unwrap().value).clone();
    port.device_owner = network::trunk::SUBPORT.to_owned();
    let trunk = |segmentation_id| network::Trunk {
        project_id: "p".into(),
        name: String::new(),
        port_id: parent.clone(),
        sub_ports: vec![network::SubPort {
            port_id: sub.clone(),
            segmentation_id,
        }],
        admin_state_up: true,
        meta: network::Meta::new(""),
    };
    world
        .write(|txn| {
            txn.put(&sub, &port);
        })
        .await;
    let (_, mut agent) = world.connect("here", 1).await;
    for vlan in [7, 8] {
        world
            .write(|txn| {
                txn.put(&network::TrunkId::from("trunk"), &trunk(vlan));
            })
            .await;
        hears(&world, &mut agent).await;
        let told = slice::of(&world.store.snapshot(), &"here".into());
        let link = |id: &network::PortId| match told.items.get(&ItemKey::Port(id.to_string())) {
            Some(Item::Port(p)) => p.trunk.clone().map(|t| (t.parent, t.vlan)),
            other => panic!("{other:?}"),
        };
        assert_eq!(link(&sub), Some((parent.to_string(), vlan)));
        assert_eq!(link(&parent), None);
    }
}

/// A change of every kind that a slice is made of is told without any other change.
#[tokio::test]
async fn every_kind_is_told() {
    let world = world().await;
    let base = [
        Change::Network(0, 1_400),
        Change::Subnet(0, 0, false),
        Change::Group(0, true),
        Change::Group(1, true),
        Change::Rule(0, 0, Some(1), 1),
        Change::Port(0, 0, 0, 0, vec![0]),
        Change::Port(4, 0, 2, 0, vec![]),
        Change::Server(0, Some(0), true, false, vec![0], 0),
        Change::Router(0, Some(0), None, false),
    ];
    for change in &base {
        world.write(|txn| write(txn, change)).await;
    }
    let (_, mut agent) = world.connect("here", 1).await;
    hears(&world, &mut agent).await;
    let each = [
        Change::Network(0, 1_401),
        Change::Subnet(0, 0, true),
        Change::Subnet(1, 0, true),
        Change::Group(0, false),
        Change::Rule(0, 0, Some(1), 2),
        Change::Port(2, 0, 1, 1, vec![1]),
        Change::Port(0, 0, 0, 0, vec![1]),
        Change::Server(0, Some(0), true, false, vec![0], 1),
        Change::Router(0, Some(0), Some(1), true),
        Change::FloatingIp(0, Some(0), Some(0)),
        Change::Aggregate(0, true),
        Change::Buried(0, 3, 0),
        Change::Buried(1, 2, 0),
        Change::Buried(2, 2, 0),
        // And their removal.
        Change::Removal(11, 0),
        Change::Removal(7, 0),
        Change::Removal(3, 1),
        Change::Removal(5, 1),
        Change::Removal(1, 2),
        Change::Server(0, Some(0), true, true, vec![0], 1),
        Change::Server(0, Some(1), true, false, vec![0], 1),
        Change::Removal(1, 0),
        Change::Removal(4, 0),
    ];
    for change in each {
        let before = slice::of(&world.store.snapshot(), &"here".into());
        world.write(|txn| write(txn, &change)).await;
        let after = slice::of(&world.store.snapshot(), &"here".into());
        assert!(before != after, "{change:?} changes nothing");
        hears(&world, &mut agent).await;
    }
}
