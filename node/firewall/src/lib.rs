//! Security groups, anti-spoofing and router NAT, compiled to nftables by a pure function and applied atomically.

mod model;

pub use model::{Applied, FirewallInput, RouterNat, RuleFault};

use maru_base::{Error, Result};
use std::path::{Path, PathBuf};

/// The firewall of one machine's tenant links.
#[derive(Debug)]
pub struct Firewall {
    netns: PathBuf,
}

impl Firewall {
    /// The firewall of the namespace with all bridges (`Links::namespace().path()`).
    #[must_use]
    pub fn new(netns: impl Into<PathBuf>) -> Self {
        Self { netns: netns.into() }
    }

    /// Makes the rules of all ports so, in one transaction, and ends connections that the rules no longer allow.
    ///
    /// The input is always the whole; only what changed since the last call is sent to the kernel. Rules that cannot be
    /// compiled are left out and named in the answer; all others hold.
    ///
    /// # Errors
    /// nft is missing or refused the ruleset; then the old rules hold, unchanged.
    pub async fn apply(&self, _input: FirewallInput<'_>) -> Result<Applied> {
        Err(Error::not_implemented(format!(
            "no firewall in {} yet",
            self.netns.display()
        )))
    }

    /// Makes the NAT rules of one router so, in its namespace, in one transaction.
    ///
    /// # Errors
    /// nft is missing or refused the ruleset; then the old rules hold.
    pub async fn apply_router(&self, _netns: &Path, _nat: &RouterNat<'_>) -> Result<()> {
        Err(Error::not_implemented("no NAT yet"))
    }
}
