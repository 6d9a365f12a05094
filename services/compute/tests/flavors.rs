//! Flavors: creation, lists, extra specs, access.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

fn body(fields: Value) -> Value {
    let mut flavor = json!({"name": "f", "ram": 64, "vcpus": 1, "disk": 1});
    for (key, value) in fields.as_object().unwrap() {
        flavor[key] = value.clone();
    }
    json!({ "flavor": flavor })
}

async fn make(c: &Cloud, fields: Value) -> Value {
    c.want(200, ADMIN, "POST", "/flavors", body(fields)).await["flavor"].clone()
}

#[tokio::test]
async fn a_flavor_shows_the_documented_keys_of_every_microversion() {
    let c = cloud().await;
    let made = make(
        &c,
        json!({"id": "x1", "description": "d", "swap": "5", "OS-FLV-EXT-DATA:ephemeral": 2, "rxtx_factor": "2.5"}),
    )
    .await;
    assert_eq!(
        (&made["swap"], &made["OS-FLV-EXT-DATA:ephemeral"]),
        (&json!(5), &json!(2))
    );
    assert_eq!(
        (&made["rxtx_factor"], &made["os-flavor-access:is_public"]),
        (&json!(2.5), &json!(true))
    );
    let base = [
        "OS-FLV-DISABLED:disabled",
        "OS-FLV-EXT-DATA:ephemeral",
        "disk",
        "id",
        "links",
        "name",
        "os-flavor-access:is_public",
        "ram",
        "rxtx_factor",
        "swap",
        "vcpus",
    ];
    for (minor, more) in [
        (1, &[][..]),
        (54, &[]),
        (55, &["description"]),
        (60, &["description"]),
        (61, &["description", "extra_specs"]),
    ] {
        let mut want = base.to_vec();
        want.extend(more);
        want.sort_unstable();
        for token in [A, READER, ADMIN] {
            let v = c.get_at(minor, token, "/flavors/x1").await["flavor"].clone();
            assert_eq!(keys(&v), want, "2.{minor}");
            let v = c.get_at(minor, token, "/flavors/detail").await["flavors"][0].clone();
            assert_eq!(keys(&v), want, "2.{minor}");
        }
        let mut brief = vec!["id", "links", "name"];
        if minor >= 55 {
            brief.insert(0, "description");
        }
        assert_eq!(keys(&c.get_at(minor, A, "/flavors").await["flavors"][0]), brief);
    }
    // No swap is an empty text before 2.75.
    assert_eq!(c.get_at(74, A, "/flavors/1").await["flavor"]["swap"], "");
    assert_eq!(c.get_at(75, A, "/flavors/1").await["flavor"]["swap"], 0);
    // Ids are texts or numbers, or left to the cloud.
    for (given, shown) in [(json!(77), "77"), (json!("a b.c-d_e"), "a b.c-d_e")] {
        assert_eq!(id(&make(&c, json!({"name": shown, "id": given})).await), shown);
    }
    for (n, given) in [json!(null), json!("auto"), json!("")].into_iter().enumerate() {
        assert_eq!(
            id(&make(&c, json!({"name": format!("u{n}"), "id": given})).await).len(),
            36
        );
    }
}

