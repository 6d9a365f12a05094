//! Planners of ports.

use crate::{
    AddressPair, DhcpOption, FixedIp, FixedIpRequest, FloatingIp, Meta, Network, NetworkId, ObservedPort, Port, PortId,
    PortRequest, QosPolicyId, SecurityGroup, SecurityGroupId, Subnet, SubnetId, TombstonePort, address, default_group,
    errors, floating_ip, keys, ndp_proxy, port_forwarding, qos, quota, router, trunk,
};
use maru_base::{ErrorKind, ProjectId, Result};
use maru_store::{Object, Op, Snapshot, Txn};
use std::{collections::BTreeMap, net::IpAddr};

/// A changed DHCP option: name, value (`None` takes it away), IP version.
pub type DhcpOptionChange = (String, Option<String>, u8);

/// What shall change of a port; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct PortChange {
    /// See [`Port`].
    pub name: Option<String>,
    /// See [`Meta`].
    pub description: Option<String>,
    /// See [`Port`].
    pub admin_state_up: Option<bool>,
    /// All addresses; an entry that names only a subnet keeps the port's address there.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// See [`Port`].
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// Whether groups of other projects may be named.
    pub foreign_groups: bool,
    /// See [`Port`].
    pub port_security_enabled: Option<bool>,
    /// See [`Port`].
    pub allowed_address_pairs: Option<Vec<AddressPair>>,
    /// Changed options; an empty value takes one away.
    pub extra_dhcp_opts: Option<Vec<DhcpOptionChange>>,
    /// See [`Port`].
    pub device_id: Option<String>,
    /// See [`Port`].
    pub device_owner: Option<String>,
    /// See [`Port`].
    pub host: Option<String>,
    /// See [`Port`].
    pub mac: Option<String>,
    /// See [`Port`].
    pub vnic_type: Option<String>,
    /// See [`Port`].
    pub profile: Option<BTreeMap<String, serde_json::Value>>,
    /// See [`Port`].
    pub dns_name: Option<String>,
    /// See [`Port`].
    pub qos_policy_id: Option<Option<QosPolicyId>>,
}

/// Plans a new port with its addresses, MAC and security groups.
///
/// # Errors
/// 404 for a network, subnet or group that is not there; 400 for addresses that cannot be; 409 for an address or MAC in
/// use, when no address is left, or over quota.
pub fn plan_create_port(snapshot: &Snapshot, txn: &mut Txn, request: PortRequest) -> Result<(PortId, Port)> {
    let id = PortId::new_uuid();
    let network_id = request.network.clone();
    let network =
        keys::look::<Network>(snapshot, txn, &network_id).ok_or_else(|| errors::network_not_found(&network_id))?;
    keys::alive::<Network>(txn, &network_id);
    txn.bump_epoch(&format!("ports:{network_id}"));
    if request.by_the_cloud {
        quota::count(txn, &request.project, "port");
    } else {
        quota::consume(snapshot, txn, &request.project, "port")?;
    }
    let mac = claim_mac(snapshot, txn, &network_id, request.mac.as_deref(), &id)?;
    let mut taking = Taking {
        snapshot,
        txn,
        network_id: &network_id,
        mac: &mac,
        owner: &request.device_owner,
        port: &id,
    };
    let fixed_ips = match &request.fixed_ips {
        Some(wanted) => taking.these(wanted, &[])?,
        None => taking.usual()?,
    };
    let for_network = request.device_owner.starts_with("network:");
    let port_security = request
        .port_security
        .unwrap_or(network.port_security_enabled && !for_network);
    let security_groups = match request.security_groups {
        Some(groups) => groups,
        None if port_security && !for_network && !request.project.is_empty() => {
            vec![default_group::ensure_default_group(snapshot, txn, &request.project)?]
        }
        None => Vec::new(),
    };
    join_groups(
        snapshot,
        txn,
        &request.project,
        &security_groups,
        request.foreign_groups,
    )?;
    let port = Port {
        project_id: request.project,
        network_id,
        name: request.name,
        mac_address: mac,
        fixed_ips,
        device_id: request.device_id,
        device_owner: request.device_owner,
        admin_state_up: request.admin_state_up,
        security_groups,
        port_security_enabled: port_security,
        allowed_address_pairs: request.allowed_address_pairs,
        extra_dhcp_opts: request.extra_dhcp_opts,
        host: request.host,
        vnic_type: request.vnic_type,
        profile: request.profile,
        dns_name: request.dns_name,
        qos_policy_id: request.qos_policy_id,
        meta: Meta::new(request.description).with_tags(request.tags),
    };
    check_security(&port)?;
    if let Some(policy) = &port.qos_policy_id {
        qos::hold_policy(txn, policy);
    }
    mark_host(txn, &port);
    txn.create(&id, &port);
    Ok((id, port))
}

