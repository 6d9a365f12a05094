//! Server groups: policies by microversion, members, quota, tenants.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use futures_util::future::join_all;
use maru_compute_model as m;
use serde_json::{Value, json};
use std::sync::Arc;

const G: &str = "/os-server-groups";

fn group(fields: Value) -> Value {
    let mut group = json!({"name": "g", "policy": "anti-affinity"});
    for (key, value) in fields.as_object().unwrap() {
        group[key] = value.clone();
    }
    json!({ "server_group": group })
}

async fn make(c: &Cloud, token: &str, fields: Value) -> String {
    id(&c.want(200, token, "POST", G, group(fields)).await["server_group"])
}

/// Asks for a server in a group.
async fn member(c: &Cloud, status: u16, group: &str, count: u64) -> Value {
    let mut body = wanted(json!({"min_count": count}));
    body["os:scheduler_hints"] = json!({ "group": group });
    c.want(status, A, "POST", "/servers", body).await
}

#[tokio::test]
async fn a_group_shows_the_documented_keys_of_every_microversion() {
    let c = cloud().await;
    let g = make(&c, A, json!({"rules": {"max_server_per_host": "2"}})).await;
    for (minor, want) in [
        (1, &["id", "members", "metadata", "name", "policies"][..]),
        (12, &["id", "members", "metadata", "name", "policies"]),
        (
            13,
            &["id", "members", "metadata", "name", "policies", "project_id", "user_id"],
        ),
        (
            63,
            &["id", "members", "metadata", "name", "policies", "project_id", "user_id"],
        ),
        (
            64,
            &["id", "members", "name", "policy", "project_id", "rules", "user_id"],
        ),
        (
            NEW,
            &["id", "members", "name", "policy", "project_id", "rules", "user_id"],
        ),
    ] {
        let v = c.get_at(minor, READER, &format!("{G}/{g}")).await["server_group"].clone();
        assert_eq!(keys(&v), want, "2.{minor}");
        let list = c.get_at(minor, A, G).await["server_groups"].clone();
        assert_eq!(list, json!([v]));
    }
    let v = c.get(A, &format!("{G}/{g}")).await["server_group"].clone();
    assert_eq!(
        (&v["policy"], &v["rules"]),
        (&json!("anti-affinity"), &json!({"max_server_per_host": 2}))
    );
    // Before 2.64 a list of one policy; the soft ones from 2.15 on.
    for (minor, policy, status) in [
        (1, "affinity", 200),
        (14, "soft-affinity", 400),
        (15, "soft-affinity", 200),
        (63, "soft-anti-affinity", 200),
    ] {
        let body = json!({"server_group": {"name": "old", "policies": [policy]}});
        let answer = c.at(minor, A, "POST", G, body).await;
        assert_eq!(answer.status, status, "2.{minor} {policy}");
        if status == 200 {
            assert_eq!(answer.body["server_group"]["policies"], json!([policy]));
        }
    }
}

#[tokio::test]
async fn bad_groups_are_refused() {
    let c = cloud().await;
    for (minor, body, part) in [
        (NEW, group(json!({"name": ""})), "server_group.name"),
        (NEW, group(json!({"name": "x".repeat(256)})), "server_group.name"),
        (NEW, group(json!({"name": 1})), "server_group.name"),
        (NEW, group(json!({"policy": "hate"})), "server_group.policy"),
        (NEW, group(json!({"policy": null})), "server_group.policy"),
        (NEW, group(json!({"policies": ["affinity"]})), "policies"),
        (
            NEW,
            group(json!({"policy": "affinity", "rules": {"max_server_per_host": 2}})),
            "anti-affinity",
        ),
        (
            NEW,
            group(json!({"rules": {"max_server_per_host": 0}})),
            "max_server_per_host",
        ),
        (
            NEW,
            group(json!({"rules": {"max_server_per_host": "x"}})),
            "max_server_per_host",
        ),
        (NEW, group(json!({"rules": {"min": 1}})), "min"),
        (NEW, group(json!({"color": "red"})), "color"),
        (NEW, json!({"server_group": {"name": "g"}}), "policy"),
        (NEW, json!({"server_group": {"policy": "affinity"}}), "name"),
        (NEW, json!({}), "server_group"),
        (63, group(json!({})), "policy"),
        (63, json!({"server_group": {"name": "g", "policies": []}}), "policies"),
        (
            63,
            json!({"server_group": {"name": "g", "policies": ["affinity", "anti-affinity"]}}),
            "policies",
        ),
        (63, json!({"server_group": {"name": "g"}}), "policies"),
    ] {
        let message = c.refused_at(minor, 400, A, "POST", G, body.clone()).await;
        assert!(message.contains(part), "{body}: {message}");
    }
    c.refused(403, READER, "POST", G, group(json!({}))).await;
    assert_eq!(c.store.snapshot().count::<m::ServerGroup>(), 0);
    c.audit();
}

