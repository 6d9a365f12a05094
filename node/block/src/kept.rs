//! Disks put aside while a server tries another size, and brought to that size.
//!
//! ```text
//! <dir>/disks/<server>/kept-<number>/<name>.qcow2   as they were; the folder appears by rename when it is whole
//! ```
//!
//! The server is off during all of this, so a file is a whole disk.

use crate::disks::{DiskFile, Disks, blocking, io, safe};
use crate::qcow2::sync_directory;
use maru_base::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

const PREFIX: &str = "kept-";
/// The one disk that is made anew when its size changes: nothing on it is worth keeping.
const SWAP: &str = "swap";

/// Paths in a folder; none when it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(found) => Ok(found.filter_map(|e| e.ok().map(|e| e.path())).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io(format!("{} was not read", folder.display()))(e)),
    }
}

fn is_disk(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "qcow2") && path.is_file()
}

/// Bytes of the disk in a qcow2 file: its header's field `size`.
fn virtual_size(path: &Path) -> Result<u64> {
    let mut head = [0_u8; 32];
    std::fs::File::open(path)
        .and_then(|mut f| f.read_exact(&mut head))
        .map_err(io("a disk's size was not read"))?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(Error::internal(
            "a disk's size was not read",
            std::io::Error::other(format!("{} has no qcow2 header", path.display())),
        ));
    }
    Ok(head[24..].iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

impl Disks {
    fn folder_of(&self, server: &str) -> Result<PathBuf> {
        Ok(self.dir.join("disks").join(safe(server)?))
    }

    /// Copies a server's disks aside under `number`, all or none; what is there under it already is kept as it is.
    ///
    /// # Errors
    /// `Unavailable` when the disk is full, `Internal` when it cannot be read or written.
    pub async fn keep(&self, server: &str, number: u64) -> Result<()> {
        let folder = self.folder_of(server)?;
        blocking(move || {
            let kept = folder.join(format!("{PREFIX}{number}"));
            if kept.exists() {
                return Ok(());
            }
            let half = folder.join(format!("{PREFIX}{number}.part"));
            let copy = || {
                if half.exists() {
                    std::fs::remove_dir_all(&half)?;
                }
                std::fs::create_dir(&half)?;
                for disk in std::fs::read_dir(&folder)?.filter_map(|e| e.ok().map(|e| e.path())) {
                    if let Some(name) = disk.file_name().filter(|_| is_disk(&disk)) {
                        let copy = half.join(name);
                        std::fs::copy(&disk, &copy)?;
                        std::fs::File::open(&copy)?.sync_all()?;
                    }
                }
                std::fs::rename(&half, &kept)?;
                sync_directory(&kept)
            };
            let copied = copy();
            if copied.is_err() {
                let _ = std::fs::remove_dir_all(&half);
            }
            copied.map_err(io("the disks were not kept aside"))
        })
        .await
    }

    /// Makes the disks that are kept under `number` the server's disks again, and removes those that it did not have then. Nothing
    /// kept leaves them as they are.
    ///
    /// # Errors
    /// `Internal` when a file cannot be moved.
    pub async fn restore(&self, server: &str, number: u64) -> Result<()> {
        let folder = self.folder_of(server)?;
        blocking(move || {
            let kept = folder.join(format!("{PREFIX}{number}"));
            // Renamed one by one; the mark says which were there, whatever a crash left of it.
            let mark = kept.join("names");
            if !kept.exists() {
                return Ok(());
            }
            let names = match std::fs::read_to_string(&mark) {
                Ok(names) => names,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    let names: Vec<String> = entries(&kept)?
                        .iter()
                        .filter_map(|p| p.file_name()?.to_str().map(str::to_owned))
                        .collect();
                    let names = names.join("\n");
                    crate::qcow2::write_atomically(&mark, names.as_bytes())
                        .map_err(io("the disks were not put back"))?;
                    names
                }
                Err(e) => return Err(io("the disks were not put back")(e)),
            };
            let names: Vec<&str> = names.lines().collect();
            for disk in entries(&folder)?.iter().filter(|p| is_disk(p)) {
                let known = disk
                    .file_name()
                    .and_then(|n| n.to_str())
                    .is_some_and(|n| names.contains(&n));
                if !known {
                    std::fs::remove_file(disk).map_err(io("a disk was not removed"))?;
                }
            }
            for name in names {
                match std::fs::rename(kept.join(name), folder.join(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("a disk was not put back")(e)),
                    _ => {}
                }
            }
            sync_directory(&kept).map_err(io("the disks were not put back"))
        })
        .await
    }

    /// Lets go of all that was kept aside of a server.
    ///
    /// # Errors
    /// `Internal` when the files cannot be removed.
    pub async fn drop_kept(&self, server: &str) -> Result<()> {
        let folder = self.folder_of(server)?;
        blocking(move || {
            for path in entries(&folder)? {
                let kept = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .is_some_and(|n| n.starts_with(PREFIX));
                if kept && path.is_dir() {
                    std::fs::remove_dir_all(&path).map_err(io("the disks kept aside were not removed"))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Brings disk `name` of a server that is off to `size` bytes; 0 leaves it, and so does a size that it has already. It never
    /// shrinks, but for swap, which is removed when its size is another, to be made anew.
    ///
    /// # Errors
    /// `Internal` when qemu-img fails or the header cannot be read.
    pub async fn fit(&self, server: &str, name: &str, size: u64) -> Result<()> {
        let path = self.path(server, name, "qcow2")?;
        if size == 0 || !path.exists() {
            return Ok(());
        }
        let has = virtual_size(&path)?;
        let size = size.div_ceil(512) * 512;
        if name == SWAP && has != size {
            return self.remove(server, name).await;
        }
        if has >= size {
            return Ok(());
        }
        let disk = DiskFile {
            path,
            format: "qcow2".to_owned(),
            backing: None,
        };
        self.grow(&disk, size).await
    }
}
