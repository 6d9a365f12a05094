//! Volumes and snapshots with real files, qemu-img and qemu-io.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maru_agent_api::lane::ByteStream;
use maru_base::ErrorKind;
use maru_block::{BaseImage, SANDBOX_ENTRY, Volumes, qcow2};
use sha2::{Digest, Sha512};
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

fn setup() -> (tempfile::TempDir, Volumes) {
    // The harness cannot act as the sandbox's child; the sandbox has its own tests.
    maru_sandbox::use_in_process(&[SANDBOX_ENTRY]);
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    (dir, volumes)
}

fn io(path: &Path, format: &str, command: &str) -> String {
    let output = Command::new("qemu-io")
        .args(["-f", format, "-c", command])
        .arg(path)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Whether `length` bytes from `at` are all `byte`.
fn holds(path: &Path, byte: u8, at: u64, length: u64) -> bool {
    !io(path, "qcow2", &format!("read -P {byte} {at} {length}")).contains("Pattern verification failed")
}

fn write(path: &Path, byte: u8, at: u64, length: u64) {
    io(path, "qcow2", &format!("write -P {byte} {at} {length}"));
}

fn size(volumes: &Volumes, id: &str) -> u64 {
    volumes.find(id).unwrap().unwrap().size
}

#[tokio::test]
async fn a_new_volume_reads_as_zeroes_whatever_lay_there_before_d4() {
    let (_dir, volumes) = setup();
    volumes.blank("one", 0, 8 * MIB).await.unwrap();
    let path = volumes.find("one").unwrap().unwrap().path;
    write(&path, 0xab, 0, 8 * MIB);
    volumes.remove("one").unwrap();
    assert_eq!(volumes.find("one").unwrap(), None);
    // The same id, the same place on the disk as far as the file system likes.
    volumes.blank("one", 0, 8 * MIB).await.unwrap();
    assert!(holds(&path, 0, 0, 8 * MIB));
    // Room that is added later, too.
    let file = volumes.find("one").unwrap().unwrap();
    volumes.grow(&file, 16 * MIB).await.unwrap();
    assert_eq!(size(&volumes, "one"), 16 * MIB);
    assert!(holds(&path, 0, 8 * MIB, 8 * MIB));
    volumes
        .grow(&volumes.find("one").unwrap().unwrap(), 4 * MIB)
        .await
        .unwrap();
    assert_eq!(size(&volumes, "one"), 16 * MIB, "it never shrinks");
}

#[tokio::test]
async fn copies_share_nothing_with_what_they_were_made_of() {
    let (_dir, volumes) = setup();
    volumes.blank("source", 0, 4 * MIB).await.unwrap();
    let source = volumes.find("source").unwrap().unwrap().path;
    write(&source, 1, 0, MIB);
    volumes.snapshot("snap", &source).await.unwrap();
    volumes.copy("clone", 0, 8 * MIB, &source).await.unwrap();
    write(&source, 2, 0, MIB);
    let clone = volumes.find("clone").unwrap().unwrap();
    assert_eq!(clone.size, 8 * MIB);
    assert!(holds(&clone.path, 1, 0, MIB) && holds(&clone.path, 0, MIB, 7 * MIB));
    let snap = volumes.find_snapshot("snap").unwrap().unwrap();
    assert!(holds(&snap, 1, 0, MIB));
    // Asked again, what is there stays.
    volumes.snapshot("snap", &source).await.unwrap();
    volumes.copy("clone", 0, 8 * MIB, &source).await.unwrap();
    assert!(holds(&snap, 1, 0, MIB) && holds(&clone.path, 1, 0, MIB));
    volumes.remove("source").unwrap();
    assert!(holds(&snap, 1, 0, MIB) && holds(&clone.path, 1, 0, MIB));
    let refused = volumes.copy("small", 0, 2 * MIB, &snap).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadRequest);
    assert_eq!(volumes.find("small").unwrap(), None);
    assert_eq!(
        volumes.all().unwrap(),
        [("volume", "clone".to_owned()), ("volume-snapshot", "snap".to_owned())]
    );
    volumes.remove_snapshot("snap").unwrap();
    volumes.remove_snapshot("snap").unwrap();
    assert_eq!(volumes.find_snapshot("snap").unwrap(), None);
}

