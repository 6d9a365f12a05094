//! Quotas: a limit per project and resource, a counter per project and resource.

use crate::{errors, keys};
use maru_base::{Error, ProjectId, Result};
use maru_store::{CommitError, Conflict, Index, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is limited, and to how many unless a project's quota says otherwise (Neutron's defaults).
pub const DEFAULTS: &[(&str, i64)] = &[
    ("network", 100),
    ("subnet", 100),
    ("port", 500),
    ("router", 10),
    ("floatingip", 50),
    ("security_group", 10),
    ("security_group_rule", 100),
    ("subnetpool", -1),
    ("rbac_policy", 10),
];

/// A project's own limits; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Limit by resource.
    pub limits: BTreeMap<String, i64>,
}

impl Kind for Quota {
    type Id = ProjectId;
    const NAME: &'static str = "network_quota";
    fn indexes() -> Vec<Index<Self>> {
        Vec::new()
    }
}

/// The limit of a project; `None` is unlimited.
#[must_use]
pub fn limit(snapshot: &Snapshot, project: &ProjectId, resource: &str) -> Option<i64> {
    let own = snapshot
        .get::<Quota>(project)
        .and_then(|q| q.value.limits.get(resource).copied());
    let limit = own.or_else(|| default_limit(resource)).unwrap_or(-1);
    (limit >= 0).then_some(limit)
}
/// The default limit of a resource.
#[must_use]
pub fn default_limit(resource: &str) -> Option<i64> {
    DEFAULTS.iter().find(|(r, _)| *r == resource).map(|(_, l)| *l)
}
/// How many a project has.
#[must_use]
pub fn used(snapshot: &Snapshot, project: &str, resource: &str) -> i64 {
    snapshot.counter(&keys::quota_counter(project, resource))
}

/// Takes one of a project's quota. What belongs to no project is not counted.
///
/// # Errors
/// 409 `OverQuota`.
pub fn consume(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId, resource: &'static str) -> Result<()> {
    if project.is_empty() {
        return Ok(());
    }
    let key = keys::quota_counter(project, resource);
    let limit = limit(snapshot, project, resource);
    if let Some(limit) = limit {
        let used = snapshot.counter(&key);
        let wanted = keys::pending_delta(txn, &key) + 1;
        if used + wanted > limit {
            return Err(errors::over_quota(resource, used, wanted, limit));
        }
    }
    txn.add(key, 1, limit);
    Ok(())
}
/// Counts one without asking for the limit: what the cloud makes for a project by itself.
pub fn count(txn: &mut Txn, project: &ProjectId, resource: &'static str) {
    if !project.is_empty() {
        txn.add(keys::quota_counter(project, resource), 1, None);
    }
}
/// Gives one back.
pub fn release(txn: &mut Txn, project: &ProjectId, resource: &'static str) {
    if !project.is_empty() {
        txn.add(keys::quota_counter(project, resource), -1, None);
    }
}

/// Turns a commit that a network quota's counter refused into 409 `OverQuota`; `None` for every other error.
/// Services that compose network planners call it on what [`maru_store::Store::plan`] gave them.
#[must_use]
pub fn over_quota(error: &Error) -> Option<Error> {
    match CommitError::conflict_of(error)? {
        Conflict::Exceeded {
            key,
            used,
            wanted,
            limit,
        } => {
            let parts = key.parts();
            match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["counter", "quota", _, resource] if default_limit(resource).is_some() => {
                    Some(errors::over_quota(resource, *used, *wanted, *limit))
                }
                _ => None,
            }
        }
        Conflict::Guard { .. } => None,
    }
}
