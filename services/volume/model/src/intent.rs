//! What a node is told of its volumes and snapshots: pure functions of the snapshot.

use crate::{Snapshot, Source, Volume};

/// A volume that shall be on a node; without `intent` it shall not be there any more.
#[derive(Debug, Clone)]
pub struct VolumeIntent {
    /// Its id.
    pub id: String,
    /// What shall be; `None` when it shall be removed.
    pub wanted: Option<Wanted>,
}

/// What shall be of a volume.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The volume as it was read: compute tells by it who reaches it.
    pub read: maru_store::Object<Volume>,
    /// The request that last changed the intent.
    pub request_id: String,
    /// Bytes of the disk.
    pub size: u64,
    /// Which making of the bytes.
    pub content: u64,
    /// What they are made from.
    pub source: Source,
}

/// A snapshot that shall be on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotIntent {
    /// Its id.
    pub id: String,
    /// The volume that it is a copy of.
    pub volume_id: String,
    /// The request that made it.
    pub request_id: String,
    /// Whether it shall be there or be removed.
    pub wanted: bool,
}

/// The volumes of a node.
#[must_use]
pub fn volume_intents(snapshot: &maru_store::Snapshot, node: &str) -> Vec<VolumeIntent> {
    snapshot
        .find::<Volume>("host", node)
        .map(|v| VolumeIntent {
            id: v.id.to_string(),
            wanted: (!v.value.removing).then(|| Wanted {
                read: v.clone(),
                request_id: v.value.request_id.clone(),
                size: v.value.bytes(),
                content: v.value.content,
                source: v.value.source.clone(),
            }),
        })
        .collect()
}

/// The snapshots of a node.
#[must_use]
pub fn snapshot_intents(snapshot: &maru_store::Snapshot, node: &str) -> Vec<SnapshotIntent> {
    snapshot
        .find::<Snapshot>("host", node)
        .map(|s| SnapshotIntent {
            id: s.id.to_string(),
            volume_id: s.value.volume_id.to_string(),
            request_id: s.value.request_id.clone(),
            wanted: !s.value.removing,
        })
        .collect()
}

/// Whether a volume of this node is being made from the blob with this digest.
#[must_use]
pub fn pulls(snapshot: &maru_store::Snapshot, node: &str, digest: &str) -> bool {
    snapshot.find::<Volume>("host", node).any(|v| match &v.value.source {
        Source::Image { digest: d, .. } | Source::Backup { digest: d, .. } => d == digest,
        Source::Blank | Source::Volume(_) | Source::Snapshot(_) => false,
    })
}
