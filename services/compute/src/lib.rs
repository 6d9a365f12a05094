//! The compute service (Nova v2.1).
//!
//! A request becomes intent in one transaction ([`app`]); the flow in [`control`] schedules it, allocates, plugs its
//! ports and hands it to a node; what the node observes moves its states (see `maru_compute_model`).

mod api;
mod app;
mod bootstrap;
mod control;
mod policy;
mod routes;

pub use bootstrap::bootstrap;
pub use control::servers::{create_flow, unshelve_flow};
pub use policy::POLICY;

use maru_base::{Error, Result};
use maru_compute_model::ConsoleType;
use maru_control::Reconciler;
use maru_http::{ErrorStyle, Gateway, Microversion, MicroversionHeader, Microversions, Neighbours, Service};
use maru_store::{Store, record::Records};
use std::sync::Arc;

/// The lowest microversion.
pub const MIN_VERSION: Microversion = Microversion::new(2, 1);
/// The highest microversion.
pub const MAX_VERSION: Microversion = Microversion::new(2, 96);

/// A two-way stream of bytes.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// What only the node of a server can tell, on demand.
#[async_trait::async_trait]
pub trait Consoles: Send + Sync + 'static {
    /// The newest `lines` lines of a server's serial log; all that is kept, if `None`.
    ///
    /// # Errors
    /// 503 when the node cannot be asked now.
    async fn log(&self, host: &str, server: &str, lines: Option<usize>) -> Result<Vec<u8>>;
    /// Makes a queued image of a server's boot disk as of now; when it returns, the image is active.
    ///
    /// # Errors
    /// 503 when the node cannot be asked now, 404 when the image was deleted meanwhile.
    async fn upload_disk(&self, host: &str, server: &str, image: &str) -> Result<()> {
        let _ = (host, server, image);
        Err(Error::not_implemented("This node gives no disks."))
    }
    /// Live figures of a server, as its hypervisor gives them.
    ///
    /// # Errors
    /// 501 when the node has none, 503 when it cannot be asked now.
    async fn diagnostics(&self, host: &str, server: &str) -> Result<serde_json::Value> {
        let _ = (host, server);
        Err(Error::not_implemented("This node gives no diagnostics."))
    }
    /// Sends a running server a non-maskable interrupt.
    ///
    /// # Errors
    /// 409 when it does not run, 503 when its node cannot be asked now.
    async fn inject_nmi(&self, host: &str, server: &str) -> Result<()> {
        let _ = (host, server);
        Err(Error::not_implemented("This node sends no interrupts."))
    }
    /// Has a node pull an image now; returns when it is there.
    ///
    /// # Errors
    /// 503 when the node cannot be asked now.
    async fn cache_image(&self, host: &str, digest: &str, format: &str) -> Result<()> {
        let _ = (host, digest, format);
        Err(Error::not_implemented("This node keeps no images."))
    }
    /// A server's screen (RFB) or serial line.
    ///
    /// # Errors
    /// 404 when it does not run, 503 when its node cannot be asked now.
    async fn console(&self, host: &str, server: &str, kind: ConsoleType) -> Result<Box<dyn Duplex>> {
        let _ = (host, server, kind);
        Err(Error::not_implemented("This node has no consoles."))
    }
    /// What a server's guest posted as its password, encrypted with its user's key.
    ///
    /// # Errors
    /// 503 when its node cannot be asked now.
    async fn password(&self, host: &str, server: &str) -> Result<Option<Vec<u8>>> {
        let _ = (host, server);
        Err(Error::not_implemented("This node keeps no passwords."))
    }
    /// Forgets that password.
    ///
    /// # Errors
    /// 503 when its node cannot be asked now.
    async fn clear_password(&self, host: &str, server: &str) -> Result<()> {
        let _ = (host, server);
        Err(Error::not_implemented("This node keeps no passwords."))
    }
}

/// The service's state: a store, and the doors into the nodes.
pub struct App {
    pub(crate) store: Store,
    pub(crate) consoles: Arc<dyn Consoles>,
    pub(crate) records: Option<Arc<dyn Records>>,
    pub(crate) neighbours: Neighbours,
    /// Remote consoles that are open.
    pub(crate) slots: api::console_slots::Slots,
}

impl App {
    /// The service over a store. `records` keeps the servers' stories (stream `server-event`).
    #[must_use]
    pub fn new(store: Store, consoles: Arc<dyn Consoles>, records: Option<Arc<dyn Records>>) -> Self {
        Self {
            store,
            consoles,
            records,
            neighbours: Neighbours::default(),
            slots: api::console_slots::Slots::default(),
        }
    }
    /// Opens the way to the other services, for the old addresses that stand for theirs.
    pub fn connect(&self, gateway: &Arc<Gateway>) {
        self.neighbours.connect(gateway);
    }
    /// Adds to a server's story. A story that cannot be kept does not stop the work; the log says so.
    pub(crate) async fn record(&self, server: &str, request_id: &str, event: &str) {
        control::servers::record(self.records.as_ref(), server, request_id, event, None).await;
    }
}

/// The service's API.
#[must_use]
pub fn service(app: Arc<App>) -> Service {
    Service {
        name: "compute",
        prefixes: &["/compute"],
        errors: ErrorStyle::Compute,
        strict_slash: true,
        microversions: Some(Microversions {
            header: MicroversionHeader {
                service: "compute",
                legacy: Some("X-OpenStack-Nova-API-Version"),
            },
            min: MIN_VERSION,
            max: MAX_VERSION,
            frozen: Some(("/v2", "/v2.1")),
        }),
        routes: routes::build(app),
    }
}

/// The service's controllers.
#[must_use]
pub fn reconcilers(app: Arc<App>) -> Vec<Arc<dyn Reconciler>> {
    vec![
        Arc::new(control::servers::StepLists::new(create_flow(), app.records.clone())),
        Arc::new(control::servers::StepLists::new(unshelve_flow(), app.records.clone())),
        Arc::new(control::images::Images(Arc::clone(&app))),
        Arc::new(control::sweeper::Sweeper),
    ]
}
