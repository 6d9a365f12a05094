//! Actions: power, their state conflicts, locks, rebuild, console, what is recorded of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

/// Puts a server into a state by hand.
async fn force(c: &Cloud, id: &str, vm: m::VmState, task: Option<m::Task>) {
    c.plan(|s, txn| {
        let read = s.get::<m::Server>(&id.into()).unwrap();
        let mut new = (*read.value).clone();
        new.vm_state = vm;
        new.task = task;
        txn.update(&read, &new);
    })
    .await;
}

const STATES: [m::VmState; 6] = [
    m::VmState::Building,
    m::VmState::Active,
    m::VmState::Paused,
    m::VmState::Suspended,
    m::VmState::Stopped,
    m::VmState::Error,
];

#[tokio::test]
async fn power_follows_what_is_asked() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    // action, while, then, power number
    for (body, during, then, power) in [
        (json!({"os-stop": null}), "ACTIVE", "SHUTOFF", 4),
        (json!({"os-start": null}), "SHUTOFF", "ACTIVE", 1),
        (json!({"pause": null}), "ACTIVE", "PAUSED", 3),
        (json!({"unpause": null}), "PAUSED", "ACTIVE", 1),
        (json!({"suspend": null}), "ACTIVE", "SUSPENDED", 7),
        (json!({"resume": null}), "SUSPENDED", "ACTIVE", 1),
        (json!({"reboot": {"type": "SOFT"}}), "REBOOT", "ACTIVE", 1),
        (json!({"reboot": {"type": "Hard"}}), "HARD_REBOOT", "ACTIVE", 1),
        (json!({"pause": null}), "ACTIVE", "PAUSED", 3),
        (json!({"reboot": {"type": "hard"}}), "HARD_REBOOT", "ACTIVE", 1),
    ] {
        assert_eq!(c.act(202, A, &server, body.clone()).await, Value::Null);
        let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
        assert_eq!(v["status"], during, "{body}");
        assert!(v["OS-EXT-STS:task_state"].is_string());
        c.settle().await;
        let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
        assert_eq!(v["status"], then, "{body}");
        assert_eq!(v["OS-EXT-STS:power_state"], power);
        assert_eq!(v["OS-EXT-STS:task_state"], Value::Null);
    }
    assert_eq!(c.server(&server).unwrap().reboot.count, 3);
    // A guest that powers itself off stays off.
    let s = c.store.snapshot();
    let revision = s.get::<m::Server>(&server.as_str().into()).unwrap().revision;
    let seen = m::Observation {
        revision,
        power: m::PowerState::Shutdown,
        reboots: 3,
        ..m::Observation::default()
    };
    c.report(&server, seen).await;
    assert_eq!(c.server(&server).unwrap().status(), "SHUTOFF");
    c.settle().await;
    assert_eq!(c.server(&server).unwrap().status(), "SHUTOFF");
}

#[tokio::test]
async fn every_action_is_refused_in_the_states_that_upstream_refuses() {
    use m::VmState::{Active, Building, Error, Paused, Stopped, Suspended};
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let table: [(&str, Value, &[m::VmState]); 9] = [
        ("stop", json!({"os-stop": null}), &[Active, Error]),
        ("start", json!({"os-start": null}), &[Stopped]),
        ("pause", json!({"pause": null}), &[Active]),
        ("unpause", json!({"unpause": null}), &[Paused]),
        ("suspend", json!({"suspend": null}), &[Active]),
        ("resume", json!({"resume": null}), &[Suspended]),
        ("reboot", json!({"reboot": {"type": "SOFT"}}), &[Active]),
        (
            "reboot",
            json!({"reboot": {"type": "HARD"}}),
            &[Active, Stopped, Paused, Suspended, Error],
        ),
        (
            "rebuild",
            json!({"rebuild": {"imageRef": IMAGE}}),
            &[Active, Stopped, Error],
        ),
    ];
    let path = format!("/servers/{server}/action");
    for (name, body, allowed) in &table {
        for state in STATES {
            force(&c, &server, state, None).await;
            if allowed.contains(&state) {
                c.want(202, A, "POST", &path, body.clone()).await;
                continue;
            }
            let message = c.refused(409, A, "POST", &path, body.clone()).await;
            let want = format!(
                "Cannot '{name}' instance {server} while it is in vm_state {}",
                state.as_str()
            );
            assert_eq!(message, want);
        }
        // Another thing is being done.
        force(&c, &server, allowed[0], Some(m::Task::Rebuilding)).await;
        let message = c.refused(409, A, "POST", &path, body.clone()).await;
        let want = format!("Cannot '{name}' instance {server} while it is in task_state rebuilding");
        assert_eq!(message, want);
        assert_eq!(c.server(&server).unwrap().task, Some(m::Task::Rebuilding));
    }
    assert!([Building, Active].iter().all(|s| STATES.contains(s)));
    // A hard reboot overrides what hangs.
    for task in [
        m::Task::Rebooting,
        m::Task::RebootingHard,
        m::Task::Pausing,
        m::Task::Resuming,
    ] {
        force(&c, &server, Active, Some(task)).await;
        c.want(202, A, "POST", &path, json!({"reboot": {"type": "HARD"}})).await;
    }
    force(&c, &server, Active, Some(m::Task::Deleting)).await;
    c.refused(409, A, "POST", &path, json!({"reboot": {"type": "HARD"}}))
        .await;
}

