//! Addresses of old that stand for another service's: served up to the microversion that upstream removed each with, by asking that
//! service in the caller's name.

pub(crate) mod floating_ips;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod security_groups;
pub(crate) mod volumes;

use crate::App;
use http::Method;
use maru_base::{Error, Result};
use maru_http::{Query, Request};
use serde_json::Value;

/// The last microversion with the old addresses of networks, images and volumes.
pub(crate) const LAST: u16 = 35;

/// Asks a service; a refusal is given on with its own words.
pub(crate) async fn ask(
    app: &App,
    request: &Request,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value> {
    let body = body.map(|b| ("application/json", b));
    let (status, value) = app.neighbours.ask(request, method, path, body).await?;
    given(status, value)
}

/// The body of an answer, or the refusal that it is.
pub(crate) fn given(status: u16, value: Value) -> Result<Value> {
    if status < 400 {
        return Ok(value);
    }
    let message = message(&value);
    Err(match status {
        400 => Error::bad_request(message),
        401 => Error::unauthorized(message),
        403 => Error::forbidden(message),
        404 => Error::not_found(message),
        409 => Error::conflict(message),
        413 => Error::too_large(message),
        501 => Error::not_implemented(message),
        503 => Error::unavailable(message),
        _ => Error::internal(
            "another service could not answer",
            std::io::Error::other(format!("{status}: {message}")),
        ),
    })
}

/// What an error body says: each service wraps it in another way.
fn message(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.get("message") {
            Some(Value::String(text)) => text.clone(),
            _ => map
                .values()
                .find_map(|v| v.get("message")?.as_str().map(str::to_owned))
                .unwrap_or_else(|| value.to_string()),
        },
        other => other.to_string(),
    }
}

/// A text of an object; empty when it is not there.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The address of one object, whatever the client gave as its id.
pub(crate) fn one_of(collection: &str, id: &str) -> String {
    format!("{collection}/{}", Query::encode_part(id))
}
