//! /v3/policies: kept as they are given, by administrators alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Cloud, project};
use serde_json::json;

#[tokio::test]
async fn policies_are_kept_as_given() {
    let cloud = Cloud::start().await;
    let id = cloud
        .make("policy", json!({"type": "text/a", "blob": "one", "note": "kept"}))
        .await;
    let path = format!("/v3/policies/{id}");
    let shown = cloud.get(&path).await.ok(200).json["policy"].clone();
    assert_eq!((&shown["blob"], &shown["note"]), (&json!("one"), &json!("kept")));
    let found = cloud.get("/v3/policies?type=text/a").await.ok(200).ids("policies");
    assert_eq!(found, vec![id.clone()]);
    let none = cloud.get("/v3/policies?type=text/b").await.ok(200).ids("policies");
    assert!(none.is_empty());
    let change = json!({"policy": {"type": "text/b"}});
    cloud.call("PATCH", &path, &cloud.admin, Some(change)).await.ok(200);
    let shown = cloud.get(&path).await.ok(200).json["policy"].clone();
    assert_eq!((&shown["blob"], &shown["type"]), (&json!("one"), &json!("text/b")));
    for bad in [
        json!({"type": "t"}),
        json!({"blob": "b"}),
        json!({"type": 7, "blob": "b"}),
    ] {
        cloud.post("/v3/policies", json!({ "policy": bad })).await.ok(400);
    }
    let p = cloud.make("project", json!({"name": "p"})).await;
    let user = cloud.make("user", json!({"name": "ann", "password": "pw"})).await;
    let role = cloud.role("member").await;
    cloud
        .put(&format!("/v3/projects/{p}/users/{user}/roles/{role}"))
        .await
        .ok(204);
    let ann = cloud.login("ann", "pw", project(&p)).await.ok(201).token();
    for method in ["GET", "DELETE"] {
        cloud.call(method, &path, &ann, None).await.ok(403);
    }
    cloud.delete(&path).await.ok(204);
    cloud.get(&path).await.ok(404);
}
