//! `/servers/{id}/os-volume_attachments`.

use crate::{
    App,
    api::{
        servers::{find, load, target},
        wire::{self, Flag, given, invalid, is_uuid},
    },
    app::{server_volumes as app, servers::check_tag},
};
use maru_base::{Error, Result};
use maru_compute_model::{Server, ServerVolume, WantedVolume};
use maru_http::{Reply, Request};
use maru_store::{Object, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachBody {
    #[serde(rename = "volumeId")]
    volume_id: String,
    // The hypervisor counts devices itself, as upstream's does.
    #[serde(rename = "device")]
    device: Option<String>,
    #[serde(default, deserialize_with = "given")]
    tag: Option<String>,
    #[serde(default, deserialize_with = "given")]
    delete_on_termination: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    #[serde(rename = "volumeId")]
    volume_id: String,
    #[serde(default, deserialize_with = "given")]
    delete_on_termination: Option<Flag>,
    #[serde(rename = "device")]
    _device: Option<String>,
    #[serde(rename = "serverId")]
    _server_id: Option<String>,
    #[serde(rename = "tag")]
    _tag: Option<String>,
    #[serde(rename = "id")]
    _id: Option<String>,
}

fn view(request: &Request, server: &Object<Server>, v: &ServerVolume) -> Value {
    let mut out = json!({"volumeId": v.id, "serverId": server.id.as_str(), "device": v.device});
    if request.at_least(2, 70) {
        out["tag"] = json!(v.tag);
    }
    if request.at_least(2, 79) {
        out["delete_on_termination"] = v.delete_on_termination.into();
    }
    if request.at_least(2, 89) {
        out["attachment_id"] = v.attachment.as_str().into();
        out["bdm_uuid"] = v.attachment.as_str().into();
    } else {
        out["id"] = v.id.as_str().into();
    }
    out
}

fn missing(server: &str, volume: &str) -> Error {
    Error::not_found(format!("Instance {server} is not attached to volume {volume}."))
}

/// `GET /servers/{id}/os-volume_attachments`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, server) = load(&app, &request, request.param("id")).await?;
    let page = |name: &str| request.query.number(name);
    let limit = page("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(1_000);
    let offset = page("offset")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let list: Vec<Value> = server
        .volumes
        .iter()
        .skip(offset)
        .take(limit)
        .map(|v| view(&request, &server, v))
        .collect();
    Reply::json(200, &json!({"volumeAttachments": list}))
}

/// `GET /servers/{id}/os-volume_attachments/{volume}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, server) = load(&app, &request, request.param("id")).await?;
    let volume = request.param("volume");
    let found = server
        .volumes
        .iter()
        .find(|v| v.id == volume)
        .ok_or_else(|| missing(&server.id, volume))?;
    Reply::json(200, &json!({"volumeAttachment": view(&request, &server, found)}))
}

/// `POST /servers/{id}/os-volume_attachments`.
pub(crate) async fn attach(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: AttachBody = wire::body(&mut request, "volumeAttachment").await?;
    if !is_uuid(&body.volume_id) {
        return Err(invalid(
            "volumeAttachment.volumeId",
            format!("'{}' is not a 'uuid'", body.volume_id),
        ));
    }
    if let Some(device) = &body.device
        && !device_name(device)
    {
        return Err(invalid(
            "volumeAttachment.device",
            format!("'{device}' is not the name of a device, like /dev/vdb"),
        ));
    }
    for (field, minor, given) in [
        ("tag", 49, body.tag.is_some()),
        ("delete_on_termination", 79, body.delete_on_termination.is_some()),
    ] {
        if given && !request.at_least(2, minor) {
            return Err(invalid(
                &format!("volumeAttachment.{field}"),
                format!("Additional properties are not allowed ('{field}' was unexpected)"),
            ));
        }
    }
    if let Some(tag) = &body.tag {
        check_tag(tag)?;
    }
    let wanted = WantedVolume {
        tag: body.tag.clone(),
        delete_on_termination: body.delete_on_termination.is_some_and(|f| f.0),
        request_id: request.id.to_string(),
        ..WantedVolume::default()
    };
    let place = app::attach(&app, &request, &body.volume_id, wanted).await?;
    let (_, server) = load(&app, &request, request.param("id")).await?;
    Reply::json(200, &json!({"volumeAttachment": view(&request, &server, &place)}))
}

/// The pattern of upstream's schema.
fn device_name(text: &str) -> bool {
    text.len() <= 255
        && text
            .strip_prefix("/dev/")
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/'))
        || text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/') && !text.is_empty() && text.len() <= 255
}

/// `PUT /servers/{id}/os-volume_attachments/{volume}`: whether it is deleted with the server (2.85).
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: UpdateBody = wire::body(&mut request, "volumeAttachment").await?;
    let volume = request.param("volume").to_owned();
    if !is_uuid(&body.volume_id) {
        return Err(invalid(
            "volumeAttachment.volumeId",
            format!("'{}' is not a 'uuid'", body.volume_id),
        ));
    }
    if body.volume_id != volume {
        request.authorize_rule("os_compute_api:os-volumes-attachments:swap", &maru_auth::Target::none())?;
        return Err(Error::not_implemented(
            "Replacing an attached volume by another is not served by this cloud; detach one and attach the other.",
        ));
    }
    if !request.at_least(2, 85) {
        return Err(Error::bad_request(format!(
            "The volume {volume} is attached already; from microversion 2.85 on, delete_on_termination can be changed."
        )));
    }
    let flag = body.delete_on_termination.ok_or_else(|| {
        invalid(
            "volumeAttachment.delete_on_termination",
            "'delete_on_termination' is a required property",
        )
    })?;
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, &request, request.param("id"))?;
            request.authorize(&target(&server))?;
            let mut new = (*server.value).clone();
            let place = new
                .volumes
                .iter_mut()
                .find(|v| v.id == volume)
                .ok_or_else(|| missing(&server.id, &volume))?;
            place.delete_on_termination = flag.0;
            let mut txn = Txn::new();
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `DELETE /servers/{id}/os-volume_attachments/{volume}`.
pub(crate) async fn detach(app: Arc<App>, request: Request) -> Result<Reply> {
    app::detach(&app, &request, request.param("volume")).await?;
    Ok(Reply::empty(202))
}
