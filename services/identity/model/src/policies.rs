//! Policies: texts that are kept for other services, which this one does not read.

use maru_base::typed_id;
use maru_store::{Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a policy.
    PolicyId
);

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// Media type of the blob.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub blob: String,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for StoredPolicy {
    type Id = PolicyId;
    const NAME: &'static str = "stored-policy";
    const SPACE: Space = Space::Identity;
}
