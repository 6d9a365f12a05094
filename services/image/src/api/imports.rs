//! `/v2/images/{id}/import`, `/v2/tasks`, `/v2/stores` and what `/v2/info` says of them.

use crate::{
    App,
    app::{Draft, Import, Method, STORE},
};
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{Reply, Request};
use maru_image_model::{Task, TaskId};
use maru_store::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The import methods that are served.
const METHODS: &[&str] = &["glance-direct", "web-download", "glance-download", "copy-image"];

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MethodBody {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glance_image_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glance_region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glance_service_interface: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    method: MethodBody,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_stores: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_stores_must_succeed: Option<bool>,
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn method_of(body: MethodBody) -> Result<Method> {
    match body.name.as_str() {
        "glance-direct" => Ok(Method::GlanceDirect),
        "copy-image" => Ok(Method::CopyImage),
        "web-download" => match body.uri {
            Some(uri) => Ok(Method::WebDownload { uri }),
            None => Err(Error::invalid("uri", "'uri' is required for web-download.")),
        },
        "glance-download" => {
            let image = body.glance_image_id.ok_or_else(|| {
                Error::invalid("glance_image_id", "'glance_image_id' is required for glance-download.")
            })?;
            let region = body
                .glance_region
                .ok_or_else(|| Error::invalid("glance_region", "'glance_region' is required for glance-download."))?;
            if !is_uuid(&image) {
                return Err(Error::invalid(
                    "glance_image_id",
                    "Remote image id does not look like a UUID.",
                ));
            }
            Ok(Method::GlanceDownload {
                image,
                region,
                interface: body.glance_service_interface.unwrap_or_else(|| "public".to_owned()),
            })
        }
        other => Err(Error::invalid(
            "name",
            format!(
                "Unknown import method name '{other}'; there are {}.",
                METHODS.join(", ")
            ),
        )),
    }
}

pub(super) async fn import(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: ImportBody = request.json().await?;
    let asked = serde_json::to_value(&body).unwrap_or(Value::Null);
    if body.stores.is_some() && body.all_stores == Some(true) {
        return Err(Error::invalid(
            "all_stores",
            "all_stores parameter can't be used with the stores parameter.",
        ));
    }
    let import = Import {
        method: method_of(body.method)?,
        stores: body.stores.unwrap_or_default(),
        all_stores: body.all_stores.unwrap_or(false),
        asked,
    };
    let id = request.param("id").to_owned();
    app.import(&request, &id, import).await?;
    Ok(Reply::empty(202))
}

fn brief(task: &Object<Task>) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("id".into(), task.id.as_str().into());
    map.insert("type".into(), task.value.kind.as_str().into());
    map.insert("status".into(), task.value.status.as_str().into());
    map.insert("owner".into(), task.value.owner.as_str().into());
    map.insert("created_at".into(), seconds_z(task.value.created_at).into());
    map.insert("updated_at".into(), seconds_z(task.value.updated_at).into());
    if let Some(expires) = task.value.expires_at {
        map.insert("expires_at".into(), seconds_z(expires).into());
    }
    map.insert("self".into(), format!("/v2/tasks/{}", task.id).into());
    map.insert("schema".into(), "/v2/schemas/task".into());
    map
}

fn whole(task: &Object<Task>) -> Value {
    let mut map = brief(task);
    map.insert("input".into(), task.value.input.clone());
    map.insert("result".into(), task.value.result.clone());
    map.insert("message".into(), task.value.message.as_str().into());
    map.insert("image_id".into(), task.value.image_id.as_str().into());
    map.insert("request_id".into(), task.value.request_id.as_str().into());
    map.insert("user_id".into(), task.value.user_id.as_str().into());
    map.into()
}

/// The tasks of an image that the caller may see.
pub(super) async fn of_image(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let image = app.find(&snapshot, &request, request.param("id"))?;
    let mut found: Vec<Object<Task>> = snapshot.find::<Task>("image", &image.id).collect();
    found.sort_by(|a, b| (a.value.created_at, &a.id).cmp(&(b.value.created_at, &b.id)));
    let tasks: Vec<Value> = found.iter().map(whole).collect();
    Reply::json(200, &json!({ "tasks": tasks }))
}

