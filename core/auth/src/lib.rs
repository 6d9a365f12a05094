//! Who calls, and what they may do.
//!
//! - [`Caller`]: the verified identity behind a request.
//! - [`TokenVerifier`]: the seam through which core/http turns a token into a caller (services/identity implements it).
//! - [`policy`]: the oslo.policy language, the secure-RBAC role defaults and overrides from a `policy.yaml`.
//! - [`Audit`]: where records of changes and refusals go.

mod audit;
mod caller;
pub mod policy;
mod verifier;

pub use audit::{Audit, AuditRecord, NoAudit};
pub use caller::{Caller, Scope};
pub use policy::{Policy, RuleDefault, Target};
pub use verifier::TokenVerifier;
