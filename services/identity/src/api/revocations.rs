//! GET /v3/OS-REVOKE/events, and what upstream has taken out of its API.

use crate::App;
use maru_auth::Target;
use maru_base::{Error, ErrorKind, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{Revocation, RevokedToken};
use serde_json::{Value, json};
use std::sync::Arc;

/// What ended tokens: of a user, project or domain, or one by its audit id.
pub(super) async fn events(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let since = match request.query.get("since") {
        None => None,
        Some(text) => Some(text.parse::<jiff::Timestamp>().map_err(|_| {
            Error::invalid(
                "since",
                "Invalid input for field 'since': a time as 2030-01-31T12:00:00Z is wanted.",
            )
        })?),
    };
    let since = since.map_or(i64::MIN, jiff::Timestamp::as_microsecond);
    let mut events: Vec<Value> = Vec::new();
    for r in snapshot.list::<Revocation>().filter(|r| r.at >= since) {
        if let Some((what, id)) = r.id.split_once(':') {
            let mut event = json!({"issued_before": crate::app::micros(r.at)});
            event[format!("{what}_id")] = id.into();
            events.push(event);
        }
    }
    for t in snapshot.list::<RevokedToken>().filter(|t| t.at >= since) {
        events.push(json!({"audit_id": t.id, "issued_before": crate::app::micros(t.at)}));
    }
    let links = json!({"next": null, "previous": null, "self": format!("{}{}", request.base, request.path)});
    Reply::json(200, &json!({"events": events, "links": links}))
}

/// 410, as upstream: there are no PKI tokens any more.
pub(super) async fn gone(_: Arc<App>, _: Request) -> Result<Reply> {
    Err(Error::new(
        ErrorKind::Gone,
        "This API is no longer available due to the removal of support for PKI tokens.",
    ))
}
