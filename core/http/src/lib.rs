//! What every REST API shares: one listener, service prefixes, routing, microversions, paging, filters, sorting,
//! error bodies, limits, request ids, access log, policy and audit at every route.
//!
//! A service is a [`Service`]: a name, a prefix and a table of [`Route`]s. A handler is a plain async function
//! `async fn show(app: Arc<App>, request: Request) -> Result<Reply>`; by the time it runs, the token is verified,
//! the policy rule of the route has passed the coarse check against the caller's own scope, and the path is parsed.
//! For an object it loads, the handler calls [`Request::authorize`] with that object's attributes.

mod body;
mod dispatch;
mod error_body;
pub mod forms;
mod metrics;
mod microversion;
mod neighbours;
pub mod paging;
mod query;
mod reply;
mod request;
mod server;
mod service;
mod websocket;
mod wire;

pub use body::{Pace, limits};
pub use dispatch::Gateway;
pub use error_body::ErrorStyle;
pub use metrics::Metrics;
pub use microversion::{Microversion, MicroversionHeader, Microversions};
pub use neighbours::Neighbours;
pub use query::Query;
pub use reply::{ByteStream, Reply};
pub use request::Request;
pub use server::{Limits, Listener, Tls, serve};
pub use service::{Access, Route, Routes, Service};
