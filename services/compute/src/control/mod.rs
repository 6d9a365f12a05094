//! What makes servers so.

pub(crate) mod servers;
pub(crate) mod sweeper;
