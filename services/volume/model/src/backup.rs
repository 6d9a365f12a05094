//! Backups of volumes: blobs, apart from the volume's host.

use crate::{SnapshotId, VolumeId};
use jiff::Timestamp;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a backup, a UUID.
    BackupId
);

/// The status of a backup, as upstream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStatus {
    /// Its bytes are being read.
    Creating,
    /// It may be restored.
    Available,
    /// A volume is being made of it.
    Restoring,
    /// It is being removed.
    Deleting,
    /// It could not be made.
    Error,
}

impl BackupStatus {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Restoring => "restoring",
            Self::Deleting => "deleting",
            Self::Error => "error",
        }
    }
    /// The status of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "creating" => Self::Creating,
            "available" => Self::Available,
            "restoring" => Self::Restoring,
            "deleting" => Self::Deleting,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// The volume it is of.
    pub volume_id: VolumeId,
    /// The snapshot it was read from, if it was one.
    pub snapshot_id: Option<SnapshotId>,
    /// The backup it builds upon.
    pub parent: Option<BackupId>,
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Where it was asked to be kept: a name only.
    pub container: Option<String>,
    /// Size of the volume then, in GiB.
    pub size: u32,
    /// Availability zone.
    pub zone: Option<String>,
    /// What the API shows.
    pub status: BackupStatus,
    /// Why it failed.
    pub fail_reason: Option<String>,
    /// sha512 of the blob, once it is whole.
    pub digest: Option<String>,
    /// Whether the blob holds only what changed since `parent`.
    #[serde(default)]
    pub delta: bool,
    /// Bytes of the blob.
    pub bytes: u64,
    /// The owner's metadata (3.43).
    pub metadata: BTreeMap<String, String>,
    /// Metadata of the volume, given back to a volume that is made of it.
    pub image_metadata: BTreeMap<String, String>,
    /// Whether the volume was bootable.
    pub bootable: bool,
    /// The request that last changed it.
    pub request_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// As of when its bytes are.
    pub data: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Backup {
    /// What a volume is made of that is made of this: the blob itself, or the backup whose chain is put together first.
    #[must_use]
    pub fn source(&self, id: &BackupId) -> (crate::Source, Option<BackupId>) {
        let digest = self.digest.clone().filter(|_| !self.delta).unwrap_or_default();
        (
            crate::Source::Backup { id: id.clone(), digest },
            self.delta.then(|| id.clone()),
        )
    }
}

impl Kind for Backup {
    type Id = BackupId;
    const NAME: &'static str = "volume_backup";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |b| vec![b.project_id.to_string()],
            },
            Index {
                name: "volume",
                values: |b| vec![b.volume_id.to_string()],
            },
            Index {
                name: "digest",
                values: |b| b.digest.iter().cloned().collect(),
            },
            Index {
                name: "parent",
                values: |b| b.parent.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}
