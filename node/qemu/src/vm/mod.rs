//! A guest: one task, one state machine. Everything that changes a guest is a request to its task, done one at a time.
//!
//! ```text
//!                 define                    start                      pause
//!   (nothing) ────────────▶ Nostate ──────────────────▶ Running ◀────────────────▶ Paused
//!                              ▲     ┌─────────────────▶   │  │        resume        │
//!                              │     │ start              │  │                      │
//!                              │  Shutdown ◀───────────────┘  │  stop, guest powers off, host restarted
//!                              │     ▲  ▲                     │
//!                              │     │  └── stop ── Suspended ◀┤  suspend (memory.state)
//!                              │     │                │  └────▶│  start, resume_from_disk
//!                              │  Crashed ◀───────────┼────────┘  the process ended unasked
//!                              │     └── start ──▶ Running
//!                            destroy, from everywhere: nothing is left
//! ```
//!
//! While a request waits for the guest (power button, unplug, saving memory), the task goes on to take events and looks
//! at new requests: a harder stop or a destroy overtakes what is going on, anything else queues up behind it.
//!
//! What a crash of the agent leaves, and what adoption ([`adopt`]) makes of it:
//!
//! | crashed between | found | becomes |
//! |---|---|---|
//! | record written (`starting`) → process started | no process | Shutdown |
//! | fork → exec | the lock on the state directory, held by the child | waited for, then as below |
//! | process started → pid file, first QMP command | process, `starting` or prelaunch: no guest instruction ran | killed, Shutdown |
//! | memory being saved | process, `memory.part` | saving cancelled, Paused |
//! | `memory.state` whole → process ended | process, `memory.state` | killed, Suspended |
//! | memory loaded → `memory.used` → let run | process paused, `memory.used` | let run |
//! | device plugged → recorded (recorded first) | record has it, QEMU not | dropped from the record |
//! | guest powered off while nobody looked | process in `shutdown` (`-no-shutdown`) | ended, Shutdown |
//! | process ended while nobody looked | no process, `running` | Crashed; Shutdown if the machine was restarted |

mod adopt;
mod devices;
mod power;
mod report;

pub(crate) use power::Door;

use crate::cgroup::Hierarchies;
use crate::config::{GuestConfig, GuestDisk, GuestNic, Options};
use crate::console;
use crate::hypervisor::{Accelerator, GuestEvent, GuestStatus, StartTimes};
use crate::process::Process;
use crate::qmp::{Qmp, QmpEvent};
use crate::record::{Home, Last, Record, attached, boot_id};
use maru_agent_api::observed::PowerState;
use maru_base::{Error, Result};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// How often the logs are bounded and a lost monitor is looked for.
const TICK: Duration = Duration::from_secs(2);
/// How long a successor waits for a predecessor that is ending.
const LOCK: Duration = Duration::from_secs(15);

/// What all guests of a driver share.
pub struct Host {
    /// The driver's options.
    pub options: Options,
    /// Control groups, if they are wanted.
    pub groups: Option<Hierarchies>,
    /// The answer of the probe.
    pub accelerator: OnceCell<Accelerator>,
    /// Held while this driver may start processes.
    ///
    /// The kernel lets go of it only when we and every child of ours that has not executed QEMU yet are gone. So whoever
    /// gets it after us sees each of our processes as what it is: none can turn into a guest after it has looked.
    pub lock: std::sync::Mutex<Option<std::fs::File>>,
    /// Changes, for the agent.
    pub events: broadcast::Sender<GuestEvent>,
}

impl Host {
    /// The directory of all guests.
    pub fn servers(&self) -> PathBuf {
        self.options.state_dir.join("servers")
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Result<bool> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut lock = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lock.is_some() {
            return Ok(true);
        }
        let path = self.options.state_dir.join("lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|e| Error::internal(format!("{} was not opened", path.display()), e))?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            *lock = Some(file);
        }
        Ok(lock.is_some())
    }

