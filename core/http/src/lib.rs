//! What every REST API shares.
