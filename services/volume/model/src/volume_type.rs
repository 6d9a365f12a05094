//! Volume types: what a volume's host must offer, and how its bytes are kept.

use crate::QosId;
use jiff::Timestamp;
use maru_store::{Index, Kind, Object};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of a volume type, a UUID.
    VolumeTypeId
);

/// Name of the type that volumes have whose maker named none; upstream's.
pub const DEFAULT_TYPE: &str = "__DEFAULT__";

/// How the volumes of a type are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Id of the specification.
    pub id: String,
    /// `luks`, `luks2`, `plain`.
    pub provider: String,
    /// `front-end` (by the hypervisor) or `back-end`.
    pub control_location: String,
    /// `aes-xts-plain64`.
    pub cipher: Option<String>,
    /// Bits.
    pub key_size: Option<u32>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

/// A volume type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeType {
    /// Its name, unique.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub public: bool,
    /// Projects that see it though it is not public.
    pub access: BTreeSet<String>,
    /// What a host must offer.
    pub extra_specs: BTreeMap<String, String>,
    /// Its QoS specification.
    pub qos_id: Option<QosId>,
    /// Its encryption.
    pub encryption: Option<Encryption>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

impl Kind for VolumeType {
    type Id = VolumeTypeId;
    const NAME: &'static str = "volume_type";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "name",
                values: |t| vec![t.name.clone()],
            },
            Index {
                name: "qos",
                values: |t| t.qos_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

impl VolumeType {
    /// Whether volumes of it may be attached to several servers.
    #[must_use]
    pub fn multiattach(&self) -> bool {
        self.extra_specs
            .get("multiattach")
            .is_some_and(|v| v.eq_ignore_ascii_case("<is> True"))
    }
}

/// The type of an id or a name.
#[must_use]
pub fn find_type(snapshot: &maru_store::Snapshot, id_or_name: &str) -> Option<Object<VolumeType>> {
    snapshot
        .get::<VolumeType>(&VolumeTypeId::from(id_or_name))
        .or_else(|| snapshot.find::<VolumeType>("name", id_or_name).next())
}

/// The type of an id or a name, if a project sees it.
#[must_use]
pub fn visible_type(
    snapshot: &maru_store::Snapshot,
    id_or_name: &str,
    project: Option<&str>,
    admin: bool,
) -> Option<Object<VolumeType>> {
    find_type(snapshot, id_or_name).filter(|t| admin || t.public || project.is_some_and(|p| t.access.contains(p)))
}
