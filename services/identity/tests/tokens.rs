//! Tokens: scopes, refusals, and attack class C (escalation by tokens).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Cloud, call, node, password, project, settings, store};
use maru_identity::rotate_keys;
use maru_identity_model::{KeyRing, touch};
use maru_store::Txn;
use serde_json::{Value, json};

/// A user with a role on a project of its own; gives user, project and a token.
struct Tenant {
    user: String,
    name: String,
    project: String,
    role: String,
    token: String,
}

async fn tenant(cloud: &Cloud, name: &str, role: &str) -> Tenant {
    let project_id = cloud
        .make("project", json!({"name": format!("p-{name}"), "domain_id": "default"}))
        .await;
    let user = cloud
        .make(
            "user",
            json!({"name": name, "domain_id": "default", "password": "tenant-pass"}),
        )
        .await;
    let role = cloud.role(role).await;
    cloud
        .put(&format!("/v3/projects/{project_id}/users/{user}/roles/{role}"))
        .await
        .ok(204);
    let token = cloud
        .login(name, "tenant-pass", project(&project_id))
        .await
        .ok(201)
        .token();
    Tenant {
        user,
        name: name.to_owned(),
        project: project_id,
        role,
        token,
    }
}

#[tokio::test]
async fn discovery_is_served_under_both_prefixes() {
    let cloud = Cloud::start().await;
    for (path, base) in [
        ("/", "http://cloud/v3/"),
        ("/identity", "http://cloud/identity/v3/"),
        ("/identity/", "http://cloud/identity/v3/"),
    ] {
        let answer = call(&cloud.gateway, "GET", path, "", None).await.ok(300);
        let v = &answer.json["versions"]["values"][0];
        assert_eq!((&v["id"], &v["status"]), (&"v3.14".into(), &"stable".into()));
        assert_eq!(v["links"][0]["href"], base, "{path}");
    }
    for path in ["/v3", "/v3/", "/identity/v3", "/identity/v3/"] {
        let answer = call(&cloud.gateway, "GET", path, "", None).await.ok(200);
        let v = &answer.json["version"];
        assert_eq!(
            v["media-types"][0]["type"],
            "application/vnd.openstack.identity-v3+json"
        );
        assert!(v["links"][0]["href"].as_str().unwrap().ends_with("/v3/"));
    }
}

