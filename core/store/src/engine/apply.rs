//! What a transaction means: guards and operations against a view of the present entries. Shared by the engines that
//! decide in this process, so that they cannot differ.

use super::{Commit, Entry, Request};
use crate::{Conflict, Guard, Key, Op, Revision};
use bytes::Bytes;

/// The present entries, with the effects of earlier requests of the same group.
pub(crate) trait View {
    /// What reading can fail with.
    type Error;
    /// The entry of a key.
    fn entry(&self, key: &Key) -> Result<Option<Entry>, Self::Error>;
    /// Whether any key lies under a prefix.
    fn any_under(&self, prefix: &Key) -> Result<bool, Self::Error>;
}

/// What a counter's value is; what is not a number counts as nothing.
pub(crate) fn counter_value(value: &[u8]) -> i64 {
    std::str::from_utf8(value)
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(0)
}

/// The value of a counter after an addition.
pub(crate) fn add(key: &Key, used: i64, delta: i64, limit: Option<i64>) -> Result<i64, Conflict> {
    let sum = used.saturating_add(delta);
    match limit {
        Some(limit) if delta > 0 && sum > limit => Err(Conflict::Exceeded {
            key: key.clone(),
            used,
            wanted: delta,
            limit,
        }),
        _ => Ok(sum.max(0)),
    }
}

/// The first guard that does not hold.
fn broken<V: View>(view: &V, guards: &[Guard]) -> Result<Option<Conflict>, V::Error> {
    for (index, guard) in guards.iter().enumerate() {
        let (key, holds) = match guard {
            Guard::Absent(key) => (key, view.entry(key)?.is_none()),
            Guard::Present(key) => (key, view.entry(key)?.is_some()),
            Guard::At(key, revision) => (key, view.entry(key)?.is_some_and(|e| e.modified == *revision)),
            Guard::RangeEmpty(prefix) => (prefix, !view.any_under(prefix)?),
        };
        if !holds {
            return Ok(Some(Conflict::Guard {
                index,
                key: key.clone(),
            }));
        }
    }
    Ok(None)
}

/// Decides a request: the changes it makes at `revision`, or why it makes none. A request without operations only
/// checks its guards (its commit has no changes).
pub(crate) fn decide<V: View>(
    view: &V,
    request: &Request,
    revision: Revision,
) -> Result<Result<Commit, Conflict>, V::Error> {
    if let Some(conflict) = broken(view, &request.guards)? {
        return Ok(Err(conflict));
    }
    let mut changes = Vec::with_capacity(request.ops.len());
    for op in &request.ops {
        let old = view.entry(op.key())?;
        let value = match op {
            Op::Put(_, value) => Some(value.clone()),
            Op::Delete(_) => None,
            Op::Add { key, delta, limit } => {
                let used = old.as_ref().map_or(0, |e| counter_value(&e.value));
                match add(key, used, *delta, *limit) {
                    Ok(sum) => Some(Bytes::from(sum.to_string())),
                    Err(conflict) => return Ok(Err(conflict)),
                }
            }
        };
        let new = value.map(|value| Entry {
            key: op.key().clone(),
            value,
            created: old.as_ref().map_or(revision, |e| e.created),
            modified: revision,
        });
        if old.is_some() || new.is_some() {
            changes.push((op.key().clone(), old, new));
        }
    }
    Ok(Ok(Commit { revision, changes }))
}
