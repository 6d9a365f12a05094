//! IP protocols by name and number (IANA's registry, with the names that Neutron takes).

/// Names that a rule may use, with their numbers.
const NAMES: &[(&str, u8)] = &[
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6-encap", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ospf", 89),
    ("vrrp", 112),
    ("pgm", 113),
    ("sctp", 132),
    ("udplite", 136),
];

/// ICMP.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// The number of a protocol given by name or number; `None` when it is neither.
#[must_use]
pub fn number(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, n)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Some(*n);
    }
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}
/// Whether a protocol has ports.
#[must_use]
pub const fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}
/// Whether a protocol belongs to IPv6 alone.
#[must_use]
pub const fn is_ipv6_only(number: u8) -> bool {
    matches!(number, 41 | 43 | 44 | 58 | 59 | 60)
}
