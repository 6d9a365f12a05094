//! Volumes of this node, offered to other nodes: a `qemu-storage-daemon` for each, an NBD export for each attachment.
//!
//! ```text
//!   (nothing) ── offer ──► process, TLS listener ──► exports = those that are asked for ◄── offer (adds, cuts)
//!       ▲                        │ ended unasked: told, offered again at the same address
//!       └────── withdraw ────────┘
//!
//! <dir>/exports/<volume>/offer.json      file and port: an address is kept as long as the volume is offered
//!                        keys/keys.psk   a line for each export that is open: name and key
//!                        qmp.sock        the daemon's monitor
//!                        daemon.log      what it says
//! ```
//!
//! Whoever reaches the port must know a key (TLS with a pre-shared key: QEMU's manual, "TLS setup for network services"); each
//! export has a key of its own that goes with it, so a detached volume is never opened again by what was once given out (D5). The
//! daemon is a process of one volume, confined to its file, its directory and its port, without any capability.
//!
//! Crash-only: the daemon outlives the agent and is found again by what the kernel says of it; every call looks at what is there
//! and does what is missing.

use crate::cgroup::{Hierarchies, Limits};
use crate::confine::Confinement;
use crate::process::{Process, Spawn};
use crate::qmp::{Qmp, QmpError};
use crate::vm::Door;
use async_trait::async_trait;
use maru_agent_api::slice::VolumeExport;
use maru_base::{Error, Result};
use maru_block::Exporter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

/// How long a new daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an adopted one may.
const ADOPTED: Duration = Duration::from_secs(5);
/// Ports that volumes are offered at, from the one that IANA gives NBD on: a firewall between nodes lets these through.
pub const PORTS: std::ops::Range<u16> = 10_809..12_809;
/// Time between two looks at a copy, or at an export that is being cut.
const LOOK: Duration = Duration::from_millis(50);
/// How the names of copies begin.
const COPY: &str = "copy-";
/// Memory of a daemon in bytes, the buffers of its connections included.
const MEMORY: u64 = 64 << 20;
/// Tries to find a port that nobody else has.
const TRIES: u32 = 64;

/// How volumes are offered.
#[derive(Debug, Clone)]
pub struct ExporterOptions {
    /// Directory of everything that the exporter keeps; volumes are in `<dir>/exports/`.
    pub state_dir: PathBuf,
    /// The address that it listens on.
    pub listen: IpAddr,
    /// The program.
    pub program: PathBuf,
    /// Parent of the daemons' control groups; `None`: no control groups.
    pub cgroup: Option<String>,
}

impl ExporterOptions {
    /// The usual options.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, listen: IpAddr) -> Self {
        Self {
            state_dir: state_dir.into(),
            listen,
            program: PathBuf::from("/usr/bin/qemu-storage-daemon"),
            cgroup: None,
        }
    }
}

/// What is kept of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    file: PathBuf,
    port: u16,
}

