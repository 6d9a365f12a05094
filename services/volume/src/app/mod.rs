//! What a request must be, and the one transaction that it becomes.

pub(crate) mod volumes;
