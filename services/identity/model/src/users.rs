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
    /// When it was set, in microseconds since 1970; 0 when that is not known.
    #[serde(default)]
    pub set_at: i64,
    /// When it must have been changed, in microseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// Its user set it, not an administrator.
    #[serde(default)]
    pub self_service: bool,
    /// The passwords before it, newest first, as many as the history keeps.
    #[serde(default)]
    pub earlier: Vec<EarlierPassword>,
}

/// The hash of a password that was in use before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlierPassword {
    /// As [`Password::hash`].
    pub hash: Secret,
    /// As [`Password::reduced`].
    pub reduced: bool,
}

impl Password {
    /// A hash alone, of a password that never expires.
    #[must_use]
    pub fn of(hash: Secret, reduced: bool) -> Self {
        Self {
            hash,
            reduced,
            set_at: 0,
            expires_at: None,
            self_service: false,
            earlier: Vec::new(),
        }
    }
    /// This password and those before it, newest first, at most `count`.
    #[must_use]
    pub fn history(&self, count: usize) -> Vec<EarlierPassword> {
        let this = EarlierPassword {
            hash: self.hash.clone(),
            reduced: self.reduced,
        };
        std::iter::once(this)
            .chain(self.earlier.iter().cloned())
            .take(count)
            .collect()
    }
}

impl From<EarlierPassword> for Password {
    fn from(earlier: EarlierPassword) -> Self {
        Self::of(earlier.hash, earlier.reduced)
    }
}

impl Kind for Password {
    type Id = UserId;
    const NAME: &'static str = "password";
    const SECRETS: &'static [&'static str] = &["*"];
    const SPACE: Space = Space::Identity;
}

/// What a user's log-ins left behind; there only where something is to be remembered. Its id is the user's. No token
/// depends on it, so writing it does not [`crate::touch`] identity: guesses must not cost every token its cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Logins {
    /// Wrong passwords in a row.
    pub failed: u32,
    /// When the last of them was tried, in microseconds since 1970.
    pub failed_at: i64,
    /// The last day on which the user logged in, in days since 1970.
    pub active_on: Option<i64>,
    /// The step (30 s since 1970) of the last one-time password that was used: it and those before it are used up.
    #[serde(default)]
    pub totp_step: Option<i64>,
}

impl Kind for Logins {
    type Id = UserId;
    const NAME: &'static str = "logins";
    const SPACE: Space = Space::Identity;
}
