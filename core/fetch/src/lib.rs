//! Bytes from addresses that tenants name (web-download of images; later webhooks and mirrors).
//!
//! A tenant who names a URL lets the control plane open a connection in its own name (attack class B: requests forged by a
//! server). So every hop of a download passes one rule, [`Allow::check`] for what is written and [`is_public`] for what it
//! resolves to:
//!
//! - `http` and `https`, ports 80 and 443, no user or password in the URL;
//! - every address that the name resolves to is a public one, and the connection goes to exactly the address that was looked at:
//!   a name that resolves differently a moment later changes nothing;
//! - a redirect is a new URL under the same rule, at most [`REDIRECTS`] of them, and never from `https` to `http`;
//! - nothing of the caller is sent: no token, no cookie, no header of a request.
//!
//! Test servers and mirrors inside are named by the operator, host and port exactly ([`Allow`]); what is named there may be anywhere.

mod client;

pub use client::{Fetched, Fetcher};

use maru_base::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Most redirects that one download follows.
pub const REDIRECTS: usize = 5;
/// Longest URL, in bytes.
const LONGEST: usize = 4096;

/// Hosts with their ports that may be asked although the rule would refuse them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(Vec<(String, u16)>);

impl Allow {
    /// Reads `host:port` texts, such as `127.0.0.1:8000`, `mirror.lan:8080` or `[fd00::1]:80`.
    ///
    /// # Errors
    /// 400 for a text that is not of this form.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        let one = |text: &str| {
            let bad = || {
                Error::bad_request(format!(
                    "'{text}' is not a host with its port; write it such as mirror.lan:8080 or 10.0.0.1:80."
                ))
            };
            let (host, port) = text.trim().rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?;
            // As URLs are read, so that both are of one form.
            let host = Host::parse(host).map_err(|_| bad())?;
            Ok((host.to_string(), port))
        };
        let all: Result<Vec<_>> = texts.iter().map(|t| one(t.as_ref())).collect();
        all.map(Self)
    }
    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn names(&self, url: &Url) -> bool {
        let (host, port) = (url.host().map(|h| h.to_string()), url.port_or_known_default());
        self.0.iter().any(|(h, p)| Some(h) == host.as_ref() && Some(*p) == port)
    }

    /// Reads a URL and checks what can be seen without asking anyone.
    ///
    /// # Errors
    /// 400 that says what is refused and why.
    pub fn check(&self, text: &str) -> Result<Url> {
        if text.len() > LONGEST {
            return Err(refuse("the URL", &format!("it is longer than {LONGEST} bytes")));
        }
        let url = Url::parse(text).map_err(|e| refuse(text, &format!("it is no URL ({e})")))?;
        self.check_url(&url)?;
        Ok(url)
    }
    fn check_url(&self, url: &Url) -> Result<()> {
        let shown = shown(url);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(
                &shown,
                &format!("its scheme {} is neither http nor https", url.scheme()),
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(&shown, "it has a user or password in it"));
        }
        let Some(host) = url.host() else {
            return Err(refuse(&shown, "it names no host"));
        };
        if self.names(url) {
            return Ok(());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !matches!(port, 80 | 443) {
            return Err(refuse(&shown, &format!("its port {port} is neither 80 nor 443")));
        }
        let literal = match host {
            Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
            Host::Domain(_) => None,
        };
        if let Some(ip) = literal.filter(|ip| !is_public(*ip)) {
            return Err(refuse(&shown, &format!("{ip} is not a public address")));
        }
        Ok(())
    }
}

impl std::fmt::Display for Allow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (host, port)) in self.0.iter().enumerate() {
            write!(f, "{}{host}:{port}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A URL for messages: without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Schemes that cannot have these have none to hide.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.set_fragment(None);
    url.to_string().chars().take(200).collect()
}

fn refuse(url: &str, why: &str) -> Error {
    let url: String = url.chars().take(200).collect();
    Error::invalid(
        "uri",
        format!(
            "URI for web-download does not pass filtering: {url} is refused, {why}. Public http and https addresses at ports 80 \
             and 443 are taken; others only if the operator allows that host and port."
        ),
    )
}

/// Whether an address is one of the public Internet: not this machine, not its neighbours, not a private network, not an address
/// that stands for one of these in another form (IANA's special-purpose registries).
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => public4(ip),
        IpAddr::V6(ip) => public6(ip),
    }
}

fn public4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        // Shared address space of carriers, benchmarks, protocol assignments, 6to4 relays, reserved.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || a >= 240)
}

fn public6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return public4(v4);
    }
    let s = ip.segments();
    // The global unicast block, without what in it is special.
    s[0] & 0xe000 == 0x2000
        // Teredo, benchmarks, ORCHID and other protocol assignments.
        && !(s[0] == 0x2001 && s[1] < 0x200)
        // Documentation.
        && !(s[0] == 0x2001 && s[1] == 0xdb8)
        && !(s[0] == 0x3fff && s[1] < 0x1000)
        // 6to4 stands for an IPv4 address.
        && s[0] != 0x2002
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn b1_only_public_addresses_are_asked() {
        for bad in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
        ] {
            assert!(!is_public(bad.parse().unwrap()), "{bad}");
        }
        for good in [
            "9.9.9.9",
            "172.32.0.1",
            "100.128.0.1",
            "2620:fe::fe",
            "2a00::1",
            "::ffff:9.9.9.9",
        ] {
            assert!(is_public(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn b1_urls_are_refused_in_every_form_of_a_private_address() {
        let none = Allow::default();
        for bad in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://9.9.9.9:5000/",
            "http://9.9.9.9:22/",
            "https://user:secret@9.9.9.9/",
            "ftp://9.9.9.9/",
            "file:///etc/passwd",
            "gopher://9.9.9.9/",
            "x",
            "",
        ] {
            let refusal = none.check(bad).unwrap_err();
            assert_eq!(refusal.kind(), maru_base::ErrorKind::BadRequest, "{bad}");
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
        }
        for good in [
            "http://example.org/a.img",
            "https://9.9.9.9/x?y=z",
            "http://example.org:443/",
        ] {
            none.check(good).unwrap();
        }
    }

    #[test]
    fn only_exactly_what_is_allowed_is_allowed() {
        let allow = Allow::parse(&["127.0.0.1:8000", "mirror.lan:80", "[fd00::1]:81"]).unwrap();
        for good in [
            "http://127.0.0.1:8000/x",
            "http://0x7f.1:8000/x",
            "http://MIRROR.lan/x",
            "http://[fd00::1]:81/",
        ] {
            allow.check(good).unwrap();
        }
        for bad in [
            "http://127.0.0.1:8001/",
            "http://127.0.0.2:8000/",
            "http://[fd00::1]/",
            "http://mirror.lan:81/",
        ] {
            assert!(allow.check(bad).is_err(), "{bad}");
        }
        assert_eq!(allow.to_string(), "127.0.0.1:8000, mirror.lan:80, [fd00::1]:81");
        for bad in ["x", "x:", "x:0", "x:70000", ":80", "a b:80"] {
            assert!(Allow::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
