//! The identity service: OpenStack Keystone's v3 API.
//!
//! `api/` has the wire forms and handlers, `app/` the rules and transactions, the model crate what is stored. A token's
//! way: `api/tokens.rs` reads the request, `app/authenticate.rs` decides who and for what, `app/tokens.rs` issues,
//! verifies and caches, `app/keys.rs` seals and opens.

mod api;
mod app;
mod policy;

pub use app::{
    App, Bootstrap, BootstrapReport, Compliance, PasswordRegex, Settings, bootstrap, issue_for_tests,
    passcode_for_tests, rotate_keys, set_catalogue, sign_for_tests, verifier,
};
pub use maru_identity_model::{Secret, decode_token};
pub use policy::POLICY;

use std::sync::Arc;

/// The API, served below `/identity` and, as old habits want it, at the root.
#[must_use]
pub fn service(app: Arc<App>) -> maru_http::Service {
    maru_http::Service {
        name: "identity",
        prefixes: &["/identity", ""],
        errors: maru_http::ErrorStyle::Identity,
        strict_slash: false,
        microversions: None,
        routes: api::routes(app),
    }
}