#[tokio::test]
async fn malformed_actions_are_refused() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let path = format!("/servers/{server}/action");
    let before = c.store.snapshot().revision();
    for (minor, body, status, part) in [
        (NEW, json!({}), 400, "exactly one"),
        (NEW, json!({"os-stop": null, "os-start": null}), 400, "exactly one"),
        (NEW, json!([]), 400, "object"),
        (NEW, json!({"dance": null}), 400, "no such action: dance"),
        (NEW, json!({"reboot": {}}), 400, "type"),
        (NEW, json!({"reboot": {"type": "GENTLE"}}), 400, "reboot.type"),
        (NEW, json!({"reboot": {"type": null}}), 400, "reboot.type"),
        (NEW, json!({"reboot": {"type": "SOFT", "x": 1}}), 400, "reboot"),
        (NEW, json!({"reboot": null}), 400, "reboot"),
        (NEW, json!({"lock": {"locked_reason": ""}}), 400, "locked_reason"),
        (
            NEW,
            json!({"lock": {"locked_reason": "x".repeat(256)}}),
            400,
            "locked_reason",
        ),
        (NEW, json!({"lock": {"why": "x"}}), 400, "lock"),
        (72, json!({"lock": {"locked_reason": "x"}}), 400, "locked_reason"),
        (NEW, json!({"changePassword": {}}), 400, "adminPass"),
        (NEW, json!({"changePassword": {"adminPass": 5}}), 400, "adminPass"),
        (NEW, json!({"changePassword": {"adminPass": "x"}}), 501, "key pair"),
        (NEW, json!({"os-getConsoleOutput": {"length": "x"}}), 400, "length"),
        (NEW, json!({"os-getConsoleOutput": {"length": -2}}), 400, "length"),
        (NEW, json!({"addSecurityGroup": {}}), 400, "name"),
        (NEW, json!({"addSecurityGroup": {"name": ""}}), 400, "name"),
        (
            NEW,
            json!({"addSecurityGroup": {"name": "none-such"}}),
            404,
            "none-such",
        ),
        (
            NEW,
            json!({"os-resetState": {"state": "happy"}}),
            400,
            "os-resetState.state",
        ),
        (NEW, json!({"os-resetState": {"state": "active"}}), 403, "reset_state"),
        (NEW, json!({"rebuild": {}}), 400, "imageRef"),
        (NEW, json!({"rebuild": {"imageRef": "x"}}), 400, "imageRef"),
        (NEW, json!({"rebuild": {"imageRef": IMAGE_B}}), 400, "image"),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "name": ""}}),
            400,
            "rebuild.name",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "metadata": {"k": 1}}}),
            400,
            "rebuild.metadata.k",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "user_data": "*"}}),
            400,
            "user_data",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "key_name": "nope"}}),
            400,
            "key_name",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "accessIPv4": "x"}}),
            400,
            "accessIPv4",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "preserve_ephemeral": true}}),
            400,
            "ephemeral",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "OS-DCF:diskConfig": "x"}}),
            400,
            "diskConfig",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "personality": []}}),
            400,
            "personality",
        ),
        (
            56,
            json!({"rebuild": {"imageRef": IMAGE, "personality": [{"path": "a", "contents": "*"}]}}),
            400,
            "contents",
        ),
        (
            56,
            json!({"rebuild": {"imageRef": IMAGE, "user_data": "aGk="}}),
            400,
            "user_data",
        ),
        (
            53,
            json!({"rebuild": {"imageRef": IMAGE, "key_name": null}}),
            400,
            "key_name",
        ),
        (
            62,
            json!({"rebuild": {"imageRef": IMAGE, "trusted_image_certificates": null}}),
            400,
            "trusted",
        ),
        (
            NEW,
            json!({"rebuild": {"imageRef": IMAGE, "flavorRef": "2"}}),
            400,
            "flavorRef",
        ),
        (NEW, json!({"migrate": null}), 501, "migrate"),
    ] {
        let answer = c.at(minor, A, "POST", &path, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.to_string().contains(part), "{body}: {}", answer.body);
    }
    assert_eq!(c.store.snapshot().revision(), before, "nothing was written");
}

