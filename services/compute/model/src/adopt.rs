//! Where a guest comes from, kept by its node, and its way back into a store that forgot it (docs/adr/0004).
//!
//! What the server was when the store last knew it (building, in ERROR, on its way to another power state) is lost with that store.
//! It comes back as what its guest is, and that is its intent from then on:
//!
//! ```text
//!  the guest is    running ─► active     paused ─► paused     suspended ─► suspended     off, or its process ended ─► stopped
//!                  made, never started ─► building, until its node has started it
//! ```

use crate::{
    ComputeService, ObservedServer, ObservedServerId, Power, PowerState, Server, ServerGroup, ServerId, Task, VmState,
    action::{done_action, event},
    find_service, network,
    observe::quota_of,
    quota,
};
use maru_base::{Error, Result, UserId};
use maru_network_model::{Port, PortId, SecurityGroupId, ensure_default_group, keys, plan_adopt_port};
use maru_placement_model::{Allocations, Claim, ConsumerId, Holder, Refusal, plan_replace};
use maru_store::{Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

/// What a node keeps of a server: the server and its ports as they are stored, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The server.
    pub server: Server,
    /// Its ports in NIC order.
    pub ports: Vec<(PortId, Port)>,
    /// The project's group `default`: made with the first port, so often younger than a backup, and the same in each cloud.
    pub default_group: Option<SecurityGroupId>,
}

