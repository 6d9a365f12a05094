//! What a node is told of its volumes and snapshots: pure functions of the snapshot.

use crate::{Snapshot, Source, Unmanaged, Volume};

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
    /// The volume as it was read: compute tells by it who reaches it. `None` when nobody shall.
    pub read: Option<maru_store::Object<Volume>>,
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

/// The volumes of a node: those that are there, those that are on their way to another node, and bytes without a volume.
#[must_use]
pub fn volume_intents(snapshot: &maru_store::Snapshot, node: &str) -> Vec<VolumeIntent> {
    let here = snapshot.find::<Volume>("host", node).map(|v| VolumeIntent {
        id: v.id.to_string(),
        wanted: (!v.value.removing).then(|| Wanted {
            request_id: v.value.request_id.clone(),
            size: v.value.bytes(),
            content: v.value.content,
            source: told(snapshot, &v.value.source),
            read: Some(v),
        }),
    });
    // Bytes that shall only be kept are told as a copy of themselves: a node that has none makes none.
    let left = snapshot
        .find::<Volume>("moved_from", node)
        .filter(|v| v.value.host.as_deref() != Some(node))
        .map(|v| VolumeIntent {
            id: v.id.to_string(),
            wanted: (!v.value.moved).then(|| Wanted {
                read: None,
                request_id: v.value.request_id.clone(),
                size: 0,
                content: v.value.content.saturating_sub(1),
                source: Source::Volume(v.id.clone()),
            }),
        });
    let kept = snapshot
        .find::<Unmanaged>("host", node)
        .filter(|u| u.value.snapshot_of.is_none())
        .map(|u| VolumeIntent {
            id: u.id.to_string(),
            wanted: (!u.value.removing).then(|| Wanted {
                read: None,
                request_id: u.value.request_id.clone(),
                size: 0,
                content: u.value.content,
                source: Source::Volume(u.id.as_str().into()),
            }),
        });
    here.chain(left).chain(kept).collect()
}

/// What a node is told of a volume's source: a snapshot by the name of its bytes.
fn told(snapshot: &maru_store::Snapshot, source: &Source) -> Source {
    match source {
        Source::Snapshot(id) => {
            let read = snapshot.get::<Snapshot>(id);
            let bytes = read.map_or_else(|| id.to_string(), |s| s.value.bytes_of(id));
            Source::Snapshot(bytes.into())
        }
        other => other.clone(),
    }
}

/// The snapshots of a node, and bytes without a snapshot.
#[must_use]
pub fn snapshot_intents(snapshot: &maru_store::Snapshot, node: &str) -> Vec<SnapshotIntent> {
    let here = snapshot.find::<Snapshot>("host", node).map(|s| SnapshotIntent {
        id: s.value.bytes_of(&s.id),
        volume_id: s.value.volume_id.to_string(),
        request_id: s.value.request_id.clone(),
        wanted: !s.value.removing,
    });
    let kept = snapshot.find::<Unmanaged>("host", node).filter_map(|u| {
        u.value.snapshot_of.as_ref().map(|of| SnapshotIntent {
            id: u.id.to_string(),
            volume_id: of.to_string(),
            request_id: u.value.request_id.clone(),
            wanted: !u.value.removing,
        })
    });
    here.chain(kept).collect()
}

/// Whether a volume of this node is being made from the blob with this digest.
#[must_use]
pub fn pulls(snapshot: &maru_store::Snapshot, node: &str, digest: &str) -> bool {
    snapshot.find::<Volume>("host", node).any(|v| match &v.value.source {
        Source::Image { digest: d, .. } | Source::Backup { digest: d, .. } => d == digest,
        Source::Blank | Source::Volume(_) | Source::Snapshot(_) => false,
    })
}
