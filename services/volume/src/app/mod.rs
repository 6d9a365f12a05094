//! What a request must be, and the one transaction that it becomes.

pub(crate) mod capabilities;
pub(crate) mod groups;
pub(crate) mod unmanaged;
pub(crate) mod volumes;
