//! One-time passwords, users that want several methods, receipts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Answer, Cloud, password, settings};
use maru_identity::{Compliance, Settings, passcode_for_tests};
use serde_json::{Value, json};

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

async fn ann(cloud: &Cloud, rules: Value) -> String {
    let user = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default",
                "options": {"multi_factor_auth_rules": rules}}),
        )
        .await;
    let seed = json!({"credential": {"type": "totp", "blob": SEED, "user_id": user}});
    cloud.post("/v3/credentials", seed).await.ok(201);
    user
}

fn totp(name: &str, code: &str) -> Value {
    json!({"auth": {"identity": {"methods": ["totp"],
        "totp": {"user": {"name": name, "domain": {"id": "default"}, "passcode": code}}}}})
}

fn both(pass: &str, code: &str) -> Value {
    let mut body = password("ann", pass, None);
    body["auth"]["identity"]["methods"] = json!(["password", "totp"]);
    body["auth"]["identity"]["totp"] = totp("ann", code)["auth"]["identity"]["totp"].clone();
    body
}

async fn auth(cloud: &Cloud, body: Value) -> Answer {
    cloud.call("POST", "/v3/auth/tokens", "", Some(body)).await
}

async fn with_receipt(cloud: &Cloud, body: Value, receipt: &str) -> Answer {
    let request = http::Request::post("/v3/auth/tokens")
        .header("content-type", "application/json")
        .header("openstack-auth-receipt", receipt)
        .body(Bytes::from(body.to_string()))
        .unwrap();
    cloud.send(request).await
}