#[tokio::test]
async fn bad_flavors_are_refused() {
    let c = cloud().await;
    let before = c.store.snapshot().revision();
    let long = "x".repeat(256);
    for (fields, status, part) in [
        (json!({"name": ""}), 400, "flavor.name"),
        (json!({"name": long}), 400, "flavor.name"),
        (json!({"name": null}), 400, "flavor.name"),
        (json!({"name": " x"}), 400, "flavor.name"),
        (json!({"id": "a/b"}), 400, "flavor.id"),
        (json!({"id": " a"}), 400, "flavor.id"),
        (json!({"id": long}), 400, "flavor.id"),
        (json!({"id": {}}), 400, "flavor.id"),
        (json!({"ram": 0}), 400, "flavor.ram"),
        (json!({"ram": -1}), 400, "flavor.ram"),
        (json!({"ram": "x"}), 400, "flavor.ram"),
        (json!({"ram": 2_147_483_648_u64}), 400, "flavor.ram"),
        (json!({"vcpus": 0}), 400, "flavor.vcpus"),
        (json!({"vcpus": 1.5}), 400, "flavor.vcpus"),
        (json!({"vcpus": null}), 400, "flavor.vcpus"),
        (json!({"disk": -1}), 400, "flavor.disk"),
        (json!({"swap": -1}), 400, "flavor.swap"),
        (json!({"OS-FLV-EXT-DATA:ephemeral": -1}), 400, "ephemeral"),
        (json!({"rxtx_factor": 0}), 400, "rxtx_factor"),
        (json!({"rxtx_factor": "fast"}), 400, "rxtx_factor"),
        (json!({"os-flavor-access:is_public": "perhaps"}), 400, "is_public"),
        (json!({"description": "x".repeat(65_536)}), 400, "description"),
        (json!({"extra_specs": {}}), 400, "extra_specs"),
        (json!({"name": "tiny"}), 409, "tiny"),
        (json!({"name": "new", "id": "1"}), 409, "ID 1"),
    ] {
        let message = c.refused(status, ADMIN, "POST", "/flavors", body(fields.clone())).await;
        assert!(message.contains(part), "{fields}: {message}");
    }
    for missing in ["name", "ram", "vcpus", "disk"] {
        let mut b = body(json!({}));
        b["flavor"].as_object_mut().unwrap().remove(missing);
        assert!(c.refused(400, ADMIN, "POST", "/flavors", b).await.contains(missing));
    }
    let b = body(json!({"description": "x"}));
    assert!(
        c.refused_at(54, 400, ADMIN, "POST", "/flavors", b)
            .await
            .contains("description")
    );
    c.refused(403, A, "POST", "/flavors", body(json!({}))).await;
    c.refused(403, A, "DELETE", "/flavors/1", Value::Null).await;
    c.refused(404, ADMIN, "DELETE", "/flavors/none", Value::Null).await;
    c.refused(404, A, "GET", "/flavors/none", Value::Null).await;
    assert_eq!(c.store.snapshot().revision(), before, "nothing was written");
}

#[tokio::test]
async fn descriptions_change_and_flavors_go_while_their_servers_stay() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let v = c
        .want(
            200,
            ADMIN,
            "PUT",
            "/flavors/1",
            json!({"flavor": {"description": "new"}}),
        )
        .await;
    assert_eq!(v["flavor"]["description"], "new");
    c.want(
        200,
        ADMIN,
        "PUT",
        "/flavors/1",
        json!({"flavor": {"description": null}}),
    )
    .await;
    assert_eq!(c.get(A, "/flavors/1").await["flavor"]["description"], Value::Null);
    c.refused(400, ADMIN, "PUT", "/flavors/1", json!({"flavor": {}})).await;
    c.refused(
        400,
        ADMIN,
        "PUT",
        "/flavors/1",
        json!({"flavor": {"description": "x", "ram": 1}}),
    )
    .await;
    c.refused_at(
        54,
        404,
        ADMIN,
        "PUT",
        "/flavors/1",
        json!({"flavor": {"description": "x"}}),
    )
    .await;
    c.refused(403, A, "PUT", "/flavors/1", json!({"flavor": {"description": "x"}}))
        .await;
    c.want(202, ADMIN, "DELETE", "/flavors/1", Value::Null).await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(v["flavor"]["original_name"], "tiny");
    // The name and the id are free again.
    make(&c, json!({"name": "tiny", "id": "1"})).await;
    c.refused(400, A, "POST", "/servers", wanted(json!({"flavorRef": "gone"})))
        .await;
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let c = cloud().await;
    make(&c, json!({"name": "big", "id": "3", "ram": 4_096, "disk": 40})).await;
    make(
        &c,
        json!({"name": "mine", "id": "4", "ram": 8_192, "os-flavor-access:is_public": false}),
    )
    .await;
    let all = ["tiny", "small", "big"];
    let cases: &[(&str, &str, &[&str])] = &[
        (A, "", &all),
        (A, "is_public=none", &all),
        (A, "is_public=false", &all),
        (A, "minRam=2048", &["small", "big"]),
        (A, "minDisk=30", &["big"]),
        (A, "minDisk=30&minRam=9999", &[]),
        (A, "sort_key=name", &["big", "small", "tiny"]),
        (A, "sort_key=memory_mb&sort_dir=desc", &["big", "small", "tiny"]),
        (A, "limit=1&marker=1", &["small"]),
        (A, "marker=3", &[]),
        (B, "is_public=False", &all),
        // A private flavor is given to nobody by itself, its maker's project included.
        (ADMIN, "", &all),
        (ADMIN, "is_public=False", &["mine"]),
        (ADMIN, "is_public=None", &["tiny", "small", "big", "mine"]),
        ("other:admin", "", &all),
    ];
    for (token, query, want) in cases {
        for path in ["/flavors", "/flavors/detail"] {
            let v = c.get(token, &format!("{path}?{query}")).await;
            assert_eq!(names(&v["flavors"]), *want, "{token} {query}");
        }
    }
    let v = c.get(A, "/flavors?limit=2&sort_key=name").await;
    let next = v["flavors_links"][0]["href"]
        .as_str()
        .unwrap()
        .strip_prefix("http://maru/compute/v2.1")
        .unwrap()
        .to_owned();
    assert_eq!(names(&c.get(A, &next).await["flavors"]), ["tiny"]);
    for (token, query, part) in [
        (ADMIN, "is_public=perhaps", "is_public"),
        (A, "minRam=lots", "minRam"),
        (A, "minDisk=-1", "minDisk"),
        (A, "sort_key=color", "sort_key"),
        (A, "sort_dir=up", "sort_dir"),
        (A, "limit=-1", "limit"),
        (A, "marker=none", "marker"),
    ] {
        let message = c
            .refused(400, token, "GET", &format!("/flavors?{query}"), Value::Null)
            .await;
        assert!(message.contains(part), "{query}: {message}");
    }
}

