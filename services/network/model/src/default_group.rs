//! The default security group of a project: made when it is first needed, once, whoever needs it first.

use crate::{
    Meta, SecurityGroup, SecurityGroupId, default_rule::rules_of_new, default_statefulness::default_statefulness, keys,
    quota, security_group_rule::put_rule,
};
use maru_base::{ProjectId, Result};
use maru_store::{Snapshot, Txn};

const CLAIM: &str = "default-group";

/// The default group of a project, if it is there.
#[must_use]
pub fn default_group(snapshot: &Snapshot, project: &ProjectId) -> Option<SecurityGroupId> {
    snapshot.owner(CLAIM, project, "default").map(SecurityGroupId::from)
}

/// The default group of a project, planned if it is not there: everything out, in from its own members.
///
/// # Errors
/// None at present.
pub fn ensure_default_group(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId) -> Result<SecurityGroupId> {
    if let Some(id) = default_group(snapshot, project) {
        return Ok(id);
    }
    if let Some(id) = keys::pending_text(txn, &keys::claim(CLAIM, project, "default")) {
        return Ok(SecurityGroupId::from(id));
    }
    let id = SecurityGroupId::new_uuid();
    txn.claim(CLAIM, project, "default", &id);
    quota::count(txn, project, "security_group");
    let group = SecurityGroup {
        project_id: project.clone(),
        name: "default".to_owned(),
        stateful: default_statefulness(snapshot, project),
        is_default: true,
        meta: Meta::new("Default security group"),
    };
    txn.create(&id, &group);
    for rule in rules_of_new(snapshot, project, &id, true) {
        quota::count(txn, project, "security_group_rule");
        put_rule(txn, rule);
    }
    Ok(id)
}

/// Frees the name of a project's default group.
pub(crate) fn release(txn: &mut Txn, project: &ProjectId) {
    txn.release(CLAIM, project, "default");
}
