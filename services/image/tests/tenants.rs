//! Attack class D: what is another tenant's does not exist, in every verb; what is visible cannot be changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_http::Access;
use serde_json::{Value, json};

/// Every verb on an image and below it: method, path, content type, body.
fn verbs(image: &str) -> Vec<(&'static str, String, &'static str, String)> {
    let at = |below: &str| format!("/v2/images/{image}{below}");
    let json = "application/json";
    vec![
        ("GET", at(""), json, String::new()),
        ("HEAD", at(""), json, String::new()),
        (
            "PATCH",
            at(""),
            PATCH,
            json!([{"op": "replace", "path": "/name", "value": "mine"}]).to_string(),
        ),
        (
            "PATCH",
            at(""),
            OLD_PATCH,
            json!([{"replace": "/name", "value": "mine"}]).to_string(),
        ),
        ("DELETE", at(""), json, String::new()),
        ("GET", at("/file"), json, String::new()),
        ("HEAD", at("/file"), json, String::new()),
        ("PUT", at("/file"), OCTETS, "mine".to_owned()),
        ("PUT", at("/stage"), OCTETS, "mine".to_owned()),
        (
            "POST",
            at("/import"),
            json,
            json!({"method": {"name": "glance-direct"}}).to_string(),
        ),
        ("PUT", at("/tags/mine"), json, String::new()),
        ("DELETE", at("/tags/theirs"), json, String::new()),
        ("POST", at("/actions/deactivate"), json, String::new()),
        ("POST", at("/actions/reactivate"), json, String::new()),
        ("GET", at("/tasks"), json, String::new()),
        ("GET", at("/members"), json, String::new()),
        ("POST", at("/members"), json, json!({"member": "bbb"}).to_string()),
        ("GET", at("/members/ccc"), json, String::new()),
        (
            "PUT",
            at("/members/ccc"),
            json,
            json!({"status": "accepted"}).to_string(),
        ),
        ("DELETE", at("/members/ccc"), json, String::new()),
        ("GET", at("/members/bbb"), json, String::new()),
        (
            "PUT",
            at("/members/bbb"),
            json,
            json!({"status": "accepted"}).to_string(),
        ),
    ]
}

#[tokio::test]
async fn d_the_walk_knows_every_route() {
    let c = cloud().await;
    let known = verbs("{id}");
    for route in &c.gateway.services()[0].routes {
        if !route.path.contains("{id}") {
            continue;
        }
        let shape = |p: &str| {
            p.split('/')
                .map(|s| if s.starts_with('{') { "*" } else { s })
                .collect::<Vec<_>>()
                .join("/")
        };
        let walked = known.iter().any(|(method, path, ..)| {
            let path = path
                .replace("/tags/mine", "/tags/{t}")
                .replace("/tags/theirs", "/tags/{t}");
            let path = path
                .replace("/members/ccc", "/members/{m}")
                .replace("/members/bbb", "/members/{m}");
            route.method == *method && shape(&route.path) == shape(&path)
        });
        assert!(walked, "{} {} is in no walk", route.method, route.path);
        assert!(matches!(route.access, Access::Rule(_)), "{} is public", route.path);
    }
}

#[tokio::test]
async fn d_a_foreign_image_does_not_exist_in_any_verb() {
    let c = cloud().await;
    for visibility in ["private", "shared"] {
        let image = c
            .active(A, json!({"visibility": visibility, "tags": ["theirs"]}), b"secret")
            .await;
        if visibility == "shared" {
            c.want(
                200,
                A,
                "POST",
                &format!("/v2/images/{image}/members"),
                json!({"member": "ccc"}),
            )
            .await;
        }
        let before = c.get(A, &format!("/v2/images/{image}")).await;
        for ((method, path, kind, body), (_, none, ..)) in verbs(&image)
            .into_iter()
            .zip(verbs("00000000-0000-4000-8000-000000000000"))
        {
            let theirs = c.send(B, method, &path, &[("content-type", kind)], body.clone()).await;
            assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.text());
            // Nor does the answer tell it from one that never was.
            let nothing = c.send(B, method, &none, &[("content-type", kind)], body).await;
            let blank = |text: String, id: &str| text.replace(id, "ID");
            assert_eq!(
                blank(theirs.text(), &image),
                blank(nothing.text(), "00000000-0000-4000-8000-000000000000"),
                "{method} {path}"
            );
        }
        assert_eq!(c.get(A, &format!("/v2/images/{image}")).await, before);
        for query in [
            "",
            "visibility=all",
            "visibility=private",
            "visibility=shared&member_status=all",
        ] {
            assert!(c.names(B, query).await.is_empty(), "{query}");
        }
    }
    c.audit().await;
}

#[tokio::test]
async fn d_a_visible_image_of_others_is_read_and_not_changed() {
    let c = cloud().await;
    let community = c
        .active(A, json!({"visibility": "community", "tags": ["theirs"]}), b"open")
        .await;
    let public = c
        .active(ADMIN, json!({"visibility": "public", "tags": ["theirs"]}), b"open")
        .await;
    for image in [community, public] {
        let before = c.get(ADMIN, &format!("/v2/images/{image}")).await;
        for (method, path, kind, body) in verbs(&image) {
            let answer = c.send(B, method, &path, &[("content-type", kind)], body).await;
            let reads = matches!(method, "GET" | "HEAD");
            let member = path.contains("/members/") && reads;
            let wanted = match (reads, path.contains("/members")) {
                _ if member => 404,
                (true, false) => 200,
                _ => 403,
            };
            assert_eq!(answer.status, wanted, "{method} {path}: {}", answer.text());
        }
        assert_eq!(c.get(ADMIN, &format!("/v2/images/{image}")).await, before);
    }
    c.audit().await;
}

#[tokio::test]
async fn d_readers_read_and_nobody_comes_without_a_role_or_a_token() {
    let c = cloud().await;
    let image = c.active(A, json!({"tags": ["theirs"]}), b"data").await;
    c.want(
        200,
        A,
        "POST",
        &format!("/v2/images/{image}/members"),
        json!({"member": "ccc"}),
    )
    .await;
    for (method, path, kind, body) in verbs(&image) {
        let send = async |token: &str| {
            c.send(token, method, &path, &[("content-type", kind)], body.clone())
                .await
                .status
        };
        assert_eq!(send("nonsense").await, 401, "{method} {path}");
        assert_eq!(send("aaa:none").await, 403, "{method} {path}");
        let reads = matches!(method, "GET" | "HEAD");
        let wanted = match () {
            // Upstream lets only members of a project have its data.
            () if path.ends_with("/file") => 403,
            () if path.ends_with("/members/bbb") && reads => 404,
            () if reads => 200,
            () => 403,
        };
        assert_eq!(send("aaa:reader").await, wanted, "reader: {method} {path}");
        let bare = http::Request::builder()
            .method(method)
            .uri(format!("http://maru/image{path}"));
        let answer = c.gateway.call(bare.body(bytes::Bytes::new()).unwrap()).await;
        assert_eq!(answer.status(), 401, "{method} {path}");
    }
    c.want(403, "aaa:reader", "POST", "/v2/images", json!({})).await;
    for visibility in ["public"] {
        c.refused(
            403,
            A,
            "POST",
            "/v2/images",
            json!({"visibility": visibility}),
            &["publicize_image"],
        )
        .await;
    }
    c.want(403, "-:member", "POST", "/v2/images", json!({})).await;
    assert_eq!(
        c.get(A, &format!("/v2/images/{image}")).await["status"],
        json!("active")
    );
    let _: Value = c.get("aaa:reader", "/v2/images").await;
    c.audit().await;
}
