//! Volumes and their snapshots: files that servers are given as disks, and that outlive them.
//!
//! ```text
//!  Set volume ─► bytes of this making there? ─no─► make: blank / image / backup / copy ─► larger if it shall be
//!                 ─► offered to those who shall reach it, to nobody else ─► report
//!  Set snapshot ─► there? ─no─► copy ─► report
//!  Gone ─► no guest has it any more? ─► remove ─► Removed
//! ```
//!
//! A volume's file is open in one process at a time: a server's of this node, or the exporter's, through which all others reach it.
//! Neither is given it before the other has let go.
//!
//! A copy is as of one moment. While a guest runs with the volume, the hypervisor makes it (a block job); otherwise the file
//! is copied, and no server that has the volume is started or plugged meanwhile ([`Locks`]).

use crate::{Inner, server::PATIENCE, work::Work};
use maru_agent_api::{
    lane::ByteStream,
    observed::{Report, VolumeSnapshotState, VolumeState},
    slice::{DiskSource, Item, ItemKey, RemoteVolume, Server, Volume, VolumeSnapshot, VolumeSource},
};
use maru_base::{Error, ErrorKind, Result};
use maru_block::DiskFile;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Volumes worked on at once: most of the time they wait for the disk.
const WORKERS: usize = 4;
/// How soon a copy is looked at again whose source is not there yet, and a removal that a guest holds up.
const WAIT: Duration = Duration::from_secs(1);

/// Who uses which volume: servers share it while they start and plug, a copy has it alone.
#[derive(Default)]
pub(crate) struct Locks {
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

impl Locks {
    fn of(&self, id: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are forgotten now and then.
        if locks.len() > 1_024 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(locks.entry(id.to_owned()).or_default())
    }
    async fn share(&self, id: &str) -> OwnedRwLockReadGuard<()> {
        self.of(id).read_owned().await
    }
    async fn alone(&self, id: &str) -> OwnedRwLockWriteGuard<()> {
        self.of(id).write_owned().await
    }
    /// Holds the volumes of a server, in order of their ids; `None` when one is not ready yet.
    pub(crate) async fn hold(&self, inner: &Inner, server: &Server) -> Result<Option<Vec<OwnedRwLockReadGuard<()>>>> {
        let mut ids: Vec<&String> = Vec::new();
        for disk in &server.disks {
            match &disk.source {
                DiskSource::Volume { id, remote: None, .. } => ids.push(id),
                // Its holder is about to say where; that changes the server's item.
                DiskSource::Volume {
                    remote: Some(RemoteVolume { address: None, .. }),
                    ..
                } => return Ok(None),
                _ => {}
            }
        }
        ids.sort();
        let mut held = Vec::with_capacity(ids.len());
        for id in ids {
            if inner.exporter.has_open(id) {
                // Its item says when that ends; the server is looked at again meanwhile.
                return Ok(None);
            }
            if self.file(inner, id)?.is_none() {
                inner.volume_queue.kick(&key(&ItemKey::Volume(id.clone())));
                return Ok(None);
            }
            held.push(self.share(id).await);
        }
        Ok(Some(held))
    }
    /// The file of a volume, if its newest bytes are there.
    #[allow(clippy::unused_self)]
    pub(crate) fn file(&self, inner: &Inner, id: &str) -> Result<Option<DiskFile>> {
        let Some((_, wanted)) = volume(inner, id) else {
            return Ok(None);
        };
        Ok(inner
            .volume_files
            .find(id)?
            .filter(|f| f.content >= wanted.content)
            .map(|f| DiskFile {
                path: f.path,
                format: "qcow2".to_owned(),
                backing: None,
            }))
    }
}

/// The queue's name of a volume or snapshot.
pub(crate) fn key(item: &ItemKey) -> String {
    match item {
        ItemKey::Volume(id) => format!("volume:{id}"),
        ItemKey::VolumeSnapshot(id) => format!("snapshot:{id}"),
        _ => String::new(),
    }
}

fn item_of(key: &str) -> Option<ItemKey> {
    let (what, id) = key.split_once(':')?;
    Some(match what {
        "volume" => ItemKey::Volume(id.to_owned()),
        _ => ItemKey::VolumeSnapshot(id.to_owned()),
    })
}

fn volume(inner: &Inner, id: &str) -> Option<(u64, Volume)> {
    match inner.desired().get(&ItemKey::Volume(id.to_owned())) {
        Some((revision, item)) => match &*item {
            Item::Volume(v) => Some((revision, v.clone())),
            _ => None,
        },
        None => None,
    }
}

/// Runs volumes' tasks until dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let work = Work {
        what: "volume",
        queue: |inner| &inner.volume_queue,
        workers: WORKERS,
        request_of,
        reconcile: |inner, key| Box::pin(reconcile(inner, key)),
        failed: |inner, key, error, attempt, _| Box::pin(async move { failed(inner, key, error, attempt) }),
    };
    work.run(inner).await;
}

