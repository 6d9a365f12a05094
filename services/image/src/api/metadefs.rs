//! `/v2/metadefs`: namespaces, and what they define.

use crate::{
    App,
    app::metadefs::{duplicate, missing},
};
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{Reply, Request};
use maru_image_model::metadef::{Association, Definition, Namespace, Property, RESOURCE_TYPES, Times};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Characters of a name at most.
const NAME: usize = 80;
/// Characters of a text at most.
const TEXT: usize = 500;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssociationBody {
    name: String,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    properties_target: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectBody {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    properties: BTreeMap<String, Property>,
    // As an answer had them: taken and not looked at.
    #[serde(default, rename = "schema")]
    _schema: Option<String>,
    #[serde(default, rename = "self")]
    _self: Option<String>,
    #[serde(default, rename = "created_at")]
    _created_at: Option<String>,
    #[serde(default, rename = "updated_at")]
    _updated_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagBody {
    name: String,
    #[serde(default, rename = "created_at")]
    _created_at: Option<String>,
    #[serde(default, rename = "updated_at")]
    _updated_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagsBody {
    tags: Vec<TagBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceBody {
    namespace: String,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    protected: Option<bool>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    resource_type_associations: Vec<AssociationBody>,
    #[serde(default)]
    objects: Vec<ObjectBody>,
    #[serde(default)]
    properties: BTreeMap<String, Property>,
    #[serde(default)]
    tags: Vec<TagBody>,
    #[serde(default, rename = "schema")]
    _schema: Option<String>,
    #[serde(default, rename = "self")]
    _self: Option<String>,
    #[serde(default, rename = "created_at")]
    _created_at: Option<String>,
    #[serde(default, rename = "updated_at")]
    _updated_at: Option<String>,
}

fn name_of(field: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > NAME {
        return Err(Error::invalid(
            field,
            format!("Invalid value for {field}: it has {length} characters and may have 1 to {NAME}."),
        ));
    }
    Ok(())
}

fn text_of(field: &str, text: Option<&String>, most: usize) -> Result<()> {
    match text.map(|t| t.chars().count()) {
        Some(n) if n > most => Err(Error::invalid(
            field,
            format!("Invalid value for {field}: it has {n} characters and may have at most {most}."),
        )),
        _ => Ok(()),
    }
}

fn property_of(name: &str, property: &Property) -> Result<()> {
    name_of("name", name)?;
    name_of("title", &property.title)?;
    if !TYPES.contains(&property.kind.as_str()) {
        return Err(Error::invalid(
            "type",
            format!(
                "Invalid value for type: '{}' is not one of {}.",
                property.kind,
                TYPES.join(", ")
            ),
        ));
    }
    Ok(())
}

fn public_of(visibility: Option<&String>) -> Result<bool> {
    match visibility.map(String::as_str) {
        None | Some("private") => Ok(false),
        Some("public") => Ok(true),
        Some(other) => Err(Error::invalid(
            "visibility",
            format!("Invalid value for visibility: '{other}' is not one of public, private."),
        )),
    }
}

fn put_times(map: &mut Map<String, Value>, times: &Times) {
    map.insert("created_at".into(), seconds_z(times.created_at).into());
    map.insert("updated_at".into(), seconds_z(times.updated_at).into());
}

fn value_of<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn association_view(name: &str, a: &Association) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), name.into());
    if let Some(prefix) = &a.prefix {
        map.insert("prefix".into(), prefix.as_str().into());
    }
    if let Some(target) = &a.properties_target {
        map.insert("properties_target".into(), target.as_str().into());
    }
    put_times(&mut map, &a.times);
    map.into()
}

fn object_view(namespace: &str, name: &str, o: &Definition) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), name.into());
    map.insert("description".into(), value_of(&o.description));
    map.insert("required".into(), value_of(&o.required));
    map.insert("properties".into(), value_of(&o.properties));
    map.insert(
        "self".into(),
        format!("/v2/metadefs/namespaces/{namespace}/objects/{name}").into(),
    );
    map.insert("schema".into(), "/v2/schemas/metadefs/object".into());
    put_times(&mut map, &o.times);
    map.into()
}