/// In one process with a clock that moves: one sequence.
#[tokio::test]
async fn several_methods() {
    let cloud = Cloud::start().await;
    let id = ann(&cloud, json!([["password", "totp"]])).await;
    // The password is right and not enough.
    let first = auth(&cloud, password("ann", "ann-pass", None)).await.ok(401);
    assert_eq!(first.json["required_auth_methods"], json!([["password", "totp"]]));
    assert_eq!(first.json["receipt"]["methods"], json!(["password"]));
    assert_eq!(first.json["receipt"]["user"]["id"], id.as_str());
    assert!(!first.headers.contains_key("x-subject-token"));
    let receipt = first.headers["openstack-auth-receipt"].to_str().unwrap().to_owned();
    // Nothing is told to who does not know it.
    let wrong = auth(&cloud, password("ann", "wrong", None)).await.ok(401);
    assert!(!wrong.headers.contains_key("openstack-auth-receipt") && wrong.json.get("receipt").is_none());
    // A receipt is no token.
    assert_eq!(cloud.call("GET", "/v3/auth/catalog", &receipt, None).await.status, 401);
    assert!(!cloud.good(&receipt).await);
    for bad in ["", "x", &cloud.admin] {
        let code = passcode_for_tests(SEED, 0);
        assert_eq!(with_receipt(&cloud, totp("ann", &code), bad).await.status, 401, "{bad}");
    }
    // Alone it proves nothing more, and it is not another user's.
    let again = with_receipt(&cloud, password("ann", "ann-pass", None), &receipt)
        .await
        .ok(401);
    assert_eq!(again.json["receipt"]["methods"], json!(["password"]));
    assert_eq!(
        with_receipt(&cloud, password("admin", "admin-pass", None), &receipt)
            .await
            .status,
        401
    );
    let code = passcode_for_tests(SEED, 0);
    let done = with_receipt(&cloud, totp("ann", &code), &receipt).await.ok(201);
    assert_eq!(done.json["token"]["methods"], json!(["password", "totp"]));
    // A passcode is good once (RFC 6238, 5.2); the next one is, and the one before that is not any more.
    assert_eq!(auth(&cloud, both("ann-pass", &code)).await.status, 401);
    maru_base::time::advance(30);
    assert_eq!(
        auth(&cloud, both("ann-pass", &passcode_for_tests(SEED, -1)))
            .await
            .status,
        401
    );
    let token = auth(&cloud, both("ann-pass", &passcode_for_tests(SEED, 0)))
        .await
        .ok(201)
        .token();
    // A token carries what was proven.
    let by_token = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}});
    let next = auth(&cloud, by_token).await.ok(201);
    assert_eq!(next.json["token"]["methods"], json!(["password", "token", "totp"]));
    // One too old, one of another user, one of another form.
    for code in [
        passcode_for_tests(SEED, -3),
        passcode_for_tests(SEED, 5),
        String::new(),
        "abc".to_owned(),
    ] {
        assert_eq!(auth(&cloud, both("ann-pass", &code)).await.status, 401);
    }
    maru_base::time::advance(60);
    let mut mixed = both("ann-pass", &passcode_for_tests(SEED, 0));
    mixed["auth"]["identity"]["password"]["user"]["name"] = json!("admin");
    mixed["auth"]["identity"]["password"]["user"]["password"] = json!("admin-pass");
    assert_eq!(auth(&cloud, mixed).await.status, 401);
    // A receipt ends with a change of the password, and by itself.
    let receipt = auth(&cloud, password("ann", "ann-pass", None)).await.headers["openstack-auth-receipt"]
        .to_str()
        .unwrap()
        .to_owned();
    let change = json!({"user": {"password": "ann-pass-2"}});
    cloud.patch(&format!("/v3/users/{id}"), change).await.ok(200);
    maru_base::time::advance(60);
    assert_eq!(
        with_receipt(&cloud, totp("ann", &passcode_for_tests(SEED, 0)), &receipt)
            .await
            .status,
        401
    );
    let receipt = auth(&cloud, password("ann", "ann-pass-2", None)).await.headers["openstack-auth-receipt"]
        .to_str()
        .unwrap()
        .to_owned();
    maru_base::time::advance(301);
    assert_eq!(
        with_receipt(&cloud, totp("ann", &passcode_for_tests(SEED, 0)), &receipt)
            .await
            .status,
        401
    );
    // Switched off, the rules ask for nothing.
    let off = json!({"user": {"options": {"multi_factor_auth_enabled": false}}});
    cloud.patch(&format!("/v3/users/{id}"), off).await.ok(200);
    auth(&cloud, password("ann", "ann-pass-2", None)).await.ok(201);
    for rules in [
        json!("password"),
        json!([[]]),
        json!([["unheard"]]),
        json!(["password"]),
        json!([[1]]),
    ] {
        let bad = json!({"user": {"options": {"multi_factor_auth_rules": rules}}});
        let answer = cloud.patch(&format!("/v3/users/{id}"), bad).await.ok(400);
        assert!(answer.message().contains("options"), "{}", answer.text);
    }
    let bad = json!({"user": {"options": {"lock_password": "yes"}}});
    assert_eq!(cloud.patch(&format!("/v3/users/{id}"), bad).await.status, 400);

    // An application credential is not what the rules ask for.
    let cloud = Cloud::start().await;
    let id = ann(&cloud, json!([["password"]])).await;
    let project = cloud.report.admin_project.to_string();
    let reader = cloud.role("reader").await;
    cloud
        .put(&format!("/v3/projects/{project}/users/{id}/roles/{reader}"))
        .await
        .ok(204);
    let token = cloud
        .login("ann", "ann-pass", common::project(&project))
        .await
        .ok(201)
        .token();
    let made = json!({"application_credential": {"name": "a"}});
    let path = format!("/v3/users/{id}/application_credentials");
    let made = cloud.call("POST", &path, &token, Some(made)).await.ok(201).json["application_credential"].clone();
    let by = json!({"auth": {"identity": {"methods": ["application_credential"],
        "application_credential": {"id": made["id"], "secret": made["secret"]}}}});
    assert_eq!(auth(&cloud, by.clone()).await.status, 401);
    let rules = json!({"user": {"options": {"multi_factor_auth_rules": [["password"], ["application_credential"]]}}});
    cloud.patch(&format!("/v3/users/{id}"), rules).await.ok(200);
    auth(&cloud, by).await.ok(201);

    // Brute force of the second factor: a known password does not end the count in between.
    let cloud = Cloud::with(Settings {
        compliance: Compliance {
            lockout_failure_attempts: Some(3),
            ..Compliance::default()
        },
        ..settings()
    })
    .await;
    ann(&cloud, json!([["password", "totp"]])).await;
    for _ in 0..3 {
        let half = auth(&cloud, password("ann", "ann-pass", None)).await.ok(401);
        let receipt = half.headers["openstack-auth-receipt"].to_str().unwrap();
        assert_eq!(with_receipt(&cloud, totp("ann", "000000x"), receipt).await.status, 401);
    }
    let locked = auth(&cloud, both("ann-pass", &passcode_for_tests(SEED, 0)))
        .await
        .ok(401);
    assert!(locked.json.get("receipt").is_none());
    let half = auth(&cloud, password("ann", "ann-pass", None)).await.ok(401);
    assert!(!half.headers.contains_key("openstack-auth-receipt"));

    // Lists by the end of passwords.
    let cloud = Cloud::with(Settings {
        compliance: Compliance {
            password_expires_days: Some(10),
            ..Compliance::default()
        },
        ..settings()
    })
    .await;
    let id = ann(&cloud, json!(null)).await;
    let group = cloud.make("group", json!({"name": "g", "domain_id": "default"})).await;
    cloud.put(&format!("/v3/groups/{group}/users/{id}")).await.ok(204);
    for path in ["/v3/users".to_owned(), format!("/v3/groups/{group}/users")] {
        for (query, found) in [("gt:2000-01-01T00:00:00Z", 1), ("lt:2000-01-01T00:00:00Z", 0)] {
            let list = cloud.get(&format!("{path}?password_expires_at={query}")).await.ok(200);
            assert_eq!(list.ids("users").len(), found, "{path} {query}");
        }
        let answer = cloud
            .get(&format!("{path}?password_expires_at=near:2000-01-01T00:00:00Z"))
            .await
            .ok(400);
        assert!(answer.message().contains("password_expires_at"));
    }
}
