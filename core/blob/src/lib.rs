//! Content-addressed immutable bytes: images, snapshots, backups.
//!
//! - [`Blobs`]: what an engine offers; a blob's name is the SHA-512 of its content in hexadecimal.
//! - [`BlobWriter`]: a running upload. Nothing is visible before [`BlobWriter::finish`]; dropped, it leaves nothing.
//! - [`SealedBlob`]: an upload that has ended but has no name yet; what must not become a blob is dropped here.
//! - [`BlobReader`]: a blob or a range of one, as `AsyncRead` or as a stream of chunks.
//! - [`DirBlobs`]: the engine on a directory.
//!
//! A blob knows nothing of who needs it: references are objects in the store, and only their last owner deletes.

mod dir;
mod reader;
mod writer;

pub use dir::DirBlobs;
pub use reader::BlobReader;
pub use writer::{BlobInfo, BlobWriter, SealedBlob};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use maru_base::Result;
use std::{ops::Range, path::PathBuf};

/// An engine for blobs.
#[async_trait::async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Begins an upload.
    async fn begin(&self) -> Result<BlobWriter>;
    /// Opens a blob, or bytes `range` of it (cut at its end). Not found is `NotFound`; a range that begins behind the
    /// end is `RangeNotSatisfiable`.
    async fn open(&self, digest: &str, range: Option<Range<u64>>) -> Result<BlobReader>;
    /// The size of a blob, `None` when it is not here.
    async fn size(&self, digest: &str) -> Result<Option<u64>>;
    /// Where the blob lies as a file of this machine, if it does. The file must not be written to.
    fn path(&self, digest: &str) -> Option<PathBuf>;
    /// Removes a blob; one that is not here is fine.
    async fn delete(&self, digest: &str) -> Result<()>;
    /// The digests of all blobs here, for the reconciler that repairs and removes.
    async fn list(&self) -> Result<Vec<String>>;
    /// Names of the control nodes that are known to hold the blob.
    async fn locations(&self, digest: &str) -> Result<Vec<String>>;
}

/// Uploads a whole stream.
///
/// # Errors
/// When the stream fails or the blob cannot be written; nothing is left then.
pub async fn put<S, E>(blobs: &dyn Blobs, stream: S) -> Result<BlobInfo>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<maru_base::BoxError>,
{
    let mut writer = blobs.begin().await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(chunk) = stream.next().await {
        writer
            .write(chunk.map_err(|e| maru_base::Error::internal("The upload broke off.", e))?)
            .await?;
    }
    writer.finish().await
}
