//! `/routers/{id}/conntrack_helpers`.

use super::{
    body::{self, Body, invalid},
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    ConntrackHelper, ConntrackHelperId, Router,
    conntrack_helper::{helper_not_found, put_helper},
};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

const LIST: List = List {
    plural: "conntrack_helpers",
    filters: &[],
    attributes: &["id", "protocol", "port", "helper"],
    missing: |id| helper_not_found(id),
};
const NOUN: &str = "conntrack_helper";

fn row_of(h: &ConntrackHelper) -> Row {
    Row::new(&h.id)
        .with("protocol", h.protocol.as_str())
        .with("port", h.port)
        .with("helper", h.helper.as_str())
}

/// The router of the address, for what the route's rule allows.
fn router(request: &Request, snapshot: &Snapshot) -> Result<Object<Router>> {
    let read = access::router(request, snapshot, request.param("id"))?;
    request.authorize(&Target::project(&read.project_id))?;
    Ok(read)
}

fn helper(request: &Request, router: &Router) -> Result<ConntrackHelper> {
    let id = request.param("helper_id");
    let found = router.conntrack_helpers.iter().find(|h| h.id == *id);
    found.cloned().ok_or_else(|| helper_not_found(id))
}

/// What a helper shall be; what is not named stays as it was.
fn wanted(mut b: Body, old: Option<&ConntrackHelper>) -> Result<ConntrackHelper> {
    let protocol = b.text("protocol", 16)?.map(|p| p.to_ascii_lowercase());
    let port = match b.integer("port")? {
        None => None,
        Some(n) => {
            let port = u16::try_from(n).ok().filter(|n| *n > 0);
            Some(port.ok_or_else(|| invalid("port", format!("'{n}' is not in [1, 65535]")))?)
        }
    };
    let helper = b.text("helper", 64)?;
    let protocol = protocol.or_else(|| old.map(|h| h.protocol.clone()));
    let helper = helper.or_else(|| old.map(|h| h.helper.clone()));
    let made = ConntrackHelper {
        id: old.map_or_else(ConntrackHelperId::new_uuid, |h| h.id.clone()),
        protocol: b.required("protocol", protocol)?,
        port: b.required("port", port.or(old.map(|h| h.port)))?,
        helper: b.required("helper", helper)?,
    };
    let _ = b.project()?;
    b.finish(&["router_id"])?;
    Ok(made)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let router = router(&request, &app.store.snapshot())?;
    let rows = router.conntrack_helpers.iter().map(row_of).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let router = router(&request, &app.store.snapshot())?;
    row::one(200, NOUN, row_of(&helper(&request, &router)?), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    router(&request, &app.store.snapshot())?;
    let (bulk, bodies) = body::create(&mut request, NOUN, LIST.plural).await?;
    let new: Vec<_> = bodies.into_iter().map(|b| wanted(b, None)).collect::<Result<_>>()?;
    app.plan(|snapshot, txn| {
        let read = router(&request, snapshot)?;
        let mut router = (*read.value).clone();
        new.iter().try_for_each(|h| put_helper(&mut router, h.clone(), false))?;
        txn.update(&read, &router);
        Ok(())
    })
    .await?;
    row::created(bulk, NOUN, LIST.plural, new.iter().map(row_of).collect())
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let of = router(&request, &app.store.snapshot())?;
    let old = helper(&request, &of)?;
    let new = wanted(body::update(&mut request, NOUN).await?, Some(&old))?;
    app.plan(|snapshot, txn| {
        let read = router(&request, snapshot)?;
        let mut router = (*read.value).clone();
        put_helper(&mut router, new.clone(), true)?;
        txn.update(&read, &router);
        Ok(())
    })
    .await?;
    row::one(200, NOUN, row_of(&new), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = router(&request, snapshot)?;
        let gone = helper(&request, &read)?;
        let mut router = (*read.value).clone();
        router.conntrack_helpers.retain(|h| h.id != gone.id);
        router.meta.touch();
        txn.update(&read, &router);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