#[tokio::test]
async fn locks_hold_for_all_but_administrators() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let path = format!("/servers/{server}");
    c.act(202, A, &server, json!({"lock": {"locked_reason": "do not touch"}}))
        .await;
    let v = c.get(A, &path).await["server"].clone();
    assert_eq!(
        (&v["locked"], &v["locked_reason"]),
        (&json!(true), &json!("do not touch"))
    );
    for (method, suffix, body) in [
        ("POST", "/action", json!({"os-stop": null})),
        ("POST", "/action", json!({"reboot": {"type": "HARD"}})),
        ("POST", "/action", json!({"rebuild": {"imageRef": IMAGE}})),
        ("POST", "/action", json!({"forceDelete": null})),
        ("POST", "/metadata", json!({"metadata": {"a": "b"}})),
        ("POST", "/os-interface", json!({"interfaceAttachment": {}})),
        ("DELETE", "", Value::Null),
    ] {
        let message = c.refused(409, A, method, &format!("{path}{suffix}"), body).await;
        assert_eq!(message, format!("Instance {server} is locked"));
    }
    c.act(202, ADMIN, &server, json!({"os-stop": null})).await;
    c.act(202, A, &server, json!({"unlock": null})).await;
    assert_eq!(c.get(A, &path).await["server"]["locked_reason"], Value::Null);
    // What an administrator of another project locked, its owner does not unlock.
    c.act(202, ADMIN, &server, json!({"lock": null})).await;
    let message = c
        .refused(403, A, "POST", &format!("{path}/action"), json!({"unlock": null}))
        .await;
    assert!(message.contains("unlock_override"), "{message}");
    c.act(202, ADMIN, &server, json!({"unlock": null})).await;
    c.settle().await;
    c.want(204, A, "DELETE", &path, Value::Null).await;
}

#[tokio::test]
async fn a_rebuild_keeps_what_it_is_not_told_to_change() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let server = c
        .create(A, json!({"metadata": {"a": "1"}, "networks": [{"uuid": net}]}))
        .await;
    c.settle().await;
    let before = c.server(&server).unwrap();
    let body = json!({"rebuild": {"imageRef": IMAGE_A, "name": "again", "user_data": "aGk=", "adminPass": "pw", "description": "d"}});
    let answer = c.at(NEW, A, "POST", &format!("/servers/{server}/action"), body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let v = &answer.body["server"];
    assert_eq!(v["adminPass"], "pw");
    assert_eq!(v["user_data"], "aGk=");
    assert_eq!(v["status"], "REBUILD");
    assert!(answer.headers["location"].to_str().unwrap().ends_with(&server));
    c.settle().await;
    let after = c.server(&server).unwrap();
    assert_eq!(after.status(), "ACTIVE");
    assert_eq!(after.name, "again");
    assert_eq!(after.image.as_ref().unwrap().id, IMAGE_A);
    assert_eq!(after.metadata, before.metadata);
    assert_eq!(after.ports, before.ports);
    assert_eq!(after.rebuild, 1);
    // G3: nothing is allocated twice.
    c.audit();
    // A stopped server is rebuilt and stays stopped.
    c.act(202, A, &server, json!({"os-stop": null})).await;
    c.settle().await;
    c.act(202, A, &server, json!({"rebuild": {"imageRef": IMAGE, "metadata": {}}}))
        .await;
    c.settle().await;
    let after = c.server(&server).unwrap();
    assert_eq!((after.status(), after.metadata.len()), ("SHUTOFF", 0));
    // G3: an image for other hardware is refused as if the host were chosen anew.
    let mut txn = maru_store::Txn::new();
    let mut arm = image("aaa", maru_image_model::Visibility::Private);
    arm.properties.insert("hw_architecture".into(), "aarch64".into());
    txn.put(&NOBODY.into(), &arm);
    c.store.commit(txn).await.unwrap();
    let body = json!({"rebuild": {"imageRef": NOBODY}});
    let message = c
        .refused(400, A, "POST", &format!("/servers/{server}/action"), body)
        .await;
    assert!(
        message.contains("No valid host") && message.contains("ImagePropertiesFilter"),
        "{message}"
    );
    c.audit();
}

