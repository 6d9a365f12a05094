//! Grants, inheritance, implied roles, what they amount to, and what a domain's manager may do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::Cloud;
use serde_json::{Value, json};

fn triples(list: &Value) -> Vec<String> {
    let mut all: Vec<String> = list["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            let who = a["user"]["name"].as_str().or(a["group"]["name"].as_str()).unwrap();
            let scope = &a["scope"];
            let target = scope["project"]["name"]
                .as_str()
                .or(scope["domain"]["name"].as_str())
                .unwrap_or("system");
            let inherited = if scope.get("OS-INHERIT:inherited_to").is_some() {
                " inherited"
            } else {
                ""
            };
            format!("{who} {} {target}{inherited}", a["role"]["name"].as_str().unwrap())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn grants_are_given_checked_listed_and_taken() {
    let cloud = Cloud::start().await;
    let p = cloud.make("project", json!({"name": "p"})).await;
    let user = cloud.make("user", json!({"name": "u"})).await;
    let group = cloud.make("group", json!({"name": "g"})).await;
    let member = cloud.role("member").await;
    for base in [
        format!("/v3/projects/{p}/users/{user}/roles"),
        format!("/v3/projects/{p}/groups/{group}/roles"),
        format!("/v3/domains/default/users/{user}/roles"),
        format!("/v3/domains/default/groups/{group}/roles"),
        format!("/v3/system/users/{user}/roles"),
        format!("/v3/system/groups/{group}/roles"),
    ] {
        let one = format!("{base}/{member}");
        assert_eq!(cloud.get(&one).await.status, 404, "{one}");
        cloud.put(&one).await.ok(204);
        cloud.put(&one).await.ok(204);
        cloud.get(&one).await.ok(204);
        cloud.call("HEAD", &one, &cloud.admin, None).await.ok(204);
        assert_eq!(
            cloud.get(&base).await.ok(200).ids("roles"),
            std::slice::from_ref(&member)
        );
        cloud.delete(&one).await.ok(204);
        assert_eq!(cloud.delete(&one).await.status, 404);
        assert!(cloud.get(&base).await.ok(200).ids("roles").is_empty());
        assert_eq!(cloud.put(&format!("{base}/no-such-role")).await.status, 404);
    }
    for target in [format!("projects/{p}"), "domains/default".to_owned()] {
        for actor in [format!("users/{user}"), format!("groups/{group}")] {
            let base = format!("/v3/OS-INHERIT/{target}/{actor}/roles");
            let one = format!("{base}/{member}/inherited_to_projects");
            cloud.put(&one).await.ok(204);
            cloud.get(&one).await.ok(204);
            assert_eq!(
                cloud.get(&format!("{base}/inherited_to_projects")).await.ids("roles"),
                std::slice::from_ref(&member)
            );
            assert_eq!(
                cloud.get(&format!("/v3/{target}/{actor}/roles/{member}")).await.status,
                404,
                "another grant"
            );
            cloud.delete(&one).await.ok(204);
        }
    }
    assert_eq!(
        cloud
            .put(&format!("/v3/projects/none/users/{user}/roles/{member}"))
            .await
            .status,
        404
    );
    assert_eq!(
        cloud
            .put(&format!("/v3/projects/{p}/users/none/roles/{member}"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn what_grants_amount_to_is_listed() {
    let cloud = Cloud::start().await;
    let domain = cloud.make("domain", json!({"name": "lab"})).await;
    let p = cloud.make("project", json!({"name": "p", "domain_id": domain})).await;
    let sub = cloud.make("project", json!({"name": "sub", "parent_id": p})).await;
    let ann = cloud
        .make("user", json!({"name": "ann", "domain_id": domain, "password": "pw"}))
        .await;
    let bob = cloud.make("user", json!({"name": "bob", "domain_id": domain})).await;
    let group = cloud.make("group", json!({"name": "g", "domain_id": domain})).await;
    let member = cloud.role("member").await;
    let reader = cloud.role("reader").await;
    for path in [
        format!("/v3/groups/{group}/users/{ann}"),
        format!("/v3/groups/{group}/users/{bob}"),
        format!("/v3/projects/{p}/users/{ann}/roles/{member}"),
        format!("/v3/OS-INHERIT/projects/{p}/users/{ann}/roles/{member}/inherited_to_projects"),
        format!("/v3/OS-INHERIT/domains/{domain}/groups/{group}/roles/{reader}/inherited_to_projects"),
        format!("/v3/system/users/{bob}/roles/{reader}"),
    ] {
        cloud.put(&path).await.ok(204);
    }
    let list = async |query: &str| {
        triples(
            &cloud
                .get(&format!("/v3/role_assignments?include_names&{query}"))
                .await
                .ok(200)
                .json,
        )
    };
    assert_eq!(
        list(&format!("user.id={ann}")).await,
        ["ann member p", "ann member p inherited"]
    );
    assert_eq!(list(&format!("group.id={group}")).await, ["g reader lab inherited"]);
    assert_eq!(
        list(&format!("scope.project.id={p}&scope.OS-INHERIT:inherited_to=projects")).await,
        ["ann member p inherited"]
    );
    assert_eq!(
        list(&format!("user.id={bob}&scope.system=all")).await,
        ["bob reader system"]
    );
    assert_eq!(
        list(&format!("effective&scope.project.id={sub}")).await,
        [
            "ann member sub inherited",
            "ann reader sub inherited",
            "ann reader sub inherited",
            "bob reader sub inherited"
        ]
    );
    assert_eq!(
        list(&format!("effective&scope.project.id={p}&user.id={ann}")).await,
        ["ann member p", "ann reader p", "ann reader p inherited"]
    );
    assert_eq!(
        list(&format!("include_subtree&scope.project.id={p}")).await,
        ["ann member p", "ann member p inherited"]
    );
    let raw = cloud
        .get(&format!(
            "/v3/role_assignments?effective&scope.project.id={sub}&user.id={bob}"
        ))
        .await
        .ok(200)
        .json;
    let one = &raw["role_assignments"][0];
    assert_eq!(
        (&one["user"], &one["role"]),
        (&json!({"id": bob}), &json!({"id": reader}))
    );
    assert_eq!(
        one["links"],
        json!({"assignment": format!("http://cloud/v3/OS-INHERIT/domains/{domain}/groups/{group}/roles/{reader}/inherited_to_projects"),
            "membership": format!("http://cloud/v3/groups/{group}/users/{bob}")})
    );
    for query in [
        "scope.project.id=a&scope.domain.id=b",
        "user.id=a&group.id=b",
        "scope.system=all&scope.domain.id=b",
        "effective&group.id=b",
        "include_subtree",
    ] {
        assert_eq!(
            cloud.get(&format!("/v3/role_assignments?{query}")).await.status,
            400,
            "{query}"
        );
    }
    // The token shows the same.
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": ann, "password": "pw"}}},
        "scope": {"project": {"id": sub}}}});
    let token = cloud.call("POST", "/v3/auth/tokens", "", Some(body)).await.ok(201);
    let roles = token.json["token"]["roles"].as_array().unwrap().len();
    assert_eq!(roles, 2);
    let mine = cloud
        .call("GET", "/v3/auth/projects", &token.token(), None)
        .await
        .ok(200);
    let mut both = vec![p, sub];
    both.sort();
    assert_eq!(mine.ids("projects"), both);
    assert!(
        cloud
            .call("GET", "/v3/auth/domains", &token.token(), None)
            .await
            .ok(200)
            .ids("domains")
            .is_empty()
    );
    assert_eq!(
        cloud
            .call("GET", "/v3/auth/system", &token.token(), None)
            .await
            .ok(200)
            .json["system"],
        json!([])
    );
    assert_eq!(
        cloud.get("/v3/auth/system").await.ok(200).json["system"],
        json!([{"all": true}])
    );
}

#[tokio::test]
async fn implied_roles_have_rules() {
    let cloud = Cloud::start().await;
    let a = cloud.make("role", json!({"name": "a"})).await;
    let b = cloud.make("role", json!({"name": "b"})).await;
    let one = format!("/v3/roles/{a}/implies/{b}");
    assert_eq!(cloud.get(&one).await.status, 404);
    let made = cloud.put(&one).await.ok(201).json;
    assert_eq!(made["role_inference"]["implies"]["name"], "b");
    cloud.get(&one).await.ok(200);
    cloud.call("HEAD", &one, &cloud.admin, None).await.ok(204);
    assert_eq!(
        cloud.put(&format!("/v3/roles/{b}/implies/{a}")).await.status,
        403,
        "a circle"
    );
    let admin = cloud.role("admin").await;
    assert_eq!(cloud.put(&format!("/v3/roles/{a}/implies/{admin}")).await.status, 403);
    assert_eq!(
        cloud.delete(&format!("/v3/roles/{admin}")).await.status,
        403,
        "immutable"
    );
    let all = cloud.get("/v3/role_inferences").await.ok(200).json;
    assert_eq!(all["role_inferences"].as_array().unwrap().len(), 4);
    let list = cloud.get(&format!("/v3/roles/{a}/implies")).await.ok(200).json;
    assert_eq!(list["role_inference"]["implies"][0]["id"], b.as_str());
    cloud.delete(&one).await.ok(204);
    assert_eq!(cloud.call("HEAD", &one, &cloud.admin, None).await.status, 404);
    // A domain's role shows as what it implies.
    let domain = cloud.make("domain", json!({"name": "lab"})).await;
    let local = cloud.make("role", json!({"name": "local", "domain_id": domain})).await;
    cloud.put(&format!("/v3/roles/{local}/implies/{b}")).await.ok(201);
    // It may imply another domain's, but no global role may imply it.
    assert_eq!(cloud.put(&format!("/v3/roles/{b}/implies/{local}")).await.status, 403);
    let other = cloud.make("domain", json!({"name": "other"})).await;
    let foreign = cloud.make("role", json!({"name": "foreign", "domain_id": other})).await;
    cloud.put(&format!("/v3/roles/{local}/implies/{foreign}")).await.ok(201);
    assert_eq!(
        cloud.get(&format!("/v3/roles?domain_id={domain}")).await.ids("roles"),
        std::slice::from_ref(&local)
    );
    assert!(!cloud.get("/v3/roles").await.ids("roles").contains(&local));
    let p = cloud.make("project", json!({"name": "p", "domain_id": domain})).await;
    let elsewhere = cloud.make("project", json!({"name": "p"})).await;
    let user = cloud.make("user", json!({"name": "u", "password": "pw"})).await;
    cloud
        .put(&format!("/v3/projects/{p}/users/{user}/roles/{local}"))
        .await
        .ok(204);
    assert_eq!(
        cloud
            .put(&format!("/v3/projects/{elsewhere}/users/{user}/roles/{local}"))
            .await
            .status,
        403
    );
    let token = cloud.login("u", "pw", common::project(&p)).await.ok(201).json;
    assert_eq!(token["token"]["roles"], json!([{"id": b, "name": "b"}]));
}

#[tokio::test]
async fn a_domains_manager_manages_that_domain_and_no_more() {
    let cloud = Cloud::start().await;
    let domain = cloud.make("domain", json!({"name": "lab"})).await;
    let boss = cloud
        .make("user", json!({"name": "boss", "password": "pw", "domain_id": domain}))
        .await;
    let stranger = cloud.make("user", json!({"name": "stranger"})).await;
    let roles: Vec<String> =
        futures_util::future::join_all(["manager", "member", "admin"].map(|r| cloud.role(r))).await;
    let [manager, member, admin] = roles.try_into().unwrap();
    cloud
        .put(&format!("/v3/domains/{domain}/users/{boss}/roles/{manager}"))
        .await
        .ok(204);
    let login = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": boss, "password": "pw"}}},
        "scope": {"domain": {"id": domain}}}});
    let token = cloud
        .call("POST", "/v3/auth/tokens", "", Some(login))
        .await
        .ok(201)
        .token();
    let by = async |method: &str, path: String, body: Value| {
        let body = if body.is_null() { None } else { Some(body) };
        cloud.call(method, &path, &token, body).await
    };
    let user = by("POST", "/v3/users".into(), json!({"user": {"name": "new"}}))
        .await
        .ok(201);
    assert_eq!(
        user.json["user"]["domain_id"],
        domain.as_str(),
        "the domain of the token"
    );
    let user = user.json["user"]["id"].as_str().unwrap().to_owned();
    let p = by("POST", "/v3/projects".into(), json!({"project": {"name": "p"}}))
        .await
        .ok(201);
    let p = p.json["project"]["id"].as_str().unwrap().to_owned();
    let outside = json!({"user": {"name": "x", "domain_id": "default"}});
    assert_eq!(by("POST", "/v3/users".into(), outside).await.status, 403);
    assert_eq!(
        by(
            "POST",
            "/v3/projects".into(),
            json!({"project": {"name": "x", "parent_id": "default"}})
        )
        .await
        .status,
        403
    );
    by(
        "PUT",
        format!("/v3/projects/{p}/users/{user}/roles/{member}"),
        Value::Null,
    )
    .await
    .ok(204);
    for (path, why) in [
        (
            format!("/v3/projects/{p}/users/{user}/roles/{admin}"),
            "a role that managers do not give",
        ),
        (
            format!("/v3/domains/{domain}/users/{boss}/roles/{admin}"),
            "itself an administrator",
        ),
        (
            format!("/v3/projects/{p}/users/{stranger}/roles/{member}"),
            "a user of another domain",
        ),
        (
            format!(
                "/v3/projects/{}/users/{user}/roles/{member}",
                cloud.report.admin_project
            ),
            "a foreign project",
        ),
        (
            format!("/v3/domains/default/users/{user}/roles/{member}"),
            "a foreign domain",
        ),
        (format!("/v3/system/users/{user}/roles/{member}"), "the system"),
    ] {
        assert_eq!(by("PUT", path, Value::Null).await.status, 403, "{why}");
    }
    let mut own = vec![boss.clone(), user.clone()];
    own.sort();
    assert_eq!(
        by("GET", "/v3/users".into(), Value::Null).await.ok(200).ids("users"),
        own
    );
    assert_eq!(
        by("GET", "/v3/users?domain_id=default".into(), Value::Null)
            .await
            .ok(200)
            .ids("users")
            .len(),
        0
    );
    assert_eq!(
        by("GET", "/v3/projects".into(), Value::Null)
            .await
            .ok(200)
            .ids("projects"),
        [p]
    );
    let seen = by("GET", "/v3/role_assignments?include_names".into(), Value::Null)
        .await
        .ok(200)
        .json;
    assert_eq!(triples(&seen), ["boss manager lab", "new member p"]);
    assert_eq!(
        by("GET", format!("/v3/users/{stranger}"), Value::Null).await.status,
        403
    );
    assert_eq!(
        by("DELETE", format!("/v3/users/{stranger}"), Value::Null).await.status,
        403
    );
    by("DELETE", format!("/v3/users/{user}"), Value::Null).await.ok(204);
    by("GET", "/v3/roles".into(), Value::Null).await.ok(200);
    assert_eq!(
        by(
            "PATCH",
            format!("/v3/domains/{domain}"),
            json!({"domain": {"name": "x"}})
        )
        .await
        .status,
        403
    );
}

/// Every route refuses without a token, but for those that are public; and every rule of the policy is used.
#[tokio::test]
async fn every_route_needs_a_token() {
    let cloud = Cloud::start().await;
    let service = &cloud.gateway.services()[0];
    let mut public = 0;
    for route in &service.routes {
        let path = route.path.replace('{', "x").replace('}', "");
        let answer = cloud.call(route.method.as_str(), &path, "", None).await;
        match route.access {
            maru_http::Access::Public => public += 1,
            maru_http::Access::Rule(_) => assert_eq!(answer.status, 401, "{} {}", route.method, route.path),
        }
    }
    // Discovery, authentication, the change of a password, signed requests, what is gone.
    assert_eq!(public, 9);
}
