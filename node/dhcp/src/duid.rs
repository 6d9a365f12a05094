//! The DHCPv6 identity of a responder (RFC 8415 section 11.4): DUID-LL of its MAC address.

use crate::Mac;

pub(crate) fn duid(mac: Mac) -> Vec<u8> {
    // Type 3 (link-layer), hardware type 1 (Ethernet), the address.
    [&[0, 3, 0, 1], mac.0.as_slice()].concat()
}
