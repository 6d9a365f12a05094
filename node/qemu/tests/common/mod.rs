//! A place for guests of a test, which leaves nothing.
#![allow(dead_code)]

use maru_qemu::{DiskFormat, GuestConfig, GuestDisk, GuestNic, Hypervisor, Options, Qemu, tap_name};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A directory, and the guests in it.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub group: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            group: format!("maru-test-{}", &maru_base::random::hex32()[..8]),
        }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(self.dir.path().join("state"));
        options.cgroup = Some(self.group.clone());
        options
    }

    pub fn driver(&self) -> Qemu {
        Qemu::new(self.options()).unwrap()
    }

    pub fn home(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/servers").join(id)
    }

    pub fn open_to_all(&self) {
        std::fs::set_permissions(self.dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    }

    pub fn disk(&self, name: &str, bus: &str, size: u64) -> GuestDisk {
        let path = self
            .dir
            .path()
            .join(format!("{name}-{}.qcow2", maru_base::random::hex32()));
        maru_block::qcow2::create(&path, size, None).unwrap();
        GuestDisk {
            name: name.into(),
            path,
            format: DiskFormat::Qcow2,
            backing: None,
            bus: bus.into(),
            device: "disk".into(),
            readonly: false,
            remote: None,
            limits: BTreeMap::new(),
            serial: Some(name.into()),
        }
    }

    pub fn config(&self) -> GuestConfig {
        GuestConfig {
            id: maru_base::random::uuid(),
            project_id: "p".into(),
            name: "test".into(),
            vcpus: 1,
            memory_mib: 64,
            disks: vec![self.disk("root", "virtio", 64 << 20)],
            nics: Vec::new(),
            notes: BTreeMap::new(),
        }
    }

    pub async fn define(&self, qemu: &Qemu) -> String {
        let config = self.config();
        let id = config.id.clone();
        qemu.define(config).await.unwrap();
        id
    }

    /// No process, no directory, no control group.
    pub fn nothing_is_left(&self, id: &str) {
        assert!(processes_of(id).is_empty(), "a process is left");
        assert!(!self.home(id).exists());
        for root in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/pids",
        ] {
            assert!(!Path::new(root).join(&self.group).join(id).exists(), "{root}");
        }
    }
}

impl Drop for Place {
    /// A test that failed leaves its guests: they are found by their directory, ended, and their groups removed.
    fn drop(&mut self) {
        let Ok(dir) = std::fs::canonicalize(self.dir.path()) else {
            return;
        };
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)) {
                kill(pid);
                while alive(pid) {
                    std::thread::yield_now();
                }
            }
        }
        for root in ["", "cpu", "memory", "pids"] {
            let group = Path::new("/sys/fs/cgroup").join(root).join(&self.group);
            for guest in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(guest.path());
            }
            let _ = std::fs::remove_dir(group);
        }
    }
}

pub fn processes_of(id: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|b| *b == 0).any(|word| word == id.as_bytes()) && line.starts_with(b"/usr/bin/qemu-system") {
            found.push(pid);
        }
    }
    found
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Alive and no zombie.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub fn command_line(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    line.split(|b| *b == 0)
        .filter(|w| !w.is_empty())
        .map(|w| String::from_utf8(w.to_vec()).unwrap())
        .collect()
}

/// Executes a command line as a shell would and waits until its monitor has greeted and taken its first command.
pub fn bare_exec(home: &Path, line: Vec<String>) -> Duration {
    use std::os::fd::AsRawFd;
    let path = home.join("bare.sock");
    let _ = std::fs::remove_file(&path);
    let begun = Instant::now();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let number = listener.as_raw_fd();
    let line: Vec<String> = line
        .into_iter()
        .map(|w| {
            if w.starts_with("socket,id=qmp,") {
                format!("socket,id=qmp,fd={number},server=on,wait=off")
            } else {
                w
            }
        })
        .collect();
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    std::io::Write::write_all(&mut &socket, b"{\"execute\": \"qmp_capabilities\"}\n").unwrap();
    reader.read_line(&mut text).unwrap();
    assert!(text.contains("return"), "{text}");
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&path).unwrap();
    took
}

pub fn virtual_size(path: &Path) -> u64 {
    let found = maru_block::inspect(&mut std::fs::File::open(path).unwrap()).unwrap();
    assert!(found.is_safe(), "{found:?}");
    found.virtual_size
}

pub fn nic(number: u8) -> GuestNic {
    let port_id = maru_base::random::uuid();
    GuestNic {
        tap: tap_name(&port_id),
        port_id,
        mac: format!("fa:16:3e:00:00:{number:02x}"),
        mtu: 1450,
    }
}

/// A network namespace of the test's own.
pub struct Namespace(String);

impl Namespace {
    pub fn new() -> Self {
        let name = format!("mt{}", &maru_base::random::hex32()[..8]);
        ip(&["netns", "add", &name]);
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub fn tap(&self, name: &str) {
        ip(&["-n", &self.0, "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"]);
        ip(&["-n", &self.0, "link", "set", name, "up"]);
    }

    pub fn has_carrier(&self, name: &str) -> bool {
        ip(&["-n", &self.0, "link", "show", name]).contains("LOWER_UP")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
