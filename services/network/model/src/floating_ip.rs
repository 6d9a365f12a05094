//! Floating IPs: an address of an external network that leads, one to one, to an address of a port behind a router whose
//! gateway is on that network.

use crate::{
    FixedIpRequest, Meta, Network, NetworkId, Port, PortForwarding, PortId, PortRequest, Router, RouterId, Subnet,
    SubnetId, address, errors, keys,
    port::{plan_create_port, plan_drop_port},
    port_forwarding,
    port_plan::subnets_of,
    quota, router,
};
use maru_base::{ErrorKind, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

maru_base::typed_id!(
    /// Id of a floating IP, a UUID.
    FloatingIpId
);

/// Device owner of the ports that hold floating IPs' addresses.
pub const OWNER: &str = "network:floatingip";
const CLAIM: &str = "floating";

/// A floating IP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Owner.
    pub project_id: ProjectId,
    /// The external network.
    pub floating_network_id: NetworkId,
    /// The outer address.
    pub floating_ip_address: Ipv4Addr,
    /// The port on the external network that holds the address.
    pub floating_port_id: PortId,
    /// The port it leads to.
    pub port_id: Option<PortId>,
    /// The inner address.
    pub fixed_ip_address: Option<IpAddr>,
    /// The router on the way.
    pub router_id: Option<RouterId>,
    /// Host name in DNS.
    pub dns_name: String,
    /// Domain of it.
    pub dns_domain: String,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for FloatingIp {
    type Id = FloatingIpId;
    const NAME: &'static str = "floating_ip";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |f| vec![f.project_id.to_string()],
            },
            Index {
                name: "network",
                values: |f| vec![f.floating_network_id.to_string()],
            },
            Index {
                name: "port",
                values: |f| f.port_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "router",
                values: |f| f.router_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "address",
                values: |f| vec![f.floating_ip_address.to_string()],
            },
        ]
    }
}

/// What a floating IP shall be.
#[derive(Debug, Clone)]
pub struct FloatingIpRequest {
    /// Owner.
    pub project_id: ProjectId,
    /// The external network.
    pub network: NetworkId,
    /// Subnet of it; any if `None`.
    pub subnet: Option<SubnetId>,
    /// Exactly this address.
    pub address: Option<IpAddr>,
    /// The port it shall lead to.
    pub port: Option<PortId>,
    /// Which of the port's addresses.
    pub fixed_ip: Option<IpAddr>,
    /// See [`Meta`].
    pub description: String,
    /// See [`FloatingIp`].
    pub dns_name: String,
    /// See [`FloatingIp`].
    pub dns_domain: String,
    /// See [`Meta`].
    pub tags: Vec<String>,
}

/// Plans a new floating IP.
///
/// # Errors
/// 404 for a network or port that is not there, 404 `ExternalGatewayForFloatingIPNotFound`, 400 for a network that is not
/// external, 409 over quota or when no address is left.
pub fn plan_create_floating_ip(
    snapshot: &Snapshot,
    txn: &mut Txn,
    request: FloatingIpRequest,
) -> Result<(FloatingIpId, FloatingIp)> {
    let network_id = request.network;
    let network =
        keys::look::<Network>(snapshot, txn, &network_id).ok_or_else(|| errors::network_not_found(&network_id))?;
    if !network.external {
        return Err(errors::bad_request(
            "floatingip",
            format!("network {network_id} is not a valid external network; floating IPs come from external ones"),
        ));
    }
    quota::consume(snapshot, txn, &request.project_id, "floatingip")?;
    let id = FloatingIpId::new_uuid();
    let v4: Vec<(SubnetId, Subnet)> = subnets_of(snapshot, txn, &network_id)
        .into_iter()
        .filter(|(_, s)| s.cidr.addr().is_ipv4())
        .collect();
    if v4.is_empty() {
        return Err(errors::bad_request(
            "floatingip",
            format!("network {network_id} does not contain any IPv4 subnet"),
        ));
    }
    let wanted = match (request.subnet, request.address) {
        (None, None) => {
            let room = v4.iter().find(|(i, s)| address::choose(snapshot, txn, i, s).is_some());
            FixedIpRequest::in_subnet(
                room.or_else(|| v4.first())
                    .map(|(i, _)| i.clone())
                    .unwrap_or_else(SubnetId::new_uuid),
            )
        }
        (subnet_id, ip_address) => FixedIpRequest { subnet_id, ip_address },
    };
    let (floating_port_id, outer) = plan_create_port(
        snapshot,
        txn,
        PortRequest {
            fixed_ips: Some(vec![wanted]),
            device_owner: OWNER.to_owned(),
            device_id: id.to_string(),
            by_the_cloud: true,
            ..PortRequest::new(network_id.clone(), ProjectId::from(""))
        },
    )?;
    let Some(IpAddr::V4(floating_ip_address)) = outer.fixed_ips.first().map(|f| f.ip_address) else {
        return Err(errors::bad_request(
            "floatingip",
            "a floating IP is an IPv4 address; name an IPv4 subnet",
        ));
    };
    let mut fip = FloatingIp {
        project_id: request.project_id,
        floating_network_id: network_id,
        floating_ip_address,
        floating_port_id,
        port_id: None,
        fixed_ip_address: None,
        router_id: None,
        dns_name: request.dns_name,
        dns_domain: request.dns_domain,
        meta: Meta::new(request.description).with_tags(request.tags),
    };
    if let Some(port) = request.port {
        lead_to(snapshot, txn, &id, &mut fip, &port, request.fixed_ip)?;
    }
    txn.create(&id, &fip);
    Ok((id, fip))
}

