//! Trunks: a parent port that carries further networks into its guest, each under a VLAN id of its own (a subport).
//!
//! A subport belongs to its trunk (`device_id`) and is always where the parent is: whoever binds or unbinds the parent does so
//! with all its subports, in the same transaction. Whoever changes a trunk writes the parent too, so that the two cannot cross.
//!
//! ```text
//!  parent unbound: DOWN ──bind──► BUILD ──parent and all subports up──► ACTIVE
//!         ▲                         │ ▲──────── one of them down ─────────┘
//!         └───────── unbind ────────┘
//! ```

use crate::{
    Meta, Network, Port, PortId, errors, floating_ip, keys, observed::port_is_up, port::PortChange,
    port_plan::plan_update_port,
};
use maru_base::{Error, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a trunk, a UUID.
    TrunkId
);

/// `device_owner` of a subport.
pub const SUBPORT: &str = "trunk:subport";

/// Most subports of a trunk: they are bound together, in one transaction.
pub const MOST_SUBPORTS: usize = 200;

/// A trunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trunk {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// The parent: what the guest has plugged in. Its own traffic is untagged.
    pub port_id: PortId,
    /// What else it carries.
    pub sub_ports: Vec<SubPort>,
    /// `false` keeps it as it is: it can be neither changed nor deleted.
    pub admin_state_up: bool,
    /// Standard attributes.
    pub meta: Meta,
}

/// A port that a trunk carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubPort {
    /// The port.
    pub port_id: PortId,
    /// The VLAN id (IEEE 802.1Q) of its frames in the guest, 1 to 4094; one a trunk.
    pub segmentation_id: u16,
}

impl Kind for Trunk {
    type Id = TrunkId;
    const NAME: &'static str = "trunk";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |t| vec![t.project_id.to_string()],
            },
            Index {
                name: "port",
                values: |t| vec![t.port_id.to_string()],
            },
            Index {
                name: "subport",
                values: |t| t.sub_ports.iter().map(|s| s.port_id.to_string()).collect(),
            },
        ]
    }
}

/// 404.
pub fn trunk_not_found(id: impl std::fmt::Display) -> Error {
    errors::not_found("TrunkNotFound", "Trunk", id)
}

/// The trunk whose parent this port is.
#[must_use]
pub fn of_parent(snapshot: &Snapshot, port: &PortId) -> Option<Object<Trunk>> {
    snapshot.find::<Trunk>("port", port).next()
}

/// The trunk that carries this port.
#[must_use]
pub fn of_subport(snapshot: &Snapshot, port: &PortId) -> Option<Object<Trunk>> {
    snapshot.find::<Trunk>("subport", port).next()
}

/// `DOWN`, `BUILD` or `ACTIVE`: see the module's diagram.
#[must_use]
pub fn status(snapshot: &Snapshot, trunk: &Trunk) -> &'static str {
    let up = |id: &PortId| {
        snapshot
            .get::<Port>(id)
            .is_some_and(|p| port_is_up(snapshot, id, &p.value))
    };
    match snapshot.get::<Port>(&trunk.port_id) {
        Some(parent) if !parent.host.is_empty() => {
            if up(&trunk.port_id) && trunk.sub_ports.iter().all(|s| up(&s.port_id)) {
                "ACTIVE"
            } else {
                "BUILD"
            }
        }
        _ => "DOWN",
    }
}

/// Plans a trunk.
///
/// # Errors
/// 404 for a port that is not there; 409 `ParentPortInUse`, `TrunkPortInUse`, `PortInUse`, `DuplicateSubPort` or
/// `SubPortMtuGreaterThanTrunkPortMtu` for one that cannot be what it shall be.
pub fn plan_create_trunk(snapshot: &Snapshot, txn: &mut Txn, new: &Trunk) -> Result<TrunkId> {
    let id = TrunkId::new_uuid();
    let parent = port(snapshot, &new.port_id)?;
    if of_subport(snapshot, &parent.id).is_some() {
        return Err(in_use_by_trunk(&parent.id));
    }
    let taken = of_parent(snapshot, &parent.id).is_some() || keys::touched(txn, &keys::object_key::<Port>(&parent.id));
    let reason = if taken {
        "it is the parent of another trunk"
    } else if parent.device_owner.starts_with("network:") || parent.device_owner == floating_ip::OWNER {
        "it belongs to the network itself"
    } else if !parent.host.is_empty() || !parent.device_id.is_empty() {
        "a server has it; make the trunk first and give its port to the server then"
    } else {
        ""
    };
    if !reason.is_empty() {
        return Err(not_a_parent(&parent.id, reason));
    }
    touch(txn, &parent);
    join(snapshot, txn, &id, &parent, &[], &new.sub_ports)?;
    txn.create(&id, new);
    Ok(id)
}

