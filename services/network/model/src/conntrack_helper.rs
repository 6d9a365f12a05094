//! Conntrack helpers of a router: on the named port the router reads along with a protocol that opens further connections (FTP's data,
//! TFTP's answers, ...), so that these find their way through address translation.

use crate::{Router, errors};
use maru_base::{Error, Result};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a conntrack helper, a UUID.
    ConntrackHelperId
);

/// What may be helped: name in the API, protocol, and what Linux calls it (`nfct helper`). Upstream's list
/// (`allowed_conntrack_helpers`), but for `amanda`, whose helper Linux has for UDP.
pub const HELPERS: &[(&str, &str, &str)] = &[
    ("amanda", "udp", "amanda"),
    ("ftp", "tcp", "ftp"),
    ("h323", "udp", "RAS"),
    ("h323", "tcp", "Q.931"),
    ("irc", "tcp", "irc"),
    ("netbios-ns", "udp", "netbios-ns"),
    ("pptp", "tcp", "pptp"),
    ("sane", "tcp", "sane"),
    ("sip", "udp", "sip"),
    ("sip", "tcp", "sip"),
    ("snmp", "udp", "snmp"),
    ("tftp", "udp", "tftp"),
];

/// Most helpers of a router: its rules are told to its node as one.
pub const MOST_HELPERS: usize = 100;

/// A conntrack helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackHelper {
    /// Its id.
    pub id: ConntrackHelperId,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port on which connections to be helped begin.
    pub port: u16,
    /// A name of [`HELPERS`].
    pub helper: String,
}

impl ConntrackHelper {
    /// What Linux calls it.
    #[must_use]
    pub fn kernel_name(&self) -> Option<&'static str> {
        let mut all = HELPERS.iter();
        all.find(|(name, protocol, _)| *name == self.helper && *protocol == self.protocol)
            .map(|(_, _, kernel)| *kernel)
    }
}

/// 404.
pub fn helper_not_found(id: impl std::fmt::Display) -> Error {
    errors::not_found("ConntrackHelperNotFound", "Conntrack helper", id)
}

/// Puts a helper into a router, or (`replaces`) another in the place of one that it has.
///
/// # Errors
/// 400 `ConntrackHelperNotAllowed`, `InvalidProtocolForHelper`, or for a second one that is the same; 404 for one to be replaced that
/// is not there.
pub fn put_helper(router: &mut Router, new: ConntrackHelper, replaces: bool) -> Result<()> {
    let known: Vec<&str> = HELPERS
        .iter()
        .filter(|(name, ..)| *name == new.helper)
        .map(|(_, protocol, _)| *protocol)
        .collect();
    let refuse = |code, message| errors::refuse(maru_base::ErrorKind::BadRequest, code, message);
    if known.is_empty() {
        let mut names: Vec<&str> = HELPERS.iter().map(|(name, ..)| *name).collect();
        names.dedup();
        return Err(refuse(
            "ConntrackHelperNotAllowed",
            format!(
                "Conntrack helper {} is not allowed to be used; there are {}.",
                new.helper,
                names.join(", ")
            ),
        ));
    }
    if !known.contains(&new.protocol.as_str()) {
        return Err(refuse(
            "InvalidProtocolForHelper",
            format!(
                "Conntrack helper {} does not support protocol: {}. Supported protocols: {}.",
                new.helper,
                new.protocol,
                known.join(", ")
            ),
        ));
    }
    let same = |h: &ConntrackHelper| (&h.protocol, h.port, &h.helper) == (&new.protocol, new.port, &new.helper);
    if router.conntrack_helpers.iter().any(|h| h.id != new.id && same(h)) {
        return Err(errors::bad_request(
            "conntrack_helper",
            format!(
                "a duplicate conntrack helper entry with same attributes already exists: {} on {} port {}",
                new.helper, new.protocol, new.port
            ),
        ));
    }
    let own = &mut router.conntrack_helpers;
    match own.iter().position(|h| h.id == new.id) {
        Some(place) => own[place] = new,
        None if replaces => return Err(helper_not_found(&new.id)),
        None if own.len() >= MOST_HELPERS => {
            return Err(errors::bad_request(
                "conntrack_helper",
                format!("a router has at most {MOST_HELPERS} conntrack helpers"),
            ));
        }
        None => own.push(new),
    }
    router.meta.touch();
    Ok(())
}
