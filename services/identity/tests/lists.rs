//! Who sees what in lists, and what an update of a credential may change.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, call};
use serde_json::{Value, json};

/// An administrator may read every user, so a token for a domain does not hide any; a manager of a domain sees that alone.
#[tokio::test]
async fn lists_are_as_wide_as_the_rule() {
    let cloud = Cloud::start().await;
    let lab = cloud.make("domain", json!({"name": "lab"})).await;
    let inside = cloud
        .make("user", json!({"name": "in", "password": "in-pass", "domain_id": lab}))
        .await;
    let ann = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default"}),
        )
        .await;
    for (role, wide) in [("admin", true), ("manager", false)] {
        let role = cloud.role(role).await;
        let grant = format!("/v3/domains/default/users/{ann}/roles/{role}");
        cloud.put(&grant).await.ok(204);
        let token = cloud
            .login("ann", "ann-pass", json!({"domain": {"id": "default"}}))
            .await
            .ok(201)
            .token();
        let users = async |query: &str| {
            let answer = call(&cloud.gateway, "GET", &format!("/v3/users{query}"), &token, None).await;
            answer.ok(200).ids("users")
        };
        assert!(users("").await.contains(&ann));
        assert_eq!(users("").await.contains(&inside), wide);
        assert_eq!(users(&format!("?domain_id={lab}")).await.contains(&inside), wide);
        assert_eq!(users("?name=in").await.contains(&inside), wide);
        for (path, name) in [("groups", "groups"), ("projects", "projects")] {
            call(&cloud.gateway, "GET", &format!("/v3/{path}"), &token, None)
                .await
                .ok(200)
                .ids(name);
        }
        cloud.delete(&grant).await.ok(204);
    }
    // Of a domain's role the effective list shows what it implies.
    let local = cloud
        .make("role", json!({"name": "local", "domain_id": "default"}))
        .await;
    let project = cloud
        .make("project", json!({"name": "p", "domain_id": "default"}))
        .await;
    cloud
        .put(&format!("/v3/projects/{project}/users/{ann}/roles/{local}"))
        .await
        .ok(204);
    let roles = async |query: &str| {
        let list = cloud
            .get(&format!("/v3/role_assignments?user.id={ann}{query}"))
            .await
            .ok(200);
        let all = list.json["role_assignments"].as_array().unwrap().clone();
        all.iter()
            .map(|a| a["role"]["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(roles("").await, [local.as_str()]);
    assert!(roles("&effective").await.is_empty());
    let reader = cloud.role("reader").await;
    cloud.put(&format!("/v3/roles/{local}/implies/{reader}")).await.ok(201);
    assert_eq!(roles("&effective").await, [reader.as_str()]);
}

/// Attack classes C3, C6: of a credential the secret may change, and nothing that says whose or for what it is.
#[tokio::test]
async fn a_credential_keeps_its_rights() {
    let cloud = Cloud::start().await;
    let project = cloud.report.admin_project.to_string();
    let blob = |text: Value| text.to_string();
    let made = json!({"credential": {"type": "ec2", "project_id": project,
        "blob": blob(json!({"access": "a", "secret": "s", "app_cred_id": "x"}))}});
    let id = cloud.post("/v3/credentials", made).await.ok(201).json["credential"]["id"].clone();
    let path = format!("/v3/credentials/{}", id.as_str().unwrap());
    let fresh = blob(json!({"access": "b", "secret": "t", "app_cred_id": "x"}));
    let answer = cloud.patch(&path, json!({"credential": {"blob": fresh}})).await.ok(200);
    assert_eq!(answer.json["credential"]["blob"], fresh.as_str());
    assert_eq!(answer.json["credential"]["id"], id);
    for bad in [
        json!({"blob": blob(json!({"access": "b", "secret": "t"}))}),
        json!({"blob": blob(json!({"access": "b", "secret": "t", "app_cred_id": "x", "trust_id": "y"}))}),
        json!({"blob": "not JSON"}),
        json!({"type": "cert"}),
        json!({"project_id": "another"}),
        json!({"user_id": "another"}),
    ] {
        let answer = cloud.patch(&path, json!({"credential": bad})).await;
        assert_eq!(answer.status, 400, "{bad} {}", answer.text);
    }
    assert_eq!(
        cloud.get(&path).await.ok(200).json["credential"]["blob"],
        fresh.as_str()
    );
}

/// A project that acts as a domain is one, by either name.
#[tokio::test]
async fn a_domain_may_be_made_as_a_project() {
    let cloud = Cloud::start().await;
    let made = cloud
        .post(
            "/v3/projects",
            json!({"project": {"name": "d", "is_domain": true, "domain_id": null}}),
        )
        .await
        .ok(201);
    let project = &made.json["project"];
    assert_eq!(
        (&project["is_domain"], &project["domain_id"], &project["parent_id"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    let id = project["id"].as_str().unwrap().to_owned();
    assert!(
        cloud
            .get("/v3/projects?is_domain=True")
            .await
            .ids("projects")
            .contains(&id)
    );
    assert!(cloud.get("/v3/domains").await.ids("domains").contains(&id));
    assert_eq!(
        cloud.post("/v3/domains", json!({"domain": {"name": "d"}})).await.status,
        409
    );
    for placed in [json!({"domain_id": "default"}), json!({"parent_id": "default"})] {
        let mut body = json!({"name": "e", "is_domain": true});
        body.as_object_mut()
            .unwrap()
            .extend(placed.as_object().unwrap().clone());
        assert_eq!(cloud.post("/v3/projects", json!({"project": body})).await.status, 400);
    }
    // Who may make projects in a domain makes no domain.
    let ann = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default"}),
        )
        .await;
    let manager = cloud.role("manager").await;
    cloud
        .put(&format!("/v3/domains/default/users/{ann}/roles/{manager}"))
        .await
        .ok(204);
    let token = cloud
        .login("ann", "ann-pass", json!({"domain": {"id": "default"}}))
        .await
        .ok(201)
        .token();
    let own = json!({"project": {"name": "p", "domain_id": "default"}});
    assert_eq!(
        call(&cloud.gateway, "POST", "/v3/projects", &token, Some(own))
            .await
            .status,
        201
    );
    let wide = json!({"project": {"name": "f", "is_domain": true}});
    assert_eq!(
        call(&cloud.gateway, "POST", "/v3/projects", &token, Some(wide))
            .await
            .status,
        403
    );
    assert_eq!(cloud.delete(&format!("/v3/projects/{id}")).await.status, 403, "enabled");
    cloud
        .patch(&format!("/v3/projects/{id}"), json!({"project": {"enabled": false}}))
        .await
        .ok(200);
    cloud.delete(&format!("/v3/projects/{id}")).await.ok(204);
    assert!(!cloud.get("/v3/domains").await.ids("domains").contains(&id));
}
