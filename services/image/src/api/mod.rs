//! Routes and version documents of the image service.

mod data;
mod images;
mod imports;
mod listing;
mod members;
mod metadefs;
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
        .put("/v2/images/{id}/stage", "upload_image", data::stage)
        .limit(limits::NONE)
        .post("/v2/images/{id}/import", "modify_image", imports::import)
        .get("/v2/images/{id}/tasks", "get_image", imports::of_image)
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
        .get("/v2/schemas/metadefs/{name}", "get_schema", schemas::metadef)
        .get("/v2/info/import", "get_schema", imports::import_info)
        .get("/v2/info/stores", "get_schema", imports::stores)
        .get("/v2/info/stores/detail", "stores_info_detail", imports::stores_detail)
        .get("/v2/info/usage", "get_images", usage)
        .delete(
            "/v2/stores/{store}/{image}",
            "delete_image_location",
            imports::delete_from_store,
        )
        .get("/v2/tasks", "tasks_api_access", imports::tasks)
        .post("/v2/tasks", "tasks_api_access", imports::create_task)
        .get("/v2/tasks/{task}", "tasks_api_access", imports::task);
    let routes = metadef_routes(routes).build();
    Service {
        name: "image",
        prefixes: &["/image"],
        errors: ErrorStyle::Image,
        strict_slash: true,
        microversions: None,
        routes,
    }
}

/// The API versions that are served, as of a Glance with stores and without a cache: 2.15 brought `/info/stores/detail`, 2.12 an
/// image's tasks, 2.10 deletion from a store; nothing past what is here is claimed.
fn document(request: &Request) -> serde_json::Value {
    let link = |_: &str| json!([{"rel": "self", "href": format!("{}/v2/", request.base)}]);
    let supported = [
        "v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1",
        "v2.0",
    ];
    let mut all = vec![json!({"id": "v2.15", "status": "CURRENT", "links": link("v2.15")})];
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

fn metadef_routes(r: Routes<App>) -> Routes<App> {
    let all = "/v2/metadefs/namespaces";
    let one = format!("{all}/{{namespace}}");
    let part = |noun: &str| format!("{one}/{noun}");
    let (types, objects) = (part("resource_types"), part("objects"));
    let (properties, tags) = (part("properties"), part("tags"));
    let (object, property, tag) = (
        format!("{objects}/{{object}}"),
        format!("{properties}/{{property}}"),
        format!("{tags}/{{tag}}"),
    );
    r.get(
        "/v2/metadefs/resource_types",
        "list_metadef_resource_types",
        metadefs::resource_types,
    )
    .get(all, "get_metadef_namespaces", metadefs::list)
    .post(all, "add_metadef_namespace", metadefs::create)
    .get(&one, "get_metadef_namespace", metadefs::show)
    .put(&one, "modify_metadef_namespace", metadefs::update)
    .delete(&one, "delete_metadef_namespace", metadefs::delete)
    .get(&types, "get_metadef_resource_type", metadefs::associations_list)
    .post(&types, "add_metadef_resource_type_association", metadefs::associate)
    .delete(
        &format!("{types}/{{name}}"),
        "remove_metadef_resource_type_association",
        metadefs::dissociate,
    )
    .get(&objects, "get_metadef_objects", metadefs::objects)
    .post(&objects, "add_metadef_object", metadefs::add_object)
    .get(&object, "get_metadef_object", metadefs::object)
    .put(&object, "modify_metadef_object", metadefs::update_object)
    .delete(&object, "delete_metadef_object", metadefs::remove_object)
    .get(&properties, "get_metadef_properties", metadefs::properties)
    .post(&properties, "add_metadef_property", metadefs::add_property)
    .get(&property, "get_metadef_property", metadefs::property)
    .put(&property, "modify_metadef_property", metadefs::update_property)
    .delete(&property, "remove_metadef_property", metadefs::remove_property)
    .get(&tags, "get_metadef_tags", metadefs::tags)
    .post(&tags, "add_metadef_tags", metadefs::set_tags)
    .delete(&tags, "delete_metadef_tags", metadefs::clear_tags)
    .get(&tag, "get_metadef_tag", metadefs::tag)
    .post(&tag, "add_metadef_tag", metadefs::add_tag)
    .put(&tag, "modify_metadef_tag", metadefs::rename_tag)
    .delete(&tag, "delete_metadef_tag", metadefs::remove_tag)
}

async fn usage(app: Arc<App>, request: Request) -> Result<Reply> {
    let rows = app.usage(&app.store.current().await?, request.caller()?)?;
    let usage: serde_json::Map<String, serde_json::Value> = rows
        .into_iter()
        .map(|(name, used, limit)| (name.to_owned(), json!({"usage": used, "limit": limit})))
        .collect();
    Reply::json(200, &json!({ "usage": usage }))
}
