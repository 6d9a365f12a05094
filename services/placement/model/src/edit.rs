//! Planners that make, change, move and remove providers.
//!
//! Every change of a provider guards its revision and the counter of its allocations' changes: both together are the
//! generation that the API shows, so a transaction that was planned on one generation commits on that one only. In
//! particular an inventory is never taken away under an allocation that was made meanwhile.
//!
//! The shape of a tree is guarded by one `epoch` key at its root, written by whoever adds, moves or removes a part of it,
//! and by the revision of the parent, which is written when its tree becomes part of another: a parent is not deleted while
//! a child is added, and two moves at once make no circle.

use crate::{
    ProviderId, ResourceProvider, SHARES,
    allocation::children,
    class::{end_uses, use_class, use_trait},
    find_by_name, generation, generation_key, usage_key,
};
use maru_base::{Error, Result};
use maru_store::{Guard, Kind, Object, Op, Snapshot, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// The set whose epoch guards the shape of a tree.
fn shape(root: &str) -> String {
    format!("resource_provider_tree:{root}")
}

/// Guards that a provider's allocations are as they were read.
fn pin(snapshot: &Snapshot, txn: &mut Txn, id: &ProviderId) {
    let key = generation_key(id);
    txn.guard(match snapshot.raw(&key) {
        Some((revision, _)) => Guard::At(key, revision),
        None => Guard::Absent(key),
    });
}

/// Makes a provider without inventories.
///
/// # Errors
/// 409 when the id or the name is taken (the message names which), 400 when the parent is not there or is itself.
pub fn plan_create_provider(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ProviderId,
    name: &str,
    parent: Option<&ProviderId>,
) -> Result<ResourceProvider> {
    let taken = |what: &str, value: &str| {
        Error::conflict(format!("Conflicting resource provider {what}: {value} already exists."))
            .with_code("placement.duplicate_name")
    };
    if snapshot.get::<ResourceProvider>(id).is_some() {
        return Err(taken("uuid", id));
    }
    if find_by_name(snapshot, name).is_some() {
        return Err(taken("name", name));
    }
    let mut root = id.clone();
    if let Some(parent) = parent {
        let above = parent_of(snapshot, id, parent)?;
        root = above.root.clone();
        txn.unchanged(&above);
        txn.over_set(snapshot, &shape(&root));
    }
    let now = maru_base::time::now();
    let provider = ResourceProvider {
        name: name.to_owned(),
        generation: 0,
        parent: parent.cloned(),
        root,
        inventories: BTreeMap::new(),
        traits: BTreeSet::new(),
        aggregates: BTreeSet::new(),
        created_at: now,
        updated_at: now,
    };
    txn.claim(ResourceProvider::NAME, "", name, id);
    txn.create(id, &provider);
    Ok(provider)
}

fn parent_of(snapshot: &Snapshot, id: &ProviderId, parent: &ProviderId) -> Result<Object<ResourceProvider>> {
    if id == parent {
        return Err(Error::invalid(
            "parent_provider_uuid",
            "The parent provider UUID cannot be same as UUID: a provider is not its own parent; give null for none.",
        ));
    }
    snapshot.get::<ResourceProvider>(parent).ok_or_else(|| {
        Error::invalid(
            "parent_provider_uuid",
            format!("The parent provider UUID does not exist: there is no resource provider {parent}."),
        )
    })
}

/// Changes inventories, traits and aggregates of a provider, whose next state is `new`; gives the generation after it.
/// With `raise` false the generation stays (aggregates before microversion 1.19).
pub fn plan_edit_provider(
    snapshot: &Snapshot,
    txn: &mut Txn,
    old: &Object<ResourceProvider>,
    mut new: ResourceProvider,
    raise: bool,
) -> u64 {
    pin(snapshot, txn, &old.id);
    for class in new.inventories.keys().filter(|c| !old.inventories.contains_key(*c)) {
        use_class(txn, class);
    }
    for name in new.traits.difference(&old.traits) {
        use_trait(txn, name);
    }
    new.generation = old.generation + u64::from(raise);
    new.updated_at = maru_base::time::now();
    let shown = generation(snapshot, old) + u64::from(raise);
    txn.update(old, &new);
    shown
}

/// Gives a provider another name.
///
/// # Errors
/// 409 when it is taken.
pub fn plan_rename_provider(
    snapshot: &Snapshot,
    txn: &mut Txn,
    old: &Object<ResourceProvider>,
    new: &mut ResourceProvider,
    name: &str,
) -> Result<()> {
    if old.name == name {
        return Ok(());
    }
    if find_by_name(snapshot, name).is_some() {
        return Err(
            Error::conflict(format!("Conflicting resource provider {name} already exists."))
                .with_code("placement.duplicate_name"),
        );
    }
    txn.release(ResourceProvider::NAME, "", &old.name);
    txn.claim(ResourceProvider::NAME, "", name, &old.id);
    name.clone_into(&mut new.name);
    Ok(())
}

/// Puts a provider, with all below it, under another parent or under none. `new` is the provider's own next state, which
/// the caller writes; those below it are written here.
///
/// # Errors
/// 400 when the parent is not there, or is the provider itself or below it.
pub fn plan_move_provider(
    snapshot: &Snapshot,
    txn: &mut Txn,
    old: &Object<ResourceProvider>,
    new: &mut ResourceProvider,
    parent: Option<&ProviderId>,
) -> Result<()> {
    if old.parent.as_ref() == parent {
        return Ok(());
    }
    let below = descendants(snapshot, &old.id);
    let root = match parent {
        None => old.id.clone(),
        Some(parent) => {
            let above = parent_of(snapshot, &old.id, parent)?;
            if below.iter().any(|p| p.id == *parent) {
                return Err(Error::invalid(
                    "parent_provider_uuid",
                    format!(
                        "Creating loop in the provider tree is not allowed: {parent} is below {}.",
                        old.id
                    ),
                ));
            }
            txn.unchanged(&above);
            above.root.clone()
        }
    };
    if old.root == old.id {
        // Its tree becomes a part of another one.
        end_uses(snapshot, txn, &shape(&old.id));
    } else {
        txn.over_set(snapshot, &shape(&old.root));
    }
    txn.over_set(snapshot, &shape(&root));
    if root != old.root {
        for child in below {
            let mut value = (*child.value).clone();
            value.root = root.clone();
            txn.update(&child, &value);
        }
    }
    new.parent = parent.cloned();
    new.root = root;
    Ok(())
}

fn descendants(snapshot: &Snapshot, id: &ProviderId) -> Vec<Object<ResourceProvider>> {
    let mut found: Vec<Object<ResourceProvider>> = snapshot.find::<ResourceProvider>("parent", id).collect();
    let mut next = 0;
    while next < found.len() {
        let id = found[next].id.clone();
        found.extend(snapshot.find::<ResourceProvider>("parent", &id));
        next += 1;
    }
    found
}

/// Removes a provider that has no children and of which nothing is allocated, with its counters.
///
/// # Errors
/// 409 `cannot_delete_parent` or `inuse`.
pub fn plan_delete_provider(snapshot: &Snapshot, txn: &mut Txn, old: &Object<ResourceProvider>) -> Result<()> {
    if snapshot.find::<ResourceProvider>("parent", &old.id).next().is_some() {
        return Err(Error::conflict(format!(
            "Unable to delete parent resource provider {}: It has child resource providers. Delete them first.",
            old.id
        ))
        .with_code("placement.resource_provider.cannot_delete_parent"));
    }
    if snapshot.find::<crate::Consumer>("provider", &old.id).next().is_some() {
        return Err(Error::conflict(format!(
            "Unable to delete resource provider {}: Resource provider has allocations. Release them first.",
            old.id
        ))
        .with_code("placement.resource_provider.inuse"));
    }
    txn.guard(Guard::RangeEmpty(children(&old.id)));
    let mut spent: BTreeSet<_> = old.inventories.keys().map(|c| usage_key(&old.id, c)).collect();
    // Classes that it has no more may have left a counter at zero.
    let prefix = maru_store::Key::prefix(&["counter", "placement", old.id.as_str()]);
    spent.extend(snapshot.raw_under(&prefix).map(|(key, _)| key));
    for key in spent {
        txn.op(Op::Delete(key));
    }
    txn.op(Op::Delete(generation_key(&old.id)));
    if old.root == old.id {
        end_uses(snapshot, txn, &shape(&old.id));
    } else {
        txn.over_set(snapshot, &shape(&old.root));
    }
    txn.release(ResourceProvider::NAME, "", &old.name);
    txn.delete(old);
    Ok(())
}

impl ResourceProvider {
    /// Whether others may use its inventory through a common aggregate.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.traits.contains(SHARES)
    }
}
