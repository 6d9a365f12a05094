//! Caller, token verifier seam, the oslo.policy language, role defaults, audit.
