//! QEMU's process: started so that it outlives us, found again without trusting a pid, watched, ended.
//!
//! A process is ours if its working directory is the guest's own (QEMU is started in `<dir>/servers/<id>`) and its command
//! line has the guest's id: both are asked of the kernel, so a reused pid is never mistaken for a guest, and a process
//! whose pid file was never written is found all the same.
#![allow(unsafe_code)]

use crate::confine::Confinement;
use maru_base::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// What the pid file holds: with the start time a pid is unmistakable until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    /// The process.
    pub pid: u32,
    /// Its start, in clock ticks since the boot (proc(5), stat, field 22).
    pub started: u64,
}

/// How a process is started.
#[derive(Debug)]
pub struct Spawn {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The guest's directory.
    pub directory: PathBuf,
    /// Descriptors that it shall have under the same numbers.
    pub descriptors: Vec<OwnedFd>,
    /// `cgroup.procs` files of the groups that it shall be in from its first instruction on.
    pub groups: Vec<File>,
    /// What it says goes here.
    pub log: File,
    /// User and group, and the groups of `/dev/kvm` and the like beside.
    pub run_as: Option<(u32, u32)>,
    /// What holds it from its first instruction on.
    pub confinement: Option<Confinement>,
}

/// A process that runs, or ran.
#[derive(Debug)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its start time.
    pub started: u64,
    handle: AsyncFd<OwnedFd>,
    /// While it is our child: it must be waited for.
    child: Option<Child>,
}

impl Process {
    /// Starts one, in a session of its own; nothing of ours ends with us but our ends of the sockets.
    ///
    /// Blocks until the program has been executed; call it off the async threads, then [`Process::watch`].
    ///
    /// # Errors
    /// `Internal` when the program cannot be executed.
    pub fn spawn(spawn: Spawn) -> Result<Child> {
        let log = spawn
            .log
            .try_clone()
            .map_err(|e| Error::internal("QEMU's log cannot be shared", e))?;
        let keep: Vec<RawFd> = spawn.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let doors: Vec<RawFd> = spawn.groups.iter().map(AsRawFd::as_raw_fd).collect();
        let run_as = spawn.run_as;
        let groups: Vec<libc::gid_t> = if run_as.is_some() { device_groups() } else { Vec::new() };
        let mut command = Command::new(&spawn.program);
        command
            .args(&spawn.arguments)
            .current_dir(&spawn.directory)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(spawn.log));
        let confinement = spawn.confinement;
        let prepare = move || {
            let check = |result: libc::c_int| {
                if result < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            };
            // SAFETY: plain system calls on integers and on buffers that were allocated before the fork.
            unsafe {
                check(libc::setsid())?;
                for fd in &keep {
                    check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
                }
                for door in &doors {
                    // A group that cannot be entered is a limit less, not a guest less.
                    let _ = libc::write(*door, b"0".as_ptr().cast(), 1);
                }
                if let Some((uid, gid)) = run_as {
                    check(libc::setgroups(groups.len(), groups.as_ptr()))?;
                    check(libc::setresgid(gid, gid, gid))?;
                    check(libc::setresuid(uid, uid, uid))?;
                }
                if let Some(confinement) = &confinement {
                    // Numbers above the newest capability are refused: the end.
                    let mut capability = 0;
                    while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
                        capability += 1;
                    }
                    check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
                    if let Some(rules) = &confinement.ruleset {
                        let done = libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0);
                        check(if done < 0 { -1 } else { 0 })?;
                    }
                    // Makes two system calls and allocates nothing.
                    if seccompiler::apply_filter(&confinement.filter).is_err() {
                        return Err(io::Error::from_raw_os_error(libc::EPERM));
                    }
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes async-signal-safe system calls only and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn();
        // The descriptors must stay open until the program runs, and not a moment longer.
        drop(spawn.descriptors);
        child.map_err(|e| Error::internal(format!("{} was not started", spawn.program.display()), e))
    }

    /// Watches a child that [`Process::spawn`] started.
    ///
    /// # Errors
    /// `Internal` when the kernel gives no handle.
    pub fn watch(child: Child) -> Result<Self> {
        let mut process = Self::open(child.id())?;
        process.child = Some(child);
        Ok(process)
    }

