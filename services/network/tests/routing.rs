//! Routers, floating IPs, IPv6 and changes of subnets and ports.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn interfaces_routes_and_gateways_hold_each_other() {
    let c = cloud();
    let public = c.external().await;
    let net = c.network(A).await;
    let one = c.subnet(A, &net, "10.0.0.0/24").await;
    let net2 = c.network(A).await;
    let same = c.subnet(A, &net2, "10.0.0.128/25").await;
    let two = c.subnet(A, &net2, "10.2.0.0/24").await;
    let r = id(&c.make(A, "/v2.0/routers", "router", json!({"name": "r"})).await);
    let path = format!("/v2.0/routers/{r}");
    let add = format!("{path}/add_router_interface");
    let remove = format!("{path}/remove_router_interface");
    assert_eq!(c.refused(400, A, "PUT", &add, json!({})).await, "BadRequest");
    c.want(200, A, "PUT", &add, json!({"subnet_id": one})).await;
    assert_eq!(
        c.refused(400, A, "PUT", &add, json!({"subnet_id": one})).await,
        "BadRequest"
    );
    assert_eq!(
        c.refused(400, A, "PUT", &add, json!({"subnet_id": same})).await,
        "BadRequest"
    );
    let p = c
        .make(
            A,
            "/v2.0/ports",
            "port",
            json!({"network_id": net2, "fixed_ips": [{"subnet_id": two}]}),
        )
        .await;
    let i = c.want(200, A, "PUT", &add, json!({"port_id": p["id"]})).await;
    assert_eq!(i["subnet_id"], two);
    assert_eq!(
        c.refused(409, A, "PUT", &add, json!({"port_id": p["id"]})).await,
        "PortInUse"
    );
    let listed = c.get(A, &format!("/v2.0/ports?device_id={r}")).await;
    assert_eq!(listed["ports"].as_array().unwrap().len(), 2);

    assert_eq!(
        c.refused(
            400,
            A,
            "PUT",
            &path,
            json!({"router": {"routes": [{"destination": "10.9.0.0/24", "nexthop": "10.7.0.1"}]}})
        )
        .await,
        "InvalidRoutes"
    );
    let route = json!([{"destination": "10.9.0.0/24", "nexthop": "10.2.0.77"}]);
    let v = c.want(200, A, "PUT", &path, json!({"router": {"routes": route}})).await;
    assert_eq!(v["router"]["routes"], route);
    assert_eq!(
        c.refused(409, A, "PUT", &remove, json!({"port_id": p["id"]})).await,
        "RouterInterfaceInUseByRoute"
    );
    let more = json!([{"destination": "10.8.0.0/24", "nexthop": "10.2.0.77"}]);
    let v = c
        .want(
            200,
            A,
            "PUT",
            &format!("{path}/add_extraroutes"),
            json!({"router": {"routes": more}}),
        )
        .await;
    assert_eq!(v["router"]["routes"].as_array().unwrap().len(), 2);
    c.want(
        200,
        A,
        "PUT",
        &format!("{path}/remove_extraroutes"),
        json!({"router": {"routes": more}}),
    )
    .await;
    c.want(200, A, "PUT", &path, json!({"router": {"routes": []}})).await;
    assert_eq!(
        c.refused(409, A, "PUT", &remove, json!({"port_id": p["id"], "subnet_id": one}))
            .await,
        "SubnetMismatchForPort"
    );
    c.want(200, A, "PUT", &remove, json!({"port_id": p["id"]})).await;
    assert_eq!(
        c.refused(404, A, "PUT", &remove, json!({"port_id": p["id"]})).await,
        "RouterInterfaceNotFound"
    );
    assert_eq!(
        c.refused(404, A, "PUT", &remove, json!({"subnet_id": two})).await,
        "RouterInterfaceNotFoundForSubnet"
    );

    assert_eq!(
        c.refused(
            400,
            A,
            "PUT",
            &path,
            json!({"router": {"external_gateway_info": {"network_id": net}}})
        )
        .await,
        "BadRequest"
    );
    let gone = "11111111-2222-3333-4444-555555555555";
    assert_eq!(
        c.refused(
            404,
            A,
            "PUT",
            &path,
            json!({"router": {"external_gateway_info": {"network_id": gone}}})
        )
        .await,
        "NetworkNotFound"
    );
    c.refused(
        403,
        A,
        "PUT",
        &path,
        json!({"router": {"external_gateway_info": {"network_id": public, "enable_snat": false}}}),
    )
    .await;
    let v = c
        .want(
            200,
            ADMIN,
            "PUT",
            &path,
            json!({"router": {"external_gateway_info": {"network_id": public, "enable_snat": false,
            "external_fixed_ips": [{"ip_address": "172.24.4.9"}]}}}),
        )
        .await;
    assert_eq!(v["router"]["external_gateway_info"]["enable_snat"], false);
    assert_eq!(
        v["router"]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"],
        "172.24.4.9"
    );
    let other = c.make(ADMIN, "/v2.0/routers", "router", json!({"name": "o"})).await;
    let used = json!({"router": {"external_gateway_info": {"network_id": public, "external_fixed_ips": [{"ip_address": "172.24.4.9"}]}}});
    assert_eq!(
        c.refused(409, ADMIN, "PUT", &format!("/v2.0/routers/{}", id(&other)), used)
            .await,
        "IpAddressAlreadyAllocated"
    );
    assert_eq!(
        c.refused(
            409,
            ADMIN,
            "PUT",
            &format!("/v2.0/networks/{public}"),
            json!({"network": {"router:external": false}})
        )
        .await,
        "ExternalNetworkInUse"
    );
    c.audit();
}

