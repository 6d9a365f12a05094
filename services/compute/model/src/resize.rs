//! Another flavor for a server, on the host that it is on.
//!
//! ```text
//!  active, stopped ─ resize ─► task resize_migrating ─ the node is done ─► resized ─ confirm ─► active, stopped
//!                                   │ refused for good                        │ revert
//!                                   └──────────► task resize_reverting ◄──────┘
//!                                                    └─ the node is done ─► active, stopped with the old flavor
//! ```
//!
//! The node stops the guest, keeps its disks aside if one of them changes, and starts it with the new flavor. A revert puts the kept
//! disks back: what the guest wrote since is gone, as upstream has it. Until then room and quota are held for both flavors, the larger
//! of each resource, so neither way can fail for want of room.

use crate::{
    Server, ServerFlavor, Task, VmState,
    migration::{Migration, MigrationStatus, begin_migration, set_status},
    observe::quota_of,
    quota, rules,
    schedule::flavor_fits,
    server::Resize,
};
use maru_base::{Error, Result, UserId};
use maru_placement_model::{Allocations, ConsumerId, Holder, ProviderId, plan_set_allocations};
use maru_store::{Object, Snapshot, Txn};

/// Holds what `new` takes instead of what `old` took: quota and allocation.
fn settle(snapshot: &Snapshot, txn: &mut Txn, old: &Object<Server>, new: &Server) -> Result<()> {
    for ((resource, before), (_, after)) in quota_of(old).into_iter().zip(quota_of(new)) {
        if after != before {
            quota::consume(snapshot, txn, &old.project_id, resource, after - before);
        }
    }
    let Some(provider) = &old.provider else { return Ok(()) };
    if old.value.resources() == new.resources() {
        return Ok(());
    }
    let wanted: Allocations = [(ProviderId::from(provider.as_str()), new.resources())].into();
    let holder = Holder {
        project_id: &old.project_id,
        user_id: &old.user_id,
        consumer_type: "INSTANCE",
    };
    plan_set_allocations(snapshot, txn, &ConsumerId::from(old.id.as_str()), &holder, &wanted)
}

/// Refuses disks that would become smaller: their contents would be cut off.
fn check_disks(server: &Server, flavor: &ServerFlavor) -> Result<()> {
    let volume = server.volumes.iter().any(|v| v.boot);
    let listed = server.block_devices.iter().any(|d| d.name.starts_with("ephemeral"));
    if !volume && flavor.root_gb == 0 && server.flavor.root_gb > 0 {
        return Err(Error::bad_request("Resize to zero disk flavor is not allowed."));
    }
    let smaller = |what: &str, to: u64, from: u64| {
        Err(Error::bad_request(format!(
            "Unable to resize disk down: the {what} disk has {from} GB, and flavor {} gives {to} GB. Choose a flavor whose disks are not \
             smaller.",
            flavor.name
        )))
    };
    if !volume && flavor.root_gb < server.flavor.root_gb {
        return smaller("root", flavor.root_gb, server.flavor.root_gb);
    }
    if !listed && flavor.ephemeral_gb < server.flavor.ephemeral_gb {
        return smaller("ephemeral", flavor.ephemeral_gb, server.flavor.ephemeral_gb);
    }
    Ok(())
}

