//! Flavors: sizes that servers come in.

use maru_auth::Caller;
use maru_base::{Error, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of a flavor: chosen by its maker (`42`) or a UUID.
    FlavorId
);

/// A flavor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// Unique name.
    pub name: String,
    /// Description (2.55).
    pub description: Option<String>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Root disk in GiB; 0 takes the image's own size.
    pub root_gb: u64,
    /// Second disk in GiB.
    pub ephemeral_gb: u64,
    /// Swap disk in MiB.
    pub swap_mb: u64,
    /// A factor that upstream keeps for old drivers.
    pub rxtx_factor: f64,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Extra specs.
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it when it is not public.
    pub access: BTreeSet<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
}

impl Kind for Flavor {
    type Id = FlavorId;
    const NAME: &'static str = "flavor";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "access",
            values: |f| f.access.iter().cloned().collect(),
        }]
    }
}

/// The flavor with this id, if the caller may use it (administrators see all).
#[must_use]
pub fn find_visible(snapshot: &Snapshot, caller: &Caller, id: &str) -> Option<Object<Flavor>> {
    snapshot.get::<Flavor>(&FlavorId::from(id)).filter(|f| {
        f.is_public || caller.is_admin() || caller.project_id().is_some_and(|p| f.access.contains(p.as_str()))
    })
}

/// Makes a flavor.
///
/// # Errors
/// 409 when its name or id is taken.
pub fn plan_create_flavor(snapshot: &Snapshot, txn: &mut Txn, id: &FlavorId, flavor: &Flavor) -> Result<()> {
    if snapshot.owner(Flavor::NAME, "", &flavor.name).is_some() {
        return Err(Error::conflict(format!(
            "Flavor with name {} already exists.",
            flavor.name
        )));
    }
    if snapshot.get::<Flavor>(id).is_some() {
        return Err(Error::conflict(format!("Flavor with ID {id} already exists.")));
    }
    txn.claim(Flavor::NAME, "", &flavor.name, id);
    txn.create(id, flavor);
    Ok(())
}

/// Removes a flavor; servers keep their copy of it.
pub fn plan_delete_flavor(txn: &mut Txn, flavor: &Object<Flavor>) {
    txn.release(Flavor::NAME, "", &flavor.name);
    txn.delete(flavor);
}
