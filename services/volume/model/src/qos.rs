//! QoS specifications: limits for the volumes of the types that name them.

use jiff::Timestamp;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Id of a QoS specification, a UUID.
    QosId
);

/// Who enforces the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumer {
    /// The hypervisor.
    FrontEnd,
    /// The storage.
    BackEnd,
    /// Both.
    Both,
}

impl Consumer {
    /// Upstream's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::FrontEnd => "front-end",
            Self::BackEnd => "back-end",
            Self::Both => "both",
        }
    }
    /// The consumer of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "front-end" => Self::FrontEnd,
            "back-end" => Self::BackEnd,
            "both" => Self::Both,
            _ => return None,
        })
    }
}

/// A QoS specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Qos {
    /// Its name, unique.
    pub name: String,
    /// Who enforces it.
    pub consumer: Consumer,
    /// Limits by name: `total_iops_sec`, `read_bytes_sec`, ...
    pub specs: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

/// Limits that a hypervisor enforces, by upstream's names; bytes or requests in a second, `_max` is what a burst may reach.
const LIMITS: &[&str] = &["bytes_sec", "iops_sec"];

/// The limits of a volume for the hypervisor: those of its type's specification, if that one is for the front end. What cannot hold
/// together is left out as the hypervisor would refuse it: parts beside a total, a burst without its rate or below it.
#[must_use]
pub fn front_end_limits(snapshot: &maru_store::Snapshot, volume: &crate::Volume) -> BTreeMap<String, u64> {
    let mut limits = BTreeMap::new();
    let found = snapshot
        .get::<crate::VolumeType>(&volume.type_id)
        .and_then(|t| snapshot.get::<Qos>(t.value.qos_id.as_ref()?))
        .filter(|q| q.value.consumer != Consumer::BackEnd);
    let Some(qos) = found else { return limits };
    let number = |name: &str| {
        qos.value
            .specs
            .get(name)
            .and_then(|v| v.parse::<u64>().ok())
            .filter(|n| *n > 0)
    };
    for what in LIMITS {
        let total = number(&format!("total_{what}"));
        let parts: &[&str] = if total.is_some() {
            &["total"]
        } else {
            &["read", "write"]
        };
        for part in parts {
            let (rate, burst) = (format!("{part}_{what}"), format!("{part}_{what}_max"));
            if let Some(n) = number(&rate) {
                if let Some(most) = number(&burst).filter(|m| *m >= n) {
                    limits.insert(burst, most);
                }
                limits.insert(rate, n);
            }
        }
    }
    limits
}

impl Kind for Qos {
    type Id = QosId;
    const NAME: &'static str = "volume_qos";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "name",
            values: |q| vec![q.name.clone()],
        }]
    }
}
