//! Reports, in order, at least once: kept until the control plane has stored them.

use maru_agent_api::{ControlPlane, Session, observed::Report};
use maru_base::{ErrorKind, Result};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Reports in one call.
const BATCH: usize = 64;
/// Reports that wait for a control plane that is away; then the oldest are dropped (states are sent anew on each session).
const WAITING: usize = 100_000;

/// Reports with their numbers, oldest first.
#[derive(Default)]
struct Waiting {
    next: u64,
    reports: VecDeque<(u64, Report)>,
}

/// The queue of reports.
#[derive(Default)]
pub(crate) struct Reporter {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Reporter {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Puts a report at the end.
    pub(crate) fn send(&self, report: Report) {
        {
            let mut waiting = self.lock();
            if waiting.reports.len() >= WAITING {
                waiting.reports.pop_front();
            }
            let number = waiting.next;
            waiting.next += 1;
            waiting.reports.push_back((number, report));
        }
        self.more.notify_one();
    }
    /// The oldest reports, and the number up to which they go.
    fn batch(&self, most: usize) -> Option<(u64, Vec<Report>)> {
        let waiting = self.lock();
        let taken: Vec<&(u64, Report)> = waiting.reports.iter().take(most).collect();
        Some((taken.last()?.0, taken.iter().map(|(_, r)| r.clone()).collect()))
    }
    fn done(&self, number: u64) {
        let mut waiting = self.lock();
        while waiting.reports.front().is_some_and(|(n, _)| *n <= number) {
            waiting.reports.pop_front();
        }
    }
    /// Sends until the session ends.
    pub(crate) async fn run(&self, control: &dyn ControlPlane, session: &Session) -> Result<()> {
        let mut sequence = 0;
        let mut wait = Duration::from_millis(50);
        let mut most = BATCH;
        loop {
            let Some((number, batch)) = self.batch(most) else {
                self.more.notified().await;
                continue;
            };
            sequence += 1;
            match control.report(session, sequence, batch.clone()).await {
                Ok(()) => {
                    self.done(number);
                    wait = Duration::from_millis(50);
                    most = BATCH;
                }
                Err(e) if e.kind() == ErrorKind::Gone => return Err(e),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::Conflict
                    ) =>
                {
                    tracing::warn!(error = %e.chain(), "reports are not stored, will try again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
                // One of them is refused for good. It must not hold up the others: they go one by one, and it is dropped.
                Err(_) if batch.len() > 1 => most = 1,
                Err(e) => {
                    tracing::error!(error = %e.chain(), report = ?batch, "a report is refused and dropped");
                    self.done(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_stored_is_dropped_and_later_ones_stay() {
        let reporter = Reporter::default();
        reporter.send(Report::ServerRemoved("a".into()));
        let (number, batch) = reporter.batch(BATCH).unwrap();
        reporter.send(Report::ServerRemoved("b".into()));
        assert_eq!(batch, [Report::ServerRemoved("a".into())]);
        reporter.done(number);
        assert_eq!(reporter.batch(BATCH).unwrap().1, [Report::ServerRemoved("b".into())]);
    }
}
