//! The words of this crate.

use maru_agent_api::slice::{Network, Port, Router, SecurityGroup};

/// Everything that the rules of one machine follow from.
#[derive(Debug, Clone, Default)]
pub struct FirewallInput<'a> {
    /// Networks that are here.
    pub networks: Vec<&'a Network>,
    /// Ports with a tap here (ports of servers on this node). Do not pass ports of routers, DHCP or other nodes.
    pub ports: Vec<&'a Port>,
    /// Their groups and the groups that their rules name as remote.
    pub groups: Vec<&'a SecurityGroup>,
}

/// A rule, address pair or port that could not be compiled and therefore allows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// `rule`, `port`, `group` or `network`.
    pub what: &'static str,
    /// Its id.
    pub id: String,
    /// Why, and what would help.
    pub reason: String,
}

/// What a call did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// What could not be compiled.
    pub faults: Vec<RuleFault>,
    /// Whether the kernel's rules changed.
    pub changed: bool,
    /// Connections that were ended because no rule allows them any more.
    pub ended: usize,
}

/// The NAT of a router.
#[derive(Debug, Clone)]
pub struct RouterNat<'a> {
    /// The router.
    pub router: &'a Router,
    /// Its interface ports and its gateway port; others are ignored.
    pub ports: Vec<&'a Port>,
    /// The networks of those ports; others are ignored.
    pub networks: Vec<&'a Network>,
}
