//! Audit records: who did what to what, and whether it was allowed. Never a secret, never a token.

/// One audit record.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct AuditRecord {
    /// When, RFC 3339.
    pub time: String,
    /// The request.
    pub request_id: String,
    /// Service, e.g. `compute`.
    pub service: String,
    /// The policy rule of the route, e.g. `os_compute_api:servers:create`.
    pub action: String,
    /// HTTP method.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// User, if known.
    pub user_id: Option<String>,
    /// Project, if scoped to one.
    pub project_id: Option<String>,
    /// Roles.
    pub roles: Vec<String>,
    /// Address of the client.
    pub remote: String,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Where audit records go. Called for every change and every refusal.
#[async_trait::async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Keeps one record.
    async fn record(&self, record: AuditRecord);
}

/// Keeps nothing; for tests of other things.
pub struct NoAudit;

#[async_trait::async_trait]
impl Audit for NoAudit {
    async fn record(&self, _record: AuditRecord) {}
}