#[tokio::test]
async fn each_scope_gives_its_form_of_token() {
    let cloud = Cloud::start().await;
    let admin = &cloud.report.admin_user;
    let role = cloud.role("admin").await;
    cloud
        .put(&format!("/v3/domains/default/users/{admin}/roles/{role}"))
        .await
        .ok(204);

    let t = cloud.login("admin", "admin-pass", Value::Null).await.ok(201).json["token"].clone();
    assert!(t.get("roles").is_none() && t.get("catalog").is_none() && t.get("project").is_none());
    assert_eq!(t["user"]["domain"], json!({"id": "default", "name": "Default"}));
    assert_eq!(
        (&t["methods"], &t["user"]["password_expires_at"]),
        (&json!(["password"]), &Value::Null)
    );
    assert_eq!(t["audit_ids"].as_array().unwrap().len(), 1);

    let t = cloud
        .login(
            "admin",
            "admin-pass",
            json!({"project": {"name": "admin", "domain": {"name": "Default"}}}),
        )
        .await
        .ok(201)
        .json["token"]
        .clone();
    assert_eq!(
        (&t["project"]["name"], &t["is_domain"]),
        (&"admin".into(), &false.into())
    );
    let names: Vec<_> = t["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["admin", "manager", "member", "reader"]);
    let endpoints = t["catalog"][0]["endpoints"].as_array().unwrap();
    assert_eq!((endpoints.len(), &endpoints[0]["region"]), (3, &"RegionOne".into()));

    let t = cloud
        .login("admin", "admin-pass", json!({"domain": {"id": "default"}}))
        .await
        .ok(201)
        .json["token"]
        .clone();
    assert!(t["domain"]["id"] == "default" && t.get("project").is_none() && t.get("is_domain").is_none());
    let t = cloud
        .login("admin", "admin-pass", json!({"system": {"all": true}}))
        .await
        .ok(201)
        .json["token"]
        .clone();
    assert_eq!(t["system"], json!({"all": true}));

    let body = password("admin", "admin-pass", Some(project(&cloud.report.admin_project)));
    let t = call(&cloud.gateway, "POST", "/v3/auth/tokens?nocatalog", "", Some(body))
        .await
        .ok(201);
    assert!(t.json["token"].get("catalog").is_none() && t.json["token"].get("roles").is_some());

    // The default project is taken when no scope is asked for, as long as the user has a role there.
    let a = tenant(&cloud, "ann", "member").await;
    cloud
        .patch(
            &format!("/v3/users/{}", a.user),
            json!({"user": {"default_project_id": a.project}}),
        )
        .await
        .ok(200);
    let t = cloud.login("ann", "tenant-pass", Value::Null).await.ok(201);
    assert_eq!(t.json["token"]["project"]["id"], a.project.as_str());
    let t = cloud.login("ann", "tenant-pass", json!("unscoped")).await.ok(201);
    assert!(t.json["token"].get("project").is_none());
    let t = cloud.login("ann", "tenant-pass", json!({"unscoped": {}})).await.ok(201);
    assert!(t.json["token"].get("project").is_none());
    cloud
        .delete(&format!("/v3/projects/{}/users/{}/roles/{}", a.project, a.user, a.role))
        .await
        .ok(204);
    let t = cloud.login("ann", "tenant-pass", Value::Null).await.ok(201);
    assert!(
        t.json["token"].get("project").is_none(),
        "without a role there the token is unscoped"
    );
}

#[tokio::test]
async fn every_refusal_to_authenticate_reads_the_same() {
    let cloud = Cloud::start().await;
    let a = tenant(&cloud, "ann", "member").await;
    let b = tenant(&cloud, "bob", "member").await;
    let off = tenant(&cloud, "off", "member").await;
    cloud
        .patch(&format!("/v3/users/{}", off.user), json!({"user": {"enabled": false}}))
        .await
        .ok(200);
    let mut bodies = vec![
        password("ann", "wrong", None),
        password("nobody", "tenant-pass", None),
        password("off", "tenant-pass", None),
        password("ann", "tenant-pass", Some(project(&b.project))),
        password("ann", "tenant-pass", Some(project("no-such-project"))),
        password("ann", "tenant-pass", Some(json!({"domain": {"id": "default"}}))),
        password("ann", "tenant-pass", Some(json!({"system": {"all": true}}))),
        password("ann", &"x".repeat(5_000), None),
    ];
    // A token that is none is not found, as upstream.
    let nonsense = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": "gAAAAnonsense"}}}});
    cloud.call("POST", "/v3/auth/tokens", "", Some(nonsense)).await.ok(404);
    // A password of one user and a token of another.
    let mut mixed = password("ann", "tenant-pass", None);
    mixed["auth"]["identity"]["methods"] = json!(["password", "token"]);
    mixed["auth"]["identity"]["token"] = json!({"id": b.token});
    bodies.push(mixed);
    for body in bodies {
        let answer = call(&cloud.gateway, "POST", "/v3/auth/tokens", "", Some(body.clone()))
            .await
            .ok(401);
        assert_eq!(
            answer.json,
            json!({"error": {"code": 401, "title": "Unauthorized",
                "message": "The request you have made requires authentication."}}),
            "{body}"
        );
    }
    assert!(cloud.good(&a.token).await);
}

#[tokio::test]
async fn malformed_requests_name_the_field_and_never_a_secret() {
    let cloud = Cloud::start().await;
    let secret = "s3cr3t-value";
    for (body, field) in [
        (json!({}), "auth"),
        (json!([1]), "auth"),
        (json!({"auth": {}}), "identity"),
        (json!({"auth": {"identity": {}}}), "methods"),
        (json!({"auth": {"identity": {"methods": []}}}), "methods"),
        (json!({"auth": {"identity": {"methods": "password"}}}), "methods"),
        (json!({"auth": {"identity": {"methods": [3]}}}), "methods"),
        (json!({"auth": {"identity": {"methods": ["password"]}}}), "password"),
        (
            json!({"auth": {"identity": {"methods": ["password"], "password": secret}}}),
            "password",
        ),
        (
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": secret}}}}),
            "user",
        ),
        (
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"password": secret}}}}}),
            "user.id",
        ),
        (
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "a", "password": secret}}}}}),
            "domain",
        ),
        (
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": "a", "password": {"x": secret}}}}}}),
            "password",
        ),
        (
            json!({"auth": {"identity": {"methods": ["token"], "token": {}}}}),
            "token.id",
        ),
        (password("admin", secret, Some(json!({"project": {}}))), "scope.project"),
        (
            password("admin", secret, Some(json!({"project": {"name": "x"}}))),
            "scope.project.domain",
        ),
        (
            password(
                "admin",
                secret,
                Some(json!({"project": {"id": "x"}, "domain": {"id": "y"}})),
            ),
            "scope",
        ),
        (password("admin", secret, Some(json!({"system": {}}))), "system"),
        (password("admin", secret, Some(json!({"planet": {}}))), "scope"),
        (password("admin", secret, Some(json!("scoped"))), "scope"),
    ] {
        let answer = call(&cloud.gateway, "POST", "/v3/auth/tokens", "", Some(body.clone())).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.message().contains(field), "{body}: {}", answer.text);
        assert!(!answer.text.contains(secret), "{}", answer.text);
    }
    let unsupported = json!({"auth": {"identity": {"methods": ["kerberos"], "totp": {}}}});
    call(&cloud.gateway, "POST", "/v3/auth/tokens", "", Some(unsupported))
        .await
        .ok(401);
    for (bytes, status) in [
        (b"{\"auth\":".to_vec(), 400),
        (vec![0xff, 0xfe, b'{', b'}'], 400),
        ([b"[".repeat(200), b"]".repeat(200)].concat(), 400),
        (vec![b' '; 2 << 20], 413),
        (Vec::new(), 400),
    ] {
        let request = http::Request::post("/v3/auth/tokens").body(Bytes::from(bytes)).unwrap();
        assert_eq!(cloud.send(request).await.status, status);
    }
}

