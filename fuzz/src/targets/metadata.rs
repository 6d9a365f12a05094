//! Requests to the metadata service: bytes of a connection, as a guest chooses them.

use super::{Target, words};
use anyhow::Result;
use maru_agent_api::slice;
use maru_base::Error;
use maru_metadata::{Directory, GuestView, Nic, serve_connection};
use serde_json::json;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Two guests; the secret of the second must never reach the first.
struct Guests {
    asks: Arc<GuestView>,
    other: Arc<GuestView>,
    password: Mutex<Option<Vec<u8>>>,
}

const ASKS: &str = "10.0.0.5";
const OTHER: &str = "10.0.0.6";
const SECRET: &str = "the-other-guests-secret";

#[async_trait::async_trait]
impl Directory for Guests {
    fn guest(&self, network: &str, source: IpAddr) -> Option<Arc<GuestView>> {
        match (network, source.to_string().as_str()) {
            ("net", ASKS) => Some(Arc::clone(&self.asks)),
            ("net", OTHER) => Some(Arc::clone(&self.other)),
            _ => None,
        }
    }
    async fn password(&self, _: &str) -> maru_base::Result<Option<Vec<u8>>> {
        Ok(self.password.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
    async fn set_password(&self, _: &str, password: Vec<u8>) -> maru_base::Result<()> {
        let mut kept = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_some() {
            return Err(Error::conflict("It is set."));
        }
        *kept = Some(password);
        Ok(())
    }
}

fn guest(id: &str, ip: &str, secret: &str) -> Result<Arc<GuestView>> {
    let network: slice::Network = serde_json::from_value(json!({
        "id": "net", "vni": 1, "zone": 1, "mtu": 1450, "external": false, "admin_up": true,
        "subnets": [{ "id": "sub", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "dhcp": true, "dns": ["8.8.8.8"],
            "routes": [["10.9.0.0/16", "10.0.0.7"]], "ipv6_address_mode": null, "ipv6_ra_mode": null,
            "dhcp_address": "10.0.0.2" }],
    }))?;
    let port: slice::Port = serde_json::from_value(json!({
        "id": format!("port-{id}"), "network_id": "net", "project_id": "p", "host": null, "device_id": id,
        "device_owner": "compute:nova", "mac": "fa:16:3e:00:00:05", "fixed_ips": [["sub", ip]],
        "allowed_address_pairs": [], "security_groups": [], "port_security": true, "admin_up": true,
        "extra_dhcp_opts": [], "dns_name": "",
    }))?;
    let server: slice::Server = serde_json::from_value(json!({
        "id": id, "project_id": "p", "user_id": "u", "name": "Web 1", "hostname": "web-1", "request_id": "req-1",
        "vcpus": 1, "memory_mib": 128, "disks": [], "ports": [port.id], "power": "running",
        "reboot": {"count": 0, "hard": false}, "rebuild": 0, "config_drive": false, "stop_timeout": 60,
        "metadata": {
            "public_keys": [["mykey", "ssh-rsa AAAA me"]], "meta": {"role": secret}, "user_data": "aGVsbG8=",
            "availability_zone": "nova", "launch_index": 0, "admin_pass": secret, "instance_type": "m1.tiny",
            "security_groups": ["default", "web"], "files": [["/etc/motd", "aGk="]],
        },
    }))?;
    Ok(Arc::new(GuestView {
        server,
        nics: vec![Nic { port, network }],
        floating: vec!["203.0.113.9".parse()?],
    }))
}

/// Sends the bytes and hangs up behind them; gives what came back.
async fn talk(guests: Arc<Guests>, input: &[u8]) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(256 << 10);
    let source = IpAddr::from([10, 0, 0, 5]);
    let serving = tokio::spawn(serve_connection(server, source, "net".into(), guests));
    let (mut read, mut write) = tokio::io::split(client);
    let mut got = Vec::new();
    let asks = async {
        write.write_all(input).await.ok();
        // A request that is whole is answered before the end is seen.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        write.shutdown().await.ok();
    };
    let (_, _) = tokio::join!(asks, read.read_to_end(&mut got));
    assert!(serving.await.is_ok(), "the connection's task panicked");
    got
}

pub fn target() -> Result<Target> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guests = Arc::new(Guests {
        asks: guest("one", ASKS, "mine")?,
        other: guest("two", OTHER, SECRET)?,
        password: Mutex::default(),
    });
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n").into_bytes();
    let mut seeds: Vec<Vec<u8>> = [
        "/",
        "/openstack",
        "/openstack/latest/meta_data.json",
        "/openstack/2018-08-27/network_data.json",
        "/openstack/latest/user_data",
        "/openstack/latest/vendor_data2.json",
        "/openstack/content/0000",
        "/openstack/latest/password",
        "/latest/meta-data/",
        "/2009-04-04/meta-data/public-keys/0/openssh-key",
        "/latest/meta-data/block-device-mapping/root",
        "/latest/user-data",
    ]
    .iter()
    .map(|path| get(path))
    .collect();
    seeds.push(b"POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_vec());
    seeds.push(
        b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.6\r\nX-Instance-ID: two\r\n\r\nGET / HTTP/1.0\r\n\r\n"
            .to_vec(),
    );
    seeds.push(
        b"POST /openstack/latest/password HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_vec(),
    );
    let run = move |input: &[u8]| {
        *guests.password.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let got = runtime.block_on(talk(Arc::clone(&guests), input));
        assert!(got.is_empty() || got.starts_with(b"HTTP/1."), "no HTTP came back");
        assert!(
            !got.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()),
            "another guest's secret was told"
        );
        got.get(9..12) == Some(b"200")
    };
    Ok(Target {
        name: "metadata",
        seeds,
        words: words(&[
            "GET ",
            "POST ",
            "HEAD ",
            " HTTP/1.1\r\n",
            " HTTP/1.0\r\n",
            "\r\n\r\n",
            "Host: x\r\n",
            "Content-Length: ",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Expect: 100-continue\r\n",
            "/openstack/",
            "latest",
            "2012-08-10",
            "/meta_data.json",
            "/password",
            "/meta-data/",
            "public-keys/0",
            "..",
            "%2e%2e",
            "//",
            "X-Forwarded-For: 10.0.0.6\r\n",
            "0\r\n\r\n",
            "\0",
        ]),
        most: 20_000,
        run: Box::new(run),
    })
}
