//! An image of a server's boot disk: asked for as such, as a backup, or to shelve the server in.

use crate::{
    App,
    api::servers::{find, target},
};
use maru_base::{Error, ProjectId, Result};
use maru_compute_model::{Backup, Server, Task, begin_action, rules};
use maru_http::Request;
use maru_image_model::{Image, ImageId, usage};
use maru_store::{Object, Snapshot, Txn};
use std::collections::BTreeMap;

/// The property that says which kind of backup an image is.
const BACKUP_TYPE: &str = "backup_type";
/// The property that says which server an image is of.
const INSTANCE: &str = "instance_uuid";

/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// More properties.
    pub metadata: &'a BTreeMap<String, String>,
    /// For a backup: its kind, and how many are kept.
    pub backup: Option<Backup>,
}

/// Queues an image in the same transaction that marks the server; a controller fills it. Gives its id.
pub(crate) async fn create(app: &App, request: &Request, id: &str, wanted: Wanted<'_>) -> Result<ImageId> {
    let caller = request.caller()?.clone();
    let (rule, action) = match wanted.backup {
        Some(_) => ("os_compute_api:os-create-backup", "createBackup"),
        None => ("os_compute_api:servers:create_image", "createImage"),
    };
    // The id is fixed before the plan: a transaction that is planned again makes the same image.
    let image_id = ImageId::new_uuid();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule(rule, &target(&server))?;
            rules::check_action(&caller, id, &server, action)?;
            if !server.placed {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            if server.image.is_none() {
                return Err(match wanted.backup {
                    Some(_) => Error::bad_request(
                        "Backup is not supported for volume-backed instances: make a backup of its volume (volume backup create).",
                    ),
                    None => Error::not_implemented(
                        "The server boots from a volume: make an image of that (volume upload), or a snapshot.",
                    ),
                });
            }
            let owner = caller.require_project()?.clone();
            let mut txn = Txn::new();
            let mut properties = wanted.metadata.clone();
            if let Some(backup) = &wanted.backup {
                properties.insert(BACKUP_TYPE.to_owned(), backup.kind.clone());
                properties.insert("image_type".to_owned(), "backup".to_owned());
            }
            properties.insert("user_id".to_owned(), caller.user_id.to_string());
            plan_queue(&mut txn, &server, &image_id, owner, wanted.name, properties);
            let mut new = (*server.value).clone();
            new.touch(&request.id, snapshot);
            new.task = Some(Task::ImageUploading);
            new.imaging = Some(image_id.to_string());
            new.backup.clone_from(&wanted.backup);
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                action,
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, action).await;
    Ok(image_id)
}

/// Plans a queued image for a server's boot disk. `properties` come over those of the image that it was made from.
pub(crate) fn plan_queue(
    txn: &mut Txn,
    server: &Object<Server>,
    id: &ImageId,
    owner: ProjectId,
    name: &str,
    properties: BTreeMap<String, String>,
) {
    let mut all: BTreeMap<String, String> = server.image.as_ref().map(|i| i.properties.clone()).unwrap_or_default();
    all.extend([
        ("image_type".to_owned(), "snapshot".to_owned()),
        (INSTANCE.to_owned(), server.id.to_string()),
        ("image_location".to_owned(), "snapshot".to_owned()),
        ("owner_id".to_owned(), owner.to_string()),
    ]);
    if let Some(base) = &server.image {
        all.insert("base_image_ref".to_owned(), base.id.clone());
    }
    all.extend(properties);
    usage::plan_count(txn, &owner, None);
    txn.create(
        id,
        &Image {
            name: Some(name.to_owned()),
            disk_format: Some("qcow2".to_owned()),
            min_disk: server.flavor.root_gb,
            properties: all,
            ..Image::queued(owner)
        },
    );
}

/// Plans that of a server's backups of one kind only the newest stay; `newest` is the one just made.
pub(crate) fn plan_rotate(snapshot: &Snapshot, txn: &mut Txn, server: &str, newest: &str, backup: &Backup) {
    let Some(made) = snapshot.get::<Image>(&ImageId::from(newest)) else {
        return;
    };
    let has = |i: &Object<Image>, name: &str, value: &str| i.properties.get(name).is_some_and(|v| v == value);
    let mut kept: Vec<Object<Image>> = snapshot
        .find::<Image>("owner", &made.owner)
        .filter(|i| has(i, INSTANCE, server) && has(i, BACKUP_TYPE, &backup.kind))
        .collect();
    kept.sort_by(|a, b| (b.value.created_at, &b.id).cmp(&(a.value.created_at, &a.id)));
    let rotation = usize::try_from(backup.rotation).unwrap_or(usize::MAX);
    for image in kept.iter().skip(rotation).filter(|i| !i.protected) {
        usage::plan_delete(snapshot, txn, image);
    }
}
