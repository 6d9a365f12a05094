//! Liveness: silence is noticed, transitions are written once, and nothing else is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{World, world};
use maru_agent_api::ControlPlane;
use maru_nodes::liveness::{self, DOWN_AFTER, HEARTBEAT};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

fn watching(world: &World) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(liveness::run(Arc::clone(&world.hub), stopped));
    (stop, task)
}

/// Lets the paused clock go on; every timer in between fires.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_goes_down_once_and_comes_back_once() {
    let world = world().await;
    let (session, _stream) = world.connect("here", 1).await;
    let (stop, task) = watching(&world);
    assert!(world.service("here").up);
    let begun = world.store.snapshot().revision();
    // As long as it is heard of, nothing is written.
    for _ in 0..30 {
        pass(HEARTBEAT).await;
        world.hub.heartbeat(&session).await.unwrap();
    }
    assert_eq!(world.store.snapshot().revision(), begun);
    pass(DOWN_AFTER - HEARTBEAT).await;
    assert!(world.service("here").up, "too early");
    pass(HEARTBEAT + Duration::from_secs(4)).await;
    assert!(!world.service("here").up);
    let down = world.store.snapshot().revision();
    assert_eq!(down, begun + 1, "one transition, one transaction");
    pass(Duration::from_secs(3_600)).await;
    assert_eq!(world.store.snapshot().revision(), down, "silence was written again");
    // The same session again: it was only slow.
    world.hub.heartbeat(&session).await.unwrap();
    pass(Duration::from_secs(4)).await;
    assert!(world.service("here").up);
    assert_eq!(world.store.snapshot().revision(), down + 1);
    // Any report is a sign of life as well.
    for n in 1..20 {
        pass(DOWN_AFTER / 2).await;
        world.hub.report(&session, n, vec![]).await.unwrap();
    }
    assert_eq!(world.store.snapshot().revision(), down + 1);
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_brings_a_node_back_at_once() {
    let world = world().await;
    let (_, _stream) = world.connect("here", 1).await;
    let (_stop, _task) = watching(&world);
    pass(DOWN_AFTER + Duration::from_secs(4)).await;
    assert!(!world.service("here").up);
    let (session, _stream) = world.connect("here", 2).await;
    assert!(world.service("here").up);
    pass(Duration::from_secs(10)).await;
    world.hub.heartbeat(&session).await.unwrap();
    pass(DOWN_AFTER / 2).await;
    assert!(world.service("here").up);
    // And it can fall silent again.
    pass(DOWN_AFTER).await;
    assert!(!world.service("here").up);
}

/// A node that died while the control plane was down is found: nobody would ever say so otherwise.
#[tokio::test(start_paused = true)]
async fn a_node_that_never_comes_back_goes_down() {
    let before = world().await;
    let (_, _stream) = before.connect("dead", 1).await;
    let (_, _stream) = before.connect("alive", 2).await;
    // The control plane starts again over the same store.
    let world = common::over(before.store.clone()).await;
    let (_stop, _task) = watching(&world);
    let (session, _stream) = world.connect("alive", 3).await;
    for _ in 0..5 {
        pass(HEARTBEAT).await;
        world.hub.heartbeat(&session).await.unwrap();
    }
    assert!(
        world.service("dead").up && world.service("alive").up,
        "they have their time to come back"
    );
    for _ in 0..3 {
        pass(HEARTBEAT).await;
        world.hub.heartbeat(&session).await.unwrap();
    }
    assert!(!world.service("dead").up);
    assert!(world.service("alive").up);
    let revision = world.store.snapshot().revision();
    for _ in 0..20 {
        pass(HEARTBEAT).await;
        world.hub.heartbeat(&session).await.unwrap();
    }
    assert_eq!(world.store.snapshot().revision(), revision);
}
