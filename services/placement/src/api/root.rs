//! The version document at the service's root.

use super::json;
use crate::{App, VERSIONS};
use maru_base::Result;
use maru_http::{Reply, Request};
use serde_json::json as value;
use std::sync::Arc;

/// `GET /`: one version, whose link leads to this very document.
pub(super) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    let document = value!({"versions": [{
        "id": format!("v{}", VERSIONS.min),
        "max_version": VERSIONS.max.to_string(),
        "min_version": VERSIONS.min.to_string(),
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }]});
    json(&request, 200, &document, None)
}
