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

/// Name of the group type that consistency groups have, as upstream has it. The cloud makes it when it starts.
pub const CONSISTENT_TYPE: &str = "default_cgsnapshot_type";

/// The spec that asks for snapshots of all volumes of a group as of one moment; upstream's name.
pub const CONSISTENT_SPEC: &str = "consistent_group_snapshot_enabled";

/// Specs that ask of a back end what this cloud's has not: replication.
const NOT_HAD: &[&str] = &["consistent_group_replication_enabled", "group_replication_enabled"];

impl GroupType {
    /// A spec that no back end of this cloud meets, if it asks for one.
    #[must_use]
    pub fn unmet(&self) -> Option<&'static str> {
        NOT_HAD.iter().copied().find(|spec| self.asks(spec))
    }
    /// Whether the snapshots of all volumes of its groups are as of one moment.
    #[must_use]
    pub fn consistent(&self) -> bool {
        self.asks(CONSISTENT_SPEC)
    }
    fn asks(&self, spec: &str) -> bool {
        self.specs
            .get(spec)
            .is_some_and(|v| v.eq_ignore_ascii_case("<is> true"))
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
