//! What is kept of a server beside itself: the story of its making, and its actions for a while after its end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_compute::{App, reconcilers};
use maru_compute_model as m;
use maru_control::Next;
use maru_store::record::{MemRecords, Records};
use serde_json::{Value, json};
use std::sync::Arc;

struct NoConsole;

#[async_trait::async_trait]
impl maru_compute::Consoles for NoConsole {
    async fn log(&self, _: &str, _: &str, _: Option<usize>) -> maru_base::Result<Vec<u8>> {
        Err(maru_base::Error::unavailable("no node here"))
    }
}

/// A cloud whose service keeps records.
async fn recorded() -> (Cloud, Arc<MemRecords>) {
    let mut c = cloud().await;
    let records = Arc::new(MemRecords::new());
    let app = Arc::new(App::new(c.store.clone(), Arc::new(NoConsole), Some(records.clone())));
    let policy = Arc::new(maru_auth::Policy::build(&[maru_compute::POLICY], None).unwrap());
    c.controllers = reconcilers(Arc::clone(&app));
    c.gateway = maru_http::Gateway::new(
        vec![maru_compute::service(Arc::clone(&app))],
        Arc::new(Tokens),
        policy,
        Arc::new(maru_auth::NoAudit),
    )
    .unwrap();
    c.app = app;
    (c, records)
}

#[tokio::test]
async fn a_servers_story_is_whole_and_in_order() {
    let (c, records) = recorded().await;
    let mut body = wanted(json!({"min_count": 3}));
    body["server"]["name"] = json!("m");
    c.want(202, A, "POST", "/servers", body).await;
    c.settle().await;
    for server in c.store.snapshot().list::<m::Server>() {
        let story = records.of_subject("server-event", &server.id, 100).await.unwrap();
        let events: Vec<&str> = story.iter().map(|e| e["event"].as_str().unwrap()).collect();
        let want = [
            "accepted",
            "schedule done",
            "network done",
            "spawn done",
            "creation over: active",
        ];
        assert_eq!(events, want);
        let times: Vec<&str> = story.iter().map(|e| e["time"].as_str().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        let request = c.server(&server.id).unwrap().request_id;
        assert!(
            story.iter().all(|e| e["request_id"] == request),
            "one request from the first line to the last"
        );
        assert_eq!(story.last().unwrap()["host"], "node1");
        // H1: nothing secret is in it.
        let password = server.admin_pass.clone().unwrap();
        assert!(!Value::from(story).to_string().contains(&password));
    }
    let id = c.store.snapshot().list::<m::Server>().next().unwrap().id;
    c.act(202, A, &id, json!({"os-stop": null})).await;
    c.want(204, A, "DELETE", &format!("/servers/{id}"), Value::Null).await;
    let story = records.of_subject("server-event", &id, 100).await.unwrap();
    let events: Vec<&str> = story.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events[events.len() - 2..], ["stop", "deletion asked"]);
    // A node that cannot be asked is told so, not answered for.
    let other = c.store.snapshot().list::<m::Server>().nth(1).unwrap().id;
    let message = c
        .refused(
            503,
            A,
            "POST",
            &format!("/servers/{other}/action"),
            json!({"os-getConsoleOutput": {}}),
        )
        .await;
    assert!(message.contains("no node here"), "{message}");
    let diagnostics = format!("/servers/{other}/diagnostics");
    c.refused(501, ADMIN, "GET", &diagnostics, Value::Null).await;
}

#[tokio::test]
async fn actions_of_deleted_servers_go_after_an_hour() {
    let c = cloud().await;
    let server = c.boot(A, "s").await;
    let kept = c.boot(A, "kept").await;
    c.want(204, A, "DELETE", &format!("/servers/{server}"), Value::Null)
        .await;
    c.settle().await;
    let sweeper = c
        .controllers
        .iter()
        .find(|r| r.name() == "server-action-sweeper")
        .unwrap();
    let all = sweeper.all(&c.store.snapshot());
    assert_eq!(all.len(), 2, "create and delete of the one that is gone");
    for key in &all {
        let Next::After(wait) = sweeper.reconcile(&c.store, key).await.unwrap() else {
            panic!("{key} went too early");
        };
        assert!((3_500..=3_600).contains(&wait.as_secs()), "{wait:?}");
    }
    c.plan(|s, txn| {
        for key in &all {
            let read = s.get::<m::ServerAction>(&key.as_str().into()).unwrap();
            let mut old = (*read.value).clone();
            old.deleted = Some(maru_base::time::now() - jiff::SignedDuration::from_secs(3_601));
            txn.update(&read, &old);
        }
    })
    .await;
    for key in &all {
        assert_eq!(sweeper.reconcile(&c.store, key).await.unwrap(), Next::Done);
        assert_eq!(sweeper.reconcile(&c.store, key).await.unwrap(), Next::Done);
    }
    c.refused(
        404,
        A,
        "GET",
        &format!("/servers/{server}/os-instance-actions"),
        Value::Null,
    )
    .await;
    let list = c.get(A, &format!("/servers/{kept}/os-instance-actions")).await;
    assert_eq!(list["instanceActions"].as_array().unwrap().len(), 1);
}
