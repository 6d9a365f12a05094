//! Resource providers: their life, their trees, lists with filters.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{ADMIN, LATEST, MEMBER, SERVICE, cloud, racing, uuid};
use serde_json::{Value, json};

#[tokio::test]
async fn the_root_shows_one_version_to_anyone() {
    let c = cloud();
    for path in ["", "/"] {
        let answer = c.get(path).nobody().at("1.0").want(200).await;
        assert_eq!(
            answer.body,
            json!({"versions": [{"id": "v1.0", "min_version": "1.0", "max_version": "1.39", "status": "CURRENT",
                "links": [{"rel": "self", "href": ""}]}]})
        );
        assert_eq!(answer.header("openstack-api-version"), "placement 1.0");
        assert!(answer.header("vary").contains("OpenStack-API-Version"));
        assert_eq!(answer.header("cache-control"), "");
    }
    let answer = c.get("/").nobody().at("latest").want(200).await;
    assert_eq!(answer.header("openstack-api-version"), "placement 1.39");
    assert_eq!(answer.header("cache-control"), "no-cache");
    let answer = c.ask("POST", "/").at("1.0").want(405).await;
    assert_eq!(answer.header("allow"), "GET");
}

#[tokio::test]
async fn microversions_out_of_range_are_refused_with_the_range() {
    let c = cloud();
    for version in ["1.40", "2.0"] {
        let e = c.get("/").at(version).want(406).await.body["errors"][0].clone();
        assert_eq!((&e["min_version"], &e["max_version"]), (&json!("1.0"), &json!("1.39")));
        assert_eq!(e["title"], "Not Acceptable");
    }
    for version in ["pony.horse", "1.2.3", "1"] {
        c.get("/").at(version).refused(400, version).await;
    }
    // Without the header it is the oldest one; of several services' headers, ours.
    let answer = c
        .get("/resource_providers")
        .at("1.7")
        .header("openstack-api-version", "compute 2.90")
        .want(200)
        .await;
    assert_eq!(answer.header("openstack-api-version"), "placement 1.7");
}

#[tokio::test]
async fn errors_have_a_code_from_1_23_on() {
    let c = cloud();
    let path = format!("/resource_providers/{}", uuid());
    let e = c.get(&path).at("1.22").want(404).await;
    assert_eq!(e.body["errors"][0].get("code"), None);
    let e = c.get(&path).at("1.23").want(404).await;
    assert_eq!(e.refusal().1, "placement.undefined_code");
    assert_eq!(e.body["errors"][0]["title"], "Not Found");
}

#[tokio::test]
async fn a_provider_lives_and_changes_its_shape_by_microversion() {
    let c = cloud();
    let id = uuid();
    let answer = c
        .post("/resource_providers", json!({"name": "one", "uuid": id}))
        .at("1.19")
        .want(201)
        .await;
    assert_eq!(answer.header("location"), format!("/placement/resource_providers/{id}"));
    assert_eq!(answer.body, Value::Null);
    assert_eq!(answer.header("content-type"), "");
    c.delete(&format!("/resource_providers/{id}")).want(204).await;

    // Without dashes and in capitals it is the same id.
    let loud = id.replace('-', "").to_uppercase();
    let answer = c
        .post("/resource_providers", json!({"name": "one", "uuid": loud}))
        .at("1.20")
        .want(200)
        .await;
    assert_eq!(answer.body["uuid"], id.as_str());
    assert_eq!(answer.body["generation"], 0);
    assert_eq!(answer.body["parent_provider_uuid"], Value::Null);
    assert_eq!(answer.body["root_provider_uuid"], id.as_str());
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert!(answer.header("last-modified").ends_with(" GMT"));

    let path = format!("/resource_providers/{id}");
    for (version, fields, links) in [
        ("1.0", 4, 3),
        ("1.1", 4, 4),
        ("1.6", 4, 5),
        ("1.11", 4, 6),
        ("1.13", 4, 6),
        ("1.14", 6, 6),
    ] {
        let answer = c.get(&path).at(version).want(200).await;
        assert_eq!(answer.body.as_object().unwrap().len(), fields, "{version}");
        assert_eq!(answer.body["links"].as_array().unwrap().len(), links, "{version}");
        assert_eq!(answer.header("last-modified"), "", "{version}");
    }
    let links = c.get(&path).ok().await["links"].clone();
    assert_eq!(links[0], json!({"rel": "self", "href": format!("/placement{path}")}));
    assert_eq!(
        links[5],
        json!({"rel": "allocations", "href": format!("/placement{path}/allocations")})
    );

    let answer = c.put(&path, json!({"name": "two"})).want(200).await;
    assert_eq!(
        (&answer.body["name"], &answer.body["generation"]),
        (&json!("two"), &json!(0))
    );
    // The old name is free again.
    c.provider("one", None).await;
    let code = c.put(&path, json!({"name": "one"})).refused(409, "one").await;
    assert_eq!(code, "placement.duplicate_name");
    c.delete(&path).want(204).await;
    c.get(&path).refused(404, &id).await;
    c.delete(&path).refused(404, &id).await;
    c.put(&path, json!({"name": "x"})).refused(404, &id).await;
    c.audit();
}