fn request_of(inner: &Inner, key: &str) -> String {
    let item = item_of(key).and_then(|k| inner.desired().get(&k));
    match item.as_ref().map(|(_, i)| &**i) {
        Some(Item::Volume(v)) => v.request_id.clone(),
        Some(Item::VolumeSnapshot(s)) => s.request_id.clone(),
        _ => String::new(),
    }
}

async fn reconcile(inner: &Arc<Inner>, key: &str) -> Result<Option<Duration>> {
    let Some(item) = item_of(key) else {
        return Ok(None);
    };
    let (set, gone) = {
        let desired = inner.desired();
        if !desired.is_synced() {
            return Ok(None);
        }
        (desired.get(&item), desired.is_gone(&item))
    };
    match (set, &item) {
        (Some((revision, set)), _) => match &*set {
            Item::Volume(v) => make_volume(inner, revision, v).await,
            Item::VolumeSnapshot(s) => make_snapshot(inner, revision, s).await,
            _ => Ok(None),
        },
        (None, ItemKey::Volume(id)) if gone => {
            if user(inner, id).await?.is_some() {
                // Its server's removal comes first; the hypervisor still has the file open.
                return Ok(Some(WAIT));
            }
            let _alone = inner.volumes.alone(id).await;
            inner.exporter.withdraw(id).await?;
            inner.volume_files.remove(id)?;
            done(inner, item);
            Ok(None)
        }
        (None, ItemKey::VolumeSnapshot(id)) if gone => {
            inner.volume_files.remove_snapshot(id)?;
            done(inner, item);
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn done(inner: &Inner, item: ItemKey) {
    inner.desired().removed(&item);
    inner.reporter.send(Report::Removed(item));
}

/// The running guest that has a volume's file open, if there is one.
pub(crate) async fn user(inner: &Inner, id: &str) -> Result<Option<String>> {
    Ok(inner
        .hypervisor
        .list()
        .await?
        .into_iter()
        .find(|g| {
            // One that shares it reaches it through the exporter, also on this node.
            let remote = |c: &maru_qemu::GuestConfig| c.disks.iter().any(|d| d.name == id && d.remote.is_some());
            g.pid.is_some() && g.attached.iter().any(|a| a == id) && !g.config.as_ref().is_some_and(remote)
        })
        .map(|g| g.id))
}

async fn make_volume(inner: &Arc<Inner>, revision: u64, v: &Volume) -> Result<Option<Duration>> {
    let files = &inner.volume_files;
    let there = files.find(&v.id)?.filter(|f| f.content >= v.content);
    if there.is_none() {
        // Whoever starts a server with it waits until the bytes are whole.
        let _alone = inner.volumes.alone(&v.id).await;
        match &v.source {
            VolumeSource::Blank => files.blank(&v.id, v.content, v.size).await?,
            VolumeSource::Image { digest, format } => {
                let pull = Box::new(|| Box::pin(crate::server::pull(inner, digest)) as _);
                let base = inner.disks.base(digest, format, pull).await?;
                files.of_image(&v.id, v.content, v.size, &base).await?;
            }
            VolumeSource::Backup { digest } => {
                let bytes = crate::server::pull(inner, digest).await?;
                files.of_backup(&v.id, v.content, v.size, digest, bytes).await?;
            }
            VolumeSource::Volume(from) => {
                let Some(source) = copy_of(inner, &v.id, from).await? else {
                    return Ok(Some(WAIT));
                };
                files.copy(&v.id, v.content, v.size, &source.path).await?;
            }
            VolumeSource::Snapshot(from) => {
                let Some(path) = files.find_snapshot(from)? else {
                    return Ok(Some(WAIT));
                };
                files.copy(&v.id, v.content, v.size, &path).await?;
            }
        }
    }
    let Some(file) = files.find(&v.id)? else {
        return Ok(Some(WAIT));
    };
    if file.size < v.size {
        match user(inner, &v.id).await? {
            _ if inner.exporter.has_open(&v.id) => inner.exporter.grow(&v.id, v.size).await?,
            Some(guest) => inner.hypervisor.resize_disk(&guest, &v.id, v.size).await?,
            None => {
                let _alone = inner.volumes.alone(&v.id).await;
                // A guest may have been started while this waited.
                match user(inner, &v.id).await? {
                    Some(guest) => inner.hypervisor.resize_disk(&guest, &v.id, v.size).await?,
                    None => files.grow(&file, v.size).await?,
                }
            }
        }
    }
    let offered_at = match offer(inner, v, &file.path).await? {
        Some(at) => at,
        None => return Ok(Some(WAIT)),
    };
    let file = files.find(&v.id)?;
    inner.reporter.send(Report::Volume(VolumeState {
        id: v.id.clone(),
        revision,
        content: file.as_ref().map(|f| f.content),
        size: file.map_or(0, |f| f.size),
        exports: v
            .exports
            .iter()
            .filter(|_| offered_at.is_some())
            .map(|e| e.name.clone())
            .collect(),
        offered_at,
        fault: None,
        fault_final: false,
    }));
    kick_servers_with(inner, &v.id);
    Ok(None)
}

/// Opens the exports that a volume shall have and cuts all others; says where they are (`Some(None)` without any), or `None` when a
/// guest of this node has the file still.
async fn offer(inner: &Arc<Inner>, v: &Volume, file: &Path) -> Result<Option<Option<String>>> {
    if v.exports.is_empty() {
        inner.exporter.withdraw(&v.id).await?;
        return Ok(Some(None));
    }
    if !inner.exporter.has_open(&v.id) {
        // Whoever starts a server with it, or copies it, comes first.
        let _alone = inner.volumes.alone(&v.id).await;
        if user(inner, &v.id).await?.is_some() {
            return Ok(None);
        }
        return inner
            .exporter
            .offer(&v.id, file, &v.exports)
            .await
            .map(|at| Some(Some(at)));
    }
    inner
        .exporter
        .offer(&v.id, file, &v.exports)
        .await
        .map(|at| Some(Some(at)))
}

/// Offers a volume anew whose process ended unasked.
pub(crate) async fn follow_exports(inner: &Arc<Inner>) {
    let mut ended = inner.exporter.ended();
    loop {
        match ended.recv().await {
            Ok(id) => inner.volume_queue.kick(&key(&ItemKey::Volume(id))),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                let all = inner.desired().volumes();
                for item in all {
                    inner.volume_queue.kick(&key(&item));
                }
            }
        }
    }
}

/// Servers that wait for a volume are looked at again.
fn kick_servers_with(inner: &Inner, id: &str) {
    let waiting: Vec<String> = inner
        .desired()
        .network_view()
        .servers
        .iter()
        .filter(|s| {
            s.disks
                .iter()
                .any(|d| matches!(&d.source, DiskSource::Volume { id: v, .. } if v == id))
        })
        .map(|s| s.id.clone())
        .collect();
    for server in waiting {
        inner.servers.kick(&server);
    }
}

/// A file to copy from; what the hypervisor made for it goes when this is dropped.
pub(crate) struct CopyOf {
    pub path: PathBuf,
    scratch: bool,
    _alone: Option<OwnedRwLockWriteGuard<()>>,
}

impl Drop for CopyOf {
    fn drop(&mut self) {
        if self.scratch
            && let Err(e) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "a copy that is done with was not removed");
        }
    }
}

