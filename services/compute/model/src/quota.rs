//! Quotas: limits by project, and the counters that keep them.

use maru_base::{Error, Result};
use maru_store::{CommitError, Conflict, Key, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// A project's id, naming its limits.
    QuotaSetId
);
maru_base::typed_id!(
    /// Name of a quota class; `default` is the one that counts.
    QuotaClassId
);

/// What is limited, and upstream's default limits.
pub const DEFAULTS: &[(&str, i64)] = &[
    ("cores", 20),
    ("fixed_ips", -1),
    ("floating_ips", -1),
    ("injected_file_content_bytes", 10_240),
    ("injected_file_path_bytes", 255),
    ("injected_files", 5),
    ("instances", 10),
    ("key_pairs", 100),
    ("metadata_items", 128),
    ("ram", 51_200),
    ("security_group_rules", -1),
    ("security_groups", -1),
    ("server_group_members", 10),
    ("server_groups", 10),
];

/// Limits that were set for a project; others come from the class, then from [`DEFAULTS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaSet {
    /// By resource.
    pub limits: BTreeMap<String, i64>,
}
impl Kind for QuotaSet {
    type Id = QuotaSetId;
    const NAME: &'static str = "compute_quota";
}

/// Limits that were set for all projects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaClass {
    /// By resource.
    pub limits: BTreeMap<String, i64>,
}
impl Kind for QuotaClass {
    type Id = QuotaClassId;
    const NAME: &'static str = "compute_quota_class";
}

/// The default limit of a resource.
#[must_use]
pub fn default_limit(snapshot: &Snapshot, resource: &str) -> i64 {
    snapshot
        .get::<QuotaClass>(&QuotaClassId::from("default"))
        .and_then(|c| c.limits.get(resource).copied())
        .or_else(|| DEFAULTS.iter().find(|(n, _)| *n == resource).map(|(_, l)| *l))
        .unwrap_or(-1)
}

/// A project's limit of a resource; -1 is none.
#[must_use]
pub fn limit(snapshot: &Snapshot, project: &str, resource: &str) -> i64 {
    snapshot
        .get::<QuotaSet>(&QuotaSetId::from(project))
        .and_then(|q| q.limits.get(resource).copied())
        .unwrap_or_else(|| default_limit(snapshot, resource))
}

/// The counter of what a project uses.
#[must_use]
pub fn used_key(project: &str, resource: &str) -> Key {
    Key::of(&["counter", "compute-quota", project, resource])
}

/// What a project uses.
#[must_use]
pub fn used(snapshot: &Snapshot, project: &str, resource: &str) -> i64 {
    snapshot.counter(&used_key(project, resource))
}

/// Takes `amount` of a resource (or gives it back when negative), within the project's limit.
pub fn consume(snapshot: &Snapshot, txn: &mut Txn, project: &str, resource: &str, amount: i64) {
    let limit = limit(snapshot, project, resource);
    txn.add(
        used_key(project, resource),
        amount,
        (amount > 0 && limit >= 0).then_some(limit),
    );
}

/// Counts `amount` of a resource that is in use already, whatever the limit.
pub fn count(txn: &mut Txn, project: &str, resource: &str, amount: i64) {
    txn.add(used_key(project, resource), amount, None);
}

/// How much of a resource is free for a project; `None` for no limit.
#[must_use]
pub fn headroom(snapshot: &Snapshot, project: &str, resource: &str) -> Option<i64> {
    let limit = limit(snapshot, project, resource);
    (limit >= 0).then(|| (limit - used(snapshot, project, resource)).max(0))
}

/// Refuses what the present state already shows to be over a limit: `wanted` by resource.
///
/// # Errors
/// 403 in upstream's words.
pub fn check(snapshot: &Snapshot, project: &str, wanted: &[(&str, i64)]) -> Result<()> {
    let over: Vec<_> = wanted
        .iter()
        .filter_map(|(r, n)| {
            let limit = limit(snapshot, project, r);
            let used = used(snapshot, project, r);
            (limit >= 0 && used + n > limit).then_some((*r, *n, used, limit))
        })
        .collect();
    if over.is_empty() { Ok(()) } else { Err(exceeded(&over)) }
}

/// Resource, wanted, used, limit.
type Over<'a> = (&'a str, i64, i64, i64);

fn exceeded(over: &[Over<'_>]) -> Error {
    let join = |f: &dyn Fn(&Over<'_>) -> String| over.iter().map(f).collect::<Vec<_>>().join(", ");
    Error::forbidden(format!(
        "Quota exceeded for {}: Requested {}, but already used {} of {} {}",
        join(&|o| o.0.to_owned()),
        join(&|o| o.1.to_string()),
        join(&|o| o.2.to_string()),
        join(&|o| o.3.to_string()),
        join(&|o| o.0.to_owned()),
    ))
}

/// Turns a race lost at a quota counter into the same refusal as [`check`].
#[must_use]
pub fn refusal(error: Error) -> Error {
    if let Some(Conflict::Exceeded {
        key,
        used,
        wanted,
        limit,
    }) = CommitError::conflict_of(&error)
    {
        let parts = key.parts();
        if let [_, area, _, resource] = parts.as_slice()
            && area == "compute-quota"
        {
            return exceeded(&[(resource, *wanted, *used, *limit)]);
        }
    }
    error
}
