//! Making a server, and bringing a shelved one back: the stored step lists `server-create` and `server-unshelve`.
//!
//! ```text
//!  schedule ─► network ─► spawn ─► running
//!   host, allocation   ports made,    the node's     the node has said that
//!   under the          bound          slice has it   it runs (or that it cannot)
//!   provider's counters
//! ```
//! Each step's effect is one transaction with the advance of the list, so a crash between any two loses and repeats
//! nothing. A server that is deleted meanwhile ends the list. A shelved one has its ports already and keeps them; when it cannot be
//! brought back it stays shelved.

use maru_base::{Error, ErrorKind, Result};
use maru_compute_model::{
    Fault, Server, ServerGroup, ServerId, Task, VmState, event, finish_action, network, plan_unshelve_failed,
    schedule::{self, Request},
};
use maru_control::{Flow, FlowRunner, FlowSpec, Next, Reconciler, Step, StepResult, flow};
use maru_placement_model::{ConsumerId, Holder, plan_allocate, plan_release};
use maru_store::{Object, Snapshot, Store, Txn, record::Records};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Name of the step list that makes a server.
const CREATE: &str = "server-create";
/// Name of the step list that brings a shelved server back.
const UNSHELVE: &str = "server-unshelve";
/// How often a step may fail before the server goes to ERROR.
const ATTEMPTS: u32 = 20;
/// How long to wait for what only a change can bring.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How soon to look again for volumes that are being placed.
const VOLUMES: Duration = Duration::from_millis(200);
/// Upstream's name of the event that builds a server.
const BUILD_EVENT: &str = "compute__do_build_and_run_instance";

/// The step list that makes a server.
#[must_use]
pub fn create_flow() -> FlowSpec {
    flow_of(CREATE)
}

/// The step list that brings a shelved server back.
#[must_use]
pub fn unshelve_flow() -> FlowSpec {
    flow_of(UNSHELVE)
}

fn flow_of(kind: &'static str) -> FlowSpec {
    FlowSpec {
        kind,
        steps: vec![
            Box::new(Schedule),
            Box::new(Network),
            Box::new(Spawn),
            Box::new(Running),
        ],
        max_attempts: ATTEMPTS,
        give_up: Some(Box::new(|snapshot, flow, error| {
            let mut txn = Txn::new();
            if let Some(server) = alive(snapshot, &flow.subject) {
                fail(
                    snapshot,
                    &mut txn,
                    &server,
                    "The server could not be made.",
                    &error.chain(),
                )?;
            }
            Ok(txn)
        })),
    }
}

/// Puts the beginning of the list into the transaction that makes the server.
pub(crate) fn begin_create(txn: &mut Txn, id: &str, request_id: &str) {
    flow::begin(txn, &create_flow(), id, request_id, json!({}));
}

/// Puts the beginning of the list into the transaction that asks for a shelved server.
pub(crate) fn begin_unshelve(txn: &mut Txn, id: &str, request_id: &str) {
    flow::begin(txn, &unshelve_flow(), id, request_id, json!({}));
}

/// The server, unless it is gone or going.
fn alive(snapshot: &Snapshot, id: &str) -> Option<Object<Server>> {
    snapshot
        .get::<Server>(&ServerId::from(id))
        .filter(|s| s.task != Some(Task::Deleting))
}

/// Puts a server into ERROR and gives back what it holds; it is on no host. One that is shelved stays that.
fn fail(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, message: &str, details: &str) -> Result<()> {
    if server.vm_state == VmState::ShelvedOffloaded {
        return plan_unshelve_failed(snapshot, txn, server, &format!("{message} {details}"));
    }
    let now = maru_base::time::now();
    network::plan_unplug(snapshot, txn, server)?;
    plan_release(snapshot, txn, &ConsumerId::from(server.id.as_str()))?;
    let mut new = (*server.value).clone();
    new.vm_state = VmState::Error;
    new.task = None;
    new.host = None;
    new.provider = None;
    new.placed = false;
    new.ports.clear();
    new.updated = now;
    new.fault = Some(Fault {
        code: 500,
        message: message.to_owned(),
        details: details.to_owned(),
        created: now,
    });
    txn.update(server, &new);
    let story = event(BUILD_EVENT, server.updated, None, Some(&format!("{message} {details}")));
    finish_action(snapshot, txn, &server.id, &server.request_id, story, true);
    Ok(())
}

/// Puts a server into ERROR that its node has already: it keeps what it holds until it is deleted.
fn fail_where_it_is(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, why: &str) {
    let now = maru_base::time::now();
    let message = "Build of instance aborted: Block Device Mapping is Invalid.";
    let mut new = (*server.value).clone();
    new.vm_state = VmState::Error;
    new.task = None;
    new.updated = now;
    new.fault = Some(Fault {
        code: 500,
        message: message.to_owned(),
        details: why.to_owned(),
        created: now,
    });
    txn.update(server, &new);
    let story = event(BUILD_EVENT, server.updated, None, Some(&format!("{message} {why}")));
    finish_action(snapshot, txn, &server.id, &server.request_id, story, true);
}

