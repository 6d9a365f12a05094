//! The control plane's side of the agent contract.
//!
//! - [`slice`]: what a node shall have, as a pure function of the snapshot.
//! - [`Hub`]: sessions of the agents: streams each its slice, stores what it observes, opens lanes into it.
//! - [`joining`]: who may come in: one-time tokens, the keys of the nodes that have joined.
//! - [`liveness`]: notices nodes that fell silent; heartbeats live in memory, only transitions are written.
//!
//! ```text
//!  agent                      Hub                                store
//!    │ connect(Hello) ────────► session, plan_node_up ───────────► node's services and inventory
//!    │ ◄──── Set*, Gone*, Synced, Set/Gone… ◄── slice(snapshot) ◄── watch
//!    │ report(seq, facts) ────► guarded by the session ──────────► observed/… and what follows from it
//!    │ heartbeat ─────────────► in memory
//! ```

mod hub;
pub mod joining;
pub mod liveness;
mod report;
pub mod slice;

pub use hub::{Hub, NodeView};