#[tokio::test]
async fn an_image_is_copied_whole_and_its_backing_file_is_never_followed() {
    let (dir, volumes) = setup();
    let raw = dir.path().join("image.raw");
    std::fs::write(&raw, vec![7; 2 << 20]).unwrap();
    let image = BaseImage {
        path: raw.clone(),
        format: "raw".to_owned(),
        virtual_size: 2 * MIB,
    };
    volumes.of_image("one", 0, 4 * MIB, &image).await.unwrap();
    std::fs::remove_file(&raw).unwrap();
    let path = volumes.find("one").unwrap().unwrap().path;
    assert!(holds(&path, 7, 0, 2 * MIB) && holds(&path, 0, 2 * MIB, 2 * MIB));
    let refused = volumes.of_image("two", 0, MIB, &image).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadRequest, "the image is larger");
    // A2, A3: a header that names a file of the host is read for nothing.
    let secret = dir.path().join("secret");
    std::fs::write(&secret, vec![9; 1 << 20]).unwrap();
    let beneath = qcow2::Beneath {
        path: &secret,
        format: "raw",
    };
    let overlay = dir.path().join("overlay.qcow2");
    qcow2::create(&overlay, MIB, Some(beneath)).unwrap();
    let image = BaseImage {
        path: overlay,
        format: "qcow2".to_owned(),
        virtual_size: MIB,
    };
    volumes.of_image("three", 0, MIB, &image).await.unwrap();
    let path = volumes.find("three").unwrap().unwrap().path;
    assert!(holds(&path, 0, 0, MIB), "bytes of the host are in the volume");
}

#[tokio::test]
async fn bytes_are_made_anew_and_the_old_ones_go() {
    let (_dir, volumes) = setup();
    volumes.blank("one", 0, 2 * MIB).await.unwrap();
    let first = volumes.find("one").unwrap().unwrap();
    write(&first.path, 5, 0, MIB);
    volumes.snapshot("snap", &first.path).await.unwrap();
    write(&first.path, 6, 0, MIB);
    // Reverted to the snapshot: the next making.
    let snap = volumes.find_snapshot("snap").unwrap().unwrap();
    volumes.copy("one", 1, 2 * MIB, &snap).await.unwrap();
    let second = volumes.find("one").unwrap().unwrap();
    assert_eq!(second.content, 1);
    assert!(holds(&second.path, 5, 0, MIB));
    assert!(!first.path.exists());
}

#[tokio::test]
async fn a_backup_comes_back_and_one_with_other_bytes_is_refused() {
    let (dir, volumes) = setup();
    volumes.blank("one", 0, 2 * MIB).await.unwrap();
    let path = volumes.find("one").unwrap().unwrap().path;
    write(&path, 3, 0, MIB);
    let out = dir.path().join("out");
    volumes.export(&path, "qcow2", &out).await.unwrap();
    let bytes = std::fs::read(&out).unwrap();
    let digest: String = Sha512::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let stream = |bytes: &[u8]| -> ByteStream { Box::new(Cursor::new(bytes.to_vec())) };
    volumes
        .of_backup("two", 0, 4 * MIB, &digest, stream(&bytes))
        .await
        .unwrap();
    let two = volumes.find("two").unwrap().unwrap();
    assert_eq!(two.size, 4 * MIB);
    assert!(holds(&two.path, 3, 0, MIB));
    let mut spoilt = bytes.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    volumes
        .of_backup("three", 0, 4 * MIB, &digest, stream(&spoilt))
        .await
        .unwrap_err();
    // Right bytes that are no disk of ours: a raw file, and a qcow2 with a backing file.
    let junk = vec![1; 4096];
    let of: String = Sha512::digest(&junk).iter().map(|b| format!("{b:02x}")).collect();
    volumes
        .of_backup("three", 0, 4 * MIB, &of, stream(&junk))
        .await
        .unwrap_err();
    assert_eq!(volumes.find("three").unwrap(), None);
    let raw = dir.path().join("raw");
    volumes.export(&path, "raw", &raw).await.unwrap();
    assert_eq!(std::fs::metadata(&raw).unwrap().len(), 2 * MIB);
    assert!(volumes.export(&path, "vmdk", &raw).await.is_err());
}

