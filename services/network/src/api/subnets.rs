//! `/subnets`.

use super::{
    body::{self, Body, address_of, block_of, check_text, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{
    App,
    app::{access, subnets::SubnetChange},
};
use ipnet::IpNet;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    Network, NetworkId, PoolWish, Subnet, SubnetPool, SubnetPoolId, SubnetRequest, errors, subnet_pool,
};
use maru_store::Snapshot;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};

const LIST: List = List {
    plural: "subnets",
    filters: &["shared", "router:external"],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "network_id",
        "ip_version",
        "subnetpool_id",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        "gateway_ip",
        "cidr",
        "allocation_pools",
        "host_routes",
        "dns_nameservers",
        "description",
        "service_types",
        "segment_id",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::subnet_not_found(id),
};
const MODES: &[&str] = &["slaac", "dhcpv6-stateful", "dhcpv6-stateless"];

fn text(ip: &IpAddr) -> Value {
    ip.to_string().into()
}

fn row_of(id: &str, s: &Subnet) -> Row {
    let pools: Vec<Value> = s
        .pools
        .iter()
        .map(|(a, b)| json!({"start": a.to_string(), "end": b.to_string()}))
        .collect();
    let routes: Vec<Value> = s
        .host_routes
        .iter()
        .map(|(n, h)| json!({"destination": n.to_string(), "nexthop": h.to_string()}))
        .collect();
    Row::new(id)
        .with("name", s.name.as_str())
        .project(&s.project_id)
        .with("network_id", s.network_id.as_str())
        .with("ip_version", s.ip_version())
        .with("subnetpool_id", s.subnetpool_id.as_ref().map(ToString::to_string))
        .with("enable_dhcp", s.enable_dhcp)
        .with("ipv6_ra_mode", s.ipv6_ra_mode.clone())
        .with("ipv6_address_mode", s.ipv6_address_mode.clone())
        .with("gateway_ip", s.gateway_ip.as_ref().map_or(Value::Null, text))
        .with("cidr", s.cidr.to_string())
        .with("allocation_pools", pools)
        .with("host_routes", routes)
        .with(
            "dns_nameservers",
            s.dns_nameservers.iter().map(text).collect::<Vec<_>>(),
        )
        .with("service_types", s.service_types.clone())
        .meta(&s.meta)
}

fn pools_of(b: &mut Body) -> Result<Option<Vec<(IpAddr, IpAddr)>>> {
    let name = "allocation_pools";
    let Some(items) = b.list(name, 100)? else {
        return Ok(None);
    };
    let pools: Result<Vec<_>> = items
        .into_iter()
        .map(|item| {
            let mut pool = b.child(name, item)?;
            let mut end = |n: &str| {
                let value = pool
                    .raw(n)
                    .ok_or_else(|| invalid(name, format!("a pool needs its {n}")))?;
                address_of(name, &value)
            };
            let ends = (end("start")?, end("end")?);
            pool.finish(&[])?;
            Ok(ends)
        })
        .collect();
    pools.map(Some)
}

fn routes_of(b: &mut Body) -> Result<Option<Vec<(ipnet::IpNet, IpAddr)>>> {
    Ok(b.routes("host_routes")?
        .map(|all| all.into_iter().map(|r| (r.destination, r.nexthop)).collect()))
}

fn mode_of(b: &mut Body, name: &str) -> Result<Option<String>> {
    match b.nullable_text(name, 32)?.flatten() {
        Some(mode) if !MODES.contains(&mode.as_str()) => Err(invalid(
            name,
            format!("'{mode}' is not in valid_values: {}", MODES.join(", ")),
        )),
        other => Ok(other),
    }
}

