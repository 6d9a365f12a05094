//! The link driver on a real kernel. Each test has a network namespace of its own as "the host", so nothing of the machine's
//! own links is touched; each instance has a name of its own and is torn down.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maru_agent_api::slice::{FloatingIp, Gateway, Network, Port, Router, Subnet};
use maru_link::{Known, LinkConfig, Links, Netns, RouterSpec, Uplink, in_namespace};
use nix::sched::{CloneFlags, unshare};
use std::future::Future;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Runs a test in a fresh host namespace. Fails, with the reason, where that is not allowed.
fn host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|s| {
        s.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            // Threads of this runtime are started from here and inherit the namespace.
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
                .block_on(test());
        });
    });
}

fn instance() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static N: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{:x}{}",
        std::process::id() & 0xfffff,
        N.fetch_add(1, Ordering::Relaxed)
    )
}

async fn open(instance: &str, uplink: Uplink) -> Links {
    Links::open(LinkConfig {
        instance: instance.into(),
        uplink,
    })
    .await
    .unwrap()
}

fn network(id: &str, vni: u32, cidr: &str, gateway: &str, dhcp: Option<&str>, external: bool) -> Network {
    let subnet = Subnet {
        id: format!("{id}-sub"),
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        dhcp: dhcp.is_some(),
        dns: vec![],
        routes: vec![],
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        dhcp_address: dhcp.map(|a| a.parse().unwrap()),
    };
    let zone = u16::try_from(vni).unwrap();
    Network {
        id: id.into(),
        vni,
        zone,
        mtu: 1450,
        external,
        admin_up: true,
        subnets: vec![subnet],
    }
}

fn port(id: &str, network: &Network, mac: &str, ip: &str) -> Port {
    Port {
        id: id.into(),
        network_id: network.id.clone(),
        project_id: "p".into(),
        host: None,
        device_id: String::new(),
        device_owner: String::new(),
        mac: mac.into(),
        fixed_ips: vec![(network.subnets[0].id.clone(), ip.parse().unwrap())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    }
}

/// Whether the address answers at all: a refused connection is an answer.
fn answers(to: &str) -> bool {
    let to: SocketAddr = format!("{to}:9").parse().unwrap();
    match TcpStream::connect_timeout(&to, Duration::from_millis(1500)) {
        Ok(_) => true,
        Err(e) => e.kind() == ErrorKind::ConnectionRefused,
    }
}

fn answers_from(netns: &Netns, to: &str) -> bool {
    in_namespace(&netns.path(), || answers(to)).unwrap()
}

fn left(instance: &str) -> Vec<String> {
    let names = std::fs::read_dir("/run/netns")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().into_string().ok());
    let own = |n: &String| n == instance || n.starts_with(&format!("{instance}-"));
    let links = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let links = links
        .lines()
        .filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()))
        .filter(own)
        .collect::<Vec<_>>();
    names.filter(own).chain(links).collect()
}

