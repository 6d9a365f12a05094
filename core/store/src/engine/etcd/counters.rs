//! Counters over etcd, which has no addition: read, add, compare the revision, put. Writers of one counter in this process
//! queue for it and hand over what they know of it, so that each needs one round trip and none conflicts with another.

use crate::{Conflict, Key, Op, engine::apply};
use etcd_client::TxnOpResponse;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

/// What is known of a counter: value and revision; 0 and 0 when it is absent or not known.
#[derive(Default, Clone, Copy)]
struct Known {
    value: i64,
    revision: i64,
}

type Slot = Arc<tokio::sync::Mutex<Known>>;

/// Slots above which unused ones are forgotten.
const MANY: usize = 10_000;

/// The counters that this process has written.
#[derive(Default)]
pub(super) struct Counters(Mutex<HashMap<Key, Slot>>);

/// The counters of one request, held until it is answered.
pub(super) struct Held(Vec<One>);

struct One {
    key: Key,
    delta: i64,
    limit: Option<i64>,
    known: OwnedMutexGuard<Known>,
}

impl Counters {
    fn slot(&self, key: &Key) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > MANY {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Waits for the counters of a request, in the order of their keys, so that two requests never wait for each other.
    pub(super) async fn hold(&self, ops: &[Op]) -> Held {
        let adds = ops.iter().filter_map(|op| match op {
            Op::Add { key, delta, limit } => Some((key.clone(), *delta, *limit)),
            _ => None,
        });
        let mut adds: Vec<_> = adds.collect();
        adds.sort_by(|a, b| a.0.cmp(&b.0));
        let mut held = Vec::with_capacity(adds.len());
        for (key, delta, limit) in adds {
            let known = self.slot(&key).lock_owned().await;
            held.push(One {
                key,
                delta,
                limit,
                known,
            });
        }
        Held(held)
    }
}

impl Held {
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|one| &one.key)
    }
    pub(super) fn revisions(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|one| one.known.revision)
    }
    /// The values after the request.
    pub(super) fn sums(&self) -> Result<Vec<i64>, Conflict> {
        self.0
            .iter()
            .map(|one| apply::add(&one.key, one.known.value, one.delta, one.limit))
            .collect()
    }
    /// Takes over what etcd said of each, in order.
    pub(super) fn saw(&mut self, responses: &[TxnOpResponse]) {
        for (one, response) in self.0.iter_mut().zip(responses) {
            let found = match response {
                TxnOpResponse::Get(get) => get.kvs().first(),
                _ => None,
            };
            *one.known = found.map_or_else(Known::default, |kv| Known {
                value: apply::counter_value(kv.value()),
                revision: kv.mod_revision(),
            });
        }
    }
    pub(super) fn wrote(&mut self, sums: &[i64], revision: i64) {
        for (one, sum) in self.0.iter_mut().zip(sums) {
            *one.known = Known { value: *sum, revision };
        }
    }
    /// Whether the request was applied is not known, so neither are the counters.
    pub(super) fn forget(&mut self) {
        for one in &mut self.0 {
            *one.known = Known::default();
        }
    }
}
