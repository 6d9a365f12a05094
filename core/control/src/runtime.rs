//! The reconciler runtime: watches kick queues, workers run keys, a full resync closes every gap.

use crate::queue::Queue;
use maru_base::Result;
use maru_store::{Key, Snapshot, Store, WatchItem};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

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

/// Runs reconcilers until told to stop.
pub struct Runtime {
    store: Store,
    reconcilers: Vec<Arc<dyn Reconciler>>,
    resync: Duration,
}

impl Runtime {
    /// A runtime over a store, with a resync every minute.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            reconcilers: Vec::new(),
            resync: Duration::from_secs(60),
        }
    }
    /// Adds a reconciler.
    pub fn add(&mut self, reconciler: Arc<dyn Reconciler>) -> &mut Self {
        self.reconcilers.push(reconciler);
        self
    }
    /// Sets how often every key is looked at without a cause.
    pub fn resync(&mut self, every: Duration) -> &mut Self {
        self.resync = every;
        self
    }
    /// Runs until `stop` turns true. Work in progress is dropped at its next await: crash-only.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for reconciler in self.reconcilers {
            let queue = Arc::new(Queue::new());
            tasks.spawn(feed(
                self.store.clone(),
                Arc::clone(&reconciler),
                Arc::clone(&queue),
                self.resync,
            ));
            for _ in 0..reconciler.workers().max(1) {
                tasks.spawn(work(self.store.clone(), Arc::clone(&reconciler), Arc::clone(&queue)));
            }
        }
        let stopped = async { drop(stop.wait_for(|s| *s).await) };
        tokio::select! {
            () = stopped => {}
            // Feeders and workers never end by themselves; a panic in one ends the process loudly.
            ended = tasks.join_next() => {
                if let Some(Err(error)) = ended {
                    tracing::error!(%error, "a controller task ended");
                }
            }
        }
        tasks.shutdown().await;
    }
}

/// Turns changes into kicks, for one reconciler.
async fn feed(store: Store, reconciler: Arc<dyn Reconciler>, queue: Arc<Queue>, resync: Duration) {
    loop {
        let snapshot = store.snapshot();
        for key in reconciler.all(&snapshot) {
            queue.kick(&key);
        }
        let kinds = reconciler.kinds();
        let mut changes = store.watch(&Key::from_raw(""), snapshot.revision());
        let until = tokio::time::Instant::now() + resync;
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
                        if let [kind, id] = parts.as_slice()
                            && kinds.contains(&kind.as_str())
                        {
                            for key in reconciler.keys_for(&now, kind, id) {
                                queue.kick(&key);
                            }
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

async fn work(store: Store, reconciler: Arc<dyn Reconciler>, queue: Arc<Queue>) {
    loop {
        let key = queue.take().await;
        match reconciler.reconcile(&store, &key).await {
            Ok(Next::Done) => queue.done(&key, true, None),
            Ok(Next::After(delay)) => queue.done(&key, true, Some(delay)),
            Err(error) => {
                tracing::warn!(controller = reconciler.name(), key, error = %error.chain(), "step failed, will try again");
                queue.done(&key, false, None);
            }
        }
    }
}
