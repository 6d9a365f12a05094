//! Lists: filters, sort keys, pages with `limit`, `marker` and `offset`, as Cinder has them.

use crate::api::wire::{all_projects, invalid};
use maru_base::{Error, Result};
use maru_http::{Request, paging::Direction};
use maru_store::{Kind, Object, Snapshot};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// Most items of a page; upstream's `osapi_max_limit`.
const MOST: usize = 1_000;

/// What can be listed.
pub(crate) trait Row {
    /// Its id.
    fn id(&self) -> &str;
    /// The value of a sort key or filter, as text; `None` when it has none.
    fn field(&self, name: &str) -> Option<String>;
}

/// One page, and where the next one begins.
pub(crate) struct Listed<T> {
    pub items: Vec<T>,
    /// Id of the last item, when more may follow.
    pub next: Option<String>,
    /// How many there are in all.
    pub count: usize,
}

/// Keys that are not filters.
const NOT_FILTERS: &[&str] = &[
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "with_count",
    "fields",
];

/// Keeps what fits the query's filters. A filter that is not `allowed` is refused since 3.31 and ignored before, as upstream
/// does.
pub(crate) fn filter<T: Row>(request: &Request, rows: &mut Vec<T>, allowed: &[&str]) -> Result<()> {
    filter_but(request, rows, allowed, &[])
}

/// The same; the filters `done` were applied by the caller.
pub(crate) fn filter_but<T: Row>(request: &Request, rows: &mut Vec<T>, allowed: &[&str], done: &[&str]) -> Result<()> {
    for (key, value) in request.query.pairs() {
        if NOT_FILTERS.contains(&key) || done.contains(&key) {
            continue;
        }
        let (name, partial) = match key.strip_suffix('~') {
            Some(name) => (name, true),
            None => (key, false),
        };
        // What is like a text can be asked for since 3.34, and times can be compared since 3.60.
        let early = partial && !request.at_least(3, 34);
        if matches!(name, "created_at" | "updated_at") && request.at_least(3, 60) && !partial {
            let wanted = times(name, value)?;
            rows.retain(|row| {
                let mine: Option<jiff::Timestamp> = row.field(name).and_then(|t| t.parse().ok());
                mine.is_some_and(|mine| wanted.iter().all(|(op, time)| op(&mine, time)))
            });
            continue;
        }
        if early || !allowed.contains(&name) {
            if request.at_least(3, 31) {
                return Err(Error::bad_request(format!(
                    "Invalid filters {name} are found in query options; choose from {}.",
                    allowed.join(", ")
                )));
            }
            continue;
        }
        rows.retain(|row| {
            let mine = row.field(name).unwrap_or_default();
            match value {
                _ if partial => mine.contains(value),
                _ if matches!(name, "bootable" | "multiattach" | "is_public") => mine.eq_ignore_ascii_case(value),
                _ => mine == value,
            }
        });
    }
    Ok(())
}

/// Whether the first time is as asked, seen from the second.
type Compare = fn(&jiff::Timestamp, &jiff::Timestamp) -> bool;

/// Times with operators before them, separated by commas: `gt:2026-11-23T10:00:00,lt:...`; a time alone must be met.
fn times(field: &str, text: &str) -> Result<Vec<(Compare, jiff::Timestamp)>> {
    const OPERATORS: &[(&str, Compare)] = &[
        ("gt:", |a, b| a > b),
        ("gte:", |a, b| a >= b),
        ("eq:", |a, b| a == b),
        ("neq:", |a, b| a != b),
        ("lt:", |a, b| a < b),
        ("lte:", |a, b| a <= b),
    ];
    let each = text.split(',').map(|part| {
        let found = OPERATORS.iter().find_map(|(name, op)| Some((*op, part.strip_prefix(name)?)));
        let (op, time) = found.unwrap_or((|a, b| a == b, part));
        let whole = if time.ends_with('Z') || time.contains('+') {
            time.to_owned()
        } else {
            format!("{time}Z")
        };
        let time = whole.parse().map_err(|_| {
            invalid(
                field,
                format!("'{part}' is not an operator (gt, gte, eq, neq, lt, lte) with a time like 2026-11-23T10:00:00 after a colon"),
            )
        })?;
        Ok((op, time))
    });
    each.collect()
}