/// Plans where a floating IP leads: to a port, or (`None`) nowhere. `change` may alter the rest before it is written.
///
/// # Errors
/// As [`plan_create_floating_ip`]; 409 `FloatingIPPortAlreadyAssociated` when that address has a floating IP already.
pub fn plan_associate(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<FloatingIp>,
    port: Option<&PortId>,
    fixed_ip: Option<IpAddr>,
    change: impl FnOnce(&mut FloatingIp),
) -> Result<FloatingIp> {
    let mut fip = (*read.value).clone();
    change(&mut fip);
    let same = fip.port_id.as_ref() == port && (fixed_ip.is_none() || fixed_ip == fip.fixed_ip_address);
    if !same || port.is_none() {
        leave(txn, &mut fip);
        if let Some(port) = port {
            lead_to(snapshot, txn, &read.id, &mut fip, port, fixed_ip)?;
        }
    }
    fip.meta.touch();
    txn.update(read, &fip);
    Ok(fip)
}

/// Takes a floating IP off its port (the port goes away).
pub(crate) fn plan_disassociate(txn: &mut Txn, read: &Object<FloatingIp>) {
    let mut fip = (*read.value).clone();
    leave(txn, &mut fip);
    fip.meta.touch();
    txn.update(read, &fip);
}

/// Plans the deletion of a floating IP; its address is free.
pub fn plan_delete_floating_ip(snapshot: &Snapshot, txn: &mut Txn, read: &Object<FloatingIp>) {
    let mut fip = (*read.value).clone();
    leave(txn, &mut fip);
    if let Some(port) = snapshot.get::<Port>(&fip.floating_port_id) {
        plan_drop_port(snapshot, txn, &port);
    }
    port_forwarding::drop_with(snapshot, txn, &read.id);
    quota::release(txn, &fip.project_id, "floatingip");
    txn.delete(read);
}

/// Removes a floating IP that leads nowhere; the caller drops its port. One that is led somewhere at this moment conflicts.
pub(crate) fn plan_drop_idle(txn: &mut Txn, read: &Object<FloatingIp>) {
    quota::release(txn, &read.value.project_id, "floatingip");
    txn.delete(read);
}

fn pair(port: &PortId, ip: IpAddr) -> String {
    format!("{port}|{ip}")
}

fn leave(txn: &mut Txn, fip: &mut FloatingIp) {
    if let (Some(port), Some(ip)) = (fip.port_id.take(), fip.fixed_ip_address.take()) {
        txn.release(CLAIM, &fip.floating_network_id, &pair(&port, ip));
    }
    fip.router_id = None;
}

fn lead_to(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &FloatingIpId,
    fip: &mut FloatingIp,
    port_id: &PortId,
    fixed_ip: Option<IpAddr>,
) -> Result<()> {
    let port = keys::look::<Port>(snapshot, txn, port_id).ok_or_else(|| errors::port_not_found(port_id))?;
    let fixed = fixed_of(port_id, &port, fixed_ip)?;
    port_forwarding::check_not_forwarded(snapshot, (id, fip), port_id, fixed.ip_address)?;
    let name = pair(port_id, fixed.ip_address);
    let key = keys::claim(CLAIM, &fip.floating_network_id, &name);
    let holder = snapshot
        .owner(CLAIM, &fip.floating_network_id, &name)
        .or_else(|| keys::pending_text(txn, &key));
    if let Some(other) = holder.filter(|o| *o != id.as_str()) {
        return Err(errors::conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Cannot associate floating IP {} ({id}) with port {port_id} using fixed IP {}: floating IP {other} of the same \
                 external network leads there already.",
                fip.floating_ip_address, fixed.ip_address
            ),
        ));
    }
    let way = hold_way(snapshot, txn, port_id, &fixed.subnet_id, &fip.floating_network_id)?;
    if snapshot.owner(CLAIM, &fip.floating_network_id, &name).is_none() {
        txn.claim(CLAIM, &fip.floating_network_id, &name, id);
    }
    fip.port_id = Some(port_id.clone());
    fip.fixed_ip_address = Some(fixed.ip_address);
    fip.router_id = Some(way);
    Ok(())
}

