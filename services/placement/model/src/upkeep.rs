//! How a node's agent keeps its provider current.

use crate::{Inventory, ProviderId, ResourceProvider, find_by_name};
use maru_base::Result;
use maru_store::{Snapshot, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// What a node says of its room.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderFacts {
    /// The node's name; names the provider.
    pub name: String,
    /// The id that a new provider gets.
    pub id: ProviderId,
    /// What it has.
    pub inventories: BTreeMap<String, Inventory>,
    /// Its qualities; others that an operator added stay.
    pub traits: BTreeSet<String>,
}

/// Makes or updates a node's provider and gives its id. Allocation ratios and reserved units that an operator set stay.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_upsert_provider(snapshot: &Snapshot, txn: &mut Txn, facts: &ProviderFacts) -> Result<ProviderId> {
    let now = maru_base::time::now();
    let Some(old) = find_by_name(snapshot, &facts.name) else {
        txn.claim(<ResourceProvider as maru_store::Kind>::NAME, "", &facts.name, &facts.id);
        txn.create(
            &facts.id,
            &ResourceProvider {
                name: facts.name.clone(),
                generation: 1,
                parent: None,
                root: facts.id.clone(),
                inventories: facts.inventories.clone(),
                traits: facts.traits.clone(),
                aggregates: BTreeSet::new(),
                created_at: now,
                updated_at: now,
            },
        );
        return Ok(facts.id.clone());
    };
    let mut new = (*old.value).clone();
    for (class, fresh) in &facts.inventories {
        let kept = new.inventories.entry(class.clone()).or_insert_with(|| fresh.clone());
        kept.total = fresh.total;
        kept.max_unit = fresh.max_unit;
    }
    new.traits.extend(facts.traits.iter().cloned());
    if new != *old.value {
        new.generation += 1;
        new.updated_at = now;
        txn.update(&old, &new);
    }
    Ok(old.id)
}
