//! An image of a server's boot disk.

use crate::App;
use maru_base::{Error, Result};
use maru_compute_model::{Task, begin_action, rules};
use maru_http::Request;
use maru_image_model::{Image, ImageId};
use maru_store::Txn;
use std::collections::BTreeMap;

/// Queues an image in the same transaction that marks the server; a controller fills it. Gives its id.
pub(crate) async fn create(
    app: &App,
    request: &Request,
    id: &str,
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<ImageId> {
    let caller = request.caller()?.clone();
    // The id is fixed before the plan: a transaction that is planned again makes the same image.
    let image_id = ImageId::new_uuid();
    app.store
        .plan(|snapshot| {
            let server = crate::api::servers::find(snapshot, request, id)?;
            request.authorize_rule(
                "os_compute_api:servers:create_image",
                &crate::api::servers::target(&server),
            )?;
            rules::check_action(&caller, id, &server, "createImage")?;
            if !server.placed {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            if server.image.is_none() {
                return Err(Error::not_implemented(
                    "The server boots from a volume: make an image of that (volume upload), or a snapshot.",
                ));
            }
            let owner = caller.require_project()?.clone();
            let mut txn = Txn::new();
            let mut properties: BTreeMap<String, String> =
                server.image.as_ref().map(|i| i.properties.clone()).unwrap_or_default();
            properties.extend([
                ("image_type".to_owned(), "snapshot".to_owned()),
                ("instance_uuid".to_owned(), id.to_owned()),
                ("user_id".to_owned(), caller.user_id.to_string()),
                ("image_location".to_owned(), "snapshot".to_owned()),
                ("owner_id".to_owned(), owner.to_string()),
            ]);
            if let Some(base) = &server.image {
                properties.insert("base_image_ref".to_owned(), base.id.clone());
            }
            properties.extend(metadata.clone());
            maru_image_model::usage::plan_count(&mut txn, &owner, None);
            txn.create(
                &image_id,
                &Image {
                    name: Some(name.to_owned()),
                    disk_format: Some("qcow2".to_owned()),
                    min_disk: server.flavor.root_gb,
                    properties,
                    ..Image::queued(owner)
                },
            );
            let mut new = (*server.value).clone();
            new.touch(&request.id, snapshot);
            new.task = Some(Task::ImageUploading);
            new.imaging = Some(image_id.to_string());
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "createImage",
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "createImage").await;
    Ok(image_id)
}