struct Schedule;

#[async_trait::async_trait]
impl Step for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        let Some(server) = alive(snapshot, &flow.subject) else {
            return Ok(StepResult::End);
        };
        let mut txn = Txn::new();
        // It goes where its volumes are; those that are made with it are placed first.
        match maru_compute_model::volumes_placed(snapshot, &server) {
            Ok(true) => {}
            Ok(false) => return Ok(StepResult::Wait(VOLUMES)),
            Err(why) => {
                fail(
                    snapshot,
                    &mut txn,
                    &server,
                    "Build of instance aborted: Block Device Mapping is Invalid.",
                    &why,
                )?;
                return Ok(StepResult::Fail(txn));
            }
        }
        let choice = match schedule::select(
            snapshot,
            &Request {
                id: &server.id,
                server: &server,
                exclude: &[],
            },
        ) {
            Ok(choice) => choice,
            Err(refusal) => {
                // The owner sees how many hosts each filter turned down; host by host is for administrators.
                let message = format!("No valid host was found. {}", refusal.summary());
                fail(snapshot, &mut txn, &server, &message, &refusal.to_string())?;
                return Ok(StepResult::Fail(txn));
            }
        };
        let holder = Holder {
            project_id: &server.project_id,
            user_id: &server.user_id,
            consumer_type: "INSTANCE",
        };
        plan_allocate(
            snapshot,
            &mut txn,
            &ConsumerId::from(server.id.as_str()),
            &choice.provider.id,
            &choice.resources,
            &holder,
        )?;
        let mut new = (*server.value).clone();
        new.host = Some(choice.service.host.clone());
        new.provider = Some(choice.provider.id.to_string());
        new.task = Some(Task::Networking);
        new.updated = maru_base::time::now();
        txn.update(&server, &new);
        if let Some(group) = &new.group
            && snapshot.get::<ServerGroup>(group).is_some()
        {
            // Two members that are scheduled at once must see each other. A group that is gone binds no one.
            txn.alive::<ServerGroup>(group);
            txn.over_set(snapshot, &group_epoch(group));
        }
        // A service that is disabled or goes down meanwhile is seen.
        txn.unchanged(&choice.service);
        let story = match server.vm_state {
            VmState::ShelvedOffloaded => "conductor_unshelve_instance",
            _ => "conductor_schedule_and_build_instances",
        };
        let note = event(story, server.updated, None, None);
        finish_action(snapshot, &mut txn, &server.id, &flow.request_id, note, false);
        Ok(StepResult::Commit(
            txn,
            Some(json!({"host": choice.service.host, "fitting": choice.fitting})),
        ))
    }
}

/// The name of the set of a group's members, see [`Txn::over_set`].
pub(crate) fn group_epoch(group: &str) -> String {
    format!("server-group:{group}")
}

struct Network;

#[async_trait::async_trait]
impl Step for Network {
    fn name(&self) -> &'static str {
        "network"
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        let Some(server) = alive(snapshot, &flow.subject) else {
            return Ok(StepResult::End);
        };
        let mut txn = Txn::new();
        let mut new = (*server.value).clone();
        let host = new
            .host
            .clone()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the server has passed scheduling but has no host"))?;
        let plugged = match server.vm_state {
            VmState::ShelvedOffloaded => network::plan_replug(snapshot, &mut txn, &server, &host),
            _ => network::plan_plug(snapshot, &mut txn, &server.id, &mut new, &host),
        };
        match plugged {
            Ok(()) => {}
            // A refusal will not change by trying again.
            Err(error) if error.kind().status() < 500 => {
                let mut txn = Txn::new();
                fail(
                    snapshot,
                    &mut txn,
                    &server,
                    "Failed to allocate the network(s), not rescheduling.",
                    error.message(),
                )?;
                return Ok(StepResult::Fail(txn));
            }
            Err(error) => return Err(error),
        }
        new.task = Some(Task::Spawning);
        new.updated = maru_base::time::now();
        txn.update(&server, &new);
        let note = event("compute_allocate_network", server.updated, Some(&host), None);
        finish_action(snapshot, &mut txn, &server.id, &flow.request_id, note, false);
        Ok(StepResult::Commit(txn, None))
    }
}

struct Spawn;

