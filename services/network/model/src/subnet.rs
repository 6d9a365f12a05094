//! Subnets: an address block of a network.

use crate::{
    Meta, Network, NetworkId, PoolWish, Port, SubnetPoolId, address, dhcp, errors, keys, quota, router,
    subnet_pool::plan_cut,
};
use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

maru_base::typed_id!(
    /// Id of a subnet, a UUID.
    SubnetId
);

/// A host route: destination and next hop.
pub type HostRoute = (IpNet, IpAddr);

/// A subnet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// Owner.
    pub project_id: ProjectId,
    /// Its network.
    pub network_id: NetworkId,
    /// Name; need not be unique.
    pub name: String,
    /// Its block, host bits zero.
    pub cidr: IpNet,
    /// The gateway's address, if it has one.
    pub gateway_ip: Option<IpAddr>,
    /// Whether addresses are given by DHCP (or announced).
    pub enable_dhcp: bool,
    /// First and last address of each pool.
    pub pools: Vec<(IpAddr, IpAddr)>,
    /// DNS servers to hand out.
    pub dns_nameservers: Vec<IpAddr>,
    /// Routes to hand out.
    pub host_routes: Vec<HostRoute>,
    /// `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    pub ipv6_ra_mode: Option<String>,
    /// `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    pub ipv6_address_mode: Option<String>,
    /// Device owners that get addresses here; all if empty.
    pub service_types: Vec<String>,
    /// The pool that it was cut out of.
    #[serde(default)]
    pub subnetpool_id: Option<SubnetPoolId>,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for Subnet {
    type Id = SubnetId;
    const NAME: &'static str = "subnet";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |s| vec![s.project_id.to_string()],
            },
            Index {
                name: "network",
                values: |s| vec![s.network_id.to_string()],
            },
            Index {
                name: "pool",
                values: |s| s.subnetpool_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "name",
                values: |s| vec![s.name.clone()],
            },
        ]
    }
}

impl Subnet {
    /// 4 or 6.
    #[must_use]
    pub fn ip_version(&self) -> u8 {
        if self.cidr.addr().is_ipv4() { 4 } else { 6 }
    }
    /// Whether hosts make their own addresses from the prefix.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        matches!(self.ipv6_address_mode.as_deref(), Some("slaac" | "dhcpv6-stateless"))
    }
}

/// What a subnet shall be.
#[derive(Debug, Clone)]
pub struct SubnetRequest {
    /// See [`Subnet`].
    pub project_id: ProjectId,
    /// See [`Subnet`].
    pub network_id: NetworkId,
    /// See [`Subnet`].
    pub name: String,
    /// See [`Meta`].
    pub description: String,
    /// See [`Subnet`]; what `pool` gives instead, if there is one.
    pub cidr: IpNet,
    /// The pool to cut it out of.
    pub pool: Option<PoolWish>,
    /// `None`: the first host of the block; `Some(None)`: none.
    pub gateway_ip: Option<Option<IpAddr>>,
    /// See [`Subnet`].
    pub enable_dhcp: bool,
    /// `None`: all hosts but the gateway.
    pub pools: Option<Vec<(IpAddr, IpAddr)>>,
    /// See [`Subnet`].
    pub dns_nameservers: Vec<IpAddr>,
    /// See [`Subnet`].
    pub host_routes: Vec<HostRoute>,
    /// See [`Subnet`].
    pub ipv6_ra_mode: Option<String>,
    /// See [`Subnet`].
    pub ipv6_address_mode: Option<String>,
    /// See [`Subnet`].
    pub service_types: Vec<String>,
    /// See [`Meta`].
    pub tags: Vec<String>,
}

impl SubnetRequest {
    /// A plain subnet.
    #[must_use]
    pub fn new(project_id: ProjectId, network_id: NetworkId, cidr: IpNet) -> Self {
        Self {
            project_id,
            network_id,
            name: String::new(),
            description: String::new(),
            cidr,
            pool: None,
            gateway_ip: None,
            enable_dhcp: true,
            pools: None,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
            service_types: Vec::new(),
            tags: Vec::new(),
        }
    }
}

