//! Inventories, traits and aggregates of a provider: changes under its generation.

use super::{App, Shown, concurrent, find, same_generation, unknown_class};
use maru_base::{Error, Result};
use maru_placement_model::{Inventory, ProviderId, ResourceProvider, plan_edit_provider, usage};
use maru_store::{Object, Snapshot};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Inventories by class.
pub(crate) type Inventories = BTreeMap<String, Inventory>;

/// Refuses an inventory that has no room; from microversion 1.26 on (`empty`) all of it may be reserved.
///
/// # Errors
/// 400 that names the class.
pub(crate) fn check_capacity(provider: &str, class: &str, inventory: &Inventory, empty: bool) -> Result<()> {
    #[allow(clippy::cast_precision_loss)]
    let capacity = (inventory.total as f64 - inventory.reserved as f64) * inventory.allocation_ratio;
    if capacity > 0.0 || (empty && capacity >= 0.0) {
        return Ok(());
    }
    let why = if empty {
        "greater than"
    } else {
        "greater than or equal to"
    };
    Err(Error::invalid(
        "reserved",
        format!(
            "Unable to update inventory for resource provider {provider}: Invalid inventory for '{class}' on resource \
             provider '{provider}'. The reserved value is {why} total, or the allocation_ratio leaves nothing."
        ),
    ))
}

/// The classes that are taken away although something of them is allocated, as `A, B`.
pub(crate) fn in_use(snapshot: &Snapshot, provider: &Object<ResourceProvider>, kept: &Inventories) -> Option<String> {
    let gone: Vec<&str> = provider
        .inventories
        .keys()
        .filter(|class| !kept.contains_key(*class) && usage(snapshot, &provider.id, class) > 0)
        .map(String::as_str)
        .collect();
    (!gone.is_empty()).then(|| gone.join(", "))
}

/// The 409 of classes that are in use.
pub(crate) fn refuse_in_use(provider: &ProviderId, classes: &str) -> Error {
    Error::conflict(format!(
        "update conflict: Inventory for '{classes}' on resource provider '{provider}' in use. Release the allocations first."
    ))
    .with_code("placement.inventory.inuse")
}

impl App {
    /// Replaces all inventories of a provider; `given` is the generation that the caller saw.
    ///
    /// # Errors
    /// 404; 409 of generation and use; 400 for an unknown class.
    pub(crate) async fn set_inventories(&self, id: &str, given: Option<i64>, wanted: &Inventories) -> Result<Shown> {
        self.edit(id, given, true, |snapshot, old, new| {
            if let Some(class) = unknown_class(snapshot, wanted.keys()) {
                return Err(Error::invalid(
                    format!("inventories.{class}"),
                    format!(
                        "Unknown resource class in inventory for resource provider {id}: No such resource class {class}."
                    ),
                ));
            }
            if let Some(classes) = in_use(snapshot, old, wanted) {
                return Err(refuse_in_use(&old.id, &classes));
            }
            new.inventories.clone_from(wanted);
            Ok(true)
        })
        .await
    }

    /// Adds an inventory of a class that the provider has none of.
    ///
    /// # Errors
    /// 404; 409 when it has; 400 for an unknown class.
    pub(crate) async fn add_inventory(
        &self,
        id: &str,
        given: Option<i64>,
        class: &str,
        inventory: &Inventory,
    ) -> Result<Shown> {
        self.edit(id, given, true, |snapshot, old, new| {
            let class = class.to_owned();
            if unknown_class(snapshot, [&class]).is_some() {
                return Err(Error::invalid(
                    "resource_class",
                    format!("Unable to create inventory for resource provider {id}: No such resource class {class}."),
                ));
            }
            if old.inventories.contains_key(&class) {
                return Err(concurrent(&format!(
                    "Update conflict: resource provider {id} has an inventory of {class} already; PUT changes it."
                )));
            }
            new.inventories.insert(class, inventory.clone());
            Ok(true)
        })
        .await
    }

    /// Changes an inventory that is there.
    ///
    /// # Errors
    /// 404; 409 of the generation; 400 when the provider has none of the class.
    pub(crate) async fn update_inventory(
        &self,
        id: &str,
        given: i64,
        class: &str,
        inventory: &Inventory,
    ) -> Result<Shown> {
        self.edit(id, Some(given), true, |_, old, new| {
            if !old.inventories.contains_key(class) {
                return Err(Error::invalid(
                    "resource_class",
                    format!(
                        "No inventory record with resource class for resource provider {id}: No inventory of class {class} \
                         found; POST makes one."
                    ),
                ));
            }
            new.inventories.insert(class.to_owned(), inventory.clone());
            Ok(true)
        })
        .await
    }

    /// Removes the inventory of one class.
    ///
    /// # Errors
    /// 404; 409 when it is in use.
    pub(crate) async fn delete_inventory(&self, id: &str, class: &str) -> Result<Shown> {
        self.edit(id, None, true, |snapshot, old, new| {
            if new.inventories.remove(class).is_none() {
                return Err(Error::not_found(format!(
                    "No inventory of class {class} found for delete on resource provider {id}."
                )));
            }
            if in_use(snapshot, old, &new.inventories).is_some() {
                return Err(concurrent(&format!(
                    "Unable to delete inventory of class {class}: Inventory for '{class}' on resource provider '{id}' in \
                     use. Release the allocations first."
                )));
            }
            Ok(true)
        })
        .await
    }

    /// Replaces the aggregates; without a `given` generation (before microversion 1.19) the generation stays.
    ///
    /// # Errors
    /// 404; 409 of the generation.
    pub(crate) async fn set_aggregates(
        &self,
        id: &str,
        given: Option<i64>,
        wanted: &BTreeSet<String>,
    ) -> Result<Shown> {
        self.edit(id, given, given.is_some(), |_, _, new| {
            new.aggregates.clone_from(wanted);
            Ok(true)
        })
        .await
    }

    /// Replaces the traits.
    ///
    /// # Errors
    /// 404; 409 of the generation; 400 for an unknown trait.
    pub(crate) async fn set_traits(&self, id: &str, given: Option<i64>, wanted: &BTreeSet<String>) -> Result<Shown> {
        self.edit(id, given, true, |snapshot, old, new| {
            if let Some(names) = super::unknown_traits(snapshot, wanted) {
                return Err(Error::invalid("traits", format!("No such trait {names}.")));
            }
            new.traits.clone_from(wanted);
            // Traits that stay as they are raise nothing, as upstream.
            Ok(new.traits != old.traits)
        })
        .await
    }

    /// Changes a provider under its generation; `change` tells whether there is anything to write.
    async fn edit<F>(&self, id: &str, given: Option<i64>, raise: bool, mut change: F) -> Result<Shown>
    where
        F: FnMut(&Snapshot, &Object<ResourceProvider>, &mut ResourceProvider) -> Result<bool>,
    {
        self.plan(|snapshot, txn| {
            let old = find(snapshot, id)?;
            if let Some(given) = given {
                same_generation(snapshot, &old, given)?;
            }
            let mut new = (*old.value).clone();
            if !change(snapshot, &old, &mut new)? {
                return Ok(Shown::of(snapshot, &old));
            }
            let generation = plan_edit_provider(snapshot, txn, &old, new.clone(), raise);
            Ok(Shown {
                id: old.id.clone(),
                provider: Arc::new(new),
                generation,
            })
        })
        .await
    }
}
