//! A running upload. The file and both hashes have a thread each, because one core cannot do all three at the speed of
//! the disk; the async side only hands over chunks.

use bytes::Bytes;
use maru_base::{Error, ErrorKind, Result};
use md5::{Digest, Md5};
use sha2::Sha512;
use std::{
    fs::{self, File},
    io::{self, IoSlice, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

/// Chunks are gathered up to this size before they are handed over: a wake-up per network packet would cost more than
/// the hashing.
const BATCH: usize = 512 << 10;
/// Batches that may wait for the slowest thread.
const BACKLOG: usize = 8;
/// Bytes after which the disk is asked to begin, while more are coming.
const EARLY: usize = 32 << 20;

/// What a finished upload is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BlobInfo {
    /// The blob's name: the same as `sha512`.
    pub digest: String,
    /// MD5 in hexadecimal (Glance's `checksum`).
    pub md5: String,
    /// SHA-512 in hexadecimal (Glance's `os_hash_value`).
    pub sha512: String,
    /// Size in bytes.
    pub size: u64,
}

type Batch = Arc<[Bytes]>;

/// One of the threads: where its batches go and where its result comes from.
struct Lane<T> {
    batches: mpsc::Sender<Batch>,
    result: oneshot::Receiver<T>,
}

/// See [`crate::Blobs::begin`]. Dropped before [`BlobWriter::finish`] has returned, it leaves nothing.
pub struct BlobWriter {
    buffer: Vec<Bytes>,
    buffered: usize,
    size: u64,
    md5: Lane<String>,
    sha512: Lane<String>,
    file: Lane<io::Result<File>>,
    temporary: Temporary,
    folder: PathBuf,
}

/// Removes the file unless it has become a blob.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = fs::remove_file(path);
        }
    }
}

fn lane<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(mpsc::Receiver<Batch>) -> T + Send + 'static,
) -> io::Result<Lane<T>> {
    let (batches, received) = mpsc::channel(BACKLOG);
    let (done, result) = oneshot::channel();
    let run = move || {
        let _ = done.send(work(received));
    };
    std::thread::Builder::new().name(format!("blob-{name}")).spawn(run)?;
    Ok(Lane { batches, result })
}

