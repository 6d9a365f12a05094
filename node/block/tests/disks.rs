//! The cache of base images and the disks over it, with real files and qemu-img.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maru_agent_api::lane::ByteStream;
use maru_block::disks::flatten;
use maru_block::{Disks, SANDBOX_ENTRY, inspect, qcow2};
use sha2::{Digest, Sha512};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn setup() -> (tempfile::TempDir, Arc<Disks>) {
    // The harness cannot act as the sandbox's child; the sandbox has its own tests.
    maru_sandbox::use_in_process(&[SANDBOX_ENTRY]);
    let dir = tempfile::tempdir().unwrap();
    let disks = Arc::new(Disks::open(dir.path()).unwrap());
    (dir, disks)
}

fn digest(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn stream(bytes: &[u8]) -> ByteStream {
    Box::new(Cursor::new(bytes.to_vec()))
}

fn io(path: &Path, format: &str, command: &str) -> String {
    let output = Command::new("qemu-io")
        .args(["-f", format, "-c", command])
        .arg(path)
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_serves_all_and_a_wrong_digest_keeps_nothing_a6() {
    let (dir, disks) = setup();
    let bytes = vec![7; 3 << 20];
    let (name, pulls) = (digest(&bytes), Arc::new(AtomicUsize::new(0)));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (disks, name, pulls, bytes) = (disks.clone(), name.clone(), pulls.clone(), bytes.clone());
        all.spawn(async move {
            let pull = || async move {
                pulls.fetch_add(1, Ordering::SeqCst);
                Ok(stream(&bytes))
            };
            disks.base(&name, "raw", pull).await.unwrap()
        });
    }
    let all = all.join_all().await;
    assert_eq!(pulls.load(Ordering::SeqCst), 1);
    assert!(all.iter().all(|b| b.virtual_size == 3 << 20 && b.path == all[0].path));

    let other = digest(b"other");
    let e = disks
        .base(&other, "raw", || async { Ok(stream(b"not the other")) })
        .await
        .unwrap_err();
    assert!(e.message().contains("have the digest"), "{e}");
    assert_eq!(std::fs::read_dir(dir.path().join("base")).unwrap().count(), 1);
    // A failure is not remembered.
    disks
        .base(&other, "raw", || async { Ok(stream(b"other")) })
        .await
        .unwrap();
    for bad in ["", "../../etc/shadow", &name[1..], &name.to_uppercase()] {
        assert_eq!(
            disks
                .base(bad, "raw", || async { Ok(stream(b"")) })
                .await
                .unwrap_err()
                .kind()
                .status(),
            400
        );
    }
    assert!(disks.base(&name, "vmdk", || async { Ok(stream(b"")) }).await.is_err());
    assert!(disks.blank("../x", "root", 512).await.is_err());
    assert!(disks.blank("x", "../root", 512).await.is_err());
}

/// A4, A5: neither a base nor a guest's disk that holds a qcow2 header as its data is ever taken for one.
#[tokio::test(flavor = "multi_thread")]
async fn a5_a_header_written_into_a_disk_changes_nothing() {
    let (dir, disks) = setup();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let beneath = qcow2::Beneath {
        path: &secret,
        format: "raw",
    };
    let evil = qcow2::empty(1 << 20, Some(beneath)).unwrap();
    let base = disks
        .base(&digest(&evil), "raw", || async { Ok(stream(&evil)) })
        .await
        .unwrap();
    assert_eq!(
        base.virtual_size,
        evil.len() as u64,
        "a raw image is as large as its file"
    );
    let e = disks
        .base(&digest(&evil), "qcow2", || async { Ok(stream(&evil)) })
        .await
        .unwrap_err();
    assert!(e.message().contains("backing file"), "{e}");

    let disk = disks.overlay("a-server", "root", &base, 4 << 20).await.unwrap();
    // The guest writes the header once more, onto its own disk, then it is grown and copied (resize, snapshot).
    let header = dir.path().join("header");
    std::fs::write(&header, &evil).unwrap();
    let said = io(
        &disk.path,
        "qcow2",
        &format!("write -s {} 0 {}", header.display(), evil.len()),
    );
    assert!(said.contains("wrote"), "{said}");
    disks.grow(&disk, 8 << 20).await.unwrap();
    let copy = dir.path().join("copy.qcow2");
    flatten(&disk, &copy).await.unwrap();
    let found = inspect(&mut std::fs::File::open(&copy).unwrap()).unwrap();
    assert!(found.is_safe() && found.virtual_size == 8 << 20, "{found:?}");
    assert!(
        io(&copy, "qcow2", "read -P 0x73 0 4k").contains("Pattern verification failed"),
        "the secret was read"
    );
    assert!(
        io(&copy, "qcow2", "read -P 0x51 0 1").contains("read 1/1"),
        "the guest's own header is what is there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_made_once_and_go_without_a_trace() {
    let (dir, disks) = setup();
    let image = qcow2::empty(1 << 20, None).unwrap();
    let base = disks
        .base(&digest(&image), "qcow2", || async { Ok(stream(&image)) })
        .await
        .unwrap();
    let e = disks.overlay("s", "root", &base, 4096).await.unwrap_err();
    assert!(e.message().contains("larger disk"), "{e}");
    let disk = disks.overlay("s", "root", &base, 0).await.unwrap();
    assert!(io(&disk.path, "qcow2", "write -P 0x2a 0 4k").contains("wrote"));
    disks.overlay("s", "root", &base, 0).await.unwrap();
    assert!(
        !io(&disk.path, "qcow2", "read -P 0x2a 0 4k").contains("failed"),
        "the disk was made anew"
    );
    disks.blank("s", "swap", 1 << 20).await.unwrap();
    disks.media("s", "config", b"drive".to_vec()).await.unwrap();
    assert_eq!(disks.servers().unwrap(), ["s"]);
    assert_eq!(
        disks.prune(&BTreeSet::new()).await.unwrap().len(),
        0,
        "a base in use stays"
    );
    disks.remove("s", "swap").await.unwrap();
    disks.remove("s", "swap").await.unwrap();
    disks.remove_server("s").await.unwrap();
    disks.remove_server("s").await.unwrap();
    assert_eq!(disks.prune(&BTreeSet::new()).await.unwrap(), [base.path]);
    // Fetched again after it was pruned.
    disks
        .base(&digest(&image), "qcow2", || async { Ok(stream(&image)) })
        .await
        .unwrap();
    std::fs::write(dir.path().join("base/x.part"), "half").unwrap();
    Disks::open(dir.path()).unwrap();
    assert!(!dir.path().join("base/x.part").exists());
    assert!(disks.room().unwrap().free > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_kept_aside_and_put_back_wherever_it_stops() {
    let (dir, disks) = setup();
    let image = qcow2::empty(1 << 20, None).unwrap();
    let base = disks
        .base(&digest(&image), "qcow2", || async { Ok(stream(&image)) })
        .await
        .unwrap();
    let folder = dir.path().join("disks/s");
    let holds = |name: &str, byte: u8| {
        let path = folder.join(format!("{name}.qcow2"));
        !io(&path, "qcow2", &format!("read -P {byte} 0 4k")).contains("failed")
    };
    let size = |name: &str| {
        let bytes = std::fs::read(folder.join(format!("{name}.qcow2"))).unwrap();
        u64::from_be_bytes(bytes[24..32].try_into().unwrap())
    };
    // How many of the two disks were put back before it stopped; 3 is whole, 4 repeats it all.
    for stop in 0..5 {
        disks.overlay("s", "root", &base, 0).await.unwrap();
        disks.blank("s", "ephemeral0", 1 << 20).await.unwrap();
        disks.media("s", "config", b"drive".to_vec()).await.unwrap();
        for name in ["root", "ephemeral0"] {
            let path = folder.join(format!("{name}.qcow2"));
            assert!(io(&path, "qcow2", "write -P 1 0 4k").contains("wrote"));
        }
        // What a crash left of an earlier attempt is no hindrance.
        std::fs::create_dir(folder.join("kept-7.part")).unwrap();
        disks.keep("s", 7).await.unwrap();
        disks.fit("s", "root", 4 << 20).await.unwrap();
        disks.fit("s", "ephemeral0", 0).await.unwrap();
        disks.blank("s", "ephemeral1", 1 << 20).await.unwrap();
        assert_eq!((size("root"), size("ephemeral0")), (4 << 20, 1 << 20));
        assert!(io(&folder.join("root.qcow2"), "qcow2", "write -P 2 0 4k").contains("wrote"));
        // Again, as after a crash: what was kept stays as it was.
        disks.keep("s", 7).await.unwrap();
        assert_eq!(disks.prune(&BTreeSet::new()).await.unwrap().len(), 0);
        if stop < 3 {
            std::fs::write(folder.join("kept-7/names"), "root.qcow2\nephemeral0.qcow2").unwrap();
            for name in ["ephemeral0.qcow2", "root.qcow2"].iter().take(stop) {
                std::fs::rename(folder.join("kept-7").join(name), folder.join(name)).unwrap();
            }
        }
        for _ in 0..=(stop / 4) {
            disks.restore("s", 7).await.unwrap();
        }
        assert!(holds("root", 1) && holds("ephemeral0", 1), "stopped after {stop}");
        assert_eq!(size("root"), 1 << 20);
        assert!(!folder.join("ephemeral1.qcow2").exists(), "it had none then");
        assert!(folder.join("config.raw").exists());
        disks.drop_kept("s").await.unwrap();
        disks.drop_kept("s").await.unwrap();
        disks.restore("s", 7).await.unwrap();
        assert!(holds("root", 1), "nothing kept, nothing changed");
        disks.remove_server("s").await.unwrap();
    }
    // Swap is made anew, other disks never shrink.
    disks.blank("s", "swap", 1 << 20).await.unwrap();
    disks.fit("s", "swap", 2 << 20).await.unwrap();
    assert!(!folder.join("swap.qcow2").exists());
    disks.blank("s", "ephemeral0", 2 << 20).await.unwrap();
    disks.fit("s", "ephemeral0", 1 << 20).await.unwrap();
    assert_eq!(size("ephemeral0"), 2 << 20);
}
