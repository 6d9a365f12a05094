//! `/security-group-rules`.

use super::{
    body::{self, Body, block_of, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::{ErrorKind, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    AddressGroupId, Direction, RuleRequest, SecurityGroup, SecurityGroupId, SecurityGroupRule, errors,
};
use maru_store::Snapshot;
use serde_json::Value;
use std::sync::Arc;

const LIST: List = List {
    plural: "security_group_rules",
    filters: &[],
    attributes: &[
        "id",
        "tenant_id",
        "project_id",
        "security_group_id",
        "ethertype",
        "direction",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_address_group_id",
        "normalized_cidr",
        "description",
        "belongs_to_default_sg",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::rule_not_found(id),
};

pub(crate) fn row_of(snapshot: &Snapshot, id: &str, r: &SecurityGroupRule) -> Row {
    let cidr = r.remote_ip_prefix.map_or(Value::Null, |n| n.to_string().into());
    let of_default = snapshot
        .get::<SecurityGroup>(&r.security_group_id)
        .is_some_and(|g| g.value.is_default);
    Row::new(id)
        .project(&r.project_id)
        .with("security_group_id", r.security_group_id.as_str())
        .with("ethertype", r.ethertype.as_str())
        .with("direction", r.direction.as_str())
        .with("protocol", r.protocol.clone())
        .with("port_range_min", r.port_range_min)
        .with("port_range_max", r.port_range_max)
        .with("remote_ip_prefix", cidr.clone())
        .with("normalized_cidr", cidr)
        .with(
            "remote_group_id",
            r.remote_group_id.as_ref().map_or(Value::Null, |g| g.as_str().into()),
        )
        .with(
            "remote_address_group_id",
            r.remote_address_group_id.as_ref().map(ToString::to_string),
        )
        .with("belongs_to_default_sg", of_default)
        .timeless(&r.meta)
}

pub(crate) fn request_of(mut b: Body) -> Result<RuleRequest> {
    // The rule's project is its group's; one that is named must at least be text.
    let _ = b.project()?;
    let group = b.uuid("security_group_id")?;
    let group = SecurityGroupId::from(b.required("security_group_id", group)?);
    let direction = b.text("direction", 16)?;
    let direction = match b.required("direction", direction)?.as_str() {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        other => {
            return Err(invalid(
                "direction",
                format!("'{other}' is not in ['ingress', 'egress']"),
            ));
        }
    };
    let ethertype = match b.text("ethertype", 16)? {
        None => "IPv4".to_owned(),
        Some(t) if t.eq_ignore_ascii_case("ipv4") => "IPv4".to_owned(),
        Some(t) if t.eq_ignore_ascii_case("ipv6") => "IPv6".to_owned(),
        Some(other) => other,
    };
    let mut r = RuleRequest::new(ProjectId::from(""), group, direction, &ethertype);
    r.protocol = match b.raw("protocol") {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) if s.is_empty() || s.eq_ignore_ascii_case("any") => None,
        Some(Value::String(s)) if s.len() <= 40 => Some(s.to_ascii_lowercase()),
        Some(Value::Number(n)) => Some(n.to_string()),
        Some(other) => {
            return Err(errors::refuse(
                ErrorKind::BadRequest,
                "SecurityGroupRuleInvalidProtocol",
                format!("Security group rule protocol {other} is not known; use a name such as tcp or a number 0-255."),
            ));
        }
    };
    let mut port = |name: &str| {
        let text = b.raw(name);
        match &text {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(n)) => Ok(n.as_i64()),
            Some(Value::String(s)) => Ok(s.parse::<i64>().ok()),
            Some(_) => Ok(None),
        }
        .and_then(|found| match (found, text) {
            (None, Some(v)) if !v.is_null() => Err(errors::refuse(
                ErrorKind::BadRequest,
                "SecurityGroupInvalidPortValue",
                format!("Invalid value for port {v}: {name} is a whole number."),
            )),
            (found, _) => Ok(found),
        })
    };
    r.port_range_min = port("port_range_min")?;
    r.port_range_max = port("port_range_max")?;
    r.remote_ip_prefix = match b.raw("remote_ip_prefix") {
        None | Some(Value::Null) => None,
        Some(value) => Some(block_of("remote_ip_prefix", &value)?),
    };
    // Whatever it looks like: a group that is not there is 404, as upstream.
    r.remote_group_id = b
        .nullable_text("remote_group_id", 255)?
        .flatten()
        .map(SecurityGroupId::from);
    r.remote_address_group_id = b
        .nullable_text("remote_address_group_id", 255)?
        .flatten()
        .map(AddressGroupId::from);
    r.description = b.text("description", 255)?.unwrap_or_default();
    b.finish(&["normalized_cidr", "belongs_to_default_sg"])?;
    Ok(r)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    if let Some(project) = request.caller()?.project_id() {
        app.ensure_default_group(project).await?;
    }
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_security_group_rule",
        &[("security_group_id", "group"), ("remote_group_id", "remote")],
        |_, r: &SecurityGroupRule| Target::project(&r.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&snapshot, &o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::rule(&request, &snapshot, request.param("id"))?;
    row::one(
        200,
        "security_group_rule",
        row_of(&snapshot, &o.id, &o.value),
        &request.query,
    )
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "security_group_rule", "security_group_rules").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(request_of).collect();
    let made = app.create_rules(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    let rows = made.iter().map(|(id, r)| row_of(&snapshot, id, r)).collect();
    row::created(bulk, "security_group_rule", "security_group_rules", rows)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_rule(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
