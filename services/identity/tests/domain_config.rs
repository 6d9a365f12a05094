//! Configuration of domains.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, settings};
use maru_identity::{Compliance, PasswordRegex, Settings};
use serde_json::json;

#[tokio::test]
async fn a_domain_keeps_its_options_and_never_shows_a_password() {
    let cloud = Cloud::start().await;
    let domain = cloud.make("domain", json!({"name": "d"})).await;
    let path = format!("/v3/domains/{domain}/config");
    assert_eq!(cloud.get(&path).await.status, 404);
    let config = json!({"config": {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x", "password": "s3cret"}}});
    let made = cloud
        .call("PUT", &path, &cloud.admin, Some(config.clone()))
        .await
        .ok(201);
    let shown = json!({"config": {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x"}}});
    assert_eq!(made.json, shown);
    assert_eq!(
        cloud.call("PUT", &path, &cloud.admin, Some(config)).await.ok(200).json,
        shown
    );
    assert_eq!(cloud.get(&path).await.ok(200).json, shown);
    let group = format!("{path}/ldap");
    assert_eq!(
        cloud.get(&group).await.ok(200).json,
        json!({"config": {"ldap": {"url": "ldap://x"}}})
    );
    assert_eq!(
        cloud.get(&format!("{group}/url")).await.ok(200).json,
        json!({"config": {"url": "ldap://x"}})
    );
    assert_eq!(cloud.get(&format!("{group}/password")).await.status, 404, "sensitive");
    assert_eq!(cloud.get(&format!("{group}/user")).await.status, 404);
    for unknown in [format!("{path}/assignment"), format!("{group}/unheard")] {
        assert_eq!(cloud.get(&unknown).await.status, 403);
    }
    // Updates change what is there; of one group or option they may not touch another.
    let answer = cloud
        .patch(&group, json!({"config": {"ldap": {"url": "ldap://y", "user": "u"}}}))
        .await
        .ok(200);
    assert_eq!(
        answer.json["config"],
        json!({"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://y", "user": "u"}})
    );
    let answer = cloud
        .patch(&format!("{group}/url"), json!({"config": {"url": "ldap://z"}}))
        .await
        .ok(200);
    assert_eq!(answer.json["config"]["ldap"]["url"], "ldap://z");
    for (path, body, status) in [
        (group.clone(), json!({"config": {"identity": {"driver": "x"}}}), 403),
        (format!("{group}/url"), json!({"config": {"user": "x"}}), 403),
        (format!("{group}/suffix"), json!({"config": {"suffix": "x"}}), 404),
        (group.clone(), json!({"config": {"ldap": {"nothing": 1}}}), 403),
        (group.clone(), json!({"config": {"ldap": "x"}}), 403),
        (path.clone(), json!({"config": {}}), 403),
        (path.clone(), json!({"config": []}), 400),
        (path.clone(), json!({}), 400),
        (
            "/v3/domains/nowhere/config".to_owned(),
            json!({"config": {"ldap": {"url": "x"}}}),
            404,
        ),
    ] {
        assert_eq!(cloud.patch(&path, body.clone()).await.status, status, "{path} {body}");
    }
    // Unset by option, group and whole.
    cloud.delete(&format!("{group}/user")).await.ok(204);
    assert_eq!(cloud.delete(&format!("{group}/user")).await.status, 404);
    cloud.delete(&format!("{path}/identity")).await.ok(204);
    assert_eq!(cloud.get(&format!("{path}/identity")).await.status, 404);
    cloud.delete(&path).await.ok(204);
    assert_eq!(cloud.get(&path).await.status, 404);
    assert_eq!(cloud.delete(&path).await.status, 404);
    // It goes with its domain.
    let config = json!({"config": {"ldap": {"url": "x"}}});
    cloud.call("PUT", &path, &cloud.admin, Some(config)).await.ok(201);
    let off = json!({"domain": {"enabled": false}});
    cloud.patch(&format!("/v3/domains/{domain}"), off).await.ok(200);
    cloud.delete(&format!("/v3/domains/{domain}")).await.ok(204);
    assert_eq!(cloud.store.snapshot().count::<maru_identity_model::DomainConfig>(), 0);
}

#[tokio::test]
async fn the_defaults_have_every_option_and_what_is_demanded_is_told() {
    let cloud = Cloud::with(Settings {
        compliance: Compliance {
            password_regex: Some(PasswordRegex::parse("^.{8,}$", Some("8 characters".into())).unwrap()),
            ..Compliance::default()
        },
        ..settings()
    })
    .await;
    let all = cloud.get("/v3/domains/config/default").await.ok(200);
    assert!(all.json["config"]["identity"].get("list_limit").is_some());
    let ldap = cloud.get("/v3/domains/config/ldap/default").await.ok(200);
    assert_eq!(ldap.json["config"]["ldap"], all.json["config"]["ldap"]);
    for (option, value) in ldap.json["config"]["ldap"].as_object().unwrap() {
        let one = cloud
            .get(&format!("/v3/domains/config/ldap/{option}/default"))
            .await
            .ok(200);
        assert_eq!(one.json["config"], json!({ option: value }));
    }
    assert_eq!(cloud.get("/v3/domains/config/ldap/password/default").await.status, 404);
    assert_eq!(cloud.get("/v3/domains/config/os_inherit/default").await.status, 403);
    // Any user may know what its password must look like.
    cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-passphrase", "domain_id": "default"}),
        )
        .await;
    let token = cloud.login("ann", "ann-passphrase", json!(null)).await.ok(201).token();
    let path = "/v3/domains/default/config/security_compliance";
    let told = cloud.call("GET", path, &token, None).await.ok(200);
    assert_eq!(
        told.json["config"]["security_compliance"],
        json!({"password_regex": "^.{8,}$", "password_regex_description": "8 characters"})
    );
    let one = cloud
        .call("GET", &format!("{path}/password_regex"), &token, None)
        .await
        .ok(200);
    assert_eq!(one.json["config"], json!({"password_regex": "^.{8,}$"}));
    assert_eq!(
        cloud
            .call("GET", "/v3/domains/default/config", &token, None)
            .await
            .status,
        403
    );
}
