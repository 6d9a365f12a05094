//! The handle that services hold.

use crate::{CommitError, Engine, Key, Kind, Object, Registry, Revision, Snapshot, Txn, Watch};
use bytes::Bytes;
use std::sync::Arc;

/// The store: an engine and the mirror over it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

impl Store {
    /// Opens the store over an engine: loads the mirror, then follows the engine's commits.
    ///
    /// # Errors
    /// When the engine cannot be read or a value cannot be decoded.
    pub async fn open(_engine: Arc<dyn Engine>, _registry: Registry) -> maru_base::Result<Self> {
        todo!()
    }
    /// A store in memory, for tests.
    #[must_use]
    pub fn in_memory(_registry: Registry) -> Self {
        todo!()
    }
    /// The newest state this process has.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    /// Commits a transaction; returns when this process's mirror shows it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, _txn: Txn) -> Result<Revision, CommitError> {
        todo!()
    }
    /// Plans on a fresh snapshot and commits, planning again on a conflict (with jittered back-off, about 30 times).
    /// The plan returns the transaction and what to answer. A counter that would pass its limit is not tried again:
    /// it comes back as [`CommitError::Conflict`] with `Conflict::Exceeded` inside the error's source.
    ///
    /// # Errors
    /// What the plan refused, or that it could not be committed.
    pub async fn plan<T, F>(&self, _plan: F) -> maru_base::Result<T>
    where
        F: FnMut(&Snapshot) -> maru_base::Result<(Txn, T)>,
    {
        todo!()
    }
    /// Waits until the mirror has this revision.
    pub async fn wait(&self, _revision: Revision) {
        todo!()
    }
    /// Waits until `check` holds of a snapshot, looking again after every change.
    pub async fn until<F: FnMut(&Snapshot) -> bool>(&self, _check: F) -> Snapshot {
        todo!()
    }
    /// Follows all changes under `prefix` after `from`.
    #[must_use]
    pub fn watch(&self, _prefix: &Key, _from: Revision) -> Watch {
        todo!()
    }
    /// Reads objects of a `Stored` kind in id order, after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub async fn page<K: Kind>(&self, _after: Option<&K::Id>, _limit: usize) -> maru_base::Result<Vec<Object<K>>> {
        todo!()
    }
}

/// The mirror's state at one revision.
pub(crate) struct MirrorState {}

#[allow(unused_variables)]
impl MirrorState {
    pub(crate) fn revision(&self) -> Revision {
        todo!()
    }
    pub(crate) fn get<K: Kind>(&self, id: &str) -> Option<Object<K>> {
        todo!()
    }
    pub(crate) fn list<K: Kind>(&self) -> impl Iterator<Item = Object<K>> + '_ {
        std::iter::empty()
    }
    pub(crate) fn find<'a, K: Kind>(&'a self, index: &str, value: &str) -> impl Iterator<Item = Object<K>> + use<'a, K> {
        std::iter::empty()
    }
    pub(crate) fn count<K: Kind>(&self) -> usize {
        todo!()
    }
    pub(crate) fn raw(&self, key: &Key) -> Option<(Revision, Bytes)> {
        todo!()
    }
    pub(crate) fn raw_under<'a>(&'a self, prefix: &Key) -> impl Iterator<Item = (Key, Bytes)> + use<'a> {
        std::iter::empty()
    }
}
