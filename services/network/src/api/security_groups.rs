//! `/security-groups`.

use super::{
    body::{self, Body},
    candidates,
    row::{self, List, Row},
    security_group_rules,
};
use crate::{
    App,
    app::{access, security_groups::GroupRequest},
};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{SecurityGroup, SecurityGroupRule, errors};
use maru_store::Snapshot;
use serde_json::Value;
use std::sync::Arc;

const LIST: List = List {
    plural: "security_groups",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "stateful",
        "tenant_id",
        "project_id",
        "description",
        "shared",
        "security_group_rules",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| errors::group_not_found(id),
};

fn row_of(snapshot: &Snapshot, id: &str, g: &SecurityGroup) -> Row {
    let rules: Vec<Value> = snapshot
        .find::<SecurityGroupRule>("group", id)
        .filter_map(|r| serde_json::to_value(security_group_rules::row_of(snapshot, &r.id, &r.value)).ok())
        .collect();
    Row::new(id)
        .with("name", g.name.as_str())
        .with("stateful", g.stateful)
        .project(&g.project_id)
        .with("shared", false)
        .with("security_group_rules", rules)
        .meta(&g.meta)
}

fn request_of(request: &Request, mut b: Body) -> Result<GroupRequest> {
    let project = access::project_for(request, b.project()?)?;
    let name = b.text("name", 255)?.unwrap_or_default();
    let description = b.text("description", 255)?.unwrap_or_default();
    let stateful = b.boolean("stateful")?;
    b.finish(&["security_group_rules", "shared"])?;
    Ok(GroupRequest {
        project,
        name,
        description,
        stateful,
    })
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    if let Some(project) = request.caller()?.project_id() {
        app.ensure_default_group(project).await?;
    }
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_security_group",
        &[("name", "name")],
        |_, g: &SecurityGroup| Target::project(&g.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&snapshot, &o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::group(&request, &snapshot, request.param("id"))?;
    row::one(
        200,
        "security_group",
        row_of(&snapshot, &o.id, &o.value),
        &request.query,
    )
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "security_group", "security_groups").await?;
    let requests: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let made = app.create_groups(&request, requests?).await?;
    let snapshot = app.store.snapshot();
    row::created(
        bulk,
        "security_group",
        "security_groups",
        made.iter().map(|(id, g)| row_of(&snapshot, id, g)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "security_group").await?;
    let name = b.text("name", 255)?;
    let description = b.text("description", 255)?;
    let stateful = b.boolean("stateful")?;
    b.finish(&["security_group_rules", "shared"])?;
    let (id, group) = app
        .update_group(&request, request.param("id"), name, description, stateful)
        .await?;
    let snapshot = app.store.snapshot();
    row::one(200, "security_group", row_of(&snapshot, &id, &group), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_group(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}
