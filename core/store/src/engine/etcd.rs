//! The engine of many machines, over etcd.
//!
//! Under a prefix of its own there are `k/<key>` (entries), `t/<id>` (ids of transactions not long ago) and `clock`, which
//! every transaction puts: its version counts transactions, so that a follower that misses one sees it. A request is one
//! etcd transaction: its guards and "my id is absent" are compared; its operations, its id and the clock are put. The
//! other branch reads what the guards look at, so that a conflict names its guard out of the same instant.
//!
//! Nothing here rests on leases, progress notifications or serialisable reads.

mod counters;
mod follow;

use super::{Commit, Engine, Entry, Outcome, Request};
use crate::{Conflict, Guard, Key, Op, Revision};
use bytes::Bytes;
use counters::{Counters, Held};
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// What etcd must be started with, for the limits of [`crate::limits`] to fit.
pub const FLAGS: [&str; 2] = ["--max-txn-ops=4096", "--max-request-bytes=10485760"];
/// Operations that the largest request needs in one branch: guards and counters, or operations, id, clock, clean-up.
const MOST_OPS: usize = crate::limits::GUARDS + crate::limits::OPS + 8;
/// Bytes that the largest request may have on the wire.
const MOST_BYTES: usize = 9 << 20;
/// What one answer may have.
const ANSWER_BYTES: usize = 1 << 30;
/// After this a request is `Unknown`.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries of one read.
const PAGE: usize = 500;
/// Ids of answered requests that are left in etcd; and those that are remembered here.
const IDS_KEPT: usize = 64;
const IDS_REMEMBERED: usize = 4_096;
/// How often a counter's guard is renewed before the request gives up.
const COUNTER_TRIES: u32 = 200;
/// Ids that dead processes left are removed when they are this many revisions old.
const ID_AGE: i64 = 100_000;

struct Shared {
    client: Client,
    prefix: String,
    counters: Counters,
    ids: Mutex<Ids>,
    /// Callers of [`Engine::revision`] so far; see `barrier`.
    arrivals: AtomicU64,
    barrier: tokio::sync::Mutex<(u64, Revision)>,
}

#[derive(Default)]
struct Ids {
    answered: VecDeque<u128>,
    committed: HashMap<u128, Revision>,
    order: VecDeque<u128>,
}

impl Ids {
    fn remember(&mut self, id: u128, revision: Revision) {
        self.answered.push_back(id);
        self.order.push_back(id);
        self.committed.insert(id, revision);
        if self.order.len() > IDS_REMEMBERED
            && let Some(old) = self.order.pop_front()
        {
            self.committed.remove(&old);
        }
    }
}

/// See the module.
pub struct Etcd {
    shared: Arc<Shared>,
}

fn revision_of(etcd: i64) -> Revision {
    u64::try_from(etcd).unwrap_or(0)
}

fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Waits for etcd, but not for ever.
async fn patiently<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|e| format!("etcd: {e}")),
        Err(_) => Err(format!("etcd did not answer within {} s", PATIENCE.as_secs())),
    }
}

fn keys(responses: &[TxnOpResponse], at: usize) -> Option<&KeyValue> {
    match responses.get(at) {
        Some(TxnOpResponse::Get(get)) => get.kvs().first(),
        _ => None,
    }
}

