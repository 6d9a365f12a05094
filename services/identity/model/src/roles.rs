//! Roles, and which role implies which.

use maru_base::{DomainId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a role.
    RoleId
);
typed_id!(
    /// Id of an implication: `<prior>:<implied>`.
    ImplicationId
);

/// A role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Unique among global roles, or in its domain.
    pub name: String,
    /// The domain of a domain role; such a role never shows in a token, only what it implies does.
    pub domain_id: Option<DomainId>,
    /// Free text.
    pub description: Option<String>,
    /// Resource options (`immutable`).
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Role {
    type Id = RoleId;
    const NAME: &'static str = "role";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        // Global roles are under the empty text.
        vec![Index {
            name: "domain",
            values: |r| vec![r.domain_id.as_ref().map(ToString::to_string).unwrap_or_default()],
        }]
    }
}

impl Role {
    /// Whether the option `immutable` is on.
    #[must_use]
    pub fn immutable(&self) -> bool {
        self.options.get("immutable") == Some(&Value::Bool(true))
    }
}

/// Whoever has the prior role has the implied one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Implication {
    /// The role that is assigned.
    pub prior: RoleId,
    /// The role that comes with it.
    pub implied: RoleId,
}

impl Implication {
    /// The id under which it is kept.
    #[must_use]
    pub fn id(&self) -> ImplicationId {
        ImplicationId::from(format!("{}:{}", self.prior, self.implied))
    }
}

impl Kind for Implication {
    type Id = ImplicationId;
    const NAME: &'static str = "role-implication";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "prior",
                values: |i| vec![i.prior.to_string()],
            },
            Index {
                name: "implied",
                values: |i| vec![i.implied.to_string()],
            },
        ]
    }
}
