//! Usage of projects over time, from the servers that there are.

use crate::App;
use maru_auth::Target;
use maru_base::{Error, Result, time::micros_bare};
use maru_compute_model::Server;
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

struct Span {
    start: jiff::Timestamp,
    stop: jiff::Timestamp,
    detailed: bool,
}

fn span(request: &Request) -> Result<Span> {
    let now = maru_base::time::now();
    let read = |key: &str| -> Result<Option<jiff::Timestamp>> {
        let Some(text) = request.query.get(key).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        // `2026-11-01`, `2026-11-01 10:00:00`, `2026-11-01T10:00:00.000000`.
        let iso = text.replacen(' ', "T", 1);
        iso.parse::<jiff::civil::DateTime>()
            .or_else(|_| iso.parse::<jiff::civil::Date>().map(|d| d.at(0, 0, 0, 0)))
            .and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC))
            .map(|z| Some(z.timestamp()))
            .map_err(|_| Error::invalid(key, format!("Datetime is in invalid format: {key}={text}")))
    };
    let stop = read("end")?.unwrap_or(now);
    let start = read("start")?.unwrap_or_else(|| now - jiff::SignedDuration::from_hours(24 * 28));
    if start >= stop {
        return Err(Error::bad_request(
            "Invalid start time. The start time cannot occur after the end time.",
        ));
    }
    Ok(Span {
        start,
        stop,
        detailed: request.query.get("detailed") == Some("1"),
    })
}

#[allow(clippy::cast_precision_loss)]
fn hours(span: &Span, server: &Server) -> f64 {
    let from = server.launched_at.unwrap_or(server.created).max(span.start);
    let to = span.stop.min(maru_base::time::now());
    ((to.as_second() - from.as_second()).max(0)) as f64 / 3600.0
}

#[allow(clippy::cast_precision_loss)]
fn usage(project: &str, span: &Span, servers: &[Object<Server>]) -> Value {
    let (mut all, mut vcpus, mut memory, mut disk) = (0.0, 0.0, 0.0, 0.0);
    let mut details = Vec::new();
    for s in servers.iter().filter(|s| s.launched_at.is_some_and(|t| t <= span.stop)) {
        let h = hours(span, s);
        all += h;
        vcpus += h * f64::from(s.flavor.vcpus);
        memory += h * s.flavor.memory_mb as f64;
        disk += h * (s.flavor.root_gb + s.flavor.ephemeral_gb) as f64;
        let up = maru_base::time::now().as_second() - s.launched_at.unwrap_or(s.value.created).as_second();
        details.push(json!({
            "instance_id": s.id.as_str(), "name": s.name, "hours": h, "flavor": s.flavor.name, "tenant_id": project,
            "vcpus": s.flavor.vcpus, "memory_mb": s.flavor.memory_mb, "local_gb": s.flavor.root_gb + s.flavor.ephemeral_gb,
            "started_at": s.launched_at.map(micros_bare), "ended_at": null, "state": s.vm_state.as_str(), "uptime": up,
        }));
    }
    let mut v = json!({
        "tenant_id": project, "start": micros_bare(span.start), "stop": micros_bare(span.stop), "total_hours": all,
        "total_vcpus_usage": vcpus, "total_memory_mb_usage": memory, "total_local_gb_usage": disk,
    });
    if span.detailed {
        v["server_usages"] = details.into();
    }
    v
}

fn servers_of(snapshot: &Snapshot, project: &str) -> Vec<Object<Server>> {
    snapshot.find::<Server>("project", project).collect()
}

/// `GET /os-simple-tenant-usage`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let span = span(&request)?;
    let snapshot = app.store.current().await?;
    let projects: BTreeSet<String> = snapshot.list::<Server>().map(|s| s.project_id.to_string()).collect();
    let list: Vec<Value> = projects
        .iter()
        .map(|p| usage(p, &span, &servers_of(&snapshot, p)))
        .collect();
    Reply::json(200, &json!({"tenant_usages": list}))
}

/// `GET /os-simple-tenant-usage/{project}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    request.authorize(&Target::project(project))?;
    let mut span = span(&request)?;
    span.detailed = true;
    let snapshot = app.store.current().await?;
    let servers = servers_of(&snapshot, project);
    if servers.is_empty() {
        return Reply::json(200, &json!({"tenant_usage": {}}));
    }
    Reply::json(200, &json!({"tenant_usage": usage(project, &span, &servers)}))
}
