//! The handle that services hold.

use crate::{
    CommitError, Conflict, Engine, Guard, Key, Kind, Object, Op, Registry, Revision, Snapshot, Txn, Watch,
    engine::{Commit, Mem, Outcome, Request},
    kind::decode_value,
    limits,
    mirror::{INCARNATION, Layout, Mirror},
};
use bytes::Bytes;
use maru_base::Durations;
use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use crate::mirror::MirrorState;

/// How often [`Store::plan`] plans before it gives up.
const PLANS: u32 = 30;
/// How long a committed transaction may take to the mirror.
const SHOWN: Duration = Duration::from_secs(10);
/// A mirror that is unconfirmed for longer must not answer reads.
const CONFIRMED: Duration = Duration::from_secs(1);
/// How often an `Unknown` is looked up before the caller is told so.
const RESOLVES: u32 = 40;

/// The store: an engine and the mirror over it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

struct Handle {
    engine: Arc<dyn Engine>,
    mirror: Arc<Mirror>,
    stats: Stats,
}

/// What a store has done since it was opened, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    commits: Durations,
    conflicts: AtomicU64,
    failures: AtomicU64,
}

impl Stats {
    /// Transactions that committed, by the time until this process's mirror showed them.
    #[must_use]
    pub fn commits(&self) -> &Durations {
        &self.commits
    }
    /// Transactions whose guards or limits did not hold; most are planned again and then commit.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }
    /// Transactions that were refused or could not be committed for another reason.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.mirror.end();
    }
}

