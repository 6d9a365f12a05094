//! What a node says of a server, and how the server's states follow.
//!
//! ```text
//!   intent fulfilled (power, reboot and rebuild counters)  ─► task done, vm_state follows the power intent
//!   fault, final, answering the present intent             ─► error, task done
//!   no task, running was intended, machine is off          ─► stopped (as upstream: a guest that shuts down stays off)
//! ```

use crate::{
    Fault, Power, PowerState, Server, ServerId, Task, VmState,
    action::{ServerAction, action_id, begin_action, event, finish_action, mark_deleted},
    console::forget_consoles,
    migration::forget_migrations,
    network, quota,
    rescue::follow_rescue,
    resize::follow_resize,
    shelve::{SHELVE_EVENT, UNSHELVE_EVENT, drop_image, next_task, plan_offloaded},
    volume::{follow_volumes, give_up_volumes, plan_release_volumes},
};
use maru_base::Result;
use maru_placement_model::{ConsumerId, plan_release};
use maru_store::{Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of an observed server: the server's id.
    ObservedServerId
);

/// What a node last said of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedServer {
    /// The revision of the intent that this answers.
    pub revision: u64,
    /// What the machine does.
    pub power: PowerState,
    /// Reboots carried out.
    pub reboots: u64,
    /// Rebuilds carried out.
    pub rebuilds: u64,
    /// Changes of flavor carried out.
    #[serde(default)]
    pub resizes: u64,
    /// What cannot be carried out.
    pub fault: Option<String>,
    /// Whether the fault is final.
    pub fault_final: bool,
    /// What is really attached: port ids and disk names.
    pub attached: Vec<String>,
}

impl Kind for ObservedServer {
    type Id = ObservedServerId;
    const NAME: &'static str = "observed_server";
}

/// A report; the same as what is stored.
pub type Observation = ObservedServer;

/// The power state that was last observed of a server.
#[must_use]
pub fn observed_power(snapshot: &Snapshot, server: &str) -> PowerState {
    snapshot
        .get::<ObservedServer>(&ObservedServerId::from(server))
        .map(|o| o.power)
        .unwrap_or_default()
}

/// Stores a report and moves the server's states. A report of a server that is gone is ignored.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_observe_server(snapshot: &Snapshot, txn: &mut Txn, id: &ServerId, seen: &Observation) -> Result<()> {
    let Some(server) = snapshot.get::<Server>(id) else {
        return Ok(());
    };
    let key = ObservedServerId::from(id.as_str());
    match snapshot.get::<ObservedServer>(&key) {
        // Reports of one session are ordered; one that answers an older intent than the last is late.
        Some(old) if old.value.revision > seen.revision => return Ok(()),
        Some(old) if *old.value == *seen => {}
        Some(old) => {
            txn.update(&old, seen);
        }
        None => {
            txn.create(&key, seen);
        }
    }
    let given_back = give_back_volumes(snapshot, txn, &server, seen);
    let followed = match given_back {
        // The fault was the volume's: the server goes on without it.
        Some(without) => Some((without, None)),
        None => follow(&server, seen),
    };
    let (mut new, story, mut changed) = match followed {
        Some((new, story)) => (new, story, true),
        None => ((*server.value).clone(), None, false),
    };
    if let Some(story) = story {
        let done = event(
            story.event,
            server.updated,
            server.host.as_deref(),
            story.error.as_deref(),
        );
        finish_action(snapshot, txn, id, &server.request_id, done, true);
    }
    changed |= follow_volumes(snapshot, txn, id, &mut new, seen);
    if changed {
        follow_resize(snapshot, txn, &server, &mut new)?;
        follow_rescue(snapshot, &server, &mut new);
        // Its boot disk is on its node: again, or still, when it could not be put away.
        let over = server.task.filter(|_| new.task.is_none());
        if over.is_some_and(|task| task == Task::Shelving || new.vm_state != VmState::Error) {
            drop_image(snapshot, txn, &mut new);
        }
        txn.update(&server, &new);
    }
    Ok(())
}

