//! Resource providers: lists with filters, and their own life.

use super::{App, Shown, find, unknown_class, unknown_traits};
use maru_base::{Error, Result};
use maru_placement_model::{
    ProviderId, ResourceProvider, candidates::Group, plan_create_provider, plan_delete_provider, plan_move_provider,
    plan_rename_provider, usage,
};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

/// What a list is narrowed to.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) name: Option<String>,
    pub(crate) uuid: Option<String>,
    /// Resources, traits, aggregates and the tree.
    pub(crate) group: Group,
}

/// The providers that pass a filter, in the order of their ids.
///
/// # Errors
/// 400 for an unknown class or trait.
pub(crate) fn list(snapshot: &Snapshot, filter: &Filter) -> Result<Vec<Object<ResourceProvider>>> {
    let group = &filter.group;
    if let Some(class) = unknown_class(snapshot, group.resources.keys()) {
        return Err(Error::invalid(
            "resources",
            format!("Invalid resource class in resources parameter: No such resource class {class}."),
        ));
    }
    if let Some(names) = unknown_traits(snapshot, group.required.iter().flatten().chain(&group.forbidden)) {
        return Err(Error::invalid(
            "required",
            format!("Invalid trait(s) in \"required\" parameter: No such trait(s): {names}."),
        ));
    }
    let root = match &group.in_tree {
        None => None,
        Some(id) => match snapshot.get::<ResourceProvider>(id) {
            Some(provider) => Some(provider.root.clone()),
            None => return Ok(Vec::new()),
        },
    };
    // The narrowest index that serves.
    let base: Vec<Object<ResourceProvider>> = if let Some(id) = &filter.uuid {
        snapshot
            .get::<ResourceProvider>(&ProviderId::from(id.as_str()))
            .into_iter()
            .collect()
    } else if let Some(name) = &filter.name {
        snapshot.find::<ResourceProvider>("name", name).collect()
    } else if let Some(root) = &root {
        snapshot.find::<ResourceProvider>("root", root).collect()
    } else if let Some(class) = group.resources.keys().next() {
        snapshot.find::<ResourceProvider>("class", class).collect()
    } else {
        snapshot.list::<ResourceProvider>().collect()
    };
    let each = |have: &std::collections::BTreeSet<String>, sets: &[std::collections::BTreeSet<String>]| {
        sets.iter().all(|any| !any.is_disjoint(have))
    };
    let passes = |p: &Object<ResourceProvider>| {
        filter.name.as_ref().is_none_or(|name| p.name == *name)
            && root.as_ref().is_none_or(|root| p.root == *root)
            && each(&p.traits, &group.required)
            && p.traits.is_disjoint(&group.forbidden)
            && each(&p.aggregates, &group.member_of)
            && p.aggregates.is_disjoint(&group.not_member_of)
            && group.resources.iter().all(|(class, amount)| {
                p.inventories.get(class).is_some_and(|inventory| {
                    let wanted = i64::try_from(*amount).unwrap_or(i64::MAX);
                    inventory.allows_unit(*amount)
                        && usage(snapshot, &p.id, class).saturating_add(wanted) <= inventory.capacity()
                })
            })
    };
    Ok(base.into_iter().filter(passes).collect())
}

impl App {
    /// Makes a provider.
    ///
    /// # Errors
    /// 409 when its id or name is taken, 400 when its parent is not there.
    pub(crate) async fn create_provider(&self, id: &str, name: &str, parent: Option<&str>) -> Result<Shown> {
        let id = ProviderId::from(id);
        let parent = parent.map(ProviderId::from);
        self.plan(|snapshot, txn| {
            let provider = plan_create_provider(snapshot, txn, &id, name, parent.as_ref())
                .map_err(|e| explain(e, &format!("Unable to create resource provider \"{name}\", {id}")))?;
            Ok(Shown {
                id: id.clone(),
                generation: provider.generation,
                provider: Arc::new(provider),
            })
        })
        .await
    }

    /// Renames a provider, and with `parent` puts it elsewhere; `free` tells whether any move is allowed (1.37) or only
    /// that of one without a parent.
    ///
    /// # Errors
    /// 404, 409 when the name is taken, 400 for a move that is not possible.
    pub(crate) async fn update_provider(
        &self,
        id: &str,
        name: &str,
        parent: Option<Option<&str>>,
        free: bool,
    ) -> Result<Shown> {
        self.plan(|snapshot, txn| {
            let old = find(snapshot, id)?;
            let mut new = (*old.value).clone();
            plan_rename_provider(snapshot, txn, &old, &mut new, name)?;
            if let Some(parent) = parent {
                let parent = parent.map(ProviderId::from);
                if old.parent.is_some() && parent != old.parent && !free {
                    let what = if parent.is_some() {
                        "re-parenting"
                    } else {
                        "un-parenting"
                    };
                    return Err(Error::invalid(
                        "parent_provider_uuid",
                        format!(
                            "Unable to save resource provider {id}: {what} a provider is not currently allowed; use \
                             microversion 1.37."
                        ),
                    ));
                }
                plan_move_provider(snapshot, txn, &old, &mut new, parent.as_ref())
                    .map_err(|e| explain(e, &format!("Unable to save resource provider {id}")))?;
            }
            new.updated_at = maru_base::time::now();
            txn.update(&old, &new);
            let generation = maru_placement_model::generation(snapshot, &old);
            Ok(Shown {
                id: old.id.clone(),
                provider: Arc::new(new),
                generation,
            })
        })
        .await
    }

    /// Removes a provider.
    ///
    /// # Errors
    /// 404; 409 when it has children or allocations.
    pub(crate) async fn delete_provider(&self, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| plan_delete_provider(snapshot, txn, &find(snapshot, id)?))
            .await
    }
}

/// Puts in front of a refused value what could not be done with it.
fn explain(error: Error, what: &str) -> Error {
    match error.field() {
        Some(field) => Error::invalid(field.to_owned(), format!("{what}: {}", error.message())),
        None => error,
    }
}
