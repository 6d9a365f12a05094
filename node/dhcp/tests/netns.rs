//! The real sockets: a client in a network namespace asks, the responder in another answers. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

use maru_agent_api::slice::{Network, Port, Subnet};
use maru_dhcp::{Advertiser, Mac, NetworkView, RaView, Responder, ResponderConfig};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(
        done.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Two namespaces with a link between them; removed at the end.
struct Bench {
    server: String,
    guest: String,
}

const SERVER_MAC: &str = "0a:00:00:00:00:02";
const GUEST_MAC: &str = "fa:16:3e:00:00:05";

impl Bench {
    fn new(name: &str) -> Self {
        let id = std::process::id();
        let bench = Self {
            server: format!("mdhs-{name}-{id}"),
            guest: format!("mdhg-{name}-{id}"),
        };
        ip(&["netns", "add", &bench.server]);
        ip(&["netns", "add", &bench.guest]);
        ip(&[
            "-n",
            &bench.server,
            "link",
            "add",
            "dh0",
            "address",
            SERVER_MAC,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            GUEST_MAC,
            "netns",
            &bench.guest,
        ]);
        ip(&["-n", &bench.server, "address", "add", "10.0.0.2/24", "dev", "dh0"]);
        ip(&["-n", &bench.server, "link", "set", "dh0", "up"]);
        ip(&["-n", &bench.guest, "link", "set", "eth0", "up"]);
        bench
    }

    fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.server)
    }

    /// Runs Python in the guest's namespace and returns what it prints.
    async fn python(&self, script: &str) -> String {
        let child = tokio::process::Command::new("ip")
            .args(["netns", "exec", &self.guest, "python3", "-c", script])
            .stdin(Stdio::null())
            .output();
        let done = tokio::time::timeout(Duration::from_secs(60), child)
            .await
            .unwrap()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in [&self.server, &self.guest] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn network(six: bool) -> Network {
    let address = |text: &str| text.parse().unwrap();
    let subnet = Subnet {
        id: "sub".into(),
        cidr: if six { "2001:db8::/64" } else { "10.0.0.0/24" }.parse().unwrap(),
        gateway: Some(address(if six { "2001:db8::1" } else { "10.0.0.1" })),
        dhcp: true,
        dns: vec![],
        routes: vec![],
        ipv6_address_mode: six.then(|| "slaac".into()),
        ipv6_ra_mode: six.then(|| "slaac".into()),
        dhcp_address: Some(address(if six { "2001:db8::2" } else { "10.0.0.2" })),
    };
    Network {
        id: "net".into(),
        vni: 1,
        zone: 1,
        mtu: 1450,
        external: false,
        admin_up: true,
        subnets: vec![subnet],
    }
}

fn port() -> Port {
    Port {
        id: "port".into(),
        network_id: "net".into(),
        project_id: "p".into(),
        host: None,
        device_id: "vm".into(),
        device_owner: "compute:nova".into(),
        mac: GUEST_MAC.into(),
        fixed_ips: vec![("sub".into(), "10.0.0.5".parse().unwrap())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    }
}

/// A DISCOVER from a MAC address, written by hand; prints the offered address or `nothing`.
const DISCOVER: &str = r#"
import socket, struct, sys
mac = bytes.fromhex("MAC".replace(":", ""))
bootp = struct.pack("!BBBBIHH4s4s4s4s16s64s128s", 1, 1, 6, 0, 0x1234, 0, 0, b"\0"*4, b"\0"*4, b"\0"*4, b"\0"*4,
                    mac.ljust(16, b"\0"), b"", b"") + bytes.fromhex("63825363350101ff")
udp = struct.pack("!HHHH", 68, 67, len(bootp) + 8, 0) + bootp
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, len(udp) + 20, 0, 0, 64, 17, 0, b"\0"*4, b"\xff"*4)
total = sum(struct.unpack("!10H", ip)); total = (total & 0xffff) + (total >> 16)
ip = ip[:10] + struct.pack("!H", ~total & 0xffff) + ip[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
s.bind(("eth0", 0x0800))
s.settimeout(WAIT)
s.send(b"\xff"*6 + mac + b"\x08\x00" + ip + udp)
try:
    while True:
        frame = s.recv(2048)
        if frame[23] == 17 and frame[36:38] == b"\0\x44":
            print(socket.inet_ntoa(frame[58:62]), frame[0:6].hex(":"))
            break
except TimeoutError:
    print("nothing")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_its_address_and_a_stranger_nothing() {
    let bench = Bench::new("four");
    let config = ResponderConfig {
        netns: Some(bench.netns()),
        device: "dh0".into(),
        mac: SERVER_MAC.into(),
    };
    let empty = Arc::new(NetworkView::new(&network(false), []));
    let responder = Responder::start(&config, empty).unwrap();
    responder.update(Arc::new(NetworkView::new(&network(false), [&port()])));
    let ask = |mac: &str, wait: &str| DISCOVER.replace("MAC", mac).replace("WAIT", wait);
    assert_eq!(
        bench.python(&ask(GUEST_MAC, "20")).await,
        format!("10.0.0.5 {GUEST_MAC}")
    );
    assert_eq!(bench.python(&ask("fa:16:3e:00:00:66", "1")).await, "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_takes_a_router_advertisement() {
    let bench = Bench::new("six");
    let view = RaView::new(&network(true), Mac::parse(SERVER_MAC).unwrap(), &["sub"]).unwrap();
    let _advertiser = Advertiser::start(Some(bench.netns()), "dh0", view).unwrap();
    let script = r#"
import json, subprocess, time
end = time.time() + 30
while time.time() < end:
    found = json.loads(subprocess.check_output(["ip", "-j", "-6", "address", "show", "dev", "eth0", "scope", "global"]))
    found = [a["local"] for d in found for a in d.get("addr_info", []) if "local" in a]
    routes = subprocess.check_output(["ip", "-6", "route", "show", "default"], text=True)
    if found and "fe80::800:ff:fe00:2" in routes:
        print(found[0]); break
    time.sleep(0.1)
else:
    print("no address", found, routes)
"#;
    assert_eq!(bench.python(script).await, "2001:db8::f816:3eff:fe00:5");
}
