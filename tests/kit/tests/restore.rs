//! A backup is older than what runs: guests that the restored store forgot are kept, told, adopted or discarded (docs/adr/0004).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru_kit::Kit;
use serde_json::{Value, json};
use std::time::Duration;

/// Waits until a node tells of an unknown server.
async fn unknown(kit: &Kit, id: &str) {
    let told = async {
        loop {
            let views = kit.cloud().hub().views();
            if views
                .iter()
                .any(|v| v.unknown.iter().any(|u| u.what == "server" && u.id == id))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), told)
        .await
        .expect("the node tells of the guest");
}

fn addresses(server: &Value) -> Value {
    server["server"]["addresses"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_the_backup_does_not_know_is_adopted_untouched() {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, _) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let path = format!("/compute/v2.1/servers/{id}");
    let before = kit.get(&blue.member, &path).await;
    let guest = kit.node("n1").guests()[&id].clone();

    kit.restore(&file).await;
    kit.nodes_up(1).await;
    kit.call("GET", &path, &blue.member.token, Value::Null)
        .await
        .expect(401);
    let member = kit.sign_in_again(&blue.member, "blue").await;
    kit.call("GET", &path, &member.token, Value::Null).await.expect(404);
    unknown(&kit, &id).await;
    assert_eq!(kit.node("n1").guests()[&id], guest, "the guest is untouched");
    let told = kit.cloud().unknown("server", &id, true).await.unwrap();
    assert_eq!(told["name"], "s");

    kit.server_active(&id).await;
    kit.rest().await;
    let after = kit.get(&member, &path).await;
    assert_eq!(addresses(&before), addresses(&after));
    for field in [
        "id",
        "name",
        "tenant_id",
        "user_id",
        "flavor",
        "image",
        "metadata",
        "status",
        "created",
        "security_groups",
    ] {
        assert_eq!(before["server"][field], after["server"][field], "{field}");
    }
    assert_eq!(kit.node("n1").guests()[&id], guest, "neither started nor changed");
    kit.audit_consistency().await;
    // Once is enough, and from now on it is a server like others.
    let again = kit.cloud().unknown("server", &id, true).await.unwrap_err().to_string();
    assert!(again.contains("no node reports"), "{again}");
    kit.delete(&member, &path).await;
    kit.server_gone(&id).await;
    kit.rest().await;
    assert!(kit.node("n1").guests().is_empty());
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_back_is_refused_and_can_be_discarded() {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, _) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    let green = kit.project("green").await;
    let theirs = {
        let image = kit.image(&green.member, "i").await;
        let (network, _) = kit.network(&green.member, "n", "10.0.0.0/24").await;
        kit.server(&green.member, "s", &image, &network).await
    };
    kit.server_active(&theirs).await;
    kit.rest().await;
    let path = format!("/compute/v2.1/servers/{id}");
    let shown = kit.get(&blue.member, &path).await;
    let ip = shown["server"]["addresses"]["n"][0]["addr"]
        .as_str()
        .unwrap()
        .to_owned();

    kit.restore(&file).await;
    kit.nodes_up(1).await;
    kit.call("GET", &path, &blue.member.token, Value::Null)
        .await
        .expect(401);
    let member = kit.sign_in_again(&blue.member, "blue").await;
    for id in [&id, &theirs] {
        unknown(&kit, id).await;
    }
    let refused = kit
        .cloud()
        .unknown("server", &theirs, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("project"), "{refused}");
    // Somebody has its address by now.
    let port = kit
        .post(
            &member,
            "/network/v2.0/ports",
            json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": ip}]}}),
        )
        .await;
    let refused = kit.cloud().unknown("server", &id, true).await.unwrap_err().to_string();
    assert!(refused.contains(&ip), "{refused}");
    kit.call("GET", &path, &member.token, Value::Null).await.expect(404);
    kit.audit_consistency().await;
    let port = port["port"]["id"].as_str().unwrap().to_owned();
    kit.delete(&member, &format!("/network/v2.0/ports/{port}")).await;
    kit.cloud().unknown("server", &id, true).await.unwrap();
    kit.server_active(&id).await;
    // A server is not adopted and not discarded twice; other things are not adopted by themselves.
    kit.cloud().unknown("server", &theirs, false).await.unwrap();
    assert!(!kit.node("n1").guests().contains_key(&theirs));
    assert!(kit.cloud().unknown("server", &theirs, false).await.is_err());
    kit.rest().await;
    kit.audit_consistency().await;
}
