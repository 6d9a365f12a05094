//! Groups and who is in them.

use maru_base::{DomainId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a group.
    GroupId
);
typed_id!(
    /// Id of a membership: `<group>:<user>`.
    MembershipId
);

/// A group of users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Unique in its domain.
    pub name: String,
    /// The domain that owns it.
    pub domain_id: DomainId,
    /// Free text.
    pub description: String,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Group {
    type Id = GroupId;
    const NAME: &'static str = "group";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "domain",
            values: |g| vec![g.domain_id.to_string()],
        }]
    }
}

/// One user in one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group_id: GroupId,
    /// The user.
    pub user_id: UserId,
}

impl Membership {
    /// The id under which it is kept.
    #[must_use]
    pub fn id(&self) -> MembershipId {
        MembershipId::from(format!("{}:{}", self.group_id, self.user_id))
    }
}

impl Kind for Membership {
    type Id = MembershipId;
    const NAME: &'static str = "membership";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "group",
                values: |m| vec![m.group_id.to_string()],
            },
            Index {
                name: "user",
                values: |m| vec![m.user_id.to_string()],
            },
        ]
    }
}
