//! Imports and tasks, against a real server on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_blob::Blobs;
use maru_fetch::{Allow, Fetcher};
use maru_image::Settings;
use maru_image_model::{Image, ImageId, ImageStatus, Task};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A server that answers every request with these bytes; gives its `host:port`.
async fn server(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = tcp.read(&mut asked).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = tcp.write_all(head.as_bytes()).await;
            let _ = tcp.write_all(&body).await;
            let _ = tcp.shutdown().await;
        }
    });
    address
}

async fn cloud_allowing(allowed: &[&str], settings: Settings) -> Cloud {
    let mut registry = maru_store::Registry::new();
    maru_image_model::register(&mut registry);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let fetcher = Fetcher::new(Allow::parse(allowed).unwrap());
    fetching(
        maru_store::Store::in_memory(registry),
        folder,
        settings,
        Arc::new(Look),
        fetcher,
    )
    .await
}

/// Asks for an import and waits for its task to end.
async fn import(c: &Cloud, image: &str, method: Value) -> Value {
    let path = format!("/v2/images/{image}/import");
    let answer = c.call(A, "POST", &path, json!({"method": method})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    ended(c, image).await
}

/// The newest task of an image, once no task runs.
async fn ended(c: &Cloud, image: &str) -> Value {
    quiet(c).await;
    let tasks = c
        .call(A, "GET", &format!("/v2/images/{image}/tasks"), Value::Null)
        .await
        .json();
    tasks["tasks"].as_array().unwrap().last().cloned().unwrap()
}

/// Waits until no task runs.
async fn quiet(c: &Cloud) {
    let done = c.store.until(|s| s.list::<Task>().all(|t| t.value.status.ended()));
    tokio::time::timeout(Duration::from_secs(40), done)
        .await
        .expect("a task never ended");
}

async fn show(c: &Cloud, image: &str) -> Value {
    c.call(A, "GET", &format!("/v2/images/{image}"), Value::Null)
        .await
        .json()
}

#[tokio::test]
async fn what_is_staged_is_imported() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}");
    let early = c
        .call(
            A,
            "POST",
            &format!("{path}/import"),
            json!({"method": {"name": "glance-direct"}}),
        )
        .await;
    assert_eq!(early.status, 409);
    let staged = c
        .send(
            A,
            "PUT",
            &format!("{path}/stage"),
            &[("content-type", OCTETS)],
            "some bytes",
        )
        .await;
    assert_eq!(staged.status, 204);
    let shown = show(&c, &image).await;
    assert_eq!(shown["status"], "uploading");
    assert!(shown["checksum"].is_null() && shown["size"].is_null());
    // Staged bytes are not the image's: nobody gets them before they are looked into.
    let early = c.send(A, "GET", &format!("{path}/file"), &[], "").await;
    assert_eq!(early.status, 204);
    let task = import(&c, &image, json!({"name": "glance-direct"})).await;
    assert_eq!(task["status"], "success", "{task}");
    assert_eq!(task["input"]["import_req"]["method"]["name"], "glance-direct");
    let shown = show(&c, &image).await;
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(10)));
    assert_eq!(shown["stores"], "local");
    c.want(403, A, "DELETE", &format!("/v2/stores/local/{image}"), Value::Null)
        .await;
    c.want(404, A, "DELETE", &format!("/v2/stores/other/{image}"), Value::Null)
        .await;
    c.want(404, B, "DELETE", &format!("/v2/stores/local/{image}"), Value::Null)
        .await;
    let file = c.send(A, "GET", &format!("{path}/file"), &[], "").await;
    assert_eq!(file.text(), "some bytes");
    let copy = |all: bool| json!({"method": {"name": "copy-image"}, "all_stores": all});
    let import = format!("{path}/import");
    c.want(403, A, "POST", &import, copy(true)).await;
    c.want(409, ADMIN, "POST", &import, copy(false)).await;
    c.want(202, ADMIN, "POST", &import, copy(true)).await;
    let shown = show(&c, &image).await;
    assert_eq!(shown["os_glance_importing_to_stores"], "");
    assert_eq!(shown["os_glance_failed_import"], "");
}

