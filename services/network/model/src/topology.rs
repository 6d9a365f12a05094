//! The topology that a project gets by itself (`auto-allocated-topology`): a network with a subnet of each default pool, behind a
//! router that has its gateway on the default external network.
//!
//! It is made and removed in steps, each a transaction that the next call can go on from: a router's interface stands on a subnet
//! that must be there already.
//!
//! ```text
//!  nothing ──► network, subnets, router, record ──► an interface on each subnet ──► done
//!  done ──► interfaces removed, one by one ──► router removed ──► network and record removed ──► nothing
//! ```

use crate::{
    Meta, Network, NetworkId, NetworkRequest, Port, Router, RouterId, Subnet, SubnetRequest, errors,
    network::{plan_create_network, plan_delete_network},
    router,
    router_plan::{
        GatewayRequest, InterfaceRequest, RouterRequest, plan_add_interface, plan_create_router, plan_delete_router,
        plan_remove_interface,
    },
    subnet::plan_create_subnets,
    subnet_pool::{PoolWish, SubnetPool, default_pool},
};
use maru_base::{Error, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

/// The claim of the default external network.
const DEFAULT: &str = "default-external";

/// What a project was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoTopology {
    /// Its network; the record goes with it.
    pub network_id: NetworkId,
    /// Its router, if nobody has deleted it.
    pub router_id: RouterId,
}

impl Kind for AutoTopology {
    type Id = ProjectId;
    const NAME: &'static str = "auto_topology";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "network",
            values: |t| vec![t.network_id.to_string()],
        }]
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// The project has it.
    Done(NetworkId),
}

/// The network that routers get their gateway on.
#[must_use]
pub fn default_external(snapshot: &Snapshot) -> Option<NetworkId> {
    snapshot.owner(DEFAULT, "", "network").map(NetworkId::from)
}

/// Plans that a network becomes, or is no more, the default external one. `was` and `now` say whether it is both external and
/// default.
///
/// # Errors
/// 409 `DefaultExternalNetworkExists`.
pub fn plan_default_external(snapshot: &Snapshot, txn: &mut Txn, id: &NetworkId, was: bool, now: bool) -> Result<()> {
    if was && !now {
        txn.release(DEFAULT, "", "network");
    }
    if now && !was {
        let key = crate::keys::claim(DEFAULT, "", "network");
        if let Some(other) = default_external(snapshot) {
            return Err(exists(&other));
        }
        if crate::keys::written(txn, &key) {
            return Err(exists(id));
        }
        txn.claim(DEFAULT, "", "network", id);
    }
    Ok(())
}

fn exists(other: &NetworkId) -> Error {
    errors::conflict(
        "DefaultExternalNetworkExists",
        format!("A default external network already exists: {other}; take its is_default away first."),
    )
}

fn failure(reason: &str) -> Error {
    errors::conflict("AutoAllocationFailure", format!("Deployment error: {reason}."))
}

/// The default pools, and the default external network.
///
/// # Errors
/// 409 `AutoAllocationFailure` that says what is missing.
pub fn requirements(snapshot: &Snapshot) -> Result<(NetworkId, Vec<Object<SubnetPool>>)> {
    let external = default_external(snapshot).ok_or_else(|| {
        failure("No default router:external network; an administrator makes one so by its is_default")
    })?;
    let pools: Vec<_> = [4, 6]
        .iter()
        .filter_map(|version| snapshot.get::<SubnetPool>(&default_pool(snapshot, *version)?))
        .collect();
    if pools.is_empty() {
        return Err(failure(
            "No default subnetpools defined; an administrator makes one so by its is_default",
        ));
    }
    Ok((external, pools))
}