/// Plans a change of a port and gives what it will be.
///
/// # Errors
/// As [`plan_create_port`]; 409 `PortBound` for another MAC while it is bound.
pub fn plan_update_port(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Port>, change: PortChange) -> Result<Port> {
    let id = &read.id;
    let old = &read.value;
    let mut port = (**old).clone();
    macro_rules! set {
        ($($field:ident),*) => { $(if let Some(v) = change.$field { port.$field = v; })* };
    }
    set!(
        name,
        admin_state_up,
        port_security_enabled,
        allowed_address_pairs,
        device_id,
        device_owner,
        host,
        vnic_type,
        profile,
        dns_name,
        qos_policy_id
    );
    if port.qos_policy_id != old.qos_policy_id
        && let Some(policy) = &port.qos_policy_id
    {
        qos::hold_policy(txn, policy);
    }
    if let Some(description) = change.description {
        port.meta.description = description;
    }
    if let Some(mac) = change.mac
        && mac != old.mac_address
    {
        if !old.host.is_empty() {
            return Err(errors::conflict(
                "PortBound",
                format!(
                    "Port {id} is bound to {}; its MAC can be changed when it is not.",
                    old.host
                ),
            ));
        }
        txn.release("mac", &port.network_id, &old.mac_address);
        port.mac_address = claim_mac(snapshot, txn, &port.network_id, Some(&mac), id)?;
    }
    if let Some(wanted) = change.fixed_ips {
        let mut taking = Taking {
            snapshot,
            txn,
            network_id: &old.network_id,
            mac: &port.mac_address,
            owner: &port.device_owner,
            port: id,
        };
        port.fixed_ips = taking.these(&wanted, &old.fixed_ips)?;
        let gone: Vec<&FixedIp> = old.fixed_ips.iter().filter(|f| !port.fixed_ips.contains(f)).collect();
        for fixed in &gone {
            let subnet = snapshot.get::<Subnet>(&fixed.subnet_id);
            address::give(
                txn,
                &fixed.subnet_id,
                subnet.as_ref().map(|s| &*s.value),
                fixed.ip_address,
            );
        }
        if !gone.is_empty() {
            let lost: Vec<IpAddr> = gone.iter().map(|f| f.ip_address).collect();
            keys::watch_epoch(snapshot, txn, &format!("fips:{id}"));
            for fip in snapshot.find::<FloatingIp>("port", id) {
                if fip.value.fixed_ip_address.is_some_and(|a| lost.contains(&a)) {
                    floating_ip::plan_disassociate(txn, &fip);
                }
            }
            port_forwarding::drop_to(snapshot, txn, id, Some(&lost));
            ndp_proxy::drop_to(snapshot, txn, id, Some(&lost));
        }
    }
    if let Some(options) = change.extra_dhcp_opts {
        for (name, value, version) in options {
            port.extra_dhcp_opts
                .retain(|o| !(o.opt_name == name && o.ip_version == version));
            if let Some(opt_value) = value {
                port.extra_dhcp_opts.push(DhcpOption {
                    opt_name: name,
                    opt_value,
                    ip_version: version,
                });
            }
        }
    }
    if let Some(groups) = change.security_groups {
        let new: Vec<SecurityGroupId> = groups
            .iter()
            .filter(|g| !old.security_groups.contains(g))
            .cloned()
            .collect();
        join_groups(snapshot, txn, &port.project_id, &new, change.foreign_groups)?;
        port.security_groups = groups;
    }
    check_security(&port)?;
    if port.host != old.host {
        mark_host(txn, &port);
        txn.op(Op::Delete(keys::object_key::<ObservedPort>(id)));
        trunk::follow(snapshot, txn, id, &port.host)?;
    }
    port.meta.touch();
    txn.update(read, &port);
    Ok(port)
}

