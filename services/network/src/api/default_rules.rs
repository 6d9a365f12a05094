//! `/default-security-group-rules` and `/security-groups-default-statefulness`: what new security groups are like.

use super::{
    body::{self, Body, invalid},
    row::{self, List, Row},
    security_group_rules,
};
use crate::App;
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    DefaultRule, DefaultRuleId, DefaultStatefulness, DefaultStatefulnessId,
    default_rule::{PARENT, default_rules, plan_create_default_rule, plan_delete_default_rule},
    default_statefulness::plan_create_statefulness,
    errors,
};
use maru_store::{Object, Snapshot};
use serde_json::Value;
use std::sync::Arc;

const RULES: List = List {
    plural: "default_security_group_rules",
    filters: &[],
    attributes: &[
        "id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_address_group_id",
        "used_in_default_sg",
        "used_in_non_default_sg",
        "description",
    ],
    missing: |id| rule_not_found(id),
};
const SETTINGS: List = List {
    plural: "security_groups_default_statefulness",
    filters: &[],
    attributes: &["id", "project_id", "tenant_id", "stateful"],
    missing: |id| setting_not_found(id),
};
const RULE: &str = "default_security_group_rule";
const SETTING: &str = "security_group_default_statefulness";

fn rule_not_found(id: &str) -> maru_base::Error {
    errors::not_found("DefaultSecurityGroupRuleNotFound", "Default security group rule", id)
}
fn setting_not_found(id: &str) -> maru_base::Error {
    errors::not_found(
        "SecurityGroupDefaultStatefulnessNotFound",
        "Default statefulness setting",
        id,
    )
}

fn rule_row(id: &str, r: &DefaultRule) -> Row {
    Row::new(id)
        .with("direction", r.direction.as_str())
        .with("ethertype", r.ethertype.as_str())
        .with("protocol", r.protocol.clone())
        .with("port_range_min", r.port_range_min)
        .with("port_range_max", r.port_range_max)
        .with("remote_ip_prefix", r.remote_ip_prefix.map(|n| n.to_string()))
        .with("remote_group_id", r.from_parent.then_some(PARENT))
        .with("remote_address_group_id", Value::Null)
        .with("used_in_default_sg", r.in_default)
        .with("used_in_non_default_sg", r.in_others)
        .with("description", r.description.as_str())
}

fn rule_of(mut b: Body) -> Result<DefaultRule> {
    let in_default = b.boolean("used_in_default_sg")?.unwrap_or(false);
    let in_others = b.boolean("used_in_non_default_sg")?.unwrap_or(true);
    let from_parent = match b.nullable_text("remote_group_id", 255)?.flatten() {
        None => false,
        Some(group) if group == PARENT => true,
        Some(_) => {
            return Err(invalid(
                "remote_group_id",
                format!("a rule of every project's groups names {PARENT}, the group that it will be in, and no other"),
            ));
        }
    };
    if b.raw("remote_address_group_id").is_some_and(|v| !v.is_null()) {
        return Err(invalid(
            "remote_address_group_id",
            "an address group is one project's; a rule of every project's groups names a remote_ip_prefix",
        ));
    }
    // The rest is as of a rule of a group, which this one has not yet.
    b.put_back("security_group_id", "00000000-0000-4000-8000-000000000000".into());
    let rule = security_group_rules::request_of(b)?;
    Ok(DefaultRule {
        direction: rule.direction,
        ethertype: rule.ethertype,
        protocol: rule.protocol,
        port_range_min: rule.port_range_min,
        port_range_max: rule.port_range_max,
        remote_ip_prefix: rule.remote_ip_prefix.map(|n| n.trunc()),
        from_parent,
        in_default,
        in_others,
        description: rule.description,
        gone: false,
    })
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = default_rules(&app.store.snapshot());
    let rows = found.iter().map(|(id, r)| rule_row(id, r)).collect();
    RULES.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let wanted = request.param("id");
    let found = default_rules(&app.store.snapshot());
    let (id, rule) = found
        .iter()
        .find(|(id, _)| id.as_str() == wanted)
        .ok_or_else(|| rule_not_found(wanted))?;
    row::one(200, RULE, rule_row(id, rule), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, RULE, RULES.plural).await?;
    let rules: Result<Vec<_>> = bodies.into_iter().map(rule_of).collect();
    let rules = rules?;
    request.authorize(&Target::none())?;
    let made = app
        .plan(|snapshot, txn| {
            let put = |r: &DefaultRule| Ok((plan_create_default_rule(snapshot, txn, r)?, r.clone()));
            rules.iter().map(put).collect::<Result<Vec<_>>>()
        })
        .await?;
    row::created(
        bulk,
        RULE,
        RULES.plural,
        made.iter().map(|(id, r)| rule_row(id, r)).collect(),
    )
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = DefaultRuleId::from(request.param("id"));
    app.plan(|snapshot, txn| plan_delete_default_rule(snapshot, txn, &id))
        .await?;
    Ok(Reply::empty(204))
}

