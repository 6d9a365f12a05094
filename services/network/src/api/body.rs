//! Request bodies: attributes are taken one by one and checked; what is left over is refused by name.

use ipnet::IpNet;
use maru_base::{Error, Result};
use maru_http::Request;
use maru_network_model::{Route, address};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Most objects of one bulk call; what fits into one transaction decides finally.
const BULK_MAX: usize = 500;

/// The refusal of an attribute's value.
pub(crate) fn invalid(name: &str, reason: impl std::fmt::Display) -> Error {
    Error::invalid(name, format!("Invalid input for {name}. Reason: {reason}.")).with_code("HTTPBadRequest")
}
fn bad(message: String) -> Error {
    Error::bad_request(message).with_code("HTTPBadRequest")
}
/// A short text of a value for a refusal.
fn show(v: &Value) -> String {
    let mut text = v.to_string();
    if text.len() > 80 {
        let mut end = 80;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The attributes of one object of a request.
pub(crate) struct Body {
    map: Map<String, Value>,
    create: bool,
}

/// Reads the body of a creation: one object, or a bulk of them.
pub(crate) async fn create(request: &mut Request, name: &str, plural: &str) -> Result<(bool, Vec<Body>)> {
    let mut map = top(request).await?;
    if let Some(list) = map.remove(plural) {
        no_more(&map)?;
        let Value::Array(items) = list else {
            return Err(bad(format!("Resource body required: '{plural}' is a list of objects.")));
        };
        if items.is_empty() {
            return Err(bad(format!("Resources required: '{plural}' is empty.")));
        }
        if items.len() > BULK_MAX {
            return Err(Error::too_large(format!(
                "A bulk call makes at most {BULK_MAX} objects; make several calls."
            )));
        }
        let bodies: Result<Vec<Body>> = items
            .into_iter()
            .map(|item| match item {
                // Old clients wrap each item once more.
                Value::Object(mut inner) if inner.len() == 1 && inner.get(name).is_some_and(Value::is_object) => {
                    match inner.remove(name) {
                        Some(Value::Object(map)) => Ok(Body { map, create: true }),
                        _ => Err(bad(format!("'{plural}' is a list of objects."))),
                    }
                }
                Value::Object(map) => Ok(Body { map, create: true }),
                other => Err(bad(format!("'{plural}' is a list of objects, not {}.", show(&other)))),
            })
            .collect();
        return Ok((true, bodies?));
    }
    Ok((
        false,
        vec![Body {
            map: inner(map, name)?,
            create: true,
        }],
    ))
}
/// Reads the body of an update.
pub(crate) async fn update(request: &mut Request, name: &str) -> Result<Body> {
    let map = top(request).await?;
    Ok(Body {
        map: inner(map, name)?,
        create: false,
    })
}
/// Reads a body that is not wrapped.
pub(crate) async fn bare(request: &mut Request) -> Result<Body> {
    Ok(Body {
        map: top(request).await?,
        create: false,
    })
}

async fn top(request: &mut Request) -> Result<Map<String, Value>> {
    match request.json_value().await? {
        Value::Object(map) => Ok(map),
        other => Err(bad(format!("The request body is a JSON object, not {}.", show(&other)))),
    }
}
fn inner(mut map: Map<String, Value>, name: &str) -> Result<Map<String, Value>> {
    match map.remove(name) {
        Some(Value::Object(inner)) => {
            no_more(&map)?;
            Ok(inner)
        }
        Some(other) => Err(bad(format!(
            "Unable to find '{name}' in request body: it is an object, not {}.",
            show(&other)
        ))),
        None => Err(bad(format!("Unable to find '{name}' in request body."))),
    }
}
fn no_more(map: &Map<String, Value>) -> Result<()> {
    match map.keys().next() {
        None => Ok(()),
        Some(name) => Err(bad(format!("Unrecognized attribute(s) '{name}'.")).with_field(name.clone())),
    }
}

impl Body {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }
    pub(crate) fn raw(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }
    /// Puts an attribute back that was taken to be looked at.
    pub(crate) fn put_back(&mut self, name: &str, value: Value) -> &mut Self {
        self.map.insert(name.to_owned(), value);
        self
    }
    /// An object inside this one.
    pub(crate) fn child(&self, name: &str, value: Value) -> Result<Body> {
        match value {
            Value::Object(map) => Ok(Self {
                map,
                create: self.create,
            }),
            other => Err(invalid(name, format!("'{}' is not a dictionary", show(&other)))),
        }
    }
    /// Text of at most `max` characters.
    pub(crate) fn text(&mut self, name: &str, max: usize) -> Result<Option<String>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(s)) => check_text(name, s, max).map(Some),
            Some(other) => Err(invalid(name, format!("'{}' is not a valid string", show(&other)))),
        }
    }
    /// Text, or null.
    pub(crate) fn nullable_text(&mut self, name: &str, max: usize) -> Result<Option<Option<String>>> {
        if let Some(Value::Null) = self.map.get(name) {
            self.map.remove(name);
            return Ok(Some(None));
        }
        Ok(self.text(name, max)?.map(Some))
    }
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.map.remove(name) else {
            return Ok(None);
        };
        let text = match &value {
            Value::Bool(b) => return Ok(Some(*b)),
            Value::String(s) => s.to_ascii_lowercase(),
            Value::Number(n) => n.to_string(),
            _ => String::new(),
        };
        match text.as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(invalid(
                name,
                format!("'{}' cannot be converted to boolean", show(&value)),
            )),
        }
    }
    /// A whole number; null is none.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.map.remove(name) else {
            return Ok(None);
        };
        let number = match &value {
            Value::Null => return Ok(None),
            Value::Number(n) => n.as_i64(),
            Value::String(s) => s.parse().ok(),
            _ => None,
        };
        number
            .map(Some)
            .ok_or_else(|| invalid(name, format!("'{}' is not an integer", show(&value))))
    }
    /// A UUID.
    pub(crate) fn uuid(&mut self, name: &str) -> Result<Option<String>> {
        match self.nullable_uuid(name)? {
            None => Ok(None),
            Some(None) => Err(invalid(name, "'null' is not a valid UUID")),
            Some(id) => Ok(id),
        }
    }
    /// A UUID, or null.
    pub(crate) fn nullable_uuid(&mut self, name: &str) -> Result<Option<Option<String>>> {
        match self.nullable_text(name, 64)? {
            Some(Some(id)) if !is_uuid(&id) => Err(invalid(name, format!("'{id}' is not a valid UUID"))),
            other => Ok(other),
        }
    }
    /// An attribute that must be there.
    pub(crate) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            bad(format!(
                "Failed to parse request. Required attribute '{name}' not specified."
            ))
            .with_field(name)
        })
    }
    /// An address, or null.
    pub(crate) fn nullable_address(&mut self, name: &str) -> Result<Option<Option<IpAddr>>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => address_of(name, &value).map(|a| Some(Some(a))),
        }
    }
    pub(crate) fn list(&mut self, name: &str, max: usize) -> Result<Option<Vec<Value>>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(items)) => Err(invalid(name, format!("{} items are more than {max}", items.len()))),
            Some(other) => Err(invalid(name, format!("'{}' is not a list", show(&other)))),
        }
    }
    pub(crate) fn addresses(&mut self, name: &str) -> Result<Option<Vec<IpAddr>>> {
        let Some(items) = self.list(name, 100)? else {
            return Ok(None);
        };
        let all: Result<Vec<IpAddr>> = items.iter().map(|v| address_of(name, v)).collect();
        let all = all?;
        no_duplicates(name, &all)?;
        Ok(Some(all))
    }
    pub(crate) fn uuids(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(items) = self.list(name, 100)? else {
            return Ok(None);
        };
        let all: Result<Vec<String>> = items
            .iter()
            .map(|v| match v.as_str() {
                Some(s) if is_uuid(s) => Ok(s.to_owned()),
                _ => Err(invalid(name, format!("'{}' is not a valid UUID", show(v)))),
            })
            .collect();
        let all = all?;
        no_duplicates(name, &all)?;
        Ok(Some(all))
    }
    /// A list of texts.
    pub(crate) fn texts(&mut self, name: &str, max: usize) -> Result<Option<Vec<String>>> {
        let Some(items) = self.list(name, 100)? else {
            return Ok(None);
        };
        let all: Result<Vec<String>> = items
            .into_iter()
            .map(|v| match v {
                Value::String(s) => check_text(name, s, max),
                other => Err(invalid(name, format!("'{}' is not a valid string", show(&other)))),
            })
            .collect();
        all.map(Some)
    }
    /// Routes: destination and next hop.
    pub(crate) fn routes(&mut self, name: &str) -> Result<Option<Vec<Route>>> {
        let Some(items) = self.list(name, 200)? else {
            return Ok(None);
        };
        let mut routes = Vec::with_capacity(items.len());
        for item in items {
            let mut body = self.child(name, item)?;
            let destination = body
                .raw("destination")
                .ok_or_else(|| invalid(name, "a route needs its destination"))?;
            let nexthop = body
                .raw("nexthop")
                .ok_or_else(|| invalid(name, "a route needs its nexthop"))?;
            body.finish(&[])?;
            let route = Route {
                destination: block_of(name, &destination)?,
                nexthop: address_of(name, &nexthop)?,
            };
            if routes.contains(&route) {
                return Err(invalid(
                    name,
                    format!("the route to {} is named twice", route.destination),
                ));
            }
            if route.destination.addr().is_ipv4() != route.nexthop.is_ipv4() {
                return Err(invalid(
                    name,
                    format!("the route to {} mixes IP versions", route.destination),
                ));
            }
            routes.push(route);
        }
        Ok(Some(routes))
    }
    /// The project that an object shall belong to: `project_id` or its old name.
    pub(crate) fn project(&mut self) -> Result<Option<String>> {
        let old = self.text("tenant_id", 255)?;
        let new = self.text("project_id", 255)?;
        match (old, new) {
            (Some(a), Some(b)) if a != b => Err(bad("'project_id' and 'tenant_id' do not match.".to_owned())),
            (a, b) => Ok(b.or(a)),
        }
    }
    /// Refuses what is left; `fixed` are attributes that exist and cannot be set here.
    pub(crate) fn finish(self, fixed: &[&str]) -> Result<()> {
        let Some(name) = self.map.keys().next() else {
            return Ok(());
        };
        let standing = [
            "id",
            "created_at",
            "updated_at",
            "revision_number",
            "tags",
            "tenant_id",
            "project_id",
            "status",
        ];
        if fixed.contains(&name.as_str()) || standing.contains(&name.as_str()) {
            let method = if self.create { "POST" } else { "PUT" };
            return Err(bad(format!("Attribute '{name}' not allowed in {method}.")).with_field(name.clone()));
        }
        no_more(&self.map)
    }
}

