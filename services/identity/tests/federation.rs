//! Identity providers, protocols, mappings and service providers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Answer, Cloud, project};
use serde_json::{Value, json};

const BASE: &str = "/v3/OS-FEDERATION";

async fn put(cloud: &Cloud, path: &str, body: Value) -> Answer {
    cloud
        .call("PUT", &format!("{BASE}/{path}"), &cloud.admin, Some(body))
        .await
}

fn rules() -> Value {
    json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "REMOTE_USER"}]}])
}

#[tokio::test]
async fn an_identity_provider_has_a_domain_and_remote_ids_of_its_own() {
    let cloud = Cloud::start().await;
    let body = json!({"identity_provider": {"remote_ids": ["urn:a", "urn:b"], "description": "d", "enabled": true}});
    let made = put(&cloud, "identity_providers/one", body).await.ok(201);
    let one = made.json["identity_provider"].clone();
    assert_eq!(
        (
            &one["id"],
            &one["enabled"],
            &one["remote_ids"],
            &one["authorization_ttl"]
        ),
        (&json!("one"), &json!(true), &json!(["urn:a", "urn:b"]), &Value::Null)
    );
    assert!(
        one["links"]["protocols"]
            .as_str()
            .unwrap()
            .ends_with("/identity_providers/one/protocols")
    );
    let domain = cloud
        .get(&format!("/v3/domains/{}", one["domain_id"].as_str().unwrap()))
        .await
        .ok(200);
    assert!(
        domain.json["domain"]["description"]
            .as_str()
            .unwrap()
            .ends_with("Identity Provider: one")
    );
    let path = format!("{BASE}/identity_providers/one");
    assert_eq!(cloud.get(&path).await.ok(200).json, made.json);
    // The same once more, and another with its remote id.
    let body = |remote: &str| json!({"identity_provider": {"remote_ids": [remote]}});
    assert_eq!(put(&cloud, "identity_providers/one", body("urn:z")).await.status, 409);
    let answer = put(&cloud, "identity_providers/two", body("urn:b")).await;
    assert_eq!(answer.status, 409);
    assert!(answer.message().contains("urn:b"), "{}", answer.text);
    cloud
        .patch(
            &path,
            json!({"identity_provider": {"remote_ids": ["urn:a"], "enabled": false}}),
        )
        .await
        .ok(200);
    put(&cloud, "identity_providers/two", body("urn:b")).await.ok(201);
    let listed = async |query: &str| {
        cloud
            .get(&format!("{BASE}/identity_providers{query}"))
            .await
            .ok(200)
            .ids("identity_providers")
    };
    assert_eq!(listed("").await, ["one", "two"]);
    assert_eq!(listed("?id=two").await, ["two"]);
    assert!(listed("?enabled=true").await.is_empty());
    // A named domain, which takes its providers with it.
    let home = cloud.make("domain", json!({"name": "home", "enabled": false})).await;
    let named = json!({"identity_provider": {"domain_id": home, "remote_ids": ["urn:h"]}});
    put(&cloud, "identity_providers/three", named.clone()).await.ok(201);
    cloud.delete(&format!("/v3/domains/{home}")).await.ok(204);
    assert_eq!(cloud.get(&format!("{BASE}/identity_providers/three")).await.status, 404);
    assert_eq!(put(&cloud, "identity_providers/three", named).await.status, 404);
    put(&cloud, "identity_providers/three", body("urn:h")).await.ok(201);
    for (field, value) in [
        ("remote_ids", json!("urn")),
        ("remote_ids", json!([1])),
        ("remote_ids", json!(["x", "x"])),
        ("enabled", json!("yes")),
        ("description", json!(1)),
        ("authorization_ttl", json!(-1)),
        ("authorization_ttl", json!("1")),
        ("more", json!(1)),
        ("domain_id", json!(1)),
    ] {
        let mut body = json!({"identity_provider": {}});
        body["identity_provider"][field] = value;
        let answer = put(&cloud, "identity_providers/bad", body).await.ok(400);
        assert!(answer.message().contains(field), "{}", answer.text);
    }
    let long = "x".repeat(65);
    put(&cloud, &format!("identity_providers/{long}"), body("urn:l"))
        .await
        .ok(400);
    cloud
        .patch(&path, json!({"identity_provider": {"domain_id": "default"}}))
        .await
        .ok(400);
    cloud.delete(&path).await.ok(204);
    assert_eq!(cloud.delete(&path).await.status, 404);
    // Its remote id is free again.
    put(&cloud, "identity_providers/four", body("urn:a")).await.ok(201);
}

