//! Shelve and unshelve.

use crate::{
    App,
    api::servers::{find, target},
    app::server_images::plan_queue,
    control::servers::begin_unshelve,
};
use maru_base::{Error, Result};
use maru_compute_model::{begin_action, find_service, plan_shelve, plan_unshelve, rules, zone_of, zones};
use maru_http::{Reply, Request};
use maru_image_model::ImageId;
use maru_store::Txn;
use std::collections::BTreeMap;

/// `shelve`: the boot disk becomes an image, and the server leaves its host.
pub(crate) async fn shelve(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    // The id is fixed before the plan: a transaction that is planned again makes the same image.
    let image_id = ImageId::new_uuid();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:os-shelve:shelve", &target(&server))?;
            rules::check_action(&caller, id, &server, "shelve")?;
            if !server.placed {
                return Err(Error::conflict(format!("Instance {id} is not ready")));
            }
            let of_image = !server.volumes.iter().any(|v| v.boot);
            let mut txn = Txn::new();
            let new = plan_shelve(snapshot, &server, of_image.then_some(&image_id), &request.id)?;
            if of_image {
                let name = format!("{}-shelved", server.name);
                let properties = BTreeMap::from([("user_id".to_owned(), caller.user_id.to_string())]);
                plan_queue(
                    &mut txn,
                    &server,
                    &image_id,
                    server.project_id.clone(),
                    &name,
                    properties,
                );
            }
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "shelve",
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "shelve").await;
    Ok(Reply::empty(202))
}

/// `shelveOffload`: there is nothing to offload, a shelved server is off its host already; the states say so.
pub(crate) async fn offload(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let server = find(&app.store.current().await?, request, id)?;
    request.authorize_rule("os_compute_api:os-shelve:shelve_offload", &target(&server))?;
    rules::check_lock(request.caller()?, id, &server)?;
    Err(rules::wrong_state(
        id,
        "shelveOffload",
        "vm_state",
        server.vm_state.as_str(),
    ))
}

/// Where `unshelve` shall bring the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Where {
    /// Another zone; `Some(None)` for any.
    pub zone: Option<Option<String>>,
    /// This host.
    pub host: Option<String>,
}

/// `unshelve`: a host is chosen anew, and the boot disk is made from the image.
pub(crate) async fn unshelve(app: &App, request: &Request, id: &str, to: Where) -> Result<Reply> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:os-shelve:unshelve", &target(&server))?;
            if to.host.is_some() {
                request.authorize_rule("os_compute_api:os-shelve:unshelve_to_host", &target(&server))?;
            }
            rules::check_action(&caller, id, &server, "unshelve")?;
            let mut new = plan_unshelve(snapshot, &server, &request.id)?;
            if let Some(zone) = &to.zone {
                if zone.as_ref().is_some_and(|z| !zones(snapshot).contains_key(z)) {
                    return Err(Error::bad_request("The requested availability zone is not available")
                        .with_field("unshelve.availability_zone"));
                }
                new.zone.clone_from(zone);
            }
            if let Some(host) = &to.host {
                if find_service(snapshot, host).is_none() {
                    return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
                }
                let of_host = zone_of(snapshot, host);
                if let Some(zone) = new.zone.as_ref().filter(|z| **z != of_host) {
                    return Err(Error::conflict(format!(
                        "Host \"{host}\" is not in the availability zone \"{zone}\"."
                    )));
                }
            }
            // What was asked for when it was made binds it no more; what is asked for now does.
            new.wanted_host.clone_from(&to.host);
            let mut txn = Txn::new();
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "unshelve",
            );
            begin_unshelve(&mut txn, id, &request.id);
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "unshelve").await;
    Ok(Reply::empty(202))
}
