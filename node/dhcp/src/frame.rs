//! Ethernet, IPv4, IPv6 and UDP, as far as DHCP and neighbour discovery need them. Every read is bounded.

use crate::Mac;
use std::net::{Ipv4Addr, Ipv6Addr};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// What the link delivers to everyone.
pub const BROADCAST: Mac = Mac([0xff; 6]);

/// A UDP datagram with the addresses of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a, A> {
    /// Sender of the frame.
    pub source_mac: Mac,
    /// Sender.
    pub source: A,
    /// Receiver.
    pub target: A,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub target_port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// A UDP datagram of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Udp<'a> {
    /// Over IPv4.
    V4(Datagram<'a, Ipv4Addr>),
    /// Over IPv6.
    V6(Datagram<'a, Ipv6Addr>),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    Some(Mac(bytes.get(at..at + 6)?.try_into().ok()?))
}

fn v6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into())
}

/// The UDP payload of an IP payload: ports and data. The checksum is not looked at: a frame that never left the machine has none
/// yet (checksum offload).
fn udp(ip: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = usize::from(u16_at(ip, 4)?);
    Some((u16_at(ip, 0)?, u16_at(ip, 2)?, ip.get(8..length)?))
}

impl<'a> Udp<'a> {
    /// Takes a frame apart. `None` for anything that is not a whole UDP datagram (fragments, extension headers, tags).
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let source_mac = mac_at(frame, 6)?;
        let packet = frame.get(14..)?;
        match u16_at(frame, 12)? {
            IPV4 => {
                let first = *packet.first()?;
                let header = usize::from(first & 0xf) * 4;
                let fragment = u16_at(packet, 6)? & 0x3fff;
                if first >> 4 != 4 || header < 20 || fragment != 0 || *packet.get(9)? != UDP {
                    return None;
                }
                let address = |at| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                let (source_port, target_port, payload) = udp(packet.get(header..usize::from(u16_at(packet, 2)?))?)?;
                Some(Self::V4(Datagram {
                    source_mac,
                    source: address(12)?,
                    target: address(16)?,
                    source_port,
                    target_port,
                    payload,
                }))
            }
            IPV6 => {
                if packet.first()? >> 4 != 6 || *packet.get(6)? != UDP {
                    return None;
                }
                let end = 40 + usize::from(u16_at(packet, 4)?);
                let (source_port, target_port, payload) = udp(packet.get(40..end)?)?;
                Some(Self::V6(Datagram {
                    source_mac,
                    source: v6_at(packet, 8)?,
                    target: v6_at(packet, 24)?,
                    source_port,
                    target_port,
                    payload,
                }))
            }
            _ => None,
        }
    }
}

/// A router solicitation that a host may send (RFC 4861 section 6.1.1): its sender's MAC and IP address.
#[must_use]
pub fn solicitation(frame: &[u8]) -> Option<(Mac, Ipv6Addr)> {
    let packet = frame.get(14..)?;
    let valid = u16_at(frame, 12)? == IPV6
        && packet.first()? >> 4 == 6
        && *packet.get(6)? == ICMPV6
        && *packet.get(7)? == 255 // not from beyond a router
        && *packet.get(40)? == 133
        && *packet.get(41)? == 0
        && usize::from(u16_at(packet, 4)?) >= 8;
    if !valid {
        return None;
    }
    Some((mac_at(frame, 6)?, v6_at(packet, 8)?))
}

/// The Internet checksum (RFC 1071) over several pieces; only the last may have an odd length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for chunk in pieces.iter().flat_map(|p| p.chunks(2)) {
        sum += u32::from(chunk[0]) << 8 | chunk.get(1).map_or(0, |b| u32::from(*b));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ethernet(from: Mac, to: Mac, kind: u16) -> Vec<u8> {
    [to.0.as_slice(), &from.0, &kind.to_be_bytes()].concat()
}

fn udp_header(from: u16, to: u16, length: usize) -> [u8; 8] {
    let mut header = [0; 8];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..6].copy_from_slice(&u16::try_from(length + 8).unwrap_or(u16::MAX).to_be_bytes());
    header
}

