//! Workers over a queue of keys: at most one run a key at a time, a kick while it runs makes it run once more, failures are
//! tried again with backoff.

use crate::{Inner, network::micros, queue::Queue};
use futures_util::future::BoxFuture;
use maru_base::{Error, Result, panics};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::Instrument;

/// What becomes of one key: when it is to be looked at again, if it is.
type Reconcile = for<'a> fn(&'a Arc<Inner>, &'a str) -> BoxFuture<'a, Result<Option<Duration>>>;
/// Told of a failure: the error, which one in a row it is, when the run began (microseconds since the epoch).
type Failed = for<'a> fn(&'a Arc<Inner>, &'a str, &'a Error, u32, i64) -> BoxFuture<'a, ()>;

/// Work of one sort.
pub(crate) struct Work {
    /// What the keys are, in the log.
    pub what: &'static str,
    /// Where the keys come from.
    pub queue: fn(&Inner) -> &Queue,
    /// Runs at once.
    pub workers: usize,
    /// The request that last changed the intent of a key, for the log.
    pub request_of: fn(&Inner, &str) -> String,
    pub reconcile: Reconcile,
    pub failed: Failed,
}

impl Work {
    /// Works until dropped.
    pub(crate) async fn run(&self, inner: &Arc<Inner>) {
        let permits = Arc::new(Semaphore::new(self.workers));
        let busy: Arc<Mutex<(HashSet<String>, HashSet<String>)>> = Arc::default();
        let failures: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let mut tasks = JoinSet::new();
        loop {
            let id = tokio::select! {
                id = (self.queue)(inner).take() => id,
                Some(_) = tasks.join_next() => continue,
            };
            {
                // One run a key at a time: a kick while it runs makes it run once more.
                let mut b = busy.lock().unwrap_or_else(PoisonError::into_inner);
                if !b.0.insert(id.clone()) {
                    b.1.insert(id);
                    continue;
                }
            }
            let (inner, permits, busy, failures) = (
                Arc::clone(inner),
                Arc::clone(&permits),
                Arc::clone(&busy),
                Arc::clone(&failures),
            );
            let (what, queue, request_of, reconcile, failed) =
                (self.what, self.queue, self.request_of, self.reconcile, self.failed);
            tasks.spawn(async move {
                let permit = permits.acquire().await;
                let begun = micros();
                // Every line that comes from here names the request that set the intent.
                let span = tracing::info_span!("work", what, id, request_id = request_of(&inner, &id));
                // A bug met with one key must not leave it, or the others, without anyone who looks after them.
                let outcome = panics::catch(reconcile(&inner, &id)).instrument(span.clone()).await;
                let outcome = outcome.unwrap_or_else(|panicked| {
                    span.in_scope(|| {
                        tracing::error!(backtrace = panicked.backtrace, "the agent panicked; this is a bug");
                    });
                    Err(Error::internal("The agent met a bug of its own.", panicked))
                });
                drop(permit);
                let again = match outcome {
                    Ok(next) => {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                        next
                    }
                    Err(error) => {
                        let n = {
                            let mut f = failures.lock().unwrap_or_else(PoisonError::into_inner);
                            let n = f.entry(id.clone()).or_default();
                            *n += 1;
                            *n
                        };
                        span.in_scope(|| {
                            tracing::warn!(error = %error.chain(), attempt = n, "not as it shall be, will try again");
                        });
                        failed(&inner, &id, &error, n, begun).instrument(span).await;
                        let wait = Duration::from_millis(100 << n.min(8)).min(Duration::from_secs(20));
                        Some(wait + Duration::from_millis(maru_base::random::below(100)))
                    }
                };
                let kicked = {
                    let mut b = busy.lock().unwrap_or_else(PoisonError::into_inner);
                    b.0.remove(&id);
                    b.1.remove(&id)
                };
                if kicked {
                    queue(&inner).kick(&id);
                } else if let Some(delay) = again {
                    queue(&inner).kick_after(&id, delay);
                }
            });
        }
    }
}