/// Plans the deletion of a port as a client may ask for it.
///
/// # Errors
/// 409 `ServicePortInUse` for a port that a router or floating IP owns, `PortInUseAsSubPort` or `PortInUseAsTrunkParent` for one
/// of a trunk.
pub fn plan_delete_port(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Port>) -> Result<()> {
    let owner = &read.value.device_owner;
    if router::is_router_port(&read.value) || owner == floating_ip::OWNER {
        return Err(errors::conflict(
            "ServicePortInUse",
            format!(
                "Port {} cannot be deleted directly: it belongs to {} {} (device owner {owner}); remove it there.",
                read.id,
                if owner == floating_ip::OWNER {
                    "floating IP"
                } else {
                    "router"
                },
                read.value.device_id
            ),
        ));
    }
    trunk::not_of_a_trunk(snapshot, &read.id)?;
    plan_drop_port(snapshot, txn, read);
    Ok(())
}

/// Plans the deletion of a port whoever owns it: its addresses, MAC and quota are free, its floating IPs lead nowhere, and
/// its node is told by a tombstone.
pub fn plan_drop_port(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Port>) {
    let id = &read.id;
    let port = &read.value;
    for fixed in &port.fixed_ips {
        let subnet = keys::look::<Subnet>(snapshot, txn, &fixed.subnet_id);
        address::give(txn, &fixed.subnet_id, subnet.as_ref(), fixed.ip_address);
    }
    txn.release("mac", &port.network_id, &port.mac_address);
    quota::release(txn, &port.project_id, "port");
    keys::watch_epoch(snapshot, txn, &format!("fips:{id}"));
    for fip in snapshot.find::<FloatingIp>("port", id) {
        floating_ip::plan_disassociate(txn, &fip);
    }
    port_forwarding::drop_to(snapshot, txn, id, None);
    ndp_proxy::drop_to(snapshot, txn, id, None);
    keys::bury(txn, keys::epoch(&format!("fips:{id}")));
    txn.op(Op::Delete(keys::object_key::<ObservedPort>(id)));
    if !port.host.is_empty() {
        txn.put(
            id,
            &TombstonePort {
                host: port.host.clone(),
                network_id: port.network_id.clone(),
                revision: snapshot.revision(),
            },
        );
    }
    txn.delete(read);
}

/// Notes that a port's network is on the port's host. Written each time, so that a report of removal that crosses it
/// conflicts; guards that the network lives, so that a deletion that crosses it sees the mark.
pub(crate) fn mark_host(txn: &mut Txn, port: &Port) {
    if port.host.is_empty() {
        return;
    }
    keys::alive::<Network>(txn, &port.network_id);
    let key = keys::network_host(&port.network_id, &port.host);
    if !keys::touched(txn, &key) {
        txn.op(Op::Put(key, bytes_of("1")));
    }
}

fn bytes_of(text: &'static str) -> bytes::Bytes {
    bytes::Bytes::from_static(text.as_bytes())
}

pub(crate) fn claim_mac(
    snapshot: &Snapshot,
    txn: &mut Txn,
    network: &NetworkId,
    wanted: Option<&str>,
    port: &PortId,
) -> Result<String> {
    let mac = match wanted {
        None => address::choose_mac(snapshot, txn, network),
        Some(text) => address::normal_mac(text)
            .ok_or_else(|| errors::invalid_input(format!("'{text}' is not a MAC address such as fa:16:3e:12:34:56")))?,
    };
    let key = keys::claim("mac", network, &mac);
    if snapshot.raw(&key).is_some() || keys::written(txn, &key) {
        return Err(errors::conflict(
            "MacAddressInUse",
            format!("The MAC address {mac} is in use on network {network}; choose another or leave it out."),
        ));
    }
    txn.claim("mac", network, &mac, port);
    Ok(mac)
}

