//! Writes empty qcow2 images: blank disks and overlays.
//!
//! We write these few clusters ourselves instead of running qemu-img: a header that we wrote is a header whose every
//! field we know, and a disk costs one small write instead of a process. Format: QEMU's docs/interop/qcow2.rst.
//!
//! ```text
//! cluster 0       header, extension "backing format", end mark, name of the backing file
//! cluster 1       reference count table: one entry, → cluster 2
//! cluster 2       reference count block: 16-bit counts, 1 for every cluster below
//! cluster 3 …     L1 table, all zero: nothing is allocated yet
//! ```

use maru_base::{Error, Result};
use std::io::Write;
use std::path::Path;

/// 64 KiB: QEMU's default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Bytes of disk that one L1 entry maps: an L2 table of one cluster, 8 bytes an entry, a cluster each.
const PER_L1_ENTRY: u64 = (CLUSTER as u64 / 8) << CLUSTER_BITS;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const HEADER_LENGTH: u32 = 104;
/// Longest name of a backing file that the format allows.
const MAX_NAME: usize = 1023;

/// What lies beneath a new overlay.
#[derive(Debug, Clone, Copy)]
pub struct Beneath<'a> {
    /// The backing file.
    pub path: &'a Path,
    /// Its format, `qcow2` or `raw`: written down, so that no reader of this header ever guesses.
    pub format: &'a str,
}

/// The bytes of an empty image that holds a disk of `size` bytes.
///
/// # Errors
/// `BadRequest` when the size is 0, not a multiple of 512 or above 64 TiB, or the name of the backing file is too long.
pub fn empty(size: u64, beneath: Option<Beneath<'_>>) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    if size == 0 || !size.is_multiple_of(512) || size > crate::inspect::MAX_VIRTUAL_SIZE {
        return Err(Error::bad_request(format!(
            "a disk of {size} bytes cannot be made: the size must be a multiple of 512, above 0 and at most 64 TiB"
        )));
    }
    let name = beneath.map_or(&b""[..], |b| b.path.as_os_str().as_bytes());
    let format = beneath.map_or("", |b| b.format);
    if name.len() > MAX_NAME || beneath.is_some() && !matches!(format, "qcow2" | "raw") {
        return Err(Error::bad_request(
            "the overlay cannot be made: its backing file must be qcow2 or raw, with a path of at most 1023 bytes",
        ));
    }
    let l1_entries = size.div_ceil(PER_L1_ENTRY);
    let l1_clusters = usize::try_from((l1_entries * 8).div_ceil(CLUSTER as u64)).unwrap_or(usize::MAX);
    let clusters = 3 + l1_clusters;
    let mut image = vec![0_u8; clusters * CLUSTER];

    let mut header: Vec<u8> = Vec::with_capacity(512);
    let mut extensions: Vec<u8> = Vec::new();
    if beneath.is_some() {
        extensions.extend(BACKING_FORMAT.to_be_bytes());
        extensions.extend((format.len() as u32).to_be_bytes());
        extensions.extend(format.as_bytes());
        extensions.resize(extensions.len().div_ceil(8) * 8, 0);
    }
    extensions.extend([0; 8]);
    let name_offset = if name.is_empty() {
        0
    } else {
        u64::from(HEADER_LENGTH) + extensions.len() as u64
    };
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    header.extend(name_offset.to_be_bytes());
    header.extend((name.len() as u32).to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // not encrypted
    header.extend((l1_entries as u32).to_be_bytes());
    header.extend((3 * CLUSTER as u64).to_be_bytes()); // L1 table
    header.extend((CLUSTER as u64).to_be_bytes()); // reference count table
    header.extend(1_u32.to_be_bytes()); // of one cluster
    header.extend(0_u32.to_be_bytes()); // no internal snapshots
    header.extend(0_u64.to_be_bytes());
    header.extend(0_u64.to_be_bytes()); // incompatible features
    header.extend(0_u64.to_be_bytes()); // compatible features
    header.extend(0_u64.to_be_bytes()); // autoclear features
    header.extend(4_u32.to_be_bytes()); // reference counts of 2^4 bits
    header.extend(HEADER_LENGTH.to_be_bytes());
    header.extend(extensions);
    header.extend(name);

    image[..header.len()].copy_from_slice(&header);
    image[CLUSTER..CLUSTER + 8].copy_from_slice(&(2 * CLUSTER as u64).to_be_bytes());
    for counted in 0..clusters {
        let at = 2 * CLUSTER + counted * 2;
        image[at..at + 2].copy_from_slice(&1_u16.to_be_bytes());
    }
    Ok(image)
}

/// Writes an empty image to a new file, in place of what is there, in one step: complete or not at all.
///
/// # Errors
/// As [`empty`], and `Internal` when the file cannot be written.
pub fn create(path: &Path, size: u64, beneath: Option<Beneath<'_>>) -> Result<()> {
    let image = empty(size, beneath)?;
    write_atomically(path, &image).map_err(|e| Error::internal(format!("the disk {} was not made", path.display()), e))
}

/// Temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = temporary_beside(path);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path)
}

/// Makes a rename in `path`'s directory durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// `<path>.part`: half-written things have this name and are swept at the next start.
pub(crate) fn temporary_beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
