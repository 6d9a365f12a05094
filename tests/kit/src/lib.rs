//! A whole cloud in one process, for tests.
//!
//! ```text
//!  test ─ call ─► Gateway ─► services ─► Store ─► Gate ─► engine (memory, or redb in a directory)
//!                                          │        └ the n-th commit is the last: a crash
//!                            controllers ──┤
//!           SimNode ◄─ Door ◄─ Hub ◄───────┘
//!                       └ the wire: a crash of the control plane ends its streams
//! ```
//!
//! [`Kit`] is the real control plane of `bin/maru`, opened on a store of the test's, with simulated nodes. What is not real: the
//! machines behind the nodes, the parser of images (it believes what the owner declares: the sandbox starts the binary anew,
//! which a test binary is not) and, unless [`Builder::redb`] is asked for, the disk. Callers are users of projects that were made
//! through the identity API and hold real tokens.
//!
//! With `#[tokio::test(start_paused = true)]` time passes only when nothing else is to be done: waits cost nothing and deadlines
//! are exact. The redb engine has a thread of its own, which paused time does not wait for: use it with real time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod actors;
mod call;
mod consistency;
mod door;
mod gate;
mod kit;
mod make;
mod scene;
mod scene_compute;
mod scene_identity;
mod scene_network;
mod scene_proxy;
mod scene_volume;
mod wait;

pub use actors::{Actor, Project};
pub use call::Answer;
pub use consistency::Fault;
pub use gate::{Gate, Mishap};
pub use kit::{Builder, Crashed, Kit};
pub use maru_sim::{SimNode, Step};
pub use scene::{Body, Scene, collections};
pub use wait::crash_rounds;
