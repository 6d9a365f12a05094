//! Images of servers: the bytes of the boot disk go from the node into the image.
//!
//! A process that dies midway leaves the server `image_uploading` and the image queued; the next one begins the upload again. With a
//! backup its elders go; a server that is being shelved goes on from here.

use crate::{App, app::server_images::plan_rotate};
use maru_base::{ErrorKind, Result};
use maru_compute_model::{Server, ServerId, Task, event, finish_action, follow_upload};
use maru_control::{Next, Reconciler};
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_store::{Kind, Snapshot, Store, Txn};
use std::sync::Arc;

/// The reconciler, keyed by server.
pub(crate) struct Images(pub(crate) Arc<App>);

#[async_trait::async_trait]
impl Reconciler for Images {
    fn name(&self) -> &'static str {
        "server-images"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Server::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let waits = snapshot
            .get::<Server>(&id.into())
            .is_some_and(|s| s.value.imaging.is_some());
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .list::<Server>()
            .filter(|s| s.value.imaging.is_some())
            .map(|s| s.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = ServerId::from(key);
        let Some(server) = store.snapshot().get::<Server>(&id) else {
            return Ok(Next::Done);
        };
        let (Some(image), Some(host)) = (server.value.imaging.as_ref(), server.value.host.as_ref()) else {
            return Ok(Next::Done);
        };
        // A process that died after the last byte has left nothing to upload.
        let there = store
            .snapshot()
            .get::<Image>(&ImageId::from(image.as_str()))
            .is_some_and(|i| i.status == ImageStatus::Active);
        let uploaded = if there {
            Ok(())
        } else {
            self.0.consoles.upload_disk(host, key, image).await
        };
        let failure = match uploaded {
            Ok(()) => None,
            // The node or the image service is away: again later.
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Err(e),
            Err(e) => {
                tracing::warn!(server = key, image, request_id = server.value.request_id, error = %e.chain(), "no image was made of the server");
                Some(e.message().to_owned())
            }
        };
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(now) = snapshot.get::<Server>(&id)
                    && now.value.imaging.as_ref() == Some(image)
                {
                    let mut new = (*now.value).clone();
                    new.imaging = None;
                    new.updated = maru_base::time::now();
                    let backup = new.backup.take().filter(|_| failure.is_none());
                    if new.task == Some(Task::ShelvingImageUploading) {
                        follow_upload(snapshot, &mut txn, &now, &mut new, failure.as_deref());
                        txn.update(&now, &new);
                        return Ok((txn, ()));
                    }
                    if new.task == Some(Task::ImageUploading) {
                        new.task = None;
                    }
                    txn.update(&now, &new);
                    if let Some(backup) = &backup {
                        plan_rotate(snapshot, &mut txn, key, image, backup);
                    }
                    let story = event(
                        "compute_snapshot_instance",
                        now.value.updated,
                        new.host.as_deref(),
                        failure.as_deref(),
                    );
                    finish_action(snapshot, &mut txn, &id, &new.request_id, story, true);
                }
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}
