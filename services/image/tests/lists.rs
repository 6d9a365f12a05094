//! Lists: who sees what, filters, order, pages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

/// Images of three tenants in every visibility.
async fn gallery(c: &Cloud) {
    for (token, project) in [(A, "a"), (B, "b")] {
        for visibility in ["private", "shared", "community"] {
            c.make(
                token,
                json!({"name": format!("{project}-{visibility}"), "visibility": visibility}),
            )
            .await;
        }
    }
    c.make(ADMIN, json!({"name": "o-public", "visibility": "public"})).await;
    c.make(ADMIN, json!({"name": "o-private", "visibility": "private"}))
        .await;
    for (name, answer) in [("yes", "accepted"), ("no", "rejected"), ("open", "pending")] {
        let shared = id(&c.make(B, json!({"name": name})).await);
        c.want(
            200,
            B,
            "POST",
            &format!("/v2/images/{shared}/members"),
            json!({"member": "aaa"}),
        )
        .await;
        let path = format!("/v2/images/{shared}/members/aaa");
        c.want(200, A, "PUT", &path, json!({"status": answer})).await;
    }
}

#[tokio::test]
async fn who_sees_what() {
    let c = cloud().await;
    gallery(&c).await;
    let sees = async |token: &str, query: &str, names: &[&str]| {
        assert_eq!(
            c.names(token, &format!("sort=name:asc&{query}")).await,
            names,
            "{token} {query}"
        );
    };
    let own = ["a-community", "a-private", "a-shared", "o-public", "yes"];
    sees(A, "", &own).await;
    sees(A, "member_status=accepted", &own).await;
    sees(
        A,
        "member_status=pending",
        &["a-community", "a-private", "a-shared", "o-public", "open"],
    )
    .await;
    sees(
        A,
        "member_status=rejected",
        &["a-community", "a-private", "a-shared", "no", "o-public"],
    )
    .await;
    let all = ["a-community", "a-private", "a-shared", "no", "o-public", "open", "yes"];
    sees(A, "member_status=all", &all).await;
    sees(A, "visibility=public", &["o-public"]).await;
    sees(A, "visibility=private", &["a-private"]).await;
    sees(A, "visibility=shared", &["a-shared", "yes"]).await;
    sees(
        A,
        "visibility=shared&member_status=all",
        &["a-shared", "no", "open", "yes"],
    )
    .await;
    sees(A, "visibility=community", &["a-community", "b-community"]).await;
    sees(
        A,
        "visibility=all",
        &["a-community", "a-private", "a-shared", "b-community", "o-public", "yes"],
    )
    .await;
    sees(C, "", &["o-public"]).await;
    sees(
        C,
        "visibility=all&member_status=all",
        &["a-community", "b-community", "o-public"],
    )
    .await;
    sees("aaa:reader", "", &own).await;
    let most = [
        "a-private",
        "a-shared",
        "b-private",
        "b-shared",
        "no",
        "o-private",
        "o-public",
        "open",
        "yes",
    ];
    sees(ADMIN, "", &most).await;
    sees(ADMIN, "visibility=private", &["a-private", "b-private", "o-private"]).await;
    sees(ADMIN, "visibility=community", &["a-community", "b-community"]).await;
    assert_eq!(c.names(ADMIN, "visibility=all").await.len(), 11);
    sees(
        ADMIN,
        "visibility=all&owner=bbb&name=in:b-private,b-community",
        &["b-community", "b-private"],
    )
    .await;
    for (token, status) in [("aaa:none", 403), ("x", 401)] {
        c.want(status, token, "GET", "/v2/images", Value::Null).await;
    }
}

#[tokio::test]
async fn hidden_images_are_listed_when_asked_for() {
    let c = cloud().await;
    let hidden = id(&c.make(A, json!({"name": "hidden", "os_hidden": true})).await);
    c.make(A, json!({"name": "shown"})).await;
    assert_eq!(c.names(A, "").await, ["shown"]);
    assert_eq!(c.names(A, "os_hidden=false").await, ["shown"]);
    assert_eq!(c.names(A, "os_hidden=True").await, ["hidden"]);
    c.want(200, A, "GET", &format!("/v2/images/{hidden}"), Value::Null)
        .await;
    c.refused(400, A, "GET", "/v2/images?os_hidden=maybe", Value::Null, &["os_hidden"])
        .await;
}

