//! Bad input of every kind, malformed rules first (attack classes E4 and E5).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use bytes::Bytes;
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn a_rule_that_no_firewall_can_carry_out_is_refused() {
    let c = cloud();
    let sg = id(&c
        .make(A, "/v2.0/security-groups", "security_group", json!({"name": "g"}))
        .await);
    let base = json!({"security_group_id": sg, "direction": "ingress"});
    let with = |more: Value| {
        let mut rule = base.clone();
        for (k, v) in more.as_object().unwrap() {
            rule[k] = v.clone();
        }
        json!({ "security_group_rule": rule })
    };
    for (more, code) in [
        (json!({"protocol": "gopher"}), "SecurityGroupRuleInvalidProtocol"),
        (json!({"protocol": 256}), "SecurityGroupRuleInvalidProtocol"),
        (json!({"protocol": -1}), "SecurityGroupRuleInvalidProtocol"),
        (
            json!({"protocol": "tcp; flush ruleset"}),
            "SecurityGroupRuleInvalidProtocol",
        ),
        (json!({"protocol": {"a": 1}}), "SecurityGroupRuleInvalidProtocol"),
        (
            json!({"port_range_min": 1, "port_range_max": 2}),
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 10, "port_range_max": 2}),
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 10}),
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 0, "port_range_max": 2}),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": -3, "port_range_max": 5}),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": "x", "port_range_max": 5}),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "vrrp", "port_range_min": 1, "port_range_max": 5}),
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            json!({"protocol": "112", "port_range_min": 1, "port_range_max": 5}),
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 256}),
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "icmp", "port_range_max": 1}),
            "SecurityGroupMissingIcmpType",
        ),
        (
            json!({"protocol": "icmpv6", "ethertype": "IPv4"}),
            "SecurityGroupEthertypeConflictWithProtocol",
        ),
        (json!({"ethertype": "IPv5"}), "SecurityGroupRuleInvalidEtherType"),
        (
            json!({"ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"}),
            "SecurityGroupRuleParameterConflict",
        ),
        (json!({"remote_ip_prefix": "10.0.0.0/33"}), "HTTPBadRequest"),
        (json!({"remote_ip_prefix": "banana"}), "HTTPBadRequest"),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": sg}),
            "SecurityGroupRemoteGroupAndRemoteIpPrefix",
        ),
        (json!({"direction": "sideways"}), "HTTPBadRequest"),
        (json!({"colour": "red"}), "HTTPBadRequest"),
    ] {
        let have = c
            .refused(400, A, "POST", "/v2.0/security-group-rules", with(more.clone()))
            .await;
        assert_eq!(have, code, "{more}");
    }
    // What is fine is stored in the form that the agent compiles.
    for more in [
        json!({"protocol": "TCP", "port_range_min": "22", "port_range_max": 22}),
        json!({"protocol": 17, "port_range_min": 53, "port_range_max": 53}),
        json!({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}),
        json!({"protocol": "icmp", "ethertype": "IPv6"}),
        json!({"remote_ip_prefix": "10.1.2.3/8"}),
        json!({"remote_group_id": sg}),
    ] {
        c.want(201, A, "POST", "/v2.0/security-group-rules", with(more)).await;
    }
    let rules = c
        .get(
            A,
            &format!("/v2.0/security-group-rules?security_group_id={sg}&remote_ip_prefix=10.0.0.0/8"),
        )
        .await;
    assert_eq!(rules["security_group_rules"].as_array().unwrap().len(), 1);
    // The same rule in other words.
    assert_eq!(
        c.refused(
            409,
            A,
            "POST",
            "/v2.0/security-group-rules",
            with(json!({"protocol": "6", "port_range_min": 22, "port_range_max": 22}))
        )
        .await,
        "SecurityGroupRuleExists"
    );
    assert_eq!(
        c.refused(
            409,
            A,
            "POST",
            "/v2.0/security-groups",
            json!({"security_group": {"name": "default"}})
        )
        .await,
        "SecurityGroupDefaultAlreadyExists"
    );
    // A group that goes takes its rules, and others' rules that name it.
    let other = id(&c
        .make(A, "/v2.0/security-groups", "security_group", json!({"name": "o"}))
        .await);
    let r = json!({"security_group_rule": {"security_group_id": other, "direction": "egress", "remote_group_id": sg, "protocol": "udp"}});
    let r = id(&c.want(201, A, "POST", "/v2.0/security-group-rules", r).await["security_group_rule"]);
    c.delete(A, &format!("/v2.0/security-groups/{sg}")).await;
    assert_eq!(
        c.refused(404, A, "GET", &format!("/v2.0/security-group-rules/{r}"), Value::Null)
            .await,
        "SecurityGroupRuleNotFound"
    );
    c.audit();
}

