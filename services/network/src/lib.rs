//! The network service: Neutron v2.0.
//!
//! `api` holds the wire types and thin handlers, `app` validation and transactions, `control` the reconcilers; the stored
//! types, the rules and the planners are in the crate `maru-network-model`, where other services find them too.

mod api;
mod app;
mod bootstrap;
mod control;
mod policy;

pub use app::App;
pub use bootstrap::bootstrap;
pub use policy::POLICY;

use maru_control::Reconciler;
use std::sync::Arc;

/// The service's API.
#[must_use]
pub fn service(app: Arc<App>) -> maru_http::Service {
    maru_http::Service {
        name: "network",
        prefixes: &["/network"],
        errors: maru_http::ErrorStyle::Network,
        strict_slash: false,
        microversions: None,
        routes: api::routes(app),
    }
}

/// The service's reconcilers.
#[must_use]
pub fn reconcilers(_app: Arc<App>) -> Vec<Arc<dyn Reconciler>> {
    vec![
        Arc::new(control::routers::HostRouters),
        Arc::new(control::dhcp::DhcpPorts),
    ]
}
