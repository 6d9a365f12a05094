//! Whole flows through the APIs, the controllers and simulated nodes, under paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru_compute_model::{Server, VmState};
use maru_kit::{Kit, Project, Step};
use maru_network_model::Port;
use serde_json::{Value, json};
use std::time::Duration;

struct Stage {
    kit: Kit,
    project: Project,
    image: String,
    network: String,
}

/// A cloud with a project that has an image and a network.
async fn stage(nodes: u32) -> Stage {
    let kit = Kit::builder().nodes(nodes).start().await;
    let project = kit.project("blue").await;
    let image = kit.image(&project.member, "tiny").await;
    let (network, _) = kit.network(&project.member, "net", "10.0.0.0/16").await;
    Stage {
        kit,
        project,
        image,
        network,
    }
}

impl Stage {
    async fn server(&self, name: &str) -> String {
        self.kit
            .server(&self.project.member, name, &self.image, &self.network)
            .await
    }
    async fn delete(&self, server: &str) {
        let path = format!("/compute/v2.1/servers/{server}");
        self.kit.delete(&self.project.member, &path).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_made_takes_each_power_action_and_goes_without_a_trace() {
    let s = stage(2).await;
    let before = s.kit.keys().await;
    let id = s.server("one").await;
    let server = s.kit.server_active(&id).await;
    assert!(server.host.is_some() && server.launched_at.is_some(), "{server:?}");
    s.kit.audit_rest().await;

    let steps: &[(Value, VmState)] = &[
        (json!({"os-stop": null}), VmState::Stopped),
        (json!({"os-start": null}), VmState::Active),
        (json!({"reboot": {"type": "SOFT"}}), VmState::Active),
        (json!({"reboot": {"type": "HARD"}}), VmState::Active),
        (json!({"pause": null}), VmState::Paused),
        (json!({"unpause": null}), VmState::Active),
        (json!({"suspend": null}), VmState::Suspended),
        (json!({"resume": null}), VmState::Active),
        (json!({"rebuild": {"imageRef": s.image}}), VmState::Active),
        (json!({"rescue": null}), VmState::Rescued),
        (json!({"unrescue": null}), VmState::Active),
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"revertResize": null}), VmState::Active),
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"confirmResize": null}), VmState::Active),
    ];
    for (action, state) in steps {
        let path = format!("/compute/v2.1/servers/{id}/action");
        let answer = s.kit.call("POST", &path, &s.project.member.token, action.clone()).await;
        let fine = match action.as_object().and_then(|o| o.keys().next()).map(String::as_str) {
            Some("confirmResize") => 204,
            Some("rescue") => 200,
            _ => 202,
        };
        assert_eq!(answer.status, fine, "{action}: {}", answer.text());
        s.kit.server_state(&id, *state).await;
        let shown = s
            .kit
            .get(&s.project.member, &format!("/compute/v2.1/servers/{id}"))
            .await;
        assert_eq!(shown["server"]["OS-EXT-STS:vm_state"], state.as_str(), "{action}");
        assert_eq!(shown["server"]["OS-EXT-STS:task_state"], Value::Null, "{action}");
    }
    s.kit.audit_rest().await;

    s.delete(&id).await;
    s.kit.server_gone(&id).await;
    s.kit.audit_rest().await;
    assert!(s.kit.nodes().values().all(|n| n.guests().is_empty()), "a guest is left");
    let left: Vec<String> = new_keys(&before, &s.kit.keys().await);
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Keys that are there now and were not, except the record of what was done and marks that hold nothing.
fn new_keys(before: &[String], after: &[String]) -> Vec<String> {
    let kept = |k: &String| {
        ["server_action/", "epoch/", "counter/", "nethost/"].iter().any(|p| k.starts_with(p))
            // The project's default security group comes with its first port.
            || k.starts_with("security_group") || k.starts_with("uniq/default-group") || k.starts_with("uniq/group-rule")
    };
    after
        .iter()
        .filter(|k| !before.contains(k) && !kept(k))
        .cloned()
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_servers_with_a_quota_short_by_one_are_none() {
    let s = stage(4).await;
    let limits = json!({"instances": 99, "cores": 1000, "ram": 1_000_000});
    s.kit.compute_quota(&s.project.id, limits).await;
    let before = s.kit.keys().await;
    let mut body = Kit::server_body("many", &s.image, &s.network);
    body["server"]["min_count"] = json!(100);
    body["server"]["max_count"] = json!(100);
    let answer = s
        .kit
        .call("POST", "/compute/v2.1/servers", &s.project.member.token, body.clone())
        .await;
    let text = answer.expect(403).to_string();
    assert!(text.contains("Quota exceeded for instances"), "{text}");
    assert_eq!(s.kit.snapshot().count::<Server>(), 0);
    assert_eq!(before, s.kit.keys().await, "a refusal changed the store");

    let limits = json!({"instances": 100, "cores": 1000, "ram": 1_000_000});
    s.kit.compute_quota(&s.project.id, limits).await;
    s.kit.network_quota(&s.project.id, json!({"port": 200})).await;
    s.kit.post(&s.project.member, "/compute/v2.1/servers", body).await;
    s.kit
        .until("all hundred are ACTIVE", |x| {
            x.list::<Server>()
                .filter(|v| v.value.vm_state == VmState::Active)
                .count()
                == 100
        })
        .await;
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_ports_with_a_quota_short_by_one_are_none() {
    let s = stage(1).await;
    let there = i64::try_from(s.kit.snapshot().find::<Port>("project", &s.project.id).count()).unwrap();
    s.kit.network_quota(&s.project.id, json!({"port": there + 99})).await;
    let before = s.kit.keys().await;
    let ports: Vec<Value> = (0..100).map(|_| json!({"network_id": s.network})).collect();
    let body = json!({"ports": ports});
    let answer = s
        .kit
        .call("POST", "/network/v2.0/ports", &s.project.member.token, body.clone())
        .await;
    let text = answer.expect(409).to_string();
    assert!(text.contains("OverQuota"), "{text}");
    assert_eq!(before, s.kit.keys().await, "a refusal changed the store");
    s.kit.network_quota(&s.project.id, json!({"port": there + 100})).await;
    let made = s.kit.post(&s.project.member, "/network/v2.0/ports", body).await;
    assert_eq!(made["ports"].as_array().unwrap().len(), 100);
    s.kit.audit_consistency().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_deleted_while_it_is_built_leaves_nothing() {
    let s = stage(2).await;
    for node in s.kit.nodes().values() {
        node.script(|x| {
            x.delay(Step::Spawn, Duration::from_secs(30));
        });
    }
    let before = s.kit.keys().await;
    // At once, and while its node spawns it.
    for spawning in [false, true] {
        let id = s.server("short").await;
        if spawning {
            let key = maru_compute_model::ServerId::from(id.as_str());
            s.kit
                .until("it is placed", |x| {
                    x.get::<Server>(&key).is_some_and(|v| v.value.placed)
                })
                .await;
        }
        s.delete(&id).await;
        s.kit.server_gone(&id).await;
        s.kit.audit_rest().await;
    }
    let left = new_keys(&before, &s.kit.keys().await);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_for_good_shows_in_the_fault() {
    let s = stage(2).await;
    for (name, node) in s.kit.nodes() {
        node.script(|x| {
            for _ in 0..8 {
                x.fail(Step::Spawn, None, &format!("no machine on {name}"), true);
            }
        });
    }
    let id = s.server("unlucky").await;
    let fault = s.kit.server_error(&id).await;
    let text = format!("{} {}", fault.message, fault.details);
    assert!(text.contains("no machine on n"), "{text}");
    s.kit.audit_consistency().await;
    s.delete(&id).await;
    s.kit.server_gone(&id).await;
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn no_valid_host_names_every_host_and_its_filter() {
    let s = stage(3).await;
    let flavor = s
        .kit
        .post(
            &s.kit.admin(),
            "/compute/v2.1/flavors",
            json!({"flavor": {"name": "huge", "vcpus": 1, "ram": 1_000_000_000_u64, "disk": 1}}),
        )
        .await;
    s.kit.compute_quota(&s.project.id, json!({"ram": -1})).await;
    let mut body = Kit::server_body("huge", &s.image, &s.network);
    body["server"]["flavorRef"] = flavor["flavor"]["id"].clone();
    let made = s.kit.post(&s.project.member, "/compute/v2.1/servers", body).await;
    let id = made["server"]["id"].as_str().unwrap();
    let fault = s.kit.server_error(id).await;
    let text = format!("{} {}", fault.message, fault.details);
    assert!(text.contains("No valid host"), "{text}");
    for host in ["n1", "n2", "n3"] {
        assert!(text.contains(host), "{host} is not named: {text}");
    }
    assert!(
        text.contains("MEMORY_MB") || text.to_lowercase().contains("memory"),
        "{text}"
    );
    s.kit.audit_consistency().await;
    s.delete(id).await;
    s.kit.server_gone(id).await;
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_with_ports_stays_and_one_without_goes() {
    let s = stage(1).await;
    let port = s.kit.port(&s.project.member, &s.network).await;
    let path = format!("/network/v2.0/networks/{}", s.network);
    let answer = s.kit.call("DELETE", &path, &s.project.member.token, Value::Null).await;
    assert!(answer.expect(409).to_string().contains("NetworkInUse"));
    s.kit
        .delete(&s.project.member, &format!("/network/v2.0/ports/{port}"))
        .await;
    s.kit.delete(&s.project.member, &path).await;
    s.kit.audit_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_floating_address_is_made_moves_and_goes() {
    let s = stage(2).await;
    let who = &s.project.member;
    let external = s.kit.external_network().await;
    let router = s
        .kit
        .post(
            who,
            "/network/v2.0/routers",
            json!({"router": {"name": "r", "external_gateway_info": {"network_id": external}}}),
        )
        .await;
    let router = router["router"]["id"].as_str().unwrap().to_owned();
    let subnets = s
        .kit
        .get(who, &format!("/network/v2.0/subnets?network_id={}", s.network))
        .await;
    let subnet = subnets["subnets"][0]["id"].clone();
    let interface = format!("/network/v2.0/routers/{router}/add_router_interface");
    s.kit.put(who, &interface, json!({"subnet_id": subnet})).await;
    let (a, b) = (s.server("a").await, s.server("b").await);
    let mut ports = Vec::new();
    for id in [&a, &b] {
        ports.push(s.kit.server_active(id).await.ports[0].id.clone());
    }
    let made = s
        .kit
        .post(
            who,
            "/network/v2.0/floatingips",
            json!({"floatingip": {"floating_network_id": external, "port_id": ports[0]}}),
        )
        .await;
    let fip = made["floatingip"]["id"].as_str().unwrap().to_owned();
    let address = made["floatingip"]["floating_ip_address"].clone();
    let path = format!("/network/v2.0/floatingips/{fip}");
    let shown = s.kit.get(who, &format!("/compute/v2.1/servers/{a}")).await.to_string();
    assert!(shown.contains(address.as_str().unwrap()), "{shown}");
    s.kit
        .put(who, &path, json!({"floatingip": {"port_id": ports[1]}}))
        .await;
    s.kit.audit_consistency().await;
    // Its server goes, the address stays the project's.
    s.delete(&b).await;
    s.kit.server_gone(&b).await;
    let shown = s.kit.get(who, &path).await;
    assert_eq!(shown["floatingip"]["port_id"], Value::Null);
    s.kit.delete(who, &path).await;
    s.delete(&a).await;
    s.kit.server_gone(&a).await;
    let interface = format!("/network/v2.0/routers/{router}/remove_router_interface");
    s.kit.put(who, &interface, json!({"subnet_id": subnet})).await;
    s.kit.delete(who, &format!("/network/v2.0/routers/{router}")).await;
    s.kit
        .delete(who, &format!("/network/v2.0/networks/{}", s.network))
        .await;
    s.kit.audit_rest().await;
}

#[tokio::test]
async fn a_store_in_a_file_is_opened_again_by_each_life() {
    let kit = Kit::builder().redb().nodes(1).start().await;
    let project = kit.project("blue").await;
    let image = kit.image(&project.member, "tiny").await;
    let (network, _) = kit.network(&project.member, "net", "10.0.0.0/24").await;
    let id = kit.server(&project.member, "one", &image, &network).await;
    kit.restart().await;
    kit.server_active(&id).await;
    kit.restart().await;
    // The token of an earlier life is good, and the guest was not touched.
    kit.delete(&project.member, &format!("/compute/v2.1/servers/{id}"))
        .await;
    kit.server_gone(&id).await;
    kit.audit_rest().await;
}

/// The check that all other tests rest on can fail: each kind of damage is named.
#[tokio::test(start_paused = true)]
async fn damage_is_found() {
    use maru_network_model::keys;
    use maru_store::{Op, Txn};
    let s = stage(1).await;
    let id = s.server("one").await;
    s.kit.server_active(&id).await;
    s.kit.audit_rest().await;
    let store = s.kit.store();
    let ghost = maru_placement_model::ConsumerId::from("ghost");
    let held = s
        .kit
        .snapshot()
        .list::<maru_placement_model::Consumer>()
        .next()
        .unwrap();
    let mut txn = Txn::new();
    txn.add(keys::quota_counter(&s.project.id, "port"), 1, None);
    txn.claim("mac", "nowhere", "fa:16:3e:00:00:00", "ghost");
    txn.op(Op::Put(
        keys::address("nowhere", "10.0.0.1".parse().unwrap()),
        "ghost".into(),
    ));
    txn.create(&ghost, &*held.value);
    store.commit(txn).await.unwrap();
    let faults = s.kit.faults().await.join("\n");
    for part in [
        "/port is 3, a recount gives 2",
        "mac",
        "alloc/nowhere/10.0.0.1",
        "consumer ghost",
    ] {
        assert!(faults.contains(part), "{part} is not in:\n{faults}");
    }
}
