//! `/subnetpools`.

use super::{
    body::{self, Body, block_of, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use ipnet::IpNet;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{AddressScopeId, Meta, SubnetPool, SubnetPoolChange, errors};
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "subnetpools",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "prefixes",
        "ip_version",
        "min_prefixlen",
        "max_prefixlen",
        "default_prefixlen",
        "default_quota",
        "address_scope_id",
        "shared",
        "is_default",
        "description",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::not_found("SubnetPoolNotFound", "Subnet pool", id),
};
/// Most blocks of one pool.
const MOST: usize = 500;

fn texts(prefixes: &[IpNet]) -> Vec<Value> {
    prefixes.iter().map(|p| p.to_string().into()).collect()
}

fn row_of(id: &str, p: &SubnetPool) -> Row {
    Row::new(id)
        .with("name", p.name.as_str())
        .project(&p.project_id)
        .with("prefixes", texts(&p.prefixes))
        .with("ip_version", p.ip_version())
        .with("min_prefixlen", p.min_prefixlen)
        .with("max_prefixlen", p.max_prefixlen)
        .with("default_prefixlen", p.default_prefixlen)
        .with("default_quota", p.default_quota)
        .with("address_scope_id", p.address_scope_id.as_ref().map(|s| s.to_string()))
        .with("shared", p.shared)
        .with("is_default", p.is_default)
        .meta(&p.meta)
}

fn prefixes_of(b: &mut Body) -> Result<Option<Vec<IpNet>>> {
    let name = "prefixes";
    let Some(items) = b.list(name, MOST)? else {
        return Ok(None);
    };
    let all: Result<Vec<IpNet>> = items.iter().map(|v| block_of(name, v)).collect();
    all.map(Some)
}

fn length_of(b: &mut Body, name: &str) -> Result<Option<u8>> {
    match b.integer(name)? {
        None => Ok(None),
        Some(n) => match u8::try_from(n) {
            Ok(n) if n <= 128 => Ok(Some(n)),
            _ => Err(invalid(name, format!("'{n}' is not within 0 and 128"))),
        },
    }
}

fn quota_of(b: &mut Body) -> Result<Option<Option<u64>>> {
    let name = "default_quota";
    if !b.has(name) {
        return Ok(None);
    }
    match b.integer(name)? {
        None => Ok(Some(None)),
        Some(n) => u64::try_from(n)
            .map(|n| Some(Some(n)))
            .map_err(|_| invalid(name, format!("'{n}' is not 0 or more"))),
    }
}

fn scope_of(b: &mut Body) -> Result<Option<Option<AddressScopeId>>> {
    Ok(b.nullable_uuid("address_scope_id")?
        .map(|id| id.map(AddressScopeId::from)))
}

fn request_of(request: &Request, mut b: Body) -> Result<SubnetPool> {
    let project_id = access::project_for(request, b.project()?)?;
    let name = b.text("name", 255)?;
    let name = b.required("name", name)?;
    let prefixes = prefixes_of(&mut b)?;
    let prefixes = b.required("prefixes", prefixes)?;
    let v4 = prefixes.first().is_none_or(|p| p.addr().is_ipv4());
    let min = length_of(&mut b, "min_prefixlen")?.unwrap_or(if v4 { 8 } else { 64 });
    let max = length_of(&mut b, "max_prefixlen")?.unwrap_or(if v4 { 32 } else { 128 });
    let shared = b.boolean("shared")?.unwrap_or(false);
    let is_default = b.boolean("is_default")?.unwrap_or(false);
    let target = maru_auth::Target::project(&project_id);
    for (asked, rule) in [
        (shared, "create_subnetpool:shared"),
        (is_default, "create_subnetpool:is_default"),
    ] {
        if asked {
            request.authorize_rule(rule, &target)?;
        }
    }
    let pool = SubnetPool {
        name,
        prefixes,
        min_prefixlen: min,
        max_prefixlen: max,
        default_prefixlen: length_of(&mut b, "default_prefixlen")?.unwrap_or(min),
        default_quota: quota_of(&mut b)?.flatten(),
        address_scope_id: scope_of(&mut b)?.flatten(),
        shared,
        is_default,
        meta: Meta::new(b.text("description", 255)?.unwrap_or_default()),
        project_id,
    };
    b.finish(&["ip_version"])?;
    Ok(pool)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_subnetpool",
        &[("name", "name")],
        |_, p| access::of_pool(p),
        |s, _| s.find::<SubnetPool>("visible", "shared").collect(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::subnet_pool(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "subnetpool", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "subnetpool", "subnetpools").await?;
    let pools: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_pools(&request, &pools?).await?;
    row::created(
        bulk,
        "subnetpool",
        "subnetpools",
        made.iter().map(|(id, p)| row_of(id, p)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "subnetpool").await?;
    let change = SubnetPoolChange {
        name: b.text("name", 255)?,
        description: b.text("description", 255)?,
        prefixes: prefixes_of(&mut b)?,
        min_prefixlen: length_of(&mut b, "min_prefixlen")?,
        max_prefixlen: length_of(&mut b, "max_prefixlen")?,
        default_prefixlen: length_of(&mut b, "default_prefixlen")?,
        default_quota: quota_of(&mut b)?,
        address_scope_id: scope_of(&mut b)?,
        is_default: b.boolean("is_default")?,
    };
    b.finish(&["ip_version", "shared"])?;
    let (id, pool) = app.update_pool(&request, request.param("id"), &change).await?;
    row::one(200, "subnetpool", row_of(&id, &pool), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_pool(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}

async fn prefixes(app: Arc<App>, mut request: Request, add: bool) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let wanted = prefixes_of(&mut b)?;
    let wanted = b.required("prefixes", wanted)?;
    b.finish(&[])?;
    let pool = app.change_prefixes(&request, request.param("id"), &wanted, add).await?;
    Reply::json(200, &json!({"prefixes": texts(&pool.prefixes)}))
}
pub(crate) async fn add_prefixes(app: Arc<App>, request: Request) -> Result<Reply> {
    prefixes(app, request, true).await
}
pub(crate) async fn remove_prefixes(app: Arc<App>, request: Request) -> Result<Reply> {
    prefixes(app, request, false).await
}

pub(crate) async fn onboard(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let network = b.uuid("network_id")?;
    let network = b.required("network_id", network)?;
    b.finish(&[])?;
    app.onboard(&request, request.param("id"), &network).await?;
    Reply::json(200, &json!({}))
}
