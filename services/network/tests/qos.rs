//! QoS policies, their rules, and who has them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model as m;
use serde_json::{Value, json};

const POLICIES: &str = "/v2.0/qos/policies";

async fn policy(c: &Cloud, body: Value) -> String {
    id(&c.make(ADMIN, POLICIES, "policy", body).await)
}

fn limit(kbps: u32, direction: &str) -> Value {
    json!({"bandwidth_limit_rule": {"max_kbps": kbps, "direction": direction}})
}

fn says(c: &Cloud, port: &Value) -> Vec<m::QosRuleKind> {
    let snapshot = c.store.snapshot();
    let port = snapshot.get::<m::Port>(&id(port).as_str().into()).unwrap();
    m::qos::rules_of(&snapshot, &port.value)
}

#[tokio::test]
async fn a_policys_rules_are_made_changed_and_deleted() {
    let c = cloud();
    let q = policy(&c, json!({"name": "q", "description": "d"})).await;
    let limits = format!("{POLICIES}/{q}/bandwidth_limit_rules");
    let made = c.want(201, ADMIN, "POST", &limits, limit(1000, "ingress")).await["bandwidth_limit_rule"].clone();
    assert_eq!(
        (&made["max_burst_kbps"], &made["direction"]),
        (&json!(0), &json!("ingress"))
    );
    assert_eq!(
        c.refused(409, ADMIN, "POST", &limits, limit(5, "ingress")).await,
        "QoSRulesConflict"
    );
    c.want(201, ADMIN, "POST", &limits, limit(5, "egress")).await;
    let one = format!("{limits}/{}", id(&made));
    let alias = format!("/v2.0/qos/alias_bandwidth_limit_rules/{}", id(&made));
    assert_eq!(c.get(ADMIN, &one).await["bandwidth_limit_rule"], made);
    assert_eq!(c.get(ADMIN, &alias).await["bandwidth_limit_rule"], made);
    let change = json!({"bandwidth_limit_rule": {"max_burst_kbps": 80}});
    let changed = c.want(200, ADMIN, "PUT", &alias, change).await["bandwidth_limit_rule"].clone();
    assert_eq!(
        (&changed["max_kbps"], &changed["max_burst_kbps"]),
        (&json!(1000), &json!(80))
    );
    c.refused(
        409,
        ADMIN,
        "PUT",
        &one,
        json!({"bandwidth_limit_rule": {"direction": "egress"}}),
    )
    .await;
    let marks = format!("{POLICIES}/{q}/dscp_marking_rules");
    let mark = c
        .want(
            201,
            ADMIN,
            "POST",
            &marks,
            json!({"dscp_marking_rule": {"dscp_mark": 46}}),
        )
        .await;
    let mark = id(&mark["dscp_marking_rule"]);
    // A rule is found where its kind is, and in its policy.
    c.want(404, ADMIN, "GET", &format!("{limits}/{mark}"), Value::Null)
        .await;
    let other = policy(&c, json!({"name": "other"})).await;
    c.want(
        404,
        ADMIN,
        "GET",
        &format!("{POLICIES}/{other}/dscp_marking_rules/{mark}"),
        Value::Null,
    )
    .await;
    let shown = c.get(ADMIN, &format!("{POLICIES}/{q}")).await["policy"].clone();
    let kinds: Vec<&str> = shown["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["bandwidth_limit", "bandwidth_limit", "dscp_marking"]);
    assert_eq!(
        c.get(ADMIN, &format!("{limits}?direction=egress")).await["bandwidth_limit_rules"][0]["max_kbps"],
        5
    );
    c.want(204, ADMIN, "DELETE", &alias, Value::Null).await;
    c.want(404, ADMIN, "GET", &one, Value::Null).await;
    c.want(204, ADMIN, "DELETE", &format!("{marks}/{mark}"), Value::Null)
        .await;
    for (path, body, field) in [
        (
            &limits,
            json!({"bandwidth_limit_rule": {"max_kbps": 0, "direction": "ingress"}}),
            "max_kbps",
        ),
        (
            &limits,
            json!({"bandwidth_limit_rule": {"max_kbps": 3_000_000_000_u64}}),
            "max_kbps",
        ),
        (&limits, json!({"bandwidth_limit_rule": {}}), "max_kbps"),
        (&limits, limit(5, "both"), "direction"),
        (&limits, json!({"bandwidth_limit_rule": {"max_kbps": 5, "x": 1}}), "x"),
        (&marks, json!({"dscp_marking_rule": {"dscp_mark": 1}}), "dscp_mark"),
        (&marks, json!({"dscp_marking_rule": {}}), "dscp_mark"),
    ] {
        let (status, answer) = c.call(ADMIN, "POST", path, body).await;
        assert!(
            status == 400 && answer.to_string().contains(field),
            "{field}: {status} {answer}"
        );
    }
    let types = c.get(A, "/v2.0/qos/rule-types").await;
    assert_eq!(types["rule_types"].as_array().unwrap().len(), 2);
    let details = c.get(ADMIN, "/v2.0/qos/rule-types/bandwidth_limit").await;
    assert_eq!(details["rule_type"]["drivers"][0]["name"], "nftables");
    assert_eq!(
        c.get(A, "/v2.0/qos/rule-types/bandwidth_limit").await["rule_type"]["drivers"],
        json!([])
    );
    c.want(404, ADMIN, "GET", "/v2.0/qos/rule-types/minimum_bandwidth", Value::Null)
        .await;
    c.audit();
}

#[tokio::test]
async fn a_port_has_its_own_policy_or_its_networks() {
    let c = cloud();
    let (slow, fast) = (
        policy(&c, json!({"name": "slow", "shared": true})).await,
        policy(&c, json!({"name": "fast", "shared": true})).await,
    );
    for (q, kbps) in [(&slow, 10), (&fast, 1000)] {
        c.want(
            201,
            ADMIN,
            "POST",
            &format!("{POLICIES}/{q}/bandwidth_limit_rules"),
            limit(kbps, "egress"),
        )
        .await;
    }
    let rate = |kbps| {
        vec![m::QosRuleKind::BandwidthLimit {
            max_kbps: kbps,
            max_burst_kbps: 0,
            direction: m::Direction::Egress,
        }]
    };
    let net = c.network(A).await;
    c.subnet(A, &net, "10.0.0.0/24").await;
    let port = c.port(A, &net).await;
    assert!(says(&c, &port).is_empty());
    let of_net = |q: Value| json!({"network": {"qos_policy_id": q}});
    let path = format!("/v2.0/networks/{net}");
    c.want(200, A, "PUT", &path, of_net(json!(slow))).await;
    assert_eq!(says(&c, &port), rate(10));
    let at = format!("/v2.0/ports/{}", id(&port));
    let shown = c.get(A, &at).await["port"].clone();
    assert_eq!(
        (&shown["qos_policy_id"], &shown["qos_network_policy_id"]),
        (&Value::Null, &json!(slow))
    );
    c.want(200, A, "PUT", &at, json!({"port": {"qos_policy_id": fast}}))
        .await;
    assert_eq!(says(&c, &port), rate(1000));
    // The network's own devices are not bound.
    let own = c
        .get(
            ADMIN,
            &format!("/v2.0/ports?network_id={net}&device_owner=network:dhcp"),
        )
        .await["ports"][0]
        .clone();
    assert!(says(&c, &own).is_empty());
    for q in [&slow, &fast] {
        assert_eq!(
            c.refused(409, ADMIN, "DELETE", &format!("{POLICIES}/{q}"), Value::Null)
                .await,
            "QosPolicyInUse"
        );
    }
    c.want(200, A, "PUT", &at, json!({"port": {"qos_policy_id": null}}))
        .await;
    c.want(200, A, "PUT", &path, of_net(Value::Null)).await;
    for q in [&slow, &fast] {
        c.want(204, ADMIN, "DELETE", &format!("{POLICIES}/{q}"), Value::Null)
            .await;
    }
    c.want(404, A, "PUT", &at, json!({"port": {"qos_policy_id": slow}}))
        .await;
    c.audit();
}

#[tokio::test]
async fn policies_are_an_administrators_to_make_and_their_projects_to_use() {
    let c = cloud();
    let own = policy(&c, json!({"name": "own", "project_id": "aaa"})).await;
    c.want(403, A, "POST", POLICIES, json!({"policy": {"name": "x"}})).await;
    let path = format!("{POLICIES}/{own}");
    c.want(200, A, "GET", &path, Value::Null).await;
    c.want(404, B, "GET", &path, Value::Null).await;
    c.want(403, A, "PUT", &path, json!({"policy": {"name": "y"}})).await;
    c.want(403, A, "DELETE", &path, Value::Null).await;
    c.want(
        403,
        A,
        "POST",
        &format!("{path}/bandwidth_limit_rules"),
        limit(5, "egress"),
    )
    .await;
    let rule = c
        .want(
            201,
            ADMIN,
            "POST",
            &format!("{path}/bandwidth_limit_rules"),
            limit(5, "egress"),
        )
        .await;
    let alias = format!(
        "/v2.0/qos/alias_bandwidth_limit_rules/{}",
        id(&rule["bandwidth_limit_rule"])
    );
    c.want(200, A, "GET", &alias, Value::Null).await;
    c.want(404, B, "GET", &alias, Value::Null).await;
    let net = c.network(B).await;
    c.want(
        404,
        B,
        "PUT",
        &format!("/v2.0/networks/{net}"),
        json!({"network": {"qos_policy_id": own}}),
    )
    .await;
    c.want(
        404,
        B,
        "POST",
        "/v2.0/ports",
        json!({"port": {"network_id": net, "qos_policy_id": own}}),
    )
    .await;
    assert!(c.get(B, POLICIES).await["policies"].as_array().unwrap().is_empty());
    // Shared, everyone may use it.
    c.want(200, ADMIN, "PUT", &path, json!({"policy": {"shared": true}}))
        .await;
    c.want(
        200,
        B,
        "PUT",
        &format!("/v2.0/networks/{net}"),
        json!({"network": {"qos_policy_id": own}}),
    )
    .await;
    // The default of a project is there once, and new networks have it unless they say otherwise.
    c.want(200, ADMIN, "PUT", &path, json!({"policy": {"is_default": true}}))
        .await;
    let second = json!({"policy": {"name": "z", "project_id": "aaa", "is_default": true}});
    assert_eq!(
        c.refused(409, ADMIN, "POST", POLICIES, second).await,
        "QoSPolicyDefaultAlreadyExists"
    );
    let new = c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await;
    assert_eq!(new["qos_policy_id"], own.as_str());
    let none = c
        .make(
            A,
            "/v2.0/networks",
            "network",
            json!({"name": "n", "qos_policy_id": null}),
        )
        .await;
    assert_eq!(none["qos_policy_id"], Value::Null);
    c.audit();
}
