//! NDP proxies: a router answers on its gateway's network for the IPv6 address of a port behind it (RFC 4389), so that the address is
//! reached there without a route. The two networks are of one address scope: such an address means the same on both.
//!
//! Whoever makes one writes the epochs of its port and of its router, as floating IPs do; it goes with its port, and with the address.

use crate::{
    Meta, Network, NetworkId, Port, PortId, Router, RouterId, Subnet, SubnetId, SubnetPool, errors, keys, router,
};
use maru_base::{Error, ErrorKind, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

maru_base::typed_id!(
    /// Id of an NDP proxy, a UUID.
    NdpProxyId
);

/// Most proxies of a router: its rules are told to its node as one.
pub const MOST_PROXIES: usize = 500;
const CLAIM: &str = "ndp-proxy";

/// An NDP proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NdpProxy {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Who answers.
    pub router_id: RouterId,
    /// Whose address it is.
    pub port_id: PortId,
    /// The address; one proxy a router.
    pub ip_address: Ipv6Addr,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for NdpProxy {
    type Id = NdpProxyId;
    const NAME: &'static str = "ndp_proxy";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |p| vec![p.project_id.to_string()],
            },
            Index {
                name: "router",
                values: |p| vec![p.router_id.to_string()],
            },
            Index {
                name: "port",
                values: |p| vec![p.port_id.to_string()],
            },
        ]
    }
}

/// 404.
pub fn proxy_not_found(id: impl std::fmt::Display) -> Error {
    errors::not_found("NDPProxyNotFound", "NDP proxy", id)
}

/// The addresses that a router answers for; `None` where it is not enabled.
#[must_use]
pub fn addresses_of(snapshot: &Snapshot, router: &Object<Router>) -> Option<Vec<Ipv6Addr>> {
    enabled(router).then(|| {
        let mut all: Vec<_> = snapshot
            .find::<NdpProxy>("router", &router.id)
            .map(|p| p.ip_address)
            .collect();
        all.sort();
        all
    })
}

/// Whether a router answers for others: without a gateway none does.
#[must_use]
pub fn enabled(router: &Router) -> bool {
    router.enable_ndp_proxy && router.gateway.is_some()
}

/// The IPv6 address scope of a network: that of the pool of its subnets.
fn scope_of(snapshot: &Snapshot, network: &NetworkId) -> Option<String> {
    let mut subnets = snapshot.find::<Subnet>("network", network);
    let pool = subnets.find(|s| s.ip_version() == 6)?.subnetpool_id.clone()?;
    let pool = snapshot.get::<SubnetPool>(&pool)?;
    pool.address_scope_id.as_ref().map(ToString::to_string)
}

/// Refuses to enable a router whose gateway's network has no IPv6 subnet of an address scope.
///
/// # Errors
/// 409 `RouterGatewayNotValid`.
pub(crate) fn check_enabled(snapshot: &Snapshot, id: &RouterId, router: &Router) -> Result<()> {
    let reason = match &router.gateway {
        None => "it has no external gateway".to_owned(),
        Some(g) if scope_of(snapshot, &g.network_id).is_none() => {
            format!(
                "its external network {} has no IPv6 subnet of a subnet pool with an address scope",
                g.network_id
            )
        }
        Some(_) => return Ok(()),
    };
    Err(errors::conflict(
        "RouterGatewayNotValid",
        format!("Can not enable ndp proxy on router {id}: {reason}."),
    ))
}

/// Refuses that a router's gateway goes, or changes its network, while it answers for others.
///
/// # Errors
/// 409 `RouterGatewayInUseByNDPProxy`.
pub(crate) fn check_gateway_free(snapshot: &Snapshot, id: &RouterId) -> Result<()> {
    match snapshot.find::<NdpProxy>("router", id).next() {
        None => Ok(()),
        Some(proxy) => Err(errors::conflict(
            "RouterGatewayInUseByNDPProxy",
            format!(
                "Unable to unset external gateway of router {id}, There are one or more ndp proxies still in use on the router, such as \
                 {} ({}); delete them first.",
                proxy.id, proxy.ip_address
            ),
        )),
    }
}

/// Refuses that a router's interface goes while it answers for addresses behind it.
///
/// # Errors
/// 409 `RouterInterfaceInUseByNDPProxy`.
pub(crate) fn check_interface_free(snapshot: &Snapshot, id: &RouterId, gone: &[SubnetId]) -> Result<()> {
    let behind = |p: &Object<NdpProxy>| {
        snapshot.get::<Port>(&p.port_id).is_some_and(|port| {
            let mut fixed = port.fixed_ips.iter();
            fixed.any(|f| f.ip_address == IpAddr::V6(p.ip_address) && gone.contains(&f.subnet_id))
        })
    };
    match snapshot.find::<NdpProxy>("router", id).find(behind) {
        None => Ok(()),
        Some(proxy) => Err(errors::conflict(
            "RouterInterfaceInUseByNDPProxy",
            format!(
                "Unable to remove subnet {} from router {id}, There are one or more ndp proxies still in use on the subnet, such as {} \
                 ({}); delete them first.",
                gone.first().map(SubnetId::as_str).unwrap_or_default(),
                proxy.id,
                proxy.ip_address
            ),
        )),
    }
}

