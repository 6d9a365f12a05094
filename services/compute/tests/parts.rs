//! Parts of a server: metadata, tags, addresses, interfaces, security groups.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute_model as m;
use serde_json::{Value, json};

#[tokio::test]
async fn metadata_is_kept() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let p = format!("/servers/{server}/metadata");
    assert_eq!(c.get(A, &p).await, json!({"metadata": {}}));
    let v = c
        .want(200, A, "POST", &p, json!({"metadata": {"a": "1", "b": "2"}}))
        .await;
    assert_eq!(v, json!({"metadata": {"a": "1", "b": "2"}}));
    let v = c.want(200, A, "POST", &p, json!({"metadata": {"b": "3"}})).await;
    assert_eq!(v, json!({"metadata": {"a": "1", "b": "3"}}));
    let v = c
        .want(200, A, "PUT", &format!("{p}/c"), json!({"meta": {"c": "4"}}))
        .await;
    assert_eq!(v, json!({"meta": {"c": "4"}}));
    assert_eq!(c.get(READER, &format!("{p}/c")).await, json!({"meta": {"c": "4"}}));
    c.want(204, A, "DELETE", &format!("{p}/a"), Value::Null).await;
    let v = c.want(200, A, "PUT", &p, json!({"metadata": {"z": ""}})).await;
    assert_eq!(v, json!({"metadata": {"z": ""}}));
    for (method, path, body, status, part) in [
        ("GET", format!("{p}/a"), Value::Null, 404, "Metadata item was not found"),
        (
            "DELETE",
            format!("{p}/a"),
            Value::Null,
            404,
            "Metadata item was not found",
        ),
        ("PUT", format!("{p}/a"), json!({"meta": {"b": "1"}}), 400, "mismatch"),
        (
            "PUT",
            format!("{p}/a"),
            json!({"meta": {"a": "1", "b": "1"}}),
            400,
            "one item",
        ),
        ("PUT", format!("{p}/a"), json!({"meta": {}}), 400, "one item"),
        ("PUT", format!("{p}/a"), json!({"metadata": {"a": "1"}}), 400, "meta"),
        ("POST", p.clone(), json!({"metadata": {"a": 1}}), 400, "metadata.a"),
        ("POST", p.clone(), json!({"metadata": {"a": null}}), 400, "metadata.a"),
        ("POST", p.clone(), json!({"metadata": {"": "x"}}), 400, "metadata"),
        (
            "POST",
            p.clone(),
            json!({"metadata": {"k".repeat(256): "x"}}),
            400,
            "metadata",
        ),
        (
            "POST",
            p.clone(),
            json!({"metadata": {"a": "x".repeat(256)}}),
            400,
            "metadata.a",
        ),
        ("POST", p.clone(), json!({"metadata": []}), 400, "metadata"),
        ("POST", p.clone(), json!({}), 400, "metadata"),
        ("PUT", p.clone(), json!({"metadata": {}, "x": 1}), 400, "x"),
    ] {
        let message = c.refused(status, A, method, &path, body.clone()).await;
        assert!(message.contains(part), "{method} {path} {body}: {message}");
    }
    c.refused(403, READER, "POST", &p, json!({"metadata": {"a": "1"}}))
        .await;
    assert_eq!(c.server(&server).unwrap().metadata.len(), 1);
    // While something else is done it may be changed, while it is built or broken it may not.
    c.act(202, A, &server, json!({"os-stop": null})).await;
    c.want(200, A, "POST", &p, json!({"metadata": {"a": "1"}})).await;
    c.want(
        200,
        A,
        "PUT",
        &format!("/servers/{server}/tags"),
        json!({"tags": ["t"]}),
    )
    .await;
    let building = c.create(A, json!({})).await;
    for (method, path, body, name) in [
        ("POST", "metadata", json!({"metadata": {"a": "1"}}), "update_metadata"),
        ("DELETE", "metadata/a", Value::Null, "delete_metadata"),
        ("PUT", "tags", json!({"tags": []}), "update tags"),
        ("PUT", "tags/t", Value::Null, "update tag"),
        ("DELETE", "tags", Value::Null, "delete tags"),
        ("DELETE", "tags/t", Value::Null, "delete tag"),
    ] {
        let message = c
            .refused(409, A, method, &format!("/servers/{building}/{path}"), body)
            .await;
        assert_eq!(
            message,
            format!("Cannot '{name}' instance {building} while it is in vm_state building")
        );
    }
}

