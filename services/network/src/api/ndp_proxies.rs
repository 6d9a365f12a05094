//! `/ndp_proxies`.

use super::{
    body::{self, Body, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    Meta, NdpProxy, PortId, RouterId, errors,
    ndp_proxy::{plan_create_proxy, plan_delete_proxy, proxy_not_found},
};
use maru_store::{Object, Snapshot};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

const LIST: List = List {
    plural: "ndp_proxies",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "router_id",
        "port_id",
        "ip_address",
        "description",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| proxy_not_found(id),
};

fn row_of(id: &str, p: &NdpProxy) -> Row {
    Row::new(id)
        .with("name", p.name.as_str())
        .project(&p.project_id)
        .with("router_id", p.router_id.as_str())
        .with("port_id", p.port_id.as_str())
        .with("ip_address", p.ip_address.to_string())
        .timeless(&p.meta)
}

/// What a proxy shall be, and the address that it names.
fn wanted(request: &Request, mut b: Body) -> Result<(NdpProxy, Option<IpAddr>)> {
    let (router, port) = (b.uuid("router_id")?, b.uuid("port_id")?);
    let address = b.nullable_address("ip_address")?.flatten();
    if let Some(IpAddr::V4(v4)) = address {
        return Err(invalid("ip_address", format!("'{v4}' is not an IPv6 address")));
    }
    let proxy = NdpProxy {
        project_id: access::project_for(request, b.project()?)?,
        name: b.text("name", 255)?.unwrap_or_default(),
        router_id: RouterId::from(b.required("router_id", router)?),
        port_id: PortId::from(b.required("port_id", port)?),
        ip_address: Ipv6Addr::UNSPECIFIED,
        meta: Meta::new(b.text("description", 1024)?.unwrap_or_default()),
    };
    b.finish(&[])?;
    Ok((proxy, address))
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_ndp_proxy",
        &[("router_id", "router"), ("port_id", "port")],
        |_, p: &NdpProxy| Target::project(&p.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::ndp_proxy(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "ndp_proxy", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "ndp_proxy", LIST.plural).await?;
    let all: Result<Vec<_>> = bodies.into_iter().map(|b| wanted(&request, b)).collect();
    let all = all?;
    let made = app
        .plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(all.len());
            for (proxy, address) in &all {
                request.authorize(&Target::project(&proxy.project_id))?;
                let router = access::router(&request, snapshot, &proxy.router_id)?;
                let port = access::port(&request, snapshot, &proxy.port_id)?;
                // Who owns a network sees the ports of others on it, and must not open them to the world.
                if port.project_id != proxy.project_id && !request.caller()?.is_admin() {
                    return Err(errors::port_not_found(&proxy.port_id));
                }
                made.push(plan_create_proxy(
                    snapshot,
                    txn,
                    &router,
                    &port,
                    *address,
                    proxy.clone(),
                )?);
            }
            Ok(made)
        })
        .await?;
    let rows = made.iter().map(|(id, p)| row_of(id, p)).collect();
    row::created(bulk, "ndp_proxy", LIST.plural, rows)
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "ndp_proxy").await?;
    let (name, description) = (b.text("name", 255)?, b.text("description", 1024)?);
    b.finish(&["router_id", "port_id", "ip_address"])?;
    let (id, proxy) = app
        .plan(|snapshot, txn| {
            let read = writable(&request, snapshot)?;
            access::check_revision(&request, &read.meta)?;
            let mut proxy = (*read.value).clone();
            proxy.name = name.clone().unwrap_or(proxy.name);
            if let Some(text) = &description {
                proxy.meta.description.clone_from(text);
            }
            proxy.meta.touch();
            txn.update(&read, &proxy);
            Ok((read.id, proxy))
        })
        .await?;
    row::one(200, "ndp_proxy", row_of(&id, &proxy), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        plan_delete_proxy(txn, &writable(&request, snapshot)?);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The proxy of the address, which the caller may change.
fn writable(request: &Request, snapshot: &Snapshot) -> Result<Object<NdpProxy>> {
    let read = access::ndp_proxy(request, snapshot, request.param("id"))?;
    request.authorize(&Target::project(&read.project_id))?;
    Ok(read)
}
