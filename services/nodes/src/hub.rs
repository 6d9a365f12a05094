//! Sessions of the agents.

use crate::{report, slice};
use async_trait::async_trait;
use maru_agent_api::{
    ControlPlane, Delivery, NodeName, Session,
    lane::{ByteStream, Lanes},
    observed::{Hello, Report, Resources, UnknownThing},
    slice::{Item, ItemKey},
};
use maru_base::{Error, ErrorKind, Result};
use maru_blob::Blobs;
use maru_store::{Key, Revision, Store, WatchItem, record::Records};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Deliveries that may wait for a slow agent; then the stream waits for it.
const STREAM: usize = 1_024;

/// What is known of a connected node, in memory.
struct Live {
    session: u64,
    sequence: u64,
    seen: Instant,
    hello: Hello,
    lanes: Option<Arc<dyn Lanes>>,
    resources: Option<Resources>,
    unknown: BTreeMap<(String, String), UnknownThing>,
    feeder: tokio::task::AbortHandle,
}

impl Live {
    /// Keeps what a report says of what is not stored.
    fn remember(&mut self, report: &Report) {
        match report {
            Report::Resources(r) => self.resources = Some(r.clone()),
            Report::Unknown(thing) => {
                self.unknown
                    .insert((thing.what.clone(), thing.id.clone()), thing.clone());
            }
            Report::ServerRemoved(id) | Report::Removed(ItemKey::Server(id)) => self.forget("server", id),
            Report::Removed(ItemKey::Network(id)) => self.forget("network", id),
            Report::Removed(ItemKey::Router(id)) => self.forget("router", id),
            Report::Removed(ItemKey::Volume(id)) => self.forget("volume", id),
            Report::Removed(ItemKey::VolumeSnapshot(id)) => self.forget("volume-snapshot", id),
            _ => {}
        }
    }
    fn forget(&mut self, what: &str, id: &str) {
        self.unknown.remove(&(what.to_owned(), id.to_owned()));
    }
}

/// A node as `maru status` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct NodeView {
    /// Its name.
    pub node: String,
    /// Seconds since it was last heard of.
    pub silent_s: u64,
    /// What it said of itself.
    pub hello: Hello,
    /// Room and use, if it has reported them.
    pub resources: Option<Resources>,
    /// What is on it that the store does not know.
    pub unknown: Vec<UnknownThing>,
}

/// A node's turn: whoever holds it is the only one that changes the node's session or stores its reports.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// The sessions of all agents.
pub struct Hub {
    store: Store,
    /// Where what nodes pull may lie: the images, the backups.
    blobs: Vec<Arc<dyn Blobs>>,
    records: Arc<dyn Records>,
    nodes: Mutex<HashMap<NodeName, Live>>,
    /// How many nodes there are, for the feeders' pauses.
    count: Arc<AtomicUsize>,
    turns: Mutex<HashMap<NodeName, Turn>>,
    /// Images that nodes were told to pull although nothing of theirs is made of them, for as long as they are told.
    pull_rights: Mutex<Vec<(NodeName, String)>>,
}

/// A node's right to pull an image that it was told to pull; it ends with the telling.
struct PullRight<'a> {
    hub: &'a Hub,
    what: (NodeName, String),
}

impl<'a> PullRight<'a> {
    fn new(hub: &'a Hub, node: &str, digest: &str) -> Self {
        let what = (NodeName::from(node), digest.to_owned());
        hub.pull_rights().push(what.clone());
        Self { hub, what }
    }
}

impl Drop for PullRight<'_> {
    fn drop(&mut self) {
        let mut rights = self.hub.pull_rights();
        // One of them: another one may be telling the same.
        if let Some(at) = rights.iter().position(|t| *t == self.what) {
            rights.swap_remove(at);
        }
    }
}

impl Hub {
    /// A hub over a store. Nodes pull images and backups from `blobs`, whichever has them.
    #[must_use]
    pub fn new(store: Store, blobs: Vec<Arc<dyn Blobs>>, records: Arc<dyn Records>) -> Arc<Self> {
        Arc::new(Self {
            store,
            blobs,
            records,
            nodes: Mutex::default(),
            count: Arc::default(),
            turns: Mutex::default(),
            pull_rights: Mutex::default(),
        })
    }

