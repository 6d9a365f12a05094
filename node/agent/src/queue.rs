//! Servers to look at: each id once, after a delay if one is asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Who waits: by time, and the time of each.
type Waiting = (BTreeSet<(Instant, String)>, HashMap<String, Instant>);

/// A keyed queue with delays.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    changed: Notify,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    pub(crate) fn kick(&self, id: &str) {
        self.kick_after(id, Duration::ZERO);
    }
    /// Asks for a look after `delay`; an earlier one stays.
    pub(crate) fn kick_after(&self, id: &str, delay: Duration) {
        let at = Instant::now() + delay;
        {
            let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (order, due) = &mut *guard;
            match due.get(id) {
                Some(d) if *d <= at => return,
                Some(d) => {
                    order.remove(&(*d, id.to_owned()));
                }
                None => {}
            }
            due.insert(id.to_owned(), at);
            order.insert((at, id.to_owned()));
        }
        self.changed.notify_one();
    }
    /// The next id that is due.
    pub(crate) async fn take(&self) -> String {
        loop {
            let next = {
                let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let (order, due) = &mut *guard;
                match order.first().cloned() {
                    Some((at, id)) if at <= Instant::now() => {
                        order.remove(&(at, id.clone()));
                        due.remove(&id);
                        return id;
                    }
                    other => other.map(|(at, _)| at),
                }
            };
            match next {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}