pub(crate) fn join_groups(
    snapshot: &Snapshot,
    txn: &mut Txn,
    project: &ProjectId,
    groups: &[SecurityGroupId],
    foreign: bool,
) -> Result<()> {
    for id in groups {
        let group = keys::look::<SecurityGroup>(snapshot, txn, id);
        if !group.is_some_and(|g| foreign || g.project_id == *project) {
            return Err(errors::group_not_found(id));
        }
        keys::alive::<SecurityGroup>(txn, id);
        txn.bump_epoch(&format!("ports:{id}"));
    }
    Ok(())
}

fn check_security(port: &Port) -> Result<()> {
    if port.allowed_address_pairs.len() > 10 {
        return Err(errors::refuse(
            ErrorKind::BadRequest,
            "AllowedAddressPairExhausted",
            "A port has at most 10 allowed address pairs; name blocks instead of single addresses.",
        ));
    }
    if port.port_security_enabled {
        return Ok(());
    }
    if !port.security_groups.is_empty() {
        return Err(errors::conflict(
            "PortSecurityPortHasSecurityGroup",
            "A port with security groups cannot have port security off; take its security groups away first.",
        ));
    }
    if !port.allowed_address_pairs.is_empty() {
        return Err(errors::conflict(
            "AddressPairAndPortSecurityRequired",
            "Allowed address pairs need port security; switch it on or take the pairs away.",
        ));
    }
    Ok(())
}

/// Subnets of a network as they will be after the transaction.
#[must_use]
pub fn subnets_of(snapshot: &Snapshot, txn: &Txn, network: &NetworkId) -> Vec<(SubnetId, Subnet)> {
    let mut all: Vec<(SubnetId, Subnet)> = snapshot
        .find::<Subnet>("network", network)
        .map(|o| (o.id.clone(), (*o.value).clone()))
        .collect();
    for (id, subnet) in keys::pending::<Subnet>(txn) {
        if subnet.network_id == *network && !all.iter().any(|(other, _)| *other == id) {
            all.push((id, subnet));
        }
    }
    all
}

/// Addresses being taken for one port.
struct Taking<'a> {
    snapshot: &'a Snapshot,
    txn: &'a mut Txn,
    network_id: &'a NetworkId,
    mac: &'a str,
    owner: &'a str,
    port: &'a PortId,
}

