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
    /// Verifies a token for one request: besides [`TokenVerifier::verify`], that a token which is good for some requests
    /// only is good for this one. `path` is the one below the service's prefix, as it was sent.
    ///
    /// # Errors
    /// As `verify`; 401 when the token is not good for this request.
    async fn verify_for(
        &self,
        token: &str,
        _service: &str,
        _method: &str,
        _path: &str,
    ) -> maru_base::Result<Arc<Caller>> {
        self.verify(token).await
    }
}