    /// A node's turn. Sessions and reports of one node take turns, so that nothing of an ended session is stored after
    /// a new one has begun, and a report that is sent twice is stored once even if both arrive at the same time.
    fn turn(&self, node: &NodeName) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(node.clone()).or_default())
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeName, Live>> {
        // Every change under this lock is one assignment; a panic cannot leave it half done.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How long each connected node has been silent.
    #[must_use]
    pub fn silence(&self) -> Vec<(NodeName, std::time::Duration)> {
        self.nodes()
            .iter()
            .map(|(n, l)| (n.clone(), l.seen.elapsed()))
            .collect()
    }

    /// All nodes that have connected to this process.
    #[must_use]
    pub fn views(&self) -> Vec<NodeView> {
        let mut all: Vec<NodeView> = self
            .nodes()
            .iter()
            .map(|(node, live)| NodeView {
                node: node.to_string(),
                silent_s: live.seen.elapsed().as_secs(),
                hello: live.hello.clone(),
                resources: live.resources.clone(),
                unknown: live.unknown.values().cloned().collect(),
            })
            .collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }

    /// The lanes into a node.
    ///
    /// # Errors
    /// 503 when the node is not connected.
    pub fn lanes(&self, node: &str) -> Result<Arc<dyn Lanes>> {
        self.nodes()
            .get(&NodeName::from(node))
            .and_then(|l| l.lanes.clone())
            .ok_or_else(|| Error::unavailable(format!("Node {node} is not connected; try again when it is back.")))
    }

    fn pull_rights(&self) -> MutexGuard<'_, Vec<(NodeName, String)>> {
        // Each change is one push or one removal.
        self.pull_rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a node pull an image now; returns when it is there.
    ///
    /// # Errors
    /// 503 when the node is not connected; what keeps it from pulling.
    pub async fn cache_image(&self, node: &str, digest: &str, format: &str) -> Result<()> {
        let lanes = self.lanes(node)?;
        let _right = PullRight::new(self, node, digest);
        lanes.cache_image(digest, format).await
    }

    /// Removes an unknown thing from a node.
    ///
    /// # Errors
    /// 503 when the node is not connected; what the node refuses.
    pub async fn discard(&self, node: &str, what: &str, id: &str) -> Result<()> {
        self.lanes(node)?.discard(what, id).await?;
        if let Some(live) = self.nodes().get_mut(&NodeName::from(node)) {
            live.forget(what, id);
        }
        Ok(())
    }

    /// An unknown thing of a node has become known.
    pub fn known(&self, node: &str, what: &str, id: &str) {
        if let Some(live) = self.nodes().get_mut(&NodeName::from(node)) {
            live.forget(what, id);
        }
    }

    /// Checks a session and marks its node as heard of.
    fn enter(&self, session: &Session) -> Result<()> {
        self.with(session, |_| ())
    }

    /// Checks a session, marks its node as heard of, and does something with it.
    fn with(&self, session: &Session, change: impl FnOnce(&mut Live)) -> Result<()> {
        let mut nodes = self.nodes();
        match nodes.get_mut(&session.node) {
            Some(live) if live.session == session.id => {
                live.seen = Instant::now();
                change(live);
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::Gone,
                format!("the session of node {} has ended; connect again", session.node),
            )),
        }
    }
}

