//! A simulated node: the agent's side of the contract without a machine.
//!
//! ```text
//!  ControlPlane ──slice──► SimNode ──after its delays, with its faults──► reports
//! ```
//!
//! It obeys what the real agent obeys (nothing before `Synced`, nothing older than seen, `Gone` is an order, counted reboots and
//! rebuilds, what the slice does not know is kept), costs a task and a map, and waits only on tokio's clock: thousands fit in one
//! process, and under paused time a cloud's week passes in a moment. Its guests live as long as the [`SimNode`], so a test can
//! drop [`SimNode::run`] and begin it again as a restart of the agent; [`SimNode::take_up`] gives them to another process.

mod lanes;
mod script;
mod world;

pub use script::{Fault, Script, Step};
pub use world::SimGuest;

use maru_agent_api::observed::{Hello, PowerState, Report, Resources, ServerEvent};
use maru_agent_api::slice::{Item, ItemKey, Power};
use maru_agent_api::{ControlPlane, Delivery, NodeName, Session};
use maru_base::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use world::World;

/// How often the node says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a simulated node has.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Its name.
    pub node: NodeName,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
}

impl SimConfig {
    /// A node with 64 processors, 256 GiB of memory and 4 TiB of disk.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            vcpus: 64,
            memory_mib: 262_144,
            disk_gib: 4096,
        }
    }
}

/// A simulated node. Cheap to clone; all clones are one node.
#[derive(Clone)]
pub struct SimNode {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: SimConfig,
    control: Arc<dyn ControlPlane>,
    world: Mutex<World>,
    script: Mutex<Script>,
}

