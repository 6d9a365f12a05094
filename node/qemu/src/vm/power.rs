//! Power: start, stop, reboot, pause, suspend, destroy.

use super::{Vm, Waited};
use crate::argv::{Handles, render};
use crate::cgroup::Limits;
use crate::hypervisor::{AcceleratorKind, StartTimes};
use crate::process::{PidFile, Process, Spawn};
use crate::qmp::Qmp;
use crate::record::{Last, Live};
use crate::{console, tap};
use maru_agent_api::observed::PowerState;
use maru_base::{Error, Result, time};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a new process may take to answer: a busy machine, not a quick one.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the power button is pressed: a guest that is still booting misses the first ones.
const BUTTON: Duration = Duration::from_secs(5);

impl Vm {
    pub(super) async fn start(&mut self) -> Result<StartTimes> {
        if self.process.is_some() {
            // A lost monitor is an error, not a running guest.
            return self.qmp().map(|_| StartTimes::default());
        }
        let restore = self.home.memory().exists();
        self.launch(restore).await
    }

    /// Starts a process and lets the guest run; on any error nothing is left of it.
    async fn launch(&mut self, restore: bool) -> Result<StartTimes> {
        let mut times = StartTimes::default();
        let result = self.launch_steps(restore, &mut times).await;
        if let Err(e) = result {
            let words = console::last_words(&self.home.0);
            if let Some(process) = &mut self.process {
                process.kill().await?;
            }
            // A failed load leaves the saved memory for another try.
            let kept = restore && self.home.memory().exists();
            self.gone(
                if kept { Last::Suspended } else { Last::Off },
                Some(e.message().to_owned()),
            );
            self.publish("start-failed");
            let message = match words {
                Some(words) => format!(
                    "the server was not started: {}; the hypervisor said: {words}",
                    e.message()
                ),
                None => format!("the server was not started: {}", e.message()),
            };
            return Err(Error::new(e.kind(), message).with_source(e));
        }
        self.publish("started");
        Ok(times)
    }

    async fn launch_steps(&mut self, restore: bool, times: &mut StartTimes) -> Result<()> {
        let host = self.host.clone();
        let accelerator = host.accelerator().await?.kind;
        self.home.make()?;
        let begun = now();
        let Some(record) = &mut self.record else {
            return Err(Error::conflict("the server is not defined"));
        };
        let saved = record.live.clone().filter(|_| restore);
        let live = match saved {
            Some(live) => live,
            None => Live::plan(&record.config)?,
        };
        record.live = Some(live.clone());
        record.problem = None;
        for disk in &live.config.disks {
            super::devices::reachable(disk).await?;
        }
        self.set_last(Last::Starting);

        let (child, qmp_socket) = self.spawn(&live, accelerator, restore).await?;
        self.process = Some(Process::watch(child)?);
        if let Some(process) = &self.process {
            let pid = PidFile {
                pid: process.pid,
                started: process.started,
            };
            self.home
                .put("qemu.pid", &serde_json::to_vec(&pid).unwrap_or_default())?;
        }
        let spawned = now();
        times.steps.push(("spawn".to_owned(), begun, spawned));

        let negotiation = Qmp::negotiate(qmp_socket, PATIENCE);
        let (qmp, events) = match &mut self.process {
            // A process that ends at once (a bad option, no memory) need not be waited for.
            Some(process) => tokio::select! {
                done = negotiation => done?,
                status = process.ended() => {
                    let how = status.map_or_else(String::new, |s| format!(" ({s})"));
                    return Err(Error::unavailable(format!("its process ended before it was ready{how}")));
                }
            },
            None => negotiation.await?,
        };
        self.qmp = Some(qmp.clone());
        self.qmp_events = Some(events);
        let ready = now();
        times.steps.push(("qmp".to_owned(), spawned, ready));

        if restore {
            self.load(&qmp).await?;
        }
        for disk in live.config.disks.iter().filter(|d| !d.limits.is_empty()) {
            if let Some(unit) = live.units.get(&crate::record::disk_key(disk)) {
                super::devices::limit(&qmp, disk, *unit).await?;
            }
        }
        // From here on the guest may have run: a crash in between costs an unneeded cold boot, never saved memory that
        // is older than the disks.
        if restore {
            std::fs::rename(self.home.memory(), self.home.memory_used())
                .map_err(|e| Error::internal("the saved memory was not taken up", e))?;
        }
        self.set_last(Last::Running);
        qmp.call("cont", json!({})).await?;
        let _ = std::fs::remove_file(self.home.memory_used());
        self.power = PowerState::Running;
        times.steps.push(("running".to_owned(), ready, now()));
        Ok(())
    }

