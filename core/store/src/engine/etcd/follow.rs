//! Following etcd: events become whole commits; a broken stream is resumed where it stopped; a silent one is mistrusted;
//! a transaction that was missed ends the watch, so that the mirror loads everything anew.

use super::{Shared, etcd_revision, range_end, revision_of};
use crate::{
    Key, Revision,
    engine::{Commit, Entry},
};
use etcd_client::{Event, EventType, WatchOptions, WatchStream};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::mpsc;

/// How far a receiver may fall behind.
pub(super) const BACKLOG: usize = 4_096;
/// After so long without an event the clock is asked whether there should have been one.
const SILENCE: Duration = Duration::from_millis(700);

type Change = (Key, Option<Entry>, Option<Entry>);

/// Why following stopped for the moment.
enum Stop {
    /// Resume where it stopped.
    Again(String),
    /// The receiver must begin anew.
    End(String),
}

struct Follower {
    at: Revision,
    /// The clock's version at `at`.
    version: i64,
    sender: mpsc::Sender<Arc<Commit>>,
}

/// Feeds `sender` with all commits after `from` until it is full or closed, history is gone, or something was missed.
pub(super) async fn follow(shared: Weak<Shared>, from: Revision, version: i64, sender: mpsc::Sender<Arc<Commit>>) {
    let mut follower = Follower {
        at: from,
        version,
        sender,
    };
    let mut failures = 0;
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let before = follower.at;
        let stop = follower.run(&strong).await;
        drop(strong);
        match stop {
            Stop::End(why) => {
                tracing::info!(why, revision = follower.at, "a watch of etcd ends");
                return;
            }
            Stop::Again(why) => {
                failures = if follower.at > before { 0 } else { failures + 1 };
                tracing::warn!(why, revision = follower.at, "a watch of etcd broke off, resuming");
                tokio::select! {
                    () = crate::store::back_off(failures + 4, 1_000) => {}
                    () = follower.sender.closed() => return,
                }
            }
        }
    }
}

impl Follower {
    async fn run(&mut self, shared: &Shared) -> Stop {
        let mut stream = match self.open(shared).await {
            Ok(stream) => stream,
            Err(e) => return Stop::Again(e),
        };
        // What the clock said at the last silence.
        let mut overdue = None;
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(SILENCE, stream.message()) => message,
                () = self.sender.closed() => return Stop::End("nobody listens".to_owned()),
            };
            let answer = match message {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Stop::Again("the stream ended".to_owned()),
                Ok(Err(e)) => return Stop::Again(e.to_string()),
                Err(_silence) => {
                    // Twice in a row the clock was ahead of what came: the stream is dead though it looks alive.
                    let newest = match shared.clock_at(None).await {
                        Ok((newest, _)) => newest,
                        Err(e) => return Stop::Again(e),
                    };
                    if newest < self.at {
                        return Stop::End(format!("etcd went back to revision {newest}"));
                    }
                    if overdue.is_some_and(|seen| seen > self.at) {
                        return Stop::Again("the stream was silent while transactions were committed".to_owned());
                    }
                    overdue = Some(newest);
                    continue;
                }
            };
            if answer.compact_revision() > 0 {
                return Stop::End(format!("history up to {} is compacted", answer.compact_revision()));
            }
            if answer.canceled() {
                return Stop::Again(answer.cancel_reason().to_owned());
            }
            if let Err(stop) = self.take(shared, answer.events()) {
                return stop;
            }
        }
    }

    async fn open(&self, shared: &Shared) -> Result<WatchStream, String> {
        // From `clock` to the end of `k/`: the ids lie behind, and nobody wants them.
        let end = range_end(format!("{}k/", shared.prefix).as_bytes());
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(etcd_revision(self.at) + 1)
            .with_prev_key();
        let mut client = shared
            .client
            .watch_client()
            .max_decoding_message_size(super::ANSWER_BYTES);
        super::patiently(client.watch(shared.clock(), Some(options))).await
    }

    /// Events of whole revisions, in order.
    fn take(&mut self, shared: &Shared, events: &[Event]) -> Result<(), Stop> {
        let revision_in = |e: &Event| e.kv().map_or(0, |kv| revision_of(kv.mod_revision()));
        for group in events.chunk_by(|a, b| revision_in(a) == revision_in(b)) {
            let revision = revision_in(&group[0]);
            if revision <= self.at {
                continue;
            }
            let (mut changes, mut version): (Vec<Change>, _) = (Vec::with_capacity(group.len()), None);
            for event in group {
                let Some(kv) = event.kv() else { continue };
                if kv.key() == shared.clock().as_bytes() {
                    version = Some(kv.version());
                    continue;
                }
                let old = event.prev_kv().and_then(|kv| shared.entry(kv));
                let Some(entry) = shared.entry(kv) else { continue };
                let new = (event.event_type() == EventType::Put).then(|| entry.clone());
                changes.push((entry.key, old, new));
            }
            if version != Some(self.version + 1) {
                return Err(Stop::End(format!(
                    "after transaction {} came {version:?}",
                    self.version
                )));
            }
            self.version += 1;
            self.at = revision;
            let commit = Arc::new(Commit { revision, changes });
            if self.sender.try_send(commit).is_err() {
                return Err(Stop::End("the receiver is too slow".to_owned()));
            }
        }
        Ok(())
    }
}
