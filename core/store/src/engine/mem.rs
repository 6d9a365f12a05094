//! The engine of tests: everything in memory, decided in the caller's thread, so that it works with paused time and
//! without a runtime.

use super::{Commit, Engine, Entry, Outcome, Request, Sink, apply, apply::View, hub::Hub};
use crate::{Key, Revision};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// How many transaction ids are kept to resolve an `Unknown`.
const TXN_IDS: usize = 4_096;

#[derive(Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    txns: HashMap<u128, Revision>,
    txn_order: VecDeque<u128>,
    compacted: Revision,
}

/// See the module.
pub struct Mem {
    state: Mutex<State>,
    hub: Hub,
}

impl Default for Mem {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            hub: Hub::new(0),
        }
    }
}

impl View for State {
    type Error = Infallible;
    fn entry(&self, key: &Key) -> Result<Option<Entry>, Infallible> {
        Ok(self.entries.get(key).cloned())
    }
    fn any_under(&self, prefix: &Key) -> Result<bool, Infallible> {
        Ok(under(&self.entries, prefix, None).next().is_some())
    }
}

fn under<'a>(
    entries: &'a BTreeMap<Key, Entry>,
    prefix: &'a Key,
    after: Option<&Key>,
) -> impl Iterator<Item = &'a Entry> + use<'a> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.clone()),
        _ => Bound::Included(prefix.clone()),
    };
    entries
        .range((start, Bound::Unbounded))
        .map(|(_, e)| e)
        .take_while(move |e| e.key.under(prefix))
}

impl Mem {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed only after everything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Engine::commit`] without waiting for anything.
    pub fn commit_now(&self, request: &Request) -> Outcome {
        let mut state = self.lock();
        let revision = state.revision + 1;
        let Ok(decided) = apply::decide(&*state, request, revision);
        let commit = match decided {
            Ok(commit) => commit,
            Err(conflict) => return Outcome::Conflict(conflict),
        };
        if request.ops.is_empty() {
            return Outcome::Committed(state.revision);
        }
        for (key, _, new) in &commit.changes {
            match new {
                Some(entry) => state.entries.insert(key.clone(), entry.clone()),
                None => state.entries.remove(key),
            };
        }
        state.revision = revision;
        state.txns.insert(request.id, revision);
        state.txn_order.push_back(request.id);
        if state.txn_order.len() > TXN_IDS
            && let Some(old) = state.txn_order.pop_front()
        {
            state.txns.remove(&old);
        }
        // Under the lock, so that all followers see commits in order.
        self.hub.publish(&[Arc::new(commit)]);
        Outcome::Committed(revision)
    }
}

#[async_trait::async_trait]
impl Engine for Mem {
    async fn commit(&self, request: Request) -> Outcome {
        self.commit_now(&request)
    }
    async fn resolve(&self, id: u128) -> Result<Option<Revision>, String> {
        Ok(self.lock().txns.get(&id).copied())
    }
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<(Revision, Vec<Entry>), String> {
        let state = self.lock();
        Ok((
            state.revision,
            under(&state.entries, prefix, after).take(limit).cloned().collect(),
        ))
    }
    async fn watch(&self, from: Revision) -> Result<mpsc::Receiver<Arc<Commit>>, String> {
        // The lock keeps commits from slipping in between the history and the live part.
        let state = self.lock();
        if from < state.compacted {
            return Err(format!("history up to {} is compacted", state.compacted));
        }
        self.hub
            .watch(from, |_, floor| Err(format!("history up to {floor} is gone")))
    }
    async fn revision(&self) -> Result<Revision, String> {
        Ok(self.lock().revision)
    }
    async fn compact(&self, revision: Revision) -> Result<(), String> {
        let mut state = self.lock();
        state.compacted = state.compacted.max(revision.min(state.revision));
        self.hub.compact(state.compacted);
        Ok(())
    }
    fn attach(&self, from: Revision, sink: Sink) -> Result<(), Sink> {
        let _state = self.lock();
        self.hub.attach(from, sink)
    }
    fn name(&self) -> &'static str {
        "mem"
    }
}
