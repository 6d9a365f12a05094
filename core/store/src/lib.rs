//! The one revisioned store: everything that an API shows is an object here.
//!
//! - [`Txn`]: guards and operations, committed all or nothing by [`Store::commit`].
//! - [`Engine`]: the small trait behind it (`mem`, `redb`, `etcd`).
//! - [`Snapshot`]: the typed mirror of the current state; reading never touches the engine.
//! - [`Watch`]: whole transactions as they happen.
//! - [`record`]: append-only records with retention (audit, instance actions), in files of their own.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
mod error;
mod key;
mod kind;
mod maintain;
mod mirror;
pub mod record;
mod snapshot;
mod store;
mod txn;
mod watch;

pub use engine::{Engine, Entry};
pub use error::CommitError;
pub use key::Key;
pub use kind::{Class, Index, Kind, Registry, Space};
pub use maintain::{Backup, Digest, LEVEL};
pub use snapshot::{Object, Snapshot};
pub use store::{Stats, Store};
pub use txn::{Conflict, Guard, Op, Txn, limits, object_key};
pub use watch::{Change, Watch, WatchItem};

/// The number of a committed transaction; grows by at least one with each.
pub type Revision = u64;
