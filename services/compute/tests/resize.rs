//! Another flavor: confirmed, reverted, refused, undone when the node cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

/// A cloud with a second, larger flavor and one whose disk is smaller.
async fn sizes() -> Cloud {
    let c = cloud().await;
    c.plan(|s, txn| {
        for (name, vcpus, memory, root) in [
            ("large", 4, 2_048, 40),
            ("thin", 1, 128, 0),
            ("huge", 4_000, 1 << 30, 40),
        ] {
            m::plan_create_flavor(s, txn, &name.into(), &flavor(name, vcpus, memory, root)).unwrap();
        }
    })
    .await;
    c
}

fn resize(flavor: &str) -> Value {
    json!({"resize": {"flavorRef": flavor}})
}

async fn status(c: &Cloud, id: &str) -> String {
    let v = c.get(A, &format!("/servers/{id}")).await;
    v["server"]["status"].as_str().unwrap().to_owned()
}

async fn migration(c: &Cloud, id: &str) -> Value {
    let list = c.get(ADMIN, &format!("/os-migrations?instance_uuid={id}")).await;
    list["migrations"][0].clone()
}

#[tokio::test]
async fn a_resize_is_confirmed_and_holds_the_larger_until_then() {
    let c = sizes().await;
    let id = c.boot(A, "s").await;
    let before = c.server(&id).unwrap().flavor;
    c.act(202, A, &id, resize("large")).await;
    assert_eq!(status(&c, &id).await, "RESIZE");
    c.audit();
    // Nothing else is done to it meanwhile.
    let path = format!("/servers/{id}/action");
    for body in [resize("1"), json!({"os-stop": null}), json!({"confirmResize": null})] {
        c.refused(409, A, "POST", &path, body).await;
    }
    c.settle().await;
    assert_eq!(status(&c, &id).await, "VERIFY_RESIZE");
    let there = c.server(&id).unwrap();
    assert_eq!((there.flavor.vcpus, there.flavor.memory_mb), (4, 2_048));
    let told = migration(&c, &id).await;
    assert_eq!(
        (told["status"].as_str(), told["migration_type"].as_str()),
        (Some("finished"), Some("resize"))
    );
    c.audit();
    // A smaller one by revert: what is held is the larger of each.
    assert!(there.resources()["MEMORY_MB"] >= before.memory_mb);
    c.act(204, A, &id, json!({"confirmResize": null})).await;
    assert_eq!(status(&c, &id).await, "ACTIVE");
    assert_eq!(migration(&c, &id).await["status"], "confirmed");
    assert_eq!(c.server(&id).unwrap().resize, None);
    c.idle();
    let message = c.refused(409, A, "POST", &path, json!({"revertResize": null})).await;
    assert!(message.contains("vm_state active"), "{message}");
}

#[tokio::test]
async fn a_resize_is_reverted_and_a_stopped_server_stays_stopped() {
    let c = sizes().await;
    let id = c.boot(A, "s").await;
    c.act(202, A, &id, json!({"os-stop": null})).await;
    c.settle().await;
    let before = c.server(&id).unwrap().flavor;
    c.act(202, A, &id, resize("large")).await;
    assert_eq!(status(&c, &id).await, "RESIZE");
    c.settle().await;
    assert_eq!(status(&c, &id).await, "VERIFY_RESIZE");
    let read = c.store.snapshot().get::<m::Server>(&id.as_str().into()).unwrap();
    let told = m::guest_intent(&c.store.snapshot(), &read).unwrap().resize;
    assert_eq!(
        (told.count, told.kept, told.restore),
        (1, Some(1), false),
        "its disk grew"
    );
    c.act(202, A, &id, json!({"revertResize": null})).await;
    assert_eq!(status(&c, &id).await, "REVERT_RESIZE");
    let read = c.store.snapshot().get::<m::Server>(&id.as_str().into()).unwrap();
    let told = m::guest_intent(&c.store.snapshot(), &read).unwrap().resize;
    assert_eq!((told.count, told.kept, told.restore), (2, Some(1), true));
    c.audit();
    c.settle().await;
    assert_eq!(status(&c, &id).await, "SHUTOFF");
    assert_eq!(c.server(&id).unwrap().flavor, before);
    assert_eq!(migration(&c, &id).await["status"], "reverted");
    c.idle();
    // Deleted while it waits: nothing is left.
    c.act(202, A, &id, resize("large")).await;
    c.settle().await;
    c.want(204, A, "DELETE", &format!("/servers/{id}"), Value::Null).await;
    c.settle().await;
    c.idle();
    assert_eq!(c.store.snapshot().count::<m::Migration>(), 0);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let c = sizes().await;
    let id = c.boot(A, "s").await;
    let path = format!("/servers/{id}/action");
    c.plan(|s, txn| {
        let mut private = flavor("private", 2, 512, 40);
        private.is_public = false;
        m::plan_create_flavor(s, txn, &"private".into(), &private).unwrap();
    })
    .await;
    let before = c.store.snapshot().revision();
    for (body, status, words) in [
        (resize("1"), 400, "must change flavor"),
        (resize("none"), 400, "Flavor none could not be found."),
        (resize("private"), 400, "Flavor private could not be found."),
        (resize("thin"), 400, "Resize to zero disk flavor is not allowed."),
        (resize("huge"), 403, "Quota exceeded for cores, ram"),
        (json!({"resize": {}}), 400, "flavorRef"),
        (json!({"resize": {"flavorRef": null}}), 400, "flavorRef"),
        (json!({"resize": {"flavorRef": "large", "x": 1}}), 400, "x"),
        (
            json!({"resize": {"flavorRef": "large", "OS-DCF:diskConfig": "odd"}}),
            400,
            "diskConfig",
        ),
    ] {
        let message = c.refused(status, A, "POST", &path, body.clone()).await;
        assert!(message.contains(words), "{body}: {message}");
    }
    c.refused(404, B, "POST", &path, resize("large")).await;
    c.refused(403, READER, "POST", &path, resize("large")).await;
    c.refused(403, A, "GET", "/os-migrations", Value::Null).await;
    assert_eq!(c.store.snapshot().revision(), before);
    // Room there is none for, though the quota would allow it.
    c.quota("aaa", json!({"cores": -1, "ram": -1})).await;
    let message = c.refused(400, A, "POST", &path, resize("huge")).await;
    assert!(message.starts_with("No valid host was found."), "{message}");
    assert_eq!(c.server(&id).unwrap().resize, None);
    c.idle();
}

