//! The one place where the compute model meets the network model: ports of servers.

use crate::{Networks, Server, ServerPort, VmState, WantedPort};
use maru_auth::Caller;
use maru_base::{Error, ProjectId, Result};
use maru_network_model::{
    FixedIpRequest, FloatingIp, Network, NetworkId, Port, PortId, PortRequest, SecurityGroup, SecurityGroupId, Subnet,
    observed::port_status,
    plan_bind_port, plan_create_port, plan_delete_port, plan_unbind_port,
    port::{PortChange, plan_update_port},
    topology,
};
use maru_store::{Object, Snapshot, Txn};
use std::{collections::BTreeSet, net::IpAddr};

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name of its network.
    pub network: String,
    /// The address.
    pub ip: IpAddr,
    /// MAC of its port.
    pub mac: String,
    /// Whether it is a floating IP.
    pub floating: bool,
}

/// A NIC of a server.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its port.
    pub port: Object<Port>,
    /// `ACTIVE` or `DOWN`.
    pub state: &'static str,
    /// Device tag.
    pub tag: Option<String>,
}

fn gone(what: &str, id: &str) -> Error {
    Error::bad_request(format!("{what} {id} could not be found."))
}

/// Networks that a project may put servers on without naming them: its own, else the shared ones.
fn usual_networks(snapshot: &Snapshot, project: &ProjectId) -> Vec<Object<Network>> {
    let has_subnet = |n: &Object<Network>| snapshot.find::<Subnet>("network", &n.id).next().is_some();
    let own: Vec<_> = snapshot
        .find::<Network>("project", project)
        .filter(|n| !n.external && has_subnet(n))
        .collect();
    if !own.is_empty() {
        return own;
    }
    snapshot
        .find::<Network>("visible", "shared")
        .filter(|n| !n.external && has_subnet(n))
        .collect()
}

/// The one network for "whatever the project has".
fn usual_network(snapshot: &Snapshot, project: &ProjectId) -> Result<Option<Object<Network>>> {
    let mut found = usual_networks(snapshot, project);
    if found.len() > 1 {
        return Err(Error::conflict(
            "Multiple possible networks found, use a Network ID to be more specific.",
        ));
    }
    Ok(found.pop())
}

/// Plans the next step to the network that the cloud gives to a project which asks for one (`auto`) and has none; `true` when there
/// is nothing more to do.
///
/// # Errors
/// 409 over quota, or when the pools are used up.
pub fn plan_auto_network(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId) -> Result<bool> {
    let step = match usual_network(snapshot, project)? {
        // What was given to it may not be whole yet.
        Some(n)
            if snapshot
                .get::<topology::AutoTopology>(project)
                .is_none_or(|t| t.network_id != n.id) =>
        {
            return Ok(true);
        }
        _ => topology::plan_step(snapshot, txn, project)?,
    };
    Ok(step != topology::Step::More)
}