/// A daemon that runs.
struct Running {
    offer: Offer,
    qmp: Qmp,
    /// Asks the watcher to end it.
    stop: mpsc::Sender<()>,
    gone: watch::Receiver<bool>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Running>>>;

/// The exporter over `qemu-storage-daemon`.
pub struct StorageDaemons {
    options: ExporterOptions,
    groups: Option<Hierarchies>,
    /// One slot a volume: whoever holds it is the only one that changes the volume's daemon.
    slots: Mutex<HashMap<String, Slot>>,
    /// Volumes whose file is open.
    open: Arc<Mutex<BTreeSet<String>>>,
    ended: broadcast::Sender<String>,
}

fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_string();
    move |e| Error::internal(what, e)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StorageDaemons {
    /// An exporter with these options; makes its directory.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be made.
    pub fn new(mut options: ExporterOptions) -> Result<Self> {
        let dir = options.state_dir.join("exports");
        make_dir(&dir)?;
        // As the kernel shows it in /proc/<pid>/cwd and exe.
        options.state_dir = std::fs::canonicalize(&options.state_dir).map_err(io("the exports' directory is gone"))?;
        options.program = std::fs::canonicalize(&options.program).unwrap_or(options.program);
        let groups = options.cgroup.as_deref().map(Hierarchies::find);
        Ok(Self {
            options,
            groups,
            slots: Mutex::default(),
            open: Arc::default(),
            ended: broadcast::channel(256).0,
        })
    }

    fn home(&self, volume: &str) -> PathBuf {
        self.options.state_dir.join("exports").join(volume)
    }

    fn slot(&self, volume: &str) -> Slot {
        Arc::clone(locked(&self.slots).entry(volume.to_owned()).or_default())
    }

    fn address(&self, port: u16) -> String {
        std::net::SocketAddr::new(self.options.listen, port).to_string()
    }

    fn kept(&self, volume: &str) -> Option<Offer> {
        serde_json::from_slice(&std::fs::read(self.home(volume).join("offer.json")).ok()?).ok()
    }

    /// Watches a daemon until it ends; the answer ends it.
    fn watched(&self, volume: &str, mut process: Process, offer: Offer, qmp: Qmp) -> Running {
        let (stop, mut asked) = mpsc::channel::<()>(1);
        let (told, gone) = watch::channel(false);
        locked(&self.open).insert(volume.to_owned());
        let (open, ended, volume) = (Arc::clone(&self.open), self.ended.clone(), volume.to_owned());
        tokio::spawn(async move {
            let unasked = tokio::select! {
                _ = process.ended() => true,
                asked = asked.recv() => {
                    if asked.is_none() {
                        // The agent ends; the daemon goes on.
                        return;
                    }
                    if let Err(e) = process.kill().await {
                        tracing::error!(volume, error = %e.chain(), "a storage daemon does not end");
                        return;
                    }
                    false
                }
            };
            locked(&open).remove(&volume);
            told.send_replace(true);
            if unasked {
                tracing::warn!(volume, "a storage daemon ended unasked");
                // Nobody may listen.
                let _ = ended.send(volume);
            }
        });
        Running { offer, qmp, stop, gone }
    }

    /// A daemon that has `file` open: the one that runs, or a new one.
    async fn running(&self, volume: &str, file: &Path, slot: &mut Option<Running>) -> Result<()> {
        if let Some(running) = slot.as_ref() {
            if running.offer.file == file && !running.qmp.is_closed() && !*running.gone.borrow() {
                return Ok(());
            }
            self.end(slot).await?;
        }
        let kept = self.kept(volume).filter(|o| o.file == file);
        let home = self.home(volume);
        make_dir(&home)?;
        make_dir(&home.join("keys"))?;
        let port = self.port(kept.map(|o| o.port))?;
        let offer = Offer {
            file: file.to_owned(),
            port,
        };
        put(&home, "offer.json", &serde_json::to_vec(&offer).unwrap_or_default())?;
        if !home.join("keys/keys.psk").exists() {
            put(&home.join("keys"), "keys.psk", b"")?;
        }
        let (mut process, socket) = self.spawn(volume, &home, &offer).await?;
        let negotiated = tokio::select! {
            done = Qmp::negotiate(socket, PATIENCE) => done.map_err(Error::from),
            _ = process.ended() => Err(Error::unavailable("the storage daemon ended before it was ready")),
        };
        match negotiated {
            Ok((qmp, events)) => {
                drain(events);
                *slot = Some(self.watched(volume, process, offer, qmp));
                Ok(())
            }
            Err(e) => {
                process.kill().await?;
                let words = std::fs::read_to_string(home.join("daemon.log")).unwrap_or_default();
                let last = words.lines().last().unwrap_or("it said nothing").to_owned();
                Err(Error::unavailable(format!("the volume {volume} was not offered: {last}")).with_source(e))
            }
        }
    }

    /// The port that was kept, else a free one. Guests wait for the holder where it was: they cannot be sent elsewhere.
    fn port(&self, kept: Option<u16>) -> Result<u16> {
        let free = |port: u16| TcpListener::bind((self.options.listen, port)).is_ok();
        if let Some(port) = kept {
            return free(port).then_some(port).ok_or_else(|| {
                Error::unavailable(format!(
                    "the volume cannot be offered where its guests wait for it: another program has {} port {port}",
                    self.options.listen
                ))
            });
        }
        let many = u64::from(PORTS.end - PORTS.start);
        (0..TRIES)
            .filter_map(|_| u16::try_from(u64::from(PORTS.start) + maru_base::random::below(many)).ok())
            .find(|port| free(*port))
            .ok_or_else(|| {
                Error::unavailable(format!(
                    "the volume cannot be offered: no port from {} to {} is free on {}; is that an address of this node?",
                    PORTS.start,
                    PORTS.end - 1,
                    self.options.listen
                ))
            })
    }

    async fn spawn(
        &self,
        volume: &str,
        home: &Path,
        offer: &Offer,
    ) -> Result<(Process, std::os::unix::net::UnixStream)> {
        let door = Door::open(home)?;
        let _ = std::fs::remove_file(home.join("qmp.sock"));
        let listener = UnixListener::bind(door.path("qmp.sock")).map_err(io("the monitor's socket was not made"))?;
        let socket = door
            .connect("qmp.sock")
            .map_err(io("the monitor's socket was not reached"))?;
        let log = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(home.join("daemon.log"))
            .map_err(io("the storage daemon's log was not opened"))?;
        let limits = Limits {
            vcpus: 1,
            memory: MEMORY,
        };
        let groups = self
            .groups
            .as_ref()
            .map(|g| g.make(&group(volume), limits))
            .unwrap_or_default();
        let spawn = Spawn {
            program: self.options.program.clone(),
            arguments: arguments(listener.as_raw_fd(), self.options.listen, offer),
            directory: home.to_owned(),
            descriptors: vec![listener.into()],
            groups,
            log,
            run_as: None,
            confinement: Some(Confinement::new(
                &self.options.program,
                &[home, offer.file.as_path()],
                offer.port,
            )?),
        };
        let child = tokio::task::spawn_blocking(move || Process::spawn(spawn))
            .await
            .map_err(|e| Error::internal("the start of a storage daemon stopped unexpectedly", e))??;
        Ok((Process::watch(child)?, socket))
    }

    /// Ends a daemon and waits until its file is free.
    async fn end(&self, slot: &mut Option<Running>) -> Result<()> {
        let Some(running) = slot.as_mut() else { return Ok(()) };
        let _ = running.stop.send(()).await;
        let gone = tokio::time::timeout(PATIENCE, running.gone.wait_for(|gone| *gone)).await;
        if !gone.is_ok_and(|told| told.is_ok()) {
            return Err(Error::unavailable(
                "a storage daemon does not end; it is stuck in the kernel",
            ));
        }
        *slot = None;
        Ok(())
    }

    /// The monitor of an open volume.
    async fn monitor(&self, volume: &str) -> Result<Qmp> {
        let slot = self.slot(volume);
        let slot = slot.lock().await;
        match slot.as_ref().filter(|r| !*r.gone.borrow()) {
            Some(running) => Ok(running.qmp.clone()),
            None => Err(Error::unavailable(format!(
                "the volume {volume} is not offered now; try again"
            ))),
        }
    }

    async fn adopt(&self, volume: &str) -> Result<()> {
        let (home, program) = (self.home(volume), self.options.program.clone());
        let place = home.clone();
        let found = tokio::task::spawn_blocking(move || Process::adopt_daemon(&place, &program))
            .await
            .map_err(|e| Error::internal("the search for storage daemons stopped unexpectedly", e))??;
        let Some(mut process) = found else { return Ok(()) };
        let connected = match (self.kept(volume), Door::open(&home)?.connect("qmp.sock")) {
            (Some(offer), Ok(socket)) => Qmp::negotiate(socket, ADOPTED)
                .await
                .ok()
                .map(|(qmp, e)| (offer, qmp, e)),
            _ => None,
        };
        match connected {
            Some((offer, qmp, events)) => {
                drain(events);
                give_up_copies(&qmp, &home).await?;
                *self.slot(volume).lock().await = Some(self.watched(volume, process, offer, qmp));
                tracing::info!(volume, "a storage daemon of an earlier process taken over");
                Ok(())
            }
            // Guests wait for the next one, which comes to the same port.
            None => process.kill().await,
        }
    }
}

/// Events are not needed: what there is is asked for.
fn drain(mut events: mpsc::UnboundedReceiver<crate::qmp::QmpEvent>) {
    tokio::spawn(async move { while events.recv().await.is_some() {} });
}

fn group(volume: &str) -> String {
    format!("export-{volume}")
}

fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io(format!("{} was not made", path.display())))
}

