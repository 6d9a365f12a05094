//! Volume types: extra specs, access, encryption.

use crate::{
    App,
    api::wire::{self, Count, Flag, body, invalid, map_of, time, time_or_null},
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    DEFAULT_TYPE, DefaultType, Encryption, Group, Volume, VolumeType, VolumeTypeId, plan_end_epoch, type_epoch,
    visible_type,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Debug, Deserialize)]
struct CreateBody {
    name: String,
    description: Option<String>,
    extra_specs: Option<BTreeMap<String, String>>,
    #[serde(rename = "os-volume-type-access:is_public")]
    public: Option<Flag>,
}

#[derive(Debug, Deserialize)]
struct UpdateBody {
    name: Option<String>,
    description: Option<String>,
    is_public: Option<Flag>,
}

#[derive(Debug, Deserialize)]
struct EncryptionBody {
    provider: Option<String>,
    control_location: Option<String>,
    cipher: Option<String>,
    key_size: Option<Count>,
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Volume type {id} could not be found."))
}

/// The type of the address, if the caller sees it.
fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<VolumeType>> {
    let caller = request.caller()?;
    visible_type(
        snapshot,
        id,
        caller.project_id().map(maru_base::ProjectId::as_str),
        caller.is_admin(),
    )
    .filter(|t| t.id == *id)
    .ok_or_else(|| missing(id))
}

/// A type as the API shows it.
pub(crate) fn view(kind: &Object<VolumeType>, specs: bool) -> Value {
    let t = &kind.value;
    let mut out = json!({
        "id": kind.id.as_str(), "name": t.name, "description": t.description, "is_public": t.public,
        "os-volume-type-access:is_public": t.public,
    });
    if specs {
        out["extra_specs"] = json!(t.extra_specs);
        out["qos_specs_id"] = json!(t.qos_id);
    }
    out
}

/// Specs that everyone may see; the others are an administrator's.
const PUBLIC_SPECS: &[&str] = &["multiattach", "RESKEY:availability_zones", "replication_enabled"];

fn shown(request: &Request, kind: &Object<VolumeType>) -> Value {
    let admin = request.may("volume_extension:types_extra_specs:read_sensitive", &Target::none());
    let mut out = view(kind, true);
    if !admin {
        let visible: BTreeMap<&String, &String> = kind
            .value
            .extra_specs
            .iter()
            .filter(|(k, _)| PUBLIC_SPECS.contains(&k.as_str()))
            .collect();
        out["extra_specs"] = json!(visible);
        if let Value::Object(map) = &mut out {
            map.remove("qos_specs_id");
        }
    }
    out
}

/// `GET /types`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let caller = request.caller()?;
    let project = caller.project_id().map(maru_base::ProjectId::as_str);
    let wanted = match request.query.get("is_public") {
        _ if !caller.is_admin() => None,
        None | Some("None" | "none") => None,
        Some(_) => request.query.bool("is_public")?,
    };
    let mut kinds: Vec<Object<VolumeType>> = snapshot
        .list::<VolumeType>()
        .filter(|t| caller.is_admin() || t.value.public || project.is_some_and(|p| t.value.access.contains(p)))
        .filter(|t| wanted.is_none_or(|w| t.value.public == w))
        .collect();
    if let Some(text) = request.query.get("extra_specs") {
        let pairs = super::list::dictionary("extra_specs", text)?;
        kinds.retain(|t| pairs.iter().all(|(k, v)| t.value.extra_specs.get(k) == Some(v)));
    }
    for key in ["name", "description"] {
        if let Some(value) = request.query.get(key) {
            kinds.retain(|t| match key {
                "name" => t.value.name == value,
                _ => t.value.description.as_deref() == Some(value),
            });
        }
    }
    kinds.sort_by(|a, b| b.value.created.cmp(&a.value.created).then_with(|| a.id.cmp(&b.id)));
    let page = super::list::page(&request, kinds, &["id", "name", "created_at", "updated_at"])?;
    let views = page.items.iter().map(|t| shown(&request, t)).collect();
    let body = super::list::body(&request, "volume_types", &page, views)?;
    Reply::json(200, &body.links_as("volume_type_links"))
}

impl super::list::Row for Object<VolumeType> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.to_string()),
            "name" => Some(self.value.name.clone()),
            "created_at" => Some(self.value.created.to_string()),
            "updated_at" => self.value.updated.map(|t| t.to_string()),
            _ => None,
        }
    }
}

/// `GET /types/{id}`; `default` names the one that volumes have whose maker named none.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let kind = match request.param("id") {
        "default" => {
            let project = request
                .caller()?
                .project_id()
                .map(ToString::to_string)
                .unwrap_or_default();
            crate::app::volumes::default_type(&snapshot, &project)?
        }
        id => find(&request, &snapshot, id)?,
    };
    Reply::json(200, &json!({"volume_type": shown(&request, &kind)}))
}

