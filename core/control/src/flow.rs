//! Stored step lists: a flow of several steps that goes on where it stopped.
//!
//! ```text
//!   begin(txn) ─► step 0 ─► step 1 ─► … ─► finished (key removed)
//!                  │ Wait: look again later, nothing written
//!                  │ error: attempts + 1, back-off, the same step again
//!                  └ Fail: the flow ends; `on_fail` writes what the subject shows (one transaction)
//! ```
//! A step returns the transaction that is its effect; the runner commits it **together with** the advance of the flow,
//! guarded by the flow's revision. So a step's stored effect happens exactly once; what it does outside the store must
//! be idempotent. Forward only: there is no undo, deletion is an intent of its own.

use crate::Next;
use maru_base::{Error, Result};
use maru_store::{Index, Kind, Object, Snapshot, Store, Txn};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tracing::Instrument;

maru_base::typed_id!(
    /// Id of a flow: `<kind>:<subject id>`; one flow of a kind runs for a subject at a time.
    FlowId
);

/// A flow in progress, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Which step list: `server-create`.
    pub kind: String,
    /// The object that it works on.
    pub subject: String,
    /// Name of the step that runs next.
    pub step: String,
    /// How often that step has failed.
    pub attempts: u32,
    /// Inputs and what steps found out for later ones.
    pub data: serde_json::Value,
    /// The request that began it.
    pub request_id: String,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

impl Kind for Flow {
    type Id = FlowId;
    const NAME: &'static str = "flow";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "kind",
                values: |f| vec![f.kind.clone()],
            },
            Index {
                name: "subject",
                values: |f| vec![f.subject.clone()],
            },
        ]
    }
}

/// The id of the flow of `kind` for `subject`.
#[must_use]
pub fn flow_id(kind: &str, subject: &str) -> FlowId {
    FlowId::from(format!("{kind}:{subject}"))
}

/// Puts the beginning of a flow into a transaction.
pub fn begin(txn: &mut Txn, spec: &FlowSpec, subject: &str, request_id: &str, data: serde_json::Value) {
    let step = spec.steps.first().map(|s| s.name().to_owned()).unwrap_or_default();
    let flow = Flow {
        kind: spec.kind.to_owned(),
        subject: subject.to_owned(),
        step,
        attempts: 0,
        data,
        request_id: request_id.to_owned(),
        last_error: None,
    };
    txn.create(&flow_id(spec.kind, subject), &flow);
}

/// What a step came to.
#[derive(Debug)]
pub enum StepResult {
    /// Commit this and go to the next step. The second value, if any, replaces the flow's data.
    Commit(Txn, Option<serde_json::Value>),
    /// Not yet: look again after this time, or when something that the reconciler watches changes.
    Wait(std::time::Duration),
    /// The flow cannot succeed: commit this (the subject's fault) and end the flow.
    Fail(Txn),
    /// Nothing is left to do (the subject is gone): end the flow.
    End,
}

/// One step of a flow.
#[async_trait::async_trait]
pub trait Step: Send + Sync + 'static {
    /// Its name, stored while it is next; never reuse a name for another meaning.
    fn name(&self) -> &'static str;
    /// Does it, on this view of the store. Called again after a crash, an error or a conflict.
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult>;
}

/// A step list.
pub struct FlowSpec {
    /// Its name: `server-create`.
    pub kind: &'static str,
    /// The steps in order.
    pub steps: Vec<Box<dyn Step>>,
    /// After this many failed attempts of one step, `give_up` is asked.
    pub max_attempts: u32,
    /// The transaction that shows the failure on the subject when attempts are used up; `None` goes on for ever.
    pub give_up: Option<GiveUp>,
}

/// Writes a failure onto the subject of a flow.
pub type GiveUp = Box<dyn Fn(&Snapshot, &Flow, &Error) -> Result<Txn> + Send + Sync>;

/// Runs flows of one kind; call it from a reconciler whose keys are subject ids.
#[derive(Clone)]
pub struct FlowRunner {
    spec: Arc<FlowSpec>,
}