fn types_of(b: &mut Body) -> Result<Option<Vec<String>>> {
    let types = b.texts("service_types", 255)?;
    for t in types.iter().flatten() {
        check_text("service_types", t.clone(), 255)?;
        if !["network:", "compute:", "baremetal:"].iter().any(|p| t.starts_with(p)) {
            return Err(errors::refuse(
                maru_base::ErrorKind::BadRequest,
                "InvalidSubnetServiceType",
                format!(
                    "Subnet service type '{t}' is not a device owner prefix; use one such as network:floatingip or compute:nova."
                ),
            ));
        }
    }
    Ok(types)
}

/// The block that is asked for, if one is.
fn cidr_of(b: &mut Body, version: i64) -> Result<Option<IpNet>> {
    let cidr = match b.raw("cidr") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => block_of("cidr", &value)?,
    };
    if cidr.addr() != cidr.network() {
        return Err(invalid(
            "cidr",
            format!(
                "'{cidr}' isn't a recognized IP subnet cidr, '{}' is recommended",
                cidr.trunc()
            ),
        ));
    }
    let is = if cidr.addr().is_ipv4() { 4 } else { 6 };
    if version != is {
        return Err(errors::invalid_input(format!(
            "cidr {cidr} does not match the ip_version '{version}'"
        )));
    }
    Ok(Some(cidr))
}

/// What is asked of a pool, if one is: by its id, or the default one of the IP version.
fn pool_of(snapshot: &Snapshot, b: &mut Body, version: i64, cidr: Option<IpNet>) -> Result<Option<PoolWish>> {
    let named = b.nullable_uuid("subnetpool_id")?.flatten().map(SubnetPoolId::from);
    let prefixlen = match b.integer("prefixlen")? {
        None => None,
        Some(n) => Some(
            u8::try_from(n)
                .ok()
                .filter(|n| *n <= 128)
                .ok_or_else(|| invalid("prefixlen", format!("'{n}' is not within 0 and 128")))?,
        ),
    };
    let usual = b.boolean("use_default_subnetpool")?.unwrap_or(false);
    let pool = match (named, usual) {
        (Some(_), true) => {
            return Err(errors::bad_request(
                "subnets",
                "subnetpool_id and use_default_subnetpool cannot both be specified",
            ));
        }
        (Some(id), false) => id,
        (None, true) => {
            let version = if version == 4 { 4 } else { 6 };
            subnet_pool::default_pool(snapshot, version).ok_or_else(|| {
                errors::bad_request(
                    "subnets",
                    format!("no default subnetpool found for IPv{version}; name a subnetpool_id or a cidr"),
                )
            })?
        }
        (None, false) if prefixlen.is_some() => {
            return Err(errors::bad_request(
                "subnets",
                "prefixlen is for subnets of a subnetpool; name the cidr instead",
            ));
        }
        (None, false) => return Ok(None),
    };
    if prefixlen.is_some() && cidr.is_some() {
        return Err(errors::bad_request(
            "subnets",
            "cidr and prefixlen must not be supplied together",
        ));
    }
    let wrong = snapshot
        .get::<SubnetPool>(&pool)
        .filter(|p| i64::from(p.value.ip_version()) != version);
    if wrong.is_some() {
        return Err(errors::bad_request(
            "subnets",
            format!("subnetpool {pool} is not of IP version {version}"),
        ));
    }
    Ok(Some(PoolWish { pool, prefixlen, cidr }))
}