    /// Everything up to the running process: taps, control group, sockets.
    async fn spawn(
        &mut self,
        live: &Live,
        accelerator: AcceleratorKind,
        restore: bool,
    ) -> Result<(std::process::Child, UnixStream)> {
        let options = &self.host.options;
        let mut handles = Handles {
            incoming: restore,
            vhost: accelerator == AcceleratorKind::Kvm && Path::new("/dev/vhost-net").exists(),
            ..Handles::default()
        };
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for nic in &live.config.nics {
            let opened = tap::open(options.netns.clone(), nic.tap.clone()).await?;
            handles.taps.insert(nic.port_id.clone(), opened.as_raw_fd());
            descriptors.push(opened);
        }
        let door = Door::open(&self.home.0)?;
        // Bound and listening before QEMU starts: the connection is made at once and the greeting comes when it comes.
        let _ = std::fs::remove_file(self.home.file("qmp.sock"));
        let listener = UnixListener::bind(door.path("qmp.sock"))
            .map_err(|e| Error::internal("the monitor's socket was not made", e))?;
        let socket = door
            .connect("qmp.sock")
            .map_err(|e| Error::internal("the monitor's socket was not reached", e))?;
        handles.qmp = listener.as_raw_fd();
        descriptors.push(listener.into());
        for stale in ["serial.sock", "vnc.sock"] {
            let _ = std::fs::remove_file(self.home.file(stale));
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.home.file("qemu.log"))
            .and_then(|f| f.set_len(0).map(|()| f))
            .map_err(|e| Error::internal("QEMU's log was not opened", e))?;
        if let Some(owner) = options.run_as {
            self.hand_over(live, owner)?;
        }
        let limits = Limits {
            vcpus: live.config.vcpus,
            memory: live.config.memory_mib << 20,
        };
        let groups = self
            .host
            .groups
            .as_ref()
            .map(|g| g.make(&self.id, limits))
            .unwrap_or_default();
        let directory = std::fs::canonicalize(&self.home.0)
            .map_err(|e| Error::internal(format!("{} is gone", self.home.0.display()), e))?;
        let spawn = Spawn {
            program: options.program.clone(),
            arguments: render(live, accelerator, &handles),
            directory,
            descriptors,
            groups,
            log,
            run_as: options.run_as,
            confinement: None,
        };
        tracing::debug!(server = %self.id, arguments = ?spawn.arguments, "starting QEMU");
        let child = tokio::task::spawn_blocking(move || Process::spawn(spawn))
            .await
            .map_err(|e| Error::internal("the start of QEMU stopped unexpectedly", e))??;
        Ok((child, socket))
    }

    /// Gives the user that QEMU runs as what it must write.
    fn hand_over(&self, live: &Live, (uid, gid): (u32, u32)) -> Result<()> {
        let mut paths: Vec<PathBuf> = vec![self.home.0.clone()];
        paths.extend(["console.log", "memory.state"].map(|n| self.home.file(n)));
        paths.extend(
            live.config
                .disks
                .iter()
                .filter(|d| d.path.is_file())
                .map(|d| d.path.clone()),
        );
        live.config.disks.iter().try_for_each(|d| self.hand_over_keys(d))?;
        for path in paths.iter().filter(|p| p.exists()) {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(|e| Error::internal(format!("{} was not handed to user {uid}", path.display()), e))?;
        }
        Ok(())
    }

    /// Loads saved memory into a process that waits for it.
    async fn load(&mut self, qmp: &Qmp) -> Result<()> {
        watch_migration(qmp).await?;
        self.migration = None;
        qmp.call_within("migrate-incoming", json!({ "uri": "file:memory.state" }), PATIENCE)
            .await?;
        self.migrated("loaded").await
    }