/// The origin of a server as the node keeps it: JSON. Empty if it cannot be encoded; then the guest cannot be adopted.
pub(crate) fn origin(snapshot: &Snapshot, server: &Object<Server>) -> String {
    let mut kept = (*server.value).clone();
    // Otherwise the node would write its record anew with each change of state.
    kept.vm_state = VmState::Active;
    kept.task = None;
    kept.fault = None;
    kept.updated = kept.created;
    kept.launched_at = None;
    kept.asked_after = 0;
    // Images under way are made anew when they are asked for again.
    kept.imaging = None;
    kept.backup = None;
    kept.shelved_image = None;
    let ports = server
        .ports
        .iter()
        .filter_map(|p| snapshot.get::<Port>(&PortId::from(p.id.as_str())))
        .map(|p| (p.id.clone(), (*p.value).clone()))
        .collect();
    let default_group = network::find_group(snapshot, &server.project_id, "default")
        .ok()
        .flatten()
        .map(|g| g.id);
    serde_json::to_string(&Origin {
        server: kept,
        ports,
        default_group,
    })
    .unwrap_or_default()
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Adopted {
    /// Its name.
    pub name: String,
    /// Its project.
    pub project_id: String,
    /// Its status in the API.
    pub status: &'static str,
    /// Its ports.
    pub ports: Vec<String>,
    /// Security groups that the store does not know: their ports have come back without them.
    pub groups_missing: Vec<String>,
    /// The server group that it was in and that the store does not know: it has come back without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_group_missing: Option<String>,
}

/// What a server is whose guest does this, and what it shall be from now on.
const fn taken_as(seen: PowerState) -> (Power, VmState, Option<Task>) {
    match seen {
        PowerState::Running => (Power::Running, VmState::Active, None),
        PowerState::Paused => (Power::Paused, VmState::Paused, None),
        PowerState::Suspended => (Power::Suspended, VmState::Suspended, None),
        PowerState::Shutdown | PowerState::Crashed => (Power::Stopped, VmState::Stopped, None),
        PowerState::Nostate => (Power::Running, VmState::Building, Some(Task::Spawning)),
    }
}

/// Takes a guest that is on `host` and does `seen` back into the store: server, ports, allocation, quota. The project must be known to
/// the caller, and guarded. Flavor, image and key pair need not be there: the server has its own copy of what it needs of them.
///
/// # Errors
/// Refusals say what is in the way and what would help, not that the guest could be discarded. 409 when the server is known, or its
/// room, an address, a MAC or a port is taken; 404 for a network or subnet that is not there.
pub fn plan_adopt(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ServerId,
    origin: &Origin,
    (host, seen): (&str, PowerState),
    request_id: &str,
    user: &UserId,
) -> Result<Adopted> {
    if let Some(known) = snapshot.get::<Server>(id) {
        let at = known.host.as_deref().unwrap_or("no node yet");
        return Err(Error::conflict(format!(
            "The store has this server, on {at}: there is nothing to adopt, and what is on node {host} is left of it."
        )));
    }
    let service = find_service(snapshot, host)
        .ok_or_else(|| Error::unavailable(format!("Node {host} is not known yet; try again when it is connected.")))?;
    let mut server = origin.server.clone();
    // Its volumes would have to come back first, and their bytes with them.
    if let Some(v) = server.volumes.first() {
        return Err(Error::conflict(format!(
            "The server has the volume {} as {}, and an adopted server comes without volumes. Its bytes are kept on the node as long as they \
             are not discarded.",
            v.id, v.device
        )));
    }
    let mut groups_missing = Vec::new();
    let mut ports = Vec::new();
    for (port_id, port) in &origin.ports {
        if port.device_id != id.as_str() {
            continue;
        }
        let mut port = port.clone();
        host.clone_into(&mut port.host);
        for group in &mut port.security_groups {
            if Some(&*group) == origin.default_group.as_ref() {
                *group = ensure_default_group(snapshot, txn, &server.project_id)?;
            }
        }
        groups_missing.extend(plan_adopt_port(snapshot, txn, port_id, port)?);
        ports.push(port_id.to_string());
    }
    server.ports.retain(|p| ports.contains(&p.id));
    server.host = Some(host.to_owned());
    server.provider = Some(service.provider.to_string());
    server.placed = true;
    (server.power, server.vm_state, server.task) = taken_as(seen);
    // What came after the backup is not there.
    let mut server_group_missing = None;
    if let Some(group) = server.group.take() {
        if snapshot.get::<ServerGroup>(&group).is_some() {
            keys::alive::<ServerGroup>(txn, &group);
            server.group = Some(group);
        } else {
            server_group_missing = Some(group.to_string());
        }
    }
    // It stays what it was being made; the disks of before are let go.
    server.resize = None;
    server.rescue = None;
    server.launched_at = (seen != PowerState::Nostate).then_some(server.created);
    server.updated = maru_base::time::now();
    server.asked_after = snapshot.revision();
    allocate(snapshot, txn, id, &server, &service)?;
    for (resource, amount) in quota_of(&server) {
        quota::count(txn, &server.project_id, resource, amount);
    }
    txn.create(id, &server);
    // Until its node reports on the adopted server: what it said a moment ago.
    let observed = ObservedServer {
        power: seen,
        ..ObservedServer::default()
    };
    txn.create(&ObservedServerId::from(id.as_str()), &observed);
    let done = event("adopt", server.updated, Some(host), None);
    done_action(txn, id, &server.project_id, user, request_id, "adopt", done);
    groups_missing.sort();
    groups_missing.dedup();
    Ok(Adopted {
        status: server.status(),
        name: server.name,
        project_id: server.project_id.to_string(),
        ports,
        groups_missing,
        server_group_missing,
    })
}

/// Gives the server its room on the node that it is on.
fn allocate(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ServerId,
    server: &Server,
    service: &Object<ComputeService>,
) -> Result<()> {
    let consumer = ConsumerId::from(id.as_str());
    let wanted: Allocations = [(service.provider.clone(), server.resources())].into();
    let claim = Claim {
        consumer: &consumer,
        holder: Holder {
            project_id: &server.project_id,
            user_id: &server.user_id,
            consumer_type: "INSTANCE",
        },
        wanted: &wanted,
    };
    plan_replace(snapshot, txn, &[claim], &std::collections::BTreeMap::new()).map_err(|refusal| {
        let (host, provider) = (&service.host, &service.provider);
        match refusal {
            Refusal::Full {
                class,
                wanted,
                used,
                capacity,
                ..
            } => Error::conflict(format!(
                "Node {host} has no room for it in the store: it takes {wanted} {class}, and {used} of {capacity} are given away. Delete \
                 servers of that node, or raise its allocation ratio (`openstack resource provider inventory set {provider} --amend \
                 --resource {class}:allocation_ratio=...`), and adopt the guest then."
            )),
            Refusal::NoInventory { class, .. } => Error::conflict(format!(
                "Node {host} offers no {class} in the store, and the server takes some. Give its resource provider {provider} an inventory \
                 of {class}, and adopt the guest then."
            )),
            other => Error::conflict(format!(
                "Node {host} has no room for it in the store: {other} Change the inventory of its resource provider, and adopt the guest \
                 then."
            )),
        }
    })
}