#[tokio::test]
async fn extra_specs_are_kept_as_texts() {
    let c = cloud().await;
    let p = "/flavors/1/os-extra_specs";
    let v = c
        .want(
            200,
            ADMIN,
            "POST",
            p,
            json!({"extra_specs": {"hw:cpu_policy": "shared", "n": 5}}),
        )
        .await;
    assert_eq!(v["extra_specs"], json!({"hw:cpu_policy": "shared", "n": "5"}));
    let v = c.want(200, ADMIN, "PUT", &format!("{p}/n"), json!({"n": "6"})).await;
    assert_eq!(v, json!({"n": "6"}));
    assert_eq!(
        c.get(A, p).await["extra_specs"],
        json!({"hw:cpu_policy": "shared", "n": "6"})
    );
    assert_eq!(c.get(READER, &format!("{p}/n")).await, json!({"n": "6"}));
    // A server keeps those it was made with.
    let server = c.boot(A, "s").await;
    c.want(200, ADMIN, "DELETE", &format!("{p}/n"), Value::Null).await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(v["flavor"]["extra_specs"], json!({"hw:cpu_policy": "shared", "n": "6"}));
    c.refused(404, ADMIN, "DELETE", &format!("{p}/n"), Value::Null).await;
    c.refused(404, A, "GET", &format!("{p}/n"), Value::Null).await;
    c.refused(404, A, "GET", "/flavors/none/os-extra_specs", Value::Null)
        .await;
    for (method, path, b, status, part) in [
        ("POST", p.to_owned(), json!({"extra_specs": {"a/b": "x"}}), 400, "a/b"),
        (
            "POST",
            p.to_owned(),
            json!({"extra_specs": {"a": "x".repeat(256)}}),
            400,
            "extra_specs.a",
        ),
        (
            "POST",
            p.to_owned(),
            json!({"extra_specs": {"a": null}}),
            400,
            "extra_specs.a",
        ),
        ("POST", p.to_owned(), json!({"extra_specs": []}), 400, "extra_specs"),
        ("POST", p.to_owned(), json!({}), 400, "extra_specs"),
        (
            "POST",
            "/flavors/none/os-extra_specs".to_owned(),
            json!({"extra_specs": {"a": "b"}}),
            404,
            "none",
        ),
        ("PUT", format!("{p}/a"), json!({"b": "c"}), 400, "mismatch"),
        ("PUT", format!("{p}/a"), json!({"a": "c", "b": "d"}), 400, "mismatch"),
    ] {
        let message = c.refused(status, ADMIN, method, &path, b.clone()).await;
        assert!(message.contains(part), "{b}: {message}");
    }
    c.refused(403, A, "POST", p, json!({"extra_specs": {"a": "b"}})).await;
    c.refused(403, A, "DELETE", &format!("{p}/a"), Value::Null).await;
}

