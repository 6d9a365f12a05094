//! The nodes as `maru status` tells of them, and what is unknown on them beside guests (those: restore.rs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru_agent_api::{
    ControlPlane,
    observed::{Hello, Report, UnknownThing},
};
use maru_compute_model::find_service;
use maru_kit::Kit;
use serde_json::{Value, json};
use std::time::Duration;

fn hello(node: &str) -> Hello {
    serde_json::from_value(json!({
        "node": node, "session": 7, "version": "1", "hypervisor_type": "QEMU", "hypervisor_version": 1, "accelerator": "none",
        "cpu_model": "none", "arch": "x86_64", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10, "address": "127.0.0.1",
    }))
    .unwrap()
}

fn thing(what: &str, id: &str) -> Report {
    Report::Unknown(UnknownThing {
        what: what.to_owned(),
        id: id.to_owned(),
        description: "left".to_owned(),
    })
}

/// What `maru status` says of the unknown things of a node.
fn listed(kit: &Kit, node: &str) -> Vec<Value> {
    let nodes = kit.cloud().nodes();
    let node = nodes.into_iter().find(|n| n["node"] == node).unwrap();
    node["unknown"].as_array().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_server_or_remembers_nothing_can_only_be_discarded() {
    let kit = Kit::builder().nodes(1).start().await;
    let blue = kit.project("blue").await;
    let image = kit.image(&blue.member, "i").await;
    let (network, _) = kit.network(&blue.member, "n", "10.0.0.0/24").await;
    let known = kit.server(&blue.member, "s", &image, &network).await;
    kit.server_active(&known).await;
    kit.rest().await;
    // A node whose guests, disks and links nobody knows; one of its networks is known by now.
    let cloud = kit.cloud();
    let hub = cloud.hub();
    let (session, _stream) = hub.connect(hello("odd")).await.unwrap();
    let mut things: Vec<Report> = ["server", "disk", "network", "router"]
        .map(|what| thing(what, "x1"))
        .to_vec();
    things.push(thing("server", &known));
    hub.report(&session, 1, things).await.unwrap();
    for thing in listed(&kit, "odd") {
        let (what, id) = (thing["what"].as_str().unwrap(), thing["id"].as_str().unwrap());
        assert_eq!(thing["discard"], format!("maru discard {what} {id}"));
        let adopt = (what == "server").then(|| json!(format!("maru adopt {what} {id}")));
        assert_eq!(thing.get("adopt"), adopt.as_ref(), "{what}");
    }
    for what in ["disk", "network", "router"] {
        let error = cloud.unknown(what, "x1", None, true).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{what} x1 on node odd is not adopted: only servers are")),
            "{error}"
        );
        assert!(error.ends_with(&format!("`maru discard {what} x1`")), "{error}");
    }
    // It has no lanes: nothing can be done there now, and that is said.
    for adopt in [true, false] {
        let error = format!("{:#}", cloud.unknown("server", "x1", None, adopt).await.unwrap_err());
        assert!(error.contains("server x1 on node odd is not"), "{error}");
        assert!(error.contains("not connected; try again"), "{error}");
    }
    // A session of the node that has the server: its network is known, whatever was told before.
    kit.node_down("n1");
    let (session, _stream) = hub.connect(hello("n1")).await.unwrap();
    hub.report(&session, 1, vec![thing("network", &network), thing("network", "x2")])
        .await
        .unwrap();
    let left = listed(&kit, "n1");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["id"], "x2");
    let error = cloud
        .unknown("network", &network, None, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no node reports an unknown network"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_away_are_listed() {
    let kit = Kit::builder().nodes(2).start().await;
    let of = |name: &str| kit.cloud().nodes().into_iter().find(|n| n["node"] == name).unwrap();
    assert_eq!(of("n2")["well"], true);
    assert_eq!(of("n2")["state"], "up");
    kit.node_down("n2");
    kit.until("n2 is down", |s| find_service(s, "n2").is_some_and(|s| !s.up))
        .await;
    assert_eq!(of("n2")["well"], false);
    assert!(of("n2")["state"].as_str().unwrap().starts_with("down: silent for"));
    assert_eq!(of("n1")["well"], true);
    kit.restart().await;
    let connected = async {
        while kit.cloud().hub().silence().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), connected)
        .await
        .expect("n1 connects");
    assert_eq!(of("n2")["well"], false);
    assert!(of("n2")["state"].as_str().unwrap().starts_with("has not connected"));
    let error = kit
        .cloud()
        .unknown("server", "x", None, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("what is on n2 is not known before it connects"),
        "{error}"
    );
}
