//! Watching: whole transactions with old and new values.

use crate::{Key, Revision};
use std::sync::Arc;

/// What a watcher receives.
#[derive(Debug, Clone)]
pub enum WatchItem {
    /// One transaction's changes under the watched prefix, in one piece.
    Changes(Revision, Vec<Change>),
    /// Nothing under the prefix up to this revision.
    Progress(Revision),
    /// The watcher fell too far behind or asked for history that is gone: take a snapshot and watch from there.
    Expired,
}

/// One key's change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The decoded old value of a registered kind, behind `Any` (`Arc<K>`), if there was one.
    pub old: Option<Arc<dyn std::any::Any + Send + Sync>>,
    /// The decoded new value, if there is one.
    pub new: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

/// A running watch; dropping it ends it.
pub struct Watch {
    pub(crate) items: tokio::sync::mpsc::Receiver<WatchItem>,
}

impl Watch {
    /// The next item; `None` when the store is closed.
    pub async fn next(&mut self) -> Option<WatchItem> {
        self.items.recv().await
    }
}
