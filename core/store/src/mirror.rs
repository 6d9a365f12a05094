//! The mirror: per kind an ordered persistent map and its declared indexes, all of one revision, published at once.

use crate::{
    Class, Key, Kind, Object, Registry, Revision, Space,
    engine::{Commit, Entry},
    kind::ErasedKind,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet, Vector};
use std::{
    any::Any,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How many commits are kept for watchers, and about how many bytes of values they may hold.
const LOG_COMMITS: usize = 16_384;
const LOG_BYTES: usize = 8 << 20;
/// Key of the incarnation, see [`crate::Snapshot::incarnation`].
pub(crate) const INCARNATION: &str = "incarnation";

/// A decoded value.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// The kinds of a process, by place and by name.
pub(crate) struct Layout {
    kinds: Vec<Arc<dyn ErasedKind>>,
    by_name: HashMap<String, usize>,
    index_names: Vec<Vec<&'static str>>,
}

impl Layout {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            by_name: registry
                .kinds
                .iter()
                .enumerate()
                .map(|(i, k)| (k.name().to_owned(), i))
                .collect(),
            index_names: registry.kinds.iter().map(|k| k.index_names()).collect(),
            kinds: registry.kinds.clone(),
        }
    }
    fn kind_of(&self, key: &Key) -> Option<usize> {
        self.by_name.get(key.head()).copied()
    }
    /// The space that a key's kind belongs to; raw keys go with the objects they are written with.
    pub(crate) fn space_of(&self, key: &Key) -> Option<Space> {
        self.kind_of(key).map(|place| self.kinds[place].space())
    }
}

/// An object without its type.
#[derive(Clone)]
struct Slot {
    created: Revision,
    modified: Revision,
    /// Of the stored bytes, for the digest.
    hash: u64,
    value: Value,
}

impl Slot {
    fn new(entry: &Entry, value: Value) -> Self {
        let (created, modified) = (entry.created, entry.modified);
        Self {
            created,
            modified,
            hash: hash_of(&entry.value),
            value,
        }
    }
}

#[derive(Clone)]
struct Raw {
    created: Revision,
    modified: Revision,
    value: Bytes,
}

impl Raw {
    fn new(entry: &Entry) -> Self {
        Self {
            created: entry.created,
            modified: entry.modified,
            value: entry.value.clone(),
        }
    }
}

/// One kind.
#[derive(Clone, Default)]
struct Table {
    objects: OrdMap<Arc<str>, Slot>,
    /// Per declared index: (value, id).
    indexes: Vec<OrdSet<(Arc<str>, Arc<str>)>>,
}

impl Table {
    /// Brings the indexes from an object's values before (none if it was not there) to those after.
    fn reindex(&mut self, id: &Arc<str>, before: Vec<Vec<String>>, after: Vec<Vec<String>>) {
        let (mut before, mut after) = (before.into_iter(), after.into_iter());
        for index in &mut self.indexes {
            let (before, after) = (before.next().unwrap_or_default(), after.next().unwrap_or_default());
            for gone in before.iter().filter(|v| !after.contains(v)) {
                index.remove(&(Arc::from(gone.as_str()), Arc::clone(id)));
            }
            for come in after.into_iter().filter(|v| !before.contains(v)) {
                index.insert((Arc::from(come), Arc::clone(id)));
            }
        }
    }
}

/// A decoded commit, for watchers.
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<crate::Change>,
    bytes: usize,
}

/// The mirror's state at one revision.
#[derive(Clone)]
pub(crate) struct MirrorState {
    pub(crate) layout: Arc<Layout>,
    revision: Revision,
    tables: Vec<Arc<Table>>,
    raw: OrdMap<Key, Raw>,
    /// The newest commits, oldest first; everything after `log_floor`.
    log: Vector<Arc<Seen>>,
    log_floor: Revision,
    log_bytes: usize,
}

pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl MirrorState {
    fn empty(layout: Arc<Layout>, revision: Revision) -> Self {
        let tables = layout
            .index_names
            .iter()
            .map(|names| {
                Arc::new(Table {
                    objects: OrdMap::new(),
                    indexes: vec![OrdSet::new(); names.len()],
                })
            })
            .collect();
        Self {
            layout,
            revision,
            tables,
            raw: OrdMap::new(),
            log: Vector::new(),
            log_floor: revision,
            log_bytes: 0,
        }
    }

    /// Takes in what is not there yet.
    fn take(&mut self, part: Vec<Ready>) {
        let tables = &mut self.tables;
        for one in part {
            match one {
                Ready::Raw(key, raw) => drop(self.raw.insert(key, raw)),
                Ready::Object {
                    place,
                    id,
                    slot,
                    values,
                } => {
                    let table = Arc::make_mut(&mut tables[place]);
                    table.reindex(&id, Vec::new(), values);
                    table.objects.insert(id, slot);
                }
            }
        }
    }

    /// Takes one entry in (`new`) or out, and says what watchers see.
    fn set(&mut self, key: &Key, old: Option<&Entry>, new: Option<&Entry>) -> Result<crate::Change, String> {
        let layout = Arc::clone(&self.layout);
        let Some((place, id)) = layout.kind_of(key).and_then(|place| Some((place, key.tail()?))) else {
            let as_any = |raw: Raw| Arc::new(raw.value) as Value;
            let before = match new {
                Some(e) => self.raw.insert(key.clone(), Raw::new(e)),
                None => self.raw.remove(key),
            };
            let after = new.map(|e| Arc::new(e.value.clone()) as Value);
            return Ok(crate::Change {
                key: key.clone(),
                old: before.map(as_any),
                new: after,
            });
        };
        let kind = &*layout.kinds[place];
        let decode = |e: &Entry| {
            kind.decode(&e.value)
                .map_err(|e| format!("{key} cannot be decoded: {e}"))
        };
        let value = new.map(decode).transpose()?;
        if kind.class() != Class::Mirrored {
            let old = old.map(decode).transpose()?;
            return Ok(crate::Change {
                key: key.clone(),
                old,
                new: value,
            });
        }
        let table = Arc::make_mut(&mut self.tables[place]);
        let id: Arc<str> = id.into();
        let after = value.as_ref().map(|v| kind.index_values(&**v)).unwrap_or_default();
        let before = match (new, &value) {
            (Some(e), Some(value)) => table.objects.insert(Arc::clone(&id), Slot::new(e, Arc::clone(value))),
            _ => table.objects.remove(&id),
        };
        let before = before.map(|slot| slot.value);
        let values_before = before.as_ref().map(|v| kind.index_values(&**v)).unwrap_or_default();
        table.reindex(&id, values_before, after);
        Ok(crate::Change {
            key: key.clone(),
            old: before,
            new: value,
        })
    }

    fn apply(&mut self, commit: &Commit) -> Result<(), String> {
        let mut seen = Seen {
            revision: commit.revision,
            changes: Vec::with_capacity(commit.changes.len()),
            bytes: 0,
        };
        for (key, old, new) in &commit.changes {
            seen.bytes += key.as_str().len() + new.as_ref().map_or(0, |e| e.value.len());
            seen.changes.push(self.set(key, old.as_ref(), new.as_ref())?);
        }
        self.revision = commit.revision;
        self.log_bytes += seen.bytes;
        self.log.push_back(Arc::new(seen));
        while self.log.len() > LOG_COMMITS || (self.log_bytes > LOG_BYTES && self.log.len() > 1) {
            if let Some(gone) = self.log.pop_front() {
                self.log_floor = gone.revision;
                self.log_bytes -= gone.bytes;
            }
        }
        Ok(())
    }

    /// The first commit after `from` that touches `prefix`; `Err` when the log no longer reaches back to `from`.
    pub(crate) fn after(&self, from: Revision, prefix: &Key) -> Result<Option<(Revision, Vec<crate::Change>)>, ()> {
        if from < self.log_floor {
            return Err(());
        }
        let (mut low, mut high) = (0, self.log.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.log[middle].revision <= from {
                low = middle + 1
            } else {
                high = middle
            }
        }
        for seen in self.log.focus().narrow(low..).into_iter() {
            let touched: Vec<_> = seen.changes.iter().filter(|c| c.key.under(prefix)).cloned().collect();
            if !touched.is_empty() {
                return Ok(Some((seen.revision, touched)));
            }
        }
        Ok(None)
    }

    fn table<K: Kind>(&self) -> Option<&Table> {
        match self.layout.by_name.get(K::NAME) {
            Some(&place) => Some(&*self.tables[place]),
            None => {
                tracing::error!(kind = K::NAME, "read of a kind that is not registered");
                None
            }
        }
    }
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }
    pub(crate) fn get<K: Kind>(&self, id: &str) -> Option<Object<K>> {
        object(id, self.table::<K>()?.objects.get(id)?)
    }
    pub(crate) fn list<K: Kind>(&self) -> impl Iterator<Item = Object<K>> + '_ {
        self.table::<K>()
            .into_iter()
            .flat_map(|t| t.objects.iter())
            .filter_map(|(id, slot)| object(id, slot))
    }
    pub(crate) fn list_after<K: Kind>(&self, id: &str) -> impl Iterator<Item = Object<K>> + use<'_, K> {
        let start = (
            std::ops::Bound::Excluded(Arc::<str>::from(id)),
            std::ops::Bound::Unbounded,
        );
        self.table::<K>()
            .into_iter()
            .flat_map(move |t| t.objects.range(start.clone()))
            .filter_map(|(id, slot)| object(id, slot))
    }
    pub(crate) fn find<'a, K: Kind>(
        &'a self,
        index: &str,
        value: &str,
    ) -> impl Iterator<Item = Object<K>> + use<'a, K> {
        let value: Arc<str> = value.into();
        let found = self.table::<K>().and_then(|t| {
            let place = self.layout.by_name.get(K::NAME)?;
            let at = self.layout.index_names[*place].iter().position(|n| *n == index);
            debug_assert!(at.is_some(), "{} declares no index {index}", K::NAME);
            if at.is_none() {
                tracing::error!(kind = K::NAME, index, "search in an index that is not declared");
            }
            Some((t, t.indexes.get(at?)?))
        });
        found.into_iter().flat_map(move |(table, index)| {
            let value = Arc::clone(&value);
            index
                .range((Arc::clone(&value), Arc::from(""))..)
                .take_while(move |(v, _)| *v == value)
                .filter_map(|(_, id)| object(id, table.objects.get(id)?))
        })
    }
    pub(crate) fn count<K: Kind>(&self) -> usize {
        self.table::<K>().map_or(0, |t| t.objects.len())
    }
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        let kinds = self.layout.kinds.iter().zip(&self.tables);
        kinds
            .filter(|(kind, _)| kind.class() == Class::Mirrored)
            .map(|(kind, table)| (kind.name(), table.objects.len()))
    }
    pub(crate) fn raw(&self, key: &Key) -> Option<(Revision, Bytes)> {
        self.raw.get(key).map(|raw| (raw.modified, raw.value.clone()))
    }
    pub(crate) fn raw_under<'a>(&'a self, prefix: &Key) -> impl Iterator<Item = (Key, Bytes)> + use<'a> {
        let prefix = prefix.clone();
        self.raw
            .range(prefix.clone()..)
            .take_while(move |(key, _)| key.under(&prefix))
            .map(|(key, raw)| (key.clone(), raw.value.clone()))
    }

    /// Key, creation, last write and hash of the bytes of all that is mirrored, in no special order.
    pub(crate) fn fingerprints(&self) -> Vec<(Key, Revision, Revision, u64)> {
        let mut all: Vec<_> = self
            .raw
            .iter()
            .map(|(k, r)| (k.clone(), r.created, r.modified, hash_of(&r.value)))
            .collect();
        for (kind, table) in self.layout.kinds.iter().zip(&self.tables) {
            let of = |(id, s): (&Arc<str>, &Slot)| (Key::of(&[kind.name(), id]), s.created, s.modified, s.hash);
            all.extend(table.objects.iter().map(of));
        }
        all
    }
    /// Whether an engine's entry is one that the mirror holds.
    pub(crate) fn mirrors(&self, key: &Key) -> bool {
        match self.layout.kind_of(key) {
            Some(place) if key.as_str().contains('/') => self.layout.kinds[place].class() == Class::Mirrored,
            _ => true,
        }
    }
    /// Whether what the mirror holds under `entry`'s key is what its bytes decode to, and all indexes name it.
    pub(crate) fn agrees(&self, entry: &Entry) -> Result<(), String> {
        let Some((place, id)) = self
            .layout
            .kind_of(&entry.key)
            .and_then(|p| Some((p, entry.key.tail()?)))
        else {
            return Ok(());
        };
        let (kind, table) = (&*self.layout.kinds[place], &*self.tables[place]);
        let Some(slot) = table.objects.get(&*id) else {
            return Err(format!("{} is not mirrored", entry.key));
        };
        if !kind.same(&*kind.decode(&entry.value)?, &*slot.value) {
            return Err(format!("{} differs from what is stored", entry.key));
        }
        let id: Arc<str> = id.into();
        for (index, values) in table.indexes.iter().zip(kind.index_values(&*slot.value)) {
            if values
                .into_iter()
                .any(|v| !index.contains(&(Arc::from(v), Arc::clone(&id))))
            {
                return Err(format!("{} is missing in an index", entry.key));
            }
        }
        Ok(())
    }
}

