//! Paging with markers: a page begins after its marker, and a link leads to the next.

use crate::{Query, Request};
use maru_base::{Error, Result};

/// What page was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most this many.
    pub limit: usize,
    /// The id after which the page begins.
    pub marker: Option<String>,
}

/// Direction of one sort key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

impl Page {
    /// Reads `limit` and `marker`; a limit above `max` is lowered to it, none gives `default`.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn from_query(query: &Query, default: usize, max: usize) -> Result<Self> {
        let limit = match query.get("limit") {
            None | Some("") => default,
            Some(text) => match text.parse::<i64>() {
                Ok(n) if n >= 0 => usize::try_from(n).unwrap_or(max).min(max),
                _ => {
                    return Err(Error::invalid(
                        "limit",
                        format!("Invalid input for query parameters limit: '{text}' is not a non-negative integer."),
                    ));
                }
            },
        };
        Ok(Self {
            limit,
            marker: query.get("marker").filter(|m| !m.is_empty()).map(str::to_owned),
        })
    }
    /// Cuts one page out of a sorted list. Gives the items and whether more follow.
    ///
    /// # Errors
    /// 400 when no item bears the marker's id.
    pub fn cut<T>(&self, mut items: Vec<T>, id: impl Fn(&T) -> &str) -> Result<(Vec<T>, bool)> {
        if let Some(marker) = &self.marker {
            let at = items.iter().position(|i| id(i) == marker.as_str()).ok_or_else(|| {
                Error::invalid(
                    "marker",
                    format!("The marker '{marker}' was not found; begin again without one."),
                )
            })?;
            items.drain(..=at);
        }
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        Ok((items, more))
    }
}

/// Reads `sort_key` and `sort_dir` pairs (Nova, Neutron, Glance) against the allowed keys.
///
/// # Errors
/// 400 that names an unknown key or direction.
pub fn sort_keys(query: &Query, allowed: &[&str]) -> Result<Vec<(String, Direction)>> {
    let dirs: Vec<&str> = query.all("sort_dir").collect();
    query
        .all("sort_key")
        .enumerate()
        .map(|(i, key)| {
            if !allowed.contains(&key) {
                return Err(Error::invalid(
                    "sort_key",
                    format!("'{key}' cannot be sorted by; choose from {}.", allowed.join(", ")),
                ));
            }
            let dir = match dirs.get(i).or(dirs.last()).copied().unwrap_or("asc") {
                "asc" => Direction::Ascending,
                "desc" => Direction::Descending,
                other => {
                    return Err(Error::invalid(
                        "sort_dir",
                        format!("'{other}' is not a sort direction; use asc or desc."),
                    ));
                }
            };
            Ok((key.to_owned(), dir))
        })
        .collect()
}

/// The address of the page after `last_id`: the same request with another marker.
#[must_use]
pub fn next_link(request: &Request, last_id: &str) -> String {
    let rest = request.query.encode_without(&["marker"]);
    let amp = if rest.is_empty() { "" } else { "&" };
    format!("{}{}?{rest}{amp}marker={last_id}", request.base, request.path)
}
