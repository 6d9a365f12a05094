//! Kills `maru up` with -9 at random moments under a mixed load through the API, and compares what was acknowledged with what
//! is there.
//!
//! ```text
//!  start ─► compare what each client was told with what is there ─► load ─► kill -9 ─┐
//!    ▲                                                                               │
//!    └───────────────────────────────────────────────────────────────────────────────┘
//!  every tenth time and at the end: wait until all is quiet; nothing may be stuck
//!  at the end: delete all; nothing may be held (quota, allocations, addresses, flows)
//! ```
//!
//! `MARU_CLOUD_KILLS` (10) is the number of kills, `MARU_SEED` repeats the choices of a run, and `MARU_SOAK` names a directory
//! that is kept: a run that was cut short goes on from there, and `cloud-kills.txt` in it has a line for each kill.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod load;

use load::{Load, Random};
use maru_system_tests::{client::Client, process::Cloud};
use serde_json::json;
use std::{
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Clients at work at once; each has a project of its own, so that its account of what is there is complete.
const CLIENTS: usize = 6;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Makes a project with its user, once.
fn tenant(cloud: &Cloud, admin: &Client, n: usize) -> Client {
    let name = format!("tenant{n}");
    let login = || cloud.client().log_in(&name, "secret", &name);
    if let Ok(client) = login() {
        return client;
    }
    let made = |path: &str, body| {
        let answer = admin.json("POST", path, &body).expect("an answer");
        assert!(answer.ok() || answer.status == 409, "{path}: {answer:?}");
    };
    let find = |path: &str, list: &str| {
        let answer = admin.ask("GET", path).expect("an answer");
        answer.body[list][0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{path}: {answer:?}"))
            .to_owned()
    };
    made("/identity/v3/projects", json!({"project": {"name": name}}));
    made(
        "/identity/v3/users",
        json!({"user": {"name": name, "password": "secret"}}),
    );
    let project = find(&format!("/identity/v3/projects?name={name}"), "projects");
    let user = find(&format!("/identity/v3/users?name={name}"), "users");
    let role = find("/identity/v3/roles?name=member", "roles");
    let grant = admin.ask(
        "PUT",
        &format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"),
    );
    assert!(grant.is_some_and(|a| a.ok()));
    for (path, body) in [
        (
            format!("/compute/v2.1/os-quota-sets/{project}"),
            json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1, "key_pairs": -1}}),
        ),
        (
            format!("/network/v2.0/quotas/{project}"),
            json!({"quota": {"network": -1, "port": -1, "subnet": -1, "security_group": -1, "floatingip": -1}}),
        ),
    ] {
        let answer = admin.json("PUT", &path, &body).expect("an answer");
        assert!(answer.ok(), "{path}: {answer:?}");
    }
    login().unwrap_or_else(|a| panic!("cannot log in: {a:?}"))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_stuck() {
    let kills = number("MARU_CLOUD_KILLS", 10);
    let seed = number("MARU_SEED", maru_base::random::below(u64::MAX));
    println!("cloud kills: seed {seed}");
    let mut random = Random::new(seed);
    let own = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("MARU_SOAK").map(PathBuf::from);
    let folder = kept.clone().unwrap_or_else(|| own.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let journal = folder.join("cloud-kills.txt");
    let before = std::fs::read_to_string(&journal).map_or(0, |t| t.lines().count() as u64);
    let mut journal = std::fs::File::options()
        .create(true)
        .append(true)
        .open(journal)
        .unwrap();

    let mut cloud = Cloud::new(&folder.join("data"), 4);
    cloud.start();
    let admin = cloud.client().log_in("admin", &cloud.password(), "admin").unwrap();
    let flavor = admin.ask("GET", "/compute/v2.1/flavors").unwrap().body["flavors"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let public = admin.ask("GET", "/network/v2.0/networks?name=public").unwrap().body["networks"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut loads: Vec<Load> = (0..CLIENTS)
        .map(|n| Load::new(tenant(&cloud, &admin, n), n, random.next(), &flavor, &public))
        .collect();
    // What an earlier run that was cut short left behind has no account: it goes first.
    for load in &mut loads {
        load.adopt_leftovers();
    }
    let (mut acknowledged, mut lost, mut stuck, mut slowest) = (0_u64, Vec::new(), Vec::new(), Duration::ZERO);
    for kill in before + 1..=kills.max(before) {
        let stop = AtomicBool::new(false);
        let life = Duration::from_millis(50 + random.below(1200));
        let begun = Instant::now();
        let done: u64 = std::thread::scope(|scope| {
            let stop = &stop;
            let threads: Vec<_> = loads
                .iter_mut()
                .map(|load| scope.spawn(move || load.run(stop)))
                .collect();
            // Not a wait for a state: the moment of death is what is random here.
            load::pause(life);
            cloud.kill();
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        acknowledged += done;
        let took = cloud.start();
        slowest = slowest.max(took);
        let mut missing: Vec<String> = loads.iter_mut().flat_map(Load::compare).collect();
        let hung = if kill % 10 == 0 || kill == kills {
            loads
                .iter_mut()
                .flat_map(|l| l.quiet(Duration::from_secs(60)))
                .collect()
        } else {
            Vec::new()
        };
        let line = format!(
            "kill {kill}: after {:.2} s, {done} acknowledged, back after {:.3} s, lost: {}, stuck: {}",
            begun.elapsed().as_secs_f64(),
            took.as_secs_f64(),
            missing.len(),
            hung.len()
        );
        println!("{line}");
        writeln!(journal, "{line}").unwrap();
        for what in missing.iter().chain(&hung) {
            println!("  {what}");
        }
        lost.append(&mut missing);
        stuck.extend(hung);
    }
    let mirror = cloud.maru(&["debug", "check"]);
    let mut held: Vec<String> = loads.iter_mut().flat_map(Load::clear).collect();
    for prefix in [
        "server/",
        "flow/",
        "consumer/",
        "floating_ip/",
        "tombstone_port/",
        "observed_server/",
    ] {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let left = cloud.maru(&["debug", "store", prefix]).unwrap();
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                held.push(format!("{prefix}: {} objects are left: {left}", left.lines().count()));
                break;
            }
        }
    }
    println!(
        "cloud kills: {}, lost: {}, stuck: {}, held: {} (of {acknowledged} acknowledged; slowest restart {:.3} s)",
        kills.max(before),
        lost.len(),
        stuck.len(),
        held.len(),
        slowest.as_secs_f64()
    );
    assert!(
        lost.is_empty() && stuck.is_empty(),
        "lost: {lost:#?}, stuck: {stuck:#?}; MARU_SEED={seed}"
    );
    assert!(held.is_empty(), "{held:#?}; MARU_SEED={seed}");
    mirror.expect("the mirror is what the engine says");
}
