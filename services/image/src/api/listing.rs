//! `GET /v2/images`: paging, filters, order.

use super::images::View;
use crate::{
    App,
    app::{Filter, Order, SORT_KEYS, Time},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, paging::Direction};
use serde::Serialize;
use std::{cmp::Ordering, sync::Arc};

/// Images on one page unless asked otherwise, and at most.
const PAGE: usize = 25;
const PAGE_MAX: usize = 1_000;

#[derive(Serialize)]
struct List<'a> {
    images: Vec<View<'a>>,
    first: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    schema: &'static str,
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let filter = read_filter(&request)?;
    let order = read_order(&request)?;
    let limit = read_limit(&request)?;
    let snapshot = app.store.current().await?;
    let caller = request.caller()?;
    let mut images = app.list(&snapshot, caller, &filter, &order);
    if let Some(marker) = request.query.get("marker")
        && !app.skip_to(&snapshot, caller, &mut images, marker, &order)
    {
        return Err(Error::invalid(
            "marker",
            format!("No image found with ID {marker}: the marker must be the id of an image; begin again without one."),
        ));
    }
    let more = images.len() > limit;
    images.truncate(limit);
    // Links are paths below the endpoint, as upstream writes them.
    let rest = request.query.encode_without(&["marker"]);
    let (mark, amp) = if rest.is_empty() { ("", "") } else { ("?", "&") };
    let next = images
        .last()
        .filter(|_| more)
        .map(|last| format!("/v2/images?{rest}{amp}marker={}", last.id));
    Reply::json(
        200,
        &List {
            images: images.iter().map(View).collect(),
            first: format!("/v2/images{mark}{rest}"),
            next,
            schema: "/v2/schemas/images",
        },
    )
}

fn read_limit(request: &Request) -> Result<usize> {
    let Some(text) = request.query.get("limit") else {
        return Ok(PAGE);
    };
    match text.trim().parse::<i64>() {
        Ok(n) if n >= 0 => Ok(usize::try_from(n).unwrap_or(PAGE_MAX).min(PAGE_MAX)),
        Ok(_) => Err(Error::invalid("limit", "limit param must be positive")),
        Err(_) => Err(Error::invalid("limit", "limit param must be an integer")),
    }
}

fn sort_key(name: &str, key: &str) -> Result<String> {
    let key = key.trim();
    if SORT_KEYS.contains(&key) {
        Ok(key.to_owned())
    } else {
        Err(Error::invalid(
            name,
            format!(
                "Invalid sort key: {key}. It must be one of the following: {}.",
                SORT_KEYS.join(", ")
            ),
        ))
    }
}

fn sort_direction(name: &str, word: &str) -> Result<Direction> {
    match word.trim() {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        other => Err(Error::invalid(
            name,
            format!("Invalid sort direction: {other}. It must be asc or desc."),
        )),
    }
}

/// Reads `sort=name:asc,size` or `sort_key=…&sort_dir=…`. The newest come first unless asked otherwise.
fn read_order(request: &Request) -> Result<Order> {
    let query = &request.query;
    let (mut keys, mut directions) = (Vec::new(), Vec::new());
    if let Some(text) = query.get("sort") {
        if query.has("sort_key") || query.has("sort_dir") {
            return Err(Error::invalid(
                "sort",
                "Old and new sorting syntax cannot be combined: use either sort, or sort_key and sort_dir.",
            ));
        }
        for piece in text.trim().split(',') {
            let (key, word) = piece.split_once(':').unwrap_or((piece, ""));
            keys.push(sort_key("sort", key)?);
            directions.push(sort_direction("sort", if word.is_empty() { "desc" } else { word })?);
        }
    } else {
        for key in query.all("sort_key") {
            keys.push(sort_key("sort_key", key)?);
        }
        for word in query.all("sort_dir") {
            directions.push(sort_direction("sort_dir", word)?);
        }
        if directions.len() > 1 && directions.len() != keys.len() {
            return Err(Error::invalid(
                "sort_dir",
                "Number of sort dirs does not match the number of sort keys.",
            ));
        }
    }
    if keys.is_empty() {
        keys.push("created_at".to_owned());
    }
    // One direction is for all keys; ties are broken by it, too, so that markers are stable.
    let usual = match directions.as_slice() {
        [one] => *one,
        _ => Direction::Descending,
    };
    directions.resize(keys.len(), usual);
    let mut order: Order = keys.into_iter().zip(directions).collect();
    for key in ["created_at", "id"] {
        if !order.iter().any(|(k, _)| k == key) {
            order.push((key.to_owned(), usual));
        }
    }
    Ok(order)
}

