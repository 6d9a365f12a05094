//! Volumes: create, list, show, update, delete, summary.

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Count, Flag, Link, invalid, links, own, time, time_or_null},
    },
    app::volumes as app_volumes,
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    AttachmentStatus, Volume, VolumeId, VolumeType, attachments_of, find_volume, plan_delete_volume,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// The body of `POST /volumes`, under `volume`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CreateBody {
    pub size: Option<Count>,
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub display_description: Option<String>,
    pub volume_type: Option<String>,
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    pub snapshot_id: Option<String>,
    pub source_volid: Option<String>,
    #[serde(alias = "image_id")]
    #[serde(rename = "imageRef")]
    pub image: Option<String>,
    pub backup_id: Option<String>,
    pub availability_zone: Option<String>,
    pub multiattach: Option<Flag>,
    pub consistencygroup_id: Option<String>,
    pub group_id: Option<String>,
}

/// The body of `PUT /volumes/{id}`, under `volume`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    display_name: Option<String>,
    description: Option<String>,
    display_description: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

impl Row for Object<Volume> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let v = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "name" | "display_name" => v.name.clone(),
            "description" => v.description.clone(),
            "status" => Some(v.status.word().to_owned()),
            "size" => Some(v.size.to_string()),
            "availability_zone" => Some(v.zone.clone()),
            "bootable" => Some(v.bootable.to_string()),
            "multiattach" => Some(v.multiattach.to_string()),
            "user_id" => Some(v.user_id.to_string()),
            "project_id" => Some(v.project_id.to_string()),
            "host" => v.host.clone(),
            "snapshot_id" => v.snapshot_id.as_ref().map(ToString::to_string),
            "source_volid" => v.source_volid.as_ref().map(ToString::to_string),
            "volume_type_id" => Some(v.type_id.to_string()),
            "migration_status" => v.migration_status.clone(),
            "group_id" => v.group_id.as_ref().map(ToString::to_string),
            "created_at" => Some(v.created.to_string()),
            "updated_at" => v.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &[
    "id",
    "name",
    "display_name",
    "description",
    "status",
    "size",
    "availability_zone",
    "bootable",
    "multiattach",
    "user_id",
    "project_id",
    "host",
    "snapshot_id",
    "source_volid",
    "volume_type_id",
    "volume_type",
    "metadata",
    "glance_metadata",
    "group_id",
    "migration_status",
    "replication_status",
    "created_at",
    "updated_at",
];
const SORT_KEYS: &[&str] = &[
    "id",
    "name",
    "display_name",
    "status",
    "size",
    "availability_zone",
    "bootable",
    "host",
    "created_at",
    "updated_at",
];

/// A volume that the caller may see: a foreign one does not exist.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Volume>> {
    let volume = find_volume(snapshot, id)?;
    own(request, &volume.value.project_id, || {
        Error::not_found(format!("Volume {id} could not be found."))
    })?;
    Ok(volume)
}

fn attachments(request: &Request, snapshot: &Snapshot, id: &VolumeId) -> Vec<Value> {
    let admin = request.caller().is_ok_and(|c| c.is_admin());
    attachments_of(snapshot, id)
        .filter(|a| a.value.status == AttachmentStatus::Attached || a.value.status == AttachmentStatus::Detaching)
        .map(|a| {
            json!({
                "id": id.as_str(), "volume_id": id.as_str(), "attachment_id": a.id.as_str(), "server_id": a.value.server_id,
                "host_name": a.value.host.as_ref().filter(|_| admin), "device": a.value.device,
                "attached_at": time_or_null(a.value.attached),
            })
        })
        .collect()
}

/// A volume as the API shows it. A field that is not there in a microversion, or not for this caller, is `None`; one that is there
/// and null is `Some(None)`. A struct, not a tree of values: a list has a thousand of them.
#[derive(Serialize)]
pub(crate) struct View<'a> {
    id: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    size: u32,
    status: &'static str,
    availability_zone: &'a str,
    bootable: &'static str,
    encrypted: bool,
    multiattach: bool,
    metadata: Cow<'a, BTreeMap<String, String>>,
    user_id: &'a str,
    snapshot_id: Option<&'a str>,
    source_volid: Option<&'a str>,
    replication_status: (),
    consistencygroup_id: (),
    migration_status: Option<&'a str>,
    volume_type: Option<String>,
    created_at: String,
    updated_at: Option<String>,
    attachments: Vec<Value>,
    links: [Link; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_image_metadata: Option<&'a BTreeMap<String, String>>,
    #[serde(rename = "os-vol-tenant-attr:tenant_id", skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(rename = "os-vol-host-attr:host", skip_serializing_if = "Option::is_none")]
    host: Option<Option<String>>,
    #[serde(rename = "os-vol-mig-status-attr:migstat", skip_serializing_if = "Option::is_none")]
    migstat: Option<Option<&'a str>>,
    #[serde(rename = "os-vol-mig-status-attr:name_id", skip_serializing_if = "Option::is_none")]
    name_id: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_id: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_uuid: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_targets: Option<Option<bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_type_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumes_quota: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_key_id: Option<()>,
}

