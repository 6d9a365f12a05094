//! `os-security-groups` and `os-security-group-rules`, up to 2.35: the network service's groups and their incoming rules.

use super::{LAST, ask, one_of, text};
use crate::{
    App,
    api::wire::{self, invalid, is_uuid},
};
use http::Method;
use maru_base::{Error, ErrorKind, Result};
use maru_http::{Reply, Request};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::HashMap, sync::Arc};

const GROUPS: &str = "/network/v2.0/security-groups";
const RULES: &str = "/network/v2.0/security-group-rules";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupBody {
    name: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    parent_group_id: Value,
    #[serde(default)]
    ip_protocol: Option<String>,
    #[serde(default)]
    from_port: Option<Value>,
    #[serde(default)]
    to_port: Option<Value>,
    #[serde(default)]
    cidr: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
}

/// Name and project of groups by id, for the rules that name one.
type Names = HashMap<String, Value>;

fn names(groups: &[Value]) -> Names {
    groups
        .iter()
        .map(|g| {
            let of = json!({"name": text(g, "name"), "tenant_id": text(g, "tenant_id")});
            (text(g, "id").to_owned(), of)
        })
        .collect()
}

/// A rule as it was shown; `None` for one that the old form cannot say.
fn rule(r: &Value, names: &Names) -> Option<Value> {
    if text(r, "direction") != "ingress" {
        return None;
    }
    let protocol = r.get("protocol").and_then(Value::as_str);
    let (low, high) = (&r["port_range_min"], &r["port_range_max"]);
    let (from, to) = match protocol {
        Some("tcp" | "udp") if low.is_null() && high.is_null() => (json!(1), json!(65_535)),
        Some(_) if low.is_null() && high.is_null() => (json!(-1), json!(-1)),
        _ => (low.clone(), high.clone()),
    };
    let (group, range) = match r.get("remote_group_id").and_then(Value::as_str) {
        Some(id) => (names.get(id)?.clone(), json!({})),
        None => {
            let any = if text(r, "ethertype") == "IPv6" {
                "::/0"
            } else {
                "0.0.0.0/0"
            };
            let cidr = r.get("remote_ip_prefix").and_then(Value::as_str).unwrap_or(any);
            (json!({}), json!({"cidr": cidr}))
        }
    };
    Some(json!({
        "id": text(r, "id"), "parent_group_id": text(r, "security_group_id"), "ip_protocol": protocol,
        "from_port": from, "to_port": to, "group": group, "ip_range": range,
    }))
}

fn group(g: &Value, names: &Names) -> Value {
    let rules = g["security_group_rules"].as_array().into_iter().flatten();
    json!({
        "id": text(g, "id"), "name": text(g, "name"), "description": text(g, "description"), "tenant_id": text(g, "tenant_id"),
        "rules": rules.filter_map(|r| rule(r, names)).collect::<Vec<_>>(),
    })
}

async fn all(app: &App, request: &Request, filter: &str) -> Result<Vec<Value>> {
    let found = ask(app, request, Method::GET, &format!("{GROUPS}{filter}"), None).await?;
    Ok(found["security_groups"].as_array().cloned().unwrap_or_default())
}

fn check_id(id: &str) -> Result<()> {
    if is_uuid(id) {
        return Ok(());
    }
    Err(Error::bad_request("Security group id should be uuid"))
}

/// `GET /os-security-groups`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let caller = request.caller()?;
    let everyone = caller.is_admin() && matches!(request.query.get("all_tenants"), Some("1" | "True" | "true"));
    let filter = match caller.project_id() {
        Some(project) if !everyone => format!("?tenant_id={project}"),
        _ => String::new(),
    };
    let groups = all(&app, &request, &filter).await?;
    let names = names(&groups);
    let mut shown: Vec<Value> = groups.iter().map(|g| group(g, &names)).collect();
    shown.sort_by(|a, b| (text(a, "tenant_id"), text(a, "name")).cmp(&(text(b, "tenant_id"), text(b, "name"))));
    let number = |key: &str| -> Result<Option<usize>> {
        request
            .query
            .get(key)
            .map(|t| {
                t.parse()
                    .map_err(|_| invalid(key, format!("'{t}' is not a whole number from 0 on")))
            })
            .transpose()
    };
    let offset = number("offset")?.unwrap_or(0).min(shown.len());
    shown.drain(..offset);
    shown.truncate(number("limit")?.unwrap_or(1_000));
    Reply::json(200, &json!({"security_groups": shown}))
}

async fn one(app: &App, request: &Request, id: &str) -> Result<Value> {
    check_id(id)?;
    let found = ask(app, request, Method::GET, &one_of(GROUPS, id), None).await?;
    let groups = all(app, request, "").await?;
    Ok(json!({"security_group": group(&found["security_group"], &names(&groups))}))
}

/// `GET /os-security-groups/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    Reply::json(200, &one(&app, &request, request.param("group")).await?)
}

/// Reads name and description; upstream asks for both.
async fn group_body(request: &mut Request) -> Result<Value> {
    let body: GroupBody = wire::body(request, "security_group").await?;
    let description = body.description.unwrap_or_default();
    for (field, value, least) in [("name", &body.name, 1), ("description", &description, 0)] {
        let length = value.trim().chars().count();
        if length < least || value.chars().count() > 255 {
            return Err(invalid(
                &format!("security_group.{field}"),
                format!("It has {least} to 255 characters."),
            ));
        }
    }
    Ok(json!({"security_group": {"name": body.name, "description": description}}))
}

