//! What makes intent so: work queues, the reconciler runtime, stored step lists.
//!
//! - [`queue`]: one queue per controller, keyed by object: dedupe, delay, at most one run per key.
//! - [`Reconciler`] and [`Runtime`]: level-triggered; a kick says *look at this key*, never what happened to it.
//! - [`flow`]: a flow of several steps is a step list in its own key: forward only, resumed after any crash.
//! - [`testing`]: takes any flow and generates repeat, fail and crash runs of every step.

pub mod flow;
pub mod queue;
mod runtime;
pub mod testing;

pub use flow::{Flow, FlowId, FlowRunner, FlowSpec, Step, StepResult};
pub use runtime::{ControllerStats, Next, Reconciler, Runtime};
