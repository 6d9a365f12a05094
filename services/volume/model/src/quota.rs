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

/// What is limited, and upstream's default limits. Beside these each volume type has `volumes_<type>`, `gigabytes_<type>` and
/// `snapshots_<type>`, without a limit unless one is set.
pub const DEFAULTS: &[(&str, i64)] = &[
    ("volumes", 10),
    ("snapshots", 10),
    ("gigabytes", 1_000),
    ("backups", 10),
    ("backup_gigabytes", 1_000),
    ("per_volume_gigabytes", -1),
    ("groups", 10),
];

/// Limits that were set for a project; others come from the class, then from [`DEFAULTS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaSet {
    /// By resource.
    pub limits: BTreeMap<String, i64>,
}
impl Kind for QuotaSet {
    type Id = QuotaSetId;
    const NAME: &'static str = "volume_quota";
}

/// Limits that were set for all projects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaClass {
    /// By resource.
    pub limits: BTreeMap<String, i64>,
}
impl Kind for QuotaClass {
    type Id = QuotaClassId;
    const NAME: &'static str = "volume_quota_class";
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
    Key::of(&["counter", "volume-quota", project, resource])
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

/// What a volume of a type counts for: how many, and how many GiB.
#[must_use]
pub fn of_volume(type_name: &str, size: i64) -> Vec<(String, i64)> {
    vec![
        ("volumes".to_owned(), 1),
        (format!("volumes_{type_name}"), 1),
        ("gigabytes".to_owned(), size),
        (format!("gigabytes_{type_name}"), size),
    ]
}

/// What a snapshot of a volume of a type counts for.
#[must_use]
pub fn of_snapshot(type_name: &str, size: i64) -> Vec<(String, i64)> {
    vec![
        ("snapshots".to_owned(), 1),
        (format!("snapshots_{type_name}"), 1),
        ("gigabytes".to_owned(), size),
        (format!("gigabytes_{type_name}"), size),
    ]
}

/// What more room of a volume counts for.
#[must_use]
pub fn of_growth(type_name: &str, by: i64) -> Vec<(String, i64)> {
    vec![("gigabytes".to_owned(), by), (format!("gigabytes_{type_name}"), by)]
}

/// What a backup counts for.
#[must_use]
pub fn of_backup(size: i64) -> Vec<(String, i64)> {
    vec![("backups".to_owned(), 1), ("backup_gigabytes".to_owned(), size)]
}

/// Takes all of a list (times `sign`: -1 gives it back), and refuses first what is over a limit already.
///
/// # Errors
/// 413 in upstream's words.
pub fn take(snapshot: &Snapshot, txn: &mut Txn, project: &str, list: &[(String, i64)]) -> Result<()> {
    let wanted: Vec<(&str, i64)> = list.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    check(snapshot, project, &wanted)?;
    for (resource, amount) in list {
        consume(snapshot, txn, project, resource, *amount);
    }
    Ok(())
}

/// Gives all of a list back.
pub fn give(snapshot: &Snapshot, txn: &mut Txn, project: &str, list: &[(String, i64)]) {
    for (resource, amount) in list {
        consume(snapshot, txn, project, resource, -amount);
    }
}

/// Refuses what the present state already shows to be over a limit: `wanted` by resource.
///
/// # Errors
/// 413 in upstream's words.
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

/// Upstream has a sentence for each resource; clients look for its first words.
fn exceeded(over: &[Over<'_>]) -> Error {
    let Some((resource, wanted, used, limit)) = over.first() else {
        return Error::too_large("Quota exceeded.");
    };
    let message = if resource.starts_with("gigabytes") {
        format!(
            "Requested volume or snapshot exceeds allowed {resource} quota. Requested {wanted}G, quota is {limit}G and {used}G has been consumed."
        )
    } else if resource.starts_with("volumes") {
        format!("Maximum number of volumes allowed ({limit}) exceeded for quota '{resource}'.")
    } else if resource.starts_with("snapshots") {
        format!("Maximum number of snapshots allowed ({limit}) exceeded for quota '{resource}'.")
    } else if *resource == "backups" {
        format!("Maximum number of backups allowed ({limit}) exceeded")
    } else if *resource == "backup_gigabytes" {
        format!(
            "Requested backup exceeds allowed Backup gigabytes quota. Requested {wanted}G, quota is {limit}G and {used}G has been consumed."
        )
    } else {
        format!("Quota exceeded for {resource}: {wanted} more asked, {used} of {limit} in use.")
    };
    Error::too_large(message).with_code("overLimit")
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
            && area == "volume-quota"
        {
            return exceeded(&[(resource, *wanted, *used, *limit)]);
        }
    }
    error
}
