//! Images of servers: the bytes of the boot disk go from the node into the image.
//!
//! A process that dies midway leaves the server `image_uploading` and the image queued; the next one begins the upload again.

use crate::App;
use maru_base::{ErrorKind, Result};
use maru_compute_model::{Server, ServerId, Task, event, finish_action};
use maru_control::{Next, Reconciler};
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
        let (Some(image), Some(host)) = (&server.value.imaging, &server.value.host) else {
            return Ok(Next::Done);
        };
        let failure = match self.0.consoles.upload_disk(host, key, image).await {
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
                    if new.task == Some(Task::ImageUploading) {
                        new.task = None;
                    }
                    new.updated = maru_base::time::now();
                    txn.update(&now, &new);
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
