//! Images.
//!
//! ```text
//!            PUT file            inspected, stored
//!  queued ─────────────► saving ───────────────────► active ◄──────► deactivated
//!     ▲                    │ upload broke, refused or the process died
//!     ▲                    │
//!     └────────────────────┘
//!            PUT stage             POST import           inspected, stored
//!  queued ─────────────► uploading ─────────► importing ──────────────► active
//!     │      POST import (web-download, glance-download)     ▲ │ broke, refused or the process died
//!     └────────────────────────────────────────────────────────┘ └──► queued
//! ```
//! Deletion is at once: the record goes, its id is never given out again, the blob is removed when no image names it.

use maru_auth::Caller;
use maru_base::ProjectId;
use maru_store::{Index, Kind, Object, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of an image, a UUID.
    ImageId
);

/// Disk formats that the API takes.
pub const DISK_FORMATS: &[&str] = &[
    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt",
];

/// Container formats that the API takes.
pub type ContainerFormat = String;

/// Where an image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// A record without data.
    Queued,
    /// Data is coming in.
    Saving,
    /// Data is coming in, or there, to be imported.
    Uploading,
    /// An import runs.
    Importing,
    /// Usable.
    Active,
    /// Data there, withheld from all but administrators.
    Deactivated,
    /// An upload failed for good.
    Killed,
}

impl ImageStatus {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Killed => "killed",
        }
    }
}

/// Who sees an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everyone; only administrators make it so by default.
    Public,
    /// Its project.
    Private,
    /// Its project and the members it names.
    Shared,
    /// Everyone by id, listed for its project only.
    Community,
}

impl Visibility {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Community => "community",
        }
    }
}

/// Data that was sent to be imported and that nothing has looked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Names the blob.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// md5, hexadecimal.
    pub checksum: String,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Name; need not be unique, may be absent.
    pub name: Option<String>,
    /// Owning project.
    pub owner: ProjectId,
    /// Where it stands.
    pub status: ImageStatus,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether lists leave it out.
    pub hidden: bool,
    /// Whether it refuses deletion.
    pub protected: bool,
    /// Declared format, one of [`DISK_FORMATS`].
    pub disk_format: Option<String>,
    /// `bare`, `ovf`, `ova`, `docker`, ...
    pub container_format: Option<ContainerFormat>,
    /// The format that inspection of the bytes proved; what every later reader opens it as.
    pub proven_format: Option<String>,
    /// Least disk for a server, GiB.
    pub min_disk: u64,
    /// Least memory for a server, MiB.
    pub min_ram: u64,
    /// Bytes of data.
    pub size: Option<u64>,
    /// Bytes that the disk inside shows.
    pub virtual_size: Option<u64>,
    /// md5 of the data, hexadecimal.
    pub checksum: Option<String>,
    /// sha512 of the data, hexadecimal; names the blob too.
    pub digest: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Other properties (`hw_disk_bus`, `os_distro`, ...).
    pub properties: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it last changed.
    pub updated_at: jiff::Timestamp,
    /// Identifies the upload or import in progress; one of another process finds it replaced.
    pub upload: Option<String>,
    /// Data that waits to be imported.
    #[serde(default)]
    pub staged: Option<Staged>,
}

impl Image {
    /// A record without data, private to its project: what other services begin an image with.
    #[must_use]
    pub fn queued(owner: ProjectId) -> Self {
        let now = maru_base::time::now();
        Self {
            name: None,
            owner,
            status: ImageStatus::Queued,
            visibility: Visibility::Private,
            hidden: false,
            protected: false,
            disk_format: None,
            container_format: Some("bare".to_owned()),
            proven_format: None,
            min_disk: 0,
            min_ram: 0,
            size: None,
            virtual_size: None,
            checksum: None,
            digest: None,
            tags: Vec::new(),
            properties: BTreeMap::new(),
            created_at: now,
            updated_at: now,
            upload: None,
            staged: None,
        }
    }
    /// Bytes that it holds of its project's: its data, or what is staged for it.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        self.size.or(self.staged.as_ref().map(|s| s.size))
    }
}

impl Kind for Image {
    type Id = ImageId;
    const NAME: &'static str = "image";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "owner",
                values: |i| vec![i.owner.to_string()],
            },
            Index {
                name: "visibility",
                values: |i| vec![i.visibility.as_str().to_owned()],
            },
            Index {
                name: "digest",
                values: |i| {
                    i.digest
                        .iter()
                        .chain(i.staged.as_ref().map(|s| &s.digest))
                        .cloned()
                        .collect()
                },
            },
        ]
    }
}

/// Whether a caller may know of an image by its id.
#[must_use]
pub fn visible_to(snapshot: &Snapshot, image: &Object<Image>, caller: &Caller) -> bool {
    if caller.is_admin() || matches!(image.visibility, Visibility::Public | Visibility::Community) {
        return true;
    }
    let Some(project) = caller.project_id() else {
        return false;
    };
    if image.owner == *project {
        return true;
    }
    image.visibility == Visibility::Shared
        && snapshot
            .get::<crate::Member>(&crate::member_id(&image.id, project))
            .is_some()
}

/// The image with this id, if the caller may know of it.
#[must_use]
pub fn find_visible(snapshot: &Snapshot, caller: &Caller, id: &ImageId) -> Option<Object<Image>> {
    snapshot
        .get::<Image>(id)
        .filter(|image| visible_to(snapshot, image, caller))
}