fn check_name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 255 {
        return Err(invalid(
            "volume_type.name",
            "A name has 1 to 255 characters and is not blank.",
        ));
    }
    Ok(name.to_owned())
}

fn taken(name: &str) -> Error {
    Error::conflict(format!("Volume Type {name} already exists."))
}

/// `POST /types`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: CreateBody = body(&mut request, "volume_type").await?;
    let name = check_name(&given.name)?;
    let description = wire::text("volume_type.description", given.description)?;
    let specs = given.extra_specs.unwrap_or_default();
    wire::check_metadata("volume_type.extra_specs", &specs)?;
    let id = VolumeTypeId::new_uuid();
    app.store
        .plan(|snapshot| {
            if snapshot.owner("volume_type", "", &name).is_some() {
                return Err(taken(&name));
            }
            let mut txn = Txn::new();
            txn.claim("volume_type", "", &name, &id);
            txn.create(
                &id,
                &VolumeType {
                    name: name.clone(),
                    description: description.clone(),
                    public: given.public.is_none_or(|f| f.0),
                    access: BTreeSet::new(),
                    extra_specs: specs.clone(),
                    qos_id: None,
                    encryption: None,
                    created: maru_base::time::now(),
                    updated: None,
                },
            );
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let kind = find(&request, &snapshot, &id)?;
    Reply::json(200, &json!({"volume_type": changed(&request, &kind)}))
}

/// What the answer to a change shows: without the QoS specification, as upstream.
fn changed(request: &Request, kind: &Object<VolumeType>) -> Value {
    let mut out = shown(request, kind);
    if let Value::Object(map) = &mut out {
        map.remove("qos_specs_id");
    }
    out
}

/// One change of one type.
async fn edit(
    app: &App,
    request: &Request,
    change: impl Fn(&Snapshot, &mut Txn, &mut VolumeType) -> Result<()> + Send,
) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let kind = find(request, snapshot, request.param("id"))?;
            let mut new = (*kind.value).clone();
            let mut txn = Txn::new();
            change(snapshot, &mut txn, &mut new)?;
            new.updated = Some(maru_base::time::now());
            txn.update(&kind, &new);
            Ok((txn, ()))
        })
        .await
}

