//! Unified limits.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, call, project};
use serde_json::{Value, json};

#[tokio::test]
async fn limits_override_what_is_registered() {
    let cloud = Cloud::start().await;
    let service = cloud.make("service", json!({"type": "t", "name": "s"})).await;
    let p = cloud
        .make("project", json!({"name": "p", "domain_id": "default"}))
        .await;
    let q = cloud
        .make("project", json!({"name": "q", "domain_id": "default"}))
        .await;
    let register = |name: &str, region: Value| {
        json!({"registered_limits": [{"service_id": service, "region_id": region, "resource_name": name,
            "default_limit": 5, "description": "x"}]})
    };
    let made = cloud
        .post("/v3/registered_limits", register("volume", Value::Null))
        .await
        .ok(201);
    let registered = made.json["registered_limits"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        cloud
            .post("/v3/registered_limits", register("volume", Value::Null))
            .await
            .status,
        409
    );
    cloud
        .post("/v3/registered_limits", register("volume", json!("RegionOne")))
        .await
        .ok(201);
    assert_eq!(
        cloud
            .post("/v3/registered_limits", register("v", json!("nowhere")))
            .await
            .status,
        400
    );
    let listed = cloud.get("/v3/registered_limits?region_id=RegionOne").await.ok(200);
    assert_eq!(listed.json["registered_limits"].as_array().unwrap().len(), 1);

    let limit = |project: &str, name: &str, n: i64| json!({"limits": [{"service_id": service, "project_id": project, "resource_name": name, "resource_limit": n}]});
    let made = cloud.post("/v3/limits", limit(&p, "volume", 7)).await.ok(201);
    let one = made.json["limits"][0].clone();
    let id = one["id"].as_str().unwrap().to_owned();
    assert_eq!(one["domain_id"], Value::Null);
    assert_eq!(one["resource_limit"], 7);
    assert_eq!(cloud.post("/v3/limits", limit(&p, "volume", 8)).await.status, 409);
    let answer = cloud.post("/v3/limits", limit(&p, "snapshot", 8)).await.ok(403);
    assert!(answer.message().contains("no corresponding registered limit"));
    assert_eq!(
        cloud.post("/v3/limits", limit("nowhere", "volume", 8)).await.status,
        400
    );
    // All of a request or nothing.
    let two = json!({"limits": [limit(&q, "volume", 1)["limits"][0], limit(&q, "volume", 2)["limits"][0]]});
    assert_eq!(cloud.post("/v3/limits", two).await.status, 409);
    assert_eq!(cloud.get("/v3/limits").await.ok(200).ids("limits"), [id.as_str()]);
    for (bad, field) in [
        (json!({"limits": []}), "limits"),
        (
            json!({"limits": [{"service_id": service, "resource_name": "volume", "resource_limit": 1}]}),
            "project_id",
        ),
        (limit(&p, "volume", -2), "resource_limit"),
        (
            json!({"limits": [{"service_id": service, "resource_name": "volume", "project_id": p}]}),
            "resource_limit",
        ),
    ] {
        let answer = cloud.post("/v3/limits", bad).await.ok(400);
        assert!(answer.message().contains(field), "{}", answer.text);
    }
    // A registered limit that limits stand on keeps its name and stays.
    let path = format!("/v3/registered_limits/{registered}");
    let renamed = json!({"registered_limit": {"resource_name": "disk"}});
    assert_eq!(cloud.patch(&path, renamed.clone()).await.status, 403);
    let raised = cloud
        .patch(&path, json!({"registered_limit": {"default_limit": -1}}))
        .await
        .ok(200);
    assert_eq!(raised.json["registered_limit"]["default_limit"], -1);
    assert_eq!(cloud.delete(&path).await.status, 403);
    let own = format!("/v3/limits/{id}");
    let changed = cloud
        .patch(&own, json!({"limit": {"resource_limit": 9, "description": "d"}}))
        .await
        .ok(200);
    assert_eq!(changed.json["limit"]["resource_limit"], 9);
    assert_eq!(cloud.patch(&own, json!({"limit": {"project_id": q}})).await.status, 400);

    // A project sees its own, and no other.
    let user = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default"}),
        )
        .await;
    let reader = cloud.role("reader").await;
    for project in [&p, &q] {
        cloud
            .put(&format!("/v3/projects/{project}/users/{user}/roles/{reader}"))
            .await
            .ok(204);
    }
    for (project_id, sees) in [(&p, true), (&q, false)] {
        let token = cloud
            .login("ann", "ann-pass", project(project_id))
            .await
            .ok(201)
            .token();
        let list = call(&cloud.gateway, "GET", "/v3/limits", &token, None).await.ok(200);
        assert_eq!(list.ids("limits").len(), usize::from(sees));
        let show = call(&cloud.gateway, "GET", &own, &token, None).await;
        assert_eq!(show.status, if sees { 200 } else { 403 });
        call(&cloud.gateway, "GET", &path, &token, None).await.ok(200);
        let model = call(&cloud.gateway, "GET", "/v3/limits/model", &token, None)
            .await
            .ok(200);
        assert_eq!(model.json["model"]["name"], "flat");
        assert_eq!(call(&cloud.gateway, "DELETE", &own, &token, None).await.status, 403);
    }
    // A project takes its limits along; then the registered one may change.
    cloud.delete(&format!("/v3/projects/{p}")).await.ok(204);
    assert!(cloud.get("/v3/limits").await.ok(200).ids("limits").is_empty());
    cloud.patch(&path, renamed).await.ok(200);
    cloud.delete(&path).await.ok(204);
    cloud
        .post("/v3/registered_limits", register("disk", Value::Null))
        .await
        .ok(201);
    cloud.delete(&format!("/v3/services/{service}")).await.ok(204);
    assert_eq!(
        cloud.store.snapshot().count::<maru_identity_model::RegisteredLimit>(),
        0
    );
}

