//! What comes with time of passwords and log-ins; it moves the clock, so it has a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Answer, Cloud, call, settings};
use maru_identity::{Compliance, Settings};
use serde_json::{Value, json};

const DAY: i64 = 86_400;

fn demands(compliance: Compliance) -> Settings {
    Settings {
        compliance,
        ..settings()
    }
}

async fn user(cloud: &Cloud, name: &str, more: Value) -> String {
    let mut body = json!({"name": name, "password": "first-pw", "domain_id": "default"});
    for (k, v) in more.as_object().unwrap() {
        body[k] = v.clone();
    }
    cloud.make("user", body).await
}

async fn status(cloud: &Cloud, name: &str, pass: &str) -> u16 {
    cloud.login(name, pass, Value::Null).await.status
}

async fn change(cloud: &Cloud, id: &str, old: &str, new: &str) -> Answer {
    let body = json!({"user": {"original_password": old, "password": new}});
    call(
        &cloud.gateway,
        "POST",
        &format!("/v3/users/{id}/password"),
        "",
        Some(body),
    )
    .await
}

fn lockout(attempts: u32) -> Settings {
    demands(Compliance {
        lockout_failure_attempts: Some(attempts),
        lockout_seconds: 300,
        ..Compliance::default()
    })
}

/// All that moves the clock, one after the other.
#[tokio::test]
async fn passwords_age() {
    // A lock-out ends by itself.
    let cloud = Cloud::with(lockout(2)).await;
    user(&cloud, "ann", json!({})).await;
    for _ in 0..4 {
        assert_eq!(status(&cloud, "ann", "wrong").await, 401);
    }
    maru_base::time::advance(299);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
    maru_base::time::advance(2);
    assert_eq!(status(&cloud, "ann", "wrong").await, 401, "counts from one again");
    assert_eq!(status(&cloud, "ann", "first-pw").await, 201);

    // Expiry, and who is exempt.
    let cloud = Cloud::with(demands(Compliance {
        password_expires_days: Some(30),
        minimum_password_age: 1,
        ..Compliance::default()
    }))
    .await;
    let id = user(&cloud, "ann", json!({})).await;
    let exempt = user(&cloud, "bob", json!({"options": {"ignore_password_expiry": true}})).await;
    let shown = cloud.get(&format!("/v3/users/{id}")).await.ok(200);
    let ends = shown.json["user"]["password_expires_at"].as_str().unwrap().to_owned();
    assert!(ends.ends_with(".000000Z"), "{ends}");
    assert!(cloud.get(&format!("/v3/users/{exempt}")).await.ok(200).json["user"]["password_expires_at"].is_null());
    let token = cloud.login("ann", "first-pw", Value::Null).await.ok(201);
    assert_eq!(token.json["token"]["user"]["password_expires_at"], json!(ends));
    // The first change of a password that an administrator set is not held back; the next is.
    change(&cloud, &id, "first-pw", "second-pw").await.ok(204);
    let answer = change(&cloud, &id, "second-pw", "third-pw").await.ok(400);
    assert!(answer.message().contains("1 days"), "{}", answer.text);
    maru_base::time::advance(DAY + 1);
    change(&cloud, &id, "second-pw", "third-pw").await.ok(204);
    maru_base::time::advance(30 * DAY + 1);
    let answer = cloud.login("ann", "third-pw", Value::Null).await.ok(401);
    assert!(answer.message().contains("expired"), "{}", answer.text);
    let blind = cloud.login("ann", "wrong", Value::Null).await.ok(401);
    assert!(!blind.message().contains("expired"), "told only to who knows it");
    assert_eq!(status(&cloud, "bob", "first-pw").await, 201);
    change(&cloud, &id, "third-pw", "fourth-pw").await.ok(204);
    assert_eq!(status(&cloud, "ann", "fourth-pw").await, 201);

    // First use.
    let cloud = Cloud::with(demands(Compliance {
        change_password_upon_first_use: true,
        ..Compliance::default()
    }))
    .await;
    let id = user(&cloud, "ann", json!({})).await;
    user(
        &cloud,
        "bob",
        json!({"options": {"ignore_change_password_upon_first_use": true}}),
    )
    .await;
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
    assert_eq!(status(&cloud, "bob", "first-pw").await, 201);
    change(&cloud, &id, "first-pw", "second-pw").await.ok(204);
    assert_eq!(status(&cloud, "ann", "second-pw").await, 201);

    // Who does not log in.
    let cloud = Cloud::with(demands(Compliance {
        disable_user_account_days_inactive: Some(10),
        ..Compliance::default()
    }))
    .await;
    user(&cloud, "ann", json!({})).await;
    user(&cloud, "bob", json!({"options": {"ignore_user_inactivity": true}})).await;
    for name in ["ann", "bob"] {
        assert_eq!(status(&cloud, name, "first-pw").await, 201);
    }
    let seen = cloud.store.snapshot().revision();
    assert_eq!(status(&cloud, "ann", "first-pw").await, 201);
    assert_eq!(cloud.store.snapshot().revision(), seen, "once a day");
    maru_base::time::advance(9 * DAY);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 201);
    maru_base::time::advance(11 * DAY);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
    assert_eq!(status(&cloud, "bob", "first-pw").await, 201);
    let admin = cloud
        .login("admin", "admin-pass", json!({"system": {"all": true}}))
        .await;
    assert_eq!(admin.status, 401, "the administrator as well");
}