/// The sort keys of the query: `sort=key:dir,key2` or `sort_key` and `sort_dir`; newest first when none is given.
fn order(request: &Request, keys: &[&str], default: &str) -> Result<Vec<(String, Direction)>> {
    let known = |key: &str| {
        keys.contains(&key).then(|| key.to_owned()).ok_or_else(|| {
            invalid(
                "sort_key",
                format!("'{key}' cannot be sorted by; choose from {}.", keys.join(", ")),
            )
        })
    };
    let direction = |text: &str| match text {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        other => Err(invalid("sort_dir", format!("'{other}' is neither asc nor desc."))),
    };
    let mut order = Vec::new();
    if let Some(sort) = request.query.get("sort") {
        if request.query.has("sort_key") || request.query.has("sort_dir") {
            return Err(Error::bad_request(
                "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
            ));
        }
        for part in sort.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, dir) = part.split_once(':').unwrap_or((part, "desc"));
            order.push((known(key)?, direction(dir)?));
        }
    } else {
        let dir = request
            .query
            .get("sort_dir")
            .map_or(Ok(Direction::Descending), direction)?;
        order.push((known(request.query.get("sort_key").unwrap_or(default))?, dir));
    }
    Ok(order)
}

/// Compares numbers as numbers, everything else as text.
fn compare(a: Option<&String>, b: Option<&String>) -> Ordering {
    match (
        a.and_then(|a| a.parse::<u64>().ok()),
        b.and_then(|b| b.parse::<u64>().ok()),
    ) {
        (Some(x), Some(y)) => x.cmp(&y),
        _ => a.cmp(&b),
    }
}

/// A whole number of the query that is not negative.
fn number(request: &Request, name: &str) -> Result<Option<usize>> {
    match request.query.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<u32>().map(|n| Some(n as usize)).map_err(|_| {
            invalid(
                name,
                format!("'{text}' is not a whole number from 0 on that fits 32 bits"),
            )
        }),
    }
}

/// What is the caller's project's, by the kind's index `project`; of all projects where an administrator asks for them.
pub(crate) fn of_project<K: Kind>(request: &Request, snapshot: &Snapshot) -> Result<Vec<Object<K>>> {
    Ok(if all_projects(request)? {
        snapshot.list::<K>().collect()
    } else {
        let project = request.caller()?.require_project()?;
        snapshot.find::<K>("project", project).collect()
    })
}

/// Sorts and cuts one page.
pub(crate) fn page<T: Row>(request: &Request, rows: Vec<T>, keys: &[&str]) -> Result<Listed<T>> {
    page_by(request, rows, keys, "created_at")
}

/// The same of what is sorted by `default` when no key is given.
pub(crate) fn page_by<T: Row>(request: &Request, rows: Vec<T>, keys: &[&str], default: &str) -> Result<Listed<T>> {
    let order = order(request, keys, default)?;
    let mut keyed: Vec<(Vec<Option<String>>, T)> = rows
        .into_iter()
        .map(|row| (order.iter().map(|(key, _)| row.field(key)).collect(), row))
        .collect();
    keyed.sort_by(|a, b| {
        for (at, (_, direction)) in order.iter().enumerate() {
            let way = compare(a.0[at].as_ref(), b.0[at].as_ref());
            let way = if *direction == Direction::Descending {
                way.reverse()
            } else {
                way
            };
            if way != Ordering::Equal {
                return way;
            }
        }
        b.1.id().cmp(a.1.id())
    });
    let mut items: Vec<T> = keyed.into_iter().map(|(_, row)| row).collect();
    let count = items.len();
    if let Some(marker) = request.query.get("marker").filter(|m| !m.is_empty()) {
        let at = items
            .iter()
            .position(|i| i.id() == marker)
            .ok_or_else(|| Error::not_found(format!("Marker {marker} could not be found; begin again without one.")))?;
        items.drain(..=at);
    }
    let offset = number(request, "offset")?.unwrap_or(0).min(items.len());
    items.drain(..offset);
    let limit = number(request, "limit")?.unwrap_or(MOST).min(MOST);
    let full = items.len() >= limit && request.query.has("limit") || items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| full).map(|i| i.id().to_owned());
    Ok(Listed { items, next, count })
}

