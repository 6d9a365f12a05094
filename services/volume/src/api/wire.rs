//! What the wire types of this API share: links, version gates, names, metadata.

use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::Request;
pub(crate) use maru_http::forms::{Count, Flag, body, invalid, is_uuid, typed};
use maru_store::{Kind, Object, Snapshot};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A time as Cinder writes it: microseconds, no zone.
pub(crate) fn time(t: jiff::Timestamp) -> String {
    maru_base::time::micros_bare(t)
}

/// A time that may be missing.
pub(crate) fn time_or_null(t: Option<jiff::Timestamp>) -> Value {
    t.map_or(Value::Null, |t| time(t).into())
}

/// `http://host/volume/v3`, with the caller's project where the request had it in its path.
fn base(request: &Request) -> String {
    match request.param("url_project") {
        "" => request.base.clone(),
        project => format!("{}/{project}", request.base),
    }
}

/// A link.
#[derive(serde::Serialize)]
pub(crate) struct Link {
    rel: &'static str,
    href: String,
}

/// `self` and `bookmark` links of an object.
pub(crate) fn link_pair(request: &Request, collection: &str, id: &str) -> [Link; 2] {
    let base = base(request);
    let bookmark = format!("{}/{collection}/{id}", base.replacen("/v3", "", 1));
    let own = format!("{base}/{collection}/{id}");
    [
        Link { rel: "self", href: own },
        Link {
            rel: "bookmark",
            href: bookmark,
        },
    ]
}

/// The same as a value.
pub(crate) fn links(request: &Request, collection: &str, id: &str) -> Value {
    json!(link_pair(request, collection, id))
}

/// Serves a request from microversion 3.`minor` on; before it, there is no such path.
pub(crate) fn since(request: &Request, minor: u16) -> Result<()> {
    if request.at_least(3, minor) {
        Ok(())
    } else {
        Err(Error::not_found(
            "The resource could not be found: not in this microversion.",
        ))
    }
}

/// A field that only later microversions have is an unknown field before them.
pub(crate) fn field_since(request: &Request, minor: u16, field: &str, given: bool) -> Result<()> {
    if !given || request.at_least(3, minor) {
        return Ok(());
    }
    let name = field.rsplit('.').next().unwrap_or(field);
    Err(invalid(
        field,
        format!("Additional properties are not allowed ('{name}' was unexpected)"),
    ))
}

/// Checks a display name or description: at most 255 characters; white space at its ends goes.
pub(crate) fn text(field: &str, text: Option<String>) -> Result<Option<String>> {
    let text = text.map(|t| t.trim().to_owned());
    if text.as_ref().is_some_and(|t| t.chars().count() > 255) {
        return Err(invalid(field, "At most 255 characters."));
    }
    Ok(text)
}

/// Checks metadata: keys of 1 to 255 characters, values of at most 255.
pub(crate) fn check_metadata(field: &str, metadata: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in metadata {
        check_item(field, key, value)?;
    }
    Ok(())
}

/// Checks one item of metadata.
pub(crate) fn check_item(field: &str, key: &str, value: &str) -> Result<()> {
    let length = key.chars().count();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_:. /".contains(c) || !c.is_ascii();
    if length == 0 || length > 255 || !key.chars().all(plain) {
        return Err(invalid(
            field,
            format!("'{key}' cannot be a key: it has 1 to 255 letters, digits, spaces, and -_:./ only."),
        ));
    }
    if value.chars().count() > 255 {
        return Err(invalid(&format!("{field}.{key}"), "At most 255 characters."));
    }
    Ok(())
}

/// The body `{key: value}` of the item at an address that ends in `{key}`: that item and no other.
pub(crate) async fn one_spec(request: &mut Request, field: &str) -> Result<BTreeMap<String, String>> {
    let specs: BTreeMap<String, String> = request.json().await?;
    check_metadata(field, &specs)?;
    let key = request.param("key");
    if specs.len() != 1 || !specs.contains_key(key) {
        return Err(invalid(
            key,
            "Request body and URI mismatch: send the one item of the address.",
        ));
    }
    Ok(specs)
}

/// The object of one action: `{"os-extend": {...}}`.
pub(crate) async fn action(request: &mut Request) -> Result<(String, Value)> {
    let Value::Object(map) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let mut items = map.into_iter();
    match (items.next(), items.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::bad_request(
            "The request body must have exactly one action; name it as its only key.",
        )),
    }
}

/// The map of an action's value; `null` is an empty one.
pub(crate) fn map_of(action: &str, value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(invalid(action, "It must be an object.")),
    }
}

/// Whether the caller asked for all projects and may see them.
pub(crate) fn all_projects(request: &Request) -> Result<bool> {
    let asked = request.query.bool("all_tenants")?.unwrap_or(false);
    Ok(asked && request.caller()?.is_admin())
}

/// An object that the caller may see, of a noun as upstream's refusal writes it: a foreign one does not exist.
pub(crate) fn find_own<K: Kind>(
    request: &Request,
    snapshot: &Snapshot,
    noun: &str,
    id: &str,
    project: fn(&K) -> &str,
) -> Result<Object<K>> {
    let missing = || Error::not_found(format!("{noun} {id} could not be found."));
    let found = snapshot.get::<K>(&K::Id::from(id)).ok_or_else(missing)?;
    own(request, project(&found.value), missing)?;
    Ok(found)
}

/// Authorises for an object; a foreign one does not exist.
pub(crate) fn own(request: &Request, project: &str, what: impl FnOnce() -> Error) -> Result<()> {
    let caller = request.caller()?;
    let mine = caller.project_id().is_some_and(|p| p.as_str() == project);
    if !mine && !caller.is_admin() {
        return Err(what());
    }
    request.authorize(&Target::project(project))
}
