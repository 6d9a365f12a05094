//! Volumes offered by real storage daemons, to a real QEMU (NBD over TLS with keys), on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::*;
use maru_agent_api::slice::VolumeExport;
use maru_base::Secret;
use maru_block::{Exporter, NbdDisk, Remote};
use maru_qemu::{ExporterOptions, GuestDisk, Hypervisor, StorageDaemons};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const VOLUME: &str = "0a0b0c0d-0000-4000-8000-0000000000aa";
const MIB: u64 = 1 << 20;

fn exporter(place: &Place) -> StorageDaemons {
    let options = ExporterOptions::new(place.dir.path().join("state"), IpAddr::V4(Ipv4Addr::LOCALHOST));
    StorageDaemons::new(options).unwrap()
}

fn export(name: &str) -> VolumeExport {
    VolumeExport {
        name: format!("{VOLUME}-{name}"),
        key: Secret::new(maru_base::random::hex32() + &maru_base::random::hex32()),
        readonly: false,
    }
}

/// A directory with a key, as the consumer's agent makes it.
fn keys(place: &Place, name: &str, export: &VolumeExport) -> PathBuf {
    let dir = place.dir.path().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("keys.psk"),
        format!("{}:{}\n", export.name, export.key.reveal()),
    )
    .unwrap();
    dir
}

fn port(at: &str) -> u16 {
    at.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Opens an export with qemu-io and does something there; what it said.
fn io(at: &str, name: &str, keys: Option<&Path>, commands: &[&str]) -> Result<String, String> {
    let mut command = Command::new("qemu-io");
    let mut image = format!(
        "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={},export={name}",
        port(at)
    );
    if let Some(keys) = keys {
        command.args([
            "--object",
            &format!(
                "tls-creds-psk,id=k,dir={},endpoint=client,username={name}",
                keys.display()
            ),
        ]);
        image += ",tls-creds=k";
    }
    for c in commands {
        command.args(["-c", c]);
    }
    let out = command.args(["--image-opts", &image]).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    let verified = !text.contains("failed") && !text.contains("error");
    if out.status.success() && verified {
        Ok(text)
    } else {
        Err(text)
    }
}

fn volume_file(place: &Place, size: u64) -> PathBuf {
    let path = place.dir.path().join("volume.qcow2");
    maru_block::qcow2::create(&path, size, None).unwrap();
    path
}

fn daemons(place: &Place) -> Vec<u32> {
    let dir = std::fs::canonicalize(place.dir.path()).unwrap().join("state/exports");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok())
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_opens_for_its_key_alone_and_never_again_once_it_is_cut() {
    let place = Place::new();
    let file = volume_file(&place, 16 * MIB);
    let daemon = exporter(&place);
    daemon.adopt_all().await.unwrap();
    let (one, two) = (export("one"), export("two"));
    let begun = std::time::Instant::now();
    let at = daemon.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap();
    println!("offered after {:?}", begun.elapsed());
    let mine = keys(&place, "one", &one);
    io(&at, &one.name, Some(&mine), &["write -P 7 0 1M"]).unwrap();
    assert_eq!(
        daemon.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap(),
        at
    );

    // A stranger: without TLS, with another key, with a name of its own.
    let plain = io(&at, &one.name, None, &["read 0 1M"]).unwrap_err();
    assert!(plain.contains("TLS"), "{plain}");
    let stranger = keys(
        &place,
        "stranger",
        &VolumeExport {
            key: export("x").key,
            ..one.clone()
        },
    );
    io(&at, &one.name, Some(&stranger), &["read 0 1M"]).unwrap_err();
    let theirs = keys(&place, "two", &two);
    io(&at, &two.name, Some(&theirs), &["read 0 1M"]).unwrap_err();

    // D5: cut; the key that was good opens nothing, on the same port, for another export of the same volume.
    let again = daemon.offer(VOLUME, &file, std::slice::from_ref(&two)).await.unwrap();
    assert_eq!(again, at);
    io(&at, &one.name, Some(&mine), &["read 0 1M"]).unwrap_err();
    io(&at, &two.name, Some(&mine), &["read 0 1M"]).unwrap_err();
    io(&at, &two.name, Some(&theirs), &["read -P 7 0 1M"]).unwrap();

    // Read only is read only.
    let reader = VolumeExport {
        readonly: true,
        ..export("three")
    };
    daemon
        .offer(VOLUME, &file, &[two.clone(), reader.clone()])
        .await
        .unwrap();
    let readers = keys(&place, "three", &reader);
    io(&at, &reader.name, Some(&readers), &["write -P 9 0 1M"]).unwrap_err();

    daemon.withdraw(VOLUME).await.unwrap();
    daemon.withdraw(VOLUME).await.unwrap();
    assert!(daemons(&place).is_empty() && !daemon.has_open(VOLUME));
    io(&at, &two.name, Some(&theirs), &["read 0 1M"]).unwrap_err();
    assert!(!place.dir.path().join("state/exports").join(VOLUME).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_confined_survives_its_agent_and_comes_back_to_its_port() {
    let place = Place::new();
    let file = volume_file(&place, 16 * MIB);
    let one = export("one");
    let first = exporter(&place);
    let at = first.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap();
    let mine = keys(&place, "one", &one);
    let pid = daemons(&place)[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!((field("CapEff:"), field("CapBnd:")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".to_owned(), "2".to_owned())
    );
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!arguments.contains(one.key.reveal()), "a key on a command line");
    drop(first);

    // The next agent finds it, copies through it, makes it larger.
    let second = exporter(&place);
    second.adopt_all().await.unwrap();
    assert!(second.has_open(VOLUME));
    io(&at, &one.name, Some(&mine), &["write -P 5 8M 1M"]).unwrap();
    let copy = place.dir.path().join("copy.qcow2");
    second.snapshot(VOLUME, &copy).await.unwrap();
    let out = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "read -P 5 8M 1M", "-c", "read -P 0 0 1M"])
        .arg(&copy)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    second.grow(VOLUME, 32 * MIB).await.unwrap();
    assert_eq!(
        second.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap(),
        at
    );
    io(&at, &one.name, Some(&mine), &["write -P 6 31M 1M", "read -P 5 8M 1M"]).unwrap();
    assert_eq!(daemons(&place), [pid], "it is one process all the time");

    // It dies: told, and started anew at the same address.
    let mut ended = second.ended();
    kill(pid);
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), ended.recv())
            .await
            .unwrap()
            .unwrap(),
        VOLUME
    );
    assert!(!second.has_open(VOLUME));
    assert_eq!(
        second.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap(),
        at
    );
    io(&at, &one.name, Some(&mine), &["read -P 6 31M 1M"]).unwrap();

    // It dies while no agent runs: the same.
    drop(second);
    for pid in daemons(&place) {
        kill(pid);
        while alive(pid) {
            tokio::task::yield_now().await;
        }
    }
    // The last of its threads may hold the port for a moment longer than the process can be seen.
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while std::net::TcpListener::bind(("127.0.0.1", port(&at))).is_err() {
        assert!(std::time::Instant::now() < end, "the port is not given back");
        tokio::task::yield_now().await;
    }
    let third = exporter(&place);
    third.adopt_all().await.unwrap();
    assert!(!third.has_open(VOLUME));
    assert_eq!(
        third.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap(),
        at
    );
    third.stop_all().await.unwrap();
    assert!(daemons(&place).is_empty());
}

