//! The mirror as an immutable snapshot: lock-free reads, consistent over kinds.

use crate::{Key, Kind, Revision, txn::object_key};
use std::sync::Arc;

/// An object as the mirror has it.
pub struct Object<K: Kind> {
    /// Its id.
    pub id: K::Id,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that last wrote it; what [`crate::Txn::update`] guards.
    pub revision: Revision,
    /// The value.
    pub value: Arc<K>,
}

impl<K: Kind> Clone for Object<K> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            created: self.created,
            revision: self.revision,
            value: Arc::clone(&self.value),
        }
    }
}

impl<K: Kind> std::ops::Deref for Object<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.value
    }
}

impl<K: Kind> std::fmt::Debug for Object<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} {:?}", self.key(), self.revision, self.value)
    }
}

impl<K: Kind> Object<K> {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        object_key::<K>(&self.id)
    }
}

/// An immutable view of all mirrored kinds at one revision. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) inner: Arc<crate::store::MirrorState>,
}

impl Snapshot {
    /// The revision of this view.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.inner.revision()
    }
    /// The object with this id.
    #[must_use]
    pub fn get<K: Kind>(&self, id: &K::Id) -> Option<Object<K>> {
        self.inner.get::<K>(id.as_ref())
    }
    /// All objects of a kind in id order.
    pub fn list<K: Kind>(&self) -> impl Iterator<Item = Object<K>> + '_ {
        self.inner.list::<K>()
    }
    /// Objects of a kind in id order, after this id: the next page after a marker.
    pub fn list_after<'a, K: Kind>(&'a self, id: &K::Id) -> impl Iterator<Item = Object<K>> + use<'a, K> {
        self.inner.list_after::<K>(id.as_ref())
    }
    /// The store's incarnation: a restore begins a new one, and revisions compare only within one.
    #[must_use]
    pub fn incarnation(&self) -> String {
        let key = Key::from_raw(crate::mirror::INCARNATION);
        self.raw(&key)
            .map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
            .unwrap_or_default()
    }
    /// Objects that have `value` in the declared index `index`, in id order.
    pub fn find<'a, K: Kind>(&'a self, index: &str, value: &str) -> impl Iterator<Item = Object<K>> + 'a {
        self.inner.find::<K>(index, value)
    }
    /// How many objects of a kind there are.
    #[must_use]
    pub fn count<K: Kind>(&self) -> usize {
        self.inner.count::<K>()
    }
    /// For each mirrored kind its name and how many objects of it there are.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        self.inner.counts()
    }
    /// The owner of a unique name, see [`crate::Txn::claim`].
    #[must_use]
    pub fn owner(&self, kind: &str, scope: &str, name: &str) -> Option<String> {
        self.raw(&Key::of(&["uniq", kind, scope, name]))
            .map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
    }
    /// The value of a counter; 0 when absent.
    #[must_use]
    pub fn counter(&self, key: &Key) -> i64 {
        self.raw(key)
            .and_then(|(_, v)| std::str::from_utf8(&v).ok()?.parse().ok())
            .unwrap_or(0)
    }
    /// A raw key (`uniq/`, `alloc/`, `epoch/`, `counter/`): revision and value.
    #[must_use]
    pub fn raw(&self, key: &Key) -> Option<(Revision, bytes::Bytes)> {
        self.inner.raw(key)
    }
    /// Raw keys under a prefix, in order.
    pub fn raw_under<'a>(&'a self, prefix: &Key) -> impl Iterator<Item = (Key, bytes::Bytes)> + 'a {
        self.inner.raw_under(prefix)
    }
}