fn property_view(name: &str, property: &Property) -> Result<Reply> {
    let mut property = property.clone();
    property.name = Some(name.to_owned());
    Reply::json(200, &property)
}

fn tag_view(name: &str, times: &Times) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), name.into());
    put_times(&mut map, times);
    map.into()
}

/// A namespace without what it defines.
fn namespace_view(name: &str, n: &Namespace) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("namespace".into(), name.into());
    map.insert("display_name".into(), value_of(&n.display_name));
    map.insert("description".into(), value_of(&n.description));
    map.insert("visibility".into(), if n.public { "public" } else { "private" }.into());
    map.insert("protected".into(), n.protected.into());
    map.insert("owner".into(), n.owner.as_str().into());
    map.insert("self".into(), format!("/v2/metadefs/namespaces/{name}").into());
    map.insert("schema".into(), "/v2/schemas/metadefs/namespace".into());
    put_times(&mut map, &n.times);
    map
}

fn associations(n: &Namespace) -> Vec<Value> {
    n.resource_types.iter().map(|(k, a)| association_view(k, a)).collect()
}

/// A namespace with all that it defines.
fn whole_view(name: &str, n: &Namespace) -> Map<String, Value> {
    let mut map = namespace_view(name, n);
    if !n.resource_types.is_empty() {
        map.insert("resource_type_associations".into(), associations(n).into());
    }
    if !n.objects.is_empty() {
        let all: Vec<Value> = n.objects.iter().map(|(k, o)| object_view(name, k, o)).collect();
        map.insert("objects".into(), all.into());
    }
    if !n.properties.is_empty() {
        map.insert("properties".into(), value_of(&n.properties));
    }
    if !n.tags.is_empty() {
        let all: Vec<Value> = n.tags.keys().map(|k| json!({ "name": k })).collect();
        map.insert("tags".into(), all.into());
    }
    map
}

fn association_of(body: AssociationBody) -> Result<(String, Association)> {
    name_of("name", &body.name)?;
    text_of("prefix", body.prefix.as_ref(), NAME)?;
    text_of("properties_target", body.properties_target.as_ref(), NAME)?;
    let association = Association {
        prefix: body.prefix,
        properties_target: body.properties_target,
        times: Times::new(),
    };
    Ok((body.name, association))
}

fn object_of(body: ObjectBody) -> Result<(String, Definition)> {
    name_of("name", &body.name)?;
    text_of("description", body.description.as_ref(), TEXT)?;
    for (name, property) in &body.properties {
        property_of(name, property)?;
    }
    let object = Definition {
        description: body.description,
        required: body.required,
        properties: body.properties,
        times: Times::new(),
    };
    Ok((body.name, object))
}

fn tags_of(bodies: Vec<TagBody>) -> Result<BTreeMap<String, Times>> {
    let mut all = BTreeMap::new();
    for tag in bodies {
        name_of("name", &tag.name)?;
        if all.insert(tag.name.clone(), Times::new()).is_some() {
            return Err(duplicate("tag", &tag.name));
        }
    }
    Ok(all)
}

