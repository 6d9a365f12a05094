//! Bytes of the embedded engine's tables.

use super::{Commit, Entry};
use crate::{Key, Revision};
use bytes::Bytes;

/// An entry as stored under its key: creation, last write, value.
pub(crate) fn entry_bytes(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + entry.value.len());
    out.extend_from_slice(&entry.created.to_le_bytes());
    out.extend_from_slice(&entry.modified.to_le_bytes());
    out.extend_from_slice(&entry.value);
    out
}

/// The entry that [`entry_bytes`] wrote.
pub(crate) fn entry_of(key: Key, stored: &[u8]) -> Result<Entry, String> {
    let mut reader = Reader(stored);
    let (Some(created), Some(modified)) = (reader.u64(), reader.u64()) else {
        return Err(format!("the entry {key} is cut short"));
    };
    Ok(Entry {
        key,
        created,
        modified,
        value: Bytes::copy_from_slice(reader.0),
    })
}

/// A commit as the log keeps it: the transaction's id, and per key the entry before. What came after is not repeated:
/// it is what the next commit found before, or what is there now.
pub(crate) fn commit_bytes(id: u128, commit: &Commit) -> Vec<u8> {
    let size = |e: &Option<Entry>| e.as_ref().map_or(0, |e| 20 + e.value.len());
    let total: usize = commit
        .changes
        .iter()
        .map(|(k, old, _)| 5 + k.as_str().len() + size(old))
        .sum();
    let mut out = Vec::with_capacity(20 + total);
    out.extend_from_slice(&id.to_le_bytes());
    put_len(&mut out, commit.changes.len());
    for (key, old, _) in &commit.changes {
        put_slice(&mut out, key.as_str().as_bytes());
        out.push(u8::from(old.is_some()));
        if let Some(entry) = old {
            out.extend_from_slice(&entry.created.to_le_bytes());
            out.extend_from_slice(&entry.modified.to_le_bytes());
            put_slice(&mut out, &entry.value);
        }
    }
    out
}

/// The id of a logged transaction.
pub(crate) fn id_of(revision: Revision, stored: &[u8]) -> Result<u128, String> {
    let id = Reader(stored)
        .take(16)
        .and_then(|b| b.try_into().ok())
        .map(u128::from_le_bytes);
    id.ok_or_else(|| damaged(revision))
}

fn damaged(revision: Revision) -> String {
    format!("the log entry of revision {revision} is damaged")
}

/// Each key of a logged commit and the entry before it.
pub(crate) fn before_of(revision: Revision, stored: &[u8]) -> Result<Vec<(Key, Option<Entry>)>, String> {
    let read = |reader: &mut Reader<'_>| -> Option<Vec<(Key, Option<Entry>)>> {
        reader.take(16)?;
        let count = reader.u32()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let key = Key::from_raw(std::str::from_utf8(reader.slice()?).ok()?);
            let old = match reader.take(1)? {
                [0] => None,
                _ => {
                    let (created, modified) = (reader.u64()?, reader.u64()?);
                    let value = Bytes::copy_from_slice(reader.slice()?);
                    Some(Entry {
                        key: key.clone(),
                        value,
                        created,
                        modified,
                    })
                }
            };
            changes.push((key, old));
        }
        Some(changes)
    };
    read(&mut Reader(stored)).ok_or_else(|| damaged(revision))
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // A transaction is at most some MiB.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_slice(out: &mut Vec<u8>, slice: &[u8]) {
    put_len(out, slice.len());
    out.extend_from_slice(slice);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
    fn slice(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(key: &str) -> impl Strategy<Value = Option<Entry>> + use<> {
        let key = Key::from_raw(key);
        proptest::option::of(
            (any::<u64>(), any::<u64>(), any::<Vec<u8>>()).prop_map(move |(created, modified, v)| Entry {
                key: key.clone(),
                value: v.into(),
                created,
                modified,
            }),
        )
    }

    proptest! {
        #[test]
        fn what_was_before_survives(old in entry("k/1"), id in any::<u128>(), cut in any::<proptest::sample::Index>()) {
            let commit = Commit { revision: 7, changes: vec![(Key::from_raw("k/1"), old.clone(), None)] };
            let stored = commit_bytes(id, &commit);
            let found = before_of(7, &stored).map_err(TestCaseError::fail)?;
            prop_assert_eq!(found, vec![(Key::from_raw("k/1"), old)]);
            prop_assert_eq!(id_of(7, &stored), Ok(id));
            prop_assert!(before_of(7, &stored[..cut.index(stored.len())]).is_err());
        }
    }
}