    /// Takes the lock, waiting for one that is about to go.
    pub async fn lock(&self) -> Result<()> {
        let deadline = Instant::now() + LOCK;
        while !self.try_lock()? {
            if Instant::now() >= deadline {
                return Err(Error::conflict(format!(
                    "the guests in {} belong to another process that runs; stop that one first",
                    self.options.state_dir.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// How guests run here.
    pub async fn accelerator(&self) -> Result<&Accelerator> {
        let probe = || async {
            match &self.options.accelerator {
                Some(forced) => Ok(forced.clone()),
                None => crate::accel::probe(&self.options.program).await,
            }
        };
        self.accelerator.get_or_try_init(probe).await
    }
}

/// What can be asked of a guest.
pub enum Request {
    /// Keep a configuration.
    Define(Box<GuestConfig>),
    /// Make it run.
    Start,
    /// Stop it; zero is at once.
    Stop(Duration),
    /// Reboot it.
    Reboot {
        /// A new process.
        hard: bool,
        /// For the power button.
        timeout: Duration,
    },
    /// Stop its processors.
    Pause,
    /// Let them run.
    Resume,
    /// Save its memory and end its process.
    Suspend,
    /// End and forget it.
    Destroy,
    /// Add a NIC.
    AttachNic(GuestNic),
    /// Take a NIC away, by port id.
    DetachNic(String),
    /// Add a disk.
    AttachDisk(Box<GuestDisk>),
    /// Take a disk away, by name.
    DetachDisk(String),
    /// A remote disk is elsewhere or larger now.
    FollowDisk(Box<GuestDisk>),
    /// A disk has this many bytes now.
    ResizeDisk(String, u64),
    /// Begin to copy a disk to a file.
    SnapshotBegin(String, PathBuf),
    /// The copy is done, or given up: let go of the file.
    SnapshotEnd(String),
    /// Live figures.
    Diagnostics,
    InjectNmi,
}

/// What is answered.
pub enum Answer {
    /// It is so.
    Done,
    /// It runs; this is how long it took.
    Times(StartTimes),
    /// Figures.
    Figures(Value),
    /// A copy goes on: its job, and how it will end.
    Job(String, oneshot::Receiver<Result<()>>),
}

/// A request with the way back.
pub struct Message {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Answer>>,
}

/// A guest's task, from outside.
#[derive(Clone)]
pub struct Handle {
    /// Requests.
    pub requests: mpsc::Sender<Message>,
    /// The newest status.
    pub status: watch::Receiver<GuestStatus>,
    /// The guest's directory.
    pub home: Home,
    /// The serial connection that is open, to be shut by the next one.
    pub serial: Arc<std::sync::Mutex<Option<std::os::unix::net::UnixStream>>>,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// What was waited for is so.
    Met,
    /// Not in time.
    Late,
    /// A harder request came in; it is next.
    Overtaken,
}

/// The task's state.
pub struct Vm {
    host: Arc<Host>,
    id: String,
    home: Home,
    /// `None`: a process whose configuration is lost.
    record: Option<Record>,
    power: PowerState,
    process: Option<Process>,
    qmp: Option<Qmp>,
    qmp_events: Option<mpsc::UnboundedReceiver<QmpEvent>>,
    /// The guest has powered itself off; QEMU waits to be told what to do.
    guest_off: bool,
    /// Somebody outside told QEMU to end.
    ended_from_outside: bool,
    /// Newest status of a migration to or from a file.
    migration: Option<String>,
    /// Copies that go on, by job.
    jobs: HashMap<String, oneshot::Sender<Result<()>>>,
    job_count: u64,
    requests: mpsc::Receiver<Message>,
    later: VecDeque<Message>,
    status: watch::Sender<GuestStatus>,
}

/// What happened next.
enum Next {
    Request(Message),
    Event(Option<QmpEvent>),
    Ended(Option<ExitStatus>),
    Tick,
    /// The driver is gone: the task ends, the guest stays.
    Closed,
}

impl Vm {
    /// A task for a guest that has no process; it is not started yet.
    pub fn new(host: Arc<Host>, id: &str, record: Option<Record>) -> (Self, Handle) {
        let (requests, receiver) = mpsc::channel(64);
        let home = Home(host.servers().join(id));
        let status = GuestStatus {
            id: id.to_owned(),
            power: PowerState::Nostate,
            config: None,
            attached: Vec::new(),
            pid: None,
            problem: None,
        };
        let (sender, watched) = watch::channel(status);
        let handle = Handle {
            requests,
            status: watched,
            home: home.clone(),
            serial: Arc::default(),
        };
        let vm = Self {
            host,
            id: id.to_owned(),
            home,
            record,
            power: PowerState::Nostate,
            process: None,
            qmp: None,
            qmp_events: None,
            guest_off: false,
            ended_from_outside: false,
            migration: None,
            jobs: HashMap::new(),
            job_count: 0,
            requests: receiver,
            later: VecDeque::new(),
            status: sender,
        };
        (vm, handle)
    }

    /// The task.
    pub async fn run(mut self) {
        loop {
            match self.later.pop_front() {
                Some(message) => {
                    if self.serve(message).await {
                        return;
                    }
                }
                None => match self.next(None).await {
                    Next::Request(message) => {
                        if self.serve(message).await {
                            return;
                        }
                    }
                    Next::Event(event) => self.on_event(event).await,
                    Next::Ended(status) => self.on_ended(status),
                    Next::Tick => self.on_tick().await,
                    Next::Closed => return,
                },
            }
            if self.guest_off && self.process.is_some() {
                self.end_process(Last::Off).await;
                self.publish("guest-shutdown");
            }
        }
    }

    /// Waits for whatever comes first.
    async fn next(&mut self, until: Option<Instant>) -> Next {
        let wake = until.unwrap_or_else(|| Instant::now() + TICK);
        let events = async {
            match &mut self.qmp_events {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match &mut self.process {
                Some(process) => process.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Events first: the guest's own shutdown must be seen before the end of its process.
            biased;
            event = events => Next::Event(event),
            status = ended => Next::Ended(status),
            message = self.requests.recv() => message.map_or(Next::Closed, Next::Request),
            () = tokio::time::sleep_until(wake) => Next::Tick,
        }
    }

    /// Goes on taking events until `met`, the deadline, or a request that overtakes.
    async fn wait_for(&mut self, within: Duration, met: impl Fn(&Self) -> bool) -> Waited {
        let deadline = Instant::now() + within;
        loop {
            if met(self) {
                return Waited::Met;
            }
            if self.later.iter().any(|m| overtakes(&m.request)) {
                return Waited::Overtaken;
            }
            if Instant::now() >= deadline {
                return Waited::Late;
            }
            match self.next(Some(deadline)).await {
                Next::Event(event) => self.on_event(event).await,
                Next::Ended(status) => self.on_ended(status),
                Next::Tick => {}
                Next::Request(message) if overtakes(&message.request) => {
                    self.later.push_front(message);
                    return Waited::Overtaken;
                }
                Next::Request(message) => self.later.push_back(message),
                Next::Closed => return Waited::Late,
            }
        }
    }

    /// Does one request and answers it; says whether the task is over.
    async fn serve(&mut self, message: Message) -> bool {
        let over = matches!(message.request, Request::Destroy);
        let result = self.handle(message.request).await;
        let over = over && result.is_ok();
        // Nobody may wait for the answer any more; the work is done all the same.
        let _ = message.answer.send(result);
        over
    }

    async fn handle(&mut self, request: Request) -> Result<Answer> {
        if self.record.is_none() && !matches!(request, Request::Define(_) | Request::Destroy) {
            return Err(Error::conflict(format!(
                "server {} cannot be changed: its process runs but its configuration is lost; it can only be removed",
                self.id
            )));
        }
        match request {
            Request::Define(config) => self.define(*config).map(|()| Answer::Done),
            Request::Start => self.start().await.map(Answer::Times),
            Request::Stop(timeout) => self.stop(timeout).await.map(|()| Answer::Done),
            Request::Reboot { hard, timeout } => self.reboot(hard, timeout).await.map(|()| Answer::Done),
            Request::Pause => self.pause().await.map(|()| Answer::Done),
            Request::Resume => self.resume().await.map(|()| Answer::Done),
            Request::Suspend => self.suspend().await.map(|()| Answer::Done),
            Request::Destroy => self.destroy().await.map(|()| Answer::Done),
            Request::AttachNic(nic) => self.attach_nic(nic).await.map(|()| Answer::Done),
            Request::DetachNic(port) => self.detach(&format!("nic {port}")).await.map(|()| Answer::Done),
            Request::AttachDisk(disk) => self.attach_disk(*disk).await.map(|()| Answer::Done),
            Request::DetachDisk(name) => self.detach(&format!("disk {name}")).await.map(|()| Answer::Done),
            Request::FollowDisk(disk) => self.follow_disk(*disk).await.map(|()| Answer::Done),
            Request::ResizeDisk(name, bytes) => self.resize_disk(&name, bytes).await.map(|()| Answer::Done),
            Request::SnapshotBegin(name, target) => self
                .snapshot_begin(&name, &target)
                .await
                .map(|(job, end)| Answer::Job(job, end)),
            Request::SnapshotEnd(job) => self.snapshot_end(&job).await.map(|()| Answer::Done),
            Request::Diagnostics => self.diagnostics().await.map(Answer::Figures),
            Request::InjectNmi => self.inject_nmi().await.map(|()| Answer::Done),
        }
    }

    fn define(&mut self, config: GuestConfig) -> Result<()> {
        self.home.make()?;
        let record = match self.record.take() {
            Some(old) => Record { config, ..old },
            None => Record {
                config,
                live: None,
                last: Last::Defined,
                boot: boot_id(),
                problem: None,
            },
        };
        let written = self.home.write(&record);
        self.record = Some(record);
        self.publish_quietly();
        written
    }

    /// The monitor, or why there is none.
    fn qmp(&self) -> Result<Qmp> {
        match (&self.qmp, &self.process) {
            (Some(qmp), Some(_)) => Ok(qmp.clone()),
            (None, Some(_)) => Err(Error::unavailable(format!(
                "server {} does not answer its hypervisor; it is tried again every {} s",
                self.id,
                TICK.as_secs()
            ))),
            _ => Err(self.refuse("is not running")),
        }
    }

    fn refuse(&self, state: &str) -> Error {
        Error::conflict(format!("server {} {state}, so this cannot be done now", self.id))
    }

    async fn on_event(&mut self, event: Option<QmpEvent>) {
        let Some(event) = event else {
            // The process has ended, which is seen for itself, or the monitor is lost, which the next tick repairs.
            self.qmp_events = None;
            self.qmp = None;
            return;
        };
        let text = |key: &str| event.data.get(key).and_then(Value::as_str).unwrap_or_default();
        match event.name.as_str() {
            "SHUTDOWN" => {
                if event.data.get("guest").and_then(Value::as_bool).unwrap_or(false) {
                    self.guest_off = true;
                } else if text("reason") == "host-signal" {
                    self.ended_from_outside = true;
                }
            }
            "STOP" => {
                self.power = PowerState::Paused;
                self.publish("stopped");
            }
            "RESUME" => {
                self.power = PowerState::Running;
                self.set_problem(None);
                self.publish("resumed");
            }
            "RESET" => self.publish("reset"),
            "BLOCK_IO_ERROR" if text("action") == "stop" => {
                let full = event.data.get("nospace").and_then(Value::as_bool).unwrap_or(false);
                let why = if full {
                    "the node's disk is full"
                } else {
                    text("reason")
                };
                self.set_problem(Some(format!(
                    "paused: a disk of the server could not be written: {why}"
                )));
                self.publish("io-error");
            }
            "DEVICE_DELETED" => {
                let device = text("device").to_owned();
                self.on_device_deleted(&device).await;
            }
            "MIGRATION" => self.migration = Some(text("status").to_owned()),
            "BLOCK_JOB_COMPLETED" | "BLOCK_JOB_CANCELLED" => {
                let failed = event.data.get("error").and_then(Value::as_str).map(str::to_owned);
                let failed = failed.or_else(|| (event.name == "BLOCK_JOB_CANCELLED").then(|| "cancelled".to_owned()));
                if let Some(waiting) = self.jobs.remove(text("device")) {
                    let result = failed.map_or(Ok(()), |why| {
                        Err(Error::internal(
                            "the copy of the disk failed",
                            std::io::Error::other(why),
                        ))
                    });
                    let _ = waiting.send(result);
                }
            }
            _ => {}
        }
    }

    /// The process ended without being asked to.
    fn on_ended(&mut self, status: Option<ExitStatus>) {
        let last = if self.guest_off || self.ended_from_outside {
            Last::Off
        } else {
            Last::Crashed
        };
        let how = status.map_or_else(String::new, |s| format!(" ({s})"));
        let problem = match last {
            Last::Crashed => {
                let words = console::last_words(&self.home.0).unwrap_or_else(|| "it said nothing".to_owned());
                tracing::warn!(server = %self.id, %how, %words, "a guest's process ended unasked");
                Some(format!("the hypervisor process ended unasked{how}: {words}"))
            }
            _ if self.ended_from_outside => Some("the hypervisor process was ended from outside".to_owned()),
            _ => None,
        };
        self.gone(last, problem);
        self.publish(if last == Last::Crashed {
            "crashed"
        } else {
            "guest-shutdown"
        });
    }

    async fn on_tick(&mut self) {
        if self.process.is_none() {
            return;
        }
        if let Err(e) = console::bound(&self.home.0, self.host.options.console_limit) {
            tracing::warn!(server = %self.id, error = %e, "the serial log could not be bounded");
        }
        if self.qmp.is_none()
            && let Err(e) = self.connect_again().await
        {
            tracing::warn!(server = %self.id, error = %e.chain(), "the monitor is still not there");
        }
    }

    /// Clears away what a process leaves; keeps what the next one needs.
    fn gone(&mut self, last: Last, problem: Option<String>) {
        self.process = None;
        self.qmp = None;
        self.qmp_events = None;
        self.guest_off = false;
        self.ended_from_outside = false;
        self.migration = None;
        for (_, waiting) in self.jobs.drain() {
            let _ = waiting.send(Err(Error::conflict(
                "the copy was given up: the server's process ended",
            )));
        }
        for name in [
            "qmp.sock",
            "serial.sock",
            "vnc.sock",
            "qemu.pid",
            "memory.part",
            "memory.used",
        ] {
            let _ = std::fs::remove_file(self.home.file(name));
        }
        if last != Last::Suspended {
            let _ = std::fs::remove_file(self.home.memory());
        }
        if let Some(groups) = &self.host.groups {
            groups.remove(&self.id);
        }
        self.power = match last {
            Last::Suspended => PowerState::Suspended,
            Last::Crashed => PowerState::Crashed,
            Last::Defined => PowerState::Nostate,
            _ => PowerState::Shutdown,
        };
        if let Some(record) = &mut self.record {
            if last != Last::Suspended {
                record.live = None;
            }
            record.problem = problem;
        }
        if self.record.is_some() {
            self.set_last(last);
        }
    }

    /// Writes what is known of the process.
    fn set_last(&mut self, last: Last) {
        if let Some(record) = &mut self.record {
            record.last = last;
            record.boot = boot_id();
        }
        self.save();
    }

    /// Writes the record. A full disk must not stop a guest's life: the record is written again at the next change.
    fn save(&self) {
        if let Some(record) = &self.record
            && let Err(e) = self.home.write(record)
        {
            tracing::error!(server = %self.id, error = %e.chain(), "a guest's record was not written");
        }
    }

    fn set_problem(&mut self, problem: Option<String>) {
        if let Some(record) = self.record.as_mut().filter(|r| r.problem != problem) {
            record.problem = problem;
            self.save();
        }
    }

    fn publish_quietly(&self) {
        let record = self.record.as_ref();
        let live = record.and_then(|r| r.live.as_ref());
        let status = GuestStatus {
            id: self.id.clone(),
            power: self.power,
            config: record.map(|r| r.config.clone()),
            attached: match (live, record) {
                (Some(live), _) => live.attached(),
                (None, Some(record)) => attached(&record.config),
                (None, None) => Vec::new(),
            },
            pid: self.process.as_ref().map(|p| p.pid),
            problem: record.and_then(|r| r.problem.clone()),
        };
        self.status.send_replace(status);
    }

    /// Tells everyone of a change.
    fn publish(&self, what: &str) {
        self.publish_quietly();
        tracing::info!(server = %self.id, power = ?self.power, what, "guest");
        let event = GuestEvent {
            id: self.id.clone(),
            power: self.power,
            what: what.to_owned(),
        };
        // Nobody may listen yet.
        let _ = self.host.events.send(event);
    }
}

/// Whether a request goes before whatever is waited for.
fn overtakes(request: &Request) -> bool {
    matches!(request, Request::Destroy | Request::Stop(Duration::ZERO))
}