#[tokio::test]
async fn bad_attributes_are_refused_by_name() {
    let c = cloud();
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let long = "x".repeat(256);
    for (path, body, name) in [
        ("networks", json!({"network": {"name": 5}}), "name"),
        ("networks", json!({"network": {"name": long}}), "name"),
        (
            "networks",
            json!({"network": {"admin_state_up": "perhaps"}}),
            "admin_state_up",
        ),
        ("networks", json!({"network": {"bogus": 1}}), "bogus"),
        ("networks", json!({"network": {"status": "ACTIVE"}}), "status"),
        ("networks", json!({"network": {"id": "x"}}), "id"),
        ("networks", json!({"network": {"mtu": 9000}}), "mtu"),
        ("networks", json!({"network": {"mtu": -1}}), "mtu"),
        (
            "networks",
            json!({"network": {"dns_domain": "bad domain"}}),
            "dns_domain",
        ),
        ("networks", json!({"network": []}), "network"),
        ("networks", json!({"net": {}}), "network"),
        ("networks", json!({"networks": []}), "networks"),
        ("networks", json!([]), "object"),
        (
            "subnets",
            json!({"subnet": {"cidr": "10.1.0.0/24", "ip_version": 4}}),
            "network_id",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": "zzz", "cidr": "10.1.0.0/24", "ip_version": 4}}),
            "network_id",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24"}}),
            "ip_version",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 6}}),
            "ip_version",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.9/24", "ip_version": 4}}),
            "10.1.0.0/24",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.0.0.128/25", "ip_version": 4}}),
            "overlaps",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "224.0.0.0/8", "ip_version": 4}}),
            "224",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "gateway_ip": "10.2.0.1"}}),
            "gateway",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "ipv6_ra_mode": "slaac"}}),
            "ipv6_ra_mode",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "2001:db8::/48", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}}),
            "/64",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.3"}]}}),
            "pool",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": [{"start": "10.1.0.9", "end": "10.2.0.3"}]}}),
            "pool",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "host_routes": [{"destination": "10.3.0.0/24"}]}}),
            "host_routes",
        ),
        (
            "subnets",
            json!({"subnet": {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "dns_nameservers": ["a"]}}),
            "dns_nameservers",
        ),
        ("ports", json!({"port": {}}), "network_id"),
        (
            "ports",
            json!({"port": {"network_id": net, "mac_address": "zz"}}),
            "mac_address",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "fixed_ips": [{}]}}),
            "subnet_id",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "fixed_ips": [{"ip_address": "10.5.0.1"}]}}),
            "10.5.0.1",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "fixed_ips": [{"subnet_id": sub, "ip_address": "10.0.0.255"}]}}),
            "10.0.0.255",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "extra_dhcp_opts": [{"opt_name": "router", "opt_value": "1.2.3.4\ndhcp-script=/bin/sh"}]}}),
            "router",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "extra_dhcp_opts": [{"opt_name": "a\nb", "opt_value": "1"}]}}),
            "extra_dhcp_opts",
        ),
        (
            "ports",
            json!({"port": {"network_id": net, "dns_name": "a b"}}),
            "dns_name",
        ),
        (
            "routers",
            json!({"router": {"external_gateway_info": {"network_id": 7}}}),
            "network_id",
        ),
        ("routers", json!({"router": {"flavor_id": "x"}}), "flavor_id"),
        ("floatingips", json!({"floatingip": {}}), "floating_network_id"),
        (
            "floatingips",
            json!({"floatingip": {"floating_network_id": net}}),
            "external",
        ),
    ] {
        let v = c.want(400, A, "POST", &format!("/v2.0/{path}"), body.clone()).await;
        let message = v["NeutronError"]["message"].as_str().unwrap();
        assert!(message.contains(name), "{body}: {message}");
    }
    for (body, status) in [
        (Bytes::from_static(b"{"), 400),
        (Bytes::from_static(b""), 400),
        (Bytes::from_static(b"\xff\xfe"), 400),
        (Bytes::from("[".repeat(100_000)), 400),
        (Bytes::from(vec![b' '; 2 << 20]), 413),
    ] {
        let (have, _) = c.raw(A, "POST", "/v2.0/networks", body).await;
        assert_eq!(have, status);
    }
    for path in [
        "networks?bogus=1",
        "networks?limit=-1",
        "networks?sort_key=bogus",
        "networks?sort_key=name&sort_dir=up",
    ] {
        c.refused(400, A, "GET", &format!("/v2.0/{path}"), Value::Null).await;
    }
    c.refused(404, A, "GET", "/v2.0/networks?limit=1&marker=nope", Value::Null)
        .await;
    c.audit();
}