#[test]
fn the_host_reaches_a_router_and_its_floating_address_and_nothing_is_left_after_teardown() {
    host(|| async {
        let name = instance();
        let links = open(&name, Uplink::Routed).await;
        let ext = network("ext", 300, "203.0.113.0/24", "203.0.113.1", None, true);
        let inside = network("inside", 301, "10.0.0.0/24", "10.0.0.1", Some("10.0.0.2"), false);
        let out = links.ensure_network(&ext, None).await.unwrap();
        assert_eq!(out.way_out.as_deref(), Some(format!("{name}-12c").as_str()));
        assert!(
            out.responder.is_none(),
            "an external network without DHCP has no responder"
        );
        let responder = links.ensure_network(&inside, None).await.unwrap().responder.unwrap();

        let gw = port("11111111-1111-4111", &ext, "fa:16:3e:00:00:10", "203.0.113.10");
        let itf = port("22222222-2222-4222", &inside, "fa:16:3e:00:00:11", "10.0.0.1");
        let fip = |ip: [u8; 4]| FloatingIp {
            id: "f".into(),
            floating: ip.into(),
            fixed: [10, 0, 0, 5].into(),
            port_id: "x".into(),
        };
        let mut router = Router {
            id: "router-1".into(),
            admin_up: true,
            gateway: Some(Gateway {
                port_id: gw.id.clone(),
                network_id: "ext".into(),
                snat: true,
            }),
            interfaces: vec![itf.id.clone()],
            routes: vec![("192.168.9.0/24".parse().unwrap(), "10.99.99.99".parse().unwrap())],
            floating_ips: vec![fip([203, 0, 113, 20])],
            forwardings: vec![],
            helpers: vec![],
            ndp_proxies: None,
        };
        let netns = links.ensure_router_namespace(&router.id).await.unwrap();
        macro_rules! spec {
            ($router:expr) => {
                &RouterSpec {
                    router: $router,
                    ports: vec![&gw, &itf],
                    networks: vec![&ext, &inside],
                }
            };
        }
        let made = links.ensure_router(spec!(&router)).await.unwrap();
        assert_eq!(made.netns, netns);
        assert_eq!(
            made.faults.len(),
            1,
            "the route with a next hop on no subnet is reported: {:?}",
            made.faults
        );
        assert!(answers("203.0.113.10"), "the gateway's address");
        assert!(answers("203.0.113.20"), "the floating address");
        // The responder sees the router, and the router the responder, on the tenant's bridge; the metadata address is
        // reached from the router's side by the rule for what comes in there, and from the link directly.
        assert!(answers_from(&responder.netns, "10.0.0.1"));
        assert!(answers_from(&netns, "10.0.0.2"));
        assert!(!answers("10.0.0.2"), "the host has no way into a tenant's network");

        // A floating address moves at once; repeating changes nothing.
        router.floating_ips = vec![fip([203, 0, 113, 21])];
        links.ensure_router(spec!(&router)).await.unwrap();
        links.ensure_router(spec!(&router)).await.unwrap();
        assert!(answers("203.0.113.21") && !answers("203.0.113.20"));

        // Administratively down and up again.
        router.admin_up = false;
        links.ensure_router(spec!(&router)).await.unwrap();
        assert!(!answers("203.0.113.10"));
        router.admin_up = true;
        links.ensure_router(spec!(&router)).await.unwrap();
        assert!(answers("203.0.113.10"));

        links.remove_router(&router.id).await.unwrap();
        links.remove_router(&router.id).await.unwrap();
        links.teardown().await.unwrap();
        assert_eq!(left(&name), Vec::<String>::new());
    });
}

#[test]
fn a_tap_is_made_down_opened_by_one_and_removed() {
    host(|| async {
        let name = instance();
        let links = open(&name, Uplink::Routed).await;
        let net = network("n1", 400, "10.0.0.0/24", "10.0.0.1", None, false);
        let p = port(
            "33333333-3333-4333-8333-333333333333",
            &net,
            "fa:16:3e:00:00:20",
            "10.0.0.5",
        );
        assert!(
            links
                .ensure_port(&p, &net)
                .await
                .unwrap_err()
                .message()
                .contains("bridge br400")
        );
        links.ensure_network(&net, None).await.unwrap();
        let made = links.ensure_port(&p, &net).await.unwrap();
        assert!(made.created && made.tap == "tap33333333-33");
        assert!(!links.ensure_port(&p, &net).await.unwrap().created);
        assert!(
            !links.observe().await.unwrap().ports[&p.id].up,
            "no frame before the firewall is in place"
        );
        let fd = links.open_tap(&p.id).await.unwrap();
        assert!(
            links
                .open_tap(&p.id)
                .await
                .unwrap_err()
                .message()
                .contains("Another process")
        );
        links.port_up(&p.id, true).await.unwrap();
        let seen = links.observe().await.unwrap();
        assert!(seen.ports[&p.id].up && seen.networks["n1"] == "br400" && seen.responders.contains("n1"));
        drop(fd);

        // A port with the same first 11 characters is refused, not mixed up.
        let twin = port(
            "33333333-33ff-4333-8333-333333333333",
            &net,
            "fa:16:3e:00:00:21",
            "10.0.0.6",
        );
        assert!(links.ensure_port(&twin, &net).await.is_err());
        // Two networks on one segment number are refused.
        let other = network("n2", 400, "10.1.0.0/24", "10.1.0.1", None, false);
        assert!(
            links
                .ensure_network(&other, None)
                .await
                .unwrap_err()
                .message()
                .contains("twice")
        );

        // What the slice does not know is removed, what it knows stays.
        let known = Known {
            networks: ["n1".to_owned()].into(),
            ..Known::default()
        };
        let removed = links.remove_unknown(&known).await.unwrap();
        assert!(removed.ports.contains_key(&p.id) && removed.networks.is_empty());
        assert!(links.open_tap(&p.id).await.is_err());
        links.remove_port(&p.id).await.unwrap();
        links.remove_network("n1").await.unwrap();
        assert_eq!(links.observe().await.unwrap(), maru_link::Observed::default());
        links.teardown().await.unwrap();
        assert_eq!(left(&name), Vec::<String>::new());
    });
}

