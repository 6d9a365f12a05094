//! Host aggregates and availability zones.

use crate::ComputeService;
use maru_store::{Index, Kind, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of an aggregate: a whole number as text.
    AggregateId
);

/// The zone of hosts that no aggregate puts elsewhere.
pub const DEFAULT_ZONE: &str = "nova";

/// A host aggregate. `availability_zone` in its metadata makes it a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// A UUID.
    pub uuid: String,
    /// Unique name.
    pub name: String,
    /// Its hosts.
    pub hosts: BTreeSet<String>,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it last changed.
    pub updated: Option<jiff::Timestamp>,
}

impl Kind for Aggregate {
    type Id = AggregateId;
    const NAME: &'static str = "aggregate";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |a| a.hosts.iter().cloned().collect(),
        }]
    }
}

impl Aggregate {
    /// The zone that it makes, if it is one.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.metadata.get("availability_zone").map(String::as_str)
    }
}

/// The zone of a host.
#[must_use]
pub fn zone_of(snapshot: &Snapshot, host: &str) -> String {
    snapshot
        .find::<Aggregate>("host", host)
        .find_map(|a| a.zone().map(str::to_owned))
        .unwrap_or_else(|| DEFAULT_ZONE.to_owned())
}

/// All zones with their hosts; the default zone is there as soon as it has a host, or when there is no other.
#[must_use]
pub fn zones(snapshot: &Snapshot) -> BTreeMap<String, Vec<maru_store::Object<ComputeService>>> {
    let mut zones: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for service in snapshot.list::<ComputeService>() {
        zones.entry(zone_of(snapshot, &service.host)).or_default().push(service);
    }
    if zones.is_empty() {
        zones.insert(DEFAULT_ZONE.to_owned(), Vec::new());
    }
    zones
}

/// A stable whole number for APIs that show one (hypervisor and service ids before 2.53): the first 31 bits of a UUID.
#[must_use]
pub fn numeric_id(uuid: &str) -> u32 {
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    u32::from_str_radix(&digits, 16).unwrap_or(0) >> 1
}
