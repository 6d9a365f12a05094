//! The driver against a real QEMU. A blank disk is enough for most of it: the firmware runs, finds nothing to boot, waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::*;
use maru_agent_api::observed::PowerState;
use maru_qemu::{Hypervisor, Qemu};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_life_start_pause_reset_suspend_stop_destroy() {
    let place = Place::new();
    let qemu = place.driver();
    println!(
        "accelerator: {}; control groups: {}",
        qemu.probe().await.unwrap(),
        qemu.control_groups()
    );
    let id = place.define(&qemu).await;
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Nostate);

    qemu.start(&id).await.unwrap();
    qemu.start(&id).await.unwrap();
    let status = qemu.status(&id).await.unwrap();
    assert_eq!(
        (status.power, status.attached.as_slice()),
        (PowerState::Running, &["root".to_owned()][..])
    );
    let pid = status.pid.unwrap();
    assert!(alive(pid));

    qemu.pause(&id).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Paused);
    qemu.pause(&id).await.unwrap();
    qemu.resume(&id).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Running);

    let figures = qemu.diagnostics(&id).await.unwrap();
    assert_eq!(figures["state"], "running");
    assert_eq!(figures["cpu_details"].as_array().unwrap().len(), 1);

    qemu.inject_nmi(&id).await.unwrap();

    // No operating system listens to the power button: the soft reboot becomes a hard one, with a new process.
    qemu.reboot(&id, false, Duration::from_millis(100)).await.unwrap();
    let second = qemu.status(&id).await.unwrap().pid.unwrap();
    assert!(second != pid && !alive(pid));
    qemu.reboot(&id, true, Duration::ZERO).await.unwrap();

    let begun = Instant::now();
    qemu.suspend(&id).await.unwrap();
    println!("suspend took {:?}", begun.elapsed());
    qemu.suspend(&id).await.unwrap();
    let status = qemu.status(&id).await.unwrap();
    assert_eq!((status.power, status.pid), (PowerState::Suspended, None));
    assert!(place.home(&id).join("memory.state").exists());
    assert_eq!(qemu.pause(&id).await.unwrap_err().kind().status(), 409);
    assert_eq!(qemu.inject_nmi(&id).await.unwrap_err().kind().status(), 409);
    let begun = Instant::now();
    qemu.resume_from_disk(&id).await.unwrap();
    println!("resume from disk took {:?}", begun.elapsed());
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Running);
    assert!(!place.home(&id).join("memory.state").exists());

    // A graceful stop that nobody answers is overtaken by a hard one.
    let begun = Instant::now();
    let (graceful, hard) = tokio::join!(qemu.stop(&id, Duration::from_secs(60)), async {
        tokio::task::yield_now().await;
        qemu.stop(&id, Duration::ZERO).await
    });
    graceful.unwrap();
    hard.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    qemu.stop(&id, Duration::ZERO).await.unwrap();
    let status = qemu.status(&id).await.unwrap();
    assert_eq!((status.power, status.pid), (PowerState::Shutdown, None));

    qemu.destroy(&id).await.unwrap();
    qemu.destroy(&id).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap_err().kind().status(), 404);
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_is_a_crash_and_can_be_started_again() {
    let place = Place::new();
    let qemu = place.driver();
    let mut events = qemu.events();
    let id = place.define(&qemu).await;
    qemu.start(&id).await.unwrap();
    kill(qemu.status(&id).await.unwrap().pid.unwrap());
    let crashed = async { while events.recv().await.unwrap().what != "crashed" {} };
    tokio::time::timeout(Duration::from_secs(20), crashed).await.unwrap();
    let status = qemu.status(&id).await.unwrap();
    assert_eq!((status.power, status.pid), (PowerState::Crashed, None));
    assert!(status.problem.unwrap().contains("unasked"));
    qemu.start(&id).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Running);
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let place = Place::new();
    let qemu = place.driver();
    let mut config = place.config();
    config.disks[0].path = place.dir.path().join("missing.qcow2");
    let id = config.id.clone();
    qemu.define(config).await.unwrap();
    let e = qemu.start(&id).await.unwrap_err();
    assert!(e.message().contains("missing.qcow2"), "{e}");
    let status = qemu.status(&id).await.unwrap();
    assert_eq!((status.power, status.pid), (PowerState::Shutdown, None));
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_plugged_grown_and_copied_while_it_runs() {
    let place = Place::new();
    let qemu = place.driver();
    let id = place.define(&qemu).await;
    qemu.start(&id).await.unwrap();
    for bus in ["virtio", "scsi"] {
        let disk = place.disk(&format!("more-{bus}"), bus, 64 << 20);
        let begun = Instant::now();
        qemu.attach_disk(&id, disk.clone()).await.unwrap();
        println!("attach of a {bus} disk took {:?}", begun.elapsed());
        qemu.attach_disk(&id, disk).await.unwrap();
    }
    let e = qemu
        .attach_disk(&id, place.disk("late", "ide", 1 << 20))
        .await
        .unwrap_err();
    assert!(e.message().contains("use virtio or scsi"), "{e}");
    assert_eq!(
        qemu.status(&id).await.unwrap().attached,
        ["root", "more-virtio", "more-scsi"]
    );
    qemu.resize_disk(&id, "more-virtio", 128 << 20).await.unwrap();
    assert_eq!(
        qemu.resize_disk(&id, "none", 1 << 20)
            .await
            .unwrap_err()
            .kind()
            .status(),
        404
    );

    // The same machine is found again in saved memory, plugged devices and all.
    qemu.suspend(&id).await.unwrap();
    qemu.resume_from_disk(&id).await.unwrap();
    assert_eq!(
        qemu.status(&id).await.unwrap().attached,
        ["root", "more-virtio", "more-scsi"]
    );

    let target = place.dir.path().join("snapshot.qcow2");
    qemu.snapshot(&id, "more-virtio", &target).await.unwrap();
    assert_eq!(virtual_size(&target), 128 << 20);
    assert!(!place.dir.path().join("snapshot.qcow2.part").exists());
    qemu.stop(&id, Duration::ZERO).await.unwrap();
    let cold = place.dir.path().join("cold.qcow2");
    qemu.snapshot(&id, "root", &cold).await.unwrap();
    assert_eq!(virtual_size(&cold), 64 << 20);

    // Off: taken from the configuration at once.
    qemu.detach_disk(&id, "more-scsi").await.unwrap();
    qemu.start(&id).await.unwrap();
    assert_eq!(qemu.status(&id).await.unwrap().attached, ["root", "more-virtio"]);
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_vnc_greets_and_a_newer_serial_connection_takes_over() {
    let place = Place::new();
    let qemu = place.driver();
    let id = place.define(&qemu).await;
    assert_eq!(qemu.vnc(&id).await.err().unwrap().kind().status(), 409);
    qemu.start(&id).await.unwrap();
    let mut greeting = [0; 4];
    qemu.vnc(&id).await.unwrap().read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"RFB ");

    let mut first = qemu.serial(&id).await.unwrap();
    first.write_all(b"x").await.unwrap();
    let mut second = qemu.serial(&id).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), first.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    second.write_all(b"y").await.unwrap();
    assert!(qemu.console_log(&id, Some(10)).await.unwrap().len() < 1 << 20);
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn nics_are_opened_inside_the_namespace_at_start_and_by_hot_plug() {
    let place = Place::new();
    let net = Namespace::new();
    let mut options = place.options();
    options.netns = Some(net.path());
    let qemu = Qemu::new(options).unwrap();
    let mut config = place.config();
    let (first, second) = (nic(1), nic(2));
    config.nics.push(first.clone());
    let id = config.id.clone();
    qemu.define(config).await.unwrap();

    let e = qemu.start(&id).await.unwrap_err();
    assert!(e.message().contains("is not there yet"), "{e}");
    assert_eq!(qemu.status(&id).await.unwrap().power, PowerState::Shutdown);

    net.tap(&first.tap);
    net.tap(&second.tap);
    qemu.start(&id).await.unwrap();
    assert!(net.has_carrier(&first.tap) && !net.has_carrier(&second.tap));
    let begun = Instant::now();
    qemu.attach_nic(&id, second.clone()).await.unwrap();
    println!("attach of a NIC took {:?}", begun.elapsed());
    assert!(net.has_carrier(&second.tap));
    assert_eq!(
        qemu.status(&id).await.unwrap().attached,
        ["root".to_owned(), first.port_id, second.port_id.clone()]
    );
    // Taken by one guest, the tap is refused to another, which says so.
    let other = place.define(&qemu).await;
    qemu.attach_nic(&other, second).await.unwrap();
    assert!(
        qemu.start(&other)
            .await
            .unwrap_err()
            .message()
            .contains("held by another process")
    );

    qemu.destroy(&id).await.unwrap();
    qemu.destroy(&other).await.unwrap();
    place.nothing_is_left(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_another_user_it_runs_without_root() {
    let place = Place::new();
    place.open_to_all();
    let mut options = place.options();
    options.run_as = Some((65_532, 65_532));
    let qemu = Qemu::new(options).unwrap();
    let id = place.define(&qemu).await;
    qemu.start(&id).await.unwrap();
    let pid = qemu.status(&id).await.unwrap().pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t65532\t65532\t65532\t65532"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    qemu.suspend(&id).await.unwrap();
    qemu.start(&id).await.unwrap();
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}

/// A call of `start` to QMP ready, against a bare exec of the very same command line: at most 150 ms more.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_costs_little_more_than_a_bare_exec() {
    let place = Place::new();
    let qemu = place.driver();
    let id = place.define(&qemu).await;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let times = qemu.start(&id).await.unwrap();
        let (begin, end) = (times.steps[0].1, times.steps[1].2);
        ours.push(Duration::from_micros(u64::try_from(end - begin).unwrap()));
        let pid = qemu.status(&id).await.unwrap().pid.unwrap();
        let line = command_line(pid);
        qemu.stop(&id, Duration::ZERO).await.unwrap();
        bare.push(bare_exec(&place.home(&id), line));
    }
    ours.sort();
    bare.sort();
    let (ours, bare) = (ours[3], bare[3]);
    println!(
        "start to QMP ready: median {ours:?}; bare exec: median {bare:?}; more: {:?}",
        ours.saturating_sub(bare)
    );
    assert!(ours.saturating_sub(bare) <= Duration::from_millis(150));
    qemu.destroy(&id).await.unwrap();
    place.nothing_is_left(&id);
}