impl Store {
    /// Opens the store over an engine: loads the mirror, then follows the engine's commits.
    ///
    /// # Errors
    /// When the engine cannot be read or a value cannot be decoded.
    pub async fn open(engine: Arc<dyn Engine>, registry: Registry) -> maru_base::Result<Self> {
        let unreadable = |e: String| maru_base::Error::internal("the store cannot be opened", e);
        let layout = Layout::new(&registry);
        let everything = Key::from_raw("");
        let (mut revision, mut entries) = engine.range(&everything, None, usize::MAX).await.map_err(unreadable)?;
        crate::maintain::check_openable(&entries).map_err(unreadable)?;
        if !entries.iter().any(|e| e.key.as_str() == INCARNATION) {
            // The first process to open a store begins its first incarnation; in a conflict another one was first.
            engine.commit(first_incarnation()).await;
            (revision, entries) = engine.range(&everything, None, usize::MAX).await.map_err(unreadable)?;
        }
        let mirror = Mirror::load(layout, revision, &entries).map_err(unreadable)?;
        drop(entries);
        follow(&engine, &mirror).await.map_err(unreadable)?;
        Ok(Self {
            handle: Arc::new(Handle {
                engine,
                mirror,
                stats: Stats::default(),
            }),
        })
    }
    /// A store in memory, for tests. Needs no runtime and works with paused time.
    #[must_use]
    pub fn in_memory(registry: Registry) -> Self {
        let engine = Arc::new(Mem::new());
        // An engine without entries cannot hold one that does not decode.
        let mirror = Mirror::empty(Layout::new(&registry));
        let sink = Arc::downgrade(&mirror);
        let _ = engine.attach(0, Box::new(move |commits| pour(&sink, commits)));
        engine.commit_now(&first_incarnation());
        Self {
            handle: Arc::new(Handle {
                engine,
                mirror,
                stats: Stats::default(),
            }),
        }
    }
    /// The newest state this process has.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            inner: self.handle.mirror.state(),
        }
    }
    /// The engine below, for status and maintenance.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.handle.engine
    }
    /// Commits a transaction; returns when this process's mirror shows it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        let begun = Instant::now();
        let outcome = self.commit_once(txn).await;
        let stats = &self.handle.stats;
        match &outcome {
            Ok(_) => stats.commits.observe(begun.elapsed()),
            Err(e) if e.is_conflict() => {
                stats.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }
    /// What this handle and its clones have done.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.handle.stats
    }

    async fn commit_once(&self, txn: Txn) -> Result<Revision, CommitError> {
        check(&txn, &self.handle.mirror.state().layout)?;
        // Known not to have committed, a transaction is simply sent again under a new id.
        for _ in 0..3 {
            let id = maru_base::random::u128();
            let request = Request {
                id,
                guards: txn.guards.clone(),
                ops: txn.ops.clone(),
            };
            let revision = match self.handle.engine.commit(request).await {
                Outcome::Committed(revision) => revision,
                Outcome::Conflict(conflict) => return Err(CommitError::Conflict(conflict)),
                Outcome::Unknown(why) => match self.resolve(id, why).await? {
                    Some(revision) => revision,
                    None => continue,
                },
            };
            self.wait_shown(revision).await?;
            return Ok(revision);
        }
        Err(CommitError::Unavailable(
            "the engine lost the transaction three times".to_owned(),
        ))
    }

    /// What became of a request that was not answered.
    async fn resolve(&self, id: u128, why: String) -> Result<Option<Revision>, CommitError> {
        let mut why = why;
        for attempt in 0..RESOLVES {
            match self.handle.engine.resolve(id).await {
                Ok(found) => return Ok(found),
                Err(e) => why = e,
            }
            back_off(attempt, 250).await;
        }
        Err(CommitError::Unavailable(why))
    }

    async fn wait_shown(&self, revision: Revision) -> Result<(), CommitError> {
        self.wait_shown_for(revision, SHOWN).await
    }

    async fn wait_shown_for(&self, revision: Revision, patience: Duration) -> Result<(), CommitError> {
        // No timer for what is there: the engines of this process show before they answer.
        if self.handle.mirror.mark.borrow().revision >= revision {
            return Ok(());
        }
        let mut marks = self.handle.mirror.mark.subscribe();
        let wait = marks.wait_for(|mark| mark.revision >= revision || mark.ended);
        match tokio::time::timeout(patience, wait).await {
            Ok(Ok(mark)) if mark.revision >= revision => Ok(()),
            Ok(_) => Err(CommitError::Unavailable("the mirror has stopped".to_owned())),
            Err(_) => Err(CommitError::Unavailable(format!(
                "the mirror has not reached revision {revision}"
            ))),
        }
    }

    /// Plans on a fresh snapshot and commits, planning again on a conflict (with jittered back-off, about 30 times).
    /// The plan returns the transaction and what to answer. A counter that would pass its limit is not tried again:
    /// it comes back as [`CommitError::Conflict`] with `Conflict::Exceeded` inside the error's source
    /// (see [`CommitError::conflict_of`]).
    ///
    /// # Errors
    /// What the plan refused, or that it could not be committed.
    pub async fn plan<T, F>(&self, mut plan: F) -> maru_base::Result<T>
    where
        F: FnMut(&Snapshot) -> maru_base::Result<(Txn, T)>,
    {
        let mut attempt = 0;
        loop {
            let (txn, answer) = plan(&self.snapshot())?;
            match self.commit(txn).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict(Conflict::Guard { .. })) if attempt + 1 < PLANS => {}
                Err(e) => return Err(e.into()),
            }
            // Over a shared engine the mirror may not have what the conflict was decided on.
            self.sync().await?;
            if attempt > 0 {
                back_off(attempt, 50).await;
            }
            attempt += 1;
        }
    }
    /// Waits until the mirror has all that the engine has. Free on an engine of this process.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn sync(&self) -> maru_base::Result<Snapshot> {
        let revision = self.handle.engine.revision().await.map_err(CommitError::Unavailable)?;
        self.wait_shown(revision).await?;
        Ok(self.snapshot())
    }
    /// A snapshot that is confirmed to have everything that was committed before this call, by any process: what a GET
    /// answers from. Free on an engine of this process; over a shared one callers share a read of its clock, and a
    /// mirror that cannot be confirmed within a second is `Unavailable`.
    ///
    /// # Errors
    /// See above.
    pub async fn current(&self) -> maru_base::Result<Snapshot> {
        let unconfirmed = |_| CommitError::Unavailable("the mirror cannot be confirmed".to_owned());
        let newest = tokio::time::timeout(CONFIRMED, self.handle.engine.revision())
            .await
            .map_err(unconfirmed)?;
        self.wait_shown_for(newest.map_err(CommitError::Unavailable)?, CONFIRMED)
            .await?;
        Ok(self.snapshot())
    }
    /// Waits until the mirror has this revision (or the store has stopped).
    pub async fn wait(&self, revision: Revision) {
        let mut marks = self.handle.mirror.mark.subscribe();
        let _ = marks.wait_for(|mark| mark.revision >= revision || mark.ended).await;
    }
    /// Waits until `check` holds of a snapshot, looking again after every change. Once the store has stopped there
    /// is no change to wait for: then this waits for ever.
    pub async fn until<F: FnMut(&Snapshot) -> bool>(&self, mut check: F) -> Snapshot {
        let mut marks = self.handle.mirror.mark.subscribe();
        loop {
            marks.mark_unchanged();
            let snapshot = self.snapshot();
            if check(&snapshot) {
                return snapshot;
            }
            if marks.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
    /// Follows all changes under `prefix` after `from`.
    #[must_use]
    pub fn watch(&self, prefix: &Key, from: Revision) -> Watch {
        Watch::new(Arc::clone(&self.handle.mirror), prefix.clone(), from)
    }
    /// Reads objects of a `Stored` kind in id order, after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub async fn page<K: Kind>(&self, after: Option<&K::Id>, limit: usize) -> maru_base::Result<Vec<Object<K>>> {
        let after = after.map(crate::txn::object_key::<K>);
        let prefix = Key::prefix(&[K::NAME]);
        let read = self.handle.engine.range(&prefix, after.as_ref(), limit).await;
        let (_, entries) = read.map_err(CommitError::Unavailable)?;
        let objects = entries.into_iter().filter_map(|e| {
            let id = e.key.tail()?;
            let value =
                decode_value::<K>(&e.value).map_err(|e| maru_base::Error::internal("a stored value is unreadable", e));
            Some(value.map(|value| Object {
                id: K::Id::from(&id),
                created: e.created,
                revision: e.modified,
                value: Arc::new(value),
            }))
        });
        objects.collect()
    }
}