#[tokio::test]
async fn what_the_node_cannot_do_is_undone() {
    let c = sizes().await;
    let id = c.boot(A, "s").await;
    let before = c.server(&id).unwrap();
    c.act(202, A, &id, resize("large")).await;
    let revision = c
        .store
        .snapshot()
        .get::<m::Server>(&id.as_str().into())
        .unwrap()
        .revision;
    let seen = m::Observation {
        revision,
        power: m::PowerState::Shutdown,
        fault: Some("the disk of this node is full".into()),
        fault_final: true,
        ..m::Observation::default()
    };
    c.report(&id, seen).await;
    let there = c.server(&id).unwrap();
    assert_eq!(there.task, Some(m::Task::ResizeReverting));
    assert_eq!(migration(&c, &id).await["status"], "error");
    c.audit();
    c.settle().await;
    let there = c.server(&id).unwrap();
    assert_eq!((there.status(), &there.flavor), ("ACTIVE", &before.flavor));
    assert_eq!(there.resize, None);
    c.idle();
    let actions = c.get(A, &format!("/servers/{id}/os-instance-actions")).await;
    let resize = actions["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["action"] == "resize")
        .unwrap()
        .clone();
    assert_eq!(resize["message"], "Error");
}

#[tokio::test]
async fn migrations_are_listed_newest_first_filtered_and_paged() {
    let c = sizes().await;
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        let id = c.boot(A, name).await;
        c.act(202, A, &id, resize("large")).await;
        c.settle().await;
        servers.push(id);
    }
    c.act(204, A, &servers[0], json!({"confirmResize": null})).await;
    let of = |v: &Value| -> Vec<String> {
        v["migrations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["instance_uuid"].as_str().unwrap().to_owned())
            .collect()
    };
    let newest: Vec<String> = servers.iter().rev().cloned().collect();
    assert_eq!(of(&c.get(ADMIN, "/os-migrations").await), newest);
    assert_eq!(of(&c.get(ADMIN, "/os-migrations?status=confirmed").await), servers[..1]);
    assert_eq!(
        of(&c.get(ADMIN, "/os-migrations?project_id=bbb").await),
        Vec::<String>::new()
    );
    let page = c.get(ADMIN, "/os-migrations?limit=2").await;
    assert_eq!(of(&page), newest[..2]);
    let next = page["migrations_links"][0]["href"].as_str().unwrap();
    let rest = c.get(ADMIN, next.split("/v2.1").nth(1).unwrap()).await;
    assert_eq!(of(&rest), newest[2..]);
    c.refused(400, ADMIN, "GET", "/os-migrations?marker=none", Value::Null)
        .await;
    let old = c.get_at(1, ADMIN, "/os-migrations").await;
    assert!(old["migrations"][0].get("uuid").is_none() && old["migrations"][0].get("migration_type").is_none());
}
