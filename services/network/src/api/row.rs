//! Answers as rows: an object's attributes in order. One list machinery serves filters by every attribute, `fields`,
//! sorting, paging with links and tags.

use maru_base::{Error, ErrorKind, Result};
use maru_http::{Query, Reply, Request};
use maru_network_model::{Meta, errors};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::{borrow::Cow, cmp::Ordering};

/// An object as clients see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row(Vec<(&'static str, Value)>);

impl Row {
    pub(crate) fn new(id: &str) -> Self {
        let mut row = Self(Vec::with_capacity(28));
        row.0.push(("id", id.into()));
        row
    }
    /// What has no id.
    pub(crate) fn unnamed() -> Self {
        Self(Vec::new())
    }
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }
    /// Both names of the owner.
    pub(crate) fn project(self, project: &str) -> Self {
        self.with("tenant_id", project).with("project_id", project)
    }
    /// The standard attributes.
    pub(crate) fn meta(self, meta: &Meta) -> Self {
        self.timeless(meta).with("tags", meta.tags.clone())
    }
    /// The standard attributes without tags.
    pub(crate) fn timeless(self, meta: &Meta) -> Self {
        self.with("description", meta.description.as_str())
            .with("created_at", maru_base::time::seconds_z(meta.created_at))
            .with("updated_at", maru_base::time::seconds_z(meta.updated_at))
            .with("revision_number", meta.revision_number)
    }
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    pub(crate) fn id(&self) -> &str {
        self.get("id").and_then(Value::as_str).unwrap_or_default()
    }
    /// Keeps what `fields` asks for, if it asks.
    pub(crate) fn only(mut self, query: &Query) -> Self {
        let wanted: Vec<&str> = query.all("fields").filter(|f| !f.is_empty()).collect();
        if !wanted.is_empty() {
            self.0.retain(|(n, _)| wanted.contains(n));
        }
        self
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// `{"<name>": value}`, and more such pairs.
pub(crate) struct Wrapped<'a, T>(pub(crate) &'a str, pub(crate) T);

impl<T: Serialize> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// One object's answer.
pub(crate) fn one(status: u16, name: &str, row: Row, query: &Query) -> Result<Reply> {
    Reply::json(status, &Wrapped(name, row.only(query)))
}
/// The answer to a creation: one object, or all of a bulk call.
pub(crate) fn created(bulk: bool, name: &str, plural: &str, mut rows: Vec<Row>) -> Result<Reply> {
    if bulk {
        Reply::json(201, &Wrapped(plural, rows))
    } else {
        Reply::json(201, &Wrapped(name, rows.pop().unwrap_or_default()))
    }
}

/// What a list answers.
pub(crate) struct List {
    /// `networks`
    pub(crate) plural: &'static str,
    /// Attributes that can be filtered by, beside those that rows have.
    pub(crate) filters: &'static [&'static str],
    /// All attributes, for an empty list.
    pub(crate) attributes: &'static [&'static str],
    /// The refusal of an unknown marker.
    pub(crate) missing: fn(&str) -> Error,
}

const RESERVED: &[&str] = &[
    "fields",
    "limit",
    "marker",
    "page_reverse",
    "sort_key",
    "sort_dir",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
];

fn bad_request(message: String) -> Error {
    errors::refuse(ErrorKind::BadRequest, "HTTPBadRequest", message)
}

impl List {
    /// Filters, sorts, cuts and answers. `special` decides over filters that rows do not have; `None` leaves the decision
    /// to the attribute of that name.
    pub(crate) fn answer(
        &self,
        request: &Request,
        mut rows: Vec<Row>,
        special: impl Fn(&Row, &str, &[&str]) -> Option<bool>,
    ) -> Result<Reply> {
        let query = &request.query;
        let known = |name: &str| {
            self.attributes.contains(&name)
                || self.filters.contains(&name)
                || name == "tenant_id"
                || name == "project_id"
        };
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in query.pairs() {
            if RESERVED.contains(&name) || seen.contains(&name) {
                continue;
            }
            if !known(name) {
                return Err(bad_request(format!("['{name}'] is invalid attribute for filtering.")));
            }
            seen.push(name);
        }
        for name in seen {
            let values: Vec<&str> = query.all(name).collect();
            rows.retain(|row| {
                special(row, name, &values)
                    .unwrap_or_else(|| row.get(name).is_some_and(|v| values.iter().any(|w| fits(v, w))))
            });
        }
        filter_tags(query, &mut rows);
        self.sort(query, &mut rows)?;
        let (rows, links) = self.cut(request, rows)?;
        let rows: Vec<Row> = rows.into_iter().map(|r| r.only(query)).collect();
        let body = Page {
            plural: self.plural,
            rows,
            links,
        };
        Reply::json(200, &body)
    }

