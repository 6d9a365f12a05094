//! Bytes that the cloud does not manage, and those it does: lists, and taking some back (`manageable_volumes`,
//! `manageable_snapshots` from 3.8; `os-volume-manage`, `os-snapshot-manage` before).

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, body, invalid},
    },
    app::{
        unmanaged::{self, SNAPSHOT, VOLUME},
        volumes as app_volumes,
    },
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Snapshot as View, Txn};
use maru_volume_model::{
    NewVolume, Snapshot, SnapshotId, SnapshotStatus, Source, Status, Unmanaged, Volume, VolumeId, plan_create_snapshot,
    plan_create_volume, quota, visible_type,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeBody {
    host: Option<String>,
    #[serde(rename = "ref")]
    reference: Value,
    name: Option<String>,
    description: Option<String>,
    volume_type: Option<String>,
    availability_zone: Option<String>,
    bootable: Option<Flag>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotBody {
    volume_id: String,
    #[serde(rename = "ref")]
    reference: Value,
    name: Option<String>,
    description: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

/// One row of a list.
struct Found {
    reference: String,
    size: u32,
    cinder_id: Option<String>,
    source: Option<String>,
}

impl Row for Found {
    fn id(&self) -> &str {
        &self.reference
    }
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "size" => Some(self.size.to_string()),
            "reference" => Some(self.reference.clone()),
            _ => None,
        }
    }
}

impl Found {
    fn view(&self, detail: bool) -> Value {
        let managed = self.cinder_id.is_some();
        let mut out = json!({
            "reference": {"source-name": self.reference}, "size": self.size, "safe_to_manage": !managed,
        });
        if let Some(source) = &self.source {
            out["source_reference"] = json!({"source-name": source});
        }
        if detail {
            out["cinder_id"] = json!(self.cinder_id);
            out["reason_not_safe"] = if managed { "already managed".into() } else { Value::Null };
            out["extra_info"] = Value::Null;
        }
        out
    }
}

/// The path of before 3.8 is served in every microversion, the other one from then on.
fn gate(request: &Request) -> Result<()> {
    if request.path.contains("-manage") {
        return Ok(());
    }
    wire::since(request, 8)
}

async fn listed(app: &App, request: &Request, of: impl Fn(&View, &str) -> Vec<Found>) -> Result<list::Listed<Found>> {
    gate(request)?;
    let host = request.query.get("host").ok_or_else(|| {
        invalid(
            "host",
            "It must name the back end to look at, like host=node@local#local.",
        )
    })?;
    let snapshot = app.store.current().await?;
    let backend = unmanaged::backend(&snapshot, host)?;
    let rows = of(&snapshot, &backend.value.host);
    // The order is by what sorts here, not by age: a file has none.
    for sort in ["sort", "sort_key"] {
        if let Some(key) = request.query.get(sort)
            && !matches!(key.split(':').next(), Some("size" | "reference"))
        {
            return Err(invalid(
                sort,
                format!("'{key}' cannot be sorted by; choose from size, reference."),
            ));
        }
    }
    list::page_by(request, rows, &["size", "reference"], "reference")
}

fn volumes_on(snapshot: &View, node: &str) -> Vec<Found> {
    let managed = snapshot.find::<Volume>("host", node).map(|v| Found {
        reference: format!("{VOLUME}{}", v.id),
        size: v.value.size,
        cinder_id: Some(v.id.to_string()),
        source: None,
    });
    let free = snapshot
        .find::<Unmanaged>("host", node)
        .filter(|u| u.value.snapshot_of.is_none() && !u.value.removing)
        .map(|u| Found {
            reference: format!("{VOLUME}{}", u.id),
            size: u.value.size,
            cinder_id: None,
            source: None,
        });
    managed.chain(free).collect()
}

fn snapshots_on(snapshot: &View, node: &str) -> Vec<Found> {
    let managed = snapshot.find::<Snapshot>("host", node).map(|s| Found {
        reference: format!("{SNAPSHOT}{}", s.value.bytes_of(&s.id)),
        size: s.value.size,
        cinder_id: Some(s.id.to_string()),
        source: Some(format!("{VOLUME}{}", s.value.volume_id)),
    });
    let free = snapshot.find::<Unmanaged>("host", node).filter_map(|u| {
        let of = u.value.snapshot_of.as_ref().filter(|_| !u.value.removing)?;
        Some(Found {
            reference: format!("{SNAPSHOT}{}", u.id),
            size: u.value.size,
            cinder_id: None,
            source: Some(format!("{VOLUME}{of}")),
        })
    });
    managed.chain(free).collect()
}

async fn answer(
    app: &App,
    request: &Request,
    name: &str,
    detail: bool,
    of: impl Fn(&View, &str) -> Vec<Found>,
) -> Result<Reply> {
    let page = listed(app, request, of).await?;
    let views = page.items.iter().map(|f| f.view(detail)).collect();
    Reply::json(200, &list::body(request, name, &page, views)?)
}

/// `GET /manageable_volumes`.
pub(crate) async fn volumes(app: Arc<App>, request: Request) -> Result<Reply> {
    answer(&app, &request, "manageable-volumes", false, volumes_on).await
}

/// `GET /manageable_volumes/detail`.
pub(crate) async fn volumes_detail(app: Arc<App>, request: Request) -> Result<Reply> {
    answer(&app, &request, "manageable-volumes", true, volumes_on).await
}

/// `GET /manageable_snapshots`.
pub(crate) async fn snapshots(app: Arc<App>, request: Request) -> Result<Reply> {
    answer(&app, &request, "manageable-snapshots", false, snapshots_on).await
}

/// `GET /manageable_snapshots/detail`.
pub(crate) async fn snapshots_detail(app: Arc<App>, request: Request) -> Result<Reply> {
    answer(&app, &request, "manageable-snapshots", true, snapshots_on).await
}

/// `POST /manageable_volumes`: a new volume with the bytes; they go when it has them.
pub(crate) async fn manage_volume(app: Arc<App>, mut request: Request) -> Result<Reply> {
    gate(&request)?;
    let given: VolumeBody = body(&mut request, "volume").await?;
    let metadata = given.metadata.clone().unwrap_or_default();
    wire::check_metadata("volume.metadata", &metadata)?;
    let name = wire::text("volume.name", given.name.clone())?;
    let description = wire::text("volume.description", given.description.clone())?;
    let host = given.host.clone().ok_or_else(|| {
        invalid(
            "volume.host",
            "'host' is a required property: the back end that has the bytes",
        )
    })?;
    let id = VolumeId::new_uuid();
    app.store
        .plan(|snapshot| {
            let backend = unmanaged::backend(snapshot, &host)?;
            let found = unmanaged::find(snapshot, &given.reference, None)?;
            if found.value.host != backend.value.host {
                return Err(Error::bad_request(format!(
                    "Invalid input received: {} is on the back end {}, not on {host}.",
                    found.id, found.value.host
                )));
            }
            let caller = request.caller()?;
            let project = caller.require_project()?;
            let kind = match given.volume_type.as_deref().filter(|t| !t.is_empty()) {
                Some(name) => visible_type(snapshot, name, Some(project), caller.is_admin())
                    .ok_or_else(|| Error::not_found(format!("Volume type with name {name} could not be found.")))?,
                None => app_volumes::default_type(snapshot, project)?,
            };
            if kind.value.encryption.is_some() {
                return Err(Error::bad_request(
                    "Invalid input received: bytes that are not encrypted cannot become a volume of an encrypted type.",
                ));
            }
            if let Some(zone) = given.availability_zone.as_deref()
                && zone != backend.value.zone
            {
                return Err(Error::bad_request(format!(
                    "Invalid input received: the back end is in the availability zone {}, not {zone}.",
                    backend.value.zone
                )));
            }
            let new = NewVolume {
                project_id: project,
                user_id: &caller.user_id,
                size: found.value.size,
                kind: &kind,
                zone: backend.value.zone.clone(),
                source: Source::Volume(found.id.as_str().into()),
                request_id: &request.id,
            };
            let volume = Volume {
                name: name.clone(),
                description: description.clone(),
                metadata: metadata.clone(),
                bootable: given.bootable.is_some_and(|f| f.0),
                host: Some(backend.value.host.clone()),
                status: Status::Managing,
                takes_over: Some(found.id.clone()),
                ..Volume::new(snapshot, new)
            };
            let mut txn = Txn::new();
            // Two who take the same bytes meet here: the one who is second finds them taken.
            if snapshot
                .find::<Volume>("status", Status::Managing.word())
                .any(|v| v.value.takes_over.as_ref() == Some(&found.id))
            {
                return Err(Error::bad_request(format!(
                    "Invalid input received: {} is being managed already.",
                    found.id
                )));
            }
            txn.update(&found, &*found.value);
            plan_create_volume(snapshot, &mut txn, &id, &volume)?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    let snapshot = app.store.snapshot();
    let made = super::volumes::find(&request, &snapshot, &id)?;
    Reply::json(
        202,
        &json!({"volume": super::volumes::view(&request, &snapshot, &made, false)}),
    )
}

/// `POST /manageable_snapshots`.
pub(crate) async fn manage_snapshot(app: Arc<App>, mut request: Request) -> Result<Reply> {
    gate(&request)?;
    let given: SnapshotBody = body(&mut request, "snapshot").await?;
    if !wire::is_uuid(&given.volume_id) {
        return Err(invalid(
            "snapshot.volume_id",
            format!("'{}' is not a 'uuid'", given.volume_id),
        ));
    }
    let metadata = given.metadata.clone().unwrap_or_default();
    wire::check_metadata("snapshot.metadata", &metadata)?;
    let name = wire::text("snapshot.name", given.name.clone())?;
    let description = wire::text("snapshot.description", given.description.clone())?;
    let id = SnapshotId::new_uuid();
    app.store
        .plan(|snapshot| {
            let volume = super::volumes::find(&request, snapshot, &given.volume_id)?;
            let found = unmanaged::find(snapshot, &given.reference, Some(&volume))?;
            let value = Snapshot {
                volume_id: volume.id.clone(),
                project_id: volume.value.project_id.clone(),
                user_id: request.caller()?.user_id.clone(),
                name: name.clone(),
                description: description.clone(),
                size: found.value.size,
                type_id: volume.value.type_id.clone(),
                host: Some(found.value.host.clone()),
                status: SnapshotStatus::Creating,
                removing: false,
                progress: None,
                metadata: metadata.clone(),
                group_snapshot_id: None,
                bytes: Some(found.id.to_string()),
                fault: None,
                request_id: request.id.to_string(),
                created: maru_base::time::now(),
                updated: None,
            };
            let mut txn = Txn::new();
            plan_create_snapshot(snapshot, &mut txn, &volume, &id, &value, true)?;
            // The node is told of the bytes by the new record from now on.
            txn.delete(&found);
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    let snapshot = app.store.snapshot();
    let made = super::snapshots::find(&request, &snapshot, &id)?;
    Reply::json(
        202,
        &json!({"snapshot": super::snapshots::view(&request, &made, false)}),
    )
}