#[tokio::test]
async fn filters() {
    let c = cloud().await;
    let small = c
        .active(
            A,
            json!({"name": "small", "tags": ["x", "y"], "os_distro": "debian"}),
            b"1",
        )
        .await;
    c.active(
        A,
        json!({"name": "large, \"very\"", "tags": ["x"], "min_ram": 64, "protected": true}),
        &[0; 5000],
    )
    .await;
    c.make(
        A,
        json!({"name": "a:b", "disk_format": "qcow2", "container_format": "ovf"}),
    )
    .await;
    let finds = async |query: &str, names: &[&str]| {
        assert_eq!(c.names(A, &format!("sort=name:asc&{query}")).await, names, "{query}");
    };
    let large = "large, \"very\"";
    finds("name=small", &["small"]).await;
    finds("name=eq:small", &["small"]).await;
    finds("name=eq:a:b", &["a:b"]).await;
    finds("name=in:small,nothing", &["small"]).await;
    finds("name=in:small,%22large,%20%5C%22very%5C%22%22", &[large, "small"]).await;
    finds(&format!("id={small}"), &["small"]).await;
    finds(&format!("id=in:{small},x"), &["small"]).await;
    finds("status=queued", &["a:b"]).await;
    finds("status=in:queued,active", &["a:b", large, "small"]).await;
    finds("disk_format=qcow2", &["a:b"]).await;
    finds("disk_format=in:raw,qcow2", &["a:b", large, "small"]).await;
    finds("container_format=ovf", &["a:b"]).await;
    finds("os_distro=debian", &["small"]).await;
    finds("os_distro=in:debian,x", &[]).await;
    finds("min_ram=64", &[large]).await;
    finds("min_ram_min=1", &[large]).await;
    finds("min_ram_max=63", &["a:b", "small"]).await;
    finds("protected=true", &[large]).await;
    finds("protected=false", &["a:b", "small"]).await;
    finds("size=1", &["small"]).await;
    finds("size_min=2", &[large]).await;
    finds("size_max=2", &["small"]).await;
    finds("size_min=1&size_max=5000", &[large, "small"]).await;
    finds("tag=x", &[large, "small"]).await;
    finds("tag=x&tag=y", &["small"]).await;
    finds("owner=aaa", &["a:b", large, "small"]).await;
    finds("owner=bbb", &[]).await;
    finds("nothing=here", &[]).await;
    let shown = c.get(A, &format!("/v2/images/{small}")).await;
    finds(&format!("checksum={}", shown["checksum"].as_str().unwrap()), &["small"]).await;
    finds(
        &format!("os_hash_value={}", shown["os_hash_value"].as_str().unwrap()),
        &["small"],
    )
    .await;
    for (query, word) in [
        ("visibility=none", "visibility"),
        ("member_status=perhaps", "status"),
        ("protected=1", "protected"),
        ("size_min=many", "size_min"),
        ("size_max=1.5", "size_max"),
        ("name=like:x", "like"),
        ("status=neq:active", "neq"),
        ("name=in:%22a", "quote"),
        ("created_at=gt:yesterday", "created_at"),
        ("updated_at=near:2026-01-01T00:00:00Z", "near"),
        ("changes-since=2026-01-01T00:00:00Z", "changes-since"),
    ] {
        c.refused(400, A, "GET", &format!("/v2/images?{query}"), Value::Null, &[word])
            .await;
    }
    // A filter does not open what is not one's own.
    assert!(c.names(B, &format!("id={small}")).await.is_empty());
    assert!(c.names(B, "owner=aaa&visibility=all").await.is_empty());
}

#[tokio::test]
async fn filters_of_time() {
    let c = cloud().await;
    let image = c.make(A, json!({"name": "x"})).await;
    let at: jiff::Timestamp = image["created_at"].as_str().unwrap().parse().unwrap();
    let text = |seconds: i64| maru_base::time::seconds_z(at + jiff::SignedDuration::from_secs(seconds));
    for (operator, seconds, found) in [
        ("gt:", 0, false),
        ("gt:", -1, true),
        ("gte:", 0, true),
        ("gte:", 1, false),
        ("lt:", 0, false),
        ("lt:", 1, true),
        ("lte:", 0, true),
        ("eq:", 0, true),
        ("", 0, true),
        ("", 1, false),
        ("neq:", 0, false),
        ("neq:", 1, true),
    ] {
        for name in ["created_at", "updated_at"] {
            let query = format!("{name}={operator}{}", text(seconds));
            assert_eq!(c.names(A, &query).await.len(), usize::from(found), "{query}");
        }
    }
    assert_eq!(
        c.names(A, "created_at=gt:2020-01-01&created_at=lt:2020-01-02T00:00:00")
            .await
            .len(),
        0
    );
}

