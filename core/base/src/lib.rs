//! What every crate of Maru shares: typed ids, the clock and randomness seams, and the one error type.
//!
//! Nothing here knows a cloud service. Code outside this crate never reads the clock or a random
//! source directly: it goes through [`time`] and [`random`], which tests can steer.

mod durations;
mod error;
mod hex;
mod id;
pub mod levels;
pub mod panics;
pub mod random;
mod secret;
pub mod time;

pub use durations::Durations;
pub use error::{BoxError, Error, ErrorKind, Result};
pub use hex::{hex, unhex};
pub use id::{DomainId, ProjectId, RequestId, UserId};
pub use secret::Secret;
