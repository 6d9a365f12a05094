//! Collects blobs that may have lost their last name: those of images that another service's transaction deleted. Whoever deletes
//! through the API collects at once; then there is nothing left to do here.

use crate::App;
use maru_base::Result;
use maru_control::{Next, Reconciler};
use maru_image_model::LooseBlob;
use maru_store::{Kind, Snapshot, Store};
use std::sync::Arc;

/// The service's controllers.
#[must_use]
pub fn reconcilers(app: Arc<App>) -> Vec<Arc<dyn Reconciler>> {
    vec![Arc::new(LooseBlobs(app))]
}

/// The reconciler, keyed by digest.
struct LooseBlobs(Arc<App>);

#[async_trait::async_trait]
impl Reconciler for LooseBlobs {
    fn name(&self) -> &'static str {
        "image-loose-blobs"
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec![LooseBlob::NAME]
    }
    fn keys_for(&self, snapshot: &Snapshot, _kind: &str, id: &str) -> Vec<String> {
        let there = snapshot.get::<LooseBlob>(&id.into()).is_some();
        if there { vec![id.to_owned()] } else { Vec::new() }
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot.list::<LooseBlob>().map(|l| l.id.to_string()).collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        // One that is being placed right now is held by its upload; by the time it can be looked at it has its name.
        if store.snapshot().get::<LooseBlob>(&key.into()).is_some() {
            self.0.collect(key).await?;
        }
        Ok(Next::Done)
    }
}
