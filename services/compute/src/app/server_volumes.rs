//! Volumes of servers: attach, detach, and those that a create request lists.

use crate::{
    App,
    api::{
        servers::{find, target},
        wire::invalid,
    },
    app::{
        server_actions::note,
        server_devices::{VolumeSource, VolumeWish},
    },
};
use maru_base::{Error, Result};
use maru_compute_model::{
    Server, ServerId, ServerVolume, VmState, WantedVolume, begin_action, find_volume, plan_attach_new_volume,
    plan_attach_volume, plan_detach_volume, rules,
};
use maru_http::Request;
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    DEFAULT_TYPE, NewVolume, SnapshotId, SnapshotStatus, Source, Volume, VolumeId, plan_create_volume, visible_type,
};

/// What a new volume takes over from what it is made of.
struct Origin {
    source: Source,
    /// Least size in GiB.
    least: u64,
    image_metadata: std::collections::BTreeMap<String, String>,
    bootable: bool,
    snapshot_id: Option<SnapshotId>,
}

/// Plans one volume of a create request: one that is there is taken, another is made.
pub(crate) fn plan_wish(
    snapshot: &Snapshot,
    txn: &mut Txn,
    request: &Request,
    (id, server): (&ServerId, &mut Server),
    wish: &VolumeWish,
) -> Result<()> {
    let caller = request.caller()?;
    let wanted = WantedVolume {
        boot: wish.boot,
        bus: wish.bus.clone(),
        tag: wish.tag.clone(),
        delete_on_termination: wish.delete_on_termination,
        request_id: request.id.to_string(),
    };
    let bad = |e: Error| Error::bad_request(format!("Block Device Mapping is Invalid: {}", e.message()));
    let origin = match &wish.source {
        VolumeSource::Existing(volume) => {
            let found = find_volume(snapshot, &server.project_id, caller.is_admin(), volume).map_err(|_| {
                Error::bad_request(format!(
                    "Block Device Mapping is Invalid: failed to get volume {volume}."
                ))
            })?;
            if wish.boot && !found.value.bootable {
                return Err(Error::bad_request(format!(
                    "Block Device {volume} is not bootable; set it bootable, or boot from another."
                )));
            }
            plan_attach_volume(snapshot, txn, id, server, &found, wanted).map_err(bad)?;
            return Ok(());
        }
        VolumeSource::Snapshot(of) => of_snapshot(snapshot, server, of)?,
        VolumeSource::Image(of) => of_image(snapshot, request, of)?,
        VolumeSource::Blank => Origin {
            source: Source::Blank,
            least: 1,
            image_metadata: std::collections::BTreeMap::new(),
            bootable: false,
            snapshot_id: None,
        },
    };
    let size = wish.size.unwrap_or(origin.least);
    if size < origin.least {
        return Err(invalid(
            &wish.field.replace(".uuid", ".volume_size"),
            format!("{size} GiB are less than what it is made of needs: {}", origin.least),
        ));
    }
    let name = wish.kind.as_deref().unwrap_or(DEFAULT_TYPE);
    let kind = visible_type(snapshot, name, Some(&server.project_id), caller.is_admin())
        .ok_or_else(|| Error::bad_request(format!("Invalid volume type: {name} could not be found.")))?;
    if kind.value.encryption.is_some() {
        return Err(Error::not_implemented(format!(
            "The volume type {name} asks for encryption, which this cloud does not do yet; take another type."
        )));
    }
    let new = NewVolume {
        project_id: &server.project_id,
        user_id: &server.user_id,
        size: u32::try_from(size).unwrap_or(u32::MAX),
        kind: &kind,
        zone: server
            .zone
            .clone()
            .unwrap_or_else(|| maru_compute_model::DEFAULT_ZONE.to_owned()),
        source: origin.source,
        request_id: &request.id,
    };
    let volume = Volume {
        // Upstream's volumes of servers have no name either.
        name: Some(String::new()),
        image_metadata: origin.image_metadata,
        bootable: origin.bootable,
        snapshot_id: origin.snapshot_id,
        ..Volume::new(snapshot, new)
    };
    let volume_id = VolumeId::new_uuid();
    plan_create_volume(snapshot, txn, &volume_id, &volume)?;
    plan_attach_new_volume(txn, id, server, (&volume_id, &volume), wanted).map_err(bad)?;
    Ok(())
}