#[tokio::test]
async fn a_token_by_a_token_keeps_its_end_and_its_chain() {
    let cloud = Cloud::start().await;
    let a = tenant(&cloud, "ann", "member").await;
    let first = cloud.login("ann", "tenant-pass", json!("unscoped")).await.ok(201);
    let by = |token: String, scope: Value| {
        let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope}});
        async { call(&cloud.gateway, "POST", "/v3/auth/tokens", "", Some(body)).await }
    };
    let second = by(first.token(), project(&a.project)).await.ok(201);
    let third = by(second.token(), json!("unscoped")).await.ok(201);
    for t in [&second, &third] {
        assert_eq!(t.json["token"]["expires_at"], first.json["token"]["expires_at"]);
        assert_eq!(t.json["token"]["methods"], json!(["password", "token"]));
        assert_eq!(t.json["token"]["audit_ids"][1], first.json["token"]["audit_ids"][0]);
    }
    assert_eq!(
        by(second.token(), json!({"system": {"all": true}})).await.status,
        401,
        "no role, no scope"
    );
}

#[tokio::test]
async fn tokens_are_shown_checked_and_ended_by_those_who_may() {
    let cloud = Cloud::start().await;
    let a = tenant(&cloud, "ann", "member").await;
    let b = tenant(&cloud, "bob", "member").await;
    let ask = |method: &'static str, caller: String, subject: String| {
        let request = http::Request::builder()
            .method(method)
            .uri("/identity/v3/auth/tokens")
            .header("x-auth-token", caller)
            .header("x-subject-token", subject)
            .body(Bytes::new())
            .unwrap();
        async { cloud.send(request).await }
    };
    for caller in [&cloud.admin, &a.token] {
        let shown = ask("GET", caller.clone(), a.token.clone()).await.ok(200);
        assert_eq!(shown.json["token"]["user"]["name"], "ann");
        assert!(shown.json["token"]["catalog"].is_array());
        assert_eq!(shown.token(), a.token);
        assert!(
            ask("HEAD", caller.clone(), a.token.clone())
                .await
                .ok(200)
                .text
                .is_empty()
        );
    }
    assert_eq!(ask("GET", b.token.clone(), a.token.clone()).await.status, 403);
    assert_eq!(ask("DELETE", b.token.clone(), a.token.clone()).await.status, 403);
    assert_eq!(ask("GET", cloud.admin.clone(), "gAAAAno".to_owned()).await.status, 404);
    assert_eq!(cloud.get("/v3/auth/tokens").await.status, 404, "without a subject");
    ask("DELETE", a.token.clone(), a.token.clone()).await.ok(204);
    assert!(!cloud.good(&a.token).await);
    assert_eq!(
        call(&cloud.gateway, "GET", "/v3/auth/projects", &a.token, None)
            .await
            .status,
        401
    );
    assert!(cloud.good(&b.token).await);
    let again = cloud
        .login("ann", "tenant-pass", project(&a.project))
        .await
        .ok(201)
        .token();
    assert!(cloud.good(&again).await, "one token ended, not the user's next");
}

