//! A machine made of maps, a control plane made of lists, and a crash at any call between them.

use crate::drivers::{Answers, Drivers, Guests, Pull, Storage, Wires};
use crate::{Agent, AgentConfig};
use async_trait::async_trait;
use maru_agent_api::lane::{ByteStream, Duplex, Lanes};
use maru_agent_api::observed::{Hello, PowerState, Report, ServerState};
use maru_agent_api::slice::*;
use maru_agent_api::{ControlPlane, Delivery, NodeName, Session};
use maru_base::{Error, ErrorKind, Result};
use maru_block::{BaseImage, DiskFile, Room};
use maru_firewall::{Applied, FirewallInput};
use maru_link::{Netns, NetworkLinks, Observed, ObservedPort, Responder, RouterLinks};
use maru_metadata::{Directory, GuestView};
use maru_qemu::{
    Accelerator, AcceleratorKind, GuestConfig, GuestDisk, GuestEvent, GuestNic, GuestStatus, Hypervisor, StartTimes,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc};

pub(crate) const NODE: &str = "n1";

#[derive(Clone)]
pub(crate) struct FakeGuest {
    pub config: GuestConfig,
    pub power: PowerState,
    pub attached: Vec<String>,
}

/// The machine.
#[derive(Default)]
pub(crate) struct State {
    pub networks: BTreeSet<String>,
    pub ports: BTreeMap<String, bool>,
    /// Ports in the loaded ruleset.
    pub filtered: BTreeSet<String>,
    pub routers: BTreeSet<String>,
    /// `server/name`.
    pub disks: BTreeSet<String>,
    /// Numbers under which a server's disks are kept aside.
    pub kept: BTreeMap<String, BTreeSet<u64>>,
    /// Volumes: which making, and bytes.
    pub volumes: BTreeMap<String, (u64, u64)>,
    pub snapshots: BTreeSet<String>,
    /// Volumes that the exporter has open, with the names of their exports.
    pub exports: BTreeMap<String, BTreeSet<String>>,
    pub guests: BTreeMap<String, FakeGuest>,
    pub answering: BTreeSet<String>,
    /// Changing calls in order.
    pub journal: Vec<String>,
    /// The call to crash at, and whether after its effect; counts down.
    pub crash: Option<(usize, bool)>,
    /// Calls that fail: name, how often and how; `Gone` is a panic.
    pub fail: BTreeMap<String, (usize, ErrorKind)>,
    /// How long a graceful stop takes.
    pub stubborn: Option<Duration>,
    /// How long a change of the firewall takes.
    pub firewall_takes: Option<Duration>,
}

pub(crate) struct Fake {
    pub state: Mutex<State>,
    pub crashed: Notify,
    /// The agent's own directory.
    pub dir: tempfile::TempDir,
    events: broadcast::Sender<GuestEvent>,
    pub(crate) ended: broadcast::Sender<String>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            crashed: Notify::new(),
            dir: tempfile::tempdir().unwrap(),
            events: broadcast::channel(64).0,
            ended: broadcast::channel(64).0,
        })
    }
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    /// The guest changes by itself.
    pub(crate) fn by_itself(&self, id: &str, power: PowerState) {
        self.state().guests.get_mut(id).unwrap().power = power;
        let _ = self.events.send(GuestEvent {
            id: id.into(),
            power,
            what: "by itself".into(),
        });
    }
    /// An exporter ends by itself.
    pub(crate) fn exporter_ends(&self, volume: &str) {
        self.state().exports.remove(volume);
        let _ = self.ended.send(volume.into());
    }
    /// One changing call: it may fail, crash before its effect, or after it.
    pub(crate) async fn call<T>(&self, name: String, effect: impl FnOnce(&mut State) -> Result<T> + Send) -> Result<T> {
        let panics = name.clone();
        enum Now<T> {
            Done(Result<T>),
            Crash,
            Panic,
        }
        let now = 'now: {
            let mut s = self.state();
            let crash = match &mut s.crash {
                Some((0, after)) => Some(*after),
                Some((n, _)) => {
                    *n -= 1;
                    None
                }
                None => None,
            };
            match crash {
                Some(false) => Now::Crash,
                _ => {
                    let failing = s.fail.get_mut(name.split(' ').next().unwrap()).filter(|f| f.0 > 0);
                    if let Some(f) = failing {
                        f.0 -= 1;
                        if f.1 == ErrorKind::Gone {
                            break 'now Now::Panic;
                        }
                        Now::Done(Err(Error::new(f.1, format!("{name} was told to fail"))))
                    } else {
                        s.journal.push(name);
                        let done = effect(&mut s);
                        if crash.is_some() { Now::Crash } else { Now::Done(done) }
                    }
                }
            }
        };
        match now {
            Now::Done(done) => done,
            Now::Panic => panic!("{panics} was told to panic"),
            Now::Crash => {
                self.crashed.notify_one();
                std::future::pending().await
            }
        }
    }
    pub(crate) fn drivers(self: &Arc<Self>) -> Drivers {
        Drivers {
            wires: self.clone(),
            answers: self.clone(),
            disks: self.clone(),
            volumes: self.clone(),
            exporter: self.clone(),
            hypervisor: self.clone(),
        }
    }
}

