//! Many at once: no address twice, no quota passed, one default group.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use futures_util::future::join_all;
use maru_network_model::{Port, PortRequest, SecurityGroup, over_quota, plan_create_port};
use maru_store::Txn;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_ports_share_no_address_and_never_pass_the_quota() {
    let c = Arc::new(cloud());
    let net = c.network(A).await;
    // 61 addresses after gateway; one is the DHCP port's.
    c.subnet(A, &net, "10.0.0.0/26").await;
    c.set_quota("aaa", json!({"port": 41})).await;
    let calls = (0..64).map(|_| {
        let (c, net) = (Arc::clone(&c), net.clone());
        tokio::spawn(async move {
            c.call(A, "POST", "/v2.0/ports", json!({"port": {"network_id": net}}))
                .await
        })
    });
    let answers: Vec<(u16, Value)> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let made: Vec<&Value> = answers
        .iter()
        .filter(|(s, _)| *s == 201)
        .map(|(_, v)| &v["port"])
        .collect();
    assert_eq!(made.len(), 40, "41 less the DHCP port");
    for (status, v) in answers.iter().filter(|(s, _)| *s != 201) {
        assert_eq!(*status, 409, "{v}");
        assert_eq!(v["NeutronError"]["type"], "OverQuota", "{v}");
    }
    let ips: BTreeSet<&str> = made
        .iter()
        .map(|p| p["fixed_ips"][0]["ip_address"].as_str().unwrap())
        .collect();
    assert_eq!(ips.len(), 40);
    c.audit();
    // Without the quota the subnet is the limit.
    c.set_quota("aaa", json!({"port": -1})).await;
    let calls = (0..30).map(|_| {
        let (c, net) = (Arc::clone(&c), net.clone());
        tokio::spawn(async move {
            c.call(A, "POST", "/v2.0/ports", json!({"port": {"network_id": net}}))
                .await
        })
    });
    let answers: Vec<(u16, Value)> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        answers.iter().filter(|(s, _)| *s == 201).count(),
        20,
        "61 hosts, 41 were taken"
    );
    for (_, v) in answers.iter().filter(|(s, _)| *s != 201) {
        assert_eq!(v["NeutronError"]["type"], "IpAddressGenerationFailure", "{v}");
    }
    c.audit();
}

