//! The control plane dies after each transaction that it commits, and each time the work is finished by the next life.
//!
//! A run arms the crash for its n-th commit, n = 1, 2, ..., until a run ends without a crash: then every stored step of the
//! flow has been the last one of a life. What must hold in the end: the server is what was asked for (ACTIVE, or gone), and
//! nothing is left over that nobody holds: allocation, port, address, claim, quota. With each crash the node may die, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_compute_model::{Server, VmState};
use maru_kit::{Crashed, Kit, Project, Step};
use serde_json::{Value, json};

/// More commits than any of these flows has; a flow that reaches it does not end.
const MOST: u64 = 200;

struct Stage {
    kit: Kit,
    project: Project,
    image: String,
    network: String,
}

async fn stage() -> Stage {
    let kit = Kit::builder().nodes(2).start().await;
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

/// What dies with the control plane.
#[derive(Debug, Clone, Copy, PartialEq)]
enum With {
    Nothing,
    /// Every node's agent dies, too, and begins again after the control plane.
    Agents,
}

impl Stage {
    /// The control plane comes back, and the agents, if they died.
    async fn back(&self, with: With) {
        if with == With::Agents {
            for name in self.kit.nodes().keys() {
                self.kit.node_down(name);
            }
        }
        self.kit.restart().await;
        if with == With::Agents {
            for name in self.kit.nodes().keys() {
                self.kit.node_up(name);
            }
        }
    }
    /// The server of this name, if there is one.
    fn find(&self, name: &str) -> Option<String> {
        let snapshot = self.kit.snapshot();
        let mut found = snapshot
            .find::<Server>("project", &self.project.id)
            .filter(|s| s.value.name == name);
        let first = found.next().map(|s| s.id.to_string());
        assert!(
            found.next().is_none(),
            "two servers named {name}: a request was carried out twice"
        );
        first
    }
    /// Asks for a server; a client that got no answer looks whether it is there and asks again if not.
    async fn create(&self, name: &str, with: With) -> String {
        let body = Kit::server_body(name, &self.image, &self.network);
        let token = &self.project.member.token;
        let mut crashed = false;
        loop {
            match self
                .kit
                .try_call("POST", "/compute/v2.1/servers", token, body.clone())
                .await
            {
                Ok(answer) => {
                    let made = answer.expect(202);
                    return made["server"]["id"].as_str().unwrap().to_owned();
                }
                Err(Crashed) => {
                    assert!(!crashed, "crashed twice");
                    crashed = true;
                    self.back(with).await;
                    if let Some(id) = self.find(name) {
                        return id;
                    }
                }
            }
        }
    }
    /// Asks for something of a server until it is answered; after a crash it may be done already.
    async fn ask(&self, method: &str, path: &str, body: Value, with: With, done: &[u16]) {
        let token = &self.project.member.token;
        let mut crashed = false;
        loop {
            match self.kit.try_call(method, path, token, body.clone()).await {
                Ok(answer) => {
                    let fine = (200..300).contains(&answer.status) || (crashed && done.contains(&answer.status));
                    assert!(fine, "{}: {} {}", answer.asked, answer.status, answer.text());
                    return;
                }
                Err(Crashed) => {
                    crashed = true;
                    self.back(with).await;
                }
            }
        }
    }
    async fn state(&self, id: &str, state: VmState, with: With) {
        while self.kit.try_server(id, state).await.is_err() {
            self.back(with).await;
        }
    }
    async fn gone(&self, id: &str, with: With) {
        while self.kit.try_server_gone(id).await.is_err() {
            self.back(with).await;
        }
    }
    /// At rest, and everything holds; a crash may still come while the last commits are made.
    async fn audit(&self, with: With) {
        while self.kit.try_rest().await.is_err() {
            self.back(with).await;
        }
        // No crash beyond this point.
        self.kit.no_more_crashes().await;
        self.kit.audit_rest().await;
    }
    /// Nothing is held by anyone any more.
    async fn audit_empty(&self) {
        let snapshot = self.kit.snapshot();
        assert_eq!(snapshot.count::<Server>(), 0);
        assert_eq!(snapshot.count::<maru_placement_model::Consumer>(), 0);
        let ports: Vec<_> = snapshot
            .list::<maru_network_model::Port>()
            .filter(|p| p.value.device_owner.starts_with("compute:"))
            .collect();
        assert!(ports.is_empty(), "{ports:?}");
        assert!(
            self.kit.nodes().values().all(|n| n.guests().is_empty()),
            "a guest is left"
        );
    }
}

/// Creation, crashed after its n-th commit; gives whether it crashed.
async fn creation(n: u64, with: With) -> bool {
    let s = stage().await;
    s.kit.crash_after(n);
    let lives = s.kit.lives();
    let id = s.create("one", with).await;
    s.state(&id, VmState::Active, with).await;
    s.audit(with).await;
    let crashed = s.kit.lives() > lives;
    // And it can be used and goes.
    s.kit
        .delete(&s.project.member, &format!("/compute/v2.1/servers/{id}"))
        .await;
    s.kit.server_gone(&id).await;
    s.kit.audit_rest().await;
    s.audit_empty().await;
    crashed
}

async fn deletion(n: u64, with: With) -> bool {
    let s = stage().await;
    let id = s.create("one", with).await;
    s.state(&id, VmState::Active, with).await;
    s.kit.rest().await;
    let lives = s.kit.lives();
    s.kit.crash_after(n);
    s.ask(
        "DELETE",
        &format!("/compute/v2.1/servers/{id}"),
        Value::Null,
        with,
        &[404],
    )
    .await;
    s.gone(&id, with).await;
    s.audit(with).await;
    s.audit_empty().await;
    s.kit.lives() > lives
}

/// Each power action, one after another, with one crash somewhere.
async fn power(n: u64, with: With) -> bool {
    let s = stage().await;
    let id = s.create("one", with).await;
    s.state(&id, VmState::Active, with).await;
    s.kit.rest().await;
    let lives = s.kit.lives();
    s.kit.crash_after(n);
    let path = format!("/compute/v2.1/servers/{id}/action");
    for (action, state) in [
        (json!({"os-stop": null}), VmState::Stopped),
        (json!({"os-start": null}), VmState::Active),
        (json!({"reboot": {"type": "HARD"}}), VmState::Active),
        (json!({"pause": null}), VmState::Paused),
        (json!({"unpause": null}), VmState::Active),
        (json!({"rebuild": {"imageRef": s.image}}), VmState::Active),
    ] {
        // Asked again after a crash that came after its commit, the state refuses it.
        s.ask("POST", &path, action, with, &[409]).await;
        s.state(&id, state, with).await;
    }
    s.audit(with).await;
    s.kit.lives() > lives
}

/// Another flavor, taken back; again, and kept; rescued and back.
async fn resize(n: u64, with: With) -> bool {
    let s = stage().await;
    let id = s.create("one", with).await;
    s.state(&id, VmState::Active, with).await;
    s.kit.rest().await;
    let lives = s.kit.lives();
    s.kit.crash_after(n);
    let path = format!("/compute/v2.1/servers/{id}/action");
    for (action, state) in [
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"revertResize": null}), VmState::Active),
        (json!({"resize": {"flavorRef": "84"}}), VmState::Resized),
        (json!({"confirmResize": null}), VmState::Active),
        (json!({"rescue": null}), VmState::Rescued),
        (json!({"unrescue": null}), VmState::Active),
    ] {
        // The same flavor again is a 400.
        s.ask("POST", &path, action, with, &[409, 400]).await;
        s.state(&id, state, with).await;
    }
    s.audit(with).await;
    let server = s.kit.snapshot().get::<Server>(&id.as_str().into()).unwrap();
    assert_eq!((server.value.flavor.id.as_str(), &server.value.resize), ("84", &None));
    s.kit.lives() > lives
}