#[async_trait]
impl Wires for Fake {
    async fn ensure_network(&self, network: &Network, _: Option<&Port>) -> Result<NetworkLinks> {
        let id = network.id.clone();
        self.call(format!("network {id}"), move |s| {
            s.networks.insert(id.clone());
            let responder = Responder {
                netns: Netns::named(&id),
                device: "dh0".into(),
                mac: "0a:00:00:00:00:01".into(),
            };
            Ok(NetworkLinks {
                bridge: "br1".into(),
                responder: Some(responder),
                way_out: None,
            })
        })
        .await
    }
    async fn remove_network(&self, id: &str) -> Result<()> {
        self.call(format!("remove-network {id}"), |s| {
            s.networks.remove(id);
            Ok(())
        })
        .await
    }
    async fn ensure_port(&self, port: &Port, network: &Network) -> Result<()> {
        self.call(format!("tap {}", port.id), |s| {
            assert!(s.networks.contains(&network.id), "a tap without its bridge");
            if let Some(trunk) = &port.trunk {
                assert!(s.ports.contains_key(&trunk.parent), "a subport before its parent");
            }
            s.ports.entry(port.id.clone()).or_insert(false);
            Ok(())
        })
        .await
    }
    async fn port_up(&self, id: &str, up: bool) -> Result<()> {
        self.call(format!("up {id}"), |s| {
            assert!(!up || s.filtered.contains(id), "a tap goes up before its firewall");
            s.ports.insert(id.into(), up);
            Ok(())
        })
        .await
    }
    async fn remove_port(&self, id: &str) -> Result<()> {
        self.call(format!("remove-port {id}"), |s| {
            assert!(
                !s.guests.values().any(|g| g.attached.iter().any(|a| a == id)),
                "a tap is taken from its guest"
            );
            s.ports.remove(id);
            Ok(())
        })
        .await
    }
    async fn apply(&self, input: FirewallInput<'_>) -> Result<Applied> {
        let ports: BTreeSet<String> = input.ports.iter().map(|p| p.id.clone()).collect();
        let takes = self.state().firewall_takes;
        if let Some(takes) = takes {
            tokio::time::sleep(takes).await;
        }
        self.call("firewall".into(), move |s| {
            let changed = s.filtered != ports;
            s.filtered = ports;
            Ok(Applied {
                changed,
                ..Applied::default()
            })
        })
        .await
    }
    async fn ensure_router(&self, router: &Router, _: &[Port], _: &[Network]) -> Result<RouterLinks> {
        self.call(format!("router {}", router.id), |s| {
            s.routers.insert(router.id.clone());
            Ok(RouterLinks {
                netns: Netns::named("r"),
                interfaces: vec![],
                gateway: None,
                faults: vec![],
            })
        })
        .await
    }
    async fn remove_router(&self, id: &str) -> Result<()> {
        self.call(format!("remove-router {id}"), |s| {
            s.routers.remove(id);
            Ok(())
        })
        .await
    }
    async fn observe(&self) -> Result<Observed> {
        let s = self.state();
        let port = |(id, up): (&String, &bool)| {
            (
                id.clone(),
                ObservedPort {
                    tap: "tap".into(),
                    up: *up,
                    carrier: *up,
                },
            )
        };
        Ok(Observed {
            networks: s.networks.iter().map(|n| (n.clone(), "br".into())).collect(),
            ports: s.ports.iter().map(port).collect(),
            routers: s.routers.clone(),
            ..Observed::default()
        })
    }
    async fn teardown(&self) -> Result<()> {
        let mut s = self.state();
        (s.networks, s.ports, s.routers) = Default::default();
        Ok(())
    }
}

