//! Volumes and their snapshots: files of this node that outlive the servers they are attached to.
//!
//! ```text
//! <dir>/volumes/<volume>.<content>.qcow2     bytes of a volume; <content> counts how often they were made anew
//! <dir>/volumes/<snapshot>.snap.qcow2        a copy as of one moment, never written again
//! …/*.part                                   half-made; swept when the directory is opened
//! ```
//!
//! No file has a backing file: a volume never depends on another one, on an image or on a snapshot, so whatever is removed
//! takes nothing with it, and no guest ever reads bytes that another tenant wrote (D4). New room reads as zeroes. Copies share
//! their blocks where the file system can (FICLONE, tried when the directory is opened); elsewhere only what was written is copied.
//! They are qcow2 there, too: a raw file would share no more, and would be what its guest writes into it (A5).
//!
//! Everything appears by rename after fsync, so whatever has its final name is whole, and every call may be repeated.

use crate::{
    BaseImage,
    disks::{blocking, io, qemu_img, safe},
    prove, qcow2,
    qcow2::{sync_directory, temporary_beside},
};
use maru_agent_api::lane::ByteStream;
use maru_base::{Error, ErrorKind, Result};
use serde_json::json;
use sha2::{Digest, Sha512};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Ends the name of a snapshot's file.
const SNAPSHOT: &str = ".snap.qcow2";
/// Ends the name of every file.
const FILE: &str = ".qcow2";
/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 20;

/// A volume's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// The file, a qcow2 without backing file.
    pub path: PathBuf,
    /// Which making of the bytes it is.
    pub content: u64,
    /// Bytes of the disk inside.
    pub size: u64,
}

/// The volumes of a node.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    /// Whether copies are clones: made in no time, and in no room until one of the two is written.
    clones: bool,
}