fn object<K: Kind>(id: &str, slot: &Slot) -> Option<Object<K>> {
    let value = Arc::clone(&slot.value).downcast::<K>().ok()?;
    Some(Object {
        id: K::Id::from(id),
        created: slot.created,
        revision: slot.modified,
        value,
    })
}

/// How far the mirror is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) revision: Revision,
    /// Nothing more will come: the store is closed, or a commit could not be applied.
    pub(crate) ended: bool,
}

/// The published state and who waits for it.
pub(crate) struct Mirror {
    state: ArcSwap<MirrorState>,
    applying: Mutex<()>,
    pub(crate) mark: watch::Sender<Mark>,
}

/// An entry that is decoded and indexed, but not yet in its place.
enum Ready {
    Raw(Key, Raw),
    Object {
        place: usize,
        id: Arc<str>,
        slot: Slot,
        values: Vec<Vec<String>>,
    },
}

fn ready(layout: &Layout, entries: &[Entry]) -> Result<Vec<Ready>, String> {
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        match layout
            .kind_of(&entry.key)
            .and_then(|place| Some((place, entry.key.tail()?)))
        {
            Some((place, _)) if layout.kinds[place].class() != Class::Mirrored => {}
            Some((place, id)) => {
                let kind = &*layout.kinds[place];
                let decoded = kind.decode(&entry.value);
                let value = decoded.map_err(|e| format!("{} cannot be decoded: {e}", entry.key))?;
                let values = kind.index_values(&*value);
                found.push(Ready::Object {
                    place,
                    id: id.into(),
                    slot: Slot::new(entry, value),
                    values,
                });
            }
            None => found.push(Ready::Raw(entry.key.clone(), Raw::new(entry))),
        }
    }
    Ok(found)
}

