//! The block storage service: Cinder v3.
//!
//! A request becomes intent in one transaction ([`app`]); [`control`] places new volumes on a node and moves bytes between
//! nodes and blobs (uploads as images, backups); what the node observes moves the statuses (see `maru_volume_model`).

mod api;
mod app;
mod bootstrap;
mod control;
mod layers;
mod policy;
mod routes;

pub use bootstrap::bootstrap;
pub use policy::POLICY;

use maru_base::Result;
use maru_blob::Blobs;
use maru_control::Reconciler;
use maru_http::{ByteStream, ErrorStyle, Microversion, MicroversionHeader, Microversions, Service};
use maru_store::Store;
use std::sync::Arc;

/// The lowest microversion.
pub const MIN_VERSION: Microversion = Microversion::new(3, 0);
/// The highest microversion.
pub const MAX_VERSION: Microversion = Microversion::new(3, 71);

/// What only the node of a volume has: its bytes.
#[async_trait::async_trait]
pub trait VolumeBytes: Send + Sync + 'static {
    /// The bytes of a volume or a snapshot as of now, as a file of `format` (`raw` or `qcow2`).
    ///
    /// # Errors
    /// 503 when the node cannot be asked now, 404 when it does not have them.
    async fn read(&self, host: &str, id: &str, format: &str) -> Result<ByteStream>;
}

/// Where an uploaded volume goes: the image service, whose App only the binary knows.
#[async_trait::async_trait]
pub trait ImageSink: Send + Sync + 'static {
    /// Fills a queued image with these bytes; when it returns, the image is active.
    ///
    /// # Errors
    /// What the image service refuses; 404 when the image was deleted meanwhile.
    async fn fill(&self, image_id: &str, bytes: ByteStream) -> Result<()>;
}

/// The service's state.
pub struct App {
    pub(crate) store: Store,
    pub(crate) bytes: Arc<dyn VolumeBytes>,
    pub(crate) images: Arc<dyn ImageSink>,
    /// The backups' bytes, apart from the images'.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// Read while a finished blob waits for the backup that names it; written while unnamed blobs are removed.
    pub(crate) naming: tokio::sync::RwLock<()>,
}

impl App {
    /// The service over a store, the nodes' bytes, the images, and the blobs of backups (its own: what no backup names is
    /// removed).
    #[must_use]
    pub fn new(store: Store, bytes: Arc<dyn VolumeBytes>, images: Arc<dyn ImageSink>, blobs: Arc<dyn Blobs>) -> Self {
        Self {
            store,
            bytes,
            images,
            blobs,
            naming: tokio::sync::RwLock::new(()),
        }
    }

    /// Removes blobs that a dead process left without a name. Called once at start, before requests.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub async fn recover(&self) -> Result<()> {
        for digest in self.blobs.list().await? {
            control::backups::collect(self, &digest).await?;
        }
        Ok(())
    }
}

/// The service's APIs: the versioned one, with and without a project in its path as clients of all ages write it, and the
/// list of versions above it.
#[must_use]
pub fn services(app: &Arc<App>) -> Vec<Service> {
    let microversions = Some(Microversions {
        frozen: None,
        header: MicroversionHeader {
            service: "volume",
            legacy: None,
        },
        min: MIN_VERSION,
        max: MAX_VERSION,
    });
    vec![
        Service {
            name: "volume",
            prefixes: &["/volume/v3", "/volume/v3/{url_project}"],
            errors: ErrorStyle::Compute,
            strict_slash: true,
            microversions,
            routes: routes::build(app),
        },
        Service {
            name: "volume-versions",
            prefixes: &["/volume"],
            errors: ErrorStyle::Compute,
            strict_slash: false,
            microversions: None,
            routes: routes::versions(app),
        },
    ]
}

/// The service's controllers.
#[must_use]
pub fn reconcilers(app: &Arc<App>) -> Vec<Arc<dyn Reconciler>> {
    vec![
        Arc::new(control::placing::Placing),
        Arc::new(control::groups::Groups),
        Arc::new(control::messages::Messages),
        Arc::new(control::uploads::Uploads(Arc::clone(app))),
        Arc::new(control::backups::Backups(Arc::clone(app))),
        Arc::new(control::moves::Moves(Arc::clone(app))),
        Arc::new(control::assembling::Assembling(Arc::clone(app))),
    ]
}
