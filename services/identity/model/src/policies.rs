//! Policies: texts that are kept for other services, which this one does not read.

use crate::{EndpointId, RegionId, ServiceId};
use maru_base::typed_id;
use maru_store::{Index, Kind, Space};
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

typed_id!(
    /// Id of a policy's association: what it is for.
    PolicyUseId
);

/// A policy is for an endpoint, for a service, or for a service in a region; each has one policy at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyUse {
    /// The policy.
    pub policy_id: PolicyId,
    /// The endpoint.
    pub endpoint_id: Option<EndpointId>,
    /// Else the service.
    pub service_id: Option<ServiceId>,
    /// And the region.
    pub region_id: Option<RegionId>,
}

impl PolicyUse {
    /// The id under which it is kept, so that there is one for each endpoint, service, and service in a region.
    #[must_use]
    pub fn id(&self) -> PolicyUseId {
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        PolicyUseId::from(format!(
            "{}:{}:{}",
            text(self.endpoint_id.as_deref()),
            text(self.service_id.as_deref()),
            text(self.region_id.as_deref())
        ))
    }
}

impl Kind for PolicyUse {
    type Id = PolicyUseId;
    const NAME: &'static str = "policy-use";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "policy",
                values: |u| vec![u.policy_id.to_string()],
            },
            Index {
                name: "endpoint",
                values: |u| u.endpoint_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "service",
                values: |u| u.service_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "region",
                values: |u| u.region_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}
