//! Address scopes: sets of subnet pools whose addresses do not overlap, so that routers may pass them on untranslated.

use crate::{SubnetPool, errors, keys};
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of an address scope, a UUID.
    AddressScopeId
);

/// An address scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressScope {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// 4 or 6.
    pub ip_version: u8,
    /// Whether every project may use it.
    pub shared: bool,
}

impl Kind for AddressScope {
    type Id = AddressScopeId;
    const NAME: &'static str = "address_scope";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |s| vec![s.project_id.to_string()],
            },
            Index {
                name: "visible",
                values: |s| s.shared.then(|| "shared".to_owned()).into_iter().collect(),
            },
            Index {
                name: "name",
                values: |s| vec![s.name.clone()],
            },
        ]
    }
}

/// Plans the deletion of a scope.
///
/// # Errors
/// 409 `AddressScopeInUse` while a subnet pool is in it.
pub fn plan_delete_scope(snapshot: &Snapshot, txn: &mut Txn, read: &Object<AddressScope>) -> Result<()> {
    if let Some(pool) = snapshot.find::<SubnetPool>("scope", &read.id).next() {
        return Err(errors::conflict(
            "AddressScopeInUse",
            format!(
                "Unable to complete operation on address scope {}. There are one or more subnet pools in use on the address \
                 scope, such as {}; take them out of it first.",
                read.id, pool.id
            ),
        ));
    }
    // A pool that joins at this moment writes it.
    keys::watch_epoch(snapshot, txn, &format!("pools:{}", read.id));
    keys::bury(txn, keys::epoch(&format!("pools:{}", read.id)));
    txn.delete(read);
    Ok(())
}