#[tokio::test]
async fn of_limits_made_at_once_one_is() {
    let cloud = Cloud::start().await;
    let service = cloud.make("service", json!({"type": "t", "name": "s"})).await;
    let p = cloud
        .make("project", json!({"name": "p", "domain_id": "default"}))
        .await;
    let registered = json!({"registered_limits": [{"service_id": service, "resource_name": "x", "default_limit": 5}]});
    let all: Vec<_> = (0..8)
        .map(|_| cloud.spawn("POST", "/v3/registered_limits", Some(registered.clone())))
        .collect();
    let mut made = 0;
    for one in all {
        let status = one.await.unwrap().status;
        assert!([201, 409].contains(&status));
        made += u32::from(status == 201);
    }
    assert_eq!(made, 1);
    let limit =
        json!({"limits": [{"service_id": service, "project_id": p, "resource_name": "x", "resource_limit": 1}]});
    let all: Vec<_> = (0..8)
        .map(|_| cloud.spawn("POST", "/v3/limits", Some(limit.clone())))
        .collect();
    let mut made = 0;
    for one in all {
        let status = one.await.unwrap().status;
        assert!([201, 409].contains(&status));
        made += u32::from(status == 201);
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn what_ended_tokens_is_listed() {
    let cloud = Cloud::start().await;
    let user = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default"}),
        )
        .await;
    let off = json!({"user": {"enabled": false}});
    cloud.patch(&format!("/v3/users/{user}"), off).await.ok(200);
    let events = cloud.get("/v3/OS-REVOKE/events").await.ok(200);
    let found = events.json["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["user_id"] == user.as_str());
    assert!(found.unwrap()["issued_before"].as_str().unwrap().ends_with('Z'));
    let later = cloud
        .get("/v3/OS-REVOKE/events?since=2100-01-01T00:00:00Z")
        .await
        .ok(200);
    assert_eq!(later.json["events"], json!([]));
    assert_eq!(cloud.get("/v3/OS-REVOKE/events?since=x").await.status, 400);
    for gone in [
        "/v3/OS-SIMPLE-CERT/ca",
        "/v3/OS-SIMPLE-CERT/certificates",
        "/v3/auth/tokens/OS-PKI/revoked",
    ] {
        assert_eq!(cloud.get(gone).await.status, 410);
    }
}