    /// Waits until memory has gone to or come from its file.
    async fn migrated(&mut self, what: &str) -> Result<()> {
        let memory = self.record.as_ref().map_or(0, |r| r.config.memory_mib);
        // 20 MiB a second is slow even for a busy rotating disk.
        let time = PATIENCE + Duration::from_secs(memory / 20);
        let over = |vm: &Self| {
            vm.process.is_none() || matches!(vm.migration.as_deref(), Some("completed" | "failed" | "cancelled"))
        };
        let waited = self.wait_for(time, over).await;
        match (waited, self.migration.as_deref()) {
            (Waited::Met, Some("completed")) => Ok(()),
            (Waited::Met, _) => Err(Error::unavailable(format!("the server's memory could not be {what}"))),
            (Waited::Late, _) => Err(Error::unavailable(format!(
                "the server's memory was not {what} within {} s",
                time.as_secs()
            ))),
            (Waited::Overtaken, _) => Err(Error::conflict("given up for a stop of the server")),
        }
    }

    pub(super) async fn stop(&mut self, timeout: Duration) -> Result<()> {
        if self.process.is_none() {
            if self.power == PowerState::Suspended || self.power == PowerState::Nostate {
                self.gone(Last::Off, None);
                self.publish("stopped");
            }
            return Ok(());
        }
        if timeout > Duration::ZERO && self.power == PowerState::Running {
            self.press_button(timeout).await;
        }
        if self.process.is_some() {
            self.end_process(Last::Off).await;
        } else if self.power != PowerState::Shutdown {
            // It ended by itself, in whatever way: what was asked for is so.
            self.gone(Last::Off, None);
        }
        self.publish("stopped");
        Ok(())
    }

    /// Presses the power button until the guest is off, the time is over, or something harder comes.
    async fn press_button(&mut self, timeout: Duration) -> Waited {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(qmp) = self.qmp()
                && let Err(e) = qmp.call("system_powerdown", json!({})).await
            {
                tracing::warn!(server = %self.id, error = %e, "the power button does not work");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .wait_for(left.min(BUTTON), |vm| vm.guest_off || vm.process.is_none())
                .await
            {
                Waited::Late if left > BUTTON => {}
                end => return end,
            }
        }
    }

    /// Ends the process: asks QEMU, then kills.
    pub(super) async fn end_process(&mut self, last: Last) {
        // Said before it is done: should we be killed in between, an ended process is no crash of the guest, and one that
        // runs on is adopted as running whatever the record says.
        self.set_last(last);
        if let Some(qmp) = self.qmp.take() {
            // The answer may be cut off by the end itself.
            let _ = qmp.call_within("quit", json!({}), Duration::from_secs(2)).await;
        }
        if let Some(process) = &mut self.process
            && !process.ended_within(Duration::from_secs(3)).await
            && let Err(e) = process.kill().await
        {
            tracing::error!(server = %self.id, error = %e.chain(), "a guest's process does not end");
            self.set_problem(Some(
                "the hypervisor process cannot be ended; it is stuck in the kernel".to_owned(),
            ));
            return;
        }
        self.gone(last, None);
    }

    pub(super) async fn reboot(&mut self, hard: bool, timeout: Duration) -> Result<()> {
        let on = self.process.is_some() && self.power == PowerState::Running;
        if !hard && on {
            match self.press_button(timeout).await {
                Waited::Met if self.process.is_some() => {
                    // The guest is off and its process waits: the same machine begins anew.
                    let qmp = self.qmp()?;
                    qmp.call("system_reset", json!({})).await?;
                    qmp.call("cont", json!({})).await?;
                    self.guest_off = false;
                    self.power = PowerState::Running;
                    self.publish("rebooted");
                    return Ok(());
                }
                Waited::Overtaken => return Err(Error::conflict("the reboot was given up for a stop of the server")),
                _ => tracing::info!(server = %self.id, "the guest did not reboot by itself: hard reboot"),
            }
        }
        if self.process.is_some() {
            self.end_process(Last::Off).await;
        }
        self.launch(false).await?;
        self.publish("rebooted");
        Ok(())
    }

    pub(super) async fn pause(&mut self) -> Result<()> {
        match self.power {
            PowerState::Paused => return Ok(()),
            PowerState::Running => self.qmp()?.call("stop", json!({})).await?,
            _ => return Err(self.refuse("is not running")),
        };
        self.power = PowerState::Paused;
        self.publish("paused");
        Ok(())
    }