#[tokio::test]
async fn ids_and_names_are_given_once() {
    let c = racing().await;
    let id = c.provider("one", None).await;
    let again = json!({"name": "one", "uuid": uuid()});
    let code = c
        .post("/resource_providers", again)
        .refused(409, "name: one already exists")
        .await;
    assert_eq!(code, "placement.duplicate_name");
    let again = json!({"name": "two", "uuid": id});
    c.post("/resource_providers", again).refused(409, "uuid").await;
    // Many at once: one wins.
    let many = (0..10).map(|_| c.post("/resource_providers", json!({"name": "race"})).send());
    let mut statuses: Vec<u16> = futures_util::future::join_all(many)
        .await
        .iter()
        .map(|a| a.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[409; 9]].concat());
}

#[tokio::test]
async fn bad_bodies_name_the_field() {
    let c = cloud();
    let post = |body: Value| c.post("/resource_providers", body);
    post(json!({})).refused(400, "'name' is a required property").await;
    post(json!({"name": ""})).refused(400, "in name").await;
    post(json!({"name": "x".repeat(201)})).refused(400, "in name").await;
    post(json!({"name": 7}))
        .refused(400, "7 is not of type 'string' (in name)")
        .await;
    post(json!({"name": "x", "uuid": "spam"}))
        .refused(400, "'spam' is not a 'uuid' (in uuid)")
        .await;
    post(json!({"name": "x", "badfield": 1}))
        .refused(400, "'badfield' was unexpected")
        .await;
    post(json!([])).refused(400, "is not of type 'object'").await;
    post(json!({"name": "x", "parent_provider_uuid": "y"}))
        .refused(400, "parent_provider_uuid")
        .await;
    post(json!({"name": "x", "parent_provider_uuid": null}))
        .at("1.13")
        .refused(400, "parent_provider_uuid")
        .await;
    post(json!({"name": "x", "root_provider_uuid": uuid()}))
        .refused(400, "root_provider_uuid")
        .await;
    let raw = |body| c.ask("POST", "/resource_providers").raw(body);
    raw(b"{")
        .header("content-type", "application/json")
        .refused(400, "Malformed JSON")
        .await;
    raw(b"")
        .header("content-type", "application/json")
        .refused(400, "Malformed JSON")
        .await;
    raw(b"\xff\xfe")
        .header("content-type", "application/json")
        .refused(400, "Malformed JSON")
        .await;
    raw(b"{}").refused(415, "None").await;
    raw(b"{}")
        .header("content-type", "text/plain")
        .refused(415, "text/plain")
        .await;
    let deep: &'static [u8] = Box::leak(
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))
            .into_bytes()
            .into(),
    );
    raw(deep)
        .header("content-type", "application/json")
        .refused(400, "Malformed JSON")
        .await;
    let huge: &'static [u8] = vec![b' '; 2 << 20].leak();
    raw(huge).header("content-type", "application/json").want(413).await;
    c.get("/resource_providers")
        .header("accept", "text/plain")
        .refused(406, "application/json")
        .await;
    c.get("/resource_providers")
        .header("accept", "text/plain;q=0.5, */*;q=0.1")
        .want(200)
        .await;
}