#[tokio::test]
async fn floating_ips_follow_upstreams_rules() {
    let c = cloud();
    let public = c.external().await;
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let port = c.port(A, &net).await;
    let new = |port: &Value| json!({"floatingip": {"floating_network_id": public, "port_id": port}});
    assert_eq!(
        c.refused(404, A, "POST", "/v2.0/floatingips", new(&port["id"])).await,
        "ExternalGatewayForFloatingIPNotFound"
    );
    let r = c
        .make(
            A,
            "/v2.0/routers",
            "router",
            json!({"name": "r", "external_gateway_info": {"network_id": public}}),
        )
        .await;
    c.want(
        200,
        A,
        "PUT",
        &format!("/v2.0/routers/{}/add_router_interface", id(&r)),
        json!({"subnet_id": sub}),
    )
    .await;
    let fip = c.want(201, A, "POST", "/v2.0/floatingips", new(&port["id"])).await["floatingip"].clone();
    assert_eq!(
        c.refused(409, A, "POST", "/v2.0/floatingips", new(&port["id"])).await,
        "FloatingIPPortAlreadyAssociated"
    );
    let both = c
        .make(
            A,
            "/v2.0/ports",
            "port",
            json!({"network_id": net, "fixed_ips": [{"ip_address": "10.0.0.70"}, {"ip_address": "10.0.0.71"}]}),
        )
        .await;
    assert_eq!(
        c.refused(400, A, "POST", "/v2.0/floatingips", new(&both["id"])).await,
        "BadRequest"
    );
    let named =
        json!({"floatingip": {"floating_network_id": public, "port_id": both["id"], "fixed_ip_address": "10.0.0.71"}});
    let second = c.want(201, A, "POST", "/v2.0/floatingips", named).await["floatingip"].clone();
    assert_eq!(second["fixed_ip_address"], "10.0.0.71");
    c.refused(
        403,
        A,
        "POST",
        "/v2.0/floatingips",
        json!({"floatingip": {"floating_network_id": public, "floating_ip_address": "172.24.4.77"}}),
    )
    .await;
    let exact = c
        .make(
            ADMIN,
            "/v2.0/floatingips",
            "floatingip",
            json!({"floating_network_id": public, "floating_ip_address": "172.24.4.77"}),
        )
        .await;
    assert_eq!(exact["floating_ip_address"], "172.24.4.77");
    // Moved to another port and back again; an update that says nothing about the port leaves it.
    let path = format!("/v2.0/floatingips/{}", id(&fip));
    c.want(200, A, "PUT", &path, json!({"floatingip": {"description": "d"}}))
        .await;
    assert_eq!(c.get(A, &path).await["floatingip"]["port_id"], port["id"]);
    let moved = c
        .want(
            200,
            A,
            "PUT",
            &path,
            json!({"floatingip": {"port_id": both["id"], "fixed_ip_address": "10.0.0.70"}}),
        )
        .await;
    assert_eq!(moved["floatingip"]["fixed_ip_address"], "10.0.0.70");
    c.want(200, A, "PUT", &path, json!({"floatingip": {"port_id": port["id"]}}))
        .await;
    c.want(200, A, "PUT", &path, json!({"floatingip": {"port_id": port["id"]}}))
        .await;
    // An address that the port loses takes its floating IP along.
    let p = format!("/v2.0/ports/{}", id(&both));
    c.want(
        200,
        A,
        "PUT",
        &p,
        json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.70"}]}}),
    )
    .await;
    assert_eq!(
        c.get(A, &format!("/v2.0/floatingips/{}", id(&second))).await["floatingip"]["port_id"],
        Value::Null
    );
    c.want(200, A, "PUT", &path, json!({"floatingip": {"port_id": null}}))
        .await;
    assert_eq!(c.get(A, &path).await["floatingip"]["router_id"], Value::Null);
    c.audit();
}