/// The server without the volumes that its node could not plug for good: they are free again, and the server stays what it is, as
/// upstream has it. `None` when that is not what the report says.
fn give_back_volumes(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &Object<Server>,
    seen: &ObservedServer,
) -> Option<Server> {
    let answers = seen.revision > server.asked_after;
    // With a task under way the fault is the task's: a server that cannot start has no volume to blame for certain.
    if !answers || !seen.fault_final || server.task.is_some() || server.vm_state != VmState::Active {
        return None;
    }
    let why = seen.fault.as_deref().unwrap_or("the node gave no reason");
    let mut new = (*server.value).clone();
    give_up_volumes(snapshot, txn, &server.id, &mut new, seen, why).then_some(new)
}

struct Story {
    event: &'static str,
    error: Option<String>,
}

/// The server as the report leaves it; `None` when nothing changes.
fn follow(server: &Object<Server>, seen: &ObservedServer) -> Option<(Server, Option<Story>)> {
    if matches!(server.task, Some(Task::Deleting | Task::ShelvingOffloading)) || !server.placed {
        return None;
    }
    let now = maru_base::time::now();
    let answers = seen.revision > server.asked_after;
    let mut new = (*server.value).clone();
    if answers && seen.fault_final && (server.task.is_some() || server.vm_state != VmState::Error) {
        let why = seen
            .fault
            .clone()
            .unwrap_or_else(|| "the node gave no reason".to_owned());
        let building = server.vm_state == VmState::Building;
        new.vm_state = VmState::Error;
        new.task = None;
        new.updated = now;
        new.fault = Some(Fault {
            code: 500,
            message: if building {
                "The node could not make the server.".to_owned()
            } else {
                "The node could not carry out the request.".to_owned()
            },
            details: why.clone(),
            created: now,
        });
        return Some((
            new,
            server.task.map(|task| Story {
                event: event_of(server, task),
                error: Some(why),
            }),
        ));
    }
    let fulfilled = server.power.fulfilled_by(seen.power)
        && seen.reboots >= server.reboot.count
        && seen.rebuilds >= server.rebuild
        && seen.resizes >= server.resizes
        && seen.fault.is_none();
    // An image is done when its controller says so, whatever the machine does.
    let uploads = |t: &Task| matches!(t, Task::ImageUploading | Task::ShelvingImageUploading);
    if fulfilled && server.task == Some(Task::Shelving) {
        next_task(&mut new, Task::Shelving);
        new.updated = now;
        return Some((new, None));
    }
    if fulfilled && let Some(task) = server.task.filter(|t| !uploads(t)) {
        new.task = None;
        new.vm_state = match task {
            Task::ResizeMigrating => VmState::Resized,
            Task::Rescuing => VmState::Rescued,
            _ => server.power.vm_state(),
        };
        new.updated = now;
        new.fault = None;
        if new.launched_at.is_none() || matches!(task, Task::Rebuilding | Task::Spawning) {
            new.launched_at = Some(now);
        }
        return Some((
            new,
            Some(Story {
                event: event_of(server, task),
                error: None,
            }),
        ));
    }
    // A guest that powered itself off, or died, stays off until it is asked to start.
    let off = matches!(seen.power, PowerState::Shutdown | PowerState::Crashed);
    let ran = matches!(server.vm_state, VmState::Active | VmState::Resized);
    if server.task.is_none() && answers && off && server.power == Power::Running && ran {
        new.power = Power::Stopped;
        if server.vm_state == VmState::Active {
            new.vm_state = VmState::Stopped;
        }
        new.updated = now;
        return Some((new, None));
    }
    None
}

/// Upstream's name of the event that does a task of a server.
fn event_of(server: &Server, task: Task) -> &'static str {
    match server.vm_state {
        VmState::ShelvedOffloaded => UNSHELVE_EVENT,
        _ => event_name(task),
    }
}

/// Upstream's name of the event that does a task.
pub(crate) const fn event_name(task: Task) -> &'static str {
    match task {
        Task::Scheduling | Task::Networking | Task::Spawning => "compute__do_build_and_run_instance",
        Task::Rebooting | Task::RebootingHard => "compute_reboot_instance",
        Task::PoweringOff => "compute_stop_instance",
        Task::PoweringOn => "compute_start_instance",
        Task::Pausing => "compute_pause_instance",
        Task::Unpausing => "compute_unpause_instance",
        Task::Suspending => "compute_suspend_instance",
        Task::Resuming => "compute_resume_instance",
        Task::Rebuilding => "compute_rebuild_instance",
        Task::ImageUploading => "compute_snapshot_instance",
        Task::ResizeMigrating => "compute_finish_resize",
        Task::ResizeReverting => "compute_finish_revert_resize",
        Task::Rescuing => "compute_rescue_instance",
        Task::Unrescuing => "compute_unrescue_instance",
        Task::Shelving | Task::ShelvingImageUploading | Task::ShelvingOffloading => SHELVE_EVENT,
        Task::Unshelving => UNSHELVE_EVENT,
        Task::Deleting => "compute_terminate_instance",
    }
}

