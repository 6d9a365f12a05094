//! Groups of volumes (3.13), and what is done to one (3.13, 3.20, 3.38).

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, body, invalid, time, typed},
    },
    app::groups::{self as app_groups, NewGroup, Origin, volumes_of},
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Kind, Object, Snapshot, Txn};
use maru_volume_model::{Group, GroupId, GroupStatus, VolumeId, VolumeTypeId, quota, visible_type};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: Option<String>,
    description: Option<String>,
    group_type: String,
    volume_types: Vec<String>,
    availability_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromBody {
    name: Option<String>,
    description: Option<String>,
    group_snapshot_id: Option<String>,
    source_group_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateBody {
    name: Option<String>,
    description: Option<String>,
    add_volumes: Option<String>,
    remove_volumes: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteBody {
    #[serde(rename = "delete-volumes")]
    delete_volumes: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusBody {
    status: String,
}

impl Row for Object<Group> {
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
            "group_type" | "group_type_id" => Some(g.type_id.to_string()),
            "availability_zone" => Some(g.zone.clone()),
            "source_group_id" => g.source_group_id.as_ref().map(ToString::to_string),
            "group_snapshot_id" => g.group_snapshot_id.as_ref().map(ToString::to_string),
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
    "group_type",
    "group_type_id",
    "availability_zone",
    "source_group_id",
    "group_snapshot_id",
    "project_id",
    "user_id",
    "created_at",
    "updated_at",
];
const SORT_KEYS: &[&str] = &["id", "name", "status", "group_type", "created_at", "updated_at"];

/// A group that the caller may see: a foreign one does not exist.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Group>> {
    wire::find_own(request, snapshot, "Group", id, |g: &Group| &g.project_id)
}

fn short(group: &Object<Group>) -> Value {
    json!({"id": group.id.as_str(), "name": group.value.name})
}

fn view(request: &Request, snapshot: &Snapshot, group: &Object<Group>, volumes: bool) -> Value {
    let g = &group.value;
    let mut out = json!({
        "id": group.id.as_str(), "name": g.name, "description": g.description, "status": g.status.word(),
        "availability_zone": g.zone, "created_at": time(g.created), "group_type": g.type_id.as_str(),
        "volume_types": g.volume_types,
    });
    if request.at_least(3, 14) {
        out["group_snapshot_id"] = json!(g.group_snapshot_id);
        out["source_group_id"] = json!(g.source_group_id);
    }
    if request.at_least(3, 25) && volumes {
        let ids: Vec<String> = volumes_of(snapshot, &group.id)
            .iter()
            .map(|v| v.id.to_string())
            .collect();
        out["volumes"] = json!(ids);
    }
    if request.at_least(3, 38) {
        out["replication_status"] = "not-capable".into();
    }
    if request.at_least(3, 58) && request.may("group:group_project_attribute", &Target::none()) {
        out["project_id"] = g.project_id.as_str().into();
    }
    out
}

/// A page of the groups that the caller may see, or without any filter those of one group type.
pub(crate) async fn listed(
    app: &App,
    request: &Request,
    of: Option<&str>,
) -> Result<(Snapshot, list::Listed<Object<Group>>)> {
    let snapshot = app.store.current().await?;
    let mut rows: Vec<Object<Group>> = list::of_project(request, &snapshot)?;
    if let Some(name) = of {
        let kind = super::group_types::by_name(&snapshot, name).map(|t| t.id);
        rows.retain(|g| Some(&g.value.type_id) == kind.as_ref());
    } else {
        list::filter_but(request, &mut rows, FILTERS, &["list_volume"])?;
    }
    let page = list::page(request, rows, SORT_KEYS)?;
    Ok((snapshot, page))
}

/// `GET /groups`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let (_, page) = listed(&app, &request, None).await?;
    let views = page.items.iter().map(short).collect();
    Reply::json(200, &list::body(&request, "groups", &page, views)?)
}

/// `GET /groups/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let (snapshot, page) = listed(&app, &request, None).await?;
    let volumes = request.query.bool("list_volume")?.unwrap_or(false);
    let views = page
        .items
        .iter()
        .map(|g| view(&request, &snapshot, g, volumes))
        .collect();
    Reply::json(200, &list::body(&request, "groups", &page, views)?)
}

/// `GET /groups/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    let volumes = request.query.bool("list_volume")?.unwrap_or(false);
    Reply::json(200, &json!({"group": view(&request, &snapshot, &found, volumes)}))
}