/// The body of a list.
pub(crate) struct Body<'a, V> {
    name: &'a str,
    links: String,
    views: Vec<V>,
    next: Option<Value>,
    count: Option<usize>,
}

impl<V> Body<'_, V> {
    /// Names the link to the next page otherwise than by the items' name.
    pub(crate) fn links_as(mut self, name: &str) -> Self {
        name.clone_into(&mut self.links);
        self
    }
}

impl<V: Serialize> Serialize for Body<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.name, &self.views)?;
        if let Some(next) = &self.next {
            map.serialize_entry(&self.links, next)?;
        }
        if let Some(count) = self.count {
            map.serialize_entry("count", &count)?;
        }
        map.end()
    }
}

/// The body of a list: items under `name`, the link to the next page, and (3.45) the count when asked for.
pub(crate) fn body<'a, T, V: Serialize>(
    request: &Request,
    name: &'a str,
    listed: &Listed<T>,
    views: Vec<V>,
) -> Result<Body<'a, V>> {
    let next = listed.next.as_ref().map(|last| {
        let rest = request.query.encode_without(&["marker", "offset"]);
        let amp = if rest.is_empty() { "" } else { "&" };
        let href = format!("{}{}?{rest}{amp}marker={last}", request.base, request.path);
        json!([{"rel": "next", "href": href}])
    });
    let counted = request.at_least(3, 45) && request.query.bool("with_count")?.unwrap_or(false);
    Ok(Body {
        name,
        links: format!("{name}_links"),
        views,
        next,
        count: counted.then_some(listed.count),
    })
}

/// A filter that is a dictionary, as JSON or as Python prints one (`{'a': 'b'}`): clients send either. Only texts are keys
/// and values; nothing is evaluated (F1).
///
/// # Errors
/// 400 when it is neither.
pub(crate) fn dictionary(field: &str, text: &str) -> Result<Vec<(String, String)>> {
    if let Ok(map) = serde_json::from_str::<std::collections::BTreeMap<String, String>>(text) {
        return Ok(map.into_iter().collect());
    }
    let refused = || invalid(field, "It must be a dictionary of texts, like {\"key\": \"value\"}.");
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .ok_or_else(refused)?;
    let mut rest = inner.trim();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(refused)?;
        let after = after.trim_start().strip_prefix(':').ok_or_else(refused)?;
        let (value, after) = quoted(after.trim_start()).ok_or_else(refused)?;
        pairs.push((key, value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(refused()),
        }
    }
    Ok(pairs)
}

/// A quoted text at the beginning (Python's `u'...'` too), and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('u').unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_compared_by_their_operators() {
        let at: jiff::Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let holds = |text: &str| times("created_at", text).unwrap().iter().all(|(op, t)| op(&at, t));
        assert!(holds("gt:2026-11-23T09:00:00,lt:2026-11-23T11:00:00"));
        assert!(holds("2026-11-23T10:00:00"));
        assert!(holds("gte:2026-11-23T10:00:00+00:00"));
        assert!(!holds("neq:2026-11-23T10:00:00Z"));
        assert!(!holds("lte:2026-11-23T09:59:59"));
        for bad in ["gt:yesterday", "", "lt:", "2026-11-23T10:00:00,"] {
            assert!(times("created_at", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn f1_a_dictionary_is_parsed_and_never_evaluated() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(dictionary("metadata", r#"{"a": "b"}"#).unwrap(), [pair("a", "b")]);
        assert_eq!(
            dictionary("metadata", r"{'a': 'it\'s', u'c': 'd'}").unwrap(),
            [pair("a", "it's"), pair("c", "d")]
        );
        for bad in [
            "__import__('os').system('x')",
            "{'a': 1}",
            "{'a'",
            "{'a': 'b' 'c'}",
            "[]",
            "{'a': open('/etc/passwd')}",
        ] {
            assert_eq!(
                dictionary("metadata", bad).unwrap_err().field(),
                Some("metadata"),
                "{bad}"
            );
        }
    }
}
