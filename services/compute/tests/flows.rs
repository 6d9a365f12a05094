//! The step list that makes a server, and its deletion: every step repeated, failed and crashed; races; what is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;
use common::*;
use maru_compute::create_flow;
use maru_compute_model as m;
use maru_control::{
    Flow, Runtime,
    testing::{cases, run_case},
};
use maru_store::{Store, Txn};
use serde_json::{Value, json};
use std::sync::Arc;

/// The node, on behalf of a flow that waits.
async fn play(store: Store, id: m::ServerId) -> maru_base::Result<()> {
    obey(&store, &id).await
}

#[tokio::test]
async fn a_server_is_made_whatever_step_is_repeated_fails_or_crashes() {
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    let all = cases(&create_flow());
    assert!(all.len() > 3 * create_flow().steps.len(), "every step, every fault");
    for case in &all {
        let given = id(&c.net(A, "POST", "/ports", json!({"port": {"network_id": net}})).await);
        let fields = json!({"networks": [{"uuid": net}, {"port": given}]});
        let server = c.create(A, fields).await;
        let key = m::ServerId::from(server.as_str());
        run_case(&c.store, &server, case, create_flow, |store| play(store, key.clone()))
            .await
            .unwrap();
        let made = c.server(&server).unwrap();
        assert_eq!(made.status(), "ACTIVE", "{case:?}");
        assert_eq!(made.ports.len(), 2, "{case:?}");
        c.idle();
        c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
            .await;
        // The removal is reported, and reported again.
        for _ in 0..3 {
            obey(&c.store, &key).await.unwrap();
        }
        assert!(c.server(&server).is_none());
        c.audit();
        c.net(A, "DELETE", &format!("/ports/{given}"), Value::Null).await;
        // Only the ports of the network itself stay.
        let ports = c.net(A, "GET", "/ports", Value::Null).await;
        let ours = ports
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["device_owner"].as_str().unwrap().starts_with("compute"));
        assert_eq!(ours.count(), 0, "{case:?}");
    }
    println!(
        "create flow: {} runs with repeat, failure and crash of every step",
        all.len()
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_made_holds_nothing_whatever_step_misbehaves() {
    let c = cloud().await;
    for case in &cases(&create_flow()) {
        // Its network goes away after the request was accepted.
        let net = c.network(A, "n", "10.1.0.0/24").await;
        let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
        c.net(A, "DELETE", &format!("/networks/{net}"), Value::Null).await;
        let key = m::ServerId::from(server.as_str());
        run_case(&c.store, &server, case, create_flow, |store| play(store, key.clone()))
            .await
            .unwrap();
        let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
        assert_eq!(v["status"], "ERROR", "{case:?}");
        assert!(v["fault"]["message"].as_str().unwrap().contains("network"), "{v}");
        let made = c.server(&server).unwrap();
        assert_eq!((made.host, made.provider, made.ports.len()), (None, None, 0));
        c.audit();
        let used = m::quota::used(&c.store.snapshot(), "aaa", "instances");
        assert_eq!(used, 1, "an ERROR server counts until it is deleted, as upstream");
        c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
            .await;
        assert!(c.server(&server).is_none());
        c.audit();
    }
}

#[tokio::test]
async fn steps_that_never_succeed_end_in_error() {
    struct Broken(&'static str);
    #[async_trait::async_trait]
    impl maru_control::Step for Broken {
        fn name(&self) -> &'static str {
            self.0
        }
        async fn run(&self, _: &maru_store::Snapshot, _: &Flow) -> maru_base::Result<maru_control::StepResult> {
            Err(maru_base::Error::unavailable("the disk of node1 is on fire"))
        }
    }
    let c = cloud().await;
    let net = c.network(A, "n", "10.1.0.0/24").await;
    for at in 0..3 {
        let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
        let mut spec = create_flow();
        let name = spec.steps[at].name();
        spec.steps[at] = Box::new(Broken(name));
        let runner = maru_control::FlowRunner::new(Arc::new(spec));
        let mut failures = 0;
        while c.store.snapshot().count::<Flow>() > 0 {
            failures += u32::from(runner.run(&c.store, &server).await.is_err());
        }
        assert!(failures >= 5, "it was tried {failures} times");
        let v = c.get(A, &format!("/servers/{server}")).await["server"].clone();
        assert_eq!(v["status"], "ERROR", "{name}");
        assert!(!v.to_string().contains("node1"), "D6: {v}");
        let v = c.get(ADMIN, &format!("/servers/{server}")).await["server"].clone();
        assert!(v["fault"]["details"].as_str().unwrap().contains("on fire"));
        c.audit();
        c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
            .await;
        c.audit();
    }
}

#[tokio::test]
async fn a_node_that_lost_a_server_does_not_delete_it() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let key = m::ServerId::from(server.as_str());
    c.plan(|s, txn| m::plan_server_removed(s, txn, &key).unwrap()).await;
    assert_eq!(c.server(&server).unwrap().status(), "ACTIVE");
    // A report that comes after the end is ignored.
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    let still = c.get(A, &format!("/servers/{server}")).await["server"].clone();
    assert_eq!(still["OS-EXT-STS:task_state"], "deleting");
    c.settle().await;
    c.report(&server, m::Observation::default()).await;
    assert_eq!(c.store.snapshot().count::<m::ObservedServer>(), 0);
    c.audit();
}

