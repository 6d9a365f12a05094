//! Planners of routers: interfaces, gateway, routes. All of one router's planners hold the epoch `router:<id>`, so they
//! happen one at a time.

use crate::{
    FixedIpRequest, FloatingIp, Meta, Network, NetworkId, Port, PortForwarding, PortId, PortRequest, Subnet, SubnetId,
    TombstoneRouter, errors, keys, ndp_proxy,
    port::{PortChange, plan_create_port, plan_drop_port, plan_update_port},
    quota,
    router::{GATEWAY, Gateway, INTERFACE, Route, Router, RouterId, interfaces, pick_host},
    subnet::overlap,
};
use ipnet::IpNet;
use maru_base::{ErrorKind, ProjectId, Result};
use maru_store::{Object, Snapshot, Txn};
use std::net::IpAddr;

/// A wished gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRequest {
    /// The external network.
    pub network_id: NetworkId,
    /// `None` keeps what is, or translates.
    pub enable_snat: Option<bool>,
    /// Wished addresses of the gateway.
    pub external_fixed_ips: Option<Vec<FixedIpRequest>>,
}

/// What a new router shall be.
#[derive(Debug, Clone)]
pub struct RouterRequest {
    /// Owner.
    pub project_id: ProjectId,
    /// See [`Router`].
    pub name: String,
    /// See [`Router`].
    pub admin_state_up: bool,
    /// Its way out.
    pub gateway: Option<GatewayRequest>,
    /// See [`Router`].
    pub availability_zone_hints: Vec<String>,
    /// See [`Router`].
    pub distributed: bool,
    /// See [`Router`].
    pub ha: bool,
    /// See [`Router`].
    pub enable_ndp_proxy: bool,
    /// Standard attributes.
    pub meta: Meta,
}

/// What shall change of a router; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct RouterChange {
    /// See [`Router`].
    pub name: Option<String>,
    /// See [`Meta`].
    pub description: Option<String>,
    /// See [`Router`].
    pub admin_state_up: Option<bool>,
    /// `Some(None)` takes the gateway away.
    pub gateway: Option<Option<GatewayRequest>>,
    /// All routes.
    pub routes: Option<Vec<Route>>,
    /// See [`Router`]; only while its administrative state is down.
    pub distributed: Option<bool>,
    /// See [`Router`]; only while its administrative state is down.
    pub ha: Option<bool>,
    /// See [`Router`].
    pub enable_ndp_proxy: Option<bool>,
}

/// How an interface is named.
#[derive(Debug, Clone, Default)]
pub struct InterfaceRequest {
    /// By an existing port.
    pub port_id: Option<PortId>,
    /// By a subnet, at its gateway's address.
    pub subnet_id: Option<SubnetId>,
}

/// An interface that was added or removed.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its port.
    pub port_id: PortId,
    /// Its network.
    pub network_id: NetworkId,
    /// Its subnets.
    pub subnet_ids: Vec<SubnetId>,
}

/// Plans a new router.
///
/// # Errors
/// 409 over quota; of its gateway as [`plan_update_router`].
pub fn plan_create_router(snapshot: &Snapshot, txn: &mut Txn, request: RouterRequest) -> Result<(RouterId, Router)> {
    let id = RouterId::new_uuid();
    quota::consume(snapshot, txn, &request.project_id, "router")?;
    let mut router = Router {
        project_id: request.project_id,
        name: request.name,
        admin_state_up: request.admin_state_up,
        gateway: None,
        routes: Vec::new(),
        host: None,
        availability_zone_hints: request.availability_zone_hints,
        distributed: request.distributed,
        ha: request.ha,
        parked: false,
        conntrack_helpers: Vec::new(),
        enable_ndp_proxy: request.enable_ndp_proxy,
        meta: request.meta,
    };
    if let Some(gateway) = request.gateway {
        set_gateway(snapshot, txn, &id, &mut router, Some(gateway))?;
    }
    if router.enable_ndp_proxy {
        ndp_proxy::check_enabled(snapshot, &id, &router)?;
    }
    txn.create(&id, &router);
    Ok((id, router))
}

