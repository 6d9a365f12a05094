//! Frames that a guest sends to the responder: DHCPv4, DHCPv6, router solicitations; and extra options, which a tenant
//! writes through the API.

use super::{Target, words};
use anyhow::Result;
use maru_agent_api::slice::{Network, Port};
use maru_dhcp::{Mac, Me, NetworkView, RaView, check_extra_option, frame, ra};
use serde_json::json;
use std::net::{Ipv4Addr, Ipv6Addr};

const GUEST: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
const ME: Me = Me {
    mac: Mac([0x0a, 0, 0, 0, 0, 9]),
};

fn view() -> Result<(Network, NetworkView)> {
    let network: Network = serde_json::from_value(json!({
        "id": "net", "vni": 100, "zone": 1, "mtu": 1450, "external": false, "admin_up": true,
        "subnets": [
            { "id": "four", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "dhcp": true, "dns": ["8.8.8.8"],
              "routes": [["10.9.0.0/16", "10.0.0.7"]], "ipv6_address_mode": null, "ipv6_ra_mode": null,
              "dhcp_address": "10.0.0.2" },
            { "id": "six", "cidr": "2001:db8::/64", "gateway": "2001:db8::1", "dhcp": true, "dns": ["2001:db8::53"],
              "routes": [], "ipv6_address_mode": "dhcpv6-stateful", "ipv6_ra_mode": "dhcpv6-stateful",
              "dhcp_address": "2001:db8::2" },
        ],
    }))?;
    let port: Port = serde_json::from_value(json!({
        "id": "port", "network_id": "net", "project_id": "p", "host": null, "device_id": "vm",
        "device_owner": "compute:nova", "mac": GUEST.to_string(),
        "fixed_ips": [["four", "10.0.0.5"], ["six", "2001:db8::5"]],
        "allowed_address_pairs": [], "security_groups": [], "port_security": true, "admin_up": true,
        "extra_dhcp_opts": [], "dns_name": "web-1.example.org.",
    }))?;
    let view = NetworkView::new(&network, [&port]);
    Ok((network, view))
}

/// A DHCPv4 message: BOOTP header, cookie, options.
fn v4(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut m = vec![1, 1, 6, 0, 0, 0, 0, 7];
    m.resize(28, 0);
    m.extend(GUEST.0);
    m.resize(236, 0);
    m.extend([99, 130, 83, 99, 53, 1, kind]);
    m.extend(options);
    m.push(255);
    let none = Ipv4Addr::UNSPECIFIED;
    frame::udp4((GUEST, none, 68), (frame::BROADCAST, Ipv4Addr::BROADCAST, 67), &m).unwrap_or_default()
}

fn v6(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, 1, 2, 3];
    // The client's id: a DUID of its link-layer address.
    m.extend([0, 1, 0, 10, 0, 3, 0, 1]);
    m.extend(GUEST.0);
    m.extend(options);
    let all: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let to = Mac([0x33, 0x33, 0, 1, 0, 2]);
    frame::udp6((GUEST, GUEST.link_local(), 546), (to, all, 547), &m).unwrap_or_default()
}

fn solicitation() -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    message.extend(GUEST.0);
    frame::icmp6(
        (GUEST, GUEST.link_local()),
        (Mac([0x33, 0x33, 0, 0, 0, 2]), all),
        message,
    )
    .unwrap_or_default()
}

/// The first byte chooses: `o` an extra option `name=value`, anything else a frame.
pub fn target() -> Result<Target> {
    let (network, view) = view()?;
    let ra = RaView::new(&network, Mac([2, 0, 0, 0, 0, 1]), &["six"]);
    let frame = |bytes: Vec<u8>| [b"f".to_vec(), bytes].concat();
    let ia = [0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let seeds = vec![
        frame(v4(1, &[55, 6, 1, 3, 6, 15, 26, 121])),
        frame(v4(
            1,
            &[61, 7, 1, 0xfa, 0x16, 0x3e, 0, 0, 1, 57, 2, 5, 220, 12, 2, b'v', b'm'],
        )),
        frame(v4(3, &[50, 4, 10, 0, 0, 5, 54, 4, 10, 0, 0, 2])),
        frame(v4(3, &[50, 4, 10, 0, 0, 99])),
        frame(v6(1, &ia)),
        frame(v6(1, &[&ia[..], &[0, 14, 0, 0, 0, 6, 0, 4, 0, 23, 0, 24]].concat())),
        frame(v6(11, &[0, 6, 0, 2, 0, 23])),
        frame(solicitation()),
        b"o4tftp-server=10.0.0.9".to_vec(),
        b"o4bootfile-name=pxelinux.0".to_vec(),
        b"o4121=10.1.0.0/16,10.0.0.1".to_vec(),
        b"o6dns-server=2001:db8::1".to_vec(),
        b"o6option6:59=tftp://[2001:db8::1]/a".to_vec(),
    ];
    let run = move |input: &[u8]| {
        let Some((kind, rest)) = input.split_first() else {
            return false;
        };
        if *kind == b'o' {
            let Some((version, text)) = rest.split_first() else {
                return false;
            };
            let Ok(text) = std::str::from_utf8(text) else {
                return false;
            };
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let taken = check_extra_option(name, value, if *version == b'6' { 6 } else { 4 });
            // E5: no line break ever gets into what other programs might read.
            assert!(
                taken.is_err() || !text.contains(['\n', '\r', '\0']),
                "a control character was taken"
            );
            return taken.is_ok();
        }
        let mut answers = vec![maru_dhcp::answer(&view, ME, rest)];
        if let Some(answer) = &answers[0] {
            assert_eq!(rest.get(6..12), Some(&GUEST.0[..]), "a stranger was answered");
            assert_eq!(answer.get(6..12), Some(&ME.mac.0[..]), "the answer is not ours");
        }
        if let Some(ra) = &ra {
            answers.push(ra::answer(ra, rest));
        }
        for answer in answers.iter().flatten() {
            assert!(
                (42..=1_514).contains(&answer.len()),
                "an answer of {} bytes",
                answer.len()
            );
        }
        answers.iter().any(Option::is_some)
    };
    Ok(Target {
        name: "dhcp",
        seeds,
        words: words(&[
            "\u{63}\u{0}",
            "tftp-server",
            "option6:",
            "option:",
            "10.0.0.1",
            "2001:db8::1",
            ",",
            "/24",
            "=",
        ]),
        most: 2_048,
        run: Box::new(run),
    })
}
