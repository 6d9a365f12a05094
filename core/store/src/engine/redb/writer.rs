//! The writer thread: groups, commits, publishes, answers.

use super::{ENTRIES, Job, LOG, META, Shared};
use crate::{
    Key, Revision,
    engine::{Commit, Entry, Outcome, Request, apply, apply::View, codec},
};
use redb::{ReadableTable, ReadableTableMetadata, Table};
use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Most requests and bytes in one group.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 16 << 20;
/// How long the writer waits for the clients of the last group to come back: far less than the disk takes.
const LINGER: Duration = Duration::from_micros(150);
/// Most log entries dropped beside one commit.
const DROP: u64 = 256;

/// The entries as the group has changed them so far.
struct Entries<'a, 't>(&'a Table<'t, &'static str, &'static [u8]>);

impl View for Entries<'_, '_> {
    type Error = String;
    fn entry(&self, key: &Key) -> Result<Option<Entry>, String> {
        match self.0.get(key.as_str()).map_err(|e| e.to_string())? {
            Some(stored) => codec::entry_of(key.clone(), stored.value()).map(Some),
            None => Ok(None),
        }
    }
    fn any_under(&self, prefix: &Key) -> Result<bool, String> {
        let mut range = self.0.range::<&str>(prefix.as_str()..).map_err(|e| e.to_string())?;
        match range.next() {
            Some(Ok((key, _))) => Ok(key.value().starts_with(prefix.as_str())),
            Some(Err(e)) => Err(e.to_string()),
            None => Ok(false),
        }
    }
}

type Waiting = (Request, oneshot::Sender<Outcome>);

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    /// Size of the last group: so many clients may come back at once.
    last: usize,
    /// The log is dropped up to here, whatever its bounds say.
    compact: Revision,
}