/// Below this many entries another thread costs more than it saves.
const FEW: usize = 2_000;

/// The state of all entries. Decoding takes most of the time of a start: all cores share it.
fn build(layout: &Arc<Layout>, revision: Revision, entries: &[Entry]) -> Result<MirrorState, String> {
    let mut state = MirrorState::empty(Arc::clone(layout), revision);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = entries.len().div_ceil(cores).max(FEW);
    std::thread::scope(|scope| {
        let parts: Vec<_> = entries
            .chunks(share)
            .map(|part| scope.spawn(|| ready(layout, part)))
            .collect();
        for part in parts {
            let part = part.join().map_err(|_| "an index function panicked".to_owned())??;
            state.take(part);
        }
        Ok(state)
    })
}

impl Mirror {
    pub(crate) fn empty(layout: Layout) -> Arc<Self> {
        Self::with(MirrorState::empty(Arc::new(layout), 0))
    }

    pub(crate) fn load(layout: Layout, revision: Revision, entries: &[Entry]) -> Result<Arc<Self>, String> {
        build(&Arc::new(layout), revision, entries).map(Self::with)
    }

    fn with(state: MirrorState) -> Arc<Self> {
        let mark = watch::Sender::new(Mark {
            revision: state.revision,
            ended: false,
        });
        Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            applying: Mutex::new(()),
            mark,
        })
    }

    pub(crate) fn state(&self) -> Arc<MirrorState> {
        self.state.load_full()
    }

    /// Applies commits and publishes them as one new state. `false`: the mirror has ended.
    pub(crate) fn apply(&self, commits: &[Arc<Commit>]) -> bool {
        if self.mark.borrow().ended {
            return false;
        }
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = MirrorState::clone(&self.state.load());
        // An index function is code of a service: its panic must not take the engine's writer with it.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let known = next.revision;
            commits
                .iter()
                .filter(|c| c.revision > known)
                .try_for_each(|c| next.apply(c))
        }));
        match done {
            Ok(Ok(())) => {
                self.publish(next);
                true
            }
            Ok(Err(error)) => {
                tracing::error!(error, "a commit could not be applied: the mirror stops");
                self.end();
                false
            }
            Err(_) => {
                tracing::error!("an index function panicked: the mirror stops");
                self.end();
                false
            }
        }
    }

    /// Replaces everything, after a gap: watchers that are behind expire.
    pub(crate) fn reload(&self, revision: Revision, entries: &[Entry]) -> Result<(), String> {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = Arc::clone(&self.state.load().layout);
        self.publish(build(&layout, revision, entries)?);
        Ok(())
    }

    fn publish(&self, next: MirrorState) {
        let revision = next.revision;
        self.state.store(Arc::new(next));
        self.mark.send_modify(|mark| mark.revision = revision);
    }

    pub(crate) fn end(&self) {
        self.mark.send_modify(|mark| mark.ended = true);
    }
}
