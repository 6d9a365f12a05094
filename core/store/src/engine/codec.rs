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

/// A commit as the log keeps it.
pub(crate) fn commit_bytes(commit: &Commit) -> Vec<u8> {
    let size = |e: &Option<Entry>| e.as_ref().map_or(0, |e| 20 + e.value.len());
    let total: usize = commit
        .changes
        .iter()
        .map(|(k, o, n)| 5 + k.as_str().len() + size(o) + size(n))
        .sum();
    let mut out = Vec::with_capacity(4 + total);
    put_len(&mut out, commit.changes.len());
    for (key, old, new) in &commit.changes {
        put_slice(&mut out, key.as_str().as_bytes());
        out.push(u8::from(old.is_some()) | u8::from(new.is_some()) << 1);
        for entry in [old, new].into_iter().flatten() {
            out.extend_from_slice(&entry.created.to_le_bytes());
            out.extend_from_slice(&entry.modified.to_le_bytes());
            put_slice(&mut out, &entry.value);
        }
    }
    out
}

/// The commit that [`commit_bytes`] wrote.
pub(crate) fn commit_of(revision: Revision, stored: &[u8]) -> Result<Commit, String> {
    let read = |reader: &mut Reader<'_>| -> Option<Commit> {
        let count = reader.u32()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let key = Key::from_raw(std::str::from_utf8(reader.slice()?).ok()?);
            let flags = reader.take(1)?[0];
            let mut entry = |there: bool| -> Option<Option<Entry>> {
                if !there {
                    return Some(None);
                }
                let (created, modified) = (reader.u64()?, reader.u64()?);
                let value = Bytes::copy_from_slice(reader.slice()?);
                Some(Some(Entry {
                    key: key.clone(),
                    value,
                    created,
                    modified,
                }))
            };
            let (old, new) = (entry(flags & 1 != 0)?, entry(flags & 2 != 0)?);
            changes.push((key, old, new));
        }
        Some(Commit { revision, changes })
    };
    read(&mut Reader(stored)).ok_or_else(|| format!("the log entry of revision {revision} is damaged"))
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
        fn a_commit_survives(old in entry("k/1"), new in entry("k/1"), cut in any::<proptest::sample::Index>()) {
            let commit = Commit { revision: 7, changes: vec![(Key::from_raw("k/1"), old, new)] };
            let stored = commit_bytes(&commit);
            prop_assert_eq!(&commit_of(7, &stored).map_err(TestCaseError::fail)?.changes, &commit.changes);
            prop_assert!(commit_of(7, &stored[..cut.index(stored.len())]).is_err());
        }
    }
}
