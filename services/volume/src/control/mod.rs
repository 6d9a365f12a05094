//! The service's controllers.

pub(crate) mod assembling;
pub(crate) mod backups;
pub(crate) mod groups;
pub(crate) mod messages;
pub(crate) mod moves;
pub(crate) mod placing;
pub(crate) mod uploads;
