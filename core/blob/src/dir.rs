//! The engine on a directory: `<two digits>/<digest>` for blobs, `tmp/` for what is being written.

use crate::{BlobReader, BlobWriter, Blobs, writer::failed};
use maru_base::{Error, ErrorKind, Result};
use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use tokio::task::spawn_blocking;

/// See the module.
#[derive(Debug, Clone)]
pub struct DirBlobs {
    folder: PathBuf,
    /// What [`Blobs::locations`] calls this machine.
    name: String,
}

fn not_found(digest: &str) -> Error {
    Error::not_found(format!("There is no blob {digest}."))
}

/// Whether a text is a digest: nothing else ever becomes part of a path.
fn is_digest(text: &str) -> bool {
    text.len() == 128 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Runs file work off the async threads.
async fn off<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("The disk could not be used.", e))?
        .map_err(|e| failed(doing, e))
}

/// Removes what uploads of an ended process left. An upload that runs holds a lock on its file.
fn sweep(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let path = entry?.path();
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            tracing::info!(path = %path.display(), "removing the rest of an upload that broke off");
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

impl DirBlobs {
    /// Opens (or makes) the directory and removes what broken uploads left.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(folder: impl Into<PathBuf>, name: impl Into<String>) -> Result<Self> {
        let folder = folder.into();
        let tmp = folder.join("tmp");
        off("opened", move || {
            fs::create_dir_all(&tmp)?;
            sweep(&tmp)
        })
        .await?;
        Ok(Self {
            folder,
            name: name.into(),
        })
    }

    fn place(&self, digest: &str) -> Option<PathBuf> {
        is_digest(digest).then(|| self.folder.join(&digest[..2]).join(digest))
    }
}

#[async_trait::async_trait]
impl Blobs for DirBlobs {
    async fn begin(&self) -> Result<BlobWriter> {
        let temporary = self.folder.join("tmp").join(maru_base::random::hex32());
        let folder = self.folder.clone();
        let path = temporary.clone();
        let file = off("stored", move || {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        });
        BlobWriter::new(file.await?, temporary, folder)
    }

    async fn open(&self, digest: &str, range: Option<Range<u64>>) -> Result<BlobReader> {
        let path = self.place(digest).ok_or_else(|| not_found(digest))?;
        let opened = off("read", move || match File::open(&path) {
            Ok(file) => file.metadata().map(|m| Some((file, m.len()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        });
        let (file, total) = opened.await?.ok_or_else(|| not_found(digest))?;
        let range = range.unwrap_or(0..total);
        if range.start > range.end || (range.start >= total && total > 0) {
            let text = format!("The range {}-{} is not within {total} bytes.", range.start, range.end);
            return Err(Error::new(ErrorKind::RangeNotSatisfiable, text));
        }
        Ok(BlobReader::new(
            file,
            total,
            range.start.min(total),
            range.end.min(total),
        ))
    }

    async fn size(&self, digest: &str) -> Result<Option<u64>> {
        let Some(path) = self.place(digest) else {
            return Ok(None);
        };
        let size = move || match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        off("read", size).await
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        self.place(digest).filter(|path| path.is_file())
    }

    async fn delete(&self, digest: &str) -> Result<()> {
        let Some(path) = self.place(digest) else { return Ok(()) };
        let delete = move || match fs::remove_file(&path) {
            // Durable, so that a blob whose last reference is gone does not come back after a crash.
            Ok(()) => path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        off("deleted", delete).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        let folder = self.folder.clone();
        let list = move || {
            let mut found = Vec::new();
            for part in fs::read_dir(folder)? {
                let part = part?;
                if part.file_name().len() == 2 && part.file_type()?.is_dir() {
                    for blob in fs::read_dir(part.path())? {
                        found.extend(blob?.file_name().into_string().ok().filter(|name| is_digest(name)));
                    }
                }
            }
            found.sort();
            Ok(found)
        };
        off("listed", list).await
    }

    async fn locations(&self, digest: &str) -> Result<Vec<String>> {
        Ok(self
            .size(digest)
            .await?
            .map(|_| self.name.clone())
            .into_iter()
            .collect())
    }
}