/// C: whatever takes a right away takes it from the tokens that exist, at once, on every node.
#[tokio::test]
async fn class_c_revocations_hold_at_once_on_every_node() {
    let cloud = Cloud::start().await;
    let (_, other) = node(&cloud.store, settings());
    let reader = cloud.role("reader").await;
    let cases: &[&str] = &[
        "role removed",
        "user disabled",
        "user deleted",
        "password set",
        "password changed",
        "project disabled",
        "project deleted",
        "domain disabled",
        "left the group",
        "group deleted",
        "role deleted",
        "inherited role removed",
    ];
    for (n, case) in cases.iter().enumerate() {
        let domain = cloud.make("domain", json!({"name": format!("d{n}")})).await;
        let p = cloud.make("project", json!({"name": "p", "domain_id": domain})).await;
        let user = cloud
            .make(
                "user",
                json!({"name": "u", "domain_id": domain, "password": "tenant-pass"}),
            )
            .await;
        let group = cloud.make("group", json!({"name": "g", "domain_id": domain})).await;
        let role = cloud.make("role", json!({"name": format!("r{n}")})).await;
        let grant = match *case {
            "left the group" | "group deleted" => {
                cloud.put(&format!("/v3/groups/{group}/users/{user}")).await.ok(204);
                format!("/v3/projects/{p}/groups/{group}/roles/{reader}")
            }
            "inherited role removed" => {
                format!("/v3/OS-INHERIT/domains/{domain}/users/{user}/roles/{reader}/inherited_to_projects")
            }
            "role deleted" => format!("/v3/projects/{p}/users/{user}/roles/{role}"),
            _ => format!("/v3/projects/{p}/users/{user}/roles/{reader}"),
        };
        cloud.put(&grant).await.ok(204);
        let login = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": user,
            "password": "tenant-pass"}}}, "scope": {"project": {"id": p}}}});
        let token = cloud
            .call("POST", "/v3/auth/tokens", "", Some(login))
            .await
            .ok(201)
            .token();
        for gateway in [&cloud.gateway, &other] {
            call(gateway, "GET", "/v3/auth/catalog", &token, None).await.ok(200);
        }
        let off = |what: &str| json!({ what: {"enabled": false}});
        match *case {
            "role removed" | "inherited role removed" => cloud.delete(&grant).await.ok(204),
            "user disabled" => cloud.patch(&format!("/v3/users/{user}"), off("user")).await.ok(200),
            "user deleted" => cloud.delete(&format!("/v3/users/{user}")).await.ok(204),
            "password set" => cloud
                .patch(&format!("/v3/users/{user}"), json!({"user": {"password": "new"}}))
                .await
                .ok(200),
            "password changed" => {
                let body = json!({"user": {"original_password": "tenant-pass", "password": "new"}});
                let path = format!("/v3/users/{user}/password");
                cloud.call("POST", &path, &token, Some(body)).await.ok(204)
            }
            "project disabled" => cloud.patch(&format!("/v3/projects/{p}"), off("project")).await.ok(200),
            "project deleted" => cloud.delete(&format!("/v3/projects/{p}")).await.ok(204),
            "domain disabled" => cloud
                .patch(&format!("/v3/domains/{domain}"), off("domain"))
                .await
                .ok(200),
            "left the group" => cloud.delete(&format!("/v3/groups/{group}/users/{user}")).await.ok(204),
            "group deleted" => cloud.delete(&format!("/v3/groups/{group}")).await.ok(204),
            "role deleted" => cloud.delete(&format!("/v3/roles/{role}")).await.ok(204),
            other => panic!("{other}"),
        };
        for gateway in [&cloud.gateway, &other] {
            assert_eq!(
                call(gateway, "GET", "/v3/auth/catalog", &token, None).await.status,
                401,
                "{case}"
            );
        }
        assert!(!cloud.good(&token).await, "{case}");
        // What was switched off and on again does not wake old tokens.
        let on = |what: &str| json!({ what: {"enabled": true}});
        match *case {
            "user disabled" => drop(cloud.patch(&format!("/v3/users/{user}"), on("user")).await.ok(200)),
            "project disabled" => drop(cloud.patch(&format!("/v3/projects/{p}"), on("project")).await.ok(200)),
            "domain disabled" => drop(
                cloud
                    .patch(&format!("/v3/domains/{domain}"), on("domain"))
                    .await
                    .ok(200),
            ),
            _ => continue,
        }
        assert!(!cloud.good(&token).await, "{case}, and undone");
    }
}