pub(super) async fn tasks(app: Arc<App>, request: Request) -> Result<Reply> {
    let mut found: Vec<Object<Task>> = app.store.current().await?.list::<Task>().collect();
    let query = &request.query;
    for (name, _) in query.pairs() {
        if !matches!(name, "type" | "status" | "limit" | "marker" | "sort_key" | "sort_dir") {
            return Err(Error::invalid(
                name,
                format!("'{name}' is not a filter of tasks; use type or status."),
            ));
        }
    }
    if let Some(kind) = query.get("type") {
        found.retain(|t| t.value.kind == kind);
    }
    if let Some(status) = query.get("status") {
        found.retain(|t| t.value.status.as_str() == status);
    }
    // Newest first.
    found.sort_by(|a, b| (b.value.created_at, &b.id).cmp(&(a.value.created_at, &a.id)));
    if query.get("sort_dir") == Some("asc") {
        found.reverse();
    }
    if let Some(marker) = query.get("marker").filter(|m| !m.is_empty()) {
        let at = found.iter().position(|t| t.id.as_str() == marker);
        let at = at.ok_or_else(|| no_task(marker))?;
        found.drain(..=at);
    }
    let limit = match query.get("limit") {
        None => 25,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Error::invalid("limit", format!("'{text}' is not a limit; use a number.")))?
            .min(1000),
    };
    let more = found.len() > limit && limit > 0;
    found.truncate(limit);
    let rows: Vec<Value> = found.iter().map(|t| brief(t).into()).collect();
    let mut body = json!({"tasks": rows, "first": "/v2/tasks", "schema": "/v2/schemas/tasks"});
    if let Some(last) = found.last().filter(|_| more) {
        body["next"] = format!("/v2/tasks?limit={limit}&marker={}", last.id).into();
    }
    Reply::json(200, &body)
}

fn no_task(id: &str) -> Error {
    Error::not_found(format!("No task found with ID {id}"))
}

pub(super) async fn task(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("task");
    let found = app.store.current().await?.get::<Task>(&TaskId::from(id));
    Reply::json(200, &whole(&found.ok_or_else(|| no_task(id))?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskBody {
    #[serde(rename = "type")]
    kind: String,
    input: TaskInput,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskInput {
    import_from: String,
    import_from_format: String,
    image_properties: Map<String, Value>,
}

pub(super) async fn create_task(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: TaskBody = request.json().await?;
    if body.kind != "import" {
        return Err(Error::invalid(
            "type",
            format!("Tasks of type '{}' are not served; use import.", body.kind),
        ));
    }
    let TaskInput {
        import_from,
        import_from_format,
        image_properties,
    } = body.input;
    let input = json!({"import_from": import_from, "import_from_format": import_from_format, "image_properties": image_properties});
    let draft = Draft::parse(&Value::Object(image_properties), request.caller()?, &app.settings)?;
    let task = app.import_task(&request, import_from, draft, input).await?;
    let location = format!("{}/v2/tasks/{}", request.base, task.id);
    Ok(Reply::json(201, &whole(&task))?.header("location", &location))
}

pub(super) async fn import_info(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": METHODS}}),
    )
}

pub(super) async fn stores(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Reply::json(200, &json!({"stores": [{"id": STORE, "default": "true"}]}))
}

pub(super) async fn stores_detail(_app: Arc<App>, _request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &json!({"stores": [{
            "id": STORE, "type": "file", "default": "true", "weight": 0, "properties": {},
            "description": "Content-addressed bytes on the control nodes.",
        }]}),
    )
}

/// Deletes an image's data from one store; there is but one, and an image keeps its last.
pub(super) async fn delete_from_store(app: Arc<App>, request: Request) -> Result<Reply> {
    let (store, id) = (request.param("store"), request.param("image"));
    let image = app.find(&app.store.current().await?, &request, id)?;
    if store != STORE || image.digest.is_none() {
        return Err(Error::not_found(format!("Image {id} is not in a store '{store}'.")));
    }
    Err(Error::forbidden(format!(
        "Cannot delete the data of image {id} from '{store}': it is the only store that has it. Delete the image instead."
    )))
}