    fn open(pid: u32) -> Result<Self> {
        let failed = |e: io::Error| Error::internal(format!("process {pid} cannot be watched"), e);
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let handle = pidfd_open(number, PidfdFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        // SAFETY: the pidfd is owned by the `AsyncFd` for as long as that lives, so its number keeps its meaning.
        let handle = unsafe { AsyncFd::register(handle) }.map_err(|e| failed(e.into()))?;
        Ok(Self {
            pid,
            started: start_time(pid).unwrap_or(0),
            handle,
            child: None,
        })
    }

    /// Takes over the process that runs guest `id` in `directory`, if there is one.
    ///
    /// # Errors
    /// `Internal` when it is there and cannot be watched.
    pub fn adopt(id: &str, directory: &Path, pid: u32) -> Result<Option<Self>> {
        let Ok(process) = Self::open(pid) else { return Ok(None) };
        // Looked at once more now that the handle is held: the pid cannot change its meaning any more.
        Ok(is_guest(pid, id, directory).then_some(process))
    }

    /// Takes over a process of ours that is no guest: one that runs `program` in `directory`.
    ///
    /// # Errors
    /// `Internal` when it is there and cannot be watched.
    pub fn adopt_daemon(directory: &Path, program: &Path) -> Result<Option<Self>> {
        let runs = |pid: u32| {
            let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}"));
            link("cwd").is_ok_and(|cwd| cwd == directory) && link("exe").is_ok_and(|exe| exe == program)
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            if runs(pid)
                && let Ok(process) = Self::open(pid)
                && runs(pid)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// Waits for its end; says how it ended if it was our child.
    pub async fn ended(&mut self) -> Option<std::process::ExitStatus> {
        // A pidfd is readable from the process's end on, for ever.
        let _ = self.handle.readable().await;
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => status,
            _ => None,
        }
    }

    /// Waits for its end, at most this long.
    pub async fn ended_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.ended()).await.is_ok()
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// `Internal` when it is still there after 30 seconds (stuck in the kernel).
    pub async fn kill(&mut self) -> Result<()> {
        // An error means that it is gone already.
        let _ = pidfd_send_signal(self.handle.get_ref(), Signal::KILL);
        if self.ended_within(Duration::from_secs(30)).await {
            return Ok(());
        }
        let why = io::Error::other("it is stuck in the kernel");
        Err(Error::internal(
            format!("process {} did not end after a kill", self.pid),
            why,
        ))
    }
}

/// Groups that own the devices that QEMU opens by itself.
fn device_groups() -> Vec<libc::gid_t> {
    use std::os::unix::fs::MetadataExt;
    ["/dev/kvm", "/dev/vhost-net"]
        .iter()
        .filter_map(|p| Some(std::fs::metadata(p).ok()?.gid()))
        .filter(|g| *g != 0)
        .collect()
}

/// Field 22 of `/proc/<pid>/stat`.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn is_guest(pid: u32, id: &str, directory: &Path) -> bool {
    let Ok(cwd) = std::fs::read_link(format!("/proc/{pid}/cwd")) else {
        return false;
    };
    let cwd = cwd.to_string_lossy();
    // A guest whose directory was removed under it is a guest still.
    let cwd = Path::new(cwd.strip_suffix(" (deleted)").unwrap_or(&cwd));
    cwd == directory && command_line_has(pid, id)
}

fn command_line_has(pid: u32, id: &str) -> bool {
    let read = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut line = read();
    // Within exec the old command line is gone for a moment before the new one is there.
    for _ in 0..200 {
        if !line.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        line = read();
    }
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    words.windows(2).any(|pair| pair == [b"-uuid", id.as_bytes()])
}

/// All processes that run guests of the state directory `servers`: id and pid, by what the kernel says of them.
///
/// A guest whose directory was removed under it is found too.
#[must_use]
pub fn scan(servers: &Path) -> HashMap<String, u32> {
    let mut found = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(cwd) = std::fs::read_link(format!("/proc/{pid}/cwd")) else {
            continue;
        };
        let Ok(inside) = cwd.strip_prefix(servers) else {
            continue;
        };
        let name = inside.to_string_lossy();
        let id = name.strip_suffix(" (deleted)").unwrap_or(&name);
        if command_line_has(pid, id) {
            found.insert(id.to_owned(), pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time_and_is_no_guest() {
        assert!(start_time(std::process::id()).is_some_and(|t| t > 0));
        assert!(!is_guest(std::process::id(), "x", Path::new("/")));
        assert!(scan(Path::new("/nowhere")).is_empty());
    }
}
