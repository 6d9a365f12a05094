//! Consistency groups and their snapshots: the older API of groups whose snapshots are of all volumes as of one moment.
//!
//! Upstream deprecated it in favour of groups and serves it over them, and so it is here: a consistency group is a group of the
//! type `default_cgsnapshot_type`, a cgsnapshot a group snapshot of one. The rules are those of groups; there are no
//! microversions, and as upstream lists them whole: no key of the query is a filter.

use crate::{
    App,
    api::{
        group_snapshots,
        groups::{self, UpdateBody, Wanted},
        list,
        wire::{self, Flag, body, invalid, time, typed},
    },
    app::groups::Origin,
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot};
use maru_volume_model::{CONSISTENT_TYPE, Group, GroupSnapshot, GroupType, GroupTypeId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

// Older clients send `status`, `user_id` and `project_id` along, which mean nothing: unknown fields are let pass here.
#[derive(Debug, Deserialize)]
struct CreateBody {
    name: Option<String>,
    description: Option<String>,
    /// Ids or names, separated by commas.
    volume_types: String,
    availability_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FromBody {
    name: Option<String>,
    description: Option<String>,
    cgsnapshot_id: Option<String>,
    source_cgid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeleteBody {
    force: Option<Flag>,
}

#[derive(Debug, Deserialize)]
struct SnapBody {
    consistencygroup_id: String,
    name: Option<String>,
    description: Option<String>,
}

/// Whether a group type is the one of consistency groups.
fn is_consistent(snapshot: &Snapshot, kind: &GroupTypeId) -> bool {
    snapshot
        .get::<GroupType>(kind)
        .is_some_and(|t| t.value.name == CONSISTENT_TYPE)
}

/// A consistency group that the caller may see: a foreign one does not exist, nor does a group of another type.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Group>> {
    Some(groups::find(request, snapshot, id)?)
        .filter(|g| is_consistent(snapshot, &g.value.type_id))
        .ok_or_else(|| Error::not_found(format!("ConsistencyGroup {id} could not be found.")))
}

fn find_snapshot(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<GroupSnapshot>> {
    Some(group_snapshots::find(request, snapshot, id)?)
        .filter(|g| is_consistent(snapshot, &g.value.type_id))
        .ok_or_else(|| Error::not_found(format!("CgSnapshot {id} could not be found.")))
}

/// The consistency group of the address, before anything is done to it: its type never changes.
async fn check(app: &App, request: &Request) -> Result<()> {
    find(request, &app.store.current().await?, request.param("id")).map(drop)
}

fn short(id: &str, name: Option<&str>) -> Value {
    json!({"id": id, "name": name})
}

fn view(group: &Object<Group>) -> Value {
    let g = &group.value;
    json!({
        "id": group.id.as_str(), "name": g.name, "description": g.description, "status": g.status.word(),
        "availability_zone": g.zone, "created_at": time(g.created), "volume_types": g.volume_types,
    })
}

fn snapshot_view(of: &Object<GroupSnapshot>) -> Value {
    let g = &of.value;
    json!({
        "id": of.id.as_str(), "consistencygroup_id": g.group_id.as_str(), "name": g.name,
        "description": g.description, "status": g.status.word(), "created_at": time(g.created),
    })
}

/// `GET /consistencygroups`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, page) = groups::listed(&app, &request, Some(CONSISTENT_TYPE)).await?;
    let brief = |g: &Object<Group>| short(&g.id, g.value.name.as_deref());
    let views = page.items.iter().map(brief).collect();
    Reply::json(200, &list::body(&request, "consistencygroups", &page, views)?)
}

/// `GET /consistencygroups/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, page) = groups::listed(&app, &request, Some(CONSISTENT_TYPE)).await?;
    let views = page.items.iter().map(view).collect();
    Reply::json(200, &list::body(&request, "consistencygroups", &page, views)?)
}

/// `GET /consistencygroups/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"consistencygroup": view(&found)}))
}