/// Takes each pair once.
fn once<T>(what: &str, pairs: impl Iterator<Item = Result<(String, T)>>) -> Result<BTreeMap<String, T>> {
    let mut all = BTreeMap::new();
    for pair in pairs {
        let (name, value) = pair?;
        if all.contains_key(&name) {
            return Err(duplicate(what, &name));
        }
        all.insert(name, value);
    }
    Ok(all)
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: NamespaceBody = request.json().await?;
    name_of("namespace", &body.namespace)?;
    text_of("display_name", body.display_name.as_ref(), NAME)?;
    text_of("description", body.description.as_ref(), TEXT)?;
    for (name, property) in &body.properties {
        property_of(name, property)?;
    }
    let caller = request.caller()?;
    let owner = match body.owner {
        Some(owner) => owner.into(),
        None => caller.require_project()?.clone(),
    };
    let namespace = Namespace {
        public: public_of(body.visibility.as_ref())?,
        display_name: body.display_name,
        description: body.description,
        protected: body.protected.unwrap_or(false),
        owner,
        times: Times::new(),
        resource_types: once(
            "resource type association",
            body.resource_type_associations.into_iter().map(association_of),
        )?,
        objects: once("object", body.objects.into_iter().map(object_of))?,
        properties: body.properties,
        tags: tags_of(body.tags)?,
    };
    app.create_namespace(&request, &body.namespace, &namespace).await?;
    let location = format!("{}/v2/metadefs/namespaces/{}", request.base, body.namespace);
    Ok(Reply::json(201, &whole_view(&body.namespace, &namespace))?.header("location", &location))
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let mut found = app.namespaces(&app.store.current().await?, &request)?;
    let query = &request.query;
    if let Some(visibility) = query.get("visibility") {
        let public = public_of(Some(&visibility.to_owned()))?;
        found.retain(|n| n.public == public);
    }
    let wanted: Vec<&str> = query
        .all("resource_types")
        .flat_map(|t| t.split(','))
        .filter(|t| !t.is_empty())
        .collect();
    if !wanted.is_empty() {
        found.retain(|n| wanted.iter().any(|t| n.resource_types.contains_key(*t)));
    }
    let down = match query.get("sort_dir") {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(other) => {
            return Err(Error::invalid(
                "sort_dir",
                format!("Invalid sort direction: {other}; use asc or desc."),
            ));
        }
    };
    match query.get("sort_key") {
        None | Some("created_at") => {
            found.sort_by(|a, b| (a.times.created_at, &a.id).cmp(&(b.times.created_at, &b.id)))
        }
        Some("updated_at") => found.sort_by(|a, b| (a.times.updated_at, &a.id).cmp(&(b.times.updated_at, &b.id))),
        Some("namespace") => found.sort_by(|a, b| a.id.cmp(&b.id)),
        Some(other) => {
            return Err(Error::invalid(
                "sort_key",
                format!("'{other}' is not a sort key; use created_at, updated_at or namespace."),
            ));
        }
    }
    if down {
        found.reverse();
    }
    if let Some(marker) = query.get("marker").filter(|m| !m.is_empty()) {
        let at = found.iter().position(|n| n.id.as_str() == marker);
        let at =
            at.ok_or_else(|| Error::not_found(format!("Metadata definition namespace={marker} was not found.")))?;
        found.drain(..=at);
    }
    let limit = match query.get("limit") {
        None => 25,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Error::invalid("limit", format!("'{text}' is not a limit; use a number.")))?
            .min(1000),
    };
    let more = found.len() > limit && limit > 0;
    found.truncate(limit);
    let rows: Vec<Value> = found
        .iter()
        .map(|n| {
            let mut row = namespace_view(&n.id, &n.value);
            if !n.resource_types.is_empty() {
                row.insert("resource_type_associations".into(), associations(&n.value).into());
            }
            row.into()
        })
        .collect();
    let mut body = json!({
        "namespaces": rows, "first": "/v2/metadefs/namespaces", "schema": "/v2/schemas/metadefs/namespaces",
    });
    if let Some(last) = found.last().filter(|_| more) {
        let rest = query.encode_without(&["marker"]);
        let rest = if rest.is_empty() { rest } else { format!("{rest}&") };
        body["next"] = format!("/v2/metadefs/namespaces?{rest}marker={}", last.id).into();
    }
    Reply::json(200, &body)
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("namespace");
    let found = app.namespace(&app.store.current().await?, &request, name)?;
    Reply::json(200, &whole_view(name, &found.value))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: NamespaceBody = request.json().await?;
    name_of("namespace", &body.namespace)?;
    text_of("display_name", body.display_name.as_ref(), NAME)?;
    text_of("description", body.description.as_ref(), TEXT)?;
    let public = match &body.visibility {
        None => None,
        some => Some(public_of(some.as_ref())?),
    };
    let changed = app
        .update_namespace(&request, request.param("namespace"), &body.namespace, |n| {
            n.display_name.clone_from(&body.display_name);
            n.description.clone_from(&body.description);
            n.public = public.unwrap_or(n.public);
            n.protected = body.protected.unwrap_or(n.protected);
            if let Some(owner) = &body.owner {
                n.owner = owner.as_str().into();
            }
        })
        .await?;
    Reply::json(200, &namespace_view(&body.namespace, &changed))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_namespace(&request, request.param("namespace")).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn resource_types(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let mut names: BTreeSet<String> = RESOURCE_TYPES.iter().map(|t| (*t).to_owned()).collect();
    for n in app.namespaces(&snapshot, &request)? {
        names.extend(n.resource_types.keys().cloned());
    }
    let all: Vec<Value> = names.iter().map(|n| json!({ "name": n })).collect();
    Reply::json(200, &json!({ "resource_types": all }))
}

