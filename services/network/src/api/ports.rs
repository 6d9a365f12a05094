//! `/ports`.

use super::{
    body::{self, Body, address_of, block_of, invalid, mac_of},
    candidates,
    networks::domain,
    qos,
    row::{self, List, Row},
    trunks,
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    AddressPair, DhcpOption, FixedIpRequest, Network, NetworkId, Port, PortId, PortRequest, SecurityGroupId, SubnetId,
    errors,
    network::dns_domain,
    observed::port_status,
    port::{DhcpOptionChange, PortChange, host_name},
    qos::network_policy,
};
use maru_store::Snapshot;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

const LIST: List = List {
    plural: "ports",
    filters: &["fixed_ips", "ip_address", "ip_allocation"],
    attributes: &[
        "id",
        "name",
        "network_id",
        "tenant_id",
        "project_id",
        "mac_address",
        "admin_state_up",
        "status",
        "device_id",
        "device_owner",
        "allowed_address_pairs",
        "extra_dhcp_opts",
        "security_groups",
        "description",
        "binding:vnic_type",
        "binding:host_id",
        "binding:profile",
        "binding:vif_type",
        "binding:vif_details",
        "port_security_enabled",
        "dns_name",
        "dns_assignment",
        "qos_policy_id",
        "qos_network_policy_id",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::port_not_found(id),
};
const VNIC_TYPES: &[&str] = &[
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
];
const FIXED: &[&str] = &[
    "status",
    "binding:vif_type",
    "binding:vif_details",
    "dns_assignment",
    "qos_network_policy_id",
    "mac_address",
    "network_id",
    "trunk_details",
];

struct View<'a> {
    snapshot: &'a Snapshot,
    binding: bool,
}

impl<'a> View<'a> {
    fn new(request: &Request, snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            binding: request.may("get_port:binding:host_id", &Target::none()),
        }
    }
    fn row(&self, id: &PortId, p: &Port) -> Row {
        let fixed: Vec<Value> = p
            .fixed_ips
            .iter()
            .map(|f| json!({"subnet_id": f.subnet_id.as_str(), "ip_address": f.ip_address.to_string()}))
            .collect();
        let pairs: Vec<Value> = p
            .allowed_address_pairs
            .iter()
            .map(|a| {
                let ip = if a.is_block {
                    a.ip_address.to_string()
                } else {
                    a.ip_address.addr().to_string()
                };
                json!({"ip_address": ip, "mac_address": a.mac_address.as_ref().unwrap_or(&p.mac_address)})
            })
            .collect();
        let options: Vec<Value> = p
            .extra_dhcp_opts
            .iter()
            .map(|o| json!({"opt_name": o.opt_name, "opt_value": o.opt_value, "ip_version": o.ip_version}))
            .collect();
        let groups: Vec<Value> = p.security_groups.iter().map(|g| g.as_str().into()).collect();
        let mut row = Row::new(id)
            .with("name", p.name.as_str())
            .with("network_id", p.network_id.as_str())
            .project(&p.project_id)
            .with("mac_address", p.mac_address.as_str())
            .with("admin_state_up", p.admin_state_up)
            .with("status", port_status(self.snapshot, id, p))
            .with("device_id", p.device_id.as_str())
            .with("device_owner", p.device_owner.as_str())
            .with("fixed_ips", fixed)
            .with("allowed_address_pairs", pairs)
            .with("extra_dhcp_opts", options)
            .with("security_groups", groups)
            .with("port_security_enabled", p.port_security_enabled)
            .with("binding:vnic_type", p.vnic_type.as_str())
            .with("dns_name", p.dns_name.as_str())
            .with("dns_assignment", self.names(p))
            .with("qos_policy_id", p.qos_policy_id.as_ref().map(ToString::to_string))
            .with(
                "qos_network_policy_id",
                network_policy(self.snapshot, &p.network_id).map(|id| id.to_string()),
            )
            .meta(&p.meta);
        if let Some(details) = trunks::details(self.snapshot, id) {
            row = row.with("trunk_details", details);
        }
        if self.binding {
            let bound = !p.host.is_empty();
            let details = if bound {
                json!({"port_filter": p.port_security_enabled, "connectivity": "l2"})
            } else {
                json!({})
            };
            row = row
                .with("binding:host_id", p.host.as_str())
                .with("binding:profile", json!(p.profile))
                .with("binding:vif_type", if bound { "bridge" } else { "unbound" })
                .with("binding:vif_details", details);
        }
        row
    }
    /// The names that DHCP and DNS give to its addresses.
    fn names(&self, p: &Port) -> Vec<Value> {
        let domain = dns_domain(self.snapshot, &p.network_id);
        p.fixed_ips
            .iter()
            .map(|f| {
                let host = host_name(p, f.ip_address);
                let fqdn = format!("{host}.{domain}.");
                json!({"ip_address": f.ip_address.to_string(), "hostname": host, "fqdn": fqdn})
            })
            .collect()
    }
}

