//! Stored types, pure rules and planners of the identity service (Keystone v3).