impl Answers for Fake {
    fn network(
        &self,
        id: &str,
        _: &Responder,
        _: Arc<maru_dhcp::NetworkView>,
        _: Guests,
        _: &Arc<dyn Directory>,
    ) -> Result<()> {
        self.state().answering.insert(id.into());
        Ok(())
    }
    fn network_gone(&self, id: &str) {
        self.state().answering.remove(id);
    }
    fn router(&self, _: &str, _: &RouterLinks, _: Vec<(String, String, maru_dhcp::RaView)>) -> Result<()> {
        Ok(())
    }
    fn router_gone(&self, _: &str) {}
    fn guest(&self, _: &str, _: IpAddr) -> Option<Arc<GuestView>> {
        None
    }
    fn stop_all(&self) {
        self.state().answering.clear();
    }
}

fn file(server: &str, name: &str) -> DiskFile {
    DiskFile {
        path: format!("/disks/{server}/{name}").into(),
        format: "qcow2".into(),
        backing: None,
    }
}

#[async_trait]
impl Storage for Fake {
    async fn base(&self, digest: &str, _: &str, pull: Pull<'_>) -> Result<BaseImage> {
        drop(pull().await?);
        self.call(format!("base {digest}"), |_| {
            Ok(BaseImage {
                path: "/base".into(),
                format: "qcow2".into(),
                virtual_size: 1 << 20,
            })
        })
        .await
    }
    async fn overlay(&self, server: &str, name: &str, _: &BaseImage, _: u64) -> Result<DiskFile> {
        Storage::blank(self, server, name, 0).await
    }
    async fn blank(&self, server: &str, name: &str, _: u64) -> Result<DiskFile> {
        self.call(format!("disk {server}/{name}"), |s| {
            s.disks.insert(format!("{server}/{name}"));
            Ok(file(server, name))
        })
        .await
    }
    async fn media(&self, server: &str, name: &str, _: Vec<u8>) -> Result<DiskFile> {
        Storage::blank(self, server, name, 0).await
    }
    async fn find_media(&self, server: &str, name: &str) -> Result<Option<DiskFile>> {
        Ok(self
            .state()
            .disks
            .contains(&format!("{server}/{name}"))
            .then(|| file(server, name)))
    }
    async fn remove(&self, server: &str, name: &str) -> Result<()> {
        self.call(format!("remove-disk {server}/{name}"), |s| {
            s.disks.remove(&format!("{server}/{name}"));
            Ok(())
        })
        .await
    }
    async fn keep(&self, server: &str, number: u64) -> Result<()> {
        self.call(format!("keep {server} {number}"), |s| {
            let off = s.guests.get(server).is_none_or(|g| g.power != PowerState::Running);
            assert!(off, "disks of a running guest are copied");
            s.kept.entry(server.to_owned()).or_default().insert(number);
            Ok(())
        })
        .await
    }
    async fn restore(&self, server: &str, number: u64) -> Result<()> {
        self.call(format!("restore {server} {number}"), |s| {
            let off = s.guests.get(server).is_none_or(|g| g.power != PowerState::Running);
            assert!(off, "disks of a running guest are replaced");
            let there = s.kept.get(server).is_some_and(|k| k.contains(&number));
            assert!(there, "what was not kept is put back");
            Ok(())
        })
        .await
    }
    async fn drop_kept(&self, server: &str) -> Result<()> {
        self.call(format!("drop-kept {server}"), |s| {
            s.kept.remove(server);
            Ok(())
        })
        .await
    }
    async fn fit(&self, server: &str, name: &str, size: u64) -> Result<()> {
        self.call(format!("fit {server}/{name} {size}"), |_| Ok(())).await
    }
    async fn remove_server(&self, server: &str) -> Result<()> {
        self.call(format!("remove-disks {server}"), |s| {
            assert!(!s.guests.contains_key(server), "disks are taken from a guest");
            s.disks.retain(|d| !d.starts_with(&format!("{server}/")));
            Ok(())
        })
        .await
    }
    fn servers(&self) -> Result<Vec<String>> {
        let s = self.state();
        let all: BTreeSet<String> = s
            .disks
            .iter()
            .filter_map(|d| Some(d.split_once('/')?.0.to_owned()))
            .collect();
        Ok(all.into_iter().collect())
    }
    fn room(&self) -> Result<Room> {
        Ok(Room {
            total: 1 << 40,
            free: 1 << 39,
        })
    }
}

