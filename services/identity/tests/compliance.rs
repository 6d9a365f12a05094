//! What the operator demands of passwords and log-ins ([security_compliance] upstream). What moves the clock is in
//! password_age.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Answer, Cloud, call, node, password, settings};
use maru_identity::{Compliance, PasswordRegex, Settings};
use maru_identity_model::Logins;
use serde_json::{Value, json};

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

#[tokio::test]
async fn a_user_is_locked_out_and_a_restart_does_not_help() {
    let cloud = Cloud::with(lockout(3)).await;
    let id = user(&cloud, "ann", json!({})).await;
    let free = user(
        &cloud,
        "root",
        json!({"options": {"ignore_lockout_failure_attempts": true}}),
    )
    .await;
    // A success in between starts the count anew, and is the only success that commits.
    for _ in 0..2 {
        assert_eq!(status(&cloud, "ann", "wrong").await, 401);
    }
    let before = cloud.store.snapshot().revision();
    assert_eq!(status(&cloud, "ann", "first-pw").await, 201);
    let cleared = cloud.store.snapshot().revision();
    assert_eq!(cleared, before + 1);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 201);
    assert_eq!(cloud.store.snapshot().revision(), cleared, "a success commits nothing");
    assert!(cloud.store.snapshot().get::<Logins>(&id.as_str().into()).is_none());
    let epoch = maru_identity_model::epoch(&cloud.store.snapshot(), &maru_identity_model::epoch_key());
    for _ in 0..3 {
        assert_eq!(status(&cloud, "ann", "wrong").await, 401);
        assert_eq!(status(&cloud, "root", "wrong").await, 401);
    }
    assert_eq!(
        maru_identity_model::epoch(&cloud.store.snapshot(), &maru_identity_model::epoch_key()),
        epoch,
        "guesses do not cost tokens their cache"
    );
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401, "locked");
    assert_eq!(status(&cloud, "root", "first-pw").await, 201, "exempt");
    assert!(cloud.store.snapshot().get::<Logins>(&free.as_str().into()).is_none());
    // By the way of a change of one's password neither.
    assert_eq!(change(&cloud, &id, "first-pw", "second-pw").await.status, 401);
    // Another process over the same store.
    let (_, gateway) = node(&cloud.store, lockout(3));
    let login = |pass: &'static str| {
        let gateway = std::sync::Arc::clone(&gateway);
        async move {
            call(
                &gateway,
                "POST",
                "/v3/auth/tokens",
                "",
                Some(password("ann", pass, None)),
            )
            .await
        }
    };
    assert_eq!(login("first-pw").await.status, 401);
    // Attempts while locked do not lengthen it, and an administrator ends it.
    cloud
        .patch(&format!("/v3/users/{id}"), json!({"user": {"enabled": true}}))
        .await
        .ok(200);
    assert_eq!(login("first-pw").await.status, 201);
    // What is remembered goes with the user.
    assert_eq!(status(&cloud, "ann", "wrong").await, 401);
    assert!(cloud.store.snapshot().get::<Logins>(&id.as_str().into()).is_some());
    cloud.delete(&format!("/v3/users/{id}")).await.ok(204);
    assert_eq!(cloud.store.snapshot().count::<Logins>(), 0);
}

/// Attack class C10: neither the text nor what is written tells whether there is such a user, or that it is locked.
#[tokio::test]
async fn c10_a_lock_out_does_not_tell_who_is_there() {
    let cloud = Cloud::with(lockout(2)).await;
    user(&cloud, "ann", json!({})).await;
    let mut texts = std::collections::BTreeSet::new();
    for _ in 0..5 {
        for name in ["ann", "nobody"] {
            let before = cloud.store.snapshot().revision();
            let answer = cloud.login(name, "wrong", Value::Null).await;
            assert_eq!(answer.status, 401);
            texts.insert(answer.message().to_owned());
            assert_eq!(cloud.store.snapshot().revision(), before + 1, "{name}: one commit each");
        }
    }
    let answer = cloud.login("ann", "first-pw", Value::Null).await.ok(401);
    texts.insert(answer.message().to_owned());
    assert_eq!(texts.len(), 1, "{texts:?}");
    // A wrong user and a locked one do the same work: two medians a factor of two apart would be an oracle.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..40 {
        for (at, name) in ["ann", "nobody"].into_iter().enumerate() {
            let start = std::time::Instant::now();
            cloud.login(name, "wrong", Value::Null).await.ok(401);
            times[at].push(start.elapsed());
        }
    }
    let [a, b] = times.map(|mut t| {
        t.sort();
        t[t.len() / 2].as_secs_f64()
    });
    assert!(a < 2.0 * b && b < 2.0 * a, "locked {a}, unknown {b}");
}