impl Inner {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // Every change under this lock is complete before anything can panic.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session's tasks send back.
enum Done {
    Reports(Vec<Report>),
    /// The key may be looked at again.
    Idle(ItemKey),
}

impl SimNode {
    /// A node that will connect to this control plane.
    #[must_use]
    pub fn new(config: SimConfig, control: Arc<dyn ControlPlane>) -> Self {
        let world = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                config,
                control,
                world,
                script: Mutex::default(),
            }),
        }
    }

    /// Changes what happens from now on: delays and faults.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.inner.script());
    }

    /// The guests that are on the node.
    #[must_use]
    pub fn guests(&self) -> BTreeMap<String, SimGuest> {
        self.inner.world().guests.clone()
    }

    /// The volumes and snapshots that have bytes on the node.
    #[must_use]
    pub fn volumes(&self) -> std::collections::BTreeSet<String> {
        let world = self.inner.world();
        world.volumes.keys().chain(world.snapshots.iter()).cloned().collect()
    }

    /// Puts guests on the node that were there before this process.
    pub fn take_up(&self, guests: BTreeMap<String, SimGuest>) {
        self.inner.world().guests.extend(guests);
    }

    /// Puts a guest on the node that no slice asked for.
    pub fn plant(&self, id: &str) {
        self.inner.world().guests.insert(
            id.to_owned(),
            SimGuest {
                power: PowerState::Running,
                ..SimGuest::default()
            },
        );
    }

    /// The guest powers itself off, or its process ends (`crash`). It is reported when the node is connected.
    pub fn power_off(&self, id: &str, crash: bool) {
        self.set_power(
            id,
            if crash {
                PowerState::Crashed
            } else {
                PowerState::Shutdown
            },
        );
    }

    /// The guest does this, whatever was asked of it. It is reported when the node is connected.
    pub fn set_power(&self, id: &str, power: PowerState) {
        let mut world = self.inner.world();
        if let Some(guest) = world.guests.get_mut(id) {
            guest.power = power;
            world.look.push(ItemKey::Server(id.to_owned()));
            world.wake.notify_one();
        }
    }

    /// Runs, connecting again whenever the session ends, until dropped. Guests go on after that.
    pub async fn run(&self) {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.session().await {
                Ok(()) => wait = Duration::from_millis(100),
                Err(e) => {
                    tracing::debug!(node = %self.inner.config.node, error = %e.chain(), "no session");
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn hello(&self) -> Hello {
        let c = &self.inner.config;
        Hello {
            node: c.node.clone(),
            session: u64::try_from(maru_base::random::u128() >> 65).unwrap_or(1),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: 10_000_002,
            accelerator: "simulated: this node has no machine".to_owned(),
            storage: "simulated".to_owned(),
            cpu_model: "simulated".to_owned(),
            arch: "x86_64".to_owned(),
            vcpus: c.vcpus,
            memory_mib: c.memory_mib,
            disk_gib: c.disk_gib,
            address: "127.0.0.1".to_owned(),
        }
    }

    /// One session: until the stream ends or the control plane refuses it.
    async fn session(&self) -> Result<()> {
        let inner = &self.inner;
        let (session, mut stream) = inner.control.connect(self.hello()).await?;
        inner
            .control
            .offer_lanes(&session, Arc::new(lanes::SimLanes(Arc::clone(inner))))
            .await?;
        inner.world().begin(&session.incarnation);
        let (sender, mut done) = mpsc::unbounded_channel();
        let mut work = Work {
            inner,
            sender,
            tasks: JoinSet::new(),
            busy: BTreeMap::new(),
        };
        let mut reports = Vec::new();
        let mut sequence = 0;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let wake = Arc::clone(&inner.world().wake);
        loop {
            let look = std::mem::take(&mut inner.world().look);
            look.into_iter().for_each(|key| work.start(key));
            if !reports.is_empty() {
                sequence += 1;
                self.send(&session, sequence, std::mem::take(&mut reports)).await?;
            }
            tokio::select! {
                delivery = stream.recv() => match delivery {
                    Some(delivery) => reports.extend(self.take(delivery, &mut work)),
                    None => return Err(Error::unavailable("the stream of intent has ended")),
                },
                Some(done) = done.recv() => match done {
                    Done::Reports(more) => reports.extend(more),
                    Done::Idle(key) => work.idle(key),
                },
                Some(_) = work.tasks.join_next() => {}
                () = wake.notified() => {}
                _ = heartbeat.tick() => {
                    let silent = inner.script().silent;
                    if !silent {
                        inner.control.heartbeat(&session).await?;
                        reports.push(Report::Resources(self.resources()));
                    }
                }
            }
        }
    }

    /// Sends reports until they are stored.
    async fn send(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()> {
        let mut wait = Duration::from_millis(50);
        loop {
            match self.inner.control.report(session, sequence, reports.clone()).await {
                Err(e) if e.kind() != ErrorKind::Gone => {
                    tracing::debug!(error = %e.chain(), "reports are not stored");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
                other => return other,
            }
        }
    }

    fn resources(&self) -> Resources {
        let world = self.inner.world();
        let running = world.guests.values().filter(|g| g.power == PowerState::Running).count();
        Resources {
            memory_used_mib: world.guests.values().map(|g| g.memory_mib).sum(),
            disk_used_gib: 0,
            disk_free_gib: self.inner.config.disk_gib,
            load: "0.00, 0.00, 0.00".to_owned(),
            running: u32::try_from(running).unwrap_or(u32::MAX),
        }
    }

    fn take(&self, delivery: Delivery, work: &mut Work<'_>) -> Vec<Report> {
        let mut world = self.inner.world();
        let keys = match delivery {
            Delivery::Set(revision, item) => {
                let key = item.key();
                world.set(revision, *item);
                vec![key]
            }
            Delivery::Gone(revision, key) => {
                world.gone(revision, key.clone());
                vec![key]
            }
            Delivery::Synced(_) => {
                let keys = world.synced();
                let unknown = world.unknown();
                drop(world);
                keys.into_iter().for_each(|key| work.start(key));
                return unknown.into_iter().map(Report::Unknown).collect();
            }
        };
        let synced = world.synced;
        drop(world);
        if synced {
            keys.into_iter().for_each(|key| work.start(key));
        }
        Vec::new()
    }
}

/// The tasks of a session: one a key at a time; a key that changes while its task runs gets another run.
struct Work<'a> {
    inner: &'a Arc<Inner>,
    sender: mpsc::UnboundedSender<Done>,
    tasks: JoinSet<()>,
    /// Keys with a task, and whether another run is wanted.
    busy: BTreeMap<ItemKey, bool>,
}

impl Work<'_> {
    fn start(&mut self, key: ItemKey) {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = true;
            return;
        }
        self.busy.insert(key.clone(), false);
        let (inner, sender) = (Arc::clone(self.inner), self.sender.clone());
        self.tasks.spawn(async move {
            let reports = reconcile(&inner, &key).await;
            // The session may have ended: then nobody listens, and the next one begins with everything.
            let _ = sender.send(Done::Reports(reports));
            let _ = sender.send(Done::Idle(key));
        });
    }
    fn idle(&mut self, key: ItemKey) {
        if self.busy.remove(&key) == Some(true) {
            self.start(key);
        }
    }
}

/// Waits for a step's time; an `Err` is the scripted fault.
async fn step(inner: &Inner, step: Step, id: &str) -> std::result::Result<(), Fault> {
    let (delay, fault) = inner.script().next(step, id);
    tokio::time::sleep(delay).await;
    fault.map_or(Ok(()), Err)
}

async fn reconcile(inner: &Arc<Inner>, key: &ItemKey) -> Vec<Report> {
    let (intent, gone) = {
        let world = inner.world();
        (world.items.get(key).cloned(), world.gone.contains_key(key))
    };
    match (intent, key) {
        (None, ItemKey::Server(id)) if gone => {
            let _ = step(inner, Step::Remove, id).await;
            let mut world = inner.world();
            world.guests.remove(id);
            world.gone.remove(key);
            // Ports that waited for their guest.
            let ports = world
                .gone
                .keys()
                .filter(|k| matches!(k, ItemKey::Port(_)))
                .cloned()
                .collect::<Vec<_>>();
            world.look.extend(ports);
            vec![Report::ServerRemoved(id.clone())]
        }
        (None, _) if gone => {
            let mut world = inner.world();
            let held = matches!(key, ItemKey::Port(id) if world.guests.values().any(|g| g.ports.contains(id)));
            if held {
                return Vec::new();
            }
            match key {
                ItemKey::Volume(id) => drop(world.volumes.remove(id)),
                ItemKey::VolumeSnapshot(id) => drop(world.snapshots.remove(id)),
                _ => {}
            }
            world.gone.remove(key);
            match key {
                ItemKey::SecurityGroup(_) => Vec::new(),
                _ => vec![Report::Removed(key.clone())],
            }
        }
        (Some((revision, item)), ItemKey::Server(id)) => match &*item {
            Item::Server(server) => world::server(inner, revision, server, id).await,
            _ => Vec::new(),
        },
        (Some((revision, item)), _) => match &*item {
            Item::Port(port) if port.host.as_ref() == Some(&inner.config.node.to_string()) => {
                let fault = step(inner, Step::Port, &port.id).await.err();
                vec![world::port_state(revision, port, fault)]
            }
            Item::Router(router) => world::router(inner, router),
            Item::Volume(v) => world::volume(inner, revision, v).await,
            Item::VolumeSnapshot(s) => world::snapshot(inner, revision, s).await,
            _ => Vec::new(),
        },
        (None, _) => Vec::new(),
    }
}

/// The power that an intent asks for.
pub(crate) const fn wanted(power: Power) -> PowerState {
    match power {
        Power::Running => PowerState::Running,
        Power::Stopped => PowerState::Shutdown,
        Power::Paused => PowerState::Paused,
        Power::Suspended => PowerState::Suspended,
    }
}

pub(crate) fn event(server: &str, request: &str, name: &str, start: i64, fault: Option<&Fault>) -> Report {
    Report::Event(ServerEvent {
        server: server.to_owned(),
        request_id: request.to_owned(),
        event: name.to_owned(),
        start_us: start,
        finish_us: maru_base::time::now().as_microsecond(),
        ok: fault.is_none(),
        message: fault.map(|f| f.message.clone()),
    })
}