#[tokio::test]
async fn a_fault_of_the_node_shows_and_a_hard_reboot_heals() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    c.act(202, A, &server, json!({"pause": null})).await;
    let revision = c
        .store
        .snapshot()
        .get::<m::Server>(&server.as_str().into())
        .unwrap()
        .revision;
    let seen = |revision, fault: &str, last| m::Observation {
        revision,
        power: m::PowerState::Running,
        fault: Some(fault.to_owned()),
        fault_final: last,
        ..m::Observation::default()
    };
    // One that may pass, and one that answers an older intent, change nothing.
    c.report(&server, seen(revision - 1, "late on node1", true)).await;
    assert_eq!(c.server(&server).unwrap().vm_state, m::VmState::Active);
    c.report(&server, seen(revision, "busy", false)).await;
    assert_eq!(c.server(&server).unwrap().task, Some(m::Task::Pausing));
    c.report(&server, seen(revision, "no memory on node1", true)).await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(v["status"], "ERROR");
    assert!(!v.to_string().contains("node1"), "D6: {v}");
    let actions = c.get(A, &format!("/servers/{server}/os-instance-actions")).await["instanceActions"].clone();
    assert_eq!(
        (&actions[0]["action"], &actions[0]["message"]),
        (&json!("pause"), &json!("Error"))
    );
    assert!(!actions.to_string().contains("node1"));
    c.act(202, A, &server, json!({"reboot": {"type": "HARD"}})).await;
    c.settle().await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(v["status"], "ACTIVE");
    assert!(v.get("fault").is_none());
}

#[tokio::test]
async fn administrators_reset_states_but_not_deletions() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let path = format!("/servers/{server}/action");
    c.act(202, ADMIN, &server, json!({"os-resetState": {"state": "error"}}))
        .await;
    assert_eq!(c.server(&server).unwrap().status(), "ERROR");
    c.act(202, ADMIN, &server, json!({"os-resetState": {"state": "active"}}))
        .await;
    assert_eq!(c.server(&server).unwrap().status(), "ACTIVE");
    c.refused(400, ADMIN, "POST", &path, json!({"os-resetState": {"state": "happy"}}))
        .await;
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.act(202, ADMIN, &server, json!({"os-resetState": {"state": "active"}}))
        .await;
    c.settle().await;
    assert!(c.server(&server).is_none(), "the deletion goes on");
    c.audit();
}

