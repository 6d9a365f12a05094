//! Subnet pools.

use super::{App, access};
use ipnet::IpNet;
use maru_auth::Target;
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{
    Subnet, SubnetPool, SubnetPoolChange, SubnetPoolId, errors,
    subnet_pool::{plan_create_pool, plan_delete_pool, plan_remove_prefixes, plan_update_pool},
};

impl App {
    pub(crate) async fn create_pools(
        &self,
        request: &Request,
        pools: &[SubnetPool],
    ) -> Result<Vec<(SubnetPoolId, SubnetPool)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(pools.len());
            for pool in pools {
                request.authorize(&Target::project(&pool.project_id))?;
                if let Some(scope) = &pool.address_scope_id {
                    access::address_scope(request, snapshot, scope)?;
                }
                made.push(plan_create_pool(snapshot, txn, pool.clone())?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_pool(
        &self,
        request: &Request,
        id: &str,
        change: &SubnetPoolChange,
    ) -> Result<(SubnetPoolId, SubnetPool)> {
        self.plan(|snapshot, txn| {
            let read = access::subnet_pool(request, snapshot, id)?;
            let target = access::of_pool(&read.value);
            request.authorize(&target)?;
            access::check_revision(request, &read.value.meta)?;
            if change.is_default.is_some_and(|on| on != read.value.is_default) {
                request.authorize_rule("update_subnetpool:is_default", &target)?;
            }
            if let Some(Some(scope)) = &change.address_scope_id {
                access::address_scope(request, snapshot, scope)?;
            }
            let pool = plan_update_pool(snapshot, txn, &read, change.clone())?;
            Ok((read.id, pool))
        })
        .await
    }

    pub(crate) async fn delete_pool(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::subnet_pool(request, snapshot, id)?;
            request.authorize(&access::of_pool(&read.value))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_pool(snapshot, txn, &read)
        })
        .await
    }

    /// Adds (`add`) or takes away blocks.
    pub(crate) async fn change_prefixes(
        &self,
        request: &Request,
        id: &str,
        prefixes: &[IpNet],
        add: bool,
    ) -> Result<SubnetPool> {
        self.plan(|snapshot, txn| {
            let read = access::subnet_pool(request, snapshot, id)?;
            request.authorize(&access::of_pool(&read.value))?;
            if !add {
                return plan_remove_prefixes(snapshot, txn, &read, prefixes);
            }
            let mut all = read.value.prefixes.clone();
            all.extend_from_slice(prefixes);
            let change = SubnetPoolChange {
                prefixes: Some(all),
                ..SubnetPoolChange::default()
            };
            plan_update_pool(snapshot, txn, &read, change)
        })
        .await
    }

    /// Takes the subnets of a network, of the pool's IP version, into the pool.
    pub(crate) async fn onboard(&self, request: &Request, id: &str, network: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::subnet_pool(request, snapshot, id)?;
            request.authorize(&access::of_pool(&read.value))?;
            let network = access::network(request, snapshot, network)?;
            request.authorize_rule("update_network", &access::of_network(&network.value))?;
            let mut prefixes = read.value.prefixes.clone();
            // Who makes a subnet there at this moment conflicts.
            maru_network_model::keys::hold_epoch(snapshot, txn, &format!("subnets:{}", network.id));
            for subnet in snapshot.find::<Subnet>("network", &network.id) {
                if subnet.value.ip_version() != read.value.ip_version() {
                    continue;
                }
                if let Some(other) = &subnet.value.subnetpool_id {
                    return Err(errors::invalid_input(format!(
                        "subnet {} is of subnet pool {other} already; onboard networks whose subnets are of none",
                        subnet.id
                    )));
                }
                let taken = snapshot
                    .find::<Subnet>("pool", &read.id)
                    .find(|s| maru_network_model::subnet::overlap(&s.value.cidr, &subnet.value.cidr));
                if let Some(other) = taken {
                    return Err(errors::conflict(
                        "IllegalSubnetPoolUpdate",
                        format!(
                            "Illegal subnetpool update: subnet {} ({}) overlaps subnet {} of the pool.",
                            subnet.id, subnet.value.cidr, other.id
                        ),
                    ));
                }
                prefixes.push(subnet.value.cidr);
                let mut value = (*subnet.value).clone();
                value.subnetpool_id = Some(read.id.clone());
                value.meta.touch();
                txn.update(&subnet, &value);
            }
            let change = SubnetPoolChange {
                prefixes: Some(prefixes),
                ..SubnetPoolChange::default()
            };
            plan_update_pool(snapshot, txn, &read, change)?;
            Ok(())
        })
        .await
    }
}