fn fixed_ips(b: &mut Body) -> Result<Option<Vec<FixedIpRequest>>> {
    let name = "fixed_ips";
    let Some(items) = b.list(name, 50)? else {
        return Ok(None);
    };
    let mut wanted: Vec<FixedIpRequest> = Vec::with_capacity(items.len());
    for item in items {
        let mut f = b.child(name, item)?;
        let subnet_id = f.nullable_uuid("subnet_id")?.flatten().map(SubnetId::from);
        let ip_address = match f.raw("ip_address") {
            None | Some(Value::Null) => None,
            Some(value) => Some(address_of(name, &value)?),
        };
        f.finish(&[])?;
        let one = FixedIpRequest { subnet_id, ip_address };
        if one.ip_address.is_some() && wanted.iter().any(|w| w.ip_address == one.ip_address) {
            return Err(invalid(name, "the same address is named twice"));
        }
        wanted.push(one);
    }
    Ok(Some(wanted))
}

fn pairs(b: &mut Body) -> Result<Option<Vec<AddressPair>>> {
    let name = "allowed_address_pairs";
    let Some(items) = b.list(name, 100)? else {
        return Ok(None);
    };
    let mut all: Vec<AddressPair> = Vec::with_capacity(items.len());
    for item in items {
        let mut p = b.child(name, item)?;
        let value = p
            .raw("ip_address")
            .ok_or_else(|| invalid(name, "a pair needs its ip_address"))?;
        let is_block = value.as_str().is_some_and(|t| t.contains('/'));
        let ip_address = block_of(name, &value)?.trunc();
        let mac_address = match p.raw("mac_address") {
            None | Some(Value::Null) => None,
            Some(value) => Some(mac_of(name, &value)?),
        };
        p.finish(&["active"])?;
        let pair = AddressPair {
            ip_address,
            is_block,
            mac_address,
        };
        if all
            .iter()
            .any(|a| a.ip_address == pair.ip_address && a.mac_address == pair.mac_address)
        {
            return Err(errors::refuse(
                maru_base::ErrorKind::BadRequest,
                "DuplicateAddressPairInRequest",
                format!("Request contains duplicate address pair: ip_address {ip_address}."),
            ));
        }
        all.push(pair);
    }
    Ok(Some(all))
}

/// Options with their value, `None` to take one away. What could end a line or begin an option is refused.
fn options(b: &mut Body) -> Result<Option<Vec<DhcpOptionChange>>> {
    let name = "extra_dhcp_opts";
    let Some(items) = b.list(name, 50)? else {
        return Ok(None);
    };
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let mut o = b.child(name, item)?;
        let opt = o
            .text("opt_name", 64)?
            .ok_or_else(|| invalid(name, "an option needs its opt_name"))?;
        let clean = |t: &str| t.chars().all(|c| !c.is_control() && c != '\u{2028}' && c != '\u{2029}');
        if opt.is_empty() || !opt.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_:".contains(&c)) {
            return Err(invalid(
                name,
                format!("'{}' is not the name or number of a DHCP option", opt.escape_debug()),
            ));
        }
        let value = o.nullable_text("opt_value", 255)?.flatten();
        if let Some(value) = &value
            && !clean(value)
        {
            return Err(invalid(
                name,
                format!("the value of {opt} holds a control character, such as a line break"),
            ));
        }
        let version = o.integer("ip_version")?.unwrap_or(4);
        if !matches!(version, 4 | 6) {
            return Err(invalid(name, format!("ip_version '{version}' is not 4 or 6")));
        }
        o.finish(&[])?;
        all.push((opt, value, if version == 6 { 6 } else { 4 }));
    }
    Ok(Some(all))
}

fn profile(b: &mut Body) -> Result<Option<BTreeMap<String, Value>>> {
    match b.raw("binding:profile") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(BTreeMap::new())),
        Some(Value::Object(map)) if serde_json::to_string(&map).is_ok_and(|t| t.len() <= 4095) => {
            Ok(Some(map.into_iter().collect()))
        }
        Some(_) => Err(invalid(
            "binding:profile",
            "it is a dictionary of at most 4095 characters",
        )),
    }
}

fn vnic_type(b: &mut Body) -> Result<Option<String>> {
    match b.text("binding:vnic_type", 64)? {
        Some(t) if !VNIC_TYPES.contains(&t.as_str()) => Err(invalid(
            "binding:vnic_type",
            format!("'{t}' is not in valid_values: {}", VNIC_TYPES.join(", ")),
        )),
        other => Ok(other),
    }
}

fn groups(b: &mut Body) -> Result<Option<Vec<SecurityGroupId>>> {
    Ok(b.uuids("security_groups")?
        .map(|all| all.into_iter().map(SecurityGroupId::from).collect()))
}

fn dns_name(b: &mut Body) -> Result<Option<String>> {
    b.text("dns_name", 255)?.map(|t| domain("dns_name", t)).transpose()
}