/// Plans a change of a router.
///
/// # Errors
/// 404 for a network that is not there; 400 for one that is not external; 409 `RouterExternalGatewayInUseByFloatingIp`
/// while floating IPs need the gateway; 400 `InvalidRoutes`.
pub fn plan_update_router(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<Router>,
    change: RouterChange,
) -> Result<Router> {
    let mut router = (*read.value).clone();
    if let Some(name) = change.name {
        router.name = name;
    }
    if let Some(description) = change.description {
        router.meta.description = description;
    }
    if let Some(up) = change.admin_state_up {
        router.admin_state_up = up;
    }
    for (name, wanted, have) in [
        ("distributed", change.distributed, &mut router.distributed),
        ("ha", change.ha, &mut router.ha),
    ] {
        let Some(wanted) = wanted.filter(|w| *w != *have) else {
            continue;
        };
        if router.admin_state_up {
            return Err(errors::bad_request(
                "router",
                format!("cannot change '{name}' of an active router; set its admin_state_up to false before"),
            ));
        }
        *have = wanted;
    }
    if let Some(gateway) = change.gateway {
        keys::hold_epoch(snapshot, txn, &format!("router:{}", read.id));
        set_gateway(snapshot, txn, &read.id, &mut router, gateway)?;
    }
    // Without a gateway it is off.
    router.enable_ndp_proxy &= router.gateway.is_some();
    if let Some(enable) = change.enable_ndp_proxy {
        router.enable_ndp_proxy = enable;
        if enable {
            ndp_proxy::check_enabled(snapshot, &read.id, &router)?;
        }
    }
    if let Some(routes) = change.routes {
        keys::hold_epoch(snapshot, txn, &format!("router:{}", read.id));
        check_routes(snapshot, txn, &read.id, &router, &routes)?;
        router.routes = routes;
    }
    router.meta.touch();
    txn.update(read, &router);
    Ok(router)
}

/// Plans the deletion of a router and its gateway port.
///
/// # Errors
/// 409 `RouterInUse` while it has interfaces.
pub fn plan_delete_router(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Router>) -> Result<()> {
    let id = &read.id;
    if let Some(port) = interfaces(snapshot, id).first() {
        return Err(errors::conflict(
            "RouterInUse",
            format!(
                "Router {id} still has ports, such as interface {}; remove its interfaces first.",
                port.id
            ),
        ));
    }
    refuse_while_floating(snapshot, id)?;
    keys::watch_epoch(snapshot, txn, &format!("router:{id}"));
    if let Some(gateway) = &read.value.gateway
        && let Some(port) = snapshot.get::<Port>(&gateway.port_id)
    {
        plan_drop_port(snapshot, txn, &port);
    }
    if let Some(host) = &read.value.host {
        txn.put(
            id,
            &TombstoneRouter {
                host: host.clone(),
                revision: snapshot.revision(),
            },
        );
    }
    quota::release(txn, &read.value.project_id, "router");
    keys::bury(txn, keys::epoch(&format!("router:{id}")));
    txn.delete(read);
    Ok(())
}

fn refuse_while_floating(snapshot: &Snapshot, id: &RouterId) -> Result<()> {
    let whole = snapshot.find::<FloatingIp>("router", id).next();
    let forwarded = snapshot.find::<PortForwarding>("router", id).next();
    let needs = whole
        .map(|f| f.floating_ip_address.to_string())
        .or_else(|| forwarded.map(|f| format!("{} (its port {})", f.floatingip_id, f.external_port)));
    match needs {
        None => Ok(()),
        Some(needs) => Err(errors::conflict(
            "RouterExternalGatewayInUseByFloatingIp",
            format!(
                "The gateway of router {id} cannot be changed: floating IP {needs} needs it; disassociate its floating IPs, and delete their \
                 port forwardings, first."
            ),
        )),
    }
}

