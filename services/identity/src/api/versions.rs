//! Version discovery: `/` (300 Multiple Choices) and `/v3`.

use crate::App;
use maru_base::Result;
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

fn v3(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{base}/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

pub(super) async fn list(_app: Arc<App>, request: Request) -> Result<Reply> {
    Ok(Reply::json(300, &json!({"versions": {"values": [v3(&request.base)]}}))?
        .header("location", &format!("{}/v3/", request.base)))
}

pub(super) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(200, &json!({"version": v3(&request.base)}))
}