#[tokio::test]
async fn a_protocol_is_of_its_provider_and_names_a_mapping() {
    let cloud = Cloud::start().await;
    put(&cloud, "identity_providers/idp", json!({"identity_provider": {}}))
        .await
        .ok(201);
    for name in ["m", "n"] {
        put(
            &cloud,
            &format!("mappings/{name}"),
            json!({"mapping": {"rules": rules()}}),
        )
        .await
        .ok(201);
    }
    let path = "identity_providers/idp/protocols/saml2";
    let body = |mapping: &str| json!({"protocol": {"mapping_id": mapping}});
    let answer = put(&cloud, path, body("x")).await.ok(400);
    assert!(answer.message().contains("mapping"), "{}", answer.text);
    assert_eq!(
        put(&cloud, "identity_providers/x/protocols/saml2", body("m"))
            .await
            .status,
        404
    );
    let made = put(&cloud, path, body("m")).await.ok(201);
    assert_eq!(made.json["protocol"]["mapping_id"], "m");
    assert!(
        made.json["protocol"]["links"]["identity_provider"]
            .as_str()
            .unwrap()
            .ends_with("/identity_providers/idp")
    );
    assert_eq!(put(&cloud, path, body("m")).await.status, 409);
    let whole = format!("{BASE}/{path}");
    assert_eq!(cloud.get(&whole).await.ok(200).json, made.json);
    let changed = json!({"protocol": {"mapping_id": "n", "remote_id_attribute": "Shib-Identity-Provider"}});
    let changed = cloud.patch(&whole, changed).await.ok(200);
    assert_eq!(
        changed.json["protocol"]["remote_id_attribute"],
        "Shib-Identity-Provider"
    );
    let listed = cloud
        .get(&format!("{BASE}/identity_providers/idp/protocols"))
        .await
        .ok(200);
    assert_eq!(listed.ids("protocols"), ["saml2"]);
    assert_eq!(listed.json["protocols"][0]["idp_id"], "idp");
    cloud.patch(&whole, json!({"protocol": {}})).await.ok(400);
    cloud
        .patch(&whole, json!({"protocol": {"mapping_id": "n", "x": 1}}))
        .await
        .ok(400);
    cloud.delete(&whole).await.ok(204);
    assert_eq!(cloud.get(&whole).await.status, 404);
    // They go with their provider.
    put(&cloud, path, body("m")).await.ok(201);
    cloud.delete(&format!("{BASE}/identity_providers/idp")).await.ok(204);
    put(&cloud, "identity_providers/idp", json!({"identity_provider": {}}))
        .await
        .ok(201);
    assert_eq!(cloud.get(&whole).await.status, 404);
}

#[tokio::test]
async fn a_mapping_is_what_its_schema_says() {
    let cloud = Cloud::start().await;
    let good = json!([{
        "local": [
            {"user": {"name": "{0}", "email": "{1}", "type": "ephemeral", "domain": {"name": "d"}}},
            {"group": {"id": "g"}}, {"group": {"name": "g", "domain": {"id": "d"}}},
            {"groups": "{2}", "domain": {"id": "d"}}, {"group_ids": "{3}"},
            {"projects": [{"name": "p", "roles": [{"name": "member"}]}]},
        ],
        "remote": [
            {"type": "A"}, {"type": "B", "any_one_of": ["x", "y"], "regex": true}, {"type": "C", "not_any_of": ["z"]},
            {"type": "D", "whitelist": ["a"]}, {"type": "E", "blacklist": []},
        ],
    }]);
    let made = put(&cloud, "mappings/m", json!({"mapping": {"rules": good}}))
        .await
        .ok(201);
    assert_eq!(
        (&made.json["mapping"]["rules"], &made.json["mapping"]["schema_version"]),
        (&good, &json!("1.0"))
    );
    assert_eq!(
        put(&cloud, "mappings/m", json!({"mapping": {"rules": good}}))
            .await
            .status,
        409
    );
    let path = format!("{BASE}/mappings/m");
    assert_eq!(cloud.get(&path).await.ok(200).json, made.json);
    assert_eq!(
        cloud.get(&format!("{BASE}/mappings")).await.ok(200).ids("mappings"),
        ["m"]
    );
    let rule = |local: Value, remote: Value| json!([{"local": local, "remote": remote}]);
    let fine = json!([{"type": "A"}]);
    for (part, rules) in [
        ("rules", json!([])),
        ("rules", json!("x")),
        ("rules[0]", json!(["x"])),
        ("rules[0].local", json!([{"remote": fine}])),
        ("rules[0].remote", json!([{"local": []}])),
        ("rules[0].remote", rule(json!([]), json!([]))),
        ("rules[0].more", json!([{"local": [], "remote": fine, "more": 1}])),
        ("local[0].x", rule(json!([{"x": 1}]), fine.clone())),
        ("user.type", rule(json!([{"user": {"type": "x"}}]), fine.clone())),
        ("user.name", rule(json!([{"user": {"name": 1}}]), fine.clone())),
        ("group", rule(json!([{"group": {"name": "g"}}]), fine.clone())),
        (
            "group",
            rule(json!([{"group": {"id": "g", "name": "g"}}]), fine.clone()),
        ),
        ("domain.x", rule(json!([{"domain": {"x": "g"}}]), fine.clone())),
        ("groups", rule(json!([{"groups": ["g"]}]), fine.clone())),
        (
            "projects[0].roles",
            rule(json!([{"projects": [{"name": "p"}]}]), fine.clone()),
        ),
        (
            "projects[0].domain",
            rule(
                json!([{"projects": [{"name": "p", "roles": [], "domain": {}}]}]),
                fine.clone(),
            ),
        ),
        (
            "roles[0]",
            rule(json!([{"projects": [{"name": "p", "roles": [{}]}]}]), fine.clone()),
        ),
        ("remote[0].type", rule(json!([]), json!([{"any_one_of": []}]))),
        (
            "remote[0]",
            rule(json!([]), json!([{"type": "A", "any_one_of": [], "whitelist": []}])),
        ),
        (
            "any_one_of[0]",
            rule(json!([]), json!([{"type": "A", "any_one_of": [1]}])),
        ),
        ("regex", rule(json!([]), json!([{"type": "A", "regex": true}]))),
        (
            "regex",
            rule(json!([]), json!([{"type": "A", "any_one_of": [], "regex": 1}])),
        ),
    ] {
        let answer = put(&cloud, "mappings/bad", json!({"mapping": {"rules": rules}}))
            .await
            .ok(400);
        assert!(answer.message().contains(part), "{part}: {}", answer.text);
    }
    put(
        &cloud,
        "mappings/bad",
        json!({"mapping": {"rules": good, "schema_version": "3.0"}}),
    )
    .await
    .ok(400);
    put(
        &cloud,
        "mappings/bad",
        json!({"mapping": {"rules": good, "id": "other"}}),
    )
    .await
    .ok(400);
    put(
        &cloud,
        "mappings/also",
        json!({"mapping": {"rules": good, "id": "also"}}),
    )
    .await
    .ok(201);
    cloud.delete(&format!("{BASE}/mappings/also")).await.ok(204);
    put(&cloud, "mappings/bad", json!({"mapping": {}})).await.ok(400);
    // In 2.0 a project names its domain.
    let newer = rule(
        json!([{"projects": [{"name": "p", "roles": [], "domain": {"id": "d"}}]}]),
        fine,
    );
    cloud.patch(&path, json!({"mapping": {"rules": newer}})).await.ok(400);
    let changed = cloud
        .patch(&path, json!({"mapping": {"rules": newer, "schema_version": "2.0"}}))
        .await
        .ok(200);
    assert_eq!(changed.json["mapping"]["schema_version"], "2.0");
    cloud.delete(&path).await.ok(204);
    assert_eq!(cloud.get(&path).await.status, 404);
}