/// What one durable commit did.
struct Done {
    outcomes: Vec<Outcome>,
    commits: Vec<Arc<Commit>>,
    ids: Vec<(u128, Revision)>,
    dropped: Vec<u128>,
    revision: Revision,
    /// There is more log to drop than one batch.
    more: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, queue: Receiver<Job>) -> Self {
        Self {
            shared,
            queue,
            last: 0,
            compact: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut more = false;
        loop {
            // Work left over is done in small batches while nobody asks for anything.
            let first = if more {
                self.queue.recv_timeout(Duration::from_millis(5))
            } else {
                self.queue.recv().map_err(Into::into)
            };
            let group = match first {
                Ok(job) => {
                    let before = self.compact;
                    let group = self.gather(job);
                    more |= self.compact > before;
                    group
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if group.is_empty() && !more {
                continue;
            }
            match self.write(&group) {
                Ok(done) => {
                    more = done.more;
                    self.publish(group, done);
                }
                Err(error) => {
                    self.fail(group, &error);
                    return;
                }
            }
        }
    }

    /// The first job and what else waits, up to the group's bounds.
    fn gather(&mut self, first: Job) -> Vec<Waiting> {
        let mut group = Vec::new();
        let mut bytes = 0;
        let linger = Instant::now() + LINGER;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Commit(request, answer) => {
                    bytes += request.ops.iter().map(op_bytes).sum::<usize>();
                    group.push((request, answer));
                }
                Job::Compact(revision, answer) => {
                    self.compact = self
                        .compact
                        .max(revision.min(self.shared.revision.load(Ordering::Acquire)));
                    self.shared.compacted.store(self.compact, Ordering::Release);
                    self.shared.hub.compact(self.compact);
                    let _ = answer.send(());
                }
            }
            if group.len() >= GROUP || bytes >= GROUP_BYTES {
                break;
            }
            next = match self.queue.try_recv() {
                Ok(job) => Some(job),
                // Clients of one group come back together: starting with the first of them would make every second
                // group a small one.
                Err(_) if group.len() < self.last => self
                    .queue
                    .recv_timeout(linger.saturating_duration_since(Instant::now()))
                    .ok(),
                Err(_) => None,
            };
        }
        self.last = group.len();
        group
    }

    fn write(&self, group: &[Waiting]) -> Result<Done, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let before = self.shared.revision.load(Ordering::Acquire);
        let mut done = Done {
            outcomes: Vec::with_capacity(group.len()),
            commits: Vec::new(),
            ids: Vec::new(),
            dropped: Vec::new(),
            revision: before,
            more: false,
        };
        let mut txn = self.shared.db.begin_write().map_err(|e| text(&e))?;
        txn.set_quick_repair(true);
        let mut dirty = false;
        {
            let mut entries = txn.open_table(ENTRIES).map_err(|e| text(&e))?;
            let mut log = txn.open_table(LOG).map_err(|e| text(&e))?;
            let mut meta = txn.open_table(META).map_err(|e| text(&e))?;
            let mut log_bytes = meta.get("log_bytes").map_err(|e| text(&e))?.map_or(0, |v| v.value());
            for (request, _) in group {
                let commit = match apply::decide(&Entries(&entries), request, done.revision + 1)? {
                    Ok(commit) => commit,
                    Err(conflict) => {
                        done.outcomes.push(Outcome::Conflict(conflict));
                        continue;
                    }
                };
                if request.ops.is_empty() {
                    done.outcomes.push(Outcome::Committed(done.revision));
                    continue;
                }
                dirty = true;
                done.revision = commit.revision;
                for (key, _, new) in &commit.changes {
                    match new {
                        Some(e) => entries.insert(key.as_str(), &*codec::entry_bytes(e)).map(drop),
                        None => entries.remove(key.as_str()).map(drop),
                    }
                    .map_err(|e| text(&e))?;
                }
                let logged = codec::commit_bytes(request.id, &commit);
                log_bytes += logged.len() as u64;
                log.insert(commit.revision, &*logged).map_err(|e| text(&e))?;
                done.ids.push((request.id, commit.revision));
                done.outcomes.push(Outcome::Committed(commit.revision));
                done.commits.push(Arc::new(commit));
            }
            // History is dropped a little faster than it grows.
            for dropped in 0..=DROP.max(2 * group.len() as u64) {
                let over = log.len().map_err(|e| text(&e))? > self.shared.options.log_commits
                    || log_bytes > self.shared.options.log_bytes;
                let first = log.first().map_err(|e| text(&e))?.map(|(revision, stored)| {
                    let (revision, stored) = (revision.value(), stored.value());
                    codec::id_of(revision, stored).map(|id| (revision, stored.len() as u64, id))
                });
                let Some((oldest, size, id)) = first.transpose()? else {
                    break;
                };
                if !over && oldest > self.compact {
                    break;
                }
                if dropped == DROP.max(2 * group.len() as u64) {
                    done.more = true;
                    break;
                }
                dirty = true;
                log_bytes = log_bytes.saturating_sub(size);
                log.remove(oldest).map_err(|e| text(&e))?;
                done.dropped.push(id);
            }
            if dirty {
                meta.insert("revision", done.revision).map_err(|e| text(&e))?;
                meta.insert("log_bytes", log_bytes).map_err(|e| text(&e))?;
            }
        }
        if dirty {
            txn.commit().map_err(|e| text(&e))?
        } else {
            txn.abort().map_err(|e| text(&e))?
        }
        Ok(done)
    }

    fn publish(&self, group: Vec<Waiting>, done: Done) {
        {
            let mut txns = self.shared.txns();
            txns.extend(done.ids);
            for id in done.dropped {
                txns.remove(&id);
            }
        }
        self.shared.revision.store(done.revision, Ordering::Release);
        if !done.commits.is_empty() {
            self.shared.hub.publish(&done.commits);
        }
        for ((_, answer), outcome) in group.into_iter().zip(done.outcomes) {
            let _ = answer.send(outcome);
        }
    }

    fn fail(self, group: Vec<Waiting>, error: &str) {
        self.shared.failed.store(true, Ordering::Release);
        self.shared.hub.close();
        for (_, answer) in group {
            let _ = answer.send(Outcome::Unknown(error.to_owned()));
        }
        (self.shared.options.on_failure)(error);
    }
}

fn op_bytes(op: &crate::Op) -> usize {
    match op {
        crate::Op::Put(key, value) => key.as_str().len() + value.len(),
        other => other.key().as_str().len() + 20,
    }
}
