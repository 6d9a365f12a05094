//! Stored types, pure rules and planners of the compute service (Nova v2.1).