impl Fake {
    pub(crate) async fn make_volume(&self, how: &str, id: &str, content: u64, size: u64) -> Result<()> {
        self.call(format!("volume {id} {how}"), |s| {
            s.volumes.insert(id.to_owned(), (content, size));
            Ok(())
        })
        .await
    }
    async fn change(&self, name: &str, id: &str, effect: impl FnOnce(&mut FakeGuest) + Send) -> Result<()> {
        self.call(format!("{name} {id}"), |s| {
            let guest = s
                .guests
                .get_mut(id)
                .ok_or_else(|| Error::not_found(format!("no guest {id}")))?;
            effect(guest);
            Ok(())
        })
        .await
    }
}

fn attachments(config: &GuestConfig) -> Vec<String> {
    config
        .nics
        .iter()
        .map(|n| n.port_id.clone())
        .chain(config.disks.iter().map(|d| d.name.clone()))
        .collect()
}

#[async_trait]
impl Hypervisor for Fake {
    async fn probe(&self) -> Result<Accelerator> {
        Ok(Accelerator {
            kind: AcceleratorKind::Tcg,
            why: "fake".into(),
            version: 1,
        })
    }
    async fn adopt_all(&self) -> Result<Vec<GuestStatus>> {
        self.list().await
    }
    async fn list(&self) -> Result<Vec<GuestStatus>> {
        let ids: Vec<String> = self.state().guests.keys().cloned().collect();
        let mut all = Vec::new();
        for id in ids {
            all.push(self.status(&id).await?);
        }
        Ok(all)
    }
    async fn status(&self, id: &str) -> Result<GuestStatus> {
        let s = self.state();
        let guest = s
            .guests
            .get(id)
            .ok_or_else(|| Error::not_found(format!("no guest {id}")))?;
        let on = matches!(guest.power, PowerState::Running | PowerState::Paused);
        Ok(GuestStatus {
            id: id.into(),
            power: guest.power,
            config: Some(guest.config.clone()),
            attached: if on {
                guest.attached.clone()
            } else {
                attachments(&guest.config)
            },
            pid: on.then_some(1),
            problem: None,
        })
    }
    async fn define(&self, config: GuestConfig) -> Result<()> {
        self.call(format!("define {}", config.id), |s| {
            match s.guests.get_mut(&config.id) {
                Some(guest) => guest.config = config,
                None => {
                    let id = config.id.clone();
                    s.guests.insert(
                        id,
                        FakeGuest {
                            config,
                            power: PowerState::Nostate,
                            attached: vec![],
                        },
                    );
                }
            }
            Ok(())
        })
        .await
    }
    async fn start(&self, id: &str) -> Result<StartTimes> {
        self.call(format!("start {id}"), |s| {
            let ports = s.ports.clone();
            let (disks, volumes, exports) = (s.disks.clone(), s.volumes.clone(), s.exports.clone());
            let guest = s.guests.get_mut(id).ok_or_else(|| Error::not_found("no guest"))?;
            for nic in &guest.config.nics {
                assert!(
                    ports.get(&nic.port_id) == Some(&true),
                    "a guest starts before its port is up"
                );
            }
            for disk in &guest.config.disks {
                let there = disk.remote.is_some()
                    || disks.contains(&format!("{id}/{}", disk.name))
                    || volumes.contains_key(&disk.name);
                assert!(there, "a guest starts before its disk is there");
                let offered = exports.contains_key(&disk.name) && disk.remote.is_none();
                assert!(!offered, "a guest opens a file that the exporter has open");
            }
            guest.attached = attachments(&guest.config);
            guest.power = PowerState::Running;
            Ok(())
        })
        .await?;
        Ok(StartTimes {
            steps: vec![("spawn".into(), 1, 2), ("qmp".into(), 2, 3), ("running".into(), 3, 4)],
        })
    }
    async fn stop(&self, id: &str, timeout: Duration) -> Result<()> {
        let slow = self.state().stubborn.map(|s| s.min(timeout));
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        self.change("stop", id, |g| {
            g.power = PowerState::Shutdown;
            g.attached.clear();
        })
        .await
    }
    async fn reboot(&self, id: &str, hard: bool, _: Duration) -> Result<()> {
        self.change(if hard { "hard-reboot" } else { "reboot" }, id, |g| {
            g.power = PowerState::Running
        })
        .await
    }
    async fn pause(&self, id: &str) -> Result<()> {
        self.change("pause", id, |g| g.power = PowerState::Paused).await
    }
    async fn resume(&self, id: &str) -> Result<()> {
        self.change("resume", id, |g| g.power = PowerState::Running).await
    }
    async fn suspend(&self, id: &str) -> Result<()> {
        self.change("suspend", id, |g| g.power = PowerState::Suspended).await
    }
    async fn resume_from_disk(&self, id: &str) -> Result<()> {
        self.change("resume-from-disk", id, |g| g.power = PowerState::Running)
            .await
    }
    async fn destroy(&self, id: &str) -> Result<()> {
        self.call(format!("destroy {id}"), |s| {
            s.guests.remove(id);
            Ok(())
        })
        .await
    }
    async fn attach_nic(&self, id: &str, nic: GuestNic) -> Result<()> {
        self.change("attach-nic", id, |g| g.attached.push(nic.port_id)).await
    }
    async fn detach_nic(&self, id: &str, port_id: &str) -> Result<()> {
        self.change("detach-nic", id, |g| g.attached.retain(|a| a != port_id))
            .await
    }
    async fn attach_disk(&self, id: &str, disk: GuestDisk) -> Result<()> {
        self.change("attach-disk", id, |g| g.attached.push(disk.name)).await
    }
    async fn detach_disk(&self, id: &str, name: &str) -> Result<()> {
        self.change("detach-disk", id, |g| g.attached.retain(|a| a != name))
            .await
    }
    async fn follow_disk(&self, id: &str, disk: GuestDisk) -> Result<()> {
        let Some(maru_block::Remote::Nbd(nbd)) = disk.remote else {
            return Ok(());
        };
        let line = format!("follow-disk {id} {} {}:{} {}", disk.name, nbd.host, nbd.port, nbd.size);
        // It is asked again and again; what is so already is no call.
        if self.state().journal.contains(&line) {
            return Ok(());
        }
        self.call(line, |_| Ok(())).await
    }
    async fn resize_disk(&self, id: &str, name: &str, bytes: u64) -> Result<()> {
        self.call(format!("resize-disk {id} {name}"), |s| {
            if let Some(volume) = s.volumes.get_mut(name) {
                volume.1 = bytes;
            }
            Ok(())
        })
        .await
    }
    async fn snapshot(&self, id: &str, name: &str, _: &Path) -> Result<()> {
        self.call(format!("copy-of-disk {id} {name}"), |_| Ok(())).await
    }
    async fn console_log(&self, _: &str, _: Option<usize>) -> Result<Vec<u8>> {
        Ok(vec![])
    }
    async fn vnc(&self, _: &str) -> Result<Box<dyn Duplex>> {
        Ok(Box::new(tokio::io::duplex(1).0))
    }
    async fn serial(&self, _: &str) -> Result<Box<dyn Duplex>> {
        Ok(Box::new(tokio::io::duplex(1).0))
    }
    async fn diagnostics(&self, _: &str) -> Result<serde_json::Value> {
        Ok(serde_json::Value::Null)
    }
    async fn inject_nmi(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.events.subscribe()
    }
}

