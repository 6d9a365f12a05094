//! Properties of the pure planners: the scheduler, the states of a server, the counters of quotas.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model::{self as m, schedule};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn block_on<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(f)
}

/// A node: processors, memory, disk; whether it is up, disabled, forced down; its zone.
type Node = (u32, u64, u64, bool, bool, bool, u8);

fn node() -> impl Strategy<Value = Node> {
    (
        0_u32..4,
        prop_oneof![Just(0_u64), 256_u64..4_096],
        0_u64..40,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        0_u8..3,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the nodes and the requests: no node is overcommitted, every choice passes every filter, and a refusal
    /// names each host once with the filter that turned it down.
    #[test]
    fn the_scheduler_never_overcommits_and_always_says_why(
        nodes in prop::collection::vec(node(), 0..6),
        sizes in prop::collection::vec((1_u32..5, 64_u64..2_048, 0_u64..20, 0_u8..4, any::<bool>()), 1..14),
    ) {
        block_on(async {
            let c = bare().await;
            c.quota("ops", json!({"instances": -1, "cores": -1, "ram": -1})).await;
            for zone in ["z1", "z2"] {
                c.want(200, ADMIN, "POST", "/os-aggregates", json!({"aggregate": {"name": zone, "availability_zone": zone}})).await;
            }
            for (n, (vcpus, memory, disk, up, disabled, down, zone)) in nodes.iter().enumerate() {
                let host = format!("node{n}");
                c.node(&host, *vcpus, *memory, *disk).await;
                if *zone > 0 {
                    c.want(200, ADMIN, "POST", &format!("/os-aggregates/{zone}/action"), json!({"add_host": {"host": host}})).await;
                }
                c.plan(|s, txn| {
                    let read = m::find_service(s, &host).unwrap();
                    let mut new = (*read.value).clone();
                    (new.up, new.disabled, new.forced_down) = (*up, *disabled, *down);
                    txn.update(&read, &new);
                }).await;
            }
            for (n, (vcpus, memory, disk, zone, traits)) in sizes.iter().enumerate() {
                let name = format!("f{n}");
                let mut size = flavor(&name, *vcpus, *memory, *disk);
                if *traits {
                    size.extra_specs.insert("trait:HW_ARCH_X86_64".into(), "required".into());
                }
                c.plan(|s, txn| m::plan_create_flavor(s, txn, &name.as_str().into(), &size).unwrap()).await;
                let mut body = wanted(json!({"flavorRef": name}));
                match zone {
                    1 => body["server"]["availability_zone"] = json!("z1"),
                    2 => body["server"]["availability_zone"] = json!("z2"),
                    _ => {}
                }
                let answer = c.at(NEW, ADMIN, "POST", "/servers", body).await;
                if answer.status == 400 {
                    // A zone without hosts, or an image that does not fit the disk.
                    continue;
                }
                let server = id(&answer.body["server"]);
                let before = c.store.snapshot();
                let object = before.get::<m::Server>(&server.as_str().into()).unwrap();
                let request = schedule::Request { id: &server, server: &object, exclude: &[] };
                let verdict = schedule::select(&before, &request);
                c.control().await;
                let made = c.server(&server).unwrap();
                match verdict {
                    Ok(choice) => {
                        // The flow takes what the pure function proposed.
                        prop_assert_eq!(made.host.as_deref(), Some(choice.service.host.as_str()));
                        prop_assert!(choice.service.alive() && !choice.service.disabled);
                        prop_assert!(choice.fitting >= 1 && choice.fitting <= nodes.len());
                        if let Some(zone) = &made.zone {
                            prop_assert_eq!(&m::zone_of(&before, &choice.service.host), zone);
                        }
                        prop_assert_eq!(&choice.resources, &made.flavor.resources());
                    }
                    Err(refusal) => {
                        prop_assert_eq!(made.vm_state, m::VmState::Error);
                        let hosts: BTreeSet<&str> = refusal.rejected.iter().map(|r| r.host.as_str()).collect();
                        prop_assert_eq!(hosts.len(), refusal.rejected.len(), "each host once");
                        prop_assert_eq!(hosts.len(), nodes.len(), "every host");
                        for r in &refusal.rejected {
                            prop_assert!(["AvailabilityZoneFilter", "ComputeFilter", "placement"].contains(&r.filter));
                            prop_assert!(!r.reason.is_empty());
                            prop_assert!(refusal.to_string().contains(&r.host));
                        }
                        // What the owner sees names the filters, never a host.
                        prop_assert!(!refusal.summary().contains("node"), "{}", refusal.summary());
                        prop_assert!(made.fault.unwrap().message.contains(&refusal.summary()));
                    }
                }
                // It gives the same answer again: nothing but the snapshot matters.
                let again = schedule::select(&before, &request).map(|c| c.service.host.clone());
                prop_assert_eq!(again.ok().is_some(), made.host.is_some());
                c.audit();
            }
            Ok(())
        })?;
    }
}

/// What happens to a server.
#[derive(Debug, Clone)]
enum Event {
    Act(usize),
    /// The node does what it is told.
    Obey,
    /// The node reports a machine in this state, late by so many revisions, with or without a final fault.
    Report(u8, u64, bool),
    Delete,
}

const ACTIONS: &[(&str, &str)] = &[
    ("os-stop", "null"),
    ("os-start", "null"),
    ("pause", "null"),
    ("unpause", "null"),
    ("suspend", "null"),
    ("resume", "null"),
    ("reboot", r#"{"type": "SOFT"}"#),
    ("reboot", r#"{"type": "HARD"}"#),
    ("rebuild", r#"{"imageRef": "11111111-1111-4111-8111-111111111111"}"#),
    ("resize", r#"{"flavorRef": "2"}"#),
    ("resize", r#"{"flavorRef": "1"}"#),
    ("rescue", "null"),
    ("unrescue", "null"),
    ("confirmResize", "null"),
    ("revertResize", "null"),
    ("shelve", "null"),
    ("unshelve", "null"),
    (
        "createBackup",
        r#"{"name": "b", "backup_type": "daily", "rotation": 1}"#,
    ),
    ("lock", "null"),
    ("unlock", "null"),
];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..ACTIONS.len()).prop_map(Event::Act),
        4 => Just(Event::Obey),
        3 => (0_u8..6, 0_u64..4, prop::bool::weighted(0.2)).prop_map(|(p, late, f)| Event::Report(p, late, f)),
        1 => Just(Event::Delete),
    ]
}

fn machine(n: u8) -> m::PowerState {
    use m::PowerState::{Crashed, Nostate, Paused, Running, Shutdown, Suspended};
    [Nostate, Running, Paused, Shutdown, Crashed, Suspended][usize::from(n)]
}

/// What always holds of a server.
fn check(s: &m::Server) -> Result<(), TestCaseError> {
    prop_assert_ne!(s.status(), "UNKNOWN");
    if s.task.is_none()
        && !matches!(
            s.vm_state,
            m::VmState::Error | m::VmState::Resized | m::VmState::Rescued
        )
    {
        prop_assert_eq!(s.vm_state, s.power.vm_state(), "at rest it is what it shall be");
    }
    if s.vm_state == m::VmState::Building {
        prop_assert!(s.launched_at.is_none(), "what has run is not built again");
    }
    if s.vm_state == m::VmState::Active {
        prop_assert!(s.launched_at.is_some());
    }
    if s.vm_state == m::VmState::Resized {
        prop_assert!(s.resize.is_some());
    }
    prop_assert!(s.fault.is_none() || s.vm_state == m::VmState::Error || s.task.is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of requests and reports brings a server into a state that is none, a refused request changes
    /// nothing, a deletion is never undone, and in the end an obedient node always brings it to rest.
    #[test]
    fn states_change_only_as_they_may(events in prop::collection::vec(event(), 1..40)) {
        block_on(async {
            let c = cloud().await;
            let server = c.create(A, json!({})).await;
            c.control().await;
            let path = format!("/servers/{server}");
            for e in &events {
                let Some(before) = c.server(&server) else { break };
                match e {
                    Event::Act(n) => {
                        let (name, value) = ACTIONS[*n];
                        let body = json!({name: serde_json::from_str::<Value>(value).unwrap()});
                        let status = c.at(NEW, A, "POST", &format!("{path}/action"), body).await.status;
                        let after = c.server(&server).unwrap();
                        match status {
                            // Only a confirmation is over at once.
                            204 => prop_assert!(name == "confirmResize" && after.resize.is_none()),
                            202 | 200 => {
                                prop_assert_eq!(after.vm_state, before.vm_state, "a request is an intent");
                                if before.task == Some(m::Task::Deleting) {
                                    prop_assert_eq!(after.task, Some(m::Task::Deleting));
                                }
                            }
                            409 => prop_assert_eq!(&after, &before),
                            // The flavor that it has, or one with smaller disks.
                            400 => prop_assert!(name == "resize" && after == before),
                            other => prop_assert!(false, "{name}: {other}"),
                        }
                    }
                    Event::Obey => obey(&c.store, &server.as_str().into()).await.unwrap(),
                    Event::Report(power, late, fault) => {
                        let s = c.store.snapshot();
                        let revision = s.get::<m::Server>(&server.as_str().into()).unwrap().revision;
                        let seen = m::Observation {
                            revision: revision.saturating_sub(*late),
                            power: machine(*power),
                            reboots: before.reboot.count,
                            rebuilds: before.rebuild,
                            resizes: before.resizes,
                            fault: fault.then(|| "broken".to_owned()),
                            fault_final: *fault,
                            attached: vec![],
                        };
                        let answers = seen.revision > before.asked_after;
                        c.report(&server, seen).await;
                        let after = c.server(&server).unwrap();
                        if before.task == Some(m::Task::Deleting) {
                            prop_assert_eq!(&after, &before, "no report undoes a deletion");
                        }
                        if after.vm_state == m::VmState::Error && before.vm_state != m::VmState::Error {
                            prop_assert!(*fault && answers, "only a final fault of the present intent");
                        }
                    }
                    Event::Delete => {
                        let status = c.at(NEW, A, "DELETE", &path, Value::Null).await.status;
                        prop_assert!(status == 204 || (status == 409 && before.lock.is_some()), "{status}");
                    }
                }
                if let Some(after) = c.server(&server) {
                    check(&after)?;
                }
                c.audit();
            }
            c.settle().await;
            if let Some(end) = c.server(&server) {
                prop_assert_eq!(end.task, None, "it comes to rest");
            }
            c.idle();
            Ok(())
        })?;
    }

    /// Whatever comes and goes, the counters say what is there and no limit is passed.
    #[test]
    fn quota_counters_agree_with_what_is_there(
        limits in (1_i64..6, 1_i64..9),
        steps in prop::collection::vec((0_u8..6, 1_u64..4, any::<prop::sample::Index>()), 1..20),
    ) {
        block_on(async {
            let c = cloud().await;
            c.quota("aaa", json!({"instances": limits.0, "cores": limits.1, "server_groups": 2})).await;
            for (what, n, which) in steps {
                let ids: Vec<String> = c.store.snapshot().list::<m::Server>().map(|s| s.id.to_string()).collect();
                match what {
                    0 | 1 => {
                        let body = wanted(json!({"flavorRef": if what == 0 { "1" } else { "2" }, "min_count": n}));
                        let status = c.at(NEW, A, "POST", "/servers", body).await.status;
                        prop_assert!(status == 202 || status == 403, "{status}");
                    }
                    2 if !ids.is_empty() => {
                        c.want(204, A, "DELETE", &format!("/servers/{}", which.get(&ids)), Value::Null).await;
                    }
                    3 => c.settle().await,
                    4 => {
                        let body = json!({"server_group": {"name": "g", "policy": "affinity"}});
                        let status = c.at(NEW, A, "POST", "/os-server-groups", body).await.status;
                        prop_assert!(status == 200 || status == 403, "{status}");
                    }
                    _ => {
                        let groups: Vec<String> = c.store.snapshot().list::<m::ServerGroup>().map(|g| g.id.to_string()).collect();
                        if !groups.is_empty() {
                            c.want(204, A, "DELETE", &format!("/os-server-groups/{}", which.get(&groups)), Value::Null).await;
                        }
                    }
                }
                let s = c.store.snapshot();
                prop_assert!(m::quota::used(&s, "aaa", "instances") <= limits.0);
                prop_assert!(m::quota::used(&s, "aaa", "cores") <= limits.1);
                prop_assert!(m::quota::used(&s, "aaa", "server_groups") <= 2);
                c.audit();
            }
            Ok(())
        })?;
    }
}
