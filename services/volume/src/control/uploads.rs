//! Uploads of volumes as images: the bytes go from the volume's node into the image.
//!
//! A process that dies midway leaves the volume `uploading` and the image queued; the next one begins the upload again.

use crate::App;
use maru_base::{ErrorKind, Result};
use maru_control::{Next, Reconciler};
use maru_store::{Kind, Snapshot, Store, Txn};
use maru_volume_model::{Status, Volume, VolumeId, message};
use std::sync::Arc;

/// The reconciler, keyed by volume.
pub(crate) struct Uploads(pub(crate) Arc<App>);

#[async_trait::async_trait]
impl Reconciler for Uploads {
    fn name(&self) -> &'static str {
        "volume-uploads"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![Volume::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let waits = snapshot
            .get::<Volume>(&id.into())
            .is_some_and(|v| v.value.status == Status::Uploading);
        if waits { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .find::<Volume>("status", Status::Uploading.word())
            .map(|v| v.id.to_string())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = VolumeId::from(key);
        let Some(volume) = store.snapshot().get::<Volume>(&id) else {
            return Ok(Next::Done);
        };
        let v = &volume.value;
        let (Status::Uploading, Some(upload), Some(host)) = (v.status, &v.upload, &v.host) else {
            return Ok(Next::Done);
        };
        let done = async {
            let bytes = self.0.bytes.read(host, key, &upload.format).await?;
            self.0.images.fill(&upload.image_id, bytes).await
        }
        .await;
        let failed = done.is_err();
        match done {
            Ok(()) => {}
            // The node or the image service is away: again later.
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Err(e),
            Err(e) => {
                tracing::warn!(volume = key, image = upload.image_id, request_id = v.request_id, error = %e.chain(), "the volume was not uploaded");
            }
        }
        store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(now) = snapshot.get::<Volume>(&id)
                    && now.value.status == Status::Uploading
                    && now.value.upload.as_ref() == Some(upload)
                {
                    let mut new = (*now.value).clone();
                    new.status = new.before.take().unwrap_or(Status::Available);
                    new.upload = None;
                    new.updated = Some(maru_base::time::now());
                    if failed {
                        let event = message::Event {
                            resource: "VOLUME",
                            action: message::UPLOAD,
                            detail: message::NOT_UPLOADED,
                        };
                        message::plan_message(&mut txn, &new.project_id, &id, &new.request_id, event);
                    }
                    txn.update(&now, &new);
                }
                Ok((txn, ()))
            })
            .await?;
        Ok(Next::Done)
    }
}
