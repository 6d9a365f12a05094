//! Image records: create, show, patch, tag, deactivate, delete; bad input of every kind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

const KEYS: &[&str] = &[
    "checksum",
    "container_format",
    "created_at",
    "disk_format",
    "file",
    "id",
    "min_disk",
    "min_ram",
    "name",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "protected",
    "schema",
    "self",
    "size",
    "status",
    "tags",
    "updated_at",
    "virtual_size",
    "visibility",
];

#[tokio::test]
async fn a_record_has_upstreams_attributes_and_defaults() {
    let c = cloud().await;
    let answer = c.want(201, A, "POST", "/v2/images", json!({})).await;
    let image = answer.json();
    let id = id(&image);
    assert_eq!(keys(&image), KEYS);
    assert_eq!(
        answer.header("location"),
        Some(&*format!("http://maru/image/v2/images/{id}"))
    );
    assert!(answer.header("x-openstack-request-id").unwrap().starts_with("req-"));
    let expected = json!({
        "name": null, "disk_format": null, "container_format": null, "visibility": "shared", "size": null,
        "virtual_size": null, "status": "queued", "checksum": null, "protected": false, "min_ram": 0, "min_disk": 0,
        "owner": "aaa", "os_hidden": false, "os_hash_algo": null, "os_hash_value": null, "tags": [],
        "self": format!("/v2/images/{id}"), "file": format!("/v2/images/{id}/file"), "schema": "/v2/schemas/image",
    });
    for (k, v) in expected.as_object().unwrap() {
        assert_eq!(image[k], *v, "{k}");
    }
    let at = image["created_at"].as_str().unwrap();
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
    assert_eq!(c.get(A, &format!("/v2/images/{id}")).await, image);
    let head = c.want(200, A, "HEAD", &format!("/v2/images/{id}"), Value::Null).await;
    assert!(head.body.is_empty() && head.header("content-length").unwrap().parse::<usize>().unwrap() > 100);
    c.audit().await;
}

