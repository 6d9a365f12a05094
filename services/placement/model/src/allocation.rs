//! Consumers and what they hold.

use crate::{ProviderId, ResourceProvider, generation_key};
use maru_base::{Error, Result};
use maru_store::{Index, Key, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a consumer: a server's id, for instance.
    ConsumerId
);

/// Units by resource class, by provider.
pub type Allocations = BTreeMap<ProviderId, BTreeMap<String, u64>>;

/// A consumer with all that it holds. One without allocations is not stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    /// Project that it counts for.
    pub project_id: String,
    /// User that it counts for.
    pub user_id: String,
    /// `INSTANCE`, `MIGRATION`; `unknown` before 1.38.
    pub consumer_type: String,
    /// Raised by every change.
    pub generation: u64,
    /// What it holds.
    pub allocations: Allocations,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it last changed.
    pub updated_at: jiff::Timestamp,
}

impl Kind for Consumer {
    type Id = ConsumerId;
    const NAME: &'static str = "consumer";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "provider",
                values: |c| c.allocations.keys().map(ToString::to_string).collect(),
            },
            Index {
                name: "project",
                values: |c| vec![c.project_id.clone()],
            },
        ]
    }
}

/// For whom something is allocated.
#[derive(Debug, Clone)]
pub struct Holder<'a> {
    /// The project.
    pub project_id: &'a str,
    /// The user.
    pub user_id: &'a str,
    /// The consumer's type.
    pub consumer_type: &'a str,
}

/// The counter of what is used of a class at a provider.
#[must_use]
pub fn usage_key(provider: &str, class: &str) -> Key {
    Key::of(&["counter", "placement", provider, class])
}

/// The key under which a provider's consumers lie, so that deleting the provider can guard that there are none.
fn child_key(provider: &str, consumer: &str) -> Key {
    Key::of(&["child", "resource_provider", provider, consumer])
}

/// The prefix of [`child_key`]: deleting a provider guards that it is empty.
pub(crate) fn children(provider: &str) -> Key {
    Key::prefix(&["child", "resource_provider", provider])
}

/// Units in use.
#[must_use]
pub fn usage(snapshot: &Snapshot, provider: &str, class: &str) -> i64 {
    snapshot.counter(&usage_key(provider, class))
}

/// Units in use of every class that a provider has.
#[must_use]
pub fn usages(snapshot: &Snapshot, id: &ProviderId, provider: &ResourceProvider) -> BTreeMap<String, i64> {
    provider
        .inventories
        .keys()
        .map(|class| (class.clone(), usage(snapshot, id, class)))
        .collect()
}

