//! What the tests of the real process share: starting it, asking it over HTTP, killing it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod client;
pub mod process;
