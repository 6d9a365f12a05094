//! Group types and their specs (3.11).

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, Flag, body, invalid},
    },
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{Group, GroupType, GroupTypeId, group_type_epoch, plan_end_epoch};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    description: Option<String>,
    is_public: Option<Flag>,
    group_specs: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    description: Option<String>,
    is_public: Option<Flag>,
}

impl Row for Object<GroupType> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.to_string()),
            "name" => Some(self.value.name.clone()),
            "description" => self.value.description.clone(),
            "created_at" => Some(self.value.created.to_string()),
            "updated_at" => self.value.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Group type {id} could not be found."))
}

/// The group type of an id or a name, if the caller sees it: one that is not public is an administrator's.
pub(crate) fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<GroupType>> {
    let admin = request.caller()?.is_admin();
    snapshot
        .get::<GroupType>(&GroupTypeId::from(id))
        .or_else(|| by_name(snapshot, id))
        .filter(|t| admin || t.value.public)
        .ok_or_else(|| missing(id))
}

/// The group type of a name.
pub(crate) fn by_name(snapshot: &Snapshot, name: &str) -> Option<Object<GroupType>> {
    snapshot.find::<GroupType>("name", name).next()
}

fn view(request: &Request, kind: &Object<GroupType>) -> Value {
    let t = &kind.value;
    let mut out = json!({
        "id": kind.id.as_str(), "name": t.name, "description": t.description, "is_public": t.public,
    });
    if request.may("group:access_group_types_specs", &Target::none()) {
        out["group_specs"] = json!(t.specs);
    }
    out
}

fn check_name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 255 {
        return Err(invalid(
            "group_type.name",
            "A name has 1 to 255 characters and is not blank.",
        ));
    }
    Ok(name.to_owned())
}

fn taken(name: &str) -> Error {
    Error::conflict(format!("Group Type {name} already exists."))
}

/// `GET /group_types`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let snapshot = app.store.current().await?;
    let admin = request.caller()?.is_admin();
    let wanted = match request.query.get("is_public") {
        _ if !admin => Some(true),
        None | Some("None" | "none") => None,
        Some(_) => request.query.bool("is_public")?,
    };
    let mut kinds: Vec<Object<GroupType>> = snapshot
        .list::<GroupType>()
        .filter(|t| wanted.is_none_or(|w| t.value.public == w))
        .collect();
    if let Some(text) = request.query.get("group_specs").filter(|_| admin) {
        let pairs = list::dictionary("group_specs", text)?;
        kinds.retain(|t| pairs.iter().all(|(k, v)| t.value.specs.get(k) == Some(v)));
    }
    for key in ["name", "description"] {
        if let Some(value) = request.query.get(key) {
            kinds.retain(|t| t.field(key).as_deref() == Some(value));
        }
    }
    let page = list::page(&request, kinds, &["id", "name", "created_at", "updated_at"])?;
    let views = page.items.iter().map(|t| view(&request, t)).collect();
    let body = list::body(&request, "group_types", &page, views)?;
    Reply::json(200, &body.links_as("group_type_links"))
}

/// `GET /group_types/{id}`; there is no default one here, as upstream has none unless its operator names one.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let snapshot = app.store.current().await?;
    let kind = match request.param("id") {
        "default" => {
            return Err(Error::not_found(
                "Default group type can not be found: this cloud names none; choose one of GET /group_types.",
            ));
        }
        id => find(&request, &snapshot, id)?,
    };
    Reply::json(200, &json!({"group_type": view(&request, &kind)}))
}

