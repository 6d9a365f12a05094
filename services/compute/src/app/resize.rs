//! Resize, and its two ends: confirmed or reverted.

use crate::{
    App,
    api::servers::{find, target},
    app::{server_actions::note, servers::embed_flavor},
};
use maru_base::{Error, Result};
use maru_compute_model::{
    begin_action, find_visible_flavor, plan_confirm_resize, plan_resize, plan_revert_resize, quota, rules,
};
use maru_http::{Reply, Request};
use maru_store::Txn;

/// `resize`: the node gives the server another flavor; its owner confirms or reverts it then.
pub(crate) async fn resize(
    app: &App,
    request: &Request,
    id: &str,
    flavor: &str,
    auto_disk_config: Option<bool>,
) -> Result<Reply> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:servers:resize", &target(&server))?;
            rules::check_action(&caller, id, &server, "resize")?;
            let flavor = find_visible_flavor(snapshot, &caller, flavor).ok_or_else(|| {
                Error::bad_request(format!("Flavor {flavor} could not be found.")).with_field("flavorRef")
            })?;
            let mut txn = Txn::new();
            let mut new = plan_resize(
                snapshot,
                &mut txn,
                &server,
                embed_flavor(&flavor),
                &caller.user_id,
                &request.id,
            )?;
            new.auto_disk_config = auto_disk_config.unwrap_or(new.auto_disk_config);
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "resize",
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    app.record(id, &request.id, "resize").await;
    Ok(Reply::empty(202))
}

/// `confirmResize`.
pub(crate) async fn confirm(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:servers:confirm_resize", &target(&server))?;
            rules::check_lock(&caller, id, &server)?;
            let mut txn = Txn::new();
            let new = plan_confirm_resize(snapshot, &mut txn, &server)?;
            note(&mut txn, &server, &caller, request, "confirmResize");
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "confirmResize").await;
    Ok(Reply::empty(204))
}

/// `revertResize`.
pub(crate) async fn revert(app: &App, request: &Request, id: &str) -> Result<Reply> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:servers:revert_resize", &target(&server))?;
            rules::check_lock(&caller, id, &server)?;
            let mut txn = Txn::new();
            let new = plan_revert_resize(snapshot, &mut txn, &server, &request.id)?;
            begin_action(
                &mut txn,
                &server.id,
                &server.project_id,
                &caller.user_id,
                &request.id,
                "revertResize",
            );
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "revertResize").await;
    Ok(Reply::empty(202))
}