/// The address of a port that is asked for, or its only IPv4 address.
pub(crate) fn fixed_of(port_id: &PortId, port: &Port, wanted: Option<IpAddr>) -> Result<crate::FixedIp> {
    let v4: Vec<&crate::FixedIp> = port.fixed_ips.iter().filter(|f| f.ip_address.is_ipv4()).collect();
    let refused = |why: String| Err(errors::bad_request("floatingip", why));
    match (wanted, v4.as_slice()) {
        (Some(ip), _) => match v4.iter().find(|f| f.ip_address == ip) {
            Some(fixed) => Ok((*fixed).clone()),
            None => refused(format!(
                "port {port_id} does not have fixed ip {ip}; name one of its IPv4 addresses"
            )),
        },
        (None, [one]) => Ok((*one).clone()),
        (None, []) => refused(format!(
            "port {port_id} has no fixed IPv4 address to lead a floating IP to"
        )),
        (None, _) => refused(format!(
            "port {port_id} has multiple fixed IPv4 addresses; name one as fixed_ip_address"
        )),
    }
}

/// The router on the way from an external network to a port's subnet, held so that its gateway, that interface and the port stay.
pub(crate) fn hold_way(
    snapshot: &Snapshot,
    txn: &mut Txn,
    port: &PortId,
    subnet: &SubnetId,
    network: &NetworkId,
) -> Result<RouterId> {
    let way = router_between(snapshot, subnet, network).ok_or_else(|| {
        errors::refuse(
            ErrorKind::NotFound,
            "ExternalGatewayForFloatingIPNotFound",
            format!(
                "External network {network} is not reachable from subnet {subnet}: no router joins them, so port {port} cannot be \
                 associated with a floating IP. Give a router a gateway on the one and an interface on the other.",
            ),
        )
    })?;
    // A gateway or interface that goes away at this moment conflicts.
    keys::hold_epoch(snapshot, txn, &format!("router:{way}"));
    keys::alive::<Router>(txn, &way);
    // So does a port that goes away or changes its addresses, or whose other floating IPs change.
    keys::alive::<Port>(txn, port);
    keys::hold_epoch(snapshot, txn, &format!("fips:{port}"));
    Ok(way)
}

/// The router with an interface on a subnet and its gateway on an external network.
fn router_between(snapshot: &Snapshot, subnet: &SubnetId, external: &NetworkId) -> Option<RouterId> {
    let fits = |id: &RouterId| {
        snapshot
            .get::<Router>(id)
            .is_some_and(|r| r.value.gateway.as_ref().is_some_and(|g| g.network_id == *external))
    };
    // The router at the subnet's gateway address first, as guests send there.
    let gateway = snapshot.get::<Subnet>(subnet).and_then(|s| s.value.gateway_ip);
    let mut candidates: Vec<(bool, RouterId)> = snapshot
        .find::<Port>("subnet", subnet)
        .filter(|p| p.value.device_owner == router::INTERFACE)
        .map(|p| {
            let at_gateway = p.value.fixed_ips.iter().any(|f| Some(f.ip_address) == gateway);
            (!at_gateway, RouterId::from(p.value.device_id.as_str()))
        })
        .collect();
    candidates.sort();
    candidates.into_iter().map(|(_, id)| id).find(fits)
}

/// The router on the way, as a whole or for its forwarded ports.
#[must_use]
pub fn floating_ip_router(snapshot: &Snapshot, id: &str, fip: &FloatingIp) -> Option<RouterId> {
    let whole = fip.router_id.clone().filter(|_| fip.port_id.is_some());
    whole.or_else(|| {
        let mut forwardings = snapshot.find::<PortForwarding>("floatingip", id);
        forwardings.next().map(|f| f.router_id.clone())
    })
}

/// The status that the API shows: ACTIVE when it leads to a port, or one of its ports does, and its router's gateway works.
#[must_use]
pub fn floating_ip_status(snapshot: &Snapshot, id: &str, fip: &FloatingIp) -> &'static str {
    let works = floating_ip_router(snapshot, id, fip)
        .as_ref()
        .and_then(|id| snapshot.get::<Router>(id))
        .and_then(|r| r.value.gateway.clone())
        .and_then(|g| snapshot.get::<Port>(&g.port_id))
        .is_some_and(|p| crate::port_is_up(snapshot, &p.id, &p.value));
    if works { "ACTIVE" } else { "DOWN" }
}
