//! Two tenants: overlapping addresses, and what the one may do to the other's (attack classes D1 and D2).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn overlapping_addresses_of_two_tenants() {
    let c = cloud();
    for token in [A, B] {
        let net = c.network(token).await;
        let sub = c.subnet(token, &net, "10.0.0.0/24").await;
        let p = json!({"network_id": net, "fixed_ips": [{"subnet_id": sub, "ip_address": "10.0.0.77"}]});
        let p = c.make(token, "/v2.0/ports", "port", p.clone()).await;
        assert_eq!(p["fixed_ips"][0]["ip_address"], "10.0.0.77");
        let again = json!({"port": {"network_id": net, "fixed_ips": [{"ip_address": "10.0.0.77"}]}});
        assert_eq!(
            c.refused(409, token, "POST", "/v2.0/ports", again).await,
            "IpAddressAlreadyAllocated"
        );
    }
    let nets = c.get(ADMIN, "/v2.0/networks").await;
    let all = nets["networks"].as_array().unwrap();
    assert_ne!(all[0]["provider:segmentation_id"], all[1]["provider:segmentation_id"]);
    c.audit();
}

/// Everything of A's that a foreign tenant could name.
async fn things(c: &Cloud) -> Vec<(&'static str, String, Value)> {
    let public = c.external().await;
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let port = c.port(A, &net).await;
    let router = c
        .make(
            A,
            "/v2.0/routers",
            "router",
            json!({"name": "r", "external_gateway_info": {"network_id": public}}),
        )
        .await;
    let fip = c
        .make(
            A,
            "/v2.0/floatingips",
            "floatingip",
            json!({"floating_network_id": public}),
        )
        .await;
    let sg = c
        .make(A, "/v2.0/security-groups", "security_group", json!({"name": "g"}))
        .await;
    let change = |name: &str| json!({ name: {"description": "x"} });
    vec![
        ("networks", net, change("network")),
        ("subnets", sub, change("subnet")),
        ("ports", id(&port), change("port")),
        ("routers", id(&router), change("router")),
        ("floatingips", id(&fip), change("floatingip")),
        ("security-groups", id(&sg), change("security_group")),
    ]
}

#[tokio::test]
async fn a_foreign_id_is_404_for_every_verb_and_in_no_list() {
    let c = cloud();
    for (resource, id, change) in things(&c).await {
        let path = format!("/v2.0/{resource}/{id}");
        for (method, path, body) in [
            ("GET", path.clone(), Value::Null),
            ("PUT", path.clone(), change.clone()),
            ("GET", format!("{path}/tags"), Value::Null),
            ("PUT", format!("{path}/tags"), json!({"tags": ["x"]})),
            ("POST", format!("{path}/tags"), json!({"tags": ["x"]})),
            ("PUT", format!("{path}/tags/x"), Value::Null),
            ("DELETE", format!("{path}/tags"), Value::Null),
            ("DELETE", path.clone(), Value::Null),
        ] {
            c.refused(404, B, method, &path, body).await;
        }
        let plural = resource.replace("security-groups", "security_groups");
        for query in [
            format!("?id={id}"),
            "?project_id=aaa".to_owned(),
            "?tenant_id=aaa".to_owned(),
        ] {
            let list = c.get(B, &format!("/v2.0/{resource}{query}")).await;
            assert_eq!(list[&plural], json!([]), "{resource}{query}");
        }
        // A reader of the owner's project sees, and may not change.
        c.get("aaa:reader", &path).await;
        for (method, path, body) in [
            ("PUT", path.clone(), change.clone()),
            ("PUT", format!("{path}/tags"), json!({"tags": ["x"]})),
            ("DELETE", path.clone(), Value::Null),
        ] {
            c.refused(403, "aaa:reader", method, &path, body).await;
        }
        c.want(200, A, "PUT", &path, change).await;
    }
    c.audit();
}

