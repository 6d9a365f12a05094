//! Binding of ports to nodes and devices, for services that own the devices.

use crate::{Port, errors, port::PortChange, port_plan::plan_update_port, router};
use maru_base::Result;
use maru_store::{Object, Snapshot, Txn};

/// Plans that an existing port belongs to a device on a host. `az` is the zone of the device: a port without an owner
/// gets `compute:<az>` when `device_owner` is empty.
///
/// # Errors
/// 409 `PortInUse` when it belongs to another device.
pub fn plan_bind_port(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<Port>,
    host: &str,
    device_id: &str,
    device_owner: &str,
    az: &str,
) -> Result<Port> {
    let port = &read.value;
    if (!port.device_id.is_empty() && port.device_id != device_id) || router::is_router_port(port) {
        return Err(errors::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {} for network {}: it belongs to device {}; detach it there first.",
                read.id, port.network_id, port.device_id
            ),
        ));
    }
    let owner = if device_owner.is_empty() {
        format!("compute:{az}")
    } else {
        device_owner.to_owned()
    };
    let change = PortChange {
        host: Some(host.to_owned()),
        device_id: Some(device_id.to_owned()),
        device_owner: Some(owner),
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, read, change)
}

/// Plans that a port belongs to no device and no host.
///
/// # Errors
/// None at present; kept so that callers are ready for one.
pub fn plan_unbind_port(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Port>) -> Result<Port> {
    let empty = || Some(String::new());
    let change = PortChange {
        host: empty(),
        device_id: empty(),
        device_owner: empty(),
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, read, change)
}
