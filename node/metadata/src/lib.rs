//! What a guest is told about itself: the metadata service at 169.254.169.254 and the config drive, from one content function.
//!
//! ```text
//!  guest --HTTP--> 169.254.169.254:80 in its network's responder namespace
//!                     | who asks: source address and network, nothing else   (never a header)
//!                     v
//!                  respond(method, path, guest)   pure                          drive(guest)  pure: a vfat image
//! ```
//!
//! Paths, field names and versions are Nova's (its metadata API, version list and `network_data.json`); the EC2 tree is that of
//! version 2009-04-04. A guest that the slice does not know by its address gets 404 and learns nothing.

mod content;
mod drive;
mod ec2;
mod netdata;
mod serve;

pub use content::{Answer, Method, PASSWORD_LIMIT, files, respond};
pub use drive::config_drive;
pub use serve::{Directory, Server, serve_connection};

use maru_agent_api::slice;
use std::net::Ipv4Addr;

/// A NIC of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Nic {
    /// The port.
    pub port: slice::Port,
    /// Its network.
    pub network: slice::Network,
}

/// A guest with everything that it may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestView {
    /// The server.
    pub server: slice::Server,
    /// Its NICs in order.
    pub nics: Vec<Nic>,
    /// Floating addresses that lead to it.
    pub floating: Vec<Ipv4Addr>,
}
