//! H1: passwords, hashes, keys and tokens are in no log line, at any level, and in no error.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, project};
use maru_identity_model::{KeyRing, Password};
use serde_json::json;
use std::{
    io::Write,
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_or_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let cloud = Cloud::start().await;
    let mut secrets = vec!["admin-pass".to_owned(), cloud.admin.clone()];
    let mut shown = String::new();
    let user = cloud
        .make(
            "user",
            json!({"name": "ann", "domain_id": "default", "password": "first-pw"}),
        )
        .await;
    secrets.extend(["first-pw", "second-pw", "guess-pw", "third-pw", "blob-secret"].map(str::to_owned));
    shown += &cloud.get(&format!("/v3/users/{user}")).await.ok(200).text;
    shown += &cloud.get("/v3/users").await.ok(200).text;
    shown += &cloud
        .patch(&format!("/v3/users/{user}"), json!({"user": {"password": "second-pw"}}))
        .await
        .ok(200)
        .text;
    for body in [
        json!({"user": {"original_password": "guess-pw", "password": "third-pw"}}),
        json!({"user": {"original_password": {"x": "guess-pw"}, "password": "third-pw"}}),
        json!({"user": {"password": "third-pw"}}),
        json!({"user": {"original_password": "second-pw", "password": "third-pw", "extra-key": 1}}),
    ] {
        let answer = cloud
            .call("POST", &format!("/v3/users/{user}/password"), "", Some(body))
            .await;
        assert!(matches!(answer.status, 400 | 401), "{}", answer.text);
        shown += &answer.text;
    }
    let answer = cloud.login("ann", "guess-pw", project("x")).await.ok(401);
    shown += &answer.text;
    let bad = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": {"id": "guess-pw"}}}}});
    shown += &cloud.call("POST", "/v3/auth/tokens", "", Some(bad)).await.ok(400).text;
    let bad = json!({"user": {"name": 5, "password": "first-pw"}});
    shown += &cloud.post("/v3/users", bad).await.ok(400).text;
    let bad = json!({"credential": {"type": "ec2", "blob": "blob-secret", "user_id": user, "project_id": "x"}});
    shown += &cloud.post("/v3/credentials", bad).await.ok(400).text;
    let unscoped = cloud.login("ann", "second-pw", json!("unscoped")).await.ok(201);
    shown += &unscoped.text;
    secrets.push(unscoped.token());
    let snapshot = cloud.store.snapshot();
    for p in snapshot.list::<Password>() {
        shown += &format!("{p:?}");
        secrets.push(p.hash.reveal().to_owned());
    }
    let ring = snapshot.get::<KeyRing>(&KeyRing::the()).unwrap();
    shown += &format!("{ring:?} {:?}", common::config());
    secrets.extend([ring.primary.reveal().to_owned(), ring.staged.reveal().to_owned()]);
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        logged.contains("access") && logged.contains("request refused"),
        "the log was captured"
    );
    for secret in &secrets {
        assert!(!shown.contains(secret.as_str()), "an answer shows {secret}");
        assert!(!logged.contains(secret.as_str()), "the log shows {secret}");
    }
}