/// Plans further subports.
///
/// # Errors
/// As [`plan_create_trunk`]; 409 `TrunkDisabled`.
pub fn plan_add(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Trunk>, new: &[SubPort]) -> Result<Trunk> {
    manageable(read)?;
    let parent = port(snapshot, &read.port_id)?;
    touch(txn, &parent);
    join(snapshot, txn, &read.id, &parent, &read.sub_ports, new)?;
    let mut trunk = (*read.value).clone();
    trunk.sub_ports.extend(new.iter().cloned());
    trunk.meta.touch();
    txn.update(read, &trunk);
    Ok(trunk)
}

/// Plans that subports leave.
///
/// # Errors
/// 404 `SubPortNotFound`; 409 `TrunkDisabled`.
pub fn plan_remove(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Trunk>, gone: &[PortId]) -> Result<Trunk> {
    manageable(read)?;
    let mut trunk = (*read.value).clone();
    for id in gone {
        let Some(at) = trunk.sub_ports.iter().position(|s| s.port_id == *id) else {
            return Err(errors::refuse(
                maru_base::ErrorKind::NotFound,
                "SubPortNotFound",
                format!("SubPort on trunk {} with port {id} could not be found.", read.id),
            ));
        };
        trunk.sub_ports.remove(at);
        leave(snapshot, txn, id)?;
    }
    touch(txn, &port(snapshot, &read.port_id)?);
    trunk.meta.touch();
    txn.update(read, &trunk);
    Ok(trunk)
}

/// Plans the deletion of a trunk; its ports stay.
///
/// # Errors
/// 409 `TrunkInUse` while a server has its parent, `TrunkDisabled`.
pub fn plan_delete_trunk(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Trunk>) -> Result<()> {
    manageable(read)?;
    let parent = port(snapshot, &read.port_id)?;
    if !parent.host.is_empty() {
        return Err(errors::conflict(
            "TrunkInUse",
            format!(
                "Trunk {} is currently in use: server {} has its port {}; detach it there first.",
                read.id, parent.device_id, parent.id
            ),
        ));
    }
    touch(txn, &parent);
    read.sub_ports
        .iter()
        .try_for_each(|s| leave(snapshot, txn, &s.port_id))?;
    txn.delete(read);
    Ok(())
}

/// Plans that the subports of a port, if it is a parent, go where it goes.
pub(crate) fn follow(snapshot: &Snapshot, txn: &mut Txn, parent: &PortId, host: &str) -> Result<()> {
    let Some(trunk) = of_parent(snapshot, parent) else {
        return Ok(());
    };
    for sub in &trunk.sub_ports {
        let change = PortChange {
            host: Some(host.to_owned()),
            ..PortChange::default()
        };
        plan_update_port(snapshot, txn, &port(snapshot, &sub.port_id)?, change)?;
    }
    Ok(())
}

/// Refuses the deletion of a port that a trunk has.
///
/// # Errors
/// 409 `PortInUseAsSubPort`, `PortInUseAsTrunkParent`.
pub(crate) fn not_of_a_trunk(snapshot: &Snapshot, id: &PortId) -> Result<()> {
    if let Some(trunk) = of_subport(snapshot, id) {
        return Err(errors::conflict(
            "PortInUseAsSubPort",
            format!(
                "Port {id} is currently a subport for trunk {}; remove it there first.",
                trunk.id
            ),
        ));
    }
    if let Some(trunk) = of_parent(snapshot, id) {
        return Err(errors::conflict(
            "PortInUseAsTrunkParent",
            format!(
                "Port {id} is currently a parent port for trunk {}; delete the trunk first.",
                trunk.id
            ),
        ));
    }
    Ok(())
}

