//! `/auto-allocated-topology`.

use super::row::{self, Row};
use crate::App;
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    errors,
    topology::{Step, plan_remove_step, plan_step, requirements},
};
use std::sync::Arc;

/// The project of the address; the client writes `None` for its own.
fn project(request: &Request) -> Result<ProjectId> {
    let id = match request.param("project") {
        "None" => request.caller()?.require_project()?.clone(),
        id => ProjectId::from(id),
    };
    request.authorize(&Target::project(&id))?;
    Ok(id)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = project(&request)?;
    let row = |id: &str| Row::new(id).project(&project);
    let mut dry = false;
    for field in request.query.all("fields") {
        match field {
            "dry-run" => dry = true,
            "id" | "tenant_id" | "project_id" | "" => {}
            _ => {
                return Err(errors::bad_request(
                    "auto_allocate",
                    format!("Unrecognized field '{field}'"),
                ));
            }
        }
    }
    if dry {
        requirements(&app.store.snapshot())?;
        return Reply::json(200, &row::Wrapped("auto_allocated_topology", row("dry-run=pass")));
    }
    loop {
        let step = app.plan(|snapshot, txn| plan_step(snapshot, txn, &project)).await?;
        if let Step::Done(network) = step {
            return row::one(200, "auto_allocated_topology", row(&network), &request.query);
        }
    }
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = project(&request)?;
    while !app
        .plan(|snapshot, txn| plan_remove_step(snapshot, txn, &project))
        .await?
    {}
    Ok(Reply::empty(204))
}