#[tokio::test]
async fn tokens_name_the_service_providers_that_are_enabled() {
    let cloud = Cloud::start().await;
    let named = async || {
        let scope = project(&cloud.report.admin_project);
        let token = cloud.login("admin", "admin-pass", scope).await.ok(201);
        token.json["token"]["service_providers"].clone()
    };
    assert_eq!(named().await, Value::Null);
    let body = json!({"service_provider": {"auth_url": "https://a.example/v3", "sp_url": "https://s.example/sp"}});
    let made = put(&cloud, "service_providers/sp", body.clone()).await.ok(201);
    let sp = &made.json["service_provider"];
    assert_eq!(
        (&sp["enabled"], &sp["relay_state_prefix"]),
        (&json!(false), &json!("ss:mem:"))
    );
    assert_eq!(named().await, Value::Null);
    assert_eq!(put(&cloud, "service_providers/sp", body).await.status, 409);
    let path = format!("{BASE}/service_providers/sp");
    assert_eq!(cloud.get(&path).await.ok(200).json, made.json);
    cloud
        .patch(
            &path,
            json!({"service_provider": {"enabled": true, "description": "d"}}),
        )
        .await
        .ok(200);
    assert_eq!(
        named().await,
        json!([{"id": "sp", "auth_url": "https://a.example/v3", "sp_url": "https://s.example/sp"}])
    );
    let listed = async |query: &str| {
        cloud
            .get(&format!("{BASE}/service_providers{query}"))
            .await
            .ok(200)
            .ids("service_providers")
    };
    assert_eq!(listed("?enabled=true").await, ["sp"]);
    assert!(listed("?id=x").await.is_empty());
    for (field, body) in [
        ("sp_url", json!({"auth_url": "https://a"})),
        ("auth_url", json!({"sp_url": "https://a"})),
        ("auth_url", json!({"auth_url": "ftp://a", "sp_url": "https://a"})),
        ("sp_url", json!({"auth_url": "https://a", "sp_url": "https://"})),
        (
            "more",
            json!({"auth_url": "https://a", "sp_url": "https://a", "more": 1}),
        ),
    ] {
        let answer = put(&cloud, "service_providers/bad", json!({"service_provider": body}))
            .await
            .ok(400);
        assert!(answer.message().contains(field), "{}", answer.text);
    }
    cloud.delete(&path).await.ok(204);
    assert_eq!(named().await, Value::Null);
    assert_eq!(cloud.get(&path).await.status, 404);
}
