//! Members of shared images: who offers, who answers, who sees whom.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

async fn shared(c: &Cloud, with: &[&str]) -> (String, String) {
    let image = c.active(A, json!({"name": "offer"}), b"data").await;
    let path = format!("/v2/images/{image}/members");
    for project in with {
        c.want(200, A, "POST", &path, json!({"member": project})).await;
    }
    (image, path)
}

#[tokio::test]
async fn an_offer_is_made_seen_accepted_and_taken_back() {
    let c = cloud().await;
    let (image, path) = shared(&c, &[]).await;
    c.want(404, B, "GET", &format!("/v2/images/{image}"), Value::Null).await;
    let member = c
        .want(200, A, "POST", &path, json!({"member": "bbb", "more": 1}))
        .await
        .json();
    assert_eq!(
        keys(&member),
        ["created_at", "image_id", "member_id", "schema", "status", "updated_at"]
    );
    assert_eq!(
        (
            &member["image_id"],
            &member["member_id"],
            &member["status"],
            &member["schema"]
        ),
        (
            &json!(image),
            &json!("bbb"),
            &json!("pending"),
            &json!("/v2/schemas/member")
        )
    );
    let list = c.get(A, &path).await;
    assert_eq!(list, json!({"members": [member], "schema": "/v2/schemas/members"}));
    let own = format!("{path}/bbb");
    assert_eq!(c.get(B, &own).await, member);
    // Usable by id at once, listed once accepted.
    assert_eq!(c.download(B, &image, &[]).await.body, "data");
    assert!(c.names(B, "").await.is_empty());
    assert_eq!(
        c.want(200, B, "PUT", &own, json!({"status": "accepted"})).await.json()["status"],
        "accepted"
    );
    assert_eq!(c.names(B, "").await, ["offer"]);
    c.want(200, B, "PUT", &own, json!({"status": "rejected"})).await;
    assert!(c.names(B, "").await.is_empty());
    assert_eq!(c.names(B, "member_status=rejected").await, ["offer"]);
    c.want(200, B, "PUT", &own, json!({"status": "pending"})).await;
    c.want(204, A, "DELETE", &own, Value::Null).await;
    c.want(404, B, "GET", &format!("/v2/images/{image}"), Value::Null).await;
    assert_eq!(c.download(B, &image, &[]).await.status, 404);
    c.want(404, A, "DELETE", &own, Value::Null).await;
    assert_eq!(c.get(A, &path).await["members"], json!([]));
}

#[tokio::test]
async fn the_owner_does_not_answer_and_the_member_does_not_offer() {
    let c = cloud().await;
    let (image, path) = shared(&c, &["bbb", "ccc"]).await;
    let (b, other) = (format!("{path}/bbb"), format!("{path}/ccc"));
    c.want(403, A, "PUT", &b, json!({"status": "accepted"})).await;
    c.want(200, ADMIN, "PUT", &b, json!({"status": "accepted"})).await;
    c.want(403, B, "POST", &path, json!({"member": "ddd"})).await;
    c.want(403, B, "DELETE", &b, Value::Null).await;
    c.want(403, "bbb:reader", "PUT", &b, json!({"status": "rejected"}))
        .await;
    c.want(403, "aaa:reader", "POST", &path, json!({"member": "ddd"})).await;
    // A member sees itself alone.
    let list = c.get(B, &path).await;
    assert_eq!(list["members"].as_array().unwrap().len(), 1);
    assert_eq!(list["members"][0]["member_id"], "bbb");
    c.want(404, B, "GET", &other, Value::Null).await;
    c.want(404, B, "PUT", &other, json!({"status": "rejected"})).await;
    c.want(404, B, "DELETE", &other, Value::Null).await;
    for token in [A, ADMIN, "aaa:reader"] {
        assert_eq!(c.get(token, &path).await["members"].as_array().unwrap().len(), 2);
        c.want(200, token, "GET", &other, Value::Null).await;
    }
    // A member reads the image and changes nothing of it.
    let image = format!("/v2/images/{image}");
    c.want(200, B, "GET", &image, Value::Null).await;
    c.want(
        403,
        B,
        "PATCH",
        &image,
        json!([{"op": "replace", "path": "/name", "value": "mine"}]),
    )
    .await;
    c.want(403, B, "PUT", &format!("{image}/tags/mine"), Value::Null).await;
    c.want(403, B, "DELETE", &image, Value::Null).await;
    c.want(403, B, "POST", &format!("{image}/actions/deactivate"), Value::Null)
        .await;
}

