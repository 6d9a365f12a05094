//! The seam between the agent and whatever keeps the bytes of volumes.
//!
//! A driver has two halves, on two nodes or on one:
//!
//! ```text
//!   holder                                                  consumer
//!   [`VolumeDriver`]  makes, copies, grows, removes
//!        │ a file of this node ───────────────────────────► opened by the guest's own process     (transport 1: file)
//!        └ [`Exporter`]  a process that offers it ──TLS───► [`Remote`], opened by the guest's      (transport 2: NBD)
//! ```
//!
//! What a guest's process opens is the file's path or a [`Remote`]; nothing else of the agent asks where the bytes are. A store
//! that every node reaches by itself (Ceph RBD, NFS, iSCSI) is another [`VolumeDriver`] whose volumes are a further kind of
//! [`Remote`] (or a path, for NFS) on every node: it needs no [`Exporter`] and no holder.

use crate::{BaseImage, VolumeFile};
use async_trait::async_trait;
use maru_agent_api::{lane::ByteStream, slice::VolumeExport};
use maru_base::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tokio::sync::broadcast;

/// Bytes of volumes and snapshots at rest. Every call may be repeated. See [`crate::Volumes`] for files.
#[async_trait]
pub trait VolumeDriver: Send + Sync + 'static {
    /// How volumes are kept, for people.
    fn describe(&self) -> String;
    /// The newest bytes of a volume, if it has any here.
    fn find(&self, id: &str) -> Result<Option<VolumeFile>>;
    /// A snapshot's file, if it is here.
    fn find_snapshot(&self, id: &str) -> Result<Option<PathBuf>>;
    /// Volumes and snapshots that have bytes here: `volume` or `volume-snapshot`, and the id.
    fn all(&self) -> Result<Vec<(&'static str, String)>>;
    /// Makes a volume that reads as zeroes.
    async fn blank(&self, id: &str, content: u64, size: u64) -> Result<()>;
    /// Makes a volume of an image.
    async fn of_image(&self, id: &str, content: u64, size: u64, image: &BaseImage) -> Result<()>;
    /// Makes a volume of a file of ours.
    async fn copy(&self, id: &str, content: u64, size: u64, from: &Path) -> Result<()>;
    /// Makes a volume of a backup with this digest.
    async fn of_backup(&self, id: &str, content: u64, size: u64, digest: &str, bytes: ByteStream) -> Result<()>;
    /// Keeps a copy of a file of ours as a snapshot.
    async fn snapshot(&self, id: &str, from: &Path) -> Result<()>;
    /// Makes a volume larger that nobody has open.
    async fn grow(&self, file: &VolumeFile, size: u64) -> Result<()>;
    /// Writes a file of ours as `format` to `target`.
    async fn export(&self, from: &Path, format: &str, target: &Path) -> Result<()>;
    /// A name for a copy that another process makes; a crash leaves it to the sweep.
    fn scratch(&self, id: &str) -> Result<PathBuf>;
    /// Removes a volume's bytes.
    fn remove(&self, id: &str) -> Result<()>;
    /// Removes a snapshot's bytes.
    fn remove_snapshot(&self, id: &str) -> Result<()>;
}

/// Offers volumes of this node to other nodes. Every call may be repeated; nobody else opens a volume's file while it is open here.
#[async_trait]
pub trait Exporter: Send + Sync + 'static {
    /// Takes over what an earlier process of the agent left running; call it once, before anything else.
    async fn adopt_all(&self) -> Result<()>;
    /// Whether a process of its has this volume's file open.
    fn has_open(&self, volume: &str) -> bool;
    /// Makes it so that exactly these exports of the volume are open, and says where. Whoever uses another one is cut off. It
    /// stays where it was, also when its process has to be started anew: guests come back to it.
    async fn offer(&self, volume: &str, file: &Path, exports: &[VolumeExport]) -> Result<String>;
    /// Ends all exports of a volume: its file is free, its keys are gone, its address is another one next time.
    async fn withdraw(&self, volume: &str) -> Result<()>;
    /// Makes an open volume larger. Guests learn it when they open it anew.
    async fn grow(&self, volume: &str, size: u64) -> Result<()>;
    /// Writes an open volume as one flat qcow2 to `target`, as of one moment.
    async fn snapshot(&self, volume: &str, target: &Path) -> Result<()>;
    /// Ends all exports of all volumes.
    async fn stop_all(&self) -> Result<()>;
    /// Volumes whose process ended unasked, from now on.
    fn ended(&self) -> broadcast::Receiver<String>;
}

/// A disk that a guest's process reaches over the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remote {
    /// An NBD export over TLS with a pre-shared key.
    Nbd(NbdDisk),
}

/// See [`Remote::Nbd`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbdDisk {
    /// The holder's address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The export's name, and the key's.
    pub export: String,
    /// Directory with `keys.psk`, readable by the guest's process alone.
    pub keys: PathBuf,
    /// Bytes of the disk when this was written: when it is another number, the disk is opened anew.
    pub size: u64,
}
