//! Shelved and brought back; what cannot be done; backups and their rotation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use maru_image_model::{Image, LooseBlob};
use serde_json::{Value, json};

fn shelve() -> Value {
    json!({"shelve": null})
}

fn unshelve() -> Value {
    json!({"unshelve": null})
}

/// A server with a port, and the port's id.
async fn with_port(c: &Cloud, name: &str) -> (String, String) {
    let net = c.network(A, "net", "10.1.0.0/24").await;
    let server = c.create(A, json!({"name": name, "networks": [{"uuid": net}]})).await;
    c.settle().await;
    let port = c.server(&server).unwrap().ports[0].id.clone();
    (server, port)
}

fn images(c: &Cloud) -> Vec<String> {
    let snapshot = c.store.snapshot();
    let mut names: Vec<String> = snapshot.list::<Image>().filter_map(|i| i.name.clone()).collect();
    names.retain(|n| n != "cirros");
    names.sort();
    names
}

async fn port(c: &Cloud, id: &str) -> Value {
    c.net(ADMIN, "GET", &format!("/ports/{id}"), Value::Null).await
}

#[tokio::test]
async fn a_server_is_put_away_and_brought_back_with_its_addresses() {
    let c = cloud().await;
    let (id, port_id) = with_port(&c, "s").await;
    let before = port(&c, &port_id).await;
    let others = images(&c);
    c.act(202, A, &id, shelve()).await;
    let shown = c.get(A, &format!("/servers/{id}")).await;
    assert_eq!(
        (&shown["server"]["OS-EXT-STS:task_state"], &shown["server"]["status"]),
        (&json!("shelving"), &json!("ACTIVE"))
    );
    c.settle().await;
    let there = c.server(&id).unwrap();
    assert_eq!(
        (there.status(), there.task, &there.host),
        ("SHELVED_OFFLOADED", None, &None)
    );
    assert_eq!(
        m::guest_intent(
            &c.store.snapshot(),
            &c.store.snapshot().get::<m::Server>(&id.as_str().into()).unwrap()
        ),
        None
    );
    assert!(images(&c).contains(&"s-shelved".to_owned()));
    let parked = port(&c, &port_id).await;
    assert_eq!(
        (&parked["binding:host_id"], &parked["device_id"], &parked["fixed_ips"]),
        (&json!(""), &json!(id), &before["fixed_ips"])
    );
    c.idle();

    c.act(202, A, &id, unshelve()).await;
    c.settle().await;
    let back = c.server(&id).unwrap();
    assert_eq!((back.status(), back.task), ("ACTIVE", None));
    assert_eq!(images(&c), others, "the image it was shelved in is gone");
    assert_eq!(port(&c, &port_id).await["binding:host_id"], "node1");
    // Its disk is made from what it was, its image is the one that it was made from.
    let shown = c.get(A, &format!("/servers/{id}")).await;
    assert_eq!(shown["server"]["image"]["id"], IMAGE);
    let root = back.root.unwrap();
    assert_eq!(root.digest, "d".repeat(128));
    c.idle();
    let actions = c.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await;
    let names: Vec<&str> = actions["instanceActions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["unshelve", "shelve", "create"]);
    // Made anew from its own image, it has none other.
    c.act(202, A, &id, json!({"rebuild": {"imageRef": IMAGE}})).await;
    c.settle().await;
    assert_eq!(c.server(&id).unwrap().root, None);
}

#[tokio::test]
async fn a_shelved_server_is_deleted_with_its_image() {
    let c = cloud().await;
    let (id, port_id) = with_port(&c, "s").await;
    let others = images(&c);
    c.act(202, A, &id, shelve()).await;
    c.settle().await;
    assert_ne!(images(&c), others);
    c.want(204, A, "DELETE", &format!("/servers/{id}"), Value::Null).await;
    assert_eq!(c.server(&id), None, "no node has it, so it is gone at once");
    assert_eq!(images(&c), others);
    // The image service looks after the blob.
    assert_eq!(c.store.snapshot().count::<LooseBlob>(), 1);
    let ports = c.net(ADMIN, "GET", "/ports", Value::Null).await;
    assert!(!ports.to_string().contains(&port_id));
    c.idle();
}

#[tokio::test]
async fn no_image_means_that_it_stays_where_it_is_and_off() {
    let c = cloud().await;
    let id = c.boot(A, "broken").await;
    let others = images(&c);
    c.act(202, A, &id, shelve()).await;
    c.settle().await;
    let there = c.server(&id).unwrap();
    assert_eq!((there.status(), there.task), ("SHUTOFF", None));
    assert!(there.host.is_some() && there.shelved_image.is_none());
    assert_eq!(images(&c), others);
    let actions = c.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await;
    assert_eq!(actions["instanceActions"][0]["message"], "Error");
    c.act(202, A, &id, json!({"os-start": null})).await;
    c.settle().await;
    assert_eq!(c.server(&id).unwrap().status(), "ACTIVE");
    c.idle();
}

#[tokio::test]
async fn where_nothing_fits_it_stays_shelved_and_comes_later() {
    let c = cloud().await;
    let (id, port_id) = with_port(&c, "s").await;
    c.act(202, A, &id, shelve()).await;
    c.settle().await;
    let disable = |word: &'static str| {
        c.plan(move |s, txn| {
            let service = m::find_service(s, "node1").unwrap();
            let mut new = (*service.value).clone();
            new.disabled = word == "disabled";
            txn.update(&service, &new);
        })
    };
    disable("disabled").await;
    c.act(202, A, &id, unshelve()).await;
    c.settle().await;
    let there = c.server(&id).unwrap();
    assert_eq!(
        (there.status(), there.task, &there.host),
        ("SHELVED_OFFLOADED", None, &None)
    );
    assert_eq!(port(&c, &port_id).await["binding:host_id"], "");
    c.idle();
    let actions = c.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await;
    assert_eq!(actions["instanceActions"][0]["message"], "Error");
    disable("enabled").await;
    c.act(202, A, &id, unshelve()).await;
    c.settle().await;
    assert_eq!(c.server(&id).unwrap().status(), "ACTIVE");
    c.idle();
}

