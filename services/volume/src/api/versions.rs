//! Version discovery.

use crate::{App, MAX_VERSION, MIN_VERSION};
use maru_base::Result;
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

/// When upstream last changed its list.
const UPDATED: &str = "2026-03-01T00:00:00Z";

fn newest(root: &str) -> Value {
    json!({
        "id": "v3.0", "status": "CURRENT", "version": MAX_VERSION.to_string(), "min_version": MIN_VERSION.to_string(),
        "updated": UPDATED,
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{root}/v3/")},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    })
}

/// `GET /volume/`: all versions.
pub(crate) async fn index(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(300, &json!({"versions": [newest(&request.base)]}))
}

/// `GET /volume/v3/`.
pub(crate) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(200, &json!({"versions": [newest(&request.base)]}))
}
