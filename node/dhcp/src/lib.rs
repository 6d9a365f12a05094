//! DHCPv4 and router advertisements answered out of the slice.
