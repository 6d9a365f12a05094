//! The node agent: makes one machine match its slice.
//!
//! ```text
//!  ControlPlane ──Set/Gone/Synced──► desired ──kick──► network pass (one)   links, firewall, routers, responders, memory
//!                                      │                    │ ports ready
//!                                      ├──────kick──────────┴──► servers (one task a server) disks, config drive, guest
//!                                      └──────kick─────────────► volumes, snapshots (one task each) files
//!  ControlPlane ◄──── reports ◄──────── reporter ◄───────────────┘
//! ```
//!
//! Level-triggered: a pass looks at what shall be and what is, and does what is missing; it never learns what happened.
//! Nothing is done before `Synced`, and what the slice does not know is kept and reported.

mod config;
mod desired;
mod drivers;
mod keys;
mod lanes;
mod memory;
mod network;
mod queue;
mod reporter;
mod responders;
mod server;
mod volume;
mod work;

pub use config::AgentConfig;

use desired::Desired;
use drivers::Drivers;
use maru_agent_api::{
    ControlPlane, Delivery, Session,
    observed::{Hello, Report, Resources, ServerState, UnknownThing},
    slice::ItemKey,
};
use maru_base::{Error, Result};
use maru_block::{Disks, Exporter, VolumeDriver, Volumes};
use maru_link::{LinkConfig, Links, Uplink};
use maru_qemu::{Accelerator, ExporterOptions, Hypervisor, Options, Qemu, StorageDaemons};
use reporter::Reporter;
use responders::Register;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// How often the agent says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often everything is looked at without a cause.
const RESYNC: Duration = Duration::from_secs(60);

/// The agent of one machine. Cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: AgentConfig,
    pub(crate) control: Arc<dyn ControlPlane>,
    pub(crate) accelerator: Accelerator,
    pub(crate) wires: Arc<dyn drivers::Wires>,
    pub(crate) answers: Arc<dyn drivers::Answers>,
    pub(crate) disks: Arc<dyn drivers::Storage>,
    /// The bytes of volumes and snapshots.
    pub(crate) volume_files: Arc<dyn VolumeDriver>,
    /// Offers them to other nodes.
    pub(crate) exporter: Arc<dyn Exporter>,
    /// Who uses which volume.
    pub(crate) volumes: volume::Locks,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) register: Arc<Register>,
    pub(crate) reporter: Reporter,
    desired: Mutex<Desired>,
    /// Asks for a network pass.
    pub(crate) network: Notify,
    /// Servers to look at.
    pub(crate) servers: queue::Queue,
    /// Volumes and snapshots to look at ([`volume::key`]).
    pub(crate) volume_queue: queue::Queue,
    /// Ports whose tap is up behind their firewall.
    ready: Mutex<BTreeSet<String>>,
    /// Why ports are not ready.
    pub(crate) broken: Mutex<HashMap<String, String>>,
    session: Mutex<Option<Session>>,
    /// Grows with each change of the slice: long work looks whether it is still wanted.
    pub(crate) changes: watch::Sender<u64>,
    /// States of servers as last reported in this session: the same again is not sent.
    pub(crate) told: Mutex<HashMap<String, ServerState>>,
    /// Grows with each session; who remembers what was reported forgets it then.
    pub(crate) sessions: watch::Sender<u64>,
}

