//! Waiting for states: the store is watched, nothing sleeps. Every wait has a deadline and says what was seen last.

use crate::{Crashed, Kit};
use maru_compute_model::{Fault, Server, ServerId, VmState, find_service};
use maru_control::{Flow, flow::flow_id};
use maru_store::{Object, Snapshot};
use std::time::Duration;

/// The longest that anything is waited for; under paused time it costs nothing.
const DEADLINE: Duration = Duration::from_secs(900);

impl Kit {
    /// Waits until `look` gives something.
    ///
    /// # Errors
    /// When the control plane crashes first.
    ///
    /// # Panics
    /// After the deadline, with what `describe` says.
    pub async fn try_until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Snapshot) -> Option<T>,
        describe: impl Fn(&Snapshot) -> String,
    ) -> Result<T, Crashed> {
        let life = self.life()?;
        let store = life.cloud.store().clone();
        let mut found = None;
        let waiting = store.until(|snapshot| {
            found = look(snapshot);
            found.is_some()
        });
        tokio::select! {
            biased;
            _ = waiting => {}
            () = life.gate.dead() => return Err(Crashed),
            () = tokio::time::sleep(DEADLINE) => {
                panic!("{what}: not within {DEADLINE:?}; {}", describe(&store.snapshot()))
            }
        }
        Ok(found.unwrap_or_else(|| panic!("{what}: found nothing")))
    }
    /// Waits until something holds; the control plane must not crash meanwhile.
    pub async fn until(&self, what: &str, mut check: impl FnMut(&Snapshot) -> bool) {
        self.try_until(what, |s| check(s).then_some(()), |_| String::new())
            .await
            .unwrap_or_else(|Crashed| panic!("{what}: the control plane crashed"));
    }
    /// Waits until something holds, with a control plane that begins again when it dies.
    pub async fn until_again<T>(&self, what: &str, mut look: impl FnMut(&Snapshot) -> Option<T>) -> T {
        loop {
            match self.try_until(what, &mut look, |_| String::new()).await {
                Ok(found) => return found,
                Err(Crashed) => self.restart().await,
            }
        }
    }
    /// The same for what threads do that paused time does not know of, like the writing of a blob: real time passes, and simulated
    /// time, for a node that connects again.
    ///
    /// # Panics
    /// When it does not come about.
    pub async fn until_now(&self, what: &str, check: impl Fn(&Snapshot) -> bool) {
        for _ in 0..20_000 {
            if self.is_dead() {
                self.restart().await;
            }
            if check(&self.snapshot()) {
                return;
            }
            let moment = || std::thread::sleep(Duration::from_millis(1));
            tokio::task::spawn_blocking(moment)
                .await
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            drop(tokio::time::timeout(Duration::from_millis(100), self.crashed()).await);
        }
        panic!("{what} does not come about");
    }
    /// Ends a round of [`crash_rounds`]: the cloud comes to rest, the control plane dies no more, and all that must hold does.
    /// Whether it died since there were `lives`.
    pub async fn rests_after_crashes(&self, lives: u32) -> bool {
        while self.try_rest().await.is_err() {
            self.restart().await;
        }
        let died = self.lives() > lives || self.is_dead();
        self.no_more_crashes().await;
        self.audit_rest().await;
        died
    }
    /// Waits until this many nodes are up.
    pub async fn nodes_up(&self, nodes: u32) {
        self.until("nodes are up", |s| {
            (1..=nodes).all(|n| find_service(s, &format!("n{n}")).is_some_and(|service| service.up))
        })
        .await;
    }
    /// Waits until a server is in a state with no task under way and no step list of its own.
    ///
    /// # Errors
    /// When the control plane crashes first.
    ///
    /// # Panics
    /// When it is in ERROR instead, or gone.
    pub async fn try_server(&self, id: &str, state: VmState) -> Result<Object<Server>, Crashed> {
        let key = ServerId::from(id);
        let what = format!("server {id} is {}", state.as_str());
        let look = |s: &Snapshot| {
            let server = s.get::<Server>(&key);
            let Some(server) = server else {
                panic!("{what}: it is gone")
            };
            if server.vm_state == VmState::Error && state != VmState::Error {
                panic!("{what}: it is in ERROR: {:?}", server.fault);
            }
            let rests = server.task.is_none() && s.get::<Flow>(&flow_id("server-create", id)).is_none();
            (rests && server.vm_state == state).then_some(server)
        };
        self.try_until(&what, look, |s| show(s, id)).await
    }
    /// Waits until a server is in a state; the control plane must not crash meanwhile.
    pub async fn server_state(&self, id: &str, state: VmState) -> Object<Server> {
        self.try_server(id, state)
            .await
            .unwrap_or_else(|Crashed| panic!("server {id}: the control plane crashed"))
    }
    /// Waits until a server is ACTIVE.
    pub async fn server_active(&self, id: &str) -> Object<Server> {
        self.server_state(id, VmState::Active).await
    }
    /// Waits until a server is in ERROR; gives why.
    pub async fn server_error(&self, id: &str) -> Fault {
        let server = self.server_state(id, VmState::Error).await;
        server
            .fault
            .clone()
            .unwrap_or_else(|| panic!("server {id} is in ERROR without a fault"))
    }
    /// Waits until nothing of a server is left: no record, no step list.
    ///
    /// # Errors
    /// When the control plane crashes first.
    pub async fn try_server_gone(&self, id: &str) -> Result<(), Crashed> {
        let key = ServerId::from(id);
        let look = |s: &Snapshot| {
            let gone = s.get::<Server>(&key).is_none() && s.find::<Flow>("subject", id).next().is_none();
            gone.then_some(())
        };
        self.try_until(&format!("server {id} is gone"), look, |s| show(s, id))
            .await
    }
    /// Waits until nothing of a server is left; the control plane must not crash meanwhile.
    pub async fn server_gone(&self, id: &str) {
        self.try_server_gone(id)
            .await
            .unwrap_or_else(|Crashed| panic!("server {id}: the control plane crashed"));
    }
    /// Waits until the cloud is at rest: no step list, no tombstone, no task.
    ///
    /// # Errors
    /// When the control plane crashes first.
    pub async fn try_rest(&self) -> Result<(), Crashed> {
        use maru_network_model::{TombstoneNetwork, TombstonePort, TombstoneRouter};
        let busy = |s: &Snapshot| {
            let mut busy: Vec<String> = s.list::<Flow>().map(|f| format!("{f:?}")).collect();
            busy.extend(s.list::<TombstonePort>().map(|t| format!("{t:?}")));
            busy.extend(s.list::<TombstoneNetwork>().map(|t| format!("{t:?}")));
            busy.extend(s.list::<TombstoneRouter>().map(|t| format!("{t:?}")));
            let tasks = s.list::<Server>().filter(|x| x.task.is_some());
            busy.extend(tasks.map(|x| format!("server {} is {:?}", x.id, x.task)));
            busy
        };
        self.try_until(
            "the cloud is at rest",
            |s| busy(s).is_empty().then_some(()),
            |s| busy(s).join("; "),
        )
        .await
    }
    /// Waits until the cloud is at rest; the control plane must not crash meanwhile.
    pub async fn rest(&self) {
        self.try_rest()
            .await
            .unwrap_or_else(|Crashed| panic!("the control plane crashed"));
    }
}

/// Does something with the control plane dead after the first commit of it, then after the second, and so on, until it is done
/// before it can die. `round` gets the number of the last commit, for [`Kit::crash_after`], and says whether the control plane
/// died.
///
/// # Panics
/// When it never ends, or ends before there was much to crash.
#[allow(clippy::print_stdout)] // How far it went belongs to the test's result.
pub async fn crash_rounds(what: &str, round: impl AsyncFn(u64) -> bool) {
    let mut n = 1;
    while round(n).await {
        n += 1;
        assert!(n < 200, "{what}: it does not end");
    }
    println!("{what}: crashed after each of {} commits", n - 1);
    assert!(n > 3, "{what}: there was next to nothing to crash");
}

/// A server as a failed wait shows it.
fn show(snapshot: &Snapshot, id: &str) -> String {
    let server = snapshot.get::<Server>(&ServerId::from(id));
    let flows: Vec<_> = snapshot.find::<Flow>("subject", id).collect();
    format!("{server:?} {flows:?}")
}
