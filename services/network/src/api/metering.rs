//! `/metering/metering-labels` and `/metering/metering-label-rules`.

use super::{
    body::{self, Body, block_of, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use ipnet::IpNet;
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    MeteringLabel, MeteringLabelId, MeteringLabelRule, MeteringLabelRuleId, errors,
    metering::{label_not_found, plan_create_metering_rule, plan_delete_label},
};
use maru_store::{Object, Snapshot};
use serde_json::Value;
use std::sync::Arc;

const LABELS: List = List {
    plural: "metering_labels",
    filters: &[],
    attributes: &["id", "name", "tenant_id", "project_id", "description", "shared"],
    missing: |id| label_not_found(id),
};
const RULES: List = List {
    plural: "metering_label_rules",
    filters: &[],
    attributes: &[
        "id",
        "metering_label_id",
        "direction",
        "remote_ip_prefix",
        "source_ip_prefix",
        "destination_ip_prefix",
        "excluded",
    ],
    missing: |id| rule_not_found(id),
};

fn rule_not_found(id: &str) -> maru_base::Error {
    errors::not_found("MeteringLabelRuleNotFound", "Metering label rule", id)
}

fn label_row(id: &str, l: &MeteringLabel) -> Row {
    Row::new(id)
        .with("name", l.name.as_str())
        .project(&l.project_id)
        .with("description", l.description.as_str())
        .with("shared", l.shared)
}

fn rule_row(id: &str, r: &MeteringLabelRule) -> Row {
    let text = |p: &Option<IpNet>| p.map(|p| p.to_string());
    Row::new(id)
        .with("metering_label_id", r.label_id.as_str())
        .with("direction", r.direction.as_str())
        .with("remote_ip_prefix", text(&r.remote_ip_prefix))
        .with("source_ip_prefix", text(&r.source_ip_prefix))
        .with("destination_ip_prefix", text(&r.destination_ip_prefix))
        .with("excluded", r.excluded)
}

fn label(request: &Request, snapshot: &Snapshot) -> Result<Object<MeteringLabel>> {
    let id = request.param("id");
    let found = snapshot.get::<MeteringLabel>(&MeteringLabelId::from(id));
    let found = found.ok_or_else(|| label_not_found(id))?;
    request.authorize(&Target::project(&found.value.project_id))?;
    Ok(found)
}

fn rule(request: &Request, snapshot: &Snapshot) -> Result<Object<MeteringLabelRule>> {
    let id = request.param("id");
    let found = snapshot.get::<MeteringLabelRule>(&MeteringLabelRuleId::from(id));
    let found = found.ok_or_else(|| rule_not_found(id))?;
    request.authorize(&Target::project(&found.value.project_id))?;
    Ok(found)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_metering_label",
        &[],
        |_, l: &MeteringLabel| Target::project(&l.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| label_row(&o.id, &o.value)).collect();
    LABELS.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = label(&request, &app.store.snapshot())?;
    row::one(200, "metering_label", label_row(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "metering_label", "metering_labels").await?;
    let of = |mut b: Body| {
        let label = MeteringLabel {
            project_id: access::project_for(&request, b.project()?)?,
            name: b.text("name", 255)?.unwrap_or_default(),
            description: b.text("description", 1024)?.unwrap_or_default(),
            shared: b.boolean("shared")?.unwrap_or(false),
        };
        b.finish(&[])?;
        request.authorize(&Target::project(&label.project_id))?;
        Ok(label)
    };
    let labels: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let labels = labels?;
    let made = app
        .plan(|_, txn| {
            let put = |l: &MeteringLabel| {
                let id = MeteringLabelId::new_uuid();
                txn.create(&id, l);
                (id, l.clone())
            };
            Ok(labels.iter().map(put).collect::<Vec<_>>())
        })
        .await?;
    let rows = made.iter().map(|(id, l)| label_row(id, l)).collect();
    row::created(bulk, "metering_label", "metering_labels", rows)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = label(&request, snapshot)?;
        plan_delete_label(snapshot, txn, &read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn rule_of(mut b: Body) -> Result<MeteringLabelRule> {
    let label = b.uuid("metering_label_id")?;
    let label = b.required("metering_label_id", label)?;
    let direction = b.text("direction", 16)?.unwrap_or_else(|| "ingress".to_owned());
    if !matches!(direction.as_str(), "ingress" | "egress") {
        return Err(invalid(
            "direction",
            format!("'{direction}' is not in ['ingress', 'egress']"),
        ));
    }
    let mut block = |name: &str| match b.raw(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => block_of(name, &value).map(Some),
    };
    let rule = MeteringLabelRule {
        label_id: MeteringLabelId::from(label),
        project_id: ProjectId::from(""),
        direction,
        remote_ip_prefix: block("remote_ip_prefix")?,
        source_ip_prefix: block("source_ip_prefix")?,
        destination_ip_prefix: block("destination_ip_prefix")?,
        excluded: b.boolean("excluded")?.unwrap_or(false),
    };
    let _ = b.project()?;
    b.finish(&[])?;
    match (
        rule.remote_ip_prefix,
        rule.source_ip_prefix.or(rule.destination_ip_prefix),
    ) {
        (None, None) => Err(errors::invalid_input(
            "a metering label rule names source_ip_prefix, destination_ip_prefix or remote_ip_prefix",
        )),
        (Some(_), Some(_)) => Err(errors::invalid_input(
            "remote_ip_prefix is the old form of source_ip_prefix and destination_ip_prefix; name one form only",
        )),
        _ => Ok(rule),
    }
}

pub(crate) async fn list_rules(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_metering_label_rule",
        &[("metering_label_id", "label")],
        |_, r: &MeteringLabelRule| Target::project(&r.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| rule_row(&o.id, &o.value)).collect();
    RULES.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = rule(&request, &app.store.snapshot())?;
    row::one(200, "metering_label_rule", rule_row(&o.id, &o.value), &request.query)
}

pub(crate) async fn create_rule(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "metering_label_rule", "metering_label_rules").await?;
    let rules: Result<Vec<_>> = bodies.into_iter().map(rule_of).collect();
    let rules = rules?;
    let made = app
        .plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(rules.len());
            for r in &rules {
                let (id, r) = plan_create_metering_rule(snapshot, txn, r.clone())?;
                request.authorize(&Target::project(&r.project_id))?;
                made.push((id, r));
            }
            Ok(made)
        })
        .await?;
    let rows = made.iter().map(|(id, r)| rule_row(id, r)).collect();
    row::created(bulk, "metering_label_rule", "metering_label_rules", rows)
}

pub(crate) async fn delete_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = rule(&request, snapshot)?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
