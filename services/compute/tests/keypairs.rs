//! Key pairs: import and generation, isolation of users, quota.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use futures_util::future::join_all;
use maru_compute_model as m;
use serde_json::{Value, json};
use std::sync::Arc;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO6pFVYnYMsmcmzMzSlxOWnrZtYPb/tWRGmSzKEsXS2N me@here";
const K: &str = "/os-keypairs";

fn import(name: &str) -> Value {
    json!({"keypair": {"name": name, "public_key": KEY}})
}

#[tokio::test]
async fn keys_are_imported_and_shown() {
    let c = cloud().await;
    for (minor, status, made, shown) in [
        (1, 200, &["fingerprint", "name", "public_key", "user_id"][..], 1),
        (2, 201, &["fingerprint", "name", "public_key", "type", "user_id"], 2),
        (92, 201, &["fingerprint", "name", "public_key", "type", "user_id"], 2),
    ] {
        let name = format!("k{minor}");
        let v = c.want_at(minor, status, A, "POST", K, import(&name)).await["keypair"].clone();
        assert_eq!(keys(&v), made, "2.{minor}");
        assert_eq!(v["fingerprint"].as_str().unwrap().len(), 47);
        let v = c.get_at(minor, A, &format!("{K}/{name}")).await["keypair"].clone();
        let mut want = vec![
            "created_at",
            "deleted",
            "deleted_at",
            "fingerprint",
            "id",
            "name",
            "public_key",
            "updated_at",
            "user_id",
        ];
        if shown == 2 {
            want.insert(7, "type");
        }
        assert_eq!(keys(&v), want, "2.{minor}");
        assert_eq!(v["public_key"], KEY);
        let v = c.get_at(minor, A, K).await["keypairs"][0]["keypair"].clone();
        let mut want = vec!["fingerprint", "name", "public_key"];
        if shown == 2 {
            want.push("type");
        }
        assert_eq!(keys(&v), want);
    }
    c.want_at(1, 202, A, "DELETE", &format!("{K}/k1"), Value::Null).await;
    c.want(204, A, "DELETE", &format!("{K}/k2"), Value::Null).await;
    c.refused(404, A, "DELETE", &format!("{K}/k2"), Value::Null).await;
    let message = c.refused(404, A, "GET", &format!("{K}/k2"), Value::Null).await;
    assert_eq!(message, "Keypair k2 not found for user user-of-aaa");
    c.audit();
}

