//! Subnet pools, address scopes, metering labels, and what administrators tell agents.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{A, ADMIN, B, cloud, id};
use serde_json::json;

#[tokio::test]
async fn subnets_are_cut_out_of_a_pool_and_never_overlap() {
    let c = cloud();
    let pool =
        json!({"name": "p", "prefixes": ["10.1.0.0/16", "10.0.0.0/16"], "default_prefixlen": 24, "min_prefixlen": 20});
    let pool = c.make(A, "/v2.0/subnetpools", "subnetpool", pool).await;
    // Neighbours are one block.
    assert_eq!(pool["prefixes"], json!(["10.0.0.0/15"]));
    let pool = id(&pool);
    let mut seen = Vec::new();
    for n in 0..4 {
        let network = id(&c
            .make(A, "/v2.0/networks", "network", json!({"name": n.to_string()}))
            .await);
        let body = json!({"network_id": network, "ip_version": 4, "subnetpool_id": pool});
        let subnet = c.make(A, "/v2.0/subnets", "subnet", body).await;
        assert_eq!(subnet["subnetpool_id"], pool.as_str());
        let cidr = subnet["cidr"].as_str().unwrap().to_owned();
        assert!(cidr.ends_with("/24") && !seen.contains(&cidr), "{cidr} of {seen:?}");
        seen.push(cidr);
    }
    let network = id(&c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await);
    for (wish, status) in [
        (json!({"subnetpool_id": pool, "prefixlen": 19}), 400),
        (json!({"subnetpool_id": pool, "cidr": "192.168.0.0/24"}), 409),
        (json!({"subnetpool_id": pool, "cidr": seen[0]}), 409),
        (
            json!({"subnetpool_id": pool, "prefixlen": 24, "cidr": "10.0.9.0/24"}),
            400,
        ),
        (json!({"use_default_subnetpool": true}), 400),
        (json!({}), 400),
        (json!({"subnetpool_id": pool, "cidr": "10.0.9.0/24"}), 201),
        // One pool per network and IP version.
        (json!({"cidr": "10.0.10.0/24"}), 400),
    ] {
        let mut body = wish.clone();
        body["network_id"] = json!(network);
        body["ip_version"] = json!(4);
        c.want(status, A, "POST", "/v2.0/subnets", json!({"subnet": body}))
            .await;
    }
    // It is another's: not there.
    let body = json!({"subnet": {"network_id": network, "ip_version": 4, "subnetpool_id": pool}});
    c.want(404, B, "POST", "/v2.0/subnets", body).await;
    c.want(404, B, "GET", &format!("/v2.0/subnetpools/{pool}"), json!(null))
        .await;
    c.want(400, A, "DELETE", &format!("/v2.0/subnetpools/{pool}"), json!(null))
        .await;
    let gone = json!({"prefixes": ["10.0.0.0/24"]});
    c.want(
        409,
        A,
        "PUT",
        &format!("/v2.0/subnetpools/{pool}/remove_prefixes"),
        gone,
    )
    .await;
    let gone = json!({"prefixes": ["10.1.0.0/16"]});
    let left = c
        .want(
            200,
            A,
            "PUT",
            &format!("/v2.0/subnetpools/{pool}/remove_prefixes"),
            gone,
        )
        .await;
    assert_eq!(left, json!({"prefixes": ["10.0.0.0/16"]}));
}

