//! What the image service does.

mod data;
mod images;
mod members;

pub(crate) use images::{Draft, Filter, PatchOp};

use maru_base::Result;
use maru_blob::Blobs;
use maru_store::Store;
use std::{path::Path, sync::Arc};

/// What a parser proved of an image's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `qcow2` or `raw` and so on: what readers open the bytes as.
    pub proven_format: String,
    /// Bytes that the disk inside shows.
    pub virtual_size: Option<u64>,
}

/// Looks into tenant bytes, in a sandbox; the machine's part supplies it.
#[async_trait::async_trait]
pub trait Inspector: Send + Sync + 'static {
    /// Parses the file's headers and checks them against what the owner declared.
    ///
    /// # Errors
    /// 415 or 400 with what was found and why it is refused (another format, a backing file, an external data file).
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected>;
}

/// The image service's state.
pub struct App {
    pub(crate) store: Store,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) inspector: Arc<dyn Inspector>,
    /// Read while a finished blob waits for the image that names it; written while unnamed blobs are collected.
    pub(crate) naming: tokio::sync::RwLock<()>,
}

impl App {
    /// The service over a store, the blobs and an inspector.
    #[must_use]
    pub fn new(store: Store, blobs: Arc<dyn Blobs>, inspector: Arc<dyn Inspector>) -> Self {
        Self {
            store,
            blobs,
            inspector,
            naming: tokio::sync::RwLock::new(()),
        }
    }
}
