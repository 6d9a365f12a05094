//! Networks.

use super::{App, access};
use maru_base::{ErrorKind, Result};
use maru_http::Request;
use maru_network_model::{
    Network, NetworkId, NetworkRequest, Port, QosPolicyId, RbacPolicy, dhcp, errors, floating_ip, keys,
    network::{MTU_EXTERNAL, MTU_MIN, MTU_VXLAN},
    plan_create_network, plan_delete_network,
    qos::hold_policy,
    rbac, router,
    topology::plan_default_external,
};
use maru_store::Snapshot;

/// What shall change of a network; `None` stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkChange {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) admin_state_up: Option<bool>,
    pub(crate) shared: Option<bool>,
    pub(crate) external: Option<bool>,
    pub(crate) is_default: Option<bool>,
    pub(crate) mtu: Option<i64>,
    pub(crate) port_security_enabled: Option<bool>,
    pub(crate) dns_domain: Option<String>,
    pub(crate) qos_policy_id: Option<Option<QosPolicyId>>,
}

impl App {
    pub(crate) async fn create_networks(
        &self,
        request: &Request,
        requests: Vec<NetworkRequest>,
    ) -> Result<Vec<(NetworkId, Network)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                if let Some(Some(policy)) = &r.qos_policy_id {
                    access::qos_policy(request, snapshot, policy)?;
                }
                made.push(plan_create_network(snapshot, txn, r.clone())?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_network(
        &self,
        request: &Request,
        id: &str,
        change: NetworkChange,
    ) -> Result<(NetworkId, Network)> {
        self.plan(|snapshot, txn| {
            let read = access::network(request, snapshot, id)?;
            let target = access::of_network(&read.value);
            request.authorize(&target)?;
            access::check_revision(request, &read.value.meta)?;
            let mut network = (*read.value).clone();
            let privileged = [
                (
                    change.shared.is_some_and(|v| v != network.shared),
                    "update_network:shared",
                ),
                (
                    change.external.is_some_and(|v| v != network.external),
                    "update_network:router:external",
                ),
                (
                    change.is_default.is_some_and(|v| v != network.is_default),
                    "update_network:is_default",
                ),
                (
                    change
                        .port_security_enabled
                        .is_some_and(|v| v != network.port_security_enabled),
                    "update_network:port_security_enabled",
                ),
            ];
            for (changes, rule) in privileged {
                if changes {
                    request.authorize_rule(rule, &target)?;
                }
            }
            if change.shared == Some(false) && network.shared {
                refuse_foreign_use(snapshot, &read.id, &network)?;
                let everyone = snapshot
                    .find::<RbacPolicy>("object", &read.id)
                    .find(|p| p.value.target.as_str() == rbac::EVERYONE);
                if let Some(policy) = everyone {
                    rbac::drop_policy(txn, &policy);
                }
                keys::watch_epoch(snapshot, txn, &format!("ports:{}", read.id));
            }
            if change.external == Some(false) && network.external {
                refuse_external_use(snapshot, &read.id)?;
                keys::watch_epoch(snapshot, txn, &format!("ports:{}", read.id));
            }
            let c = change.clone();
            network.name = c.name.unwrap_or(network.name);
            network.meta.description = c.description.unwrap_or(network.meta.description);
            network.admin_state_up = c.admin_state_up.unwrap_or(network.admin_state_up);
            network.shared = c.shared.unwrap_or(network.shared);
            network.external = c.external.unwrap_or(network.external);
            network.is_default = c.is_default.unwrap_or(network.is_default);
            network.port_security_enabled = c.port_security_enabled.unwrap_or(network.port_security_enabled);
            network.dns_domain = c.dns_domain.unwrap_or(network.dns_domain);
            if let Some(policy) = c.qos_policy_id.filter(|p| *p != network.qos_policy_id) {
                if let Some(policy) = &policy {
                    access::qos_policy(request, snapshot, policy)?;
                    hold_policy(txn, policy);
                }
                network.qos_policy_id = policy;
            }
            if let Some(mtu) = c.mtu {
                let most = if network.external || network.network_type == "flat" {
                    MTU_EXTERNAL
                } else {
                    MTU_VXLAN
                };
                network.mtu = u32::try_from(mtu)
                    .ok()
                    .filter(|n| (MTU_MIN..=most).contains(n))
                    .ok_or_else(|| errors::invalid_input(format!("mtu {mtu} is not within {MTU_MIN} and {most}")))?;
            }
            let default = |n: &Network| n.external && n.is_default;
            plan_default_external(snapshot, txn, &read.id, default(&read.value), default(&network))?;
            network.meta.touch();
            txn.update(&read, &network);
            Ok((read.id, network))
        })
        .await
    }

    pub(crate) async fn delete_network(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::network(request, snapshot, id)?;
            request.authorize(&access::of_network(&read.value))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_network(snapshot, txn, &read)
        })
        .await
    }
}

fn refuse_foreign_use(snapshot: &Snapshot, id: &NetworkId, network: &Network) -> Result<()> {
    let foreign = snapshot.find::<Port>("network", id).find(|p| {
        !p.value.project_id.is_empty()
            && p.value.project_id != network.project_id
            && !network.shared_with.contains(&p.value.project_id)
            && p.value.device_owner != dhcp::OWNER
    });
    match foreign {
        None => Ok(()),
        Some(port) => Err(errors::conflict(
            "InvalidSharedSetting",
            format!(
                "Unable to reconfigure sharing settings for network {id}: port {} of another project is on it.",
                port.id
            ),
        )),
    }
}

fn refuse_external_use(snapshot: &Snapshot, id: &NetworkId) -> Result<()> {
    let used = snapshot
        .find::<Port>("network", id)
        .find(|p| p.value.device_owner == router::GATEWAY || p.value.device_owner == floating_ip::OWNER);
    match used {
        None => Ok(()),
        Some(port) => Err(errors::refuse(
            ErrorKind::Conflict,
            "ExternalNetworkInUse",
            format!(
                "External network {id} cannot be updated to be made non-external, since it has existing gateway or floating IP ports such as {}.",
                port.id
            ),
        )),
    }
}
