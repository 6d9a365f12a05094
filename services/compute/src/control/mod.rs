//! What makes servers so.

pub(crate) mod images;
pub(crate) mod servers;
pub(crate) mod sweeper;
