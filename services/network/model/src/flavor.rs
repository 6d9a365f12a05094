//! Flavors of network services and the service profiles that they offer.

use crate::{errors, keys};
use maru_base::Result;
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

maru_base::typed_id!(
    /// Id of a flavor of a network service, a UUID.
    NetworkFlavorId
);
maru_base::typed_id!(
    /// Id of a service profile, a UUID.
    ServiceProfileId
);

/// A flavor of a network service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFlavor {
    /// Name; need not be unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// `L3_ROUTER_NAT`; cannot change.
    pub service_type: String,
    /// Whether it may be chosen.
    pub enabled: bool,
    /// Its profiles.
    pub profiles: BTreeSet<ServiceProfileId>,
}

impl Kind for NetworkFlavor {
    type Id = NetworkFlavorId;
    const NAME: &'static str = "network_flavor";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "profile",
            values: |f| f.profiles.iter().map(ToString::to_string).collect(),
        }]
    }
}

/// A profile: a driver and what it shall be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProfile {
    /// Free text.
    pub description: String,
    /// Name of a driver; none is installed that could be named.
    pub driver: String,
    /// For the driver.
    pub metainfo: String,
    /// Whether it is used.
    pub enabled: bool,
}

impl Kind for ServiceProfile {
    type Id = ServiceProfileId;
    const NAME: &'static str = "network_service_profile";
    fn indexes() -> Vec<Index<Self>> {
        Vec::new()
    }
}

/// 404.
pub fn flavor_not_found(id: impl std::fmt::Display) -> maru_base::Error {
    errors::not_found("FlavorNotFound", "Flavor", id)
}
/// 404.
pub fn profile_not_found(id: impl std::fmt::Display) -> maru_base::Error {
    errors::not_found("ServiceProfileNotFound", "Service Profile", id)
}

/// Plans that a flavor offers a profile.
///
/// # Errors
/// 404 for a profile that is not there; 409 `FlavorServiceProfileBindingExists`.
pub fn plan_add_profile(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<NetworkFlavor>,
    profile: &ServiceProfileId,
) -> Result<()> {
    snapshot
        .get::<ServiceProfile>(profile)
        .ok_or_else(|| profile_not_found(profile))?;
    keys::alive::<ServiceProfile>(txn, profile);
    keys::hold_epoch(snapshot, txn, &format!("flavors:{profile}"));
    let mut flavor = (*read.value).clone();
    if !flavor.profiles.insert(profile.clone()) {
        return Err(errors::conflict(
            "FlavorServiceProfileBindingExists",
            format!(
                "Service Profile {profile} is already associated with flavor {}.",
                read.id
            ),
        ));
    }
    txn.update(read, &flavor);
    Ok(())
}

/// Plans that a flavor does not offer a profile any more.
///
/// # Errors
/// 404 `FlavorServiceProfileBindingNotFound`.
pub fn plan_remove_profile(txn: &mut Txn, read: &Object<NetworkFlavor>, profile: &ServiceProfileId) -> Result<()> {
    let mut flavor = (*read.value).clone();
    if !flavor.profiles.remove(profile) {
        return Err(errors::not_found(
            "FlavorServiceProfileBindingNotFound",
            &format!("Flavor {} with service profile", read.id),
            profile,
        ));
    }
    txn.update(read, &flavor);
    Ok(())
}

/// Plans the deletion of a profile.
///
/// # Errors
/// 409 `ServiceProfileInUse` while a flavor offers it.
pub fn plan_delete_profile(snapshot: &Snapshot, txn: &mut Txn, read: &Object<ServiceProfile>) -> Result<()> {
    let set = format!("flavors:{}", read.id);
    keys::watch_epoch(snapshot, txn, &set);
    if let Some(flavor) = snapshot.find::<NetworkFlavor>("profile", &read.id).next() {
        return Err(errors::conflict(
            "ServiceProfileInUse",
            format!("Service Profile {} is used by flavor {}.", read.id, flavor.id),
        ));
    }
    keys::bury(txn, keys::epoch(&set));
    txn.delete(read);
    Ok(())
}