#[tokio::test]
async fn trees_are_made_moved_and_kept_whole() {
    let c = cloud();
    let root = c.provider("root", None).await;
    let child = c.provider("child", Some(&root)).await;
    let leaf = c.provider("leaf", Some(&child)).await;
    let path = |id: &str| format!("/resource_providers/{id}");
    let shown = c.get(&path(&leaf)).ok().await;
    assert_eq!(shown["parent_provider_uuid"], child.as_str());
    assert_eq!(shown["root_provider_uuid"], root.as_str());

    let own = uuid();
    let body = json!({"name": "x", "uuid": own, "parent_provider_uuid": own});
    c.post("/resource_providers", body)
        .refused(400, "Unable to create resource provider \"x\"")
        .await;
    let body = json!({"name": "x", "parent_provider_uuid": uuid()});
    c.post("/resource_providers", body).refused(400, "does not exist").await;
    let code = c.delete(&path(&child)).refused(409, "child resource providers").await;
    assert_eq!(code, "placement.resource_provider.cannot_delete_parent");

    // Until 1.36 a parent is given once.
    let other = c.provider("other", None).await;
    let to = |parent: Option<&str>| json!({"name": "child", "parent_provider_uuid": parent});
    c.put(&path(&child), to(None))
        .at("1.36")
        .refused(400, "un-parenting")
        .await;
    c.put(&path(&child), to(Some(&other)))
        .at("1.36")
        .refused(400, "re-parenting")
        .await;
    c.put(&path(&child), to(Some(&root))).at("1.36").want(200).await;
    let body = json!({"name": "root", "parent_provider_uuid": other});
    c.put(&path(&root), body).at("1.36").want(200).await;
    assert_eq!(c.get(&path(&leaf)).ok().await["root_provider_uuid"], other.as_str());
    c.audit();

    // From 1.37 on it moves, but never under itself.
    let body = json!({"name": "root", "parent_provider_uuid": leaf});
    c.put(&path(&root), body).refused(400, "loop").await;
    let moved = c.put(&path(&child), to(None)).ok().await;
    assert_eq!(moved["root_provider_uuid"], child.as_str());
    assert_eq!(c.get(&path(&leaf)).ok().await["root_provider_uuid"], child.as_str());
    c.audit();
    let body = json!({"name": "root", "parent_provider_uuid": leaf});
    assert_eq!(
        c.put(&path(&root), body).ok().await["root_provider_uuid"],
        child.as_str()
    );
    c.audit();
    let list = c.get(&format!("/resource_providers?in_tree={leaf}")).ok().await;
    assert_eq!(list["resource_providers"].as_array().unwrap().len(), 3);
    for id in [&root, &leaf, &child, &other] {
        c.delete(&path(id)).want(204).await;
    }
    c.audit();
    assert_eq!(c.store.snapshot().count::<maru_placement_model::ResourceProvider>(), 0);
}

/// Two moves that together would make a circle: one of them is refused, whichever comes first; and nobody's child is
/// made under a parent that is deleted meanwhile.
#[tokio::test]
async fn racing_changes_leave_trees_whole() {
    let c = racing().await;
    for round in 0..20 {
        let a = c.provider(&format!("a{round}"), None).await;
        let b = c.provider(&format!("b{round}"), None).await;
        let under = |id: &str, name: &str, parent: &str| {
            c.put(
                &format!("/resource_providers/{id}"),
                json!({"name": format!("{name}{round}"), "parent_provider_uuid": parent}),
            )
            .send()
        };
        let (x, y) = futures_util::join!(under(&a, "a", &b), under(&b, "b", &a));
        assert!(x.status == 200 || y.status == 200);
        assert!(x.status == 400 || y.status == 400);
        c.audit();
        let p = c.provider(&format!("p{round}"), None).await;
        let path = format!("/resource_providers/{p}");
        let child = json!({"name": format!("c{round}"), "parent_provider_uuid": p});
        let (gone, made) = futures_util::join!(c.delete(&path).send(), c.post("/resource_providers", child).send());
        assert!(
            (gone.status == 204) != (made.status == 200),
            "{} {}",
            gone.status,
            made.status
        );
        c.audit();
    }
}