fn hash<D: Digest>(mut batches: mpsc::Receiver<Batch>) -> String {
    let mut hasher = D::new();
    while let Some(batch) = batches.blocking_recv() {
        batch.iter().for_each(|chunk| hasher.update(chunk));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn store(mut file: File, mut batches: mpsc::Receiver<Batch>) -> io::Result<File> {
    let (sync, asked) = std::sync::mpsc::sync_channel::<()>(1);
    let early = file.try_clone()?;
    // What is on the disk already need not be waited for at the end. Its error is one of the upload: the kernel tells it once.
    let syncer = std::thread::Builder::new()
        .name("blob-sync".to_owned())
        .spawn(move || asked.iter().try_for_each(|()| early.sync_data()))?;
    let mut unsynced = 0;
    while let Some(batch) = batches.blocking_recv() {
        let mut slices: Vec<_> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    unsynced += n;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if unsynced >= EARLY && sync.try_send(()).is_ok() {
            unsynced = 0;
        }
    }
    drop(sync);
    if let Ok(synced) = syncer.join() {
        synced?;
    }
    file.sync_all()?;
    Ok(file)
}

/// What a failed write means to the user.
pub(crate) fn failed(doing: &str, e: io::Error) -> Error {
    let full = matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let kind = if full { ErrorKind::TooLarge } else { ErrorKind::Internal };
    let why = if full {
        "There is not enough disk space."
    } else {
        "The disk reported an error."
    };
    Error::new(kind, format!("The data could not be {doing}. {why}")).with_source(e)
}

impl BlobWriter {
    /// An upload into `temporary`, which is open as `file`; it becomes `folder/<2 digits>/<digest>`.
    pub(crate) fn new(file: File, temporary: PathBuf, folder: PathBuf) -> Result<Self> {
        let temporary = Temporary(Some(temporary));
        let start = || -> io::Result<_> {
            Ok((
                lane("md5", hash::<Md5>)?,
                lane("sha512", hash::<Sha512>)?,
                lane("file", move |b| store(file, b))?,
            ))
        };
        let (md5, sha512, file) = start().map_err(|e| failed("stored", e))?;
        Ok(Self {
            buffer: Vec::new(),
            buffered: 0,
            size: 0,
            md5,
            sha512,
            file,
            temporary,
            folder,
        })
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes; waits when the disk or the hashes are behind.
    ///
    /// # Errors
    /// When they cannot be written; the upload is over then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<()> {
        // Before the chunk is taken, so that a dropped future has taken nothing.
        if self.buffered >= BATCH {
            self.hand_over().await?;
        }
        self.size += chunk.len() as u64;
        self.buffered += chunk.len();
        if !chunk.is_empty() {
            self.buffer.push(chunk);
        }
        Ok(())
    }

    /// Gives the buffer to all three threads, or to none when dropped on the way.
    async fn hand_over(&mut self) -> Result<()> {
        let room = tokio::join!(
            self.file.batches.reserve(),
            self.md5.batches.reserve(),
            self.sha512.batches.reserve()
        );
        let (Ok(file), Ok(md5), Ok(sha512)) = room else {
            // Only the file's thread can end early, and then it has said why.
            return Err(match (&mut self.file.result).await {
                Ok(Err(e)) => failed("stored", e),
                _ => Error::new(ErrorKind::Internal, "The upload broke off."),
            });
        };
        let batch: Batch = std::mem::take(&mut self.buffer).into();
        self.buffered = 0;
        file.send(Arc::clone(&batch));
        md5.send(Arc::clone(&batch));
        sha512.send(batch);
        Ok(())
    }

    /// Makes the bytes durable under their digest. A blob of the same content may be there: then it stays.
    ///
    /// # Errors
    /// When they cannot be written; nothing is left then.
    pub async fn finish(self) -> Result<BlobInfo> {
        self.seal().await?.place().await
    }

    /// Ends the upload: the bytes are durable and their digest is known, but they are no blob yet.
    ///
    /// # Errors
    /// When they cannot be written; nothing is left then.
    pub async fn seal(mut self) -> Result<SealedBlob> {
        self.hand_over().await?;
        let Self {
            md5,
            sha512,
            file,
            temporary,
            folder,
            size,
            ..
        } = self;
        drop((md5.batches, sha512.batches, file.batches));
        let lost = |e| Error::internal("The upload broke off.", e);
        let (file, md5, sha512) = tokio::join!(file.result, md5.result, sha512.result);
        let file = file.map_err(lost)?.map_err(|e| failed("stored", e))?;
        let digest = sha512.map_err(lost)?;
        let info = BlobInfo {
            md5: md5.map_err(lost)?,
            sha512: digest.clone(),
            digest,
            size,
        };
        Ok(SealedBlob {
            info,
            file,
            temporary,
            folder,
        })
    }
}

/// An upload that has ended: what it is can be looked into before it becomes a blob. Dropped, it leaves nothing.
pub struct SealedBlob {
    info: BlobInfo,
    file: File,
    temporary: Temporary,
    folder: PathBuf,
}

impl SealedBlob {
    /// What it will be.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// Where its bytes lie now, on this machine; to be read, not written.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Gives the bytes their name, durably. A blob of the same content may be there: then it stays.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left then.
    pub async fn place(self) -> Result<BlobInfo> {
        let Self {
            info,
            file,
            temporary,
            folder,
        } = self;
        let digest = info.digest.clone();
        let place = move || place(file, temporary, &folder.join(&digest[..2]), &digest);
        spawn_blocking(place)
            .await
            .map_err(|e| Error::internal("The upload broke off.", e))?
            .map_err(|e| failed("stored", e))?;
        Ok(info)
    }
}

/// Renames a synced file to its name. The rename is durable when this returns.
fn place(file: File, mut temporary: Temporary, folder: &PathBuf, digest: &str) -> io::Result<()> {
    let Some(from) = temporary.0.clone() else { return Ok(()) };
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)?;
    // Replacing a blob of the same content changes nothing for those who read it.
    fs::rename(from, folder.join(digest))?;
    temporary.0 = None;
    File::open(folder)?.sync_all()
}