impl Volumes {
    /// Opens (and makes) the directory and sweeps what a crash left half-made.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be made or read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().join("volumes");
        std::fs::create_dir_all(&dir).map_err(io(format!("{} was not made", dir.display())))?;
        let volumes = Self {
            clones: can_clone(&dir),
            dir,
        };
        for name in volumes.names()? {
            if name.ends_with(".part") {
                tracing::info!(name, "a half-made volume is removed");
                std::fs::remove_file(volumes.dir.join(name)).map_err(io("a half-made volume was not removed"))?;
            }
        }
        Ok(volumes)
    }

    /// How volumes are kept here, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.clones {
            "qcow2 files; copies share their blocks (FICLONE)".to_owned()
        } else {
            "qcow2 files; copies are whole: the file system of the data directory cannot share blocks (XFS and btrfs can)"
                .to_owned()
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.dir).map_err(io("the volumes were not listed"))?;
        Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
    }

    fn volume_path(&self, id: &str, content: u64) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{}.{content}{FILE}", safe(id)?)))
    }

    fn snapshot_path(&self, id: &str) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{}{SNAPSHOT}", safe(id)?)))
    }

    /// The newest bytes of a volume, if it has any here.
    ///
    /// # Errors
    /// `Internal` when the file cannot be read.
    pub fn find(&self, id: &str) -> Result<Option<VolumeFile>> {
        let start = format!("{}.", safe(id)?);
        let newest = self
            .names()?
            .iter()
            .filter_map(|n| n.strip_prefix(&start)?.strip_suffix(FILE)?.parse::<u64>().ok())
            .max();
        match newest {
            None => Ok(None),
            Some(content) => {
                let path = self.volume_path(id, content)?;
                let size = virtual_size(&path)?;
                Ok(Some(VolumeFile { path, content, size }))
            }
        }
    }

    /// A snapshot's file, if it is here.
    ///
    /// # Errors
    /// `BadRequest` when the id cannot be a name.
    pub fn find_snapshot(&self, id: &str) -> Result<Option<PathBuf>> {
        let path = self.snapshot_path(id)?;
        Ok(path.exists().then_some(path))
    }

    /// Volumes and snapshots that have bytes here: `volume` or `volume-snapshot`, and the id.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read.
    pub fn all(&self) -> Result<Vec<(&'static str, String)>> {
        let mut all: Vec<(&'static str, String)> = self
            .names()?
            .iter()
            .filter_map(|name| {
                if let Some(id) = name.strip_suffix(SNAPSHOT) {
                    return Some(("volume-snapshot", id.to_owned()));
                }
                let (id, content) = name.strip_suffix(FILE)?.rsplit_once('.')?;
                content.parse::<u64>().ok()?;
                Some(("volume", id.to_owned()))
            })
            .collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Makes a volume that reads as zeroes.
    ///
    /// # Errors
    /// `BadRequest` for a size of 0 or above 64 TiB.
    pub async fn blank(&self, id: &str, content: u64, size: u64) -> Result<()> {
        let path = self.volume_path(id, content)?;
        blocking(move || {
            if path.exists() {
                return Ok(());
            }
            qcow2::create(&path, size.div_ceil(512) * 512, None)
        })
        .await?;
        self.forget_older(id, content)
    }

    /// Makes a volume of an image: a whole copy of what the image shows, then zeroes.
    ///
    /// # Errors
    /// `BadRequest` when the image is larger than the volume.
    pub async fn of_image(&self, id: &str, content: u64, size: u64, image: &BaseImage) -> Result<()> {
        let path = self.volume_path(id, content)?;
        if path.exists() {
            return self.forget_older(id, content);
        }
        if image.virtual_size > size {
            return Err(Error::bad_request(format!(
                "the volume was refused: it has {size} bytes and the image needs {}; make it larger",
                image.virtual_size
            )));
        }
        let part = temporary_beside(&path);
        convert(&source(&image.path, &image.format), "qcow2", &part).await?;
        self.finish(&path, part, size).await?;
        self.forget_older(id, content)
    }

    /// Makes a volume of a file of ours: another volume's, a snapshot's, or what the hypervisor copied of a running guest.
    ///
    /// # Errors
    /// `BadRequest` when the file's disk is larger than the volume.
    pub async fn copy(&self, id: &str, content: u64, size: u64, from: &Path) -> Result<()> {
        let path = self.volume_path(id, content)?;
        if path.exists() {
            return self.forget_older(id, content);
        }
        let there = virtual_size(from)?;
        if there > size {
            return Err(Error::bad_request(format!(
                "the volume was refused: it has {size} bytes and what it is copied from {there}; make it larger"
            )));
        }
        let part = self.copied(&path, from).await?;
        self.finish(&path, part, size).await?;
        self.forget_older(id, content)
    }

    /// Makes a volume of a backup: the bytes must have this digest, and be a disk of ours.
    ///
    /// # Errors
    /// `Internal` when the bytes do not have the digest, `Unavailable` when they do not come or the disk is full.
    pub async fn of_backup(
        &self,
        id: &str,
        content: u64,
        size: u64,
        digest: &str,
        mut stream: ByteStream,
    ) -> Result<()> {
        let path = self.volume_path(id, content)?;
        if path.exists() {
            return self.forget_older(id, content);
        }
        let part = temporary_beside(&path);
        let mut file = tokio::fs::File::create(&part)
            .await
            .map_err(io("the backup was not written"))?;
        let mut hash = Sha512::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = stream
                .read(&mut chunk)
                .await
                .map_err(|e| Error::new(ErrorKind::Unavailable, "the backup was not pulled whole").with_source(e))?;
            if n == 0 {
                break;
            }
            hash.update(&chunk[..n]);
            tokio::io::AsyncWriteExt::write_all(&mut file, &chunk[..n])
                .await
                .map_err(io("the backup was not written"))?;
        }
        file.sync_all().await.map_err(io("the backup was not written"))?;
        let got = maru_base::hex(&hash.finalize());
        if got != digest {
            remove(&part)?;
            return Err(Error::internal(
                "the backup was refused: its bytes are not those that were saved",
                std::io::Error::other(format!("sha512 {got}, not {digest}")),
            ));
        }
        let opened = std::fs::File::open(&part).map_err(io("the backup was not read"))?;
        let there = prove(opened, "qcow2").await?.virtual_size;
        if there > size {
            remove(&part)?;
            return Err(Error::bad_request(format!(
                "the volume was refused: it has {size} bytes and the backup {there}; make it larger"
            )));
        }
        self.finish(&path, part, size).await?;
        self.forget_older(id, content)
    }

    /// Keeps a copy of a file of ours as a snapshot.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full.
    pub async fn snapshot(&self, id: &str, from: &Path) -> Result<()> {
        let path = self.snapshot_path(id)?;
        if path.exists() {
            return Ok(());
        }
        let part = self.copied(&path, from).await?;
        place(&part, &path).await
    }

    /// A name for a copy that the hypervisor makes; a crash leaves it to the sweep.
    ///
    /// # Errors
    /// `BadRequest` when the id cannot be a name.
    pub fn scratch(&self, id: &str) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{}.copy.part", safe(id)?)))
    }

    /// Makes a volume larger whose server is off; never smaller.
    ///
    /// # Errors
    /// `Internal` when qemu-img fails (a running guest has it: use the hypervisor's resize then).
    pub async fn grow(&self, file: &VolumeFile, size: u64) -> Result<()> {
        if file.size >= size {
            return Ok(());
        }
        resize(&file.path, size).await
    }

    /// Removes a volume's bytes, all makings of them.
    ///
    /// # Errors
    /// `Internal` when a file cannot be removed.
    pub fn remove(&self, id: &str) -> Result<()> {
        let start = format!("{}.", safe(id)?);
        for name in self.names()? {
            let mine = name
                .strip_prefix(&start)
                .and_then(|n| n.strip_suffix(FILE))
                .is_some_and(|n| n.parse::<u64>().is_ok());
            if mine {
                remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes a snapshot's bytes.
    ///
    /// # Errors
    /// `Internal` when the file cannot be removed.
    pub fn remove_snapshot(&self, id: &str) -> Result<()> {
        remove(&self.snapshot_path(id)?)
    }

    /// Writes a file of ours as `format` to `target`.
    ///
    /// # Errors
    /// `BadRequest` for a format other than `raw` and `qcow2`.
    pub async fn export(&self, from: &Path, format: &str, target: &Path) -> Result<()> {
        if !matches!(format, "raw" | "qcow2") {
            return Err(Error::bad_request(format!(
                "a volume cannot be given as {format:?}; raw and qcow2 are the formats"
            )));
        }
        convert(&source(from, "qcow2"), format, target).await
    }

    async fn copied(&self, path: &Path, from: &Path) -> Result<PathBuf> {
        let (part, from) = (temporary_beside(path), from.to_owned());
        let (to, clones) = (part.clone(), self.clones);
        blocking(move || {
            let copied = if clones {
                clone(&from, &to)
            } else {
                std::fs::copy(&from, &to).map(drop)
            };
            copied.map_err(io("the volume was not copied"))
        })
        .await?;
        Ok(part)
    }

    /// Gives a made file its size and its name.
    async fn finish(&self, path: &Path, part: PathBuf, size: u64) -> Result<()> {
        if virtual_size(&part)? < size {
            resize(&part, size).await?;
        }
        place(&part, path).await
    }

    fn forget_older(&self, id: &str, content: u64) -> Result<()> {
        let start = format!("{}.", safe(id)?);
        for name in self.names()? {
            let older = name
                .strip_prefix(&start)
                .and_then(|n| n.strip_suffix(FILE)?.parse::<u64>().ok())
                .is_some_and(|n| n < content);
            if older {
                remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("a volume's file was not removed")(e)),
        _ => Ok(()),
    }
}

async fn place(part: &Path, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (part, path) = (part.to_owned(), path.to_owned());
    blocking(move || {
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::File::open(&part)?.sync_all())
            .and_then(|()| std::fs::rename(&part, &path))
            .and_then(|()| sync_directory(&path))
            .map_err(io("the volume was not kept"))
    })
    .await
}

/// Makes `to` a file that shares the blocks of `from` (ioctl_ficlone(2)).
fn clone(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
}

/// Whether the file system of a directory clones files: tried, since its name proves nothing.
fn can_clone(dir: &Path) -> bool {
    let (one, two) = (dir.join("clone-one.part"), dir.join("clone-two.part"));
    let cloned = std::fs::write(&one, [1; 4096]).and_then(|()| clone(&one, &two));
    for path in [one, two] {
        // The sweep of the next start takes what is left.
        let _ = std::fs::remove_file(path);
    }
    cloned.is_ok()
}

async fn resize(path: &Path, size: u64) -> Result<()> {
    let size = (size.div_ceil(512) * 512).to_string();
    qemu_img(&[
        "resize".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        path.as_os_str(),
        size.as_ref(),
    ])
    .await
}

/// What qemu-img reads: the format told, and no backing file whatever the header says.
fn source(path: &Path, format: &str) -> String {
    let mut node = json!({ "driver": format, "file": { "driver": "file", "filename": path } });
    if format == "qcow2" {
        node["backing"] = serde_json::Value::Null;
    }
    format!("json:{node}")
}

async fn convert(source: &str, format: &str, target: &Path) -> Result<()> {
    qemu_img(&[
        "convert".as_ref(),
        "-q".as_ref(),
        "-O".as_ref(),
        format.as_ref(),
        source.as_ref(),
        target.as_os_str(),
    ])
    .await
}

/// Bytes of the disk inside a qcow2 of ours: its header's size field (QEMU, `docs/interop/qcow2.txt`: bytes 24 to 31).
fn virtual_size(path: &Path) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 32];
    std::fs::File::open(path)
        .and_then(|f| f.read_exact_at(&mut head, 0))
        .map_err(io("the volume's header was not read"))?;
    if &head[..4] != b"QFI\xfb" {
        return Err(Error::internal(
            "the volume's file is damaged",
            std::io::Error::other(format!("{} is no qcow2", path.display())),
        ));
    }
    let mut size = [0; 8];
    size.copy_from_slice(&head[24..32]);
    Ok(u64::from_be_bytes(size))
}
#[async_trait::async_trait]
impl crate::VolumeDriver for Volumes {
    fn describe(&self) -> String {
        Volumes::describe(self)
    }
    fn find(&self, id: &str) -> Result<Option<VolumeFile>> {
        Volumes::find(self, id)
    }
    fn find_snapshot(&self, id: &str) -> Result<Option<PathBuf>> {
        Volumes::find_snapshot(self, id)
    }
    fn all(&self) -> Result<Vec<(&'static str, String)>> {
        Volumes::all(self)
    }
    async fn blank(&self, id: &str, content: u64, size: u64) -> Result<()> {
        Volumes::blank(self, id, content, size).await
    }
    async fn of_image(&self, id: &str, content: u64, size: u64, image: &BaseImage) -> Result<()> {
        Volumes::of_image(self, id, content, size, image).await
    }
    async fn copy(&self, id: &str, content: u64, size: u64, from: &Path) -> Result<()> {
        Volumes::copy(self, id, content, size, from).await
    }
    async fn of_backup(&self, id: &str, content: u64, size: u64, digest: &str, bytes: ByteStream) -> Result<()> {
        Volumes::of_backup(self, id, content, size, digest, bytes).await
    }
    async fn snapshot(&self, id: &str, from: &Path) -> Result<()> {
        Volumes::snapshot(self, id, from).await
    }
    async fn grow(&self, file: &VolumeFile, size: u64) -> Result<()> {
        Volumes::grow(self, file, size).await
    }
    async fn export(&self, from: &Path, format: &str, target: &Path) -> Result<()> {
        Volumes::export(self, from, format, target).await
    }
    fn scratch(&self, id: &str) -> Result<PathBuf> {
        Volumes::scratch(self, id)
    }
    fn remove(&self, id: &str) -> Result<()> {
        Volumes::remove(self, id)
    }
    fn remove_snapshot(&self, id: &str) -> Result<()> {
        Volumes::remove_snapshot(self, id)
    }
}
