//! What application credentials and trusts have in common: times, roles, and who may make one.

use super::{not_found, views};
use crate::{App, app::Verified, app::refused};
use maru_base::{Error, Result};
use maru_http::Request;
use maru_identity_model::{Role, RoleId};
use maru_store::{Object, Snapshot};
use serde_json::Value;
use std::sync::Arc;

/// The caller's token, refused when it may not make or end ways to act for its user (attack classes C3, C6).
///
/// # Errors
/// 403 for a trust's token and a restricted application credential's.
pub(super) async fn may_delegate(app: &App, request: &Request, what: &str) -> Result<Arc<Verified>> {
    let verified = app.verify(request.header("x-auth-token").ok_or_else(refused)?).await?;
    verified.may_delegate(what)?;
    Ok(verified)
}

/// A time of a request in microseconds since 1970: ISO 8601 with an offset, or without one for UTC. It must lie ahead.
pub(super) fn expiry(text: Option<String>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let bad = |why: &str| Error::invalid("expires_at", format!("Invalid input for field 'expires_at': {why}."));
    let time = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| {
            let civil = text.parse::<jiff::civil::DateTime>()?;
            civil.to_zoned(jiff::tz::TimeZone::UTC).map(|z| z.timestamp())
        })
        .map_err(|_| bad("a time as 2030-01-31T12:00:00.000000Z is wanted"))?;
    if time <= maru_base::time::now() {
        return Err(bad("it lies in the past"));
    }
    Ok(Some(time.as_microsecond()))
}

/// A role as a request names it: by id, or by name among the global ones.
pub(super) fn role(snapshot: &Snapshot, named: &Value) -> Result<Object<Role>> {
    let text = |name: &str| named.get(name).and_then(Value::as_str);
    let id = match (text("id"), text("name")) {
        (Some(id), _) => Some(RoleId::from(id)),
        (None, Some(name)) => snapshot.owner("role", "", name).map(RoleId::from),
        (None, None) => {
            return Err(Error::invalid(
                "roles",
                "Invalid input for field 'roles': each role is an object with an id or a name.",
            ));
        }
    };
    let shown = text("id").or_else(|| text("name")).unwrap_or_default();
    id.and_then(|id| snapshot.get::<Role>(&id))
        .ok_or_else(|| not_found("role", shown))
}

/// The member `roles`: a list of at most 100.
pub(super) fn roles(value: Option<Value>) -> Result<Option<Vec<Value>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(roles)) if roles.len() <= 100 => Ok(Some(roles)),
        Some(_) => Err(Error::invalid(
            "roles",
            "Invalid input for field 'roles': a list of at most 100 roles is wanted.",
        )),
    }
}

/// Roles as objects of an answer.
pub(super) fn role_views(snapshot: &Snapshot, base: &str, ids: &[RoleId]) -> Vec<Value> {
    ids.iter()
        .filter_map(|id| snapshot.get::<Role>(id))
        .filter_map(|r| serde_json::to_value(views::role_object(base, &r)).ok())
        .collect()
}