    fn sort(&self, query: &Query, rows: &mut [Row]) -> Result<()> {
        let mut keys: Vec<(&str, bool)> = Vec::new();
        let dirs: Vec<&str> = query.all("sort_dir").collect();
        for (i, key) in query.all("sort_key").enumerate() {
            if !self.attributes.contains(&key) {
                return Err(bad_request(format!("['{key}'] is invalid attribute for sort keys.")));
            }
            let down = match dirs.get(i).copied().unwrap_or("asc") {
                "asc" => false,
                "desc" => true,
                other => {
                    return Err(bad_request(format!(
                        "'{other}' is not a sort direction; use asc or desc."
                    )));
                }
            };
            keys.push((key, down));
        }
        if keys.is_empty() {
            return Ok(());
        }
        rows.sort_by(|a, b| {
            for (key, down) in &keys {
                let order = compare(a.get(key), b.get(key));
                let order = if *down { order.reverse() } else { order };
                if order != Ordering::Equal {
                    return order;
                }
            }
            a.id().cmp(b.id())
        });
        Ok(())
    }

    fn cut(&self, request: &Request, mut rows: Vec<Row>) -> Result<(Vec<Row>, Option<Vec<Value>>)> {
        let query = &request.query;
        let limit = match query.get("limit") {
            None | Some("") => None,
            Some(text) => match text.parse::<i64>() {
                Ok(0) => None,
                Ok(n) if n > 0 => Some(usize::try_from(n).unwrap_or(usize::MAX)),
                _ => {
                    return Err(bad_request(format!(
                        "Limit must be an integer 0 or greater and not '{text}'."
                    )));
                }
            },
        };
        let reverse = query.bool("page_reverse").ok().flatten().unwrap_or(false);
        if let Some(marker) = query.get("marker").filter(|m| !m.is_empty()) {
            let at = rows
                .iter()
                .position(|r| r.id() == marker)
                .ok_or_else(|| (self.missing)(marker))?;
            if reverse {
                rows.truncate(at);
            } else {
                rows.drain(..=at);
            }
        }
        let Some(limit) = limit else { return Ok((rows, None)) };
        if reverse {
            let from = rows.len().saturating_sub(limit);
            rows.drain(..from);
        } else {
            rows.truncate(limit);
        }
        let mut links = Vec::new();
        let base = format!("{}{}?", request.base, request.path);
        let rest = query.encode_without(&["marker", "page_reverse"]);
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            if reverse || rows.len() >= limit {
                links.push(serde_json::json!({"rel": "next", "href": format!("{base}{rest}&marker={}", last.id())}));
            }
            if !reverse || rows.len() >= limit {
                links.push(serde_json::json!({
                    "rel": "previous", "href": format!("{base}{rest}&marker={}&page_reverse=True", first.id())
                }));
            }
        }
        Ok((rows, Some(links)))
    }
}

struct Page {
    plural: &'static str,
    rows: Vec<Row>,
    links: Option<Vec<Value>>,
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.plural, &self.rows)?;
        if let Some(links) = self.links.as_ref().filter(|l| !l.is_empty()) {
            map.serialize_entry(&format!("{}_links", self.plural), links)?;
        }
        map.end()
    }
}

/// Whether an attribute has a value that a query names.
pub(crate) fn fits(have: &Value, wanted: &str) -> bool {
    match have {
        Value::Null => wanted.is_empty() || wanted == "null" || wanted == "None",
        Value::Bool(b) => match wanted.to_ascii_lowercase().as_str() {
            "true" | "1" => *b,
            "false" | "0" => !*b,
            _ => false,
        },
        Value::Number(n) => n.to_string() == wanted,
        Value::String(s) => s == wanted,
        Value::Array(items) => items.iter().any(|i| fits(i, wanted)),
        Value::Object(map) => match wanted.split_once('=') {
            Some((name, value)) => map.get(name).is_some_and(|v| fits(v, value)),
            None => false,
        },
    }
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    fn text(v: &Value) -> Cow<'_, str> {
        match v {
            Value::String(s) => Cow::Borrowed(s),
            other => Cow::Owned(other.to_string()),
        }
    }
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Null) | None, Some(Value::Null) | None) => Ordering::Equal,
        (Some(Value::Null) | None, _) => Ordering::Less,
        (_, Some(Value::Null) | None) => Ordering::Greater,
        (Some(a), Some(b)) => text(a).cmp(&text(b)),
    }
}

/// `tags` (all of), `tags-any` (one of), `not-tags` (not all of), `not-tags-any` (none of); comma separated.
fn filter_tags(query: &Query, rows: &mut Vec<Row>) {
    type Rule = fn(&[&str], &dyn Fn(&str) -> bool) -> bool;
    let rules: [(&str, Rule); 4] = [
        ("tags", |t, has| t.iter().all(|x| has(x))),
        ("tags-any", |t, has| t.iter().any(|x| has(x))),
        ("not-tags", |t, has| !t.iter().all(|x| has(x))),
        ("not-tags-any", |t, has| !t.iter().any(|x| has(x))),
    ];
    for (name, rule) in rules {
        let wanted: Vec<&str> = query
            .all(name)
            .flat_map(|v| v.split(','))
            .filter(|t| !t.is_empty())
            .collect();
        if wanted.is_empty() {
            continue;
        }
        rows.retain(|row| {
            let tags = row.get("tags").and_then(Value::as_array);
            let has = |x: &str| tags.is_some_and(|t| t.iter().any(|v| v.as_str() == Some(x)));
            rule(&wanted, &has)
        });
    }
}
