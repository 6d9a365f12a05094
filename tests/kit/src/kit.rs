//! The cloud: lives of a control plane over one store, and the nodes that outlive them.

use crate::{Actor, actors, door::Door, gate::Gate};
use maru::cloud::{Cloud, Parts, Settings, registry};
use maru_agent_api::{ControlPlane, NodeName};
use maru_base::Result;
use maru_blob::DirBlobs;
use maru_image::{Inspected, Inspector};
use maru_sim::{SimConfig, SimNode};
use maru_store::{
    Engine, Snapshot, Store,
    engine::{
        Mem,
        redb::{Options, Redb},
    },
    record::{MemRecords, Records},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{sync::watch, task::AbortHandle};

/// The password of the administrator.
pub(crate) const ADMIN_PASSWORD: &str = "admin-secret";

/// The control plane has crashed; [`Kit::restart`] begins another life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

/// What the cloud shall be.
pub struct Builder {
    nodes: u32,
    redb: bool,
    controllers: bool,
    policy: Option<String>,
    size: (u32, u64, u64),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 2,
            redb: false,
            controllers: true,
            policy: None,
            size: (64, 262_144, 4_096),
        }
    }
}

impl Builder {
    /// This many nodes, `n1`, `n2`, ...; 2 unless said otherwise.
    #[must_use]
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }
    /// Each node has this: processors, MiB of memory, GiB of disk.
    #[must_use]
    pub fn node_size(mut self, vcpus: u32, memory_mib: u64, disk_gib: u64) -> Self {
        self.size = (vcpus, memory_mib, disk_gib);
        self
    }
    /// The store is a redb file in a temporary directory. Not with paused time.
    #[must_use]
    pub fn redb(mut self) -> Self {
        self.redb = true;
        self
    }
    /// No controllers run: what is asked for stays intent.
    #[must_use]
    pub fn idle(mut self) -> Self {
        self.controllers = false;
        self
    }
    /// Overrides of policy rules, as a policy.yaml has them.
    #[must_use]
    pub fn policy(mut self, text: &str) -> Self {
        self.policy = Some(text.to_owned());
        self
    }
    /// Starts it, and waits until every node has connected.
    pub async fn start(self) -> Kit {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = if self.redb {
            Base::Redb(dir.path().join("store.redb"))
        } else {
            Base::Mem(Arc::new(Mem::new()))
        };
        let settings = Settings {
            url: "http://cloud:5000".to_owned(),
            region: "RegionOne".to_owned(),
            import_allow: maru_fetch::Allow::parse(&["127.0.0.1:1"]).expect("a host with its port"),
            password: ADMIN_PASSWORD.to_owned(),
            policy: self.policy,
            bcrypt_cost: 4,
            compliance: maru_identity::Compliance::default(),
            external_cidr: "203.0.113.0/24".parse().expect("a block"),
            external_gateway: None,
            data: None,
        };
        let kit = Kit {
            dir,
            base: Mutex::new(base),
            settings,
            controllers: self.controllers,
            records: Arc::new(MemRecords::new()),
            door: Arc::new(Door::default()),
            life: Mutex::default(),
            lives: AtomicU32::new(0),
            blobs: Mutex::default(),
            nodes: Mutex::default(),
            admin: Mutex::default(),
        };
        kit.begin().await;
        let admin = actors::sign_in(&kit, "admin", ADMIN_PASSWORD, "admin").await;
        *lock(&kit.admin) = Some(admin);
        for n in 1..=self.nodes {
            let config = SimConfig {
                vcpus: self.size.0,
                memory_mib: self.size.1,
                disk_gib: self.size.2,
                ..SimConfig::new(NodeName::from(format!("n{n}")))
            };
            let sim = SimNode::new(config, Arc::clone(&kit.door) as Arc<dyn ControlPlane>);
            lock(&kit.nodes).insert(format!("n{n}"), Node { sim, run: None });
            kit.node_up(&format!("n{n}"));
        }
        kit.nodes_up(self.nodes).await;
        kit
    }
}

/// Where the objects are between the lives.
#[derive(Clone)]
enum Base {
    Mem(Arc<Mem>),
    Redb(PathBuf),
}

