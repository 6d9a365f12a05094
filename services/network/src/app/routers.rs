//! Routers.

use super::{App, access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{
    Route, Router, RouterId, errors,
    router_plan::{
        GatewayRequest, Interface, InterfaceRequest, RouterChange, RouterRequest, plan_add_interface,
        plan_create_router, plan_delete_router, plan_remove_interface, plan_update_router,
    },
};

fn check_gateway(request: &Request, prefix: &str, target: &Target, gateway: &GatewayRequest) -> Result<()> {
    if gateway.enable_snat.is_some_and(|s| !s) {
        request.authorize_rule(&format!("{prefix}_router:external_gateway_info:enable_snat"), target)?;
    }
    if gateway.external_fixed_ips.as_ref().is_some_and(|f| !f.is_empty()) {
        request.authorize_rule(
            &format!("{prefix}_router:external_gateway_info:external_fixed_ips"),
            target,
        )?;
    }
    Ok(())
}

/// How the gateways of a router change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewaysChange {
    Add,
    Replace,
    Remove,
}

/// What the one gateway becomes; `None`: it stays.
fn gateway_after(
    router: &Router,
    wanted: &[GatewayRequest],
    how: GatewaysChange,
) -> Result<Option<Option<GatewayRequest>>> {
    let refuse = |reason: String| Err(errors::bad_request("router", reason));
    let now = router.gateway.as_ref().map(|g| &g.network_id);
    if how == GatewaysChange::Remove {
        return match wanted.iter().find(|g| Some(&g.network_id) != now) {
            Some(other) => refuse(format!("it has no gateway on network {}", other.network_id)),
            None => Ok(now.map(|_| None)),
        };
    }
    let [wanted] = wanted else {
        return match (wanted.is_empty(), how) {
            (true, GatewaysChange::Replace) => Ok(Some(None)),
            (true, _) => Ok(None),
            _ => refuse("a router has one gateway here; name one".to_owned()),
        };
    };
    match now {
        Some(now) if how == GatewaysChange::Add => refuse(format!(
            "it has its one gateway on network {now}; remove or update that one"
        )),
        _ => Ok(Some(Some(wanted.clone()))),
    }
}

impl App {
    /// Adds, replaces or removes gateways, of which a router has one at most.
    pub(crate) async fn change_gateways(
        &self,
        request: &Request,
        id: &str,
        wanted: &[GatewayRequest],
        how: GatewaysChange,
    ) -> Result<(RouterId, Router)> {
        self.plan(|snapshot, txn| {
            let read = access::router(request, snapshot, id)?;
            let target = Target::project(&read.value.project_id);
            request.authorize(&target)?;
            access::check_revision(request, &read.value.meta)?;
            let Some(gateway) = gateway_after(&read.value, wanted, how)? else {
                return Ok((read.id, (*read.value).clone()));
            };
            if let Some(gateway) = &gateway {
                access::network(request, snapshot, &gateway.network_id)?;
                check_gateway(request, "update", &target, gateway)?;
            }
            let change = RouterChange {
                gateway: Some(gateway),
                ..RouterChange::default()
            };
            let router = plan_update_router(snapshot, txn, &read, change)?;
            Ok((read.id, router))
        })
        .await
    }

    pub(crate) async fn create_routers(
        &self,
        request: &Request,
        requests: Vec<RouterRequest>,
    ) -> Result<Vec<(RouterId, Router)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                let target = Target::project(&r.project_id);
                request.authorize(&target)?;
                if let Some(gateway) = &r.gateway {
                    access::network(request, snapshot, &gateway.network_id)?;
                    check_gateway(request, "create", &target, gateway)?;
                }
                made.push(plan_create_router(snapshot, txn, r.clone())?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_router(
        &self,
        request: &Request,
        id: &str,
        change: RouterChange,
    ) -> Result<(RouterId, Router)> {
        self.plan(|snapshot, txn| {
            let read = access::router(request, snapshot, id)?;
            let target = Target::project(&read.value.project_id);
            request.authorize(&target)?;
            access::check_revision(request, &read.value.meta)?;
            if let Some(Some(gateway)) = &change.gateway {
                access::network(request, snapshot, &gateway.network_id)?;
                check_gateway(request, "update", &target, gateway)?;
            }
            let router = plan_update_router(snapshot, txn, &read, change.clone())?;
            Ok((read.id, router))
        })
        .await
    }

    pub(crate) async fn delete_router(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::router(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_router(snapshot, txn, &read)
        })
        .await
    }

    /// Adds (`add`) or removes an interface. Its port or subnet must be one that the caller may see.
    pub(crate) async fn change_interface(
        &self,
        request: &Request,
        id: &str,
        wanted: &InterfaceRequest,
        add: bool,
    ) -> Result<(RouterId, Router, Interface)> {
        self.plan(|snapshot, txn| {
            let read = access::router(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            let made = if add {
                if let Some(port) = &wanted.port_id {
                    let port = access::port(request, snapshot, port)?;
                    // The port becomes the router's: whoever joins them must be able to change both.
                    request.authorize_rule("update_port", &access::of_port(snapshot, &port.value))?;
                }
                if let Some(subnet) = &wanted.subnet_id {
                    access::subnet(request, snapshot, subnet)?;
                }
                plan_add_interface(snapshot, txn, &read, wanted)?
            } else {
                plan_remove_interface(snapshot, txn, &read, wanted)?
            };
            Ok((read.id.clone(), (*read.value).clone(), made))
        })
        .await
    }

    /// Adds (`add`) or removes extra routes; routes that are, or are not, there already do not matter.
    pub(crate) async fn change_routes(
        &self,
        request: &Request,
        id: &str,
        routes: &[Route],
        add: bool,
    ) -> Result<(RouterId, Router)> {
        self.plan(|snapshot, txn| {
            let read = access::router(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            let mut all = read.value.routes.clone();
            if add {
                all.extend(routes.iter().filter(|r| !read.value.routes.contains(r)).cloned());
            } else {
                all.retain(|r| !routes.contains(r));
            }
            let router = plan_update_router(
                snapshot,
                txn,
                &read,
                RouterChange {
                    routes: Some(all),
                    ..RouterChange::default()
                },
            )?;
            Ok((read.id, router))
        })
        .await
    }
}