#[tokio::test]
async fn lists_filter() {
    let c = cloud();
    let (agg_a, agg_b, agg_c) = (uuid(), uuid(), uuid());
    let one = c.provider("one", None).await;
    let two = c.provider("two", Some(&one)).await;
    let three = c.provider("three", None).await;
    c.stock(&one, json!({"VCPU": {"total": 8, "allocation_ratio": 2.0}, "DISK_GB": {"total": 100, "min_unit": 10, "step_size": 10, "max_unit": 50}})).await;
    c.stock(&three, json!({"VCPU": {"total": 4, "reserved": 3}})).await;
    c.traits(&one, &["HW_CPU_X86_AVX", "CUSTOM_GOLD"]).await;
    c.traits(&two, &["HW_CPU_X86_AVX2"]).await;
    c.aggregates(&one, &[&agg_a, &agg_b]).await;
    c.aggregates(&three, &[&agg_b, &agg_c]).await;

    let names = async |query: String, version: &str| -> Vec<String> {
        let list = c.get(&format!("/resource_providers?{query}")).at(version).ok().await;
        let mut names: Vec<String> = list["resource_providers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(String::new(), "1.0").await, ["one", "three", "two"]);
    assert_eq!(names("name=two".into(), "1.0").await, ["two"]);
    assert_eq!(names(format!("uuid={one}"), "1.0").await, ["one"]);
    assert_eq!(names(format!("uuid={one}&name=two"), "1.0").await, [""; 0]);
    assert_eq!(names(format!("uuid={}", uuid()), "1.0").await, [""; 0]);
    assert_eq!(names(format!("member_of={agg_b}"), "1.3").await, ["one", "three"]);
    assert_eq!(
        names(format!("member_of=in:{agg_a},{agg_c}"), "1.3").await,
        ["one", "three"]
    );
    assert_eq!(
        names(format!("member_of={agg_b}&member_of={agg_a}"), "1.24").await,
        ["one"]
    );
    assert_eq!(names(format!("member_of=!{agg_a}"), "1.32").await, ["three", "two"]);
    assert_eq!(names(format!("member_of=!in:{agg_a},{agg_c}"), "1.32").await, ["two"]);
    assert_eq!(
        names(format!("member_of={agg_b}&member_of=!{agg_a}"), "1.32").await,
        ["three"]
    );
    for (resources, want) in [
        ("VCPU:1", vec!["one", "three"]),
        ("VCPU:2", vec!["one"]),
        ("VCPU:16", vec!["one"]),
        ("VCPU:17", vec![]),
        ("VCPU:1,DISK_GB:50", vec!["one"]),
        ("DISK_GB:5", vec![]),
        ("DISK_GB:15", vec![]),
        ("DISK_GB:60", vec![]),
        ("MEMORY_MB:1", vec![]),
    ] {
        assert_eq!(
            names(format!("resources={resources}"), "1.4").await,
            want,
            "{resources}"
        );
    }
    assert_eq!(names(format!("in_tree={two}"), "1.14").await, ["one", "two"]);
    assert_eq!(names(format!("in_tree={}", uuid()), "1.14").await, [""; 0]);
    assert_eq!(
        names("required=HW_CPU_X86_AVX,CUSTOM_GOLD".into(), "1.18").await,
        ["one"]
    );
    assert_eq!(
        names("required=HW_CPU_X86_AVX,HW_CPU_X86_AVX2".into(), "1.18").await,
        [""; 0]
    );
    assert_eq!(names("required=!HW_CPU_X86_AVX".into(), "1.22").await, ["three", "two"]);
    assert_eq!(
        names("required=HW_CPU_X86_AVX&required=HW_CPU_X86_AVX2".into(), "1.38").await,
        ["two"]
    );
    assert_eq!(
        names("required=HW_CPU_X86_AVX&required=HW_CPU_X86_AVX2".into(), "1.39").await,
        [""; 0]
    );
    assert_eq!(
        names("required=in:HW_CPU_X86_AVX,HW_CPU_X86_AVX2".into(), "1.39").await,
        ["one", "two"]
    );
    assert_eq!(
        names(
            "required=in:HW_CPU_X86_AVX,HW_CPU_X86_AVX2&required=!CUSTOM_GOLD".into(),
            "1.39"
        )
        .await,
        ["two"]
    );
    // What is allocated is no longer free.
    let held = json!({one.clone(): {"resources": {"VCPU": 8}}});
    c.allocate(&uuid(), held).want(204).await;
    assert_eq!(names("resources=VCPU:9".into(), LATEST).await, [""; 0]);
    assert_eq!(names("resources=VCPU:8".into(), LATEST).await, ["one"]);
}

#[tokio::test]
async fn bad_filters_are_refused_by_name() {
    let c = cloud();
    let u = uuid();
    for (query, version, part) in [
        ("spam=eggs".to_owned(), LATEST, "'spam' was unexpected"),
        ("uuid=spameggs".to_owned(), LATEST, "uuid"),
        (format!("member_of={u}"), "1.2", "'member_of' was unexpected"),
        ("resources=VCPU:1".to_owned(), "1.3", "'resources' was unexpected"),
        (format!("in_tree={u}"), "1.13", "'in_tree' was unexpected"),
        (
            "required=HW_CPU_X86_AVX".to_owned(),
            "1.17",
            "'required' was unexpected",
        ),
        ("member_of=pony".to_owned(), LATEST, "pony"),
        (format!("member_of={u},{u}"), LATEST, "must be prefixed with the 'in:'"),
        (format!("member_of={u}&member_of={u}"), "1.23", "Multiple member_of"),
        (format!("member_of=!{u}"), "1.31", "Forbidden member_of"),
        ("resources=".to_owned(), LATEST, "empty string"),
        ("resources=VCPU".to_owned(), LATEST, "Got: VCPU"),
        ("resources=VCPU:1:2".to_owned(), LATEST, "Got: VCPU:1:2"),
        ("resources=VCPU:x".to_owned(), LATEST, "Got: x"),
        ("resources=VCPU:0".to_owned(), LATEST, "amount >= 1"),
        ("resources=VCPU:-1".to_owned(), LATEST, "amount >= 1"),
        ("resources=PONY:1".to_owned(), LATEST, "No such resource class PONY"),
        ("in_tree=pony".to_owned(), LATEST, "in_tree"),
        ("required=PONY".to_owned(), LATEST, "No such trait(s): PONY"),
        ("required=!PONY".to_owned(), LATEST, "No such trait(s): PONY"),
        ("required=".to_owned(), LATEST, "empty trait"),
        ("required=!".to_owned(), LATEST, "empty trait"),
        (
            "required=HW_CPU_X86_AVX,,HW_CPU_X86_AVX2".to_owned(),
            LATEST,
            "empty trait",
        ),
        ("required=!HW_CPU_X86_AVX".to_owned(), "1.21", "required"),
        ("required=in:HW_CPU_X86_AVX".to_owned(), "1.38", "1.39"),
        ("required=in:!HW_CPU_X86_AVX".to_owned(), LATEST, "forbidden traits"),
        ("name=%ff".to_owned(), LATEST, "UTF-8"),
    ] {
        c.get(&format!("/resource_providers?{query}"))
            .at(version)
            .refused(400, part)
            .await;
    }
}

/// No token 401, a wrong role 403 for every route of the service (class D: placement has no tenants' objects).
#[tokio::test]
async fn every_route_refuses_strangers() {
    let c = cloud();
    let id = c.provider("one", None).await;
    let mut seen = 0;
    for route in &c.gateway.services()[0].routes {
        if matches!(route.access, maru_http::Access::Public) {
            assert_eq!(route.path, "/");
            continue;
        }
        seen += 1;
        let path = route
            .path
            .replace("{uuid}", &id)
            .replace("{consumer}", &uuid())
            .replace("{resource_class}", "VCPU")
            .replace("{name}", "CUSTOM_X");
        let ask = |token: &str| {
            let path = if path == "/usages" {
                "/usages?project_id=ops".to_owned()
            } else {
                path.clone()
            };
            c.ask(route.method.as_str(), &path).json(json!({})).as_(token)
        };
        ask("").nobody().want(401).await;
        ask("rubbish").want(401).await;
        for token in [MEMBER, "aaa:reader", "aaa:none"] {
            let answer = ask(token).want(403).await;
            assert_eq!(answer.body["errors"][0]["title"], "Forbidden", "{path}");
        }
        // Only services reshape.
        let answer = ask(ADMIN).send().await.status;
        assert_eq!(
            answer == 403,
            route.path == "/reshaper",
            "{} {path}: {answer}",
            route.method
        );
        assert_ne!(ask(SERVICE).send().await.status, 403, "{path}");
    }
    assert_eq!(seen, 35, "a route came or went: is it tested?");
}