impl FlowRunner {
    /// A runner of a step list.
    #[must_use]
    pub fn new(spec: Arc<FlowSpec>) -> Self {
        Self { spec }
    }
    /// The step list.
    #[must_use]
    pub fn spec(&self) -> &FlowSpec {
        &self.spec
    }
    /// Runs the subject's flow as far as it goes now.
    ///
    /// # Errors
    /// What a step failed with; the failure is stored on the flow, and the caller's queue backs off.
    pub async fn run(&self, store: &Store, subject: &str) -> Result<Next> {
        loop {
            match self.run_one(store, subject).await? {
                Ran::Advanced => {}
                Ran::Idle => return Ok(Next::Done),
                Ran::Wait(delay) => return Ok(Next::After(delay)),
            }
        }
    }

    /// Runs one step.
    pub(crate) async fn run_one(&self, store: &Store, subject: &str) -> Result<Ran> {
        let snapshot = store.snapshot();
        let id = flow_id(self.spec.kind, subject);
        let Some(flow) = snapshot.get::<Flow>(&id) else {
            return Ok(Ran::Idle);
        };
        let at = self
            .spec
            .steps
            .iter()
            .position(|s| s.name() == flow.step)
            .ok_or_else(|| {
                Error::new(
                    maru_base::ErrorKind::Internal,
                    format!(
                        "flow {id} stands at step '{}', which this release does not know",
                        flow.step
                    ),
                )
            })?;
        // Every line that a step logs names the request that began the flow.
        let span = tracing::info_span!(
            "flow",
            request_id = flow.request_id,
            flow = self.spec.kind,
            subject,
            step = flow.step
        );
        let run = self.spec.steps[at].run(&snapshot, &flow).instrument(span.clone());
        let result = match maru_base::panics::catch(run).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => return self.failed(store, &snapshot, &flow, error).instrument(span).await,
            // A step that panics has failed: its attempts are counted, and in the end the subject shows it.
            Err(panicked) => {
                let error = Error::internal(format!("The step '{}' met a bug of ours.", flow.step), panicked);
                return self.failed(store, &snapshot, &flow, error).instrument(span).await;
            }
        };
        let (mut txn, next, outcome) = match result {
            StepResult::Wait(delay) => return Ok(Ran::Wait(delay)),
            StepResult::End => (Txn::new(), None, "nothing left to do"),
            StepResult::Fail(txn) => (txn, None, "failed for good"),
            StepResult::Commit(txn, data) => {
                let next = self.spec.steps.get(at + 1).map(|step| {
                    let mut next = (*flow.value).clone();
                    step.name().clone_into(&mut next.step);
                    next.attempts = 0;
                    next.last_error = None;
                    if let Some(data) = data {
                        next.data = data;
                    }
                    next
                });
                (txn, next, "done")
            }
        };
        match next {
            Some(next) => txn.update(&flow, &next),
            None => txn.delete(&flow),
        };
        match store.commit(txn).await {
            Ok(_) => {
                span.in_scope(|| tracing::info!(attempts = flow.attempts, outcome, "step ended"));
                Ok(Ran::Advanced)
            }
            // Something changed under the step: look again at once.
            Err(e) if e.is_conflict() => {
                span.in_scope(|| tracing::debug!(error = %e, "conflict, planning again"));
                tokio::task::yield_now().await;
                Ok(Ran::Wait(std::time::Duration::from_millis(2)))
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn failed(&self, store: &Store, snapshot: &Snapshot, flow: &Object<Flow>, error: Error) -> Result<Ran> {
        let attempts = flow.attempts + 1;
        let mut txn = Txn::new();
        match &self.spec.give_up {
            Some(give_up) if attempts >= self.spec.max_attempts => {
                txn = give_up(snapshot, flow, &error)?;
                txn.delete(flow);
                tracing::error!(attempts, error = %error.chain(), "gave up");
            }
            _ => {
                let mut next = (*flow.value).clone();
                next.attempts = attempts;
                next.last_error = Some(error.chain());
                tracing::warn!(attempts, error = %error.chain(), "step failed, will try again");
                txn.update(flow, &next);
            }
        }
        match store.commit(txn).await {
            Ok(_) => Err(error),
            Err(e) if e.is_conflict() => Ok(Ran::Wait(std::time::Duration::from_millis(2))),
            Err(e) => Err(Error::from(e)),
        }
    }
}

/// What one run of a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// A step was done; there may be another.
    Advanced,
    /// There is no flow.
    Idle,
    /// Not yet.
    Wait(std::time::Duration),
}