/// `POST /os-security-groups`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let body = group_body(&mut request).await?;
    let made = ask(&app, &request, Method::POST, GROUPS, Some(&body)).await?;
    Reply::json(
        200,
        &json!({"security_group": group(&made["security_group"], &Names::new())}),
    )
}

/// `PUT /os-security-groups/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let id = request.param("group").to_owned();
    check_id(&id)?;
    let body = group_body(&mut request).await?;
    ask(&app, &request, Method::PUT, &one_of(GROUPS, &id), Some(&body)).await?;
    Reply::json(200, &one(&app, &request, &id).await?)
}

/// `DELETE /os-security-groups/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let id = request.param("group");
    check_id(id)?;
    ask(&app, &request, Method::DELETE, &one_of(GROUPS, id), None)
        .await
        .map_err(in_use)?;
    Ok(Reply::empty(202))
}

/// What the network service calls a conflict, these addresses called a bad request.
fn in_use(error: Error) -> Error {
    if error.kind() == ErrorKind::Conflict {
        return Error::bad_request(error.message().to_owned());
    }
    error
}

fn port(field: &str, value: Option<&Value>) -> Result<Option<i64>> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(n)) => n.as_i64(),
        Some(Value::String(t)) => t.trim().parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(n) if (-1..=65_535).contains(&n) => Ok(Some(n)),
        _ => Err(Error::invalid(
            field,
            "Invalid input for from_port, to_port: whole numbers from -1 to 65535.",
        )),
    }
}

/// `POST /os-security-group-rules`.
pub(crate) async fn create_rule(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let body: Map<String, Value> = wire::body(&mut request, "security_group_rule").await?;
    let body: RuleBody = wire::typed("security_group_rule", Value::Object(body))?;
    let parent = body.parent_group_id.as_str().unwrap_or_default().to_owned();
    check_id(&parent).map_err(|e| invalid("parent_group_id", e.message().to_owned()))?;
    let (from, to) = (
        port("from_port", body.from_port.as_ref())?,
        port("to_port", body.to_port.as_ref())?,
    );
    let mut rule_body = json!({"security_group_id": parent, "direction": "ingress", "ethertype": "IPv4"});
    match (&body.group_id, body.cidr.as_deref().filter(|c| !c.is_empty())) {
        (Some(group), _) => {
            check_id(group).map_err(|e| invalid("group_id", e.message().to_owned()))?;
            rule_body["remote_group_id"] = group.as_str().into();
        }
        (None, cidr) => {
            let cidr = cidr.unwrap_or("0.0.0.0/0");
            if cidr.contains(':') {
                rule_body["ethertype"] = "IPv6".into();
            }
            rule_body["remote_ip_prefix"] = cidr.into();
        }
    }
    if body.group_id.is_none() && (body.ip_protocol.is_none() || from.is_none() || to.is_none()) {
        return Err(Error::bad_request(
            "Not enough parameters to build a valid rule: ip_protocol, from_port and to_port are needed without group_id.",
        ));
    }
    if let Some(protocol) = &body.ip_protocol {
        let protocol = protocol.to_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "icmp") {
            return Err(Error::invalid(
                "ip_protocol",
                format!("Invalid IP protocol {protocol}. It is one of tcp, udp, icmp."),
            ));
        }
        if let (Some(low), Some(high)) = (from, to) {
            if low > high && !(protocol == "icmp" && high == -1) {
                return Err(Error::invalid(
                    "from_port",
                    format!("Invalid port range {low}:{high}. Former value cannot be greater than the later"),
                ));
            }
            if protocol != "icmp" && low < 1 {
                return Err(Error::invalid(
                    "from_port",
                    format!("Invalid port range {low}:{high}. Valid TCP ports should be between 1-65535"),
                ));
            }
        }
        rule_body["protocol"] = protocol.into();
        // -1 is any, which the network service says by saying nothing.
        for (key, value) in [("port_range_min", from), ("port_range_max", to)] {
            if let Some(n) = value.filter(|n| *n >= 0) {
                rule_body[key] = n.into();
            }
        }
    }
    let wanted = json!({"security_group_rule": rule_body});
    let made = ask(&app, &request, Method::POST, RULES, Some(&wanted))
        .await
        .map_err(in_use)?;
    let names = names(&all(&app, &request, "").await?);
    let mut shown = rule(&made["security_group_rule"], &names).unwrap_or_default();
    // As it was given; the network service keeps the network that it is in.
    if let Some(cidr) = body.cidr.filter(|c| !c.is_empty() && body.group_id.is_none()) {
        shown["ip_range"]["cidr"] = cidr.into();
    }
    Reply::json(200, &json!({"security_group_rule": shown}))
}

/// `DELETE /os-security-group-rules/{id}`.
pub(crate) async fn delete_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let id = request.param("rule");
    check_id(id)?;
    ask(&app, &request, Method::DELETE, &one_of(RULES, id), None).await?;
    Ok(Reply::empty(202))
}
