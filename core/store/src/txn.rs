//! Transactions: what must hold, and what is written if it does.

use crate::{
    Key, Kind, Object, Revision, Space,
    kind::{decode_value, encode_value},
};
use bytes::Bytes;

/// The limits of one transaction, the same on every engine.
pub mod limits {
    /// Most guards.
    pub const GUARDS: usize = 1_024;
    /// Most operations.
    pub const OPS: usize = 1_024;
    /// Most bytes of keys and values together.
    pub const BYTES: usize = 4 << 20;
}

/// What must hold for a transaction to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// There is no such key.
    Absent(Key),
    /// There is such a key, at whatever revision.
    Present(Key),
    /// The key was last written by exactly this revision.
    At(Key, Revision),
    /// No key lies under this prefix.
    RangeEmpty(Key),
}

impl Guard {
    /// The key (or prefix) it looks at.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(k) | Self::Present(k) | Self::At(k, _) | Self::RangeEmpty(k) => k,
        }
    }
}

/// One write. A key appears once among the operations of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes the value.
    Put(Key, Bytes),
    /// Removes the key; it need not be there.
    Delete(Key),
    /// Adds `delta` to a counter (an absent one is 0). With `limit`, a positive delta that would lift it above is a
    /// conflict; below zero it stops at zero. Concurrent adds to one counter merge: they never conflict with each other.
    Add {
        /// The counter.
        key: Key,
        /// What is added.
        delta: i64,
        /// The highest value allowed, `None` for no limit.
        limit: Option<i64>,
    },
}

impl Op {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(k, _) | Self::Delete(k) | Self::Add { key: k, .. } => k,
        }
    }
}

/// Why a transaction did not commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A guard did not hold.
    #[error("guard {index} on {key} does not hold")]
    Guard {
        /// Its place among the guards.
        index: usize,
        /// Its key.
        key: Key,
    },
    /// A counter would pass its limit.
    #[error("counter {key} stands at {used}, {wanted} more would pass {limit}")]
    Exceeded {
        /// The counter.
        key: Key,
        /// Its value now.
        used: i64,
        /// What was asked.
        wanted: i64,
        /// The limit.
        limit: i64,
    },
}

/// A transaction under construction. Planners fill it; [`crate::Store::commit`] commits it.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub(crate) guards: Vec<Guard>,
    pub(crate) ops: Vec<Op>,
    pub(crate) space: Option<Space>,
    pub(crate) fault: Option<String>,
}

/// The key of an object.
#[must_use]
pub fn object_key<K: Kind>(id: &K::Id) -> Key {
    Key::of(&[K::NAME, id.as_ref()])
}