#[tokio::test]
async fn order() {
    let c = cloud().await;
    for (name, data) in [("b", "1"), ("a", "333"), ("c", "22")] {
        c.active(A, json!({"name": name}), data.as_bytes()).await;
    }
    c.make(A, json!({"disk_format": "qcow2"})).await;
    for (query, names) in [
        ("", ["-", "c", "a", "b"]),
        ("sort_dir=asc", ["b", "a", "c", "-"]),
        ("sort=name:asc", ["-", "a", "b", "c"]),
        ("sort=name", ["c", "b", "a", "-"]),
        ("sort_key=name&sort_dir=asc", ["-", "a", "b", "c"]),
        ("sort_key=name", ["c", "b", "a", "-"]),
        ("sort=size:desc", ["a", "c", "b", "-"]),
        ("sort=status:asc,name:desc", ["c", "b", "a", "-"]),
        ("sort_key=disk_format&sort_key=name&sort_dir=asc", ["-", "a", "b", "c"]),
        (
            "sort_key=disk_format&sort_dir=desc&sort_key=name&sort_dir=asc",
            ["a", "b", "c", "-"],
        ),
        ("sort=created_at:asc", ["b", "a", "c", "-"]),
        ("sort=updated_at:desc", ["-", "c", "a", "b"]),
    ] {
        assert_eq!(c.names(A, query).await, names, "{query}");
    }
    for (query, word) in [
        ("sort=colour:asc", "colour"),
        ("sort=name:up", "up"),
        ("sort_key=min_ram", "min_ram"),
        ("sort_dir=up&sort_key=name", "up"),
        ("sort=name&sort_key=name", "combined"),
        ("sort_key=name&sort_dir=asc&sort_dir=desc", "Number"),
    ] {
        c.refused(400, A, "GET", &format!("/v2/images?{query}"), Value::Null, &[word])
            .await;
    }
}

#[tokio::test]
async fn pages() {
    let c = cloud().await;
    for n in 0..30 {
        c.make(
            A,
            json!({"name": format!("{n:02}"), "kind": if n % 2 == 0 { "even" } else { "odd" }}),
        )
        .await;
    }
    let first = c.get(A, "/v2/images").await;
    assert_eq!(keys(&first), ["first", "images", "next", "schema"]);
    assert_eq!(
        (&first["first"], &first["schema"]),
        (&json!("/v2/images"), &json!("/v2/schemas/images"))
    );
    assert_eq!(first["images"].as_array().unwrap().len(), 25);
    let rest = c.get(A, first["next"].as_str().unwrap()).await;
    assert_eq!(rest["images"].as_array().unwrap().len(), 5);
    assert!(rest.get("next").is_none());
    // A walk through filtered, sorted pages sees each image once, whatever changes on the way.
    let mut next = "/v2/images?limit=4&sort=name:asc&kind=even".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = c.get(A, &next).await;
        assert_eq!(page["first"], "/v2/images?limit=4&sort=name%3Aasc&kind=even");
        let images = page["images"].as_array().unwrap();
        assert!(images.len() <= 4);
        seen.extend(images.iter().map(|i| i["name"].as_str().unwrap().to_owned()));
        let Some(link) = page["next"].as_str() else { break };
        // The marker leaves the list; the walk goes on behind it.
        let last = id(images.last().unwrap());
        c.patch(
            200,
            A,
            &last,
            json!([{"op": "replace", "path": "/kind", "value": "gone"}]),
        )
        .await;
        next = link.to_owned();
    }
    let evens: Vec<String> = (0..30).step_by(2).map(|n| format!("{n:02}")).collect();
    assert_eq!(seen, evens);
    assert!(c.names(A, "limit=0").await.is_empty());
    assert_eq!(c.names(A, "limit=5000").await.len(), 30);
    let foreign = id(&c.make(B, json!({"visibility": "private"})).await);
    let foreign = format!("marker={foreign}");
    for (query, word) in [
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("marker=nothing", "marker"),
        (foreign.as_str(), "marker"),
    ] {
        c.refused(400, A, "GET", &format!("/v2/images?{query}"), Value::Null, &[word])
            .await;
    }
}
