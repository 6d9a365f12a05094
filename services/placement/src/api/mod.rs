//! Wire types and thin handlers, one file for each noun; the route table.

mod aggregates;
mod allocation_candidates;
mod allocations;
mod filters;
mod inventories;
mod reshaper;
mod resource_classes;
mod resource_providers;
mod root;
mod shape;
mod traits;
mod usages;

use crate::App;
use http::Method;
use jiff::Timestamp;
use maru_base::{Error, ErrorKind, Result};
use maru_http::{Reply, Request, Route, Routes};
use serde::Serialize;
use std::sync::Arc;

/// The route table.
pub(crate) fn routes(app: Arc<App>) -> Vec<Route> {
    let routes = Routes::new(app).public(Method::GET, "/", root::show);
    let routes = resource_providers::routes(routes);
    let routes = inventories::routes(routes);
    let routes = usages::routes(routes);
    let routes = aggregates::routes(routes);
    let routes = traits::routes(routes);
    let routes = resource_classes::routes(routes);
    let routes = allocations::routes(routes);
    let routes = allocation_candidates::routes(routes);
    reshaper::routes(routes).build()
}

/// Refuses a route that is not there before microversion 1.`minor`.
fn since(request: &Request, minor: u16) -> Result<()> {
    if request.at_least(1, minor) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "The resource could not be found: {} is served from microversion 1.{minor}, the request asks for {}.",
        request.path, request.version
    )))
}

/// Refuses a client that takes no JSON.
fn accepts_json(request: &Request) -> Result<()> {
    let Some(accept) = request.header("accept") else {
        return Ok(());
    };
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("").to_ascii_lowercase();
        let refused = parts.any(|p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q == 0.0));
        matches!(kind.as_str(), "" | "*/*" | "application/*" | "application/json") && !refused
    };
    if accept.split(',').any(takes) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAcceptable,
        "Only application/json is provided; say so in Accept.",
    ))
}

/// Adds the caching headers of microversion 1.15. `modified` is the time of the last change; now when it is not known.
fn stamped(request: &Request, reply: Reply, modified: Option<Timestamp>) -> Reply {
    if !request.at_least(1, 15) {
        return reply;
    }
    let modified = modified.unwrap_or_else(maru_base::time::now);
    reply
        .header(
            "last-modified",
            &modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        )
        .header("cache-control", "no-cache")
}

/// A JSON answer with the caching headers.
fn json<T: Serialize + ?Sized>(request: &Request, status: u16, body: &T, modified: Option<Timestamp>) -> Result<Reply> {
    Ok(stamped(request, Reply::json(status, body)?, modified))
}
