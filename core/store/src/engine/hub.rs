//! Hands commits to those who follow an engine of this process: sinks in order and at once, watchers over bounded
//! channels. A watcher that falls behind is let go; the writer never waits.

use super::{Commit, Entry, Sink};
use crate::Revision;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// How many commits are kept in memory for those who resume, and about how many bytes of values they may hold.
const HISTORY: usize = 8_192;
const HISTORY_BYTES: usize = 8 << 20;
/// How far a watcher may fall behind beyond what it was handed at first.
const BACKLOG: usize = 4_096;

#[derive(Default)]
struct State {
    /// Everything after this revision is in `history`.
    floor: Revision,
    history: VecDeque<Arc<Commit>>,
    /// See [`weight`], of all of `history`.
    bytes: usize,
    sinks: Vec<Sink>,
    watchers: Vec<mpsc::Sender<Arc<Commit>>>,
}

/// About how much memory a commit holds, in bytes.
fn weight(commit: &Commit) -> usize {
    let of = |e: &Option<Entry>| e.as_ref().map_or(0, |e| e.value.len());
    commit
        .changes
        .iter()
        .map(|(key, old, new)| 64 + key.as_str().len() + of(old) + of(new))
        .sum()
}

/// See the module.
pub(crate) struct Hub {
    state: Mutex<State>,
}

impl Hub {
    /// A hub whose history begins after `revision`.
    pub(crate) fn new(revision: Revision) -> Self {
        Self {
            state: Mutex::new(State {
                floor: revision,
                ..State::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A sink that panicked has left nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out commits; called in commit order.
    pub(crate) fn publish(&self, commits: &[Arc<Commit>]) {
        let mut state = self.lock();
        for commit in commits {
            state.bytes += weight(commit);
            state.history.push_back(Arc::clone(commit));
        }
        while state.history.len() > HISTORY || (state.bytes > HISTORY_BYTES && state.history.len() > 1) {
            if let Some(gone) = state.history.pop_front() {
                state.bytes -= weight(&gone);
                state.floor = gone.revision;
            }
        }
        state.sinks.retain(|sink| sink(commits));
        state
            .watchers
            .retain(|watcher| commits.iter().all(|c| watcher.try_send(Arc::clone(c)).is_ok()));
    }

    /// Calls `sink` with everything after `from`, or gives it back when that is no longer here.
    pub(crate) fn attach(&self, from: Revision, sink: Sink) -> Result<(), Sink> {
        let mut state = self.lock();
        if from < state.floor {
            return Err(sink);
        }
        let missed: Vec<_> = state.history.iter().filter(|c| c.revision > from).cloned().collect();
        if missed.is_empty() || sink(&missed) {
            state.sinks.push(sink);
        }
        Ok(())
    }

    /// A receiver of everything after `from`. `older` supplies what is before the history kept here: all commits after
    /// its first argument up to its second.
    pub(crate) fn watch(
        &self,
        from: Revision,
        older: impl FnOnce(Revision, Revision) -> Result<Vec<Arc<Commit>>, String>,
    ) -> Result<mpsc::Receiver<Arc<Commit>>, String> {
        let mut state = self.lock();
        let mut missed = if from < state.floor {
            older(from, state.floor)?
        } else {
            Vec::new()
        };
        missed.extend(state.history.iter().filter(|c| c.revision > from).cloned());
        let (sender, receiver) = mpsc::channel(missed.len() + BACKLOG);
        for commit in missed {
            // There is room for each: the channel was made for them.
            let _ = sender.try_send(commit);
        }
        state.watchers.retain(|w| !w.is_closed());
        state.watchers.push(sender);
        Ok(receiver)
    }

    /// Forgets history up to `revision`.
    pub(crate) fn compact(&self, revision: Revision) {
        let mut state = self.lock();
        while state.history.front().is_some_and(|c| c.revision <= revision) {
            if let Some(gone) = state.history.pop_front() {
                state.bytes -= weight(&gone);
            }
        }
        state.floor = state.floor.max(revision);
    }

    /// Lets all followers go: the engine has stopped.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.sinks.clear();
        state.watchers.clear();
    }
}
