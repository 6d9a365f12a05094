//! Resource classes: standard ones, custom ones, and what PUT meant before 1.7.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{cloud, racing, uuid};
use serde_json::json;

#[tokio::test]
async fn classes_live() {
    let c = cloud();
    for path in ["/resource_classes", "/resource_classes/VCPU"] {
        c.get(path).at("1.1").want(404).await;
        c.get(path).at("1.2").want(200).await;
    }
    let list = c.get("/resource_classes").ok().await;
    let list = list["resource_classes"].as_array().unwrap();
    assert_eq!(list.len(), maru_placement_model::STANDARD_CLASSES.len());
    let vcpu = json!({"name": "VCPU", "links": [{"rel": "self", "href": "/placement/resource_classes/VCPU"}]});
    assert_eq!(list[0], vcpu);
    assert_eq!(c.get("/resource_classes/VCPU").ok().await, vcpu);

    let answer = c
        .post("/resource_classes", json!({"name": "CUSTOM_GOLD"}))
        .want(201)
        .await;
    assert_eq!(answer.header("location"), "/placement/resource_classes/CUSTOM_GOLD");
    c.post("/resource_classes", json!({"name": "CUSTOM_GOLD"}))
        .refused(409, "CUSTOM_GOLD")
        .await;
    for name in ["GOLD", "CUSTOM_", "CUSTOM_gold", "VCPU", "CUSTOM_A B", ""] {
        c.post("/resource_classes", json!({"name": name}))
            .refused(400, "name")
            .await;
    }
    let long = format!("CUSTOM_{}", "X".repeat(249));
    c.post("/resource_classes", json!({"name": long}))
        .refused(400, "name")
        .await;
    c.post("/resource_classes", json!({}))
        .refused(400, "'name' is a required property")
        .await;
    c.post("/resource_classes", json!({"name": "CUSTOM_A", "b": 1}))
        .refused(400, "'b' was unexpected")
        .await;

    // From 1.7 on PUT makes it if it is not there.
    assert_eq!(
        c.ask("PUT", "/resource_classes/CUSTOM_SILVER")
            .at("1.7")
            .want(201)
            .await
            .header("location"),
        "/placement/resource_classes/CUSTOM_SILVER"
    );
    c.ask("PUT", "/resource_classes/CUSTOM_SILVER").want(204).await;
    c.ask("PUT", "/resource_classes/VCPU").refused(400, "VCPU").await;
    c.ask("PUT", "/resource_classes/CUSTOM_low")
        .refused(400, "CUSTOM_low")
        .await;
    c.ask("PUT", &format!("/resource_classes/{long}"))
        .refused(400, "255")
        .await;

    // Until 1.6 it gives another name.
    let put = |name: &str, new: &str| {
        c.put(&format!("/resource_classes/{name}"), json!({"name": new}))
            .at("1.6")
    };
    put("VCPU", "CUSTOM_X").refused(400, "standard").await;
    put("CUSTOM_NONE", "CUSTOM_X").refused(404, "CUSTOM_NONE").await;
    put("CUSTOM_GOLD", "CUSTOM_SILVER").refused(409, "CUSTOM_SILVER").await;
    put("CUSTOM_GOLD", "gold").refused(400, "name").await;
    assert_eq!(put("CUSTOM_GOLD", "CUSTOM_BRONZE").ok().await["name"], "CUSTOM_BRONZE");
    c.get("/resource_classes/CUSTOM_GOLD").want(404).await;
    c.ask("PUT", "/resource_classes/CUSTOM_X").at("1.6").want(415).await;

    c.delete("/resource_classes/VCPU").refused(400, "standard").await;
    c.delete("/resource_classes/CUSTOM_NONE")
        .refused(404, "CUSTOM_NONE")
        .await;
    let id = c.provider("one", None).await;
    c.stock(&id, json!({"CUSTOM_BRONZE": {"total": 3}})).await;
    c.delete("/resource_classes/CUSTOM_BRONZE").refused(409, "in use").await;
    put("CUSTOM_BRONZE", "CUSTOM_OTHER").refused(409, "in use").await;
    c.allocate(&uuid(), json!({id.clone(): {"resources": {"CUSTOM_BRONZE": 3}}}))
        .want(204)
        .await;
    c.audit();
    let id2 = c.provider("two", None).await;
    c.stock(&id2, json!({"CUSTOM_SILVER": {"total": 3}})).await;
    c.delete(&format!("/resource_providers/{id2}")).want(204).await;
    c.delete("/resource_classes/CUSTOM_SILVER").want(204).await;
    c.audit();
}

/// A custom class is deleted or put on stock, never both; and it is made once.
#[tokio::test]
async fn deleting_a_class_races_with_its_use() {
    let c = racing().await;
    for round in 0..20 {
        let many = (0..5).map(|_| c.ask("PUT", "/resource_classes/CUSTOM_RACE").send());
        let made = futures_util::future::join_all(many).await;
        assert_eq!(made.iter().filter(|a| a.status == 201).count(), 1);
        assert_eq!(made.iter().filter(|a| a.status == 204).count(), 4);
        let id = c.provider(&format!("p{round}"), None).await;
        let body = json!({"resource_class": "CUSTOM_RACE", "total": 1});
        let (gone, given) = futures_util::join!(
            c.delete("/resource_classes/CUSTOM_RACE").send(),
            c.post(&format!("/resource_providers/{id}/inventories"), body).send(),
        );
        assert!(
            (gone.status == 204) != (given.status == 201),
            "{} {}",
            gone.status,
            given.status
        );
        c.audit();
        c.delete(&format!("/resource_providers/{id}")).want(204).await;
        if gone.status != 204 {
            c.delete("/resource_classes/CUSTOM_RACE").want(204).await;
        }
    }
}