#[tokio::test]
async fn tags_are_kept() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let p = format!("/servers/{server}/tags");
    assert_eq!(c.get(A, &p).await, json!({"tags": []}));
    let v = c.want(200, A, "PUT", &p, json!({"tags": ["b", "a", "b"]})).await;
    assert_eq!(v, json!({"tags": ["a", "b"]}));
    let made = c.at(NEW, A, "PUT", &format!("{p}/c%20d"), Value::Null).await;
    assert_eq!(made.status, 201);
    assert!(made.headers["location"].to_str().unwrap().contains(&p));
    c.want(204, A, "PUT", &format!("{p}/c%20d"), Value::Null).await;
    c.want(204, A, "GET", &format!("{p}/c%20d"), Value::Null).await;
    assert_eq!(c.get(READER, &p).await, json!({"tags": ["a", "b", "c d"]}));
    c.want(204, A, "DELETE", &format!("{p}/a"), Value::Null).await;
    let message = c.refused(404, A, "DELETE", &format!("{p}/a"), Value::Null).await;
    assert_eq!(message, format!("Server {server} has no tag 'a'"));
    c.refused(404, A, "GET", &format!("{p}/a"), Value::Null).await;
    c.refused_at(25, 404, A, "GET", &p, Value::Null).await;
    let fifty: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    c.want(200, A, "PUT", &p, json!({ "tags": fifty })).await;
    for (method, path, body, part) in [
        ("PUT", format!("{p}/more"), Value::Null, "limit 50"),
        ("PUT", format!("{p}/{}", "x".repeat(61)), Value::Null, "tag"),
        ("PUT", format!("{p}/a,b"), Value::Null, "tag"),
        ("PUT", p.clone(), json!({"tags": ["a/b"]}), "tags"),
        ("PUT", p.clone(), json!({"tags": [1]}), "tags[0]"),
        ("PUT", p.clone(), json!({"tags": null}), "tags"),
        ("PUT", p.clone(), json!({"tags": {"a": 1}}), "tags"),
        ("PUT", p.clone(), json!([]), "object"),
    ] {
        let message = c.refused(400, A, method, &path, body.clone()).await;
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    assert_eq!(c.server(&server).unwrap().tags.len(), 50);
    c.want(204, A, "DELETE", &p, Value::Null).await;
    assert_eq!(c.get(A, &p).await, json!({"tags": []}));
}

#[tokio::test]
async fn addresses_are_shown_by_network() {
    let c = cloud().await;
    let web = c.network(A, "web", "10.1.0.0/24").await;
    let db = c.network(A, "db", "fd00::/64").await;
    let server = c
        .create(A, json!({"networks": [{"uuid": web}, {"uuid": db}, {"uuid": web}]}))
        .await;
    let p = format!("/servers/{server}/ips");
    assert_eq!(c.get(A, &p).await, json!({"addresses": {}}));
    c.settle().await;
    let v = c.get(A, &p).await["addresses"].clone();
    assert_eq!(keys(&v), ["db", "web"]);
    assert_eq!(v["web"].as_array().unwrap().len(), 2);
    assert_eq!(v["db"][0]["version"], 6);
    assert_eq!(keys(&v["web"][0]), ["addr", "version"]);
    assert_eq!(c.get(A, &format!("{p}/web")).await, json!({"web": v["web"]}));
    let message = c.refused(404, A, "GET", &format!("{p}/nope"), Value::Null).await;
    assert_eq!(message, "Instance is not a member of specified network");
    // A floating IP stands behind the fixed address of its port.
    let public = json!({"network": {"name": "public", "router:external": true}});
    let public = id(&c.net(ADMIN, "POST", "/networks", public).await);
    let body =
        json!({"subnet": {"network_id": public, "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": false}});
    c.net(ADMIN, "POST", "/subnets", body).await;
    let router = json!({"router": {"name": "r", "external_gateway_info": {"network_id": public}}});
    let router = id(&c.net(A, "POST", "/routers", router).await);
    let ports = c.get(A, &format!("/servers/{server}/os-interface")).await["interfaceAttachments"].clone();
    let subnet = ports[0]["fixed_ips"][0]["subnet_id"].clone();
    c.net(
        A,
        "PUT",
        &format!("/routers/{router}/add_router_interface"),
        json!({"subnet_id": subnet}),
    )
    .await;
    let body = json!({"floatingip": {"floating_network_id": public, "port_id": ports[0]["port_id"]}});
    let floating = c.net(A, "POST", "/floatingips", body).await;
    let v = c.get(A, &format!("/servers/{server}")).await["server"]["addresses"].clone();
    assert_eq!(v["web"][1]["OS-EXT-IPS:type"], "floating");
    assert_eq!(v["web"][1]["addr"], floating["floating_ip_address"]);
    assert_eq!(
        v["web"][1]["OS-EXT-IPS-MAC:mac_addr"],
        v["web"][0]["OS-EXT-IPS-MAC:mac_addr"]
    );
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.settle().await;
    c.idle();
}

