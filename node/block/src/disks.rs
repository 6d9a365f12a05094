//! The disks of a node: cached base images, and the writable disks of its servers.
//!
//! ```text
//! <dir>/base/<sha512>.<qcow2|raw>     pulled once, checked against its digest, never written again (mode 0444)
//! <dir>/disks/<server>/<name>.qcow2   overlay or blank disk, written by the guest through QEMU alone
//! <dir>/disks/<server>/<name>.raw     read-only media that the agent made (config drive)
//! <dir>/disks/<server>/kept-<number>/ disks as they were before a change of size
//! …/*.part                            half-made; swept when the directory is opened
//! ```
//!
//! Everything appears by rename after fsync, so whatever has its final name is whole, and every call may be repeated.

use crate::qcow2::{Beneath, sync_directory, temporary_beside, write_atomically};
use crate::{Proven, prove, qcow2};
use maru_agent_api::lane::ByteStream;
use maru_base::{Error, ErrorKind, Result};
use serde_json::json;
use sha2::{Digest, Sha512};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;

/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 20;
/// Address space of a qemu-img process.
const QEMU_IMG_MEMORY: u64 = 4 << 30;
/// Longest run of a qemu-img process, in CPU seconds and in seconds.
const QEMU_IMG_SECONDS: u64 = 3600;

/// A cached base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// The file.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Bytes of the disk that it holds, a multiple of 512.
    pub virtual_size: u64,
}

/// A disk of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
    /// The base image beneath, if it is an overlay.
    pub backing: Option<BaseImage>,
}

/// Room on the file system of the disks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// What can still be used.
    pub free: u64,
}

type Cell = Arc<OnceCell<BaseImage>>;

/// The disks of a node.
#[derive(Debug)]
pub struct Disks {
    pub(crate) dir: PathBuf,
    /// One cell a base image: whoever comes while it is being pulled waits for the one pull.
    bases: Mutex<HashMap<PathBuf, Cell>>,
}

pub(crate) fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_string();
    move |e| match e.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error() => Error::new(
            ErrorKind::Unavailable,
            format!("{what}: the disk of this node is full; free some room or use another node"),
        )
        .with_source(e),
        _ => Error::internal(what, e),
    }
}

/// Refuses what could leave the directory when it becomes part of a path.
pub(crate) fn safe(part: &str) -> Result<&str> {
    let plain = part
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain && !part.is_empty() && part.len() <= 160 {
        return Ok(part);
    }
    Err(Error::bad_request(format!(
        "{part:?} cannot name a disk here: letters, digits, - and _ can"
    )))
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("work on a disk stopped unexpectedly", e))?
}

