//! `os-instance_usage_audit_log`: which hosts have audited the last period. Audits are sent over a message bus that this cloud does
//! not have, so, as upstream without `instance_usage_audit`, none has; what was used is in `os-simple-tenant-usage`.

use crate::{App, api::wire::invalid};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use maru_base::{Error, Result};
use maru_compute_model::ComputeService;
use maru_http::{Reply, Request};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The whole month before a moment, upstream's default period.
fn period(before: Timestamp) -> Result<(DateTime, DateTime)> {
    let failed = |e| Error::internal("the month before was not found", e);
    let end = before
        .to_zoned(TimeZone::UTC)
        .first_of_month()
        .map_err(failed)?
        .start_of_day()
        .map_err(failed)?;
    let begin = end.checked_sub(jiff::Span::new().months(1)).map_err(failed)?;
    Ok((begin.datetime(), end.datetime()))
}

async fn log(app: &App, before: Timestamp) -> Result<Value> {
    let snapshot = app.store.current().await?;
    let hosts: Vec<String> = snapshot.list::<ComputeService>().map(|s| s.host.clone()).collect();
    let (begin, end) = period(before)?;
    let plain = |t: DateTime| t.strftime("%Y-%m-%d %H:%M:%S").to_string();
    Ok(json!({
        "hosts_not_run": hosts, "log": Map::new(), "num_hosts": hosts.len(), "num_hosts_done": 0, "num_hosts_not_run": hosts.len(),
        "num_hosts_running": 0, "overall_status": format!("0 of {} hosts done. 0 errors.", hosts.len()),
        "period_beginning": plain(begin), "period_ending": plain(end), "total_errors": 0, "total_instances": 0,
    }))
}

/// `GET /os-instance_usage_audit_log`.
pub(crate) async fn index(app: Arc<App>, _request: Request) -> Result<Reply> {
    let log = log(&app, maru_base::time::now()).await?;
    Reply::json(200, &json!({"instance_usage_audit_logs": log}))
}

/// `GET /os-instance_usage_audit_log/{before}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let text = request.param("before");
    let before = text
        .replacen(' ', "T", 1)
        .parse::<DateTime>()
        .and_then(|d| d.to_zoned(TimeZone::UTC))
        .map_err(|_| invalid("before", format!("Invalid timestamp for date {text}")))?;
    let log = log(&app, before.timestamp()).await?;
    Reply::json(200, &json!({"instance_usage_audit_log": log}))
}