#[tokio::test]
async fn a_removed_role_leaves_the_token_with_the_others() {
    let cloud = Cloud::start().await;
    let a = tenant(&cloud, "ann", "reader").await;
    let admin = cloud.role("admin").await;
    let grant = format!("/v3/projects/{}/users/{}/roles/{admin}", a.project, a.user);
    cloud.put(&grant).await.ok(204);
    call(&cloud.gateway, "GET", "/v3/users", &a.token, None).await.ok(200);
    cloud.delete(&grant).await.ok(204);
    assert_eq!(
        call(&cloud.gateway, "GET", "/v3/users", &a.token, None).await.status,
        403
    );
    let roles = cloud.validate(&a.token).await.ok(200).json["token"]["roles"].clone();
    assert_eq!(roles.as_array().unwrap().len(), 1);
}

/// C7 and scope confusion: nothing but the token says who calls.
#[tokio::test]
async fn class_c_headers_and_altered_tokens_give_nothing() {
    let cloud = Cloud::start().await;
    let a = tenant(&cloud, "ann", "reader").await;
    for header in [
        "x-roles",
        "x-role",
        "x-is-admin-project",
        "x-user-id",
        "x-project-id",
        "x-identity-status",
        "openstack-system-scope",
    ] {
        let request = http::Request::get("/v3/users")
            .header(
                header,
                if header == "x-user-id" {
                    cloud.report.admin_user.as_str()
                } else {
                    "admin"
                },
            )
            .header("x-auth-token", &a.token);
        assert_eq!(
            cloud.send(request.body(Bytes::new()).unwrap()).await.status,
            403,
            "{header}"
        );
        let request = http::Request::get("/v3/users")
            .header(header, "admin")
            .body(Bytes::new())
            .unwrap();
        assert_eq!(cloud.send(request).await.status, 401, "{header}");
    }
    let text = a.token.as_bytes();
    for at in 0..text.len() {
        let mut altered = text.to_vec();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        if altered == text {
            continue;
        }
        let altered = String::from_utf8(altered).unwrap();
        let status = call(&cloud.gateway, "GET", "/v3/auth/catalog", &altered, None)
            .await
            .status;
        // The last digit of Base64 may carry bits that mean nothing.
        assert!(status == 401 || at == text.len() - 1, "{at}");
    }
    let stranger = store();
    let ring = cloud.store.snapshot().get::<KeyRing>(&KeyRing::the()).unwrap();
    maru_identity::bootstrap(&stranger, &common::config()).await.unwrap();
    let mut txn = Txn::new();
    txn.put(&KeyRing::the(), &*ring.value);
    touch(&mut txn);
    stranger.commit(txn).await.unwrap();
    let (_, gateway) = node(&stranger, settings());
    let status = call(&gateway, "GET", "/v3/auth/catalog", &cloud.admin, None)
        .await
        .status;
    assert_eq!(
        status, 401,
        "a token of another incarnation of the store, even under the same keys"
    );
}