/// Whether two blocks share an address.
#[must_use]
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Plans new subnets and, in the same transaction, the DHCP port of each network they are on.
///
/// # Errors
/// 400 for what contradicts itself, 404 for a network that is not there, 400 `InvalidInput` for an overlap, 409 over quota.
pub fn plan_create_subnets(
    snapshot: &Snapshot,
    txn: &mut Txn,
    requests: Vec<SubnetRequest>,
) -> Result<Vec<(SubnetId, Subnet)>> {
    let mut made: Vec<(SubnetId, Subnet)> = Vec::with_capacity(requests.len());
    for mut request in requests {
        let network_id = request.network_id.clone();
        keys::look::<Network>(snapshot, txn, &network_id).ok_or_else(|| errors::network_not_found(&network_id))?;
        keys::alive::<Network>(txn, &network_id);
        keys::hold_epoch(snapshot, txn, &format!("subnets:{network_id}"));
        if let Some(wish) = &request.pool {
            let taken: Vec<(ProjectId, IpNet)> = made
                .iter()
                .filter(|(_, s)| s.subnetpool_id.as_ref() == Some(&wish.pool))
                .map(|(_, s)| (s.project_id.clone(), s.cidr))
                .collect();
            request.cidr = plan_cut(snapshot, txn, wish, &request.project_id, &taken)?;
        }
        let subnet = check(request)?;
        refuse_mixed_pools(snapshot, &made, &subnet)?;
        let there = snapshot
            .find::<Subnet>("network", &network_id)
            .map(|o| (o.id.clone(), o.value.cidr));
        let planned = made
            .iter()
            .filter(|(_, s)| s.network_id == network_id)
            .map(|(i, s)| (i.clone(), s.cidr));
        if let Some((other, cidr)) = there.chain(planned).find(|(_, c)| overlap(c, &subnet.cidr)) {
            return Err(errors::invalid_input(format!(
                "the requested subnet with cidr {} for network {network_id} overlaps with another subnet, {other} ({cidr}); choose another block",
                subnet.cidr
            )));
        }
        quota::consume(snapshot, txn, &subnet.project_id, "subnet")?;
        let id = SubnetId::new_uuid();
        txn.create(&id, &subnet);
        made.push((id, subnet));
    }
    let mut networks: Vec<&NetworkId> = made.iter().map(|(_, s)| &s.network_id).collect();
    networks.sort();
    networks.dedup();
    for network in networks {
        let mut all: Vec<(SubnetId, Subnet)> = snapshot
            .find::<Subnet>("network", network)
            .map(|o| (o.id.clone(), (*o.value).clone()))
            .collect();
        all.extend(made.iter().filter(|(_, s)| s.network_id == *network).cloned());
        dhcp::plan_dhcp_port(snapshot, txn, network, &all)?;
    }
    Ok(made)
}

/// As upstream: the subnets of one IP version on one network come out of one pool, or all out of none.
fn refuse_mixed_pools(snapshot: &Snapshot, made: &[(SubnetId, Subnet)], subnet: &Subnet) -> Result<()> {
    let differs = |s: &Subnet| {
        s.network_id == subnet.network_id
            && s.ip_version() == subnet.ip_version()
            && s.subnetpool_id != subnet.subnetpool_id
    };
    let there = snapshot
        .find::<Subnet>("network", &subnet.network_id)
        .any(|o| differs(&o.value));
    if there || made.iter().any(|(_, s)| differs(s)) {
        return Err(errors::refuse(
            maru_base::ErrorKind::BadRequest,
            "NetworkSubnetPoolAffinityError",
            "Subnets hosted on the same network must be allocated from the same subnet pool; use the pool of the others, or another network.",
        ));
    }
    Ok(())
}

