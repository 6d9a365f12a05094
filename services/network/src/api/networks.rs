//! `/networks`.

use super::{
    body::{self, Body, check_text, invalid},
    candidates, qos,
    row::{self, List, Row},
};
use crate::{
    App,
    app::{access, networks::NetworkChange},
};
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{Agent, Network, NetworkRequest, Subnet, SubnetPool, agent, errors};
use maru_store::Snapshot;
use serde_json::Value;
use std::sync::Arc;

const LIST: List = List {
    plural: "networks",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "admin_state_up",
        "mtu",
        "status",
        "subnets",
        "shared",
        "availability_zone_hints",
        "availability_zones",
        "ipv4_address_scope",
        "ipv6_address_scope",
        "router:external",
        "is_default",
        "qos_policy_id",
        "description",
        "port_security_enabled",
        "dns_domain",
        "created_at",
        "updated_at",
        "revision_number",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
    ],
    missing: |id| errors::network_not_found(id),
};
const FIXED: &[&str] = &[
    "subnets",
    "availability_zones",
    "ipv4_address_scope",
    "ipv6_address_scope",
];

/// What all rows of one answer share.
struct View<'a> {
    snapshot: &'a Snapshot,
    /// May see `provider:network_type`, `provider:physical_network`, `provider:segmentation_id`.
    provider: [bool; 3],
    zones: Vec<String>,
    /// The caller's.
    project: Option<ProjectId>,
}

impl<'a> View<'a> {
    fn new(request: &Request, snapshot: &'a Snapshot) -> Self {
        let mut zones: Vec<String> = snapshot
            .find::<Agent>("type", agent::DHCP)
            .filter(|a| a.value.alive)
            .map(|a| a.value.availability_zone.clone())
            .collect();
        zones.sort();
        zones.dedup();
        let provider = [
            "get_network:provider:network_type",
            "get_network:provider:physical_network",
            "get_network:provider:segmentation_id",
        ]
        .map(|rule| request.may(rule, &maru_auth::Target::none()));
        Self {
            snapshot,
            provider,
            zones,
            project: request.caller().ok().and_then(|c| c.project_id().cloned()),
        }
    }
    /// The address scope of a network's subnets of one IP version: that of their pool.
    fn scope(&self, id: &str, version: u8) -> Option<String> {
        let subnets = self.snapshot.find::<Subnet>("network", id);
        let pool = subnets
            .filter(|s| s.value.ip_version() == version)
            .find_map(|s| s.value.subnetpool_id.clone())?;
        let pool = self.snapshot.get::<SubnetPool>(&pool)?;
        pool.value.address_scope_id.as_ref().map(ToString::to_string)
    }
    fn row(&self, id: &str, n: &Network) -> Row {
        let subnets: Vec<Value> = self
            .snapshot
            .find::<Subnet>("network", id)
            .map(|s| s.id.as_str().into())
            .collect();
        let zones = if subnets.is_empty() {
            Vec::new()
        } else {
            self.zones.clone()
        };
        let mut row = Row::new(id)
            .with("name", n.name.as_str())
            .project(&n.project_id)
            .with("admin_state_up", n.admin_state_up)
            .with("mtu", n.mtu)
            .with("status", "ACTIVE")
            .with("subnets", subnets)
            .with("shared", n.shared_to(self.project.as_ref()))
            .with("availability_zone_hints", n.availability_zone_hints.clone())
            .with("availability_zones", zones)
            .with("ipv4_address_scope", self.scope(id, 4))
            .with("ipv6_address_scope", self.scope(id, 6))
            .with("router:external", n.external)
            .with("port_security_enabled", n.port_security_enabled)
            .with("dns_domain", n.dns_domain.as_str())
            .with("qos_policy_id", n.qos_policy_id.as_ref().map(ToString::to_string))
            .meta(&n.meta);
        if n.external {
            row = row.with("is_default", n.is_default);
        }
        let [kind, physical, segment] = self.provider;
        if kind {
            row = row.with("provider:network_type", n.network_type.as_str());
        }
        if physical {
            row = row.with("provider:physical_network", n.physical_network.clone());
        }
        if segment {
            let number = if n.network_type == "vxlan" {
                n.vni.into()
            } else {
                Value::Null
            };
            row = row.with("provider:segmentation_id", number);
        }
        row
    }
}

/// A DNS domain: labels of letters, digits and hyphens (RFC 1123), at most 255 characters.
pub(crate) fn domain(name: &str, text: String) -> Result<String> {
    let text = check_text(name, text, 255)?;
    let trimmed = text.strip_suffix('.').unwrap_or(&text);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if trimmed.is_empty() || trimmed.split('.').all(label) {
        return Ok(text);
    }
    Err(invalid(
        name,
        format!("'{text}' is not a valid DNS name: labels have letters, digits and hyphens"),
    ))
}

