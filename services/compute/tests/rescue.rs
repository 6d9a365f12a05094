//! Rescue: another image first, the own disk second, and back; undone when the node cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

fn disks(c: &Cloud, id: &str) -> Vec<String> {
    let s = c.store.snapshot();
    let server = s.get::<m::Server>(&id.into()).unwrap();
    let intent = m::guest_intent(&s, &server).unwrap();
    intent.disks.iter().map(|d| d.name.clone()).collect()
}

async fn status(c: &Cloud, id: &str) -> String {
    let v = c.get(A, &format!("/servers/{id}")).await;
    v["server"]["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_runs_from_another_image_and_from_its_own_again() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    let before = c.server(&id).unwrap();
    // A stopped one runs then.
    c.act(202, A, &id, json!({"os-stop": null})).await;
    c.settle().await;
    let body = json!({"rescue": {"adminPass": "aPass", "rescue_image_ref": IMAGE_A}});
    assert_eq!(c.act(200, A, &id, body).await, json!({"adminPass": "aPass"}));
    assert_eq!(c.server(&id).unwrap().task, Some(m::Task::Rescuing));
    assert_eq!(disks(&c, &id)[..2], ["rescue", "root"]);
    c.settle().await;
    let v = c.get(A, &format!("/servers/{id}")).await["server"].clone();
    assert_eq!(
        (&v["status"], &v["OS-EXT-STS:vm_state"]),
        (&json!("RESCUE"), &json!("rescued"))
    );
    assert_eq!(v["image"]["id"], IMAGE, "its image is its own");
    let path = format!("/servers/{id}/action");
    for body in [
        json!({"rescue": null}),
        json!({"os-stop": null}),
        json!({"reboot": {"type": "HARD"}}),
        json!({"rebuild": {"imageRef": IMAGE}}),
        json!({"resize": {"flavorRef": "2"}}),
        json!({"createImage": {"name": "i"}}),
    ] {
        let message = c.refused(409, A, "POST", &path, body.clone()).await;
        assert!(message.ends_with("vm_state rescued"), "{body}: {message}");
    }
    c.act(202, A, &id, json!({"unrescue": null})).await;
    assert_eq!(disks(&c, &id)[0], "root");
    c.settle().await;
    assert_eq!(status(&c, &id).await, "ACTIVE");
    let after = c.server(&id).unwrap();
    assert_eq!((after.rescue, after.image, after.resizes), (None, before.image, 2));
    c.idle();
    c.refused(409, A, "POST", &path, json!({"unrescue": null})).await;
    // Without a body: its own image.
    let answer = c.act(200, A, &id, json!({"rescue": null})).await;
    assert_eq!(answer["adminPass"].as_str().unwrap().len(), 12);
    c.settle().await;
    c.want(204, A, "DELETE", &format!("/servers/{id}"), Value::Null).await;
    c.settle().await;
    c.idle();
}

#[tokio::test]
async fn bad_rescues_are_refused_and_change_nothing() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    let path = format!("/servers/{id}/action");
    let before = c.store.snapshot().revision();
    for (body, words) in [
        (
            json!({"rescue": {"rescue_image_ref": IMAGE_B}}),
            "Can not find requested image",
        ),
        (json!({"rescue": {"rescue_image_ref": "x"}}), "Invalid imageRef"),
        (json!({"rescue": {"rescue_image_ref": 1}}), "rescue_image_ref"),
        (json!({"rescue": {"adminPass": 1}}), "adminPass"),
        (json!({"rescue": {"x": 1}}), "x"),
    ] {
        let message = c.refused(400, A, "POST", &path, body.clone()).await;
        assert!(message.contains(words), "{body}: {message}");
    }
    c.refused(404, B, "POST", &path, json!({"rescue": null})).await;
    c.refused(403, READER, "POST", &path, json!({"rescue": null})).await;
    assert_eq!(c.store.snapshot().revision(), before);
}

#[tokio::test]
async fn a_rescue_that_the_node_cannot_do_is_undone() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    c.act(200, A, &id, json!({"rescue": null})).await;
    let revision = c
        .store
        .snapshot()
        .get::<m::Server>(&id.as_str().into())
        .unwrap()
        .revision;
    let seen = m::Observation {
        revision,
        power: m::PowerState::Shutdown,
        fault: Some("the image was not pulled".into()),
        fault_final: true,
        ..m::Observation::default()
    };
    c.report(&id, seen).await;
    let there = c.server(&id).unwrap();
    assert_eq!((there.task, there.rescue), (Some(m::Task::Unrescuing), None));
    c.settle().await;
    assert_eq!(status(&c, &id).await, "ACTIVE");
    c.idle();
}
