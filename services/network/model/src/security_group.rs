//! Security groups: everything is denied, the rules of a port's groups allow.

use crate::{
    Meta, Port, SecurityGroupRule, default_group,
    default_rule::rules_of_new,
    errors, keys, quota,
    security_group_rule::{drop_rule, put_rule},
};
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a security group, a UUID.
    SecurityGroupId
);

/// A security group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; only `default` is unique.
    pub name: String,
    /// Whether answers are let in by connection tracking.
    pub stateful: bool,
    /// Whether it is its project's default group.
    pub is_default: bool,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for SecurityGroup {
    type Id = SecurityGroupId;
    const NAME: &'static str = "security_group";
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

/// Plans a new group with the rules that every group begins with ([`crate::default_rule`]).
///
/// # Errors
/// 409 over quota, 409 `SecurityGroupDefaultAlreadyExists` for the name `default`.
pub fn plan_create_group(
    snapshot: &Snapshot,
    txn: &mut Txn,
    project: &ProjectId,
    name: &str,
    stateful: bool,
    meta: Meta,
) -> Result<(SecurityGroupId, SecurityGroup)> {
    if name.eq_ignore_ascii_case("default") {
        return Err(errors::conflict(
            "SecurityGroupDefaultAlreadyExists",
            "Every project has one security group named 'default', made by the cloud; choose another name.",
        ));
    }
    // As upstream: a project's default group comes before its first other one.
    default_group::ensure_default_group(snapshot, txn, project)?;
    quota::consume(snapshot, txn, project, "security_group")?;
    let id = SecurityGroupId::new_uuid();
    let group = SecurityGroup {
        project_id: project.clone(),
        name: name.to_owned(),
        stateful,
        is_default: false,
        meta,
    };
    txn.create(&id, &group);
    for rule in rules_of_new(snapshot, project, &id, false) {
        quota::count(txn, project, "security_group_rule");
        put_rule(txn, rule);
    }
    Ok((id, group))
}

/// Plans the deletion of a group, its rules and the rules of others that name it as remote.
///
/// # Errors
/// 409 `SecurityGroupInUse` while a port has it; 409 `SecurityGroupCannotRemoveDefault` unless `privileged`.
pub fn plan_delete_group(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<SecurityGroup>,
    privileged: bool,
) -> Result<()> {
    let id = &read.id;
    if read.value.is_default && !privileged {
        return Err(errors::conflict(
            "SecurityGroupCannotRemoveDefault",
            "Insufficient rights for removing the default security group; its rules can be removed instead.",
        ));
    }
    if let Some(port) = snapshot.find::<Port>("security_group", id).next() {
        return Err(errors::conflict(
            "SecurityGroupInUse",
            format!(
                "Security Group {id} in use: port {} has it; take it from its ports first.",
                port.id
            ),
        ));
    }
    keys::watch_epoch(snapshot, txn, &format!("ports:{id}"));
    keys::watch_epoch(snapshot, txn, &format!("rules:{id}"));
    for rule in snapshot.find::<SecurityGroupRule>("group", id) {
        drop_rule(txn, &rule);
    }
    for rule in snapshot.find::<SecurityGroupRule>("remote", id) {
        if rule.value.security_group_id != *id {
            drop_rule(txn, &rule);
        }
    }
    if read.value.is_default {
        default_group::release(txn, &read.value.project_id);
    }
    quota::release(txn, &read.value.project_id, "security_group");
    keys::bury(txn, keys::epoch(&format!("ports:{id}")));
    keys::bury(txn, keys::epoch(&format!("rules:{id}")));
    txn.delete(read);
    Ok(())
}
