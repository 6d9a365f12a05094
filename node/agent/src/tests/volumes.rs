//! Volumes on a machine made of maps.

use super::{fake::*, *};

fn volume(size: u64, content: u64, source: VolumeSource) -> Item {
    Item::Volume(Volume {
        id: "vol".into(),
        request_id: "req-v".into(),
        size,
        content,
        source,
        exports: vec![],
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
                remote: None,
                limits: std::collections::BTreeMap::new(),
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

fn export(name: &str) -> VolumeExport {
    VolumeExport {
        name: name.into(),
        key: maru_base::Secret::new("11".repeat(32)),
        readonly: false,
    }
}

fn offered(size: u64, exports: &[&str]) -> Item {
    let mut item = volume(size, 0, VolumeSource::Blank);
    if let Item::Volume(v) = &mut item {
        v.exports = exports.iter().map(|e| export(e)).collect();
    }
    item
}

/// What was last reported of the volume: where it is offered, and what is open there.
fn offers(plane: &Plane) -> (Option<String>, Vec<String>) {
    let reports = plane.reports.lock().unwrap();
    let last = reports.iter().rev().find_map(|r| match r {
        Report::Volume(v) if v.fault.is_none() => Some((v.offered_at.clone(), v.exports.clone())),
        _ => None,
    });
    last.unwrap_or_default()
}

fn is_offered(names: &'static [&str]) -> impl Fn(&Plane) -> bool {
    move |p| {
        let at = (!names.is_empty()).then(|| fake_volumes::AT.to_owned());
        offers(p) == (at, names.iter().map(|n| (*n).to_owned()).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_offered_grown_copied_offered_again_and_cut() {
    let (fake, plane) = (Fake::new(), Arc::new(Plane::default()));
    plane.set(1, offered(10, &["one"]));
    let _agent = run(&fake, &plane).await;
    plane.until("it is offered", is_offered(&["one"])).await;
    // Larger and copied while another node's guest has it: its process does both.
    plane.set(2, offered(20, &["one"]));
    plane.until("it is larger", |p| told(p, 20, 0)).await;
    plane.set(
        3,
        Item::VolumeSnapshot(VolumeSnapshot {
            id: "hot".into(),
            volume_id: "vol".into(),
            request_id: "req-s".into(),
        }),
    );
    plane
        .until("the snapshot", |p| {
            let reports = p.reports.lock().unwrap();
            reports.iter().any(|r| matches!(r, Report::VolumeSnapshot(s) if s.made))
        })
        .await;
    {
        let journal = fake.state().journal.clone();
        assert!(journal.contains(&"grow-offered vol".to_owned()) && !journal.iter().any(|j| j.starts_with("grow vol")));
        assert!(journal.contains(&"copy-of-offered vol".to_owned()));
        assert!(journal.contains(&"snapshot hot of /volumes/hot.part".to_owned()));
    }
    // Its process dies: it is offered again without being asked.
    let before = fake.state().journal.iter().filter(|j| *j == "offer vol").count();
    fake.exporter_ends("vol");
    plane
        .until("it is offered again", |_| {
            fake.state().exports.contains_key("vol")
                && fake.state().journal.iter().filter(|j| *j == "offer vol").count() > before
        })
        .await;
    // Another one instead of the first, then nobody, then it goes.
    plane.set(4, offered(20, &["two"]));
    plane.until("the other export", is_offered(&["two"])).await;
    assert_eq!(fake.state().exports["vol"].iter().collect::<Vec<_>>(), ["two"]);
    plane.set(5, offered(20, &[]));
    plane.until("it is offered no more", is_offered(&[])).await;
    assert!(fake.state().exports.is_empty());
    plane.set(6, offered(20, &["three"]));
    plane.until("the third export", is_offered(&["three"])).await;
    plane.gone(7, ItemKey::Volume("vol".into()));
    plane
        .until("the volume is removed", |p| {
            p.has(&Report::Removed(ItemKey::Volume("vol".into())))
        })
        .await;
    let journal = fake.state().journal.clone();
    let at = |what: &str| journal.iter().rposition(|j| j == what).unwrap();
    assert!(at("withdraw vol") < at("remove-volume vol"));
}

/// A file has one opener: the guest here, then the exporter, then the guest again.
#[tokio::test(start_paused = true)]
async fn a_guest_and_the_exporter_never_have_a_volume_at_once() {
    let (fake, plane) = (Fake::new(), plane());
    plane.set(1, volume(10, 0, VolumeSource::Blank));
    plane.set(1, with_volume(true));
    let _agent = run(&fake, &plane).await;
    plane.until("it is attached here", attached).await;
    // Offered while the guest has it still (the fake panics if it were): nothing, until the guest lets go.
    plane.set(2, offered(10, &["one"]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(fake.state().exports.is_empty());
    plane.set(3, with_volume(false));
    plane.until("it is offered", is_offered(&["one"])).await;
    // And back: the guest waits for the exporter.
    plane.set(4, with_volume(true));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!attached(&plane));
    plane.set(5, offered(10, &[]));
    plane.until("it is attached here again", attached).await;
}

fn with_remote(address: Option<&str>, size: u64) -> Item {
    let mut item = with_volume(true);
    if let Item::Server(server) = &mut item
        && let Some(Disk {
            source: DiskSource::Volume { remote, .. },
            ..
        }) = server.disks.last_mut()
    {
        *remote = Some(RemoteVolume {
            holder: "n2".into(),
            address: address.map(str::to_owned),
            export: "exp-1".into(),
            key: maru_base::Secret::new("22".repeat(32)),
            size,
        });
    }
    item
}

#[tokio::test(start_paused = true)]
async fn a_remote_volume_is_waited_for_plugged_followed_and_its_key_forgotten() {
    let (fake, plane) = (Fake::new(), plane());
    let _agent = run(&fake, &plane).await;
    running(&plane, 1).await;
    plane.set(2, with_remote(None, 10));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!attached(&plane), "its holder has not said where it is");
    plane.set(3, with_remote(Some("192.0.2.7:10900"), 10));
    plane.until("it is attached", attached).await;
    let file = fake.dir.path().join("guests/keys/vm/exp-1/keys.psk");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("exp-1:{}\n", "22".repeat(32))
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let config = fake.state().guests["vm"].config.clone();
    let text = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(
        !text.contains("2222"),
        "the key is kept with the guest's record: {text}"
    );
    // It grows and its holder comes back elsewhere: the guest's process follows.
    plane.set(4, with_remote(Some("192.0.2.7:10900"), 20));
    plane.set(5, with_remote(Some("192.0.2.7:10901"), 20));
    let followed = |_: &Plane| {
        let journal = fake.state().journal.clone();
        journal.contains(&"follow-disk vm vol 192.0.2.7:10901 20".to_owned())
    };
    plane.until("it is followed", followed).await;
    plane.set(6, with_volume(false));
    plane
        .until("it is let go of", |p| {
            p.last("vm")
                .is_some_and(|s| s.revision == 6 && !s.attached.iter().any(|a| a == "vol"))
        })
        .await;
    assert!(!fake.dir.path().join("guests/keys/vm").exists());
    plane.set(7, with_remote(Some("192.0.2.7:10900"), 10));
    plane
        .until("it is attached again", |p| {
            p.last("vm").is_some_and(|s| s.revision == 7)
        })
        .await;
    assert!(file.exists());
    plane.gone(8, ItemKey::Server("vm".into()));
    plane
        .until("it is gone", |p| p.has(&Report::ServerRemoved("vm".into())))
        .await;
    assert!(!fake.dir.path().join("guests/keys/vm").exists());
}

/// For every call: the holder's agent dies before it, or after its effect and before it knows; the next one finishes the work.
#[tokio::test(start_paused = true)]
async fn a_crash_of_the_holder_at_any_call_is_made_up_for() {
    for after in [false, true] {
        let mut calls = 0;
        loop {
            let (fake, plane) = (Fake::new(), Arc::new(Plane::default()));
            plane.set(1, offered(10, &["one"]));
            fake.state().crash = Some((calls, after));
            let agent = run(&fake, &plane).await;
            let story = async {
                plane.until("it is offered", is_offered(&["one"])).await;
                plane.set(2, offered(20, &["one"]));
                plane.until("it is larger", |p| told(p, 20, 0)).await;
                plane.set(3, offered(20, &["two"]));
                plane.until("the other export", is_offered(&["two"])).await;
                plane.gone(4, ItemKey::Volume("vol".into()));
                let gone = |p: &Plane| p.has(&Report::Removed(ItemKey::Volume("vol".into())));
                plane.until("it is removed", gone).await;
            };
            let done = tokio::select! {
                () = story => true,
                () = fake.crashed.notified() => false,
            };
            agent.crash().await;
            if done {
                break;
            }
            fake.state().crash = None;
            plane.reports.lock().unwrap().clear();
            let _agent = run(&fake, &plane).await;
            plane.set(5, offered(30, &["three"]));
            plane
                .until(&format!("offered after call {calls} {after}"), |p| {
                    is_offered(&["three"])(p) && told(p, 30, 0)
                })
                .await;
            plane.set(6, offered(30, &[]));
            plane.until("offered no more", is_offered(&[])).await;
            plane.gone(7, ItemKey::Volume("vol".into()));
            plane.until("removed", |_| fake.state().volumes.is_empty()).await;
            assert!(fake.state().exports.is_empty());
            calls += 1;
        }
        assert!(calls > 5, "only {calls} calls were tried");
    }
}