#[tokio::test]
async fn a_host_is_an_administrators_to_choose_and_a_zone_must_be_there() {
    let c = cloud().await;
    c.node("node2", 16, 65_536, 1_000).await;
    let id = c.boot(A, "s").await;
    let path = format!("/servers/{id}/action");
    // Not yet shelved.
    let message = c.refused(409, A, "POST", &path, unshelve()).await;
    assert!(
        message.contains("'unshelve'") && message.contains("vm_state active"),
        "{message}"
    );
    let message = c
        .refused(409, ADMIN, "POST", &path, json!({"shelveOffload": null}))
        .await;
    assert!(message.contains("'shelveOffload'"), "{message}");
    c.refused(403, A, "POST", &path, json!({"shelveOffload": null})).await;
    c.act(202, A, &id, shelve()).await;
    c.refused(409, A, "POST", &path, shelve()).await;
    c.settle().await;
    let message = c.refused(409, A, "POST", &path, shelve()).await;
    assert!(message.contains("vm_state shelved_offloaded"), "{message}");
    let to = |zone: Value| json!({"unshelve": {"availability_zone": zone}});
    let host = |host: &str| json!({"unshelve": {"host": host}});
    c.refused(403, A, "POST", &path, host("node2")).await;
    let message = c.refused(400, ADMIN, "POST", &path, host("nowhere")).await;
    assert!(message.contains("nowhere"), "{message}");
    c.refused(400, A, "POST", &path, to(json!("nowhere"))).await;
    let message = c.refused_at(80, 400, A, "POST", &path, host("node2")).await;
    assert!(message.contains("host"), "{message}");
    c.refused_at(80, 400, A, "POST", &path, to(Value::Null)).await;
    c.refused_at(80, 400, A, "POST", &path, json!({"unshelve": {}})).await;
    c.refused(400, A, "POST", &path, json!({"unshelve": {"zone": "nova"}}))
        .await;
    c.refused(404, B, "POST", &path, unshelve()).await;
    c.refused(403, READER, "POST", &path, unshelve()).await;
    c.act(202, ADMIN, &id, host("node2")).await;
    c.settle().await;
    let there = c.server(&id).unwrap();
    assert_eq!((there.status(), there.host.as_deref()), ("ACTIVE", Some("node2")));
    c.idle();
}

#[tokio::test]
async fn without_its_image_it_cannot_come_back_and_says_so() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    c.act(202, A, &id, shelve()).await;
    c.settle().await;
    let image = c.server(&id).unwrap().shelved_image.unwrap();
    c.plan(|s, txn| {
        let read = s.get::<Image>(&image.as_str().into()).unwrap();
        maru_image_model::usage::plan_delete(s, txn, &read);
    })
    .await;
    let path = format!("/servers/{id}/action");
    let message = c.refused(409, A, "POST", &path, unshelve()).await;
    assert!(message.contains(&image) && message.contains("is gone"), "{message}");
    c.want(204, A, "DELETE", &format!("/servers/{id}"), Value::Null).await;
    c.idle();
}

#[tokio::test]
async fn backups_are_rotated_by_kind() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    let others = images(&c);
    let backup = |name: &str, kind: &str, rotation: Value| json!({"createBackup": {"name": name, "backup_type": kind, "rotation": rotation}});
    for (name, kind, rotation) in [
        ("d1", "daily", 2),
        ("w1", "weekly", 1),
        ("d2", "daily", 2),
        ("d3", "daily", 2),
    ] {
        let made = c.act(202, A, &id, backup(name, kind, json!(rotation))).await;
        assert!(made["image_id"].is_string(), "{made}");
        c.settle().await;
    }
    let left: Vec<String> = images(&c).into_iter().filter(|n| !others.contains(n)).collect();
    assert_eq!(left, ["d2", "d3", "w1"]);
    let snapshot = c.store.snapshot();
    let newest = snapshot
        .list::<Image>()
        .find(|i| i.name.as_deref() == Some("d3"))
        .unwrap();
    let property = |name: &str| newest.properties.get(name).map(String::as_str);
    assert_eq!(
        (
            property("backup_type"),
            property("image_type"),
            property("instance_uuid")
        ),
        (Some("daily"), Some("backup"), Some(id.as_str()))
    );
    // None are kept, the new one neither.
    c.act(202, A, &id, backup("d4", "daily", json!("0"))).await;
    c.settle().await;
    let left: Vec<String> = images(&c).into_iter().filter(|n| !others.contains(n)).collect();
    assert_eq!(left, ["w1"]);
    let path = format!("/servers/{id}/action");
    for (body, field) in [
        (backup("x", "daily", json!(-1)), "rotation"),
        (backup("x", "daily", json!("many")), "rotation"),
        (backup("", "daily", json!(1)), "name"),
        (json!({"createBackup": {"name": "x", "rotation": 1}}), "backup_type"),
        (
            json!({"createBackup": {"name": "x", "backup_type": "d", "rotation": 1, "more": 1}}),
            "more",
        ),
    ] {
        let message = c.refused(400, A, "POST", &path, body).await;
        assert!(message.contains(field), "{message}");
    }
    c.refused(403, READER, "POST", &path, backup("x", "daily", json!(1)))
        .await;
    c.idle();
}
