//! The simulator under paused time, against a control plane made of a map.
#![allow(clippy::unwrap_used, clippy::panic)]

use async_trait::async_trait;
use maru_agent_api::lane::{ByteStream, Lanes};
use maru_agent_api::observed::{Hello, PowerState, Report, ServerState};
use maru_agent_api::slice::{GuestMetadata, Item, ItemKey, Power, Reboot, Server};
use maru_agent_api::{ControlPlane, Delivery, NodeName, Session};
use maru_base::{Error, Result};
use maru_sim::{SimConfig, SimNode, Step};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

#[derive(Default)]
struct Plane {
    items: Mutex<HashMap<NodeName, Vec<Delivery>>>,
    streams: Mutex<HashMap<NodeName, mpsc::Sender<Delivery>>>,
    reports: Mutex<Vec<(NodeName, Report)>>,
    changed: Notify,
}

#[async_trait]
impl ControlPlane for Plane {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let (sender, receiver) = mpsc::channel(1000);
        for delivery in self.items.lock().unwrap().get(&hello.node).cloned().unwrap_or_default() {
            sender.try_send(delivery).unwrap();
        }
        sender.try_send(Delivery::Synced(1)).unwrap();
        self.streams.lock().unwrap().insert(hello.node.clone(), sender);
        Ok((
            Session {
                node: hello.node,
                id: hello.session,
                incarnation: String::new(),
            },
            receiver,
        ))
    }
    async fn report(&self, session: &Session, _: u64, reports: Vec<Report>) -> Result<()> {
        self.reports
            .lock()
            .unwrap()
            .extend(reports.into_iter().map(|r| (session.node.clone(), r)));
        self.changed.notify_waiters();
        Ok(())
    }
    async fn heartbeat(&self, _: &Session) -> Result<()> {
        Ok(())
    }
    async fn pull(&self, _: &Session, _: &str) -> Result<ByteStream> {
        Err(Error::not_found("no blobs here"))
    }
    async fn offer_lanes(&self, _: &Session, _: Arc<dyn Lanes>) -> Result<()> {
        Ok(())
    }
}

impl Plane {
    fn tell(&self, node: &NodeName, delivery: Delivery) {
        self.items
            .lock()
            .unwrap()
            .entry(node.clone())
            .or_default()
            .push(delivery.clone());
        if let Some(stream) = self.streams.lock().unwrap().get(node) {
            let _ = stream.try_send(delivery);
        }
    }
    fn states(&self, id: &str) -> Vec<ServerState> {
        let all = self.reports.lock().unwrap();
        all.iter()
            .filter_map(|(_, r)| {
                if let Report::Server(s) = r {
                    Some(s.clone())
                } else {
                    None
                }
            })
            .filter(|s| s.id == id)
            .collect()
    }
    async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if check(self) {
                    return;
                }
                changed.await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(3600), waiting).await.is_ok(),
            "{what}: not within an hour"
        );
    }
}

fn server(id: &str, power: Power) -> Server {
    Server {
        id: id.into(),
        project_id: "p".into(),
        user_id: "u".into(),
        name: id.into(),
        hostname: id.into(),
        request_id: "req-1".into(),
        vcpus: 1,
        memory_mib: 64,
        disks: vec![],
        ports: vec![],
        power,
        reboot: Reboot::default(),
        rebuild: 0,
        resize: maru_agent_api::slice::Resize::default(),
        config_drive: false,
        metadata: GuestMetadata::default(),
        stop_timeout: 0,
        origin: String::new(),
    }
}

fn set(revision: u64, server: &Server) -> Delivery {
    Delivery::Set(revision, Box::new(Item::Server(server.clone())))
}

fn one() -> (Arc<Plane>, NodeName, SimNode) {
    let plane = Arc::new(Plane::default());
    let node = NodeName::from("n1");
    let sim = SimNode::new(SimConfig::new(node.clone()), plane.clone());
    (plane, node, sim)
}

