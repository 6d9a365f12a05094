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
