//! `images`, up to 2.35, and their metadata, up to 2.38: the image service's images.

use super::{LAST, ask, given, one_of, text};
use crate::{
    App,
    api::wire::{self, bookmark, invalid},
};
use http::Method;
use maru_base::{Error, Result};
use maru_http::{Query, Reply, Request};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

const IMAGES: &str = "/image/v2/images";
/// The last microversion with the metadata of images.
const LAST_METADATA: u16 = 38;
/// The media type of a change of an image.
const PATCH: &str = "application/openstack-images-v2.1-json-patch";

/// What an image has beside its properties.
const CORE: &[&str] = &[
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "size",
    "virtual_size",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
    "created_at",
    "updated_at",
    "tags",
    "self",
    "file",
    "schema",
    "locations",
    "direct_url",
    "stores",
];

fn properties(image: &Value) -> Map<String, Value> {
    let Value::Object(map) = image else { return Map::new() };
    map.iter()
        .filter(|(k, _)| !CORE.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn links(request: &Request, id: &str) -> Value {
    let root = request.base.strip_suffix("/compute").unwrap_or(&request.base);
    json!([
        {"rel": "self", "href": format!("{}/v2.1/images/{id}", request.base)},
        {"rel": "bookmark", "href": format!("{}/images/{id}", request.base)},
        {"rel": "alternate", "type": "application/vnd.openstack.image", "href": format!("{root}/image/images/{id}")},
    ])
}

fn brief(request: &Request, image: &Value) -> Value {
    json!({"id": image["id"], "name": image["name"], "links": links(request, text(image, "id"))})
}

fn full(request: &Request, image: &Value) -> Value {
    let (status, progress) = match text(image, "status") {
        "active" => ("ACTIVE", 100),
        "queued" => ("SAVING", 25),
        "saving" | "importing" | "uploading" => ("SAVING", 50),
        "deleted" | "pending_delete" => ("DELETED", 0),
        "killed" => ("ERROR", 0),
        _ => ("UNKNOWN", 0),
    };
    let metadata = properties(image);
    let mut v = brief(request, image);
    v["status"] = status.into();
    v["progress"] = progress.into();
    v["minDisk"] = image["min_disk"].clone();
    v["minRam"] = image["min_ram"].clone();
    v["created"] = image["created_at"].clone();
    v["updated"] = image["updated_at"].clone();
    v["OS-EXT-IMG-SIZE:size"] = image["size"].as_u64().unwrap_or(0).into();
    if let Some(server) = metadata.get("instance_uuid").and_then(Value::as_str) {
        let mut of = vec![json!({"rel": "self", "href": format!("{}/v2.1/servers/{server}", request.base)})];
        of.extend(bookmark(&request.base, "servers", server).iter().map(|l| json!(l)));
        v["server"] = json!({"id": server, "links": of});
    }
    if let Some(auto) = metadata.get("auto_disk_config").and_then(Value::as_str) {
        let auto = auto.eq_ignore_ascii_case("true");
        v["OS-DCF:diskConfig"] = if auto { "AUTO" } else { "MANUAL" }.into();
    }
    v["metadata"] = metadata.into();
    v
}

/// The query for the image service, from the filters of old.
fn query(request: &Request) -> Result<String> {
    let mut out: Vec<(String, String)> = Vec::new();
    for (key, value) in request.query.pairs() {
        let name = match key {
            "name" | "marker" | "limit" => key.to_owned(),
            "minRam" => "min_ram".to_owned(),
            "minDisk" => "min_disk".to_owned(),
            "type" => "image_type".to_owned(),
            "server" => "instance_uuid".to_owned(),
            "status" => "status".to_owned(),
            "changes-since" => "updated_at".to_owned(),
            other => match other.strip_prefix("property-") {
                Some(name) => name.to_owned(),
                None => continue,
            },
        };
        let value = match key {
            "status" => value.to_lowercase(),
            "changes-since" => format!("gte:{value}"),
            "server" => value.rsplit('/').next().unwrap_or(value).to_owned(),
            "limit" | "minRam" | "minDisk" if value.parse::<u32>().is_err() => {
                return Err(invalid(key, format!("'{value}' is not a whole number from 0 on")));
            }
            _ => value.to_owned(),
        };
        out.push((name, value));
    }
    if !out.iter().any(|(k, _)| k == "limit") {
        out.push(("limit".to_owned(), "1000".to_owned()));
    }
    Ok(Query::encode(out.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
}

async fn found(app: &App, request: &Request) -> Result<(Vec<Value>, Option<Value>)> {
    let path = format!("{IMAGES}?{}", query(request)?);
    let answer = ask(app, request, Method::GET, &path, None).await?;
    let images = answer["images"].as_array().cloned().unwrap_or_default();
    let next = images.last().filter(|_| answer.get("next").is_some()).map(|last| {
        let href = maru_http::paging::next_link(request, text(last, "id"));
        json!([{"rel": "next", "href": href}])
    });
    Ok((images, next))
}

fn list(images: Vec<Value>, next: Option<Value>) -> Result<Reply> {
    let mut body = json!({"images": images});
    if let Some(next) = next {
        body["images_links"] = next;
    }
    Reply::json(200, &body)
}

/// `GET /images`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let (images, next) = found(&app, &request).await?;
    list(images.iter().map(|i| brief(&request, i)).collect(), next)
}

/// `GET /images/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let (images, next) = found(&app, &request).await?;
    list(images.iter().map(|i| full(&request, i)).collect(), next)
}

async fn one(app: &App, request: &Request) -> Result<Value> {
    let id = request.param("image");
    ask(app, request, Method::GET, &one_of(IMAGES, id), None)
        .await
        .map_err(|_| Error::not_found(format!("Image {id} could not be found.")))
}

/// `GET /images/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let image = one(&app, &request).await?;
    Reply::json(200, &json!({"image": full(&request, &image)}))
}

/// `DELETE /images/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let path = one_of(IMAGES, request.param("image"));
    ask(&app, &request, Method::DELETE, &path, None).await?;
    Ok(Reply::empty(204))
}

