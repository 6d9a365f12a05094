//! Offers of a volume to another project, taken with a key.

use crate::VolumeId;
use jiff::Timestamp;
use maru_base::ProjectId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a transfer, a UUID.
    TransferId
);

/// An offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The volume.
    pub volume_id: VolumeId,
    /// Who offers it.
    pub project_id: ProjectId,
    /// Who took it; kept only in the answer.
    pub name: Option<String>,
    /// Hexadecimal SHA-256 of salt and key: the key itself is told once.
    pub key_hash: String,
    /// Salt of the hash.
    pub salt: String,
    /// Whether its snapshots stay behind (3.55).
    pub no_snapshots: bool,
    /// When it was made.
    pub created: Timestamp,
}

impl Kind for Transfer {
    type Id = TransferId;
    const NAME: &'static str = "volume_transfer";
    const SECRETS: &'static [&'static str] = &["key_hash", "salt"];
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |t| vec![t.project_id.to_string()],
            },
            Index {
                name: "volume",
                values: |t| vec![t.volume_id.to_string()],
            },
        ]
    }
}
