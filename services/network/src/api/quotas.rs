//! `/quotas`.

use super::body;
use crate::App;
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{Quota, quota};
use maru_store::Snapshot;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn limits(snapshot: &Snapshot, project: &ProjectId) -> Map<String, Value> {
    quota::DEFAULTS
        .iter()
        .map(|(resource, _)| {
            (
                (*resource).to_owned(),
                quota::limit(snapshot, project, resource).unwrap_or(-1).into(),
            )
        })
        .collect()
}

fn project(request: &Request) -> Result<ProjectId> {
    let id = ProjectId::from(request.param("project"));
    request.authorize(&Target::project(&id))?;
    Ok(id)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    request.authorize(&Target::none())?;
    let all: Vec<Value> = snapshot
        .list::<Quota>()
        .map(|q| {
            let mut map = limits(&snapshot, &q.id);
            map.insert("project_id".to_owned(), q.id.as_str().into());
            map.insert("tenant_id".to_owned(), q.id.as_str().into());
            Value::Object(map)
        })
        .collect();
    Reply::json(200, &json!({"quotas": all}))
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    // Old clients ask for their own project so.
    if matches!(request.param("project"), "tenant" | "project")
        && let Some(own) = request.caller()?.project_id()
    {
        return Reply::json(
            200,
            &json!({"tenant": {"tenant_id": own.as_str(), "project_id": own.as_str()}}),
        );
    }
    let id = project(&request)?;
    Reply::json(200, &json!({"quota": limits(&app.store.snapshot(), &id)}))
}

pub(crate) async fn default(_app: Arc<App>, request: Request) -> Result<Reply> {
    project(&request)?;
    let map: Map<String, Value> = quota::DEFAULTS
        .iter()
        .map(|(r, l)| ((*r).to_owned(), (*l).into()))
        .collect();
    Reply::json(200, &json!({"quota": map}))
}

pub(crate) async fn details(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = project(&request)?;
    let snapshot = app.store.snapshot();
    let map: Map<String, Value> = quota::DEFAULTS
        .iter()
        .map(|(resource, _)| {
            let limit = quota::limit(&snapshot, &id, resource).unwrap_or(-1);
            let used = quota::used(&snapshot, &id, resource);
            (
                (*resource).to_owned(),
                json!({"limit": limit, "used": used, "reserved": 0}),
            )
        })
        .collect();
    Reply::json(200, &json!({"quota": map}))
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = project(&request)?;
    let mut b = body::update(&mut request, "quota").await?;
    let mut limits_wanted = Vec::new();
    for (resource, _) in quota::DEFAULTS {
        let given = b.has(resource);
        match b.integer(resource)? {
            Some(n) if (-1..=i64::from(i32::MAX)).contains(&n) => limits_wanted.push(((*resource).to_owned(), n)),
            Some(n) => {
                return Err(body::invalid(
                    resource,
                    format!("'{n}' is not -1 (unlimited) or more, at most {}", i32::MAX),
                ));
            }
            None if given => return Err(body::invalid(resource, "a limit is a whole number, -1 for unlimited")),
            None => {}
        }
    }
    // Of services that are not here: nothing to limit, so only refused when they would mean something.
    for absent in ["check_limit", "force", "tenant_id", "project_id"] {
        let _ = b.raw(absent);
    }
    b.finish(&[])?;
    app.set_quota(&id, &limits_wanted).await?;
    Reply::json(200, &json!({"quota": limits(&app.store.snapshot(), &id)}))
}

pub(crate) async fn reset(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = project(&request)?;
    app.reset_quota(&id).await?;
    Ok(Reply::empty(204))
}