#[tokio::test]
async fn members_are_those_who_named_the_group() {
    let c = bare().await;
    for n in 0..3 {
        c.node(&format!("node{n}"), 16, 65_536, 1_000).await;
    }
    c.quota("aaa", json!({"server_group_members": 3})).await;
    let apart = make(&c, A, json!({})).await;
    member(&c, 202, &apart, 3).await;
    c.settle().await;
    let v = c.get(A, &format!("{G}/{apart}")).await["server_group"].clone();
    let members: Vec<String> = v["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(members.len(), 3);
    let hosts: std::collections::BTreeSet<_> = members.iter().map(|i| c.server(i).unwrap().host).collect();
    assert_eq!(hosts.len(), 3, "each on another host");
    let shown = c.get(A, &format!("/servers/{}", members[0])).await["server"]["server_groups"].clone();
    assert_eq!(shown, json!([apart]));
    let message = member(&c, 403, &apart, 1).await["forbidden"]["message"].clone();
    assert_eq!(message, "Quota exceeded, too many servers in group");
    c.want(204, A, "DELETE", &format!("/servers/{}", members[0]), Value::Null)
        .await;
    c.settle().await;
    assert_eq!(
        c.get(A, &format!("{G}/{apart}")).await["server_group"]["members"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // All together, and a limit per host.
    let together = make(&c, A, json!({"policy": "affinity"})).await;
    member(&c, 202, &together, 3).await;
    let two = make(&c, A, json!({"rules": {"max_server_per_host": 2}})).await;
    c.quota("aaa", json!({"server_group_members": -1, "instances": -1}))
        .await;
    member(&c, 202, &two, 7).await;
    c.settle().await;
    let s = c.store.snapshot();
    let hosts = |g: &str| -> Vec<Option<String>> { s.find::<m::Server>("group", g).map(|s| s.host.clone()).collect() };
    let on = hosts(&together);
    assert!(on.iter().all(|h| h.is_some() && *h == on[0]), "{on:?}");
    for n in 0..3 {
        let host = Some(format!("node{n}"));
        assert_eq!(hosts(&two).iter().filter(|h| **h == host).count(), 2);
    }
    let failed = s.find::<m::Server>("group", &two).find(|s| s.host.is_none()).unwrap();
    let fault = failed.fault.as_ref().unwrap();
    assert!(
        fault.message.contains("3 hosts by ServerGroupAntiAffinityFilter"),
        "{}",
        fault.message
    );
    c.idle();
}

#[tokio::test]
async fn groups_are_their_projects() {
    let c = cloud().await;
    let mine = make(&c, A, json!({"name": "mine"})).await;
    c.refused(404, B, "GET", &format!("{G}/{mine}"), Value::Null).await;
    c.refused(404, B, "DELETE", &format!("{G}/{mine}"), Value::Null).await;
    c.refused(404, B, "GET", &format!("{G}/{NOBODY}"), Value::Null).await;
    c.refused(403, READER, "DELETE", &format!("{G}/{mine}"), Value::Null)
        .await;
    assert_eq!(c.get(B, G).await["server_groups"], json!([]));
    assert_eq!(
        c.get(B, &format!("{G}?all_projects=1")).await["server_groups"],
        json!([])
    );
    let mut body = wanted(json!({}));
    body["os:scheduler_hints"] = json!({ "group": mine });
    let message = c.refused(400, B, "POST", "/servers", body).await;
    assert!(message.contains(&mine), "{message}");
    make(&c, B, json!({"name": "theirs"})).await;
    assert_eq!(c.get(ADMIN, G).await["server_groups"], json!([]));
    let all = c.get(ADMIN, &format!("{G}?all_projects=True")).await;
    assert_eq!(names(&all["server_groups"]), ["mine", "theirs"]);
    for (query, want) in [
        ("limit=1", &["mine"][..]),
        ("limit=1&offset=1", &["theirs"]),
        ("offset=5", &[]),
    ] {
        let page = c.get(ADMIN, &format!("{G}?all_projects=1&{query}")).await;
        assert_eq!(names(&page["server_groups"]), want);
    }
    for query in ["limit=x", "limit=-1", "offset=x", "offset=-1"] {
        c.refused(400, A, "GET", &format!("{G}?{query}"), Value::Null).await;
    }
    c.want(204, A, "DELETE", &format!("{G}/{mine}"), Value::Null).await;
    c.refused(404, A, "DELETE", &format!("{G}/{mine}"), Value::Null).await;
    c.idle();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quotas_of_groups_and_members_hold_in_a_race() {
    let c = Arc::new(cloud().await);
    c.quota(
        "aaa",
        json!({"server_groups": 3, "server_group_members": 4, "instances": -1, "cores": -1, "ram": -1}),
    )
    .await;
    let calls = (0..15).map(|_| {
        let c = Arc::clone(&c);
        tokio::spawn(async move { c.at(NEW, A, "POST", G, group(json!({}))).await })
    });
    let answers: Vec<Answer> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 3);
    for a in answers.iter().filter(|a| a.status != 200) {
        assert_eq!(
            (a.status, &a.body["forbidden"]["message"]),
            (403, &json!("Quota exceeded, too many server groups."))
        );
    }
    let g = id(&c.get(A, G).await["server_groups"][0]);
    let calls = (0..12).map(|_| {
        let (c, g) = (Arc::clone(&c), g.clone());
        tokio::spawn(async move {
            let mut body = wanted(json!({}));
            body["os:scheduler_hints"] = json!({ "group": g });
            c.at(NEW, A, "POST", "/servers", body).await.status
        })
    });
    let statuses: Vec<u16> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 202).count(), 4, "{statuses:?}");
    assert!(statuses.iter().all(|s| matches!(s, 202 | 403)), "{statuses:?}");
    // Servers that name a group while it goes: made before it, or refused; nothing of the group stays.
    let calls = (0..6).map(|n| {
        let (c, g) = (Arc::clone(&c), g.clone());
        tokio::spawn(async move {
            if n == 3 {
                return c.at(NEW, A, "DELETE", &format!("{G}/{g}"), Value::Null).await.status;
            }
            let mut body = wanted(json!({}));
            body["os:scheduler_hints"] = json!({ "group": g });
            c.at(NEW, A, "POST", "/servers", body).await.status
        })
    });
    for status in join_all(calls).await {
        assert!(matches!(status.unwrap(), 204 | 400 | 403));
    }
    c.settle().await;
    c.idle();
}