/// Replaces all that a consumer holds; empty `wanted` releases everything.
///
/// # Errors
/// 400 for an unknown provider or a class it has no inventory of; 409 when the units are not allowed or not free.
/// A race for the last units shows as `Conflict::Exceeded` of the commit.
pub fn plan_set_allocations(
    snapshot: &Snapshot,
    txn: &mut Txn,
    consumer: &ConsumerId,
    holder: &Holder<'_>,
    wanted: &Allocations,
) -> Result<()> {
    let old = snapshot.get::<Consumer>(consumer);
    let none = Allocations::new();
    let held = old.as_ref().map_or(&none, |c| &c.allocations);
    let now = maru_base::time::now();
    let mut touched: Vec<&ProviderId> = held.keys().chain(wanted.keys()).collect();
    touched.sort();
    touched.dedup();
    for id in touched {
        let empty = BTreeMap::new();
        let before = held.get(id).unwrap_or(&empty);
        let after = wanted.get(id).unwrap_or(&empty);
        if before == after {
            continue;
        }
        let provider = snapshot.get::<ResourceProvider>(id);
        let mut classes: Vec<&String> = before.keys().chain(after.keys()).collect();
        classes.sort();
        classes.dedup();
        for class in classes {
            let have = before.get(class).copied().unwrap_or(0);
            let want = after.get(class).copied().unwrap_or(0);
            let delta = i64::try_from(want).unwrap_or(i64::MAX) - i64::try_from(have).unwrap_or(0);
            if delta <= 0 {
                if delta < 0 {
                    txn.add(usage_key(id, class), delta, None);
                }
                continue;
            }
            let Some(provider) = &provider else {
                return Err(Error::bad_request(format!(
                    "Allocation for resource provider '{id}' that does not exist."
                )));
            };
            let Some(inventory) = provider.inventories.get(class) else {
                return Err(Error::conflict(format!(
                    "Unable to allocate inventory: no inventory of {class} on resource provider {id}."
                )));
            };
            if !inventory.allows_unit(want) {
                return Err(Error::conflict(format!(
                    "Unable to allocate inventory: {want} units of {class} on resource provider {id} do not fit min_unit {}, \
                     max_unit {} and step_size {}.",
                    inventory.min_unit, inventory.max_unit, inventory.step_size
                )));
            }
            let capacity = inventory.capacity();
            let used = usage(snapshot, id, class);
            if used + delta > capacity {
                return Err(Error::conflict(format!(
                    "Unable to allocate inventory: {want} units of {class} on resource provider {id} exceed what is free \
                     ({used} of {capacity} are used)."
                )));
            }
            txn.add(usage_key(id, class), delta, Some(capacity));
        }
        if let Some(provider) = &provider
            && !after.is_empty()
        {
            txn.unchanged(provider);
        }
        txn.add(generation_key(id), 1, None);
        let child = child_key(id, consumer);
        if after.is_empty() {
            txn.op(maru_store::Op::Delete(child));
        } else if before.is_empty() {
            txn.allocate(child, consumer);
        }
    }
    match (old, wanted.is_empty()) {
        (None, true) => {}
        (Some(old), true) => {
            txn.delete(&old);
        }
        (old, false) => {
            let value = Consumer {
                project_id: holder.project_id.to_owned(),
                user_id: holder.user_id.to_owned(),
                consumer_type: holder.consumer_type.to_owned(),
                generation: old.as_ref().map_or(1, |o| o.generation + 1),
                allocations: wanted.clone(),
                created_at: old.as_ref().map_or(now, |o| o.created_at),
                updated_at: now,
            };
            match old {
                Some(old) => txn.update(&old, &value),
                None => txn.create(consumer, &value),
            };
        }
    }
    Ok(())
}

/// Allocates `resources` of one provider to a consumer that holds nothing of it yet (what it holds elsewhere stays).
///
/// # Errors
/// As [`plan_set_allocations`].
pub fn plan_allocate(
    snapshot: &Snapshot,
    txn: &mut Txn,
    consumer: &ConsumerId,
    provider: &ProviderId,
    resources: &BTreeMap<String, u64>,
    holder: &Holder<'_>,
) -> Result<()> {
    let mut wanted = snapshot
        .get::<Consumer>(consumer)
        .map(|c| c.allocations.clone())
        .unwrap_or_default();
    wanted.insert(provider.clone(), resources.clone());
    plan_set_allocations(snapshot, txn, consumer, holder, &wanted)
}

/// Releases all that a consumer holds; nothing when it holds nothing.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_release(snapshot: &Snapshot, txn: &mut Txn, consumer: &ConsumerId) -> Result<()> {
    let Some(held) = snapshot.get::<Consumer>(consumer) else {
        return Ok(());
    };
    let holder = Holder {
        project_id: &held.project_id,
        user_id: &held.user_id,
        consumer_type: &held.consumer_type,
    };
    plan_set_allocations(snapshot, txn, consumer, &holder, &Allocations::new())
}

/// Removes a deleted provider's counters and guards that nobody holds anything of it.
pub fn release_counters(txn: &mut Txn, id: &ProviderId, provider: &ResourceProvider) {
    txn.guard(maru_store::Guard::RangeEmpty(children(id)));
    for class in provider.inventories.keys() {
        txn.op(maru_store::Op::Delete(usage_key(id, class)));
    }
    txn.op(maru_store::Op::Delete(generation_key(id)));
}
