//! Guests made of a real tap and a few lines of user space: they send frames byte by byte and see what reaches them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use super::*;
use maru_firewall::{Applied, Firewall, FirewallInput};
use maru_link::{LinkConfig, Links, Uplink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// `struct virtio_net_hdr` before every frame (IFF_VNET_HDR).
const VNET: usize = 10;

/// A machine: links, firewall, and the objects that they follow from.
pub struct Machine {
    pub name: String,
    pub links: Links,
    pub firewall: Firewall,
    pub networks: Vec<Network>,
    pub ports: Vec<Port>,
    pub groups: Vec<SecurityGroup>,
}

impl Machine {
    pub async fn new(networks: Vec<Network>, groups: Vec<SecurityGroup>) -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "f{:x}{}",
            std::process::id() & 0xf_ffff,
            N.fetch_add(1, Ordering::Relaxed)
        );
        let links = Links::open(LinkConfig {
            instance: name.clone(),
            uplink: Uplink::Routed,
        })
        .await
        .unwrap();
        for n in &networks {
            links.ensure_network(n, None).await.unwrap();
        }
        let firewall = Firewall::new(links.namespace().path());
        let machine = Self {
            name,
            links,
            firewall,
            networks,
            ports: vec![],
            groups,
        };
        machine.apply().await;
        machine
    }

    pub fn network(&self, id: &str) -> Network {
        self.networks.iter().find(|n| n.id == id).unwrap().clone()
    }

    pub fn group(&mut self, id: &str) -> &mut SecurityGroup {
        self.groups.iter_mut().find(|g| g.id == id).unwrap()
    }

    pub async fn apply(&self) -> Applied {
        let input = FirewallInput {
            networks: self.networks.iter().collect(),
            ports: self.ports.iter().collect(),
            groups: self.groups.iter().collect(),
        };
        self.firewall.apply(input).await.unwrap()
    }

    /// A tap, opened as a hypervisor would, still down and without rules.
    pub async fn bare(&self, port: &Port) -> Guest {
        let network = self.network(&port.network_id);
        self.links.ensure_port(port, &network).await.unwrap();
        let fd = self.links.open_tap(&port.id).await.unwrap();
        let mac: Vec<u8> = port
            .mac
            .split(':')
            .map(|b| u8::from_str_radix(b, 16).unwrap())
            .collect();
        Guest {
            fd,
            mac: mac.try_into().unwrap(),
            ips: port.fixed_ips.iter().map(|(_, ip)| *ip).collect(),
            id: port.id.clone(),
        }
    }

    /// A guest as the agent makes it: tap, firewall, up.
    pub async fn guest(&mut self, port: Port) -> Guest {
        let guest = self.bare(&port).await;
        self.ports.push(port);
        self.apply().await;
        self.links.port_up(&guest.id, true).await.unwrap();
        guest
    }

    pub async fn done(self) {
        self.links.teardown().await.unwrap();
        let left: Vec<String> = std::fs::read_dir("/run/netns")
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| n.starts_with(&self.name))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap_or_default();
                if name == self.name || name.starts_with(&format!("{}-", self.name)) {
                    let _ = Command::new("ip").args(["netns", "del", &name]).status();
                }
            }
        }
    }
}

pub struct Guest {
    fd: OwnedFd,
    pub mac: [u8; 6],
    pub ips: Vec<IpAddr>,
    pub id: String,
}

impl Guest {
    pub fn v4(&self) -> Ipv4Addr {
        self.ips
            .iter()
            .find_map(|ip| if let IpAddr::V4(a) = ip { Some(*a) } else { None })
            .unwrap()
    }
    pub fn v6(&self) -> Ipv6Addr {
        self.ips
            .iter()
            .find_map(|ip| if let IpAddr::V6(a) = ip { Some(*a) } else { None })
            .unwrap()
    }

    pub fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; VNET];
        bytes.extend_from_slice(frame);
        nix::unistd::write(&self.fd, &bytes).unwrap();
    }

    /// The next frame, or none within the time.
    fn next(&self, within: Duration) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let end = Instant::now() + within;
        loop {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(n) => return Some(buffer[VNET..n].to_vec()),
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(e) => panic!("reading a tap: {e}"),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let ms = u16::try_from(left.as_millis().max(1)).unwrap();
            poll(
                &mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)],
                PollTimeout::from(ms),
            )
            .unwrap();
        }
    }

    /// Whether a frame that contains these bytes arrives before one that contains the marker. The marker comes last on the
    /// same way, so its arrival is the proof that the other was dropped; without it the test fails.
    pub fn sees_before(&self, wanted: &[u8], marker: &[u8]) -> bool {
        let mut seen = false;
        loop {
            let frame = self.next(Duration::from_secs(5)).expect("the marker never came");
            seen |= contains(&frame, wanted);
            if contains(&frame, marker) {
                return seen;
            }
        }
    }

    /// The frames with these bytes that arrive before one with the marker.
    pub fn all_before(&self, wanted: &[u8], marker: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let frame = self.next(Duration::from_secs(5)).expect("the marker never came");
            if contains(&frame, marker) {
                return all;
            }
            if contains(&frame, wanted) {
                all.push(frame);
            }
        }
    }

    /// Whether a frame that contains these bytes arrives.
    pub fn sees(&self, wanted: &[u8]) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while let Some(frame) = self.next(end.saturating_duration_since(Instant::now())) {
            if contains(&frame, wanted) {
                return true;
            }
        }
        false
    }
}

