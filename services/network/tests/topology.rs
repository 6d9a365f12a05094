//! What a project is given without asking for its parts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model as m;
use maru_store::{Snapshot, Txn};
use serde_json::{Value, json};

const MINE: &str = "/v2.0/auto-allocated-topology/None";

/// A cloud with a default external network and default pools.
async fn ready() -> Cloud {
    let c = cloud();
    let public = c.external().await;
    assert_eq!(
        c.refused(409, A, "GET", MINE, Value::Null).await,
        "AutoAllocationFailure"
    );
    default(&c, &public, true).await;
    let (_, answer) = c.call(A, "GET", &format!("{MINE}?fields=dry-run"), Value::Null).await;
    assert!(answer.to_string().contains("subnetpools"), "{answer}");
    for (prefix, length) in [("10.90.0.0/16", 26), ("fd00:90::/48", 64)] {
        let pool =
            json!({"name": "p", "prefixes": [prefix], "default_prefixlen": length, "is_default": true, "shared": true});
        c.make(ADMIN, "/v2.0/subnetpools", "subnetpool", pool).await;
    }
    c
}

async fn default(c: &Cloud, network: &str, yes: bool) {
    let body = json!({"network": {"is_default": yes}});
    c.want(200, ADMIN, "PUT", &format!("/v2.0/networks/{network}"), body)
        .await;
}

async fn given(c: &Cloud, token: &str) -> String {
    id(&c.get(token, MINE).await["auto_allocated_topology"])
}

#[tokio::test]
async fn a_project_is_given_a_routed_network_once_and_it_goes_as_a_whole() {
    let c = ready().await;
    let dry = c.get(A, &format!("{MINE}?fields=dry-run")).await;
    assert_eq!(dry["auto_allocated_topology"]["id"], "dry-run=pass");
    assert_eq!(
        c.get(A, "/v2.0/networks?name=auto_allocated_network").await["networks"],
        json!([])
    );
    let net = given(&c, A).await;
    assert_eq!(given(&c, A).await, net);
    let theirs = given(&c, B).await;
    assert_ne!(theirs, net);
    let shown = c.get(A, &format!("/v2.0/networks/{net}")).await["network"].clone();
    assert_eq!(shown["subnets"].as_array().unwrap().len(), 2);
    let router = c.get(A, "/v2.0/routers?name=auto_allocated_router").await["routers"][0].clone();
    assert!(router["external_gateway_info"]["network_id"].is_string());
    let ports = format!(
        "/v2.0/ports?device_id={}&device_owner=network:router_interface",
        id(&router)
    );
    assert_eq!(c.get(A, &ports).await["ports"].as_array().unwrap().len(), 2);

    // While something is on it it stays as it is.
    let port = c.port(A, &net).await;
    assert_eq!(c.refused(409, A, "DELETE", MINE, Value::Null).await, "NetworkInUse");
    assert_eq!(c.get(A, &ports).await["ports"].as_array().unwrap().len(), 2);
    c.delete(A, &format!("/v2.0/ports/{}", id(&port))).await;
    c.delete(A, MINE).await;
    c.want(404, A, "GET", &format!("/v2.0/networks/{net}"), Value::Null)
        .await;
    c.want(404, A, "GET", &format!("/v2.0/routers/{}", id(&router)), Value::Null)
        .await;
    c.delete(A, MINE).await;
    assert_eq!(given(&c, B).await, theirs, "the other project's is another one");
    // Nobody asks for, or removes, another project's.
    for method in ["GET", "DELETE"] {
        let (status, _) = c
            .call(A, method, "/v2.0/auto-allocated-topology/bbb", Value::Null)
            .await;
        assert_eq!(status, 403);
    }
    c.want(400, A, "GET", &format!("{MINE}?fields=x"), Value::Null).await;
    c.audit();
}

/// Whatever is cut off is gone on with by the next call.
#[tokio::test]
async fn what_a_crash_left_half_made_is_made_whole_or_removed() {
    let project = maru_base::ProjectId::from("aaa");
    for making in 1..4 {
        for removing in 0..4 {
            let c = ready().await;
            let step = |s: &Snapshot| {
                let mut txn = Txn::new();
                let step = m::topology::plan_step(s, &mut txn, &project)?;
                Ok((txn, step))
            };
            for _ in 0..making {
                c.store.plan(step).await.unwrap();
            }
            let net = given(&c, A).await;
            let router = c.get(A, "/v2.0/routers").await["routers"][0].clone();
            let ports = format!(
                "/v2.0/ports?device_id={}&device_owner=network:router_interface",
                id(&router)
            );
            assert_eq!(c.get(A, &ports).await["ports"].as_array().unwrap().len(), 2);
            assert_eq!(c.get(A, "/v2.0/routers").await["routers"].as_array().unwrap().len(), 1);
            for _ in 0..removing {
                let step = |s: &Snapshot| {
                    let mut txn = Txn::new();
                    let done = m::topology::plan_remove_step(s, &mut txn, &project)?;
                    Ok((txn, done))
                };
                c.store.plan(step).await.unwrap();
            }
            c.delete(A, MINE).await;
            c.want(404, A, "GET", &format!("/v2.0/networks/{net}"), Value::Null)
                .await;
            assert_eq!(c.get(A, "/v2.0/routers").await["routers"], json!([]));
            c.audit();
        }
    }
}

#[tokio::test]
async fn there_is_one_default_external_network() {
    let c = ready().await;
    let other = json!({"name": "other", "router:external": true, "is_default": true});
    assert_eq!(
        c.refused(409, ADMIN, "POST", "/v2.0/networks", json!({"network": other}))
            .await,
        "DefaultExternalNetworkExists"
    );
    let second = c
        .make(ADMIN, "/v2.0/networks", "network", json!({"router:external": true}))
        .await;
    let path = format!("/v2.0/networks/{}", id(&second));
    let body = json!({"network": {"is_default": true}});
    assert_eq!(
        c.refused(409, ADMIN, "PUT", &path, body.clone()).await,
        "DefaultExternalNetworkExists"
    );
    let first = c.get(ADMIN, "/v2.0/networks?is_default=true").await["networks"][0].clone();
    // By each way that the first can cease to be it.
    default(&c, &id(&first), false).await;
    c.want(200, ADMIN, "PUT", &path, body.clone()).await;
    c.delete(ADMIN, &path).await;
    default(&c, &id(&first), true).await;
    let body = json!({"network": {"router:external": false}});
    c.want(200, ADMIN, "PUT", &format!("/v2.0/networks/{}", id(&first)), body)
        .await;
    assert_eq!(m::topology::default_external(&c.store.snapshot()), None);
    // A network that is deleted by hand takes the record with it.
    let net = c.network(A).await;
    c.delete(A, &format!("/v2.0/networks/{net}")).await;
    c.audit();
}
