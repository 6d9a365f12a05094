//! Ports.

use super::{App, access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{
    FixedIpRequest, NetworkId, Port, PortId, PortRequest, Subnet, dhcp, errors, floating_ip, plan_create_port,
    plan_delete_port,
    port::{PortChange, plan_update_port},
    router, trunk,
};
use maru_store::{Object, Snapshot};

/// Owners that only the cloud itself gives: a port that claimed one could pass for an interface of a foreign router.
const RESERVED: &[&str] = &[
    router::INTERFACE,
    router::GATEWAY,
    floating_ip::OWNER,
    dhcp::OWNER,
    trunk::SUBPORT,
];

/// Whether a request names what needs more than its route's rule.
struct Wants<'a> {
    prefix: &'static str,
    device_owner: Option<&'a str>,
    mac: bool,
    fixed_ips: Option<&'a [FixedIpRequest]>,
    port_security: bool,
    host: bool,
    profile: bool,
    vnic: bool,
    pairs: bool,
}

impl Wants<'_> {
    fn check(&self, request: &Request, target: &Target) -> Result<()> {
        let rule = |attribute: &str| format!("{}_port:{attribute}", self.prefix);
        if let Some(owner) = self.device_owner {
            if RESERVED.contains(&owner) {
                return Err(errors::invalid_input(format!(
                    "device_owner '{owner}' is given by the cloud itself: use the calls of routers, floating IPs, subnets and trunks"
                )));
            }
            request.authorize_rule(&rule("device_owner"), &target.clone().with("device_owner", owner))?;
        }
        for (wanted, attribute) in [
            (self.mac, "mac_address"),
            (self.fixed_ips.is_some_and(|f| !f.is_empty()), "fixed_ips"),
            (
                self.fixed_ips.is_some_and(|f| f.iter().any(|f| f.ip_address.is_some())),
                "fixed_ips:ip_address",
            ),
            (self.port_security, "port_security_enabled"),
            (self.host, "binding:host_id"),
            (self.profile, "binding:profile"),
            (self.vnic, "binding:vnic_type"),
            (self.pairs, "allowed_address_pairs"),
        ] {
            if wanted {
                request.authorize_rule(&rule(attribute), target)?;
            }
        }
        Ok(())
    }
}

/// A subnet of another network is refused by the planner; one that the caller may not see must not be told from none.
fn hide_foreign(request: &Request, snapshot: &Snapshot, network: &NetworkId, fixed: &[FixedIpRequest]) -> Result<()> {
    for id in fixed.iter().filter_map(|f| f.subnet_id.as_ref()) {
        let elsewhere = |s: Object<Subnet>| s.value.network_id != *network;
        if snapshot.get::<Subnet>(id).is_some_and(elsewhere) {
            access::subnet(request, snapshot, id)?;
        }
    }
    Ok(())
}

