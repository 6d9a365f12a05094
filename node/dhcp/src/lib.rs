//! DHCPv4, DHCPv6 and router advertisements, answered out of the slice.
//!
//! ```text
//!  guest --frame--> tap, bridge --> responder namespace of the network, device dh0
//!                                     | packet socket, kernel filter (UDP 67, UDP 547)
//!                                     v
//!                   answer(view, me, frame)  pure: bytes and the network's slice in, a frame or nothing out
//!                                     |
//!  guest <--frame---------------------+        router advertisements go out of the router's own namespace: advertise(...)
//! ```
//!
//! Nothing is leased: an address belongs to a port for the port's life, and Neutron gave it. So the server keeps no state, two
//! servers of one network give the same answer, and a restart loses nothing.
//!
//! Who asks is known by the **source MAC address of the frame**, which the firewall has checked against the port, and the
//! hardware address inside the message must be the same. A MAC address that no port of this network and machine has gets no answer
//! at all, nor does a relayed message.
//!
//! Packet sockets are used, and not UDP, because a client that has no address yet must be sent a frame that no ARP can help with,
//! and because only the frame says who sent it.

mod duid;
pub mod frame;
mod options;
pub mod ra;
mod serve;
mod socket;
pub mod v4;
pub mod v6;
mod view;

pub use options::{ExtraOption, check_extra_option, extra_option};
pub use ra::{RaPrefix, RaView};
pub use serve::{Advertiser, Responder, ResponderConfig};
pub use view::{Mac, NetworkView, Resident};

/// Who answers: the identity of the responder on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    /// MAC address of the responder's device.
    pub mac: Mac,
}

/// The answer to one frame of a guest, if it deserves one. Pure; never panics, whatever the bytes are.
#[must_use]
pub fn answer(view: &NetworkView, me: Me, bytes: &[u8]) -> Option<Vec<u8>> {
    match frame::Udp::parse(bytes)? {
        frame::Udp::V4(udp) => v4::answer(view, me, &udp),
        frame::Udp::V6(udp) => v6::answer(view, me, &udp),
    }
}
