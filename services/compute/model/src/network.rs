//! The one place where the compute model meets the network model: ports of servers.

use crate::{Networks, Server};
use maru_base::Result;
use maru_store::{Object, Snapshot, Txn};

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name of its network.
    pub network: String,
    /// The address.
    pub ip: std::net::IpAddr,
    /// MAC of its port.
    pub mac: String,
    /// Whether it is a floating IP.
    pub floating: bool,
}

/// Checks at request time what can be known: networks and ports exist, are the caller's, and are free.
///
/// # Errors
/// 400, 404 or 409 in upstream's words.
pub fn check_networks(_snapshot: &Snapshot, _caller: &maru_auth::Caller, _networks: &Networks, _servers: u32) -> Result<()> {
    Ok(())
}

/// Makes and binds a server's ports on `host`.
///
/// # Errors
/// When a network, port or address cannot be had.
pub fn plan_plug(_snapshot: &Snapshot, _txn: &mut Txn, _id: &str, _server: &mut Server, _host: &str) -> Result<()> {
    Ok(())
}

/// Removes the ports that were made for a server and gives the others back.
///
/// # Errors
/// What the network planners refuse.
pub fn plan_unplug(_snapshot: &Snapshot, _txn: &mut Txn, _server: &Object<Server>) -> Result<()> {
    Ok(())
}

/// A server's addresses in NIC order, floating IPs after the fixed one they lead to.
#[must_use]
pub fn addresses(_snapshot: &Snapshot, _server: &Server) -> Vec<Address> {
    Vec::new()
}

/// Names of the security groups of a server's ports (as asked for, before it has any).
#[must_use]
pub fn security_groups(_snapshot: &Snapshot, server: &Server) -> Vec<String> {
    server.security_groups.clone()
}