fn remote(place: &Place, at: &str, export: &VolumeExport, size: u64) -> GuestDisk {
    GuestDisk {
        path: PathBuf::new(),
        remote: Some(Remote::Nbd(NbdDisk {
            host: "127.0.0.1".into(),
            port: port(at),
            export: export.name.clone(),
            keys: keys(place, "guest", export),
            size,
        })),
        ..place.disk("unused", "virtio", MIB)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_an_offered_volume_plugged_grown_moved_and_booted_with() {
    let place = Place::new();
    let file = volume_file(&place, 16 * MIB);
    let one = export("one");
    let daemon = exporter(&place);
    let at = daemon.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap();
    let qemu = place.driver();
    let mut config = place.config();
    let id = config.id.clone();
    qemu.define(config.clone()).await.unwrap();
    qemu.start(&id).await.unwrap();
    let mut disk = remote(&place, &at, &one, 16 * MIB);
    disk.name = VOLUME.into();
    qemu.attach_disk(&id, disk.clone()).await.unwrap();
    assert!(qemu.status(&id).await.unwrap().attached.contains(&VOLUME.to_owned()));

    // Larger: the exporter grows it, the guest's process opens it anew.
    daemon.grow(VOLUME, 48 * MIB).await.unwrap();
    daemon.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap();
    let grown = GuestDisk {
        remote: remote(&place, &at, &one, 48 * MIB).remote,
        ..disk.clone()
    };
    qemu.follow_disk(&id, grown.clone()).await.unwrap();
    qemu.follow_disk(&id, grown.clone()).await.unwrap();

    // The daemon dies: while its port is another's it waits, then it is back where the guest's process looks for it.
    let mut ended = daemon.ended();
    kill(daemons(&place)[0]);
    ended.recv().await.unwrap();
    let blocker = std::net::TcpListener::bind(("127.0.0.1", port(&at))).unwrap();
    let waits = daemon
        .offer(VOLUME, &file, std::slice::from_ref(&one))
        .await
        .unwrap_err();
    assert!(waits.message().contains("another program"), "{waits}");
    drop(blocker);
    assert_eq!(
        daemon.offer(VOLUME, &file, std::slice::from_ref(&one)).await.unwrap(),
        at
    );
    qemu.follow_disk(&id, grown.clone()).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap().problem, None);

    // Away: it says so at once and does not hang the guest.
    let nobody = GuestDisk {
        name: "other".into(),
        remote: remote(&place, "127.0.0.1:1", &one, MIB).remote,
        ..disk
    };
    let refused = qemu.attach_disk(&id, nobody).await.unwrap_err();
    assert!(refused.message().contains("does not answer"), "{refused}");
    assert!(!qemu.status(&id).await.unwrap().attached.contains(&"other".to_owned()));

    // Limits: on the plugged disk, then from a cold start on.
    let slow = GuestDisk {
        limits: [
            ("total_iops_sec".to_owned(), 200),
            ("total_iops_sec_max".to_owned(), 400),
            ("read_bytes_sec".to_owned(), MIB),
        ]
        .into(),
        ..grown
    };
    qemu.follow_disk(&id, slow.clone()).await.unwrap();

    // A cold start with it.
    config.disks.push(slow);
    qemu.define(config).await.unwrap();
    qemu.reboot(&id, true, Duration::ZERO).await.unwrap();
    assert!(qemu.status(&id).await.unwrap().attached.contains(&VOLUME.to_owned()));
    qemu.destroy(&id).await.unwrap();
    daemon.stop_all().await.unwrap();
    place.nothing_is_left(&id);
}
