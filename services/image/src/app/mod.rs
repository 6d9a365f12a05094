//! What the image service does.

mod attributes;
mod data;
mod images;
mod imports;
mod listing;
mod members;
pub(crate) mod metadefs;
mod patch;
mod range;

pub(crate) use attributes::{CONTAINER_FORMATS, Draft};
pub(crate) use data::Download;
pub(crate) use images::unsupported_media;
pub(crate) use imports::{Import, Method, STORE};
pub(crate) use listing::{Filter, Order, SORT_KEYS, Time};
pub(crate) use patch::PatchOp;

use maru_base::{Error, Result};
use maru_blob::Blobs;
use maru_fetch::Fetcher;
use maru_store::{CommitError, Conflict, Store};
use std::{path::Path, sync::Arc};

/// Imports that run at once; others wait.
const IMPORTS: usize = 4;

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
    /// 400 with what was found and why it is refused (another format, a backing file, an external data file).
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected>;
}

/// Limits of the service, by upstream's defaults.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes of one image at most (`image_size_cap`).
    pub image_size: u64,
    /// Bytes of all images of a project, `None` for no limit (`image_size_total`).
    pub project_bytes: Option<u64>,
    /// Images of a project, `None` for no limit (`image_count_total`).
    pub project_images: Option<u64>,
    /// Properties of one image (`image_property_quota`).
    pub properties: usize,
    /// Tags of one image (`image_tag_quota`).
    pub tags: usize,
    /// Members of one image (`image_member_quota`).
    pub members: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image_size: 1 << 40,
            project_bytes: None,
            project_images: None,
            properties: 128,
            tags: 128,
            members: 128,
        }
    }
}

/// The image service's state.
pub struct App {
    pub(crate) store: Store,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) inspector: Arc<dyn Inspector>,
    pub(crate) settings: Settings,
    pub(crate) fetcher: Fetcher,
    pub(crate) region: String,
    /// How many imports run at once.
    pub(crate) imports: Arc<tokio::sync::Semaphore>,
    /// Read while a finished blob waits for the image that names it; written while unnamed blobs are collected.
    pub(crate) naming: tokio::sync::RwLock<()>,
}

impl App {
    /// The service over a store, the blobs and an inspector, with upstream's limits.
    #[must_use]
    pub fn new(store: Store, blobs: Arc<dyn Blobs>, inspector: Arc<dyn Inspector>) -> Self {
        Self::with_settings(store, blobs, inspector, Settings::default())
    }

    /// The same with limits of one's own.
    #[must_use]
    pub fn with_settings(
        store: Store,
        blobs: Arc<dyn Blobs>,
        inspector: Arc<dyn Inspector>,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            blobs,
            inspector,
            settings,
            fetcher: Fetcher::default(),
            region: "RegionOne".to_owned(),
            imports: Arc::new(tokio::sync::Semaphore::new(IMPORTS)),
            naming: tokio::sync::RwLock::new(()),
        }
    }
}

impl App {
    /// The same with a fetcher for web-download that may ask more than public addresses.
    #[must_use]
    pub fn fetching(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = fetcher;
        self
    }
    /// The same in a region of this name; glance-download takes images from there.
    #[must_use]
    pub fn in_region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }
}

/// Turns the store's word for a counter at its limit into the service's own.
pub(crate) fn over_quota(error: Error) -> Error {
    let Some(Conflict::Exceeded {
        key,
        used,
        wanted,
        limit,
    }) = CommitError::conflict_of(&error)
    else {
        return error;
    };
    let resource = key.parts().pop().unwrap_or_default();
    Error::too_large(format!(
        "The project is over its limit {resource} of {limit}: {used} in use, {wanted} more asked. Delete images, or ask \
         an administrator for a higher limit."
    ))
    .with_field(resource)
}