/// Sets, changes or clears the gateway of a router value that the caller writes.
fn set_gateway(
    snapshot: &Snapshot,
    txn: &mut Txn,
    id: &RouterId,
    router: &mut Router,
    wanted: Option<GatewayRequest>,
) -> Result<()> {
    let Some(wanted) = wanted else {
        let Some(old) = router.gateway.take() else {
            return Ok(());
        };
        refuse_while_floating(snapshot, id)?;
        ndp_proxy::check_gateway_free(snapshot, id)?;
        drop_gateway(snapshot, txn, &old);
        return check_routes(snapshot, txn, id, router, &router.routes.clone()).map_err(|_| route_needs("gateway", id));
    };
    let network_id = wanted.network_id;
    let network =
        keys::look::<Network>(snapshot, txn, &network_id).ok_or_else(|| errors::network_not_found(&network_id))?;
    if !network.external {
        return Err(errors::bad_request(
            "router",
            format!("network {network_id} is not an external network"),
        ));
    }
    let old = router.gateway.clone();
    if let Some(old) = &old
        && old.network_id == network_id
    {
        if let Some(fixed) = wanted.external_fixed_ips
            && let Some(port) = snapshot.get::<Port>(&old.port_id)
        {
            plan_update_port(
                snapshot,
                txn,
                &port,
                PortChange {
                    fixed_ips: Some(fixed),
                    ..PortChange::default()
                },
            )?;
        }
        if let (Some(gateway), Some(snat)) = (&mut router.gateway, wanted.enable_snat) {
            gateway.enable_snat = snat;
        }
        return Ok(());
    }
    for (subnet, cidr) in crate::port_plan::subnets_of(snapshot, txn, &network_id)
        .iter()
        .map(|(i, s)| (i, s.cidr))
    {
        refuse_overlap(snapshot, id, None, subnet, &cidr)?;
    }
    if let Some(old) = &old {
        refuse_while_floating(snapshot, id)?;
        ndp_proxy::check_gateway_free(snapshot, id)?;
        drop_gateway(snapshot, txn, old);
    }
    if router.host.is_none() && !router.parked {
        router.host = pick_host(snapshot, &router.availability_zone_hints);
    }
    let (port_id, port) = plan_create_port(
        snapshot,
        txn,
        PortRequest {
            fixed_ips: wanted.external_fixed_ips.filter(|f| !f.is_empty()),
            device_id: id.to_string(),
            device_owner: GATEWAY.to_owned(),
            host: router.host.clone().unwrap_or_default(),
            by_the_cloud: true,
            ..PortRequest::new(network_id.clone(), ProjectId::from(""))
        },
    )?;
    if port.fixed_ips.is_empty() {
        return Err(errors::bad_request(
            "router",
            format!(
                "external network {network_id} has no subnet, so the gateway has no address; give it a subnet first"
            ),
        ));
    }
    router.gateway = Some(Gateway {
        network_id,
        port_id,
        enable_snat: wanted.enable_snat.unwrap_or(true),
    });
    Ok(())
}

fn drop_gateway(snapshot: &Snapshot, txn: &mut Txn, old: &Gateway) {
    if let Some(port) = snapshot.get::<Port>(&old.port_id) {
        plan_drop_port(snapshot, txn, &port);
    }
}

/// Refuses a block that overlaps with one that the router already has.
fn refuse_overlap(
    snapshot: &Snapshot,
    id: &RouterId,
    gateway: Option<&Gateway>,
    subnet_id: &SubnetId,
    cidr: &IpNet,
) -> Result<()> {
    let inner = interfaces(snapshot, id).into_iter().flat_map(|p| {
        p.value
            .fixed_ips
            .iter()
            .map(|f| f.subnet_id.clone())
            .collect::<Vec<_>>()
    });
    let outer = gateway.into_iter().flat_map(|g| {
        snapshot
            .find::<Subnet>("network", &g.network_id)
            .map(|s| s.id.clone())
            .collect::<Vec<_>>()
    });
    for other_id in inner.chain(outer) {
        let Some(other) = snapshot.get::<Subnet>(&other_id) else {
            continue;
        };
        if other_id == *subnet_id {
            return Err(errors::bad_request(
                "router",
                format!("router already has a port on subnet {subnet_id}"),
            ));
        }
        if overlap(&other.value.cidr, cidr) {
            return Err(errors::bad_request(
                "router",
                format!(
                    "cidr {cidr} of subnet {subnet_id} overlaps with cidr {} of subnet {other_id}",
                    other.value.cidr
                ),
            ));
        }
    }
    Ok(())
}

