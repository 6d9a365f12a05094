//! Volumes that go to another node, and blobs that are kept while a volume is made of them.
//!
//! ```text
//!  maintenance, moving_to ─► bytes of the old node ─► blob (staged) ─► host = the new node, made of the blob
//!                         └► refused for good ─► as before, migration_status error
//!  the new node has them (or cannot) ─► the old one's bytes go (or are the volume's again) ─► the blob goes
//! ```
//!
//! Until the new node has said that it has the bytes, the old one keeps its own: a move that fails leaves the volume where it
//! was, whole. A process that dies midway reads the bytes again.

use crate::{App, control::backups};
use maru_base::{Error, ErrorKind, Result};
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Object, Snapshot, Store, Txn};
use maru_volume_model::{BackupId, Source, Volume, VolumeId};
use std::sync::Arc;

/// The reconciler, keyed by volume.
pub(crate) struct Moves(pub(crate) Arc<App>);

/// Whether the bytes have to be read from the node that has them.
fn to_read(v: &Volume) -> bool {
    v.moving_to.is_some() && v.moved_from.is_none()
}

/// Whether a blob is kept that nothing is made of any more.
fn to_drop(v: &Volume) -> bool {
    let made = v.moved_from.is_none() || v.moved;
    v.staged.is_some() && made && v.moving_to.is_none() && v.backup.is_none() && !v.status.filling()
}

#[async_trait::async_trait]
impl Reconciler for Moves {
    fn name(&self) -> &'static str {
        "volume-moves"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Volume::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let waits = snapshot
            .get::<Volume>(&id.into())
            .is_some_and(|v| to_read(&v.value) || to_drop(&v.value));
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        let moving = snapshot.find::<Volume>("moving", "yes");
        let staged = snapshot.list::<Volume>().filter(|v| to_drop(&v.value));
        let mut all: Vec<String> = moving.chain(staged).map(|v| v.id.to_string()).collect();
        all.sort();
        all.dedup();
        all
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = VolumeId::from(key);
        let Some(volume) = store.snapshot().get::<Volume>(&id) else {
            return Ok(Next::Done);
        };
        if to_read(&volume.value) {
            self.carry(store, &volume).await?;
        } else if to_drop(&volume.value) {
            self.unstage(store, &volume).await?;
        }
        Ok(Next::Done)
    }
}

impl Moves {
    async fn carry(&self, store: &Store, volume: &Object<Volume>) -> Result<()> {
        let (Some(from), Some(to)) = (volume.value.host.clone(), volume.value.moving_to.clone()) else {
            return Ok(());
        };
        let sealed = match backups::pull(&self.0, &from, &volume.id).await {
            Ok(sealed) => Ok(sealed),
            // The node is away: again later.
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Err(e),
            Err(e) => {
                tracing::warn!(volume = %volume.id, request_id = volume.value.request_id, error = %e.chain(), "the volume was not moved");
                Err(())
            }
        };
        // From here to the commit the blob has no name; the collector must not take it.
        let _naming = self.0.naming.read().await;
        let placed = match sealed {
            Ok(sealed) => Some(sealed.place().await?),
            Err(()) => None,
        };
        let id = volume.id.clone();
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                let Some(now) = snapshot
                    .get::<Volume>(&id)
                    .filter(|v| to_read(&v.value) && v.value.moving_to.as_deref() == Some(&to) && !v.value.removing)
                else {
                    return Ok((txn, ()));
                };
                let mut new = (*now.value).clone();
                match &placed {
                    Some(blob) => {
                        new.staged = Some(blob.digest.clone());
                        new.host = Some(to.clone());
                        new.moved_from = Some(from.clone());
                        new.moved = false;
                        new.content += 1;
                        new.source = Source::Backup {
                            id: BackupId::from(""),
                            digest: blob.digest.clone(),
                        };
                        new.migration_status = Some("migrating".to_owned());
                    }
                    None => {
                        new.moving_to = None;
                        new.migration_status = Some("error".to_owned());
                        new.status = new.before.take().unwrap_or(maru_volume_model::Status::Available);
                    }
                }
                new.asked_after = snapshot.revision();
                new.updated = Some(maru_base::time::now());
                txn.update(&now, &new);
                Ok((txn, ()))
            })
            .await
            .map_err(|e: Error| e)
    }

    /// Forgets a blob that was kept for a volume.
    async fn unstage(&self, store: &Store, volume: &Object<Volume>) -> Result<()> {
        let Some(digest) = volume.value.staged.clone() else {
            return Ok(());
        };
        let id = volume.id.clone();
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(now) = snapshot.get::<Volume>(&id)
                    && to_drop(&now.value)
                    && now.value.staged.as_ref() == Some(&digest)
                {
                    let mut new = (*now.value).clone();
                    new.staged = None;
                    txn.update(&now, &new);
                }
                Ok((txn, ()))
            })
            .await?;
        backups::collect(&self.0, &digest).await
    }
}