#[tokio::test]
async fn ipv6_addresses_come_from_the_mac_where_hosts_make_them() {
    let c = cloud();
    let net = c.network(A).await;
    let slaac = json!({"network_id": net, "cidr": "2001:db8:1::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let slaac = id(&c.make(A, "/v2.0/subnets", "subnet", slaac).await);
    let stateful = json!({"network_id": net, "cidr": "2001:db8:2::/64", "ip_version": 6, "ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"});
    let stateful = c.make(A, "/v2.0/subnets", "subnet", stateful).await;
    assert_eq!(stateful["gateway_ip"], "2001:db8:2::1");
    c.subnet(A, &net, "10.0.0.0/24").await;
    let port = c
        .make(
            A,
            "/v2.0/ports",
            "port",
            json!({"network_id": net, "mac_address": "fa:16:3e:12:34:56"}),
        )
        .await;
    let fixed = port["fixed_ips"].as_array().unwrap();
    assert_eq!(fixed.len(), 3, "{port}");
    assert!(
        fixed
            .iter()
            .any(|f| f["ip_address"] == "2001:db8:1:0:f816:3eff:fe12:3456")
    );
    assert_eq!(
        c.refused(
            400,
            A,
            "POST",
            "/v2.0/ports",
            json!({"port": {"network_id": net, "fixed_ips": [{"subnet_id": slaac, "ip_address": "2001:db8:1::9"}]}})
        )
        .await,
        "InvalidInput"
    );
    assert_eq!(
        c.refused(
            409,
            A,
            "POST",
            "/v2.0/ports",
            json!({"port": {"network_id": net, "mac_address": "FA:16:3E:12:34:56"}})
        )
        .await,
        "MacAddressInUse"
    );
    // Deleting an autoconfigured subnet takes its addresses from the ports.
    c.delete(A, &format!("/v2.0/subnets/{slaac}")).await;
    let port = c.get(A, &format!("/v2.0/ports/{}", id(&port))).await["port"].clone();
    assert_eq!(port["fixed_ips"].as_array().unwrap().len(), 2);
    c.audit();
}

#[tokio::test]
async fn subnets_and_ports_change() {
    let c = cloud();
    let net = c.network(A).await;
    // The DHCP port's random address must not be one that the test asks for below.
    let pool = |net: &str| json!([{"start": format!("{net}.100"), "end": format!("{net}.200")}]);
    let two = json!({"subnets": [
        {"network_id": net, "cidr": "10.0.0.0/24", "ip_version": 4, "allocation_pools": pool("10.0.0")},
        {"network_id": net, "cidr": "10.1.0.0/24", "ip_version": 4, "allocation_pools": pool("10.1.0")},
    ]});
    let made = c.want(201, A, "POST", "/v2.0/subnets", two).await;
    let dhcp = c.get(A, &format!("/v2.0/ports?network_id={net}")).await["ports"][0].clone();
    assert_eq!(
        dhcp["fixed_ips"].as_array().unwrap().len(),
        2,
        "one DHCP port with an address in each"
    );
    let clash = json!({"subnets": [{"network_id": net, "cidr": "10.5.0.0/24", "ip_version": 4}, {"network_id": net, "cidr": "10.5.0.0/25", "ip_version": 4}]});
    c.refused(400, A, "POST", "/v2.0/subnets", clash).await;
    let sub = id(&made["subnets"][0]);
    let path = format!("/v2.0/subnets/{sub}");
    let v = c
        .want(200, A, "PUT", &path, json!({"subnet": {"name": "n", "gateway_ip": "10.0.0.254", "allocation_pools": [{"start": "10.0.0.10", "end": "10.0.0.20"}],
            "dns_nameservers": ["1.1.1.1"], "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.5"}]}}))
        .await;
    assert_eq!(v["subnet"]["gateway_ip"], "10.0.0.254");
    assert_eq!(v["subnet"]["host_routes"][0]["destination"], "10.9.0.0/16");
    c.audit();
    c.want(200, A, "PUT", &path, json!({"subnet": {"enable_dhcp": false}}))
        .await;
    let dhcp = c.get(A, &format!("/v2.0/ports?network_id={net}")).await["ports"][0].clone();
    assert_eq!(dhcp["fixed_ips"].as_array().unwrap().len(), 1);
    let p = c
        .make(
            A,
            "/v2.0/ports",
            "port",
            json!({"network_id": net, "fixed_ips": [{"subnet_id": sub}]}),
        )
        .await;
    let last: u8 = p["fixed_ips"][0]["ip_address"]
        .as_str()
        .unwrap()
        .rsplit('.')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((10..=20).contains(&last));
    let path = format!("/v2.0/ports/{}", id(&p));
    let kept = c
        .want(
            200,
            A,
            "PUT",
            &path,
            json!({"port": {"fixed_ips": [{"subnet_id": sub}, {"ip_address": "10.1.0.9"}]}}),
        )
        .await;
    assert!(
        kept["port"]["fixed_ips"]
            .as_array()
            .unwrap()
            .contains(&p["fixed_ips"][0])
    );
    let v = c
        .want(
            200,
            A,
            "PUT",
            &path,
            json!({"port": {"security_groups": [], "allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}],
            "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400"}]}}),
        )
        .await;
    assert_eq!(v["port"]["allowed_address_pairs"][0]["mac_address"], p["mac_address"]);
    assert_eq!(v["port"]["extra_dhcp_opts"][0]["opt_value"], "1400");
    assert_eq!(
        c.refused(409, A, "PUT", &path, json!({"port": {"port_security_enabled": false}}))
            .await,
        "AddressPairAndPortSecurityRequired"
    );
    c.want(200, A, "PUT", &path, json!({"port": {"allowed_address_pairs": [], "port_security_enabled": false, "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": null}]}})).await;
    c.delete(A, &path).await;
    c.delete(A, &format!("/v2.0/subnets/{sub}")).await;
    let availability = c.get(ADMIN, &format!("/v2.0/network-ip-availabilities/{net}")).await;
    assert_eq!(availability["network_ip_availability"]["used_ips"], 1);
    c.audit();
    let details = c.get(A, "/v2.0/quotas/aaa/details").await;
    assert_eq!(
        details["quota"]["subnet"],
        json!({"limit": 100, "used": 1, "reserved": 0})
    );
    c.delete(ADMIN, "/v2.0/quotas/aaa").await;
    let stale = c.get(A, &format!("/v2.0/networks/{net}")).await["network"]["revision_number"].clone();
    assert_eq!(stale, 0);
}
