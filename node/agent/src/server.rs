//! One server: disks, config drive, guest, and what is reported of it.
//!
//! ```text
//!  Set ─► ports and volumes ready? ─no─► wait (the network pass, the volumes kick)
//!           │yes
//!           ├─ rebuild asked ─► stop, remove the boot disk and the config drive
//!           ├─ another size asked ─► stop, keep the disks aside (or put the kept ones back), bring them to their sizes
//!           ├─ disks ─► config drive ─► detach what shall go ─► define      what is there already is kept as it is
//!           ├─ power as intended? ─no─► start / stop / pause / resume / suspend
//!           ├─ reboots done < asked ─► reboot
//!           ├─ NICs and disks as intended? ─no─► attach
//!           └─ report
//!  Gone ─► destroy ─► disks removed ─► ServerRemoved
//! ```
//!
//! A guest that powered itself off stays off: the power intent counts as carried out until a newer request comes (the
//! request's id is kept in the guest's notes, with the counts of reboots and rebuilds).
//!
//! A graceful stop or reboot may take minutes. It is given up, and the server looked at anew, as soon as its intent is another
//! one; the hypervisor lets a harder order overtake a softer.

use crate::{Inner, RESYNC, desired::Intent, network::micros, work::Work};
use maru_agent_api::{
    observed::{PowerState, Report, ServerEvent, ServerState},
    slice::{DiskSource, Item, ItemKey, Power, RemoteVolume, Server},
};
use maru_base::{Error, ErrorKind, Result};
use maru_block::{DiskFile, NbdDisk, Remote};
use maru_qemu::{Backing, DiskFormat, GuestConfig, GuestDisk, GuestNic, GuestStatus, tap_name};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Servers worked on at once; most of the time a worker waits for a guest or for bytes.
const WORKERS: usize = 64;
/// Failures of our own making in a row after which the server is said to be in error; it is tried all the same.
pub(crate) const PATIENCE: u32 = 5;
/// Name of the disk of a rescue image.
const RESCUE: &str = "rescue";
/// Name of the config drive among a server's disks.
const CONFIG_DRIVE: &str = "config";
/// How soon a server that waits for its volumes is looked at again without a cause.
const VOLUMES_WAIT: Duration = Duration::from_secs(1);
/// How soon a server that waits for its ports is looked at again without a cause.
const PORTS_WAIT: Duration = Duration::from_secs(2);

/// Runs servers' tasks until dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let work = Work {
        what: "server",
        queue: |inner| &inner.servers,
        workers: WORKERS,
        request_of,
        reconcile: |inner, id| Box::pin(reconcile(inner, id)),
        failed: |inner, id, error, attempt, begun| Box::pin(fault(inner, id, error, attempt, begun)),
    };
    work.run(inner).await;
}

/// Looks at a guest whenever something happened to it, and at all of them now and then.
pub(crate) async fn follow_events(inner: &Arc<Inner>) {
    let mut events = inner.hypervisor.events();
    loop {
        match tokio::time::timeout(RESYNC, events.recv()).await {
            Ok(Ok(event)) => inner.servers.kick(&event.id),
            Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) => std::future::pending().await,
            // Lagged, or a minute without an event.
            Ok(Err(_)) | Err(_) => {
                let ids = inner.desired().servers();
                for id in ids {
                    inner.servers.kick(&id);
                }
            }
        }
    }
}

