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
/// Reports that wait for a control plane that is away; then the oldest events are dropped (states are sent anew).
const WAITING: usize = 100_000;

/// The queue of reports.
#[derive(Default)]
pub(crate) struct Reporter {
    waiting: Mutex<VecDeque<Report>>,
    more: Notify,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    fn lock(&self) -> MutexGuard<'_, VecDeque<Report>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Puts a report at the end.
    pub(crate) fn send(&self, report: Report) {
        {
            let mut waiting = self.lock();
            if waiting.len() >= WAITING {
                waiting.pop_front();
            }
            waiting.push_back(report);
        }
        self.more.notify_one();
    }
    /// Sends until the session ends.
    pub(crate) async fn run(&self, control: &dyn ControlPlane, session: &Session) -> Result<()> {
        let mut sequence = 0;
        loop {
            let batch: Vec<Report> = self.lock().iter().take(BATCH).cloned().collect();
            if batch.is_empty() {
                self.more.notified().await;
                continue;
            }
            let n = batch.len();
            sequence += 1;
            let mut wait = Duration::from_millis(50);
            while let Err(error) = control.report(session, sequence, batch.clone()).await {
                if error.kind() == ErrorKind::Gone {
                    return Err(error);
                }
                tracing::warn!(error = %error.chain(), "report not stored, will try again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(10));
            }
            self.lock().drain(..n);
        }
    }
}