pub(super) async fn associations_list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = app.namespace(&app.store.current().await?, &request, request.param("namespace"))?;
    Reply::json(200, &json!({"resource_type_associations": associations(&found.value)}))
}

pub(super) async fn associate(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, association) = association_of(request.json().await?)?;
    app.change_namespace(&request, request.param("namespace"), false, |n| {
        if n.resource_types.contains_key(&name) {
            return Err(duplicate("resource type association", &name));
        }
        n.resource_types.insert(name.clone(), association.clone());
        Ok(())
    })
    .await?;
    Reply::json(201, &association_view(&name, &association))
}

pub(super) async fn dissociate(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("name"));
    app.change_namespace(&request, namespace, true, |n| {
        n.resource_types
            .remove(name)
            .ok_or_else(|| missing("resource type association", name, namespace))
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn objects(app: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("namespace");
    let found = app.namespace(&app.store.current().await?, &request, name)?;
    let all: Vec<Value> = found.objects.iter().map(|(k, o)| object_view(name, k, o)).collect();
    Reply::json(
        200,
        &json!({"objects": all, "first": format!("/v2/metadefs/namespaces/{name}/objects"), "schema": "/v2/schemas/metadefs/objects"}),
    )
}

pub(super) async fn add_object(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, object) = object_of(request.json().await?)?;
    let namespace = request.param("namespace");
    app.change_namespace(&request, namespace, false, |n| {
        if n.objects.contains_key(&name) {
            return Err(duplicate("object", &name));
        }
        n.objects.insert(name.clone(), object.clone());
        Ok(())
    })
    .await?;
    Reply::json(201, &object_view(namespace, &name, &object))
}

pub(super) async fn object(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("object"));
    let found = app.namespace(&app.store.current().await?, &request, namespace)?;
    let object = found
        .objects
        .get(name)
        .ok_or_else(|| missing("object", name, namespace))?;
    Reply::json(200, &object_view(namespace, name, object))
}

pub(super) async fn update_object(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (to, object) = object_of(request.json().await?)?;
    let (namespace, name) = (request.param("namespace"), request.param("object"));
    let (_, changed) = app
        .change_namespace(&request, namespace, false, |n| {
            let old = n
                .objects
                .remove(name)
                .ok_or_else(|| missing("object", name, namespace))?;
            if n.objects.contains_key(&to) {
                return Err(duplicate("object", &to));
            }
            let mut new = object.clone();
            new.times.created_at = old.times.created_at;
            n.objects.insert(to.clone(), new.clone());
            Ok(new)
        })
        .await?;
    Reply::json(200, &object_view(namespace, &to, &changed))
}

pub(super) async fn remove_object(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("object"));
    app.change_namespace(&request, namespace, true, |n| {
        n.objects.remove(name).ok_or_else(|| missing("object", name, namespace))
    })
    .await?;
    Ok(Reply::empty(204))
}

fn named(mut property: Property) -> Result<(String, Property)> {
    let name = property
        .name
        .take()
        .ok_or_else(|| Error::invalid("name", "Invalid value for name: a property needs one."))?;
    property_of(&name, &property)?;
    Ok((name, property))
}

pub(super) async fn properties(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = app.namespace(&app.store.current().await?, &request, request.param("namespace"))?;
    Reply::json(200, &json!({"properties": found.properties}))
}

pub(super) async fn add_property(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (name, property) = named(request.json().await?)?;
    app.change_namespace(&request, request.param("namespace"), false, |n| {
        if n.properties.contains_key(&name) {
            return Err(duplicate("property", &name));
        }
        n.properties.insert(name.clone(), property.clone());
        Ok(())
    })
    .await?;
    let mut shown = property;
    shown.name = Some(name);
    Reply::json(201, &shown)
}