#[tokio::test]
async fn keys_rotate_without_ending_tokens_before_their_time() {
    let cloud = Cloud::start().await;
    let (_, other) = node(&cloud.store, settings());
    let old = cloud.admin.clone();
    let ask = |token: String| {
        let (app, gateway) = node(&cloud.store, settings());
        drop(app);
        async move { call(&gateway, "GET", "/v3/auth/projects", &token, None).await.status }
    };
    for _ in 0..2 {
        rotate_keys(&cloud.app).await.unwrap();
        assert_eq!(
            ask(old.clone()).await,
            200,
            "a node that never saw the token opens it with a kept key"
        );
        let new = cloud.login("admin", "admin-pass", Value::Null).await.ok(201).token();
        assert_eq!(call(&other, "GET", "/v3/auth/projects", &new, None).await.status, 200);
    }
    rotate_keys(&cloud.app).await.unwrap();
    assert_eq!(ask(old).await, 401, "its key is gone");
}

#[tokio::test]
async fn a_bootstrap_repeats_without_a_trace() {
    let cloud = Cloud::start().await;
    let before = cloud.store.snapshot().revision();
    let again = maru_identity::bootstrap(&cloud.store, &common::config()).await.unwrap();
    assert_eq!((again.created.len(), &again.admin_user), (0, &cloud.report.admin_user));
    assert!(cloud.good(&cloud.admin).await);
    assert!(
        cloud.store.snapshot().revision() <= before + 2,
        "nothing but empty transactions"
    );
    let other = maru_identity::Bootstrap {
        admin_password: maru_identity::Secret::new("other"),
        ..common::config()
    };
    maru_identity::bootstrap(&cloud.store, &other).await.unwrap();
    cloud.login("admin", "other", Value::Null).await.ok(401);
    maru_identity::bootstrap(
        &cloud.store,
        &maru_identity::Bootstrap {
            reset_password: true,
            ..other
        },
    )
    .await
    .unwrap();
    cloud.login("admin", "other", Value::Null).await.ok(201);
    let a = tenant(&cloud, "ann", "member").await;
    let issued = maru_identity::issue_for_tests(
        &cloud.app,
        &a.user.as_str().into(),
        maru_auth::Scope::Project(a.project.into()),
    );
    assert!(cloud.good(&issued.unwrap()).await);
    assert_eq!(a.name, "ann");
}
