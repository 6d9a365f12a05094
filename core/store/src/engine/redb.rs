//! The embedded engine: one file, one writer thread.
//!
//! The writer drains its queue, checks the guards of each request in order against the state that the earlier ones
//! made, commits them all durably at once, publishes, and only then answers, so that nothing is answered that a crash
//! could take back. A commit that fails leaves unknown what is on the disk: everyone is told `Unknown` and the process
//! ends, because only opening the file again tells.

mod read;
mod writer;

use super::{Commit, Engine, Entry, Outcome, Request, Sink, hub::Hub};
use crate::{Key, Revision};
use redb::{Builder, Database, StorageBackend, TableDefinition};
use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, oneshot};

/// Key → creation, last write, value.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// Revision → the commit's id and what was before it, for watchers that resume after a restart.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// `revision`: the newest one. `log_bytes`: how much the log holds.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Requests that may wait for the writer.
const QUEUE: usize = 4_096;

/// How the engine behaves; the default is right for a control node.
#[derive(Clone)]
pub struct Options {
    /// Pages kept in memory. The mirror answers reads, so this serves the writer only.
    pub cache_bytes: usize,
    /// The log holds at most this many commits …
    pub log_commits: u64,
    /// … and about this many bytes.
    pub log_bytes: u64,
    /// What is done after a commit failed; by default the process ends at once.
    pub on_failure: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            log_commits: 10_000,
            log_bytes: 64 << 20,
            on_failure: Arc::new(|error| {
                tracing::error!(
                    error,
                    "a commit failed: what is on the disk is unknown, the process ends"
                );
                std::process::abort();
            }),
        }
    }
}

/// What the handle and the writer share.
struct Shared {
    db: Database,
    hub: Hub,
    /// The newest durable and published revision.
    revision: AtomicU64,
    failed: AtomicBool,
    /// History up to here is no longer served, though some of it may still be in the log.
    compacted: AtomicU64,
    /// Ids of the transactions that the log still has.
    txns: Mutex<HashMap<u128, Revision>>,
    options: Options,
}

impl Shared {
    fn txns(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Revision>> {
        self.txns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Job {
    Commit(Request, oneshot::Sender<Outcome>),
    Compact(Revision, oneshot::Sender<()>),
}

/// See the module.
pub struct Redb {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    room: Semaphore,
    writer: Option<JoinHandle<()>>,
}

impl Redb {
    /// Opens or creates the file. Exactly one process can have it open.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use, or is damaged.
    pub fn open(path: &Path, options: Options) -> Result<Self, String> {
        let new = !path.exists();
        let shown = path.display();
        let db = builder(&options)
            .create(path)
            .map_err(|e| format!("{shown} cannot be opened: {e}"))?;
        if new && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            // A new file is only there after a crash when its directory is on the disk too.
            File::open(parent)
                .and_then(|d| d.sync_all())
                .map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        Self::start(db, options)
    }

    /// Opens over another storage, which may inject faults.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn with_backend(backend: impl StorageBackend, options: Options) -> Result<Self, String> {
        let db = builder(&options)
            .create_with_backend(backend)
            .map_err(|e| format!("the storage: {e}"))?;
        Self::start(db, options)
    }

    fn start(db: Database, options: Options) -> Result<Self, String> {
        let start = read::start(&db)?;
        let shared = Arc::new(Shared {
            db,
            hub: Hub::new(start.revision),
            revision: AtomicU64::new(start.revision),
            failed: AtomicBool::new(false),
            compacted: AtomicU64::new(0),
            txns: Mutex::new(start.txns),
            options,
        });
        let (jobs, queue) = mpsc::channel();
        let writer = writer::Writer::new(Arc::clone(&shared), queue);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| format!("the writer thread cannot be started: {e}"))?;
        Ok(Self {
            shared,
            jobs: Some(jobs),
            room: Semaphore::new(QUEUE),
            writer: Some(writer),
        })
    }

    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
    fn alive(&self) -> Result<(), String> {
        match self.shared.failed.load(Ordering::Acquire) {
            true => Err("the engine has stopped after a failed commit".to_owned()),
            false => Ok(()),
        }
    }
}

fn builder(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}

impl Drop for Redb {
    fn drop(&mut self) {
        // The writer ends when its queue does; the file is closed when this returns.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait::async_trait]
impl Engine for Redb {
    async fn commit(&self, request: Request) -> Outcome {
        let unknown = || Outcome::Unknown("the writer has stopped".to_owned());
        let Ok(_room) = self.room.acquire().await else {
            return unknown();
        };
        let (sender, answer) = oneshot::channel();
        if !self.send(Job::Commit(request, sender)) {
            return unknown();
        }
        answer.await.unwrap_or_else(|_| unknown())
    }
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String> {
        self.alive()?;
        Ok(self.shared.txns().get(&id).copied())
    }
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        self.alive()?;
        let (shared, prefix, after) = (Arc::clone(&self.shared), prefix.clone(), after.cloned());
        let read = tokio::task::spawn_blocking(move || read::range(&shared.db, &prefix, after.as_ref(), limit));
        read.await.map_err(|e| e.to_string())?
    }
    async fn watch(&self, from: Revision) -> Result<tokio::sync::mpsc::Receiver<Arc<Commit>>, String> {
        self.alive()?;
        let shared = Arc::clone(&self.shared);
        let compacted = shared.compacted.load(Ordering::Acquire);
        if from < compacted {
            return Err(format!("history up to {compacted} is compacted"));
        }
        let watch = tokio::task::spawn_blocking(move || {
            shared.hub.watch(from, |after, upto| read::log(&shared.db, after, upto))
        });
        watch.await.map_err(|e| e.to_string())?
    }
    async fn revision(&self) -> Result<Revision, String> {
        self.alive()?;
        Ok(self.shared.revision.load(Ordering::Acquire))
    }
    async fn compact(&self, revision: Revision) -> Result<(), String> {
        let (sender, done) = oneshot::channel();
        if !self.send(Job::Compact(revision, sender)) {
            return Err("the writer has stopped".to_owned());
        }
        done.await.map_err(|_| "the writer has stopped".to_owned())
    }
    fn attach(&self, from: Revision, sink: Sink) -> Result<(), Sink> {
        self.shared.hub.attach(from, sink)
    }
    fn name(&self) -> &'static str {
        "redb"
    }
}
