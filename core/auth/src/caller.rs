//! The verified identity behind a request.

use maru_base::{DomainId, ProjectId, UserId};

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Identity alone.
    Unscoped,
    /// A project.
    Project(ProjectId),
    /// A domain.
    Domain(DomainId),
    /// The whole system.
    System,
}

/// A verified caller. Built only by a [`crate::TokenVerifier`]; nothing of it comes from request headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The user's name.
    pub user_name: String,
    /// The user's domain.
    pub user_domain_id: DomainId,
    /// What the token is scoped to.
    pub scope: Scope,
    /// Domain of the project, for project scope.
    pub project_domain_id: Option<DomainId>,
    /// Name of the project, for project scope.
    pub project_name: Option<String>,
    /// Names of the effective roles (implied ones included), lower case, sorted.
    pub roles: Vec<String>,
    /// Whether the token came with a trust, an application credential, ...: `password`, `token`.
    pub methods: Vec<String>,
    /// The token's audit ids (never the token itself).
    pub audit_ids: Vec<String>,
    /// When the token ends.
    pub expires_at: jiff::Timestamp,
}

impl Caller {
    /// Whether the caller has a role, by name in any case.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r.eq_ignore_ascii_case(role))
    }
    /// The project, for project scope.
    #[must_use]
    pub fn project_id(&self) -> Option<&ProjectId> {
        match &self.scope {
            Scope::Project(id) => Some(id),
            _ => None,
        }
    }
    /// The domain, for domain scope.
    #[must_use]
    pub fn domain_id(&self) -> Option<&DomainId> {
        match &self.scope {
            Scope::Domain(id) => Some(id),
            _ => None,
        }
    }
    /// The project, or a 403 that says that a project scope is needed.
    ///
    /// # Errors
    /// When the token is not scoped to a project.
    pub fn require_project(&self) -> maru_base::Result<&ProjectId> {
        self.project_id().ok_or_else(|| {
            maru_base::Error::forbidden(
                "This request acts on a project: authenticate with a project scope (OS_PROJECT_NAME).",
            )
        })
    }
    /// Whether the caller is an administrator of the whole cloud (role `admin`).
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }
}