    pub(super) async fn inject_nmi(&mut self) -> Result<()> {
        self.qmp()?.call("inject-nmi", json!({})).await?;
        Ok(())
    }

    pub(super) async fn resume(&mut self) -> Result<()> {
        match self.power {
            PowerState::Running => return Ok(()),
            PowerState::Paused => self.qmp()?.call("cont", json!({})).await?,
            _ => return Err(self.refuse("is not paused")),
        };
        self.power = PowerState::Running;
        self.publish("resumed");
        Ok(())
    }

    pub(super) async fn suspend(&mut self) -> Result<()> {
        if self.power == PowerState::Suspended {
            return Ok(());
        }
        let qmp = self.qmp()?;
        let was_running = self.power == PowerState::Running;
        let saved = self.save_memory(&qmp).await;
        if let Err(e) = saved {
            let _ = std::fs::remove_file(self.home.memory_part());
            if self.process.is_some() {
                let _ = qmp.call("migrate_cancel", json!({})).await;
                if was_running {
                    let _ = qmp.call("cont", json!({})).await;
                    self.power = PowerState::Running;
                }
            }
            return Err(e);
        }
        self.end_process(Last::Suspended).await;
        self.publish("suspended");
        Ok(())
    }

    async fn save_memory(&mut self, qmp: &Qmp) -> Result<()> {
        let status = qmp.call("query-status", json!({})).await?;
        if status["status"] == "postmigrate" {
            // An earlier save was cut short; a machine in that state must run before it can be saved again.
            qmp.call("cont", json!({})).await?;
        }
        qmp.call("stop", json!({})).await?;
        // Loading needs the same machine, also after QEMU was upgraded and its `q35` means another one.
        let machine = qmp
            .call("qom-get", json!({ "path": "/machine", "property": "type" }))
            .await?;
        if let Some(live) = self.record.as_mut().and_then(|r| r.live.as_mut())
            && let Some(exact) = machine.as_str().and_then(|m| m.strip_suffix("-machine"))
        {
            live.machine = exact.to_owned();
        }
        watch_migration(qmp).await?;
        self.migration = None;
        // Nobody shares this way: as fast as the disk takes it.
        qmp.call("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 }))
            .await?;
        qmp.call_within("migrate", json!({ "uri": "file:memory.part" }), PATIENCE)
            .await?;
        self.migrated("saved").await?;
        let (part, whole) = (self.home.memory_part(), self.home.memory());
        let kept = tokio::task::spawn_blocking(move || {
            File::open(&part)?.sync_all()?;
            std::fs::rename(&part, &whole)
        });
        kept.await
            .map_err(|e| Error::internal("the server's memory was not kept", e))?
            .map_err(|e| Error::internal("the server's memory was not kept", e))?;
        self.set_last(Last::Suspended);
        Ok(())
    }

    pub(super) async fn destroy(&mut self) -> Result<()> {
        if self.home.0.exists() {
            self.set_last(Last::Off);
        }
        if let Some(process) = &mut self.process {
            process.kill().await?;
        }
        self.gone(Last::Off, None);
        self.record = None;
        let home = self.home.0.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&home)).await;
        match removed {
            Ok(Err(e)) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::internal(format!("{} was not removed", self.home.0.display()), e));
            }
            Err(e) => return Err(Error::internal("the removal stopped unexpectedly", e)),
            _ => {}
        }
        self.publish("destroyed");
        Ok(())
    }
}

/// Asks for events about memory that is saved or loaded.
async fn watch_migration(qmp: &Qmp) -> Result<()> {
    let on = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    qmp.call("migrate-set-capabilities", on).await?;
    Ok(())
}

fn now() -> i64 {
    time::now().as_microsecond()
}

/// A guest's directory as the kernel knows it: names of sockets through it are short however deep the directory lies (a
/// socket's path has at most 107 bytes).
pub(crate) struct Door(File);

impl Door {
    /// Opens the directory.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        File::open(home)
            .map(Self)
            .map_err(|e| Error::internal(format!("{} was not opened", home.display()), e))
    }

    /// A name in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Connects to a socket in it.
    pub(crate) fn connect(&self, name: &str) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.path(name))
    }
}
