//! Address groups: sets of blocks that security group rules name, so that a set is changed in one place.

use crate::{Meta, SecurityGroupRule, errors, keys};
use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

maru_base::typed_id!(
    /// Id of an address group, a UUID.
    AddressGroupId
);

/// Most blocks of one group: each is a rule on every node that has a guest whose rules name it.
pub const MOST: usize = 256;

/// An address group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// The blocks, without host bits.
    pub addresses: BTreeSet<IpNet>,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for AddressGroup {
    type Id = AddressGroupId;
    const NAME: &'static str = "address_group";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |g| vec![g.project_id.to_string()],
            },
            Index {
                name: "name",
                values: |g| vec![g.name.clone()],
            },
        ]
    }
}

/// 404.
pub fn address_group_not_found(id: impl std::fmt::Display) -> maru_base::Error {
    errors::not_found("AddressGroupNotFound", "Address group", id)
}

/// Plans that blocks come into (`add`) or leave a group.
///
/// # Errors
/// 404 `AddressesNotFound` for blocks that are not in it; 400 for more than [`MOST`].
pub fn plan_change_addresses(
    txn: &mut Txn,
    read: &Object<AddressGroup>,
    blocks: &[IpNet],
    add: bool,
) -> Result<AddressGroup> {
    let mut group = (*read.value).clone();
    for block in blocks {
        if add {
            group.addresses.insert(block.trunc());
        } else if !group.addresses.remove(&block.trunc()) {
            return Err(errors::not_found(
                "AddressesNotFound",
                &format!("Address group {}: address", read.id),
                block,
            ));
        }
    }
    check_addresses(&group.addresses)?;
    group.meta.touch();
    txn.update(read, &group);
    Ok(group)
}

/// Checks how many there are.
///
/// # Errors
/// 400.
pub fn check_addresses(addresses: &BTreeSet<IpNet>) -> Result<()> {
    if addresses.len() > MOST {
        return Err(errors::invalid_input(format!(
            "{} blocks are more than the {MOST} of one address group; make another group and another rule",
            addresses.len()
        )));
    }
    Ok(())
}

/// Plans the deletion of a group.
///
/// # Errors
/// 409 `AddressGroupInUse` while a rule names it.
pub fn plan_delete_address_group(snapshot: &Snapshot, txn: &mut Txn, read: &Object<AddressGroup>) -> Result<()> {
    let set = format!("address-group:{}", read.id);
    keys::watch_epoch(snapshot, txn, &set);
    if let Some(rule) = snapshot.find::<SecurityGroupRule>("address_group", &read.id).next() {
        return Err(errors::conflict(
            "AddressGroupInUse",
            format!("Address group {} is in use by rule {}.", read.id, rule.id),
        ));
    }
    keys::bury(txn, keys::epoch(&set));
    txn.delete(read);
    Ok(())
}
