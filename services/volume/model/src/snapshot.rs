//! Snapshots of volumes: whole copies as of one moment, on the volume's host.

use crate::{GroupSnapshotId, VolumeId};
use jiff::Timestamp;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a snapshot, a UUID.
    SnapshotId
);

/// The status of a snapshot, as upstream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// Its host copies the bytes.
    Creating,
    /// It may be used.
    Available,
    /// A backup is made of it.
    #[serde(rename = "backing-up")]
    BackingUp,
    /// Its host removes it.
    Deleting,
    /// It could not be made.
    Error,
    /// It could not be removed.
    ErrorDeleting,
}

impl SnapshotStatus {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::BackingUp => "backing-up",
            Self::Deleting => "deleting",
            Self::Error => "error",
            Self::ErrorDeleting => "error_deleting",
        }
    }
    /// The status of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "creating" => Self::Creating,
            "available" => Self::Available,
            "backing-up" => Self::BackingUp,
            "deleting" => Self::Deleting,
            "error" => Self::Error,
            "error_deleting" => Self::ErrorDeleting,
            _ => return None,
        })
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The volume it is of.
    pub volume_id: VolumeId,
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Size of the volume then, in GiB.
    pub size: u32,
    /// Type of the volume then: its quota counts against it.
    pub type_id: crate::VolumeTypeId,
    /// Host that has its bytes.
    pub host: Option<String>,
    /// What the API shows.
    pub status: SnapshotStatus,
    /// Whether its bytes shall go. Apart from the status, which an administrator may set to anything.
    pub removing: bool,
    /// `100%` when it is whole; an administrator may set it.
    pub progress: Option<String>,
    /// The owner's metadata.
    pub metadata: BTreeMap<String, String>,
    /// The group snapshot it is of.
    #[serde(default)]
    pub group_snapshot_id: Option<GroupSnapshotId>,
    /// What its node knows its bytes by, if not by its id: it took over bytes that had no snapshot.
    #[serde(default)]
    pub bytes: Option<String>,
    /// Why it is in ERROR.
    pub fault: Option<String>,
    /// The request that last changed the intent.
    pub request_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Kind for Snapshot {
    type Id = SnapshotId;
    const NAME: &'static str = "volume_snapshot";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |s| vec![s.project_id.to_string()],
            },
            Index {
                name: "volume",
                values: |s| vec![s.volume_id.to_string()],
            },
            Index {
                name: "bytes",
                values: |s| s.bytes.iter().cloned().collect(),
            },
            Index {
                name: "group_snapshot",
                values: |s| s.group_snapshot_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "host",
                values: |s| s.host.iter().cloned().collect(),
            },
        ]
    }
}

impl Snapshot {
    /// What its node knows its bytes by.
    #[must_use]
    pub fn bytes_of(&self, id: &SnapshotId) -> String {
        self.bytes.clone().unwrap_or_else(|| id.to_string())
    }
}

/// The snapshot whose bytes a node knows by this id.
#[must_use]
pub fn snapshot_of_bytes(snapshot: &maru_store::Snapshot, bytes: &str) -> Option<maru_store::Object<Snapshot>> {
    snapshot
        .get::<Snapshot>(&SnapshotId::from(bytes))
        .or_else(|| snapshot.find::<Snapshot>("bytes", bytes).next())
}
