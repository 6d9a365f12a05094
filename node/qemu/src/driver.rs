//! The QEMU driver behind [`Hypervisor`]: finds a guest's task and asks it.

use crate::cgroup::Hierarchies;
use crate::config::{DiskFormat, GuestConfig, GuestDisk, GuestNic, Options};
use crate::hypervisor::{Accelerator, GuestEvent, GuestStatus, Hypervisor, StartTimes};
use crate::vm::{Answer, Door, Handle, Host, Message, Request, Vm};
use crate::{console, process};
use async_trait::async_trait;
use maru_agent_api::lane::Duplex;
use maru_agent_api::observed::PowerState;
use maru_base::{Error, Result};
use maru_block::{BaseImage, DiskFile};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, broadcast, oneshot};

/// Changes that are kept for a slow listener.
const EVENTS: usize = 1024;

/// The QEMU driver.
pub struct Qemu {
    host: Arc<Host>,
    guests: Mutex<HashMap<String, Handle>>,
}

impl Qemu {
    /// A driver with these options; makes its directories. Needs a tokio runtime when guests are defined or adopted.
    ///
    /// # Errors
    /// `Internal` when the directories cannot be made.
    pub fn new(mut options: Options) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let servers = options.state_dir.join("servers");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&servers)
            .map_err(|e| Error::internal(format!("{} was not made", servers.display()), e))?;
        // As the kernel shows it in /proc/<pid>/cwd.
        options.state_dir = std::fs::canonicalize(&options.state_dir)
            .map_err(|e| Error::internal(format!("{} is gone", options.state_dir.display()), e))?;
        let groups = options.cgroup.as_deref().map(Hierarchies::find);
        let host = Host {
            options,
            groups,
            accelerator: OnceCell::new(),
            lock: Mutex::new(None),
            events: broadcast::channel(EVENTS).0,
        };
        // A predecessor may be ending still; adoption waits for it.
        host.try_lock()?;
        Ok(Self {
            host: Arc::new(host),
            guests: Mutex::new(HashMap::new()),
        })
    }

    /// The control groups that guests get, for people: `v1 cpu, memory, pids`.
    #[must_use]
    pub fn control_groups(&self) -> String {
        self.host
            .groups
            .as_ref()
            .map_or_else(|| "none".to_owned(), Hierarchies::describe)
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: &str) -> Result<Handle> {
        let found = self.guests().get(id).filter(|h| !h.requests.is_closed()).cloned();
        found.ok_or_else(|| Error::not_found(format!("server {id} is not on this node")))
    }

    async fn ask(&self, id: &str, request: Request) -> Result<Answer> {
        send(&self.handle(id)?, request).await
    }

    async fn done(&self, id: &str, request: Request) -> Result<()> {
        self.ask(id, request).await.map(drop)
    }

    /// A running guest's socket.
    async fn socket(&self, id: &str, name: &str) -> Result<(Handle, UnixStream, StdUnixStream)> {
        let handle = self.handle(id)?;
        if handle.status.borrow().pid.is_none() {
            return Err(Error::conflict(format!(
                "server {id} is not running, so it has no console; start it first"
            )));
        }
        let failed = |e| Error::unavailable(format!("the console of server {id} is not there yet")).with_source(e);
        let socket = Door::open(&handle.home.0)?.connect(name).map_err(failed)?;
        let twin = socket.try_clone().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok((handle, UnixStream::from_std(socket).map_err(failed)?, twin))
    }
}

async fn send(handle: &Handle, request: Request) -> Result<Answer> {
    let (answer, receiver) = oneshot::channel();
    let gone = || Error::not_found("the server was removed meanwhile");
    handle
        .requests
        .send(Message { request, answer })
        .await
        .map_err(|_| gone())?;
    receiver.await.map_err(|_| gone())?
}

/// Ids become names of directories and words of command lines.
fn check_id(id: &str) -> Result<()> {
    let plain = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if plain && id.len() == 36 {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "{id:?} cannot be the id of a server: it must be a UUID with dashes"
    )))
}

fn check(config: &GuestConfig) -> Result<()> {
    check_id(&config.id)?;
    if config.vcpus == 0 || config.vcpus > 255 {
        return Err(Error::bad_request(format!(
            "a server cannot have {} processors: 1 to 255 can be",
            config.vcpus
        )));
    }
    if config.memory_mib == 0 || config.memory_mib > 16 << 20 {
        return Err(Error::bad_request(format!(
            "a server cannot have {} MiB of memory",
            config.memory_mib
        )));
    }
    config.nics.iter().try_for_each(check_nic)
}