/// Finishes a deletion: nothing of the server is left on any node. Frees ports, allocation, quota and the record. One that is being
/// shelved is off its node now. Nothing when it is gone already, or when neither was asked for (a node that lost it does not delete it).
///
/// # Errors
/// What the network planners refuse.
pub fn plan_server_removed(snapshot: &Snapshot, txn: &mut Txn, id: &ServerId) -> Result<()> {
    let Some(server) = snapshot.get::<Server>(id) else {
        return Ok(());
    };
    match server.task {
        Some(Task::Deleting) => plan_forget(snapshot, txn, &server, &server.request_id),
        Some(Task::ShelvingOffloading) => plan_offloaded(snapshot, txn, &server),
        _ => Ok(()),
    }
}

/// Frees all that a server holds and removes it. For servers that no node has, or that their node has removed.
///
/// # Errors
/// What the network planners refuse.
pub(crate) fn plan_forget(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, request_id: &str) -> Result<()> {
    network::plan_unplug(snapshot, txn, server)?;
    plan_release_volumes(snapshot, txn, server)?;
    plan_release(snapshot, txn, &ConsumerId::from(server.id.as_str()))?;
    forget_migrations(snapshot, txn, &server.id);
    forget_consoles(snapshot, txn, &server.id);
    drop_image(snapshot, txn, &mut (*server.value).clone());
    for (resource, amount) in quota_of(server) {
        quota::consume(snapshot, txn, &server.project_id, resource, -amount);
    }
    let done = event(event_name(Task::Deleting), server.updated, server.host.as_deref(), None);
    mark_deleted(snapshot, txn, &server.id, Some((request_id, done)));
    if let Some(observed) = snapshot.get::<ObservedServer>(&ObservedServerId::from(server.id.as_str())) {
        txn.delete(&observed);
    }
    txn.delete(server);
    Ok(())
}

/// What a server counts for in its project's quota; with two flavors the larger of each.
#[must_use]
pub fn quota_of(server: &Server) -> [(&'static str, i64); 3] {
    let other = server.resize.as_ref().map(|r| &r.other);
    let vcpus = server.flavor.vcpus.max(other.map_or(0, |f| f.vcpus));
    let memory_mb = server.flavor.memory_mb.max(other.map_or(0, |f| f.memory_mb));
    [
        ("instances", 1),
        ("cores", i64::from(vcpus)),
        ("ram", i64::try_from(memory_mb).unwrap_or(i64::MAX)),
    ]
}

/// Asks for deletion: at once when no node can have it, else the node removes it first. Records the action, too.
///
/// # Errors
/// What the network planners refuse.
pub fn plan_delete_server(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &Object<Server>,
    request_id: &str,
    user: &maru_base::UserId,
) -> Result<()> {
    if server.task == Some(Task::Deleting) {
        return Ok(());
    }
    if server.placed && server.host.is_some() {
        begin_action(txn, &server.id, &server.project_id, user, request_id, "delete");
        let mut new = (*server.value).clone();
        new.touch(request_id, snapshot);
        new.task = Some(Task::Deleting);
        txn.update(server, &new);
        return Ok(());
    }
    plan_forget(snapshot, txn, server, request_id)?;
    let now = maru_base::time::now();
    txn.put(
        &action_id(&server.id, request_id),
        &ServerAction {
            server_id: server.id.clone(),
            request_id: request_id.to_owned(),
            action: "delete".to_owned(),
            user_id: user.clone(),
            project_id: server.project_id.clone(),
            start: now,
            updated: now,
            message: None,
            events: vec![event(event_name(Task::Deleting), now, None, None)],
            finished: true,
            deleted: Some(now),
        },
    );
    Ok(())
}
