//! The calls of the stock client on the way to a server with a floating IP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn version_documents_lead_the_client_in() {
    let c = cloud();
    let v = c.get("-", "/").await;
    assert_eq!(v["versions"][0]["id"], "v2.0");
    assert_eq!(v["versions"][0]["links"][0]["href"], "http://maru/network/v2.0/");
    let v = c.get("-", "/v2.0").await;
    assert!(
        v["resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["collection"] == "networks")
    );
    let v = c.get(A, "/v2.0/extensions").await;
    for alias in [
        "router",
        "external-net",
        "security-group",
        "quotas",
        "standard-attr-tag",
        "project-id",
    ] {
        assert!(
            v["extensions"].as_array().unwrap().iter().any(|e| e["alias"] == alias),
            "{alias}"
        );
        assert_eq!(
            c.get(A, &format!("/v2.0/extensions/{alias}")).await["extension"]["alias"],
            alias
        );
    }
    assert_eq!(
        c.refused(404, A, "GET", "/v2.0/extensions/bgp", Value::Null).await,
        "ExtensionNotFound"
    );
}

#[tokio::test]
async fn network_to_floating_ip() {
    let c = cloud();
    c.node("node1").await;
    let public = c.external().await;
    let net = c
        .make(
            A,
            "/v2.0/networks",
            "network",
            json!({"name": "demo", "admin_state_up": true}),
        )
        .await;
    assert_eq!(net["project_id"], "aaa");
    assert_eq!(net["tenant_id"], "aaa");
    assert_eq!(net["mtu"], 1450);
    assert!(
        net.get("provider:segmentation_id").is_none(),
        "provider attributes are for administrators"
    );
    let n = id(&net);
    let admin_view = c.get(ADMIN, &format!("/v2.0/networks/{n}")).await;
    assert_eq!(admin_view["network"]["provider:network_type"], "vxlan");
    let sub = c
        .make(
            A,
            "/v2.0/subnets",
            "subnet",
            json!({"network_id": n, "cidr": "10.0.0.0/24", "ip_version": 4, "name": "demo"}),
        )
        .await;
    assert_eq!(sub["gateway_ip"], "10.0.0.1");
    assert_eq!(
        sub["allocation_pools"],
        json!([{"start": "10.0.0.2", "end": "10.0.0.254"}])
    );
    let ports = c.get(A, &format!("/v2.0/ports?network_id={n}")).await;
    assert_eq!(ports["ports"].as_array().unwrap().len(), 1, "the DHCP port");
    assert_eq!(ports["ports"][0]["device_owner"], "network:dhcp");
    assert_eq!(ports["ports"][0]["status"], "ACTIVE");

    let router = c
        .make(
            A,
            "/v2.0/routers",
            "router",
            json!({"name": "r", "admin_state_up": true}),
        )
        .await;
    let r = id(&router);
    let path = format!("/v2.0/routers/{r}");
    let set = json!({"router": {"external_gateway_info": {"network_id": public}}});
    let router = c.want(200, A, "PUT", &path, set).await;
    assert_eq!(router["router"]["external_gateway_info"]["enable_snat"], true);
    let gateway_ip = router["router"]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"].clone();
    assert!(gateway_ip.as_str().unwrap().starts_with("172.24.4."));
    let i = c
        .want(
            200,
            A,
            "PUT",
            &format!("{path}/add_router_interface"),
            json!({"subnet_id": sub["id"]}),
        )
        .await;
    assert_eq!(i["subnet_ids"], json!([sub["id"]]));
    let iport = c
        .get(A, &format!("/v2.0/ports/{}", i["port_id"].as_str().unwrap()))
        .await;
    assert_eq!(iport["port"]["fixed_ips"][0]["ip_address"], "10.0.0.1");
    let admin_port = c
        .get(ADMIN, &format!("/v2.0/ports/{}", i["port_id"].as_str().unwrap()))
        .await;
    assert_eq!(admin_port["port"]["binding:host_id"], "node1");

    let sg = c
        .make(
            A,
            "/v2.0/security-groups",
            "security_group",
            json!({"name": "ssh", "description": "d"}),
        )
        .await;
    assert_eq!(sg["security_group_rules"].as_array().unwrap().len(), 2);
    let rule = json!({"security_group_id": sg["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
        "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0"});
    let rule = c
        .make(A, "/v2.0/security-group-rules", "security_group_rule", rule)
        .await;
    assert_eq!(rule["port_range_min"], 22);

    let port = c
        .make(
            A,
            "/v2.0/ports",
            "port",
            json!({"network_id": n, "name": "p", "security_groups": [sg["id"]]}),
        )
        .await;
    assert!(port["mac_address"].as_str().unwrap().starts_with("fa:16:3e:"));
    assert_eq!(port["status"], "DOWN");
    let fip = c
        .make(
            A,
            "/v2.0/floatingips",
            "floatingip",
            json!({"floating_network_id": public}),
        )
        .await;
    assert_eq!(fip["status"], "DOWN");
    assert_eq!(fip["port_id"], Value::Null);
    let f = format!("/v2.0/floatingips/{}", id(&fip));
    let fip = c
        .want(200, A, "PUT", &f, json!({"floatingip": {"port_id": port["id"]}}))
        .await["floatingip"]
        .clone();
    assert_eq!(fip["fixed_ip_address"], port["fixed_ips"][0]["ip_address"]);
    assert_eq!(fip["router_id"], r);
    assert_eq!(fip["port_details"]["name"], "p");

    // What holds what.
    assert_eq!(
        c.refused(
            409,
            A,
            "PUT",
            &format!("{path}/remove_router_interface"),
            json!({"subnet_id": sub["id"]})
        )
        .await,
        "RouterInterfaceInUseByFloatingIP"
    );
    assert_eq!(
        c.refused(409, A, "PUT", &path, json!({"router": {"external_gateway_info": {}}}))
            .await,
        "RouterExternalGatewayInUseByFloatingIp"
    );
    assert_eq!(c.refused(409, A, "DELETE", &path, Value::Null).await, "RouterInUse");
    assert_eq!(
        c.refused(409, A, "DELETE", &format!("/v2.0/networks/{n}"), Value::Null)
            .await,
        "NetworkInUse"
    );
    assert_eq!(
        c.refused(409, A, "DELETE", &format!("/v2.0/subnets/{}", id(&sub)), Value::Null)
            .await,
        "SubnetInUse"
    );
    assert_eq!(
        c.refused(
            409,
            A,
            "DELETE",
            &format!("/v2.0/ports/{}", i["port_id"].as_str().unwrap()),
            Value::Null
        )
        .await,
        "ServicePortInUse"
    );
    assert_eq!(
        c.refused(
            409,
            A,
            "DELETE",
            &format!("/v2.0/security-groups/{}", id(&sg)),
            Value::Null
        )
        .await,
        "SecurityGroupInUse"
    );
    c.audit();

    // Deleting the port takes the floating IP off it.
    c.delete(A, &format!("/v2.0/ports/{}", id(&port))).await;
    assert_eq!(c.get(A, &f).await["floatingip"]["port_id"], Value::Null);
    c.delete(A, &f).await;
    c.want(
        200,
        A,
        "PUT",
        &format!("{path}/remove_router_interface"),
        json!({"subnet_id": sub["id"]}),
    )
    .await;
    c.want(200, A, "PUT", &path, json!({"router": {"external_gateway_info": null}}))
        .await;
    c.delete(A, &path).await;
    c.delete(A, &format!("/v2.0/security-groups/{}", id(&sg))).await;
    c.delete(A, &format!("/v2.0/networks/{n}")).await;
    assert_eq!(
        c.refused(404, A, "GET", &format!("/v2.0/networks/{n}"), Value::Null)
            .await,
        "NetworkNotFound"
    );
    assert_eq!(
        c.get(A, &format!("/v2.0/subnets?network_id={n}")).await["subnets"],
        json!([])
    );
    c.audit();
}

#[tokio::test]
async fn bootstrap_makes_one_public_network() {
    let c = cloud();
    let project = maru_base::ProjectId::from("admin");
    let make = || {
        maru_network::bootstrap(
            &c.store,
            &project,
            "172.24.4.0/24".parse().unwrap(),
            "172.24.4.1".parse().unwrap(),
            ("172.24.4.100".parse().unwrap(), "172.24.4.200".parse().unwrap()),
        )
    };
    let first = make().await.unwrap();
    assert_eq!(make().await.unwrap(), first);
    let seen = c.get(A, "/v2.0/networks?router:external=True").await;
    assert_eq!(seen["networks"][0]["name"], "public");
    assert_eq!(seen["networks"].as_array().unwrap().len(), 1);
    let sub = c.get(ADMIN, "/v2.0/subnets?name=public-subnet").await;
    assert_eq!(sub["subnets"][0]["enable_dhcp"], false);
    c.audit();
}
