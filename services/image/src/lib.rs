//! The image service: Glance v2.
//!
//! - `api/`: wire types and thin handlers, one file a noun.
//! - `app/`: validation and transactions, the upload and download of bytes, the collection of unnamed blobs.
//! - `control.rs`: collects the blobs of images that another service deleted.
//!
//! Bytes are inspected by a sandboxed parser (the [`Inspector`] seam) before the image becomes active; what the parser
//! proved is stored with the image and is what every later reader opens it as.

mod api;
mod app;
mod control;
mod policy;

pub use api::service;
pub use app::{App, Inspected, Inspector, Settings};
pub use control::reconcilers;
pub use policy::POLICY;
