//! Extra DHCP options of a port: a name or number and a text, as Neutron's `extra_dhcp_opts` has them.
//!
//! Upstream wrote them into dnsmasq's configuration, where a line break became another directive (attack E5). Here a value becomes
//! the bytes of one option or is refused; there is no text that anything reads again. Names are dnsmasq's (`dnsmasq --help dhcp`).

use maru_base::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// An extra option, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraOption {
    /// An option of the message: code and bytes.
    Option(u8, Vec<u8>),
    /// The address of the next server in the message's header (`siaddr`).
    NextServer(Ipv4Addr),
    /// A DHCPv6 option: code and bytes.
    Option6(u16, Vec<u8>),
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Form {
    Addresses,
    Text,
    U8,
    U16,
    U32,
    Bool,
    Domains,
    Routes,
    Bytes,
}

const V4: &[(&str, u8, Form)] = &[
    ("netmask", 1, Form::Addresses),
    ("time-offset", 2, Form::U32),
    ("router", 3, Form::Addresses),
    ("dns-server", 6, Form::Addresses),
    ("log-server", 7, Form::Addresses),
    ("lpr-server", 9, Form::Addresses),
    ("hostname", 12, Form::Text),
    ("boot-file-size", 13, Form::U16),
    ("domain-name", 15, Form::Text),
    ("swap-server", 16, Form::Addresses),
    ("root-path", 17, Form::Text),
    ("extension-path", 18, Form::Text),
    ("ip-forward-enable", 19, Form::Bool),
    ("default-ttl", 23, Form::U8),
    ("mtu", 26, Form::U16),
    ("all-subnets-local", 27, Form::Bool),
    ("broadcast", 28, Form::Addresses),
    ("router-discovery", 31, Form::Bool),
    ("router-solicitation", 32, Form::Addresses),
    ("tcp-ttl", 37, Form::U8),
    ("tcp-keepalive", 38, Form::U32),
    ("nis-domain", 40, Form::Text),
    ("nis-server", 41, Form::Addresses),
    ("ntp-server", 42, Form::Addresses),
    ("vendor-encap", 43, Form::Bytes),
    ("netbios-ns", 44, Form::Addresses),
    ("netbios-dd", 45, Form::Addresses),
    ("netbios-nodetype", 46, Form::U8),
    ("netbios-scope", 47, Form::Text),
    ("x-windows-fs", 48, Form::Addresses),
    ("x-windows-dm", 49, Form::Addresses),
    ("lease-time", 51, Form::U32),
    ("T1", 58, Form::U32),
    ("T2", 59, Form::U32),
    ("vendor-class", 60, Form::Text),
    ("nis+-domain", 64, Form::Text),
    ("nis+-server", 65, Form::Addresses),
    ("tftp-server", 66, Form::Text),
    ("bootfile-name", 67, Form::Text),
    ("smtp-server", 69, Form::Addresses),
    ("pop3-server", 70, Form::Addresses),
    ("nntp-server", 71, Form::Addresses),
    ("irc-server", 74, Form::Addresses),
    ("posix-timezone", 100, Form::Text),
    ("tzdb-timezone", 101, Form::Text),
    ("domain-search", 119, Form::Domains),
    ("classless-static-route", 121, Form::Routes),
    ("tftp-server-address", 150, Form::Addresses),
    ("path-prefix", 210, Form::Text),
    ("reboot-time", 211, Form::U32),
    ("ms-classless-static-route", 249, Form::Routes),
];

const V6: &[(&str, u16, Form)] = &[
    ("sip-server-domain", 21, Form::Domains),
    ("sip-server", 22, Form::Addresses),
    ("dns-server", 23, Form::Addresses),
    ("domain-search", 24, Form::Domains),
    ("nis-server", 27, Form::Addresses),
    ("nis+-server", 28, Form::Addresses),
    ("nis-domain", 29, Form::Domains),
    ("nis+-domain", 30, Form::Domains),
    ("sntp-server", 31, Form::Addresses),
    ("information-refresh-time", 32, Form::U32),
    ("bootfile-url", 59, Form::Text),
    ("bootfile-param", 60, Form::Bytes),
];

