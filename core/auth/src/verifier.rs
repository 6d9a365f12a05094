//! The seam between core/http and the identity service.

use crate::Caller;
use std::sync::Arc;

/// Turns a token into a caller.
#[async_trait::async_trait]
pub trait TokenVerifier: Send + Sync + 'static {
    /// Verifies a token: genuine, not expired, not revoked.
    ///
    /// # Errors
    /// 401 when it is not good; 503 when that cannot be decided now.
    async fn verify(&self, token: &str) -> maru_base::Result<Arc<Caller>>;
}
