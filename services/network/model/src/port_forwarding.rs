//! Port forwardings of a floating IP: one port of its address leads to one port of a guest's. A floating IP has forwardings, or leads
//! to a port as a whole, never both.
//!
//! Whoever makes or changes a forwarding writes its floating IP too, so of an association and a forwarding planned at once one
//! conflicts. One that goes with its port writes its own record alone: a transaction may drop many ports.

use crate::{FloatingIp, FloatingIpId, Port, PortId, RouterId, errors, floating_ip, keys};
use maru_base::{Error, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

maru_base::typed_id!(
    /// Id of a port forwarding, a UUID.
    PortForwardingId
);

/// Most forwardings of one floating IP: a router's rules are told to its node as one.
pub const MOST_FORWARDINGS: usize = 500;
/// The protocols that are forwarded, with their IANA numbers.
pub const PROTOCOLS: &[(&str, u8)] = &[("tcp", 6), ("udp", 17)];
const CLAIM: &str = "forwarding";

/// A port forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    /// The floating IP.
    pub floatingip_id: FloatingIpId,
    /// One of [`PROTOCOLS`].
    pub protocol: String,
    /// The port of the floating address.
    pub external_port: u16,
    /// The port (of the network) that it leads to.
    pub internal_port_id: PortId,
    /// Which of its addresses.
    pub internal_ip_address: Ipv4Addr,
    /// The port there.
    pub internal_port: u16,
    /// The router on the way.
    pub router_id: RouterId,
    /// Free text.
    pub description: String,
}

impl Kind for PortForwarding {
    type Id = PortForwardingId;
    const NAME: &'static str = "port_forwarding";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "floatingip",
                values: |f| vec![f.floatingip_id.to_string()],
            },
            Index {
                name: "port",
                values: |f| vec![f.internal_port_id.to_string()],
            },
            Index {
                name: "router",
                values: |f| vec![f.router_id.to_string()],
            },
        ]
    }
}

impl PortForwarding {
    /// What no two forwardings of a floating IP share.
    fn outer(&self) -> String {
        format!("{}|{}", self.protocol, self.external_port)
    }
}

/// What a port forwarding shall be.
#[derive(Debug, Clone)]
pub struct ForwardingRequest {
    /// See [`PortForwarding`].
    pub protocol: String,
    /// See [`PortForwarding`].
    pub external_port: u16,
    /// See [`PortForwarding`].
    pub internal_port_id: PortId,
    /// The port's only IPv4 address, if `None`.
    pub internal_ip_address: Option<IpAddr>,
    /// See [`PortForwarding`].
    pub internal_port: u16,
    /// See [`PortForwarding`].
    pub description: String,
}

/// The 404 of a forwarding.
#[must_use]
pub fn forwarding_not_found(id: &str) -> Error {
    errors::not_found("PortForwardingNotFound", "Port Forwarding", id)
}

/// The forwardings of a floating IP, by id.
#[must_use]
pub fn forwardings_of(snapshot: &Snapshot, fip: &str) -> Vec<Object<PortForwarding>> {
    snapshot.find::<PortForwarding>("floatingip", fip).collect()
}

