//! Restores backups that hold only what changed: they and what they build upon become one blob, and the volume is made of that.
//!
//! ```text
//!  assemble = the newest backup ─► blobs of the chain ─► one blob (staged) ─► the volume's source; its node makes the bytes
//!                              └► damaged ─► error or error_restoring, told
//! ```
//!
//! A process that dies midway begins again.

use crate::{App, control::backups, layers::Chain};
use maru_base::{Error, ErrorKind, Result};
use maru_blob::SealedBlob;
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Snapshot, Store, Txn};
use maru_volume_model::{Backup, BackupId, BackupStatus, Source, Status, Volume, VolumeId, message};
use std::{path::PathBuf, sync::Arc};

/// The reconciler, keyed by volume.
pub(crate) struct Assembling(pub(crate) Arc<App>);

fn waits(v: &Volume) -> bool {
    v.assemble.is_some() && !v.removing
}

#[async_trait::async_trait]
impl Reconciler for Assembling {
    fn name(&self) -> &'static str {
        "volume-assembling"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Volume::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let waits = snapshot.get::<Volume>(&id.into()).is_some_and(|v| waits(&v.value));
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        [Status::Creating, Status::RestoringBackup]
            .iter()
            .flat_map(|s| snapshot.find::<Volume>("status", s.word()))
            .filter(|v| waits(&v.value))
            .map(|v| v.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = VolumeId::from(key);
        let Some(backup) = store
            .snapshot()
            .get::<Volume>(&id)
            .filter(|v| waits(&v.value))
            .and_then(|v| v.value.assemble.clone())
        else {
            return Ok(Next::Done);
        };
        let sealed = match whole(&self.0, &store.snapshot(), &backup).await {
            Ok(sealed) => Ok(sealed),
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Err(e),
            Err(e) => {
                tracing::error!(volume = key, %backup, error = %e.chain(), "the backup was not put together");
                Err(())
            }
        };
        // From here to the commit the blob has no name; the collector must not take it.
        let _naming = self.0.naming.read().await;
        let placed = match sealed {
            Ok(sealed) => Some(sealed.place().await?),
            Err(()) => None,
        };
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let Some(now) = snapshot
                    .get::<Volume>(&id)
                    .filter(|v| waits(&v.value) && v.value.assemble.as_ref() == Some(&backup))
                else {
                    return Ok((txn, ()));
                };
                let mut new = (*now.value).clone();
                new.assemble = None;
                match &placed {
                    Some(blob) => {
                        new.staged = Some(blob.digest.clone());
                        new.source = Source::Backup {
                            id: backup.clone(),
                            digest: blob.digest.clone(),
                        };
                        if new.host.is_some() {
                            new.content += 1;
                        }
                    }
                    None => {
                        new.status = if new.host.is_some() {
                            Status::ErrorRestoring
                        } else {
                            Status::Error
                        };
                        new.fault = Some("The backup could not be put together.".to_owned());
                        let event = message::Event {
                            resource: "VOLUME",
                            action: message::BACKUP_RESTORE,
                            detail: message::NOT_RESTORED,
                        };
                        message::plan_message(&mut txn, &new.project_id, &id, &new.request_id, event);
                        if let Some(read) = new.backup.take().and_then(|b| snapshot.get::<Backup>(&b))
                            && read.value.status == BackupStatus::Restoring
                        {
                            let mut done = (*read.value).clone();
                            done.status = BackupStatus::Available;
                            txn.update(&read, &done);
                        }
                    }
                }
                new.asked_after = snapshot.revision();
                new.updated = Some(maru_base::time::now());
                txn.update(&now, &new);
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}

/// Files of a backup and of all that it builds upon, the full one first.
pub(crate) fn chain(app: &App, snapshot: &Snapshot, newest: &BackupId) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut next = Some(newest.clone());
    while let Some(id) = next {
        let read = snapshot
            .get::<Backup>(&id)
            .ok_or_else(|| Error::not_found(format!("The backup {id}, which others build upon, is gone.")))?;
        let path = read
            .value
            .digest
            .as_deref()
            .and_then(|d| app.blobs.path(d))
            .ok_or_else(|| Error::not_found(format!("The bytes of the backup {id} are not here.")))?;
        paths.push(path);
        next = read.value.parent.clone().filter(|_| read.value.delta);
    }
    paths.reverse();
    Ok(paths)
}

/// The disk of a backup and all that it builds upon, as a blob that has no place yet.
async fn whole(app: &App, snapshot: &Snapshot, newest: &BackupId) -> Result<SealedBlob> {
    let paths = chain(app, snapshot, newest)?;
    backups::write(app, move |sink| Chain::open(&paths)?.whole(sink)).await
}
