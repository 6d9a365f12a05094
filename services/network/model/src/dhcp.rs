//! The DHCP port of a network: one, with one address per DHCP subnet. The agent of every node answers at these addresses
//! for the guests that are on it, so the port is bound to no host.

use crate::{
    FixedIpRequest, Network, NetworkId, Port, PortRequest, Subnet, SubnetId, errors, keys,
    port::{PortChange, plan_create_port, plan_drop_port, plan_update_port},
};
use maru_base::Result;
use maru_store::{Object, Snapshot, Txn};
use std::net::IpAddr;

/// Device owner of DHCP ports.
pub const OWNER: &str = "network:dhcp";

/// The DHCP port of a network.
#[must_use]
pub fn dhcp_port(snapshot: &Snapshot, network: &NetworkId) -> Option<Object<Port>> {
    snapshot
        .find::<Port>("network", network)
        .find(|p| p.value.device_owner == OWNER)
}
/// The address at which DHCP and metadata answer in a subnet.
#[must_use]
pub fn dhcp_address(snapshot: &Snapshot, network: &NetworkId, subnet: &SubnetId) -> Option<IpAddr> {
    let port = dhcp_port(snapshot, network)?;
    port.value
        .fixed_ips
        .iter()
        .find(|f| f.subnet_id == *subnet)
        .map(|f| f.ip_address)
}

/// Makes the DHCP port of a network fit its subnets (`all`, as they will be after this transaction).
/// The caller holds the epoch `subnets:<network>`.
///
/// # Errors
/// 409 when a subnet has no address left for it.
pub fn plan_dhcp_port(
    snapshot: &Snapshot,
    txn: &mut Txn,
    network_id: &NetworkId,
    all: &[(SubnetId, Subnet)],
) -> Result<()> {
    let wanted: Vec<&SubnetId> = all.iter().filter(|(_, s)| s.enable_dhcp).map(|(id, _)| id).collect();
    let existing = dhcp_port(snapshot, network_id);
    let Some(port) = existing else {
        if wanted.is_empty() {
            return Ok(());
        }
        let network =
            keys::look::<Network>(snapshot, txn, network_id).ok_or_else(|| errors::network_not_found(network_id))?;
        let fixed = wanted
            .iter()
            .map(|id| FixedIpRequest::in_subnet((*id).clone()))
            .collect();
        let request = PortRequest {
            fixed_ips: Some(fixed),
            device_owner: OWNER.to_owned(),
            device_id: format!("dhcp-{network_id}"),
            by_the_cloud: true,
            ..PortRequest::new(network_id.clone(), network.project_id)
        };
        plan_create_port(snapshot, txn, request)?;
        return Ok(());
    };
    if wanted.is_empty() {
        plan_drop_port(snapshot, txn, &port);
        return Ok(());
    }
    let has = |id: &SubnetId| port.value.fixed_ips.iter().find(|f| f.subnet_id == *id);
    if wanted.len() == port.value.fixed_ips.len() && wanted.iter().all(|id| has(id).is_some()) {
        return Ok(());
    }
    let fixed = wanted
        .iter()
        .map(|id| FixedIpRequest {
            subnet_id: Some((*id).clone()),
            ip_address: has(id).map(|f| f.ip_address),
        })
        .collect();
    let change = PortChange {
        fixed_ips: Some(fixed),
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, &port, change)?;
    Ok(())
}
