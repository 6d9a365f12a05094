//! Ports of guests that run on a node and that the store has forgotten (docs/adr/0004).
//!
//! ```text
//!  the store has no such port ───────────────────────► made again: id, MAC, addresses
//!  it has it, and nobody uses it (older than the backup) ► given back to the guest, with the guest's MAC and addresses
//!  it has it, and somebody uses it ──────────────────► refused
//! ```
//!
//! Refusals are read by administrators, beside the name of the guest: each says which port it speaks of, who is in the way, and what
//! would help.

use crate::{
    FixedIpRequest, Network, Port, PortId, SecurityGroup, SecurityGroupId, Subnet, address, errors, keys,
    port::{PortChange, plan_update_port},
    port_plan::{claim_mac, join_groups, mark_host},
    quota,
};
use maru_base::{ErrorKind, Result};
use maru_store::{Object, Snapshot, Txn};
use std::net::IpAddr;

/// Plans a port that exists on its node and that the store forgot: under its id, with its MAC and addresses, counted but not held to
/// the quota. A port that the store has and nobody uses is given back. Gives the security groups that the store does not know; the
/// port comes back without them.
///
/// # Errors
/// 404 for a network or subnet that is not there; 409 for an address or MAC that another port has, or a port that another device has.
pub fn plan_adopt_port(snapshot: &Snapshot, txn: &mut Txn, id: &PortId, mut port: Port) -> Result<Vec<String>> {
    let network_id = port.network_id.clone();
    if snapshot.get::<Network>(&network_id).is_none() {
        return Err(errors::refuse(
            ErrorKind::NotFound,
            "NetworkNotFound",
            format!(
                "Its port {id} is on network {network_id}, which the store does not have: the network is younger than the backup, or was \
                 deleted since. Restore a later backup that has it."
            ),
        ));
    }
    let (known, missing): (Vec<_>, Vec<_>) = std::mem::take(&mut port.security_groups)
        .into_iter()
        .partition(|g| keys::look::<SecurityGroup>(snapshot, txn, g).is_some());
    port.security_groups = known;
    check_free(snapshot, id, &port)?;
    match snapshot.get::<Port>(id) {
        Some(read) => give_back(snapshot, txn, &read, &port)?,
        None => make_again(snapshot, txn, id, &port)?,
    }
    Ok(missing.iter().map(SecurityGroupId::to_string).collect())
}

/// Whether the store has the port's subnets, and nobody else its MAC and addresses.
fn check_free(snapshot: &Snapshot, id: &PortId, port: &Port) -> Result<()> {
    let network = &port.network_id;
    if let Some(other) = snapshot.owner("mac", network, &port.mac_address)
        && other != id.as_str()
    {
        return Err(errors::conflict(
            "MacAddressInUse",
            format!(
                "The MAC address {} of its port {id} is in use on network {network}, by {}. {} and adopt the guest then.",
                port.mac_address,
                holder(snapshot, &other),
                free(snapshot, &other),
            ),
        ));
    }
    for fixed in &port.fixed_ips {
        let (subnet, ip) = (&fixed.subnet_id, fixed.ip_address);
        if snapshot.get::<Subnet>(subnet).is_none() {
            return Err(errors::refuse(
                ErrorKind::NotFound,
                "SubnetNotFound",
                format!(
                    "Its port {id} has the address {ip} of subnet {subnet}, which the store does not have: the subnet is younger than the \
                     backup, or was deleted since. Restore a later backup that has it."
                ),
            ));
        }
        if let Some(other) = holder_of(snapshot, subnet, ip)
            && other != id.as_str()
        {
            return Err(errors::conflict(
                "IpAddressAlreadyAllocated",
                format!(
                    "The address {ip} of its port {id} is in use on subnet {subnet}, by {}. {} and adopt the guest then.",
                    holder(snapshot, &other),
                    free(snapshot, &other),
                ),
            ));
        }
    }
    Ok(())
}

/// The port that has an address.
fn holder_of(snapshot: &Snapshot, subnet: &str, ip: IpAddr) -> Option<String> {
    snapshot
        .raw(&keys::address(subnet, ip))
        .map(|(_, owner)| String::from_utf8_lossy(&owner).into_owned())
}

/// A port with what uses it.
fn holder(snapshot: &Snapshot, id: &str) -> String {
    match snapshot.get::<Port>(&PortId::from(id)) {
        Some(port) if !port.device_id.is_empty() => {
            format!("port {id} of {} ({})", port.device_id, port.device_owner)
        }
        _ => format!("port {id}"),
    }
}

/// How its address and MAC become free.
fn free(snapshot: &Snapshot, id: &str) -> String {
    let port = snapshot.get::<Port>(&PortId::from(id));
    match port.map(|p| (p.device_owner.clone(), p.device_id.clone())) {
        Some((owner, device)) if owner.starts_with("compute:") => {
            format!("Delete that server (`openstack server delete {device}`)")
        }
        Some((owner, device)) if owner.starts_with("network:router") => {
            format!("Take that port from the router (`openstack router remove port {device} {id}`)")
        }
        _ => format!("Delete that port (`openstack port delete {id}`)"),
    }
}

fn make_again(snapshot: &Snapshot, txn: &mut Txn, id: &PortId, port: &Port) -> Result<()> {
    keys::alive::<Network>(txn, &port.network_id);
    txn.bump_epoch(&format!("ports:{}", port.network_id));
    quota::count(txn, &port.project_id, "port");
    claim_mac(snapshot, txn, &port.network_id, Some(&port.mac_address), id)?;
    for fixed in &port.fixed_ips {
        let subnet = snapshot
            .get::<Subnet>(&fixed.subnet_id)
            .ok_or_else(|| errors::subnet_not_found(&fixed.subnet_id))?;
        address::take(snapshot, txn, &fixed.subnet_id, &subnet, fixed.ip_address, id)?;
        keys::alive::<Subnet>(txn, &fixed.subnet_id);
    }
    // Whom a group may belong to was checked when the port joined it.
    join_groups(snapshot, txn, &port.project_id, &port.security_groups, true)?;
    mark_host(txn, port);
    txn.create(id, port);
    Ok(())
}

fn give_back(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Port>, port: &Port) -> Result<()> {
    if !read.device_id.is_empty() && read.device_id != port.device_id {
        return Err(errors::conflict(
            "PortInUse",
            format!(
                "Its port {} belongs to {} ({}) in the store. Take it from there (`openstack server remove port {1} {0}`) and adopt the guest \
                 then.",
                read.id, read.device_id, read.device_owner
            ),
        ));
    }
    let wanted = |f: &crate::FixedIp| FixedIpRequest {
        subnet_id: Some(f.subnet_id.clone()),
        ip_address: Some(f.ip_address),
    };
    let change = PortChange {
        device_id: Some(port.device_id.clone()),
        device_owner: Some(port.device_owner.clone()),
        host: Some(port.host.clone()),
        mac: Some(port.mac_address.clone()),
        fixed_ips: Some(port.fixed_ips.iter().map(wanted).collect()),
        port_security_enabled: Some(port.port_security_enabled),
        allowed_address_pairs: Some(port.allowed_address_pairs.clone()),
        security_groups: Some(port.security_groups.clone()),
        foreign_groups: true,
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, read, change)?;
    Ok(())
}
