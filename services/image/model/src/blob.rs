//! Blobs that may have no name: what a crash between the disk and the store would leave behind.
//!
//! ```text
//!  upload:  bytes sealed ─► record written ─► blob in place ─► image names it, record removed   (one transaction)
//!  delete:  image removed, record written (one transaction) ─► blob removed ─► record removed
//! ```
//! Whatever dies in between, the record tells the next start which blob to look at. Blobs without a record are never
//! touched: after an older backup was restored they may be needed again.

use maru_store::Kind;
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Digest of a blob: 128 hexadecimal digits.
    BlobDigest
);

/// A blob that is about to be named, or whose last name may just have gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LooseBlob {
    /// When that began.
    pub since: jiff::Timestamp,
}

impl Kind for LooseBlob {
    type Id = BlobDigest;
    const NAME: &'static str = "image_loose_blob";
}
