//! Users and their passwords.

use crate::Secret;
use maru_base::{DomainId, ProjectId, UserId};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Unique in its domain.
    pub name: String,
    /// The domain that owns it.
    pub domain_id: DomainId,
    /// A disabled user gets no token, and its tokens end.
    pub enabled: bool,
    /// The scope of a token that asks for none.
    pub default_project_id: Option<ProjectId>,
    /// User options.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Other attributes that a client gave (`email`, `description`).
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for User {
    type Id = UserId;
    const NAME: &'static str = "user";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "domain",
                values: |u| vec![u.domain_id.to_string()],
            },
            Index {
                name: "default_project",
                values: |u| u.default_project_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

/// A user's password, apart from the user so that no listing can show it. Its id is the user's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Password {
    /// bcrypt, `$2a$` or `$2b$`.
    pub hash: Secret,
    /// The password was reduced by SHA-256 first, because bcrypt looks at 72 bytes only.
    #[serde(default)]
    pub reduced: bool,
}

impl Kind for Password {
    type Id = UserId;
    const NAME: &'static str = "password";
    const SECRETS: &'static [&'static str] = &["*"];
    const SPACE: Space = Space::Identity;
}