type Metadata = BTreeMap<String, String>;

/// Brings the properties of an image to `wanted`; those that are not named stay, or go when `whole`.
async fn change(app: &App, request: &Request, wanted: &Metadata, whole: bool) -> Result<Value> {
    let image = one(app, request).await?;
    for key in wanted.keys() {
        if key.is_empty() || key.chars().count() > 255 || CORE.contains(&key.as_str()) {
            return Err(invalid(
                "metadata",
                format!("'{key}' cannot be a key here: 1 to 255 characters, and no attribute of images."),
            ));
        }
    }
    let have = properties(&image);
    // RFC 6901: ~ and / are written ~0 and ~1.
    let path = |key: &str| format!("/{}", key.replace('~', "~0").replace('/', "~1"));
    let mut changes: Vec<Value> = wanted
        .iter()
        .map(|(key, value)| {
            let op = if have.contains_key(key) { "replace" } else { "add" };
            json!({"op": op, "path": path(key), "value": value})
        })
        .collect();
    let gone = have.keys().filter(|k| whole && !wanted.contains_key(*k));
    changes.extend(gone.map(|key| json!({"op": "remove", "path": path(key)})));
    if changes.is_empty() {
        return Ok(image);
    }
    patch(app, request, changes).await
}

async fn patch(app: &App, request: &Request, changes: Vec<Value>) -> Result<Value> {
    let uri = one_of(IMAGES, request.param("image"));
    let body = Value::Array(changes);
    let (status, value) = app
        .neighbours
        .ask(request, Method::PATCH, &uri, Some((PATCH, &body)))
        .await?;
    given(status, value)
}

/// `GET /images/{id}/metadata`.
pub(crate) async fn metadata(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let image = one(&app, &request).await?;
    Reply::json(200, &json!({"metadata": properties(&image)}))
}

/// `POST /images/{id}/metadata`: adds.
pub(crate) async fn add_metadata(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let wanted: Metadata = wire::body(&mut request, "metadata").await?;
    let image = change(&app, &request, &wanted, false).await?;
    Reply::json(200, &json!({"metadata": properties(&image)}))
}

/// `PUT /images/{id}/metadata`: replaces all.
pub(crate) async fn put_metadata(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let wanted: Metadata = wire::body(&mut request, "metadata").await?;
    let image = change(&app, &request, &wanted, true).await?;
    Reply::json(200, &json!({"metadata": properties(&image)}))
}

fn item<'a>(image: &'a Value, key: &str) -> Result<&'a Value> {
    image
        .get(key)
        .filter(|_| !CORE.contains(&key))
        .ok_or_else(|| Error::not_found(format!("Metadata item was not found: {key}")))
}

/// `GET /images/{id}/metadata/{key}`.
pub(crate) async fn metadata_item(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let key = request.param("key");
    let image = one(&app, &request).await?;
    let value = item(&image, key)?;
    Reply::json(200, &json!({"meta": {key: value}}))
}

/// `PUT /images/{id}/metadata/{key}`.
pub(crate) async fn put_metadata_item(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let wanted: Metadata = wire::body(&mut request, "meta").await?;
    let key = request.param("key").to_owned();
    if wanted.len() != 1 || !wanted.contains_key(&key) {
        return Err(invalid(
            "meta",
            format!("It must have the one item '{key}' of the address."),
        ));
    }
    change(&app, &request, &wanted, false).await?;
    Reply::json(200, &json!({"meta": wanted}))
}

/// `DELETE /images/{id}/metadata/{key}`.
pub(crate) async fn delete_metadata_item(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST_METADATA)?;
    let key = request.param("key");
    let image = one(&app, &request).await?;
    item(&image, key)?;
    let path = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
    patch(&app, &request, vec![json!({"op": "remove", "path": path})]).await?;
    Ok(Reply::empty(204))
}