fn check_nic(nic: &GuestNic) -> Result<()> {
    let parts: Vec<&str> = nic.mac.split(':').collect();
    let valid = parts.len() == 6
        && parts
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if valid {
        Ok(())
    } else {
        Err(Error::bad_request(format!("{:?} is not a MAC address", nic.mac)))
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    async fn probe(&self) -> Result<Accelerator> {
        self.host.accelerator().await.cloned()
    }

    async fn adopt_all(&self) -> Result<Vec<GuestStatus>> {
        self.host.lock().await?;
        let servers = self.host.servers();
        let scanned = servers.clone();
        let processes = tokio::task::spawn_blocking(move || process::scan(&scanned))
            .await
            .map_err(|e| Error::internal("the search for guests stopped unexpectedly", e))?;
        let entries = std::fs::read_dir(&servers).map_err(|e| Error::internal("the guests were not listed", e))?;
        let mut ids: BTreeSet<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        ids.extend(processes.keys().cloned());
        let known: BTreeSet<String> = self.guests().keys().cloned().collect();
        let mut adoptions = tokio::task::JoinSet::new();
        for id in ids.difference(&known).filter(|id| check_id(id).is_ok()) {
            let (host, id, pid) = (self.host.clone(), id.clone(), processes.get(id).copied());
            adoptions.spawn(async move {
                let (vm, handle) = Vm::adopt(host, &id, pid).await;
                (id, vm, handle)
            });
        }
        while let Some(adopted) = adoptions.join_next().await {
            let (id, vm, handle) = adopted.map_err(|e| Error::internal("an adoption stopped unexpectedly", e))?;
            let status = handle.status.borrow().clone();
            if status.config.is_none() && status.pid.is_none() {
                // A directory that a crash left between its making and its first record: nothing is in it.
                tracing::info!(server = %id, "an empty directory of a guest is removed");
                let _ = std::fs::remove_dir_all(&handle.home.0);
                continue;
            }
            self.guests().insert(id, handle);
            tokio::spawn(vm.run());
        }
        self.list().await
    }

    async fn list(&self) -> Result<Vec<GuestStatus>> {
        Ok(self
            .guests()
            .values()
            .filter(|h| !h.requests.is_closed())
            .map(|h| h.status.borrow().clone())
            .collect())
    }

    async fn status(&self, id: &str) -> Result<GuestStatus> {
        Ok(self.handle(id)?.status.borrow().clone())
    }

    async fn define(&self, config: GuestConfig) -> Result<()> {
        check(&config)?;
        let handle = {
            let mut guests = self.guests();
            match guests.get(&config.id).filter(|h| !h.requests.is_closed()) {
                Some(handle) => handle.clone(),
                None => {
                    let (vm, handle) = Vm::new(self.host.clone(), &config.id, None);
                    guests.insert(config.id.clone(), handle.clone());
                    tokio::spawn(vm.run());
                    handle
                }
            }
        };
        send(&handle, Request::Define(Box::new(config))).await.map(drop)
    }

    async fn start(&self, id: &str) -> Result<StartTimes> {
        match self.ask(id, Request::Start).await? {
            Answer::Times(times) => Ok(times),
            _ => Ok(StartTimes::default()),
        }
    }

    async fn stop(&self, id: &str, timeout: Duration) -> Result<()> {
        self.done(id, Request::Stop(timeout)).await
    }

    async fn reboot(&self, id: &str, hard: bool, timeout: Duration) -> Result<()> {
        self.done(id, Request::Reboot { hard, timeout }).await
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.done(id, Request::Pause).await
    }

    async fn resume(&self, id: &str) -> Result<()> {
        self.done(id, Request::Resume).await
    }

    async fn suspend(&self, id: &str) -> Result<()> {
        self.done(id, Request::Suspend).await
    }

    async fn resume_from_disk(&self, id: &str) -> Result<()> {
        self.done(id, Request::Start).await
    }

    async fn destroy(&self, id: &str) -> Result<()> {
        let Ok(handle) = self.handle(id) else { return Ok(()) };
        match send(&handle, Request::Destroy).await {
            Err(e) if e.kind() != maru_base::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut guests = self.guests();
        if guests.get(id).is_some_and(|h| h.requests.is_closed()) {
            guests.remove(id);
        }
        Ok(())
    }

    async fn attach_nic(&self, id: &str, nic: GuestNic) -> Result<()> {
        check_nic(&nic)?;
        self.done(id, Request::AttachNic(nic)).await
    }

    async fn detach_nic(&self, id: &str, port_id: &str) -> Result<()> {
        self.done(id, Request::DetachNic(port_id.to_owned())).await
    }

    async fn attach_disk(&self, id: &str, disk: GuestDisk) -> Result<()> {
        self.done(id, Request::AttachDisk(Box::new(disk))).await
    }

    async fn detach_disk(&self, id: &str, name: &str) -> Result<()> {
        self.done(id, Request::DetachDisk(name.to_owned())).await
    }

    async fn follow_disk(&self, id: &str, disk: GuestDisk) -> Result<()> {
        self.done(id, Request::FollowDisk(Box::new(disk))).await
    }

    async fn resize_disk(&self, id: &str, name: &str, bytes: u64) -> Result<()> {
        self.done(id, Request::ResizeDisk(name.to_owned(), bytes)).await
    }

    async fn snapshot(&self, id: &str, name: &str, target: &Path) -> Result<()> {
        let handle = self.handle(id)?;
        let (name, target) = (name.to_owned(), target.to_owned());
        // A task of its own: a caller that goes away must not leave a copy behind that nobody ends.
        tokio::spawn(async move { snapshot(&handle, &name, &target).await })
            .await
            .map_err(|e| Error::internal("the snapshot stopped unexpectedly", e))?
    }

    async fn console_log(&self, id: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        let (home, limit) = (self.handle(id)?.home.0, self.host.options.console_limit);
        tokio::task::spawn_blocking(move || console::read(&home, lines, limit))
            .await
            .map_err(|e| Error::internal("the reading of a log stopped unexpectedly", e))?
            .map_err(|e| Error::internal("the console log was not read", e))
    }

    async fn vnc(&self, id: &str) -> Result<Box<dyn Duplex>> {
        Ok(Box::new(self.socket(id, "vnc.sock").await?.1))
    }

    async fn serial(&self, id: &str) -> Result<Box<dyn Duplex>> {
        let (handle, socket, twin) = self.socket(id, "serial.sock").await?;
        let older = handle
            .serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(twin);
        if let Some(older) = older {
            // QEMU serves one connection: it turns to ours when the older one ends.
            let _ = older.shutdown(std::net::Shutdown::Both);
        }
        Ok(Box::new(socket))
    }

    async fn diagnostics(&self, id: &str) -> Result<serde_json::Value> {
        match self.ask(id, Request::Diagnostics).await? {
            Answer::Figures(figures) => Ok(figures),
            _ => Ok(serde_json::Value::Null),
        }
    }

    async fn inject_nmi(&self, id: &str) -> Result<()> {
        self.ask(id, Request::InjectNmi).await.map(|_| ())
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.host.events.subscribe()
    }
}

/// Copies a disk: through the running process, or with qemu-img when there is none.
async fn snapshot(handle: &Handle, name: &str, target: &Path) -> Result<()> {
    let status = handle.status.borrow().clone();
    let config = status
        .config
        .ok_or_else(|| Error::conflict("the server's configuration is lost"))?;
    let disk = config.disks.iter().find(|d| d.name == name);
    let disk = disk.ok_or_else(|| Error::not_found(format!("server {} has no disk {name}", config.id)))?;
    if status.pid.is_none() {
        if status.power == PowerState::Suspended {
            tracing::info!(server = %config.id, "the snapshot of a suspended guest has its disk, not its memory");
        }
        return maru_block::disks::flatten(&disk_file(disk), target).await;
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = std::path::PathBuf::from(part);
    let Answer::Job(job, end) = send(handle, Request::SnapshotBegin(name.to_owned(), part.clone())).await? else {
        return Err(Error::internal("the snapshot did not begin", std::fmt::Error));
    };
    let ended = end
        .await
        .unwrap_or_else(|_| Err(Error::conflict("the copy was given up: the server is gone")));
    let let_go = send(handle, Request::SnapshotEnd(job)).await;
    let target = target.to_owned();
    tokio::task::spawn_blocking(move || match ended.and(let_go.map(drop)) {
        Ok(()) => std::fs::File::open(&part)
            .and_then(|f| f.sync_all())
            .and_then(|()| std::fs::rename(&part, &target))
            .map_err(|e| Error::internal("the snapshot was not kept", e)),
        Err(e) => {
            let _ = std::fs::remove_file(&part);
            Err(e)
        }
    })
    .await
    .map_err(|e| Error::internal("the snapshot stopped unexpectedly", e))?
}

fn disk_file(disk: &GuestDisk) -> DiskFile {
    let name = |format: DiskFormat| format.driver().to_owned();
    DiskFile {
        path: disk.path.clone(),
        format: name(disk.format),
        backing: disk.backing.as_ref().map(|b| BaseImage {
            path: b.path.clone(),
            format: name(b.format),
            virtual_size: 0,
        }),
    }
}
