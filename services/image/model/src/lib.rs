//! Stored types, pure rules and planners of the image service (Glance v2).
