//! Each transaction of a flow meets each mishap once: its answer is lost, it is lost itself, it conflicts, it is slow; and the
//! nodes' agents die and begin again after each. The flow reaches its end as if nothing had happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_compute_model::{Server, VmState};
use maru_kit::{Kit, Mishap, Project};
use serde_json::{Value, json};
use std::sync::Arc;

/// More transactions than the flow has; a flow that reaches it does not end.
const MOST: u64 = 300;

struct Stage {
    kit: Arc<Kit>,
    project: Project,
    image: String,
    network: String,
}

async fn stage() -> Stage {
    let kit = Kit::builder().nodes(2).start().await;
    let project = kit.project("blue").await;
    let image = kit.image(&project.member, "tiny").await;
    let (network, _) = kit.network(&project.member, "net", "10.0.0.0/16").await;
    kit.rest().await;
    Stage {
        kit: Arc::new(kit),
        project,
        image,
        network,
    }
}

/// A server is made, stopped, started, rebooted, resized to and fro and deleted; one name is never served twice.
async fn life_of_a_server(s: &Stage) {
    let who = &s.project.member;
    let id = s.kit.server(who, "one", &s.image, &s.network).await;
    s.kit.server_active(&id).await;
    for (action, state) in [
        (json!({"os-stop": null}), VmState::Stopped),
        (json!({"os-start": null}), VmState::Active),
        (json!({"reboot": {"type": "HARD"}}), VmState::Active),
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"revertResize": null}), VmState::Active),
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"confirmResize": null}), VmState::Active),
    ] {
        s.kit.action(who, &id, action).await;
        s.kit.server_state(&id, state).await;
    }
    assert_eq!(s.kit.snapshot().count::<Server>(), 1, "one request, one server");
    s.kit.audit_rest().await;
    s.kit.delete(who, &format!("/compute/v2.1/servers/{id}")).await;
    s.kit.server_gone(&id).await;
    s.kit.audit_rest().await;
    let snapshot = s.kit.snapshot();
    assert_eq!(snapshot.count::<maru_placement_model::Consumer>(), 0);
    assert!(s.kit.nodes().values().all(|n| n.guests().is_empty()), "a guest is left");
}

async fn each_attempt(mishap: Mishap) {
    let mut n = 1;
    loop {
        let s = stage().await;
        let gate = s.kit.gate();
        let begun = gate.attempts();
        gate.mishap(n, mishap);
        life_of_a_server(&s).await;
        if gate.attempts() - begun < n {
            break;
        }
        n += 1;
        assert!(n < MOST, "{mishap:?}: the flow does not end");
    }
    assert!(n > 10, "{mishap:?}: only {n} transactions");
    println!("a server's life: {mishap:?} at each of {} transactions", n - 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_looked_up() {
    each_attempt(Mishap::AnswerLost).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_lost_is_sent_again() {
    each_attempt(Mishap::RequestLost).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_planned_again() {
    each_attempt(Mishap::Conflict).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_commit_delays_and_breaks_nothing() {
    each_attempt(Mishap::Slow).await;
}

#[tokio::test(start_paused = true)]
async fn agents_that_die_after_each_commit_go_on_where_they_stopped() {
    let mut n = 1;
    loop {
        let s = stage().await;
        let gate = s.kit.gate();
        let begun = gate.committed();
        let killer = tokio::spawn({
            let (kit, gate) = (Arc::clone(&s.kit), Arc::clone(&gate));
            async move {
                gate.committed_reaches(begun + n).await;
                for name in kit.nodes().keys() {
                    kit.node_down(name);
                }
                for name in kit.nodes().keys() {
                    kit.node_up(name);
                }
            }
        });
        life_of_a_server(&s).await;
        let died = killer.is_finished();
        killer.abort();
        if !died {
            break;
        }
        n += 1;
        assert!(n < MOST, "the flow does not end");
    }
    assert!(n > 10, "only {n} commits");
    println!("a server's life: agents begun again after each of {} commits", n - 1);
}

/// Many servers at once, made and deleted, while the control plane dies at arbitrary commits: nothing is lost or left.
#[tokio::test(start_paused = true)]
async fn many_servers_through_many_crashes() {
    let s = stage().await;
    let who = &s.project.member;
    s.kit
        .compute_quota(&s.project.id, json!({"instances": 40, "cores": 40}))
        .await;
    let mut lives = 0;
    for round in 0..6_u64 {
        let mut body = Kit::server_body(&format!("r{round}"), &s.image, &s.network);
        body["server"]["min_count"] = json!(5);
        body["server"]["max_count"] = json!(5);
        s.kit.post(who, "/compute/v2.1/servers", body).await;
        // The oldest five go while the newest come.
        let gone: Vec<String> = {
            let snapshot = s.kit.snapshot();
            let old = snapshot
                .list::<Server>()
                .filter(|x| x.value.vm_state == VmState::Active);
            old.take(5).map(|x| x.id.to_string()).collect()
        };
        for id in &gone {
            s.kit.delete(who, &format!("/compute/v2.1/servers/{id}")).await;
        }
        // Crashes at prime distances fall on every kind of step.
        for distance in [3, 7, 13, 2] {
            s.kit.crash_after(distance + round);
            if s.kit.try_rest().await.is_err() {
                s.kit.restart().await;
                lives += 1;
            }
        }
        s.kit.no_more_crashes().await;
        s.kit
            .until("every server is ACTIVE", |x| {
                x.list::<Server>()
                    .all(|v| v.value.vm_state == VmState::Active && v.value.task.is_none())
            })
            .await;
        s.kit.audit_rest().await;
        let snapshot = s.kit.snapshot();
        assert!(
            gone.iter()
                .all(|id| snapshot.get::<Server>(&id.as_str().into()).is_none()),
            "a deleted server is back"
        );
    }
    assert!(lives >= 12, "only {lives} crashes");
    let all: Vec<String> = s.kit.snapshot().list::<Server>().map(|x| x.id.to_string()).collect();
    for id in &all {
        s.kit.delete(who, &format!("/compute/v2.1/servers/{id}")).await;
        s.kit.server_gone(id).await;
    }
    s.kit.audit_rest().await;
    let shown = s.kit.get(who, "/compute/v2.1/servers").await;
    assert_eq!(shown["servers"], Value::Array(Vec::new()));
    println!("{} servers through {lives} crashes", all.len());
}
