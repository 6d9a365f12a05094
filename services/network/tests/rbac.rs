//! Networks shared with one project: attack class D1, shared with some is not shared with all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{A, ADMIN, B, cloud, id};
use serde_json::{Value, json};

const C: &str = "ccc:member";
const ALL: &str = "/v2.0/rbac-policies";

fn policy(network: &str, target: &str) -> Value {
    json!({"rbac_policy": {"object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": target}})
}

#[tokio::test]
async fn d1_a_network_is_shared_with_whom_it_says_and_nobody_else() {
    let c = cloud();
    let network = c.network(A).await;
    let subnet = c.subnet(A, &network, "10.0.0.0/24").await;
    let path = format!("/v2.0/networks/{network}");
    c.want(404, B, "GET", &path, json!(null)).await;
    // A stranger shares nothing of another's.
    c.want(404, B, "POST", ALL, policy(&network, "bbb")).await;
    let made = c.want(201, A, "POST", ALL, policy(&network, "bbb")).await;
    let one = format!("{ALL}/{}", id(&made["rbac_policy"]));
    c.want(409, A, "POST", ALL, policy(&network, "bbb")).await;
    assert_eq!(c.get(B, &path).await["network"]["shared"], true);
    assert_eq!(c.get(A, &path).await["network"]["shared"], false);
    c.get(B, &format!("/v2.0/subnets/{subnet}")).await;
    for (who, seen) in [(B, true), (C, false)] {
        for noun in ["networks", "subnets"] {
            let list = c.get(who, &format!("/v2.0/{noun}")).await;
            assert_eq!(!list[noun].as_array().unwrap().is_empty(), seen, "{who} {noun}");
        }
    }
    c.want(404, C, "GET", &path, json!(null)).await;
    c.want(404, C, "GET", &format!("/v2.0/subnets/{subnet}"), json!(null))
        .await;
    let port = json!({"port": {"network_id": network, "fixed_ips": [{"subnet_id": subnet}]}});
    c.want(404, C, "POST", "/v2.0/ports", port.clone()).await;
    let port = id(&c.want(201, B, "POST", "/v2.0/ports", port).await["port"]);
    // It may be used, not changed.
    c.want(403, B, "PUT", &path, json!({"network": {"name": "mine"}})).await;
    c.want(403, B, "DELETE", &path, json!(null)).await;
    let subnet2 = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24"}});
    c.want(403, B, "POST", "/v2.0/subnets", subnet2).await;
    c.want(403, B, "PUT", &format!("{path}/tags/t"), json!(null)).await;
    c.want(404, B, "GET", &one, json!(null)).await;
    c.want(404, B, "DELETE", &one, json!(null)).await;
    // While it is used, it stays shared.
    c.want(409, A, "DELETE", &one, json!(null)).await;
    let to_c = json!({"rbac_policy": {"target_tenant": "ccc"}});
    c.want(409, A, "PUT", &one, to_c.clone()).await;
    c.delete(B, &format!("/v2.0/ports/{port}")).await;
    c.want(200, A, "PUT", &one, to_c).await;
    c.want(404, B, "GET", &path, json!(null)).await;
    c.get(C, &path).await;
    c.want(204, A, "DELETE", &one, json!(null)).await;
    c.want(404, C, "GET", &path, json!(null)).await;
    let used = c.get(A, "/v2.0/quotas/aaa/details").await;
    assert_eq!(used["quota"]["rbac_policy"]["used"], 0);
}

#[tokio::test]
async fn sharing_with_all_is_for_administrators_and_is_what_shared_says() {
    let c = cloud();
    let network = c.network(A).await;
    let path = format!("/v2.0/networks/{network}");
    c.want(403, A, "POST", ALL, policy(&network, "*")).await;
    let made = c.want(201, ADMIN, "POST", ALL, policy(&network, "*")).await;
    assert_eq!(c.get(B, &path).await["network"]["shared"], true);
    let one = format!("{ALL}/{}", id(&made["rbac_policy"]));
    c.want(200, ADMIN, "PUT", &path, json!({"network": {"shared": false}}))
        .await;
    c.want(404, ADMIN, "GET", &one, json!(null)).await;
    for (body, word) in [
        (json!({"object_type": "router"}), "router"),
        (json!({"action": "access_as_external"}), "access_as_external"),
        (json!({"target_tenant": ""}), "target_tenant"),
        (json!({"object_id": "x"}), "object_id"),
    ] {
        let mut bad = policy(&network, "bbb");
        for (k, v) in body.as_object().unwrap() {
            bad["rbac_policy"][k] = v.clone();
        }
        let text = c.want(400, A, "POST", ALL, bad).await.to_string();
        assert!(text.contains(word), "{text}");
    }
    // A network takes its policies along.
    c.want(201, A, "POST", ALL, policy(&network, "bbb")).await;
    c.delete(A, &path).await;
    assert_eq!(c.get(A, ALL).await["rbac_policies"], json!([]));
    let used = c.get(A, "/v2.0/quotas/aaa/details").await;
    assert_eq!(used["quota"]["rbac_policy"]["used"], 0);
}
