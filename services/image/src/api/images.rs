//! `/v2/images`, its tags and actions.

use crate::{
    App,
    app::{Draft, PatchOp, STORE, unsupported_media},
};
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{Reply, Request};
use maru_image_model::Image;
use maru_store::Object;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::sync::Arc;

const PATCH: &str = "application/openstack-images-v2.1-json-patch";
const DRAFT_PATCH: &str = "application/openstack-images-v2.0-json-patch";

/// An image as the API shows it; properties stand beside the attributes.
pub(super) struct View<'a>(pub &'a Object<Image>);

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let image = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &image.properties {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("name", &image.name)?;
        map.serialize_entry("disk_format", &image.disk_format)?;
        map.serialize_entry("container_format", &image.container_format)?;
        map.serialize_entry("visibility", image.visibility.as_str())?;
        map.serialize_entry("size", &image.size)?;
        map.serialize_entry("virtual_size", &image.virtual_size)?;
        map.serialize_entry("status", image.status.as_str())?;
        map.serialize_entry("checksum", &image.checksum)?;
        map.serialize_entry("protected", &image.protected)?;
        map.serialize_entry("min_ram", &image.min_ram)?;
        map.serialize_entry("min_disk", &image.min_disk)?;
        map.serialize_entry("owner", &image.owner)?;
        map.serialize_entry("os_hidden", &image.hidden)?;
        map.serialize_entry("os_hash_algo", &image.digest.as_ref().map(|_| "sha512"))?;
        map.serialize_entry("os_hash_value", &image.digest)?;
        map.serialize_entry("id", &image.id)?;
        map.serialize_entry("created_at", &seconds_z(image.value.created_at))?;
        map.serialize_entry("updated_at", &seconds_z(image.value.updated_at))?;
        map.serialize_entry("tags", &image.tags)?;
        if image.digest.is_some() {
            map.serialize_entry("stores", STORE)?;
        }
        map.serialize_entry("self", &format_args!("/v2/images/{}", image.id))?;
        map.serialize_entry("file", &format_args!("/v2/images/{}/file", image.id))?;
        map.serialize_entry("schema", "/v2/schemas/image")?;
        map.end()
    }
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body = request.json_value().await?;
    let draft = Draft::parse(&body, request.caller()?, &app.settings)?;
    let image = app.create(&request, draft).await?;
    let location = format!("{}/v2/images/{}", request.base, image.id);
    Ok(Reply::json(201, &View(&image))?.header("location", &location))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let image = app.find(&app.store.current().await?, &request, request.param("id"))?;
    Reply::json(200, &View(&image))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let kind = request.header("content-type").unwrap_or("").to_owned();
    let draft = match kind.split(';').next().map(str::trim) {
        Some(PATCH) => false,
        Some(DRAFT_PATCH) => true,
        _ => return Err(unsupported_media(&kind, &format!("{DRAFT_PATCH} or {PATCH}"))),
    };
    let bytes = request.bytes().await?;
    let body: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::bad_request(format!("Malformed JSON in request body: {e}.")))?;
    let ops = PatchOp::parse(&body, draft)?;
    let image = app.update(&request, request.param("id"), &ops).await?;
    Reply::json(200, &View(&image))
}

pub(super) async fn add_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    app.tag(&request, request.param("id"), request.param("tag"), true)
        .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn remove_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    app.tag(&request, request.param("id"), request.param("tag"), false)
        .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn deactivate(app: Arc<App>, request: Request) -> Result<Reply> {
    app.set_active(&request, request.param("id"), false).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn reactivate(app: Arc<App>, request: Request) -> Result<Reply> {
    app.set_active(&request, request.param("id"), true).await?;
    Ok(Reply::empty(204))
}