/// Checks at request time what can be known: networks and ports exist, are the caller's, and are free. `explicit` says
/// that a network was asked for (`auto` of 2.37), so that having none is an error.
///
/// # Errors
/// 400, 403 or 409 in upstream's words.
pub fn check_networks(snapshot: &Snapshot, caller: &Caller, networks: &Networks, explicit: bool) -> Result<()> {
    let project = caller.require_project()?;
    let list = match networks {
        Networks::None => return Ok(()),
        Networks::Auto => {
            return match usual_network(snapshot, project)? {
                None if explicit => match topology::requirements(snapshot) {
                    Ok(_) => Ok(()),
                    Err(why) => Err(Error::bad_request(format!(
                        "Unable to automatically allocate a network: the project has none with a subnet, and the cloud gives it none \
                         ({}). Create a network and a subnet, name one, or ask for networks 'none'.",
                        why.message()
                    ))),
                },
                _ => Ok(()),
            };
        }
        Networks::Listed(list) => list,
    };
    let mut ports = BTreeSet::new();
    for wanted in list {
        match (&wanted.port, &wanted.network) {
            (Some(id), _) => {
                let port = find_port(snapshot, caller, id)?;
                if !port.device_id.is_empty() {
                    return Err(Error::conflict(format!("Port {id} is still in use.")));
                }
                if !ports.insert(id) {
                    return Err(Error::bad_request(format!("Port {id} is named twice.")));
                }
                if port.fixed_ips.is_empty() && snapshot.find::<Subnet>("network", &port.network_id).next().is_none() {
                    return Err(Error::bad_request(format!(
                        "Port {id} requires a FixedIP in order to be used."
                    )));
                }
            }
            (None, Some(id)) => check_network(snapshot, caller, id, wanted.fixed_ip)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn find_port(snapshot: &Snapshot, caller: &Caller, id: &str) -> Result<Object<Port>> {
    snapshot
        .get::<Port>(&PortId::from(id))
        .filter(|p| caller.is_admin() || Some(&p.project_id) == caller.project_id())
        .ok_or_else(|| gone("Port id", id))
}

fn check_network(snapshot: &Snapshot, caller: &Caller, id: &str, ip: Option<IpAddr>) -> Result<()> {
    let network = snapshot
        .get::<Network>(&NetworkId::from(id))
        .filter(|n| {
            n.shared_to(caller.project_id())
                || n.external
                || caller.is_admin()
                || Some(&n.project_id) == caller.project_id()
        })
        .ok_or_else(|| gone("Network", id))?;
    let own = Some(&network.project_id) == caller.project_id();
    if network.external && !network.shared_to(caller.project_id()) && !own && !caller.is_admin() {
        return Err(Error::forbidden(format!(
            "It is not allowed to create an interface on external network {id}"
        )));
    }
    let mut subnets = snapshot.find::<Subnet>("network", id).peekable();
    if subnets.peek().is_none() {
        return Err(Error::bad_request(format!(
            "Network {id} requires a subnet in order to boot instances on."
        )));
    }
    if let Some(ip) = ip {
        if !subnets.any(|s| s.cidr.contains(&ip)) {
            return Err(Error::bad_request(format!(
                "Fixed IP address {ip} is in no subnet of network {id}."
            )));
        }
        let taken = snapshot
            .find::<Port>("ip", &ip.to_string())
            .any(|p| p.network_id == *id);
        if taken {
            return Err(Error::bad_request(format!(
                "Fixed IP address {ip} is already in use on instance(s) of network {id}."
            )));
        }
    }
    Ok(())
}

/// A security group of a project by its name or id.
pub(crate) fn find_group(
    snapshot: &Snapshot,
    project: &ProjectId,
    name: &str,
) -> Result<Option<Object<SecurityGroup>>> {
    if let Some(group) = snapshot
        .get::<SecurityGroup>(&SecurityGroupId::from(name))
        .filter(|g| g.project_id == *project)
    {
        return Ok(Some(group));
    }
    let mut found = snapshot
        .find::<SecurityGroup>("project", project)
        .filter(|g| g.name == name);
    let first = found.next();
    if found.next().is_some() {
        return Err(Error::conflict(format!(
            "Multiple security_groups matches found for name '{name}', use an ID to be more specific."
        )));
    }
    Ok(first)
}

/// Checks that the named security groups are there for the project. `default` is always there: it is made when needed.
///
/// # Errors
/// 400 in upstream's words, 409 for an ambiguous name.
pub fn check_security_groups(snapshot: &Snapshot, project: &ProjectId, names: &[String]) -> Result<()> {
    for name in names {
        if find_group(snapshot, project, name)?.is_none() && name != "default" {
            return Err(Error::bad_request(format!(
                "Security group {name} not found for project {project}."
            )));
        }
    }
    Ok(())
}

/// Makes and binds a server's ports on `host`, in the order asked for.
///
/// # Errors
/// When a network, port or address cannot be had.
pub fn plan_plug(snapshot: &Snapshot, txn: &mut Txn, id: &str, server: &mut Server, host: &str) -> Result<()> {
    let wanted = match &server.networks {
        Networks::None => Vec::new(),
        Networks::Auto => usual_network(snapshot, &server.project_id)?
            .map(|n| WantedPort {
                network: Some(n.id.to_string()),
                ..WantedPort::default()
            })
            .into_iter()
            .collect(),
        Networks::Listed(list) => list.clone(),
    };
    for one in &wanted {
        let port = plug_one(snapshot, txn, id, server, host, one)?;
        server.ports.push(port);
    }
    Ok(())
}

fn plug_one(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &str,
    server: &Server,
    host: &str,
    wanted: &WantedPort,
) -> Result<ServerPort> {
    let zone = crate::zone_of(snapshot, host);
    if let Some(port_id) = &wanted.port {
        let port = snapshot
            .get::<Port>(&PortId::from(port_id))
            .ok_or_else(|| gone("Port id", port_id))?;
        plan_bind_port(snapshot, txn, &port, host, id, "", &zone)?;
        return Ok(ServerPort {
            id: port_id.clone(),
            ours: false,
            tag: wanted.tag.clone(),
        });
    }
    let network = wanted.network.as_deref().unwrap_or_default();
    let mut groups = Vec::new();
    for name in &server.security_groups {
        match find_group(snapshot, &server.project_id, name)? {
            Some(group) => groups.push(group.id),
            None if name == "default" => {
                groups.push(maru_network_model::ensure_default_group(
                    snapshot,
                    txn,
                    &server.project_id,
                )?);
            }
            None => {
                return Err(Error::bad_request(format!(
                    "Security group {name} not found for project {}.",
                    server.project_id
                )));
            }
        }
    }
    let (port, _) = plan_create_port(
        snapshot,
        txn,
        PortRequest {
            fixed_ips: wanted.fixed_ip.map(|ip| {
                vec![FixedIpRequest {
                    subnet_id: None,
                    ip_address: Some(ip),
                }]
            }),
            security_groups: (!groups.is_empty()).then_some(groups),
            device_id: id.to_owned(),
            device_owner: format!("compute:{zone}"),
            host: host.to_owned(),
            dns_name: server.hostname.clone(),
            ..PortRequest::new(NetworkId::from(network), server.project_id.clone())
        },
    )?;
    Ok(ServerPort {
        id: port.to_string(),
        ours: true,
        tag: wanted.tag.clone(),
    })
}

/// Removes the ports that were made for a server and gives the others back.
///
/// # Errors
/// What the network planners refuse.
pub fn plan_unplug(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<()> {
    for port in &server.ports {
        unplug_one(snapshot, txn, &server.id, port)?;
    }
    Ok(())
}

/// Takes a server's ports off their host; they stay the server's.
///
/// # Errors
/// What the network planners refuse.
pub(crate) fn plan_park(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>) -> Result<()> {
    for port in own_ports(snapshot, server) {
        let host = Some(String::new());
        plan_update_port(
            snapshot,
            txn,
            &port,
            PortChange {
                host,
                ..PortChange::default()
            },
        )?;
    }
    Ok(())
}

/// Binds the ports that a server has to `host`.
///
/// # Errors
/// What the network planners refuse.
pub fn plan_replug(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, host: &str) -> Result<()> {
    let zone = crate::zone_of(snapshot, host);
    for port in own_ports(snapshot, server) {
        plan_bind_port(snapshot, txn, &port, host, &server.id, "", &zone)?;
    }
    Ok(())
}

/// The ports of a server that a client has not deleted or given to another device.
fn own_ports(snapshot: &Snapshot, server: &Object<Server>) -> Vec<Object<Port>> {
    let ports = server.ports.iter();
    ports
        .filter_map(|p| snapshot.get::<Port>(&PortId::from(&p.id)))
        .filter(|p| p.device_id == *server.id)
        .collect()
}

fn unplug_one(snapshot: &Snapshot, txn: &mut Txn, server: &str, port: &ServerPort) -> Result<()> {
    // A port that a client deleted, or gave to another device, is none of the server's any more.
    let Some(read) = snapshot
        .get::<Port>(&PortId::from(&port.id))
        .filter(|p| p.device_id == *server)
    else {
        return Ok(());
    };
    if port.ours {
        plan_delete_port(snapshot, txn, &read)
    } else {
        plan_unbind_port(snapshot, txn, &read).map(|_| ())
    }
}

/// Plugs one more port into a running server; gives the server as it is then and the new port's id.
///
/// # Errors
/// As [`check_networks`] and the network planners.
pub fn plan_attach(
    snapshot: &Snapshot,
    txn: &mut Txn,
    caller: &Caller,
    server: &Object<Server>,
    wanted: &WantedPort,
) -> Result<(Server, String)> {
    let host = server
        .host
        .clone()
        .ok_or_else(|| Error::conflict(format!("Instance {} is not ready", server.id)))?;
    let mut wanted = wanted.clone();
    if wanted.port.is_none() && wanted.network.is_none() {
        wanted.network = usual_network(snapshot, &server.project_id)?.map(|n| n.id.to_string());
        if wanted.network.is_none() {
            return Err(Error::bad_request(
                "No network was named, and the project has none: create a network and a subnet.",
            ));
        }
    }
    check_networks(snapshot, caller, &Networks::Listed(vec![wanted.clone()]), true)?;
    let port = plug_one(snapshot, txn, &server.id, server, &host, &wanted)?;
    let mut new = (*server.value).clone();
    let id = port.id.clone();
    new.ports.push(port);
    Ok((new, id))
}

/// Unplugs a port from a running server; gives the server as it is then.
///
/// # Errors
/// 404 when it has no such port.
pub fn plan_detach(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, port: &str) -> Result<Server> {
    let mut new = (*server.value).clone();
    let at = new
        .ports
        .iter()
        .position(|p| p.id == port)
        .ok_or_else(|| Error::not_found(format!("Instance {} has no port {port}.", server.id)))?;
    let port = new.ports.remove(at);
    unplug_one(snapshot, txn, &server.id, &port)?;
    Ok(new)
}

/// Gives a port that a server has on a network one more address there, from the first subnet that has one left.
///
/// # Errors
/// 400 when it has no port there, or no address is left.
pub fn plan_add_address(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, network: &str) -> Result<()> {
    let port = own_ports(snapshot, server)
        .into_iter()
        .find(|p| p.network_id == *network)
        .ok_or_else(|| {
            Error::bad_request(format!(
                "Network {network} could not be found for instance {}.",
                server.id
            ))
        })?;
    let mut refused = Error::bad_request(format!("No fixed IP addresses available for network: {network}"));
    for subnet in snapshot.find::<Subnet>("network", network) {
        let mut wanted = kept_addresses(&port);
        wanted.push(FixedIpRequest::in_subnet(subnet.id.clone()));
        let mut attempt = Txn::new();
        match plan_addresses(snapshot, &mut attempt, &port, wanted) {
            Ok(()) => {
                txn.append(attempt);
                return Ok(());
            }
            Err(error) => refused = Error::bad_request(format!("No fixed IP addresses available: {}", error.message())),
        }
    }
    Err(refused)
}

/// Takes an address from the port of a server that has it.
///
/// # Errors
/// 400 when none has it.
pub fn plan_remove_address(snapshot: &Snapshot, txn: &mut Txn, server: &Object<Server>, ip: IpAddr) -> Result<()> {
    let has = |p: &Object<Port>| p.fixed_ips.iter().any(|f| f.ip_address == ip);
    let port = own_ports(snapshot, server)
        .into_iter()
        .find(has)
        .ok_or_else(|| Error::bad_request(format!("Fixed IP {ip} not found for instance {}.", server.id)))?;
    let mut wanted = kept_addresses(&port);
    wanted.retain(|f| f.ip_address != Some(ip));
    plan_addresses(snapshot, txn, &port, wanted)
}

fn kept_addresses(port: &Port) -> Vec<FixedIpRequest> {
    let kept = port.fixed_ips.iter().map(|f| FixedIpRequest {
        subnet_id: Some(f.subnet_id.clone()),
        ip_address: Some(f.ip_address),
    });
    kept.collect()
}

fn plan_addresses(snapshot: &Snapshot, txn: &mut Txn, port: &Object<Port>, wanted: Vec<FixedIpRequest>) -> Result<()> {
    let change = PortChange {
        fixed_ips: Some(wanted),
        ..PortChange::default()
    };
    plan_update_port(snapshot, txn, port, change).map(|_| ())
}

/// A server's NICs, in order; ports that are gone are left out.
#[must_use]
pub fn interfaces(snapshot: &Snapshot, server: &Server) -> Vec<Interface> {
    server
        .ports
        .iter()
        .filter_map(|p| {
            let port = snapshot.get::<Port>(&PortId::from(&p.id))?;
            let state = port_status(snapshot, &port.id, &port);
            Some(Interface {
                state,
                port,
                tag: p.tag.clone(),
            })
        })
        .collect()
}

/// A server's addresses in NIC order, floating IPs after the fixed ones of their port.
#[must_use]
pub fn addresses(snapshot: &Snapshot, server: &Server) -> Vec<Address> {
    let mut all = Vec::new();
    for p in &server.ports {
        let Some(port) = snapshot.get::<Port>(&PortId::from(&p.id)) else {
            continue;
        };
        let network = snapshot
            .get::<Network>(&port.network_id)
            .map(|n| n.name.clone())
            .unwrap_or_default();
        let address = |ip: IpAddr, floating: bool| Address {
            network: network.clone(),
            ip,
            mac: port.mac_address.clone(),
            floating,
        };
        all.extend(port.fixed_ips.iter().map(|f| address(f.ip_address, false)));
        all.extend(
            snapshot
                .find::<FloatingIp>("port", &port.id)
                .map(|f| address(IpAddr::V4(f.floating_ip_address), true)),
        );
    }
    all
}

/// Names of the security groups of a server's ports (as asked for, while it has none).
#[must_use]
pub fn security_groups(snapshot: &Snapshot, server: &Server) -> Vec<String> {
    if server.ports.is_empty() {
        return if server.vm_state == VmState::Building {
            server.security_groups.clone()
        } else {
            Vec::new()
        };
    }
    let mut names = Vec::new();
    for p in &server.ports {
        let Some(port) = snapshot.get::<Port>(&PortId::from(&p.id)) else {
            continue;
        };
        for id in &port.security_groups {
            if let Some(group) = snapshot.get::<SecurityGroup>(id)
                && !names.contains(&group.name)
            {
                names.push(group.name.clone());
            }
        }
    }
    names
}

/// The security groups of a server's ports, whole.
#[must_use]
pub fn groups_of(snapshot: &Snapshot, server: &Server) -> Vec<Object<SecurityGroup>> {
    let mut seen = BTreeSet::new();
    let mut groups = Vec::new();
    for p in &server.ports {
        let Some(port) = snapshot.get::<Port>(&PortId::from(&p.id)) else {
            continue;
        };
        for id in &port.security_groups {
            if seen.insert(id.clone())
                && let Some(group) = snapshot.get::<SecurityGroup>(id)
            {
                groups.push(group);
            }
        }
    }
    groups
}

/// Adds a security group to all ports of a server, or removes it; gives the server as it is then.
///
/// # Errors
/// 404 when there is no such group, or the server does not have it; 400 when it has no port to bear it.
pub fn plan_security_group(
    snapshot: &Snapshot,
    txn: &mut Txn,
    server: &Object<Server>,
    name: &str,
    add: bool,
) -> Result<Server> {
    let group = find_group(snapshot, &server.project_id, name)?.ok_or_else(|| {
        Error::not_found(format!(
            "Security group {name} not found for project {}.",
            server.project_id
        ))
    })?;
    let ports: Vec<Object<Port>> = server
        .ports
        .iter()
        .filter_map(|p| snapshot.get::<Port>(&PortId::from(&p.id)))
        .collect();
    if ports.is_empty() {
        return Err(Error::bad_request(format!(
            "Instance {} has no port to bear a security group.",
            server.id
        )));
    }
    let mut touched = false;
    for port in ports {
        let mut groups = port.security_groups.clone();
        match (add, groups.iter().position(|g| *g == group.id)) {
            (true, None) if port.port_security_enabled && !port.fixed_ips.is_empty() => groups.push(group.id.clone()),
            (false, Some(at)) => {
                groups.remove(at);
            }
            _ => continue,
        }
        touched = true;
        let foreign_groups = true;
        plan_update_port(
            snapshot,
            txn,
            &port,
            PortChange {
                security_groups: Some(groups),
                foreign_groups,
                ..PortChange::default()
            },
        )?;
    }
    if !touched && !add {
        return Err(Error::not_found(format!(
            "Security group {} not associated with the instance {}",
            group.id, server.id
        )));
    }
    let mut new = (*server.value).clone();
    new.security_groups.retain(|g| g != &group.name && *g != *group.id);
    if add {
        new.security_groups.push(group.name.clone());
    }
    Ok(new)
}