#[tokio::test]
async fn foreign_things_cannot_be_used_by_their_id() {
    let c = cloud();
    let all = things(&c).await;
    let of = |r: &str| all.iter().find(|(n, ..)| *n == r).unwrap().1.clone();
    let net_b = c.network(B).await;
    let sub_b = c.subnet(B, &net_b, "10.9.0.0/24").await;
    let router_b = id(&c.make(B, "/v2.0/routers", "router", json!({"name": "rb"})).await);
    let fip_net = c.get(ADMIN, "/v2.0/networks?router:external=true").await["networks"][0]["id"].clone();
    let sg_b = c.get(B, "/v2.0/security-groups").await["security_groups"][0]["id"].clone();
    for (method, path, body, code) in [
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": of("networks")}}),
            "NetworkNotFound",
        ),
        (
            "POST",
            "/v2.0/subnets".to_owned(),
            json!({"subnet": {"network_id": of("networks"), "cidr": "10.7.0.0/24", "ip_version": 4}}),
            "NetworkNotFound",
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net_b, "security_groups": [of("security-groups")]}}),
            "SecurityGroupNotFound",
        ),
        (
            "PUT",
            format!("/v2.0/routers/{router_b}/add_router_interface"),
            json!({"subnet_id": of("subnets")}),
            "SubnetNotFound",
        ),
        (
            "PUT",
            format!("/v2.0/routers/{router_b}/add_router_interface"),
            json!({"port_id": of("ports")}),
            "PortNotFound",
        ),
        (
            "PUT",
            format!("/v2.0/routers/{}/add_router_interface", of("routers")),
            json!({"subnet_id": sub_b}),
            "RouterNotFound",
        ),
        (
            "POST",
            "/v2.0/floatingips".to_owned(),
            json!({"floatingip": {"floating_network_id": fip_net, "port_id": of("ports")}}),
            "PortNotFound",
        ),
        (
            "POST",
            "/v2.0/security-group-rules".to_owned(),
            json!({"security_group_rule": {"security_group_id": of("security-groups"), "direction": "ingress"}}),
            "SecurityGroupNotFound",
        ),
        (
            "POST",
            "/v2.0/security-group-rules".to_owned(),
            json!({"security_group_rule": {"security_group_id": sg_b, "direction": "ingress", "remote_group_id": of("security-groups")}}),
            "SecurityGroupNotFound",
        ),
    ] {
        assert_eq!(
            c.refused(404, B, method, &path, body.clone()).await,
            code,
            "{path} {body}"
        );
    }
    // A port that says it is an interface of a foreign router is not believed.
    for owner in [
        "network:router_interface",
        "network:router_gateway",
        "network:floatingip",
        "network:dhcp",
    ] {
        let p = json!({"port": {"network_id": net_b, "device_owner": owner, "device_id": of("routers")}});
        c.refused(400, B, "POST", "/v2.0/ports", p).await;
    }
    let p = c.port(B, &net_b).await;
    let p = format!("/v2.0/ports/{}", id(&p));
    c.refused(
        400,
        B,
        "PUT",
        &p,
        json!({"port": {"device_owner": "network:router_interface", "device_id": of("routers")}}),
    )
    .await;
    // Another project can be named by an administrator only.
    c.refused(
        400,
        B,
        "POST",
        "/v2.0/networks",
        json!({"network": {"name": "x", "project_id": "aaa"}}),
    )
    .await;
    c.make(
        ADMIN,
        "/v2.0/networks",
        "network",
        json!({"name": "x", "project_id": "aaa"}),
    )
    .await;
    // Privileged attributes.
    for attributes in [
        json!({"shared": true}),
        json!({"router:external": true}),
        json!({"provider:network_type": "vxlan"}),
    ] {
        assert_eq!(
            c.refused(403, B, "POST", "/v2.0/networks", json!({"network": attributes}))
                .await,
            "PolicyNotAuthorized"
        );
    }
    c.refused(
        403,
        B,
        "POST",
        "/v2.0/ports",
        json!({"port": {"network_id": net_b, "binding:host_id": "h"}}),
    )
    .await;
    c.refused(403, B, "POST", "/v2.0/ports", json!({"port": {"network_id": fip_net}}))
        .await;
    for path in [
        "/v2.0/agents",
        "/v2.0/network-ip-availabilities",
        "/v2.0/quotas",
        "/v2.0/quotas/aaa",
    ] {
        c.refused(403, B, "GET", path, Value::Null).await;
    }
    c.get(B, "/v2.0/quotas/bbb").await;
    c.refused(403, B, "PUT", "/v2.0/quotas/bbb", json!({"quota": {"port": -1}}))
        .await;
    c.audit();
}

#[tokio::test]
async fn a_shared_network_may_be_used_and_not_changed() {
    let c = cloud();
    let net = id(&c
        .make(
            ADMIN,
            "/v2.0/networks",
            "network",
            json!({"name": "all", "shared": true}),
        )
        .await);
    let sub = c.subnet(ADMIN, &net, "10.1.0.0/24").await;
    assert_eq!(c.get(B, "/v2.0/networks").await["networks"][0]["id"], net);
    assert_eq!(c.get(B, "/v2.0/subnets").await["subnets"][0]["id"], sub);
    let port = c.port(B, &net).await;
    assert_eq!(port["project_id"], "bbb");
    let path = format!("/v2.0/networks/{net}");
    for (method, path, body) in [
        ("PUT", path.clone(), json!({"network": {"name": "mine"}})),
        ("DELETE", path.clone(), Value::Null),
        ("PUT", format!("{path}/tags/mine"), Value::Null),
        ("PUT", format!("{path}/tags"), json!({"tags": []})),
        ("DELETE", format!("{path}/tags"), Value::Null),
        (
            "POST",
            "/v2.0/subnets".to_owned(),
            json!({"subnet": {"network_id": net, "cidr": "10.8.0.0/24", "ip_version": 4}}),
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net, "fixed_ips": [{"ip_address": "10.1.0.9"}]}}),
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net, "port_security_enabled": false}}),
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net, "mac_address": "fa:16:3e:00:00:01"}}),
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net, "allowed_address_pairs": [{"ip_address": "10.1.0.9"}]}}),
        ),
        (
            "POST",
            "/v2.0/ports".to_owned(),
            json!({"port": {"network_id": net, "device_owner": "network:foo"}}),
        ),
    ] {
        assert_eq!(
            c.refused(403, B, method, &path, body.clone()).await,
            "PolicyNotAuthorized",
            "{method} {path} {body}"
        );
    }
    assert_eq!(
        c.refused(409, ADMIN, "PUT", &path, json!({"network": {"shared": false}}))
            .await,
        "InvalidSharedSetting"
    );
    c.audit();
}
