//! Subnets.

use super::{App, access};
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{
    Port, Subnet, SubnetId, SubnetRequest, address, dhcp, errors, keys, plan_create_subnets, plan_delete_subnet,
    router,
    subnet::{HostRoute, check_gateway, check_lists, check_pools},
};
use std::net::IpAddr;

/// What shall change of a subnet; `None` stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubnetChange {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) gateway_ip: Option<Option<IpAddr>>,
    pub(crate) enable_dhcp: Option<bool>,
    pub(crate) pools: Option<Vec<(IpAddr, IpAddr)>>,
    pub(crate) dns_nameservers: Option<Vec<IpAddr>>,
    pub(crate) host_routes: Option<Vec<HostRoute>>,
    pub(crate) service_types: Option<Vec<String>>,
}

impl App {
    pub(crate) async fn create_subnets(
        &self,
        request: &Request,
        requests: Vec<SubnetRequest>,
    ) -> Result<Vec<(SubnetId, Subnet)>> {
        self.plan(|snapshot, txn| {
            for r in &requests {
                let network = access::network(request, snapshot, &r.network_id)?;
                request.authorize(&access::of_network(&network.value))?;
                if let Some(wish) = &r.pool {
                    access::subnet_pool(request, snapshot, &wish.pool)?;
                }
            }
            plan_create_subnets(snapshot, txn, requests.clone())
        })
        .await
    }

    pub(crate) async fn update_subnet(
        &self,
        request: &Request,
        id: &str,
        change: SubnetChange,
    ) -> Result<(SubnetId, Subnet)> {
        self.plan(|snapshot, txn| {
            let read = access::subnet(request, snapshot, id)?;
            request.authorize(&access::of_subnet(snapshot, &read.value))?;
            access::check_revision(request, &read.value.meta)?;
            let old = &read.value;
            let c = change.clone();
            let mut subnet = (**old).clone();
            subnet.name = c.name.unwrap_or(subnet.name);
            subnet.meta.description = c.description.unwrap_or(subnet.meta.description);
            subnet.enable_dhcp = c.enable_dhcp.unwrap_or(subnet.enable_dhcp);
            subnet.dns_nameservers = c.dns_nameservers.unwrap_or(subnet.dns_nameservers);
            subnet.host_routes = c.host_routes.unwrap_or(subnet.host_routes);
            subnet.service_types = c.service_types.unwrap_or(subnet.service_types);
            check_lists(subnet.ip_version() == 4, &subnet.dns_nameservers, &subnet.host_routes)?;
            if !subnet.enable_dhcp && (subnet.ipv6_ra_mode.is_some() || subnet.ipv6_address_mode.is_some()) {
                return Err(errors::invalid_input(
                    "enable_dhcp cannot be taken from a subnet with an ipv6 mode",
                ));
            }
            if let Some(pools) = c.pools {
                check_pools(&subnet.cidr, &pools)?;
                subnet.pools = pools;
            }
            if let Some(gateway) = c.gateway_ip
                && gateway != old.gateway_ip
            {
                if let Some(ip) = gateway {
                    check_gateway(&subnet.cidr, ip)?;
                }
                let in_use = snapshot.find::<Port>("subnet", &read.id).find(|p| {
                    p.value.device_owner == router::INTERFACE
                        && p.value.fixed_ips.iter().any(|f| Some(f.ip_address) == old.gateway_ip)
                });
                if let Some(port) = in_use {
                    return Err(errors::conflict(
                        "GatewayIpInUse",
                        format!(
                            "Current gateway ip {} is already in use by port {}; remove the router interface first.",
                            old.gateway_ip.map(|g| g.to_string()).unwrap_or_default(),
                            port.id
                        ),
                    ));
                }
                subnet.gateway_ip = gateway;
            }
            if let Some(gateway) = subnet.gateway_ip
                && address::in_pools(&subnet.pools, gateway)
            {
                return Err(errors::conflict(
                    "GatewayConflictWithAllocationPools",
                    format!("Gateway ip {gateway} lies in an allocation pool; take it out of the pool."),
                ));
            }
            // Who gives or takes an address, or sets an interface, at this moment conflicts.
            keys::hold_epoch(snapshot, txn, &format!("ports:{}", read.id));
            keys::hold_epoch(snapshot, txn, &format!("subnets:{}", old.network_id));
            subnet.meta.touch();
            let enable_changes = subnet.enable_dhcp != old.enable_dhcp;
            if subnet.pools != old.pools {
                let inside = |pools: &[(IpAddr, IpAddr)]| {
                    let all = snapshot
                        .raw_under(&keys::addresses(&read.id))
                        .filter_map(|(k, _)| k.parts().pop()?.parse().ok());
                    i64::try_from(all.filter(|ip| address::in_pools(pools, *ip)).count()).unwrap_or(i64::MAX)
                };
                txn.add(
                    keys::pool_counter(&read.id),
                    inside(&subnet.pools) - inside(&old.pools),
                    None,
                );
            }
            txn.update(&read, &subnet);
            if enable_changes {
                let all: Vec<(SubnetId, Subnet)> = snapshot
                    .find::<Subnet>("network", &old.network_id)
                    .map(|o| {
                        if o.id == read.id {
                            (o.id.clone(), subnet.clone())
                        } else {
                            (o.id.clone(), (*o.value).clone())
                        }
                    })
                    .collect();
                dhcp::plan_dhcp_port(snapshot, txn, &old.network_id, &all)?;
            }
            Ok((read.id, subnet))
        })
        .await
    }

    pub(crate) async fn delete_subnet(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::subnet(request, snapshot, id)?;
            request.authorize(&access::of_subnet(snapshot, &read.value))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_subnet(snapshot, txn, &read)
        })
        .await
    }
}
