//! Trunks with real packets: a guest's tap carries other networks under VLAN ids, each behind its own port's rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::wire::*;
use common::*;
use maru_agent_api::slice::{Network, Port, TrunkLink};
use std::io::Write;

/// A frame with a VLAN tag (IEEE 802.1Q).
fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend_from_slice(&[0x81, 0x00]);
    out.extend_from_slice(&vlan.to_be_bytes());
    out.extend_from_slice(&frame[12..]);
    out
}

/// The VLAN id of a frame.
fn tag_of(frame: &[u8]) -> Option<u16> {
    (frame[12..14] == [0x81, 0x00]).then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xfff)
}

fn carried(parent: &Port, vlan: u16, port: Port) -> Port {
    let trunk = Some(TrunkLink {
        parent: parent.id.clone(),
        vlan,
    });
    Port { trunk, ..port }
}

fn observer(id: u32, network: &Network, ip: &str) -> Port {
    Port {
        port_security: false,
        ..port(id, network, &[ip], &[])
    }
}

/// What speaks for a subport: its addresses, and no tap.
fn voice(guest: &Guest, port: &Port) -> (([u8; 6], std::net::Ipv4Addr), [u8; 6]) {
    let mac: Vec<u8> = port
        .mac
        .split(':')
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect();
    let ip = match port.fixed_ips[0].1 {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(ip) => panic!("{ip}"),
    };
    ((mac.try_into().unwrap(), ip), guest.mac)
}

fn say(from: ([u8; 6], std::net::Ipv4Addr), to: &Guest, text: &[u8]) -> Vec<u8> {
    let payload = udp(from.1.into(), to.v4().into(), 7, 8, text);
    eth(from.0, to.mac, 0x0800, &ip4(from.1, to.v4(), 17, &payload))
}

impl MachineExt for Machine {
    async fn carry(&mut self, port: Port) {
        let network = self.network(&port.network_id);
        self.links.ensure_port(&port, &network).await.unwrap();
        let id = port.id.clone();
        self.ports.retain(|p| p.id != id);
        self.ports.push(port);
        self.apply().await;
        self.links.port_up(&id, true).await.unwrap();
    }
}

trait MachineExt {
    /// A subport as the agent makes it.
    async fn carry(&mut self, port: Port);
}

