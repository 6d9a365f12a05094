//! The whole machine part without a control plane: a slice in, a guest out that SSH reaches through a floating IP, that
//! survives its agent, and of which nothing is left.
//!
//! Needs root, QEMU and the guest image (`guest/build`). The instance has a host namespace of its own, so nothing of the
//! machine's own network is touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use async_trait::async_trait;
use maru_agent::{Agent, AgentConfig};
use maru_agent_api::{
    ControlPlane, Delivery, NodeName, Session,
    lane::{ByteStream, Lanes},
    observed::{Hello, PowerState, Report},
    slice::*,
};
use maru_base::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

struct Fake {
    image: PathBuf,
    items: Mutex<Vec<Item>>,
    streams: Mutex<Vec<mpsc::Sender<Delivery>>>,
    reports: Mutex<Vec<Report>>,
}

impl Fake {
    async fn tell(&self, delivery: Delivery) {
        let streams = self.streams.lock().unwrap().clone();
        for s in streams {
            s.send(delivery.clone()).await.ok();
        }
    }
    async fn until(&self, what: &str, limit: u64, check: impl Fn(&[Report]) -> bool) {
        let end = Instant::now() + Duration::from_secs(limit);
        while !check(&self.reports.lock().unwrap()) {
            assert!(
                Instant::now() < end,
                "{what}: not within {limit} s; {:#?}",
                self.reports.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[async_trait]
impl ControlPlane for Fake {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let (tx, rx) = mpsc::channel(100);
        for item in self.items.lock().unwrap().clone() {
            tx.try_send(Delivery::Set(1, Box::new(item))).unwrap();
        }
        tx.try_send(Delivery::Synced(1)).unwrap();
        self.streams.lock().unwrap().push(tx);
        Ok((
            Session {
                node: hello.node,
                id: hello.session,
                incarnation: String::new(),
            },
            rx,
        ))
    }
    async fn report(&self, _: &Session, _: u64, reports: Vec<Report>) -> Result<()> {
        self.reports.lock().unwrap().extend(reports);
        Ok(())
    }
    async fn heartbeat(&self, _: &Session) -> Result<()> {
        Ok(())
    }
    async fn pull(&self, _: &Session, _: &str) -> Result<ByteStream> {
        Ok(Box::new(tokio::fs::File::open(&self.image).await.unwrap()))
    }
    async fn offer_lanes(&self, _: &Session, _: Arc<dyn Lanes>) -> Result<()> {
        Ok(())
    }
}

const SERVER: &str = "0a0b0c0d-0000-4000-8000-00000000a6e1";

fn slice(digest: &str, key: &str) -> Vec<Item> {
    let port = |id: &str, net: &str, subnet: &str, ip: &str, owner: &str, mac: &str, host: Option<&str>| {
        Item::Port(Port {
            id: id.into(),
            network_id: net.into(),
            project_id: "p".into(),
            host: host.map(Into::into),
            device_id: String::new(),
            device_owner: owner.into(),
            mac: mac.into(),
            fixed_ips: vec![(subnet.into(), ip.parse().unwrap())],
            allowed_address_pairs: vec![],
            security_groups: if owner.starts_with("compute") {
                vec!["sg".into()]
            } else {
                vec![]
            },
            port_security: owner.starts_with("compute"),
            admin_up: true,
            extra_dhcp_opts: vec![],
            dns_name: "vm1".into(),
            qos: maru_agent_api::slice::PortQos::default(),
            trunk: None,
        })
    };
    let subnet = |id: &str, cidr: &str, gateway: &str, dhcp: Option<&str>| Subnet {
        id: id.into(),
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        dhcp: dhcp.is_some(),
        dns: vec![],
        routes: vec![],
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        dhcp_address: dhcp.map(|a| a.parse().unwrap()),
    };
    vec![
        Item::Network(Network {
            id: "11111111-0000-4000-8000-000000000001".into(),
            vni: 71,
            zone: 71,
            mtu: 1450,
            external: false,
            admin_up: true,
            subnets: vec![subnet("s1", "10.20.0.0/24", "10.20.0.1", Some("10.20.0.2"))],
        }),
        Item::Network(Network {
            id: "22222222-0000-4000-8000-000000000002".into(),
            vni: 72,
            zone: 72,
            mtu: 1500,
            external: true,
            admin_up: true,
            subnets: vec![subnet("s2", "172.24.4.0/24", "172.24.4.1", None)],
        }),
        port(
            "aaaaaaaa-0000-4000-8000-00000000000a",
            "11111111-0000-4000-8000-000000000001",
            "s1",
            "10.20.0.7",
            "compute:nova",
            "fa:16:3e:11:00:07",
            Some("n1"),
        ),
        port(
            "bbbbbbbb-0000-4000-8000-00000000000b",
            "11111111-0000-4000-8000-000000000001",
            "s1",
            "10.20.0.1",
            "network:router_interface",
            "fa:16:3e:11:00:01",
            None,
        ),
        port(
            "cccccccc-0000-4000-8000-00000000000c",
            "11111111-0000-4000-8000-000000000001",
            "s1",
            "10.20.0.2",
            "network:dhcp",
            "fa:16:3e:11:00:02",
            None,
        ),
        port(
            "dddddddd-0000-4000-8000-00000000000d",
            "22222222-0000-4000-8000-000000000002",
            "s2",
            "172.24.4.20",
            "network:router_gateway",
            "fa:16:3e:22:00:20",
            None,
        ),
        Item::SecurityGroup(SecurityGroup {
            id: "sg".into(),
            stateful: true,
            rules: vec![
                Rule {
                    id: "r1".into(),
                    ingress: true,
                    ip_version: 4,
                    protocol: Some(6),
                    port_min: Some(22),
                    port_max: Some(22),
                    remote_cidr: None,
                    remote_group: None,
                },
                Rule {
                    id: "r2".into(),
                    ingress: false,
                    ip_version: 4,
                    protocol: None,
                    port_min: None,
                    port_max: None,
                    remote_cidr: None,
                    remote_group: None,
                },
            ],
            members: vec![],
        }),
        Item::Router(Router {
            id: "33333333-0000-4000-8000-000000000003".into(),
            admin_up: true,
            gateway: Some(Gateway {
                port_id: "dddddddd-0000-4000-8000-00000000000d".into(),
                network_id: "22222222-0000-4000-8000-000000000002".into(),
                snat: true,
            }),
            interfaces: vec!["bbbbbbbb-0000-4000-8000-00000000000b".into()],
            routes: vec![],
            floating_ips: vec![FloatingIp {
                id: "f".into(),
                floating: "172.24.4.30".parse().unwrap(),
                fixed: "10.20.0.7".parse().unwrap(),
                port_id: "aaaaaaaa-0000-4000-8000-00000000000a".into(),
            }],
            forwardings: vec![],
            helpers: vec![],
            ndp_proxies: None,
        }),
        Item::Server(Server {
            id: SERVER.into(),
            project_id: "p".into(),
            user_id: "u".into(),
            name: "vm1".into(),
            hostname: "vm1".into(),
            request_id: "req-1".into(),
            vcpus: 1,
            memory_mib: 128,
            disks: vec![Disk {
                name: "root".into(),
                source: DiskSource::Image {
                    image_id: "i".into(),
                    digest: digest.into(),
                    format: "qcow2".into(),
                },
                size: 1 << 30,
                bus: "virtio".into(),
                device: "disk".into(),
            }],
            ports: vec!["aaaaaaaa-0000-4000-8000-00000000000a".into()],
            power: Power::Running,
            reboot: Reboot::default(),
            rebuild: 0,
            resize: maru_agent_api::slice::Resize::default(),
            config_drive: true,
            metadata: GuestMetadata {
                public_keys: vec![("k".into(), key.into())],
                ..GuestMetadata::default()
            },
            stop_timeout: 30,
            origin: String::new(),
        }),
    ]
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn main() {
    // The agent runs parsers of images in children of its own program.
    if maru_sandbox::is_child() {
        maru_sandbox::child_main(&[maru_block::SANDBOX_ENTRY]);
    }
    // The machine's own namespace is left alone: this process moves into one that it makes, before any thread starts.
    let name = format!("agt{}", std::process::id() % 100_000);
    let host = format!("host-{name}");
    run("ip", &["netns", "add", &host]);
    let outcome = std::panic::catch_unwind(|| {
        let file = std::fs::File::open(format!("/run/netns/{host}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(a_guest_lives_survives_its_agent_and_goes(&name, dir.path()));
        }));
        if let Err(panic) = outcome {
            // What the test did not get to: no guest and no namespace may stay.
            let config = AgentConfig::new(NodeName::from("n1"), dir.path().to_owned(), name.clone());
            if let Err(e) = runtime.block_on(Agent::teardown_offline(config)) {
                println!("not cleaned up: {}", e.chain());
            }
            std::panic::resume_unwind(panic);
        }
    });
    run("ip", &["netns", "del", &host]);
    match outcome {
        Ok(()) => println!("test a_guest_lives_survives_its_agent_and_goes ... ok\n\n1 passed, 0 failed"),
        Err(_) => {
            println!("0 passed, 1 failed");
            std::process::exit(1);
        }
    }
}

async fn a_guest_lives_survives_its_agent_and_goes(name: &str, dir: &Path) {
    let image = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/guest.qcow2");
    assert!(image.exists(), "{} is missing: run guest/build first", image.display());
    let key = dir.join("key");
    run(
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()],
    );
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let digest = run("sha512sum", &[image.to_str().unwrap()])
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let fake = Arc::new(Fake {
        image,
        items: Mutex::new(slice(&digest, public.trim())),
        streams: Mutex::default(),
        reports: Mutex::default(),
    });
    let config = || AgentConfig::new(NodeName::from("n1"), dir.to_owned(), name.to_owned());
    let link: Arc<dyn ControlPlane> = fake.clone();
    let agent = Agent::new(config(), link.clone()).await.unwrap();
    let task = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    let power = |reports: &[Report], wanted: PowerState| {
        reports
            .iter()
            .any(|r| matches!(r, Report::Server(s) if s.id == SERVER && s.power == wanted))
    };
    let begun = Instant::now();
    fake.until("the guest runs", 60, |r| power(r, PowerState::Running))
        .await;
    println!("running after {:.1} s", begun.elapsed().as_secs_f64());
    let ssh = |command: &str| {
        let out = Command::new("ssh")
            .args([
                "-i",
                key.to_str().unwrap(),
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "ConnectTimeout=4",
                "-o",
                "LogLevel=ERROR",
                "cirros@172.24.4.30",
                command,
            ])
            .output()
            .unwrap();
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let end = Instant::now() + Duration::from_secs(180);
    while ssh("true").is_none() {
        assert!(Instant::now() < end, "no SSH within 180 s");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("SSH after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(ssh("hostname").as_deref(), Some("vm1"));
    // Metadata over the network, and the same on the config drive.
    let ask = "curl -s http://169.254.169.254/latest/meta-data/local-ipv4";
    assert_eq!(ssh(ask).as_deref(), Some("10.20.0.7"));
    let mount = "d=$(sudo blkid -L config-2) && sudo mount -o ro $d /mnt && cat /mnt/openstack/latest/meta_data.json";
    let drive: serde_json::Value = serde_json::from_str(&ssh(mount).expect("the config drive is mounted")).unwrap();
    assert_eq!(
        (drive["uuid"].as_str(), drive["name"].as_str()),
        (Some(SERVER), Some("vm1"))
    );
    ssh("sudo umount /mnt").unwrap();
    let routes = ssh("ip route").unwrap();
    assert!(routes.contains("169.254.169.254 via 10.20.0.2"), "{routes}");
    let boot = ssh("cat /proc/sys/kernel/random/boot_id").unwrap();

    // The agent goes away and another one comes: the guest is the same.
    task.abort();
    task.await.ok();
    drop(agent);
    fake.streams.lock().unwrap().clear();
    fake.reports.lock().unwrap().clear();
    let agent = Agent::new(config(), link).await.unwrap();
    let task = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    fake.until("the next agent reports it running", 30, |r| {
        power(r, PowerState::Running)
    })
    .await;
    assert_eq!(
        ssh("cat /proc/sys/kernel/random/boot_id").as_deref(),
        Some(boot.as_str())
    );

    // It is ordered away: nothing of it is left.
    fake.tell(Delivery::Gone(2, ItemKey::Server(SERVER.into()))).await;
    fake.until("the server is reported removed", 60, |r| {
        r.iter().any(|r| matches!(r, Report::ServerRemoved(id) if id == SERVER))
    })
    .await;
    task.abort();
    task.await.ok();
    agent.teardown().await.unwrap();
    let left = run("ip", &["netns", "list"]);
    let left: Vec<&str> = left.lines().filter(|l| l.starts_with(name)).collect();
    assert!(left.is_empty(), "namespaces left: {left:?}");
    assert!(!dir.join("guests/disks").join(SERVER).exists(), "disks left");
}
