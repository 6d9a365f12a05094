//! The real server: a guest in a namespace of its own asks over HTTP. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

use async_trait::async_trait;
use maru_agent_api::slice::{GuestMetadata, Power, Reboot, Server as Vm};
use maru_base::Result;
use maru_metadata::{Directory, GuestView, Server};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(
        done.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

struct Bench {
    server: String,
    guest: String,
}

impl Bench {
    fn new() -> Self {
        let id = std::process::id();
        let bench = Self {
            server: format!("mmds-{id}"),
            guest: format!("mmdg-{id}"),
        };
        let (s, g) = (bench.server.as_str(), bench.guest.as_str());
        ip(&["netns", "add", s]);
        ip(&["netns", "add", g]);
        ip(&[
            "-n", s, "link", "add", "dh0", "type", "veth", "peer", "name", "eth0", "netns", g,
        ]);
        ip(&["-n", s, "address", "add", "10.0.0.2/24", "dev", "dh0"]);
        ip(&["-n", s, "address", "add", "169.254.169.254/32", "dev", "dh0"]);
        ip(&["-n", s, "link", "set", "dh0", "up"]);
        ip(&["-n", g, "link", "set", "eth0", "up"]);
        ip(&["-n", g, "address", "add", "10.0.0.5/24", "dev", "eth0"]);
        ip(&["-n", g, "address", "add", "10.0.0.6/24", "dev", "eth0"]);
        ip(&["-n", g, "route", "add", "169.254.169.254/32", "via", "10.0.0.2"]);
        bench
    }

    /// `curl` in the guest; returns the body and the status.
    async fn curl(&self, args: &[&str]) -> String {
        let child = tokio::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.guest,
                "curl",
                "-s",
                "-m",
                "20",
                "-w",
                " %{http_code}",
            ])
            .args(args)
            .output();
        let done = tokio::time::timeout(Duration::from_secs(30), child)
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in [&self.server, &self.guest] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

#[derive(Default)]
struct One(Mutex<Option<Vec<u8>>>);

#[async_trait]
impl Directory for One {
    fn guest(&self, network_id: &str, source: IpAddr) -> Option<Arc<GuestView>> {
        if network_id != "net" || source != IpAddr::from([10, 0, 0, 5]) {
            return None;
        }
        let server = Vm {
            id: "srv".into(),
            project_id: "p".into(),
            user_id: "u".into(),
            name: "vm".into(),
            hostname: "vm".into(),
            request_id: "r".into(),
            vcpus: 1,
            memory_mib: 64,
            disks: vec![],
            ports: vec![],
            power: Power::Running,
            reboot: Reboot::default(),
            rebuild: 0,
            resize: maru_agent_api::slice::Resize::default(),
            config_drive: false,
            metadata: GuestMetadata {
                instance_type: "m1.tiny".into(),
                ..GuestMetadata::default()
            },
            stop_timeout: 0,
            origin: String::new(),
        };
        Some(Arc::new(GuestView {
            server,
            nics: vec![],
            floating: vec![],
        }))
    }
    async fn password(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().clone())
    }
    async fn set_password(&self, _: &str, password: Vec<u8>) -> Result<()> {
        *self.0.lock().unwrap() = Some(password);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_known_by_its_address_alone() {
    let bench = Bench::new();
    let netns = PathBuf::from("/run/netns").join(&bench.server);
    let _server = Server::start(Some(netns), "dh0", "net", Arc::new(One::default())).unwrap();
    let url = "http://169.254.169.254/latest/meta-data/instance-type";
    assert_eq!(bench.curl(&["--interface", "10.0.0.5", url]).await, "m1.tiny 200");
    // Another address cannot say that it is the guest's (attack: X-Forwarded-For).
    let lie = [
        "--interface",
        "10.0.0.6",
        "-H",
        "X-Forwarded-For: 10.0.0.5",
        "-H",
        "X-Instance-ID: srv",
        url,
    ];
    assert!(bench.curl(&lie).await.ends_with(" 404"));
    let password = "http://169.254.169.254/openstack/latest/password";
    let from = ["--interface", "10.0.0.5"];
    assert_eq!(
        bench.curl(&[&from[..], &["-d", "secret", password]].concat()).await,
        " 200"
    );
    assert_eq!(bench.curl(&[&from[..], &[password]].concat()).await, "secret 200");
    assert!(
        bench
            .curl(&[&from[..], &["-d", "other", password]].concat())
            .await
            .ends_with(" 409")
    );
    let large = "x".repeat(4000);
    assert!(
        bench
            .curl(&[&from[..], &["-d", &large, password]].concat())
            .await
            .ends_with(" 413")
    );
    assert!(bench.curl(&[&from[..], &["-I", url]].concat()).await.contains("200"));
    assert!(
        bench
            .curl(&[&from[..], &["-X", "DELETE", url]].concat())
            .await
            .ends_with(" 405")
    );
}