/// A small file by rename, for its owner alone.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    crate::record::Home(dir.to_owned()).put(name, bytes)
}

fn arguments(monitor: std::os::fd::RawFd, listen: IpAddr, offer: &Offer) -> Vec<String> {
    let file = json!({
        "driver": "file", "node-name": "file", "filename": offer.file, "discard": "unmap", "auto-read-only": false,
    });
    let top = json!({
        "driver": "qcow2", "node-name": "volume", "file": "file", "backing": Value::Null, "discard": "unmap",
        "auto-read-only": false,
    });
    let key = json!({ "qom-type": "tls-creds-psk", "id": "keys", "dir": "keys", "endpoint": "server" });
    let server = json!({
        "addr": { "type": "inet", "host": listen.to_string(), "port": offer.port.to_string() }, "tls-creds": "keys",
    });
    let words = [
        ("--chardev", format!("socket,id=qmp,fd={monitor},server=on,wait=off")),
        ("--monitor", "chardev=qmp".to_owned()),
        ("--object", key.to_string()),
        ("--blockdev", file.to_string()),
        ("--blockdev", top.to_string()),
        ("--nbd-server", server.to_string()),
    ];
    words
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
}

/// QEMU's id of an export: it must begin with a letter.
fn export_id(name: &str) -> String {
    format!("e-{name}")
}

