//! Groups of volumes, and their snapshots: what is done to all volumes of one at once.
//!
//! ```text
//!  group:           (empty) ─► available ─► deleting ─► gone, when its last volume is
//!                   (of a source) creating ─► available, or error, when its volumes are made
//!  group snapshot:  creating ─► available, or error, when its snapshots are ─► deleting ─► gone with the last of them
//! ```
//!
//! What a status follows is other objects: their service's controller moves it.

use crate::{GroupTypeId, VolumeTypeId};
use jiff::Timestamp;
use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

maru_base::typed_id!(
    /// Id of a group, a UUID.
    GroupId
);
maru_base::typed_id!(
    /// Id of a group snapshot, a UUID.
    GroupSnapshotId
);

/// The status of a group or a group snapshot, as upstream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupStatus {
    /// Its volumes or snapshots are being made.
    Creating,
    /// It may be used.
    Available,
    /// Its volumes or snapshots are being removed.
    Deleting,
    /// Its volumes are being changed.
    Updating,
    /// One of its volumes or snapshots could not be made.
    Error,
    /// One of its volumes or snapshots could not be removed.
    ErrorDeleting,
    /// A volume of it is attached; an administrator may say so.
    #[serde(rename = "in-use")]
    InUse,
}

impl GroupStatus {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Deleting => "deleting",
            Self::Updating => "updating",
            Self::Error => "error",
            Self::ErrorDeleting => "error_deleting",
            Self::InUse => "in-use",
        }
    }
    /// The status of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "creating" => Self::Creating,
            "available" => Self::Available,
            "deleting" => Self::Deleting,
            "updating" => Self::Updating,
            "error" => Self::Error,
            "error_deleting" => Self::ErrorDeleting,
            "in-use" => Self::InUse,
            _ => return None,
        })
    }
}

/// A group of volumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its type.
    pub type_id: GroupTypeId,
    /// Types that its volumes may have.
    pub volume_types: BTreeSet<VolumeTypeId>,
    /// Availability zone.
    pub zone: String,
    /// What the API shows.
    pub status: GroupStatus,
    /// Whether its volumes are being made. This and `removing` are apart from the status, which an administrator may set
    /// to anything.
    pub making: bool,
    /// Whether it is going.
    pub removing: bool,
    /// The group snapshot it was made of.
    pub group_snapshot_id: Option<GroupSnapshotId>,
    /// The group it was made of.
    pub source_group_id: Option<GroupId>,
    /// Why it is in error.
    pub fault: Option<String>,
    /// The request that last changed it.
    pub request_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Kind for Group {
    type Id = GroupId;
    const NAME: &'static str = "volume_group";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |g| vec![g.project_id.to_string()],
            },
            Index {
                name: "type",
                values: |g| vec![g.type_id.to_string()],
            },
            Index {
                name: "volume_type",
                values: |g| g.volume_types.iter().map(ToString::to_string).collect(),
            },
            // Controllers look only at what is under way.
            Index {
                name: "work",
                values: |g| {
                    if g.making || g.removing {
                        vec!["work".to_owned()]
                    } else {
                        Vec::new()
                    }
                },
            },
        ]
    }
}

/// Snapshots of all volumes of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// The group.
    pub group_id: GroupId,
    /// Type of the group.
    pub type_id: GroupTypeId,
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// What the API shows.
    pub status: GroupStatus,
    /// Whether its snapshots are being made.
    pub making: bool,
    /// Whether it is going.
    pub removing: bool,
    /// The request that last changed it.
    pub request_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Kind for GroupSnapshot {
    type Id = GroupSnapshotId;
    const NAME: &'static str = "volume_group_snapshot";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |g| vec![g.project_id.to_string()],
            },
            Index {
                name: "group",
                values: |g| vec![g.group_id.to_string()],
            },
            Index {
                name: "work",
                values: |g| {
                    if g.making || g.removing {
                        vec!["work".to_owned()]
                    } else {
                        Vec::new()
                    }
                },
            },
        ]
    }
}

/// The epoch that groups of a type meet its deletion in.
#[must_use]
pub fn group_type_epoch(id: &str) -> String {
    format!("volume_group_type:{id}")
}

/// The epoch that volumes and snapshots of a group meet in what is done to all of them.
#[must_use]
pub fn group_epoch(id: &str) -> String {
    format!("volume_group:{id}")
}
