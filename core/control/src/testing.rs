//! Generated tests of step lists: each step repeated, each step failing, each step panicking, a crash after each step.
//!
//! The caller gives a way to build a world (a store with a subject whose flow has begun), a runner over it, something
//! that plays the outside (a simulated node), and what must hold in the end. Every generated run must reach that end.

use crate::flow::{Flow, FlowRunner, FlowSpec, Ran, Step, StepResult, flow_id};
use maru_base::{Error, Result};
use maru_store::{Snapshot, Store};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What is done to one step of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The step runs, its result is thrown away, and it runs again: it must be idempotent.
    Repeat,
    /// The step fails twice before it runs.
    Error,
    /// The step panics twice after it ran: its effect outside the store has happened, its result is lost.
    Panic,
    /// The process dies after the step's commit: a new runner goes on.
    Crash,
}

/// One generated run: which step, which fault.
#[derive(Debug, Clone)]
pub struct Case {
    /// Name of the step.
    pub step: &'static str,
    /// The fault.
    pub fault: Fault,
}

/// All runs for a step list.
#[must_use]
pub fn cases(spec: &FlowSpec) -> Vec<Case> {
    let mut all = vec![Case {
        step: "",
        fault: Fault::None,
    }];
    for step in &spec.steps {
        for fault in [Fault::Repeat, Fault::Error, Fault::Panic, Fault::Crash] {
            all.push(Case {
                step: step.name(),
                fault,
            });
        }
    }
    all
}

struct Faulty {
    inner: Box<dyn Step>,
    fault: Fault,
    runs: AtomicU32,
}

#[async_trait::async_trait]
impl Step for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        let n = self.runs.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Error if n < 2 => Err(Error::unavailable("injected failure")),
            Fault::Repeat if n == 0 => {
                // Its effect outside the store happens, its result is lost.
                drop(self.inner.run(snapshot, flow).await?);
                self.inner.run(snapshot, flow).await
            }
            Fault::Panic if n < 2 => {
                drop(self.inner.run(snapshot, flow).await?);
                std::panic::resume_unwind(Box::new("injected panic"))
            }
            _ => self.inner.run(snapshot, flow).await,
        }
    }
}

/// Runs one case to its end. `make_spec` is called for each runner (a crash makes a new one); `outside` is called
/// whenever the flow waits, and plays whoever it waits for.
///
/// # Errors
/// When the flow does not end within 10,000 looks.
pub async fn run_case<M, O, F>(store: &Store, subject: &str, case: &Case, make_spec: M, mut outside: O) -> Result<()>
where
    M: Fn() -> FlowSpec,
    O: FnMut(Store) -> F,
    F: Future<Output = Result<()>>,
{
    let mut fault = case.fault;
    let mut runner = FlowRunner::new(Arc::new(with_fault(make_spec(), case.step, fault)));
    let kind = runner.spec().kind;
    for _ in 0..10_000 {
        let before = store
            .snapshot()
            .get::<Flow>(&flow_id(kind, subject))
            .map(|f| f.step.clone());
        match runner.run_one(store, subject).await {
            Ok(Ran::Idle) => return Ok(()),
            Ok(Ran::Advanced) => {
                if fault == Fault::Crash && before.as_deref() == Some(case.step) {
                    fault = Fault::None;
                    runner = FlowRunner::new(Arc::new(make_spec()));
                }
            }
            Ok(Ran::Wait(_)) => outside(store.clone()).await?,
            Err(error) if matches!(case.fault, Fault::Error | Fault::Panic) && injected(&error) => {
                tracing::debug!(error = %error.chain(), "as injected");
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::unavailable(format!(
        "the flow of {subject} did not end under {case:?}"
    )))
}

/// Whether a failure is one of ours; any other is the flow's own and ends the run.
fn injected(error: &Error) -> bool {
    error.chain().contains("injected ")
}

fn with_fault(mut spec: FlowSpec, step: &str, fault: Fault) -> FlowSpec {
    spec.steps = spec
        .steps
        .into_iter()
        .map(|inner| {
            if inner.name() == step && matches!(fault, Fault::Repeat | Fault::Error | Fault::Panic) {
                Box::new(Faulty {
                    inner,
                    fault,
                    runs: AtomicU32::new(0),
                }) as Box<dyn Step>
            } else {
                inner
            }
        })
        .collect();
    // An injected failure must not use up the attempts.
    spec.max_attempts = spec.max_attempts.saturating_add(2);
    spec
}
