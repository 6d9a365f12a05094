//! The reconciler runtime: watches kick queues, workers run keys, a full resync closes every gap.
//!
//! ```text
//!   store ──watch──► feeder ──kick──► queue ──take──► worker 1..n ──reconcile(key)──► done | again | failed | panicked
//!                      ▲                 ▲                                               │      │        │
//!                      └── resync        └───────────────── back-off ────────────────────┴──────┴────────┘
//! ```
//! One of each per controller; controllers share nothing. A panic is a failure like any other: it is logged with its
//! key and its stack, counted, and the key is tried again after its back-off; other keys and controllers go on.

use crate::{Flow, queue::Queue};
use maru_base::{
    Error, Result,
    panics::{self, Panicked},
};
use maru_store::{Change, Key, Kind, Snapshot, Store, WatchItem};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// What a reconciler wants next for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Done,
    /// A look after this time, whatever happens.
    After(Duration),
}

/// A controller: makes one object so, one idempotent step at a time.
///
/// It is told a key, never what happened to it: it reads the snapshot and acts on what is there.
#[async_trait::async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Its name in logs and metrics.
    fn name(&self) -> &'static str;
    /// Names of the kinds whose changes may concern it (`server`, `observed_server`).
    fn kinds(&self) -> Vec<&'static str>;
    /// The keys to run for a change of object `id` of kind `kind`; by default the id itself.
    fn keys_for(&self, snapshot: &Snapshot, kind: &str, id: &str) -> Vec<String> {
        let _ = (snapshot, kind);
        vec![id.to_owned()]
    }
    /// All keys, for the start and the resync.
    fn all(&self, snapshot: &Snapshot) -> Vec<String>;
    /// Makes one key so. An error is logged with its chain and tried again with back-off.
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next>;
    /// How many keys may run at once.
    fn workers(&self) -> usize {
        4
    }
}

/// What one controller has done, for metrics and the administrator.
pub struct ControllerStats {
    name: &'static str,
    queue: Arc<Queue>,
    runs: AtomicU64,
    failures: AtomicU64,
    panics: AtomicU64,
}

impl ControllerStats {
    /// The controller's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// Keys that wait or run now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.len()
    }
    /// Runs of a key that have ended.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
    /// Runs that failed, panics included; each is tried again.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
    /// Runs that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn panicked(&self, doing: &str, key: &str, panicked: &Panicked) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            controller = self.name,
            key,
            panic = panicked.message,
            location = panicked.location,
            backtrace = panicked.backtrace,
            "a controller panicked while {doing}; this is a bug; it will try again"
        );
    }
}

/// A reconciler with its queue and counters.
#[derive(Clone)]
struct Controller {
    reconciler: Arc<dyn Reconciler>,
    stats: Arc<ControllerStats>,
}

/// Runs reconcilers until told to stop.
pub struct Runtime {
    store: Store,
    controllers: Vec<Controller>,
    resync: Duration,
}

/// When the list of all keys cannot be made, it is tried again after this time.
const RELIST: Duration = Duration::from_secs(1);

impl Runtime {
    /// A runtime over a store, with a resync every minute.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            controllers: Vec::new(),
            resync: Duration::from_secs(60),
        }
    }
    /// Adds a reconciler.
    pub fn add(&mut self, reconciler: Arc<dyn Reconciler>) -> &mut Self {
        let stats = Arc::new(ControllerStats {
            name: reconciler.name(),
            queue: Arc::new(Queue::new()),
            runs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        self.controllers.push(Controller { reconciler, stats });
        self
    }
    /// Sets how often every key is looked at without a cause.
    pub fn resync(&mut self, every: Duration) -> &mut Self {
        self.resync = every;
        self
    }
    /// Counters of the reconcilers added so far; they stay readable while the runtime runs.
    #[must_use]
    pub fn stats(&self) -> Vec<Arc<ControllerStats>> {
        self.controllers.iter().map(|c| Arc::clone(&c.stats)).collect()
    }
    /// Runs until `stop` turns true or its sender is gone. Work in progress is dropped at its next await: crash-only.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for controller in self.controllers {
            tasks.spawn(feed(self.store.clone(), controller.clone(), self.resync));
            for _ in 0..controller.reconciler.workers().max(1) {
                tasks.spawn(work(self.store.clone(), controller.clone()));
            }
        }
        // Feeders and workers never end by themselves, and what they call cannot make them panic.
        drop(stop.wait_for(|s| *s).await);
        tasks.shutdown().await;
    }
}