impl Disks {
    /// Opens (and makes) the directory and sweeps what a crash left half-made.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be made or read.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        for sub in ["base", "disks"] {
            std::fs::create_dir_all(dir.join(sub)).map_err(io(format!("{} was not made", dir.join(sub).display())))?;
        }
        let disks = Self {
            dir,
            bases: Mutex::new(HashMap::new()),
        };
        disks.sweep().map_err(io("half-made disks were not swept"))?;
        Ok(disks)
    }

    fn sweep(&self) -> std::io::Result<()> {
        let mut folders = vec![self.dir.join("base")];
        for entry in std::fs::read_dir(self.dir.join("disks"))? {
            folders.push(entry?.path());
        }
        for folder in folders.iter().filter(|f| f.is_dir()) {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "part") {
                    tracing::info!(path = %path.display(), "a half-made disk is removed");
                    if path.is_dir() {
                        std::fs::remove_dir_all(path)?;
                    } else {
                        std::fs::remove_file(path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The cached base image of this digest, pulled if it is not here yet.
    ///
    /// `digest` is the lower-case hexadecimal sha512 of the blob, `format` the proven one (`qcow2` or `raw`; a raw image
    /// is not looked into, whatever it contains). Concurrent calls for one image share one pull. Bytes that do not have
    /// the digest are refused and nothing is kept (A6).
    ///
    /// # Errors
    /// `BadRequest` for a malformed digest or format and for a qcow2 image that is none or not a safe one, `Internal`
    /// when the bytes do not have the digest, `Unavailable` when the disk is full, or what `pull` gives.
    pub async fn base<F, P>(&self, digest: &str, format: &str, pull: F) -> Result<BaseImage>
    where
        F: FnOnce() -> P + Send,
        P: Future<Output = Result<ByteStream>> + Send,
    {
        let hexadecimal = digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digest.len() != 128 || !hexadecimal {
            return Err(Error::bad_request(format!(
                "{digest:?} is not a sha512 in lower-case hexadecimal digits"
            )));
        }
        if !matches!(format, "qcow2" | "raw") {
            return Err(Error::bad_request(format!(
                "an image of format {format:?} cannot be booted here; convert it to qcow2 or raw"
            )));
        }
        let path = self.dir.join("base").join(format!("{digest}.{format}"));
        let cell = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            bases.entry(path.clone()).or_default().clone()
        };
        let made = cell.get_or_try_init(|| async {
            if !tokio::fs::try_exists(&path)
                .await
                .map_err(io("the image cache was not read"))?
            {
                self.pull(digest, &path, pull().await?).await?;
            }
            describe(&path, format).await
        });
        made.await.cloned()
    }

    async fn pull(&self, digest: &str, path: &Path, mut stream: ByteStream) -> Result<()> {
        let temporary = temporary_beside(path);
        let begun = temporary.clone();
        let mut state = blocking(move || {
            use std::os::unix::fs::OpenOptionsExt;
            let file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o444)
                .open(&begun);
            Ok((file.map_err(io("the image cache was not written"))?, Sha512::new()))
        })
        .await?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            while chunk.len() < CHUNK {
                match stream.read_buf(&mut chunk).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e) => {
                        return Err(Error::new(ErrorKind::Unavailable, "the image was not pulled whole").with_source(e));
                    }
                }
            }
            if chunk.is_empty() {
                break;
            }
            let (mut file, mut hash) = state;
            state = blocking(move || {
                hash.update(&chunk);
                file.write_all(&chunk)
                    .map_err(io("the image was not written to the cache"))?;
                Ok((file, hash))
            })
            .await?;
        }
        let (file, hash) = state;
        let (digest, path) = (digest.to_owned(), path.to_owned());
        blocking(move || {
            let got = maru_base::hex(&hash.finalize());
            if got != digest {
                let _ = std::fs::remove_file(&temporary);
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("the image was refused: its bytes have the digest {got}, not {digest}; upload it again"),
                ));
            }
            file.sync_all()
                .and_then(|()| std::fs::rename(&temporary, &path))
                .and_then(|()| sync_directory(&path))
                .map_err(io("the image was not kept in the cache"))
        })
        .await
    }

    /// Removes base images that neither `keep` names (digests) nor a server's disk lies on.
    ///
    /// The caller must not run it while it makes servers: a base that was fetched but has no overlay yet is unused too.
    ///
    /// # Errors
    /// `Internal` when the cache cannot be read or written.
    pub async fn prune(&self, keep: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        let mut used = BTreeSet::new();
        for server in self.servers()? {
            for disk in self.files(&server)? {
                used.extend(backing_of(&disk));
            }
        }
        let entries = std::fs::read_dir(self.dir.join("base")).map_err(io("the image cache was not read"))?;
        for path in entries.filter_map(|e| e.ok().map(|e| e.path())) {
            let digest = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            if keep.contains(digest) || used.contains(&path) || path.extension().is_some_and(|e| e == "part") {
                continue;
            }
            self.bases.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            std::fs::remove_file(&path).map_err(io("an unused image was not removed"))?;
            removed.push(path);
        }
        Ok(removed)
    }

    /// Where disk `name` of a server lies, or would.
    ///
    /// # Errors
    /// `BadRequest` when a name could leave the directory.
    pub fn path(&self, server: &str, name: &str, format: &str) -> Result<PathBuf> {
        Ok(self
            .dir
            .join("disks")
            .join(safe(server)?)
            .join(format!("{}.{}", safe(name)?, safe(format)?)))
    }

    fn folder(&self, server: &str) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = self.dir.join("disks").join(safe(server)?);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&folder)
            .map_err(io(format!("{} was not made", folder.display())))?;
        Ok(folder)
    }

    /// A server's overlay over `base`. One that is there already is kept as it is.
    ///
    /// `size` in bytes; 0 takes the image's own; it is rounded up to 512.
    ///
    /// # Errors
    /// `BadRequest` when `size` is less than the image needs.
    pub async fn overlay(&self, server: &str, name: &str, base: &BaseImage, size: u64) -> Result<DiskFile> {
        let wanted = if size == 0 {
            base.virtual_size
        } else {
            size.div_ceil(512) * 512
        };
        if wanted < base.virtual_size {
            return Err(Error::bad_request(format!(
                "the disk was refused: it has {wanted} bytes and the image needs {}; take a flavor with a larger disk",
                base.virtual_size
            )));
        }
        self.folder(server)?;
        let (path, beneath) = (self.path(server, name, "qcow2")?, base.clone());
        let disk = DiskFile {
            path: path.clone(),
            format: "qcow2".to_owned(),
            backing: Some(base.clone()),
        };
        blocking(move || {
            if !path.exists() {
                qcow2::create(
                    &path,
                    wanted,
                    Some(Beneath {
                        path: &beneath.path,
                        format: &beneath.format,
                    }),
                )?;
            }
            Ok(())
        })
        .await?;
        Ok(disk)
    }

    /// A server's empty disk of `size` bytes (rounded up to 512). One that is there already is kept as it is.
    ///
    /// # Errors
    /// `BadRequest` for a size of 0 or above 64 TiB.
    pub async fn blank(&self, server: &str, name: &str, size: u64) -> Result<DiskFile> {
        self.folder(server)?;
        let path = self.path(server, name, "qcow2")?;
        let disk = DiskFile {
            path: path.clone(),
            format: "qcow2".to_owned(),
            backing: None,
        };
        blocking(move || {
            if path.exists() {
                Ok(())
            } else {
                qcow2::create(&path, size.div_ceil(512) * 512, None)
            }
        })
        .await?;
        Ok(disk)
    }

    /// Read-only media made of these bytes (a config drive), in place of what was there.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub async fn media(&self, server: &str, name: &str, mut bytes: Vec<u8>) -> Result<DiskFile> {
        self.folder(server)?;
        let path = self.path(server, name, "raw")?;
        bytes.resize(bytes.len().div_ceil(512).max(1) * 512, 0);
        let disk = DiskFile {
            path: path.clone(),
            format: "raw".to_owned(),
            backing: None,
        };
        blocking(move || write_atomically(&path, &bytes).map_err(io("the config drive was not written"))).await?;
        Ok(disk)
    }

    /// Grows a disk of a server that is off to `size` bytes; never shrinks.
    ///
    /// # Errors
    /// `Internal` when qemu-img fails (the server may be running: use the hypervisor's resize then).
    pub async fn grow(&self, disk: &DiskFile, size: u64) -> Result<()> {
        // The header names its backing file with the format that we wrote, so nothing is probed here either.
        let size = (size.div_ceil(512) * 512).to_string();
        let path = disk.path.as_os_str();
        qemu_img(&[
            "resize".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            disk.format.as_ref(),
            path,
            size.as_ref(),
        ])
        .await
    }

    /// Removes one disk; one that is not there is fine.
    ///
    /// # Errors
    /// `Internal` when the file cannot be removed.
    pub async fn remove(&self, server: &str, name: &str) -> Result<()> {
        for format in ["qcow2", "raw"] {
            match std::fs::remove_file(self.path(server, name, format)?) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("a disk was not removed")(e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes all disks of a server; a server without disks is fine.
    ///
    /// # Errors
    /// `Internal` when the files cannot be removed.
    pub async fn remove_server(&self, server: &str) -> Result<()> {
        let folder = self.dir.join("disks").join(safe(server)?);
        blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("the disks were not removed")(e)),
            _ => Ok(()),
        })
        .await
    }

    /// Servers that have disks here.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be read.
    pub fn servers(&self) -> Result<Vec<String>> {
        names(&self.dir.join("disks"))
    }

    /// The files of a server's disks, those kept aside included.
    fn files(&self, server: &str) -> Result<Vec<PathBuf>> {
        let folder = self.dir.join("disks").join(safe(server)?);
        let mut files = Vec::new();
        for path in names(&folder)?.into_iter().map(|name| folder.join(name)) {
            if path.is_dir() {
                files.extend(names(&path)?.into_iter().map(|name| path.join(name)));
            } else {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Room where the disks are.
    ///
    /// # Errors
    /// `Internal` when the file system does not answer.
    pub fn room(&self) -> Result<Room> {
        let s = rustix::fs::statvfs(&self.dir).map_err(|e| io("the room on the disk was not read")(e.into()))?;
        Ok(Room {
            total: s.f_blocks.saturating_mul(s.f_frsize),
            free: s.f_bavail.saturating_mul(s.f_frsize),
        })
    }
}

/// Writes the contents of a disk of a server that is off as one qcow2 without backing file to `target`.
///
/// # Errors
/// `Internal` when qemu-img fails: the server runs (use the hypervisor's snapshot then), or the disk is full.
pub async fn flatten(disk: &DiskFile, target: &Path) -> Result<()> {
    let node = |path: &Path, format: &str| json!({ "driver": format, "file": { "driver": "file", "filename": path } });
    let mut source = node(&disk.path, &disk.format);
    if disk.format == "qcow2" {
        source["backing"] = match &disk.backing {
            Some(base) if base.format == "qcow2" => {
                let mut beneath = node(&base.path, "qcow2");
                beneath["backing"] = serde_json::Value::Null;
                beneath
            }
            Some(base) => node(&base.path, &base.format),
            None => serde_json::Value::Null,
        };
    }
    let source = format!("json:{source}");
    let temporary = temporary_beside(target);
    let out = temporary.as_os_str();
    qemu_img(&[
        "convert".as_ref(),
        "-q".as_ref(),
        "-O".as_ref(),
        "qcow2".as_ref(),
        source.as_ref(),
        out,
    ])
    .await?;
    let target = target.to_owned();
    blocking(move || {
        std::fs::File::open(&temporary)
            .and_then(|f| f.sync_all())
            .and_then(|()| std::fs::rename(&temporary, &target))
            .map_err(io("the snapshot was not kept"))
    })
    .await
}

pub(crate) async fn qemu_img(arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let output = tokio::process::Command::new("/usr/bin/prlimit")
        .arg(format!("--as={QEMU_IMG_MEMORY}"))
        .arg(format!("--cpu={QEMU_IMG_SECONDS}"))
        .arg("--")
        .arg("/usr/bin/qemu-img")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(QEMU_IMG_SECONDS), output)
        .await
        .map_err(|_| Error::unavailable(format!("qemu-img was stopped after {QEMU_IMG_SECONDS} s")))?
        .map_err(|e| Error::internal("qemu-img was not started; is qemu-utils installed?", e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::internal(
        "the work on a disk failed; the log has the reason",
        std::io::Error::other(said),
    ))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io(format!("{} was not read", folder.display()))(e)),
    }
}

