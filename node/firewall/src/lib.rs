//! Security groups, anti-spoofing and router NAT, compiled to nftables by a pure function and applied atomically.
//!
//! # How a frame is judged
//!
//! All bridges and taps of a machine are in one namespace, with br_netfilter on, so that bridged IP goes through the inet hooks,
//! where connections are tracked. (The bridge family's own connection tracking is not on every kernel; this way is.)
//!
//! ```text
//!  frame from a tap
//!    | bridge prerouting -350   mark := the port; MAC, ARP, ND, IP must be its own; no DHCP server, no RA;   E1 E2
//!    |                          a tap that no map knows: drop (the port security window)
//!    | inet   prerouting -450   conntrack zone := the network's (by bridge), before defragmentation at -400, so that neither
//!    |                          connections nor fragments of networks with the same addresses meet
//!    | inet   prerouting -150   mark -> chain of the port: answers, always-allowed, its groups' egress rules, drop
//!    | bridge forward    -10    mark := the port behind the outgoing tap; only frames for its MAC (or multicast)   E3
//!    | inet   forward      0    mark -> chain of that port: answers, always-allowed, its groups' ingress rules, drop
//!    v
//!  frame to a tap            (frames to the namespace's own stack: bridge input, drop)
//! ```
//!
//! A port has a few short chains; a group has one chain a direction, shared by its ports; a remote group is a named set. Maps
//! keyed by tap or mark lead to them, so one more port among a thousand adds its own chains and four map elements, and
//! [`Ruleset::delta`] sends no more than that.
//!
//! Always allowed, whatever the rules say: DHCP as a client, ND, MLD, router solicitation, metadata (TCP 80 of 169.254.169.254 and
//! fe80::a9fe:a9fe). Never allowed with port security on: answering DHCP (from port 67 or 547, or to port 68 or 546), router
//! advertisements, redirects, ethertypes other than ARP, IPv4 and IPv6 (so no VLAN tags), other ports' addresses.
//!
//! # Rule changes and live connections
//!
//! See [`Firewall::apply`]: after each change, every tracked connection that no rule would let begin now is ended. This takes
//! `nf_conntrack_tcp_loose=0` in the namespace (the link driver sets it).

mod compile;
mod conntrack;
mod flows;
mod model;
mod nat;
mod rules;
mod run;
mod text;

pub use compile::{Compiled, compile};
pub use model::{Applied, FirewallInput, RouterNat, RuleFault};
pub use nat::{CompiledNat, compile_nat};
pub use text::Ruleset;

use conntrack::{Conntrack, Entry};
use maru_base::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The firewall of one machine's tenant links. Cheap to clone; calls are carried out one after another.
#[derive(Debug, Clone)]
pub struct Firewall {
    netns: PathBuf,
    /// What the kernel has of us; `None` before the first call and after a failure.
    last: Arc<Mutex<Option<Compiled>>>,
}

impl Firewall {
    /// The firewall of the namespace with all bridges (`Links::namespace().path()`).
    #[must_use]
    pub fn new(netns: impl Into<PathBuf>) -> Self {
        Self {
            netns: netns.into(),
            last: Arc::default(),
        }
    }

    /// Makes the rules of all ports so, in one transaction, and ends connections that the rules no longer allow.
    ///
    /// The input is always the whole; only what changed since the last call is sent to the kernel (the first call of a process
    /// replaces everything). Rules that cannot be compiled are left out and named in the answer; all others hold.
    ///
    /// # Errors
    /// nft is missing or refused the ruleset; then the old rules hold, unchanged.
    pub async fn apply(&self, input: FirewallInput<'_>) -> Result<Applied> {
        let new = compile(&input);
        let (netns, last) = (self.netns.clone(), Arc::clone(&self.last));
        blocking(move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let (applied, new) = apply_now(&netns, last.take(), new)?;
            *last = Some(new);
            Ok(applied)
        })
        .await
    }

    /// Forgets what the kernel was told: the next [`Self::apply`] replaces everything.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes the NAT rules of one router so, in its namespace, in one transaction; ends connections whose translation is not
    /// today's any more. Needs no links there yet: load it before the router gets its links.
    ///
    /// # Errors
    /// nft is missing or refused the ruleset; then the old rules hold.
    pub async fn apply_router(&self, netns: &Path, nat: &RouterNat<'_>) -> Result<Applied> {
        let (mut compiled, netns) = (compile_nat(nat), netns.to_owned());
        if !compiled.helpers.is_empty() {
            // One that the kernel lacks would have the whole transaction refused.
            let (wanted, there) = (compiled.helpers.clone(), netns.clone());
            let missing = blocking(move || {
                run::inside(&there, || {
                    let lacking = wanted.into_iter().filter(|h| run::nft(&nat::probe(h)).is_err());
                    Ok(lacking.collect::<std::collections::BTreeSet<_>>())
                })
            })
            .await?;
            compiled = nat::compile_nat_without(nat, &missing);
        }
        blocking(move || {
            run::inside(&netns, || {
                run::nft(&compiled.text)?;
                let ended = end(|entries| compiled.ended(entries));
                Ok(Applied {
                    faults: compiled.faults.clone(),
                    changed: true,
                    ended,
                })
            })
        })
        .await
    }
}

/// Brings the kernel from `old` to `new`.
fn apply_now(netns: &Path, old: Option<Compiled>, new: Compiled) -> Result<(Applied, Compiled)> {
    let faults = new.faults.clone();
    if old
        .as_ref()
        .is_some_and(|old| old.ruleset == new.ruleset && old.policy == new.policy)
    {
        return Ok((
            Applied {
                faults,
                changed: false,
                ended: 0,
            },
            new,
        ));
    }
    let ended = run::inside(netns, || {
        let changes = old.as_ref().map(|old| new.ruleset.delta(&old.ruleset));
        let done = match &changes {
            Some(changes) => run::nft(changes).or_else(|e| {
                // Someone else changed our table, or nft disagrees about a detail: the whole is always right.
                tracing::warn!(
                    error = e.chain(),
                    "a change of the firewall was refused; it is made anew as a whole"
                );
                run::nft(&new.ruleset.full())
            }),
            None => run::nft(&new.ruleset.full()),
        };
        done?;
        let before = old.as_ref().map(|old| &old.policy);
        Ok(end(|entries| flows::ended(before, &new.policy, entries)))
    })?;
    Ok((
        Applied {
            faults,
            changed: true,
            ended,
        },
        new,
    ))
}

/// Ends the connections that `which` picks, in the calling thread's namespace. A failure is logged: the rules hold already.
fn end(which: impl for<'a> Fn(&'a [Entry]) -> Vec<&'a Entry>) -> usize {
    let work = || -> nix::Result<usize> {
        let mut conntrack = Conntrack::open()?;
        let entries = conntrack.list()?;
        let doomed = which(&entries);
        doomed.iter().try_for_each(|e| conntrack.delete(e))?;
        Ok(doomed.len())
    };
    work().unwrap_or_else(|e| {
        tracing::warn!(error = %e, "connections that the rules no longer allow could not be ended");
        0
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("A step on the firewall panicked; the log has where.", e))?
}
