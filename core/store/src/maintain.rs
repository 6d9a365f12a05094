//! Looking after a store: comparing mirror and engine, backup and restore, the level of the cluster.

use crate::{
    CommitError, Engine, Guard, Key, Op, Revision, Store, Txn,
    engine::{Entry, Outcome, Request},
    limits,
    mirror::{INCARNATION, hash_of},
};
use bytes::Bytes;
use maru_base::{Error, Result, hex, unhex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::Arc,
};

/// The level of values, key layouts and guards that this release reads and writes.
pub const LEVEL: u32 = 1;
/// The lowest level of all live processes; everything is written at this level.
const LEVEL_KEY: &str = "cluster/level";
/// Is there while a restore runs; a store that has it is not whole.
const RESTORING: &str = "cluster/restoring";
/// What a backup file begins with.
const FORMAT: &str = "maru-backup-1";

/// A comparison of the mirror with the engine at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The revision both were read at.
    pub revision: Revision,
    /// Over all that the mirror has.
    pub mirror: String,
    /// Over what of the engine is mirrored.
    pub engine: String,
    /// The first objects that differ (at most ten), for the log.
    pub differences: Vec<String>,
}

impl Digest {
    /// Whether the mirror is what the engine says.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.mirror == self.engine && self.differences.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    revision: Revision,
    incarnation: String,
}

/// One key of a backup; a value that is not text is in hexadecimal.
#[derive(Serialize, Deserialize)]
struct Line {
    k: Key,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct End {
    entries: usize,
    sha256: String,
}

/// What a backup file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Incarnation and revision it was taken at.
    pub incarnation: String,
    /// See `incarnation`.
    pub revision: Revision,
    /// How many keys it has.
    pub entries: usize,
}

fn digest_of(mut prints: Vec<(Key, Revision, Revision, u64)>) -> String {
    prints.sort();
    let mut hasher = Sha256::new();
    for (key, created, modified, hash) in prints {
        hasher.update(key.as_str());
        hasher.update([0]);
        hasher.update(created.to_le_bytes());
        hasher.update(modified.to_le_bytes());
        hasher.update(hash.to_le_bytes());
    }
    hex(&hasher.finalize())
}

/// All entries of an engine and their revision.
async fn everything(engine: &dyn Engine) -> Result<(Revision, Vec<Entry>)> {
    let all = engine.range(&Key::from_raw(""), None, usize::MAX).await;
    all.map_err(|e| CommitError::Unavailable(e).into())
}

/// Refuses a store that this release must not open.
pub(crate) fn check_openable(entries: &[Entry]) -> std::result::Result<(), String> {
    let find = |key: &str| entries.iter().find(|e| e.key.as_str() == key);
    if find(RESTORING).is_some() {
        return Err("a restore into it did not finish: restore again into an empty store".to_owned());
    }
    let level = find(LEVEL_KEY)
        .and_then(|e| std::str::from_utf8(&e.value).ok()?.parse::<u32>().ok())
        .unwrap_or(LEVEL);
    if level > LEVEL {
        return Err(format!(
            "it is at level {level}, this release reads up to {LEVEL}: start a newer release"
        ));
    }
    Ok(())
}

impl Store {
    /// The level at which everything is written.
    #[must_use]
    pub fn level(&self) -> u32 {
        let stored = self.snapshot().raw(&Key::from_raw(LEVEL_KEY));
        stored
            .and_then(|(_, v)| std::str::from_utf8(&v).ok()?.parse().ok())
            .unwrap_or(LEVEL)
    }

    /// Raises the level: a stored step, after which processes of a lower level refuse to start.
    ///
    /// # Errors
    /// When this release does not know the level, or it would be lowered.
    pub async fn raise_level(&self, level: u32) -> Result<()> {
        if level > LEVEL {
            return Err(Error::bad_request(format!(
                "This release reads up to level {LEVEL}, not {level}."
            )));
        }
        let key = Key::from_raw(LEVEL_KEY);
        self.plan(|snapshot| {
            let mut txn = Txn::new();
            match snapshot.raw(&key) {
                Some((revision, value)) => {
                    let have: u32 = std::str::from_utf8(&value)
                        .ok()
                        .and_then(|t| t.parse().ok())
                        .unwrap_or(LEVEL);
                    if level < have {
                        return Err(Error::conflict(format!("The level is {have} and is never lowered.")));
                    }
                    txn.guard(Guard::At(key.clone(), revision));
                }
                None => {
                    txn.guard(Guard::Absent(key.clone()));
                }
            }
            txn.op(Op::Put(key.clone(), Bytes::from(level.to_string())));
            Ok((txn, ()))
        })
        .await
    }

    /// Compares the mirror with the engine, both at one revision.
    ///
    /// # Errors
    /// When the engine cannot be read, or writes never pause long enough to catch both at one revision.
    pub async fn digest(&self) -> Result<Digest> {
        for attempt in 0..50 {
            let (revision, entries) = everything(&**self.engine()).await?;
            self.wait(revision).await;
            let state = self.snapshot().inner;
            if state.revision() != revision {
                crate::store::back_off(attempt, 100).await;
                continue;
            }
            let mirrored = || entries.iter().filter(|e| state.mirrors(&e.key));
            let prints = mirrored()
                .map(|e| (e.key.clone(), e.created, e.modified, hash_of(&e.value)))
                .collect();
            return Ok(Digest {
                revision,
                mirror: digest_of(state.fingerprints()),
                engine: digest_of(prints),
                differences: mirrored().filter_map(|e| state.agrees(e).err()).take(10).collect(),
            });
        }
        Err(Error::unavailable(
            "The store is written to all the time; the comparison needs a moment without writes.",
        ))
    }

