//! The service's controllers.

pub(crate) mod backups;
pub(crate) mod placing;
pub(crate) mod uploads;
