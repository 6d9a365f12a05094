//! Quotas: limits by project and class, what they show, races, multi-create of all or none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use futures_util::future::join_all;
use maru_compute_model as m;
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn limits_are_set_and_reset() {
    let c = cloud().await;
    let q = "/os-quota-sets/aaa";
    let v = c.get(A, q).await["quota_set"].clone();
    let new = [
        "cores",
        "id",
        "instances",
        "key_pairs",
        "metadata_items",
        "ram",
        "server_group_members",
        "server_groups",
    ];
    assert_eq!(keys(&v), new);
    assert_eq!(
        (&v["cores"], &v["instances"], &v["ram"]),
        (&json!(20), &json!(10), &json!(51_200))
    );
    let v = c.get_at(56, A, q).await["quota_set"].clone();
    assert_eq!(v["injected_files"], 5);
    assert!(v.get("floating_ips").is_none());
    let v = c.get_at(35, A, q).await["quota_set"].clone();
    assert!(keys(&v).contains(&"floating_ips") && keys(&v).contains(&"security_group_rules"));
    let v = c
        .want(200, ADMIN, "PUT", q, json!({"quota_set": {"cores": "7", "ram": -1}}))
        .await["quota_set"]
        .clone();
    assert_eq!((&v["cores"], &v["ram"], v.get("id")), (&json!(7), &json!(-1), None));
    assert_eq!(c.get(A, q).await["quota_set"]["cores"], 7);
    assert_eq!(c.get(A, &format!("{q}/defaults")).await["quota_set"]["cores"], 20);
    // The class is what projects without a limit of their own have.
    let class = "/os-quota-class-sets/default";
    let v = c
        .want(
            200,
            ADMIN,
            "PUT",
            class,
            json!({"quota_class_set": {"cores": 9, "instances": 4}}),
        )
        .await;
    assert_eq!(v["quota_class_set"]["cores"], 9);
    assert_eq!(c.get(ADMIN, class).await["quota_class_set"]["id"], "default");
    assert_eq!(c.get(A, q).await["quota_set"]["cores"], 7);
    assert_eq!(c.get(A, q).await["quota_set"]["instances"], 4);
    assert_eq!(c.get(B, "/os-quota-sets/bbb").await["quota_set"]["cores"], 9);
    c.want(202, ADMIN, "DELETE", q, Value::Null).await;
    assert_eq!(c.get(A, q).await["quota_set"]["cores"], 9);
    // What is used is shown, and a limit below it needs force.
    c.boot(A, "s").await;
    c.boot(A, "t").await;
    let v = c.get(A, &format!("{q}/detail")).await["quota_set"].clone();
    assert_eq!(v["instances"], json!({"limit": 4, "in_use": 2, "reserved": 0}));
    assert_eq!(v["ram"]["in_use"], 1_024);
    let low = json!({"quota_set": {"instances": 1}});
    let message = c.refused(400, ADMIN, "PUT", q, low).await;
    assert!(message.contains("instances") && message.contains('2'), "{message}");
    c.want(
        200,
        ADMIN,
        "PUT",
        q,
        json!({"quota_set": {"instances": 1, "force": true}}),
    )
    .await;
    let message = c.refused(403, A, "POST", "/servers", wanted(json!({}))).await;
    assert_eq!(
        message,
        "Quota exceeded for instances: Requested 1, but already used 2 of 1 instances"
    );
    let v = c.get(A, "/limits").await["limits"]["absolute"].clone();
    assert_eq!(
        (&v["maxTotalInstances"], &v["totalInstancesUsed"]),
        (&json!(1), &json!(2))
    );
    assert_eq!((&v["totalCoresUsed"], &v["totalRAMUsed"]), (&json!(2), &json!(1_024)));
    assert_eq!(c.get(A, "/limits").await["limits"]["rate"], json!([]));
}