fn request_of(request: &Request, mut b: Body) -> Result<PortRequest> {
    let project = access::project_for(request, b.project()?)?;
    let network = b.uuid("network_id")?;
    let network = NetworkId::from(b.required("network_id", network)?);
    let mut r = PortRequest::new(network, project);
    r.name = b.text("name", 255)?.unwrap_or_default();
    r.description = b.text("description", 255)?.unwrap_or_default();
    r.admin_state_up = b.boolean("admin_state_up")?.unwrap_or(true);
    r.mac = match b.raw("mac_address") {
        None | Some(Value::Null) => None,
        Some(value) => Some(mac_of("mac_address", &value)?),
    };
    r.fixed_ips = fixed_ips(&mut b)?;
    r.security_groups = groups(&mut b)?;
    r.device_id = b.text("device_id", 255)?.unwrap_or_default();
    r.device_owner = b.text("device_owner", 255)?.unwrap_or_default();
    r.host = b.nullable_text("binding:host_id", 255)?.flatten().unwrap_or_default();
    r.vnic_type = vnic_type(&mut b)?.unwrap_or_else(|| "normal".to_owned());
    r.profile = profile(&mut b)?.unwrap_or_default();
    r.port_security = b.boolean("port_security_enabled")?;
    r.allowed_address_pairs = pairs(&mut b)?.unwrap_or_default();
    r.extra_dhcp_opts = options(&mut b)?
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(opt_name, value, ip_version)| {
            Some(DhcpOption {
                opt_name,
                opt_value: value?,
                ip_version,
            })
        })
        .collect();
    r.dns_name = dns_name(&mut b)?.unwrap_or_default();
    r.qos_policy_id = qos::wanted(&mut b)?.flatten();
    b.finish(FIXED)?;
    Ok(r)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let view = View::new(&request, &snapshot);
    let found = candidates(
        &request,
        &snapshot,
        "get_port",
        &[
            ("device_id", "device"),
            ("mac_address", "mac"),
            ("network_id", "network"),
            ("binding:host_id", "host"),
            ("security_groups", "security_group"),
        ],
        access::of_port,
        |s, project| {
            s.find::<Network>("project", project)
                .flat_map(|n| s.find::<Port>("network", &n.id).collect::<Vec<_>>())
                .collect()
        },
    );
    let rows = found.iter().map(|o| view.row(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |row, name, values| {
        let fixed = row.get("fixed_ips").and_then(Value::as_array);
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            fixed.is_some_and(|all| all.iter().any(|f| f.get(key).and_then(Value::as_str).is_some_and(test)))
        };
        match name {
            // Different keys narrow, values of one key widen.
            "fixed_ips" => Some(
                ["ip_address", "ip_address_substr", "subnet_id", "subnet"]
                    .iter()
                    .all(|key| {
                        let wanted: Vec<&str> = values
                            .iter()
                            .filter_map(|v| v.split_once('=').filter(|(k, _)| k == key))
                            .map(|(_, v)| v)
                            .collect();
                        wanted.is_empty()
                            || wanted.iter().any(|w| match *key {
                                "ip_address_substr" => any("ip_address", &|have| have.contains(w)),
                                "ip_address" => any("ip_address", &|have| have == *w),
                                _ => any("subnet_id", &|have| have == *w),
                            })
                    })
                    && values.iter().all(|v| v.contains('=')),
            ),
            "ip_address" => Some(values.iter().any(|w| any("ip_address", &|have| have == *w))),
            _ => None,
        }
    })
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::port(&request, &snapshot, request.param("id"))?;
    row::one(
        200,
        "port",
        View::new(&request, &snapshot).row(&o.id, &o.value),
        &request.query,
    )
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "port", "ports").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_ports(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    let view = View::new(&request, &snapshot);
    row::created(
        bulk,
        "port",
        "ports",
        made.iter().map(|(id, p)| view.row(id, p)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "port").await?;
    let change = PortChange {
        name: b.text("name", 255)?,
        description: b.text("description", 255)?,
        admin_state_up: b.boolean("admin_state_up")?,
        fixed_ips: fixed_ips(&mut b)?,
        security_groups: groups(&mut b)?,
        foreign_groups: false,
        port_security_enabled: b.boolean("port_security_enabled")?,
        allowed_address_pairs: pairs(&mut b)?,
        extra_dhcp_opts: options(&mut b)?,
        device_id: b.nullable_text("device_id", 255)?.map(Option::unwrap_or_default),
        device_owner: b.nullable_text("device_owner", 255)?.map(Option::unwrap_or_default),
        host: b.nullable_text("binding:host_id", 255)?.map(Option::unwrap_or_default),
        mac: match b.raw("mac_address") {
            None | Some(Value::Null) => None,
            Some(value) => Some(mac_of("mac_address", &value)?),
        },
        vnic_type: vnic_type(&mut b)?,
        profile: profile(&mut b)?,
        dns_name: dns_name(&mut b)?,
        qos_policy_id: qos::wanted(&mut b)?,
    };
    b.finish(FIXED)?;
    let (id, port) = app.update_port(&request, request.param("id"), change).await?;
    let snapshot = app.store.snapshot();
    row::one(
        200,
        "port",
        View::new(&request, &snapshot).row(&id, &port),
        &request.query,
    )
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_port(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
