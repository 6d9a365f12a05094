//! What the tests share: networks, ports, groups by a few words.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod wire;

use maru_agent_api::slice::{Network, Port, Rule, SecurityGroup, Subnet};
use nix::sched::{CloneFlags, unshare};
use std::future::Future;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a test in a fresh network namespace: the machine's own links and rules are never touched.
pub fn host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|s| {
        s.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            // Threads of this runtime are started from here and inherit the namespace.
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
                .block_on(test());
        });
    });
}

/// nft in the calling thread's namespace.
pub fn nft(args: &[&str], text: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into())
    }
}

pub fn subnet(id: &str, cidr: &str, gateway: Option<&str>) -> Subnet {
    Subnet {
        id: id.into(),
        cidr: cidr.parse().unwrap(),
        gateway: gateway.map(|g| g.parse().unwrap()),
        dhcp: false,
        dns: vec![],
        routes: vec![],
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        dhcp_address: None,
    }
}

pub fn network(id: &str, vni: u32, zone: u16, cidr: &str) -> Network {
    Network {
        id: id.into(),
        vni,
        zone,
        mtu: 1500,
        external: false,
        admin_up: true,
        subnets: vec![subnet(&format!("{id}-s"), cidr, None)],
    }
}

/// A port; its id begins with `id` in 8 hexadecimal digits.
pub fn port(id: u32, network: &Network, ips: &[&str], groups: &[&str]) -> Port {
    Port {
        id: format!("{id:08x}-0000-4000-8000-000000000000"),
        network_id: network.id.clone(),
        project_id: "p".into(),
        host: None,
        device_id: String::new(),
        device_owner: "compute:nova".into(),
        mac: format!(
            "fa:16:3e:{:02x}:{:02x}:{:02x}",
            id >> 16 & 0xff,
            id >> 8 & 0xff,
            id & 0xff
        ),
        fixed_ips: ips
            .iter()
            .map(|ip| (network.subnets[0].id.clone(), ip.parse().unwrap()))
            .collect(),
        allowed_address_pairs: vec![],
        security_groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    }
}

pub fn rule(id: &str, ingress: bool, ip_version: u8) -> Rule {
    Rule {
        id: id.into(),
        ingress,
        ip_version,
        protocol: None,
        port_min: None,
        port_max: None,
        remote_cidr: None,
        remote_group: None,
    }
}

pub fn ports(id: &str, ingress: bool, protocol: u8, min: u16, max: u16) -> Rule {
    Rule {
        protocol: Some(protocol),
        port_min: Some(min),
        port_max: Some(max),
        ..rule(id, ingress, 4)
    }
}

pub fn group(id: &str, rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup {
        id: id.into(),
        stateful: true,
        rules,
        members: vec![],
    }
}

/// All out, nothing in: what a new group of upstream has.
pub fn egress_all() -> Vec<Rule> {
    vec![rule("out4", false, 4), rule("out6", false, 6)]
}