impl Shared {
    fn key(&self, key: &Key) -> String {
        format!("{}k/{key}", self.prefix)
    }
    fn id_key(&self, id: u128) -> String {
        format!("{}t/{id:032x}", self.prefix)
    }
    fn clock(&self) -> String {
        format!("{}clock", self.prefix)
    }
    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, String> {
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_BYTES);
        patiently(kv.txn(txn)).await
    }

    fn compare(&self, guard: &Guard) -> Compare {
        let key = self.key(guard.key());
        match guard {
            Guard::Absent(_) => Compare::create_revision(key, CompareOp::Equal, 0),
            Guard::Present(_) => Compare::create_revision(key, CompareOp::Greater, 0),
            Guard::At(_, revision) => Compare::mod_revision(key, CompareOp::Equal, etcd_revision(*revision)),
            // Over a range it must hold for each key, and for a missing one if there is none.
            Guard::RangeEmpty(_) => Compare::create_revision(key, CompareOp::Equal, 0).with_prefix(),
        }
    }

    /// Reads what a guard looks at.
    fn look(&self, guard: &Guard) -> TxnOp {
        let options = match guard {
            Guard::RangeEmpty(_) => GetOptions::new().with_prefix().with_keys_only().with_limit(1),
            _ => GetOptions::new().with_keys_only(),
        };
        TxnOp::get(self.key(guard.key()), Some(options))
    }

    /// The first guard that does not hold of what was read.
    fn broken(guards: &[Guard], responses: &[TxnOpResponse]) -> Option<Conflict> {
        guards.iter().enumerate().find_map(|(index, guard)| {
            let found = keys(responses, index);
            let holds = match guard {
                Guard::Absent(_) | Guard::RangeEmpty(_) => found.is_none(),
                Guard::Present(_) => found.is_some(),
                Guard::At(_, revision) => found.is_some_and(|kv| revision_of(kv.mod_revision()) == *revision),
            };
            (!holds).then(|| Conflict::Guard {
                index,
                key: guard.key().clone(),
            })
        })
    }

    /// A request without operations: its guards are compared, and the clock read.
    async fn check(&self, guards: &[Guard]) -> Outcome {
        let compares: Vec<_> = guards.iter().map(|g| self.compare(g)).collect();
        let looks: Vec<_> = guards.iter().map(|g| self.look(g)).collect();
        let clock = TxnOp::get(self.clock(), None);
        match self
            .txn(Txn::new().when(compares).and_then(vec![clock]).or_else(looks))
            .await
        {
            Err(e) => Outcome::Unknown(e),
            Ok(answer) if answer.succeeded() => {
                let responses = answer.op_responses();
                Outcome::Committed(keys(&responses, 0).map_or(0, |kv| revision_of(kv.mod_revision())))
            }
            Ok(answer) => match Self::broken(guards, &answer.op_responses()) {
                Some(conflict) => Outcome::Conflict(conflict),
                None => Outcome::Unknown("etcd compared otherwise than it read".to_owned()),
            },
        }
    }

    async fn commit(&self, request: &Request) -> Outcome {
        if request.ops.is_empty() {
            return self.check(&request.guards).await;
        }
        // Writers of one counter queue here; between processes the guard on its revision decides.
        let mut held = self.counters.hold(&request.ops).await;
        let mut fresh = false;
        for attempt in 0..COUNTER_TRIES {
            if attempt > 2 {
                crate::store::back_off(attempt.min(6), 64).await;
            }
            let sums = match held.sums() {
                Ok(sums) => sums,
                Err(exceeded) if fresh => return Outcome::Conflict(exceeded),
                // What is remembered of a counter may be old: only what was just read refuses.
                Err(_) => match self.read_counters(request, &mut held).await {
                    Ok(()) => {
                        fresh = true;
                        continue;
                    }
                    Err(outcome) => return outcome,
                },
            };
            let answer = match self.txn(self.build(request, &held, &sums)).await {
                Ok(answer) => answer,
                Err(e) => {
                    held.forget();
                    return Outcome::Unknown(e);
                }
            };
            if answer.succeeded() {
                let revision = answer.header().map_or(0, |h| revision_of(h.revision()));
                held.wrote(&sums, etcd_revision(revision));
                self.ids().remember(request.id, revision);
                return Outcome::Committed(revision);
            }
            let responses = answer.op_responses();
            if let Some(conflict) = Self::broken(&request.guards, &responses) {
                return Outcome::Conflict(conflict);
            }
            if keys(&responses, request.guards.len()).is_some() {
                return Outcome::Unknown("the transaction was given up meanwhile".to_owned());
            }
            held.saw(&responses[request.guards.len() + 1..]);
            fresh = true;
        }
        Outcome::Unknown("a counter of the transaction is too busy".to_owned())
    }

    async fn read_counters(&self, request: &Request, held: &mut Held) -> Result<(), Outcome> {
        let compares: Vec<_> = request.guards.iter().map(|g| self.compare(g)).collect();
        let looks: Vec<_> = request.guards.iter().map(|g| self.look(g)).collect();
        let reads: Vec<_> = held.keys().map(|k| TxnOp::get(self.key(k), None)).collect();
        let answer = self
            .txn(Txn::new().when(compares).and_then(reads).or_else(looks))
            .await
            .map_err(Outcome::Unknown)?;
        let responses = answer.op_responses();
        if answer.succeeded() {
            held.saw(&responses);
            return Ok(());
        }
        Err(match Self::broken(&request.guards, &responses) {
            Some(conflict) => Outcome::Conflict(conflict),
            None => Outcome::Unknown("etcd compared otherwise than it read".to_owned()),
        })
    }

    fn build(&self, request: &Request, held: &Held, sums: &[i64]) -> Txn {
        let id = self.id_key(request.id);
        let mut compares: Vec<_> = request.guards.iter().map(|g| self.compare(g)).collect();
        compares.push(Compare::create_revision(id.clone(), CompareOp::Equal, 0));
        let mut looks: Vec<_> = request.guards.iter().map(|g| self.look(g)).collect();
        looks.push(TxnOp::get(id.clone(), Some(GetOptions::new().with_keys_only())));
        let mut writes = vec![TxnOp::put(id, "c", None), TxnOp::put(self.clock(), "", None)];
        for op in &request.ops {
            match op {
                Op::Put(key, value) => writes.push(TxnOp::put(self.key(key), value.to_vec(), None)),
                Op::Delete(key) => writes.push(TxnOp::delete(self.key(key), None)),
                Op::Add { .. } => {}
            }
        }
        for ((key, seen), sum) in held.keys().zip(held.revisions()).zip(sums) {
            let key = self.key(key);
            compares.push(Compare::mod_revision(key.clone(), CompareOp::Equal, seen));
            looks.push(TxnOp::get(key.clone(), None));
            writes.push(TxnOp::put(key, sum.to_string(), None));
        }
        // Ids of requests that were answered long ago go with this one, so that few are ever there.
        let mut ids = self.ids();
        if ids.answered.len() > IDS_KEPT
            && let Some(old) = ids.answered.pop_front()
        {
            writes.push(TxnOp::delete(self.id_key(old), None));
        }
        Txn::new().when(compares).and_then(writes).or_else(looks)
    }

    /// Revision and version of the clock, now or as of a revision.
    async fn clock_at(&self, revision: Option<Revision>) -> Result<(Revision, i64), String> {
        let options = revision.map(|r| GetOptions::new().with_revision(etcd_revision(r)));
        let mut kv = self.client.kv_client();
        let answer = patiently(kv.get(self.clock(), options)).await?;
        Ok(answer
            .kvs()
            .first()
            .map_or((0, 0), |kv| (revision_of(kv.mod_revision()), kv.version())))
    }

    /// The newest revision. Callers that come while one read is under way share the next.
    async fn barrier(&self) -> Result<Revision, String> {
        let mine = self.arrivals.fetch_add(1, Ordering::SeqCst);
        let mut last = self.barrier.lock().await;
        if last.0 > mine {
            return Ok(last.1);
        }
        let covers = self.arrivals.load(Ordering::SeqCst);
        let (revision, _) = self.clock_at(None).await?;
        *last = (covers, revision);
        Ok(revision)
    }

    fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        let text = std::str::from_utf8(kv.key()).ok()?;
        Some(Entry {
            key: Key::from_raw(text.strip_prefix(&self.prefix)?.strip_prefix("k/")?),
            value: Bytes::copy_from_slice(kv.value()),
            created: revision_of(kv.create_revision()),
            modified: revision_of(kv.mod_revision()),
        })
    }

    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        let mut found: Vec<Entry> = Vec::new();
        // All pages are of the first one's instant, which the clock of the same transaction names.
        let mut instant: Option<(Revision, i64)> = None;
        let end = range_end(self.key(prefix).as_bytes());
        loop {
            let from = match found.last().map(|e| &e.key).or(after.filter(|a| *a >= prefix)) {
                Some(key) => [self.key(key).as_bytes(), b"\0"].concat(),
                None => self.key(prefix).into_bytes(),
            };
            let page = PAGE.min(limit - found.len());
            let mut options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(i64::try_from(page).unwrap_or(i64::MAX));
            if let Some((_, at)) = instant {
                options = options.with_revision(at);
            }
            let answer = self
                .txn(Txn::new().and_then(vec![TxnOp::get(self.clock(), None), TxnOp::get(from, Some(options))]))
                .await?;
            let responses = answer.op_responses();
            if instant.is_none() {
                let clock = keys(&responses, 0).map_or(0, |kv| revision_of(kv.mod_revision()));
                instant = Some((clock, answer.header().map_or(0, |h| h.revision())));
            }
            let Some(TxnOpResponse::Get(get)) = responses.get(1) else {
                return Err("etcd answered no range".to_owned());
            };
            found.extend(get.kvs().iter().filter_map(|kv| self.entry(kv)));
            if !get.more() || found.len() >= limit {
                return Ok((instant.map_or(0, |(revision, _)| revision), found));
            }
        }
    }
}