/// `POST /groups`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let given: CreateBody = body(&mut request, "group").await?;
    let wanted = Wanted {
        name: wire::text("group.name", given.name)?,
        description: wire::text("group.description", given.description)?,
        zone: given.availability_zone,
    };
    if given.volume_types.is_empty() {
        return Err(invalid("group.volume_types", "It must name one volume type at least."));
    }
    let made = make(&app, &request, &wanted, &given.group_type, &given.volume_types).await?;
    Reply::json(202, &json!({"group": short(&made)}))
}

/// What a new group is told of itself, whichever API asks for it.
pub(crate) struct Wanted {
    pub name: Option<String>,
    pub description: Option<String>,
    pub zone: Option<String>,
}

/// Makes an empty group of a group type for volumes of these types; ids or names.
pub(crate) async fn make(
    app: &App,
    request: &Request,
    wanted: &Wanted,
    kind: &str,
    volume_types: &[String],
) -> Result<Object<Group>> {
    let id = GroupId::new_uuid();
    app.store
        .plan(|snapshot| {
            let kind = super::group_types::find(request, snapshot, kind)?;
            let caller = request.caller()?;
            let project = caller.project_id().map(maru_base::ProjectId::as_str);
            let types: BTreeSet<VolumeTypeId> = volume_types
                .iter()
                .map(|t| {
                    visible_type(snapshot, t, project, caller.is_admin())
                        .map(|t| t.id)
                        .ok_or_else(|| Error::not_found(format!("Volume type {t} could not be found.")))
                })
                .collect::<Result<_>>()?;
            let new = NewGroup {
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                zone: crate::app::volumes::zone(snapshot, wanted.zone.as_deref())?,
            };
            let mut txn = Txn::new();
            app_groups::plan_create(snapshot, &mut txn, request, &id, &new, (&kind, &types))?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    find(request, &app.store.snapshot(), &id)
}

/// `POST /groups/action`: `create-from-src` (3.14).
pub(crate) async fn create_from(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 14)?;
    let given: FromBody = body(&mut request, "create-from-src").await?;
    let wanted = Wanted {
        name: wire::text("create-from-src.name", given.name)?,
        description: wire::text("create-from-src.description", given.description)?,
        zone: None,
    };
    for (field, id) in [
        ("create-from-src.group_snapshot_id", &given.group_snapshot_id),
        ("create-from-src.source_group_id", &given.source_group_id),
    ] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(field, format!("'{id}' is not a 'uuid'")));
        }
    }
    let made = make_from(&app, &request, &wanted, |snapshot| {
        match (&given.group_snapshot_id, &given.source_group_id) {
            (Some(of), None) => Ok(Origin::Snapshot(super::group_snapshots::find(&request, snapshot, of)?)),
            (None, Some(of)) => Ok(Origin::Group(find(&request, snapshot, of)?)),
            _ => Err(invalid(
                "create-from-src",
                "Name one of group_snapshot_id and source_group_id, and not both.",
            )),
        }
    })
    .await?;
    Reply::json(202, &json!({"group": short(&made)}))
}

/// Makes a group with a copy of every volume of what `origin` finds.
pub(crate) async fn make_from(
    app: &App,
    request: &Request,
    wanted: &Wanted,
    origin: impl Fn(&Snapshot) -> Result<Origin> + Send,
) -> Result<Object<Group>> {
    let id = GroupId::new_uuid();
    let mut copies: BTreeMap<String, VolumeId> = BTreeMap::new();
    app.store
        .plan(|snapshot| {
            let origin = origin(snapshot)?;
            let new = NewGroup {
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                zone: String::new(),
            };
            let mut txn = Txn::new();
            app_groups::plan_create_from(snapshot, &mut txn, request, &id, &new, &origin, |of| {
                copies.entry(of.to_owned()).or_insert_with(VolumeId::new_uuid).clone()
            })?;
            Ok((txn, ()))
        })
        .await
        .map_err(quota::refusal)?;
    find(request, &app.store.snapshot(), &id)
}

/// Ids in a text, separated by commas.
fn ids(field: &str, text: Option<&str>) -> Result<Vec<String>> {
    let list: Vec<String> = text
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect();
    let mut seen = BTreeSet::new();
    for id in &list {
        if !wire::is_uuid(id) {
            return Err(invalid(
                field,
                format!("'{id}' is not a 'uuid'; separate ids by commas"),
            ));
        }
        if !seen.insert(id) {
            return Err(invalid(field, format!("'{id}' is named twice")));
        }
    }
    Ok(list)
}

/// `PUT /groups/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let given: UpdateBody = body(&mut request, "group").await?;
    change(&app, &request, "group", given).await?;
    Ok(Reply::empty(202))
}

