//! Resource providers: what has room, how much, and of what quality.

use maru_store::{Index, Key, Kind, Object, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of a resource provider, a UUID.
    ProviderId
);

/// How much of one resource class a provider has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Units in all.
    pub total: u64,
    /// Units kept back.
    pub reserved: u64,
    /// Fewest units of one allocation.
    pub min_unit: u64,
    /// Most units of one allocation.
    pub max_unit: u64,
    /// An allocation is a multiple of this.
    pub step_size: u64,
    /// How often each unit may be given away.
    pub allocation_ratio: f64,
}

impl Inventory {
    /// An inventory of `total` units with the usual limits.
    #[must_use]
    pub fn of(total: u64, ratio: f64) -> Self {
        Self {
            total,
            reserved: 0,
            min_unit: 1,
            max_unit: total.max(1),
            step_size: 1,
            allocation_ratio: ratio,
        }
    }
    /// Units that may be given away.
    #[must_use]
    pub fn capacity(&self) -> i64 {
        let free = self.total.saturating_sub(self.reserved);
        // Inventories stay far below 2^52, where f64 is exact.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let units = (free as f64 * self.allocation_ratio) as i64;
        units
    }
    /// Whether one allocation may be of this many units, regardless of what is free.
    #[must_use]
    pub fn allows_unit(&self, amount: u64) -> bool {
        amount >= self.min_unit
            && amount <= self.max_unit
            && (self.step_size == 0 || amount.is_multiple_of(self.step_size))
    }
}

/// A resource provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceProvider {
    /// Unique name.
    pub name: String,
    /// Raised by every change of its inventory, traits and aggregates; see [`generation`].
    pub generation: u64,
    /// The provider it is part of.
    pub parent: Option<ProviderId>,
    /// The top of its tree; itself when it has no parent.
    pub root: ProviderId,
    /// What it has, by resource class.
    pub inventories: BTreeMap<String, Inventory>,
    /// Its qualities.
    pub traits: BTreeSet<String>,
    /// The aggregates it is in, UUIDs.
    pub aggregates: BTreeSet<String>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it last changed.
    pub updated_at: jiff::Timestamp,
}

impl Kind for ResourceProvider {
    type Id = ProviderId;
    const NAME: &'static str = "resource_provider";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "name",
                values: |p| vec![p.name.clone()],
            },
            Index {
                name: "root",
                values: |p| vec![p.root.to_string()],
            },
            Index {
                name: "parent",
                values: |p| p.parent.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "class",
                values: |p| p.inventories.keys().cloned().collect(),
            },
            Index {
                name: "trait",
                values: |p| p.traits.iter().cloned().collect(),
            },
            Index {
                name: "aggregate",
                values: |p| p.aggregates.iter().cloned().collect(),
            },
        ]
    }
}

/// The counter of a provider's allocation changes.
#[must_use]
pub fn generation_key(provider: &str) -> Key {
    Key::of(&["counter", "placement-generation", provider])
}

/// The generation that the API shows: changes of the provider itself and of what is allocated from it.
#[must_use]
pub fn generation(snapshot: &Snapshot, provider: &Object<ResourceProvider>) -> u64 {
    provider.generation + u64::try_from(snapshot.counter(&generation_key(&provider.id))).unwrap_or(0)
}

/// The provider with this name.
#[must_use]
pub fn find_by_name(snapshot: &Snapshot, name: &str) -> Option<Object<ResourceProvider>> {
    snapshot.find::<ResourceProvider>("name", name).next()
}

/// All providers of the tree that `provider` is in.
pub fn tree<'a>(
    snapshot: &'a Snapshot,
    provider: &ResourceProvider,
) -> impl Iterator<Item = Object<ResourceProvider>> + 'a {
    snapshot
        .find::<ResourceProvider>("root", &provider.root)
        .collect::<Vec<_>>()
        .into_iter()
}
