//! Security groups, anti-spoofing and NAT compiled to nftables.