pub(super) async fn property(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("property"));
    let found = app.namespace(&app.store.current().await?, &request, namespace)?;
    // With a resource type the name may have the prefix that it has there.
    let prefix = request
        .query
        .get("resource_type")
        .and_then(|t| found.resource_types.get(t)?.prefix.clone());
    let bare = prefix.as_deref().and_then(|p| name.strip_prefix(p)).unwrap_or(name);
    let property = found
        .properties
        .get(bare)
        .ok_or_else(|| missing("property", name, namespace))?;
    property_view(name, property)
}

pub(super) async fn update_property(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (to, property) = named(request.json().await?)?;
    let (namespace, name) = (request.param("namespace"), request.param("property"));
    app.change_namespace(&request, namespace, false, |n| {
        n.properties
            .remove(name)
            .ok_or_else(|| missing("property", name, namespace))?;
        if n.properties.contains_key(&to) {
            return Err(duplicate("property", &to));
        }
        n.properties.insert(to.clone(), property.clone());
        Ok(())
    })
    .await?;
    property_view(&to, &property)
}

pub(super) async fn remove_property(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("property"));
    app.change_namespace(&request, namespace, true, |n| {
        n.properties
            .remove(name)
            .ok_or_else(|| missing("property", name, namespace))
    })
    .await?;
    Ok(Reply::empty(204))
}

fn tags_view(status: u16, name: &str, tags: &BTreeMap<String, Times>) -> Result<Reply> {
    let all: Vec<Value> = tags.keys().map(|k| json!({ "name": k })).collect();
    Reply::json(
        status,
        &json!({"tags": all, "first": format!("/v2/metadefs/namespaces/{name}/tags"), "schema": "/v2/schemas/metadefs/tags"}),
    )
}

pub(super) async fn tags(app: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("namespace");
    let found = app.namespace(&app.store.current().await?, &request, name)?;
    tags_view(200, name, &found.tags)
}

pub(super) async fn set_tags(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: TagsBody = request.json().await?;
    let tags = tags_of(body.tags)?;
    let name = request.param("namespace");
    let append = request
        .header("x-openstack-append")
        .is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let (changed, ()) = app
        .change_namespace(&request, name, false, |n| {
            if !append {
                n.tags.clear();
            }
            for (tag, times) in &tags {
                if n.tags.insert(tag.clone(), *times).is_some() {
                    return Err(duplicate("tag", tag));
                }
            }
            Ok(())
        })
        .await?;
    tags_view(201, name, &changed.tags)
}

pub(super) async fn clear_tags(app: Arc<App>, request: Request) -> Result<Reply> {
    app.change_namespace(&request, request.param("namespace"), true, |n| {
        n.tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn add_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let tag = request.param("tag").to_owned();
    name_of("name", &tag)?;
    let (_, times) = app
        .change_namespace(&request, request.param("namespace"), false, |n| {
            if n.tags.contains_key(&tag) {
                return Err(duplicate("tag", &tag));
            }
            let times = Times::new();
            n.tags.insert(tag.clone(), times);
            Ok(times)
        })
        .await?;
    Reply::json(201, &tag_view(&tag, &times))
}

pub(super) async fn tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("tag"));
    let found = app.namespace(&app.store.current().await?, &request, namespace)?;
    let times = found.tags.get(name).ok_or_else(|| missing("tag", name, namespace))?;
    Reply::json(200, &tag_view(name, times))
}

pub(super) async fn rename_tag(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: TagBody = request.json().await?;
    name_of("name", &body.name)?;
    let (namespace, name) = (request.param("namespace"), request.param("tag"));
    let (_, times) = app
        .change_namespace(&request, namespace, false, |n| {
            let mut times = n.tags.remove(name).ok_or_else(|| missing("tag", name, namespace))?;
            if n.tags.contains_key(&body.name) {
                return Err(duplicate("tag", &body.name));
            }
            times.updated_at = maru_base::time::now();
            n.tags.insert(body.name.clone(), times);
            Ok(times)
        })
        .await?;
    Reply::json(200, &tag_view(&body.name, &times))
}

pub(super) async fn remove_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let (namespace, name) = (request.param("namespace"), request.param("tag"));
    app.change_namespace(&request, namespace, true, |n| {
        n.tags.remove(name).ok_or_else(|| missing("tag", name, namespace))
    })
    .await?;
    Ok(Reply::empty(204))
}
