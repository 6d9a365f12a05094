//! What moves the clock has a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Cloud, call};
use serde_json::json;

#[tokio::test]
async fn tokens_end_and_services_may_still_read_them_for_two_days() {
    let cloud = Cloud::start().await;
    let old = cloud.admin.clone();
    let request = |token: &str, query: &str| {
        http::Request::get(format!("/v3/auth/tokens{query}"))
            .header("x-auth-token", token)
            .header("x-subject-token", &old)
            .body(Bytes::new())
            .unwrap()
    };
    cloud.send(request(&old, "")).await.ok(200);
    maru_base::time::advance(3_500);
    cloud.send(request(&old, "")).await.ok(200);
    maru_base::time::advance(200);
    assert_eq!(
        call(&cloud.gateway, "GET", "/v3/auth/catalog", &old, None).await.status,
        401
    );
    let new = cloud
        .login("admin", "admin-pass", json!({"system": {"all": true}}))
        .await
        .ok(201)
        .token();
    assert_eq!(cloud.send(request(&new, "")).await.status, 404);
    cloud.send(request(&new, "?allow_expired=1")).await.ok(200);
    assert_eq!(
        cloud.send(request(&new, "")).await.status,
        404,
        "it was not remembered as good"
    );
    assert_eq!(
        call(&cloud.gateway, "GET", "/v3/auth/catalog", &old, None).await.status,
        401
    );
    maru_base::time::advance(48 * 3_600);
    let new = cloud
        .login("admin", "admin-pass", json!({"system": {"all": true}}))
        .await
        .ok(201)
        .token();
    assert_eq!(cloud.send(request(&new, "?allow_expired=1")).await.status, 404);
    // Deleted tokens are forgotten once they would have expired.
    for _ in 0..3 {
        let token = cloud
            .login("admin", "admin-pass", json!("unscoped"))
            .await
            .ok(201)
            .token();
        let delete = http::Request::delete("/v3/auth/tokens")
            .header("x-auth-token", &new)
            .header("x-subject-token", token);
        cloud.send(delete.body(Bytes::new()).unwrap()).await.ok(204);
        maru_base::time::advance(1_000);
    }
    maru_base::time::advance(4_000);
    let new = cloud
        .login("admin", "admin-pass", json!({"system": {"all": true}}))
        .await
        .ok(201)
        .token();
    let delete = http::Request::delete("/v3/auth/tokens")
        .header("x-auth-token", &new)
        .header("x-subject-token", &new);
    cloud.send(delete.body(Bytes::new()).unwrap()).await.ok(204);
    assert_eq!(cloud.store.snapshot().count::<maru_identity_model::RevokedToken>(), 1);
}
