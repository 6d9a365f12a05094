//! Kinds: what can be stored, and how each is kept.

use serde::{Serialize, de::DeserializeOwned};
use std::{any::Any, sync::Arc};

/// How a kind is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// All of it in memory, indexed.
    Mirrored,
    /// In the engine only, read in pages.
    Stored,
    /// Append-only with retention, in files of its own.
    Record,
}

/// Which part of the cloud a kind belongs to; one transaction stays in one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Users, projects, roles, the catalogue.
    Identity,
    /// Everything else of a region.
    Region,
}

/// A declared index of a mirrored kind: a name and the values under which an object is found.
pub struct Index<K> {
    /// Name of the index, e.g. `project`.
    pub name: &'static str,
    /// The values of one object; none means that it is not in the index.
    pub values: fn(&K) -> Vec<String>,
}

/// A stored type.
///
/// Values are JSON with a version beside them; unknown fields should survive (flatten a map where a newer
/// release may add some).
pub trait Kind: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The typed id.
    type Id: AsRef<str> + for<'a> From<&'a str> + Clone + Send + Sync;
    /// Name of the kind, the first part of its keys: `server`.
    const NAME: &'static str;
    /// Version of the value; raise it with an arm in [`Kind::upgrade`].
    const VERSION: u32 = 1;
    /// How it is kept.
    const CLASS: Class = Class::Mirrored;
    /// Where it belongs.
    const SPACE: Space = Space::Region;
    /// Names of the value's fields, at any depth, that nobody may be shown: `debug store` leaves them out. `*` is all of them.
    const SECRETS: &'static [&'static str] = &[];

    /// Turns a value of an older version into the next version's form.
    ///
    /// # Errors
    /// When there is no way from `from`.
    fn upgrade(from: u32, value: serde_json::Value) -> Result<serde_json::Value, String> {
        let _ = value;
        Err(format!("{} has no upgrade from version {from}", Self::NAME))
    }
    /// The declared indexes.
    fn indexes() -> Vec<Index<Self>> {
        Vec::new()
    }
}

/// The kinds that a process knows; built once at start.
#[derive(Default, Clone)]
pub struct Registry {
    pub(crate) kinds: Vec<Arc<dyn ErasedKind>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a kind; a second registration of one name is ignored.
    pub fn register<K: Kind>(&mut self) -> &mut Self {
        if !self.kinds.iter().any(|k| k.name() == K::NAME) {
            self.kinds.push(Arc::new(Erased::<K>(std::marker::PhantomData)));
        }
        self
    }
    /// Names of a kind's secret fields ([`Kind::SECRETS`]); everything is secret of a kind that is not known.
    #[must_use]
    pub fn secrets(&self, kind: &str) -> &'static [&'static str] {
        self.kinds
            .iter()
            .find(|k| k.name() == kind)
            .map_or(&["*"], |k| k.secrets())
    }
    /// Names of all kinds.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|k| k.name()).collect()
    }
}

/// A kind without its type, for the mirror.
pub(crate) trait ErasedKind: Send + Sync {
    fn name(&self) -> &'static str;
    fn secrets(&self) -> &'static [&'static str];
    fn class(&self) -> Class;
    fn space(&self) -> Space;
    fn index_names(&self) -> Vec<&'static str>;
    /// Decodes a stored value (upgrading it) into an `Arc<K>` behind `Any`.
    fn decode(&self, bytes: &[u8]) -> Result<Arc<dyn Any + Send + Sync>, String>;
    /// The index values of a decoded object, one list per index in the order of `index_names`.
    fn index_values(&self, value: &(dyn Any + Send + Sync)) -> Vec<Vec<String>>;
    /// Whether two decoded values are equal.
    fn same(&self, a: &(dyn Any + Send + Sync), b: &(dyn Any + Send + Sync)) -> bool;
}

struct Erased<K>(std::marker::PhantomData<fn() -> K>);

impl<K: Kind> ErasedKind for Erased<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }
    fn secrets(&self) -> &'static [&'static str] {
        K::SECRETS
    }
    fn class(&self) -> Class {
        K::CLASS
    }
    fn space(&self) -> Space {
        K::SPACE
    }
    fn index_names(&self) -> Vec<&'static str> {
        K::indexes().iter().map(|i| i.name).collect()
    }
    fn decode(&self, bytes: &[u8]) -> Result<Arc<dyn Any + Send + Sync>, String> {
        Ok(Arc::new(decode_value::<K>(bytes)?))
    }
    fn index_values(&self, value: &(dyn Any + Send + Sync)) -> Vec<Vec<String>> {
        match value.downcast_ref::<K>() {
            Some(v) => K::indexes().iter().map(|i| (i.values)(v)).collect(),
            None => Vec::new(),
        }
    }
    fn same(&self, a: &(dyn Any + Send + Sync), b: &(dyn Any + Send + Sync)) -> bool {
        a.downcast_ref::<K>().is_some_and(|a| Some(a) == b.downcast_ref::<K>())
    }
}

/// The stored envelope: version and value.
#[derive(serde::Serialize, serde::Deserialize)]
struct Envelope<V> {
    v: u32,
    d: V,
}

/// Encodes a value with its version.
pub(crate) fn encode_value<K: Kind>(value: &K) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Envelope {
        v: K::VERSION,
        d: value,
    })
}

/// Decodes a value, walking the upgrades from its version to the present one.
pub(crate) fn decode_value<K: Kind>(bytes: &[u8]) -> Result<K, String> {
    if let Ok(e) = serde_json::from_slice::<Envelope<K>>(bytes)
        && e.v == K::VERSION
    {
        return Ok(e.d);
    }
    let Envelope { mut v, mut d } =
        serde_json::from_slice::<Envelope<serde_json::Value>>(bytes).map_err(|e| format!("{}: {e}", K::NAME))?;
    if v > K::VERSION {
        return Err(format!(
            "{} has version {v}, this release reads up to {}",
            K::NAME,
            K::VERSION
        ));
    }
    while v < K::VERSION {
        d = K::upgrade(v, d)?;
        v += 1;
    }
    serde_json::from_value(d).map_err(|e| format!("{} version {v}: {e}", K::NAME))
}