/// Starts what keeps the mirror current.
async fn follow(engine: &Arc<dyn Engine>, mirror: &Arc<Mirror>) -> Result<(), String> {
    let from = mirror.state().revision();
    let weak = Arc::downgrade(mirror);
    if engine
        .attach(from, Box::new(move |commits| pour(&weak, commits)))
        .is_ok()
    {
        return Ok(());
    }
    let receiver = engine.watch(from).await?;
    tokio::spawn(pump(Arc::downgrade(engine), Arc::downgrade(mirror), receiver));
    Ok(())
}

fn pour(mirror: &Weak<Mirror>, commits: &[Arc<Commit>]) -> bool {
    mirror.upgrade().is_some_and(|mirror| mirror.apply(commits))
}

/// Feeds the mirror from an engine that is followed by a watch; after a loss it loads everything anew.
async fn pump(engine: Weak<dyn Engine>, mirror: Weak<Mirror>, mut receiver: tokio::sync::mpsc::Receiver<Arc<Commit>>) {
    const BATCH: usize = 512;
    let mut batch = Vec::with_capacity(BATCH);
    // Whether this watch has brought anything: one that ends at once would do so again from the same revision.
    let mut progress = true;
    let mut marks = match mirror.upgrade() {
        Some(mirror) => mirror.mark.subscribe(),
        None => return,
    };
    loop {
        let received = tokio::select! {
            n = receiver.recv_many(&mut batch, BATCH) => n,
            _ = marks.wait_for(|mark| mark.ended) => return,
        };
        if received > 0 {
            if !pour(&mirror, &batch) {
                return;
            }
            batch.clear();
            progress = true;
            continue;
        }
        // The watch ended: begin again from the present state.
        let mut attempt = 0;
        receiver = loop {
            let (Some(engine), Some(mirror)) = (engine.upgrade(), mirror.upgrade()) else {
                return;
            };
            if mirror.mark.borrow().ended {
                return;
            }
            match restart(&*engine, &mirror, !progress).await {
                Ok(receiver) => break receiver,
                Err(error) => tracing::warn!(error, "the mirror cannot be loaded anew yet"),
            }
            drop((engine, mirror));
            back_off(attempt, 1_000).await;
            attempt += 1;
        };
        progress = false;
    }
}

async fn restart(
    engine: &dyn Engine,
    mirror: &Mirror,
    anew: bool,
) -> Result<tokio::sync::mpsc::Receiver<Arc<Commit>>, String> {
    let from = mirror.state().revision();
    if !anew && let Ok(receiver) = engine.watch(from).await {
        return Ok(receiver);
    }
    tracing::warn!(from, engine = engine.name(), "the mirror is loaded anew");
    let (revision, entries) = engine.range(&Key::from_raw(""), None, usize::MAX).await?;
    mirror.reload(revision, &entries)?;
    engine.watch(revision).await
}

/// What the first process that opens a store writes.
fn first_incarnation() -> Request {
    let key = Key::from_raw(INCARNATION);
    Request {
        id: maru_base::random::u128(),
        guards: vec![Guard::Absent(key.clone())],
        ops: vec![Op::Put(key, Bytes::from(maru_base::random::hex32()))],
    }
}

/// Sleeps a random time below a bound that doubles with each attempt.
pub(crate) async fn back_off(attempt: u32, most_ms: u64) {
    let bound = (1_u64 << attempt.min(16)).min(most_ms);
    tokio::time::sleep(Duration::from_millis(1 + maru_base::random::below(bound))).await;
}

/// What is wrong with a transaction before any engine sees it.
fn check(txn: &Txn, layout: &Layout) -> Result<(), CommitError> {
    if let Some(fault) = &txn.fault {
        return Err(CommitError::Malformed(fault.clone()));
    }
    let op_bytes = |op: &Op| op.key().as_str().len() + if let Op::Put(_, value) = op { value.len() } else { 0 };
    let bytes =
        txn.ops.iter().map(op_bytes).sum::<usize>() + txn.guards.iter().map(|g| g.key().as_str().len()).sum::<usize>();
    let sizes = [
        ("guards", txn.guards.len(), limits::GUARDS),
        ("operations", txn.ops.len(), limits::OPS),
        ("bytes", bytes, limits::BYTES),
    ];
    if let Some((what, have, limit)) = sizes.into_iter().find(|(_, have, limit)| have > limit) {
        return Err(CommitError::TooLarge { what, have, limit });
    }
    let mut spaces = txn.ops.iter().filter_map(|op| layout.space_of(op.key()));
    if let Some(first) = spaces.next()
        && let Some(other) = spaces.find(|space| *space != first)
    {
        return Err(CommitError::Malformed(format!(
            "it writes in two spaces, {first:?} and {other:?}"
        )));
    }
    let mut keys = HashSet::with_capacity(txn.ops.len());
    match txn.ops.iter().find(|op| !keys.insert(op.key())) {
        Some(op) => Err(CommitError::Malformed(format!(
            "{} is written twice in one transaction",
            op.key()
        ))),
        None => Ok(()),
    }
}