fn request_of(request: &Request, mut b: Body) -> Result<NetworkRequest> {
    let project = access::project_for(request, b.project()?)?;
    let target = maru_auth::Target::project(&project);
    request.authorize(&target)?;
    let mut r = NetworkRequest::new(project, b.text("name", 255)?.unwrap_or_default());
    r.description = b.text("description", 255)?.unwrap_or_default();
    r.admin_state_up = b.boolean("admin_state_up")?.unwrap_or(true);
    r.shared = b.boolean("shared")?.unwrap_or(false);
    r.external = b.boolean("router:external")?.unwrap_or(false);
    r.is_default = b.boolean("is_default")?.unwrap_or(false);
    let security = b.boolean("port_security_enabled")?;
    r.port_security_enabled = security.unwrap_or(true);
    r.dns_domain = domain("dns_domain", b.text("dns_domain", 255)?.unwrap_or_default())?;
    r.availability_zone_hints = b.texts("availability_zone_hints", 255)?.unwrap_or_default();
    if let Some(mtu) = b.integer("mtu")? {
        r.mtu = Some(u32::try_from(mtu).map_err(|_| invalid("mtu", format!("'{mtu}' is not within the valid range")))?);
    }
    let network_type = b.nullable_text("provider:network_type", 32)?;
    let physical = b.nullable_text("provider:physical_network", 64)?;
    let segment = b.integer("provider:segmentation_id")?;
    for (given, rule) in [
        (r.shared, "create_network:shared"),
        (r.external, "create_network:router:external"),
        (r.is_default, "create_network:is_default"),
        (security.is_some(), "create_network:port_security_enabled"),
        (network_type.is_some(), "create_network:provider:network_type"),
        (physical.is_some(), "create_network:provider:physical_network"),
        (segment.is_some(), "create_network:provider:segmentation_id"),
    ] {
        if given {
            request.authorize_rule(rule, &target)?;
        }
    }
    r.network_type = network_type.flatten();
    r.physical_network = physical.flatten();
    if let Some(n) = segment {
        let n = u32::try_from(n)
            .map_err(|_| invalid("provider:segmentation_id", format!("'{n}' is not a segment number")))?;
        r.segmentation_id = Some(n);
    }
    r.qos_policy_id = qos::wanted(&mut b)?;
    b.finish(FIXED)?;
    Ok(r)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let view = View::new(&request, &snapshot);
    let found = candidates(
        &request,
        &snapshot,
        "get_network",
        &[("name", "name")],
        |_, n| access::seen_network(&request, n),
        |s, project| {
            s.find::<Network>("visible", "shared")
                .chain(s.find::<Network>("visible", &format!("to:{project}")))
                .chain(s.find::<Network>("visible", "external"))
                .collect()
        },
    );
    let rows = found.iter().map(|o| view.row(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |row, name, values| {
        // A network that is not external has no is_default; it is not the default.
        (name == "is_default").then(|| {
            let have = row.get(name).cloned().unwrap_or(Value::Bool(false));
            values.iter().any(|v| row::fits(&have, v))
        })
    })
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::network(&request, &snapshot, request.param("id"))?;
    row::one(
        200,
        "network",
        View::new(&request, &snapshot).row(&o.id, &o.value),
        &request.query,
    )
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "network", "networks").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_networks(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    let view = View::new(&request, &snapshot);
    row::created(
        bulk,
        "network",
        "networks",
        made.iter().map(|(id, n)| view.row(id, n)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "network").await?;
    let change = NetworkChange {
        name: b.text("name", 255)?,
        description: b.text("description", 255)?,
        admin_state_up: b.boolean("admin_state_up")?,
        shared: b.boolean("shared")?,
        external: b.boolean("router:external")?,
        is_default: b.boolean("is_default")?,
        mtu: b.integer("mtu")?,
        port_security_enabled: b.boolean("port_security_enabled")?,
        dns_domain: b
            .text("dns_domain", 255)?
            .map(|t| domain("dns_domain", t))
            .transpose()?,
        qos_policy_id: qos::wanted(&mut b)?,
    };
    b.finish(&[
        "subnets",
        "availability_zones",
        "availability_zone_hints",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
        "ipv4_address_scope",
        "ipv6_address_scope",
    ])?;
    let (id, network) = app.update_network(&request, request.param("id"), change).await?;
    let snapshot = app.store.snapshot();
    row::one(
        200,
        "network",
        View::new(&request, &snapshot).row(&id, &network),
        &request.query,
    )
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_network(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