#[tokio::test]
async fn a3_staged_data_that_is_not_what_it_is_said_to_be_is_refused_and_goes() {
    let c = cloud().await;
    let image = c.queued(A, json!({"disk_format": "qcow2"})).await;
    let path = format!("/v2/images/{image}");
    c.send(
        A,
        "PUT",
        &format!("{path}/stage"),
        &[("content-type", OCTETS)],
        "no qcow2",
    )
    .await;
    let task = import(&c, &image, json!({"name": "glance-direct"})).await;
    assert_eq!(task["status"], "failure");
    assert!(!task["message"].as_str().unwrap().is_empty());
    let shown = show(&c, &image).await;
    assert_eq!(shown["status"], "queued");
    assert_eq!(shown["os_glance_failed_import"], "local");
    assert!(
        c.blobs.list().await.unwrap().is_empty(),
        "the staged bytes are still there"
    );
    let used = c.call(A, "GET", "/v2/info/usage", Value::Null).await.json();
    assert_eq!(used["usage"]["image_count_uploading"]["usage"], 0);
}

#[tokio::test]
async fn a_staged_image_that_is_deleted_leaves_nothing() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}");
    c.send(
        A,
        "PUT",
        &format!("{path}/stage"),
        &[("content-type", OCTETS)],
        "some bytes",
    )
    .await;
    assert_eq!(c.blobs.list().await.unwrap().len(), 1);
    assert_eq!(c.call(A, "DELETE", &path, Value::Null).await.status, 204);
    assert!(c.blobs.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn b1_a_download_is_taken_from_what_is_allowed_and_from_nothing_else_inside() {
    let address = server(b"image bytes".to_vec()).await;
    let c = cloud_allowing(&[&address], Settings::default()).await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}/import");
    for bad in [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/x",
        "http://[::1]/x",
        "file:///etc/passwd",
        "http://user:pass@example.org/",
    ] {
        let body = json!({"method": {"name": "web-download", "uri": bad}});
        let answer = c.call(A, "POST", &path, body).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        assert!(answer.text().contains("does not pass filtering"), "{bad}");
    }
    assert_eq!(show(&c, &image).await["status"], "queued");
    let method = json!({"name": "web-download", "uri": format!("http://{address}/x")});
    let task = import(&c, &image, method).await;
    assert_eq!(task["status"], "success", "{task}");
    let shown = show(&c, &image).await;
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(11)));
}

#[tokio::test]
async fn g_a_download_that_is_too_large_leaves_a_queued_image() {
    let address = server(vec![7; 4096]).await;
    let settings = Settings {
        image_size: 1000,
        ..Settings::default()
    };
    let c = cloud_allowing(&[&address], settings).await;
    let image = c.queued(A, json!({})).await;
    let method = json!({"name": "web-download", "uri": format!("http://{address}/x")});
    let task = import(&c, &image, method).await;
    assert_eq!(task["status"], "failure");
    assert!(task["message"].as_str().unwrap().contains("1000 bytes"), "{task}");
    assert_eq!(show(&c, &image).await["status"], "queued");
}

#[tokio::test]
async fn data_is_taken_over_from_another_image_that_the_caller_sees() {
    let c = cloud().await;
    let source = c.queued(A, json!({"hw_cpu_cores": "5", "speed": "fast"})).await;
    let sent = c
        .send(
            A,
            "PUT",
            &format!("/v2/images/{source}/file"),
            &[("content-type", OCTETS)],
            "data",
        )
        .await;
    assert_eq!(sent.status, 204);
    let of = |image: &str, region: &str| json!({"name": "glance-download", "glance_image_id": image, "glance_region": region, "glance_service_interface": "public"});
    let image = c
        .queued(A, json!({"disk_format": "iso", "container_format": "ovf"}))
        .await;
    let bad = c
        .call(
            A,
            "POST",
            &format!("/v2/images/{image}/import"),
            json!({"method": of("foo", "RegionOne")}),
        )
        .await;
    assert!(bad.status == 400 && bad.text().contains("image id does not look like a UUID"));
    for (from, region) in [
        (source.as_str(), "not a region"),
        ("01234567-89ab-4def-8123-456789abcdef", "RegionOne"),
    ] {
        let task = import(&c, &image, of(from, region)).await;
        assert_eq!(task["status"], "failure", "{task}");
        assert_eq!(show(&c, &image).await["status"], "queued");
    }
    let task = import(&c, &image, of(&source, "RegionOne")).await;
    assert_eq!(task["status"], "success", "{task}");
    let shown = show(&c, &image).await;
    assert_eq!(
        (&shown["disk_format"], &shown["hw_cpu_cores"]),
        (&json!("raw"), &json!("5"))
    );
    assert!(shown.get("speed").is_none() && shown["os_glance_failed_import"] == "");
    // Two names of one blob: it stays until the last goes.
    c.call(A, "DELETE", &format!("/v2/images/{source}"), Value::Null).await;
    let file = c.send(A, "GET", &format!("/v2/images/{image}/file"), &[], "").await;
    assert_eq!(file.text(), "data");
    // D: a stranger's private image is not there.
    let own = c.queued(B, json!({})).await;
    let body = json!({"method": of(&image, "RegionOne")});
    assert_eq!(
        c.call(B, "POST", &format!("/v2/images/{own}/import"), body)
            .await
            .status,
        202
    );
    quiet(&c).await;
    let tasks = c
        .call(B, "GET", &format!("/v2/images/{own}/tasks"), Value::Null)
        .await
        .json();
    assert_eq!(tasks["tasks"][0]["status"], "failure", "{tasks}");
}

