//! Stored types, pure rules and planners of the network service (Neutron v2.0).
