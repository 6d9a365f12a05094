//! Reading the file.

use super::{ENTRIES, LOG, META};
use crate::{
    Key, Revision,
    engine::{Commit, Entry, codec},
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableError};
use std::{collections::HashMap, ops::Bound, sync::Arc};

/// What a fresh start needs.
pub(super) struct Start {
    pub(super) revision: Revision,
    pub(super) txns: HashMap<u128, Revision>,
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// `None` for a table that no commit has made yet.
fn there<T>(table: Result<T, TableError>) -> Result<Option<T>, String> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn revision_in(read: &ReadTransaction) -> Result<Revision, String> {
    match there(read.open_table(META))? {
        Some(meta) => Ok(meta.get("revision").map_err(text)?.map_or(0, |v| v.value())),
        None => Ok(0),
    }
}

pub(super) fn start(db: &Database) -> Result<Start, String> {
    let read = db.begin_read().map_err(text)?;
    let mut txns = HashMap::new();
    if let Some(table) = there(read.open_table(LOG))? {
        for pair in table.iter().map_err(text)? {
            let (revision, stored) = pair.map_err(text)?;
            txns.insert(codec::id_of(revision.value(), stored.value())?, revision.value());
        }
    }
    Ok(Start {
        revision: revision_in(&read)?,
        txns,
    })
}

pub(super) fn range(
    db: &Database,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> Result<(Revision, Vec<Entry>), String> {
    let read = db.begin_read().map_err(text)?;
    let revision = revision_in(&read)?;
    let mut found = Vec::new();
    let Some(table) = there(read.open_table(ENTRIES))? else {
        return Ok((revision, found));
    };
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix.as_str()),
    };
    for pair in table.range::<&str>((start, Bound::Unbounded)).map_err(text)? {
        if found.len() >= limit {
            break;
        }
        let (key, stored) = pair.map_err(text)?;
        if !key.value().starts_with(prefix.as_str()) {
            break;
        }
        found.push(codec::entry_of(Key::from_raw(key.value()), stored.value())?);
    }
    Ok((revision, found))
}

/// All commits after `after` up to `upto`, or an error when the log does not reach back so far.
///
/// Walks back from the newest commit: what was before a key's next change is what came after this one.
pub(super) fn log(db: &Database, after: Revision, upto: Revision) -> Result<Vec<Arc<Commit>>, String> {
    let gone = || format!("history after {after} is gone");
    let read = db.begin_read().map_err(text)?;
    let table = there(read.open_table(LOG))?.ok_or_else(gone)?;
    let entries = there(read.open_table(ENTRIES))?.ok_or_else(gone)?;
    let now = |key: &Key| -> Result<Option<Entry>, String> {
        let stored = entries.get(key.as_str()).map_err(text)?;
        stored
            .map(|stored| codec::entry_of(key.clone(), stored.value()))
            .transpose()
    };
    let mut later: HashMap<Key, Option<Entry>> = HashMap::new();
    let mut found = Vec::new();
    let mut oldest = None;
    for pair in table.range(after + 1..).map_err(text)?.rev() {
        let (revision, stored) = pair.map_err(text)?;
        let revision = revision.value();
        let mut changes = Vec::new();
        for (key, old) in codec::before_of(revision, stored.value())? {
            let new = match later.insert(key.clone(), old.clone()) {
                Some(new) => new,
                None => now(&key)?,
            };
            changes.push((key, old, new));
        }
        if revision <= upto {
            found.push(Arc::new(Commit { revision, changes }));
        }
        oldest = Some(revision);
    }
    // Revisions have no holes, so a missing first one was dropped.
    if upto > after && oldest != Some(after + 1) {
        return Err(gone());
    }
    found.reverse();
    Ok(found)
}