#[tokio::test]
async fn a_pools_rules_hold() {
    let c = cloud();
    for (pool, status) in [
        (json!({"name": "x", "prefixes": []}), 400),
        (json!({"name": "x", "prefixes": ["10.0.0.0/8", "2001:db8::/32"]}), 400),
        (
            json!({"name": "x", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 25, "max_prefixlen": 24}),
            400,
        ),
        (
            json!({"name": "x", "prefixes": ["10.0.0.0/8"], "max_prefixlen": 64}),
            400,
        ),
        (
            json!({"name": "x", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 7}),
            400,
        ),
        (json!({"name": "x", "prefixes": ["10.0.0.0/8"], "shared": true}), 403),
        (
            json!({"name": "x", "prefixes": ["10.0.0.0/8"], "is_default": true}),
            403,
        ),
        (json!({"prefixes": ["10.0.0.0/8"]}), 400),
    ] {
        c.want(status, A, "POST", "/v2.0/subnetpools", json!({"subnetpool": pool}))
            .await;
    }
    let pool = json!({"name": "d", "prefixes": ["10.64.0.0/16"], "is_default": true, "shared": true, "default_prefixlen": 26, "default_quota": 64});
    let pool = id(&c.make(ADMIN, "/v2.0/subnetpools", "subnetpool", pool.clone()).await);
    let second = json!({"subnetpool": {"name": "e", "prefixes": ["10.65.0.0/16"], "is_default": true}});
    c.want(400, ADMIN, "POST", "/v2.0/subnetpools", second).await;
    // Everybody cuts out of a shared pool, up to its quota.
    for who in [A, B] {
        for status in [201, 409] {
            let network = id(&c.make(who, "/v2.0/networks", "network", json!({"name": "n"})).await);
            let body = json!({"subnet": {"network_id": network, "ip_version": 4, "use_default_subnetpool": true}});
            c.want(status, who, "POST", "/v2.0/subnets", body).await;
        }
    }
    let update = json!({"subnetpool": {"prefixes": ["10.64.0.0/17"]}});
    c.want(400, ADMIN, "PUT", &format!("/v2.0/subnetpools/{pool}"), update)
        .await;
    let update = json!({"subnetpool": {"name": "mine"}});
    c.want(403, A, "PUT", &format!("/v2.0/subnetpools/{pool}"), update)
        .await;
}

#[tokio::test]
async fn the_pools_of_a_scope_do_not_overlap() {
    let c = cloud();
    let scope = id(&c
        .make(
            A,
            "/v2.0/address-scopes",
            "address_scope",
            json!({"name": "s", "ip_version": 4}),
        )
        .await);
    let pool = |block: &str| json!({"subnetpool": {"name": "p", "prefixes": [block], "address_scope_id": scope}});
    let made = c.want(201, A, "POST", "/v2.0/subnetpools", pool("10.0.0.0/16")).await;
    c.want(409, A, "POST", "/v2.0/subnetpools", pool("10.0.128.0/17")).await;
    c.want(400, A, "POST", "/v2.0/subnetpools", pool("2001:db8::/32")).await;
    c.want(404, B, "POST", "/v2.0/subnetpools", pool("10.9.0.0/16")).await;
    let path = format!("/v2.0/address-scopes/{scope}");
    c.want(409, A, "DELETE", &path, json!(null)).await;
    c.want(404, B, "GET", &path, json!(null)).await;
    let network = id(&c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await);
    let pool = id(&made["subnetpool"]);
    let body = json!({"subnet": {"network_id": network, "ip_version": 4, "subnetpool_id": pool, "prefixlen": 24}});
    let subnet = c.want(201, A, "POST", "/v2.0/subnets", body).await;
    let shown = c.get(A, &format!("/v2.0/networks/{network}")).await;
    assert_eq!(shown["network"]["ipv4_address_scope"], scope.as_str());
    let subnet = id(&subnet["subnet"]);
    c.want(204, A, "DELETE", &format!("/v2.0/subnets/{subnet}"), json!(null))
        .await;
    c.want(204, A, "DELETE", &format!("/v2.0/subnetpools/{pool}"), json!(null))
        .await;
    c.want(204, A, "DELETE", &path, json!(null)).await;
}