impl Txn {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Writes a new object; conflicts if the id is taken.
    pub fn create<K: Kind>(&mut self, id: &K::Id, value: &K) -> &mut Self {
        let key = object_key::<K>(id);
        self.enter(K::SPACE);
        self.guards.push(Guard::Absent(key.clone()));
        self.write(key, value)
    }
    /// Replaces an object that was read; conflicts if it has changed since.
    pub fn update<K: Kind>(&mut self, read: &Object<K>, value: &K) -> &mut Self {
        self.enter(K::SPACE);
        self.guards.push(Guard::At(read.key(), read.revision));
        self.write(read.key(), value)
    }
    /// Writes an object whatever was there.
    pub fn put<K: Kind>(&mut self, id: &K::Id, value: &K) -> &mut Self {
        self.enter(K::SPACE);
        self.write(object_key::<K>(id), value)
    }
    /// Removes an object that was read; conflicts if it has changed since.
    pub fn delete<K: Kind>(&mut self, read: &Object<K>) -> &mut Self {
        self.enter(K::SPACE);
        self.guards.push(Guard::At(read.key(), read.revision));
        self.ops.push(Op::Delete(read.key()));
        self
    }
    /// Guards that an object that was read has not changed.
    pub fn unchanged<K: Kind>(&mut self, read: &Object<K>) -> &mut Self {
        self.guards.push(Guard::At(read.key(), read.revision));
        self
    }
    /// Guards that an object lives, whatever its revision (creating a child guards its parent).
    pub fn alive<K: Kind>(&mut self, id: &K::Id) -> &mut Self {
        self.guards.push(Guard::Present(object_key::<K>(id)));
        self
    }
    /// Claims a unique name: `uniq/<kind>/<scope>/<name>` → `owner`; conflicts if it is taken.
    pub fn claim(&mut self, kind: &str, scope: &str, name: &str, owner: &str) -> &mut Self {
        let key = Key::of(&["uniq", kind, scope, name]);
        self.guards.push(Guard::Absent(key.clone()));
        self.ops.push(Op::Put(key, Bytes::copy_from_slice(owner.as_bytes())));
        self
    }
    /// Gives a unique name back.
    pub fn release(&mut self, kind: &str, scope: &str, name: &str) -> &mut Self {
        self.ops.push(Op::Delete(Key::of(&["uniq", kind, scope, name])));
        self
    }
    /// Adds to a counter, see [`Op::Add`].
    pub fn add(&mut self, key: Key, delta: i64, limit: Option<i64>) -> &mut Self {
        // Several planners may touch one counter: they merge into one operation.
        for op in &mut self.ops {
            if let Op::Add {
                key: k,
                delta: d,
                limit: l,
            } = op
                && *k == key
            {
                *d += delta;
                *l = match (*l, limit) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                return self;
            }
        }
        self.ops.push(Op::Add { key, delta, limit });
        self
    }
    /// Adds a guard.
    pub fn guard(&mut self, guard: Guard) -> &mut Self {
        self.guards.push(guard);
        self
    }
    /// Adds an operation on a raw key (`alloc/…`, `epoch/…`).
    pub fn op(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }
    /// Puts a raw key that must be absent: `alloc/<subnet>/<ip>`.
    pub fn allocate(&mut self, key: Key, owner: &str) -> &mut Self {
        self.guards.push(Guard::Absent(key.clone()));
        self.ops.push(Op::Put(key, Bytes::copy_from_slice(owner.as_bytes())));
        self
    }
    /// Guards and writes `epoch/<parent>`: of two transactions planned on the same state of the parent's set of children
    /// only one commits, the other plans again. This is what a rule over a set needs (overlapping ranges, cycles, the
    /// last admin), both where it is checked and where a child is added, changed or removed.
    pub fn over_set(&mut self, read: &crate::Snapshot, parent: &str) -> &mut Self {
        let key = Key::of(&["epoch", parent]);
        if self.ops.iter().any(|op| *op.key() == key) {
            return self;
        }
        self.guards.push(match read.raw(&key) {
            Some((revision, _)) => Guard::At(key, revision),
            None => Guard::Absent(key),
        });
        self.bump_epoch(parent)
    }
    /// Writes `epoch/<parent>` so that every rule over the parent's set of children meets in one key. It only tells
    /// others of a change: a transaction that checked a rule itself needs [`Txn::over_set`].
    pub fn bump_epoch(&mut self, parent: &str) -> &mut Self {
        let key = Key::of(&["epoch", parent]);
        if !self.ops.iter().any(|op| *op.key() == key) {
            self.ops.push(Op::Put(
                key,
                Bytes::copy_from_slice(maru_base::random::hex32().as_bytes()),
            ));
        }
        self
    }
    /// Takes over everything of another transaction.
    pub fn append(&mut self, other: Self) -> &mut Self {
        if let Some(space) = other.space {
            self.enter(space);
        }
        self.guards.extend(other.guards);
        for op in other.ops {
            match op {
                Op::Add { key, delta, limit } => {
                    self.add(key, delta, limit);
                }
                other => self.ops.push(other),
            }
        }
        self.fault = self.fault.take().or(other.fault);
        self
    }
    /// The guards so far.
    #[must_use]
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }
    /// The operations so far.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
    /// Whether nothing would be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn enter(&mut self, space: Space) {
        match self.space {
            None => self.space = Some(space),
            Some(s) if s == space => {}
            Some(s) => self.fault = Some(format!("a transaction of space {s:?} also writes space {space:?}")),
        }
    }
    fn write<K: Kind>(&mut self, key: Key, value: &K) -> &mut Self {
        match encode_value(value) {
            // A kind that cannot be read back would stop the mirror: builds with debug assertions find it at once.
            Ok(bytes) if cfg!(debug_assertions) && decode_value::<K>(&bytes).as_ref() != Ok(value) => {
                self.fault = Some(format!(
                    "{key} does not decode to what was written: {:?}",
                    decode_value::<K>(&bytes)
                ));
            }
            Ok(bytes) => self.ops.push(Op::Put(key, Bytes::from(bytes))),
            Err(e) => self.fault = Some(format!("{key} cannot be encoded: {e}")),
        }
        self
    }
}