#[tokio::test]
async fn limits_have_the_documented_keys() {
    let c = cloud().await;
    let base = [
        "maxServerGroupMembers",
        "maxServerGroups",
        "maxServerMeta",
        "maxTotalCores",
        "maxTotalInstances",
        "maxTotalKeypairs",
        "maxTotalRAMSize",
        "totalCoresUsed",
        "totalInstancesUsed",
        "totalRAMUsed",
        "totalServerGroupsUsed",
    ];
    let v = c.get(A, "/limits").await["limits"]["absolute"].clone();
    assert_eq!(keys(&v), base);
    for (minor, key, there) in [
        (56, "maxPersonality", true),
        (57, "maxPersonalitySize", false),
        (38, "maxImageMeta", true),
        (39, "maxImageMeta", false),
        (35, "maxTotalFloatingIps", true),
        (36, "maxSecurityGroups", false),
    ] {
        let v = c.get_at(minor, A, "/limits").await["limits"]["absolute"].clone();
        assert_eq!(v.get(key).is_some(), there, "{key} 2.{minor}");
    }
    c.refused(403, A, "GET", "/limits?tenant_id=bbb", Value::Null).await;
    c.boot(B, "s").await;
    let v = c.get(ADMIN, "/limits?tenant_id=bbb").await["limits"]["absolute"].clone();
    assert_eq!(v["totalInstancesUsed"], 1);
}

#[tokio::test]
async fn bad_limits_and_callers_are_refused() {
    let c = cloud().await;
    let q = "/os-quota-sets/aaa";
    for (minor, body, part) in [
        (NEW, json!({"quota_set": {"cores": -2}}), "quota_set.cores"),
        (NEW, json!({"quota_set": {"cores": "many"}}), "quota_set.cores"),
        (NEW, json!({"quota_set": {"cores": null}}), "quota_set.cores"),
        (
            NEW,
            json!({"quota_set": {"cores": 3_000_000_000_u64}}),
            "quota_set.cores",
        ),
        (NEW, json!({"quota_set": {"wheels": 4}}), "wheels"),
        (NEW, json!({"quota_set": {"force": "perhaps"}}), "force"),
        (36, json!({"quota_set": {"floating_ips": 4}}), "floating_ips"),
        (57, json!({"quota_set": {"injected_files": 4}}), "injected_files"),
        (NEW, json!({"quota": {}}), "quota_set"),
        (NEW, json!({"quota_set": {}, "x": 1}), "x"),
    ] {
        let message = c.refused_at(minor, 400, ADMIN, "PUT", q, body.clone()).await;
        assert!(message.contains(part), "{body}: {message}");
    }
    c.refused(403, A, "PUT", q, json!({"quota_set": {"cores": 1}})).await;
    c.refused(403, A, "DELETE", q, Value::Null).await;
    c.refused(403, B, "GET", q, Value::Null).await;
    c.refused(403, B, "GET", &format!("{q}/detail"), Value::Null).await;
    c.refused(
        403,
        A,
        "PUT",
        "/os-quota-class-sets/default",
        json!({"quota_class_set": {"cores": 1}}),
    )
    .await;
    // A limit for one user must not become the limit of all.
    let one = format!("{q}?user_id=u1");
    c.refused(501, ADMIN, "PUT", &one, json!({"quota_set": {"cores": 1}}))
        .await;
    c.refused(501, ADMIN, "DELETE", &one, Value::Null).await;
    assert_eq!(c.store.snapshot().count::<m::QuotaSet>(), 0);
}