impl Taking<'_> {
    fn take(&mut self, id: &SubnetId, subnet: &Subnet, ip: IpAddr) -> Result<FixedIp> {
        address::take(self.snapshot, self.txn, id, subnet, ip, self.port)?;
        keys::alive::<Subnet>(self.txn, id);
        Ok(FixedIp {
            subnet_id: id.clone(),
            ip_address: ip,
        })
    }

    /// One IPv4 address, one IPv6 address, and one per autoconfigured subnet.
    fn usual(&mut self) -> Result<Vec<FixedIp>> {
        let mut subnets = subnets_of(self.snapshot, self.txn, self.network_id);
        subnets.retain(|(_, s)| s.service_types.is_empty() || s.service_types.iter().any(|t| t == self.owner));
        // Subnets of one family share the load.
        maru_base::random::shuffle(&mut subnets);
        let mut fixed = Vec::new();
        for v4 in [true, false] {
            let family: Vec<_> = subnets
                .iter()
                .filter(|(_, s)| s.cidr.addr().is_ipv4() == v4 && !s.is_auto())
                .collect();
            let found = family
                .iter()
                .find_map(|(id, s)| Some((id, s, address::choose(self.snapshot, self.txn, id, s)?)));
            match found {
                Some((id, subnet, ip)) => fixed.push(self.take(id, subnet, ip)?),
                None if family.is_empty() => {}
                None => return Err(exhausted(self.network_id)),
            }
        }
        for (id, subnet) in subnets.iter().filter(|(_, s)| s.is_auto()) {
            if let Some(ip) = address::eui64(&subnet.cidr, self.mac) {
                fixed.push(self.take(id, subnet, ip)?);
            }
        }
        Ok(fixed)
    }

    /// Exactly these; of `kept`, what is wished again stays.
    fn these(&mut self, wanted: &[FixedIpRequest], kept: &[FixedIp]) -> Result<Vec<FixedIp>> {
        let subnets = subnets_of(self.snapshot, self.txn, self.network_id);
        let mut fixed: Vec<FixedIp> = Vec::with_capacity(wanted.len());
        // Wished addresses first, so that a random choice does not take one of them.
        let mut order: Vec<&FixedIpRequest> = wanted.iter().collect();
        order.sort_by_key(|w| w.ip_address.is_none());
        for want in order {
            let found = match (&want.subnet_id, want.ip_address) {
                (Some(id), _) => Some(subnets.iter().find(|(i, _)| i == id).ok_or_else(|| {
                    if self.snapshot.get::<Subnet>(id).is_some() {
                        errors::invalid_input(format!(
                            "subnet {id} is not on network {}; name a subnet of the port's network",
                            self.network_id
                        ))
                    } else {
                        errors::subnet_not_found(id)
                    }
                })?),
                (None, Some(ip)) => Some(subnets.iter().find(|(_, s)| s.cidr.contains(&ip)).ok_or_else(|| {
                    errors::refuse(
                        ErrorKind::BadRequest,
                        "InvalidIpForNetwork",
                        format!("IP address {ip} is in no subnet of network {}.", self.network_id),
                    )
                })?),
                (None, None) => {
                    return Err(errors::invalid_input(
                        "a fixed IP names a subnet_id, an ip_address or both",
                    ));
                }
            };
            let Some((id, subnet)) = found else { continue };
            let again = kept.iter().find(|k| {
                k.subnet_id == *id && want.ip_address.is_none_or(|ip| ip == k.ip_address) && !fixed.contains(k)
            });
            if let Some(again) = again {
                fixed.push(again.clone());
                continue;
            }
            let ip = self.resolve(id, subnet, want.ip_address)?;
            let taken = self.take(id, subnet, ip)?;
            fixed.push(taken);
        }
        Ok(fixed)
    }

    fn resolve(&self, id: &SubnetId, subnet: &Subnet, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let is_router = self.owner == router::INTERFACE || self.owner == router::GATEWAY;
        if let Some(ip) = wanted {
            if !address::is_host(&subnet.cidr, ip) {
                return Err(errors::refuse(
                    ErrorKind::BadRequest,
                    "InvalidIpForSubnet",
                    format!("IP address {ip} is not a host of subnet {id} ({}).", subnet.cidr),
                ));
            }
            let own = address::eui64(&subnet.cidr, self.mac);
            if subnet.is_auto() && !is_router && own != Some(ip) {
                return Err(errors::invalid_input(format!(
                    "IPv6 address {ip} cannot be set on subnet {id}: hosts there make their own from their MAC; leave it out"
                )));
            }
            return Ok(ip);
        }
        if subnet.is_auto()
            && !is_router
            && let Some(ip) = address::eui64(&subnet.cidr, self.mac)
        {
            return Ok(ip);
        }
        // As upstream: DHCP answers at the lowest free address, which leaves the rest of a small block to those who wish one.
        let found = if self.owner == crate::dhcp::OWNER {
            address::choose_first(self.snapshot, self.txn, id, subnet)
        } else {
            address::choose(self.snapshot, self.txn, id, subnet)
        };
        found.ok_or_else(|| exhausted(self.network_id))
    }
}

fn exhausted(network: &NetworkId) -> maru_base::Error {
    errors::conflict(
        "IpAddressGenerationFailure",
        format!("No more IP addresses are available on network {network}; delete ports, widen a pool or add a subnet."),
    )
}