/// A volume as the API shows it; `whole` adds what the answer to its creation does not have.
pub(crate) fn view<'a>(request: &Request, snapshot: &Snapshot, volume: &'a Object<Volume>, whole: bool) -> View<'a> {
    let v = &*volume.value;
    let kind = snapshot.get::<VolumeType>(&v.type_id);
    let admin = request.caller().is_ok_and(|c| c.is_admin());
    let encrypted = kind.as_ref().is_some_and(|t| t.value.encryption.is_some());
    let mut metadata = Cow::Borrowed(&v.metadata);
    if let Some(readonly) = v.readonly {
        let word = if readonly { "True" } else { "False" };
        metadata.to_mut().insert("readonly".to_owned(), word.to_owned());
    }
    View {
        id: volume.id.as_str(),
        name: v.name.as_deref(),
        description: v.description.as_deref(),
        size: v.size,
        status: v.status.word(),
        availability_zone: &v.zone,
        bootable: if v.bootable { "true" } else { "false" },
        encrypted,
        multiattach: v.multiattach,
        metadata,
        user_id: v.user_id.as_str(),
        snapshot_id: v.snapshot_id.as_deref(),
        source_volid: v.source_volid.as_deref(),
        replication_status: (),
        consistencygroup_id: (),
        migration_status: v.migration_status.as_deref().filter(|_| admin),
        volume_type: kind.map(|t| t.value.name.clone()),
        created_at: time(v.created),
        updated_at: v.updated.map(time),
        attachments: attachments(request, snapshot, &volume.id),
        links: wire::link_pair(request, "volumes", &volume.id),
        volume_image_metadata: Some(&v.image_metadata).filter(|m| whole && !m.is_empty()),
        tenant: whole.then_some(v.project_id.as_str()),
        host: (whole && admin).then(|| v.host.as_deref().map(|h| format!("{h}@local#local"))),
        migstat: (whole && admin).then_some(v.migration_status.as_deref()),
        name_id: (whole && admin).then_some(()),
        group_id: request.at_least(3, 13).then_some(v.group_id.as_deref()),
        provider_id: (request.at_least(3, 21) && admin).then_some(()),
        service_uuid: request.at_least(3, 48).then_some(()),
        shared_targets: request
            .at_least(3, 48)
            .then(|| (!request.at_least(3, 69)).then_some(false)),
        cluster_name: (request.at_least(3, 61) && admin).then_some(()),
        volume_type_id: request.at_least(3, 63).then_some(v.type_id.as_str()),
        consumes_quota: request.at_least(3, 65).then_some(true),
        encryption_key_id: (request.at_least(3, 64) && encrypted).then_some(()),
    }
}

async fn listed(app: &App, request: &Request) -> Result<(Snapshot, list::Listed<Object<Volume>>)> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Volume>> = list::of_project(request, &snapshot)?;
    for (name, of) in [("metadata", 0), ("glance_metadata", 1)] {
        if let Some(text) = request.query.get(name) {
            let pairs = list::dictionary(name, text)?;
            rows.retain(|v| {
                let mine = if of == 0 {
                    &v.value.metadata
                } else {
                    &v.value.image_metadata
                };
                pairs.iter().all(|(k, x)| mine.get(k) == Some(x))
            });
        }
    }
    if let Some(kind) = request.query.get("volume_type") {
        let id = maru_volume_model::find_type(&snapshot, kind).map(|t| t.id);
        rows.retain(|v| Some(&v.value.type_id) == id.as_ref());
    }
    let plain: Vec<&str> = FILTERS
        .iter()
        .copied()
        .filter(|f| !matches!(*f, "metadata" | "glance_metadata" | "volume_type"))
        .collect();
    let kept = ["metadata", "glance_metadata", "volume_type"];
    list::filter_but(request, &mut rows, &plain, &kept)?;
    let page = list::page(request, rows, SORT_KEYS)?;
    Ok((snapshot, page))
}

/// `GET /volumes`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, page) = listed(&app, &request).await?;
    let views = page
        .items
        .iter()
        .map(|v| json!({"id": v.id.as_str(), "name": v.value.name, "links": links(&request, "volumes", &v.id)}))
        .collect();
    Reply::json(200, &list::body(&request, "volumes", &page, views)?)
}