/// `PUT /types/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: UpdateBody = body(&mut request, "volume_type").await?;
    if given.name.is_none() && given.description.is_none() && given.is_public.is_none() {
        return Err(invalid(
            "volume_type",
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let name = given.name.as_deref().map(check_name).transpose()?;
    let description = wire::text("volume_type.description", given.description)?;
    edit(&app, &request, |snapshot, txn, kind| {
        if let Some(name) = &name
            && *name != kind.name
        {
            if kind.name == DEFAULT_TYPE {
                return Err(Error::bad_request(format!("The type {DEFAULT_TYPE} keeps its name.")));
            }
            if snapshot.owner("volume_type", "", name).is_some() {
                return Err(taken(name));
            }
            txn.release("volume_type", "", &kind.name);
            txn.claim("volume_type", "", name, request.param("id"));
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
    let snapshot = app.store.snapshot();
    let kind = find(&request, &snapshot, request.param("id"))?;
    let mut out = changed(&request, &kind);
    if let Value::Object(map) = &mut out {
        map.remove("os-volume-type-access:is_public");
    }
    Reply::json(200, &json!({"volume_type": out}))
}

/// `DELETE /types/{id}`: only one that no volume has.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let kind = find(&request, snapshot, request.param("id"))?;
            if kind.value.name == DEFAULT_TYPE {
                return Err(Error::bad_request(format!(
                    "Volume type {} is the default volume type and cannot be deleted.",
                    kind.id
                )));
            }
            if snapshot.find::<Volume>("type", &kind.id).next().is_some() {
                return Err(Error::bad_request("Target volume type is still in use."));
            }
            if snapshot.find::<Group>("volume_type", &kind.id).next().is_some() {
                return Err(Error::bad_request(format!(
                    "Volume Type {} deletion is not allowed with groups present with the type: delete them first.",
                    kind.id
                )));
            }
            if let Some(project) = snapshot.find::<DefaultType>("type", &kind.id).next() {
                return Err(Error::bad_request(format!(
                    "Volume type {} is the default of the project {}: give that another one first.",
                    kind.id, project.id
                )));
            }
            let mut txn = Txn::new();
            // A volume that is made at this moment bumps this epoch.
            plan_end_epoch(snapshot, &mut txn, &type_epoch(&kind.id));
            txn.release("volume_type", "", &kind.value.name);
            txn.delete(&kind);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `GET /types/{id}/extra_specs`.
pub(crate) async fn specs(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let kind = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"extra_specs": shown(&request, &kind)["extra_specs"]}))
}

/// `POST /types/{id}/extra_specs`.
pub(crate) async fn add_specs(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let specs: BTreeMap<String, String> = body(&mut request, "extra_specs").await?;
    wire::check_metadata("extra_specs", &specs)?;
    edit(&app, &request, |snapshot, _, kind| {
        keep_multiattach(snapshot, request.param("id"), kind, &specs)?;
        kind.extra_specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"extra_specs": specs}))
}

/// A type that volumes have keeps whether they may be attached twice.
fn keep_multiattach(snapshot: &Snapshot, id: &str, kind: &VolumeType, specs: &BTreeMap<String, String>) -> Result<()> {
    if specs.contains_key("multiattach") && snapshot.find::<Volume>("type", id).next().is_some() {
        let mut after = kind.clone();
        after.extra_specs.extend(specs.clone());
        if after.multiattach() != kind.multiattach() {
            return Err(Error::bad_request(
                "Volume Type is currently in use: its extra spec multiattach cannot change.",
            ));
        }
    }
    Ok(())
}

fn no_spec(kind: &str, key: &str) -> Error {
    Error::not_found(format!("Volume Type {kind} has no extra specs with key {key}."))
}

/// `GET /types/{id}/extra_specs/{key}`.
pub(crate) async fn spec(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let (id, key) = (request.param("id"), request.param("key"));
    let kind = find(&request, &snapshot, id)?;
    let specs = shown(&request, &kind);
    let value = specs["extra_specs"].get(key).ok_or_else(|| no_spec(id, key))?;
    Reply::json(200, &json!({key: value}))
}

/// `PUT /types/{id}/extra_specs/{key}`.
pub(crate) async fn put_spec(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let specs = wire::one_spec(&mut request, "extra_specs").await?;
    edit(&app, &request, |snapshot, _, kind| {
        keep_multiattach(snapshot, request.param("id"), kind, &specs)?;
        kind.extra_specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &specs)
}

/// `DELETE /types/{id}/extra_specs/{key}`.
pub(crate) async fn delete_spec(app: Arc<App>, request: Request) -> Result<Reply> {
    let key = request.param("key").to_owned();
    edit(&app, &request, |_, _, kind| {
        kind.extra_specs
            .remove(&key)
            .map(drop)
            .ok_or_else(|| no_spec(request.param("id"), &key))
    })
    .await?;
    Ok(Reply::empty(202))
}

/// `GET /types/{id}/os-volume-type-access`.
pub(crate) async fn access(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let kind = find(&request, &snapshot, request.param("id"))?;
    if kind.value.public {
        return Err(Error::not_found("Access list not available for public volume types."));
    }
    let list: Vec<Value> = kind
        .value
        .access
        .iter()
        .map(|p| json!({"volume_type_id": kind.id.as_str(), "project_id": p}))
        .collect();
    Reply::json(200, &json!({"volume_type_access": list}))
}

/// `POST /types/{id}/action`: gives and takes access.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, value) = wire::action(&mut request).await?;
    let given: Map<String, Value> = map_of(&name, value)?;
    let project = given
        .get("project")
        .and_then(Value::as_str)
        .filter(|p| !p.is_empty() && p.len() <= 64)
        .ok_or_else(|| {
            invalid(
                &format!("{name}.project"),
                "'project' is a required property: a project's id",
            )
        })?
        .to_owned();
    let add = match name.as_str() {
        "addProjectAccess" => {
            request.authorize_rule("volume_extension:volume_type_access:addProjectAccess", &Target::none())?;
            true
        }
        "removeProjectAccess" => {
            request.authorize_rule(
                "volume_extension:volume_type_access:removeProjectAccess",
                &Target::none(),
            )?;
            false
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}"))),
    };
    edit(&app, &request, |_, _, kind| {
        if kind.public {
            return Err(Error::conflict(
                "Type access modification is not applicable to public volume type.",
            ));
        }
        if add && !kind.access.insert(project.clone()) {
            return Err(Error::conflict(format!(
                "Volume type access for {} / {project} combination already exists.",
                kind.name
            )));
        }
        if !add && !kind.access.remove(&project) {
            return Err(Error::not_found(format!(
                "Volume type access not found for {} / {project} combination.",
                kind.name
            )));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

fn encryption_view(kind: &str, e: &Encryption) -> Value {
    json!({
        "volume_type_id": kind, "encryption_id": e.id, "provider": e.provider, "control_location": e.control_location,
        "cipher": e.cipher, "key_size": e.key_size, "created_at": time(e.created), "updated_at": time_or_null(e.updated),
        "deleted": false, "deleted_at": Value::Null,
    })
}

/// `GET /types/{id}/encryption`: an empty object when there is none, as upstream.
pub(crate) async fn encryption(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let kind = find(&request, &snapshot, request.param("id"))?;
    let view = kind
        .value
        .encryption
        .as_ref()
        .map_or_else(|| json!({}), |e| encryption_view(&kind.id, e));
    Reply::json(200, &view)
}

/// `GET /types/{id}/encryption/{key}`: one of its values.
pub(crate) async fn encryption_item(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let kind = find(&request, &snapshot, request.param("id"))?;
    let key = request.param("key");
    let value = kind
        .value
        .encryption
        .as_ref()
        .and_then(|e| encryption_view(&kind.id, e).get(key).cloned())
        .ok_or_else(|| Error::not_found(format!("There is no {key} in the type's encryption.")))?;
    Reply::json(200, &json!({key: value}))
}

fn check_encryption(given: &EncryptionBody) -> Result<Option<u32>> {
    if let Some(at) = given.control_location.as_deref()
        && !matches!(at, "front-end" | "back-end")
    {
        return Err(invalid(
            "encryption.control_location",
            format!("Valid control location are: front-end, back-end; not '{at}'"),
        ));
    }
    if given.provider.as_deref().is_some_and(|p| p.is_empty() || p.len() > 255) {
        return Err(invalid("encryption.provider", "It has 1 to 255 characters."));
    }
    given
        .key_size
        .map(|n| {
            n.at_least("encryption.key_size", 0)
                .map(|n| u32::try_from(n).unwrap_or(u32::MAX))
        })
        .transpose()
}

fn unused(snapshot: &Snapshot, id: &str) -> Result<()> {
    if snapshot.find::<Volume>("type", id).next().is_some() {
        return Err(Error::bad_request(
            "Cannot change the encryption of a volume type that volumes have: Volume type encryption is in use.",
        ));
    }
    Ok(())
}

/// `POST /types/{id}/encryption`.
pub(crate) async fn create_encryption(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: EncryptionBody = body(&mut request, "encryption").await?;
    let key_size = check_encryption(&given)?;
    let provider = given
        .provider
        .clone()
        .ok_or_else(|| invalid("encryption.provider", "'provider' is a required property"))?;
    let id = maru_base::random::uuid();
    edit(&app, &request, |snapshot, _, kind| {
        unused(snapshot, request.param("id"))?;
        if kind.encryption.is_some() {
            return Err(Error::bad_request(format!(
                "Volume type encryption for type {} already exists.",
                request.param("id")
            )));
        }
        kind.encryption = Some(Encryption {
            id: id.clone(),
            provider: provider.clone(),
            control_location: given.control_location.clone().unwrap_or_else(|| "front-end".to_owned()),
            cipher: given.cipher.clone(),
            key_size,
            created: maru_base::time::now(),
            updated: None,
        });
        Ok(())
    })
    .await?;
    let snapshot = app.store.snapshot();
    let kind = find(&request, &snapshot, request.param("id"))?;
    let e = kind.value.encryption.clone().ok_or_else(|| missing(&kind.id))?;
    Reply::json(
        200,
        &json!({"encryption": {
            "volume_type_id": kind.id.as_str(), "encryption_id": e.id, "provider": e.provider,
            "control_location": e.control_location, "cipher": e.cipher, "key_size": e.key_size,
        }}),
    )
}

/// `PUT /types/{id}/encryption/{key}`.
pub(crate) async fn update_encryption(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let raw: Map<String, Value> = body(&mut request, "encryption").await?;
    let given: EncryptionBody = wire::typed("encryption", Value::Object(raw.clone()))?;
    let key_size = check_encryption(&given)?;
    edit(&app, &request, |snapshot, _, kind| {
        unused(snapshot, request.param("id"))?;
        let e = kind
            .encryption
            .as_mut()
            .filter(|e| e.id == request.param("key"))
            .ok_or_else(|| Error::not_found("Volume type encryption for this type does not exist."))?;
        if let Some(provider) = &given.provider {
            e.provider.clone_from(provider);
        }
        if let Some(at) = &given.control_location {
            e.control_location.clone_from(at);
        }
        if given.cipher.is_some() {
            e.cipher.clone_from(&given.cipher);
        }
        if key_size.is_some() {
            e.key_size = key_size;
        }
        e.updated = Some(maru_base::time::now());
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"encryption": raw}))
}

/// `DELETE /types/{id}/encryption/{key}`.
pub(crate) async fn delete_encryption(app: Arc<App>, request: Request) -> Result<Reply> {
    edit(&app, &request, |snapshot, _, kind| {
        unused(snapshot, request.param("id"))?;
        let mine = kind.encryption.as_ref().is_some_and(|e| e.id == request.param("key"));
        if !mine {
            return Err(Error::not_found("Volume type encryption for this type does not exist."));
        }
        kind.encryption = None;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
