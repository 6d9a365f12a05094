//! OAuth 1.0a: consumers, and the tokens by which a user lets one act for it (RFC 5849).

use crate::{RoleId, Secret};
use maru_base::{ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a consumer.
    ConsumerId
);
typed_id!(
    /// Id of a request token.
    RequestTokenId
);
typed_id!(
    /// Id of an access token.
    AccessTokenId
);

/// An application that may ask users to act for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    /// Free text.
    pub description: Option<String>,
    /// Signs its requests.
    pub secret: Secret,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Consumer {
    type Id = ConsumerId;
    const NAME: &'static str = "oauth1-consumer";
    const SECRETS: &'static [&'static str] = &["secret"];
    const SPACE: Space = Space::Identity;
}

/// What a consumer asks for, until a user has said yes and the consumer has fetched its access token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestToken {
    /// Who asks.
    pub consumer_id: ConsumerId,
    /// Signs, with the consumer's.
    pub secret: Secret,
    /// Where it wants to act.
    pub project_id: ProjectId,
    /// Its end in microseconds since 1970.
    pub expires_at: i64,
    /// The user's yes.
    pub granted: Option<Granted>,
}

/// A user's yes to a request token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// Who said it.
    pub user_id: UserId,
    /// With which roles.
    pub roles: Vec<RoleId>,
    /// What the user hands the consumer, which proves that it is the one that the user meant.
    pub verifier: Secret,
}

impl Kind for RequestToken {
    type Id = RequestTokenId;
    const NAME: &'static str = "oauth1-request-token";
    const SECRETS: &'static [&'static str] = &["secret", "granted"];
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "consumer",
                values: |t| vec![t.consumer_id.to_string()],
            },
            Index {
                name: "project",
                values: |t| vec![t.project_id.to_string()],
            },
        ]
    }
}

/// What a consumer gets tokens with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Whose.
    pub consumer_id: ConsumerId,
    /// Signs, with the consumer's.
    pub secret: Secret,
    /// For whom it acts.
    pub user_id: UserId,
    /// Where.
    pub project_id: ProjectId,
    /// With which roles; it is good as long as the user has all of them.
    pub roles: Vec<RoleId>,
    /// Its end in microseconds since 1970.
    pub expires_at: i64,
}

impl Kind for AccessToken {
    type Id = AccessTokenId;
    const NAME: &'static str = "oauth1-access-token";
    const SECRETS: &'static [&'static str] = &["secret"];
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "consumer",
                values: |t| vec![t.consumer_id.to_string()],
            },
            Index {
                name: "user",
                values: |t| vec![t.user_id.to_string()],
            },
            Index {
                name: "project",
                values: |t| vec![t.project_id.to_string()],
            },
        ]
    }
}