/// The node refuses for good, so that creation is undone; with one crash somewhere.
async fn refusal(n: u64, with: With) -> bool {
    let s = stage().await;
    for node in s.kit.nodes().values() {
        node.script(|x| {
            for _ in 0..30 {
                x.fail(Step::Spawn, None, "no machine", true);
            }
        });
    }
    let lives = s.kit.lives();
    s.kit.crash_after(n);
    let id = s.create("one", with).await;
    s.state(&id, VmState::Error, with).await;
    s.audit(with).await;
    let crashed = s.kit.lives() > lives;
    s.kit
        .delete(&s.project.member, &format!("/compute/v2.1/servers/{id}"))
        .await;
    s.kit.server_gone(&id).await;
    s.kit.audit_rest().await;
    s.audit_empty().await;
    crashed
}

/// Runs a flow with a crash after its first, second, ... commit, until it ends without one.
async fn each<F: Future<Output = bool>>(what: &str, flow: impl Fn(u64, With) -> F) {
    for with in [With::Nothing, With::Agents] {
        let mut n = 1;
        while flow(n, with).await {
            n += 1;
            assert!(n < MOST, "{what} does not end");
        }
        assert!(n > 2, "{what}: there was next to nothing to crash");
        println!("{what}: crashed after each of {} commits, with {with:?}", n - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn creation_survives_a_crash_after_every_commit() {
    each("creation", creation).await;
}

#[tokio::test(start_paused = true)]
async fn deletion_survives_a_crash_after_every_commit() {
    each("deletion", deletion).await;
}

#[tokio::test(start_paused = true)]
async fn power_actions_survive_a_crash_after_every_commit() {
    each("power actions", power).await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_survives_a_crash_after_every_commit() {
    each("resize", resize).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_survives_a_crash_after_every_commit() {
    each("refusal", refusal).await;
}
