//! The engine of one life of the control plane: after a given number of commits that life is over.

use maru_store::{
    Conflict, Engine, Key, Revision,
    engine::{Commit, Entry, Outcome, Request, Sink},
};
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, watch};

/// What happens to one attempt to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It is durable, and the answer is lost.
    AnswerLost,
    /// It never arrives, and nobody is told.
    RequestLost,
    /// Someone else was first: a guard does not hold.
    Conflict,
    /// It takes so long that everything that has a patience loses it.
    Slow,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AnswerLost, Self::RequestLost, Self::Conflict, Self::Slow];
}

/// How long a slow commit takes.
const SLOW: std::time::Duration = std::time::Duration::from_secs(90);

/// An engine that stops answering. The commit that is its last is durable and is never answered, as when the process dies
/// between the disk's answer and the client's.
pub struct Gate {
    /// Gone with the life: an embedded engine's file is then free for the next.
    inner: Mutex<Option<Arc<dyn Engine>>>,
    name: &'static str,
    committed: watch::Sender<u64>,
    attempts: AtomicU64,
    /// What happens to which attempt.
    mishaps: Mutex<BTreeMap<u64, Mishap>>,
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
            committed: watch::Sender::new(0),
            attempts: AtomicU64::new(0),
            mishaps: Mutex::default(),
            last: AtomicU64::new(u64::MAX),
            dead: watch::Sender::new(false),
        })
    }
    /// Transactions that were committed through it.
    #[must_use]
    pub fn committed(&self) -> u64 {
        *self.committed.borrow()
    }
    /// Returns once this many were.
    pub async fn committed_reaches(&self, n: u64) {
        let mut committed = self.committed.subscribe();
        // The sender lives as long as `self`.
        drop(committed.wait_for(|c| *c >= n).await);
    }
    /// Transactions with something to write that were to be committed through it, whatever became of them.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::SeqCst)
    }
    /// The `n`-th attempt from now on meets a mishap.
    pub fn mishap(&self, n: u64, mishap: Mishap) {
        let at = self.attempts().saturating_add(n);
        self.mishaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(at, mishap);
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
        let engine = self.engine().await;
        if request.ops.is_empty() {
            return engine.commit(request).await;
        }
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        let mishap = self
            .mishaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&attempt);
        match mishap {
            Some(Mishap::RequestLost) => return Outcome::Unknown("the request was lost".to_owned()),
            // A transaction without guards never meets a conflict.
            Some(Mishap::Conflict) => {
                if let Some(guard) = request.guards.first() {
                    return Outcome::Conflict(Conflict::Guard {
                        index: 0,
                        key: guard.key().clone(),
                    });
                }
            }
            Some(Mishap::Slow) => tokio::time::sleep(SLOW).await,
            Some(Mishap::AnswerLost) | None => {}
        }
        let outcome = engine.commit(request).await;
        if matches!(outcome, Outcome::Committed(_)) {
            self.committed.send_modify(|n| *n += 1);
            if self.committed() >= self.last.load(Ordering::SeqCst) {
                self.kill();
                return pending().await;
            }
        }
        if mishap == Some(Mishap::AnswerLost) {
            return Outcome::Unknown("the answer was lost".to_owned());
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