/// Real controllers on real threads while servers come and go, on a node that has too little for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_and_requests_race_without_a_leak() {
    let c = Arc::new(bare().await);
    c.node("node1", 2, 65_536, 1_000).await;
    c.node("node2", 1, 65_536, 1_000).await;
    c.quota("aaa", json!({"instances": -1, "cores": -1, "ram": -1})).await;
    let net = c.network(A, "n", "10.1.0.0/26").await;
    let mut runtime = Runtime::new(c.store.clone());
    for controller in &c.controllers {
        runtime.add(Arc::clone(controller));
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(runtime.run(stopped));
    let calls = (0..30).map(|n| {
        let (c, net) = (Arc::clone(&c), net.clone());
        tokio::spawn(async move {
            let server = c.create(A, json!({"networks": [{"uuid": net}]})).await;
            if n % 2 == 0 {
                c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
                    .await;
            }
        })
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    let done = |s: &m::Server| s.placed || s.vm_state == m::VmState::Error;
    let wait = c.store.until(|s| {
        let servers = s.list::<m::Server>().count();
        let idle = s.list::<m::Server>().all(|s| done(&s));
        let orphans = s
            .list::<Flow>()
            .any(|f| s.get::<m::Server>(&f.subject.as_str().into()).is_none());
        servers >= 15 && idle && !orphans
    });
    tokio::time::timeout(std::time::Duration::from_secs(60), wait)
        .await
        .unwrap();
    c.audit();
    let s = c.store.snapshot();
    let on = |host: &str| s.find::<m::Server>("host", host).count();
    // 2 and 1 processors, four guests each at most (the usual ratio).
    assert!(on("node1") <= 8 && on("node2") <= 4, "{} {}", on("node1"), on("node2"));
    for server in s.list::<m::Server>() {
        if server.task != Some(m::Task::Deleting) {
            c.want(204, A, "DELETE", &format!("/servers/{}", server.id), Value::Null)
                .await;
        }
    }
    c.nodes().await;
    let wait = c.store.until(|s| s.count::<m::Server>() == 0 && s.count::<Flow>() == 0);
    tokio::time::timeout(std::time::Duration::from_secs(60), wait)
        .await
        .unwrap();
    c.audit();
    for resource in ["instances", "cores", "ram"] {
        assert_eq!(m::quota::used(&c.store.snapshot(), "aaa", resource), 0);
    }
    stop.send(true).unwrap();
    running.await.unwrap();
}

/// Two members of one group that are scheduled at once see each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anti_affinity_holds_in_a_race() {
    let c = Arc::new(bare().await);
    for n in 0..4 {
        c.node(&format!("node{n}"), 16, 65_536, 1_000).await;
    }
    let body = json!({"server_group": {"name": "g", "policy": "anti-affinity"}});
    let group = id(&c.want(200, A, "POST", "/os-server-groups", body).await["server_group"]);
    let mut ids = Vec::new();
    for _ in 0..6 {
        let mut body = wanted(json!({}));
        body["os:scheduler_hints"] = json!({ "group": group });
        ids.push(id(&c.want(202, A, "POST", "/servers", body).await["server"]));
    }
    let runs = ids.iter().cloned().map(|id| {
        let c = Arc::clone(&c);
        tokio::spawn(async move {
            let runner = maru_control::FlowRunner::new(Arc::new(create_flow()));
            // A conflict is told as "look again".
            while c
                .server(&id)
                .is_some_and(|s| !s.placed && s.vm_state == m::VmState::Building)
            {
                drop(runner.run(&c.store, &id).await);
            }
        })
    });
    for run in futures_util::future::join_all(runs).await {
        run.unwrap();
    }
    let mut hosts: Vec<Option<String>> = ids.iter().map(|id| c.server(id).unwrap().host).collect();
    hosts.sort();
    let placed: Vec<String> = hosts.into_iter().flatten().collect();
    assert_eq!(placed, ["node0", "node1", "node2", "node3"]);
    c.audit();
    // The group goes while its servers stay, and leaves nothing of its own.
    c.want(204, A, "DELETE", &format!("/os-server-groups/{group}"), Value::Null)
        .await;
    c.settle().await;
    c.audit();
    // A member that was asked for before is bound by no group that is gone.
    let mut txn = Txn::new();
    let failed = ids.iter().find(|id| c.server(id).unwrap().host.is_none()).unwrap();
    let read = c.store.snapshot().get::<m::Server>(&failed.as_str().into()).unwrap();
    let mut again = (*read.value).clone();
    again.vm_state = m::VmState::Building;
    again.task = Some(m::Task::Scheduling);
    txn.update(&read, &again);
    maru_control::flow::begin(&mut txn, &create_flow(), failed, "req-again", json!({}));
    c.store.commit(txn).await.unwrap();
    c.settle().await;
    assert_eq!(c.server(failed).unwrap().status(), "ACTIVE");
    c.audit();
}