#[tokio::test]
async fn a_password_that_the_guest_posted_is_told_and_forgotten() {
    let c = cloud().await;
    let server = c.create(A, json!({"networks": "none"})).await;
    let path = format!("/servers/{server}/os-server-password");
    // Not placed yet: no node to ask.
    assert_eq!(c.get(A, &path).await, json!({"password": ""}));
    c.settle().await;
    assert_eq!(c.get(A, &path).await, json!({"password": ""}));
    let keep = |text: &[u8]| c.passwords.lock().unwrap().insert(server.clone(), text.to_vec());
    keep(b"c2VjcmV0");
    assert_eq!(c.get(READER, &path).await, json!({"password": "c2VjcmV0"}));
    c.want(404, B, "GET", &path, Value::Null).await;
    c.want(403, READER, "DELETE", &path, Value::Null).await;
    c.want(204, A, "DELETE", &path, Value::Null).await;
    assert_eq!(c.get(A, &path).await, json!({"password": ""}));
    // Whatever a guest posts is text in the answer.
    keep(b"\xff\"}");
    assert_eq!(c.get(A, &path).await, json!({"password": "\u{fffd}\"}"}));
}

#[tokio::test]
async fn topology_and_live_migrations_are_told_of_ones_own_server() {
    let c = cloud().await;
    let server = c.create(A, json!({"networks": "none"})).await;
    c.settle().await;
    let topology = format!("/servers/{server}/topology");
    assert_eq!(c.get(A, &topology).await, json!({"nodes": [], "pagesize_kb": null}));
    c.refused_at(77, 404, A, "GET", &topology, Value::Null).await;
    c.want(404, B, "GET", &topology, Value::Null).await;
    let migrations = format!("/servers/{server}/migrations");
    assert_eq!(c.get(ADMIN, &migrations).await, json!({"migrations": []}));
    c.want(403, A, "GET", &migrations, Value::Null).await;
    c.refused_at(22, 404, ADMIN, "GET", &migrations, Value::Null).await;
    let message = c
        .refused(404, ADMIN, "GET", &format!("{migrations}/1"), Value::Null)
        .await;
    assert!(message.contains("In-progress live migration 1"), "{message}");
    c.refused(400, ADMIN, "GET", &format!("{migrations}/x"), Value::Null)
        .await;
}