#[async_trait]
impl ControlPlane for Hub {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let turn = self.turn(&hello.node);
        let _mine = turn.lock().await;
        report::node_up(&self.store, &hello).await?;
        let (sender, receiver) = mpsc::channel(STREAM);
        let session = Session {
            node: hello.node.clone(),
            id: hello.session,
            incarnation: self.store.snapshot().incarnation(),
        };
        let count = Arc::clone(&self.count);
        let feeder = tokio::spawn(feed(self.store.clone(), hello.node.clone(), sender, count)).abort_handle();
        let live = Live {
            session: hello.session,
            sequence: 0,
            seen: Instant::now(),
            hello,
            lanes: None,
            resources: None,
            unknown: BTreeMap::new(),
            feeder,
        };
        let (old, count) = {
            let mut nodes = self.nodes();
            (nodes.insert(session.node.clone(), live), nodes.len())
        };
        self.count.store(count, Ordering::Relaxed);
        if let Some(old) = old {
            old.feeder.abort();
        }
        tracing::info!(node = %session.node, "node connected");
        Ok((session, receiver))
    }

    async fn report(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()> {
        let turn = self.turn(&session.node);
        let _mine = turn.lock().await;
        self.enter(session)?;
        if let Some(live) = self.nodes().get_mut(&session.node) {
            if sequence <= live.sequence {
                return Ok(());
            }
            for r in &reports {
                live.remember(r);
            }
        }
        // If one is not stored, the agent sends all of them again: each may be stored twice.
        for r in reports {
            report::apply(&self.store, self.records.as_ref(), session, r).await?;
        }
        if let Some(live) = self.nodes().get_mut(&session.node) {
            live.sequence = sequence;
        }
        Ok(())
    }

    async fn heartbeat(&self, session: &Session) -> Result<()> {
        self.enter(session)
    }

    async fn pull(&self, session: &Session, digest: &str) -> Result<ByteStream> {
        self.enter(session)?;
        // A node may read only what servers and volumes of its own are made of, and what it was told to keep.
        let told = self
            .pull_rights()
            .iter()
            .any(|(n, d)| *n == session.node && d == digest);
        if !told && !slice::pulls(&self.store.snapshot(), &session.node, digest) {
            return Err(Error::forbidden(format!(
                "no server and no volume of node {} is made from {digest}",
                session.node
            )));
        }
        let mut missing = None;
        for blobs in &self.blobs {
            match blobs.open(digest, None).await {
                Ok(bytes) => return Ok(Box::new(bytes)),
                Err(e) if e.kind() == ErrorKind::NotFound => missing = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(missing.unwrap_or_else(|| Error::not_found(format!("The blob {digest} is not here."))))
    }

    async fn offer_lanes(&self, session: &Session, lanes: Arc<dyn Lanes>) -> Result<()> {
        self.with(session, |live| live.lanes = Some(lanes))
    }
}

/// What a stream has told its agent so far.
#[derive(Default)]
struct Told {
    items: BTreeMap<ItemKey, Item>,
    gone: BTreeSet<ItemKey>,
}

/// How much of a core all feeders together may spend on making slices: a slice that took `t` is made anew after
/// `t` times the number of nodes, at most after [`LONGEST_PAUSE`]. What changes meanwhile goes into one delivery, so a cloud that
/// makes a thousand servers at once does not make its slices a thousand times.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Streams a node its slice: full set, `Synced`, deltas.
async fn feed(store: Store, node: NodeName, sender: mpsc::Sender<Delivery>, nodes: Arc<AtomicUsize>) {
    let mut told = Told::default();
    loop {
        let snapshot = store.snapshot();
        let mut at = snapshot.revision();
        let mut changes = store.watch(&Key::from_raw(""), at);
        if send(&sender, &mut told, slice::of(&snapshot, &node), at).await.is_err()
            || sender.send(Delivery::Synced(at)).await.is_err()
        {
            return;
        }
        let mut earliest = Instant::now();
        loop {
            match changes.next().await {
                Some(WatchItem::Changes(revision, list)) => {
                    // A later slice may hold it already.
                    if revision <= at || !list.iter().any(|c| slice::concerns(c, &node, &told.items)) {
                        continue;
                    }
                }
                Some(WatchItem::Progress(_)) => continue,
                Some(WatchItem::Expired) => break,
                None => return,
            }
            tokio::time::sleep_until(earliest).await;
            let begun = Instant::now();
            let snapshot = store.snapshot();
            at = snapshot.revision();
            let now = slice::of(&snapshot, &node);
            let others = u32::try_from(nodes.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
            earliest = Instant::now() + begun.elapsed().saturating_mul(others).min(LONGEST_PAUSE);
            if send(&sender, &mut told, now, at).await.is_err() {
                return;
            }
        }
    }
}

/// Sends the difference between what was told and what is so.
async fn send(
    sender: &mpsc::Sender<Delivery>,
    told: &mut Told,
    now: slice::Slice,
    at: Revision,
) -> std::result::Result<(), mpsc::error::SendError<Delivery>> {
    let mut out = Vec::new();
    for (key, item) in &now.items {
        if told.items.get(key) != Some(item) {
            out.push(Delivery::Set(at, Box::new(item.clone())));
        }
    }
    for key in told.items.keys().filter(|k| !now.items.contains_key(*k)) {
        out.push(Delivery::Gone(at, key.clone()));
    }
    for key in now
        .gone
        .iter()
        .filter(|k| !told.gone.contains(*k) && !told.items.contains_key(*k))
    {
        out.push(Delivery::Gone(at, key.clone()));
    }
    told.items = now.items;
    told.gone = now.gone;
    for delivery in out {
        sender.send(delivery).await?;
    }
    Ok(())
}
