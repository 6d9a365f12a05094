//! The engine behind the store: one small trait.

mod apply;
mod codec;
pub mod etcd;
mod hub;
pub mod mem;
pub mod redb;

use crate::{Conflict, Guard, Key, Op, Revision};
use bytes::Bytes;
use std::sync::Arc;

pub use etcd::Etcd;
pub use mem::Mem;
pub use redb::Redb;

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its value. A counter's value is its decimal text.
    pub value: Bytes,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
}

/// What an engine is asked to commit.
#[derive(Debug, Clone)]
pub struct Request {
    /// A random id; the engine keeps it (`txn/<id>`) long enough to resolve an `Unknown`.
    pub id: u128,
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What is written.
    pub ops: Vec<Op>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, with this revision.
    Committed(Revision),
    /// Nothing was written.
    Conflict(Conflict),
    /// Not known: look up the request's id.
    Unknown(String),
}

/// One committed transaction, as a watcher sees it.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// Each key it touched: the entry before and after (`None`: absent).
    pub changes: Vec<(Key, Option<Entry>, Option<Entry>)>,
}

/// Receives commits in order, on the engine's own thread; answers `false` to be let go.
pub type Sink = Box<dyn Fn(&[Arc<Commit>]) -> bool + Send + Sync>;

/// A transactional, revisioned key-value log.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Commits one request; requests of many callers are grouped by the engine.
    async fn commit(&self, request: Request) -> Outcome;
    /// Whether the request with this id was committed, and at which revision.
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String>;
    /// Entries under `prefix` in key order after `after`, at most `limit`, with the revision they were read at.
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String>;
    /// All commits after `from`, in order; the receiver ends when it falls too far behind or the engine stops.
    async fn watch(&self, from: Revision) -> Result<tokio::sync::mpsc::Receiver<std::sync::Arc<Commit>>, String>;
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, String>;
    /// Drops history up to `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), String>;
    /// Calls `sink` with all commits after `from`, in order and before the commit is answered, so that the mirror of
    /// an engine in this process needs no task and no thread hop. An engine that cannot gives the sink back and is
    /// followed by [`Engine::watch`].
    ///
    /// # Errors
    /// The sink, when the engine does not do this (or no longer has the history after `from`).
    fn attach(&self, from: Revision, sink: Sink) -> Result<(), Sink> {
        let _ = from;
        Err(sink)
    }
    /// A short name for status: `redb`.
    fn name(&self) -> &'static str;
}
