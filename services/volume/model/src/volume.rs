//! Volumes.

use crate::{BackupId, GroupId, SnapshotId, Status, VolumeTypeId};
use jiff::Timestamp;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a volume, a UUID.
    VolumeId
);

/// What a volume's bytes are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nothing: it reads as zeroes.
    Blank,
    /// An image.
    Image {
        /// Glance's id.
        id: String,
        /// sha512 of the blob.
        digest: String,
        /// The format that inspection proved: `qcow2` or `raw`.
        format: String,
    },
    /// A copy of another volume of the same host.
    Volume(VolumeId),
    /// A copy of a snapshot of the same host.
    Snapshot(SnapshotId),
    /// A backup.
    Backup {
        /// Its id.
        id: BackupId,
        /// sha512 of its blob.
        digest: String,
    },
}

/// An upload of a volume's bytes as an image, under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The image that is being filled.
    pub image_id: String,
    /// `raw` or `qcow2`.
    pub format: String,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name; may be empty.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Size in GiB.
    pub size: u32,
    /// Its type.
    pub type_id: VolumeTypeId,
    /// Availability zone.
    pub zone: String,
    /// The node that it was asked to be on (scheduler hint `local_to_instance`).
    #[serde(default)]
    pub wanted_host: Option<String>,
    /// The node that has its bytes; `None` until it is placed.
    pub host: Option<String>,
    /// What the API shows.
    pub status: Status,
    /// Whether its bytes shall go. Apart from the status, which an administrator may set to anything.
    pub removing: bool,
    /// What it was before the operation under way, where that must be known at its end.
    pub before: Option<Status>,
    /// The owner's metadata.
    pub metadata: BTreeMap<String, String>,
    /// What is known of the image it was made from; shown as `volume_image_metadata`.
    pub image_metadata: BTreeMap<String, String>,
    /// Whether a server may boot from it.
    pub bootable: bool,
    /// Whether it is attached for reading only, once that was said.
    pub readonly: Option<bool>,
    /// Whether several servers may have it at once.
    pub multiattach: bool,
    /// What its present bytes are made from.
    pub source: Source,
    /// Raised when the bytes shall be made anew from `source` (a restored backup, a revert).
    pub content: u64,
    /// The volume it was cloned from.
    pub source_volid: Option<VolumeId>,
    /// The snapshot it was made from.
    pub snapshot_id: Option<SnapshotId>,
    /// The group it is in.
    #[serde(default)]
    pub group_id: Option<GroupId>,
    /// The node that it moves to, while it does.
    #[serde(default)]
    pub moving_to: Option<String>,
    /// The node that had its bytes before and may have them still.
    #[serde(default)]
    pub moved_from: Option<String>,
    /// Whether the new node has the bytes: those of `moved_from` shall go.
    #[serde(default)]
    pub moved: bool,
    /// Upstream's word for how its last move went.
    #[serde(default)]
    pub migration_status: Option<String>,
    /// sha512 of a blob that is kept for it while its bytes are made of that.
    #[serde(default)]
    pub staged: Option<String>,
    /// The backup whose chain is put together for it: until that is done its node is told of nothing new.
    #[serde(default)]
    pub assemble: Option<BackupId>,
    /// Bytes without a volume that it is being made of: they go when it is made.
    #[serde(default)]
    pub takes_over: Option<crate::UnmanagedId>,
    /// The size that an extension came from, while it is under way.
    pub extending_from: Option<u32>,
    /// An upload as an image, while it is under way.
    pub upload: Option<Upload>,
    /// The backup that is being made of it or restored into it.
    pub backup: Option<BackupId>,
    /// How many snapshots it has: their planners keep it, so that a deletion meets them in this one key.
    pub snapshots: u32,
    /// Why it is in an error status.
    pub fault: Option<String>,
    /// The request that last changed the intent.
    pub request_id: String,
    /// Store revision before the newest change of intent: older reports speak of an older intent.
    pub asked_after: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Kind for Volume {
    type Id = VolumeId;
    const NAME: &'static str = "volume";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |v| vec![v.project_id.to_string()],
            },
            Index {
                name: "host",
                values: |v| v.host.iter().cloned().collect(),
            },
            Index {
                name: "type",
                values: |v| vec![v.type_id.to_string()],
            },
            Index {
                name: "moved_from",
                values: |v| v.moved_from.iter().cloned().collect(),
            },
            Index {
                name: "staged",
                values: |v| v.staged.iter().cloned().collect(),
            },
            Index {
                name: "moving",
                values: |v| v.moving_to.iter().map(|_| "yes".to_owned()).collect(),
            },
            Index {
                name: "group",
                values: |v| v.group_id.iter().map(ToString::to_string).collect(),
            },
            // Controllers look only at what is under way.
            Index {
                name: "status",
                values: |v| match v.status {
                    Status::Available | Status::InUse => Vec::new(),
                    other => vec![other.word().to_owned()],
                },
            },
        ]
    }
}

/// What every new volume is told of itself.
#[derive(Debug, Clone)]
pub struct NewVolume<'a> {
    /// Owner.
    pub project_id: &'a ProjectId,
    /// Who makes it.
    pub user_id: &'a UserId,
    /// GiB.
    pub size: u32,
    /// Its type.
    pub kind: &'a maru_store::Object<crate::VolumeType>,
    /// Availability zone.
    pub zone: String,
    /// What it is made from.
    pub source: Source,
    /// The request.
    pub request_id: &'a str,
}

impl Volume {
    /// A volume that is being made.
    #[must_use]
    pub fn new(snapshot: &maru_store::Snapshot, of: NewVolume<'_>) -> Self {
        Self {
            project_id: of.project_id.clone(),
            user_id: of.user_id.clone(),
            name: None,
            description: None,
            size: of.size,
            type_id: of.kind.id.clone(),
            zone: of.zone,
            wanted_host: None,
            host: None,
            status: Status::Creating,
            removing: false,
            before: None,
            metadata: BTreeMap::new(),
            image_metadata: BTreeMap::new(),
            bootable: false,
            readonly: None,
            multiattach: of.kind.value.multiattach(),
            source: of.source,
            content: 0,
            source_volid: None,
            snapshot_id: None,
            group_id: None,
            moving_to: None,
            moved_from: None,
            moved: false,
            migration_status: None,
            staged: None,
            assemble: None,
            takes_over: None,
            extending_from: None,
            upload: None,
            backup: None,
            snapshots: 0,
            fault: None,
            request_id: of.request_id.to_owned(),
            asked_after: snapshot.revision(),
            created: maru_base::time::now(),
            updated: None,
        }
    }
    /// Marks a change: time, request, and the revision that it is newer than.
    pub fn touch(&mut self, request_id: &str, snapshot: &maru_store::Snapshot) {
        self.updated = Some(maru_base::time::now());
        request_id.clone_into(&mut self.request_id);
        self.asked_after = snapshot.revision();
    }
    /// Whether it is attached for reading only.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.readonly.unwrap_or(false)
    }
    /// Bytes of the disk that a guest sees.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.size) << 30
    }
    /// Bytes of the disk by its holder's last word: what it is being extended to does not count yet.
    #[must_use]
    pub fn bytes_there(&self) -> u64 {
        u64::from(self.extending_from.unwrap_or(self.size)) << 30
    }
}