/// Plans an interface. Who may see the port or subnet is the caller's matter.
///
/// # Errors
/// 404 for a port or subnet that is not there; 400 for an overlap, a subnet without gateway, a port without address;
/// 409 `PortInUse`.
pub fn plan_add_interface(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<Router>,
    request: &InterfaceRequest,
) -> Result<Interface> {
    let id = &read.id;
    keys::hold_epoch(snapshot, txn, &format!("router:{id}"));
    let mut router = (*read.value).clone();
    let host = router
        .host
        .clone()
        .or_else(|| pick_host(snapshot, &router.availability_zone_hints).filter(|_| !router.parked));
    let gateway = router.gateway.as_ref();
    let made = match (&request.port_id, &request.subnet_id) {
        (Some(port_id), None) => {
            let port = snapshot
                .get::<Port>(port_id)
                .ok_or_else(|| errors::port_not_found(port_id))?;
            if !port.value.device_id.is_empty() {
                return Err(errors::conflict(
                    "PortInUse",
                    format!(
                        "Unable to complete operation on port {port_id} for network {}: it belongs to device {}.",
                        port.value.network_id, port.value.device_id
                    ),
                ));
            }
            if port.value.fixed_ips.is_empty() {
                return Err(errors::bad_request(
                    "router",
                    format!("port {port_id} has no fixed IP; a router port needs one"),
                ));
            }
            let mut v4 = 0;
            for fixed in &port.value.fixed_ips {
                let Some(subnet) = snapshot.get::<Subnet>(&fixed.subnet_id) else {
                    continue;
                };
                v4 += usize::from(subnet.value.ip_version() == 4);
                refuse_overlap(snapshot, id, gateway, &subnet.id, &subnet.value.cidr)?;
            }
            if v4 > 1 {
                return Err(errors::bad_request(
                    "router",
                    "cannot have multiple IPv4 subnets on router port",
                ));
            }
            let change = PortChange {
                device_id: Some(id.to_string()),
                device_owner: Some(INTERFACE.to_owned()),
                host: Some(host.clone().unwrap_or_default()),
                security_groups: Some(Vec::new()),
                allowed_address_pairs: Some(Vec::new()),
                port_security_enabled: Some(false),
                ..PortChange::default()
            };
            let port = plan_update_port(snapshot, txn, &port, change)?;
            interface(port_id.clone(), &port)
        }
        (None, Some(subnet_id)) => {
            let subnet = snapshot
                .get::<Subnet>(subnet_id)
                .ok_or_else(|| errors::subnet_not_found(subnet_id))?;
            let Some(address) = subnet.value.gateway_ip else {
                return Err(errors::bad_request(
                    "router",
                    format!("subnet {subnet_id} for a router interface must have a gateway IP; set one, or add a port"),
                ));
            };
            refuse_overlap(snapshot, id, gateway, subnet_id, &subnet.value.cidr)?;
            let (port_id, port) = plan_create_port(
                snapshot,
                txn,
                PortRequest {
                    fixed_ips: Some(vec![FixedIpRequest {
                        subnet_id: Some(subnet_id.clone()),
                        ip_address: Some(address),
                    }]),
                    device_id: id.to_string(),
                    device_owner: INTERFACE.to_owned(),
                    host: host.clone().unwrap_or_default(),
                    ..PortRequest::new(subnet.value.network_id.clone(), router.project_id.clone())
                },
            )?;
            interface(port_id, &port)
        }
        (Some(_), Some(_)) => {
            return Err(errors::bad_request(
                "router",
                "name either port_id or subnet_id, not both",
            ));
        }
        (None, None) => {
            return Err(errors::bad_request(
                "router",
                "either subnet_id or port_id must be specified",
            ));
        }
    };
    router.host = host;
    router.meta.touch();
    txn.update(read, &router);
    Ok(made)
}

fn interface(port_id: PortId, port: &Port) -> Interface {
    Interface {
        port_id,
        network_id: port.network_id.clone(),
        subnet_ids: port.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect(),
    }
}