/// A volume's bytes as of one moment, for `to`; `None` when it has none yet.
pub(crate) async fn copy_of(inner: &Inner, to: &str, from: &str) -> Result<Option<CopyOf>> {
    let alone = inner.volumes.alone(from).await;
    let Some(file) = inner.volume_files.find(from)? else {
        return Ok(None);
    };
    if inner.exporter.has_open(from) {
        drop(alone);
        let copy = CopyOf {
            path: inner.volume_files.scratch(to)?,
            scratch: true,
            _alone: None,
        };
        inner.exporter.snapshot(from, &copy.path).await?;
        return Ok(Some(copy));
    }
    if let Some(guest) = user(inner, from).await? {
        // The guest writes on; its own process copies. Others may start meanwhile: the file itself is not read here.
        drop(alone);
        let path = inner.volume_files.scratch(to)?;
        let copy = CopyOf {
            path,
            scratch: true,
            _alone: None,
        };
        inner.hypervisor.snapshot(&guest, from, &copy.path).await?;
        return Ok(Some(copy));
    }
    Ok(Some(CopyOf {
        path: file.path,
        scratch: false,
        _alone: Some(alone),
    }))
}

async fn make_snapshot(inner: &Arc<Inner>, revision: u64, s: &VolumeSnapshot) -> Result<Option<Duration>> {
    if inner.volume_files.find_snapshot(&s.id)?.is_none() {
        let Some(source) = copy_of(inner, &s.id, &s.volume_id).await? else {
            return Ok(Some(WAIT));
        };
        inner.volume_files.snapshot(&s.id, &source.path).await?;
    }
    inner.reporter.send(Report::VolumeSnapshot(VolumeSnapshotState {
        id: s.id.clone(),
        revision,
        made: true,
        fault: None,
        fault_final: false,
    }));
    Ok(None)
}

