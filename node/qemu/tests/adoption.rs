//! A guest outlives the process that started it, whenever that dies, and its successor takes it over.
//!
//! The owner is this very test binary, started again with `MARU_TEST_OWNER` naming what it shall do; it is killed with -9.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::*;
use maru_agent_api::observed::PowerState;
use maru_qemu::{GuestConfig, Hypervisor, Options, Qemu};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of the test that kills the owner anywhere.
const ROUNDS: u64 = 25;

struct Owner(Child);

impl Owner {
    /// Starts an owner in `place` and waits until it has said `lines` lines.
    fn start(place: &Place, task: &str, configs: &[GuestConfig], lines: u64) -> Self {
        let configs = serde_json::to_string(configs).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner", "--nocapture"])
            .env("MARU_TEST_OWNER", task)
            .env("MARU_TEST_STATE", place.dir.path().join("state"))
            .env("MARU_TEST_GROUP", &place.group)
            .env("MARU_TEST_CONFIGS", configs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        for _ in 0..lines {
            // The harness' own lines are not the owner's.
            while !said.next().expect("the owner ended early").starts_with("owner: ") {}
        }
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test of its own: the owner's side. Without its environment it does nothing.
#[test]
fn owner() {
    let Ok(task) = std::env::var("MARU_TEST_OWNER") else {
        return;
    };
    let mut options = Options::new(std::env::var("MARU_TEST_STATE").unwrap());
    options.cgroup = Some(std::env::var("MARU_TEST_GROUP").unwrap());
    let configs: Vec<GuestConfig> = serde_json::from_str(&std::env::var("MARU_TEST_CONFIGS").unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let qemu = Qemu::new(options).unwrap();
        match task.as_str() {
            "states" => {
                for config in &configs {
                    qemu.define(config.clone()).await.unwrap();
                    qemu.start(&config.id).await.unwrap();
                }
                qemu.pause(&configs[1].id).await.unwrap();
                qemu.suspend(&configs[2].id).await.unwrap();
                qemu.stop(&configs[3].id, Duration::ZERO).await.unwrap();
                println!("owner: ready");
                std::future::pending::<()>().await;
            }
            _ => loop {
                let config = configs[0].clone();
                let id = config.id.clone();
                let more = configs[1].disks[0].clone();
                println!("owner: define");
                qemu.define(config).await.unwrap();
                println!("owner: start");
                qemu.start(&id).await.unwrap();
                println!("owner: attach");
                qemu.attach_disk(&id, more).await.unwrap();
                println!("owner: suspend");
                qemu.suspend(&id).await.unwrap();
                println!("owner: start from disk");
                qemu.start(&id).await.unwrap();
                println!("owner: reboot");
                qemu.reboot(&id, true, Duration::ZERO).await.unwrap();
                println!("owner: stop");
                qemu.stop(&id, Duration::ZERO).await.unwrap();
                println!("owner: destroy");
                qemu.destroy(&id).await.unwrap();
            },
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_their_owner_and_are_taken_over_in_every_state() {
    let place = Place::new();
    let configs: Vec<GuestConfig> = (0..5).map(|_| place.config()).collect();
    let owner = Owner::start(&place, "states", &configs, 1);
    let pids: Vec<Vec<u32>> = configs.iter().map(|c| processes_of(&c.id)).collect();
    owner.kill();
    assert!(
        alive(pids[0][0]) && alive(pids[1][0]) && alive(pids[4][0]),
        "a guest died with its owner"
    );
    // One more dies while nobody looks, and what a pid file says is not believed.
    kill(pids[4][0]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive(pids[4][0]) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    std::fs::write(
        place.home(&configs[0].id).join("qemu.pid"),
        "{\"pid\": 1, \"started\": 1}",
    )
    .unwrap();

    let qemu = place.driver();
    let begun = Instant::now();
    let adopted = qemu.adopt_all().await.unwrap();
    println!("adopted {} guests in {:?}", adopted.len(), begun.elapsed());
    let expected = [
        PowerState::Running,
        PowerState::Paused,
        PowerState::Suspended,
        PowerState::Shutdown,
        PowerState::Crashed,
    ];
    for (config, expected) in configs.iter().zip(expected) {
        let status = qemu.status(&config.id).await.unwrap();
        assert_eq!(status.power, expected, "{status:?}");
        assert_eq!(status.config.as_ref(), Some(config));
    }
    let status = qemu.status(&configs[0].id).await.unwrap();
    assert_eq!(
        (status.pid, processes_of(&configs[0].id)),
        (Some(pids[0][0]), pids[0].clone())
    );

    // Known is not enough: they obey.
    qemu.pause(&configs[0].id).await.unwrap();
    qemu.resume(&configs[0].id).await.unwrap();
    qemu.attach_disk(&configs[0].id, place.disk("more", "virtio", 1 << 20))
        .await
        .unwrap();
    qemu.resume(&configs[1].id).await.unwrap();
    for config in &configs[2..] {
        qemu.start(&config.id).await.unwrap();
    }
    // A second adoption changes nothing.
    assert_eq!(qemu.adopt_all().await.unwrap().len(), 5);
    for config in &configs {
        assert_eq!(qemu.status(&config.id).await.unwrap().power, PowerState::Running);
        qemu.destroy(&config.id).await.unwrap();
        place.nothing_is_left(&config.id);
    }
}

/// Two drivers of one state directory after another: a monitor that is held by nobody is taken at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_seen_by_the_successor_is_a_crash() {
    let place = Place::new();
    let configs: Vec<GuestConfig> = (0..4).map(|_| place.config()).collect();
    Owner::start(&place, "states", &configs, 1).kill();
    let qemu = place.driver();
    qemu.adopt_all().await.unwrap();
    let mut events = qemu.events();
    kill(qemu.status(&configs[0].id).await.unwrap().pid.unwrap());
    let crashed = async {
        loop {
            let event = events.recv().await.unwrap();
            if event.id == configs[0].id && event.what == "crashed" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), crashed).await.unwrap();
    for config in &configs {
        qemu.destroy(&config.id).await.unwrap();
        place.nothing_is_left(&config.id);
    }
}

/// A process of ours whose directory is lost is still found, shown and can be ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_its_record_is_found() {
    let place = Place::new();
    let configs: Vec<GuestConfig> = (0..4).map(|_| place.config()).collect();
    Owner::start(&place, "states", &configs, 1).kill();
    let id = &configs[0].id;
    std::fs::remove_dir_all(place.home(id)).unwrap();
    let qemu = place.driver();
    qemu.adopt_all().await.unwrap();
    let status = qemu.status(id).await.unwrap();
    assert!(status.config.is_none() && status.pid.is_some(), "{status:?}");
    assert!(qemu.start(id).await.unwrap_err().message().contains("only be removed"));
    for config in &configs {
        qemu.destroy(&config.id).await.unwrap();
        place.nothing_is_left(&config.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_may_die_anywhere_and_nothing_is_stuck() {
    let mut outcomes = std::collections::BTreeMap::new();
    for round in 0..ROUNDS {
        let place = Place::new();
        let configs = [place.config(), place.config()];
        let id = configs[0].id.clone();
        // A place in the life, and some time beyond it.
        let (line, beyond) = (1 + round % 8, maru_base::random::below(40_000));
        let owner = Owner::start(&place, "life", &configs, line);
        let until = Instant::now() + Duration::from_micros(beyond);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        owner.kill();

        let qemu = place.driver();
        qemu.adopt_all().await.unwrap();
        let found = qemu.status(&id).await.map_or(None, |s| Some(s.power));
        *outcomes.entry(format!("{found:?}")).or_insert(0) += 1;
        assert!(processes_of(&id).len() <= 1);
        assert_ne!(
            found,
            Some(PowerState::Crashed),
            "round {round}: line {line}, {beyond} µs beyond"
        );
        // The agent's next pass brings it where it shall be, whatever was found.
        qemu.define(configs[0].clone()).await.unwrap();
        let started = qemu.start(&id).await;
        let there: Vec<_> = processes_of(&id).into_iter().map(|p| (p, command_line(p))).collect();
        assert!(
            started.is_ok(),
            "round {round}: line {line}, found {found:?}: {started:?}: {there:?}"
        );
        qemu.resume(&id).await.unwrap();
        let status = qemu.status(&id).await.unwrap();
        assert_eq!(status.power, PowerState::Running, "round {round}: {status:?}");
        assert_eq!(processes_of(&id).len(), 1);
        qemu.destroy(&id).await.unwrap();
        place.nothing_is_left(&id);
        assert_no_parts(&place.dir.path().join("state"));
    }
    println!("{ROUNDS} owners were killed; their guest was found as {outcomes:?}");
}

fn assert_no_parts(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir.join("servers")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