/// The control plane: what it would deliver to a new session, and what it was told.
#[derive(Default)]
pub(crate) struct Plane {
    pub deliveries: Mutex<Vec<Delivery>>,
    pub stream: Mutex<Option<mpsc::Sender<Delivery>>>,
    pub reports: Mutex<Vec<Report>>,
    pub changed: Notify,
    /// The lanes that the agent offered last.
    pub lanes: Mutex<Option<Arc<dyn Lanes>>>,
    /// `Synced` is not sent.
    pub never_synced: bool,
}

#[async_trait]
impl ControlPlane for Plane {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let (sender, receiver) = mpsc::channel(1000);
        for delivery in self.deliveries.lock().unwrap().iter() {
            sender.try_send(delivery.clone()).unwrap();
        }
        if !self.never_synced {
            sender.try_send(Delivery::Synced(1)).unwrap();
        }
        *self.stream.lock().unwrap() = Some(sender);
        Ok((
            Session {
                node: hello.node,
                id: hello.session,
                incarnation: String::new(),
            },
            receiver,
        ))
    }
    async fn report(&self, _: &Session, _: u64, reports: Vec<Report>) -> Result<()> {
        self.reports.lock().unwrap().extend(reports);
        self.changed.notify_waiters();
        Ok(())
    }
    async fn heartbeat(&self, _: &Session) -> Result<()> {
        Ok(())
    }
    async fn pull(&self, _: &Session, _: &str) -> Result<ByteStream> {
        Ok(Box::new(tokio::io::empty()))
    }
    async fn offer_lanes(&self, _: &Session, lanes: Arc<dyn Lanes>) -> Result<()> {
        *self.lanes.lock().unwrap() = Some(lanes);
        Ok(())
    }
}