#[tokio::test]
async fn a_networks_subnets_are_taken_into_a_pool() {
    let c = cloud();
    let pool = json!({"name": "p", "prefixes": ["10.9.0.0/16"]});
    let pool = id(&c.make(A, "/v2.0/subnetpools", "subnetpool", pool).await);
    let network = id(&c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "192.168.7.0/24"});
    let subnet = id(&c.make(A, "/v2.0/subnets", "subnet", subnet).await);
    let path = format!("/v2.0/subnetpools/{pool}/onboard_network_subnets");
    c.want(404, B, "PUT", &path, json!({"network_id": network})).await;
    c.want(200, A, "PUT", &path, json!({"network_id": network})).await;
    let shown = c.get(A, &format!("/v2.0/subnets/{subnet}")).await;
    assert_eq!(shown["subnet"]["subnetpool_id"], pool.as_str());
    let shown = c.get(A, &format!("/v2.0/subnetpools/{pool}")).await;
    assert_eq!(
        shown["subnetpool"]["prefixes"],
        json!(["10.9.0.0/16", "192.168.7.0/24"])
    );
    c.want(400, A, "PUT", &path, json!({"network_id": network})).await;
}

#[tokio::test]
async fn metering_labels_have_rules_that_do_not_overlap() {
    let c = cloud();
    let label = json!({"name": "l", "description": "d"});
    c.want(
        403,
        A,
        "POST",
        "/v2.0/metering/metering-labels",
        json!({"metering_label": label}),
    )
    .await;
    let label = id(&c
        .make(ADMIN, "/v2.0/metering/metering-labels", "metering_label", label)
        .await);
    let rules = "/v2.0/metering/metering-label-rules";
    let rule = |block: &str, direction: &str| json!({"metering_label_rule": {"metering_label_id": label, "direction": direction, "remote_ip_prefix": block}});
    let made = c.want(201, ADMIN, "POST", rules, rule("10.0.0.0/24", "ingress")).await;
    c.want(409, ADMIN, "POST", rules, rule("10.0.0.0/25", "ingress")).await;
    c.want(201, ADMIN, "POST", rules, rule("10.0.0.0/25", "egress")).await;
    c.want(400, ADMIN, "POST", rules, rule("10.0.0.0/25", "sideways")).await;
    let found = c
        .get(ADMIN, &format!("{rules}?id={}", id(&made["metering_label_rule"])))
        .await;
    assert_eq!(found["metering_label_rules"].as_array().unwrap().len(), 1);
    let path = format!("/v2.0/metering/metering-labels/{label}");
    c.want(204, ADMIN, "DELETE", &path, json!(null)).await;
    assert_eq!(c.get(ADMIN, rules).await["metering_label_rules"], json!([]));
}

#[tokio::test]
async fn an_external_network_goes_with_its_idle_floating_ips() {
    let c = cloud();
    let network = json!({"name": "x", "router:external": true});
    let network = id(&c.make(ADMIN, "/v2.0/networks", "network", network).await);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "203.0.113.0/28", "enable_dhcp": false});
    c.make(ADMIN, "/v2.0/subnets", "subnet", subnet).await;
    c.make(
        A,
        "/v2.0/floatingips",
        "floatingip",
        json!({"floating_network_id": network}),
    )
    .await;
    c.want(204, ADMIN, "DELETE", &format!("/v2.0/networks/{network}"), json!(null))
        .await;
    assert_eq!(c.get(A, "/v2.0/floatingips").await["floatingips"], json!([]));
    let quota = c.get(A, "/v2.0/quotas/aaa/details").await;
    assert_eq!(quota["quota"]["floatingip"]["used"], 0);
}

#[tokio::test]
async fn dhcp_has_the_lowest_address() {
    let c = cloud();
    let network = id(&c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await);
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/28"});
    c.make(A, "/v2.0/subnets", "subnet", subnet).await;
    let ports = c
        .get(
            A,
            &format!("/v2.0/ports?network_id={network}&device_owner=network:dhcp"),
        )
        .await;
    assert_eq!(ports["ports"][0]["fixed_ips"][0]["ip_address"], "10.0.0.2");
}

