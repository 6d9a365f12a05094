//! A disk that fails as disks do, for the embedded engine: torn writes, failed syncs, no room.
//!
//! Writes since the last sync are only remembered; a power cut keeps a random part of them, cut anywhere.

use redb::StorageBackend;
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

type Pending = (u64, Vec<u8>);

#[derive(Debug, Default)]
struct Platter {
    /// What is surely on the disk.
    durable: Vec<u8>,
    /// What the operating system shows.
    visible: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<Pending>,
}

/// A disk that outlives the engine opened over it. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// The sync with this number (counting down) fails; 0: none.
    sync_fails_in: Arc<AtomicU64>,
    /// The write with this number (counting down) stops half way, and so does all after it; 0: none.
    write_tears_in: Arc<AtomicU64>,
    /// Bytes that fit; 0: any number.
    room: Arc<AtomicU64>,
}

impl Disk {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Makes the `n`th sync from now fail.
    pub fn fail_sync(&self, n: u64) {
        self.sync_fails_in.store(n, Ordering::SeqCst);
    }
    /// Makes the `n`th write from now stop half way.
    pub fn tear_write(&self, n: u64) {
        self.write_tears_in.store(n, Ordering::SeqCst);
    }
    /// Lets at most `bytes` fit.
    pub fn fill_at(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
    }
    /// How much is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().visible.len() as u64
    }
    /// The power goes: of what was not synced, a random selection survives, one of them torn. The faults are over.
    pub fn power_cut(&self) {
        let mut platter = self.lock();
        let mut after = std::mem::take(&mut platter.durable);
        let below = maru_base::random::below;
        for (at, mut data) in std::mem::take(&mut platter.pending) {
            match below(3) {
                0 => continue,
                1 => data.truncate(usize::try_from(below(data.len() as u64 + 1)).unwrap_or(0)),
                _ => {}
            }
            write(&mut after, at, &data);
        }
        // A file's length is kept as it was last shown: the file system's journal had it.
        after.resize(platter.visible.len().max(after.len()), 0);
        platter.durable.clone_from(&after);
        platter.visible = after;
        drop(platter);
        for fault in [&self.sync_fails_in, &self.write_tears_in, &self.room] {
            fault.store(0, Ordering::SeqCst);
        }
    }
    /// A handle that redb opens.
    #[must_use]
    pub fn backend(&self) -> impl StorageBackend + use<> {
        self.clone()
    }
}

fn write(disk: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    if disk.len() < at + data.len() {
        disk.resize(at + data.len(), 0);
    }
    disk[at..at + data.len()].copy_from_slice(data);
}

/// Counts down; `true` when it reaches its mark.
fn due(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then(|| n - 1)) == Ok(1)
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.used())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.lock();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match at.checked_add(out.len()).and_then(|end| platter.visible.get(at..end)) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        if room > 0 && len > room {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut platter = self.lock();
        platter.visible.resize(len, 0);
        platter.durable.resize(len, 0);
        // What is cut off is gone from the pending writes too, or a power cut would bring it back.
        platter.pending.retain_mut(|(at, data)| {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            data.truncate(len.saturating_sub(at));
            !data.is_empty()
        });
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        if due(&self.sync_fails_in) {
            return Err(io::Error::other("injected: the sync failed"));
        }
        let mut platter = self.lock();
        platter.durable = platter.visible.clone();
        platter.pending.clear();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let torn = due(&self.write_tears_in);
        let data = if torn { &data[..data.len() / 2] } else { data };
        let mut platter = self.lock();
        write(&mut platter.visible, offset, data);
        platter.pending.push((offset, data.to_vec()));
        if torn {
            Err(io::Error::other("injected: the write stopped half way"))
        } else {
            Ok(())
        }
    }
}
