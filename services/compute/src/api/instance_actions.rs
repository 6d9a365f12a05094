//! Instance actions: what was asked of a server and what came of it.

use crate::{
    App,
    api::{server_list::time, server_view::host_id, servers::find, wire::Link},
};
use maru_auth::Target;
use maru_base::{Error, Result, time::micros_bare};
use maru_compute_model::{ActionEvent, ServerAction, action_id};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

/// The project of a server, alive or (2.21) deleted, for authorisation.
fn project(snapshot: &Snapshot, request: &Request, id: &str) -> Result<String> {
    match find(snapshot, request, id) {
        Ok(server) => Ok(server.project_id.to_string()),
        Err(error) if request.at_least(2, 21) => {
            let caller = request.caller()?;
            snapshot
                .find::<ServerAction>("server", id)
                .find(|a| caller.is_admin() || caller.project_id() == Some(&a.project_id))
                .map(|a| a.project_id.to_string())
                .ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn view(request: &Request, action: &ServerAction) -> Value {
    let mut v = json!({
        "action": action.action,
        "instance_uuid": action.server_id.as_str(),
        "request_id": action.request_id,
        "user_id": action.user_id.as_str(),
        "project_id": action.project_id.as_str(),
        "start_time": micros_bare(action.start),
        "message": action.message,
    });
    if request.at_least(2, 58) {
        v["updated_at"] = micros_bare(action.updated).into();
    }
    v
}

/// `GET /servers/{id}/os-instance-actions`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let id = request.param("id");
    request.authorize(&Target::project(&project(&snapshot, &request, id)?))?;
    let mut found: Vec<Object<ServerAction>> = snapshot.find::<ServerAction>("server", id).collect();
    found.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| b.id.cmp(&a.id)));
    let mut body = json!({});
    if request.at_least(2, 58) {
        let page = Page::from_query(&request.query, 1_000, 1_000)?;
        let since = request
            .query
            .get("changes-since")
            .map(|t| time("changes-since", t))
            .transpose()?;
        let before = match request.query.get("changes-before") {
            Some(t) if request.at_least(2, 66) => Some(time("changes-before", t)?),
            _ => None,
        };
        if let (Some(s), Some(b)) = (since, before)
            && s > b
        {
            return Err(Error::bad_request(
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        found.retain(|a| since.is_none_or(|s| a.updated >= s) && before.is_none_or(|b| a.updated <= b));
        let (items, _) = page
            .cut(found, |a| &a.request_id)
            .map_err(|_| Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or(""))))?;
        found = items;
        if let Some(last) = found.last()
            && request.query.has("limit")
            && found.len() == page.limit
        {
            body["links"] = json!([Link {
                rel: "next",
                href: next_link(&request, &last.request_id)
            }]);
        }
    }
    body["instanceActions"] = found.iter().map(|a| view(&request, a)).collect();
    Reply::json(200, &body)
}

/// `GET /servers/{id}/os-instance-actions/{request}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let id = request.param("id");
    let project = project(&snapshot, &request, id)?;
    let target = Target::project(&project);
    request.authorize(&target)?;
    let wanted = request.param("request");
    let action = snapshot
        .get::<ServerAction>(&action_id(id, wanted))
        .ok_or_else(|| Error::not_found(format!("Action for request_id {wanted} on instance {id} not found")))?;
    let mut v = view(&request, &action);
    let all = request.may("os_compute_api:os-instance-actions:events", &target);
    let details = request.may("os_compute_api:os-instance-actions:events:details", &target);
    // Before 2.51 only administrators see the events; from then on everyone does, without tracebacks.
    if all || request.at_least(2, 51) {
        v["events"] = action
            .events
            .iter()
            .rev()
            .map(|e| event_view(&request, e, &project, all, details))
            .collect();
    }
    Reply::json(200, &json!({"instanceAction": v}))
}

fn event_view(request: &Request, e: &ActionEvent, project: &str, all: bool, details: bool) -> Value {
    let mut v = json!({
        "event": e.event,
        "start_time": micros_bare(e.start),
        "finish_time": e.finish.map(micros_bare),
        "result": e.result,
    });
    if all || !request.at_least(2, 51) {
        v["traceback"] = json!(e.details);
    }
    if request.at_least(2, 62) {
        v["hostId"] = host_id(project, e.host.as_deref()).into();
        if all {
            v["host"] = json!(e.host);
        }
    }
    if request.at_least(2, 84) {
        v["details"] = if details { json!(e.details) } else { Value::Null };
    }
    v
}