#[tokio::test]
async fn private_flavors_are_for_those_who_have_access() {
    let c = cloud().await;
    make(
        &c,
        json!({"name": "secret", "id": "9", "os-flavor-access:is_public": false}),
    )
    .await;
    let access = "/flavors/9/os-flavor-access";
    c.refused(404, A, "GET", "/flavors/9", Value::Null).await;
    c.refused(404, A, "GET", "/flavors/9/os-extra_specs", Value::Null).await;
    let message = c
        .refused(400, A, "POST", "/servers", wanted(json!({"flavorRef": "9"})))
        .await;
    assert!(message.contains("could not be found"), "{message}");
    let act = |name: &str, tenant: &str| json!({name: {"tenant": tenant}});
    let v = c
        .want(200, ADMIN, "POST", "/flavors/9/action", act("addTenantAccess", "aaa"))
        .await;
    assert!(
        v["flavor_access"]
            .as_array()
            .unwrap()
            .contains(&json!({"flavor_id": "9", "tenant_id": "aaa"}))
    );
    assert_eq!(c.get(A, "/flavors/9").await["flavor"]["name"], "secret");
    assert!(names(&c.get(A, "/flavors").await["flavors"]).contains(&"secret"));
    c.refused(404, B, "GET", "/flavors/9", Value::Null).await;
    c.want(202, A, "POST", "/servers", wanted(json!({"flavorRef": "9"})))
        .await;
    c.refused(409, ADMIN, "POST", "/flavors/9/action", act("addTenantAccess", "aaa"))
        .await;
    c.refused(409, ADMIN, "POST", "/flavors/1/action", act("addTenantAccess", "aaa"))
        .await;
    c.want(
        200,
        ADMIN,
        "POST",
        "/flavors/9/action",
        act("removeTenantAccess", "aaa"),
    )
    .await;
    c.refused(
        404,
        ADMIN,
        "POST",
        "/flavors/9/action",
        act("removeTenantAccess", "aaa"),
    )
    .await;
    c.refused(404, A, "GET", "/flavors/9", Value::Null).await;
    assert_eq!(c.get(ADMIN, access).await["flavor_access"], json!([]));
    c.refused(404, ADMIN, "GET", "/flavors/1/os-flavor-access", Value::Null)
        .await;
    c.refused(403, A, "GET", access, Value::Null).await;
    c.refused(403, A, "POST", "/flavors/9/action", act("addTenantAccess", "aaa"))
        .await;
    for (b, part) in [
        (json!({"addTenantAccess": {}}), "tenant"),
        (json!({"addTenantAccess": {"tenant": ""}}), "tenant"),
        (json!({"addTenantAccess": {"tenant": 1}}), "tenant"),
        (json!({"dance": {}}), "dance"),
        (json!({}), "one key"),
    ] {
        let message = c.refused(400, ADMIN, "POST", "/flavors/9/action", b).await;
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_new_cloud_has_flavors_once() {
    let store = maru_store::Store::in_memory(registry());
    maru_compute::bootstrap(&store).await.unwrap();
    let first = store.snapshot().count::<m::Flavor>();
    assert!(first >= 4);
    let gone = store.snapshot().get::<m::Flavor>(&"42".into()).unwrap();
    let mut txn = maru_store::Txn::new();
    m::plan_delete_flavor(&mut txn, &gone);
    store.commit(txn).await.unwrap();
    maru_compute::bootstrap(&store).await.unwrap();
    assert_eq!(
        store.snapshot().count::<m::Flavor>(),
        first - 1,
        "what was deleted stays deleted"
    );
}