#[tokio::test]
async fn actions_are_recorded_and_outlive_the_server() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    c.act(202, A, &server, json!({"os-stop": null})).await;
    c.settle().await;
    c.act(202, ADMIN, &server, json!({"lock": null})).await;
    let path = format!("/servers/{server}/os-instance-actions");
    let list = c.get(A, &path).await["instanceActions"].clone();
    let done: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    assert_eq!(done, ["lock", "stop", "create"]);
    let base = [
        "action",
        "instance_uuid",
        "message",
        "project_id",
        "request_id",
        "start_time",
        "user_id",
    ];
    let old = c.get_at(57, A, &path).await["instanceActions"].clone();
    assert_eq!(keys(&old[0]), base);
    assert!(keys(&list[0]).contains(&"updated_at"));
    let request = list[1]["request_id"].as_str().unwrap().to_owned();
    let one = format!("{path}/{request}");
    // Before 2.51 only administrators see events; tracebacks are for them alone.
    assert!(c.get_at(50, A, &one).await["instanceAction"].get("events").is_none());
    let event = |v: &Value| v["instanceAction"]["events"][0].clone();
    let v = event(&c.get_at(50, ADMIN, &one).await);
    assert_eq!(keys(&v), ["event", "finish_time", "result", "start_time", "traceback"]);
    let v = event(&c.get_at(51, A, &one).await);
    assert_eq!(keys(&v), ["event", "finish_time", "result", "start_time"]);
    assert_eq!(
        (&v["event"], &v["result"]),
        (&json!("compute_stop_instance"), &json!("Success"))
    );
    let v = event(&c.get_at(62, A, &one).await);
    assert_eq!(keys(&v), ["event", "finish_time", "hostId", "result", "start_time"]);
    let v = event(&c.get(ADMIN, &one).await);
    let all = [
        "details",
        "event",
        "finish_time",
        "host",
        "hostId",
        "result",
        "start_time",
        "traceback",
    ];
    assert_eq!(keys(&v), all);
    // Pages.
    let page = c.get(A, &format!("{path}?limit=2")).await;
    assert_eq!(page["instanceActions"].as_array().unwrap().len(), 2);
    let next = page["links"][0]["href"]
        .as_str()
        .unwrap()
        .strip_prefix("http://maru/compute/v2.1")
        .unwrap()
        .to_owned();
    assert_eq!(c.get(A, &next).await["instanceActions"][0]["action"], "create");
    c.refused(400, A, "GET", &format!("{path}?marker=nope"), Value::Null)
        .await;
    c.refused(400, A, "GET", &format!("{path}?changes-since=nope"), Value::Null)
        .await;
    let none = c.get(A, &format!("{path}?changes-since=2100-01-01T00:00:00Z")).await;
    assert_eq!(none["instanceActions"], json!([]));
    c.refused(404, A, "GET", &format!("{path}/req-none"), Value::Null).await;
    // A deleted server's actions are there from 2.21 on, for those who had it.
    c.act(202, ADMIN, &server, json!({"unlock": null})).await;
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.settle().await;
    assert!(c.server(&server).is_none());
    let list = c.get(A, &path).await["instanceActions"].clone();
    assert_eq!(list[0]["action"], "delete");
    c.refused_at(20, 404, A, "GET", &path, Value::Null).await;
    c.refused(404, B, "GET", &path, Value::Null).await;
    c.refused(404, B, "GET", &one, Value::Null).await;
}

#[tokio::test]
async fn the_console_shows_what_the_guest_wrote() {
    let c = cloud().await;
    let server = c.create(A, json!({})).await;
    let path = format!("/servers/{server}/action");
    let message = c
        .refused(409, A, "POST", &path, json!({"os-getConsoleOutput": {}}))
        .await;
    assert_eq!(message, format!("Instance {server} is not ready"));
    c.settle().await;
    for body in [json!(null), json!({}), json!({"length": -1}), json!({"length": "50"})] {
        let v = c.act(200, A, &server, json!({ "os-getConsoleOutput": body })).await;
        let text = v["output"].as_str().unwrap();
        assert_eq!(text.lines().count(), 21);
        assert!(text.starts_with(&format!("1 of {server} on node1")));
        // H2: the guest's bytes are text in JSON, never markup of ours; what is no text is replaced.
        assert!(!text.contains('\x07') && text.contains("\u{fffd}<script>"));
    }
    let v = c
        .act(200, A, &server, json!({"os-getConsoleOutput": {"length": 3}}))
        .await;
    assert!(v["output"].as_str().unwrap().starts_with("18 of"));
    let v = c.get(ADMIN, &format!("/servers/{server}/diagnostics")).await;
    assert_eq!(v["driver"], "libvirt");
    c.refused(403, A, "GET", &format!("/servers/{server}/diagnostics"), Value::Null)
        .await;
}