#[tokio::test]
async fn names_stay_inside_and_what_is_half_made_is_swept() {
    let (dir, volumes) = setup();
    for bad in ["../x", "a/b", "", ".", "a b"] {
        assert!(volumes.blank(bad, 0, MIB).await.is_err(), "{bad:?}");
        assert!(volumes.remove(bad).is_err(), "{bad:?}");
    }
    let half = dir.path().join("volumes/one.0.qcow2.part");
    std::fs::write(&half, b"half").unwrap();
    drop(volumes);
    let volumes = Volumes::open(dir.path()).unwrap();
    assert!(!half.exists());
    assert_eq!(volumes.all().unwrap(), []);
}

/// A file system that shares blocks, on a file of its own: mounted for the test, gone with it.
struct Sharing {
    dir: tempfile::TempDir,
}

impl Sharing {
    /// Why there is none here, if there is not.
    fn mount() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("at"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(512 * MIB).unwrap();
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| match Command::new(program).args(arguments).output() {
            Ok(out) if out.status.success() => Ok(()),
            Ok(out) => Err(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim())),
            Err(e) => Err(format!("{program}: {e}")),
        };
        let mkfs = run(
            "mkfs.xfs",
            &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), image.as_ref()],
        );
        mkfs.or_else(|why| {
            run("mkfs.btrfs", &["-q".as_ref(), image.as_ref()]).map_err(|also| format!("{why}; {also}"))
        })?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()])?;
        Ok(Self { dir })
    }
    fn at(&self) -> std::path::PathBuf {
        self.dir.path().join("at")
    }
    /// Bytes in use.
    fn used(&self) -> u64 {
        Command::new("sync").arg("-f").arg(self.at()).status().unwrap();
        let s = rustix::fs::statvfs(self.at()).unwrap();
        (s.f_blocks - s.f_bfree) * s.f_frsize
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.at()).status();
    }
}

#[tokio::test]
#[allow(clippy::print_stdout)]
async fn copies_share_their_blocks_where_the_file_system_can() {
    maru_sandbox::use_in_process(&[SANDBOX_ENTRY]);
    let sharing = match Sharing::mount() {
        Ok(sharing) => sharing,
        Err(why) => {
            println!("skipped: no file system that shares blocks can be made here: {why}");
            return;
        }
    };
    let volumes = Volumes::open(sharing.at()).unwrap();
    assert!(volumes.describe().contains("FICLONE"), "{}", volumes.describe());
    volumes.blank("one", 0, 256 * MIB).await.unwrap();
    let path = volumes.find("one").unwrap().unwrap().path;
    write(&path, 0xab, 0, 64 * MIB);
    let before = sharing.used();
    volumes.snapshot("snap", &path).await.unwrap();
    let snapshot = volumes.find_snapshot("snap").unwrap().unwrap();
    volumes.copy("two", 0, 256 * MIB, &snapshot).await.unwrap();
    let grown = sharing.used().saturating_sub(before);
    println!("figure: two copies of 64 MiB took {} KiB", grown >> 10);
    assert!(grown < 8 * MIB, "{grown} bytes");
    // Each is its own from the first write on.
    let copy = volumes.find("two").unwrap().unwrap().path;
    write(&copy, 0xcd, 0, MIB);
    assert!(holds(&path, 0xab, 0, 64 * MIB) && holds(&snapshot, 0xab, 0, 64 * MIB) && holds(&copy, 0xcd, 0, MIB));
    volumes.remove("one").unwrap();
    assert!(holds(&copy, 0xab, MIB, 63 * MIB));
}