fn no_duplicates<T: PartialEq + std::fmt::Display>(name: &str, all: &[T]) -> Result<()> {
    match all.iter().enumerate().find(|(i, x)| all[..*i].contains(x)) {
        None => Ok(()),
        Some((_, x)) => Err(invalid(name, format!("duplicate items in the list: '{x}'"))),
    }
}
/// Text without control characters, of at most `max` characters.
pub(crate) fn check_text(name: &str, text: String, max: usize) -> Result<String> {
    let length = text.chars().count();
    if length > max {
        return Err(invalid(
            name,
            format!("the text has {length} characters and exceeds maximum length of {max}"),
        ));
    }
    if text.contains('\0') {
        return Err(invalid(name, "the text holds a NUL character"));
    }
    Ok(text)
}
/// Whether text is a UUID in its dashed form or as 32 hexadecimal digits.
pub(crate) fn is_uuid(text: &str) -> bool {
    let dashed = text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| {
            if matches!(i, 8 | 13 | 18 | 23) {
                b == b'-'
            } else {
                b.is_ascii_hexdigit()
            }
        });
    dashed || (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}
/// An address.
pub(crate) fn address_of(name: &str, value: &Value) -> Result<IpAddr> {
    value
        .as_str()
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| invalid(name, format!("'{}' is not a valid IP address", show(value))))
}
/// A block; an address alone is a block of one.
pub(crate) fn block_of(name: &str, value: &Value) -> Result<IpNet> {
    let text = value.as_str().unwrap_or_default();
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| invalid(name, format!("'{}' is not a valid IP subnet", show(value))))
}
/// A MAC in the stored form.
pub(crate) fn mac_of(name: &str, value: &Value) -> Result<String> {
    value
        .as_str()
        .and_then(address::normal_mac)
        .filter(|m| m != "00:00:00:00:00:00")
        .ok_or_else(|| invalid(name, format!("'{}' is not a valid MAC address", show(value))))
}