fn port(snapshot: &Snapshot, id: &PortId) -> Result<Object<Port>> {
    snapshot.get::<Port>(id).ok_or_else(|| errors::port_not_found(id))
}

/// Writes the parent: a binding that crosses this change conflicts and is planned anew.
fn touch(txn: &mut Txn, parent: &Object<Port>) {
    let mut value = (*parent.value).clone();
    value.meta.touch();
    txn.update(parent, &value);
}

fn manageable(trunk: &Object<Trunk>) -> Result<()> {
    if trunk.admin_state_up {
        return Ok(());
    }
    Err(errors::conflict(
        "TrunkDisabled",
        format!(
            "Trunk {} is currently disabled; set its admin_state_up before changing it.",
            trunk.id
        ),
    ))
}

fn in_use_by_trunk(id: &PortId) -> Error {
    errors::conflict("TrunkPortInUse", format!("Port {id} is in use by another trunk."))
}

fn not_a_parent(id: &PortId, reason: &str) -> Error {
    errors::conflict(
        "ParentPortInUse",
        format!("Port {id} is currently in use and is not eligible for use as a parent port: {reason}."),
    )
}

/// Ports become subports of a trunk that has `old` already.
fn join(
    snapshot: &Snapshot,
    txn: &mut Txn,
    trunk: &TrunkId,
    parent: &Object<Port>,
    old: &[SubPort],
    new: &[SubPort],
) -> Result<()> {
    if old.len() + new.len() > MOST_SUBPORTS {
        return Err(errors::invalid_input(format!(
            "trunk {trunk} would have more than {MOST_SUBPORTS} subports, the most that one can have"
        )));
    }
    let mtu = |port: &Port| snapshot.get::<Network>(&port.network_id).map_or(0, |n| n.mtu);
    for (at, sub) in new.iter().enumerate() {
        let id = &sub.port_id;
        let port = port(snapshot, id)?;
        let parent_of = of_parent(snapshot, id).is_some();
        if *id == parent.id || parent_of {
            return Err(not_a_parent(id, "a parent cannot be a subport"));
        }
        if of_subport(snapshot, id).is_some() || keys::touched(txn, &keys::object_key::<Port>(id)) {
            return Err(in_use_by_trunk(id));
        }
        if !port.device_id.is_empty() || port.device_owner.starts_with("network:") {
            return Err(errors::conflict(
                "PortInUse",
                format!(
                    "Unable to complete operation on port {id} for network {}: it belongs to device {}; detach it there first.",
                    port.network_id, port.device_id
                ),
            ));
        }
        let (own, most) = (mtu(&port), mtu(parent));
        if own > most {
            return Err(errors::conflict(
                "SubPortMtuGreaterThanTrunkPortMtu",
                format!(
                    "MTU {own} of subport {id} cannot be greater than MTU {most} of trunk {}.",
                    parent.id
                ),
            ));
        }
        let same = |s: &&SubPort| s.segmentation_id == sub.segmentation_id;
        if old.iter().chain(&new[..at]).any(|s| same(&s)) {
            return Err(errors::conflict(
                "DuplicateSubPort",
                format!(
                    "segmentation_type vlan and segmentation_id {} already in use on trunk {trunk}.",
                    sub.segmentation_id
                ),
            ));
        }
        let change = PortChange {
            device_id: Some(trunk.to_string()),
            device_owner: Some(SUBPORT.to_owned()),
            host: Some(parent.host.clone()),
            ..PortChange::default()
        };
        plan_update_port(snapshot, txn, &port, change)?;
    }
    Ok(())
}

fn leave(snapshot: &Snapshot, txn: &mut Txn, id: &PortId) -> Result<()> {
    let empty = || Some(String::new());
    let change = PortChange {
        device_id: empty(),
        device_owner: empty(),
        host: empty(),
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, &port(snapshot, id)?, change).map(|_| ())
}