/// Checks what a subnet shall be.
fn check(request: SubnetRequest) -> Result<Subnet> {
    let cidr = request.cidr.trunc();
    let v4 = cidr.addr().is_ipv4();
    let (first, last) = address::host_range(&cidr);
    if cidr.prefix_len() == 0 {
        return Err(errors::invalid_input(
            "the whole address space cannot be a subnet; name a block with a longer prefix",
        ));
    }
    if cidr.addr().is_multicast() || (v4 && cidr.addr().is_loopback()) {
        return Err(errors::invalid_input(format!(
            "{cidr} is not a block that hosts can have addresses in"
        )));
    }
    check_modes(&request, v4, &cidr)?;
    let gateway_ip = match request.gateway_ip {
        Some(given) => given,
        None => Some(address::from_number(first, cidr.network())),
    };
    if let Some(gateway) = gateway_ip {
        check_gateway(&cidr, gateway)?;
    }
    let pools = match request.pools {
        Some(pools) => {
            check_pools(&cidr, &pools)?;
            pools
        }
        None => address::default_pools(&cidr, gateway_ip),
    };
    if let Some(gateway) = gateway_ip
        && address::in_pools(&pools, gateway)
    {
        return Err(errors::conflict(
            "GatewayConflictWithAllocationPools",
            format!(
                "Gateway ip {gateway} lies in an allocation pool; take it out of the pool or name another gateway."
            ),
        ));
    }
    debug_assert!(first <= last || cidr.prefix_len() > 30);
    check_lists(v4, &request.dns_nameservers, &request.host_routes)?;
    Ok(Subnet {
        project_id: request.project_id,
        network_id: request.network_id,
        name: request.name,
        cidr,
        gateway_ip,
        enable_dhcp: request.enable_dhcp,
        pools,
        dns_nameservers: request.dns_nameservers,
        host_routes: request.host_routes,
        ipv6_ra_mode: request.ipv6_ra_mode,
        ipv6_address_mode: request.ipv6_address_mode,
        service_types: request.service_types,
        subnetpool_id: request.pool.map(|w| w.pool),
        meta: Meta::new(request.description).with_tags(request.tags),
    })
}

fn check_modes(request: &SubnetRequest, v4: bool, cidr: &IpNet) -> Result<()> {
    let modes = [&request.ipv6_ra_mode, &request.ipv6_address_mode];
    if modes.iter().all(|m| m.is_none()) {
        return Ok(());
    }
    if v4 {
        return Err(errors::invalid_input(
            "ipv6_ra_mode and ipv6_address_mode belong to IPv6 subnets; leave them out for IPv4",
        ));
    }
    if !request.enable_dhcp {
        return Err(errors::invalid_input(
            "ipv6_ra_mode and ipv6_address_mode need enable_dhcp; set it to true or leave them out",
        ));
    }
    if let (Some(ra), Some(mode)) = (&request.ipv6_ra_mode, &request.ipv6_address_mode)
        && ra != mode
    {
        return Err(errors::invalid_input(format!(
            "ipv6_ra_mode '{ra}' and ipv6_address_mode '{mode}' contradict each other; set both to the same"
        )));
    }
    let auto = modes
        .iter()
        .any(|m| matches!(m.as_deref(), Some("slaac" | "dhcpv6-stateless")));
    if auto && cidr.prefix_len() != 64 {
        return Err(errors::invalid_input(format!(
            "hosts make their own addresses from a /64 only (RFC 4862), {cidr} is none; use a /64 or dhcpv6-stateful"
        )));
    }
    Ok(())
}

