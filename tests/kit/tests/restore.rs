//! A backup is older than what runs: guests that the restored store forgot are kept, told, adopted or discarded (docs/adr/0004).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use maru_agent_api::observed::PowerState;
use maru_compute_model::{Server, ServerId, Task, VmState, find_service};
use maru_kit::{Actor, Kit, Mishap, Project};
use maru_sim::Step;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// Waits until something holds that no store tells of.
async fn soon(mut check: impl FnMut() -> bool) {
    let holds = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), holds)
        .await
        .expect("it holds within two minutes");
}

/// Waits until a node tells of an unknown server.
async fn unknown(kit: &Kit, id: &str) {
    soon(|| {
        let views = kit.cloud().hub().views();
        let mut things = views.iter().flat_map(|v| &v.unknown);
        things.any(|u| u.what == "server" && u.id == id)
    })
    .await;
}

/// A project with an image and a network.
async fn tenant(kit: &Kit) -> (Project, String, String, String) {
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, subnet) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    (blue, image, network, subnet)
}

/// The control plane begins again on a backup, and tells of these guests as unknown. Gives the member with a new token.
async fn lose(kit: &Kit, file: &Path, nodes: u32, blue: &Project, ids: &[&String]) -> Actor {
    kit.restore(file).await;
    kit.nodes_up(nodes).await;
    let member = kit.sign_in_again(&blue.member, "blue").await;
    for id in ids {
        unknown(kit, id).await;
    }
    member
}

async fn adopt(kit: &Kit, id: &str) -> Value {
    kit.cloud().unknown("server", id, None, true).await.unwrap()
}

/// A refusal to adopt: it names the server and its node, holds all of `says`, and ends with the command that discards the guest. The
/// guest is left as it is and the store does not know it.
async fn refused(kit: &Kit, id: &str, says: &[&str]) -> String {
    let before = kit.node("n1").guests();
    let revision = kit.snapshot().revision();
    let error = kit.cloud().unknown("server", id, None, true).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with(&format!("server {id} ")), "{error}");
    assert!(error.contains("on node n1 is not adopted"), "{error}");
    assert!(error.ends_with(&format!(" `maru discard server {id}`")), "{error}");
    for part in says {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
    assert_eq!(kit.node("n1").guests(), before, "the guest is untouched");
    assert_eq!(kit.snapshot().revision(), revision, "nothing is written");
    assert!(kit.snapshot().get::<Server>(&ServerId::from(id)).is_none());
    error
}