pub fn contains(frame: &[u8], wanted: &[u8]) -> bool {
    frame.windows(wanted.len()).any(|w| w == wanted)
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let all = parts.concat();
    let mut sum: u32 = all
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

pub fn eth(from: [u8; 6], to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

pub const ALL: [u8; 6] = [0xff; 6];

pub fn arp(operation: u16, mac: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let op = operation.to_be_bytes();
    [
        &[0, 1, 8, 0, 6, 4, op[0], op[1]][..],
        &mac,
        &ip.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat()
}

/// An IPv4 packet; `fragment` is the field with flags and offset.
pub fn ip4_fragment(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let (id, fragment) = (id.to_be_bytes(), fragment.to_be_bytes());
    let mut h = vec![
        0x45,
        0,
        len[0],
        len[1],
        id[0],
        id[1],
        fragment[0],
        fragment[1],
        64,
        protocol,
        0,
        0,
    ];
    h.extend_from_slice(&from.octets());
    h.extend_from_slice(&to.octets());
    let sum = checksum(&[&h]);
    h[10..12].copy_from_slice(&sum);
    [&h[..], payload].concat()
}

pub fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip4_fragment(from, to, protocol, 1, 0, payload)
}

pub fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &[0x60, 0, 0, 0, len[0], len[1], next, 255][..],
        &from.octets(),
        &to.octets(),
        payload,
    ]
    .concat()
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let len = u16::try_from(len).unwrap().to_be_bytes();
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => [&a.octets()[..], &b.octets(), &[0, protocol, len[0], len[1]]].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            [&a.octets()[..], &b.octets(), &[0, 0, len[0], len[1], 0, 0, 0, protocol]].concat()
        }
        _ => panic!("mixed families"),
    }
}

fn summed(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = checksum(&[&pseudo(from, to, protocol, payload.len()), &payload]);
    payload[at..at + 2].copy_from_slice(&sum);
    payload
}

pub fn udp(from: IpAddr, to: IpAddr, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).unwrap();
    let head = [sport, dport, len, 0].map(u16::to_be_bytes).concat();
    summed(from, to, 17, [&head[..], data].concat(), 6)
}

/// TCP flags: 2 SYN, 16 ACK, 18 both.
pub fn tcp(from: IpAddr, to: IpAddr, ports: (u16, u16), seq: (u32, u32), flags: u8, data: &[u8]) -> Vec<u8> {
    let mut h = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    h.extend_from_slice(&seq.0.to_be_bytes());
    h.extend_from_slice(&seq.1.to_be_bytes());
    h.extend_from_slice(&[0x50, flags, 0xff, 0, 0, 0, 0, 0]);
    h.extend_from_slice(data);
    summed(from, to, 6, h, 16)
}

pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, typ: u8, body: &[u8]) -> Vec<u8> {
    summed(from.into(), to.into(), 58, [&[typ, 0, 0, 0][..], body].concat(), 2)
}

/// A UDP datagram from guest to guest.
pub fn datagram(from: &Guest, to: &Guest, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let payload = udp(from.v4().into(), to.v4().into(), sport, dport, data);
    eth(from.mac, to.mac, 0x0800, &ip4(from.v4(), to.v4(), 17, &payload))
}

pub fn datagram6(from: &Guest, to: &Guest, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let payload = udp(from.v6().into(), to.v6().into(), sport, dport, data);
    eth(from.mac, to.mac, 0x86dd, &ip6(from.v6(), to.v6(), 17, &payload))
}

pub fn segment(from: &Guest, to: &Guest, ports: (u16, u16), seq: (u32, u32), flags: u8, data: &[u8]) -> Vec<u8> {
    let payload = tcp(from.v4().into(), to.v4().into(), ports, seq, flags, data);
    eth(from.mac, to.mac, 0x0800, &ip4(from.v4(), to.v4(), 6, &payload))
}

/// Opens a TCP connection between two guests, as far as the rules let it; whether both sides saw their part.
pub fn connect(client: &Guest, server: &Guest, sport: u16, dport: u16) -> bool {
    let word = |p: u16| p.to_be_bytes();
    let from_client = [word(sport), word(dport)].concat();
    let from_server = [word(dport), word(sport)].concat();
    client.send(&segment(client, server, (sport, dport), (1000, 0), 2, b""));
    if !server.sees(&from_client) {
        return false;
    }
    server.send(&segment(server, client, (dport, sport), (5000, 1001), 18, b""));
    if !client.sees(&from_server) {
        return false;
    }
    client.send(&segment(client, server, (sport, dport), (1001, 5001), 16, b""));
    server.sees(&from_client)
}
