//! Trusts: a user lets another act with some of its roles on one project.

use crate::RoleId;
use maru_base::{ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};

typed_id!(
    /// Id of a trust.
    TrustId
);

/// A trust.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Who gives.
    pub trustor_user_id: UserId,
    /// Who may act.
    pub trustee_user_id: UserId,
    /// Where.
    pub project_id: ProjectId,
    /// With which roles; the trust is good as long as the trustor has all of them.
    pub roles: Vec<RoleId>,
    /// Its tokens show the trustor as their user.
    pub impersonation: bool,
    /// Its end in microseconds since 1970.
    pub expires_at: Option<i64>,
    /// How many more tokens it gives.
    pub remaining_uses: Option<u64>,
    /// How many times in a row it may be handed on.
    pub redelegation_count: u64,
    /// The trust that it was handed on from; it ends with that one.
    pub redelegated_trust_id: Option<TrustId>,
}

impl Kind for Trust {
    type Id = TrustId;
    const NAME: &'static str = "trust";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "trustor",
                values: |t| vec![t.trustor_user_id.to_string()],
            },
            Index {
                name: "trustee",
                values: |t| vec![t.trustee_user_id.to_string()],
            },
            Index {
                name: "project",
                values: |t| vec![t.project_id.to_string()],
            },
            Index {
                name: "parent",
                values: |t| t.redelegated_trust_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}
