//! What needs an operating system that answers: the power button, unplug, soft reboot, a guest that ends itself.
//!
//! Uses the guest image that `guest/build` makes (`MARU_GUEST_IMAGE`, or `target/guest/guest.qcow2`); says so and passes
//! when there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::*;
use maru_agent_api::observed::PowerState;
use maru_qemu::{Backing, DiskFormat, GuestConfig, Hypervisor, Qemu};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

fn image() -> Option<PathBuf> {
    let named = std::env::var_os("MARU_GUEST_IMAGE").map(PathBuf::from);
    let path =
        named.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/guest.qcow2"));
    let found = std::fs::canonicalize(&path).ok();
    if found.is_none() {
        println!(
            "skipped: there is no guest image at {}; guest/build makes one",
            path.display()
        );
    }
    found
}

async fn log_has(qemu: &Qemu, id: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let log = String::from_utf8_lossy(&qemu.console_log(id, None).await.unwrap()).into_owned();
        if log.contains(text) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{text:?} did not come; the log ends with\n{}",
            &log[log.len().saturating_sub(2000)..]
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn power_is(qemu: &Qemu, id: &str, power: PowerState) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while qemu.status(id).await.unwrap().power != power {
        assert!(Instant::now() < deadline, "{:?}", qemu.status(id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A serial connection whose output is read all the time: QEMU holds the guest's line back while nobody does.
async fn serial(qemu: &Qemu, id: &str) -> tokio::io::WriteHalf<Box<dyn maru_agent_api::lane::Duplex>> {
    let (mut read, write) = tokio::io::split(qemu.serial(id).await.unwrap());
    tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    write
}

fn config(place: &Place, image: PathBuf) -> GuestConfig {
    let mut config = place.config();
    config.memory_mib = 256;
    let base = virtual_size(&image);
    let path = place.dir.path().join("overlay.qcow2");
    let beneath = maru_block::qcow2::Beneath {
        path: &image,
        format: "qcow2",
    };
    maru_block::qcow2::create(&path, base, Some(beneath)).unwrap();
    config.disks[0].path = path;
    config.disks[0].backing = Some(Backing {
        path: image,
        format: DiskFormat::Qcow2,
    });
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_guest_boots_lets_go_of_devices_reboots_and_powers_off() {
    let Some(image) = image() else { return };
    let place = Place::new();
    let net = Namespace::new();
    let mut options = place.options();
    options.netns = Some(net.path());
    let qemu = Qemu::new(options).unwrap();
    let mut config = config(&place, image);
    let (first, second) = (nic(1), nic(2));
    net.tap(&first.tap);
    net.tap(&second.tap);
    config.nics.push(first);
    let id = config.id.clone();
    qemu.define(config).await.unwrap();

    let begun = Instant::now();
    qemu.start(&id).await.unwrap();
    log_has(&qemu, &id, "login:").await;
    println!("boot to the login prompt: {:?}", begun.elapsed());

    qemu.attach_disk(&id, place.disk("more", "virtio", 1 << 20))
        .await
        .unwrap();
    qemu.attach_nic(&id, second.clone()).await.unwrap();
    let mut line = serial(&qemu, &id).await;
    line.write_all(b"cirros\n").await.unwrap();
    log_has(&qemu, &id, "Password:").await;
    line.write_all(b"gocubsgo\n").await.unwrap();
    log_has(&qemu, &id, "$ ").await;
    line.write_all(b"until [ -b /dev/vdb ] && [ -d /sys/class/net/eth1 ]; do :; done; echo pl''ugged\n")
        .await
        .unwrap();
    log_has(&qemu, &id, "plugged").await;
    let begun = Instant::now();
    qemu.detach_disk(&id, "more").await.unwrap();
    qemu.detach_nic(&id, &second.port_id).await.unwrap();
    println!("two devices let go in {:?}", begun.elapsed());
    assert!(!net.has_carrier(&second.tap));
    assert_eq!(qemu.status(&id).await.unwrap().attached.len(), 2);

    // Memory survives: the shell that was logged in is the one that answers.
    qemu.suspend(&id).await.unwrap();
    qemu.start(&id).await.unwrap();
    let mut line = serial(&qemu, &id).await;
    line.write_all(b"\necho aw''ake\n").await.unwrap();
    log_has(&qemu, &id, "awake").await;

    let pid = qemu.status(&id).await.unwrap().pid;
    let begun = Instant::now();
    qemu.reboot(&id, false, Duration::from_secs(60)).await.unwrap();
    println!("soft reboot, guest off and on again: {:?}", begun.elapsed());
    assert_eq!(
        qemu.status(&id).await.unwrap().pid,
        pid,
        "the guest answered, so its process stays"
    );
    let begun = Instant::now();
    qemu.stop(&id, Duration::from_secs(90)).await.unwrap();
    println!("graceful stop of a guest that boots: {:?}", begun.elapsed());

    qemu.start(&id).await.unwrap();
    let mark = qemu.console_log(&id, None).await.unwrap().len();
    let ready = async {
        loop {
            let log = qemu.console_log(&id, None).await.unwrap();
            if String::from_utf8_lossy(log.get(mark..).unwrap_or_default()).contains("login:") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ready).await.unwrap();
    let mut line = serial(&qemu, &id).await;
    line.write_all(b"cirros\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    line.write_all(b"gocubsgo\nsudo poweroff\n").await.unwrap();
    power_is(&qemu, &id, PowerState::Shutdown).await;
    assert_eq!(qemu.status(&id).await.unwrap().pid, None);
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}