fn failed(inner: &Inner, key: &str, error: &Error, attempt: u32) {
    let last = match error.kind() {
        // What the request itself makes impossible will not become possible by trying again.
        ErrorKind::BadRequest | ErrorKind::NotImplemented | ErrorKind::Forbidden => true,
        // Room, peers and the control plane come back.
        ErrorKind::Unavailable => false,
        _ => attempt >= PATIENCE,
    };
    let item = item_of(key).and_then(|k| inner.desired().get(&k));
    let Some((revision, item)) = item else {
        return;
    };
    match &*item {
        Item::Volume(v) => {
            let there = inner.volume_files.find(&v.id).ok().flatten();
            inner.reporter.send(Report::Volume(VolumeState {
                id: v.id.clone(),
                revision,
                content: there.as_ref().map(|f| f.content),
                size: there.map_or(0, |f| f.size),
                offered_at: None,
                exports: Vec::new(),
                fault: Some(error.chain()),
                fault_final: last,
            }));
        }
        Item::VolumeSnapshot(s) => inner.reporter.send(Report::VolumeSnapshot(VolumeSnapshotState {
            id: s.id.clone(),
            revision,
            made: false,
            fault: Some(error.chain()),
            fault_final: last,
        })),
        _ => {}
    }
}

/// The bytes of a volume or a snapshot as a file of `format`, which has no name any more: it lives as long as its reader.
pub(crate) async fn bytes(inner: &Inner, id: &str, format: &str) -> Result<ByteStream> {
    let files = &inner.volume_files;
    let name = format!("out-{}", maru_base::random::hex32());
    let target = files.scratch(&name)?;
    let exported = match files.find_snapshot(id)? {
        Some(path) => files.export(&path, format, &target).await,
        None => {
            let source = copy_of(inner, &format!("{name}-from"), id)
                .await?
                .ok_or_else(|| Error::not_found(format!("the volume {id} has no bytes on this node")))?;
            files.export(&source.path, format, &target).await
        }
    };
    let opened = match exported {
        Ok(()) => tokio::fs::File::open(&target)
            .await
            .map_err(|e| Error::internal("the copy cannot be read back", e)),
        Err(e) => Err(e),
    };
    // The bytes live as long as the open file; nothing is left when the reader is done or dies.
    let _ = tokio::fs::remove_file(&target).await;
    Ok(Box::new(opened?))
}
