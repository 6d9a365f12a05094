//! The agent over a machine made of maps, under paused time: order, idempotence, crashes between any two calls.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fake;
mod fake_volumes;
mod trunks;
mod volumes;

use fake::{Fake, NODE, Plane, run};
use maru_agent_api::observed::{PowerState, Report};
use maru_agent_api::slice::*;
use maru_base::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn network() -> Item {
    Item::Network(Network {
        id: "net".into(),
        vni: 1,
        zone: 1,
        mtu: 1450,
        external: false,
        admin_up: true,
        subnets: vec![Subnet {
            id: "sub".into(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            gateway: None,
            dhcp: true,
            dns: vec![],
            routes: vec![],
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            dhcp_address: Some("10.0.0.2".parse().unwrap()),
        }],
    })
}

pub(crate) fn port(id: &str) -> Item {
    Item::Port(Port {
        id: id.into(),
        network_id: "net".into(),
        project_id: "p".into(),
        host: Some(NODE.into()),
        device_id: "vm".into(),
        device_owner: "compute:nova".into(),
        mac: "fa:16:3e:00:00:05".into(),
        fixed_ips: vec![("sub".into(), "10.0.0.5".parse().unwrap())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    })
}

pub(crate) fn server() -> Server {
    Server {
        id: "vm".into(),
        project_id: "p".into(),
        user_id: "u".into(),
        name: "vm".into(),
        hostname: "vm".into(),
        request_id: "req-1".into(),
        vcpus: 1,
        memory_mib: 64,
        disks: vec![Disk {
            name: "root".into(),
            source: DiskSource::Image {
                image_id: "i".into(),
                digest: "d".into(),
                format: "qcow2".into(),
            },
            size: 0,
            bus: "virtio".into(),
            device: "disk".into(),
        }],
        ports: vec!["port".into()],
        power: Power::Running,
        reboot: Reboot::default(),
        rebuild: 0,
        resize: maru_agent_api::slice::Resize::default(),
        config_drive: true,
        metadata: GuestMetadata::default(),
        stop_timeout: 60,
        origin: "made for a test".into(),
    }
}

fn plane() -> Arc<Plane> {
    let plane = Plane::default();
    plane.set(1, network());
    plane.set(1, port("port"));
    plane.set(1, Item::Server(server()));
    Arc::new(plane)
}

fn power(plane: &Plane) -> Option<PowerState> {
    plane.last("vm").filter(|s| s.fault.is_none()).map(|s| s.power)
}

async fn running(plane: &Plane, revision: u64) {
    plane
        .until("the server runs", |p| {
            power(p) == Some(PowerState::Running) && p.last("vm").is_some_and(|s| s.revision == revision)
        })
        .await;
}

/// The slice is told item by item, ports before servers: the pass over the port is usually under way when its server comes.
#[tokio::test(start_paused = true)]
async fn a_server_that_comes_while_its_port_is_made_does_not_wait() {
    let (fake, plane) = (Fake::new(), Arc::new(Plane::default()));
    plane.set(1, network());
    fake.state().firewall_takes = Some(Duration::from_millis(50));
    let _agent = run(&fake, &plane).await;
    plane.set(2, port("port"));
    let tapped = |_: &Plane| fake.state().journal.iter().any(|j| j == "tap port");
    plane.until("the tap is made", tapped).await;
    let asked = tokio::time::Instant::now();
    plane.set(3, Item::Server(server()));
    running(&plane, 3).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "it waited for its port: {took:?}");
    let linked = |r: &&Report| matches!(r, Report::Event(e) if e.event == "link" || e.event == "firewall");
    plane
        .until("its links are in its story", |p| {
            p.reports.lock().unwrap().iter().filter(linked).count() == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_made_in_order_and_then_left_alone() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    let steps = [
        "network net",
        "tap port",
        "firewall",
        "up port",
        "base d",
        "disk vm/root",
        "disk vm/config",
        "define vm",
        "start vm",
    ];
    let journal = fake.state().journal.clone();
    let mut at = 0;
    for step in steps {
        at += journal[at..]
            .iter()
            .position(|j| j == step)
            .unwrap_or_else(|| panic!("{step} is not in order: {journal:?}"));
    }
    assert!(fake.state().answering.contains("net"));
    let events: Vec<String> = plane
        .reports
        .lock()
        .unwrap()
        .iter()
        .filter_map(|r| {
            if let Report::Event(e) = r {
                Some(e.event.clone())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(events, ["link", "firewall", "disk", "spawn", "qmp", "running"]);
    let ups = |p: &Plane| {
        p.reports
            .lock()
            .unwrap()
            .iter()
            .filter(|r| matches!(r, Report::Port(s) if s.up))
            .count()
    };
    assert_eq!(ups(&plane), 1);
    // An hour of looking again changes nothing.
    let starts = |j: &[String]| {
        j.iter()
            .filter(|s| s.starts_with("start") || s.starts_with("stop"))
            .count()
    };
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(starts(&fake.state().journal), 1);
    let told = plane
        .reports
        .lock()
        .unwrap()
        .iter()
        .filter(|r| matches!(r, Report::Server(_)))
        .count();
    assert_eq!(told, 1, "the same state is not told again");
}

/// For every call: the agent dies before it, or after its effect and before it knows; the next one finishes the work.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_is_made_up_for() {
    for after in [false, true] {
        let mut calls = 0;
        loop {
            let (fake, plane) = (Fake::new(), plane());
            fake.state().crash = Some((calls, after));
            let agent = run(&fake, &plane).await;
            let done = tokio::select! {
                () = running(&plane, 1) => true,
                () = fake.crashed.notified() => false,
            };
            agent.crash().await;
            fake.state().crash = None;
            plane.reports.lock().unwrap().clear();
            let _agent = run(&fake, &plane).await;
            running(&plane, 1).await;
            {
                let s = fake.state();
                assert_eq!(s.guests.len(), 1);
                assert_eq!(s.ports.get("port"), Some(&true));
                let starts = s.journal.iter().filter(|j| *j == "start vm").count();
                assert_eq!(starts, 1, "crash at call {calls}, after: {after}: {:?}", s.journal);
            }
            // And so is one while it is removed.
            fake.state().crash = Some((calls % 4, after));
            plane.gone(2, ItemKey::Server("vm".into()));
            plane.gone(2, ItemKey::Port("port".into()));
            plane.gone(2, ItemKey::Network("net".into()));
            fake.crashed.notified().await;
            fake.state().crash = None;
            _agent.crash().await;
            let _agent = run(&fake, &plane).await;
            plane
                .until("the network is removed", |p| {
                    p.has(&Report::Removed(ItemKey::Network("net".into())))
                })
                .await;
            plane
                .until("the server is removed", |p| p.has(&Report::ServerRemoved("vm".into())))
                .await;
            assert!(plane.has(&Report::Removed(ItemKey::Port("port".into()))));
            let s = fake.state();
            assert!(s.guests.is_empty() && s.disks.is_empty() && s.ports.is_empty() && s.networks.is_empty());
            if done {
                break;
            }
            calls += 1;
        }
        assert!(calls > 8, "only {calls} calls were tried");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_slice_does_not_know_is_kept_and_told() {
    let (fake, plane) = (Fake::new(), plane());
    let agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    agent.crash().await;
    // A control plane that has forgotten everything (attack: restored from an old backup).
    let empty = Arc::new(Plane::default());
    let _agent = run(&fake, &empty).await;
    let unknown = |what: &str, id: &str| {
        let (what, id) = (what.to_owned(), id.to_owned());
        move |p: &Plane| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .any(|r| matches!(r, Report::Unknown(u) if u.what == what && u.id == id))
        }
    };
    empty.until("the guest is told", unknown("server", "vm")).await;
    empty.until("the network is told", unknown("network", "net")).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let s = fake.state();
    assert_eq!(s.guests["vm"].power, PowerState::Running);
    assert!(s.disks.contains("vm/root") && s.ports.contains_key("port") && s.networks.contains("net"));
}

/// A guest that a restored store has forgotten keeps its network, and what it needs to be adopted, over restarts of the agent.
#[tokio::test(start_paused = true)]
async fn a_forgotten_guest_keeps_its_network_until_it_is_discarded() {
    let (fake, plane) = (Fake::new(), plane());
    let agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    assert_eq!(plane.lanes().origin("vm").await.unwrap(), "made for a test");
    agent.crash().await;
    let starts_and_stops = |fake: &Fake| fake.state().journal.iter().filter(|j| j.ends_with(" vm")).count();
    let before = starts_and_stops(&fake);
    // Twice: what is remembered must not be lost by being recalled. The second control plane knows the network by now.
    for knows_network in [false, true] {
        let restored = Arc::new(Plane::default());
        if knows_network {
            restored.set(1, network());
        }
        fake.state().answering.clear();
        fake.state().filtered.clear();
        let agent = run(&fake, &restored).await;
        restored
            .until("its network is there", |_| {
                let s = fake.state();
                s.filtered.contains("port") && s.answering.contains("net") && s.ports.get("port") == Some(&true)
            })
            .await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(
            starts_and_stops(&fake),
            before,
            "it is touched: {:?}",
            fake.state().journal
        );
        assert_eq!(restored.lanes().origin("vm").await.unwrap(), "made for a test");
        let told = |r: &Report| matches!(r, Report::Port(_) | Report::Server(_) | Report::Event(_));
        assert!(
            !restored.reports.lock().unwrap().iter().any(told),
            "nobody asked for it"
        );
        if knows_network {
            restored.lanes().discard("server", "vm").await.unwrap();
            restored
                .until("its tap is gone", |_| fake.state().ports.is_empty())
                .await;
            let s = fake.state();
            assert!(s.guests.is_empty() && s.disks.is_empty() && s.networks.contains("net"));
        }
        agent.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_set_is_whole() {
    let fake = Fake::new();
    let plane = Arc::new(Plane {
        never_synced: true,
        ..Plane::default()
    });
    plane.set(1, network());
    plane.set(1, Item::Server(server()));
    plane.gone(1, ItemKey::Network("other".into()));
    let _agent = run(&fake, &plane).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.state().journal, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn power_reboots_and_rebuilds_follow_the_intent() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    let mut vm = server();
    let mut revision = 1;
    let mut step = |vm: &mut Server, change: &dyn Fn(&mut Server)| {
        revision += 1;
        change(vm);
        vm.request_id = format!("req-{revision}");
        plane.set(revision, Item::Server(vm.clone()));
        revision
    };
    for (wanted, seen) in [
        (Power::Paused, PowerState::Paused),
        (Power::Running, PowerState::Running),
        (Power::Suspended, PowerState::Suspended),
        (Power::Running, PowerState::Running),
        (Power::Stopped, PowerState::Shutdown),
        (Power::Running, PowerState::Running),
    ] {
        step(&mut vm, &|v| v.power = wanted);
        plane.until("the power follows", |p| power(p) == Some(seen)).await;
    }
    step(&mut vm, &|v| v.reboot = Reboot { count: 1, hard: true });
    plane
        .until("rebooted", |p| p.last("vm").is_some_and(|s| s.reboots == 1))
        .await;
    step(&mut vm, &|v| v.rebuild = 1);
    plane
        .until("rebuilt", |p| {
            p.last("vm")
                .is_some_and(|s| s.rebuilds == 1 && s.power == PowerState::Running)
        })
        .await;
    // Another size, taken back: the disks of before are kept, put back and let go, each once and with the guest off.
    let resize = |count, kept, restore| Resize { count, kept, restore };
    for (count, restore, memory) in [(1, false, 256), (2, true, 64)] {
        step(&mut vm, &|v| {
            v.resize = resize(count, Some(1), restore);
            v.memory_mib = memory;
        });
        plane
            .until("another size", |p| {
                p.last("vm")
                    .is_some_and(|s| s.resizes == count && s.power == PowerState::Running)
            })
            .await;
        assert_eq!(fake.state().guests["vm"].config.memory_mib, memory);
        assert!(!fake.state().kept.is_empty());
    }
    // From another image, and back: that disk is made anew and goes.
    let rescue = || Disk {
        name: "rescue".into(),
        ..server().disks[0].clone()
    };
    for (count, rescued) in [(3, true), (4, false)] {
        step(&mut vm, &|v| {
            v.resize = resize(count, None, false);
            v.disks = server().disks;
            if rescued {
                v.disks.insert(0, rescue());
            }
        });
        plane
            .until("rescued, and not", |p| {
                p.last("vm")
                    .is_some_and(|s| s.resizes == count && s.power == PowerState::Running)
            })
            .await;
        assert_eq!(fake.state().disks.contains("vm/rescue"), rescued);
        assert_eq!(fake.state().guests["vm"].config.disks[0].name == "rescue", rescued);
    }
    let last = step(&mut vm, &|v| v.resize = resize(4, None, false));
    running(&plane, last).await;
    assert!(fake.state().kept.is_empty());
    let journal = fake.state().journal.clone();
    for once in ["keep vm 1", "restore vm 1"] {
        assert_eq!(journal.iter().filter(|j| *j == once).count(), 1, "{once}");
    }
    assert_eq!(journal.iter().filter(|j| *j == "hard-reboot vm").count(), 1);
    assert_eq!(
        journal
            .iter()
            .filter(|j| *j == "disk vm/root" || *j == "disk vm/rescue")
            .count(),
        journal.iter().filter(|j| *j == "base d").count()
    );
    assert_eq!(journal.iter().filter(|j| *j == "remove-disk vm/root").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ends_by_itself_stays_off_until_a_newer_request() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    for (ended, request) in [(PowerState::Shutdown, "req-2"), (PowerState::Crashed, "req-3")] {
        fake.by_itself("vm", ended);
        plane.until("it is told", |p| power(p) == Some(ended)).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(fake.state().guests["vm"].power, ended);
        let revision = plane.last("vm").unwrap().revision + 1;
        plane.set(
            revision,
            Item::Server(Server {
                request_id: request.into(),
                ..server()
            }),
        );
        running(&plane, revision).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_harder_order_overtakes_a_graceful_stop() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    fake.state().stubborn = Some(Duration::from_secs(3600));
    plane.set(
        2,
        Item::Server(Server {
            power: Power::Stopped,
            stop_timeout: 3000,
            request_id: "req-2".into(),
            ..server()
        }),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = tokio::time::Instant::now();
    plane.gone(3, ItemKey::Server("vm".into()));
    plane
        .until("it is removed", |p| p.has(&Report::ServerRemoved("vm".into())))
        .await;
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn faults_are_told_tried_again_and_final_when_they_are() {
    let (fake, plane) = (Fake::new(), plane());
    fake.state().fail.insert("start".into(), (2, ErrorKind::Unavailable));
    let _agent = run(&fake, &plane).await;
    plane
        .until("the fault is told", |p| {
            p.last("vm").is_some_and(|s| s.fault.is_some() && !s.fault_final)
        })
        .await;
    running(&plane, 1).await;
    let failed: Vec<_> = plane
        .reports
        .lock()
        .unwrap()
        .iter()
        .filter_map(|r| match r {
            Report::Event(e) if !e.ok => Some(e.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        failed.len(),
        2,
        "each failed attempt is in the server's story: {failed:?}"
    );
    assert!(failed.iter().all(|e| e.event == "attempt"
        && !e.request_id.is_empty()
        && e.message.as_ref().is_some_and(|m| m.contains("was told to fail"))));
    let (fake, plane) = (Fake::new(), self::plane());
    fake.state().fail.insert("disk".into(), (1000, ErrorKind::BadRequest));
    let _agent = run(&fake, &plane).await;
    plane
        .until("the fault is final", |p| p.last("vm").is_some_and(|s| s.fault_final))
        .await;
    assert!(plane.last("vm").unwrap().fault.unwrap().contains("was told to fail"));
}

#[tokio::test(start_paused = true)]
async fn a_server_says_that_its_port_is_broken() {
    for call in ["tap", "firewall"] {
        let (fake, plane) = (Fake::new(), plane());
        fake.state().fail.insert(call.into(), (20, ErrorKind::Internal));
        let _agent = run(&fake, &plane).await;
        plane
            .until("the fault is told", |p| {
                p.last("vm")
                    .and_then(|s| s.fault)
                    .is_some_and(|f| f.starts_with("port port is not ready"))
            })
            .await;
        assert!(fake.state().guests.is_empty());
        running(&plane, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_broken_network_does_not_stop_the_others() {
    let (fake, plane) = (Fake::new(), plane());
    let Item::Network(n) = network() else { panic!() };
    // It sorts before the good one.
    plane.set(
        1,
        Item::Network(Network {
            id: "bad".into(),
            vni: 2,
            zone: 2,
            ..n
        }),
    );
    fake.state().fail.insert("network".into(), (1, ErrorKind::Internal));
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    plane
        .until("the other is made too", |_| fake.state().networks.contains("bad"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn nics_are_plugged_and_unplugged_and_their_taps_go_after_that() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    plane.set(2, port("second"));
    plane.set(
        2,
        Item::Server(Server {
            ports: vec!["port".into(), "second".into()],
            ..server()
        }),
    );
    plane
        .until("attached", |p| {
            p.last("vm").is_some_and(|s| s.attached.contains(&"second".to_owned()))
        })
        .await;
    plane.gone(3, ItemKey::Port("second".into()));
    plane.set(3, Item::Server(server()));
    plane
        .until("its tap is removed", |p| {
            p.has(&Report::Removed(ItemKey::Port("second".into())))
        })
        .await;
    plane
        .until("detached", |p| {
            p.last("vm").is_some_and(|s| !s.attached.contains(&"second".to_owned()))
        })
        .await;
    assert!(!fake.state().journal.iter().any(|j| j.starts_with("stop")));
}

#[tokio::test(start_paused = true)]
async fn a_new_session_gets_all_states_again() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    plane.reports.lock().unwrap().clear();
    plane.hang_up();
    running(&plane, 1).await;
    plane
        .until("the port too", |p| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .any(|r| matches!(r, Report::Port(s) if s.up))
        })
        .await;
}

/// A bug met at any call is a failure like any other: told, tried again, and nothing else stands still for it.
#[tokio::test(start_paused = true)]
async fn a_panic_at_any_call_is_survived() {
    for call in ["network", "tap", "firewall", "up", "base", "disk", "define", "start"] {
        let (fake, plane) = (Fake::new(), plane());
        fake.state().fail.insert(call.into(), (2, ErrorKind::Gone));
        let _agent = run(&fake, &plane).await;
        running(&plane, 1).await;
        assert_eq!(fake.state().fail[call].0, 0, "{call} was never reached");
    }
}

/// Log lines of this process.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the agent does for a request, and what goes wrong meanwhile, stands in its log under that request's id.
#[tokio::test(start_paused = true)]
async fn log_lines_about_a_server_name_the_request() {
    let lines = Lines::default();
    let log = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || log.clone());
    // Of the whole process: another test's thread may have seen these lines' places before.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let (fake, plane) = (Fake::new(), plane());
    plane.set(
        2,
        Item::Server(Server {
            request_id: "req-of-this-test".into(),
            ..server()
        }),
    );
    fake.state().fail.insert("start".into(), (1, ErrorKind::Unavailable));
    let _agent = run(&fake, &plane).await;
    running(&plane, 2).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let about: Vec<&str> = text.lines().filter(|l| l.contains("req-of-this-test")).collect();
    for says in ["start vm was told to fail", "\"event\":\"disk\"", "will try again"] {
        assert!(about.iter().any(|l| l.contains(says)), "no line with {says}: {about:?}");
    }
}