#[tokio::test(start_paused = true)]
async fn a_server_lives_its_life_in_its_own_time() {
    let (plane, node, sim) = one();
    sim.script(|s| {
        s.delay(Step::Spawn, Duration::from_secs(30))
            .delay(Step::Power, Duration::from_secs(5));
    });
    let mut vm = server("a", Power::Running);
    plane.tell(&node, set(5, &vm));
    let running = tokio::spawn({
        let sim = sim.clone();
        async move { sim.run().await }
    });
    let begun = Instant::now();
    plane
        .until("running", |p| {
            p.states("a")
                .iter()
                .any(|s| s.power == PowerState::Running && s.revision == 5)
        })
        .await;
    assert!(begun.elapsed() >= Duration::from_secs(30));

    vm.power = Power::Stopped;
    plane.tell(&node, set(6, &vm));
    plane
        .until("stopped", |p| {
            p.states("a").last().unwrap().power == PowerState::Shutdown
        })
        .await;
    // An older intent is not obeyed.
    plane.tell(&node, set(5, &server("a", Power::Running)));
    vm.power = Power::Running;
    vm.request_id = "req-2".into();
    vm.reboot.count = 1;
    plane.tell(&node, set(7, &vm));
    plane
        .until("rebooted", |p| {
            p.states("a")
                .last()
                .is_some_and(|s| s.reboots == 1 && s.power == PowerState::Running)
        })
        .await;

    sim.power_off("a", false);
    plane
        .until("off by itself", |p| {
            p.states("a").last().unwrap().power == PowerState::Shutdown
        })
        .await;
    plane.tell(&node, Delivery::Gone(8, ItemKey::Server("a".into())));
    plane
        .until("removed", |p| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .any(|r| r.1 == Report::ServerRemoved("a".into()))
        })
        .await;
    assert!(sim.guests().is_empty());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn faults_are_reported_and_tried_again_unless_final() {
    let (plane, node, sim) = one();
    sim.script(|s| {
        s.fail(Step::Spawn, Some("a"), "no room", false)
            .fail(Step::Spawn, Some("b"), "bad image", true);
    });
    plane.tell(&node, set(1, &server("a", Power::Running)));
    plane.tell(&node, set(1, &server("b", Power::Running)));
    let running = tokio::spawn(async move { sim.run().await });
    plane
        .until("a runs", |p| {
            p.states("a").iter().any(|s| s.power == PowerState::Running)
        })
        .await;
    assert_eq!(plane.states("a")[0].fault.as_deref(), Some("no room"));
    let b = plane.states("b");
    assert_eq!((b.len(), b[0].fault_final, b[0].power), (1, true, PowerState::Nostate));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn guests_outlive_the_agent_and_unknown_ones_are_kept() {
    let (plane, node, sim) = one();
    plane.tell(&node, set(1, &server("a", Power::Running)));
    sim.plant("stranger");
    for round in 0..2 {
        let running = tokio::spawn({
            let sim = sim.clone();
            async move { sim.run().await }
        });
        plane
            .until("a is reported in each session", |p| p.states("a").len() > round)
            .await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }
    let unknown = |r: &(NodeName, Report)| matches!(&r.1, Report::Unknown(u) if u.id == "stranger");
    assert_eq!(plane.reports.lock().unwrap().iter().filter(|r| unknown(r)).count(), 2);
    assert!(sim.guests().contains_key("stranger"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_with_ten_servers_each_in_one_process() {
    let plane = Arc::new(Plane::default());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let node = NodeName::from(format!("n{n}").as_str());
        for i in 0..10 {
            plane.tell(&node, set(1, &server(&format!("s{n}-{i}"), Power::Running)));
        }
        let sim = SimNode::new(SimConfig::new(node), plane.clone());
        sim.script(|s| {
            s.delay(Step::Spawn, Duration::from_secs(20));
        });
        tasks.spawn(async move { sim.run().await });
    }
    plane
        .until("all run", |p| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .filter(|r| matches!(&r.1, Report::Server(s) if s.power == PowerState::Running))
                .count()
                >= 10_000
        })
        .await;
}
