//! Where a guest comes from, kept by its node, and its way back into a store that forgot it (docs/adr/0004).

use crate::{
    Server, ServerId, VmState,
    action::{done_action, event},
    find_service, network,
    observe::quota_of,
    quota,
};
use maru_base::{Error, Result, UserId};
use maru_network_model::{Port, PortId, SecurityGroupId, ensure_default_group, plan_adopt_port};
use maru_placement_model::{ConsumerId, Holder, plan_allocate};
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
    /// Its ports.
    pub ports: Vec<String>,
    /// Security groups that the store does not know: their ports have come back without them.
    pub groups_missing: Vec<String>,
}

/// Takes a guest that runs on `host` back into the store: server, ports, allocation, quota. The project must be known to the caller.
///
/// # Errors
/// 409 when the server is known, or its room, an address or a MAC is taken; 404 for a network that is not there; 400 for an origin that
/// is none.
pub fn plan_adopt(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &ServerId,
    origin: &Origin,
    host: &str,
    request_id: &str,
    user: &UserId,
) -> Result<Adopted> {
    if snapshot.get::<Server>(id).is_some() {
        return Err(Error::conflict(format!(
            "The store knows server {id}; there is nothing to adopt."
        )));
    }
    let service = find_service(snapshot, host)
        .ok_or_else(|| Error::unavailable(format!("Node {host} is not known yet; try again when it is connected.")))?;
    let mut server = origin.server.clone();
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
    server.task = None;
    server.vm_state = server.power.vm_state();
    // What came after the backup is not there.
    server.group = server.group.filter(|g| snapshot.get::<crate::ServerGroup>(g).is_some());
    server.launched_at = Some(server.created);
    server.updated = maru_base::time::now();
    server.asked_after = snapshot.revision();
    let holder = Holder {
        project_id: &server.project_id,
        user_id: &server.user_id,
        consumer_type: "INSTANCE",
    };
    plan_allocate(
        snapshot,
        txn,
        &ConsumerId::from(id.as_str()),
        &service.provider,
        &server.flavor.resources(),
        &holder,
    )?;
    for (resource, amount) in quota_of(&server) {
        quota::count(txn, &server.project_id, resource, amount);
    }
    txn.create(id, &server);
    let done = event("adopt", server.updated, Some(host), None);
    done_action(txn, id, &server.project_id, user, request_id, "adopt", done);
    groups_missing.sort();
    groups_missing.dedup();
    Ok(Adopted {
        name: server.name,
        project_id: server.project_id.to_string(),
        ports,
        groups_missing,
    })
}