#[tokio::test]
async fn a_project_without_a_network_is_given_one_when_it_asks() {
    let c = cloud().await;
    let public = json!({"network": {"name": "public", "router:external": true, "is_default": true}});
    let public = id(&c.net(ADMIN, "POST", "/networks", public).await);
    let body = json!({"subnet": {"network_id": public, "cidr": "172.24.4.0/24", "ip_version": 4}});
    c.net(ADMIN, "POST", "/subnets", body).await;
    let auto = || wanted(json!({"networks": "auto"}));
    let message = c.refused(400, A, "POST", "/servers", auto()).await;
    assert!(message.contains("No default subnetpools"), "{message}");
    let pool = json!({"subnetpool": {"name": "p", "prefixes": ["10.90.0.0/16"], "default_prefixlen": 26, "is_default": true,
        "shared": true}});
    c.net(ADMIN, "POST", "/subnetpools", pool).await;
    // A request that is refused makes nothing.
    let bad = wanted(json!({"networks": "auto", "flavorRef": "nothing"}));
    c.refused(400, A, "POST", "/servers", bad).await;
    assert!(
        c.store
            .snapshot()
            .list::<maru_network_model::topology::AutoTopology>()
            .next()
            .is_none()
    );
    let (one, two) = (
        c.create(A, json!({"networks": "auto"})).await,
        c.create(A, json!({"networks": "auto"})).await,
    );
    c.settle().await;
    let net = |server: &str| {
        let path = format!("/servers/{server}/os-interface");
        let c = &c;
        async move { c.get(A, &path).await["interfaceAttachments"][0]["net_id"].clone() }
    };
    let given = net(&one).await;
    assert_eq!(given, net(&two).await);
    let shown = c.net(A, "GET", "/networks", json!(null)).await;
    assert!(shown.to_string().contains("auto_allocated_network"), "{shown}");
}

#[tokio::test]
async fn what_networks_a_server_gets_when_none_is_named() {
    let c = cloud().await;
    let old = || json!({"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1"}});
    // Nothing there: before 2.37 none, `auto` is refused.
    let server = id(&c.want_at(36, 202, A, "POST", "/servers", old()).await["server"]);
    let message = c
        .refused(400, A, "POST", "/servers", wanted(json!({"networks": "auto"})))
        .await;
    assert!(message.contains("network"), "{message}");
    c.settle().await;
    assert_eq!(c.server(&server).unwrap().ports.len(), 0);
    let net = c.network(A, "one", "10.1.0.0/24").await;
    let server = id(&c.want_at(36, 202, A, "POST", "/servers", old()).await["server"]);
    let auto = c.create(A, json!({"networks": "auto"})).await;
    c.settle().await;
    for id in [&server, &auto] {
        assert_eq!(
            c.get(A, &format!("/servers/{id}/os-interface")).await["interfaceAttachments"][0]["net_id"],
            net
        );
    }
    // Two are ambiguous.
    c.network(A, "two", "10.2.0.0/24").await;
    let message = c
        .refused(409, A, "POST", "/servers", wanted(json!({"networks": "auto"})))
        .await;
    assert!(message.contains("Multiple possible networks"), "{message}");
    c.refused_at(36, 409, A, "POST", "/servers", old()).await;
    // An external network is for administrators; one address is given once.
    let public = json!({"network": {"name": "public", "router:external": true}});
    let public = id(&c.net(ADMIN, "POST", "/networks", public).await);
    let body = json!({"subnet": {"network_id": public, "cidr": "172.24.4.0/24", "ip_version": 4}});
    c.net(ADMIN, "POST", "/subnets", body).await;
    let message = c
        .refused(
            403,
            A,
            "POST",
            "/servers",
            wanted(json!({"networks": [{"uuid": public}]})),
        )
        .await;
    assert!(message.contains("external network"), "{message}");
    let taken = json!({"networks": [{"uuid": net, "fixed_ip": "10.1.0.50"}]});
    c.create(A, taken.clone()).await;
    c.settle().await;
    let message = c.refused(400, A, "POST", "/servers", wanted(taken)).await;
    assert!(
        message.contains("10.1.0.50") && message.contains("already in use"),
        "{message}"
    );
    // A port of another server, and one port twice.
    let port = id(&c.net(A, "POST", "/ports", json!({"port": {"network_id": net}})).await);
    let twice = wanted(json!({"networks": [{"port": port}, {"port": port}]}));
    assert!(c.refused(400, A, "POST", "/servers", twice).await.contains("twice"));
    let with = json!({"networks": [{"port": port}]});
    // Two that are asked for at once: one gets it, the other fails and holds nothing.
    let first = c.create(A, with.clone()).await;
    let second = c.create(A, with.clone()).await;
    c.settle().await;
    let mut both = [c.server(&first).unwrap().status(), c.server(&second).unwrap().status()];
    both.sort_unstable();
    assert_eq!(both, ["ACTIVE", "ERROR"]);
    let message = c.refused(409, A, "POST", "/servers", wanted(with)).await;
    assert_eq!(message, format!("Port {port} is still in use."));
    c.idle();
}