#[async_trait::async_trait]
impl Step for Spawn {
    fn name(&self) -> &'static str {
        "spawn"
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        let Some(server) = alive(snapshot, &flow.subject) else {
            return Ok(StepResult::End);
        };
        let mut txn = Txn::new();
        let mut new = (*server.value).clone();
        new.placed = true;
        new.updated = maru_base::time::now();
        new.asked_after = snapshot.revision();
        txn.update(&server, &new);
        Ok(StepResult::Commit(txn, None))
    }
}

/// The step that only waits for the node's word.
const LAST: &str = "running";

struct Running;

#[async_trait::async_trait]
impl Step for Running {
    fn name(&self) -> &'static str {
        LAST
    }
    async fn run(&self, snapshot: &Snapshot, flow: &Flow) -> Result<StepResult> {
        match alive(snapshot, &flow.subject) {
            Some(server)
                if matches!(server.vm_state, VmState::Building | VmState::ShelvedOffloaded)
                    && server.task.is_some() =>
            {
                if let Err(why) = maru_compute_model::volumes_placed(snapshot, &server) {
                    let mut txn = Txn::new();
                    fail_where_it_is(snapshot, &mut txn, &server, &why);
                    return Ok(StepResult::Fail(txn));
                }
                // A volume that cannot be made says so in its own record only.
                let wait = if server.volumes.is_empty() {
                    LOOK_AGAIN
                } else {
                    Duration::from_secs(1)
                };
                Ok(StepResult::Wait(wait))
            }
            _ => Ok(StepResult::End),
        }
    }
}

/// Adds to a server's story.
pub(crate) async fn record(
    records: Option<&Arc<dyn Records>>,
    server: &str,
    request_id: &str,
    what: &str,
    host: Option<&str>,
) {
    let Some(records) = records else { return };
    let entry = json!({
        "time": maru_base::time::micros_z(maru_base::time::now()),
        "server": server, "request_id": request_id, "event": what, "host": host,
    });
    if let Err(error) = records.append("server-event", server, entry).await {
        tracing::warn!(server, request_id, error = %error.chain(), "an event of a server's story was not kept");
    }
}

/// The controller that runs the step lists of new and returning servers.
pub(crate) struct StepLists {
    runner: FlowRunner,
    records: Option<Arc<dyn Records>>,
}

impl StepLists {
    pub(crate) fn new(spec: FlowSpec, records: Option<Arc<dyn Records>>) -> Self {
        Self {
            runner: FlowRunner::new(Arc::new(spec)),
            records,
        }
    }
    fn kind(&self) -> &'static str {
        self.runner.spec().kind
    }
}

#[async_trait::async_trait]
impl Reconciler for StepLists {
    fn name(&self) -> &'static str {
        self.kind()
    }
    fn kinds(&self) -> Vec<&'static str> {
        vec!["flow", "server"]
    }
    fn keys_for(&self, snapshot: &Snapshot, kind: &str, id: &str) -> Vec<String> {
        let subject = match kind {
            "flow" => id.strip_prefix(self.kind()).and_then(|rest| rest.strip_prefix(':')),
            _ => Some(id),
        };
        subject
            .filter(|s| snapshot.get::<Flow>(&flow::flow_id(self.kind(), s)).is_some())
            .map(str::to_owned)
            .into_iter()
            .collect()
    }
    fn all(&self, snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .find::<Flow>("kind", self.kind())
            .map(|f| f.subject.clone())
            .collect()
    }
    async fn reconcile(&self, store: &Store, key: &str) -> Result<Next> {
        let id = flow::flow_id(self.kind(), key);
        let before = store
            .snapshot()
            .get::<Flow>(&id)
            .map(|f| (f.step.clone(), f.request_id.clone()));
        let next = self.runner.run(store, key).await;
        let snapshot = store.snapshot();
        let after = snapshot.get::<Flow>(&id).map(|f| f.step.clone());
        if let Some((step, request_id)) = before
            && after.as_ref() != Some(&step)
        {
            let server = snapshot.get::<Server>(&ServerId::from(key));
            let host = server.as_ref().and_then(|s| s.host.as_deref());
            let state = server.as_ref().map_or("gone", |s| s.vm_state.as_str());
            // One run may have taken several steps: each is told.
            let steps = self.runner.spec().steps.iter().map(|s| s.name());
            let last = after.as_deref().unwrap_or(if state == "active" { LAST } else { &step });
            for done in steps.skip_while(|s| *s != step).take_while(|s| *s != last) {
                record(self.records.as_ref(), key, &request_id, &format!("{done} done"), host).await;
            }
            if after.is_none() {
                let what = match self.kind() {
                    UNSHELVE => format!("unshelving over: {state}"),
                    _ => format!("creation over: {state}"),
                };
                record(self.records.as_ref(), key, &request_id, &what, host).await;
            }
        }
        next
    }
    fn workers(&self) -> usize {
        8
    }
}