/// Plans a forwarding: a new one, or another instead of `old`.
///
/// # Errors
/// 404 for a port that is not there; 400 for an address that the port has not, for one behind another router than the others', and for
/// an outer port that is taken; 409 when the floating IP, or that address, is associated as a whole.
pub fn plan_forwarding(
    snapshot: &Snapshot,
    txn: &mut Txn,
    fip: &Object<FloatingIp>,
    old: Option<&Object<PortForwarding>>,
    wanted: ForwardingRequest,
) -> Result<(PortForwardingId, PortForwarding)> {
    let outer_address = fip.floating_ip_address;
    if let (Some(port), Some(ip)) = (&fip.port_id, fip.fixed_ip_address) {
        return Err(errors::conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Floating IP {outer_address} ({}) leads to port {port} with fixed IP {ip} as a whole; disassociate it before its ports are \
                 forwarded.",
                fip.id
            ),
        ));
    }
    let port_id = wanted.internal_port_id;
    let port = keys::look::<Port>(snapshot, txn, &port_id).ok_or_else(|| errors::port_not_found(&port_id))?;
    let fixed = floating_ip::fixed_of(&port_id, &port, wanted.internal_ip_address)?;
    let IpAddr::V4(address) = fixed.ip_address else {
        return Err(errors::bad_request("port_forwarding", "IPv4 alone is forwarded"));
    };
    let whole = snapshot
        .find::<FloatingIp>("port", &port_id)
        .find(|f| f.value.fixed_ip_address == Some(fixed.ip_address));
    if let Some(other) = whole {
        return Err(errors::conflict(
            "PortHasBindingFloatingIP",
            format!(
                "Cannot create port forwarding to floating IP {outer_address} ({}) with port {port_id} using fixed IP {address}, as that port \
                 already has a binding floating IP: {}.",
                fip.id, other.value.floating_ip_address
            ),
        ));
    }
    let way = floating_ip::hold_way(snapshot, txn, &port_id, &fixed.subnet_id, &fip.floating_network_id)?;
    let new = PortForwarding {
        floatingip_id: fip.id.clone(),
        protocol: wanted.protocol,
        external_port: wanted.external_port,
        internal_port_id: port_id,
        internal_ip_address: address,
        internal_port: wanted.internal_port,
        router_id: way,
        description: wanted.description,
    };
    let mut others = forwardings_of(snapshot, &fip.id);
    others.retain(|f| old.is_none_or(|old| old.id != f.id));
    if others.len() >= MOST_FORWARDINGS {
        return Err(errors::conflict(
            "OverQuota",
            format!("A floating IP has at most {MOST_FORWARDINGS} port forwardings."),
        ));
    }
    if let Some(other) = others.iter().find(|f| f.router_id != new.router_id) {
        return Err(errors::bad_request(
            "port_forwarding",
            format!(
                "port {} is behind router {}, the floating IP's other forwardings are behind router {}",
                new.internal_port_id, new.router_id, other.router_id
            ),
        ));
    }
    if let Some(other) = others.iter().find(|f| f.outer() == new.outer()) {
        return Err(errors::bad_request(
            "port_forwarding",
            format!(
                "A duplicate port forwarding entry with same attributes already exists: {} port {} is forwarded by {}",
                new.protocol, new.external_port, other.id
            ),
        ));
    }
    touch(txn, fip);
    let id = match old {
        None => {
            let id = PortForwardingId::new_uuid();
            txn.claim(CLAIM, &fip.id, &new.outer(), &id).create(&id, &new);
            id
        }
        Some(old) => {
            if old.outer() != new.outer() {
                txn.release(CLAIM, &fip.id, &old.outer())
                    .claim(CLAIM, &fip.id, &new.outer(), &old.id);
            }
            txn.update(old, &new);
            old.id.clone()
        }
    };
    Ok((id, new))
}

fn touch(txn: &mut Txn, fip: &Object<FloatingIp>) {
    let mut new = (*fip.value).clone();
    new.meta.touch();
    txn.update(fip, &new);
}

/// Plans that a forwarding goes.
pub fn plan_delete_forwarding(txn: &mut Txn, fip: &Object<FloatingIp>, read: &Object<PortForwarding>) {
    touch(txn, fip);
    drop_one(txn, read);
}

fn drop_one(txn: &mut Txn, read: &Object<PortForwarding>) {
    txn.release(CLAIM, &read.floatingip_id, &read.outer());
    txn.delete(read);
}

/// Plans that the forwardings of a floating IP go with it.
pub(crate) fn drop_with(snapshot: &Snapshot, txn: &mut Txn, fip: &FloatingIpId) {
    for f in forwardings_of(snapshot, fip) {
        drop_one(txn, &f);
    }
}

/// Plans that the forwardings to some addresses of a port go; `None` is all of them.
pub(crate) fn drop_to(snapshot: &Snapshot, txn: &mut Txn, port: &PortId, lost: Option<&[IpAddr]>) {
    for f in snapshot.find::<PortForwarding>("port", port) {
        if lost.is_none_or(|lost| lost.contains(&f.internal_ip_address.into())) {
            drop_one(txn, &f);
        }
    }
}

/// Refuses to associate a floating IP as a whole where ports are forwarded: its own, or to that address.
pub(crate) fn check_not_forwarded(
    snapshot: &Snapshot,
    (id, fip): (&FloatingIpId, &FloatingIp),
    port: &PortId,
    ip: IpAddr,
) -> Result<()> {
    let own = forwardings_of(snapshot, id).len();
    if own > 0 {
        return Err(errors::conflict(
            "FipInUseByPortForwarding",
            format!("Floating IP {id} in use by Port Forwarding resources; delete its {own} forwardings first."),
        ));
    }
    let mut to_port = snapshot.find::<PortForwarding>("port", port);
    match to_port.find(|f| IpAddr::V4(f.internal_ip_address) == ip) {
        None => Ok(()),
        Some(other) => Err(errors::conflict(
            "PortHasPortForwarding",
            format!(
                "Cannot associate floating IP {} ({id}) with port {port} using fixed IP {ip}, as that fixed IP already has Port Forwarding \
                 resources: of floating IP {}.",
                fip.floating_ip_address, other.floatingip_id
            ),
        )),
    }
}