/// Options that carry the protocol itself; a port may not set them.
const PROTOCOL: &[u8] = &[0, 50, 52, 53, 54, 55, 57, 61, 82, 255];
const PROTOCOL6: &[u16] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 18, 19, 20, 25, 26];

fn domain(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let good =
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !good {
            return None;
        }
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// Routes as RFC 3442 writes them: destinations and next hops.
pub(crate) fn routes<'a>(routes: impl IntoIterator<Item = &'a (ipnet::Ipv4Net, Ipv4Addr)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (to, via) in routes {
        bytes.push(to.prefix_len());
        bytes.extend_from_slice(&to.network().octets()[..usize::from(to.prefix_len()).div_ceil(8)]);
        bytes.extend_from_slice(&via.octets());
    }
    bytes
}

fn encode(form: Form, value: &str, v6: bool) -> Option<Vec<u8>> {
    let list = || value.split(',').map(str::trim).filter(|s| !s.is_empty());
    Some(match form {
        Form::Text => value.as_bytes().to_vec(),
        Form::U8 => vec![value.parse::<u8>().ok()?],
        Form::U16 => value.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        Form::U32 => match value.parse::<u32>() {
            Ok(n) => n.to_be_bytes().to_vec(),
            Err(_) => value.parse::<i32>().ok()?.to_be_bytes().to_vec(),
        },
        Form::Bool => vec![match value {
            "0" | "false" => 0,
            "1" | "true" => 1,
            _ => return None,
        }],
        Form::Addresses if v6 => {
            let all: Option<Vec<Ipv6Addr>> = list().map(|s| s.trim_matches(['[', ']']).parse().ok()).collect();
            all?.iter().flat_map(Ipv6Addr::octets).collect()
        }
        Form::Addresses => {
            let all: Option<Vec<Ipv4Addr>> = list().map(|s| s.parse().ok()).collect();
            all?.iter().flat_map(Ipv4Addr::octets).collect()
        }
        Form::Domains => list().map(domain).collect::<Option<Vec<_>>>()?.concat(),
        Form::Routes => {
            let parts: Vec<&str> = list().collect();
            let pairs: Option<Vec<_>> = parts
                .chunks(2)
                .map(|pair| match pair {
                    [to, via] => Some((to.parse().ok()?, via.parse().ok()?)),
                    _ => None,
                })
                .collect();
            routes(&pairs?)
        }
        Form::Bytes => guess(value),
    })
}

/// The bytes of a value whose form no table knows: hexadecimal bytes with colons, a list of addresses, or the text.
fn guess(value: &str) -> Vec<u8> {
    let hex: Option<Vec<u8>> = value
        .split(':')
        .map(|p| (p.len() == 2).then(|| u8::from_str_radix(p, 16).ok())?)
        .collect();
    if let Some(bytes) = hex {
        return bytes;
    }
    encode(Form::Addresses, value, false)
        .filter(|b| !b.is_empty())
        .or_else(|| encode(Form::Addresses, value, true).filter(|b| !b.is_empty()))
        .unwrap_or_else(|| value.as_bytes().to_vec())
}