/// Changes the group of the address as a body under `top` says.
pub(crate) async fn change(app: &App, request: &Request, top: &str, given: UpdateBody) -> Result<()> {
    let add = ids(&format!("{top}.add_volumes"), given.add_volumes.as_deref())?;
    let remove = ids(&format!("{top}.remove_volumes"), given.remove_volumes.as_deref())?;
    if given.name.is_none() && given.description.is_none() && add.is_empty() && remove.is_empty() {
        return Err(Error::bad_request(
            "At least one of name, description, add_volumes and remove_volumes must be given.",
        ));
    }
    if let Some(both) = add.iter().find(|id| remove.contains(id)) {
        return Err(invalid(
            &format!("{top}.add_volumes"),
            format!("'{both}' is in remove_volumes as well"),
        ));
    }
    let name = wire::text(&format!("{top}.name"), given.name)?;
    let description = wire::text(&format!("{top}.description"), given.description)?;
    app.store
        .plan(|snapshot| {
            let group = find(request, snapshot, request.param("id"))?;
            if group.value.removing || group.value.status != GroupStatus::Available {
                return Err(Error::bad_request(format!(
                    "Invalid group: Group status must be available to change it, it is {}.",
                    group.value.status.word()
                )));
            }
            let mut new = (*group.value).clone();
            if name.is_some() {
                new.name.clone_from(&name);
            }
            if description.is_some() {
                new.description.clone_from(&description);
            }
            new.updated = Some(maru_base::time::now());
            let mut txn = Txn::new();
            if !add.is_empty() || !remove.is_empty() {
                app_groups::plan_members(snapshot, &mut txn, &group, &add, &remove)?;
            }
            txn.update(&group, &new);
            Ok((txn, ()))
        })
        .await
}

/// Asks for the deletion of the group of the address.
pub(crate) async fn remove(app: &App, request: &Request, with_volumes: bool) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let group = find(request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            app_groups::plan_delete(snapshot, &mut txn, &group, with_volumes, &request.id)?;
            Ok((txn, ()))
        })
        .await
}

/// `POST /groups/{id}/action`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 13)?;
    let (name, value) = wire::action(&mut request).await?;
    {
        let snapshot = app.store.current().await?;
        find(&request, &snapshot, request.param("id"))?;
    }
    match name.as_str() {
        "delete" => {
            let given: DeleteBody = typed("delete", value)?;
            let target = Target::of_caller(request.caller()?);
            request.authorize_rule("group:delete", &target)?;
            remove(&app, &request, given.delete_volumes.is_some_and(|f| f.0)).await?;
        }
        "reset_status" => {
            wire::since(&request, 20)?;
            request.authorize_rule("group:reset_status", &Target::none())?;
            reset_status(&app, &request, value, find, |group, status| {
                group.status = status;
                group.making = false;
                group.updated = Some(maru_base::time::now());
            })
            .await?;
        }
        "enable_replication" | "disable_replication" | "failover_replication" | "list_replication_targets" => {
            wire::since(&request, 38)?;
            wire::map_of(&name, value)?;
            let target = Target::of_caller(request.caller()?);
            request.authorize_rule(replication_rule(&name), &target)?;
            // No back end of this cloud replicates, so no group is of a type that asks for it.
            return Err(Error::bad_request(format!(
                "Invalid group type: {name} is for groups whose type has the spec group_replication_enabled='<is> True' and a \
                 back end that replicates; this cloud has none."
            )));
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}"))),
    }
    Ok(Reply::empty(202))
}

fn replication_rule(action: &str) -> &'static str {
    match action {
        "enable_replication" => "group:enable_replication",
        "disable_replication" => "group:disable_replication",
        "failover_replication" => "group:failover_replication",
        _ => "group:list_replication_targets",
    }
}

/// `reset_status` of the object of the address, which `find` finds.
pub(crate) async fn reset_status<K: Kind>(
    app: &App,
    request: &Request,
    value: Value,
    find: fn(&Request, &Snapshot, &str) -> Result<Object<K>>,
    set: fn(&mut K, GroupStatus),
) -> Result<()> {
    let given: StatusBody = typed("reset_status", value)?;
    let status = status_of(&given.status)?;
    app.store
        .plan(|snapshot| {
            let read = find(request, snapshot, request.param("id"))?;
            let mut new = (*read.value).clone();
            set(&mut new, status);
            let mut txn = Txn::new();
            txn.update(&read, &new);
            Ok((txn, ()))
        })
        .await
}

/// A status that an administrator may set.
fn status_of(word: &str) -> Result<GroupStatus> {
    GroupStatus::parse(&word.to_lowercase()).ok_or_else(|| {
        invalid(
            "reset_status.status",
            format!("'{word}' is not one of creating, available, deleting, updating, error, error_deleting, in-use"),
        )
    })
}