/// The end of the range of all keys with a prefix.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

impl Etcd {
    /// Connects to etcd and probes whether the limits of [`crate::limits`] fit; everything lies under `prefix`.
    ///
    /// # Errors
    /// When it cannot be reached, or its limits are too low: then the error names the flags to set.
    pub async fn connect(endpoints: &[String], prefix: &str) -> Result<Self, String> {
        let second = Duration::from_secs(1);
        let options = ConnectOptions::new()
            .with_connect_timeout(2 * second)
            .with_keep_alive(3 * second, 3 * second)
            .with_keep_alive_while_idle(true);
        let client = patiently(Client::connect(endpoints, Some(options))).await?;
        let shared = Shared {
            client,
            prefix: format!("{}/", prefix.trim_end_matches('/')),
            counters: Counters::default(),
            ids: Mutex::default(),
            arrivals: AtomicU64::new(0),
            barrier: tokio::sync::Mutex::new((0, 0)),
        };
        let engine = Self {
            shared: Arc::new(shared),
        };
        engine.probe().await?;
        Ok(engine)
    }

    /// Sends the largest request that never applies: what etcd refuses, it refuses for its size.
    async fn probe(&self) -> Result<(), String> {
        let never = || vec![Compare::version(self.shared.clock(), CompareOp::Equal, i64::MAX)];
        let many = (0..MOST_OPS)
            .map(|n| TxnOp::get(format!("{}probe/{n}", self.shared.prefix), None))
            .collect::<Vec<_>>();
        let large = vec![TxnOp::put(
            format!("{}probe", self.shared.prefix),
            vec![0_u8; MOST_BYTES],
            None,
        )];
        for writes in [many, large] {
            let sent = self.shared.txn(Txn::new().when(never()).and_then(writes)).await;
            sent.map_err(|e| format!("{e}; this etcd must be started with {}", FLAGS.join(" ")))?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Engine for Etcd {
    async fn commit(&self, request: Request) -> Outcome {
        self.shared.commit(&request).await
    }
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String> {
        if let Some(revision) = self.shared.ids().committed.get(&id) {
            return Ok(Some(*revision));
        }
        // A request that is still on its way must not commit after this has said that it did not: its id is taken.
        let key = self.shared.id_key(id);
        let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let txn = Txn::new()
            .when(vec![absent])
            .and_then(vec![TxnOp::put(key.clone(), "a", None)])
            .or_else(vec![TxnOp::get(key, None)]);
        let answer = self.shared.txn(txn).await?;
        let responses = answer.op_responses();
        let found = keys(&responses, 0).filter(|kv| !answer.succeeded() && kv.value() == b"c");
        Ok(found.map(|kv| revision_of(kv.mod_revision())))
    }
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        self.shared.range(prefix, after, limit).await
    }
    async fn watch(&self, from: Revision) -> Result<mpsc::Receiver<Arc<Commit>>, String> {
        // An empty store has no clock yet: the first transaction makes its first version.
        let version = if from == 0 {
            0
        } else {
            self.shared.clock_at(Some(from)).await?.1
        };
        let (sender, receiver) = mpsc::channel(follow::BACKLOG);
        tokio::spawn(follow::follow(Arc::downgrade(&self.shared), from, version, sender));
        Ok(receiver)
    }
    async fn revision(&self) -> Result<Revision, String> {
        self.shared.barrier().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), String> {
        // Ids that no process will ask for again.
        let ids = format!("{}t/", self.shared.prefix);
        let old = GetOptions::new()
            .with_prefix()
            .with_keys_only()
            .with_max_mod_revision(etcd_revision(revision) - ID_AGE);
        let mut kv = self.shared.client.kv_client();
        for stale in patiently(kv.get(ids, Some(old))).await?.kvs() {
            patiently(kv.delete(stale.key(), None::<DeleteOptions>)).await?;
        }
        match patiently(kv.compact(etcd_revision(revision), Some(CompactionOptions::new()))).await {
            Ok(_) => Ok(()),
            // Another process was first.
            Err(e) if e.contains("compacted") => Ok(()),
            Err(e) => Err(e),
        }
    }
    fn name(&self) -> &'static str {
        "etcd"
    }
}