/// Plans the removal of an interface; its port is deleted.
///
/// # Errors
/// 404 when there is no such interface; 409 `RouterInterfaceInUseByFloatingIP`, `RouterInterfaceInUseByRoute` while it is
/// needed; 409 `SubnetMismatchForPort`.
pub fn plan_remove_interface(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<Router>,
    request: &InterfaceRequest,
) -> Result<Interface> {
    let id = &read.id;
    keys::hold_epoch(snapshot, txn, &format!("router:{id}"));
    let all = interfaces(snapshot, id);
    let port = match (&request.port_id, &request.subnet_id) {
        (Some(port_id), subnet) => {
            let port = all.into_iter().find(|p| p.id == *port_id).ok_or_else(|| {
                errors::refuse(
                    ErrorKind::NotFound,
                    "RouterInterfaceNotFound",
                    format!("Router {id} does not have an interface with id {port_id}."),
                )
            })?;
            if let Some(subnet_id) = subnet
                && !port.value.fixed_ips.iter().any(|f| f.subnet_id == *subnet_id)
            {
                return Err(errors::conflict(
                    "SubnetMismatchForPort",
                    format!("Subnet on port {port_id} does not match the requested subnet {subnet_id}."),
                ));
            }
            port
        }
        (None, Some(subnet_id)) => all
            .into_iter()
            .find(|p| p.value.fixed_ips.iter().any(|f| f.subnet_id == *subnet_id))
            .ok_or_else(|| {
                errors::refuse(
                    ErrorKind::NotFound,
                    "RouterInterfaceNotFoundForSubnet",
                    format!("Router {id} has no interface on subnet {subnet_id}."),
                )
            })?,
        (None, None) => {
            return Err(errors::bad_request(
                "router",
                "either subnet_id or port_id must be specified",
            ));
        }
    };
    let gone: Vec<SubnetId> = port.value.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect();
    let through = |port: &PortId, ip: IpAddr| {
        snapshot.get::<Port>(port).is_some_and(|p| {
            let mut fixed = p.value.fixed_ips.iter();
            fixed.any(|f| f.ip_address == ip && gone.contains(&f.subnet_id))
        })
    };
    let whole = snapshot.find::<FloatingIp>("router", id).find(|f| {
        let end = f.port_id.as_ref().zip(f.fixed_ip_address);
        end.is_some_and(|(port, ip)| through(port, ip))
    });
    let forwarded = snapshot
        .find::<PortForwarding>("router", id)
        .find(|f| through(&f.internal_port_id, f.internal_ip_address.into()));
    let needs = whole
        .map(|f| f.floating_ip_address.to_string())
        .or_else(|| forwarded.map(|f| format!("{} (its port {})", f.floatingip_id, f.external_port)));
    if let Some(needs) = needs {
        return Err(errors::conflict(
            "RouterInterfaceInUseByFloatingIP",
            format!(
                "Router interface for subnet {} on router {id} cannot be deleted, as floating IP {needs} needs it.",
                gone.first().map(SubnetId::as_str).unwrap_or_default(),
            ),
        ));
    }
    ndp_proxy::check_interface_free(snapshot, id, &gone)?;
    let cidrs: Vec<IpNet> = gone
        .iter()
        .filter_map(|s| snapshot.get::<Subnet>(s))
        .map(|s| s.value.cidr)
        .collect();
    if read
        .value
        .routes
        .iter()
        .any(|r| cidrs.iter().any(|c| c.contains(&r.nexthop)))
    {
        return Err(route_needs("interface", id));
    }
    let made = interface(port.id.clone(), &port.value);
    plan_drop_port(snapshot, txn, &port);
    let mut router = (*read.value).clone();
    router.meta.touch();
    txn.update(read, &router);
    Ok(made)
}

fn route_needs(what: &str, id: &RouterId) -> maru_base::Error {
    errors::conflict(
        "RouterInterfaceInUseByRoute",
        format!("The {what} of router {id} cannot go: one or more of its routes need it; remove those routes first."),
    )
}

/// Checks that each route's next hop is a neighbour and not the router itself.
fn check_routes(snapshot: &Snapshot, txn: &Txn, id: &RouterId, router: &Router, routes: &[Route]) -> Result<()> {
    let bad = |route: &Route, why: &str| {
        errors::refuse(
            ErrorKind::BadRequest,
            "InvalidRoutes",
            format!(
                "Invalid format for routes: the route to {} via {} {why}.",
                route.destination, route.nexthop
            ),
        )
    };
    if routes.len() > 30 {
        return Err(errors::refuse(
            ErrorKind::BadRequest,
            "RoutesExhausted",
            format!("Unable to complete operation for {id}: a router has at most 30 routes."),
        ));
    }
    let mut cidrs: Vec<IpNet> = Vec::new();
    let mut own = Vec::new();
    let mut ports: Vec<Port> = interfaces(snapshot, id).iter().map(|p| (*p.value).clone()).collect();
    ports.extend(
        router
            .gateway
            .as_ref()
            .and_then(|g| keys::look::<Port>(snapshot, txn, &g.port_id)),
    );
    for fixed in ports.iter().flat_map(|p| &p.fixed_ips) {
        own.push(fixed.ip_address);
        cidrs.extend(snapshot.get::<Subnet>(&fixed.subnet_id).map(|s| s.value.cidr));
    }
    for (i, route) in routes.iter().enumerate() {
        if routes[..i].contains(route) {
            return Err(bad(route, "is named twice"));
        }
        if !cidrs.iter().any(|c| c.contains(&route.nexthop)) {
            return Err(bad(route, "has a next hop that is on no subnet of the router"));
        }
        if own.contains(&route.nexthop) {
            return Err(bad(route, "leads to the router itself"));
        }
    }
    Ok(())
}
