#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
use super::*;
use std::{
    io::{Seek, SeekFrom, Write},
    process::Command,
};

const MIB: u64 = 1 << 20;

fn qemu(args: &[&str]) -> bool {
    match Command::new("qemu-img").args(args).output() {
        Ok(out) => {
            assert!(
                out.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            true
        }
        Err(e) => {
            println!("SKIPPED: qemu-img is not there: {e}");
            false
        }
    }
}

struct Disk {
    dir: tempfile::TempDir,
    raw: PathBuf,
}

impl Disk {
    fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        File::create(&raw).unwrap().set_len(size).unwrap();
        Self { dir, raw }
    }
    fn write(&self, at: u64, byte: u8, length: usize) {
        let mut file = File::options().write(true).open(&self.raw).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&vec![byte; length]).unwrap();
    }
    /// The disk as the node gives it.
    fn given(&self, name: &str) -> Option<PathBuf> {
        let to = self.dir.path().join(name);
        let (raw, out) = (self.raw.to_str().unwrap(), to.to_str().unwrap());
        qemu(&["convert", "-f", "raw", "-O", "qcow2", raw, out]).then_some(to)
    }
    fn save(&self, name: &str, write: impl FnOnce(Sink<'_>) -> Result<()>) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        write(&mut |bytes| {
            file.write_all(&bytes).unwrap();
            Ok(())
        })
        .unwrap();
        path
    }
    /// Whether a chain is a qcow2 without fault that reads as this disk does now.
    fn is(&self, chain: &[PathBuf]) {
        let whole = self.save("whole", |sink| Chain::open(chain).unwrap().whole(sink));
        let (whole, raw) = (whole.to_str().unwrap(), self.raw.to_str().unwrap());
        qemu(&["check", "-f", "qcow2", whole]);
        qemu(&["compare", "-f", "qcow2", "-F", "raw", whole, raw]);
    }
}

#[test]
fn a_chain_reads_as_the_disk_did_each_time() {
    let disk = Disk::new(3 * 1024 * MIB);
    disk.write(5 * MIB, 1, 300_000);
    disk.write(2_000 * MIB, 2, 4_096);
    let Some(full) = disk.given("full") else { return };
    disk.is(std::slice::from_ref(&full));
    // A part changes, a part goes, a part comes.
    disk.write(5 * MIB + 70_000, 3, 10);
    disk.write(2_000 * MIB, 0, 4_096);
    disk.write(2_999 * MIB, 4, 100_000);
    let second = disk.given("second").unwrap();
    let base = Chain::open(std::slice::from_ref(&full)).unwrap();
    let new = Chain::open(std::slice::from_ref(&second)).unwrap();
    let delta = disk.save("delta", |sink| base.changes(&new, sink));
    disk.is(&[full.clone(), delta.clone()]);
    // Two or three clusters and their entries, not the disk.
    assert!(delta.metadata().unwrap().len() < 5 * CLUSTER);
    // It grows, and a layer is over the layer.
    File::options()
        .write(true)
        .open(&disk.raw)
        .unwrap()
        .set_len(4 * 1024 * MIB)
        .unwrap();
    disk.write(3_500 * MIB, 5, 200_000);
    let third = disk.given("third").unwrap();
    let base = Chain::open(&[full.clone(), delta.clone()]).unwrap();
    let new = Chain::open(std::slice::from_ref(&third)).unwrap();
    let newest = disk.save("newest", |sink| base.changes(&new, sink));
    disk.is(&[full, delta, newest]);
}

#[test]
fn nothing_changed_is_next_to_nothing() {
    let disk = Disk::new(100 * MIB);
    disk.write(MIB, 7, 1_000_000);
    let Some(full) = disk.given("full") else { return };
    let again = disk.given("again").unwrap();
    let base = Chain::open(&[full]).unwrap();
    let new = Chain::open(&[again]).unwrap();
    let delta = disk.save("delta", |sink| base.changes(&new, sink));
    assert_eq!(delta.metadata().unwrap().len(), 32);
}

#[test]
fn what_is_damaged_is_refused_and_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |bytes: &[u8]| {
        let path = dir.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut huge = MAGIC.to_vec();
    for n in [CLUSTER, 1 << 30, u64::MAX] {
        huge.extend_from_slice(&n.to_be_bytes());
    }
    assert!(Chain::open(&[file(&huge)]).is_err(), "more entries than bytes");
    let mut cut = MAGIC.to_vec();
    for n in [CLUSTER, 1 << 30, 1, 0, 1] {
        cut.extend_from_slice(&n.to_be_bytes());
    }
    assert!(Chain::open(&[file(&cut)]).is_err(), "the cluster is not there");
    assert!(Chain::open(&[file(b"")]).is_err());
    let mut qcow2 = vec![0_u8; 104];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    qcow2[20..24].copy_from_slice(&16_u32.to_be_bytes());
    qcow2[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Chain::open(&[file(&qcow2)]).is_err(), "a table larger than the file");
    qcow2[36..40].copy_from_slice(&0_u32.to_be_bytes());
    qcow2[8..16].copy_from_slice(&104_u64.to_be_bytes());
    assert!(Chain::open(&[file(&qcow2)]).is_err(), "a backing file");
}
