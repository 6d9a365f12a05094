//! The placement service: the Placement API, microversions 1.0 to 1.39.
//!
//! `api` holds the wire types and thin handlers, `app` validation and transactions; the stored types, the rules and the
//! planners are in the crate `maru-placement-model`, where the compute service finds them too: its scheduler allocates in
//! its own transactions, beside what this API allocates.
//!
//! Providers, inventories, traits, classes and aggregates are the operator's and the services' own; no tenant sees them.
//! What a project uses of all of them it may ask for itself (`GET /usages`).

mod api;
mod app;
mod policy;

pub use app::App;
pub use policy::POLICY;

use maru_http::{Microversion, MicroversionHeader, Microversions};
use std::sync::Arc;

/// Where the service is mounted; its links and locations begin with it, as upstream's do with the name of its script.
pub(crate) const PREFIX: &str = "/placement";

/// The microversions that are served.
pub(crate) const VERSIONS: Microversions = Microversions {
    frozen: None,
    header: MicroversionHeader {
        service: "placement",
        legacy: None,
    },
    min: Microversion::new(1, 0),
    max: Microversion::new(1, 39),
};

/// The service's API.
#[must_use]
pub fn service(app: Arc<App>) -> maru_http::Service {
    maru_http::Service {
        name: "placement",
        prefixes: &[PREFIX],
        errors: maru_http::ErrorStyle::Errors,
        strict_slash: false,
        microversions: Some(VERSIONS),
        routes: api::routes(app),
    }
}
