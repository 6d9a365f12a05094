//! Watching: whole transactions with old and new values.
//!
//! A watcher pulls from the mirror's bounded log of recent transactions, so that a slow one costs nothing and can block
//! nobody: when the log has moved past it, it gets [`WatchItem::Expired`].

use crate::{
    Key, Revision,
    mirror::{Mark, Mirror},
};
use std::sync::Arc;
use tokio::sync::watch;

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
    /// The decoded old value of a registered kind, behind `Any` (`Arc<K>`), if there was one. Of a raw key, the `Bytes`.
    pub old: Option<Arc<dyn std::any::Any + Send + Sync>>,
    /// The decoded new value, if there is one.
    pub new: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

impl Change {
    /// The old value as its kind.
    #[must_use]
    pub fn old_as<K: crate::Kind>(&self) -> Option<Arc<K>> {
        Arc::clone(self.old.as_ref()?).downcast().ok()
    }
    /// The new value as its kind.
    #[must_use]
    pub fn new_as<K: crate::Kind>(&self) -> Option<Arc<K>> {
        Arc::clone(self.new.as_ref()?).downcast().ok()
    }
}

/// A running watch; dropping it ends it.
pub struct Watch {
    mirror: Arc<Mirror>,
    marks: watch::Receiver<Mark>,
    prefix: Key,
    at: Revision,
    expired: bool,
}

impl Watch {
    pub(crate) fn new(mirror: Arc<Mirror>, prefix: Key, from: Revision) -> Self {
        let marks = mirror.mark.subscribe();
        Self {
            mirror,
            marks,
            prefix,
            at: from,
            expired: false,
        }
    }

    /// The next item; `None` when the store is closed, or after `Expired`. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<WatchItem> {
        if self.expired {
            return None;
        }
        loop {
            let mark = *self.marks.borrow_and_update();
            let state = self.mirror.state();
            match state.after(self.at, &self.prefix) {
                Err(()) => {
                    self.expired = true;
                    return Some(WatchItem::Expired);
                }
                Ok(Some((revision, changes))) => {
                    self.at = revision;
                    return Some(WatchItem::Changes(revision, changes));
                }
                Ok(None) if state.revision() > self.at => {
                    self.at = state.revision();
                    return Some(WatchItem::Progress(self.at));
                }
                Ok(None) => {}
            }
            if mark.ended || self.marks.changed().await.is_err() {
                return None;
            }
        }
    }
}
