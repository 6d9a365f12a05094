//! The suite on the engine in memory.
#![allow(clippy::unwrap_used, missing_docs)]

use maru_store::{Engine, engine::Mem};
use std::sync::Arc;

async fn fresh() -> (Arc<dyn Engine>, ()) {
    (Arc::new(Mem::new()), ())
}

maru_store::conformance_suite!(fresh());
