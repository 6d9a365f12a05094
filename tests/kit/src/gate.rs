//! The engine of one life of the control plane: after a given number of commits that life is over.

use maru_store::{
    Engine, Key, Revision,
    engine::{Commit, Entry, Outcome, Request, Sink},
};
use std::{
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, watch};

/// An engine that stops answering. The commit that is its last is durable and is never answered, as when the process dies
/// between the disk's answer and the client's.
pub struct Gate {
    /// Gone with the life: an embedded engine's file is then free for the next.
    inner: Mutex<Option<Arc<dyn Engine>>>,
    name: &'static str,
    committed: AtomicU64,
    last: AtomicU64,
    dead: watch::Sender<bool>,
}

impl Gate {
    /// A gate before an engine; it is open.
    #[must_use]
    pub fn new(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self {
            name: inner.name(),
            inner: Mutex::new(Some(inner)),
            committed: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
            dead: watch::Sender::new(false),
        })
    }
    /// Transactions that were committed through it.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }
    /// The `n`-th commit from now on is the last of this life; with 0 it is over at once.
    pub fn crash_after(&self, n: u64) {
        self.last.store(self.committed().saturating_add(n), Ordering::SeqCst);
        if n == 0 {
            self.kill();
        }
    }
    /// Ends this life now.
    pub fn kill(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.dead.send_replace(true);
    }
    /// Whether this life is over.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }
    /// Returns when this life is over.
    pub async fn dead(&self) {
        let mut dead = self.dead.subscribe();
        // The sender lives as long as `self`.
        drop(dead.wait_for(|d| *d).await);
    }
    async fn engine(&self) -> Arc<dyn Engine> {
        let engine = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match engine {
            Some(engine) => engine,
            None => pending().await,
        }
    }
}

#[async_trait::async_trait]
impl Engine for Gate {
    async fn commit(&self, request: Request) -> Outcome {
        let writes = !request.ops.is_empty();
        let outcome = self.engine().await.commit(request).await;
        if matches!(outcome, Outcome::Committed(_)) && writes {
            let n = self.committed.fetch_add(1, Ordering::SeqCst) + 1;
            if n >= self.last.load(Ordering::SeqCst) {
                self.kill();
                return pending().await;
            }
        }
        outcome
    }
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String> {
        self.engine().await.resolve(id).await
    }
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        self.engine().await.range(prefix, after, limit).await
    }
    async fn watch(&self, from: Revision) -> Result<mpsc::Receiver<Arc<Commit>>, String> {
        self.engine().await.watch(from).await
    }
    async fn revision(&self) -> Result<Revision, String> {
        self.engine().await.revision().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), String> {
        self.engine().await.compact(revision).await
    }
    fn attach(&self, from: Revision, sink: Sink) -> Result<(), Sink> {
        let engine = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match engine {
            Some(engine) => engine.attach(from, sink),
            None => Err(sink),
        }
    }
    fn name(&self) -> &'static str {
        self.name
    }
}
