//! The real `maru up` with simulated nodes, in a data directory that outlives it.

use crate::client::Client;
use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The binary: `MARU`, or the one that was built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MARU") {
        return path.into();
    }
    let me = std::env::current_exe().expect("this test has a path");
    let beside = me.ancestors().nth(2).expect("target/<profile>/deps").join("maru");
    assert!(
        beside.exists(),
        "there is no {}; build it (cargo build -p maru) or name one in MARU",
        beside.display()
    );
    beside
}

/// A cloud's data directory and address; the process comes and goes.
pub struct Cloud {
    data: PathBuf,
    address: SocketAddr,
    nodes: u32,
    child: Option<Child>,
}

impl Cloud {
    /// A cloud in a directory, on a port that is free now.
    ///
    /// # Panics
    /// When the machine has no loopback.
    #[must_use]
    pub fn new(data: &Path, nodes: u32) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port");
        Self {
            data: data.to_owned(),
            address,
            nodes,
            child: None,
        }
    }
    /// Where it answers.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
    /// Its data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the process and waits for its first answer; the time that took.
    ///
    /// # Panics
    /// When it ends, or does not answer within 20 s.
    pub fn start(&mut self) -> Duration {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.with_extension("log"))
            .expect("a log file");
        let begun = Instant::now();
        let child = Command::new(binary())
            .args(["up", "--bcrypt-cost", "4", "--data"])
            .arg(&self.data)
            .args([
                "--listen",
                &self.address.to_string(),
                "--simulate",
                &self.nodes.to_string(),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("maru starts");
        let child = self.child.insert(child);
        let client = Client::new(self.address);
        loop {
            if client.ask("GET", "/identity/v3").is_some_and(|a| a.status == 200) {
                return begun.elapsed();
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!(
                    "maru up ended with {status}; see {}",
                    self.data.with_extension("log").display()
                );
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "maru up does not answer");
            std::thread::yield_now();
        }
    }
    /// Kills it with -9 and waits until the kernel has taken it away.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
    /// The administrator's password.
    ///
    /// # Panics
    /// When the cloud never ran.
    #[must_use]
    pub fn password(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("admin.json")).expect("admin.json");
        let value: serde_json::Value = serde_json::from_str(&text).expect("admin.json is JSON");
        value["password"].as_str().expect("a password").to_owned()
    }
    /// Runs a command of the administrator.
    ///
    /// # Errors
    /// What it said, if it was refused.
    pub fn maru(&self, args: &[&str]) -> Result<String, String> {
        let out = Command::new(binary())
            .args(args)
            .env("MARU_DATA", &self.data)
            .output()
            .map_err(|e| e.to_string())?;
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.kill();
    }
}