/// Plans a proxy; `wanted` is the address if the port has several.
///
/// # Errors
/// 409 `RouterNDPProxyNotEnable`, `PortUnreachableRouter`, `AddressScopeConflict`, or for an address that the router answers for already;
/// 400 `InvalidAddress`, or for a port without an IPv6 address.
pub fn plan_create_proxy(
    snapshot: &Snapshot,
    txn: &mut Txn,
    router: &Object<Router>,
    port: &Object<Port>,
    wanted: Option<IpAddr>,
    mut new: NdpProxy,
) -> Result<(NdpProxyId, NdpProxy)> {
    let unreachable = || {
        errors::conflict(
            "PortUnreachableRouter",
            format!(
                "The port {} cannot reach the router {} by IPv6 subnet.",
                port.id, router.id
            ),
        )
    };
    let inner: Vec<SubnetId> = router::interfaces(snapshot, &router.id)
        .iter()
        .flat_map(|p| p.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect::<Vec<_>>())
        .collect();
    let Some(gateway) = router.gateway.as_ref().filter(|_| enabled(router)) else {
        return Err(errors::conflict(
            "RouterNDPProxyNotEnable",
            format!(
                "The enable_ndp_proxy parameter of router {} must be set as True while create ndp proxy entry on it.",
                router.id
            ),
        ));
    };
    let own: Vec<(Ipv6Addr, &SubnetId)> = port
        .fixed_ips
        .iter()
        .filter_map(|f| match f.ip_address {
            IpAddr::V6(ip) => Some((ip, &f.subnet_id)),
            IpAddr::V4(_) => None,
        })
        .collect();
    if own.is_empty() {
        return Err(errors::bad_request(
            "ndp_proxy",
            format!("Requested port {} must allocate one IPv6 address at least", port.id),
        ));
    }
    let invalid = |address: IpAddr, reason: String| {
        errors::refuse(
            ErrorKind::BadRequest,
            "InvalidAddress",
            format!("The address {address} is invalid, reason: {reason}."),
        )
    };
    let address = match wanted {
        None => own.iter().find(|(_, s)| inner.contains(s)).ok_or_else(unreachable)?.0,
        Some(wanted) => {
            let found = own.iter().find(|(ip, _)| IpAddr::V6(*ip) == wanted);
            let not_own = || invalid(wanted, format!("This address not belong to the port {}", port.id));
            let (ip, subnet) = found.ok_or_else(not_own)?;
            if !inner.contains(subnet) {
                return Err(invalid(
                    wanted,
                    format!("This address cannot reach the router {}", router.id),
                ));
            }
            *ip
        }
    };
    let (outer, inner) = (
        scope_of(snapshot, &gateway.network_id),
        scope_of(snapshot, &port.network_id),
    );
    if outer != inner {
        let name = |scope: Option<String>| scope.unwrap_or_else(|| "None".to_owned());
        return Err(errors::conflict(
            "AddressScopeConflict",
            format!(
                "The IPv6 address scope {} of external network conflict with internal network's IPv6 address scope {}.",
                name(outer),
                name(inner)
            ),
        ));
    }
    if snapshot.find::<NdpProxy>("router", &router.id).count() >= MOST_PROXIES {
        return Err(errors::bad_request(
            "ndp_proxy",
            format!("a router has at most {MOST_PROXIES} NDP proxies"),
        ));
    }
    let text = address.to_string();
    let key = keys::claim(CLAIM, &router.id, &text);
    if snapshot.raw(&key).is_some() || keys::written(txn, &key) {
        return Err(errors::conflict(
            "NDPProxyExists",
            format!("Router {} answers for {text} already.", router.id),
        ));
    }
    let id = NdpProxyId::new_uuid();
    new.ip_address = address;
    txn.claim(CLAIM, &router.id, &text, &id);
    keys::hold_epoch(snapshot, txn, &format!("router:{}", router.id));
    keys::alive::<Router>(txn, &router.id);
    keys::alive::<Port>(txn, &port.id);
    keys::alive::<Network>(txn, &gateway.network_id);
    txn.bump_epoch(&format!("fips:{}", port.id));
    txn.create(&id, &new);
    Ok((id, new))
}

/// Plans that a proxy goes.
pub fn plan_delete_proxy(txn: &mut Txn, read: &Object<NdpProxy>) {
    txn.release(CLAIM, &read.router_id, &read.ip_address.to_string());
    txn.delete(read);
}

/// Plans that the proxies of some addresses of a port go; `None` is all of them.
pub(crate) fn drop_to(snapshot: &Snapshot, txn: &mut Txn, port: &PortId, lost: Option<&[IpAddr]>) {
    for proxy in snapshot.find::<NdpProxy>("port", port) {
        if lost.is_none_or(|lost| lost.contains(&proxy.ip_address.into())) {
            plan_delete_proxy(txn, &proxy);
        }
    }
}