#[tokio::test]
async fn interfaces_are_attached_and_detached() {
    let c = cloud().await;
    let net = c.network(A, "one", "10.1.0.0/24").await;
    let foreign = c.network(B, "b", "10.2.0.0/24").await;
    let foreign_port = id(&c
        .net(B, "POST", "/ports", json!({"port": {"network_id": foreign}}))
        .await);
    let server = c.boot(A, "s").await;
    let p = format!("/servers/{server}/os-interface");
    let attach = |fields: Value| json!({ "interfaceAttachment": fields });
    let v = c.want(200, A, "POST", &p, attach(json!({}))).await["interfaceAttachment"].clone();
    assert_eq!(
        keys(&v),
        ["fixed_ips", "mac_addr", "net_id", "port_id", "port_state", "tag"]
    );
    assert_eq!(v["net_id"], net);
    let body = attach(json!({"net_id": net, "fixed_ips": [{"ip_address": "10.1.0.99"}], "tag": "t"}));
    let second = c.want(200, A, "POST", &p, body.clone()).await["interfaceAttachment"].clone();
    assert_eq!(
        (&second["fixed_ips"][0]["ip_address"], &second["tag"]),
        (&json!("10.1.0.99"), &json!("t"))
    );
    let port = id(&c.net(A, "POST", "/ports", json!({"port": {"network_id": net}})).await);
    c.want(200, A, "POST", &p, attach(json!({"port_id": port}))).await;
    let list = c.get(READER, &p).await["interfaceAttachments"].clone();
    assert_eq!(list.as_array().unwrap().len(), 3);
    let old = c.get_at(69, A, &p).await["interfaceAttachments"].clone();
    assert!(old[0].get("tag").is_none());
    let one = c.get(A, &format!("{p}/{port}")).await["interfaceAttachment"].clone();
    assert_eq!(one["port_id"], port);
    c.idle();
    for (minor, fields, status, part) in [
        (NEW, json!({"net_id": "x"}), 400, "net_id"),
        (NEW, json!({"port_id": "x"}), 400, "port_id"),
        (NEW, json!({"net_id": NOBODY}), 404, NOBODY),
        (NEW, json!({"port_id": NOBODY}), 404, NOBODY),
        (NEW, json!({"net_id": foreign}), 404, foreign.as_str()),
        (NEW, json!({"port_id": foreign_port}), 404, foreign_port.as_str()),
        (NEW, json!({"net_id": net, "port_id": port}), 400, "both"),
        (NEW, json!({"port_id": port}), 409, "in use"),
        (
            NEW,
            json!({"fixed_ips": [{"ip_address": "10.1.0.5"}]}),
            400,
            "network_id",
        ),
        (
            NEW,
            json!({"net_id": net, "fixed_ips": [{"ip_address": "x"}]}),
            400,
            "ip_address",
        ),
        (NEW, json!({"net_id": net, "fixed_ips": [{}]}), 400, "ip_address"),
        (
            NEW,
            json!({"net_id": net, "fixed_ips": [{"ip_address": "10.1.0.99"}]}),
            409,
            "10.1.0.99",
        ),
        (
            NEW,
            json!({"net_id": net, "fixed_ips": [{"ip_address": "10.9.0.9"}]}),
            400,
            "10.9.0.9",
        ),
        (NEW, json!({"net_id": net, "tag": "a,b"}), 400, "tag"),
        (NEW, json!({"net_id": net, "color": "red"}), 400, "color"),
        (NEW, json!(null), 400, "interfaceAttachment"),
        (48, json!({"net_id": net, "tag": "t"}), 400, "tag"),
    ] {
        let answer = c.at(minor, A, "POST", &p, attach(fields.clone())).await;
        assert_eq!(answer.status, status, "{fields}: {}", answer.body);
        assert!(answer.body.to_string().contains(part), "{fields}: {}", answer.body);
    }
    c.refused(403, READER, "POST", &p, attach(json!({}))).await;
    c.refused(404, A, "GET", &format!("{p}/{NOBODY}"), Value::Null).await;
    c.refused(404, A, "DELETE", &format!("{p}/{NOBODY}"), Value::Null).await;
    c.refused(404, A, "DELETE", &format!("{p}/{foreign_port}"), Value::Null)
        .await;
    // A port that was given is given back, one that was made goes.
    c.want(202, A, "DELETE", &format!("{p}/{port}"), Value::Null).await;
    assert_eq!(
        c.net(A, "GET", &format!("/ports/{port}"), Value::Null).await["device_id"],
        ""
    );
    let made = second["port_id"].as_str().unwrap().to_owned();
    c.want(202, A, "DELETE", &format!("{p}/{made}"), Value::Null).await;
    assert!(
        c.store
            .snapshot()
            .get::<maru_network_model::Port>(&made.as_str().into())
            .is_none()
    );
    assert_eq!(c.get(A, &p).await["interfaceAttachments"].as_array().unwrap().len(), 1);
    c.idle();
    let done = c.get(A, &format!("/servers/{server}/os-instance-actions")).await["instanceActions"].clone();
    let done: Vec<&str> = done
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    let mut want = vec!["detach_interface"; 2];
    want.extend(["attach_interface"; 3]);
    want.push("create");
    assert_eq!(done, want);
    // Not while it is suspended, nor while something else is done.
    c.act(202, A, &server, json!({"suspend": null})).await;
    let message = c.refused(409, A, "POST", &p, attach(json!({}))).await;
    assert!(
        message.contains("Cannot 'attach_interface'") && message.contains("task_state suspending"),
        "{message}"
    );
    c.settle().await;
    let message = c.refused(409, A, "POST", &p, attach(json!({}))).await;
    assert!(message.contains("vm_state suspended"), "{message}");
}

