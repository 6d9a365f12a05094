//! Volumes on a machine made of maps.

use super::{fake::*, *};

fn volume(size: u64, content: u64, source: VolumeSource) -> Item {
    Item::Volume(Volume {
        id: "vol".into(),
        request_id: "req-v".into(),
        size,
        content,
        source,
    })
}

fn with_volume(volume: bool) -> Item {
    let mut server = server();
    server.request_id = if volume { "req-2".into() } else { "req-3".into() };
    if volume {
        server.disks.push(Disk {
            name: "vol".into(),
            source: DiskSource::Volume {
                id: "vol".into(),
                readonly: false,
            },
            size: 0,
            bus: "virtio".into(),
            device: "disk".into(),
        });
    }
    Item::Server(server)
}

fn told(plane: &Plane, size: u64, content: u64) -> bool {
    plane
        .reports
        .lock()
        .unwrap()
        .iter()
        .any(|r| matches!(r, Report::Volume(v) if v.size == size && v.content == Some(content) && v.fault.is_none()))
}

fn attached(plane: &Plane) -> bool {
    plane.last("vm").is_some_and(|s| s.attached.iter().any(|a| a == "vol"))
}

#[tokio::test(start_paused = true)]
async fn a_server_waits_for_its_volume_and_lets_go_of_it() {
    let (fake, plane) = (Fake::new(), plane());
    plane.set(1, with_volume(true));
    let _agent = run(&fake, &plane).await;
    // The volume is not in the slice yet: the server must not start without it.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!fake.state().journal.iter().any(|j| j == "start vm"));
    plane.set(2, volume(10, 0, VolumeSource::Blank));
    running(&plane, 1).await;
    assert!(told(&plane, 10, 0) && attached(&plane));
    // Larger, while it runs: the hypervisor is told, the file is not touched beneath it (the fake would panic).
    plane.set(3, volume(20, 0, VolumeSource::Blank));
    plane.until("it is larger", |p| told(p, 20, 0)).await;
    assert!(fake.state().journal.iter().any(|j| j == "resize-disk vm vol"));
    // It cannot be removed while the guest has it; then the guest lets go, and it is.
    plane.gone(4, ItemKey::Volume("vol".into()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(fake.state().volumes.contains_key("vol"));
    plane.set(5, with_volume(false));
    plane
        .until("the volume is removed", |p| {
            p.has(&Report::Removed(ItemKey::Volume("vol".into())))
        })
        .await;
    let s = fake.state();
    assert!(s.volumes.is_empty());
    let at = |what: &str| {
        s.journal
            .iter()
            .position(|j| j == what)
            .unwrap_or_else(|| panic!("no {what}"))
    };
    assert!(at("detach-disk vm") < at("remove-volume vol"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_plugged_into_a_running_guest_and_copied_from_it_by_the_hypervisor() {
    let (fake, plane) = (Fake::new(), plane());
    plane.set(1, volume(10, 0, VolumeSource::Blank));
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    let snapshot = |id: &str| {
        Item::VolumeSnapshot(VolumeSnapshot {
            id: id.into(),
            volume_id: "vol".into(),
            request_id: "req-s".into(),
        })
    };
    let made = |id: &'static str| {
        move |p: &Plane| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .any(|r| matches!(r, Report::VolumeSnapshot(s) if s.id == id && s.made))
        }
    };
    plane.set(2, snapshot("cold"));
    plane.until("the snapshot of a free volume", made("cold")).await;
    plane.set(3, with_volume(true));
    plane.until("it is attached", attached).await;
    assert!(fake.state().journal.iter().any(|j| j == "attach-disk vm"));
    plane.set(4, snapshot("hot"));
    plane.until("the snapshot of a used volume", made("hot")).await;
    {
        let s = fake.state();
        let of = |what: &str| s.journal.iter().filter(|j| j.starts_with(what)).count();
        assert_eq!(of("copy-of-disk vm vol"), 1, "{:?}", s.journal);
        assert!(
            s.journal.contains(&"snapshot cold of /volumes/vol.0".to_owned()),
            "{:?}",
            s.journal
        );
        assert!(
            s.journal.contains(&"snapshot hot of /volumes/hot.part".to_owned()),
            "{:?}",
            s.journal
        );
    }
    plane.gone(5, ItemKey::VolumeSnapshot("hot".into()));
    plane
        .until("the snapshot is removed", |p| {
            p.has(&Report::Removed(ItemKey::VolumeSnapshot("hot".into())))
        })
        .await;
}

/// For every call: the agent dies before it, or after its effect and before it knows; the next one finishes the work.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_about_a_volume_is_made_up_for() {
    for after in [false, true] {
        let mut calls = 0;
        loop {
            let (fake, plane) = (Fake::new(), plane());
            plane.set(1, volume(10, 0, VolumeSource::Blank));
            plane.set(1, with_volume(true));
            fake.state().crash = Some((calls, after));
            let agent = run(&fake, &plane).await;
            let done = tokio::select! {
                () = plane.until("it is attached", attached) => true,
                () = fake.crashed.notified() => false,
            };
            agent.crash().await;
            fake.state().crash = None;
            plane.reports.lock().unwrap().clear();
            let agent = run(&fake, &plane).await;
            plane.until("it is attached", attached).await;
            fake.state().crash = Some((calls % 3, after));
            plane.set(2, with_volume(false));
            plane.gone(2, ItemKey::Volume("vol".into()));
            let gone = |p: &Plane| p.has(&Report::Removed(ItemKey::Volume("vol".into())));
            tokio::select! {
                () = plane.until("the volume is removed", gone) => {}
                () = fake.crashed.notified() => {}
            }
            agent.crash().await;
            fake.state().crash = None;
            plane.reports.lock().unwrap().clear();
            let _agent = run(&fake, &plane).await;
            plane
                .until(
                    &format!("removed, call {calls} {after} {:?}", fake.state().journal),
                    |p| gone(p) || fake.state().volumes.is_empty(),
                )
                .await;
            plane
                .until("the guest runs without it", |p| {
                    p.last("vm")
                        .is_some_and(|s| s.power == PowerState::Running && !s.attached.iter().any(|a| a == "vol"))
                })
                .await;
            assert!(fake.state().volumes.is_empty());
            if done {
                break;
            }
            calls += 1;
        }
        assert!(calls > 4, "only {calls} calls were tried");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_the_slice_does_not_know_are_kept_told_and_discarded() {
    let (fake, plane) = (Fake::new(), Arc::new(Plane::default()));
    fake.state().volumes.insert("old".into(), (0, 10));
    let _agent = run(&fake, &plane).await;
    plane
        .until("it is told", |p| {
            p.reports
                .lock()
                .unwrap()
                .iter()
                .any(|r| matches!(r, Report::Unknown(u) if u.what == "volume" && u.id == "old"))
        })
        .await;
    assert!(fake.state().volumes.contains_key("old"));
    plane.lanes().discard("volume", "old").await.unwrap();
    assert!(fake.state().volumes.is_empty());
    plane.set(1, volume(10, 0, VolumeSource::Blank));
    plane.until("it is made", |p| told(p, 10, 0)).await;
    assert!(
        plane.lanes().discard("volume", "vol").await.is_err(),
        "it is the cloud's"
    );
}
