//! Domains, projects, users, groups, the catalogue, credentials: verbs, filters, pages, cascades, races.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cloud, project};
use maru_identity_model as model;
use serde_json::{Value, json};

#[tokio::test]
async fn projects_have_their_shape_tags_and_tree() {
    let cloud = Cloud::start().await;
    let made = cloud
        .post("/v3/projects", json!({"project": {"name": " demo ", "color": "red"}}))
        .await
        .ok(201)
        .json;
    let p = &made["project"];
    let id = p["id"].as_str().unwrap().to_owned();
    assert_eq!(
        *p,
        json!({"id": id, "name": "demo", "domain_id": "default", "description": "", "enabled": true,
            "parent_id": "default", "is_domain": false, "tags": [], "options": {}, "color": "red",
            "links": {"self": format!("http://cloud/v3/projects/{id}")}})
    );
    assert_eq!(
        cloud
            .post("/v3/projects", json!({"project": {"name": "demo"}}))
            .await
            .status,
        409
    );
    let child = cloud
        .make("project", json!({"name": "child", "parent_id": id, "tags": ["b", "a"]}))
        .await;
    let grand = cloud
        .make("project", json!({"name": "grand", "parent_id": child}))
        .await;
    let url = format!("/v3/projects/{grand}");
    let shown = cloud.get(&format!("{url}?parents_as_ids")).await.ok(200).json;
    assert_eq!(
        shown["project"]["parents"],
        json!({ child.as_str(): { id.as_str(): {"default": null}}})
    );
    let shown = cloud
        .get(&format!("/v3/projects/{id}?subtree_as_ids"))
        .await
        .ok(200)
        .json;
    assert_eq!(
        shown["project"]["subtree"],
        json!({ child.as_str(): { grand.as_str(): null}})
    );
    let member = cloud.role("member").await;
    cloud
        .put(&format!(
            "/v3/projects/{child}/users/{}/roles/{member}",
            cloud.report.admin_user
        ))
        .await
        .ok(204);
    let shown = cloud.get(&format!("{url}?parents_as_list")).await.ok(200).json;
    let names: Vec<_> = shown["project"]["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["project"]["name"])
        .collect();
    assert_eq!(names, ["child"], "only where the caller has a role");
    assert_eq!(
        cloud.get(&format!("{url}?parents_as_list&parents_as_ids")).await.status,
        400
    );

    assert_eq!(
        cloud.delete(&format!("/v3/projects/{child}")).await.status,
        403,
        "not a leaf"
    );
    let off = json!({"project": {"enabled": false}});
    assert_eq!(
        cloud.patch(&format!("/v3/projects/{child}"), off.clone()).await.status,
        403,
        "an enabled child"
    );
    cloud.patch(&url, off.clone()).await.ok(200);
    cloud.patch(&format!("/v3/projects/{child}"), off).await.ok(200);
    assert_eq!(
        cloud.patch(&url, json!({"project": {"enabled": true}})).await.status,
        403,
        "a disabled parent"
    );
    let under = json!({"project": {"name": "x", "parent_id": child}});
    assert_eq!(cloud.post("/v3/projects", under).await.status, 400, "a disabled branch");
    for (body, status) in [
        (json!({"project": {"parent_id": "default"}}), 403),
        (json!({"project": {"is_domain": true}}), 400),
        (json!({"project": {"domain_id": "other"}}), 400),
        (json!({"project": {}}), 400),
    ] {
        assert_eq!(cloud.patch(&url, body.clone()).await.status, status, "{body}");
    }
    // Tags.
    let tags = format!("/v3/projects/{child}/tags");
    assert_eq!(cloud.get(&tags).await.ok(200).json["tags"], json!(["a", "b"]));
    cloud.put(&format!("{tags}/c%20d")).await.ok(201);
    cloud.get(&format!("{tags}/c%20d")).await.ok(204);
    assert_eq!(cloud.get(&format!("{tags}/zz")).await.status, 404);
    cloud.delete(&format!("{tags}/a")).await.ok(204);
    let with_tag = |query: &str| format!("/v3/projects?{query}");
    assert_eq!(
        cloud.get(&with_tag("tags=b,c%20d")).await.ids("projects"),
        std::slice::from_ref(&child)
    );
    assert_eq!(
        cloud.get(&with_tag("tags-any=b,zz")).await.ids("projects"),
        std::slice::from_ref(&child)
    );
    assert!(
        !cloud
            .get(&with_tag("not-tags-any=b"))
            .await
            .ids("projects")
            .contains(&child)
    );
    cloud
        .call("PUT", &tags, &cloud.admin, Some(json!({"tags": ["x"]})))
        .await
        .ok(200);
    assert_eq!(
        cloud
            .call("PUT", &tags, &cloud.admin, Some(json!({"tags": ["x", "x"]})))
            .await
            .status,
        400
    );
    assert_eq!(
        cloud
            .call("PUT", &tags, &cloud.admin, Some(json!({"tags": ["a,b"]})))
            .await
            .status,
        400
    );
    cloud.delete(&tags).await.ok(204);
    // Depth.
    let mut parent = id.clone();
    for n in 0..4 {
        parent = cloud
            .make("project", json!({"name": format!("n{n}"), "parent_id": parent}))
            .await;
    }
    let deep = json!({"project": {"name": "deep", "parent_id": parent}});
    assert_eq!(cloud.post("/v3/projects", deep).await.status, 403);
    // Immutable.
    let fixed = cloud
        .make("project", json!({"name": "fixed", "options": {"immutable": true}}))
        .await;
    let fixed = format!("/v3/projects/{fixed}");
    assert_eq!(cloud.delete(&fixed).await.status, 403);
    assert_eq!(cloud.patch(&fixed, json!({"project": {"name": "y"}})).await.status, 403);
    cloud
        .patch(&fixed, json!({"project": {"options": {"immutable": null}}}))
        .await
        .ok(200);
    cloud.delete(&fixed).await.ok(204);
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let cloud = Cloud::start().await;
    let long = "x".repeat(256);
    for (path, kind, body, field) in [
        ("projects", "project", json!({}), "name"),
        ("projects", "project", json!({"name": ""}), "name"),
        ("projects", "project", json!({"name": "  "}), "name"),
        ("projects", "project", json!({"name": "x".repeat(65)}), "name"),
        ("projects", "project", json!({"name": 5}), "name"),
        (
            "projects",
            "project",
            json!({"name": "x", "enabled": "false"}),
            "enabled",
        ),
        (
            "projects",
            "project",
            json!({"name": "x", "description": 5}),
            "description",
        ),
        ("projects", "project", json!({"name": "x", "tags": "x"}), "tags"),
        (
            "projects",
            "project",
            json!({"name": "x", "options": {"other": 1}}),
            "options",
        ),
        (
            "projects",
            "project",
            json!({"name": "x", "domain_id": ""}),
            "domain_id",
        ),
        ("domains", "domain", json!({"name": ""}), "name"),
        (
            "domains",
            "domain",
            json!({"name": "x", "explicit_domain_id": "zz"}),
            "explicit_domain_id",
        ),
        ("users", "user", json!({"name": long}), "name"),
        ("users", "user", json!({"name": "x", "password": 5}), "password"),
        (
            "users",
            "user",
            json!({"name": "x", "password": "x".repeat(5_000)}),
            "password",
        ),
        (
            "users",
            "user",
            json!({"name": "x", "default_project_id": "default"}),
            "default project",
        ),
        (
            "users",
            "user",
            json!({"name": "x", "options": {"nope": true}}),
            "options",
        ),
        ("groups", "group", json!({"description": "x"}), "name"),
        ("roles", "role", json!({"name": null}), "name"),
        ("services", "service", json!({"name": "x"}), "type"),
        ("services", "service", json!({"type": "x", "enabled": "yes"}), "enabled"),
        (
            "endpoints",
            "endpoint",
            json!({"interface": "public", "url": "http://x"}),
            "service_id",
        ),
        (
            "endpoints",
            "endpoint",
            json!({"service_id": "x", "interface": "private", "url": "http://x"}),
            "interface",
        ),
        (
            "endpoints",
            "endpoint",
            json!({"service_id": "x", "interface": "public", "url": "http://$(x)s"}),
            "url",
        ),
        (
            "endpoints",
            "endpoint",
            json!({"service_id": "x", "interface": "public", "url": "http://x"}),
            "service",
        ),
        ("credentials", "credential", json!({"type": "ec2"}), "blob"),
    ] {
        let answer = cloud.post(&format!("/v3/{path}"), json!({ kind: body })).await;
        assert_eq!(answer.status, 400, "{kind} {body}: {}", answer.text);
        assert!(answer.message().contains(field), "{kind} {body}: {}", answer.text);
    }
    for body in [
        json!({"user": {"name": "x"}, "other": 1}),
        json!({"project": {"name": "x"}}),
        json!({"user": [1]}),
    ] {
        assert_eq!(cloud.post("/v3/users", body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(
        cloud
            .post("/v3/users", json!({"user": {"name": "x", "domain_id": "nowhere"}}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn lists_filter_and_page() {
    let cloud = Cloud::start().await;
    for n in 0..7 {
        let enabled = n % 2 == 0;
        cloud
            .make(
                "user",
                json!({"name": format!("Member-{n}"), "enabled": enabled, "email": "m@x"}),
            )
            .await;
    }
    let count = async |query: &str| {
        cloud
            .get(&format!("/v3/users?{query}"))
            .await
            .ok(200)
            .ids("users")
            .len()
    };
    assert_eq!(count("name=Member-3").await, 1);
    assert_eq!(count("name__contains=ember").await, 7);
    assert_eq!(count("name__icontains=mEMBER").await, 7);
    assert_eq!(count("name__startswith=member").await, 0);
    assert_eq!(count("name__istartswith=member").await, 7);
    assert_eq!(count("name__endswith=-3").await, 1);
    assert_eq!(count("name__icontains=mem&enabled=false").await, 3);
    assert_eq!(count("name__icontains=mem&enabled=0").await, 3);
    assert_eq!(count("name__icontains=mem&enabled").await, 4);
    assert_eq!(count("domain_id=nowhere").await, 0);
    assert_eq!(count("unknown=filter").await, 8);
    let mut seen = Vec::new();
    let mut next = Some("/v3/users?limit=3&name__icontains=mem".to_owned());
    let mut pages = 0;
    while let Some(url) = next {
        let page = cloud.get(&url).await.ok(200);
        seen.extend(page.ids("users"));
        next = page.json["links"]["next"]
            .as_str()
            .map(|l| l.trim_start_matches("http://cloud").to_owned());
        pages += 1;
    }
    seen.sort();
    seen.dedup();
    assert_eq!((pages, seen.len()), (3, 7));
    assert_eq!(cloud.get("/v3/users?limit=x").await.status, 400);
    assert_eq!(cloud.get("/v3/users?marker=nope").await.status, 400);
    let all = cloud.get("/v3/projects").await.ok(200);
    assert_eq!(
        all.json["links"],
        json!({"next": null, "previous": null, "self": "http://cloud/v3/projects"})
    );
    assert_eq!(
        cloud.get("/v3/projects?is_domain=true").await.ids("projects"),
        ["default"]
    );
}

#[tokio::test]
async fn users_change_and_their_form_is_keystones() {
    let cloud = Cloud::start().await;
    let made = cloud
        .post(
            "/v3/users",
            json!({"user": {"name": "ann", "email": "a@b", "password": "pw", "id": "mine"}}),
        )
        .await
        .ok(201)
        .json;
    let id = made["user"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made["user"],
        json!({"id": id, "name": "ann", "domain_id": "default", "enabled": true, "email": "a@b", "options": {},
            "password_expires_at": null, "links": {"self": format!("http://cloud/v3/users/{id}")}})
    );
    let url = format!("/v3/users/{id}");
    let body = json!({"user": {"name": "anna", "description": "d", "options": {"lock_password": true}}});
    let changed = cloud.patch(&url, body).await.ok(200).json;
    assert_eq!(
        (&changed["user"]["name"], &changed["user"]["email"]),
        (&"anna".into(), &"a@b".into())
    );
    cloud.login("anna", "pw", Value::Null).await.ok(201);
    let change = json!({"user": {"original_password": "pw", "password": "pw2"}});
    assert_eq!(
        cloud.post(&format!("{url}/password"), change.clone()).await.status,
        403,
        "locked"
    );
    cloud
        .patch(&url, json!({"user": {"options": {"lock_password": null}}}))
        .await
        .ok(200);
    cloud.post(&format!("{url}/password"), change.clone()).await.ok(204);
    assert_eq!(cloud.post(&format!("{url}/password"), change).await.status, 401);
    cloud.login("anna", "pw2", Value::Null).await.ok(201);
    cloud.make("user", json!({"name": "ann"})).await;
    assert_eq!(cloud.patch(&url, json!({"user": {"name": "ann"}})).await.status, 409);
    assert_eq!(cloud.patch(&url, json!({"user": {"domain_id": "x"}})).await.status, 400);
    cloud.patch(&url, json!({"user": {"password": null}})).await.ok(200);
    cloud.login("anna", "pw2", Value::Null).await.ok(401);
    cloud.delete(&url).await.ok(204);
    assert_eq!(cloud.get(&url).await.status, 404);
    assert_eq!(cloud.delete(&url).await.status, 404);
}

/// D: a tenant reaches nothing of others, by any verb.
#[tokio::test]
async fn class_d_a_member_reaches_only_itself() {
    let cloud = Cloud::start().await;
    let member = cloud.role("member").await;
    let p = cloud.make("project", json!({"name": "p"})).await;
    let q = cloud.make("project", json!({"name": "q"})).await;
    let ann = cloud.make("user", json!({"name": "ann", "password": "pw"})).await;
    let bob = cloud.make("user", json!({"name": "bob", "password": "pw"})).await;
    let group = cloud.make("group", json!({"name": "g"})).await;
    let of_bob = cloud
        .make("credential", json!({"type": "totp", "blob": "seed", "user_id": bob}))
        .await;
    cloud
        .put(&format!("/v3/projects/{p}/users/{ann}/roles/{member}"))
        .await
        .ok(204);
    let token = cloud.login("ann", "pw", project(&p)).await.ok(201).token();
    let domain = cloud.make("domain", json!({"name": "other"})).await;
    for (method, path, status) in [
        ("GET", format!("/v3/users/{ann}"), 200),
        ("GET", format!("/v3/users/{ann}/projects"), 200),
        ("GET", format!("/v3/users/{ann}/groups"), 200),
        ("GET", format!("/v3/projects/{p}"), 200),
        ("GET", "/v3/domains/default".to_owned(), 200),
        ("GET", "/v3/regions".to_owned(), 200),
        ("GET", format!("/v3/users/{bob}"), 403),
        ("GET", "/v3/users/no-such-user".to_owned(), 403),
        ("PATCH", format!("/v3/users/{ann}"), 403),
        ("DELETE", format!("/v3/users/{ann}"), 403),
        ("GET", format!("/v3/users/{bob}/projects"), 403),
        ("GET", format!("/v3/projects/{q}"), 403),
        ("PATCH", format!("/v3/projects/{p}"), 403),
        ("PUT", format!("/v3/projects/{p}/tags/x"), 403),
        ("DELETE", format!("/v3/projects/{q}/tags"), 403),
        ("GET", format!("/v3/domains/{domain}"), 403),
        ("DELETE", format!("/v3/domains/{domain}"), 403),
        ("GET", format!("/v3/groups/{group}"), 403),
        ("PUT", format!("/v3/groups/{group}/users/{ann}"), 403),
        ("PUT", format!("/v3/projects/{q}/users/{ann}/roles/{member}"), 403),
        ("PUT", format!("/v3/system/users/{ann}/roles/{member}"), 403),
        ("DELETE", format!("/v3/projects/{p}/users/{ann}/roles/{member}"), 403),
        ("GET", "/v3/role_assignments".to_owned(), 403),
        ("GET", "/v3/roles".to_owned(), 403),
        ("PUT", format!("/v3/roles/{member}/implies/{member}"), 403),
        ("GET", "/v3/services".to_owned(), 403),
        ("POST", "/v3/endpoints".to_owned(), 403),
        ("GET", format!("/v3/credentials/{of_bob}"), 403),
        ("PATCH", format!("/v3/credentials/{of_bob}"), 403),
        ("DELETE", format!("/v3/credentials/{of_bob}"), 403),
    ] {
        let answer = cloud.call(method, &path, &token, None).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
    }
    // C1: a list of credentials has one's own alone.
    let mine = cloud.call(
        "POST",
        "/v3/credentials",
        &token,
        Some(json!({"credential": {"type": "totp", "blob": "s"}})),
    );
    let mine = mine.await.ok(201).json["credential"]["id"].as_str().unwrap().to_owned();
    for query in ["", &format!("?user_id={bob}")] {
        let ids = cloud
            .call("GET", &format!("/v3/credentials{query}"), &token, None)
            .await
            .ok(200)
            .ids("credentials");
        assert!(ids.is_empty() || ids == std::slice::from_ref(&mine), "{query}");
    }
    let theirs = json!({"credential": {"type": "totp", "blob": "s", "user_id": bob}});
    assert_eq!(
        cloud.call("POST", "/v3/credentials", &token, Some(theirs)).await.status,
        403
    );
    // C3: it does not change hands.
    let give = json!({"credential": {"user_id": bob}});
    assert_eq!(
        cloud
            .call("PATCH", &format!("/v3/credentials/{mine}"), &token, Some(give.clone()))
            .await
            .status,
        400
    );
    assert_eq!(cloud.patch(&format!("/v3/credentials/{mine}"), give).await.status, 400);
}

#[tokio::test]
async fn a_deleted_domain_takes_all_with_it() {
    let cloud = Cloud::start().await;
    let before = counts(&cloud);
    let domain = cloud.make("domain", json!({"name": "lab"})).await;
    let url = format!("/v3/domains/{domain}");
    let p = cloud.make("project", json!({"name": "p", "domain_id": domain})).await;
    let sub = cloud.make("project", json!({"name": "sub", "parent_id": p})).await;
    let user = cloud
        .make(
            "user",
            json!({"name": "u", "domain_id": domain, "password": "x", "default_project_id": sub}),
        )
        .await;
    let outsider = cloud
        .make("user", json!({"name": "out", "default_project_id": p}))
        .await;
    let group = cloud.make("group", json!({"name": "g", "domain_id": domain})).await;
    let role = cloud.make("role", json!({"name": "r", "domain_id": domain})).await;
    let reader = cloud.role("reader").await;
    for path in [
        format!("/v3/groups/{group}/users/{user}"),
        format!("/v3/groups/{group}/users/{outsider}"),
        format!("/v3/projects/{sub}/users/{user}/roles/{role}"),
        format!("/v3/projects/{sub}/users/{outsider}/roles/{reader}"),
        format!("/v3/domains/{domain}/groups/{group}/roles/{reader}"),
        format!("/v3/OS-INHERIT/domains/{domain}/users/{outsider}/roles/{reader}/inherited_to_projects"),
    ] {
        cloud.put(&path).await.ok(204);
    }
    cloud
        .make("credential", json!({"type": "cert", "blob": "b", "user_id": user}))
        .await;
    cloud
        .make(
            "credential",
            json!({"type": "cert", "blob": "b", "user_id": outsider, "project_id": p}),
        )
        .await;
    assert_eq!(cloud.delete(&url).await.status, 403, "enabled");
    cloud.patch(&url, json!({"domain": {"enabled": false}})).await.ok(200);
    cloud.delete(&url).await.ok(204);
    let left = cloud.get(&format!("/v3/users/{outsider}")).await.ok(200);
    assert!(left.json["user"].get("default_project_id").is_none());
    cloud.delete(&format!("/v3/users/{outsider}")).await.ok(204);
    assert_eq!(counts(&cloud), before, "nothing is left");
    let snapshot = cloud.store.snapshot();
    let names: Vec<_> = snapshot
        .raw_under(&maru_store::Key::prefix(&["uniq"]))
        .map(|(k, _)| k.to_string())
        .collect();
    assert!(
        !names.iter().any(|k| k.contains("lab") || k.contains(&domain)),
        "{names:?}"
    );
    cloud.make("domain", json!({"name": "lab"})).await;
}

fn counts(cloud: &Cloud) -> Vec<usize> {
    let s = cloud.store.snapshot();
    vec![
        s.count::<model::Project>(),
        s.count::<model::User>(),
        s.count::<model::Password>(),
        s.count::<model::Group>(),
        s.count::<model::Membership>(),
        s.count::<model::Role>(),
        s.count::<model::Assignment>(),
        s.count::<model::Credential>(),
        s.count::<model::Revocation>(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn names_are_unique_however_many_ask_at_once() {
    let cloud = Cloud::start().await;
    for kind in ["project", "user", "group", "role", "domain"] {
        let path = format!("/v3/{kind}s");
        let tries = (0..12).map(|_| cloud.spawn("POST", &path, Some(json!({ kind: {"name": "same"}}))));
        let answers: Vec<_> = futures_util::future::join_all(tries)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let made = answers.iter().filter(|a| a.status == 201).count();
        let refused = answers.iter().filter(|a| a.status == 409).count();
        assert_eq!((made, refused), (1, 11), "{kind}");
    }
}

/// Whoever wins, no child is left without its parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_parent_deleted_while_children_come_leaves_no_orphan() {
    let cloud = Cloud::start().await;
    let reader = cloud.role("reader").await;
    for round in 0..12 {
        let p = cloud.make("project", json!({"name": format!("p{round}")})).await;
        let user = cloud.make("user", json!({"name": format!("u{round}")})).await;
        let child = json!({"project": {"name": format!("c{round}"), "parent_id": p}});
        let mut calls = vec![
            ("DELETE", format!("/v3/projects/{p}"), None),
            ("POST", "/v3/projects".to_owned(), Some(child)),
            ("PUT", format!("/v3/projects/{p}/users/{user}/roles/{reader}"), None),
        ];
        calls.rotate_left(round % 3);
        let calls = calls
            .into_iter()
            .map(|(method, path, body)| cloud.spawn(method, &path, body));
        for answer in futures_util::future::join_all(calls).await {
            let answer = answer.unwrap();
            assert!(answer.status < 500, "{}", answer.text);
        }
        let s = cloud.store.snapshot();
        for object in s.list::<model::Project>() {
            if let Some(parent) = &object.parent_id {
                assert!(s.get::<model::Project>(parent).is_some(), "an orphan of {parent}");
            }
        }
        for a in s.list::<model::Assignment>() {
            if let model::AssignmentTarget::Project(id) = &a.target {
                assert!(s.get::<model::Project>(id).is_some(), "an assignment on nothing");
            }
        }
    }
}

#[tokio::test]
async fn the_catalogue_is_kept_and_substituted() {
    let cloud = Cloud::start().await;
    let region = cloud.call(
        "PUT",
        "/v3/regions/North",
        &cloud.admin,
        Some(json!({"region": {"description": "n"}})),
    );
    assert_eq!(region.await.ok(201).json["region"]["id"], "North");
    let child = cloud
        .make("region", json!({"id": "North-1", "parent_region_id": "North"}))
        .await;
    assert_eq!(
        cloud.get("/v3/regions?parent_region_id=North").await.ids("regions"),
        std::slice::from_ref(&child)
    );
    assert_eq!(
        cloud
            .post("/v3/regions", json!({"region": {"id": "North"}}))
            .await
            .status,
        409
    );
    let circle = json!({"region": {"parent_region_id": child}});
    assert_eq!(cloud.patch("/v3/regions/North", circle).await.status, 400);
    let service = cloud
        .make(
            "service",
            json!({"type": "object-store", "name": "swift", "description": "d"}),
        )
        .await;
    let endpoint = cloud
        .make(
            "endpoint",
            json!({"service_id": service, "region_id": "North", "interface": "public",
            "url": "http://s/v1/AUTH_$(project_id)s"}),
        )
        .await;
    let shown = cloud.get(&format!("/v3/endpoints/{endpoint}")).await.ok(200).json;
    assert_eq!(
        (&shown["endpoint"]["region"], &shown["endpoint"]["enabled"]),
        (&"North".into(), &true.into())
    );
    assert_eq!(cloud.delete("/v3/regions/North").await.status, 403);
    let url = async || {
        let catalog = cloud.get("/v3/auth/catalog").await.ok(200).json["catalog"].clone();
        let services = catalog.as_array().unwrap();
        let swift = services.iter().find(|s| s["name"] == "swift").cloned();
        swift.and_then(|s| s["endpoints"][0]["url"].as_str().map(str::to_owned))
    };
    assert_eq!(
        url().await,
        Some(format!("http://s/v1/AUTH_{}", cloud.report.admin_project))
    );
    assert!(
        cloud.validate(&cloud.admin).await.text.contains("AUTH_"),
        "the token that was cached shows it, too"
    );
    cloud
        .patch(
            &format!("/v3/endpoints/{endpoint}"),
            json!({"endpoint": {"enabled": false}}),
        )
        .await
        .ok(200);
    assert_eq!(url().await, None);
    cloud
        .patch(
            &format!("/v3/services/{service}"),
            json!({"service": {"enabled": false}}),
        )
        .await
        .ok(200);
    assert!(!cloud.get("/v3/auth/catalog").await.text.contains("swift"));
    cloud.delete(&format!("/v3/services/{service}")).await.ok(204);
    assert_eq!(cloud.get(&format!("/v3/endpoints/{endpoint}")).await.status, 404);
    let entries = [
        ("compute", "nova", "http://c/compute/v2.1"),
        ("image", "glance", "http://c/image"),
    ];
    for _ in 0..2 {
        maru_identity::set_catalogue(&cloud.store, "RegionOne", &entries)
            .await
            .unwrap();
        assert_eq!(cloud.get("/v3/endpoints").await.ids("endpoints").len(), 9);
    }
}
