//! What the walk over the routes cannot see: each action of a server, and ids of a stranger's objects inside bodies
//! (attack class D: missing ownership checks).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_kit::{Answer, Kit, Scene};
use serde_json::{Value, json};

/// Every action that is served, with its rule.
fn actions(image: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("os_compute_api:servers:stop", json!({"os-stop": null})),
        ("os_compute_api:servers:start", json!({"os-start": null})),
        ("os_compute_api:servers:reboot", json!({"reboot": {"type": "SOFT"}})),
        ("os_compute_api:servers:reboot", json!({"reboot": {"type": "HARD"}})),
        ("os_compute_api:os-pause-server:pause", json!({"pause": null})),
        ("os_compute_api:os-pause-server:unpause", json!({"unpause": null})),
        ("os_compute_api:os-suspend-server:suspend", json!({"suspend": null})),
        ("os_compute_api:os-suspend-server:resume", json!({"resume": null})),
        (
            "os_compute_api:servers:rebuild",
            json!({"rebuild": {"imageRef": image}}),
        ),
        (
            "os_compute_api:servers:create_image",
            json!({"createImage": {"name": "i"}}),
        ),
        (
            "os_compute_api:os-create-backup",
            json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}}),
        ),
        ("os_compute_api:servers:resize", json!({"resize": {"flavorRef": "84"}})),
        ("os_compute_api:servers:confirm_resize", json!({"confirmResize": null})),
        ("os_compute_api:servers:revert_resize", json!({"revertResize": null})),
        ("os_compute_api:os-rescue", json!({"rescue": null})),
        ("os_compute_api:os-unrescue", json!({"unrescue": null})),
        ("os_compute_api:os-shelve:shelve", json!({"shelve": null})),
        ("os_compute_api:os-shelve:unshelve", json!({"unshelve": null})),
        (
            "os_compute_api:os-shelve:shelve_offload",
            json!({"shelveOffload": null}),
        ),
        (
            "os_compute_api:servers:trigger_crash_dump",
            json!({"trigger_crash_dump": null}),
        ),
        ("os_compute_api:os-lock-server:lock", json!({"lock": null})),
        ("os_compute_api:os-lock-server:unlock", json!({"unlock": null})),
        (
            "os_compute_api:os-admin-actions:reset_state",
            json!({"os-resetState": {"state": "active"}}),
        ),
        (
            "os_compute_api:os-admin-password",
            json!({"changePassword": {"adminPass": "x-secret"}}),
        ),
        (
            "os_compute_api:os-console-output",
            json!({"os-getConsoleOutput": {"length": 1}}),
        ),
        ("os_compute_api:os-deferred-delete:force", json!({"forceDelete": null})),
        (
            "os_compute_api:os-security-groups:add",
            json!({"addSecurityGroup": {"name": "default"}}),
        ),
        (
            "os_compute_api:os-security-groups:remove",
            json!({"removeSecurityGroup": {"name": "default"}}),
        ),
    ]
}

fn same(answer: &Answer, id: &str) -> String {
    let request = answer.header("x-openstack-request-id");
    answer.text().replace(id, "<id>").replace(request, "<request>")
}

#[tokio::test(start_paused = true)]
async fn every_action_of_a_server_refuses_strangers_and_readers() {
    let scene = Scene::start().await;
    let server = scene.value("compute", "servers").unwrap().to_owned();
    let image = scene.value("image", "images").unwrap().to_owned();
    let nowhere = "01234567-89ab-4def-8123-456789abcdef";
    let before = scene.kit.committed();
    for (rule, body) in actions(&image) {
        let act = async |id: &str, token: &str| {
            let path = format!("/compute/v2.1/servers/{id}/action");
            scene.kit.call("POST", &path, token, body.clone()).await
        };
        let foreign = act(&server, &scene.red.member.token).await;
        let absent = act(nowhere, &scene.red.member.token).await;
        assert_eq!(foreign.status, 404, "{body}: {}", foreign.text());
        assert_eq!(same(&foreign, &server), same(&absent, nowhere), "{body}");
        for who in [&scene.blue.reader, &scene.blue.nobody] {
            let answer = act(&server, &who.token).await;
            assert_eq!(answer.status, 403, "{body} by {}: {}", who.name, answer.text());
        }
        if rule.ends_with("reset_state") {
            let answer = act(&server, &scene.blue.member.token).await;
            assert_eq!(answer.status, 403, "{body} by a member: {}", answer.text());
        }
    }
    assert_eq!(before, scene.kit.committed(), "a refused action was stored");
}

