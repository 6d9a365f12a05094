//! Backups that hold only what changed: layers of clusters over a whole one.
//!
//! A full backup is a qcow2 as the node gave it (QEMU, `docs/interop/qcow2.txt`). An incremental one is a file of its own:
//!
//! ```text
//! "MARUDLT1"  8 bytes
//! cluster     u64 big-endian, bytes of a cluster: 65,536
//! size        u64, bytes of the disk
//! count       u64, number of entries
//! entries     count × (u64 index of the cluster, u64: 1 its bytes follow, 0 it reads as zeroes), by index
//! data        the bytes of the entries with 1, in their order, a cluster each
//! ```
//!
//! [`Chain`] reads a full backup and the layers over it as one disk; [`Chain::changes`] writes what another disk has
//! differently, [`Chain::whole`] writes the disk as a qcow2 again. All work is on files of this machine, in a blocking thread;
//! a header is checked before anything is read by it, and nothing in it makes more memory than the file has bytes.

use bytes::Bytes;
use maru_base::{Error, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes of a cluster: what the hypervisor's tools make by default.
const CLUSTER: u64 = 65_536;
const MAGIC: &[u8; 8] = b"MARUDLT1";
/// Where a table's entry points to, without its flags.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Entries of a table of one cluster.
const ENTRIES: u64 = CLUSTER / 8;

fn broken(why: &str) -> Error {
    Error::internal("a backup cannot be read", io::Error::other(why.to_owned()))
}

fn failed(e: io::Error) -> Error {
    Error::internal("a backup cannot be read", e)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// One file: where each cluster is in it that it says something of; `None` where it says that it reads as zeroes.
struct Layer {
    file: File,
    size: u64,
    clusters: BTreeMap<u64, Option<u64>>,
}

impl Layer {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut head = [0_u8; 104];
        let short = usize::try_from(length.min(104)).unwrap_or(104);
        file.read_exact_at(&mut head[..short], 0).map_err(failed)?;
        if head.starts_with(MAGIC) {
            Self::of_delta(file, length, &head)
        } else {
            Self::of_qcow2(file, length, &head)
        }
    }

    fn of_delta(file: File, length: u64, head: &[u8]) -> Result<Self> {
        let (cluster, size, count) = (word(head, 8), word(head, 16), word(head, 24));
        if cluster != CLUSTER || count > length / 16 {
            return Err(broken("the head of a layer is damaged"));
        }
        let bytes = usize::try_from(count * 16).map_err(|_| broken("a layer is too large"))?;
        let mut table = vec![0; bytes];
        file.read_exact_at(&mut table, 32).map_err(failed)?;
        let mut next = 32 + count * 16;
        let mut clusters = BTreeMap::new();
        for entry in table.chunks_exact(16) {
            let there = word(entry, 8) == 1;
            clusters.insert(word(entry, 0), there.then_some(next));
            if there {
                next += CLUSTER;
            }
        }
        if next > length {
            return Err(broken("a layer is cut off"));
        }
        Ok(Self { file, size, clusters })
    }

    fn of_qcow2(file: File, length: u64, head: &[u8]) -> Result<Self> {
        let version = half(head, 4);
        if !head.starts_with(b"QFI\xfb") || !matches!(version, 2 | 3) {
            return Err(broken("it is neither a layer nor a qcow2"));
        }
        if word(head, 8) != 0 || half(head, 32) != 0 || (version == 3 && word(head, 72) & !1 != 0) {
            return Err(broken(
                "it is a qcow2 with a backing file, encryption or features that are not known here",
            ));
        }
        if 1_u64.checked_shl(half(head, 20)) != Some(CLUSTER) {
            return Err(broken("its clusters are not of 65,536 bytes"));
        }
        let (size, l1_size, l1_at) = (word(head, 24), u64::from(half(head, 36)), word(head, 40));
        if l1_size > length / 8 {
            return Err(broken("its table is larger than the file"));
        }
        let table = |at: u64, entries: u64| -> Result<Vec<u64>> {
            let bytes = usize::try_from(entries * 8).map_err(|_| broken("a table is too large"))?;
            let mut raw = vec![0; bytes];
            file.read_exact_at(&mut raw, at).map_err(failed)?;
            Ok(raw.chunks_exact(8).map(|e| word(e, 0)).collect())
        };
        let mut clusters = BTreeMap::new();
        for (n, l1) in table(l1_at, l1_size)?.into_iter().enumerate() {
            if l1 & OFFSET == 0 {
                continue;
            }
            for (m, l2) in table(l1 & OFFSET, ENTRIES)?.into_iter().enumerate() {
                if l2 & COMPRESSED != 0 {
                    return Err(broken("it has compressed clusters"));
                }
                // The lowest bit says that it reads as zeroes, whatever is there.
                if l2 & OFFSET != 0 && l2 & 1 == 0 {
                    clusters.insert(n as u64 * ENTRIES + m as u64, Some(l2 & OFFSET));
                }
            }
        }
        Ok(Self { file, size, clusters })
    }

    /// Bytes of a cluster; behind the file's end there are zeroes.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], at + done as u64).map_err(failed)? {
                0 => break,
                n => done += n,
            }
        }
        into[done..].fill(0);
        Ok(())
    }
}