fn read_filter(request: &Request) -> Result<Filter> {
    let mut filter = Filter::default();
    for (name, value) in request.query.pairs() {
        match name {
            "limit" | "marker" | "sort" | "sort_key" | "sort_dir" => {}
            "visibility" => {
                if !["community", "public", "private", "shared", "all"].contains(&value) {
                    return Err(Error::invalid(
                        name,
                        format!(
                            "Invalid visibility value: {value}. It must be community, public, private, shared or all."
                        ),
                    ));
                }
                filter.visibility = Some(value.to_owned());
            }
            "member_status" => {
                if !["pending", "accepted", "rejected", "all"].contains(&value) {
                    return Err(Error::invalid(
                        name,
                        format!("Invalid status: {value}. It must be pending, accepted, rejected or all."),
                    ));
                }
                filter.member_status = Some(value.to_owned());
            }
            "changes-since" => {
                return Err(Error::invalid(
                    name,
                    "The \"changes-since\" filter is no longer available on v2; use updated_at=gte:TIME.",
                ));
            }
            "os_hidden" => filter.hidden = truth(name, &value.to_ascii_lowercase())?,
            "protected" => filter
                .equal
                .push((name.to_owned(), vec![truth(name, value)?.to_string()])),
            "tag" => filter.tags.push(value.trim().to_owned()),
            "created_at" | "updated_at" => filter.times.push(time(name, value)?),
            "name" | "id" | "status" | "container_format" | "disk_format" => {
                let values = match value.split_once(':') {
                    Some(("in", list)) => quoted_list(name, list)?,
                    Some(("eq", one)) => vec![one.to_owned()],
                    Some((other, _)) => return Err(unknown_operator(name, other)),
                    None => vec![value.to_owned()],
                };
                filter.equal.push((name.to_owned(), values));
            }
            _ => match number_range(name) {
                Some((attribute, least)) => {
                    let n = value.trim().parse::<i64>().map_err(|_| {
                        Error::invalid(
                            name,
                            format!("Unable to filter on a range with a non-numeric value: {name} is '{value}'."),
                        )
                    })?;
                    let (least, greatest) = if least { (Some(n), None) } else { (None, Some(n)) };
                    filter.ranges.push((attribute.to_owned(), least, greatest));
                }
                None => filter.equal.push((name.to_owned(), vec![value.to_owned()])),
            },
        }
    }
    Ok(filter)
}

fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::invalid(
            name,
            format!("Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."),
        )),
    }
}

/// `size_min` and its like: the attribute, and whether it is the least.
fn number_range(name: &str) -> Option<(&str, bool)> {
    let (attribute, least) = match name.strip_suffix("_min") {
        Some(attribute) => (attribute, true),
        None => (name.strip_suffix("_max")?, false),
    };
    ["size", "virtual_size", "min_ram", "min_disk"]
        .contains(&attribute)
        .then_some((attribute, least))
}

fn unknown_operator(name: &str, operator: &str) -> Error {
    Error::invalid(
        name,
        format!(
            "Unable to filter {name} by unknown operator '{operator}'. A value with a colon in it is written \
             {name}=eq:VALUE."
        ),
    )
}

/// `gt:2026-11-23T00:00:00Z`; without an operator, equality.
fn time(name: &str, value: &str) -> Result<Time> {
    let (operator, text) = match (parse_time(value), value.split_once(':')) {
        (None, Some((operator, text))) => (operator, text),
        _ => ("eq", value),
    };
    let when = parse_time(text).ok_or_else(|| {
        Error::invalid(
            name,
            format!("Bad \"{name}\" query filter format: '{text}'. Use ISO 8601 DateTime notation."),
        )
    })?;
    let fits: fn(Ordering) -> bool = match operator {
        "eq" => Ordering::is_eq,
        "neq" => Ordering::is_ne,
        "gt" => Ordering::is_gt,
        "gte" => Ordering::is_ge,
        "lt" => Ordering::is_lt,
        "lte" => Ordering::is_le,
        other => {
            return Err(Error::invalid(
                name,
                format!("Unable to filter {name} by unknown operator '{other}'; use gt, gte, eq, neq, lt or lte."),
            ));
        }
    };
    Ok(Time {
        created: name == "created_at",
        fits,
        when,
    })
}

/// Seconds since 1970 of a time of ISO 8601; without a zone it is UTC.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return Some(t.as_second());
    }
    let civil = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| {
            text.parse::<jiff::civil::Date>()
                .map(|d| d.to_datetime(jiff::civil::Time::midnight()))
        })
        .ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The values of `a,"b,c",d`; in a quoted value a backslash stands before the character it takes the meaning from.
fn quoted_list(name: &str, text: &str) -> Result<Vec<String>> {
    let refuse = |why: &str| Error::invalid(name, format!("Invalid filter value {text}. {why}"));
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut letters = quoted.char_indices();
            let end = loop {
                match letters.next() {
                    None => return Err(refuse("The quote is not closed.")),
                    Some((at, '"')) => break at,
                    Some((_, '\\')) => value.extend(letters.next().map(|(_, c)| c)),
                    Some((_, c)) => value.push(c),
                }
            };
            out.push(value);
            rest = &quoted[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None if rest.is_empty() => return Ok(out),
                None => return Err(refuse("There is no comma after closing quotation mark.")),
            }
        } else {
            let (value, more) = rest.split_once(',').map_or((rest, None), |(v, more)| (v, Some(more)));
            if value.contains('"') {
                return Err(refuse("There is no comma before opening quotation mark."));
            }
            out.push(value.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_of_values() {
        let is = |text: &str, values: &[&str]| assert_eq!(quoted_list("name", text).unwrap(), values, "{text}");
        is("a", &["a"]);
        is("a,b", &["a", "b"]);
        is("\"a,b\",c", &["a,b", "c"]);
        is("c,\"a,b\"", &["c", "a,b"]);
        is("\"a\\\"b\"", &["a\"b"]);
        is("", &[""]);
        for bad in ["\"a", "\"a\"b", "a\"b\"", "a,\"b", "\"a\\\""] {
            assert!(quoted_list("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(parse_time("1970-01-01T01:01:00+01:00"), Some(60));
        assert_eq!(parse_time("1970-01-01T00:01:00"), Some(60));
        assert_eq!(parse_time("1970-01-02"), Some(86_400));
        assert_eq!(parse_time("yesterday"), None);
        assert!(time("created_at", "gt:1970-01-01T00:01:00Z").is_ok());
        assert!(time("created_at", "1970-01-01T00:01:00Z").is_ok());
        assert!(time("created_at", "near:1970-01-01T00:01:00Z").is_err());
        assert!(time("created_at", "gt:soon").is_err());
    }
}