#[tokio::test]
async fn security_groups_are_added_and_removed() {
    let c = cloud().await;
    let net = c.network(A, "one", "10.1.0.0/24").await;
    let group = c
        .net(
            A,
            "POST",
            "/security-groups",
            json!({"security_group": {"name": "web"}}),
        )
        .await;
    let rule = json!({"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 81, "remote_ip_prefix": "192.0.2.0/24"}});
    c.net(A, "POST", "/security-group-rules", rule).await;
    let foreign = id(&c
        .net(
            B,
            "POST",
            "/security-groups",
            json!({"security_group": {"name": "theirs"}}),
        )
        .await);
    let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
    c.settle().await;
    let p = format!("/servers/{server}/os-security-groups");
    let add = |name: &str| json!({"addSecurityGroup": {"name": name}});
    let remove = |name: &str| json!({"removeSecurityGroup": {"name": name}});
    assert_eq!(names(&c.get(A, &p).await["security_groups"]), ["default"]);
    c.act(202, A, &server, add("web")).await;
    let list = c.get(READER, &p).await["security_groups"].clone();
    assert_eq!(names(&list), ["default", "web"]);
    let v = &list[1];
    assert_eq!(keys(v), ["description", "id", "name", "rules", "tenant_id"]);
    let r = &v["rules"][0];
    assert_eq!(
        keys(r),
        [
            "from_port",
            "group",
            "id",
            "ip_protocol",
            "ip_range",
            "parent_group_id",
            "to_port"
        ]
    );
    assert_eq!(
        (&r["from_port"], &r["to_port"], &r["ip_protocol"]),
        (&json!(80), &json!(81), &json!("tcp"))
    );
    assert_eq!(r["ip_range"], json!({"cidr": "192.0.2.0/24"}));
    // Twice is once; by id as well as by name.
    c.act(202, A, &server, add(group["id"].as_str().unwrap())).await;
    let shown = c.get(A, &format!("/servers/{server}")).await["server"]["security_groups"].clone();
    assert_eq!(names(&shown), ["default", "web"]);
    c.act(202, A, &server, remove("web")).await;
    assert_eq!(names(&c.get(A, &p).await["security_groups"]), ["default"]);
    let path = format!("/servers/{server}/action");
    c.refused(404, A, "POST", &path, remove("web")).await;
    // D: another project's group is none, by name or id.
    for name in ["theirs", foreign.as_str(), NOBODY] {
        let message = c.refused(404, A, "POST", &path, add(name)).await;
        assert!(message.contains(name), "{message}");
    }
    c.refused(
        400,
        A,
        "POST",
        "/servers",
        wanted(json!({"networks": [{"uuid": net}], "security_groups": [{"name": foreign}]})),
    )
    .await;
    // An administrator names the groups of the server's project.
    c.refused(404, ADMIN, "POST", &path, add("theirs")).await;
    c.act(202, ADMIN, &server, add("web")).await;
    c.refused(403, READER, "POST", &path, add("web")).await;
    let none = c.boot(A, "no-port").await;
    let message = c
        .refused(400, A, "POST", &format!("/servers/{none}/action"), add("web"))
        .await;
    assert!(message.contains("no port"), "{message}");
    assert_eq!(c.server(&none).unwrap().vm_state, m::VmState::Active);
    assert_eq!(
        c.get(A, &format!("/servers/{server}/os-volume_attachments")).await,
        json!({"volumeAttachments": []})
    );
    c.idle();
}

#[tokio::test]
async fn a_port_gets_one_more_address_and_loses_one() {
    let c = cloud().await;
    let net = c.network(A, "net", "10.1.0.0/24").await;
    let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
    c.settle().await;
    let count = |v: &Value| v["server"]["addresses"]["net"].as_array().unwrap().len();
    let path = format!("/servers/{server}/action");
    let add = |net: &str| json!({"addFixedIp": {"networkId": net}});
    let remove = |ip: &str| json!({"removeFixedIp": {"address": ip}});
    c.want_at(43, 202, A, "POST", &path, add(&net)).await;
    let shown = c.get(A, &format!("/servers/{server}")).await;
    assert_eq!(count(&shown), 2);
    let ip = shown["server"]["addresses"]["net"][1]["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    for (body, part) in [
        (add("nonsense"), "networkId"),
        (add(IMAGE), "could not be found"),
        (remove("nonsense"), "address"),
        (remove("10.1.0.3"), "10.1.0.3 not found"),
    ] {
        let message = c.refused_at(43, 400, A, "POST", &path, body).await;
        assert!(message.contains(part), "{message}");
    }
    c.refused_at(44, 404, A, "POST", &path, add(&net)).await;
    c.refused_at(43, 403, READER, "POST", &path, remove(&ip)).await;
    c.refused_at(43, 404, B, "POST", &path, remove(&ip)).await;
    c.want_at(43, 202, A, "POST", &path, remove(&ip)).await;
    let shown = c.get(A, &format!("/servers/{server}")).await;
    assert_eq!(count(&shown), 1);
    assert_ne!(shown["server"]["addresses"]["net"][0]["addr"], ip);
    c.idle();
}

#[tokio::test]
async fn a_crash_dump_is_asked_of_a_server_that_runs() {
    let c = cloud().await;
    let id = c.boot(A, "s").await;
    let path = format!("/servers/{id}/action");
    let dump = || json!({"trigger_crash_dump": null});
    c.refused_at(16, 404, A, "POST", &path, dump()).await;
    c.refused(400, A, "POST", &path, json!({"trigger_crash_dump": {}}))
        .await;
    c.refused(403, READER, "POST", &path, dump()).await;
    c.act(202, A, &id, dump()).await;
    let actions = c.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await;
    assert_eq!(actions["instanceActions"][0]["action"], "trigger_crash_dump");
    c.act(202, A, &id, json!({"os-stop": null})).await;
    c.settle().await;
    let message = c.refused(409, A, "POST", &path, dump()).await;
    assert!(message.contains("vm_state stopped"), "{message}");
}