/// Encodes one extra option of IP version `version`. The name may be dnsmasq's, a number, or `option:` or `option6:` before either.
///
/// # Errors
/// `BadRequest` that says why the option is refused: an unknown name, a value of another form, control characters, an option that
/// the protocol itself needs.
pub fn extra_option(name: &str, value: &str, version: u8) -> Result<ExtraOption> {
    let refused = |why: &str| {
        Error::bad_request(format!(
            "The extra DHCP option {name:?} with the value {value:?} is refused: {why}."
        ))
    };
    if value.chars().any(char::is_control) || name.chars().any(char::is_control) {
        return Err(refused("it has a control character, such as a line break"));
    }
    if value.len() > 255 {
        return Err(refused("its value is longer than 255 bytes"));
    }
    let six = version == 6 || name.starts_with("option6:");
    let plain = name.trim_start_matches("option6:").trim_start_matches("option:");
    if six {
        let known = V6
            .iter()
            .find(|(known, code, _)| *known == plain || plain.parse() == Ok(*code));
        let code = match known {
            Some((_, code, _)) => *code,
            None => plain
                .parse()
                .map_err(|_| refused("no DHCPv6 option has that name; give its number"))?,
        };
        if PROTOCOL6.contains(&code) {
            return Err(refused("the protocol itself needs that option"));
        }
        let bytes = encode(known.map_or(Form::Bytes, |k| k.2), value, true);
        return Ok(ExtraOption::Option6(
            code,
            bytes.ok_or_else(|| refused("the value has not the form that it needs"))?,
        ));
    }
    if plain == "server-ip-address" || plain == "255" {
        let address = value.parse().map_err(|_| refused("the value is not an IPv4 address"))?;
        return Ok(ExtraOption::NextServer(address));
    }
    let known = V4
        .iter()
        .find(|(known, code, _)| *known == plain || plain.parse() == Ok(*code));
    let code = match known {
        Some((_, code, _)) => *code,
        None => plain
            .parse()
            .map_err(|_| refused("no DHCP option has that name; give its number, 1 to 254"))?,
    };
    if PROTOCOL.contains(&code) {
        return Err(refused("the protocol itself needs that option"));
    }
    let bytes = encode(known.map_or(Form::Bytes, |k| k.2), value, false)
        .ok_or_else(|| refused("the value has not the form that it needs"))?;
    if bytes.len() > 255 {
        return Err(refused("it is longer than 255 bytes when encoded"));
    }
    Ok(ExtraOption::Option(code, bytes))
}

/// Whether [`extra_option`] takes it; for the API, before it is kept.
///
/// # Errors
/// As [`extra_option`].
pub fn check_extra_option(name: &str, value: &str, version: u8) -> Result<()> {
    extra_option(name, value, version).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ExtraOption::{NextServer, Option, Option6};

    #[test]
    fn values_take_the_form_of_their_option() {
        let four = |name, value| extra_option(name, value, 4).unwrap();
        assert_eq!(four("mtu", "1400"), Option(26, vec![5, 120]));
        assert_eq!(four("26", "1400"), Option(26, vec![5, 120]));
        assert_eq!(
            four("option:ntp-server", "10.0.0.1,10.0.0.2"),
            Option(42, vec![10, 0, 0, 1, 10, 0, 0, 2])
        );
        assert_eq!(four("bootfile-name", "pxelinux.0"), Option(67, b"pxelinux.0".to_vec()));
        assert_eq!(four("domain-search", "a.b"), Option(119, vec![1, b'a', 1, b'b', 0]));
        assert_eq!(
            four("server-ip-address", "10.0.0.9"),
            NextServer(Ipv4Addr::new(10, 0, 0, 9))
        );
        assert_eq!(
            four("classless-static-route", "10.1.0.0/16,10.0.0.1"),
            Option(121, vec![16, 10, 1, 10, 0, 0, 1])
        );
        assert_eq!(four("43", "01:02:ff"), Option(43, vec![1, 2, 255]));
        assert_eq!(extra_option("dns-server", "2001:db8::1", 6).unwrap().clone(), {
            Option6(23, "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec())
        });
    }

    #[test]
    fn e5_no_option_carries_a_directive_or_breaks_the_protocol() {
        for (name, value) in [
            ("bootfile-name", "a\ndhcp-script=/tmp/x"),
            ("bootfile-name", "a\0b"),
            ("server-identifier", "10.0.0.1"),
            ("53", "2"),
            ("mtu", "70000"),
            ("router", "10.0.0.1\r"),
            ("router", "not-an-address"),
            ("no-such-name", "1"),
            ("999", "1"),
        ] {
            assert!(extra_option(name, value, 4).is_err(), "{name} {value:?}");
        }
        assert!(extra_option("root-path", &"x".repeat(256), 4).is_err());
    }
}
