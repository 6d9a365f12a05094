//! Credentials of other kinds than passwords that a user keeps here (EC2 keys, TOTP seeds).

use crate::Secret;
use maru_base::{ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a credential.
    CredentialId
);

/// A credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// Whose.
    pub user_id: UserId,
    /// For which project, where the type needs one.
    pub project_id: Option<ProjectId>,
    /// `cert`, `ec2`, `totp`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The credential itself.
    pub blob: Secret,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Credential {
    type Id = CredentialId;
    const NAME: &'static str = "credential";
    const SECRETS: &'static [&'static str] = &["blob"];
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "user",
                values: |c| vec![c.user_id.to_string()],
            },
            Index {
                name: "project",
                values: |c| c.project_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}
