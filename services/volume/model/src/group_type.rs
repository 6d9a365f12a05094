//! Group types: what a group of volumes can do.

use jiff::Timestamp;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a group type, a UUID.
    GroupTypeId
);

/// A group type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupType {
    /// Its name, unique.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub public: bool,
    /// What its groups shall be able to do.
    pub specs: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Option<Timestamp>,
}

/// Specs that ask of a back end what this cloud's has not: snapshots of all volumes as of one moment, replication.
const NOT_HAD: &[&str] = &[
    "consistent_group_snapshot_enabled",
    "consistent_group_replication_enabled",
    "group_replication_enabled",
];

impl GroupType {
    /// A spec that no back end of this cloud meets, if it asks for one.
    #[must_use]
    pub fn unmet(&self) -> Option<&'static str> {
        NOT_HAD.iter().copied().find(|spec| {
            self.specs
                .get(*spec)
                .is_some_and(|v| v.eq_ignore_ascii_case("<is> true"))
        })
    }
}

impl Kind for GroupType {
    type Id = GroupTypeId;
    const NAME: &'static str = "volume_group_type";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "name",
            values: |t| vec![t.name.clone()],
        }]
    }
}