/// `POST /group_types`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let given: CreateBody = body(&mut request, "group_type").await?;
    let name = check_name(&given.name)?;
    let description = wire::text("group_type.description", given.description)?;
    let specs = given.group_specs.unwrap_or_default();
    wire::check_metadata("group_type.group_specs", &specs)?;
    let id = GroupTypeId::new_uuid();
    app.store
        .plan(|snapshot| {
            if snapshot.owner("volume_group_type", "", &name).is_some() {
                return Err(taken(&name));
            }
            let mut txn = Txn::new();
            txn.claim("volume_group_type", "", &name, &id);
            txn.create(
                &id,
                &GroupType {
                    name: name.clone(),
                    description: description.clone(),
                    public: given.is_public.is_none_or(|f| f.0),
                    specs: specs.clone(),
                    created: maru_base::time::now(),
                    updated: None,
                },
            );
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let kind = find(&request, &snapshot, &id)?;
    Reply::json(202, &json!({"group_type": view(&request, &kind)}))
}

/// One change of one group type; the address may be its name, and the change may give it another.
async fn edit(
    app: &App,
    request: &Request,
    change: impl Fn(&Snapshot, &mut Txn, &GroupTypeId, &mut GroupType) -> Result<()> + Send,
) -> Result<Object<GroupType>> {
    wire::since(request, 11)?;
    let id = app
        .store
        .plan(|snapshot| {
            let kind = find(request, snapshot, request.param("id"))?;
            let mut new = (*kind.value).clone();
            let mut txn = Txn::new();
            change(snapshot, &mut txn, &kind.id, &mut new)?;
            new.updated = Some(maru_base::time::now());
            txn.update(&kind, &new);
            Ok((txn, kind.id))
        })
        .await?;
    find(request, &app.store.snapshot(), &id)
}

/// `PUT /group_types/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let given: UpdateBody = body(&mut request, "group_type").await?;
    if given.name.is_none() && given.description.is_none() && given.is_public.is_none() {
        return Err(invalid(
            "group_type",
            "Specify group type name, description, is_public or a combination thereof.",
        ));
    }
    let name = given.name.as_deref().map(check_name).transpose()?;
    let description = wire::text("group_type.description", given.description)?;
    let kind = edit(&app, &request, |snapshot, txn, id, kind| {
        if let Some(name) = &name
            && *name != kind.name
        {
            if snapshot.owner("volume_group_type", "", name).is_some() {
                return Err(taken(name));
            }
            txn.release("volume_group_type", "", &kind.name);
            txn.claim("volume_group_type", "", name, id);
            kind.name.clone_from(name);
        }
        if description.is_some() {
            kind.description.clone_from(&description);
        }
        if let Some(flag) = given.is_public {
            kind.public = flag.0;
        }
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"group_type": view(&request, &kind)}))
}

/// `DELETE /group_types/{id}`: only one that no group has.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    app.store
        .plan(|snapshot| {
            let kind = find(&request, snapshot, request.param("id"))?;
            if snapshot.find::<Group>("type", &kind.id).next().is_some() {
                return Err(Error::bad_request(
                    "Target group type is still in use: delete the groups that have it first.",
                ));
            }
            let mut txn = Txn::new();
            // A group that is made at this moment bumps this epoch.
            plan_end_epoch(snapshot, &mut txn, &group_type_epoch(&kind.id));
            txn.release("volume_group_type", "", &kind.value.name);
            txn.delete(&kind);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `GET /group_types/{id}/group_specs`.
pub(crate) async fn specs(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let snapshot = app.store.current().await?;
    let kind = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"group_specs": kind.value.specs}))
}

/// `POST /group_types/{id}/group_specs`: adds and replaces.
pub(crate) async fn add_specs(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let specs: BTreeMap<String, String> = body(&mut request, "group_specs").await?;
    wire::check_metadata("group_specs", &specs)?;
    edit(&app, &request, |_, _, _, kind| {
        kind.specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(202, &json!({"group_specs": specs}))
}

fn no_spec(kind: &str, key: &str) -> Error {
    Error::not_found(format!("Group Type {kind} has no specs with key {key}."))
}

/// `GET /group_types/{id}/group_specs/{key}`.
pub(crate) async fn spec(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let snapshot = app.store.current().await?;
    let (id, key) = (request.param("id"), request.param("key"));
    let kind = find(&request, &snapshot, id)?;
    let value = kind.value.specs.get(key).ok_or_else(|| no_spec(id, key))?;
    Reply::json(200, &json!({key: value}))
}

/// `PUT /group_types/{id}/group_specs/{key}`.
pub(crate) async fn put_spec(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 11)?;
    let specs = wire::one_spec(&mut request, "group_specs").await?;
    edit(&app, &request, |_, _, _, kind| {
        kind.specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &specs)
}

/// `DELETE /group_types/{id}/group_specs/{key}`.
pub(crate) async fn delete_spec(app: Arc<App>, request: Request) -> Result<Reply> {
    let key = request.param("key").to_owned();
    edit(&app, &request, |_, _, _, kind| {
        kind.specs
            .remove(&key)
            .map(drop)
            .ok_or_else(|| no_spec(request.param("id"), &key))
    })
    .await?;
    Ok(Reply::empty(202))
}
