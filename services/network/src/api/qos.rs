//! `/qos/policies`, their rules (also by the addresses of old, `alias_..._rules`), and `/qos/rule-types`.

use super::{
    body::{self, Body, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    Direction, Meta, QosPolicy, QosPolicyId, QosRule, QosRuleKind,
    qos::{DSCP_MARKS, plan_delete_policy, plan_policy, policy_not_found, put_rule, rule_not_found},
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "policies",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "description",
        "shared",
        "is_default",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| policy_not_found(id),
};
const LIMITS: List = List {
    plural: "bandwidth_limit_rules",
    filters: &[],
    attributes: &["id", "max_kbps", "max_burst_kbps", "direction"],
    missing: |id| rule_not_found("", id),
};
const MARKINGS: List = List {
    plural: "dscp_marking_rules",
    filters: &[],
    attributes: &["id", "dscp_mark"],
    missing: |id| rule_not_found("", id),
};
const TYPES: List = List {
    plural: "rule_types",
    filters: &[],
    attributes: &["type"],
    missing: |id| type_not_found(id),
};

/// Largest number of a rule: upstream keeps them in 32 bits with a sign.
const MOST: u32 = 2_147_483_647;

/// A kind of rules: how it is called, and what its list knows.
#[derive(Clone, Copy)]
struct Sort {
    /// `bandwidth_limit`.
    name: &'static str,
    /// `bandwidth_limit_rule`.
    noun: &'static str,
    list: &'static List,
}

const SORTS: [Sort; 2] = [
    Sort {
        name: "bandwidth_limit",
        noun: "bandwidth_limit_rule",
        list: &LIMITS,
    },
    Sort {
        name: "dscp_marking",
        noun: "dscp_marking_rule",
        list: &MARKINGS,
    },
];

fn sort_of(says: QosRuleKind) -> Sort {
    match says {
        QosRuleKind::BandwidthLimit { .. } => SORTS[0],
        QosRuleKind::DscpMarking { .. } => SORTS[1],
    }
}

/// The kind of rules that an address is for.
fn sort(request: &Request) -> Sort {
    let wanted = |s: &&Sort| request.path.contains(s.list.plural);
    SORTS.iter().find(wanted).copied().unwrap_or(SORTS[0])
}

fn type_not_found(name: &str) -> Error {
    maru_network_model::errors::not_found("QosRuleTypeNotFound", "QoS rule type", name)
}

fn row_of(id: &str, p: &QosPolicy) -> Row {
    let rules: Vec<Value> = p
        .rules
        .iter()
        .map(|r| {
            let mut view = serde_json::to_value(rule_row(r)).unwrap_or_default();
            view["type"] = sort_of(r.says).name.into();
            view["qos_policy_id"] = id.into();
            view
        })
        .collect();
    Row::new(id)
        .with("name", p.name.as_str())
        .project(&p.project_id)
        .with("shared", p.shared)
        .with("is_default", p.is_default)
        .with("rules", rules)
        .meta(&p.meta)
}

fn rule_row(r: &QosRule) -> Row {
    let row = Row::new(&r.id);
    match r.says {
        QosRuleKind::BandwidthLimit {
            max_kbps,
            max_burst_kbps,
            direction,
        } => row
            .with("max_kbps", max_kbps)
            .with("max_burst_kbps", max_burst_kbps)
            .with("direction", direction.as_str()),
        QosRuleKind::DscpMarking { dscp_mark } => row.with("dscp_mark", dscp_mark),
    }
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_policy",
        &[],
        |_, p: &QosPolicy| access::of_policy(p),
        |s, _| s.find::<QosPolicy>("visible", "shared").collect(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::qos_policy(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "policy", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "policy", LIST.plural).await?;
    let of = |mut b: Body| {
        let policy = QosPolicy {
            project_id: access::project_for(&request, b.project()?)?,
            name: b.text("name", 255)?.unwrap_or_default(),
            shared: b.boolean("shared")?.unwrap_or(false),
            is_default: b.boolean("is_default")?.unwrap_or(false),
            rules: Vec::new(),
            meta: Meta::new(b.text("description", 255)?.unwrap_or_default()),
        };
        b.finish(&["rules"])?;
        request.authorize(&access::of_policy(&policy))?;
        Ok(policy)
    };
    let policies: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let policies = policies?;
    let made = app
        .plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(policies.len());
            for p in &policies {
                made.push((plan_policy(snapshot, txn, None, p)?, p.clone()));
            }
            Ok(made)
        })
        .await?;
    let rows = made.iter().map(|(id, p)| row_of(id, p)).collect();
    row::created(bulk, "policy", LIST.plural, rows)
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "policy").await?;
    let (name, description) = (b.text("name", 255)?, b.text("description", 255)?);
    let (shared, is_default) = (b.boolean("shared")?, b.boolean("is_default")?);
    b.finish(&["rules"])?;
    let (id, policy) = app
        .plan(|snapshot, txn| {
            let read = writable(&request, snapshot)?;
            access::check_revision(&request, &read.value.meta)?;
            let mut policy = (*read.value).clone();
            policy.name = name.clone().unwrap_or(policy.name);
            policy.shared = shared.unwrap_or(policy.shared);
            policy.is_default = is_default.unwrap_or(policy.is_default);
            if let Some(text) = &description {
                policy.meta.description.clone_from(text);
            }
            policy.meta.touch();
            plan_policy(snapshot, txn, Some(&read), &policy)?;
            Ok((read.id, policy))
        })
        .await?;
    row::one(200, "policy", row_of(&id, &policy), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = writable(&request, snapshot)?;
        plan_delete_policy(snapshot, txn, &read)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The policy of the address, which the caller may change.
fn writable(request: &Request, snapshot: &Snapshot) -> Result<Object<QosPolicy>> {
    let read = policy(request, snapshot)?;
    request.authorize(&access::of_policy(&read.value))?;
    Ok(read)
}

/// The policy of the address: named, or (by an alias) the one that has the rule.
fn policy(request: &Request, snapshot: &Snapshot) -> Result<Object<QosPolicy>> {
    let id = request.param("id");
    if !id.is_empty() {
        return access::qos_policy(request, snapshot, id);
    }
    let rule = request.param("rule_id");
    let of = snapshot.find::<QosPolicy>("rule", rule).next();
    let of = of.ok_or_else(|| rule_not_found("", rule))?;
    access::qos_policy(request, snapshot, &of.id).map_err(|_| rule_not_found("", rule))
}

fn rule(request: &Request, policy: &Object<QosPolicy>) -> Result<QosRule> {
    let (id, wanted) = (request.param("rule_id"), sort(request));
    policy
        .rules
        .iter()
        .find(|r| r.id == *id && sort_of(r.says).name == wanted.name)
        .cloned()
        .ok_or_else(|| rule_not_found(&policy.id, id))
}

/// What a rule shall say; what is not named stays as it was.
fn says(sort: Sort, mut b: Body, old: Option<QosRuleKind>) -> Result<QosRuleKind> {
    let mut number = |name: &str, least: u32| match b.integer(name)? {
        None => Ok(None),
        Some(n) => match u32::try_from(n).ok().filter(|n| (least..=MOST).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(invalid(name, format!("'{n}' is not in [{least}, {MOST}]"))),
        },
    };
    let needed = |name: &str| invalid(name, "it is required");
    let says = if sort.name == "bandwidth_limit" {
        let (rate, burst) = (number("max_kbps", 1)?, number("max_burst_kbps", 0)?);
        let direction = match b.text("direction", 16)?.as_deref() {
            None => None,
            Some("egress") => Some(Direction::Egress),
            Some("ingress") => Some(Direction::Ingress),
            Some(other) => {
                return Err(invalid(
                    "direction",
                    format!("'{other}' is not in ['egress', 'ingress']"),
                ));
            }
        };
        let (old_rate, old_burst, old_direction) = match old {
            Some(QosRuleKind::BandwidthLimit {
                max_kbps,
                max_burst_kbps,
                direction,
            }) => (Some(max_kbps), max_burst_kbps, direction),
            _ => (None, 0, Direction::Egress),
        };
        QosRuleKind::BandwidthLimit {
            max_kbps: rate.or(old_rate).ok_or_else(|| needed("max_kbps"))?,
            max_burst_kbps: burst.unwrap_or(old_burst),
            direction: direction.unwrap_or(old_direction),
        }
    } else {
        let mark = number("dscp_mark", 0)?;
        let old = match old {
            Some(QosRuleKind::DscpMarking { dscp_mark }) => Some(u32::from(dscp_mark)),
            _ => None,
        };
        let mark = mark.or(old).ok_or_else(|| needed("dscp_mark"))?;
        let good = u8::try_from(mark).ok().filter(|m| DSCP_MARKS.contains(m));
        QosRuleKind::DscpMarking {
            dscp_mark: good.ok_or_else(|| invalid("dscp_mark", format!("'{mark}' is not in {DSCP_MARKS:?}")))?,
        }
    };
    b.finish(&["tenant_id", "project_id", "qos_policy_id"])?;
    Ok(says)
}

pub(crate) async fn list_rules(app: Arc<App>, request: Request) -> Result<Reply> {
    let policy = policy(&request, &app.store.snapshot())?;
    let wanted = sort(&request);
    let rows = policy
        .rules
        .iter()
        .filter(|r| sort_of(r.says).name == wanted.name)
        .map(rule_row)
        .collect();
    wanted.list.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    let policy = policy(&request, &app.store.snapshot())?;
    let rule = rule(&request, &policy)?;
    row::one(200, sort(&request).noun, rule_row(&rule), &request.query)
}

pub(crate) async fn create_rule(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let wanted = sort(&request);
    writable(&request, &app.store.snapshot())?;
    let (bulk, bodies) = body::create(&mut request, wanted.noun, wanted.list.plural).await?;
    let says: Result<Vec<_>> = bodies.into_iter().map(|b| says(wanted, b, None)).collect();
    let says = says?;
    let made = app
        .plan(|snapshot, txn| {
            let read = writable(&request, snapshot)?;
            let mut policy = (*read.value).clone();
            let made: Result<Vec<_>> = says.iter().map(|s| put_rule(&mut policy, &read.id, None, *s)).collect();
            txn.update(&read, &policy);
            made
        })
        .await?;
    let rows = made.iter().map(rule_row).collect();
    row::created(bulk, wanted.noun, wanted.list.plural, rows)
}

pub(crate) async fn update_rule(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let wanted = sort(&request);
    let old = rule(&request, &writable(&request, &app.store.snapshot())?)?;
    let says = says(wanted, body::update(&mut request, wanted.noun).await?, Some(old.says))?;
    let made = app
        .plan(|snapshot, txn| {
            let read = writable(&request, snapshot)?;
            let mut policy = (*read.value).clone();
            let made = put_rule(&mut policy, &read.id, Some(request.param("rule_id")), says)?;
            txn.update(&read, &policy);
            Ok(made)
        })
        .await?;
    row::one(200, wanted.noun, rule_row(&made), &request.query)
}

pub(crate) async fn delete_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = writable(&request, snapshot)?;
        let gone = rule(&request, &read)?;
        let mut policy = (*read.value).clone();
        policy.rules.retain(|r| r.id != gone.id);
        policy.meta.touch();
        txn.update(&read, &policy);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn list_types(_: Arc<App>, request: Request) -> Result<Reply> {
    let rows = SORTS.iter().map(|s| Row::unnamed().with("type", s.name)).collect();
    TYPES.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show_type(_: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("id");
    let found = SORTS
        .iter()
        .find(|s| s.name == name)
        .ok_or_else(|| type_not_found(name))?;
    let range = |name: &str, least: u32| {
        json!({"parameter_name": name, "parameter_type": "range",
        "parameter_values": {"start": least, "end": MOST}})
    };
    let choice =
        |name: &str, of: Value| json!({"parameter_name": name, "parameter_type": "choices", "parameter_values": of});
    let parameters = if found.name == "bandwidth_limit" {
        vec![
            range("max_kbps", 1),
            range("max_burst_kbps", 0),
            choice("direction", json!(["egress", "ingress"])),
        ]
    } else {
        vec![choice("dscp_mark", json!(DSCP_MARKS))]
    };
    // Which driver carries it out is an administrator's to know.
    let drivers = if request.may("get_rule_type:drivers", &Target::none()) {
        json!([{"name": "nftables", "supported_parameters": parameters}])
    } else {
        json!([])
    };
    let row = Row::unnamed().with("type", name).with("drivers", drivers);
    row::one(200, "rule_type", row, &request.query)
}

/// The policy that a body asks for: `None` when it says nothing.
pub(super) fn wanted(b: &mut Body) -> Result<Option<Option<QosPolicyId>>> {
    Ok(b.nullable_uuid("qos_policy_id")?.map(|id| id.map(QosPolicyId::from)))
}