    /// Writes everything to a file, as of one revision. The file is complete and on the disk when this returns.
    ///
    /// # Errors
    /// When the engine cannot be read or the file cannot be written.
    pub async fn backup(&self, path: &Path) -> Result<Backup> {
        let (revision, entries) = everything(&**self.engine()).await?;
        let incarnation = self.snapshot().incarnation();
        let path = path.to_owned();
        let written = tokio::task::spawn_blocking(move || write_backup(&path, revision, incarnation, &entries));
        let failed = |e| Error::internal("The backup could not be written.", e);
        written
            .await
            .map_err(|e| failed(std::io::Error::other(e)))?
            .map_err(failed)
    }

    /// Fills an empty engine from a backup. The store begins a new incarnation: what agents run on their machines may
    /// be unknown to it.
    ///
    /// # Errors
    /// When the file is damaged, the engine is not empty, or it cannot be written. A restore that did not finish
    /// leaves a store that does not open.
    pub async fn restore(engine: &Arc<dyn Engine>, path: &Path) -> Result<Backup> {
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_backup(&owned));
        let damaged = |e: String| Error::bad_request(format!("The backup {} cannot be used: {e}", path.display()));
        let (backup, entries) = read.await.map_err(|e| damaged(e.to_string()))?.map_err(damaged)?;
        let marker = Key::from_raw(RESTORING);
        let begin = vec![Op::Put(marker.clone(), Bytes::from_static(b"1"))];
        if commit(engine, vec![Guard::RangeEmpty(Key::from_raw(""))], begin)
            .await?
            .is_none()
        {
            return Err(Error::conflict(
                "A backup is restored into an empty store only; this one is not.",
            ));
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (key, value) in entries {
            if key.as_str() == INCARNATION || key == marker {
                continue;
            }
            if batch.len() == limits::OPS || bytes + key.as_str().len() + value.len() > limits::BYTES {
                commit(engine, Vec::new(), std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += key.as_str().len() + value.len();
            batch.push(Op::Put(key, value));
        }
        commit(engine, Vec::new(), batch).await?;
        let incarnation = Op::Put(Key::from_raw(INCARNATION), Bytes::from(maru_base::random::hex32()));
        commit(engine, Vec::new(), vec![incarnation, Op::Delete(marker)]).await?;
        Ok(backup)
    }
}

/// Commits without a mirror; `None` on a conflict.
async fn commit(engine: &Arc<dyn Engine>, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Option<Revision>> {
    let request = Request {
        id: maru_base::random::u128(),
        guards,
        ops,
    };
    match engine.commit(request).await {
        Outcome::Committed(revision) => Ok(Some(revision)),
        Outcome::Conflict(_) => Ok(None),
        Outcome::Unknown(e) => Err(CommitError::Unavailable(e).into()),
    }
}

fn write_backup(path: &Path, revision: Revision, incarnation: String, entries: &[Entry]) -> std::io::Result<Backup> {
    let mut hasher = Sha256::new();
    // Written beside and renamed, so that a backup that is there is whole.
    let beside = path.with_extension("partial");
    let mut file = BufWriter::new(File::create(&beside)?);
    let mut put = |line: Vec<u8>| {
        hasher.update(&line);
        hasher.update(b"\n");
        file.write_all(&line)?;
        file.write_all(b"\n")
    };
    let head = Head {
        format: FORMAT.to_owned(),
        revision,
        incarnation: incarnation.clone(),
    };
    put(serde_json::to_vec(&head)?)?;
    for entry in entries {
        let text = std::str::from_utf8(&entry.value).ok().map(str::to_owned);
        let x = text.is_none().then(|| hex(&entry.value));
        put(serde_json::to_vec(&Line {
            k: entry.key.clone(),
            t: text,
            x,
        })?)?;
    }
    let end = End {
        entries: entries.len(),
        sha256: hex(&hasher.finalize()),
    };
    file.write_all(&serde_json::to_vec(&end)?)?;
    file.write_all(b"\n")?;
    file.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(Backup {
        incarnation,
        revision,
        entries: entries.len(),
    })
}

type Contents = (Backup, Vec<(Key, Bytes)>);

fn read_backup(path: &Path) -> std::result::Result<Contents, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(file).lines();
    let mut hasher = Sha256::new();
    let first = lines.next().ok_or("it is empty")?.map_err(|e| e.to_string())?;
    let head: Head = serde_json::from_str(&first).map_err(|e| format!("it is not a backup ({e})"))?;
    if head.format != FORMAT {
        return Err(format!("its format is {}, not {FORMAT}", head.format));
    }
    let mut entries = Vec::new();
    let mut held = first;
    for line in lines {
        let line = line.map_err(|e| e.to_string())?;
        hasher.update(&held);
        hasher.update(b"\n");
        held = line;
        if let Ok(end) = serde_json::from_str::<End>(&held) {
            if end.sha256 != hex(&hasher.finalize()) || end.entries != entries.len() {
                return Err("its checksum is wrong".to_owned());
            }
            return Ok((
                Backup {
                    incarnation: head.incarnation,
                    revision: head.revision,
                    entries: entries.len(),
                },
                entries,
            ));
        }
        let Line { k, t, x } = serde_json::from_str(&held).map_err(|e| format!("line {}: {e}", entries.len() + 2))?;
        let value = match (t, x) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(x)) => unhex(&x).ok_or_else(|| format!("line {}: bad digits", entries.len() + 2))?,
            _ => return Err(format!("line {}: no value", entries.len() + 2)),
        };
        entries.push((k, value.into()));
    }
    Err("its end is missing".to_owned())
}
