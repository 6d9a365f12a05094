//! The work queue of one controller.
//!
//! ```text
//!            kick                take                 done(key)
//!  (absent) ──────► waiting(due) ─────► running ───────────────► (absent)
//!                     ▲                   │ kick while running        │
//!                     │                   ▼                           │
//!                     └──── retry ──── running+dirty ─────────────────┘ (waiting, due now)
//! ```
//! A key is in the queue once, however often it is kicked; a kick while it runs makes it run once more.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

#[derive(Default)]
struct State {
    /// Waiting keys by due time.
    waiting: BTreeSet<(Instant, String)>,
    due: HashMap<String, Instant>,
    /// Running keys and whether they were kicked meanwhile (and for when).
    running: HashMap<String, Option<Instant>>,
    failures: HashMap<String, u32>,
}

/// A keyed queue: dedupe, delay, at most one run per key, jittered back-off.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

/// First wait after a failure; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves the state consistent: every method finishes its change in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a run of `key` now.
    pub fn kick(&self, key: &str) {
        self.kick_after(key, Duration::ZERO);
    }

    /// Asks for a run of `key` after `delay`; an earlier run that is already due stays.
    pub fn kick_after(&self, key: &str, delay: Duration) {
        let at = Instant::now() + delay;
        {
            let mut s = self.lock();
            if let Some(again) = s.running.get_mut(key) {
                *again = Some(again.map_or(at, |a| a.min(at)));
                return;
            }
            match s.due.get(key).copied() {
                Some(due) if due <= at => return,
                Some(due) => {
                    s.waiting.remove(&(due, key.to_owned()));
                }
                None => {}
            }
            s.due.insert(key.to_owned(), at);
            s.waiting.insert((at, key.to_owned()));
        }
        self.changed.notify_one();
    }

    /// Waits for a key that is due and takes it.
    pub async fn take(&self) -> String {
        loop {
            let next = {
                let mut s = self.lock();
                let first = s.waiting.first().map(|(due, key)| (*due, key.clone()));
                match first {
                    Some((due, key)) if due <= Instant::now() => {
                        s.waiting.remove(&(due, key.clone()));
                        s.due.remove(&key);
                        s.running.insert(key.clone(), None);
                        // Another taker may be waiting for the next one.
                        if !s.waiting.is_empty() {
                            self.changed.notify_one();
                        }
                        return key;
                    }
                    Some((due, _)) => Some(due),
                    None => None,
                }
            };
            let changed = self.changed.notified();
            match next {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends a run. `again` asks for another after that time; a failed run backs off, doubling with jitter.
    pub fn done(&self, key: &str, ok: bool, again: Option<Duration>) {
        let delay = {
            let mut s = self.lock();
            let kicked = s.running.remove(key).flatten();
            let mut delay = again;
            if ok {
                s.failures.remove(key);
            } else {
                let n = s.failures.entry(key.to_owned()).or_default();
                *n = n.saturating_add(1);
                delay = Some(backoff(*n));
            }
            if let Some(at) = kicked {
                let rest = at.saturating_duration_since(Instant::now());
                // A kick during a failed run does not shorten its back-off below the minimum.
                let rest = if ok { rest } else { rest.max(BACKOFF_MIN) };
                delay = Some(delay.map_or(rest, |d| d.min(rest)));
            }
            delay
        };
        if let Some(delay) = delay {
            self.kick_after(key, delay);
        }
    }

    /// How many keys wait or run.
    #[must_use]
    pub fn len(&self) -> usize {
        let s = self.lock();
        s.waiting.len() + s.running.len()
    }
    /// Whether nothing waits and nothing runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(BACKOFF_MAX);
    let half = full / 2;
    let jitter = maru_base::random::below(u64::try_from(half.as_millis()).unwrap_or(0) + 1);
    half + Duration::from_millis(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_runs_again_if_kicked_while_running() {
        let q = Arc::new(Queue::new());
        q.kick("a");
        q.kick("a");
        assert_eq!(q.len(), 1);
        assert_eq!(q.take().await, "a");
        q.kick("a");
        q.done("a", true, None);
        assert_eq!(q.take().await, "a");
        q.done("a", true, None);
        assert!(q.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_holds_and_an_earlier_kick_wins() {
        let q = Queue::new();
        q.kick_after("late", Duration::from_secs(60));
        q.kick_after("soon", Duration::from_secs(1));
        let begun = Instant::now();
        assert_eq!(q.take().await, "soon");
        assert_eq!(begun.elapsed().as_secs(), 1);
        q.kick("late");
        assert_eq!(q.take().await, "late");
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets_them() {
        let q = Queue::new();
        q.kick("a");
        let mut waits = Vec::new();
        for _ in 0..4 {
            let begun = Instant::now();
            assert_eq!(q.take().await, "a");
            waits.push(begun.elapsed());
            q.done("a", false, None);
        }
        assert!(
            waits[1] >= Duration::from_millis(25) && waits[3] >= Duration::from_millis(100),
            "{waits:?}"
        );
        assert_eq!(q.take().await, "a");
        q.done("a", true, None);
        assert!(q.is_empty());
    }
}