/// Brute force: guesses at once tell no more than guesses in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_at_once_do_not_exceed_the_limit() {
    for round in 0..3 {
        let cloud = Cloud::with(Settings {
            hashers: 32,
            ..lockout(3)
        })
        .await;
        let id = user(&cloud, "ann", json!({})).await;
        let guesses: Vec<_> = (0..32)
            .map(|n| {
                let body = password("ann", &format!("guess-{n}"), None);
                cloud.spawn("POST", "/v3/auth/tokens", Some(body))
            })
            .collect();
        for guess in guesses {
            assert_eq!(guess.await.unwrap().status, 401, "round {round}");
        }
        let left = cloud.store.snapshot().get::<Logins>(&id.as_str().into()).unwrap();
        assert_eq!(left.failed, 3, "no verdict after the last allowed one");
        assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
        // Right passwords at once hinder nobody.
        let root = user(&cloud, "bob", json!({})).await;
        let logins: Vec<_> = (0..16)
            .map(|_| cloud.spawn("POST", "/v3/auth/tokens", Some(password("bob", "first-pw", None))))
            .collect();
        for login in logins {
            login.await.unwrap().ok(201);
        }
        assert!(cloud.store.snapshot().get::<Logins>(&root.as_str().into()).is_none());
    }
}

#[tokio::test]
async fn a_new_password_is_none_of_the_last_ones() {
    let cloud = Cloud::with(demands(Compliance {
        unique_last_password_count: 2,
        ..Compliance::default()
    }))
    .await;
    let id = user(&cloud, "ann", json!({})).await;
    let old_token = cloud.login("ann", "first-pw", Value::Null).await.ok(201).token();
    assert_eq!(change(&cloud, &id, "first-pw", "first-pw").await.status, 400);
    change(&cloud, &id, "first-pw", "second-pw").await.ok(204);
    // Tokens of before are not found.
    let by_token = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": old_token}}}});
    assert_eq!(
        cloud.call("POST", "/v3/auth/tokens", "", Some(by_token)).await.status,
        404
    );
    assert!(!cloud.good(&old_token).await);
    assert_eq!(status(&cloud, "ann", "first-pw").await, 401);
    for used in ["first-pw", "second-pw"] {
        let answer = change(&cloud, &id, "second-pw", used).await.ok(400);
        assert!(answer.message().contains("last 2"), "{}", answer.text);
    }
    change(&cloud, &id, "second-pw", "third-pw").await.ok(204);
    change(&cloud, &id, "third-pw", "first-pw").await.ok(204);
    // An administrator may set any.
    for _ in 0..2 {
        cloud
            .patch(&format!("/v3/users/{id}"), json!({"user": {"password": "third-pw"}}))
            .await
            .ok(200);
    }
    // That counts as one, too.
    assert_eq!(change(&cloud, &id, "third-pw", "third-pw").await.status, 400);
    // Of no hash but those that the history needs.
    let kept = cloud
        .store
        .snapshot()
        .get::<maru_identity_model::Password>(&id.as_str().into())
        .unwrap();
    assert_eq!(kept.earlier.len(), 1);
}

#[tokio::test]
async fn weak_passwords_are_refused_wherever_they_are_set() {
    let cloud = Cloud::with(demands(Compliance {
        password_regex: Some(PasswordRegex::parse(r"^(?=.*\d).{8,}$", Some("8 characters, a digit".into())).unwrap()),
        ..Compliance::default()
    }))
    .await;
    let weak = json!({"user": {"name": "ann", "password": "weakling", "domain_id": "default"}});
    let answer = cloud.post("/v3/users", weak).await.ok(400);
    assert!(answer.message().contains("8 characters, a digit"), "{}", answer.text);
    assert!(!answer.text.contains("weakling"), "a password is never shown");
    let id = user(&cloud, "ann", json!({"password": "str0ng-one"})).await;
    let path = format!("/v3/users/{id}");
    assert_eq!(
        cloud.patch(&path, json!({"user": {"password": "weak"}})).await.status,
        400
    );
    assert_eq!(change(&cloud, &id, "str0ng-one", "weak").await.status, 400);
    change(&cloud, &id, "str0ng-one", "str0ng-two").await.ok(204);
}
