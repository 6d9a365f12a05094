//! What nodes are told and report: hosting, status, tombstones, numbers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model::{
    Network, NetworkId, ObservedPort, Port, PortId, Removed, Router, RouterId, TombstoneNetwork, TombstonePort,
    TombstoneRouter, keys, plan_bind_port, plan_observe_port, plan_removed, plan_unbind_port,
};
use maru_store::Txn;
use serde_json::{Value, json};
use std::time::Duration;

async fn removed(c: &Cloud, host: &str, what: Removed) {
    c.store
        .plan(|s| {
            let mut txn = Txn::new();
            plan_removed(s, &mut txn, host, &what)?;
            Ok((txn, ()))
        })
        .await
        .unwrap();
}

async fn observe(c: &Cloud, port: &str, host: &str, up: bool) -> bool {
    let seen = ObservedPort {
        host: host.to_owned(),
        up,
        revision: 1,
        session: 1,
        fault: None,
    };
    c.store
        .plan(|s| {
            let mut txn = Txn::new();
            let new = plan_observe_port(s, &mut txn, &PortId::from(port), &seen);
            Ok((txn, new))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_port_is_active_when_its_node_says_so_and_its_numbers_wait_for_the_node() {
    let c = cloud();
    let net = c.network(A).await;
    c.subnet(A, &net, "10.0.0.0/24").await;
    let port = id(&c.port(A, &net).await);
    c.store
        .plan(|s| {
            let mut txn = Txn::new();
            let read = s.get::<Port>(&PortId::from(port.as_str())).unwrap();
            plan_bind_port(s, &mut txn, &read, "n1", "server-1", "", "nova")?;
            Ok((txn, ()))
        })
        .await
        .unwrap();
    let path = format!("/v2.0/ports/{port}");
    let p = c.get(ADMIN, &path).await["port"].clone();
    assert_eq!(p["device_owner"], "compute:nova");
    assert_eq!(p["binding:vif_type"], "bridge");
    assert_eq!(p["status"], "DOWN");
    assert!(!observe(&c, &port, "n2", true).await, "another node has no say");
    assert!(observe(&c, &port, "n1", true).await);
    assert!(!observe(&c, &port, "n1", true).await, "nothing new");
    assert_eq!(c.get(A, &path).await["port"]["status"], "ACTIVE");
    c.want(200, A, "PUT", &path, json!({"port": {"admin_state_up": false}}))
        .await;
    assert_eq!(c.get(A, &path).await["port"]["status"], "DOWN");
    // Another device cannot take it.
    let taken = c
        .store
        .plan(|s| {
            let mut txn = Txn::new();
            let read = s.get::<Port>(&PortId::from(port.as_str())).unwrap();
            plan_bind_port(s, &mut txn, &read, "n1", "server-2", "", "nova")?;
            Ok((txn, ()))
        })
        .await;
    assert_eq!(taken.unwrap_err().code(), Some("PortInUse"));

    let network = c
        .store
        .snapshot()
        .get::<Network>(&NetworkId::from(net.as_str()))
        .unwrap();
    let (vni, zone) = (u64::from(network.value.vni), u64::from(network.value.zone));
    c.delete(A, &path).await;
    c.delete(A, &format!("/v2.0/networks/{net}")).await;
    c.refused(404, A, "GET", &path, Value::Null).await;
    let s = c.store.snapshot();
    let nid = NetworkId::from(net.as_str());
    assert_eq!(
        s.get::<TombstonePort>(&PortId::from(port.as_str())).unwrap().value.host,
        "n1"
    );
    assert_eq!(s.get::<TombstoneNetwork>(&nid).unwrap().value.hosts, ["n1"]);
    assert!(s.raw(&keys::number("vni", vni)).is_some() && s.raw(&keys::number("zone", zone)).is_some());
    removed(&c, "n2", Removed::Network(nid.clone())).await;
    assert!(
        c.store.snapshot().get::<TombstoneNetwork>(&nid).is_some(),
        "n1 still has it"
    );
    removed(&c, "n1", Removed::Port(PortId::from(port.as_str()))).await;
    removed(&c, "n1", Removed::Network(nid.clone())).await;
    removed(&c, "n1", Removed::Network(nid.clone())).await;
    let s = c.store.snapshot();
    assert_eq!(s.count::<TombstonePort>() + s.count::<TombstoneNetwork>(), 0);
    assert!(s.raw(&keys::number("vni", vni)).is_none() && s.raw(&keys::number("zone", zone)).is_none());
    assert_eq!(s.raw_under(&keys::network_hosts(&nid)).count(), 0);
    c.audit();
}

#[tokio::test]
async fn a_report_of_removal_does_not_take_what_is_wanted_again() {
    let c = cloud();
    let net = c.network(A).await;
    let nid = NetworkId::from(net.as_str());
    c.subnet(A, &net, "10.0.0.0/24").await;
    let port = PortId::from(id(&c.port(A, &net).await));
    for bind in [true, false, true] {
        c.store
            .plan(|s| {
                let mut txn = Txn::new();
                let read = s.get::<Port>(&port).unwrap();
                if bind {
                    plan_bind_port(s, &mut txn, &read, "n1", "s", "compute:nova", "nova")?;
                } else {
                    plan_unbind_port(s, &mut txn, &read)?;
                }
                Ok((txn, ()))
            })
            .await
            .unwrap();
    }
    removed(&c, "n1", Removed::Network(nid.clone())).await;
    assert_eq!(maru_network_model::network_hosts(&c.store.snapshot(), &nid), ["n1"]);
    // A network that never was on a host gives its numbers back at once.
    let other = c.network(A).await;
    c.delete(A, &format!("/v2.0/networks/{other}")).await;
    assert_eq!(c.store.snapshot().count::<TombstoneNetwork>(), 0);
    c.audit();
}

#[tokio::test]
async fn routers_get_a_host_when_one_comes_and_dhcp_ports_come_back() {
    let c = cloud();
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let r = id(&c.make(A, "/v2.0/routers", "router", json!({"name": "r"})).await);
    let i = c
        .want(
            200,
            A,
            "PUT",
            &format!("/v2.0/routers/{r}/add_router_interface"),
            json!({"subnet_id": sub}),
        )
        .await;
    let port = PortId::from(i["port_id"].as_str().unwrap());
    assert_eq!(c.store.snapshot().get::<Port>(&port).unwrap().value.host, "");

    let mut runtime = maru_control::Runtime::new(c.store.clone());
    for reconciler in maru_network::reconcilers(c.app.clone()) {
        runtime.add(reconciler);
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(runtime.run(stopped));
    c.node("n1").await;
    let rid = RouterId::from(r.as_str());
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(
        deadline,
        c.store.until(|s| {
            s.get::<Router>(&rid)
                .is_some_and(|r| r.value.host.as_deref() == Some("n1"))
                && s.get::<Port>(&port).is_some_and(|p| p.value.host == "n1")
        }),
    )
    .await
    .expect("the router gets its host");
    let agents = c.get(ADMIN, "/v2.0/agents").await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 4);
    assert_eq!(
        c.get(ADMIN, &format!("/v2.0/routers/{r}/l3-agents")).await["agents"][0]["host"],
        "n1"
    );

    let dhcp = c
        .get(A, &format!("/v2.0/ports?network_id={net}&device_owner=network:dhcp"))
        .await;
    let old = id(&dhcp["ports"][0]);
    c.delete(A, &format!("/v2.0/ports/{old}")).await;
    let nid = NetworkId::from(net.as_str());
    tokio::time::timeout(
        deadline,
        c.store
            .until(|s| maru_network_model::dhcp::dhcp_port(s, &nid).is_some_and(|p| p.id.as_str() != old)),
    )
    .await
    .expect("the DHCP port comes back");
    stop.send(true).unwrap();
    running.await.unwrap();

    c.want(
        200,
        A,
        "PUT",
        &format!("/v2.0/routers/{r}/remove_router_interface"),
        json!({"port_id": port.as_str()}),
    )
    .await;
    c.delete(A, &format!("/v2.0/routers/{r}")).await;
    assert_eq!(
        c.store.snapshot().get::<TombstoneRouter>(&rid).unwrap().value.host,
        "n1"
    );
    removed(&c, "n1", Removed::Router(rid.clone())).await;
    assert!(c.store.snapshot().get::<TombstoneRouter>(&rid).is_none());
    c.audit();
}