fn addresses(server: &Value) -> Value {
    server["server"]["addresses"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_the_backup_does_not_know_is_adopted_untouched() {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, _) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let path = format!("/compute/v2.1/servers/{id}");
    let before = kit.get(&blue.member, &path).await;
    let guest = kit.node("n1").guests()[&id].clone();

    kit.restore(&file).await;
    kit.nodes_up(1).await;
    kit.call("GET", &path, &blue.member.token, Value::Null)
        .await
        .expect(401);
    let member = kit.sign_in_again(&blue.member, "blue").await;
    kit.call("GET", &path, &member.token, Value::Null).await.expect(404);
    unknown(&kit, &id).await;
    assert_eq!(kit.node("n1").guests()[&id], guest, "the guest is untouched");
    let told = adopt(&kit, &id).await;
    assert_eq!(told["name"], "s");
    assert_eq!(told["status"], "ACTIVE");

    kit.server_active(&id).await;
    kit.rest().await;
    let after = kit.get(&member, &path).await;
    assert_eq!(addresses(&before), addresses(&after));
    for field in [
        "id",
        "name",
        "tenant_id",
        "user_id",
        "flavor",
        "image",
        "metadata",
        "status",
        "created",
        "security_groups",
    ] {
        assert_eq!(before["server"][field], after["server"][field], "{field}");
    }
    assert_eq!(kit.node("n1").guests()[&id], guest, "neither started nor changed");
    kit.audit_consistency().await;
    // Once is enough, and from now on it is a server like others.
    for adopt in [true, false] {
        let again = kit.cloud().unknown("server", &id, None, adopt).await.unwrap_err();
        let again = again.to_string();
        for part in [
            format!("server {id} (s) is known to the cloud, on n1"),
            "nothing to adopt or discard".to_owned(),
            format!("`openstack server delete {id}`"),
        ] {
            assert!(again.contains(&part), "'{part}' is not in: {again}");
        }
    }
    kit.delete(&member, &path).await;
    kit.server_gone(&id).await;
    kit.rest().await;
    assert!(kit.node("n1").guests().is_empty());
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_back_is_refused_and_can_be_discarded() {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, _) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    let green = kit.project("green").await;
    let theirs = {
        let image = kit.image(&green.member, "i").await;
        let (network, _) = kit.network(&green.member, "n", "10.0.0.0/24").await;
        kit.server(&green.member, "s", &image, &network).await
    };
    kit.server_active(&theirs).await;
    kit.rest().await;
    let path = format!("/compute/v2.1/servers/{id}");
    let shown = kit.get(&blue.member, &path).await;
    let ip = shown["server"]["addresses"]["n"][0]["addr"]
        .as_str()
        .unwrap()
        .to_owned();

    kit.restore(&file).await;
    kit.nodes_up(1).await;
    kit.call("GET", &path, &blue.member.token, Value::Null)
        .await
        .expect(401);
    let member = kit.sign_in_again(&blue.member, "blue").await;
    for id in [&id, &theirs] {
        unknown(&kit, id).await;
    }
    let project = format!("project {}, which the store does not have", green.id);
    refused(
        &kit,
        &theirs,
        &[&project, "younger than the backup", "Restore a later backup"],
    )
    .await;
    // Somebody has its address by now.
    let port = kit
        .post(
            &member,
            "/network/v2.0/ports",
            json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": ip}]}}),
        )
        .await;
    let port = port["port"]["id"].as_str().unwrap().to_owned();
    let way = format!("`openstack port delete {port}`");
    refused(
        &kit,
        &id,
        &[&format!("address {ip}"), &format!("by port {port}."), &way],
    )
    .await;
    kit.call("GET", &path, &member.token, Value::Null).await.expect(404);
    kit.audit_consistency().await;
    // What it says helps.
    kit.delete(&member, &format!("/network/v2.0/ports/{port}")).await;
    adopt(&kit, &id).await;
    kit.server_active(&id).await;
    // A server is not adopted and not discarded twice.
    kit.cloud().unknown("server", &theirs, None, false).await.unwrap();
    assert!(!kit.node("n1").guests().contains_key(&theirs));
    for adopt in [true, false] {
        let gone = kit.cloud().unknown("server", &theirs, None, adopt).await.unwrap_err();
        let gone = gone.to_string();
        assert!(gone.contains("no node reports an unknown server"), "{gone}");
        assert!(gone.contains("`maru status --all`"), "{gone}");
    }
    kit.rest().await;
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_or_subnet_that_the_backup_does_not_have_refuses() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let (young, _) = kit.network(&blue.member, "young", "10.1.0.0/24").await;
    let on_young = kit.server(&blue.member, "a", &image, &young).await;
    let body = json!({"subnet": {"network_id": network, "cidr": "10.2.0.0/24", "ip_version": 4}});
    let subnet = kit.post(&blue.member, "/network/v2.0/subnets", body).await["subnet"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let port = json!({"port": {"network_id": network, "fixed_ips": [{"subnet_id": subnet}]}});
    let port = kit.post(&blue.member, "/network/v2.0/ports", port).await["port"].clone();
    let mut body = Kit::server_body("b", &image, &network);
    body["server"]["networks"] = json!([{"port": port["id"]}]);
    let made = kit.post(&blue.member, "/compute/v2.1/servers", body).await;
    let on_subnet = made["server"]["id"].as_str().unwrap().to_owned();
    for id in [&on_young, &on_subnet] {
        kit.server_active(id).await;
    }
    kit.rest().await;

    lose(&kit, &file, 1, &blue, &[&on_young, &on_subnet]).await;
    let says = format!("is on network {young}, which the store does not have");
    refused(
        &kit,
        &on_young,
        &[&says, "(a)", "younger than the backup", "later backup"],
    )
    .await;
    let ip = port["fixed_ips"][0]["ip_address"].as_str().unwrap();
    let says = format!("address {ip} of subnet {subnet}, which the store does not have");
    refused(&kit, &on_subnet, &[&says, port["id"].as_str().unwrap(), "later backup"]).await;
    for id in [&on_young, &on_subnet] {
        kit.cloud().unknown("server", id, None, false).await.unwrap();
    }
    assert!(kit.node("n1").guests().is_empty());
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_the_mac_or_the_address_meanwhile_is_named() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let ports = kit
        .get(&blue.member, &format!("/network/v2.0/ports?device_id={id}"))
        .await;
    let (mac, ip) = (
        &ports["ports"][0]["mac_address"],
        &ports["ports"][0]["fixed_ips"][0]["ip_address"],
    );

    let member = lose(&kit, &file, 1, &blue, &[&id]).await;
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let body = json!({"port": {"network_id": network, "mac_address": mac}});
    let port = text(&kit.post(&member, "/network/v2.0/ports", body).await["port"]["id"]);
    let says = [
        format!("MAC address {}", text(mac)),
        format!("by port {port}."),
        format!("`openstack port delete {port}`"),
    ];
    refused(&kit, &id, &says.each_ref().map(String::as_str)).await;
    kit.delete(&member, &format!("/network/v2.0/ports/{port}")).await;
    // Now a server has the address.
    let mut body = Kit::server_body("other", &image, &network);
    body["server"]["networks"] = json!([{"uuid": network, "fixed_ip": ip}]);
    let other = text(&kit.post(&member, "/compute/v2.1/servers", body).await["server"]["id"]);
    kit.server_active(&other).await;
    let says = [
        format!("address {}", text(ip)),
        format!("of {other} (compute:nova)"),
        format!("`openstack server delete {other}`"),
    ];
    refused(&kit, &id, &says.each_ref().map(String::as_str)).await;
    kit.delete(&member, &format!("/compute/v2.1/servers/{other}")).await;
    kit.server_gone(&other).await;
    // And a router.
    let router = kit
        .post(&member, "/network/v2.0/routers", json!({"router": {"name": "r"}}))
        .await;
    let router = text(&router["router"]["id"]);
    let body = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": ip}]}});
    let port = text(&kit.post(&member, "/network/v2.0/ports", body).await["port"]["id"]);
    let path = format!("/network/v2.0/routers/{router}/add_router_interface");
    kit.put(&member, &path, json!({"port_id": port})).await;
    refused(&kit, &id, &[&format!("`openstack router remove port {router} {port}`")]).await;
    let path = format!("/network/v2.0/routers/{router}/remove_router_interface");
    kit.put(&member, &path, json!({"port_id": port})).await;
    adopt(&kit, &id).await;
    kit.server_active(&id).await;
    kit.rest().await;
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_older_than_the_backup_comes_back_unless_it_is_used() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let port = kit.port(&blue.member, &network).await;
    let path = format!("/network/v2.0/ports/{port}");
    let file = kit.backup().await;
    let with_port = |name: &str| {
        let mut body = Kit::server_body(name, &image, &network);
        body["server"]["networks"] = json!([{"port": port}]);
        body
    };
    let id = |made: &Value| made["server"]["id"].as_str().unwrap().to_owned();
    let server = id(&kit.post(&blue.member, "/compute/v2.1/servers", with_port("s")).await);
    kit.server_active(&server).await;
    // Its address has changed since the backup.
    let body = json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.77"}]}});
    kit.put(&blue.member, &path, body).await;
    kit.rest().await;
    soon(|| kit.node("n1").guests()[&server].origin.contains("10.0.0.77")).await;
    let before = kit.get(&blue.member, &path).await["port"].clone();

    let member = lose(&kit, &file, 1, &blue, &[&server]).await;
    let other = id(&kit.post(&member, "/compute/v2.1/servers", with_port("other")).await);
    kit.server_active(&other).await;
    let way = format!("`openstack server remove port {other} {port}`");
    refused(&kit, &server, &[&format!("Its port {port} belongs to {other}"), &way]).await;
    let path_of_interface = format!("/compute/v2.1/servers/{other}/os-interface/{port}");
    kit.delete(&member, &path_of_interface).await;
    kit.until("the port is free", |s| {
        let port = s.get::<maru_network_model::Port>(&port.as_str().into());
        port.is_some_and(|p| p.device_id.is_empty())
    })
    .await;
    kit.rest().await;
    adopt(&kit, &server).await;
    kit.server_active(&server).await;
    kit.rest().await;
    kit.until("the port is up", |s| {
        let id = port.as_str().into();
        let stored = s.get::<maru_network_model::Port>(&id);
        stored.is_some_and(|stored| maru_network_model::port_is_up(s, &id, &stored))
    })
    .await;
    let after = kit.get(&member, &path).await["port"].clone();
    for field in [
        "status",
        "device_id",
        "device_owner",
        "mac_address",
        "fixed_ips",
        "security_groups",
    ] {
        assert_eq!(before[field], after[field], "{field}");
    }
    kit.audit_consistency().await;
}

/// The address of a server's first port.
fn address_of(kit: &Kit, server: &str) -> String {
    let ports = kit.snapshot();
    let port = ports
        .find::<maru_network_model::Port>("device", server)
        .next()
        .expect("a port");
    port.value.fixed_ips[0].ip_address.to_string()
}

/// Makes a server with this address.
async fn server_at(kit: &Kit, who: &maru_kit::Actor, name: &str, image: &str, network: &str, ip: &str) -> String {
    let mut body = Kit::server_body(name, image, network);
    body["server"]["networks"][0]["fixed_ip"] = json!(ip);
    let made = kit.post(who, "/compute/v2.1/servers", body).await;
    made["server"]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_node_without_room_refuses_and_says_what_is_short() {
    let kit = Kit::builder().nodes(1).node_size(4, 4_096, 3).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let address = address_of(&kit, &id);
    let member = lose(&kit, &file, 1, &blue, &[&id]).await;
    let mut others = Vec::new();
    // With addresses of their own: the room is what is fought for.
    let free = (200..204).map(|n| format!("10.0.0.{n}")).filter(|ip| *ip != address);
    for (n, ip) in free.take(3).enumerate() {
        let other = server_at(&kit, &member, &format!("other{n}"), &image, &network, &ip).await;
        kit.server_active(&other).await;
        others.push(other);
    }
    let provider = find_service(&kit.snapshot(), "n1").unwrap().provider.clone();
    let way = format!("inventory set {provider} --amend --resource DISK_GB:allocation_ratio");
    let says = [
        "Node n1 has no room",
        "1 DISK_GB",
        "3 of 3 are given away",
        way.as_str(),
    ];
    refused(&kit, &id, &says).await;
    // Both ways that it names help: more room ...
    let admin = kit.sign_in_again(&kit.admin(), "admin").await;
    let path = format!("/placement/resource_providers/{provider}/inventories/DISK_GB");
    let mut inventory = kit.get(&admin, &path).await;
    inventory["allocation_ratio"] = json!(2.0);
    kit.put(&admin, &path, inventory.clone()).await;
    adopt(&kit, &id).await;
    kit.server_active(&id).await;
    kit.rest().await;
    kit.audit_consistency().await;
    // ... and fewer servers.
    let member = lose(&kit, &file, 1, &blue, &[&id]).await;
    for other in &others {
        unknown(&kit, other).await;
    }
    for other in &others {
        adopt(&kit, other).await;
    }
    refused(&kit, &id, &says).await;
    kit.delete(&member, &format!("/compute/v2.1/servers/{}", others[0]))
        .await;
    kit.server_gone(&others[0]).await;
    adopt(&kit, &id).await;
    kit.server_active(&id).await;
    kit.rest().await;
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_room_or_address_that_is_lost_at_the_last_moment_is_named_as_well() {
    let kit = Kit::builder().nodes(1).node_size(4, 4_096, 1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    let address = address_of(&kit, &id);
    let member = lose(&kit, &file, 1, &blue, &[&id]).await;
    kit.rest().await;
    // The adoption is planned while there is room, and arrives when another server has it.
    kit.gate().mishap(1, Mishap::Slow);
    let attempts = kit.gate().attempts();
    let make = async {
        while kit.gate().attempts() == attempts {
            tokio::task::yield_now().await;
        }
        // An address of its own: the one that the guest had is free for the moment, and the room is what is fought for.
        let free = ["10.0.0.100", "10.0.0.101"].iter().find(|ip| **ip != address).unwrap();
        let other = server_at(&kit, &member, "other", &image, &network, free).await;
        kit.server_active(&other).await;
        other
    };
    let cloud = kit.cloud();
    let (outcome, other) = tokio::join!(cloud.unknown("server", &id, None, true), make);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("1 of 1 are given away"), "{error}");
    assert!(error.ends_with(&format!(" `maru discard server {id}`")), "{error}");
    // Two at once: the second finds it known.
    kit.delete(&member, &format!("/compute/v2.1/servers/{other}")).await;
    kit.server_gone(&other).await;
    let (first, second) = tokio::join!(
        cloud.unknown("server", &id, None, true),
        cloud.unknown("server", &id, None, false)
    );
    assert_eq!(first.unwrap()["status"], "ACTIVE");
    let error = second.unwrap_err().to_string();
    assert!(error.contains("is known to the cloud"), "{error}");
    kit.server_active(&id).await;
    assert!(kit.node("n1").guests().contains_key(&id));
    kit.rest().await;
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn flavor_image_key_pair_and_groups_need_not_be_there() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, _, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let flavor = json!({"flavor": {"name": "young", "vcpus": 2, "ram": 256, "disk": 1, "id": "young-1"}});
    kit.post(&kit.admin(), "/compute/v2.1/flavors", flavor).await;
    let image = kit.image(&blue.member, "young").await;
    let key = json!({"keypair": {"name": "young", "type": "ssh", "public_key": KEY}});
    kit.post(&blue.member, "/compute/v2.1/os-keypairs", key).await;
    let group = json!({"server_group": {"name": "young", "policy": "soft-affinity"}});
    let group = text(&kit.post(&blue.member, "/compute/v2.1/os-server-groups", group).await["server_group"]["id"]);
    let firewall = json!({"security_group": {"name": "young"}});
    let firewall = kit.post(&blue.member, "/network/v2.0/security-groups", firewall).await;
    let firewall = text(&firewall["security_group"]["id"]);
    let mut body = Kit::server_body("s", &image, &network);
    body["server"]["flavorRef"] = "young-1".into();
    body["server"]["key_name"] = "young".into();
    body["server"]["security_groups"] = json!([{"name": "default"}, {"name": "young"}]);
    body["os:scheduler_hints"] = json!({ "group": group });
    let id = text(&kit.post(&blue.member, "/compute/v2.1/servers", body).await["server"]["id"]);
    kit.server_active(&id).await;
    kit.rest().await;
    let path = format!("/compute/v2.1/servers/{id}");
    let before = kit.get(&blue.member, &path).await;

    let member = lose(&kit, &file, 1, &blue, &[&id]).await;
    let told = adopt(&kit, &id).await;
    // What is left out is said.
    assert_eq!(told["groups_missing"], json!([firewall]));
    assert_eq!(told["server_group_missing"], json!(group));
    kit.server_active(&id).await;
    kit.rest().await;
    let after = kit.get(&member, &path).await;
    assert_eq!(before["server"]["flavor"]["original_name"], "young");
    for field in ["flavor", "image", "key_name", "status", "addresses"] {
        assert_eq!(before["server"][field], after["server"][field], "{field}");
    }
    assert_eq!(after["server"]["server_groups"], json!([]));
    // Before 2.47 the flavor is a link, to what is gone, as upstream's.
    let headers = [
        ("x-auth-token", member.token.as_str()),
        ("openstack-api-version", "compute 2.1"),
    ];
    let old = kit
        .send("GET", &path, &headers, Bytes::new())
        .await
        .unwrap()
        .expect(200);
    assert_eq!(old["server"]["flavor"]["id"], "young-1");
    kit.call("GET", "/compute/v2.1/flavors/young-1", &member.token, Value::Null)
        .await
        .expect(404);
    // It lives like others.
    for (action, state) in [("os-stop", VmState::Stopped), ("os-start", VmState::Active)] {
        kit.action(&member, &id, json!({ action: null })).await;
        kit.server_state(&id, state).await;
    }
    kit.audit_consistency().await;
    kit.delete(&member, &path).await;
    kit.server_gone(&id).await;
    kit.rest().await;
    kit.audit_consistency().await;
}

/// A public key, as ssh-keygen makes them.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f someone";

#[tokio::test(start_paused = true)]
async fn an_adopted_server_is_what_its_guest_is() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    kit.compute_quota(&blue.id, json!({"instances": 20})).await;
    let file = kit.backup().await;
    let (node, admin) = (kit.node("n1"), kit.admin());
    let make = async |name: &str| {
        let id = kit.server(&blue.member, name, &image, &network).await;
        kit.server_active(&id).await;
        id
    };
    let running = make("running").await;
    // In ERROR, and yet it runs.
    let error = make("error").await;
    kit.action(&admin, &error, json!({"os-resetState": {"state": "error"}}))
        .await;
    kit.server_state(&error, VmState::Error).await;
    let mut asked = Vec::new();
    for (action, state) in [
        ("os-stop", VmState::Stopped),
        ("pause", VmState::Paused),
        ("suspend", VmState::Suspended),
    ] {
        let id = make(action).await;
        kit.action(&blue.member, &id, json!({ action: null })).await;
        kit.server_state(&id, state).await;
        asked.push(id);
    }
    let [stopped, paused, suspended] = asked.try_into().unwrap();
    // These leave their state while nobody knows them.
    let (left, died) = (make("left").await, make("died").await);
    // Of these something was asked that their node has not done when the cloud is lost.
    let (stopping, starting) = (make("stopping").await, make("starting").await);
    kit.action(&blue.member, &starting, json!({"os-stop": null})).await;
    kit.server_state(&starting, VmState::Stopped).await;
    kit.rest().await;
    let never = make("never started").await;
    node.script(|s| {
        s.delay(Step::Power, Duration::from_secs(36_000));
        s.delay(Step::Spawn, Duration::from_secs(5));
    });
    kit.action(&blue.member, &stopping, json!({"os-stop": null})).await;
    kit.action(&blue.member, &starting, json!({"os-start": null})).await;
    // This one is being made: its guest is there, and the store has not heard of it.
    let building = kit.server(&blue.member, "building", &image, &network).await;
    let key = ServerId::from(building.as_str());
    kit.until("it is being made", |s| {
        s.get::<Server>(&key).is_some_and(|s| s.task == Some(Task::Spawning))
    })
    .await;
    kit.gate().mishap(1, Mishap::Slow);
    soon(|| node.guests().contains_key(&building)).await;
    let state = |id: &String| {
        kit.snapshot()
            .get::<Server>(&ServerId::from(id.as_str()))
            .map(|s| (s.vm_state, s.task))
    };
    assert_eq!(state(&building), Some((VmState::Building, Some(Task::Spawning))));
    assert_eq!(state(&stopping), Some((VmState::Active, Some(Task::PoweringOff))));
    assert_eq!(state(&starting), Some((VmState::Stopped, Some(Task::PoweringOn))));

    kit.crash();
    node.script(|s| {
        s.delay(Step::Power, Duration::ZERO);
    });
    let all = [
        &running, &error, &building, &stopping, &stopped, &starting, &left, &died, &paused, &suspended,
    ];
    let member = lose(&kit, &file, 1, &blue, &all).await;
    unknown(&kit, &never).await;
    node.set_power(&never, PowerState::Nostate);
    node.power_off(&left, false);
    node.power_off(&died, true);
    let guests = node.guests();
    for (id, status, number) in [
        (&running, "ACTIVE", 1),
        (&error, "ACTIVE", 1),
        (&building, "ACTIVE", 1),
        (&stopping, "ACTIVE", 1),
        (&stopped, "SHUTOFF", 4),
        (&starting, "SHUTOFF", 4),
        (&left, "SHUTOFF", 4),
        (&died, "SHUTOFF", 6),
        (&paused, "PAUSED", 3),
        (&suspended, "SUSPENDED", 7),
    ] {
        let told = adopt(&kit, id).await;
        let name = &told["name"];
        assert_eq!(told["status"], status, "{name}");
        // At once, and when its node has reported.
        for _ in 0..2 {
            let shown = kit.get(&member, &format!("/compute/v2.1/servers/{id}")).await;
            assert_eq!(shown["server"]["status"], status, "{name}");
            assert_eq!(shown["server"]["OS-EXT-STS:power_state"], number, "{name}");
            assert_eq!(shown["server"]["OS-EXT-STS:task_state"], Value::Null, "{name}");
            assert_eq!(shown["server"].get("fault"), None, "{name}");
            kit.until("its node has reported", |s| {
                let key = maru_compute_model::ObservedServerId::from(id.as_str());
                s.get::<maru_compute_model::ObservedServer>(&key)
                    .is_some_and(|o| o.revision > 0)
            })
            .await;
            kit.rest().await;
        }
        let guest = &node.guests()[id];
        assert_eq!(
            (guest.power, guest.starts),
            (guests[id].power, guests[id].starts),
            "{name}"
        );
    }
    // What was never started is still being made, and then it is there.
    node.script(|s| {
        s.delay(Step::Power, Duration::from_secs(5));
    });
    let told = adopt(&kit, &never).await;
    assert_eq!(told["status"], "BUILD");
    let server = kit.server_active(&never).await;
    assert!(server.launched_at.is_some());
    kit.rest().await;
    kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_project_that_is_deleted_at_that_moment_refuses() {
    let kit = Kit::builder().nodes(1).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let file = kit.backup().await;
    let id = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&id).await;
    kit.rest().await;
    lose(&kit, &file, 1, &blue, &[&id]).await;
    let admin = kit.sign_in_again(&kit.admin(), "admin").await;
    kit.rest().await;
    // The adoption is planned while the project is there, and arrives when it is gone.
    kit.gate().mishap(1, Mishap::Slow);
    let attempts = kit.gate().attempts();
    let cloud = kit.cloud();
    let delete = async {
        while kit.gate().attempts() == attempts {
            tokio::task::yield_now().await;
        }
        assert!(kit.snapshot().get::<Server>(&ServerId::from(id.as_str())).is_none());
        kit.delete(&admin, &format!("/identity/v3/projects/{}", blue.id)).await;
    };
    let (outcome, ()) = tokio::join!(cloud.unknown("server", &id, None, true), delete);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(&format!("project {}", blue.id)), "{error}");
    assert!(error.ends_with(&format!(" `maru discard server {id}`")), "{error}");
    assert!(kit.snapshot().get::<Server>(&ServerId::from(id.as_str())).is_none());
    kit.cloud().unknown("server", &id, None, false).await.unwrap();
    assert!(kit.node("n1").guests().is_empty());
}

/// What `maru status` says of the unknown things of a node.
fn listed(kit: &Kit, node: &str) -> Vec<Value> {
    let nodes = kit.cloud().nodes();
    let node = nodes.into_iter().find(|n| n["node"] == node).unwrap();
    node["unknown"].as_array().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn guests_of_unknown_origin_and_guests_that_are_there_twice() {
    let kit = Kit::builder().nodes(2).start().await;
    let (blue, image, network, _) = tenant(&kit).await;
    let known = kit.server(&blue.member, "s", &image, &network).await;
    let at = kit.server_active(&known).await.host.clone().unwrap();
    let elsewhere = if at == "n1" { "n2" } else { "n1" };
    let (stray, twice) = ("stray".to_owned(), "twice".to_owned());
    kit.node("n1").plant(&stray);
    kit.node("n1").plant(&twice);
    kit.node("n2").plant(&twice);
    // What was left of it on a node that it is no longer on.
    kit.node(elsewhere).plant(&known);
    for node in ["n1", "n2"] {
        kit.node_down(node);
        kit.node_up(node);
    }
    for id in [&stray, &twice, &known] {
        unknown(&kit, id).await;
    }
    soon(|| listed(&kit, "n1").len() + listed(&kit, "n2").len() == 4).await;
    refused(
        &kit,
        &stray,
        &["does not remember where it comes from", "only be removed"],
    )
    .await;
    kit.cloud().unknown("server", &stray, None, false).await.unwrap();

    let error = kit
        .cloud()
        .unknown("server", &twice, None, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("on several nodes (n1, n2)"), "{error}");
    assert!(error.ends_with("`maru discard server twice --node n1`"), "{error}");
    let error = kit
        .cloud()
        .unknown("server", &twice, Some("n3"), false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("node n3 does not report an unknown server twice"),
        "{error}"
    );
    kit.cloud().unknown("server", &twice, Some("n2"), false).await.unwrap();
    assert!(kit.node("n1").guests().contains_key(&twice) && !kit.node("n2").guests().contains_key(&twice));
    kit.cloud().unknown("server", &twice, None, false).await.unwrap();

    // The store knows where the server is; what is elsewhere is no server of its own.
    let error = kit
        .cloud()
        .unknown("server", &known, None, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("on node {elsewhere} is not adopted")),
        "{error}"
    );
    assert!(error.ends_with(&format!("`maru discard server {known}`")), "{error}");
    kit.cloud().unknown("server", &known, None, false).await.unwrap();
    assert!(!kit.node(elsewhere).guests().contains_key(&known));
    assert!(kit.node(&at).guests().contains_key(&known));
    assert!(listed(&kit, "n1").is_empty() && listed(&kit, "n2").is_empty());
    kit.audit_consistency().await;
}
