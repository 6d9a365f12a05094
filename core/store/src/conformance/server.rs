//! An etcd of its own for a test: Debian's etcd-server on loopback, gone with the value.

use crate::engine::etcd;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running etcd. Dropped, it is killed and its data removed.
pub struct Server {
    folder: PathBuf,
    client_port: u16,
    peer_port: u16,
    flags: Vec<String>,
    process: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts one with the flags that Maru needs.
    pub async fn start() -> Self {
        Self::start_with(&etcd::FLAGS).await
    }

    /// Starts one with these flags beside address and data.
    pub async fn start_with(flags: &[&str]) -> Self {
        let found = Command::new("etcd").arg("--version").output();
        assert!(
            found.is_ok(),
            "the engine over etcd cannot be tested: there is no `etcd` here (apt-get install etcd-server): {found:?}"
        );
        let folder = std::env::temp_dir().join(format!("maru-etcd-{}", maru_base::random::hex32()));
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let mut server = Self {
            folder,
            client_port: free_port(),
            peer_port: free_port(),
            flags,
            process: None,
        };
        // A port that was free may be taken by another test meanwhile: then etcd ends, and others are tried.
        for _ in 0..10 {
            server.run();
            if server.ready().await {
                return server;
            }
            server.kill();
            (server.client_port, server.peer_port) = (free_port(), free_port());
        }
        panic!(
            "etcd does not start: {}",
            std::fs::read_to_string(server.log()).unwrap_or_default()
        );
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// The data directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process (again) on the same data and ports.
    pub fn run(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let log = std::fs::File::create(self.log()).unwrap();
        // The shell ends etcd when this process does, however it does: then its input ends.
        let script = r#"exec 3<&0; etcd "$@" </dev/null & p=$!; (cat <&3 >/dev/null; kill -9 $p) & wait $p; kill $!"#;
        let process = Command::new("sh")
            .args([
                "-c",
                script,
                "sh",
                "--name=test",
                "--log-level=error",
                "--snapshot-count=1000000",
            ])
            .arg(format!("--data-dir={}", self.folder.display()))
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ])
            .arg(format!("--initial-cluster=test={peer}"))
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Waits until it answers; `false` when it ended instead.
    pub async fn ready(&mut self) -> bool {
        for _ in 0..600 {
            if self.process.as_mut().is_none_or(|p| p.try_wait().unwrap().is_some()) {
                return false;
            }
            let endpoint = [self.endpoint()];
            let status = async { etcd_client::Client::connect(&endpoint, None).await?.status().await };
            if tokio::time::timeout(Duration::from_secs(1), status)
                .await
                .is_ok_and(|s| s.is_ok())
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Kills it with -9; the data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(self.log());
    }
}