impl App {
    pub(crate) async fn create_ports(
        &self,
        request: &Request,
        requests: Vec<PortRequest>,
    ) -> Result<Vec<(PortId, Port)>> {
        let foreign_groups = request.caller()?.is_admin();
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                let network = access::network(request, snapshot, &r.network)?;
                let target = access::seen_on(request, snapshot, &r.project, &network.id);
                request.authorize(&target)?;
                if network.value.external {
                    request.authorize_rule("create_port:on_external", &target)?;
                }
                Wants {
                    prefix: "create",
                    device_owner: Some(r.device_owner.as_str()).filter(|o| !o.is_empty()),
                    mac: r.mac.is_some(),
                    fixed_ips: r.fixed_ips.as_deref(),
                    port_security: r
                        .port_security
                        .is_some_and(|p| p != network.value.port_security_enabled),
                    host: !r.host.is_empty(),
                    profile: !r.profile.is_empty(),
                    vnic: r.vnic_type != "normal",
                    pairs: !r.allowed_address_pairs.is_empty(),
                }
                .check(request, &target)?;
                if let Some(policy) = &r.qos_policy_id {
                    access::qos_policy(request, snapshot, policy)?;
                }
                hide_foreign(
                    request,
                    snapshot,
                    &network.id,
                    r.fixed_ips.as_deref().unwrap_or_default(),
                )?;
                made.push(plan_create_port(
                    snapshot,
                    txn,
                    PortRequest {
                        foreign_groups,
                        ..r.clone()
                    },
                )?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_port(&self, request: &Request, id: &str, change: PortChange) -> Result<(PortId, Port)> {
        let foreign_groups = request.caller()?.is_admin();
        self.plan(|snapshot, txn| {
            let read = access::port(request, snapshot, id)?;
            let old = &read.value;
            let target = access::seen_on(request, snapshot, &old.project_id, &old.network_id);
            request.authorize(&target)?;
            access::check_revision(request, &old.meta)?;
            let same_addresses = |wanted: &[FixedIpRequest]| {
                wanted.len() == old.fixed_ips.len()
                    && wanted.iter().all(|w| {
                        old.fixed_ips.iter().any(|f| {
                            w.subnet_id.as_ref().is_none_or(|s| *s == f.subnet_id)
                                && w.ip_address.is_none_or(|a| a == f.ip_address)
                        })
                    })
            };
            Wants {
                prefix: "update",
                device_owner: change
                    .device_owner
                    .as_deref()
                    .filter(|o| !o.is_empty() && *o != old.device_owner),
                mac: change.mac.as_ref().is_some_and(|m| *m != old.mac_address),
                fixed_ips: change.fixed_ips.as_deref().filter(|f| !same_addresses(f)),
                port_security: change
                    .port_security_enabled
                    .is_some_and(|p| p != old.port_security_enabled),
                host: change.host.as_ref().is_some_and(|h| *h != old.host),
                profile: change.profile.as_ref().is_some_and(|p| *p != old.profile),
                vnic: change.vnic_type.as_ref().is_some_and(|v| *v != old.vnic_type),
                pairs: change
                    .allowed_address_pairs
                    .as_ref()
                    .is_some_and(|p| *p != old.allowed_address_pairs),
            }
            .check(request, &target)?;
            let fixed = change.fixed_ips.as_deref().unwrap_or_default();
            hide_foreign(request, snapshot, &old.network_id, fixed)?;
            refuse_cloud_ports(snapshot, &read.id, old, &change)?;
            if let Some(Some(policy)) = &change.qos_policy_id
                && old.qos_policy_id.as_ref() != Some(policy)
            {
                access::qos_policy(request, snapshot, policy)?;
            }
            let port = plan_update_port(
                snapshot,
                txn,
                &read,
                PortChange {
                    foreign_groups,
                    ..change.clone()
                },
            )?;
            Ok((read.id, port))
        })
        .await
    }

    pub(crate) async fn delete_port(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::port(request, snapshot, id)?;
            request.authorize(&access::of_port(snapshot, &read.value))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_port(snapshot, txn, &read)
        })
        .await
    }
}

/// Refuses changes that would take a port from the router, floating IP, subnet or trunk it serves.
fn refuse_cloud_ports(snapshot: &Snapshot, id: &PortId, old: &Port, change: &PortChange) -> Result<()> {
    if !RESERVED.contains(&old.device_owner.as_str()) {
        return Ok(());
    }
    let device = change.device_id.as_ref().is_some_and(|d| *d != old.device_id)
        || change.device_owner.as_ref().is_some_and(|o| *o != old.device_owner)
        || change.host.as_ref().is_some_and(|h| *h != old.host);
    // A subport is otherwise its project's like any port.
    let plain = old.device_owner == trunk::SUBPORT;
    let moves = change.fixed_ips.as_ref().is_some_and(|wanted| {
        let subnet_of = |w: &FixedIpRequest| match (&w.subnet_id, w.ip_address) {
            (Some(s), _) => Some(s.clone()),
            (None, Some(ip)) => snapshot
                .find::<maru_network_model::Subnet>("network", &old.network_id)
                .find(|s| s.value.cidr.contains(&ip))
                .map(|s| s.id),
            (None, None) => None,
        };
        let mut new: Vec<_> = wanted.iter().filter_map(subnet_of).collect();
        let mut now: Vec<_> = old.fixed_ips.iter().map(|f| f.subnet_id.clone()).collect();
        new.sort();
        now.sort();
        old.device_owner != router::INTERFACE || new != now
    });
    let secured =
        change.port_security_enabled == Some(true) || change.security_groups.as_ref().is_some_and(|g| !g.is_empty());
    if device || (!plain && (moves || secured)) {
        return Err(errors::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {id} for network {}: it belongs to {} (device owner {}); change it there.",
                old.network_id, old.device_id, old.device_owner
            ),
        ));
    }
    Ok(())
}