/// Checks a gateway against its block.
///
/// # Errors
/// 400.
pub fn check_gateway(cidr: &IpNet, gateway: IpAddr) -> Result<()> {
    let link_local = matches!(gateway, IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
    if gateway.is_ipv4() != cidr.addr().is_ipv4() || !(address::is_host(cidr, gateway) || link_local) {
        return Err(errors::invalid_input(format!(
            "gateway {gateway} is not a host of {cidr}; name one inside, or none"
        )));
    }
    Ok(())
}

/// Checks pools against their block and each other.
///
/// # Errors
/// 400 `InvalidAllocationPool`, `OutOfBoundsAllocationPool`; 409 `OverlappingAllocationPools`.
pub fn check_pools(cidr: &IpNet, pools: &[(IpAddr, IpAddr)]) -> Result<()> {
    for (i, (start, end)) in pools.iter().enumerate() {
        let text = format!("{start}-{end}");
        if start.is_ipv4() != end.is_ipv4() || address::to_number(*start) > address::to_number(*end) {
            return Err(errors::refuse(
                maru_base::ErrorKind::BadRequest,
                "InvalidAllocationPool",
                format!("The allocation pool {text} is not valid: its start must not lie after its end."),
            ));
        }
        if !address::is_host(cidr, *start) || !address::is_host(cidr, *end) {
            return Err(errors::refuse(
                maru_base::ErrorKind::BadRequest,
                "OutOfBoundsAllocationPool",
                format!("The allocation pool {text} spans beyond the subnet cidr {cidr}."),
            ));
        }
        let numbers = |p: &(IpAddr, IpAddr)| (address::to_number(p.0), address::to_number(p.1));
        let (a, b) = numbers(&(*start, *end));
        if let Some(other) = pools[..i].iter().find(|p| {
            let (c, d) = numbers(p);
            a <= d && c <= b
        }) {
            return Err(errors::conflict(
                "OverlappingAllocationPools",
                format!("The allocation pools {text} and {}-{} overlap.", other.0, other.1),
            ));
        }
    }
    Ok(())
}

/// Checks that name servers and routes fit the family.
///
/// # Errors
/// 400.
pub fn check_lists(v4: bool, dns: &[IpAddr], routes: &[HostRoute]) -> Result<()> {
    if dns.len() > 5 {
        return Err(errors::refuse(
            maru_base::ErrorKind::BadRequest,
            "DNSNameServersExhausted",
            "A subnet has at most 5 DNS servers; name fewer.",
        ));
    }
    if routes.len() > 20 {
        return Err(errors::refuse(
            maru_base::ErrorKind::BadRequest,
            "HostRoutesExhausted",
            "A subnet has at most 20 host routes; name fewer.",
        ));
    }
    if let Some(a) = dns.iter().find(|a| a.is_ipv4() != v4) {
        return Err(errors::invalid_input(format!(
            "DNS server {a} is of another IP version than the subnet"
        )));
    }
    if let Some((net, hop)) = routes
        .iter()
        .find(|(n, h)| n.addr().is_ipv4() != v4 || h.is_ipv4() != v4)
    {
        return Err(errors::invalid_input(format!(
            "the host route to {net} via {hop} is of another IP version than the subnet"
        )));
    }
    Ok(())
}

/// Plans the deletion of a subnet; ports that made their address from its prefix lose that address.
///
/// # Errors
/// 409 `SubnetInUse` while a port has an address in it.
pub fn plan_delete_subnet(snapshot: &Snapshot, txn: &mut Txn, read: &Object<Subnet>) -> Result<()> {
    let id = &read.id;
    let network = &read.value.network_id;
    keys::hold_epoch(snapshot, txn, &format!("subnets:{network}"));
    // Not only watched: two deletions over one port must not pass each other.
    keys::hold_epoch(snapshot, txn, &format!("ports:{id}"));
    for port in snapshot.find::<Port>("subnet", id) {
        if port.value.device_owner == dhcp::OWNER {
            continue;
        }
        if !read.value.is_auto() || router::is_router_port(&port.value) {
            return Err(errors::conflict(
                "SubnetInUse",
                format!(
                    "Unable to complete operation on subnet {id}: port {} has an address in it; delete the port or take the address from it.",
                    port.id
                ),
            ));
        }
        let mut value = (*port.value).clone();
        for fixed in value.fixed_ips.iter().filter(|f| f.subnet_id == *id) {
            address::give(txn, id, Some(&read.value), fixed.ip_address);
        }
        value.fixed_ips.retain(|f| f.subnet_id != *id);
        value.meta.touch();
        txn.update(&port, &value);
    }
    let rest: Vec<(SubnetId, Subnet)> = snapshot
        .find::<Subnet>("network", network)
        .filter(|s| s.id != *id)
        .map(|o| (o.id.clone(), (*o.value).clone()))
        .collect();
    dhcp::plan_dhcp_port(snapshot, txn, network, &rest)?;
    plan_drop_subnet(txn, read);
    Ok(())
}

/// Removes a subnet whose addresses are given back by the same transaction.
pub(crate) fn plan_drop_subnet(txn: &mut Txn, read: &Object<Subnet>) {
    quota::release(txn, &read.value.project_id, "subnet");
    keys::bury(txn, keys::pool_counter(&read.id));
    keys::bury(txn, keys::epoch(&format!("ports:{}", read.id)));
    txn.delete(read);
}