#[tokio::test]
async fn keys_are_generated_before_2_92() {
    let c = cloud().await;
    let v = c
        .want_at(91, 201, A, "POST", K, json!({"keypair": {"name": "g"}}))
        .await["keypair"]
        .clone();
    assert!(
        v["private_key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
    );
    assert!(v["public_key"].as_str().unwrap().starts_with("ecdsa-sha2-nistp256 "));
    // It is shown once and kept nowhere.
    let s = c.store.snapshot();
    let raw: Vec<u8> = s
        .raw_under(&maru_store::Key::prefix(&["keypair"]))
        .flat_map(|(_, v)| v.to_vec())
        .collect();
    assert!(!String::from_utf8_lossy(&raw).contains("PRIVATE"));
    let shown = c.get(A, &format!("{K}/g")).await;
    assert!(shown["keypair"].get("private_key").is_none());
    // Two are never the same.
    let w = c
        .want_at(91, 201, A, "POST", K, json!({"keypair": {"name": "h"}}))
        .await["keypair"]
        .clone();
    assert_ne!(v["private_key"], w["private_key"]);
    let message = c.refused(400, A, "POST", K, json!({"keypair": {"name": "i"}})).await;
    assert!(message.contains("public_key"), "{message}");
}

#[tokio::test]
async fn bad_keys_are_refused() {
    let c = cloud().await;
    for (minor, fields, status, part) in [
        (NEW, json!({"name": "", "public_key": KEY}), 400, "keypair.name"),
        (
            NEW,
            json!({"name": "x".repeat(256), "public_key": KEY}),
            400,
            "keypair.name",
        ),
        (NEW, json!({"name": "a/b", "public_key": KEY}), 400, "unsafe characters"),
        (NEW, json!({"name": "é", "public_key": KEY}), 400, "unsafe characters"),
        (91, json!({"name": "a@b", "public_key": KEY}), 400, "unsafe characters"),
        (NEW, json!({"name": null, "public_key": KEY}), 400, "keypair.name"),
        (NEW, json!({"name": 7, "public_key": KEY}), 400, "keypair.name"),
        (NEW, json!({"public_key": KEY}), 400, "name"),
        (NEW, json!({"name": "k", "public_key": null}), 400, "public_key"),
        (
            NEW,
            json!({"name": "k", "public_key": "ssh-rsa"}),
            400,
            "Keypair data is invalid",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": "ssh-rsa ////"}),
            400,
            "Keypair data is invalid",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": format!("{KEY}\n{KEY}")}),
            400,
            "Keypair data is invalid",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": KEY.replace("ed25519", "rsa")}),
            400,
            "Keypair data is invalid",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": format!("ssh-rsa {}", "A".repeat(20_000))}),
            400,
            "Keypair data is invalid",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": KEY, "type": "gpg"}),
            400,
            "keypair.type",
        ),
        (
            NEW,
            json!({"name": "k", "public_key": KEY, "type": "x509"}),
            400,
            "certificate",
        ),
        (1, json!({"name": "k", "public_key": KEY, "type": "ssh"}), 400, "type"),
        (
            9,
            json!({"name": "k", "public_key": KEY, "user_id": "u"}),
            400,
            "user_id",
        ),
        (NEW, json!({"name": "k", "public_key": KEY, "size": 1}), 400, "size"),
    ] {
        let answer = c.at(minor, A, "POST", K, json!({ "keypair": fields })).await;
        assert_eq!(answer.status, status, "{fields}: {}", answer.body);
        assert!(answer.body.to_string().contains(part), "{fields}: {}", answer.body);
    }
    assert_eq!(c.store.snapshot().count::<m::KeyPair>(), 0);
    c.want(201, A, "POST", K, import("a@b.c d-e_f")).await;
    let message = c.refused(409, A, "POST", K, import("a@b.c d-e_f")).await;
    assert_eq!(message, "Key pair 'a@b.c d-e_f' already exists.");
    c.audit();
}

#[tokio::test]
async fn a_certificate_is_imported() {
    let c = cloud().await;
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        "QUFB".repeat(16)
    );
    let body = json!({"keypair": {"name": "c", "public_key": pem, "type": "x509"}});
    let v = c.want(201, A, "POST", K, body).await["keypair"].clone();
    assert_eq!(v["type"], "x509");
    // Or generated, before 2.92.
    let body = json!({"keypair": {"name": "g", "type": "x509"}});
    let made = c.want_at(2, 201, A, "POST", K, body.clone()).await["keypair"].clone();
    assert!(made["public_key"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert!(made["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
    assert_eq!(made["fingerprint"].as_str().unwrap().len(), 47);
    c.refused_at(92, 400, A, "POST", K, body).await;
}

/// D, C1: a key pair is its user's, also among users of one project.
#[tokio::test]
async fn users_see_their_own_keys_only() {
    let c = cloud().await;
    let (one, two) = ("aaa:member:one", "aaa:member:two");
    c.want(201, one, "POST", K, import("k")).await;
    assert_eq!(c.get(two, K).await["keypairs"], json!([]));
    c.refused(404, two, "GET", &format!("{K}/k"), Value::Null).await;
    c.refused(404, two, "DELETE", &format!("{K}/k"), Value::Null).await;
    let message = c
        .refused(400, two, "POST", "/servers", wanted(json!({"key_name": "k"})))
        .await;
    assert!(message.contains("key_name"), "{message}");
    c.want(201, two, "POST", K, import("k")).await;
    // Nor by naming the other.
    c.refused(403, two, "GET", &format!("{K}?user_id=one"), Value::Null)
        .await;
    c.refused(403, two, "GET", &format!("{K}/k?user_id=one"), Value::Null)
        .await;
    c.refused(403, two, "DELETE", &format!("{K}/k?user_id=one"), Value::Null)
        .await;
    c.refused(
        403,
        two,
        "POST",
        K,
        json!({"keypair": {"name": "x", "public_key": KEY, "user_id": "one"}}),
    )
    .await;
    // Before 2.10 nobody is named.
    c.want_at(9, 200, two, "GET", &format!("{K}?user_id=one"), Value::Null)
        .await;
    // An administrator may.
    let v = c.get(ADMIN, &format!("{K}?user_id=one")).await;
    assert_eq!(v["keypairs"].as_array().unwrap().len(), 1);
    c.want(
        201,
        ADMIN,
        "POST",
        K,
        json!({"keypair": {"name": "x", "public_key": KEY, "user_id": "one"}}),
    )
    .await;
    c.want(204, ADMIN, "DELETE", &format!("{K}/k?user_id=one"), Value::Null)
        .await;
    c.want(200, one, "GET", &format!("{K}/x"), Value::Null).await;
    c.refused(404, one, "GET", &format!("{K}/k"), Value::Null).await;
    // A server keeps its copy of a key that is gone.
    let body = wanted(json!({"key_name": "k"}));
    let server = id(&c.want(202, two, "POST", "/servers", body).await["server"]);
    c.want(204, two, "DELETE", &format!("{K}/k"), Value::Null).await;
    assert_eq!(
        c.get(two, &format!("/servers/{server}")).await["server"]["key_name"],
        "k"
    );
    c.audit();
}

#[tokio::test]
async fn keys_are_paged_from_2_35() {
    let c = cloud().await;
    for n in 0..5 {
        c.want(201, A, "POST", K, import(&format!("k{n}"))).await;
    }
    let list = |v: &Value| -> Vec<String> {
        let all = v["keypairs"].as_array().unwrap().iter();
        all.map(|k| k["keypair"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let v = c.get(A, &format!("{K}?limit=3")).await;
    assert_eq!(list(&v), ["k0", "k1", "k2"]);
    let next = v["keypairs_links"][0]["href"]
        .as_str()
        .unwrap()
        .strip_prefix("http://maru/compute/v2.1")
        .unwrap()
        .to_owned();
    let v = c.get(A, &next).await;
    assert_eq!(list(&v), ["k3", "k4"]);
    assert!(v.get("keypairs_links").is_none());
    assert_eq!(list(&c.get_at(34, A, &format!("{K}?limit=3")).await).len(), 5);
    c.refused(400, A, "GET", &format!("{K}?marker=none"), Value::Null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_of_a_user_holds_in_a_race() {
    let c = Arc::new(cloud().await);
    c.quota("aaa", json!({"key_pairs": 5})).await;
    let calls = (0..20).map(|n| {
        let c = Arc::clone(&c);
        tokio::spawn(async move { c.at(NEW, A, "POST", K, import(&format!("k{n}"))).await })
    });
    let answers: Vec<Answer> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 5);
    for a in answers.iter().filter(|a| a.status != 201) {
        assert_eq!(
            (a.status, &a.body["forbidden"]["message"]),
            (403, &json!("Quota exceeded, too many key pairs."))
        );
    }
    // It is counted by user.
    c.want(201, "aaa:member:other", "POST", K, import("k")).await;
    // One name at once is one key.
    let calls = (0..8).map(|_| {
        let c = Arc::clone(&c);
        tokio::spawn(async move { c.at(NEW, B, "POST", K, import("same")).await.status })
    });
    let mut statuses: Vec<u16> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    c.audit();
}
