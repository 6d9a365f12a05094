//! Floating IPs.

use super::{App, access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{
    FloatingIp, FloatingIpId, FloatingIpRequest, PortId, plan_associate, plan_create_floating_ip,
    plan_delete_floating_ip,
};
use std::net::IpAddr;

/// What shall change of a floating IP; `None` stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct FloatingIpChange {
    /// `Some(None)`: leads nowhere.
    pub(crate) port: Option<Option<PortId>>,
    pub(crate) fixed_ip: Option<IpAddr>,
    pub(crate) description: Option<String>,
}

impl App {
    pub(crate) async fn create_floating_ips(
        &self,
        request: &Request,
        requests: Vec<FloatingIpRequest>,
    ) -> Result<Vec<(FloatingIpId, FloatingIp)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                let target = Target::project(&r.project_id);
                request.authorize(&target)?;
                access::network(request, snapshot, &r.network)?;
                if r.address.is_some() {
                    request.authorize_rule("create_floatingip:floating_ip_address", &target)?;
                }
                if let Some(port) = &r.port {
                    own_port(request, snapshot, port)?;
                }
                made.push(plan_create_floating_ip(snapshot, txn, r.clone())?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_floating_ip(
        &self,
        request: &Request,
        id: &str,
        change: FloatingIpChange,
    ) -> Result<(FloatingIpId, FloatingIp)> {
        self.plan(|snapshot, txn| {
            let read = access::floating_ip(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(request, &read.value.meta)?;
            let describe = |f: &mut FloatingIp| {
                if let Some(text) = &change.description {
                    f.meta.description.clone_from(text);
                }
            };
            let port = match &change.port {
                Some(port) => port.clone(),
                None => read.value.port_id.clone(),
            };
            if let Some(Some(port)) = &change.port {
                own_port(request, snapshot, port)?;
            }
            let fip = if change.port.is_some() || change.fixed_ip.is_some() {
                plan_associate(snapshot, txn, &read, port.as_ref(), change.fixed_ip, describe)?
            } else {
                let mut fip = (*read.value).clone();
                describe(&mut fip);
                fip.meta.touch();
                txn.update(&read, &fip);
                fip
            };
            Ok((read.id, fip))
        })
        .await
    }

    pub(crate) async fn delete_floating_ip(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::floating_ip(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_floating_ip(snapshot, txn, &read);
            Ok(())
        })
        .await
    }
}

/// The port must be visible and the caller's to change: a floating IP opens it to the outside.
fn own_port(request: &Request, snapshot: &maru_store::Snapshot, id: &PortId) -> Result<()> {
    let port = access::port(request, snapshot, id)?;
    request.authorize_rule("update_port", &access::of_port(snapshot, &port.value))
}
