//! The suite on the embedded engine.
#![allow(clippy::unwrap_used, missing_docs)]

use maru_store::{
    Engine,
    engine::redb::{Options, Redb},
};
use std::sync::Arc;

async fn fresh() -> (Arc<dyn Engine>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Redb::open(&folder.path().join("store.redb"), Options::default()).unwrap();
    (Arc::new(engine), folder)
}

maru_store::conformance_suite!(fresh());
