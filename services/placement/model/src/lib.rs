//! Stored types, pure rules and planners of the placement service.