#[test]
fn a_trunk_carries_each_network_under_its_vlan_and_behind_its_own_rules() {
    host(|| async {
        let nets = [
            network("n1", 171, 71, "10.1.0.0/24"),
            network("n2", 172, 72, "10.2.0.0/24"),
            network("n3", 173, 73, "10.3.0.0/24"),
        ];
        let open = group("open", [egress_all(), vec![rule("all", true, 4)]].concat());
        let shut = group("shut", egress_all());
        let mut m = Machine::new(nets.to_vec(), vec![open, shut]).await;
        let one = m.guest(observer(0x91, &nets[0], "10.1.0.9")).await;
        let two = m.guest(observer(0x92, &nets[1], "10.2.0.9")).await;
        let three = m.guest(observer(0x93, &nets[2], "10.3.0.9")).await;
        let parent = port(1, &nets[0], &["10.1.0.1"], &["open"]);
        let sub = carried(&parent, 100, port(2, &nets[1], &["10.2.0.1"], &["open"]));
        let silent = carried(&parent, 200, port(3, &nets[2], &["10.3.0.1"], &["shut"]));

        let early = m.links.ensure_port(&sub, &nets[1]).await.unwrap_err();
        assert!(early.message().contains(&parent.id), "{}", early.message());
        let guest = m.guest(parent.clone()).await;
        let (from, _) = voice(&guest, &sub);
        let (quiet, _) = voice(&guest, &silent);

        // Made and up, and without rules yet: nothing passes.
        if let Err(e) = m.links.ensure_port(&sub, &nets[1]).await {
            assert!(e.message().contains("modprobe 8021q"), "{}", e.message());
            assert!(
                !std::path::Path::new("/proc/net/vlan").exists(),
                "the kernel has VLANs: {}",
                e.message()
            );
            // Not by a macro of the test harness, which shows nothing of a test that passes.
            let why =
                b"skipped: the frames of a trunk need 8021q, which this machine's kernel lacks (CONFIG_VLAN_8021Q)\n";
            std::io::stderr().write_all(why).unwrap();
            return m.done().await;
        }
        m.links.port_up(&sub.id, true).await.unwrap();
        guest.send(&tagged(100, &say(from, &two, b"too early")));
        m.carry(sub.clone()).await;
        m.carry(silent.clone()).await;
        guest.send(&tagged(100, &say(from, &two, b"in time")));
        assert!(!two.sees_before(b"too early", b"in time"));

        // Out: by the tag alone, and never to another network.
        let own = (guest.mac, guest.v4());
        guest.send(&tagged(100, &say(from, &one, b"to one in two")));
        guest.send(&tagged(300, &say(own, &one, b"in no vlan")));
        guest.send(&tagged(200, &say(own, &one, b"as the parent in three")));
        guest.send(&tagged(100, &tagged(200, &say(quiet, &three, b"twice"))));
        guest.send(&say(own, &one, b"untagged"));
        for text in [&b"to one in two"[..], b"in no vlan", b"as the parent in three"] {
            assert!(!one.sees_before(text, b"untagged"));
            guest.send(&say(own, &one, b"untagged"));
        }
        guest.send(&tagged(200, &say(quiet, &three, b"in three")));
        assert!(!three.sees_before(b"twice", b"in three"));

        // As somebody else in its network: another address, another MAC, the parent's own.
        let other = (from.0, "10.2.0.77".parse().unwrap());
        guest.send(&tagged(100, &say(other, &two, b"as 77")));
        guest.send(&tagged(100, &say((guest.mac, from.1), &two, b"with the parent's mac")));
        guest.send(&tagged(100, &say(from, &two, b"as itself")));
        let seen = two.all_before(b"", b"as itself");
        for text in [&b"as 77"[..], b"with the parent's mac"] {
            assert!(!seen.iter().any(|f| contains(f, text)));
        }

        // In: tagged, by the subport's own groups.
        let answer = |to: ([u8; 6], std::net::Ipv4Addr), by: &Guest, port: u16, text: &[u8]| {
            let payload = udp(by.v4().into(), to.1.into(), port, port, text);
            eth(by.mac, to.0, 0x0800, &ip4(by.v4(), to.1, 17, &payload))
        };
        three.send(&answer(quiet, &three, 99, b"into the silent one"));
        two.send(&answer(from, &two, 99, b"into the open one"));
        let seen = guest.all_before(b"", b"into the open one");
        assert!(!seen.iter().any(|f| contains(f, b"into the silent one")));
        two.send(&answer(from, &two, 99, b"once more"));
        one.send(&answer(own, &one, 99, b"the end"));
        let frames = guest.all_before(b"once more", b"the end");
        assert_eq!(frames.first().map(|f| tag_of(f)), Some(Some(100)), "{frames:?}");

        // Another VLAN id: the old one carries nothing any more.
        m.carry(carried(&parent, 101, sub.clone())).await;
        guest.send(&tagged(100, &say(from, &two, b"by the old id")));
        guest.send(&tagged(101, &say(from, &two, b"by the new id")));
        assert!(!two.sees_before(b"by the old id", b"by the new id"));

        // Out of the trunk it is a port like any other, with a tap of its own.
        m.links.remove_port(&silent.id).await.unwrap();
        m.ports.retain(|p| p.id != silent.id && p.id != sub.id);
        let free = m
            .guest(Port {
                trunk: None,
                ..sub.clone()
            })
            .await;
        guest.send(&tagged(101, &say(from, &two, b"after it left")));
        free.send(&say(from, &two, b"by its own tap"));
        assert!(!two.sees_before(b"after it left", b"by its own tap"));
        m.done().await;
    });
}
