//! Rescue: a start from another image, and back.

use crate::{
    App,
    api::servers::{find, target},
    app::servers::{flavor_of, image_for, random_password},
};
use maru_base::{Error, Result};
use maru_compute_model::{Flavor, Server, begin_action, plan_rescue, plan_unrescue, rules};
use maru_http::{Reply, Request};
use maru_store::{Object, Txn};
use serde_json::json;

/// Since this microversion a server that boots from a volume can be rescued.
const OF_VOLUMES: u16 = 87;

/// A flavor that takes any image: the rescue disk has the image's own size, and goes again.
fn room(server: &Object<Server>) -> Flavor {
    Flavor {
        root_gb: 0,
        ephemeral_gb: 0,
        swap_mb: 0,
        ..flavor_of(server)
    }
}

/// `rescue`.
pub(crate) async fn rescue(
    app: &App,
    request: &Request,
    id: &str,
    password: Option<String>,
    image: Option<&str>,
) -> Result<Reply> {
    let caller = request.caller()?.clone();
    let password = password.unwrap_or_else(random_password);
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:os-rescue", &target(&server))?;
            rules::check_action(&caller, id, &server, "rescue")?;
            if !server.placed {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            if server.volumes.iter().any(|v| v.boot) && !request.at_least(2, OF_VOLUMES) {
                return Err(Error::bad_request(format!(
                    "Cannot rescue a volume-backed instance: {id} boots from a volume. Ask with microversion 2.{OF_VOLUMES} or later."
                )));
            }
            let image = match (image, &server.image) {
                (Some(image), _) => image_for(snapshot, &caller, image, &room(&server))
                    .map_err(|e| Error::bad_request(e.message().to_owned()).with_field("rescue_image_ref"))?,
                (None, Some(own)) => own.clone(),
                (None, None) => {
                    return Err(Error::bad_request(
                        "The server has no image of its own to be rescued with; name one in rescue_image_ref.",
                    )
                    .with_field("rescue_image_ref"));
                }
            };
            let new = plan_rescue(snapshot, &server, image, &password, &request.id)?;
            let mut txn = Txn::new();
            begin_action(&mut txn, &server.id, &server.project_id, &caller.user_id, &request.id, "rescue");
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "rescue").await;
    Reply::json(200, &json!({"adminPass": password}))
}

/// `unrescue`.
pub(crate) async fn unrescue(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:os-unrescue", &target(&server))?;
            rules::check_action(&caller, id, &server, "unrescue")?;
            let new = plan_unrescue(snapshot, &server, &request.id);
            let mut txn = Txn::new();
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "unrescue",
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "unrescue").await;
    Ok(Reply::empty(202))
}