/// The request that last changed a server's intent; empty when it is gone.
fn request_of(inner: &Inner, id: &str) -> String {
    match inner.desired().server(id) {
        Intent::Set(_, item) => match &*item {
            Item::Server(server) => server.request_id.clone(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

async fn reconcile(inner: &Arc<Inner>, id: &str) -> Result<Option<Duration>> {
    if !inner.desired().is_synced() {
        return Ok(None);
    }
    let intent = inner.desired().server(id);
    match intent {
        Intent::Unknown => Ok(None),
        Intent::Gone => {
            inner.hypervisor.destroy(id).await?;
            inner.disks.remove_server(id).await?;
            crate::keys::forget_but(inner, id, &BTreeSet::new())?;
            inner.register.forget(id).await?;
            inner.told().remove(id);
            inner.desired().removed(&ItemKey::Server(id.to_owned()));
            inner.reporter.send(Report::ServerRemoved(id.to_owned()));
            // Its ports may go now.
            inner.network.notify_one();
            Ok(None)
        }
        Intent::Set(revision, item) => match &*item {
            Item::Server(server) => make_so(inner, revision, server).await,
            _ => Ok(None),
        },
    }
}

async fn status(inner: &Inner, id: &str) -> Result<Option<GuestStatus>> {
    match inner.hypervisor.status(id).await {
        Ok(status) => Ok(Some(status)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Name of the note that holds a guest's origin.
pub(crate) const ORIGIN: &str = "origin";

/// What the agent keeps with a guest.
#[derive(Clone, Default, PartialEq, Eq)]
struct Notes {
    reboots: u64,
    rebuilds: u64,
    resizes: u64,
    /// The request whose power intent was carried out.
    carried_out: String,
    /// See [`Server::origin`].
    origin: String,
}

impl Notes {
    fn of(status: Option<&GuestStatus>) -> Option<Self> {
        let notes = &status?.config.as_ref()?.notes;
        let number = |name: &str| notes.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Self {
            reboots: number("reboots"),
            rebuilds: number("rebuilds"),
            resizes: number("resizes"),
            carried_out: notes.get("carried_out").cloned().unwrap_or_default(),
            origin: notes.get(ORIGIN).cloned().unwrap_or_default(),
        })
    }
    fn map(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("reboots".to_owned(), self.reboots.to_string()),
            ("rebuilds".to_owned(), self.rebuilds.to_string()),
            ("resizes".to_owned(), self.resizes.to_string()),
            ("carried_out".to_owned(), self.carried_out.clone()),
            (ORIGIN.to_owned(), self.origin.clone()),
        ])
    }
}

/// Does work that may take long, unless the intent changes meanwhile: then `None`, and the server is looked at anew.
async fn while_wanted<T>(
    inner: &Inner,
    server: &Server,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<Option<T>> {
    let mut changes = inner.changes.subscribe();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done.map(Some),
            _ = changes.changed() => {
                let now = inner.desired().server(&server.id);
                let same = matches!(&now, Intent::Set(_, item) if matches!(&**item, Item::Server(s)
                    if s.power == server.power && s.reboot == server.reboot && s.stop_timeout == server.stop_timeout));
                if !same {
                    return Ok(None);
                }
            }
        }
    }
}

async fn make_so(inner: &Arc<Inner>, revision: u64, server: &Server) -> Result<Option<Duration>> {
    let hypervisor = &inner.hypervisor;
    let mut now = status(inner, &server.id).await?;
    let known = Notes::of(now.as_ref());
    let fresh = known.is_none();
    // A new guest has no reboot to make up for: what was asked before it existed is moot.
    let mut notes = known.unwrap_or(Notes {
        reboots: server.reboot.count,
        rebuilds: server.rebuild,
        resizes: server.resize.count,
        carried_out: String::new(),
        origin: String::new(),
    });
    notes.origin.clone_from(&server.origin);
    if !inner.ready_for(server) {
        inner.network.notify_one();
        let why = {
            let broken = inner.broken();
            server
                .ports
                .iter()
                .find_map(|p| Some(format!("port {p} is not ready: {}", broken.get(p)?)))
        };
        return why.map_or(Ok(Some(PORTS_WAIT)), |why| Err(Error::unavailable(why)));
    }
    // Nobody copies these volumes while the guest is brought to what it shall be.
    let Some(_held) = inner.volumes.hold(inner, server).await? else {
        return Ok(Some(VOLUMES_WAIT));
    };
    if notes.rebuilds < server.rebuild {
        hypervisor.stop(&server.id, Duration::ZERO).await?;
        inner.disks.remove(&server.id, "root").await?;
        inner.disks.remove(&server.id, CONFIG_DRIVE).await?;
        inner.register.forget(&server.id).await?;
        notes.rebuilds = server.rebuild;
        notes.carried_out.clear();
    }
    if notes.resizes < server.resize.count {
        let timeout = Duration::from_secs(u64::from(server.stop_timeout));
        let stopped = hypervisor.stop(&server.id, timeout);
        if while_wanted(inner, server, stopped).await?.is_none() {
            return Ok(Some(Duration::ZERO));
        }
        resize_disks(inner, server).await?;
        notes.resizes = server.resize.count;
        notes.carried_out.clear();
    }
    let config = config(inner, server, &notes).await?;
    let before = now.as_ref().and_then(|n| n.config.clone());
    if let Some(before) = before.as_ref().filter(|b| *b != &config) {
        unplug(inner, server, before, &config).await?;
    }
    if before.as_ref() != Some(&config) {
        hypervisor.define(config.clone()).await?;
        now = status(inner, &server.id).await?;
    }
    let power = now.as_ref().map_or(PowerState::Nostate, |n| n.power);
    let Some(started) = set_power(inner, server, power, notes.carried_out != server.request_id).await? else {
        return Ok(Some(Duration::ZERO));
    };
    if notes.reboots < server.reboot.count {
        // A guest that was just started from its newest configuration need not be rebooted as well.
        let running = matches!(power, PowerState::Running | PowerState::Paused);
        if server.power == Power::Running && running && !started {
            let timeout = Duration::from_secs(u64::from(server.stop_timeout));
            let rebooted = hypervisor.reboot(&server.id, server.reboot.hard, timeout);
            if while_wanted(inner, server, rebooted).await?.is_none() {
                return Ok(Some(Duration::ZERO));
            }
        } else if server.power == Power::Running && !fresh && !started {
            start(inner, server).await?;
        }
        notes.reboots = server.reboot.count;
    }
    if before.is_some() {
        plug(inner, server, &config).await?;
    }
    server.request_id.clone_into(&mut notes.carried_out);
    let config = GuestConfig {
        notes: notes.map(),
        ..config
    };
    let exports: BTreeSet<String> = config.disks.iter().filter_map(export_of).collect();
    if status(inner, &server.id).await?.and_then(|n| n.config).as_ref() != Some(&config) {
        hypervisor.define(config).await?;
    }
    if server.resize.count > 0 && server.resize.kept.is_none() {
        inner.disks.drop_kept(&server.id).await?;
    }
    crate::keys::forget_but(inner, &server.id, &exports.iter().map(String::as_str).collect())?;
    report(inner, revision, server, &notes, None).await?;
    Ok(None)
}

/// The disks of a guest that is off, brought to what another size asks. Each part can be done again after a crash.
async fn resize_disks(inner: &Inner, server: &Server) -> Result<()> {
    match (server.resize.kept, server.resize.restore) {
        (Some(number), false) => inner.disks.keep(&server.id, number).await?,
        (Some(number), true) => inner.disks.restore(&server.id, number).await?,
        (None, _) => {}
    }
    // A rescue is over with its disk, and the next one begins with a new one.
    inner.disks.remove(&server.id, RESCUE).await?;
    for disk in &server.disks {
        if !matches!(disk.source, DiskSource::Volume { .. }) {
            inner.disks.fit(&server.id, &disk.name, disk.size).await?;
        }
    }
    Ok(())
}

/// Brings the power to what it shall be. Says whether it started the guest; `None` when the intent changed meanwhile.
async fn set_power(inner: &Inner, server: &Server, power: PowerState, asked: bool) -> Result<Option<bool>> {
    let (hypervisor, id) = (&inner.hypervisor, server.id.as_str());
    match (server.power, power) {
        (Power::Running, PowerState::Running)
        | (Power::Paused, PowerState::Paused)
        | (Power::Suspended, PowerState::Suspended)
        | (Power::Stopped, PowerState::Shutdown | PowerState::Nostate | PowerState::Crashed) => {}
        (Power::Running, PowerState::Paused) => hypervisor.resume(id).await?,
        (Power::Running, PowerState::Suspended) => {
            hypervisor.resume_from_disk(id).await?;
            return Ok(Some(true));
        }
        (Power::Running, PowerState::Nostate) => {
            start(inner, server).await?;
            return Ok(Some(true));
        }
        // Off without being asked: it stays off unless a newer request wants it on.
        (Power::Running, PowerState::Shutdown | PowerState::Crashed) if asked => {
            start(inner, server).await?;
            return Ok(Some(true));
        }
        (Power::Running, _) => {}
        (Power::Stopped, PowerState::Running) => {
            let timeout = Duration::from_secs(u64::from(server.stop_timeout));
            if while_wanted(inner, server, hypervisor.stop(id, timeout))
                .await?
                .is_none()
            {
                return Ok(None);
            }
        }
        (Power::Stopped, _) => hypervisor.stop(id, Duration::ZERO).await?,
        (Power::Paused, PowerState::Running) => hypervisor.pause(id).await?,
        (Power::Suspended, PowerState::Running | PowerState::Paused) => hypervisor.suspend(id).await?,
        // Nothing to pause or to save: the guest is off.
        (Power::Paused | Power::Suspended, _) => {}
    }
    Ok(Some(false))
}

/// Unplugs what a running guest shall not have any more. `before` is what it was defined as: it tells NICs from disks, so this
/// comes before the guest is defined anew. Each is forgotten with its unplugging: a crash in between leaves the rest to do.
async fn unplug(inner: &Inner, server: &Server, before: &GuestConfig, wanted: &GuestConfig) -> Result<()> {
    let (hypervisor, id) = (&inner.hypervisor, server.id.as_str());
    let Some(now) = status(inner, id).await? else {
        return Ok(());
    };
    if !matches!(now.power, PowerState::Running | PowerState::Paused) {
        return Ok(());
    }
    let has = |name: &str| now.attached.iter().any(|a| a == name);
    for nic in before
        .nics
        .iter()
        .filter(|n| has(&n.port_id) && !wanted.nics.contains(n))
    {
        if while_wanted(inner, server, hypervisor.detach_nic(id, &nic.port_id))
            .await?
            .is_none()
        {
            return Err(Error::unavailable("the intent changed while a NIC was detached"));
        }
        // The tap of a port that is gone may be removed now.
        inner.network.notify_one();
    }
    for disk in before
        .disks
        .iter()
        .filter(|d| has(&d.name) && !wanted.disks.iter().any(|w| w.name == d.name))
    {
        hypervisor.detach_disk(id, &disk.name).await?;
    }
    Ok(())
}

/// Plugs what a running guest lacks.
async fn plug(inner: &Inner, server: &Server, wanted: &GuestConfig) -> Result<()> {
    let (hypervisor, id) = (&inner.hypervisor, server.id.as_str());
    let Some(now) = status(inner, id).await? else {
        return Ok(());
    };
    if !matches!(now.power, PowerState::Running | PowerState::Paused) {
        return Ok(());
    }
    let has = |name: &str| now.attached.iter().any(|a| a == name);
    for nic in wanted.nics.iter().filter(|n| !has(&n.port_id)) {
        hypervisor.attach_nic(id, nic.clone()).await?;
    }
    for disk in wanted.disks.iter().filter(|d| !has(&d.name)) {
        hypervisor.attach_disk(id, disk.clone()).await?;
    }
    for disk in wanted.disks.iter().filter(|d| d.serial.is_some() && has(&d.name)) {
        hypervisor.follow_disk(id, disk.clone()).await?;
    }
    Ok(())
}

/// The export that a disk is reached through.
fn export_of(disk: &GuestDisk) -> Option<String> {
    disk.remote.as_ref().map(|Remote::Nbd(nbd)| nbd.export.clone())
}

/// Where a volume is that another node holds, or this one shares; its key is laid down beside it.
fn reach(inner: &Inner, server: &str, volume: &RemoteVolume) -> Result<Remote> {
    let address = volume.address.as_deref().unwrap_or_default();
    let at: std::net::SocketAddr = address
        .parse()
        .map_err(|e| Error::unavailable(format!("the volume's address {address:?} is none")).with_source(e))?;
    Ok(Remote::Nbd(NbdDisk {
        host: at.ip().to_string(),
        port: at.port(),
        export: volume.export.clone(),
        keys: crate::keys::keep(inner, server, volume)?,
        size: volume.size,
    }))
}

async fn start(inner: &Inner, server: &Server) -> Result<()> {
    let times = inner.hypervisor.start(&server.id).await?;
    for (event, start, finish) in times.steps {
        story(inner, server, &event, start, finish);
    }
    Ok(())
}

fn story(inner: &Inner, server: &Server, event: &str, start: i64, finish: i64) {
    tell(inner, server, event, (start, finish), None);
}

/// Adds to the server's story what was done, or tried, from when to when.
fn tell(inner: &Inner, server: &Server, event: &str, (start_us, finish_us): (i64, i64), failure: Option<&Error>) {
    let request_id = &server.request_id;
    let took_us = finish_us - start_us;
    match failure {
        None => tracing::info!(server = server.id, request_id, event, took_us, "done"),
        Some(error) => tracing::warn!(server = server.id, request_id, event, took_us, error = %error.chain(), "failed"),
    }
    inner.reporter.send(Report::Event(ServerEvent {
        server: server.id.clone(),
        request_id: server.request_id.clone(),
        event: event.to_owned(),
        start_us,
        finish_us,
        ok: failure.is_none(),
        message: failure.map(Error::chain),
    }));
}

/// What became of a server: the fault of an attempt and whether it is final.
type Fault<'a> = Option<(&'a Error, bool)>;

async fn report(inner: &Inner, revision: u64, server: &Server, notes: &Notes, fault: Fault<'_>) -> Result<()> {
    let now = status(inner, &server.id).await?;
    let state = ServerState {
        id: server.id.clone(),
        revision,
        power: now.as_ref().map_or(PowerState::Nostate, |n| n.power),
        reboots: notes.reboots,
        rebuilds: notes.rebuilds,
        resizes: notes.resizes,
        fault: fault.map(|(e, _)| e.chain()),
        fault_final: fault.is_some_and(|(_, last)| last),
        attached: now.map(|n| n.attached).unwrap_or_default(),
    };
    let same = inner.told().insert(server.id.clone(), state.clone()).as_ref() == Some(&state);
    if !same {
        inner.reporter.send(Report::Server(state));
    }
    Ok(())
}

/// Reports that the intent cannot be carried out now. Told in the server's story while its patience lasts: what fails for days
/// must not fill the record.
async fn fault(inner: &Inner, id: &str, error: &Error, attempt: u32, begun: i64) {
    let intent = inner.desired().server(id);
    if let Intent::Set(revision, item) = intent
        && let Item::Server(server) = &*item
    {
        if attempt <= PATIENCE {
            tell(inner, server, "attempt", (begun, micros()), Some(error));
        }
        let now = status(inner, id).await.ok().flatten();
        // A guest that is not defined yet has carried out all reboots and rebuilds that were ever asked.
        let notes = Notes::of(now.as_ref()).unwrap_or(Notes {
            reboots: server.reboot.count,
            rebuilds: server.rebuild,
            resizes: server.resize.count,
            carried_out: String::new(),
            origin: String::new(),
        });
        let last = match error.kind() {
            // What the request itself makes impossible will not become possible by trying again.
            ErrorKind::BadRequest | ErrorKind::NotImplemented | ErrorKind::Forbidden => true,
            // Room, peers and the control plane come back.
            ErrorKind::Unavailable => false,
            _ => attempt >= PATIENCE,
        };
        if let Err(error) = report(inner, revision, server, &notes, Some((error, last))).await {
            tracing::warn!(server = id, error = %error.chain(), "state not reported");
        }
    }
}

impl Inner {
    /// Whether all ports of a server have their tap up behind their firewall.
    fn ready_for(&self, server: &Server) -> bool {
        let ready = self.ready();
        server.ports.iter().all(|p| ready.contains(p))
    }
}

/// The guest's configuration; makes disks that are not there yet.
async fn config(inner: &Arc<Inner>, server: &Server, notes: &Notes) -> Result<GuestConfig> {
    let begun = micros();
    let mut disks = Vec::with_capacity(server.disks.len() + 1);
    let mut made = false;
    for disk in &server.disks {
        let file = match &disk.source {
            DiskSource::Image { digest, format, .. } => {
                let pull = Box::new(|| Box::pin(pull(inner, digest)) as _);
                let base = inner.disks.base(digest, format, pull).await?;
                inner.disks.overlay(&server.id, &disk.name, &base, disk.size).await?
            }
            DiskSource::Blank => inner.disks.blank(&server.id, &disk.name, disk.size).await?,
            DiskSource::Volume { remote: Some(_), .. } => DiskFile {
                path: PathBuf::new(),
                format: "raw".to_owned(),
                backing: None,
            },
            DiskSource::Volume { id, .. } => inner
                .volumes
                .file(inner, id)?
                .ok_or_else(|| Error::unavailable(format!("the volume {id} is not ready")))?,
        };
        let volume = match &disk.source {
            DiskSource::Volume {
                id, readonly, remote, ..
            } => Some((id.clone(), *readonly, remote.as_ref())),
            _ => None,
        };
        made |= notes.carried_out.is_empty();
        disks.push(GuestDisk {
            name: disk.name.clone(),
            path: file.path,
            format: DiskFormat::parse(&file.format)?,
            backing: match file.backing {
                Some(b) => Some(Backing {
                    path: b.path,
                    format: DiskFormat::parse(&b.format)?,
                }),
                None => None,
            },
            bus: disk.bus.clone(),
            device: disk.device.clone(),
            readonly: disk.device == "cdrom" || volume.as_ref().is_some_and(|(_, readonly, _)| *readonly),
            remote: match volume.as_ref().and_then(|(_, _, remote)| *remote) {
                Some(remote) => Some(reach(inner, &server.id, remote)?),
                None => None,
            },
            limits: match &disk.source {
                DiskSource::Volume { limits, .. } => limits.clone(),
                _ => BTreeMap::new(),
            },
            serial: volume.map(|(id, _, _)| id),
        });
    }
    if server.config_drive {
        // Made once: a guest's drive does not change under it, and its random bytes are its own.
        let file = match inner.disks.find_media(&server.id, CONFIG_DRIVE).await? {
            Some(file) => file,
            None => {
                let bytes = crate::responders::config_drive(&inner.desired().network_view(), server)?;
                inner.disks.media(&server.id, CONFIG_DRIVE, bytes).await?
            }
        };
        disks.push(GuestDisk {
            name: CONFIG_DRIVE.to_owned(),
            path: file.path,
            format: DiskFormat::parse(&file.format)?,
            backing: None,
            bus: "virtio".to_owned(),
            device: "disk".to_owned(),
            readonly: true,
            remote: None,
            limits: BTreeMap::new(),
            serial: None,
        });
    }
    if made {
        story(inner, server, "disk", begun, micros());
    }
    let view = inner.desired().network_view();
    let nics = server
        .ports
        .iter()
        .filter_map(|id| {
            let (_, port) = view.ports.get(id)?;
            let mtu = view.networks.get(&port.network_id).map_or(0, |n| n.mtu);
            Some(GuestNic {
                port_id: id.clone(),
                mac: port.mac.clone(),
                tap: tap_name(id),
                mtu,
            })
        })
        .collect();
    Ok(GuestConfig {
        id: server.id.clone(),
        project_id: server.project_id.clone(),
        name: server.name.clone(),
        vcpus: server.vcpus,
        memory_mib: server.memory_mib,
        disks,
        nics,
        notes: notes.map(),
    })
}

/// Pulls an image through a session of its own right.
pub(crate) async fn pull(inner: &Inner, digest: &str) -> Result<maru_agent_api::lane::ByteStream> {
    let session = inner
        .session()
        .ok_or_else(|| Error::unavailable("the control plane is away; the image waits for it"))?;
    inner.control.pull(&session, digest).await
}