/// `GET /volumes/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, page) = listed(&app, &request).await?;
    let views = page.items.iter().map(|v| view(&request, &snapshot, v, true)).collect();
    Reply::json(200, &list::body(&request, "volumes", &page, views)?)
}

/// `GET /volumes/summary` (3.12).
pub(crate) async fn summary(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 12)?;
    let (_, page) = listed(&app, &request).await?;
    let size: u64 = page.items.iter().map(|v| u64::from(v.value.size)).sum();
    let mut out = json!({"total_size": size, "total_count": page.items.len()});
    if request.at_least(3, 36) {
        let mut metadata: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for volume in &page.items {
            for (key, value) in &volume.value.metadata {
                let values = metadata.entry(key.clone()).or_default();
                if !values.contains(value) {
                    values.push(value.clone());
                }
            }
        }
        out["metadata"] = json!(metadata);
    }
    Reply::json(200, &json!({"volume-summary": out}))
}

/// `GET /volumes/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let volume = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"volume": view(&request, &snapshot, &volume, true)}))
}

/// `POST /volumes`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (body, hints) = create_body(&mut request).await?;
    let near = hints.get("local_to_instance").map(server_id).transpose()?;
    let id = app_volumes::create(&app, &request, body, near).await?;
    let snapshot = app.store.snapshot();
    let volume = find_volume(&snapshot, &id)?;
    Reply::json(202, &json!({"volume": view(&request, &snapshot, &volume, false)}))
}

/// The server of the hint `local_to_instance`.
fn server_id(value: &Value) -> Result<String> {
    value
        .as_str()
        .filter(|t| wire::is_uuid(t))
        .map(str::to_owned)
        .ok_or_else(|| {
            invalid(
                "OS-SCH-HNT:scheduler_hints.local_to_instance",
                "it is not a server's uuid",
            )
        })
}

/// The body of a creation: scheduler hints may stand beside the volume.
async fn create_body(request: &mut Request) -> Result<(CreateBody, Value)> {
    let Value::Object(mut map) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let volume = map
        .remove("volume")
        .ok_or_else(|| invalid("volume", "'volume' is a required property"))?;
    let hints = map
        .remove("OS-SCH-HNT:scheduler_hints")
        .unwrap_or_else(|| Value::Object(Map::new()));
    if !hints.is_object() && !hints.is_null() {
        return Err(invalid("OS-SCH-HNT:scheduler_hints", "It must be an object."));
    }
    if let Some(extra) = map.keys().next() {
        return Err(invalid(
            extra,
            format!("Additional properties are not allowed ('{extra}' was unexpected)"),
        ));
    }
    Ok((wire::typed("volume", volume)?, hints))
}

/// `PUT /volumes/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: UpdateBody = wire::body(&mut request, "volume").await?;
    if let Some(metadata) = &body.metadata {
        wire::check_metadata("volume.metadata", metadata)?;
    }
    let named = body.name.is_some() || body.display_name.is_some();
    let described = body.description.is_some() || body.display_description.is_some();
    if !named && !described && body.metadata.is_none() {
        return Err(invalid(
            "volume",
            "Must specify at least one of name, description, metadata.",
        ));
    }
    let name = wire::text("volume.name", body.name.or(body.display_name))?;
    let description = wire::text("volume.description", body.description.or(body.display_description))?;
    let id = request.param("id").to_owned();
    app.store
        .plan(|snapshot| {
            let volume = find(&request, snapshot, &id)?;
            let mut new = (*volume.value).clone();
            if named {
                new.name.clone_from(&name);
            }
            if described {
                new.description.clone_from(&description);
            }
            if let Some(metadata) = &body.metadata {
                new.metadata.clone_from(metadata);
            }
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            txn.update(&volume, &new);
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let volume = find(&request, &snapshot, &id)?;
    Reply::json(200, &json!({"volume": view(&request, &snapshot, &volume, false)}))
}

/// `DELETE /volumes/{id}`; `cascade=true` takes its snapshots with it, `force=true` (3.23, administrators) does not mind the
/// status.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let cascade = request.query.bool("cascade")?.unwrap_or(false);
    let force = request.at_least(3, 23) && request.query.bool("force")?.unwrap_or(false);
    if force {
        request.authorize_rule("volume:force_delete", &maru_auth::Target::none())?;
    }
    app.store
        .plan(|snapshot| {
            let volume = find(&request, snapshot, &id)?;
            let mut txn = Txn::new();
            if cascade {
                app_volumes::plan_cascade(snapshot, &mut txn, &volume, &request.id)?;
            } else {
                plan_delete_volume(snapshot, &mut txn, &volume, force, &request.id)?;
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}
