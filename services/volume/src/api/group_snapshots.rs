//! Snapshots of groups (3.14).

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, body, invalid, time},
    },
    app::groups as app_groups,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{Group, GroupSnapshot, GroupSnapshotId, SnapshotId, quota};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    group_id: String,
    name: Option<String>,
    description: Option<String>,
}

impl Row for Object<GroupSnapshot> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let g = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "name" => g.name.clone(),
            "description" => g.description.clone(),
            "status" => Some(g.status.word().to_owned()),
            "group_id" => Some(g.group_id.to_string()),
            "project_id" => Some(g.project_id.to_string()),
            "user_id" => Some(g.user_id.to_string()),
            "created_at" => Some(g.created.to_string()),
            "updated_at" => g.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &[
    "id",
    "name",
    "description",
    "status",
    "group_id",
    "project_id",
    "user_id",
    "created_at",
    "updated_at",
];
const SORT_KEYS: &[&str] = &["id", "name", "status", "group_id", "created_at", "updated_at"];

/// A group snapshot that the caller may see: a foreign one does not exist.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<GroupSnapshot>> {
    wire::find_own(request, snapshot, "GroupSnapshot", id, |g: &GroupSnapshot| {
        &g.project_id
    })
}

fn view(request: &Request, read: &Object<GroupSnapshot>) -> Value {
    let g = &read.value;
    let mut out = json!({
        "id": read.id.as_str(), "group_id": g.group_id.as_str(), "group_type_id": g.type_id.as_str(), "name": g.name,
        "description": g.description, "status": g.status.word(), "created_at": time(g.created),
    });
    if request.at_least(3, 58) && request.may("group:group_snapshot_project_attribute", &Target::none()) {
        out["project_id"] = g.project_id.as_str().into();
    }
    out
}

/// A page of the group snapshots that the caller may see, or without any filter those
/// of groups of one group type.
pub(crate) async fn listed(
    app: &App,
    request: &Request,
    of: Option<&str>,
) -> Result<list::Listed<Object<GroupSnapshot>>> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<GroupSnapshot>> = list::of_project(request, &snapshot)?;
    if let Some(name) = of {
        let kind = super::group_types::by_name(&snapshot, name).map(|t| t.id);
        rows.retain(|g| Some(&g.value.type_id) == kind.as_ref());
    } else {
        list::filter(request, &mut rows, FILTERS)?;
    }
    list::page(request, rows, SORT_KEYS)
}

/// `GET /group_snapshots`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    let page = listed(&app, &request, None).await?;
    let views = page
        .items
        .iter()
        .map(|g| json!({"id": g.id.as_str(), "name": g.value.name}))
        .collect();
    Reply::json(200, &list::body(&request, "group_snapshots", &page, views)?)
}

/// `GET /group_snapshots/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    let page = listed(&app, &request, None).await?;
    let views = page.items.iter().map(|g| view(&request, g)).collect();
    Reply::json(200, &list::body(&request, "group_snapshots", &page, views)?)
}

/// `GET /group_snapshots/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"group_snapshot": view(&request, &found)}))
}

/// `POST /group_snapshots`: a snapshot of each of the group's volumes.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    let given: CreateBody = body(&mut request, "group_snapshot").await?;
    if !wire::is_uuid(&given.group_id) {
        return Err(invalid(
            "group_snapshot.group_id",
            format!("'{}' is not a 'uuid'", given.group_id),
        ));
    }
    let words = (
        wire::text("group_snapshot.name", given.name)?,
        wire::text("group_snapshot.description", given.description)?,
    );
    let made = make(&app, &request, words, |snapshot| {
        super::groups::find(&request, snapshot, &given.group_id)
    })
    .await?;
    Reply::json(
        202,
        &json!({"group_snapshot": {
            "id": made.id.as_str(), "name": made.value.name, "group_type_id": made.value.type_id.as_str(),
        }}),
    )
}

/// Makes a snapshot, with this name and description, of each volume of the group that `group` finds.
pub(crate) async fn make(
    app: &App,
    request: &Request,
    (name, description): (Option<String>, Option<String>),
    group: impl Fn(&Snapshot) -> Result<Object<Group>> + Send,
) -> Result<Object<GroupSnapshot>> {
    let id = GroupSnapshotId::new_uuid();
    let mut children: BTreeMap<String, SnapshotId> = BTreeMap::new();
    app.store
        .plan(|snapshot| {
            let group = group(snapshot)?;
            let mut txn = Txn::new();
            let words = (&name, &description);
            app_groups::plan_create_snapshots(snapshot, &mut txn, request, &id, &group, words, |of| {
                children
                    .entry(of.to_owned())
                    .or_insert_with(SnapshotId::new_uuid)
                    .clone()
            })?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    find(request, &app.store.snapshot(), &id)
}

/// `DELETE /group_snapshots/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    remove(&app, &request).await?;
    Ok(Reply::empty(202))
}

/// Asks for the deletion of the group snapshot of the address.
pub(crate) async fn remove(app: &App, request: &Request) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let read = find(request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            app_groups::plan_delete_snapshots(snapshot, &mut txn, &read, &request.id)?;
            Ok((txn, ()))
        })
        .await
}

/// `POST /group_snapshots/{id}/action`: `reset_status` (3.19).
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 19)?;
    let (name, value) = wire::action(&mut request).await?;
    if name != "reset_status" {
        return Err(Error::bad_request(format!("There is no such action: {name}")));
    }
    super::groups::reset_status(&app, &request, value, find, |of, status| {
        of.status = status;
        of.making = false;
        of.updated = Some(maru_base::time::now());
    })
    .await?;
    Ok(Reply::empty(202))
}