#[tokio::test]
async fn administrators_put_routers_and_dhcp_on_agents() {
    let c = cloud();
    c.node("n1").await;
    c.node("n2").await;
    let agents = c.get(ADMIN, "/v2.0/agents?agent_type=DHCP%20Agent").await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 2, "whatever the case");
    let dhcp = id(&agents["agents"][0]);
    let agents = c.get(ADMIN, "/v2.0/agents?agent_type=L3%20agent").await;
    let l3: Vec<String> = agents["agents"].as_array().unwrap().iter().map(id).collect();
    let network = id(&c.make(A, "/v2.0/networks", "network", json!({"name": "n"})).await);
    let of = format!("/v2.0/networks/{network}/dhcp-agents");
    let serves = async || c.get(ADMIN, &of).await["agents"].as_array().unwrap().len();
    assert_eq!(serves().await, 0);
    let on = format!("/v2.0/agents/{dhcp}/dhcp-networks");
    let off = format!("{on}/{network}");
    let body = json!({"network_id": network});
    c.want(403, A, "POST", &on, body.clone()).await;
    c.want(201, ADMIN, "POST", &on, body.clone()).await;
    c.want(409, ADMIN, "POST", &on, body.clone()).await;
    assert_eq!(c.get(ADMIN, &on).await["networks"][0]["id"], network.as_str());
    c.want(204, ADMIN, "DELETE", &off, json!(null)).await;
    c.want(409, ADMIN, "DELETE", &off, json!(null)).await;
    let subnet = c.subnet(A, &network, "10.0.0.0/24").await;
    assert_eq!(serves().await, 1, "every agent but the one that was told not to");
    c.want(
        409,
        ADMIN,
        "POST",
        &format!("/v2.0/agents/{}/dhcp-networks", l3[0]),
        body,
    )
    .await;

    let router = id(&c.make(A, "/v2.0/routers", "router", json!({"name": "r"})).await);
    let interface = json!({"subnet_id": subnet});
    c.want(
        200,
        A,
        "PUT",
        &format!("/v2.0/routers/{router}/add_router_interface"),
        interface,
    )
    .await;
    let hosted = c.get(ADMIN, &format!("/v2.0/routers/{router}/l3-agents")).await;
    let here = id(&hosted["agents"][0]);
    let there = l3.iter().find(|a| **a != here).unwrap();
    let body = json!({"router_id": router});
    let (at_here, at_there) = (
        format!("/v2.0/agents/{here}/l3-routers"),
        format!("/v2.0/agents/{there}/l3-routers"),
    );
    c.want(409, ADMIN, "POST", &at_there, body.clone()).await;
    c.want(409, ADMIN, "DELETE", &format!("{at_there}/{router}"), json!(null))
        .await;
    c.want(204, ADMIN, "DELETE", &format!("{at_here}/{router}"), json!(null))
        .await;
    let hosted = c.get(ADMIN, &format!("/v2.0/routers/{router}/l3-agents")).await;
    assert_eq!(hosted["agents"], json!([]));
    c.want(201, ADMIN, "POST", &at_there, body).await;
    let ports = c.get(ADMIN, &format!("/v2.0/ports?device_id={router}")).await;
    let hosts: Vec<_> = agents["agents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| id(a) == *there)
        .collect();
    assert_eq!(ports["ports"][0]["binding:host_id"], hosts[0]["host"]);
    c.audit();
}

#[tokio::test]
async fn only_administrators_see_and_wish_distributed_routers() {
    let c = cloud();
    c.want(
        403,
        A,
        "POST",
        "/v2.0/routers",
        json!({"router": {"distributed": true}}),
    )
    .await;
    let wish = json!({"name": "r", "distributed": false, "ha": false, "admin_state_up": false, "project_id": "aaa"});
    let router = c.make(ADMIN, "/v2.0/routers", "router", wish).await;
    assert_eq!(router["distributed"], false);
    let path = format!("/v2.0/routers/{}", id(&router));
    let on = json!({"router": {"distributed": true}});
    let changed = c.want(200, ADMIN, "PUT", &path, on).await;
    assert_eq!(changed["router"]["distributed"], true);
    let seen = c.get(A, &path).await;
    assert!(seen["router"].get("distributed").is_none() && seen["router"].get("ha").is_none());
    c.want(200, ADMIN, "PUT", &path, json!({"router": {"admin_state_up": true}}))
        .await;
    let off = json!({"router": {"distributed": false}});
    c.want(400, ADMIN, "PUT", &path, off).await;
}
