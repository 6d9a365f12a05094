//! Content-addressed immutable bytes.