async fn open_exports(qmp: &Qmp) -> Result<BTreeSet<String>, QmpError> {
    let list = qmp.call("query-block-exports", json!({})).await?;
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e["id"].as_str().map(str::to_owned))
        .collect())
}

/// Cuts exports and waits until they are gone.
async fn cut(qmp: &Qmp, ids: &[String]) -> Result<()> {
    for id in ids {
        qmp.call("block-export-del", json!({ "id": id, "mode": "hard" }))
            .await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while open_exports(qmp).await?.iter().any(|open| ids.contains(open)) {
        if Instant::now() > deadline {
            return Err(Error::unavailable("an export of a volume does not close"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn add(qmp: &Qmp, name: &str, readonly: bool) -> Result<()> {
    let export = json!({
        "type": "nbd", "id": export_id(name), "node-name": "volume", "name": name, "writable": !readonly,
    });
    qmp.call("block-export-add", export).await?;
    Ok(())
}

/// Gives up copies that nobody waits for any more.
async fn give_up_copies(qmp: &Qmp, home: &Path) -> Result<()> {
    let nodes = qmp.call("query-named-block-nodes", json!({ "flat": true })).await?;
    let names = nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n["node-name"].as_str());
    for job in names.filter(|n| n.starts_with(COPY)) {
        // It may have ended meanwhile.
        let _ = qmp
            .call("block-job-cancel", json!({ "device": job, "force": true }))
            .await;
        let _ = finished(qmp, job).await;
        qmp.call("blockdev-del", json!({ "node-name": job })).await?;
    }
    let entries = std::fs::read_dir(home).map_err(io("the exports were not listed"))?;
    for entry in entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(COPY))
    {
        std::fs::remove_file(entry.path()).map_err(io("a copy that was given up was not removed"))?;
    }
    Ok(())
}

/// Waits for a copy.
async fn finished(qmp: &Qmp, job: &str) -> Result<()> {
    loop {
        let jobs = qmp.call("query-jobs", json!({})).await?;
        let found = jobs.as_array().into_iter().flatten().find(|j| j["id"] == job);
        match found {
            Some(j) if j["status"] == "concluded" => {
                let failed = j["error"].as_str().map(str::to_owned);
                qmp.call("job-dismiss", json!({ "id": job })).await?;
                return failed.map_or(Ok(()), |why| {
                    Err(Error::internal(
                        "the copy of the volume failed",
                        std::io::Error::other(why),
                    ))
                });
            }
            Some(_) => tokio::time::sleep(LOOK).await,
            None => return Err(Error::unavailable("the copy of the volume was given up")),
        }
    }
}

#[async_trait]
impl Exporter for StorageDaemons {
    async fn adopt_all(&self) -> Result<()> {
        let dir = self.options.state_dir.join("exports");
        let entries = std::fs::read_dir(&dir).map_err(io("the exports were not listed"))?;
        for volume in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()) {
            if let Err(e) = self.adopt(&volume).await {
                tracing::error!(volume, error = %e.chain(), "a storage daemon was not taken over");
            }
        }
        Ok(())
    }

    fn has_open(&self, volume: &str) -> bool {
        locked(&self.open).contains(volume)
    }

    async fn offer(&self, volume: &str, file: &Path, exports: &[VolumeExport]) -> Result<String> {
        let slot = self.slot(volume);
        let mut slot = slot.lock().await;
        let file = std::fs::canonicalize(file).map_err(io("the volume's file is gone"))?;
        self.running(volume, &file, &mut slot).await?;
        let Some(running) = slot.as_ref() else {
            return Err(Error::unavailable("the storage daemon is gone again"));
        };
        // A key that goes is gone before its connection is cut: it opens nothing again.
        let mut keys = String::new();
        for export in exports {
            keys += &format!("{}:{}\n", export.name, export.key.reveal());
        }
        put(&self.home(volume).join("keys"), "keys.psk", keys.as_bytes())?;
        let open = open_exports(&running.qmp).await?;
        let wanted: BTreeSet<String> = exports.iter().map(|e| export_id(&e.name)).collect();
        let stale: Vec<String> = open.difference(&wanted).cloned().collect();
        cut(&running.qmp, &stale).await?;
        for export in exports.iter().filter(|e| !open.contains(&export_id(&e.name))) {
            add(&running.qmp, &export.name, export.readonly).await?;
        }
        Ok(self.address(running.offer.port))
    }

    async fn withdraw(&self, volume: &str) -> Result<()> {
        let slot = self.slot(volume);
        let mut slot = slot.lock().await;
        self.end(&mut slot).await?;
        if let Some(groups) = &self.groups {
            groups.remove(&group(volume));
        }
        match std::fs::remove_dir_all(self.home(volume)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::internal("the keys of an export were not removed", e))
            }
            // The slot stays: somebody may be waiting for it.
            _ => Ok(()),
        }
    }

    async fn grow(&self, volume: &str, size: u64) -> Result<()> {
        let slot = self.slot(volume);
        let slot = slot.lock().await;
        let Some(running) = slot.as_ref().filter(|r| !*r.gone.borrow()) else {
            return Err(Error::unavailable(format!(
                "the volume {volume} is not offered now; try again"
            )));
        };
        // A node that has exports keeps its size: they are closed for the moment, guests wait, the next `offer` opens them.
        let open: Vec<String> = open_exports(&running.qmp).await?.into_iter().collect();
        cut(&running.qmp, &open).await?;
        let resize = json!({ "node-name": "volume", "size": size.div_ceil(512) * 512 });
        running
            .qmp
            .call_within("block_resize", resize, Duration::from_secs(60))
            .await?;
        Ok(())
    }

    async fn snapshot(&self, volume: &str, target: &Path) -> Result<()> {
        let qmp = self.monitor(volume).await?;
        let nodes = qmp.call("query-named-block-nodes", json!({ "flat": true })).await?;
        let size = nodes
            .as_array()
            .into_iter()
            .flatten()
            .find(|n| n["node-name"] == "volume")
            .and_then(|n| n["image"]["virtual-size"].as_u64());
        let size = size.ok_or_else(|| Error::internal("the volume's size is not known", std::fmt::Error))?;
        let job = format!("{COPY}{}", maru_base::random::below(1 << 40));
        // In the daemon's own directory: it may write no other.
        let part = self.home(volume).join(format!("{job}.qcow2"));
        maru_block::qcow2::create(&part, size, None)?;
        let node = json!({
            "driver": "qcow2", "node-name": job, "backing": Value::Null, "discard": "unmap",
            "file": { "driver": "file", "filename": part, "discard": "unmap" },
        });
        let copied = async {
            qmp.call("blockdev-add", node).await?;
            let begin = json!({
                "device": "volume", "target": job, "sync": "full", "job-id": job, "auto-dismiss": false,
            });
            let done = match qmp.call("blockdev-backup", begin).await {
                Ok(_) => finished(&qmp, &job).await,
                Err(e) => Err(e.into()),
            };
            qmp.call("blockdev-del", json!({ "node-name": job })).await?;
            done
        };
        let copied = copied.await;
        let target = target.to_owned();
        tokio::task::spawn_blocking(move || match copied {
            Ok(()) => std::fs::File::open(&part)
                .and_then(|f| f.sync_all())
                .and_then(|()| std::fs::rename(&part, &target))
                .map_err(io("the copy was not kept")),
            Err(e) => {
                let _ = std::fs::remove_file(&part);
                Err(e)
            }
        })
        .await
        .map_err(|e| Error::internal("the copy stopped unexpectedly", e))?
    }

    async fn stop_all(&self) -> Result<()> {
        let dir = self.options.state_dir.join("exports");
        let entries = std::fs::read_dir(&dir).map_err(io("the exports were not listed"))?;
        for volume in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()) {
            self.withdraw(&volume).await?;
        }
        Ok(())
    }

    fn ended(&self) -> broadcast::Receiver<String> {
        self.ended.subscribe()
    }
}