fn setting_row(id: &str, s: &DefaultStatefulness) -> Row {
    let project = s.project_id.as_ref().map(ToString::to_string);
    Row::new(id)
        .with("project_id", project.clone())
        .with("tenant_id", project)
        .with("stateful", s.stateful)
}

fn setting(request: &Request, snapshot: &Snapshot) -> Result<Object<DefaultStatefulness>> {
    let id = request.param("id");
    let found = snapshot.get::<DefaultStatefulness>(&DefaultStatefulnessId::from(id));
    let found = found.ok_or_else(|| setting_not_found(id))?;
    request.authorize(&Target::none())?;
    Ok(found)
}

pub(crate) async fn list_settings(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.store.snapshot();
    let rows = snapshot
        .list::<DefaultStatefulness>()
        .map(|o| setting_row(&o.id, &o.value))
        .collect();
    SETTINGS.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show_setting(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = setting(&request, &app.store.snapshot())?;
    row::one(200, SETTING, setting_row(&o.id, &o.value), &request.query)
}

pub(crate) async fn create_setting(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, SETTING, SETTINGS.plural).await?;
    request.authorize(&Target::none())?;
    let own = request.caller()?.project_id().cloned();
    let of = |mut b: Body| {
        // Null says the whole cloud; leaving it out says the caller's project, as of every resource.
        let explicit = ["project_id", "tenant_id"].iter().any(|name| b.has(name));
        for name in ["project_id", "tenant_id"] {
            if let Some(value) = b.raw(name).filter(|v| !v.is_null()) {
                b.put_back(name, value);
            }
        }
        let named = b.project()?.map(ProjectId::from);
        let stateful = b.boolean("stateful")?;
        let stateful = b.required("stateful", stateful)?;
        b.finish(&[])?;
        Ok(DefaultStatefulness {
            project_id: if explicit { named } else { own.clone() },
            stateful,
        })
    };
    let settings: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let settings = settings?;
    let made = app
        .plan(|snapshot, txn| {
            let put = |s: &DefaultStatefulness| Ok((plan_create_statefulness(snapshot, txn, s)?, s.clone()));
            settings.iter().map(put).collect::<Result<Vec<_>>>()
        })
        .await?;
    row::created(
        bulk,
        SETTING,
        SETTINGS.plural,
        made.iter().map(|(id, s)| setting_row(id, s)).collect(),
    )
}

pub(crate) async fn update_setting(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, SETTING).await?;
    let stateful = b.boolean("stateful")?;
    b.finish(&["project_id", "tenant_id"])?;
    let (id, setting) = app
        .plan(|snapshot, txn| {
            let read = setting(&request, snapshot)?;
            let mut setting = (*read.value).clone();
            setting.stateful = stateful.unwrap_or(setting.stateful);
            txn.update(&read, &setting);
            Ok((read.id, setting))
        })
        .await?;
    row::one(200, SETTING, setting_row(&id, &setting), &request.query)
}

pub(crate) async fn delete_setting(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = setting(&request, snapshot)?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