#[tokio::test]
async fn everything_a_client_may_set_is_kept() {
    let c = cloud().await;
    let wanted = json!({
        "id": "6B2A1F2A-0000-4000-8000-00000000000A", "name": "눈", "disk_format": "qcow2", "container_format": "bare",
        "visibility": "private", "protected": true, "os_hidden": true, "min_ram": 512, "min_disk": 3,
        "tags": ["b", "a", "b"], "os_distro": "debian", "hw_disk_bus": "virtio",
    });
    let image = c.make(A, wanted).await;
    assert_eq!(image["id"], "6b2a1f2a-0000-4000-8000-00000000000a");
    assert_eq!(image["tags"], json!(["a", "b"]));
    assert_eq!(
        (&image["os_distro"], &image["hw_disk_bus"]),
        (&json!("debian"), &json!("virtio"))
    );
    assert_eq!((&image["min_ram"], &image["protected"]), (&json!(512), &json!(true)));
    // An id is given once, also after its image is gone: what a user trusts by id must not become another's.
    let again = json!({"id": image["id"]});
    c.refused(409, B, "POST", "/v2/images", again.clone(), &["already exists"])
        .await;
    let id = id(&image);
    c.patch(
        200,
        A,
        &id,
        json!([{"op": "replace", "path": "/protected", "value": false}]),
    )
    .await;
    c.want(204, A, "DELETE", &format!("/v2/images/{id}"), Value::Null).await;
    c.refused(409, B, "POST", "/v2/images", again, &["not given out again"])
        .await;
    c.audit().await;
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let c = cloud().await;
    let post = async |status: u16, body: Value, field: &str| {
        c.refused(status, A, "POST", "/v2/images", body, &[field]).await;
    };
    for (field, value) in [
        ("name", json!(5)),
        ("name", json!("x".repeat(256))),
        ("disk_format", json!("floppy")),
        ("disk_format", json!(1)),
        ("container_format", json!("box")),
        ("visibility", json!("secret")),
        ("visibility", json!(null)),
        ("protected", json!("yes")),
        ("os_hidden", json!(1)),
        ("min_ram", json!(-1)),
        ("min_ram", json!(2_147_483_648_u64)),
        ("min_disk", json!("1")),
        ("min_disk", json!(1.5)),
        ("tags", json!("a")),
        ("tags", json!([1])),
        ("tags", json!(["x".repeat(256)])),
        ("id", json!("not-a-uuid")),
        ("id", json!("../../../../etc/passwd/aaaaaaaaaaaaaaa")),
        ("owner", json!(7)),
        ("os_distro", json!(null)),
        ("os_distro", json!({"a": "b"})),
        ("os_distro", json!("x".repeat(65_536))),
    ] {
        post(400, json!({ field: value }), field).await;
    }
    post(400, json!({"x".repeat(256): "v"}), "255").await;
    for body in [json!([]), json!("x"), json!(7), json!(null)] {
        let answer = c.send(A, "POST", "/v2/images", &[], body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    for (field, value) in [
        ("status", json!("active")),
        ("checksum", json!("0")),
        ("size", json!(1)),
        ("virtual_size", json!(1)),
        ("created_at", json!("2026-01-01T00:00:00Z")),
        ("updated_at", json!("2026-01-01T00:00:00Z")),
        ("self", json!("x")),
        ("file", json!("x")),
        ("schema", json!("x")),
        ("direct_url", json!("file:///etc/shadow")),
        ("stores", json!("x")),
        ("os_hash_algo", json!("md5")),
        ("os_hash_value", json!("0")),
        ("locations", json!([{"url": "file:///etc/shadow", "metadata": {}}])),
        ("location", json!("file:///etc/shadow")),
        ("deleted", json!("true")),
        ("deleted_at", json!("x")),
        ("os_glance_import_task", json!("x")),
    ] {
        post(403, json!({ field: value }), field).await;
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, status) in [
        (bytes::Bytes::from(deep), 400),
        ("{\"name\": \"\u{fffd}".to_owned().into(), 400),
        (bytes::Bytes::from_static(b"{\"name\": \"\xff\"}"), 400),
        (vec![b' '; 2 << 20].into(), 413),
        (bytes::Bytes::new(), 400),
    ] {
        let answer = c
            .send(A, "POST", "/v2/images", &[("content-type", "application/json")], body)
            .await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = c
        .send(A, "POST", "/v2/images", &[("content-type", "text/html")], "{}")
        .await;
    assert_eq!(answer.status, 415);
    assert!(c.names(ADMIN, "").await.is_empty());
    c.audit().await;
}

#[tokio::test]
async fn patches_of_the_newer_media_type() {
    let c = cloud().await;
    let image = c.queued(A, json!({"os_distro": "debian"})).await;
    let patched = c
        .patch(
            200,
            A,
            &image,
            json!([
                {"op": "replace", "path": "/name", "value": "new"},
                {"op": "add", "path": "/min_ram", "value": 64},
                {"op": "add", "path": "/os_distro", "value": "ubuntu"},
                {"op": "add", "path": "/a~1b", "value": "slash"},
                {"op": "add", "path": "/a~0b", "value": "tilde"},
                {"op": "replace", "path": "/tags", "value": ["t"]},
                {"op": "replace", "path": "/disk_format", "value": "qcow2"},
                {"op": "replace", "path": "/a~1b", "value": "slashed"},
                {"op": "remove", "path": "/a~0b"},
            ]),
        )
        .await
        .json();
    assert_eq!((&patched["name"], &patched["min_ram"]), (&json!("new"), &json!(64)));
    assert_eq!(
        (&patched["os_distro"], &patched["a/b"]),
        (&json!("ubuntu"), &json!("slashed"))
    );
    assert_eq!(
        (&patched["tags"], &patched["disk_format"]),
        (&json!(["t"]), &json!("qcow2"))
    );
    assert!(patched.get("a~b").is_none());
    // All or nothing.
    let half = json!([{"op": "replace", "path": "/name", "value": "half"}, {"op": "remove", "path": "/none"}]);
    c.patch(409, A, &image, half).await;
    let nothing = c.patch(200, A, &image, json!([])).await.json();
    assert_eq!(nothing, patched);
    let path = format!("/v2/images/{image}");
    for (status, op, words) in [
        (
            409,
            json!({"op": "replace", "path": "/none", "value": "x"}),
            "none does not exist",
        ),
        (409, json!({"op": "remove", "path": "/none"}), "none does not exist"),
        (403, json!({"op": "remove", "path": "/name"}), "name may not be removed"),
        (403, json!({"op": "remove", "path": "/status"}), "read-only"),
        (403, json!({"op": "replace", "path": "/id", "value": "x"}), "read-only"),
        (
            403,
            json!({"op": "replace", "path": "/status", "value": "active"}),
            "status",
        ),
        (403, json!({"op": "replace", "path": "/size", "value": 7}), "size"),
        (
            403,
            json!({"op": "replace", "path": "/checksum", "value": "x"}),
            "checksum",
        ),
        (
            403,
            json!({"op": "add", "path": "/os_hash_value", "value": "x"}),
            "os_hash_value",
        ),
        (403, json!({"op": "add", "path": "/deleted", "value": "x"}), "reserved"),
        (
            403,
            json!({"op": "add", "path": "/os_glance_x", "value": "x"}),
            "reserved",
        ),
        (
            403,
            json!({"op": "replace", "path": "/locations", "value": []}),
            "locations",
        ),
        (
            403,
            json!({"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/shadow"}}),
            "locations",
        ),
        (403, json!({"op": "remove", "path": "/locations/0"}), "locations"),
        (400, json!({"op": "add", "path": "/locations", "value": []}), "pointer"),
        (403, json!({"op": "replace", "path": "/owner", "value": "bbb"}), "Owner"),
        (403, json!({"op": "add", "path": "/owner", "value": "bbb"}), "Owner"),
        (
            403,
            json!({"op": "replace", "path": "/visibility", "value": "public"}),
            "publicize_image",
        ),
        (
            400,
            json!({"op": "replace", "path": "/visibility", "value": "all"}),
            "visibility",
        ),
        (
            400,
            json!({"op": "replace", "path": "/min_ram", "value": -1}),
            "min_ram",
        ),
        (400, json!({"op": "add", "path": "/prop", "value": 5}), "prop"),
        (400, json!({"op": "add", "path": "/tags/-", "value": "x"}), "pointer"),
        (
            400,
            json!({"op": "add", "path": "name", "value": "x"}),
            "does not start",
        ),
        (400, json!({"op": "add", "path": "/", "value": "x"}), "token"),
        (400, json!({"op": "add", "path": "/a~2", "value": "x"}), "escape"),
        (400, json!({"op": "add", "path": 5, "value": "x"}), "0.path"),
        (400, json!({"op": "add", "value": "x"}), "path"),
        (400, json!({"op": "add", "path": "/name"}), "value"),
        (400, json!({"op": "move", "path": "/name", "value": "x"}), "move"),
        (400, json!({"path": "/name", "value": "x"}), "op"),
        (400, json!("x"), "objects"),
    ] {
        let word = if words == "0.path" { "path" } else { words };
        c.refused(status, A, "PATCH", &path, json!([op]), &[word]).await;
    }
    for body in ["{}", "x", ""] {
        let answer = c.send(A, "PATCH", &path, &[("content-type", PATCH)], body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    for kind in ["application/json", "application/json-patch+json", ""] {
        let answer = c.send(A, "PATCH", &path, &[("content-type", kind)], "[]").await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.text().contains(PATCH));
    }
    assert_eq!(c.get(A, &path).await, patched);
    c.audit().await;
}

#[tokio::test]
async fn patches_of_the_older_media_type() {
    let c = cloud().await;
    let image = c.queued(A, json!({"os_distro": "debian"})).await;
    let path = format!("/v2/images/{image}");
    let send = async |status: u16, ops: Value| {
        let answer = c
            .send(A, "PATCH", &path, &[("content-type", OLD_PATCH)], ops.to_string())
            .await;
        assert_eq!(answer.status, status, "{ops}: {}", answer.text());
        answer
    };
    let patched = send(
        200,
        json!([{"replace": "/name", "value": "new"}, {"add": "/colour", "value": "red"}, {"remove": "/os_distro"}]),
    )
    .await
    .json();
    assert_eq!((&patched["name"], &patched["colour"]), (&json!("new"), &json!("red")));
    assert!(patched.get("os_distro").is_none());
    // Here add only adds.
    send(409, json!([{"add": "/colour", "value": "blue"}])).await;
    send(409, json!([{"add": "/name", "value": "x"}])).await;
    send(400, json!([{"add": "/x", "remove": "/y", "value": "x"}])).await;
    send(400, json!([{"op": "add", "path": "/x", "value": "x"}])).await;
    send(400, json!([{"add": "/x"}])).await;
    send(403, json!([{"replace": "/status", "value": "active"}])).await;
}

#[tokio::test]
async fn formats_change_only_while_there_is_no_data() {
    let c = cloud().await;
    let image = c.active(A, json!({}), b"data").await;
    for name in ["disk_format", "container_format"] {
        let ops = json!([{"op": "replace", "path": format!("/{name}"), "value": "ami"}]);
        assert!(c.patch(403, A, &image, ops).await.text().contains(name));
    }
    c.patch(
        200,
        A,
        &image,
        json!([{"op": "replace", "path": "/name", "value": "x"}]),
    )
    .await;
}

#[tokio::test]
async fn owners_are_changed_by_administrators_and_take_their_usage_along() {
    let c = cloud().await;
    let image = c.active(A, json!({}), b"12345").await;
    let ops = json!([{"op": "replace", "path": "/owner", "value": "bbb"}]);
    assert_eq!(c.patch(200, ADMIN, &image, ops).await.json()["owner"], "bbb");
    c.audit().await;
    c.want(404, A, "GET", &format!("/v2/images/{image}"), Value::Null).await;
    c.want(200, B, "GET", &format!("/v2/images/{image}"), Value::Null).await;
    let made = c.make(ADMIN, json!({"owner": "ccc"})).await;
    assert_eq!(made["owner"], "ccc");
    c.refused(
        403,
        A,
        "POST",
        "/v2/images",
        json!({"owner": "bbb"}),
        &["owned by 'bbb'"],
    )
    .await;
    c.want(201, A, "POST", "/v2/images", json!({"owner": "aaa"})).await;
    c.audit().await;
}

#[tokio::test]
async fn tags() {
    let c = cloud().await;
    let image = c.queued(A, json!({"tags": ["old"]})).await;
    let tags = async || c.get(A, &format!("/v2/images/{image}")).await["tags"].clone();
    let tag = |t: &str| format!("/v2/images/{image}/tags/{t}");
    c.want(204, A, "PUT", &tag("new"), Value::Null).await;
    c.want(204, A, "PUT", &tag("new"), Value::Null).await;
    c.want(204, A, "PUT", &tag("%ED%95%9C%20%EA%B8%80"), Value::Null).await;
    assert_eq!(tags().await, json!(["new", "old", "한 글"]));
    c.want(204, A, "DELETE", &tag("old"), Value::Null).await;
    c.refused(404, A, "DELETE", &tag("old"), Value::Null, &["old"]).await;
    c.refused(400, A, "PUT", &tag(&"x".repeat(256)), Value::Null, &["tag"])
        .await;
    c.want(404, A, "PUT", "/v2/images/none/tags/x", Value::Null).await;
    c.want(405, A, "GET", &tag("new"), Value::Null).await;
    assert_eq!(tags().await, json!(["new", "한 글"]));
}

#[tokio::test]
async fn how_many_of_everything() {
    let settings = maru_image::Settings {
        properties: 3,
        tags: 2,
        members: 1,
        project_images: Some(2),
        ..maru_image::Settings::default()
    };
    let c = cloud_with(settings, std::sync::Arc::new(Look)).await;
    c.refused(
        413,
        A,
        "POST",
        "/v2/images",
        json!({"a": "1", "b": "1", "c": "1", "d": "1"}),
        &["properties", "3"],
    )
    .await;
    c.refused(
        413,
        A,
        "POST",
        "/v2/images",
        json!({"tags": ["a", "b", "c"]}),
        &["tags", "2"],
    )
    .await;
    let image = id(&c
        .make(A, json!({"a": "1", "b": "1", "c": "1", "tags": ["a", "b"]}))
        .await);
    let path = format!("/v2/images/{image}");
    c.refused(
        413,
        A,
        "PATCH",
        &path,
        json!([{"op": "add", "path": "/d", "value": "1"}]),
        &["properties"],
    )
    .await;
    c.patch(
        200,
        A,
        &image,
        json!([{"op": "remove", "path": "/a"}, {"op": "add", "path": "/d", "value": "1"}]),
    )
    .await;
    c.refused(413, A, "PUT", &format!("{path}/tags/c"), Value::Null, &["tags"])
        .await;
    c.want(200, A, "POST", &format!("{path}/members"), json!({"member": "bbb"}))
        .await;
    c.refused(
        413,
        A,
        "POST",
        &format!("{path}/members"),
        json!({"member": "ccc"}),
        &["member"],
    )
    .await;
    // Of many at once never more than the limit.
    let many = (0..8).map(|_| c.call(A, "POST", "/v2/images", json!({})));
    let answers = futures_util::future::join_all(many).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1);
    for refused in answers.iter().filter(|a| a.status != 201) {
        assert_eq!(refused.status, 413);
        assert!(refused.text().contains("image_count_total"), "{}", refused.text());
    }
    c.want(204, A, "DELETE", &path, Value::Null).await;
    c.want(201, A, "POST", "/v2/images", json!({})).await;
    c.want(201, B, "POST", "/v2/images", json!({})).await;
    c.audit().await;
}

#[tokio::test]
async fn protected_images_stay() {
    let c = cloud().await;
    let image = c.queued(A, json!({"protected": true})).await;
    let path = format!("/v2/images/{image}");
    for token in [A, ADMIN] {
        c.refused(403, token, "DELETE", &path, Value::Null, &["protected"])
            .await;
    }
    c.patch(
        200,
        A,
        &image,
        json!([{"op": "replace", "path": "/protected", "value": false}]),
    )
    .await;
    c.want(204, A, "DELETE", &path, Value::Null).await;
    c.want(404, A, "DELETE", &path, Value::Null).await;
    c.want(404, A, "GET", &path, Value::Null).await;
    c.audit().await;
}

#[tokio::test]
async fn deactivation_withholds_the_data_from_all_but_administrators() {
    let c = cloud().await;
    let image = c.active(A, json!({"visibility": "community"}), b"data").await;
    let action = |name: &str| format!("/v2/images/{image}/actions/{name}");
    c.want(403, B, "POST", &action("deactivate"), Value::Null).await;
    for _ in 0..2 {
        c.want(204, A, "POST", &action("deactivate"), Value::Null).await;
    }
    assert_eq!(c.status(&image).await, "deactivated");
    for token in [A, B] {
        let answer = c.download(token, &image, &[]).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("deactivated"));
    }
    assert_eq!(c.download(ADMIN, &image, &[]).await.body, "data");
    for _ in 0..2 {
        c.want(204, A, "POST", &action("reactivate"), Value::Null).await;
    }
    assert_eq!(c.download(B, &image, &[]).await.body, "data");
    let queued = c.queued(A, json!({})).await;
    for name in ["deactivate", "reactivate"] {
        let path = format!("/v2/images/{queued}/actions/{name}");
        c.refused(403, A, "POST", &path, Value::Null, &["queued"]).await;
    }
    c.want(405, A, "GET", &action("deactivate"), Value::Null).await;
}

#[tokio::test]
async fn documents() {
    let c = cloud().await;
    let versions = c.want(300, A, "GET", "", Value::Null).await.json();
    assert_eq!(versions["versions"][0]["id"], "v2.15");
    assert_eq!(versions["versions"][0]["links"][0]["href"], "http://maru/image/v2/");
    c.want(200, A, "GET", "/versions", Value::Null).await;
    for (name, item) in [
        ("image", None),
        ("images", Some("image")),
        ("member", None),
        ("members", Some("member")),
        ("task", None),
        ("tasks", Some("task")),
    ] {
        let schema = c.get(A, &format!("/v2/schemas/{name}")).await;
        assert_eq!(schema["name"], name);
        if let Some(item) = item {
            let inner = &schema["properties"][name]["items"];
            assert_eq!(*inner, c.get(A, &format!("/v2/schemas/{item}")).await);
        }
    }
    let schema = c.get(A, "/v2/schemas/image").await;
    let made = c.make(A, json!({})).await;
    for key in keys(&made) {
        assert!(schema["properties"].get(key).is_some(), "{key} is not in the schema");
    }
    assert_eq!(schema["additionalProperties"], json!({"type": "string"}));
    for (name, item) in [
        ("namespaces", "namespace"),
        ("objects", "object"),
        ("tags", "tag"),
        ("resource_types", "resource_type"),
    ] {
        let schema = c.get(A, &format!("/v2/schemas/metadefs/{name}")).await;
        let inner = &schema["properties"][schema["name"].as_str().unwrap()]["items"];
        assert_eq!(*inner, c.get(A, &format!("/v2/schemas/metadefs/{item}")).await);
    }
    assert_eq!(c.get(A, "/v2/schemas/metadefs/property").await["name"], "property");
    let methods = c.get(A, "/v2/info/import").await;
    assert_eq!(methods["import-methods"]["value"][0], "glance-direct");
    let stores = c.get(A, "/v2/info/stores").await;
    assert_eq!(stores, json!({"stores": [{"id": "local", "default": "true"}]}));
    c.want(403, A, "GET", "/v2/info/stores/detail", Value::Null).await;
    assert_eq!(c.get(ADMIN, "/v2/info/stores/detail").await["stores"][0]["id"], "local");
    c.want(404, A, "GET", "/v2/schemas/nothing", Value::Null).await;
    c.want(404, A, "GET", "/v2/schemas/metadefs/nothing", Value::Null).await;
    c.want(403, A, "GET", "/v2/tasks", Value::Null).await;
    let path = format!("/v2/images/{}/tasks", id(&made));
    assert_eq!(c.get(A, &path).await, json!({"tasks": []}));
    c.want(404, B, "GET", &path, Value::Null).await;
    let usage = c.get(A, "/v2/info/usage").await;
    assert_eq!(usage["usage"]["image_count_total"], json!({"usage": 1, "limit": -1}));
    assert_eq!(
        keys(&usage["usage"]),
        [
            "image_count_total",
            "image_count_uploading",
            "image_size_total",
            "image_stage_total"
        ]
    );
}