#[tokio::test]
async fn other_limits_of_a_server_hold() {
    let c = cloud().await;
    c.quota("aaa", json!({"metadata_items": 2, "server_group_members": 2}))
        .await;
    let many = json!({"metadata": {"a": "", "b": "", "c": ""}});
    let message = c.refused(403, A, "POST", "/servers", wanted(many.clone())).await;
    assert!(message.contains("metadata items"), "{message}");
    let server = c.boot(A, "s").await;
    c.refused(403, A, "PUT", &format!("/servers/{server}/metadata"), many.clone())
        .await;
    c.want(
        200,
        A,
        "POST",
        &format!("/servers/{server}/metadata"),
        json!({"metadata": {"a": "", "b": ""}}),
    )
    .await;
    c.refused(
        403,
        A,
        "POST",
        &format!("/servers/{server}/metadata"),
        json!({"metadata": {"c": ""}}),
    )
    .await;
    let body = json!({"rebuild": {"imageRef": IMAGE, "metadata": many["metadata"]}});
    c.refused(403, A, "POST", &format!("/servers/{server}/action"), body)
        .await;
    // Injected files.
    let old =
        |files: Value| json!({"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1", "personality": files}});
    let file = |path: &str, contents: &str| json!({"path": path, "contents": contents});
    let six: Vec<Value> = (0..6).map(|n| file(&format!("/{n}"), "aGk=")).collect();
    for (files, status, part) in [
        (json!(six), 403, "file limit"),
        (json!([file(&"x".repeat(256), "aGk=")]), 403, "path too long"),
        (json!([file("/a", &"QUFB".repeat(3_500))]), 403, "content too long"),
        (json!([file("/a", "***")]), 400, "base64"),
        (json!([{"path": "/a"}]), 400, "contents"),
        (json!([{"path": "/a", "contents": "aGk=", "mode": 1}]), 400, "mode"),
    ] {
        let message = c.refused_at(36, status, A, "POST", "/servers", old(files)).await;
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(c.store.snapshot().count::<m::Server>(), 1);
    c.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creations_never_pass_a_limit() {
    let c = Arc::new(cloud().await);
    c.quota("aaa", json!({"instances": 50, "cores": 7, "ram": -1})).await;
    let calls = (0..40).map(|_| {
        let c = Arc::clone(&c);
        tokio::spawn(async move { c.at(NEW, A, "POST", "/servers", wanted(json!({}))).await })
    });
    let answers: Vec<Answer> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|a| a.status == 202).count(), 7);
    for a in answers.iter().filter(|a| a.status != 202) {
        assert_eq!(a.status, 403, "{}", a.body);
        let message = a.body["forbidden"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("Quota exceeded for cores: Requested 1, but already used 7 of 7"),
            "{message}"
        );
    }
    assert_eq!(c.store.snapshot().count::<m::Server>(), 7);
    c.audit();
    // Deletions and creations at once: what one gives back another takes, never twice.
    let ids: Vec<String> = c
        .store
        .snapshot()
        .list::<m::Server>()
        .map(|s| s.id.to_string())
        .collect();
    let mut calls = Vec::new();
    for id in ids {
        let c = Arc::clone(&c);
        calls.push(tokio::spawn(async move {
            c.at(NEW, A, "DELETE", &format!("/servers/{id}"), Value::Null).await
        }));
    }
    for _ in 0..20 {
        let c = Arc::clone(&c);
        calls.push(tokio::spawn(async move {
            c.at(NEW, A, "POST", "/servers", wanted(json!({}))).await
        }));
    }
    for answer in join_all(calls).await {
        let answer = answer.unwrap();
        assert!(matches!(answer.status, 202 | 204 | 403), "{answer:?}");
    }
    assert!(c.store.snapshot().count::<m::Server>() <= 7);
    c.settle().await;
    c.audit();
}