fn request_of(request: &Request, snapshot: &Snapshot, mut b: Body) -> Result<SubnetRequest> {
    let project = access::project_for(request, b.project()?)?;
    let network = b.uuid("network_id")?;
    let network = NetworkId::from(b.required("network_id", network)?);
    let version = b.integer("ip_version")?;
    let version = b.required("ip_version", version)?;
    if !matches!(version, 4 | 6) {
        return Err(invalid("ip_version", format!("'{version}' is not in [4, 6]")));
    }
    for unused in ["segment_id", "dns_publish_fixed_ip"] {
        match b.raw(unused) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(_) => return Err(invalid(unused, "it is not served here; leave it out")),
        }
    }
    let wanted = cidr_of(&mut b, version)?;
    let pool = pool_of(snapshot, &mut b, version, wanted)?;
    // What is cut out of a pool replaces it.
    let cidr = match (wanted, &pool) {
        (Some(cidr), _) => cidr,
        (None, Some(_)) => IpNet::from(IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED)),
        (None, None) => {
            return Err(errors::refuse(
                maru_base::ErrorKind::BadRequest,
                "BadRequest",
                "Bad subnets request: a subnetpool must be specified in the absence of a cidr; name one or the other.",
            ));
        }
    };
    let mut r = SubnetRequest::new(project, network, cidr);
    r.pool = pool;
    r.name = b.text("name", 255)?.unwrap_or_default();
    r.description = b.text("description", 255)?.unwrap_or_default();
    r.gateway_ip = b.nullable_address("gateway_ip")?;
    r.enable_dhcp = b.boolean("enable_dhcp")?.unwrap_or(true);
    r.pools = pools_of(&mut b)?;
    r.dns_nameservers = b.addresses("dns_nameservers")?.unwrap_or_default();
    r.host_routes = routes_of(&mut b)?.unwrap_or_default();
    r.ipv6_ra_mode = mode_of(&mut b, "ipv6_ra_mode")?;
    r.ipv6_address_mode = mode_of(&mut b, "ipv6_address_mode")?;
    r.service_types = types_of(&mut b)?.unwrap_or_default();
    if !r.service_types.is_empty() {
        request.authorize_rule("create_subnet:service_types", &maru_auth::Target::none())?;
    }
    b.finish(&[])?;
    Ok(r)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_subnet",
        &[("network_id", "network"), ("name", "name")],
        |s, x: &Subnet| access::seen_on(&request, s, &x.project_id, &x.network_id),
        |s, project| {
            let on = |n: maru_store::Object<Network>| s.find::<Subnet>("network", &n.id).collect::<Vec<_>>();
            s.find::<Network>("visible", "shared")
                .chain(s.find::<Network>("visible", &format!("to:{project}")))
                .chain(s.find::<Network>("project", project))
                .flat_map(on)
                .collect()
        },
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |row, name, values| {
        let network = || snapshot.get::<Network>(&NetworkId::from(row.get("network_id")?.as_str()?));
        let have = match name {
            "shared" => network().is_some_and(|n| access::shared_to(&request, &n.value)),
            "router:external" => network().is_some_and(|n| n.value.external),
            _ => return None,
        };
        Some(values.iter().any(|v| row::fits(&Value::Bool(have), v)))
    })
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::subnet(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "subnet", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "subnet", "subnets").await?;
    let requests: Result<Vec<_>> = bodies
        .into_iter()
        .map(|b| request_of(&request, &app.store.snapshot(), b))
        .collect();
    let made = app.create_subnets(&request, requests?).await?;
    row::created(
        bulk,
        "subnet",
        "subnets",
        made.iter().map(|(id, s)| row_of(id, s)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "subnet").await?;
    let change = SubnetChange {
        name: b.text("name", 255)?,
        description: b.text("description", 255)?,
        gateway_ip: b.nullable_address("gateway_ip")?,
        enable_dhcp: b.boolean("enable_dhcp")?,
        pools: pools_of(&mut b)?,
        dns_nameservers: b.addresses("dns_nameservers")?,
        host_routes: routes_of(&mut b)?,
        service_types: types_of(&mut b)?,
    };
    if change.service_types.is_some() {
        request.authorize_rule("create_subnet:service_types", &maru_auth::Target::none())?;
    }
    b.finish(&[
        "network_id",
        "cidr",
        "ip_version",
        "subnetpool_id",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        "prefixlen",
        "segment_id",
    ])?;
    let (id, subnet) = app.update_subnet(&request, request.param("id"), change).await?;
    row::one(200, "subnet", row_of(&id, &subnet), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_subnet(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
