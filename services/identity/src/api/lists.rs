//! Collections: filters, pages and links as Keystone has them.
//!
//! `?name=x` is an exact filter; `name__contains`, `__startswith`, `__endswith` and, ignoring case, `__icontains`,
//! `__istartswith`, `__iendswith`, `__iexact` compare otherwise. What a collection does not know is not a filter.

use maru_base::Result;
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use serde::{Serialize, Serializer, ser::SerializeMap};

#[derive(Debug, Clone, Copy)]
enum Comparator {
    Equals,
    Contains,
    StartsWith,
    EndsWith,
}

/// One filter of a request.
struct Filter<'a> {
    name: &'a str,
    comparator: Comparator,
    any_case: bool,
    value: String,
}

/// The filters of a request on the attributes that a collection knows.
pub(crate) struct Filters<'a>(Vec<Filter<'a>>);

/// Attributes that are booleans.
const BOOLEANS: [&str; 2] = ["enabled", "is_domain"];

impl<'a> Filters<'a> {
    pub(crate) fn of(request: &'a Request, known: &[&str]) -> Self {
        let mut filters = Vec::new();
        for (key, value) in request.query.pairs() {
            let (name, op) = key.split_once("__").unwrap_or((key, ""));
            if !known.contains(&name) {
                continue;
            }
            let any_case = op.starts_with('i') && op != "in";
            let comparator = match op.strip_prefix('i').unwrap_or(op) {
                "" | "exact" => Comparator::Equals,
                "contains" => Comparator::Contains,
                "startswith" => Comparator::StartsWith,
                "endswith" => Comparator::EndsWith,
                _ => continue,
            };
            let value = if BOOLEANS.contains(&name) {
                // Keystone: `enabled` without a value means yes.
                (!matches!(
                    value.to_ascii_lowercase().as_str(),
                    "0" | "false" | "f" | "no" | "n" | "off"
                ))
                .to_string()
            } else if any_case {
                value.to_lowercase()
            } else {
                value.to_owned()
            };
            filters.push(Filter {
                name,
                comparator,
                any_case,
                value,
            });
        }
        Self(filters)
    }
    /// Whether an object passes, by its attributes as text.
    pub(crate) fn pass<'b>(&self, attribute: impl Fn(&str) -> Option<&'b str>) -> bool {
        self.0.iter().all(|f| {
            let Some(have) = attribute(f.name) else {
                return f.value.is_empty();
            };
            if f.any_case {
                f.matches(&have.to_lowercase())
            } else {
                f.matches(have)
            }
        })
    }
}

impl Filter<'_> {
    fn matches(&self, have: &str) -> bool {
        match self.comparator {
            Comparator::Equals => have == self.value,
            Comparator::Contains => have.contains(&self.value),
            Comparator::StartsWith => have.starts_with(&self.value),
            Comparator::EndsWith => have.ends_with(&self.value),
        }
    }
}

/// `"true"` or `"false"`, for filters.
pub(crate) fn flag(b: bool) -> Option<&'static str> {
    Some(if b { "true" } else { "false" })
}

#[derive(Serialize)]
struct CollectionLinks {
    next: Option<String>,
    #[serde(rename = "self")]
    this: String,
    previous: Option<String>,
}

struct Collection<'a, T> {
    name: &'static str,
    items: &'a [T],
    links: CollectionLinks,
}

impl<T: Serialize> Serialize for Collection<'_, T> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(2))?;
        map.serialize_entry(self.name, self.items)?;
        map.serialize_entry("links", &self.links)?;
        map.end()
    }
}

/// A collection as an answer, without pages.
pub(crate) fn whole<T: Serialize>(request: &Request, name: &'static str, items: &[T]) -> Result<Reply> {
    answer(request, name, items, None)
}

/// One page of objects as an answer; `view` gives an object's form.
pub(crate) fn paged<'a, O: 'a, T: Serialize>(
    request: &Request,
    name: &'static str,
    objects: &'a [O],
    id: impl Fn(&&'a O) -> &'a str,
    view: impl Fn(&'a O) -> T,
) -> Result<Reply> {
    let page = Page::from_query(&request.query, usize::MAX, usize::MAX)?;
    let (cut, more) = page.cut(objects.iter().collect(), |o| id(o))?;
    let next = if more {
        cut.last().map(|o| next_link(request, id(o)))
    } else {
        None
    };
    let items: Vec<T> = cut.into_iter().map(view).collect();
    answer(request, name, &items, next)
}

fn answer<T: Serialize>(request: &Request, name: &'static str, items: &[T], next: Option<String>) -> Result<Reply> {
    let links = CollectionLinks {
        next,
        this: format!("{}{}", request.base, request.path),
        previous: None,
    };
    Reply::json(200, &Collection { name, items, links })
}
