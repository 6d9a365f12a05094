//! Sharing of a network with one project (or all) by a policy of its own, as `rbac-policies` has it. Who it is shared with stands in
//! the network, too, written by the same transaction, so that who may see a network is known from it alone.

use crate::{Network, NetworkId, Port, dhcp, errors, keys, quota};
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of an RBAC policy, a UUID.
    RbacPolicyId
);

/// The target that means every project.
pub const EVERYONE: &str = "*";

/// That a network is shared with a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RbacPolicy {
    /// Owner.
    pub project_id: ProjectId,
    /// The network.
    pub network_id: NetworkId,
    /// The project it is shared with, or [`EVERYONE`].
    pub target: ProjectId,
}

impl Kind for RbacPolicy {
    type Id = RbacPolicyId;
    const NAME: &'static str = "rbac_policy";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |p| vec![p.project_id.to_string()],
            },
            Index {
                name: "object",
                values: |p| vec![p.network_id.to_string()],
            },
        ]
    }
}

fn share(network: &mut Network, target: &ProjectId, on: bool) {
    if target.as_str() == EVERYONE {
        network.shared = on;
        return;
    }
    network.shared_with.retain(|p| p != target);
    if on {
        network.shared_with.push(target.clone());
    }
}

fn network(snapshot: &Snapshot, id: &NetworkId) -> Result<Object<Network>> {
    snapshot.get::<Network>(id).ok_or_else(|| errors::network_not_found(id))
}

fn refuse_duplicate(network: &Object<Network>, target: &ProjectId) -> Result<()> {
    let there = if target.as_str() == EVERYONE {
        network.value.shared
    } else {
        network.value.shared_with.contains(target)
    };
    if there {
        return Err(errors::conflict(
            "DuplicateRbacPolicy",
            format!(
                "An RBAC policy already exists with those values: network {} is shared with {target}.",
                network.id
            ),
        ));
    }
    Ok(())
}

/// Refuses to end sharing while a project that needs it has ports on the network.
fn refuse_use(snapshot: &Snapshot, txn: &mut Txn, network: &Object<Network>, target: &ProjectId) -> Result<()> {
    keys::watch_epoch(snapshot, txn, &format!("ports:{}", network.id));
    let needs = |project: &ProjectId| {
        !project.is_empty()
            && *project != network.value.project_id
            && if target.as_str() == EVERYONE {
                !network.value.shared_with.contains(project)
            } else {
                project == target && !network.value.shared
            }
    };
    let used = snapshot
        .find::<Port>("network", &network.id)
        .find(|p| p.value.device_owner != dhcp::OWNER && needs(&p.value.project_id));
    match used {
        None => Ok(()),
        Some(port) => Err(errors::conflict(
            "RbacPolicyInUse",
            format!(
                "RBAC policy on object {} cannot be removed because port {} of project {} depends on it.",
                network.id, port.id, port.value.project_id
            ),
        )),
    }
}

/// Plans a new policy.
///
/// # Errors
/// 404 for a network that is not there, 409 for one that is shared so already, or over quota.
pub fn plan_create_rbac(snapshot: &Snapshot, txn: &mut Txn, policy: RbacPolicy) -> Result<(RbacPolicyId, RbacPolicy)> {
    let read = network(snapshot, &policy.network_id)?;
    refuse_duplicate(&read, &policy.target)?;
    quota::consume(snapshot, txn, &policy.project_id, "rbac_policy")?;
    let mut value = (*read.value).clone();
    share(&mut value, &policy.target, true);
    txn.update(&read, &value);
    let id = RbacPolicyId::new_uuid();
    txn.create(&id, &policy);
    Ok((id, policy))
}

/// Plans another target of a policy.
///
/// # Errors
/// As [`plan_create_rbac`] and [`plan_delete_rbac`].
pub fn plan_update_rbac(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<RbacPolicy>,
    target: ProjectId,
) -> Result<RbacPolicy> {
    let mut policy = (*read.value).clone();
    if policy.target == target {
        return Ok(policy);
    }
    let on = network(snapshot, &policy.network_id)?;
    refuse_duplicate(&on, &target)?;
    refuse_use(snapshot, txn, &on, &policy.target)?;
    let mut value = (*on.value).clone();
    share(&mut value, &policy.target, false);
    share(&mut value, &target, true);
    txn.update(&on, &value);
    policy.target = target;
    txn.update(read, &policy);
    Ok(policy)
}

/// Plans the deletion of a policy.
///
/// # Errors
/// 409 `RbacPolicyInUse` while the target has ports on the network.
pub fn plan_delete_rbac(snapshot: &Snapshot, txn: &mut Txn, read: &Object<RbacPolicy>) -> Result<()> {
    if let Some(on) = snapshot.get::<Network>(&read.value.network_id) {
        refuse_use(snapshot, txn, &on, &read.value.target)?;
        let mut value = (*on.value).clone();
        share(&mut value, &read.value.target, false);
        txn.update(&on, &value);
    }
    drop_policy(txn, read);
    Ok(())
}

/// Removes a policy whose network the caller changes or deletes.
pub fn drop_policy(txn: &mut Txn, read: &Object<RbacPolicy>) {
    quota::release(txn, &read.value.project_id, "rbac_policy");
    txn.delete(read);
}