/// A frame with a UDP datagram over IPv4. `None` if the payload is too long for one.
#[must_use]
pub fn udp4(from: (Mac, Ipv4Addr, u16), to: (Mac, Ipv4Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(payload.len() + 28).ok()?;
    let mut ip = [0_u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    ip[8] = 64;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&from.1.octets());
    ip[16..20].copy_from_slice(&to.1.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = udp_header(from.2, to.2, payload.len());
    let pseudo = [&ip[12..20], &[0, UDP], &udp[4..6]].concat();
    let sum = checksum(&[&pseudo, &udp, payload]);
    // Zero says "no checksum", so a sum of zero is sent as its other form.
    udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    Some([ethernet(from.0, to.0, IPV4).as_slice(), &ip, &udp, payload].concat())
}

fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, length: u16) -> [u8; 40] {
    let mut ip = [0_u8; 40];
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    ip[6] = next;
    ip[7] = hops;
    ip[8..24].copy_from_slice(&from.octets());
    ip[24..40].copy_from_slice(&to.octets());
    ip
}

fn pseudo6(ip: &[u8; 40], next: u8, length: u16) -> Vec<u8> {
    [&ip[8..40], &u32::from(length).to_be_bytes(), &[0, 0, 0, next]].concat()
}

/// A frame with a UDP datagram over IPv6. `None` if the payload is too long for one.
#[must_use]
pub fn udp6(from: (Mac, Ipv6Addr, u16), to: (Mac, Ipv6Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let ip = ip6(from.1, to.1, UDP, 64, length);
    let mut udp = udp_header(from.2, to.2, payload.len());
    let sum = checksum(&[&pseudo6(&ip, UDP, length), &udp, payload]);
    udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    Some([ethernet(from.0, to.0, IPV6).as_slice(), &ip, &udp, payload].concat())
}

/// A frame with an ICMPv6 message, hop limit 255; bytes 2 and 3 of `message` are made its checksum.
#[must_use]
pub fn icmp6(from: (Mac, Ipv6Addr), to: (Mac, Ipv6Addr), mut message: Vec<u8>) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    let ip = ip6(from.1, to.1, ICMPV6, 255, length);
    message.get_mut(2..4)?.fill(0);
    let sum = checksum(&[&pseudo6(&ip, ICMPV6, length), &message]);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some([ethernet(from.0, to.0, IPV6).as_slice(), &ip, &message].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    proptest! {
        #[test]
        fn what_is_built_is_read_back_with_right_checksums(payload in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let (from, to) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 9));
            let frame = udp4((A, from, 67), (B, to, 68), &payload).unwrap();
            let Some(Udp::V4(got)) = Udp::parse(&frame) else { panic!("not read back") };
            prop_assert_eq!((got.source_mac, got.source, got.target, got.payload), (A, from, to, payload.as_slice()));
            prop_assert_eq!(checksum(&[&frame[14..34]]), 0);
            let length = &frame[38..40];
            prop_assert_eq!(checksum(&[&frame[26..34], &[0, 17], length, &frame[34..]]), 0);

            let (from, to) = (A.link_local(), B.link_local());
            let frame = udp6((A, from, 547), (B, to, 546), &payload).unwrap();
            let Some(Udp::V6(got)) = Udp::parse(&frame) else { panic!("not read back") };
            prop_assert_eq!((got.source, got.target, got.target_port, got.payload), (from, to, 546, payload.as_slice()));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), six: bool) {
            let _ = (Udp::parse(&bytes), solicitation(&bytes));
            if bytes.len() > 24 {
                bytes[12..14].copy_from_slice(&if six { IPV6 } else { IPV4 }.to_be_bytes());
                bytes[14] = if six { 0x60 } else { 0x45 };
                bytes[if six { 20 } else { 23 }] = UDP;
                let _ = (Udp::parse(&bytes), solicitation(&bytes));
            }
        }
    }
}