/// A full backup and the layers over it, as one disk.
pub(crate) struct Chain {
    layers: Vec<Layer>,
    /// Of each cluster that is not zeroes: the layer and where in it.
    clusters: BTreeMap<u64, (usize, u64)>,
}

/// Where written bytes go; `Err` when nobody wants more.
type Sink<'a> = &'a mut dyn FnMut(Bytes) -> Result<()>;

impl Chain {
    /// Opens the files from the full one to the newest.
    ///
    /// # Errors
    /// `Internal` when a file is missing or damaged.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let layers: Vec<Layer> = paths.iter().map(|p| Layer::open(p)).collect::<Result<_>>()?;
        let mut clusters = BTreeMap::new();
        for (n, layer) in layers.iter().enumerate() {
            for (index, at) in &layer.clusters {
                match at {
                    Some(at) => clusters.insert(*index, (n, *at)),
                    None => clusters.remove(index),
                };
            }
        }
        Ok(Self { layers, clusters })
    }

    fn size(&self) -> u64 {
        self.layers.last().map_or(0, |l| l.size)
    }

    /// A cluster's bytes; `false` when it reads as zeroes.
    fn read(&self, index: u64, into: &mut [u8]) -> Result<bool> {
        let Some((layer, at)) = self.clusters.get(&index) else {
            into.fill(0);
            return Ok(false);
        };
        self.layers[*layer].read(*at, into)?;
        Ok(into.iter().any(|b| *b != 0))
    }

    /// Writes what `new` has differently as a layer over this.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read; what the sink refuses.
    pub(crate) fn changes(&self, new: &Self, sink: Sink<'_>) -> Result<()> {
        let (mut ours, mut theirs) = (vec![0; CLUSTER as usize], vec![0; CLUSTER as usize]);
        let mut entries: Vec<(u64, bool)> = Vec::new();
        let mut indexes: Vec<u64> = self.clusters.keys().chain(new.clusters.keys()).copied().collect();
        indexes.sort_unstable();
        indexes.dedup();
        for index in indexes {
            self.read(index, &mut ours)?;
            let there = new.read(index, &mut theirs)?;
            if ours != theirs {
                entries.push((index, there));
            }
        }
        let mut head = Vec::with_capacity(32 + entries.len() * 16);
        head.extend_from_slice(MAGIC);
        for n in [CLUSTER, new.size(), entries.len() as u64] {
            head.extend_from_slice(&n.to_be_bytes());
        }
        for (index, there) in &entries {
            head.extend_from_slice(&index.to_be_bytes());
            head.extend_from_slice(&u64::from(*there).to_be_bytes());
        }
        sink(head.into())?;
        for (index, _) in entries.iter().filter(|(_, there)| *there) {
            new.read(*index, &mut theirs)?;
            sink(Bytes::copy_from_slice(&theirs))?;
        }
        Ok(())
    }

    /// Writes the disk as one qcow2 without backing file: header, reference counts, tables, then the clusters.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read; what the sink refuses.
    pub(crate) fn whole(&self, sink: Sink<'_>) -> Result<()> {
        let size = self.size();
        // A cluster behind the disk's end (it never shrinks, but who knows) is left out.
        let data: Vec<u64> = self.clusters.keys().copied().filter(|i| i * CLUSTER < size).collect();
        let mut tables: Vec<u64> = data.iter().map(|i| i / ENTRIES).collect();
        tables.dedup();
        let l1_size = size.div_ceil(CLUSTER * ENTRIES).max(1);
        let l1_clusters = (l1_size * 8).div_ceil(CLUSTER);
        let fixed = 1 + l1_clusters + tables.len() as u64 + data.len() as u64;
        // Reference counts of 16 bits count themselves, too.
        let (mut blocks, mut block_tables) = (1_u64, 1_u64);
        loop {
            let total = fixed + blocks + block_tables;
            let (want, want_tables) = (total.div_ceil(CLUSTER / 2), blocks.div_ceil(ENTRIES));
            if want == blocks && want_tables == block_tables {
                break;
            }
            (blocks, block_tables) = (want.max(blocks), want_tables.max(block_tables));
        }
        let total = fixed + blocks + block_tables;
        let l1_at = 1 + block_tables + blocks;
        let l2_at = l1_at + l1_clusters;
        let data_at = l2_at + tables.len() as u64;

        let mut header = vec![0_u8; CLUSTER as usize];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[24..32].copy_from_slice(&size.to_be_bytes());
        let l1_entries = u32::try_from(l1_size).map_err(|_| broken("the disk is too large"))?;
        header[36..40].copy_from_slice(&l1_entries.to_be_bytes());
        header[40..48].copy_from_slice(&(l1_at * CLUSTER).to_be_bytes());
        header[48..56].copy_from_slice(&CLUSTER.to_be_bytes());
        let count = u32::try_from(block_tables).map_err(|_| broken("the disk is too large"))?;
        header[56..60].copy_from_slice(&count.to_be_bytes());
        header[96..100].copy_from_slice(&4_u32.to_be_bytes());
        header[100..104].copy_from_slice(&104_u32.to_be_bytes());
        sink(header.into())?;

        let block_at = |n: u64| ((1 + block_tables + n) * CLUSTER, n < blocks);
        for chunk in 0..block_tables {
            let first = chunk * ENTRIES;
            sink(table((first..first + ENTRIES).map(|n| match block_at(n) {
                (at, true) => at,
                _ => 0,
            })))?;
        }
        for block in 0..blocks {
            let mut counts = vec![0_u8; CLUSTER as usize];
            let used = total.saturating_sub(block * (CLUSTER / 2)).min(CLUSTER / 2);
            for n in 0..used {
                counts[n as usize * 2 + 1] = 1;
            }
            sink(counts.into())?;
        }
        for chunk in 0..l1_clusters {
            let first = chunk * ENTRIES;
            sink(table((first..first + ENTRIES).map(|n| {
                tables
                    .binary_search(&n)
                    .map_or(0, |at| ((l2_at + at as u64) * CLUSTER) | COPIED)
            })))?;
        }
        for l1 in &tables {
            let first = l1 * ENTRIES;
            sink(table((first..first + ENTRIES).map(|n| {
                data.binary_search(&n)
                    .map_or(0, |at| ((data_at + at as u64) * CLUSTER) | COPIED)
            })))?;
        }
        let mut bytes = vec![0; CLUSTER as usize];
        for index in data {
            self.read(index, &mut bytes)?;
            sink(Bytes::copy_from_slice(&bytes))?;
        }
        Ok(())
    }
}

/// A cluster of table entries.
fn table(entries: impl Iterator<Item = u64>) -> Bytes {
    let mut out = Vec::with_capacity(CLUSTER as usize);
    for entry in entries {
        out.extend_from_slice(&entry.to_be_bytes());
    }
    out.into()
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