fn of_snapshot(snapshot: &Snapshot, server: &Server, id: &str) -> Result<Origin> {
    let found = maru_volume_model::find_snapshot(snapshot, id)
        .ok()
        .filter(|s| s.value.project_id == server.project_id && s.value.status == SnapshotStatus::Available)
        .ok_or_else(|| Error::bad_request(format!("Block Device Mapping is Invalid: failed to get snapshot {id}.")))?;
    let volume = snapshot.get::<Volume>(&found.value.volume_id);
    Ok(Origin {
        source: Source::Snapshot(found.id.clone()),
        least: u64::from(found.value.size),
        image_metadata: volume
            .as_ref()
            .map(|v| v.value.image_metadata.clone())
            .unwrap_or_default(),
        bootable: volume.is_some_and(|v| v.value.bootable),
        snapshot_id: Some(found.id),
    })
}

fn of_image(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Origin> {
    let image: Object<Image> = maru_image_model::find_visible(snapshot, request.caller()?, &ImageId::from(id))
        .ok_or_else(|| Error::bad_request("Can not find requested image"))?;
    let (Some(digest), Some(format), ImageStatus::Active) =
        (&image.value.digest, &image.value.proven_format, image.value.status)
    else {
        return Err(Error::bad_request(format!("Image {id} is not active.")));
    };
    let format = match format.as_str() {
        "raw" | "iso" => "raw",
        "qcow2" => "qcow2",
        other => {
            return Err(Error::bad_request(format!(
                "Image {id} is unacceptable: a volume cannot be made of the format {other}; convert it to qcow2 or raw."
            )));
        }
    };
    let bytes = image.value.virtual_size.or(image.value.size).unwrap_or(0);
    let mut metadata = image.value.properties.clone();
    metadata.insert("image_id".to_owned(), id.to_owned());
    if let Some(name) = &image.value.name {
        metadata.insert("image_name".to_owned(), name.clone());
    }
    Ok(Origin {
        source: Source::Image {
            id: id.to_owned(),
            digest: digest.clone(),
            format: format.to_owned(),
        },
        least: bytes.div_ceil(1 << 30).max(image.value.min_disk).max(1),
        image_metadata: metadata,
        bootable: true,
        snapshot_id: None,
    })
}

/// Begins an action that the node's report ends.
fn begin(txn: &mut Txn, server: &Object<Server>, caller: &maru_auth::Caller, request: &Request, action: &str) {
    begin_action(
        txn,
        &server.id,
        &server.project_id,
        &caller.user_id,
        &request.id,
        action,
    );
}

/// Plugs a volume into a server; gives its place.
pub(crate) async fn attach(app: &App, request: &Request, volume: &str, wanted: WantedVolume) -> Result<ServerVolume> {
    let caller = request.caller()?.clone();
    let id = request.param("id").to_owned();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, &id)?;
            request.authorize(&target(&server))?;
            rules::check_action(&caller, &id, &server, "attach_volume")?;
            let shelved = server.vm_state == VmState::ShelvedOffloaded;
            if !server.placed && !shelved {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            let found = find_volume(snapshot, &server.project_id, caller.is_admin(), volume)?;
            let mut txn = Txn::new();
            let mut new = (*server.value).clone();
            let place = plan_attach_volume(snapshot, &mut txn, &id, &mut new, &found, wanted.clone())?;
            new.updated = maru_base::time::now();
            new.asked_after = snapshot.revision();
            if shelved {
                note(&mut txn, &server, &caller, request, "attach_volume");
            } else {
                begin(&mut txn, &server, &caller, request, "attach_volume");
            }
            txn.update(&server, &new);
            Ok((txn, place))
        })
        .await
}

/// Asks a server to let go of a volume.
pub(crate) async fn detach(app: &App, request: &Request, volume: &str) -> Result<()> {
    let caller = request.caller()?.clone();
    let id = request.param("id").to_owned();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, &id)?;
            request.authorize(&target(&server))?;
            rules::check_action(&caller, &id, &server, "detach_volume")?;
            let mut txn = Txn::new();
            let mut new = (*server.value).clone();
            plan_detach_volume(snapshot, &mut txn, &id, &mut new, volume, &request.id)?;
            new.updated = maru_base::time::now();
            new.asked_after = snapshot.revision();
            if server.placed {
                begin(&mut txn, &server, &caller, request, "detach_volume");
            } else {
                note(&mut txn, &server, &caller, request, "detach_volume");
            }
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await
}