#[test]
fn a_restarted_agent_finds_everything_and_two_instances_do_not_meet() {
    host(|| async {
        let (a, b) = (instance(), instance());
        let net = network("n1", 500, "10.0.0.0/24", "10.0.0.1", Some("10.0.0.2"), false);
        let p = port("44444444-4444-4444", &net, "fa:16:3e:00:00:30", "10.0.0.5");
        let first = open(&a, Uplink::Routed).await;
        first.ensure_network(&net, None).await.unwrap();
        first.ensure_port(&p, &net).await.unwrap();
        first.port_up(&p.id, true).await.unwrap();
        let other = open(&b, Uplink::Routed).await;
        other.ensure_network(&net, None).await.unwrap();
        other.ensure_port(&p, &net).await.unwrap();
        drop(first);
        let again = open(&a, Uplink::Routed).await;
        assert!(again.observe().await.unwrap().ports[&p.id].up);
        assert!(!again.ensure_port(&p, &net).await.unwrap().created);
        again.teardown().await.unwrap();
        assert!(left(&a).is_empty() && !left(&b).is_empty());
        assert!(other.observe().await.unwrap().ports.contains_key(&p.id));
        other.teardown().await.unwrap();
        assert!(left(&b).is_empty());
    });
}

#[test]
fn an_uplink_device_joins_the_external_network_and_goes_back() {
    host(|| async {
        let name = instance();
        // The LAN's side of the uplink, in this test's host namespace.
        let made = std::process::Command::new("ip")
            .args("link add lan0 type veth peer name uplink0".split(' '))
            .status()
            .unwrap();
        assert!(made.success());
        for args in ["addr add 203.0.113.1/24 dev lan0", "link set lan0 up"] {
            assert!(
                std::process::Command::new("ip")
                    .args(args.split(' '))
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let missing = open(&name, Uplink::Device("nosuch0".into())).await;
        let ext = network("ext", 600, "203.0.113.0/24", "203.0.113.1", None, true);
        assert!(
            missing
                .ensure_network(&ext, None)
                .await
                .unwrap_err()
                .message()
                .contains("nosuch0")
        );
        drop(missing);
        let links = open(&name, Uplink::Device("uplink0".into())).await;
        assert_eq!(
            links.ensure_network(&ext, None).await.unwrap().way_out.as_deref(),
            Some("uplink0")
        );
        let gw = port("55555555-5555-4555", &ext, "fa:16:3e:00:00:40", "203.0.113.10");
        let router = Router {
            id: "router-2".into(),
            admin_up: true,
            gateway: Some(Gateway {
                port_id: gw.id.clone(),
                network_id: "ext".into(),
                snat: true,
            }),
            interfaces: vec![],
            routes: vec![],
            floating_ips: vec![],
            forwardings: vec![],
            helpers: vec![],
            ndp_proxies: None,
        };
        links
            .ensure_router(&RouterSpec {
                router: &router,
                ports: vec![&gw],
                networks: vec![&ext],
            })
            .await
            .unwrap();
        assert!(answers("203.0.113.10"), "a router is reached over the LAN");
        links.teardown().await.unwrap();
        assert!(std::fs::read_to_string("/proc/net/dev").is_ok());
        let back = std::process::Command::new("ip")
            .args(["link", "show", "uplink0"])
            .output()
            .unwrap();
        assert!(back.status.success(), "the device is the host's again");
        assert!(left(&name).is_empty());
    });
}
