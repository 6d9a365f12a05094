//! Backups: bytes of a volume or a snapshot become a blob; a deleted backup's blob goes when nothing else names it.
//!
//! ```text
//!  creating ─► bytes from the node ─► blob ─► available (digest, bytes), volume as before
//!           └► refused for good ─► error with the reason, volume as before
//!  deleting ─► record gone, quota back ─► blob gone unless another backup names it
//! ```
//!
//! An incremental backup's blob holds what changed since its parent (`layers`).
//!
//! A process that dies midway leaves the backup `creating`; the next one reads the bytes again.

use crate::{App, layers::Chain};
use bytes::Bytes;
use futures_util::StreamExt;
use maru_base::{Error, ErrorKind, Result};
use maru_blob::SealedBlob;
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Object, Snapshot, Store, Txn};
use maru_volume_model::{Backup, BackupId, BackupStatus, Status, Volume, message, quota};
use std::sync::Arc;

/// The reconciler, keyed by backup.
pub(crate) struct Backups(pub(crate) Arc<App>);

fn work(status: BackupStatus) -> bool {
    matches!(status, BackupStatus::Creating | BackupStatus::Deleting)
}

#[async_trait::async_trait]
impl Reconciler for Backups {
    fn name(&self) -> &'static str {
        "volume-backups"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Backup::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let waits = snapshot.get::<Backup>(&id.into()).is_some_and(|b| work(b.value.status));
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .list::<Backup>()
            .filter(|b| work(b.value.status))
            .map(|b| b.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = BackupId::from(key);
        let Some(backup) = store.snapshot().get::<Backup>(&id) else {
            return Ok(Next::Done);
        };
        match backup.value.status {
            BackupStatus::Creating => self.make(store, &backup).await?,
            BackupStatus::Deleting => self.remove(store, &backup).await?,
            _ => {}
        }
        Ok(Next::Done)
    }
}

impl Backups {
    async fn make(&self, store: &Store, backup: &Object<Backup>) -> Result<()> {
        let b = &backup.value;
        let sealed = match self.read(store, b).await {
            Ok(sealed) => Ok(sealed),
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Err(e),
            Err(e) => {
                tracing::warn!(backup = %backup.id, request_id = b.request_id, error = %e.chain(), "the backup was not made");
                Err(e.message().to_owned())
            }
        };
        // From here to the commit the blob has no name; the collector must not take it.
        let _naming = self.0.naming.read().await;
        let made = match sealed {
            Ok(sealed) => Ok(sealed.place().await?),
            Err(why) => Err(why),
        };
        let id = backup.id.clone();
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let Some(now) = snapshot
                    .get::<Backup>(&id)
                    .filter(|b| b.value.status == BackupStatus::Creating)
                else {
                    return Ok((txn, ()));
                };
                let mut new = (*now.value).clone();
                match &made {
                    Ok(info) => {
                        new.status = BackupStatus::Available;
                        new.digest = Some(info.digest.clone());
                        new.delta = new.parent.is_some();
                        new.bytes = info.size;
                    }
                    Err(why) => {
                        new.status = BackupStatus::Error;
                        new.fail_reason = Some(why.clone());
                        let event = message::Event {
                            resource: "VOLUME_BACKUP",
                            action: message::BACKUP_CREATE,
                            detail: message::NOT_BACKED_UP,
                        };
                        message::plan_message(&mut txn, &new.project_id, &id, &new.request_id, event);
                    }
                }
                new.updated = Some(maru_base::time::now());
                txn.update(&now, &new);
                if let Some(volume) = snapshot.get::<Volume>(&new.volume_id)
                    && volume.value.status == Status::BackingUp
                    && volume.value.backup.as_ref() == Some(&id)
                {
                    let mut v = (*volume.value).clone();
                    v.status = v.before.take().unwrap_or(Status::Available);
                    v.backup = None;
                    v.updated = new.updated;
                    txn.update(&volume, &v);
                }
                Ok((txn, ()))
            })
            .await
    }

    /// Reads the bytes from the volume's node into a blob that has no place yet.
    async fn read(&self, store: &Store, b: &Backup) -> Result<SealedBlob> {
        let snapshot = store.snapshot();
        let (host, from) = match &b.snapshot_id {
            Some(id) => {
                let read = maru_volume_model::find_snapshot(&snapshot, id)?;
                (read.value.host.clone(), read.value.bytes_of(id))
            }
            None => {
                let volume = maru_volume_model::find_volume(&snapshot, &b.volume_id)?;
                (volume.value.host.clone(), b.volume_id.to_string())
            }
        };
        let host = host.ok_or_else(|| Error::not_found("No node has the volume's bytes."))?;
        let whole = pull(&self.0, &host, &from).await?;
        let Some(parent) = &b.parent else {
            return Ok(whole);
        };
        // Only what changed is kept; the whole goes when this is done.
        let base = super::assembling::chain(&self.0, &snapshot, parent)?;
        write(&self.0, move |sink| {
            let new = Chain::open(&[whole.path().to_owned()])?;
            Chain::open(&base)?.changes(&new, sink)
        })
        .await
    }

    async fn remove(&self, store: &Store, backup: &Object<Backup>) -> Result<()> {
        let id = backup.id.clone();
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(now) = snapshot.get::<Backup>(&id) {
                    quota::give(
                        snapshot,
                        &mut txn,
                        &now.value.project_id,
                        &quota::of_backup(i64::from(now.value.size)),
                    );
                    txn.delete(&now);
                }
                Ok((txn, ()))
            })
            .await?;
        if let Some(digest) = &backup.value.digest {
            collect(&self.0, digest).await?;
        }
        Ok(())
    }
}

/// Reads the bytes of a volume or snapshot from a node into a blob that has no place yet.
pub(crate) async fn pull(app: &App, host: &str, from: &str) -> Result<SealedBlob> {
    let mut bytes = app.bytes.read(host, from, "qcow2").await?;
    let mut writer = app.blobs.begin().await?;
    while let Some(chunk) = bytes.next().await {
        writer
            .write(chunk.map_err(|e| Error::unavailable("The node broke off.").with_source(e))?)
            .await?;
    }
    writer.seal().await
}

/// A blob of what a blocking writer writes, without a place yet.
pub(crate) async fn write(
    app: &App,
    writer: impl FnOnce(&mut dyn FnMut(Bytes) -> Result<()>) -> Result<()> + Send + 'static,
) -> Result<SealedBlob> {
    let mut blob = app.blobs.begin().await?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(16);
    let writing = tokio::task::spawn_blocking(move || {
        writer(&mut |bytes| {
            sender
                .blocking_send(bytes)
                .map_err(|_| Error::unavailable("The blob could not be written."))
        })
    });
    while let Some(bytes) = receiver.recv().await {
        blob.write(bytes).await?;
    }
    writing
        .await
        .map_err(|e| Error::internal("the writer of a backup broke off", e))??;
    blob.seal().await
}

/// Removes a blob that neither a backup nor a volume names. Blobs are named by their contents: another backup may be the same bytes.
pub(crate) async fn collect(app: &App, digest: &str) -> Result<()> {
    let _alone = app.naming.write().await;
    let snapshot = app.store.current().await?;
    let named = snapshot.find::<Backup>("digest", digest).next().is_some()
        || snapshot.find::<Volume>("staged", digest).next().is_some();
    if !named {
        app.blobs.delete(digest).await?;
    }
    Ok(())
}