#[tokio::test]
async fn many_are_made_at_once() {
    let c = cloud().await;
    c.quota("aaa", json!({"instances": 6, "cores": -1, "ram": -1})).await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let body = wanted(
        json!({"name": "m", "min_count": 2, "max_count": "4", "return_reservation_id": true, "networks": [{"uuid": net}]}),
    );
    let v = c.want(202, A, "POST", "/servers", body).await;
    assert_eq!(keys(&v), ["reservation_id"]);
    let reservation = v["reservation_id"].as_str().unwrap();
    assert!(reservation.starts_with("r-") && reservation.len() == 10);
    c.settle().await;
    let list = c
        .get(
            ADMIN,
            &format!("/servers/detail?all_tenants=1&reservation_id={reservation}"),
        )
        .await["servers"]
        .clone();
    assert_eq!(names(&list), ["m-4", "m-3", "m-2", "m-1"]);
    for (i, v) in list.as_array().unwrap().iter().enumerate() {
        assert_eq!(v["status"], "ACTIVE");
        assert_eq!(v["OS-EXT-SRV-ATTR:launch_index"], 3 - i);
        assert_eq!(v["OS-EXT-SRV-ATTR:hostname"], format!("m-{}", 4 - i));
        assert_eq!(v["addresses"]["n"].as_array().unwrap().len(), 1);
    }
    // As many as the quota allows between min and max; one alone has no number.
    let body = wanted(json!({"name": "rest", "min_count": 1, "max_count": 1_000_000}));
    c.want(202, A, "POST", "/servers", body).await;
    let list = c.get(A, "/servers?name=rest").await["servers"].clone();
    assert_eq!(names(&list), ["rest-2", "rest-1"]);
    c.settle().await;
    for v in list.as_array().unwrap() {
        c.want(204, A, "DELETE", &format!("/servers/{}", id(v)), Value::Null)
            .await;
    }
    c.settle().await;
    c.quota("aaa", json!({"instances": 5})).await;
    c.want(
        202,
        A,
        "POST",
        "/servers",
        wanted(json!({"name": "one", "max_count": 9})),
    )
    .await;
    assert_eq!(names(&c.get(A, "/servers?name=one").await["servers"]), ["one"]);
    c.audit();
    for (fields, part) in [
        (
            json!({"min_count": 3, "max_count": 2}),
            "min_count must be <= max_count",
        ),
        (
            json!({"max_count": 2, "networks": [{"port": NOBODY}]}),
            "single configured port",
        ),
        (
            json!({"max_count": 2, "networks": [{"uuid": net, "fixed_ip": "10.1.0.9"}]}),
            "fixed_ip",
        ),
    ] {
        let message = c.refused(400, A, "POST", "/servers", wanted(fields)).await;
        assert!(message.contains(part), "{message}");
    }
}

/// The acceptance of the plan: 100 servers with a quota short by one makes none and leaves nothing.
#[tokio::test]
async fn a_hundred_with_a_quota_short_by_one_makes_none() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    c.quota("aaa", json!({"instances": 99, "cores": -1, "ram": -1})).await;
    let before = c.store.snapshot();
    let hundred = |n: u64| wanted(json!({"min_count": n, "networks": [{"uuid": net}]}));
    let message = c.refused(403, A, "POST", "/servers", hundred(100)).await;
    assert_eq!(
        message,
        "Quota exceeded for instances: Requested 100, but already used 0 of 99 instances"
    );
    // A server's memory counts as well as its number.
    c.quota("aaa", json!({"instances": -1, "ram": 100 * 512 - 1})).await;
    let message = c.refused(403, A, "POST", "/servers", hundred(100)).await;
    assert!(
        message.starts_with("Quota exceeded for ram: Requested 51200, but already used 0 of 51199"),
        "{message}"
    );
    let after = c.store.snapshot();
    for kind in ["server", "flow", "server_action", "port", "consumer"] {
        let count = |s: &maru_store::Snapshot| s.raw_under(&maru_store::Key::prefix(&[kind])).count();
        assert_eq!(count(&after), count(&before), "{kind}");
    }
    assert_eq!(m::quota::used(&after, "aaa", "instances"), 0);
    assert_eq!(m::quota::used(&after, "aaa", "cores"), 0);
    c.audit();
    // With one more it makes all, in one transaction.
    c.quota("aaa", json!({"ram": 100 * 512})).await;
    let revision = c.store.snapshot().revision();
    c.want(202, A, "POST", "/servers", hundred(100)).await;
    assert_eq!(c.store.snapshot().revision(), revision + 1);
    assert_eq!(c.store.snapshot().count::<m::Server>(), 100);
    c.audit();
    // More than one transaction holds is refused, and no number makes the service itself swell.
    c.quota("aaa", json!({"ram": -1})).await;
    for n in [301_u64, 2_147_483_647] {
        let message = c
            .refused(400, A, "POST", "/servers", wanted(json!({"min_count": n})))
            .await;
        assert!(
            message.contains("server.min_count") && message.contains("300"),
            "{message}"
        );
    }
    let heavy = wanted(json!({"min_count": 100, "user_data": "QUFB".repeat(16_000)}));
    let message = c.refused(400, A, "POST", "/servers", heavy).await;
    assert!(message.contains("min_count"), "{message}");
    assert_eq!(c.store.snapshot().count::<m::Server>(), 100);
    let some = wanted(json!({"max_count": 100, "user_data": "QUFB".repeat(16_000)}));
    c.want(202, A, "POST", "/servers", some).await;
    c.audit();
}