impl Plane {
    /// Delivers now, and to later sessions in place of what it said of the same item.
    pub(crate) fn tell(&self, delivery: Delivery) {
        let key = |d: &Delivery| match d {
            Delivery::Set(_, item) => Some(item.key()),
            Delivery::Gone(_, key) => Some(key.clone()),
            Delivery::Synced(_) => None,
        };
        let mut all = self.deliveries.lock().unwrap();
        all.retain(|d| key(d) != key(&delivery));
        all.push(delivery.clone());
        if let Some(stream) = self.stream.lock().unwrap().as_ref() {
            let _ = stream.try_send(delivery);
        }
    }
    pub(crate) fn set(&self, revision: u64, item: Item) {
        self.tell(Delivery::Set(revision, Box::new(item)));
    }
    pub(crate) fn gone(&self, revision: u64, key: ItemKey) {
        self.tell(Delivery::Gone(revision, key));
    }
    pub(crate) fn lanes(&self) -> Arc<dyn Lanes> {
        self.lanes.lock().unwrap().clone().unwrap()
    }
    /// Ends the session.
    pub(crate) fn hang_up(&self) {
        *self.stream.lock().unwrap() = None;
    }
    pub(crate) fn last(&self, id: &str) -> Option<ServerState> {
        let all = self.reports.lock().unwrap();
        all.iter().rev().find_map(|r| {
            if let Report::Server(s) = r {
                (s.id == id).then(|| s.clone())
            } else {
                None
            }
        })
    }
    pub(crate) fn has(&self, report: &Report) -> bool {
        self.reports.lock().unwrap().contains(report)
    }
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if check(self) {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(600), waiting).await;
        assert!(
            done.is_ok(),
            "{what}: not within ten minutes; {:#?}",
            self.reports.lock().unwrap()
        );
    }
}

/// An agent over the fake machine; it ends when this is dropped.
pub(crate) struct Running(tokio::task::JoinHandle<()>);

impl Running {
    pub(crate) async fn crash(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

pub(crate) async fn run(fake: &Arc<Fake>, plane: &Arc<Plane>) -> Running {
    std::fs::create_dir_all(fake.dir.path().join("guests")).unwrap();
    let config = AgentConfig::new(NodeName::from(NODE), fake.dir.path().into(), "test".into());
    let agent = Agent::over(config, plane.clone(), fake.drivers()).await.unwrap();
    Running(tokio::spawn(async move { agent.run().await }))
}