/// Asks for another flavor; gives the server as it is to be written.
///
/// # Errors
/// 400 for the flavor that it has, for smaller disks and when its host has no room; 403 over the quota.
pub fn plan_resize(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &Object<Server>,
    flavor: ServerFlavor,
    user: &UserId,
    request_id: &str,
) -> Result<Server> {
    if flavor.id == server.flavor.id {
        return Err(Error::bad_request("When resizing, instances must change flavor!"));
    }
    if server.resize.is_some() {
        return Err(Error::conflict(format!(
            "Cannot 'resize' instance {}: an earlier change of its flavor is not over. Confirm or revert it first.",
            server.id
        )));
    }
    check_disks(server, &flavor)?;
    let host = server
        .host
        .clone()
        .filter(|_| server.placed)
        .ok_or_else(|| Error::conflict(format!("Instance {} is not ready", server.id)))?;
    let mut new = (*server.value).clone();
    new.touch(request_id, snapshot);
    let disks = |f: &ServerFlavor| (f.root_gb, f.ephemeral_gb, f.swap_mb);
    let changes = disks(&flavor) != disks(&server.flavor);
    let now = maru_base::time::now();
    let migration = begin_migration(
        snapshot,
        txn,
        &Migration {
            uuid: maru_base::random::uuid().to_string(),
            server_id: server.id.clone(),
            project_id: server.project_id.clone(),
            user_id: user.clone(),
            kind: "resize".to_owned(),
            status: MigrationStatus::Migrating,
            source: host.clone(),
            target: host.clone(),
            old_flavor: server.flavor.id.clone(),
            new_flavor: flavor.id.clone(),
            created: now,
            updated: now,
        },
    );
    new.resizes += 1;
    new.resize = Some(Resize {
        other: std::mem::replace(&mut new.flavor, flavor),
        migration,
        kept: changes.then_some(new.resizes),
    });
    new.task = Some(Task::ResizeMigrating);
    let more: Vec<(&str, i64)> = quota_of(server)
        .into_iter()
        .zip(quota_of(&new))
        .map(|((resource, before), (_, after))| (resource, after - before))
        .filter(|(_, more)| *more > 0)
        .collect();
    quota::check(snapshot, &server.project_id, &more)?;
    let no_host = |why: &str| {
        Error::bad_request(format!(
            "No valid host was found. The server stays on its host when its flavor changes, and there {why}."
        ))
    };
    flavor_fits(snapshot, &new, &host).map_err(|why| no_host(&why))?;
    settle(snapshot, txn, server, &new).map_err(|e| no_host(&format!("is no room for it: {}", e.message())))?;
    Ok(new)
}

/// The change that waits for a word.
fn waiting<'a>(server: &'a Object<Server>, action: &str) -> Result<&'a Resize> {
    let id = server.id.as_str();
    match &server.resize {
        // A change that a fault or an administrator left half-way can still be brought to an end.
        Some(resize) if server.task.is_none() => Ok(resize),
        _ => {
            rules::check_state(id, server, action)?;
            Err(Error::bad_request("Instance has not been resized."))
        }
    }
}

/// Keeps the new flavor; the disks of before are let go.
///
/// # Errors
/// 409 when the server does not wait for it.
pub fn plan_confirm_resize(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<Server> {
    let resize = waiting(server, "confirmResize")?;
    let mut new = (*server.value).clone();
    new.resize = None;
    new.updated = maru_base::time::now();
    if server.vm_state == VmState::Resized {
        new.vm_state = server.power.vm_state();
    }
    settle(snapshot, txn, server, &new)?;
    set_status(snapshot, txn, &resize.migration, MigrationStatus::Confirmed);
    Ok(new)
}

/// Asks for the old flavor back.
///
/// # Errors
/// 409 when the server does not wait for it.
pub fn plan_revert_resize(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &Object<Server>,
    request_id: &str,
) -> Result<Server> {
    let resize = waiting(server, "revertResize")?;
    set_status(snapshot, txn, &resize.migration, MigrationStatus::Reverting);
    let mut new = (*server.value).clone();
    new.touch(request_id, snapshot);
    take_back(&mut new);
    Ok(new)
}

fn take_back(server: &mut Server) {
    let Server { flavor, resize, .. } = server;
    if let Some(resize) = resize {
        std::mem::swap(flavor, &mut resize.other);
    }
    server.resizes += 1;
    server.task = Some(Task::ResizeReverting);
}

/// What the end of the node's work means: `old` is what is stored, `new` what the node's report made of it.
pub(crate) fn follow_resize(snapshot: &Snapshot, txn: &mut Txn, old: &Object<Server>, new: &mut Server) -> Result<()> {
    let Some(resize) = old.resize.as_ref().filter(|_| new.task.is_none()) else {
        return Ok(());
    };
    let failed = new.vm_state == VmState::Error;
    match old.task {
        // What its host cannot do is undone: the server is what it was.
        Some(Task::ResizeMigrating) if failed => {
            set_status(snapshot, txn, &resize.migration, MigrationStatus::Error);
            new.vm_state = old.vm_state;
            new.asked_after = snapshot.revision();
            take_back(new);
        }
        Some(Task::ResizeMigrating) => set_status(snapshot, txn, &resize.migration, MigrationStatus::Finished),
        Some(Task::ResizeReverting) if !failed => {
            let told = snapshot.get::<Migration>(&resize.migration);
            if told.is_some_and(|m| m.status == MigrationStatus::Reverting) {
                set_status(snapshot, txn, &resize.migration, MigrationStatus::Reverted);
            }
            new.resize = None;
            settle(snapshot, txn, old, new)?;
        }
        _ => {}
    }
    Ok(())
}