/// `POST /consistencygroups`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: CreateBody = body(&mut request, "consistencygroup").await?;
    let wanted = Wanted {
        name: wire::text("consistencygroup.name", given.name)?,
        description: wire::text("consistencygroup.description", given.description)?,
        zone: given.availability_zone,
    };
    let types: Vec<String> = given
        .volume_types
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect();
    if types.is_empty() {
        return Err(invalid(
            "consistencygroup.volume_types",
            "It must name one volume type at least; separate several by commas.",
        ));
    }
    let made = groups::make(&app, &request, &wanted, CONSISTENT_TYPE, &types).await?;
    Reply::json(
        202,
        &json!({"consistencygroup": short(&made.id, made.value.name.as_deref())}),
    )
}

/// `POST /consistencygroups/create_from_src`.
pub(crate) async fn create_from(app: Arc<App>, mut request: Request) -> Result<Reply> {
    const TOP: &str = "consistencygroup-from-src";
    let given: FromBody = body(&mut request, TOP).await?;
    let wanted = Wanted {
        name: wire::text(&format!("{TOP}.name"), given.name)?,
        description: wire::text(&format!("{TOP}.description"), given.description)?,
        zone: None,
    };
    let origin = |snapshot: &Snapshot| match (&given.cgsnapshot_id, &given.source_cgid) {
        (Some(of), None) => Ok(Origin::Snapshot(find_snapshot(&request, snapshot, of)?)),
        (None, Some(of)) => Ok(Origin::Group(find(&request, snapshot, of)?)),
        _ => Err(invalid(TOP, "Name one of cgsnapshot_id and source_cgid, and not both.")),
    };
    let made = groups::make_from(&app, &request, &wanted, origin).await?;
    Reply::json(
        202,
        &json!({"consistencygroup": short(&made.id, made.value.name.as_deref())}),
    )
}

/// `PUT /consistencygroups/{id}/update`, and without the last word as openstacksdk writes it.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: UpdateBody = body(&mut request, "consistencygroup").await?;
    check(&app, &request).await?;
    groups::change(&app, &request, "consistencygroup", given).await?;
    Ok(Reply::empty(202))
}

/// `POST /consistencygroups/{id}/delete`; `force` takes its volumes along.
pub(crate) async fn delete(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (top, value) = wire::action(&mut request).await?;
    // openstacksdk writes it with the underscore.
    if !matches!(top.as_str(), "consistencygroup" | "consistency_group") {
        return Err(invalid(
            "consistencygroup",
            "Missing required element 'consistencygroup' in request body.",
        ));
    }
    let given: DeleteBody = typed("consistencygroup", value)?;
    check(&app, &request).await?;
    groups::remove(&app, &request, given.force.is_some_and(|f| f.0)).await?;
    Ok(Reply::empty(202))
}

/// `GET /cgsnapshots`.
pub(crate) async fn snapshots(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = group_snapshots::listed(&app, &request, Some(CONSISTENT_TYPE)).await?;
    let brief = |g: &Object<GroupSnapshot>| short(&g.id, g.value.name.as_deref());
    let views = page.items.iter().map(brief).collect();
    Reply::json(200, &list::body(&request, "cgsnapshots", &page, views)?)
}

/// `GET /cgsnapshots/detail`.
pub(crate) async fn snapshots_detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let page = group_snapshots::listed(&app, &request, Some(CONSISTENT_TYPE)).await?;
    let views = page.items.iter().map(snapshot_view).collect();
    Reply::json(200, &list::body(&request, "cgsnapshots", &page, views)?)
}

/// `GET /cgsnapshots/{id}`.
pub(crate) async fn show_snapshot(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let found = find_snapshot(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"cgsnapshot": snapshot_view(&found)}))
}

/// `POST /cgsnapshots`.
pub(crate) async fn create_snapshot(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: SnapBody = body(&mut request, "cgsnapshot").await?;
    let words = (
        wire::text("cgsnapshot.name", given.name)?,
        wire::text("cgsnapshot.description", given.description)?,
    );
    let made = group_snapshots::make(&app, &request, words, |snapshot| {
        find(&request, snapshot, &given.consistencygroup_id)
    })
    .await?;
    Reply::json(202, &json!({"cgsnapshot": short(&made.id, made.value.name.as_deref())}))
}

/// `DELETE /cgsnapshots/{id}`.
pub(crate) async fn delete_snapshot(app: Arc<App>, request: Request) -> Result<Reply> {
    find_snapshot(&request, &app.store.current().await?, request.param("id"))?;
    group_snapshots::remove(&app, &request).await?;
    Ok(Reply::empty(202))
}
