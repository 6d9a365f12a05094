//! Consumers and what they hold.

use crate::{Inventory, ProviderId, ResourceProvider, generation_key, knows_class};
use maru_base::{Error, Result};
use maru_store::{Index, Key, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

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

/// Units in use of all providers, read at once: for what looks at many of them.
#[derive(Debug, Clone, Default)]
pub struct Usages(HashMap<String, HashMap<String, i64>>);

impl Usages {
    /// Reads the counters.
    #[must_use]
    pub fn read(snapshot: &Snapshot) -> Self {
        let mut all: HashMap<String, HashMap<String, i64>> = HashMap::new();
        for (key, value) in snapshot.raw_under(&Key::prefix(&["counter", "placement"])) {
            let mut parts = key.parts().into_iter().skip(2);
            let units = std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok());
            if let (Some(provider), Some(class), Some(units)) = (parts.next(), parts.next(), units) {
                all.entry(provider).or_default().insert(class, units);
            }
        }
        Self(all)
    }

    /// Units in use of a class at a provider.
    #[must_use]
    pub fn of(&self, provider: &str, class: &str) -> i64 {
        self.0.get(provider).and_then(|p| p.get(class)).copied().unwrap_or(0)
    }
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

/// What one consumer shall hold after a transaction; empty `wanted` releases everything.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// The consumer.
    pub consumer: &'a ConsumerId,
    /// For whom.
    pub holder: Holder<'a>,
    /// All that it shall hold.
    pub wanted: &'a Allocations,
}

/// Why allocations cannot be as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A provider that does not exist.
    #[error("Allocation for resource provider '{0}' that does not exist.")]
    NoProvider(ProviderId),
    /// A resource class that does not exist.
    #[error("No such resource class {0}.")]
    NoClass(String),
    /// The provider has none of the class.
    #[error("Unable to allocate inventory: no inventory of {class} on resource provider {provider}.")]
    NoInventory {
        /// The provider.
        provider: ProviderId,
        /// The class.
        class: String,
    },
    /// An amount that the inventory's units do not allow.
    #[error(
        "Unable to allocate inventory: {wanted} units of {class} on resource provider {provider} do not fit min_unit {min}, \
         max_unit {max} and step_size {step}."
    )]
    Units {
        /// The provider.
        provider: ProviderId,
        /// The class.
        class: String,
        /// The amount.
        wanted: u64,
        /// The inventory's `min_unit`.
        min: u64,
        /// Its `max_unit`.
        max: u64,
        /// Its `step_size`.
        step: u64,
    },
    /// More than is free.
    #[error(
        "Unable to allocate inventory: {wanted} more units of {class} on resource provider {provider} exceed what is free \
         ({used} of {capacity} are used)."
    )]
    Full {
        /// The provider.
        provider: ProviderId,
        /// The class.
        class: String,
        /// Units asked for beyond what the consumers hold already.
        wanted: i64,
        /// Units in use.
        used: i64,
        /// Units that may be in use.
        capacity: i64,
    },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoProvider(_) | Refusal::NoClass(_) => Self::bad_request(refusal.to_string()),
            _ => Self::conflict(refusal.to_string()),
        }
    }
}