#[tokio::test]
async fn an_import_whose_process_died_is_over() {
    let c = cloud().await;
    let image = c.queued(A, json!({})).await;
    let path = format!("/v2/images/{image}/stage");
    c.send(A, "PUT", &path, &[("content-type", OCTETS)], "some bytes").await;
    // Staged data outlives a start of the process.
    c.app.recover().await.unwrap();
    assert_eq!(show(&c, &image).await["status"], "uploading");
    let key = ImageId::from(image.as_str());
    c.store
        .plan(|s| {
            let mut txn = maru_store::Txn::new();
            let old = s.get::<Image>(&key).unwrap();
            let mut new = (*old.value).clone();
            new.status = ImageStatus::Importing;
            new.upload = Some("of a dead process".to_owned());
            txn.update(&old, &new);
            let task: Task = serde_json::from_value(json!({
                "kind": "api_image_import", "status": "processing", "owner": "aaa", "user_id": "u", "request_id": "r",
                "image_id": image, "input": null, "result": null, "message": "", "created_at": "2026-01-01T00:00:00Z",
                "updated_at": "2026-01-01T00:00:00Z", "expires_at": null,
            }))
            .unwrap();
            txn.create(&"t".into(), &task);
            Ok((txn, ()))
        })
        .await
        .unwrap();
    c.app.recover().await.unwrap();
    assert_eq!(show(&c, &image).await["status"], "queued");
    assert!(c.blobs.list().await.unwrap().is_empty());
    let task = ended(&c, &image).await;
    assert_eq!(task["status"], "failure");
}

#[tokio::test]
async fn administrators_make_images_by_tasks() {
    let address = server(b"image bytes".to_vec()).await;
    let c = cloud_allowing(&[&address], Settings::default()).await;
    let body = |from: &str| {
        json!({"type": "import", "input": {"import_from": from, "import_from_format": "raw",
        "image_properties": {"name": "t", "disk_format": "raw", "container_format": "bare"}}})
    };
    let good = format!("http://{address}/x");
    assert_eq!(c.call(A, "POST", "/v2/tasks", body(&good)).await.status, 403);
    assert_eq!(
        c.call(ADMIN, "POST", "/v2/tasks", body("http://127.0.0.1/"))
            .await
            .status,
        400
    );
    for (from, wanted) in [(good.as_str(), "success"), ("http://no-such-host.invalid/x", "failure")] {
        let made = c.call(ADMIN, "POST", "/v2/tasks", body(from)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap().to_owned();
        quiet(&c).await;
        let task = c
            .call(ADMIN, "GET", &format!("/v2/tasks/{id}"), Value::Null)
            .await
            .json();
        assert_eq!(task["status"], wanted, "{task}");
        let image = task["image_id"].as_str().unwrap();
        let found = c.call(ADMIN, "GET", &format!("/v2/images/{image}"), Value::Null).await;
        assert_eq!(found.status, if wanted == "success" { 200 } else { 404 });
    }
    let all = c
        .call(ADMIN, "GET", "/v2/tasks?status=success", Value::Null)
        .await
        .json();
    assert_eq!(all["tasks"].as_array().unwrap().len(), 1);
}