impl Inner {
    fn new(config: AgentConfig, control: Arc<dyn ControlPlane>, accelerator: Accelerator, drivers: Drivers) -> Self {
        let dir = config.data_dir.join("guests").join("passwords");
        Self {
            register: Arc::new(Register {
                answers: Arc::clone(&drivers.answers),
                dir,
            }),
            config,
            control,
            accelerator,
            wires: drivers.wires,
            answers: drivers.answers,
            disks: drivers.disks,
            volume_files: drivers.volumes,
            exporter: drivers.exporter,
            volumes: volume::Locks::default(),
            hypervisor: drivers.hypervisor,
            reporter: Reporter::default(),
            desired: Mutex::default(),
            network: Notify::new(),
            servers: queue::Queue::new(),
            volume_queue: queue::Queue::new(),
            ready: Mutex::default(),
            broken: Mutex::default(),
            session: Mutex::default(),
            changes: watch::Sender::new(0),
            told: Mutex::default(),
            sessions: watch::Sender::new(0),
        }
    }
    pub(crate) fn desired(&self) -> MutexGuard<'_, Desired> {
        // Every change under this lock is complete before anything can panic.
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The present session with the control plane.
    pub(crate) fn session(&self) -> Option<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn ready(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn broken(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn told(&self) -> MutexGuard<'_, HashMap<String, ServerState>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn options(config: &AgentConfig, links: &Links) -> Options {
    let mut options = Options::new(config.data_dir.join("guests"));
    options.netns = Some(links.namespace().path());
    options.cgroup = Some(format!("{}-guests", config.instance));
    options
}

fn exporting(config: &AgentConfig) -> Result<ExporterOptions> {
    let listen = config.address.parse().map_err(|e| {
        Error::bad_request(format!(
            "{:?} is not an IP address: volumes cannot be offered to other nodes there",
            config.address
        ))
        .with_source(e)
    })?;
    let mut options = ExporterOptions::new(config.data_dir.join("guests"), listen);
    options.cgroup = Some(format!("{}-guests", config.instance));
    Ok(options)
}

impl Agent {
    /// Prepares the machine: namespace, disks, hypervisor; takes over guests that run.
    ///
    /// # Errors
    /// What is missing on the machine and how to get it.
    pub async fn new(config: AgentConfig, control: Arc<dyn ControlPlane>) -> Result<Self> {
        let uplink = config.uplink.clone().map_or(Uplink::Routed, Uplink::Device);
        let links = Links::open(LinkConfig {
            instance: config.instance.clone(),
            uplink,
        })
        .await?;
        let disks = Disks::open(config.data_dir.join("guests"))?;
        let volumes = Volumes::open(&config.data_dir)?;
        lanes::sweep(&config.data_dir);
        let hypervisor: Arc<dyn Hypervisor> = Arc::new(Qemu::new(options(&config, &links))?);
        let exporter = Arc::new(StorageDaemons::new(exporting(&config)?)?);
        Self::over(
            config,
            control,
            Drivers::of(links, disks, volumes, exporter, hypervisor),
        )
        .await
    }

    /// The agent over these drivers.
    pub(crate) async fn over(config: AgentConfig, control: Arc<dyn ControlPlane>, drivers: Drivers) -> Result<Self> {
        let accelerator = drivers.hypervisor.probe().await?;
        tracing::info!(%accelerator, "hypervisor chosen");
        let adopted = drivers.hypervisor.adopt_all().await?;
        tracing::info!(guests = adopted.len(), "guests of an earlier process taken over");
        drivers.exporter.adopt_all().await?;
        Ok(Self {
            inner: Arc::new(Inner::new(config, control, accelerator, drivers)),
        })
    }

    /// Runs until dropped; guests go on after that.
    pub async fn run(&self) {
        let inner = &self.inner;
        tokio::join!(
            self.sessions(),
            network::run(inner),
            server::run(inner),
            volume::run(inner),
            server::follow_events(inner),
            volume::follow_exports(inner)
        );
    }

    /// Stops every guest and removes every link of this instance; disks and everything else stay.
    ///
    /// # Errors
    /// What could not be removed; everything else is removed all the same.
    pub async fn teardown(&self) -> Result<()> {
        self.inner.answers.stop_all();
        let inner = &self.inner;
        teardown(
            inner.hypervisor.as_ref(),
            inner.exporter.as_ref(),
            inner.wires.teardown(),
        )
        .await
    }

    /// The same without a running agent: after its process has ended.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn teardown_offline(config: AgentConfig) -> Result<()> {
        let links = Links::open(LinkConfig {
            instance: config.instance.clone(),
            uplink: Uplink::Routed,
        })
        .await?;
        let qemu = Qemu::new(options(&config, &links))?;
        qemu.adopt_all().await?;
        let exporter = StorageDaemons::new(exporting(&config)?)?;
        exporter.adopt_all().await?;
        teardown(&qemu, &exporter, links.teardown()).await
    }

    /// One session after another with the control plane.
    async fn sessions(&self) {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.session().await {
                Ok(()) => wait = Duration::from_millis(100),
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "no session with the control plane, will try again");
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn session(&self) -> Result<()> {
        let inner = &self.inner;
        let (session, mut stream) = inner.control.connect(self.hello()?).await?;
        let lanes = Arc::new(lanes::NodeLanes(Arc::clone(&self.inner)));
        inner.control.offer_lanes(&session, lanes).await?;
        inner.desired().begin(&session.incarnation);
        inner.told().clear();
        inner.sessions.send_modify(|n| *n += 1);
        *inner.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        let reporting = inner.reporter.run(inner.control.as_ref(), &session);
        tokio::pin!(reporting);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let delivery = tokio::select! {
                d = stream.recv() => d,
                ended = &mut reporting => return ended,
                _ = heartbeat.tick() => {
                    inner.control.heartbeat(&session).await?;
                    match self.resources().await {
                        Ok(resources) => inner.reporter.send(Report::Resources(resources)),
                        Err(e) => tracing::warn!(error = %e.chain(), "the node's resources cannot be read"),
                    }
                    continue;
                }
            };
            let Some(delivery) = delivery else {
                return Err(Error::unavailable("the stream of intent has ended"));
            };
            match delivery {
                Delivery::Set(revision, item) => {
                    let key = item.key();
                    if inner.desired().set(revision, *item) {
                        self.kick(&key);
                    }
                }
                Delivery::Gone(revision, key) => {
                    inner.desired().gone(revision, key.clone());
                    self.kick(&key);
                }
                Delivery::Synced(_) => {
                    let ids = inner.desired().synced();
                    inner.network.notify_one();
                    for id in ids {
                        inner.servers.kick(&id);
                    }
                    let volumes = inner.desired().volumes();
                    for item in volumes {
                        inner.volume_queue.kick(&volume::key(&item));
                    }
                    if let Err(e) = self.report_unknown().await {
                        tracing::warn!(error = %e.chain(), "what is unknown here cannot be listed");
                    }
                }
            }
        }
    }

    fn kick(&self, key: &ItemKey) {
        let inner = &self.inner;
        inner.changes.send_modify(|n| *n += 1);
        if !inner.desired().is_synced() {
            return;
        }
        match key {
            ItemKey::Server(id) => inner.servers.kick(id),
            ItemKey::Volume(_) | ItemKey::VolumeSnapshot(_) => {
                inner.volume_queue.kick(&volume::key(key));
                return;
            }
            _ => {}
        }
        // For a server as well: metadata is answered out of what the pass gives the responders.
        inner.network.notify_one();
    }

    fn hello(&self) -> Result<Hello> {
        let c = &self.inner.config;
        let room = self.inner.disks.room()?;
        Ok(Hello {
            node: c.node.clone(),
            session: u64::try_from(maru_base::random::u128() >> 65).unwrap_or(1),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: self.inner.accelerator.version,
            accelerator: self.inner.accelerator.to_string(),
            storage: self.inner.volume_files.describe(),
            cpu_model: config::cpu_model(),
            arch: rustix::system::uname().machine().to_string_lossy().into_owned(),
            vcpus: c.vcpus.unwrap_or_else(config::processors),
            memory_mib: c.memory_mib.unwrap_or_else(|| config::memory().0),
            disk_gib: c.disk_gib.unwrap_or(room.total >> 30),
            address: c.address.clone(),
        })
    }

    async fn resources(&self) -> Result<Resources> {
        let room = self.inner.disks.room()?;
        let (total, free) = config::memory();
        let running = self
            .inner
            .hypervisor
            .list()
            .await?
            .iter()
            .filter(|g| g.pid.is_some())
            .count();
        Ok(Resources {
            memory_used_mib: total.saturating_sub(free),
            disk_used_gib: (room.total - room.free.min(room.total)) >> 30,
            disk_free_gib: room.free >> 30,
            load: config::load(),
            running: u32::try_from(running).unwrap_or(u32::MAX),
        })
    }

    /// Says what is here and not in the slice; it is kept.
    async fn report_unknown(&self) -> Result<()> {
        let inner = &self.inner;
        let guests = inner.hypervisor.list().await?;
        let disks = inner.disks.servers()?;
        let links = inner.wires.observe().await?;
        let desired = inner.desired();
        let mut unknown = Vec::new();
        let mut add = |what: &str, id: &str, description: String| {
            unknown.push(UnknownThing {
                what: what.to_owned(),
                id: id.to_owned(),
                description,
            });
        };
        for g in guests.iter().filter(|g| !desired.knows(&ItemKey::Server(g.id.clone()))) {
            let name = g.config.as_ref().map_or("", |c| c.name.as_str());
            add("server", &g.id, format!("{name} is {:?}", g.power));
        }
        for id in disks {
            if !desired.knows(&ItemKey::Server(id.clone())) && !guests.iter().any(|g| g.id == id) {
                add("disk", &id, "disks of a server that is not here".to_owned());
            }
        }
        for id in links
            .networks
            .keys()
            .filter(|id| !desired.knows(&ItemKey::Network((*id).clone())))
        {
            add("network", id, "bridge and responder".to_owned());
        }
        for id in links
            .routers
            .iter()
            .filter(|id| !desired.knows(&ItemKey::Router((*id).clone())))
        {
            add("router", id, "namespace".to_owned());
        }
        for (what, id) in inner.volume_files.all()? {
            let key = match what {
                "volume" => ItemKey::Volume(id.clone()),
                _ => ItemKey::VolumeSnapshot(id.clone()),
            };
            if !desired.knows(&key) {
                add(what, &id, "bytes that the store does not know".to_owned());
            }
        }
        drop(desired);
        for thing in unknown {
            inner.reporter.send(Report::Unknown(thing));
        }
        Ok(())
    }
}

async fn teardown(
    hypervisor: &dyn Hypervisor,
    exporter: &dyn Exporter,
    links: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut first: Option<Error> = None;
    for guest in hypervisor.list().await? {
        if let Err(e) = hypervisor.stop(&guest.id, Duration::ZERO).await {
            tracing::warn!(guest = guest.id, error = %e.chain(), "guest not stopped");
            first.get_or_insert(e);
        }
    }
    if let Err(e) = exporter.stop_all().await {
        first.get_or_insert(e);
    }
    if let Err(e) = links.await {
        first.get_or_insert(e);
    }
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