/// The path that the header of an image of ours names as its backing file.
fn backing_of(path: &Path) -> Option<PathBuf> {
    use std::io::Read;
    use std::os::unix::ffi::OsStringExt;
    let mut head = vec![0; 4096];
    let read = std::fs::File::open(path).and_then(|mut f| f.read(&mut head)).ok()?;
    head.truncate(read);
    let number = |at: usize, len: usize| {
        head.get(at..at + len)
            .map(|b| b.iter().fold(0_usize, |n, x| n << 8 | *x as usize))
    };
    let (offset, length) = (number(8, 8)?, number(16, 4)?);
    let name = head
        .starts_with(b"QFI\xfb")
        .then(|| head.get(offset..offset.checked_add(length)?))??;
    (length > 0).then(|| PathBuf::from(std::ffi::OsString::from_vec(name.to_vec())))
}

/// What a whole base image holds. A qcow2 one is proven once more: what lies here is what QEMU will open.
async fn describe(path: &Path, format: &str) -> Result<BaseImage> {
    let file = std::fs::File::open(path).map_err(io("the cached image was not opened"))?;
    let size = if format == "qcow2" {
        let Proven { virtual_size, .. } = prove(file, "qcow2").await?;
        virtual_size
    } else {
        file.metadata().map_err(io("the cached image was not read"))?.len()
    };
    Ok(BaseImage {
        path: path.to_owned(),
        format: format.to_owned(),
        virtual_size: size.div_ceil(512) * 512,
    })
}
