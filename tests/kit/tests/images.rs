//! An image of a server, and a server that is put away in one, over simulated nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_compute_model::{Server, VmState};
use maru_image_model::{Image, ImageId, ImageStatus, LooseBlob};
use maru_kit::Kit;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn an_image_is_made_of_a_server_and_a_crash_midway_is_made_up_for() {
    for crash in [None, Some(1), Some(2), Some(3), Some(4), Some(5)] {
        let kit = Kit::builder().nodes(1).start().await;
        let blue = kit.project("blue").await;
        let who = &blue.member;
        let base = kit.image(who, "tiny").await;
        let (network, _) = kit.network(who, "net", "10.0.0.0/16").await;
        let server = kit.server(who, "vm", &base, &network).await;
        kit.server_active(&server).await;
        kit.rest().await;
        let path = format!("/compute/v2.1/servers/{server}/action");
        let body = json!({"createImage": {"name": "shot", "metadata": {"k": "v"}}});
        if let Some(n) = crash {
            kit.crash_after(n);
        }
        let asked = kit.try_call("POST", &path, &who.token, body.clone()).await;
        if kit.is_dead() {
            kit.restart().await;
        }
        let image = kit
            .snapshot()
            .list::<Image>()
            .find(|i| i.value.name.as_deref() == Some("shot"))
            .map(|i| i.id.to_string())
            .expect("the commit was made, whether it was answered or not");
        assert!(
            asked.is_ok() || crash == Some(1),
            "{crash:?}: the answer came after the first commit"
        );
        kit.until_now("the image is active and the server has no task", |snapshot| {
            let image = snapshot.get::<Image>(&ImageId::from(image.as_str()));
            let server = snapshot.get::<Server>(&server.as_str().into());
            image.is_some_and(|i| i.value.status == ImageStatus::Active)
                && server.is_some_and(|s| s.value.task.is_none() && s.value.imaging.is_none())
        })
        .await;
        kit.no_more_crashes().await;
        let made = kit.snapshot().get::<Image>(&ImageId::from(image.as_str())).unwrap();
        assert_eq!(made.value.properties["base_image_ref"], base);
        assert_eq!(made.value.properties["k"], "v");
        assert_eq!(made.value.disk_format.as_deref(), Some("qcow2"));
        kit.audit_rest().await;
    }
}

/// A server is shelved, brought back, shelved again and deleted; the control plane dies after its `n`-th commit. Says whether it did.
async fn shelving(n: u64) -> bool {
    let kit = Kit::builder().nodes(2).start().await;
    let blue = kit.project("blue").await;
    let who = &blue.member;
    let base = kit.image(who, "tiny").await;
    let (network, _) = kit.network(who, "net", "10.0.0.0/24").await;
    let id = kit.server(who, "vm", &base, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let address = |kit: &Kit| {
        let server = kit.snapshot().get::<Server>(&id.as_str().into()).unwrap();
        let all = maru_compute_model::network::addresses(&kit.snapshot(), &server);
        all.first().map(|a| a.ip)
    };
    let before = address(&kit);
    let lives = kit.lives();
    kit.crash_after(n);
    let path = format!("/compute/v2.1/servers/{id}/action");
    for (action, state) in [
        ("shelve", VmState::ShelvedOffloaded),
        ("unshelve", VmState::Active),
        ("shelve", VmState::ShelvedOffloaded),
    ] {
        let mut body = json!({});
        body[action] = json!(null);
        loop {
            match kit.try_call("POST", &path, &who.token, body.clone()).await {
                Ok(answer) => {
                    // Asked again after a crash that came after its commit, the state refuses it.
                    assert!([202, 409].contains(&answer.status), "{action}: {}", answer.text());
                    break;
                }
                Err(_) => kit.restart().await,
            }
        }
        kit.until_now(action, |snapshot| {
            let server = snapshot.get::<Server>(&id.as_str().into()).unwrap();
            server.value.vm_state == state && server.value.task.is_none()
        })
        .await;
        assert_eq!(address(&kit), before, "{action}");
        let guests: usize = kit.nodes().values().map(|n| n.guests().len()).sum();
        assert_eq!(guests, usize::from(state == VmState::Active), "{action}");
        let shelves = kit
            .snapshot()
            .list::<Image>()
            .filter(|i| i.value.name.as_deref() == Some("vm-shelved"))
            .count();
        assert_eq!(shelves, usize::from(state == VmState::ShelvedOffloaded), "{action}");
    }
    let crashed = kit.lives() > lives;
    kit.no_more_crashes().await;
    kit.audit_rest().await;
    kit.delete(who, &format!("/compute/v2.1/servers/{id}")).await;
    kit.server_gone(&id).await;
    kit.until_now("no blob is loose", |v| v.count::<LooseBlob>() == 0).await;
    assert_eq!(kit.snapshot().count::<Image>(), 1, "only the base is left");
    kit.audit_rest().await;
    crashed
}

#[tokio::test(start_paused = true)]
async fn shelving_survives_a_crash_after_every_commit() {
    let mut n = 1;
    while shelving(n).await {
        n += 1;
        assert!(n < 100, "shelving does not end");
    }
    assert!(n > 10, "there was next to nothing to crash");
    println!("shelving: crashed after each of {} commits", n - 1);
}