#[tokio::test]
async fn only_shared_images_have_members() {
    let c = cloud().await;
    let (image, path) = shared(&c, &["bbb"]).await;
    for visibility in ["private", "community"] {
        let ops = json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
        c.patch(200, A, &image, ops).await;
        c.refused(403, A, "GET", &path, Value::Null, &["Only shared images have members"])
            .await;
        c.refused(403, A, "POST", &path, json!({"member": "ccc"}), &["Only shared images"])
            .await;
        c.want(403, A, "DELETE", &format!("{path}/bbb"), Value::Null).await;
        c.want(404, A, "GET", &format!("{path}/bbb"), Value::Null).await;
    }
    // A member of what is private now sees nothing.
    c.patch(
        200,
        A,
        &image,
        json!([{"op": "replace", "path": "/visibility", "value": "private"}]),
    )
    .await;
    for (method, below) in [
        ("GET", ""),
        ("GET", "/file"),
        ("GET", "/members"),
        ("GET", "/members/bbb"),
    ] {
        c.want(404, B, method, &format!("/v2/images/{image}{below}"), Value::Null)
            .await;
    }
    assert!(c.names(B, "member_status=all").await.is_empty());
    c.patch(
        200,
        A,
        &image,
        json!([{"op": "replace", "path": "/visibility", "value": "shared"}]),
    )
    .await;
    c.want(200, B, "GET", &format!("/v2/images/{image}"), Value::Null).await;
}

#[tokio::test]
async fn bad_input() {
    let c = cloud().await;
    let (_, path) = shared(&c, &["bbb"]).await;
    for body in [
        json!({}),
        json!({"member": ""}),
        json!({"member": 5}),
        json!([]),
        json!("bbb"),
        json!({"member": "x".repeat(256)}),
    ] {
        c.want(400, A, "POST", &path, body).await;
    }
    c.refused(409, A, "POST", &path, json!({"member": "bbb"}), &["bbb", "duplicated"])
        .await;
    for body in [
        json!({}),
        json!({"status": "fine"}),
        json!({"status": 1}),
        json!([]),
        json!("accepted"),
    ] {
        c.want(400, B, "PUT", &format!("{path}/bbb"), body).await;
    }
    c.refused(
        400,
        B,
        "PUT",
        &format!("{path}/bbb"),
        json!({"status": "fine"}),
        &["status", "accepted"],
    )
    .await;
    c.want(405, B, "PATCH", &format!("{path}/bbb"), json!([])).await;
}

#[tokio::test]
async fn of_many_at_once_no_more_than_the_limit_and_none_on_a_deleted_image() {
    let settings = maru_image::Settings {
        members: 3,
        ..maru_image::Settings::default()
    };
    let c = cloud_with(settings, std::sync::Arc::new(Look)).await;
    let (image, path) = shared(&c, &[]).await;
    let many = (0..12).map(|n| c.call(A, "POST", &path, json!({"member": format!("p{n}")})));
    let answers = futures_util::future::join_all(many).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 3);
    assert_eq!(answers.iter().filter(|a| a.status == 413).count(), 9);
    c.want(
        204,
        A,
        "DELETE",
        &format!(
            "{path}/{}",
            c.get(A, &path).await["members"][0]["member_id"].as_str().unwrap()
        ),
        Value::Null,
    )
    .await;
    let adding = c.call(A, "POST", &path, json!({"member": "late"}));
    let image = format!("/v2/images/{image}");
    let deleting = c.call(A, "DELETE", &image, Value::Null);
    let (_, deleted) = tokio::join!(adding, deleting);
    assert_eq!(deleted.status, 204);
    assert_eq!(c.store.snapshot().count::<maru_image_model::Member>(), 0);
    c.audit().await;
}
