//! Bytes that the cloud let go of and a node still has: a volume or snapshot that was unmanaged, until it is managed again.
//!
//! ```text
//!  volume ─ unmanage ─► Unmanaged ─ manage ─► a new volume is a copy of the bytes ─ made ─► removing ─► gone with its bytes
//!  snapshot ─ unmanage ─► Unmanaged ─ manage ─► a new snapshot has the same bytes
//! ```
//!
//! Its node is told of it like of any volume: what no record speaks of any more is removed.

use crate::VolumeId;
use jiff::Timestamp;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id that the node knows the bytes by: that of the volume or snapshot they were of.
    UnmanagedId
);

/// Bytes without a volume or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmanaged {
    /// The node that has them.
    pub host: String,
    /// The volume that they are a snapshot of; `None` when they are a volume's.
    pub snapshot_of: Option<VolumeId>,
    /// Size in GiB.
    pub size: u32,
    /// Which making of a volume's bytes they are.
    pub content: u64,
    /// What it was called.
    pub name: Option<String>,
    /// Whether they shall go.
    pub removing: bool,
    /// The request that let go of them.
    pub request_id: String,
    /// When that was.
    pub created: Timestamp,
}

impl Kind for Unmanaged {
    type Id = UnmanagedId;
    const NAME: &'static str = "volume_unmanaged";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |u| vec![u.host.clone()],
        }]
    }
}