/// Plans the next step towards the topology of a project.
///
/// # Errors
/// Of [`requirements`]; 409 over quota, or when a pool is used up.
pub fn plan_step(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId) -> Result<Step> {
    let Some(have) = snapshot.get::<AutoTopology>(project) else {
        begin(snapshot, txn, project)?;
        return Ok(Step::More);
    };
    let done = Step::Done(have.network_id.clone());
    let Some(router) = snapshot.get::<Router>(&have.router_id) else {
        return Ok(done);
    };
    let attached = router::interfaces(snapshot, &router.id);
    let bare = snapshot
        .find::<Subnet>("network", &have.network_id)
        .find(|s| !attached.iter().any(|p| p.fixed_ips.iter().any(|f| f.subnet_id == s.id)));
    let Some(subnet) = bare else {
        return Ok(done);
    };
    let request = InterfaceRequest {
        port_id: None,
        subnet_id: Some(subnet.id),
    };
    plan_add_interface(snapshot, txn, &router, &request)?;
    Ok(Step::More)
}

fn begin(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId) -> Result<()> {
    let (external, pools) = requirements(snapshot)?;
    let request = NetworkRequest::new(project.clone(), "auto_allocated_network");
    let (network_id, _) = plan_create_network(snapshot, txn, request)?;
    let subnets = pools.iter().map(|pool| {
        let cidr = pool.prefixes.first().copied().unwrap_or_default();
        SubnetRequest {
            name: format!("auto_allocated_subnet_v{}", pool.ip_version()),
            pool: Some(PoolWish {
                pool: pool.id.clone(),
                prefixlen: None,
                cidr: None,
            }),
            ..SubnetRequest::new(project.clone(), network_id.clone(), cidr)
        }
    });
    plan_create_subnets(snapshot, txn, subnets.collect())?;
    let request = RouterRequest {
        project_id: project.clone(),
        name: "auto_allocated_router".to_owned(),
        admin_state_up: true,
        gateway: Some(GatewayRequest {
            network_id: external,
            enable_snat: None,
            external_fixed_ips: None,
        }),
        availability_zone_hints: Vec::new(),
        distributed: false,
        ha: false,
        enable_ndp_proxy: false,
        meta: Meta::new(""),
    };
    let (router_id, _) = plan_create_router(snapshot, txn, request)?;
    txn.create(project, &AutoTopology { network_id, router_id });
    Ok(())
}

/// Plans the next step of the removal of a project's topology; `true` when it is gone.
///
/// # Errors
/// 409 `NetworkInUse` while something is on its network, 409 of its router.
pub fn plan_remove_step(snapshot: &Snapshot, txn: &mut Txn, project: &ProjectId) -> Result<bool> {
    let Some(have) = snapshot.get::<AutoTopology>(project) else {
        return Ok(true);
    };
    let network = snapshot
        .get::<Network>(&have.network_id)
        .ok_or_else(|| errors::network_not_found(&have.network_id))?;
    let user = snapshot
        .find::<Port>("network", &network.id)
        .find(|p| !p.device_owner.starts_with("network:"));
    if let Some(port) = user {
        return Err(errors::conflict(
            "NetworkInUse",
            format!(
                "Unable to complete operation on network {}. There are one or more ports still in use on the network, such as {} \
                 of device {}; delete them first.",
                network.id, port.id, port.device_id
            ),
        ));
    }
    let Some(router) = snapshot.get::<Router>(&have.router_id) else {
        plan_delete_network(snapshot, txn, &network)?;
        return Ok(true);
    };
    let attached = router::interfaces(snapshot, &router.id)
        .into_iter()
        .find(|p| p.network_id == network.id);
    match attached {
        None => plan_delete_router(snapshot, txn, &router)?,
        Some(port) => {
            let request = InterfaceRequest {
                port_id: Some(port.id),
                subnet_id: None,
            };
            plan_remove_interface(snapshot, txn, &router, &request)?;
        }
    }
    Ok(false)
}

/// Forgets the topology that a network is of: it is deleted.
pub(crate) fn forget(snapshot: &Snapshot, txn: &mut Txn, network: &NetworkId) {
    for have in snapshot.find::<AutoTopology>("network", network) {
        txn.delete(&have);
    }
}
