//! The control plane as a library: the binary runs it, the test kit runs it in process.

pub mod adapters;
pub mod ca;
pub mod cloud;
pub mod joining;
pub mod metrics;