#[tokio::test]
async fn a_bulk_call_with_a_quota_one_short_makes_none() {
    let c = cloud();
    let net = c.network(A).await;
    c.subnet(A, &net, "10.0.0.0/24").await;
    let bulk = json!({"ports": vec![json!({"network_id": net}); 100]});
    c.set_quota("aaa", json!({"port": 100})).await;
    assert_eq!(
        c.refused(409, A, "POST", "/v2.0/ports", bulk.clone()).await,
        "OverQuota"
    );
    assert_eq!(c.store.snapshot().count::<Port>(), 1, "the DHCP port alone");
    c.audit();
    c.set_quota("aaa", json!({"port": 101})).await;
    let made = c.want(201, A, "POST", "/v2.0/ports", bulk).await;
    let ips: BTreeSet<String> = made["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["fixed_ips"][0]["ip_address"].to_string())
        .collect();
    assert_eq!(ips.len(), 100);
    c.audit();
    // One bad item spoils the whole call.
    let bad = json!({"networks": [{"name": "x"}, {"name": 5}]});
    c.refused(400, A, "POST", "/v2.0/networks", bad).await;
    assert_eq!(
        c.get(A, "/v2.0/networks").await["networks"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_group_is_made_once() {
    let c = Arc::new(cloud());
    let net = c.network(A).await;
    c.subnet(A, &net, "10.0.0.0/24").await;
    let calls = (0..24).map(|i| {
        let (c, net) = (Arc::clone(&c), net.clone());
        tokio::spawn(async move {
            if i % 2 == 0 {
                c.call(A, "GET", "/v2.0/security-groups", Value::Null).await
            } else {
                c.call(A, "POST", "/v2.0/ports", json!({"port": {"network_id": net}}))
                    .await
            }
        })
    });
    for answer in join_all(calls).await {
        assert!(matches!(answer.unwrap().0, 200 | 201));
    }
    assert_eq!(c.store.snapshot().count::<SecurityGroup>(), 1);
    let groups = c.get(A, "/v2.0/security-groups").await;
    let rules = groups["security_groups"][0]["security_group_rules"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(rules.len(), 4);
    assert_eq!(
        rules
            .iter()
            .filter(|r| r["direction"] == "ingress" && r["remote_group_id"] == groups["security_groups"][0]["id"])
            .count(),
        2
    );
    c.audit();
}

#[tokio::test]
async fn planners_compose_in_one_transaction() {
    let c = cloud();
    let net = c.network(A).await;
    c.subnet(A, &net, "10.0.0.0/27").await;
    c.set_quota("aaa", json!({"port": 20})).await;
    let plan = |n: usize| {
        let net = net.clone();
        let store = c.store.clone();
        async move {
            store
                .plan(|s| {
                    let mut txn = Txn::new();
                    let mut made = Vec::new();
                    for i in 0..n {
                        made.push(plan_create_port(
                            s,
                            &mut txn,
                            PortRequest {
                                device_id: format!("server-{i}"),
                                ..PortRequest::new(net.as_str().into(), "aaa".into())
                            },
                        )?);
                    }
                    Ok((txn, made))
                })
                .await
                .map_err(|e| over_quota(&e).unwrap_or(e))
        }
    };
    let e = plan(20).await.unwrap_err();
    assert_eq!(e.code(), Some("OverQuota"));
    let made = plan(19).await.unwrap();
    let ips: BTreeSet<_> = made.iter().map(|(_, p)| p.fixed_ips[0].ip_address).collect();
    assert_eq!(ips.len(), 19);
    assert!(
        made.iter()
            .all(|(_, p)| p.security_groups == made[0].1.security_groups && p.security_groups.len() == 1)
    );
    c.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_subnets_of_one_network_lose_the_race() {
    let c = Arc::new(cloud());
    let net = c.network(A).await;
    let calls = (0..8).map(|_| {
        let (c, net) = (Arc::clone(&c), net.clone());
        tokio::spawn(async move {
            c.call(
                A,
                "POST",
                "/v2.0/subnets",
                json!({"subnet": {"network_id": net, "cidr": "10.0.0.0/24", "ip_version": 4}}),
            )
            .await
        })
    });
    let answers: Vec<u16> = join_all(calls).await.into_iter().map(|r| r.unwrap().0).collect();
    assert_eq!(answers.iter().filter(|s| **s == 201).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|s| **s == 400).count(), 7, "{answers:?}");
    c.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_and_deletion_cross_and_leave_nothing_dangling() {
    for _ in 0..10 {
        let c = Arc::new(cloud());
        let net = c.network(A).await;
        let sub = c.subnet(A, &net, "10.0.0.0/24").await;
        let spawn = |method: &'static str, path: String, body: Value| {
            let c = Arc::clone(&c);
            tokio::spawn(async move { c.call(A, method, &path, body).await.0 })
        };
        let port = json!({"port": {"network_id": net}});
        let _ = join_all([
            spawn("POST", "/v2.0/ports".into(), port.clone()),
            spawn("DELETE", format!("/v2.0/subnets/{sub}"), Value::Null),
            spawn("POST", "/v2.0/ports".into(), port),
            spawn("DELETE", format!("/v2.0/networks/{net}"), Value::Null),
        ])
        .await;
        let s = c.store.snapshot();
        for p in s.list::<Port>() {
            assert!(s.get::<maru_network_model::Network>(&p.value.network_id).is_some());
            for f in &p.value.fixed_ips {
                assert!(s.get::<maru_network_model::Subnet>(&f.subnet_id).is_some());
            }
        }
        c.audit();
    }
}