/// One life of the control plane.
pub(crate) struct Life {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) gate: Arc<Gate>,
    /// Dropped with the life; controllers end when it is gone.
    _stop: watch::Sender<bool>,
    controllers: Option<AbortHandle>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(task) = &self.controllers {
            task.abort();
        }
    }
}

struct Node {
    sim: SimNode,
    run: Option<AbortHandle>,
}

/// A cloud in this process. See the crate.
pub struct Kit {
    dir: tempfile::TempDir,
    base: Mutex<Base>,
    settings: Settings,
    controllers: bool,
    records: Arc<MemRecords>,
    door: Arc<Door>,
    life: Mutex<Option<Arc<Life>>>,
    lives: AtomicU32,
    blobs: Mutex<Option<Arc<DirBlobs>>>,
    nodes: Mutex<BTreeMap<String, Node>>,
    admin: Mutex<Option<Actor>>,
}

impl Drop for Kit {
    fn drop(&mut self) {
        for node in lock(&self.nodes).values() {
            if let Some(run) = &node.run {
                run.abort();
            }
        }
        self.door.shut();
        if let Some(life) = lock(&self.life).take() {
            life.gate.kill();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Believes what the owner says of an image.
struct Believer;

#[async_trait::async_trait]
impl Inspector for Believer {
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected> {
        let size = std::fs::metadata(file).map(|m| m.len()).unwrap_or_default();
        Ok(Inspected {
            proven_format: declared.to_owned(),
            virtual_size: Some(size),
        })
    }
}

impl Kit {
    /// A cloud of two nodes over a store in memory.
    pub async fn start() -> Self {
        Builder::default().start().await
    }
    /// A cloud that is to be described first.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn begin(&self) {
        let base = lock(&self.base).clone();
        let engine: Arc<dyn Engine> = match base {
            Base::Mem(engine) => engine as Arc<dyn Engine>,
            Base::Redb(file) => open_redb(&file).await,
        };
        let gate = Gate::new(engine);
        let store = Store::open(Arc::clone(&gate) as Arc<dyn Engine>, registry())
            .await
            .unwrap_or_else(|e| panic!("the store does not open: {}", e.chain()));
        let blobs = DirBlobs::open(self.dir.path().join("blobs"), "control")
            .await
            .unwrap_or_else(|e| panic!("blobs: {}", e.chain()));
        let blobs = Arc::new(blobs);
        let backups = DirBlobs::open(self.dir.path().join("backups"), "control")
            .await
            .unwrap_or_else(|e| panic!("backups: {}", e.chain()));
        let backups = Arc::new(backups);
        *lock(&self.blobs) = Some(Arc::clone(&blobs));
        let parts = Parts {
            store,
            blobs,
            backups,
            records: Arc::clone(&self.records) as Arc<dyn Records>,
            inspector: Arc::new(Believer),
        };
        let cloud = Cloud::open(parts, &self.settings)
            .await
            .unwrap_or_else(|e| panic!("the control plane does not open: {e:#}"));
        let cloud = Arc::new(cloud);
        let (stop, stopped) = watch::channel(false);
        let controllers = self
            .controllers
            .then(|| tokio::spawn(Arc::clone(&cloud).controllers(stopped)).abort_handle());
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.door.open(Arc::clone(cloud.hub()), Arc::clone(&gate));
        *lock(&self.life) = Some(Arc::new(Life {
            cloud,
            gate,
            _stop: stop,
            controllers,
        }));
    }

    /// The present life.
    pub(crate) fn life(&self) -> std::result::Result<Arc<Life>, Crashed> {
        let life = lock(&self.life).clone();
        life.filter(|l| !l.gate.is_dead()).ok_or(Crashed)
    }

    /// The control plane dies where it stands and is opened again on what it had stored. Nodes and guests go on.
    pub async fn restart(&self) {
        self.crash();
        self.begin().await;
    }
    /// Writes a backup; the file to restore from.
    pub async fn backup(&self) -> PathBuf {
        let file = self.dir.path().join("backup");
        let written = self.cloud().backup(&file).await;
        written.unwrap_or_else(|e| panic!("the backup is not written: {e:#}"));
        file
    }
    /// The control plane dies and is opened again on a backup. Nodes and guests go on. For a store in memory.
    pub async fn restore(&self, file: &Path) {
        self.crash();
        let fresh = Arc::new(Mem::new());
        let engine: Arc<dyn Engine> = Arc::clone(&fresh) as Arc<dyn Engine>;
        let restored = Store::restore(&engine, file).await;
        restored.unwrap_or_else(|e| panic!("the backup is not restored: {}", e.chain()));
        *lock(&self.base) = Base::Mem(fresh);
        self.begin().await;
    }
    /// The control plane dies where it stands.
    pub fn crash(&self) {
        self.door.shut();
        if let Some(life) = lock(&self.life).take() {
            life.gate.kill();
        }
    }
    /// No crash from now on. One that came with a commit of the last moment (a blob that is collected in the background) is made up
    /// for.
    pub async fn no_more_crashes(&self) {
        self.crash_after(u64::MAX);
        if self.is_dead() {
            self.restart().await;
        }
    }
    /// The `n`-th transaction from now on is the last that this life of the control plane commits.
    pub fn crash_after(&self, n: u64) {
        if let Ok(life) = self.life() {
            life.gate.crash_after(n);
        }
    }
    /// The engine of the present life.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        let life = self
            .life()
            .unwrap_or_else(|Crashed| panic!("the control plane is down"));
        Arc::clone(&life.gate)
    }
    /// How often the control plane has begun.
    #[must_use]
    pub fn lives(&self) -> u32 {
        self.lives.load(Ordering::SeqCst)
    }
    /// Returns once the control plane is dead.
    pub async fn crashed(&self) {
        let Some(life) = lock(&self.life).clone() else { return };
        life.gate.dead().await;
    }
    /// Whether the control plane is dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.life().is_err()
    }
    /// Transactions that this life has committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.life().map(|l| l.gate.committed()).unwrap_or_default()
    }

    /// The control plane of the present life.
    #[must_use]
    pub fn cloud(&self) -> Arc<Cloud> {
        let life = self
            .life()
            .unwrap_or_else(|Crashed| panic!("the control plane is down"));
        Arc::clone(&life.cloud)
    }
    /// Its store.
    #[must_use]
    pub fn store(&self) -> Store {
        self.cloud().store().clone()
    }
    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.store().snapshot()
    }
    /// Audit records and stories; they outlive the lives.
    #[must_use]
    pub fn records(&self) -> &Arc<MemRecords> {
        &self.records
    }
    /// The images' bytes.
    #[must_use]
    pub fn blobs(&self) -> Arc<DirBlobs> {
        let blobs = lock(&self.blobs).clone();
        blobs.unwrap_or_else(|| panic!("not begun yet"))
    }
    /// The cloud's administrator, scoped to the project `admin`.
    #[must_use]
    pub fn admin(&self) -> Actor {
        lock(&self.admin).clone().unwrap_or_else(|| panic!("not signed in yet"))
    }

    /// The simulated node of this name (`n1`, ...).
    #[must_use]
    pub fn node(&self, name: &str) -> SimNode {
        lock(&self.nodes)
            .get(name)
            .map(|n| n.sim.clone())
            .unwrap_or_else(|| panic!("there is no node {name}"))
    }
    /// All simulated nodes by name.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<String, SimNode> {
        lock(&self.nodes)
            .iter()
            .map(|(name, n)| (name.clone(), n.sim.clone()))
            .collect()
    }
    /// The agent of a node begins (again).
    pub fn node_up(&self, name: &str) {
        let sim = self.node(name);
        let run = tokio::spawn(async move { sim.run().await }).abort_handle();
        if let Some(node) = lock(&self.nodes).get_mut(name)
            && let Some(old) = node.run.replace(run)
        {
            old.abort();
        }
    }
    /// The agent of a node dies; its guests run on.
    pub fn node_down(&self, name: &str) {
        if let Some(node) = lock(&self.nodes).get_mut(name)
            && let Some(run) = node.run.take()
        {
            run.abort();
        }
    }
}

/// Opens the file once the life before has let go of it.
async fn open_redb(file: &Path) -> Arc<dyn Engine> {
    let mut last = String::new();
    for _ in 0..500 {
        let path = file.to_owned();
        let opened = tokio::task::spawn_blocking(move || Redb::open(&path, Options::default())).await;
        match opened.expect("opening does not panic") {
            Ok(engine) => return Arc::new(engine),
            Err(e) => last = e,
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} cannot be opened: {last}", file.display())
}