/// Turns changes into kicks, for one controller.
async fn feed(store: Store, controller: Controller, resync: Duration) {
    let Controller { reconciler, stats } = controller;
    let kinds = panics::run(|| reconciler.kinds()).unwrap_or_else(|p| {
        stats.panicked("naming its kinds", "", &p);
        Vec::new()
    });
    loop {
        let snapshot = store.snapshot();
        let mut changes = store.watch(&Key::from_raw(""), snapshot.revision());
        let until = match panics::run(|| reconciler.all(&snapshot)) {
            Ok(keys) => {
                for key in keys {
                    stats.queue.kick(&key);
                }
                Instant::now() + resync
            }
            Err(p) => {
                stats.panicked("listing all keys", "", &p);
                Instant::now() + RELIST.min(resync)
            }
        };
        drop(snapshot);
        loop {
            let item = tokio::select! {
                item = changes.next() => item,
                () = tokio::time::sleep_until(until) => break,
            };
            match item {
                Some(WatchItem::Changes(_, list)) => {
                    let now = store.snapshot();
                    for change in list {
                        let parts = change.key.parts();
                        let [kind, id] = parts.as_slice() else { continue };
                        if !kinds.contains(&kind.as_str()) || only_bookkeeping(kind, &change) {
                            continue;
                        }
                        match panics::run(|| reconciler.keys_for(&now, kind, id)) {
                            Ok(keys) => keys.iter().for_each(|key| stats.queue.kick(key)),
                            // The change is not lost: the resync looks at everything.
                            Err(p) => stats.panicked("finding the keys of a change", change.key.as_str(), &p),
                        }
                    }
                }
                Some(WatchItem::Progress(_)) => {}
                Some(WatchItem::Expired) => break,
                None => {
                    // The store is closed; nothing will change any more.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Whether a change only counts a flow's failed attempt. It must not kick: the failure would undo its own back-off.
fn only_bookkeeping(kind: &str, change: &Change) -> bool {
    kind == Flow::NAME
        && matches!((change.old_as::<Flow>(), change.new_as::<Flow>()), (Some(old), Some(new))
            if new.attempts > old.attempts && new.step == old.step && new.data == old.data)
}

async fn work(store: Store, controller: Controller) {
    let Controller { reconciler, stats } = controller;
    let queue = &stats.queue;
    loop {
        let key = queue.take().await;
        let outcome = panics::catch(reconciler.reconcile(&store, &key)).await;
        stats.runs.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(Ok(Next::Done)) => queue.done(&key, true, None),
            Ok(Ok(Next::After(delay))) => queue.done(&key, true, Some(delay)),
            Ok(Err(error)) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                match panic_of(&error) {
                    // A flow has turned the panic of a step into that step's failure.
                    Some(p) => stats.panicked("running a step", &key, p),
                    None => {
                        tracing::warn!(controller = stats.name, key, error = %error.chain(), "step failed, will try again");
                    }
                }
                queue.done(&key, false, None);
            }
            Err(p) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                stats.panicked("reconciling", &key, &p);
                queue.done(&key, false, None);
            }
        }
    }
}

/// The panic behind an error, if one is.
fn panic_of(error: &Error) -> Option<&Panicked> {
    std::error::Error::source(error)?.downcast_ref()
}
