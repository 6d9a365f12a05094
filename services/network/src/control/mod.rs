//! Reconcilers.

pub(crate) mod dhcp;
pub(crate) mod routers;