#[tokio::test(start_paused = true)]
async fn every_action_of_a_server_asks_its_own_rule() {
    let mut rules: Vec<&str> = actions("").into_iter().map(|(rule, _)| rule).collect();
    rules.dedup();
    let policy: String = rules
        .iter()
        .map(|rule| format!("\"{rule}\": \"role:admin\"\n"))
        .collect();
    let kit = Kit::builder().policy(&policy).start().await;
    let who = kit.project("blue").await.member;
    let image = kit.image(&who, "i").await;
    let (network, _) = kit.network(&who, "n", "10.0.0.0/24").await;
    let server = kit.server(&who, "vm", &image, &network).await;
    kit.server_active(&server).await;
    for (rule, body) in actions(&image) {
        let path = format!("/compute/v2.1/servers/{server}/action");
        let answer = kit.call("POST", &path, &who.token, body.clone()).await;
        let text = answer.expect(403).to_string();
        assert!(text.contains(rule), "{body} does not ask {rule}: {text}");
    }
}

/// A request by a stranger that names an object of another project in its body is answered as if there were no such object.
#[tokio::test(start_paused = true)]
async fn ids_of_a_strangers_objects_in_a_body_are_not_found() {
    let scene = Scene::start().await;
    let kit = &scene.kit;
    let red = &scene.red.member;
    let of = |service: &str, noun: &str| scene.value(service, noun).unwrap().to_owned();
    let (network, subnet, port) = (
        of("network", "networks"),
        of("network", "subnets"),
        of("network", "ports"),
    );
    let (group, server_group) = (of("network", "security-groups"), of("compute", "os-server-groups"));
    let (image, flavor) = (of("image", "images"), of("compute", "flavors"));
    // Their own things beside.
    let my_image = kit.image(red, "mine").await;
    let (my_network, _) = kit.network(red, "mine", "10.0.0.0/24").await;
    let my_port = kit.port(red, &my_network).await;
    let my_server = kit.server(red, "mine", &my_image, &my_network).await;
    kit.server_active(&my_server).await;
    let external = kit.external_network().await;
    let made = kit
        .post(red, "/network/v2.0/routers", json!({"router": {"name": "mine"}}))
        .await;
    let my_router = made["router"]["id"].as_str().unwrap().to_owned();
    let made = kit
        .post(
            red,
            "/network/v2.0/floatingips",
            json!({"floatingip": {"floating_network_id": external}}),
        )
        .await;
    let my_fip = made["floatingip"]["id"].as_str().unwrap().to_owned();
    let v2 = |path: &str| format!("/network/v2.0/{path}");
    let v21 = |path: &str| format!("/compute/v2.1/{path}");
    let server = |change: (&str, Value)| {
        let mut body = Kit::server_body("x", &my_image, &my_network);
        body["server"][change.0] = change.1;
        body
    };
    let mut group_hint = Kit::server_body("x", &my_image, &my_network);
    group_hint["os:scheduler_hints"] = json!({"group": server_group});
    let cases = [
        ("POST", v2("ports"), json!({"port": {"network_id": network}}), &network),
        (
            "POST",
            v2("ports"),
            json!({"port": {"network_id": my_network, "security_groups": [group]}}),
            &group,
        ),
        (
            "POST",
            v2("ports"),
            json!({"port": {"network_id": my_network, "fixed_ips": [{"subnet_id": subnet}]}}),
            &subnet,
        ),
        (
            "PUT",
            v2(&format!("ports/{my_port}")),
            json!({"port": {"security_groups": [group]}}),
            &group,
        ),
        (
            "PUT",
            v2(&format!("ports/{my_port}")),
            json!({"port": {"fixed_ips": [{"subnet_id": subnet}]}}),
            &subnet,
        ),
        (
            "POST",
            v2("subnets"),
            json!({"subnet": {"network_id": network, "cidr": "10.8.0.0/24", "ip_version": 4}}),
            &network,
        ),
        (
            "PUT",
            v2(&format!("routers/{my_router}/add_router_interface")),
            json!({"subnet_id": subnet}),
            &subnet,
        ),
        (
            "PUT",
            v2(&format!("routers/{my_router}/add_router_interface")),
            json!({"port_id": port}),
            &port,
        ),
        (
            "POST",
            v2("routers"),
            json!({"router": {"external_gateway_info": {"network_id": network}}}),
            &network,
        ),
        (
            "POST",
            v2("floatingips"),
            json!({"floatingip": {"floating_network_id": external, "port_id": port}}),
            &port,
        ),
        (
            "PUT",
            v2(&format!("floatingips/{my_fip}")),
            json!({"floatingip": {"port_id": port}}),
            &port,
        ),
        (
            "POST",
            v2("security-group-rules"),
            json!({"security_group_rule": {"security_group_id": group, "direction": "ingress"}}),
            &group,
        ),
        ("POST", v21("servers"), server(("imageRef", json!(image))), &image),
        ("POST", v21("servers"), server(("flavorRef", json!(flavor))), &flavor),
        (
            "POST",
            v21("servers"),
            server(("networks", json!([{"uuid": network}]))),
            &network,
        ),
        (
            "POST",
            v21("servers"),
            server(("networks", json!([{"port": port}]))),
            &port,
        ),
        (
            "POST",
            v21("servers"),
            server(("security_groups", json!([{"name": group}]))),
            &group,
        ),
        ("POST", v21("servers"), group_hint, &server_group),
        (
            "POST",
            v21(&format!("servers/{my_server}/action")),
            json!({"rebuild": {"imageRef": image}}),
            &image,
        ),
        (
            "POST",
            v21(&format!("servers/{my_server}/action")),
            json!({"addSecurityGroup": {"name": group}}),
            &group,
        ),
        (
            "POST",
            v21(&format!("servers/{my_server}/os-interface")),
            json!({"interfaceAttachment": {"net_id": network}}),
            &network,
        ),
        (
            "POST",
            v21(&format!("servers/{my_server}/os-interface")),
            json!({"interfaceAttachment": {"port_id": port}}),
            &port,
        ),
    ];
    let before = kit.keys().await;
    let mut wrong = Vec::new();
    let nowhere = "01234567-89ab-4def-8123-456789abcdef";
    for (method, path, body, theirs) in &cases {
        let foreign = kit.call(method, path, &red.token, body.clone()).await;
        let absent = serde_json::from_str(&body.to_string().replace(theirs.as_str(), nowhere)).unwrap();
        let absent = kit.call(method, path, &red.token, absent).await;
        if !(400..500).contains(&foreign.status) {
            wrong.push(format!(
                "TAKEN {method} {path} {body}: {} {}",
                foreign.status,
                foreign.text()
            ));
        } else if foreign.status != absent.status || same(&foreign, theirs) != same(&absent, nowhere) {
            wrong.push(format!(
                "TOLD {method} {path} {body}:\n    {} {}\n    {} {}",
                foreign.status,
                foreign.text(),
                absent.status,
                absent.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(before, kit.keys().await, "a refused request was stored");
    println!("bodies that name a stranger's object: {}", cases.len());
}
