//! The agent contract over the wire: gRPC on mutually authenticated TLS, for machines that have joined.
//!
//! ```text
//!  node                                            control plane
//!  Remote: ControlPlane                            Server over a ControlPlane (the hub) and a Registrar
//!    │ Join(token, CSR)          no certificate ─────► Registrar::join     once for each token
//!    │ Renew(CSR)                ────────────────────► Registrar::renew    before the certificate ends
//!    │ Connect(Hello)            ────────────────────► ControlPlane::connect
//!    │ ◄── stream: Connected, Delivery…, Lane(ask)…
//!    │ Report, Heartbeat, Pull   ────────────────────► the same calls
//!    │ Lane(id) ⇄ bytes          ────────────────────► who asked for it ([`lane`])
//! ```
//! Whose certificate a connection showed decides which node it speaks for, whatever its messages say: every call that names another
//! one is refused. The control plane never connects to a node; what it wants of one, it asks for on the stream.
//!
//! Messages are JSON: the contract's own types ([`maru_agent_api`]), whose unknown fields an older end ignores. Bytes in bulk are
//! frames ([`frame`]).

mod client;
mod codec;
mod frame;
mod lane;
mod server;
#[cfg(test)]
mod tests;
pub mod tls;
mod wire;

pub use client::{Remote, join, renew};
pub use server::{Registrar, serve};
pub use wire::{JoinRequest, Joined};

/// The name that the control plane's certificate bears, whatever address it is reached at.
pub const CONTROL_NAME: &str = "control.maru";
