//! Flavors: validation and transactions.

use crate::{
    App,
    api::{
        flavors::{CreateBody, missing},
        wire::{check_name, check_text, invalid},
    },
};
use maru_base::Result;
use maru_compute_model::{Flavor, FlavorId, plan_create_flavor, plan_delete_flavor};
use maru_store::Txn;
use std::collections::{BTreeMap, BTreeSet};

/// Makes a flavor.
pub(crate) async fn create(app: &App, body: CreateBody) -> Result<FlavorId> {
    check_name("flavor.name", &body.name)?;
    let id = match &body.id {
        Some(id) if id.0 != "auto" => id.0.clone(),
        _ => String::new(),
    };
    let good = id.len() <= 255
        && id.trim() == id
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' '));
    if !good {
        return Err(invalid(
            "flavor.id",
            format!("'{id}' is not an id: letters, digits and .-_ characters"),
        ));
    }
    let id = if id.is_empty() {
        FlavorId::new_uuid()
    } else {
        FlavorId::from(id)
    };
    let rxtx_factor = match &body.rxtx_factor {
        None => 1.0,
        Some(t) => {
            t.0.parse()
                .map_err(|_| invalid("flavor.rxtx_factor", format!("'{}' is not a number", t.0)))?
        }
    };
    if !(rxtx_factor > 0.0 && rxtx_factor <= 3.4e38) {
        return Err(invalid("flavor.rxtx_factor", "it is above 0"));
    }
    let description = body.description.clone().flatten();
    if let Some(text) = &description {
        if text.chars().count() > 65_535 {
            return Err(invalid("flavor.description", "at most 65535 characters"));
        }
        if text.chars().count() <= 255 {
            check_text("flavor.description", text)?;
        }
    }
    let flavor = Flavor {
        name: body.name.clone(),
        description,
        vcpus: u32::try_from(body.vcpus.at_least("flavor.vcpus", 1)?).unwrap_or(u32::MAX),
        memory_mb: body.ram.at_least("flavor.ram", 1)?,
        root_gb: body.disk.at_least("flavor.disk", 0)?,
        ephemeral_gb: body
            .ephemeral
            .map_or(Ok(0), |n| n.at_least("flavor.OS-FLV-EXT-DATA:ephemeral", 0))?,
        swap_mb: body.swap.map_or(Ok(0), |n| n.at_least("flavor.swap", 0))?,
        rxtx_factor,
        is_public: body.is_public.is_none_or(|f| f.0),
        extra_specs: BTreeMap::new(),
        access: BTreeSet::new(),
        created: maru_base::time::now(),
    };
    app.store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            plan_create_flavor(snapshot, &mut txn, &id, &flavor)?;
            Ok((txn, id.clone()))
        })
        .await
}

/// Changes a flavor.
pub(crate) async fn change(app: &App, id: &FlavorId, mut f: impl FnMut(&mut Flavor) -> Result<()>) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let flavor = snapshot.get::<Flavor>(id).ok_or_else(|| missing(id))?;
            let mut new = (*flavor.value).clone();
            f(&mut new)?;
            let mut txn = Txn::new();
            txn.update(&flavor, &new);
            Ok((txn, ()))
        })
        .await
}

/// Removes a flavor; servers keep what they were made with.
pub(crate) async fn delete(app: &App, id: &str) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let flavor = snapshot.get::<Flavor>(&FlavorId::from(id)).ok_or_else(|| missing(id))?;
            let mut txn = Txn::new();
            plan_delete_flavor(&mut txn, &flavor);
            Ok((txn, ()))
        })
        .await
}