/// An amount as the counters hold it.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Replaces all that some consumers hold, at once: what one gives back another may take.
///
/// `reshaped` are providers that the same transaction updates (and guards) itself; what is allocated must fit their new
/// inventories. All others are guarded to be unchanged. What does not grow is never refused for lack of room, so that an
/// inventory that shrank below its use can be left.
///
/// # Errors
/// The first thing that does not fit. A race for the last units shows as `Conflict::Exceeded` of the commit.
pub fn plan_replace(
    snapshot: &Snapshot,
    txn: &mut Txn,
    claims: &[Claim<'_>],
    reshaped: &BTreeMap<ProviderId, ResourceProvider>,
) -> Result<(), Refusal> {
    let none = BTreeMap::new();
    let nothing = Allocations::new();
    let mut net: BTreeMap<(ProviderId, String), i64> = BTreeMap::new();
    let mut guarded: BTreeMap<ProviderId, bool> = BTreeMap::new();
    for claim in claims {
        let old = snapshot.get::<Consumer>(claim.consumer);
        let held = old.as_ref().map_or(&nothing, |c| &c.allocations);
        let mut touched: Vec<&ProviderId> = held.keys().chain(claim.wanted.keys()).collect();
        touched.sort();
        touched.dedup();
        for id in touched {
            let before = held.get(id).unwrap_or(&none);
            let after = claim.wanted.get(id).unwrap_or(&none);
            let stored = snapshot.get::<ResourceProvider>(id);
            let provider = reshaped.get(id).or(stored.as_ref().map(|p| &*p.value));
            // Even what stays as it is must name a provider that is there.
            if provider.is_none() && !after.is_empty() {
                return Err(Refusal::NoProvider(id.clone()));
            }
            if before == after {
                // A reshaped provider must still have the class that stays allocated.
                if let (Some(new), true) = (reshaped.get(id), !after.is_empty()) {
                    for (class, want) in after {
                        check_units(snapshot, id, new, class, *want)?;
                    }
                }
                continue;
            }
            let mut classes: Vec<&String> = before.keys().chain(after.keys()).collect();
            classes.sort();
            classes.dedup();
            for class in classes {
                let have = before.get(class).copied().unwrap_or(0);
                let want = after.get(class).copied().unwrap_or(0);
                if want > 0
                    && (want != have || reshaped.contains_key(id))
                    && let Some(provider) = provider
                {
                    check_units(snapshot, id, provider, class, want)?;
                }
                let delta = net.entry((id.clone(), class.clone())).or_default();
                *delta = delta.saturating_add(signed(want).saturating_sub(signed(have)));
            }
            let guard = guarded.entry(id.clone()).or_default();
            *guard |= !after.is_empty();
            txn.add(generation_key(id), 1, None);
            let child = child_key(id, claim.consumer);
            if after.is_empty() {
                txn.op(maru_store::Op::Delete(child));
            } else if before.is_empty() {
                txn.allocate(child, claim.consumer);
            }
        }
        write_consumer(txn, old.as_ref(), claim);
    }
    for (id, holds) in guarded {
        if holds
            && !reshaped.contains_key(&id)
            && let Some(provider) = snapshot.get::<ResourceProvider>(&id)
        {
            txn.unchanged(&provider);
        }
    }
    for ((id, class), delta) in net {
        if delta < 0 {
            txn.add(usage_key(&id, &class), delta, None);
        }
        if delta <= 0 {
            continue;
        }
        let stored = snapshot.get::<ResourceProvider>(&id);
        let provider = reshaped.get(&id).or(stored.as_ref().map(|p| &*p.value));
        let capacity = provider
            .and_then(|p| p.inventories.get(&class))
            .map_or(0, Inventory::capacity);
        let used = usage(snapshot, &id, &class);
        if used.saturating_add(delta) > capacity {
            return Err(Refusal::Full {
                provider: id,
                class,
                wanted: delta,
                used,
                capacity,
            });
        }
        txn.add(usage_key(&id, &class), delta, Some(capacity));
    }
    Ok(())
}

fn check_units(
    snapshot: &Snapshot,
    id: &ProviderId,
    provider: &ResourceProvider,
    class: &str,
    want: u64,
) -> Result<(), Refusal> {
    let Some(inventory) = provider.inventories.get(class) else {
        return Err(if knows_class(snapshot, class) {
            Refusal::NoInventory {
                provider: id.clone(),
                class: class.to_owned(),
            }
        } else {
            Refusal::NoClass(class.to_owned())
        });
    };
    if inventory.allows_unit(want) {
        return Ok(());
    }
    Err(Refusal::Units {
        provider: id.clone(),
        class: class.to_owned(),
        wanted: want,
        min: inventory.min_unit,
        max: inventory.max_unit,
        step: inventory.step_size,
    })
}

fn write_consumer(txn: &mut Txn, old: Option<&Object<Consumer>>, claim: &Claim<'_>) {
    let now = maru_base::time::now();
    match (old, claim.wanted.is_empty()) {
        (None, true) => {}
        (Some(old), true) => {
            txn.delete(old);
        }
        (old, false) => {
            let value = Consumer {
                project_id: claim.holder.project_id.to_owned(),
                user_id: claim.holder.user_id.to_owned(),
                consumer_type: claim.holder.consumer_type.to_owned(),
                generation: old.map_or(1, |o| o.generation + 1),
                allocations: claim.wanted.clone(),
                created_at: old.map_or(now, |o| o.created_at),
                updated_at: now,
            };
            match old {
                Some(old) => txn.update(old, &value),
                None => txn.create(claim.consumer, &value),
            };
        }
    }
}

/// Replaces all that a consumer holds; empty `wanted` releases everything.
///
/// # Errors
/// 400 for an unknown provider or class; 409 when the units are not there, not allowed or not free.
/// A race for the last units shows as `Conflict::Exceeded` of the commit.
pub fn plan_set_allocations(
    snapshot: &Snapshot,
    txn: &mut Txn,
    consumer: &ConsumerId,
    holder: &Holder<'_>,
    wanted: &Allocations,
) -> Result<()> {
    let claim = Claim {
        consumer,
        holder: holder.clone(),
        wanted,
    };
    Ok(plan_replace(snapshot, txn, &[claim], &BTreeMap::new())?)
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
