//! Routes and version documents of the image service.

mod data;
mod images;
mod listing;
mod members;
mod schemas;

use crate::App;
use maru_base::Result;
use maru_http::{ErrorStyle, Reply, Request, Routes, Service, limits};
use serde_json::json;
use std::sync::Arc;

/// The service's API.
#[must_use]
pub fn service(app: Arc<App>) -> Service {
    use http::Method;
    let routes = Routes::new(app)
        .public(Method::GET, "/", root)
        .public(Method::GET, "/versions", versions)
        .public(Method::GET, "/v2", root)
        .post("/v2/images", "add_image", images::create)
        .get("/v2/images", "get_images", listing::list)
        .get("/v2/images/{id}", "get_image", images::show)
        .patch("/v2/images/{id}", "modify_image", images::update)
        .delete("/v2/images/{id}", "delete_image", images::delete)
        .put("/v2/images/{id}/file", "upload_image", data::upload)
        .limit(limits::NONE)
        .get("/v2/images/{id}/file", "download_image", data::download)
        .get("/v2/images/{id}/tasks", "get_image", images::tasks)
        .put("/v2/images/{id}/tags/{tag}", "modify_image", images::add_tag)
        .delete("/v2/images/{id}/tags/{tag}", "modify_image", images::remove_tag)
        .post("/v2/images/{id}/actions/deactivate", "deactivate", images::deactivate)
        .post("/v2/images/{id}/actions/reactivate", "reactivate", images::reactivate)
        .get("/v2/images/{id}/members", "get_members", members::list)
        .post("/v2/images/{id}/members", "add_member", members::add)
        .get("/v2/images/{id}/members/{member}", "get_member", members::show)
        .put("/v2/images/{id}/members/{member}", "modify_member", members::answer)
        .delete("/v2/images/{id}/members/{member}", "delete_member", members::remove)
        .get("/v2/schemas/{name}", "get_schema", schemas::show)
        .get("/v2/info/import", "get_schema", import_info)
        .get("/v2/info/stores", "get_schema", stores_info)
        .get("/v2/info/usage", "get_images", usage)
        .build();
    Service {
        name: "image",
        prefixes: &["/image"],
        errors: ErrorStyle::Image,
        microversions: None,
        routes,
    }
}

/// The API versions that are served; 2.9 brought `os_hidden`, 2.7 `os_hash_*`; nothing past what is here is claimed.
fn document(request: &Request) -> serde_json::Value {
    let link = |_: &str| json!([{"rel": "self", "href": format!("{}/v2/", request.base)}]);
    let supported = ["v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"];
    let mut all = vec![json!({"id": "v2.9", "status": "CURRENT", "links": link("v2.9")})];
    all.extend(
        supported
            .iter()
            .map(|v| json!({"id": v, "status": "SUPPORTED", "links": link(v)})),
    );
    json!({ "versions": all })
}

async fn root(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(300, &document(&request))
}

async fn versions(_app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(200, &document(&request))
}

async fn import_info(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}),
    )
}

/// As a Glance with one store: there is nothing to choose from.
async fn stores_info(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Err(maru_base::Error::not_found(
        "Multi backend is not supported at this site.",
    ))
}

async fn usage(app: Arc<App>, request: Request) -> Result<Reply> {
    let rows = app.usage(&app.store.current().await?, request.caller()?)?;
    let usage: serde_json::Map<String, serde_json::Value> = rows
        .into_iter()
        .map(|(name, used, limit)| (name.to_owned(), json!({"usage": used, "limit": limit})))
        .collect();
    Reply::json(200, &json!({ "usage": usage }))
}
