//! /v3/OS-FEDERATION: identity providers, their protocols, and mappings.

use super::{
    fields::Fields,
    lists::{self, Filters, flag},
    not_found,
    views::Wrapped,
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{
    IdentityProvider, IdentityProviderId, MAPPING_VERSIONS, Mapping, MappingId, Project, Protocol, check_mapping,
};
use maru_store::{Object, Snapshot, Txn};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Longest id of a thing of federation, in characters.
const MAX_ID: usize = 64;
/// Longest remote id, in characters: of newer Keystones.
const MAX_REMOTE: usize = 255;

/// The id in the address, where it may become one.
pub(super) fn new_id(request: &Request, name: &str) -> Result<String> {
    let id = request.param(name);
    if id.is_empty() || id.chars().count() > MAX_ID || id.chars().any(char::is_control) {
        return Err(Error::invalid(
            "id",
            format!("Invalid input for field 'id': 1 to {MAX_ID} printable characters are wanted."),
        ));
    }
    Ok(id.to_owned())
}

/// The 409 of an id that is taken.
pub(super) fn taken(what: &str, id: &str) -> Error {
    Error::conflict(format!(
        "Conflict occurred attempting to store {what} - Duplicate entry found with ID {id}. Choose another."
    ))
}

fn provider(snapshot: &Snapshot, id: &str) -> Result<Object<IdentityProvider>> {
    snapshot
        .get::<IdentityProvider>(&IdentityProviderId::from(id))
        .ok_or_else(|| not_found("Identity Provider", id))
}

fn provider_view(base: &str, id: &str, p: &IdentityProvider) -> Value {
    let this = format!("{base}/v3/OS-FEDERATION/identity_providers/{id}");
    json!({"id": id, "domain_id": p.domain_id, "remote_ids": p.remote_ids, "enabled": p.enabled, "description": p.description,
        "authorization_ttl": p.authorization_ttl, "links": {"protocols": format!("{this}/protocols"), "self": this}})
}

/// What a body says of an identity provider besides its domain.
struct ProviderFields {
    remote_ids: Option<Vec<String>>,
    enabled: Option<bool>,
    description: Option<Option<String>>,
    authorization_ttl: Option<Option<u32>>,
}

fn provider_fields(fields: &mut Fields) -> Result<ProviderFields> {
    let bad = |why: &str| Error::invalid("remote_ids", format!("Invalid input for field 'remote_ids': {why}."));
    let remote_ids = match fields.take("remote_ids") {
        None => None,
        Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => {
            let mut ids: Vec<String> = Vec::new();
            for item in items {
                match item {
                    Value::String(id) if id.chars().count() <= MAX_REMOTE && !ids.contains(&id) => ids.push(id),
                    _ => {
                        return Err(bad(&format!(
                            "different strings of at most {MAX_REMOTE} characters are wanted"
                        )));
                    }
                }
            }
            Some(ids)
        }
        Some(_) => return Err(bad("a list or null is wanted")),
    };
    let authorization_ttl = match fields.take("authorization_ttl") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(v) => match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Some(Some(n)),
            None => {
                return Err(Error::invalid(
                    "authorization_ttl",
                    "Invalid input for field 'authorization_ttl': minutes, 0 or more, or null are wanted.",
                ));
            }
        },
    };
    Ok(ProviderFields {
        remote_ids,
        enabled: fields.bool("enabled")?,
        description: fields.nullable("description")?,
        authorization_ttl,
    })
}

/// Takes remote ids for a provider instead of those that it had.
fn claim_remotes(snapshot: &Snapshot, txn: &mut Txn, id: &str, before: &[String], after: &[String]) -> Result<()> {
    for gone in before.iter().filter(|r| !after.contains(r)) {
        txn.release("identity-provider-remote", "", gone);
    }
    for new in after.iter().filter(|r| !before.contains(r)) {
        if snapshot.owner("identity-provider-remote", "", new).is_some() {
            return Err(Error::conflict(format!(
                "Conflict occurred attempting to store identity_provider - Duplicate remote ID: {new}. It is another provider's."
            )));
        }
        txn.claim("identity-provider-remote", "", new, id);
    }
    Ok(())
}

pub(super) async fn list_providers(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["id", "enabled"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<IdentityProvider>()
        .filter(|p| {
            filters.pass(|name| match name {
                "id" => Some(p.id.as_str()),
                _ => flag(p.enabled),
            })
        })
        .collect();
    let base = request.base.as_str();
    let view = |p: &Object<IdentityProvider>| provider_view(base, &p.id, &p.value);
    lists::paged(&request, "identity_providers", &found, |p| &p.id, view)
}

pub(super) async fn create_provider(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = IdentityProviderId::from(new_id(&request, "id")?);
    let mut fields = Fields::read(&mut request, "identity_provider").await?;
    let given = provider_fields(&mut fields)?;
    let domain = fields.id("domain_id")?.flatten().map(DomainId::from);
    fields.nothing_else()?;
    // Its users come to be in a domain of its own, if none is named.
    let own = ProjectId::new_hex();
    let value = app
        .plan(|snapshot, txn| {
            if snapshot.get::<IdentityProvider>(&id).is_some() {
                return Err(taken("identity_provider", &id));
            }
            let domain_id = match &domain {
                Some(domain) => {
                    let key = ProjectId::from(domain.as_str());
                    if !snapshot.get::<Project>(&key).is_some_and(|p| p.is_domain) {
                        return Err(not_found("domain", domain));
                    }
                    txn.alive::<Project>(&key);
                    domain.clone()
                }
                None => {
                    plan_domain(txn, &own, &id);
                    DomainId::from(own.as_str())
                }
            };
            let value = IdentityProvider {
                domain_id,
                remote_ids: given.remote_ids.clone().unwrap_or_default(),
                enabled: given.enabled.unwrap_or(false),
                description: given.description.clone().flatten(),
                authorization_ttl: given.authorization_ttl.flatten(),
            };
            claim_remotes(snapshot, txn, &id, &[], &value.remote_ids)?;
            txn.create(&id, &value);
            Ok(value)
        })
        .await?;
    let view = provider_view(&request.base, &id, &value);
    Reply::json(201, &Wrapped("identity_provider", view))
}

/// A domain for the users of an identity provider, named by its own id.
fn plan_domain(txn: &mut Txn, id: &ProjectId, provider: &str) {
    let domain = Project {
        name: id.to_string(),
        domain_id: None,
        parent_id: None,
        description: format!("Auto generated federated domain for Identity Provider: {provider}"),
        enabled: true,
        is_domain: true,
        tags: Vec::new(),
        options: Map::new(),
        extra: Map::new(),
    };
    txn.create(id, &domain).claim("domain", "", &domain.name, id);
}

pub(super) async fn show_provider(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let p = provider(&app.snapshot(), request.param("id"))?;
    let view = provider_view(&request.base, &p.id, &p.value);
    Reply::json(200, &Wrapped("identity_provider", view))
}

pub(super) async fn update_provider(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    provider(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "identity_provider").await?;
    fields.not_empty("identity_provider")?;
    let given = provider_fields(&mut fields)?;
    fields.nothing_else()?;
    let value = app
        .plan(|snapshot, txn| {
            let read = provider(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(remote_ids) = &given.remote_ids {
                claim_remotes(snapshot, txn, &id, &value.remote_ids, remote_ids)?;
                value.remote_ids.clone_from(remote_ids);
            }
            value.enabled = given.enabled.unwrap_or(value.enabled);
            if let Some(text) = &given.description {
                value.description.clone_from(text);
            }
            value.authorization_ttl = given.authorization_ttl.unwrap_or(value.authorization_ttl);
            txn.update(&read, &value);
            Ok(value)
        })
        .await?;
    let view = provider_view(&request.base, &id, &value);
    Reply::json(200, &Wrapped("identity_provider", view))
}

pub(super) async fn delete_provider(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = provider(snapshot, request.param("id"))?;
        Cascade::new(snapshot, txn).identity_provider(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn protocol(snapshot: &Snapshot, request: &Request) -> Result<Object<Protocol>> {
    let (of, name) = (request.param("id"), request.param("protocol_id"));
    snapshot.get::<Protocol>(&Protocol::id(of, name)).ok_or_else(|| {
        Error::not_found(format!(
            "Could not find federated protocol {name} for Identity Provider: {of}."
        ))
    })
}

/// A protocol; in lists with all that it has.
fn protocol_view(base: &str, p: &Protocol, listed: bool) -> Value {
    let of = format!("{base}/v3/OS-FEDERATION/identity_providers/{}", p.idp_id);
    let mut view = json!({"id": p.name, "mapping_id": p.mapping_id,
        "links": {"self": format!("{of}/protocols/{}", p.name), "identity_provider": of}});
    if listed {
        view["idp_id"] = json!(p.idp_id);
    }
    if listed || p.remote_id_attribute.is_some() {
        view["remote_id_attribute"] = json!(p.remote_id_attribute);
    }
    view
}

/// The mapping and the attribute that a body names.
async fn protocol_fields(request: &mut Request) -> Result<(MappingId, Option<Option<String>>)> {
    let mut fields = Fields::read(request, "protocol").await?;
    let mapping = MappingId::from(fields.required("mapping_id", MAX_ID)?);
    let attribute = fields.nullable("remote_id_attribute")?;
    if attribute
        .as_ref()
        .is_some_and(|a| a.as_ref().is_some_and(|a| a.chars().count() > MAX_ID))
    {
        return Err(Error::invalid(
            "remote_id_attribute",
            format!("Invalid input for field 'remote_id_attribute': at most {MAX_ID} characters are wanted."),
        ));
    }
    fields.nothing_else()?;
    Ok((mapping, attribute))
}

/// Upstream's refusal of a mapping that is not there; one that goes later leaves its protocols.
fn check_mapping_there(snapshot: &Snapshot, txn: &mut Txn, id: &MappingId) -> Result<()> {
    if snapshot.get::<Mapping>(id).is_none() {
        return Err(Error::bad_request(format!("Invalid mapping id: {id}")).with_field("mapping_id"));
    }
    txn.alive::<Mapping>(id);
    Ok(())
}

pub(super) async fn list_protocols(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let of = provider(&snapshot, request.param("id"))?;
    let found: Vec<_> = snapshot.find::<Protocol>("idp", &of.id).collect();
    let base = request.base.as_str();
    let view = |p: &Object<Protocol>| protocol_view(base, &p.value, true);
    lists::paged(&request, "protocols", &found, |p| &p.name, view)
}

pub(super) async fn create_protocol(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let of = IdentityProviderId::from(request.param("id"));
    let name = new_id(&request, "protocol_id")?;
    let (mapping_id, attribute) = protocol_fields(&mut request).await?;
    let value = Protocol {
        idp_id: of.clone(),
        name,
        mapping_id,
        remote_id_attribute: attribute.flatten(),
    };
    let id = Protocol::id(&of, &value.name);
    app.plan(|snapshot, txn| {
        provider(snapshot, &of)?;
        txn.alive::<IdentityProvider>(&of);
        if snapshot.get::<Protocol>(&id).is_some() {
            return Err(taken("federation_protocol", &value.name));
        }
        check_mapping_there(snapshot, txn, &value.mapping_id)?;
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("protocol", protocol_view(&request.base, &value, false)))
}

pub(super) async fn show_protocol(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let p = protocol(&app.snapshot(), &request)?;
    Reply::json(200, &Wrapped("protocol", protocol_view(&request.base, &p.value, false)))
}

pub(super) async fn update_protocol(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    protocol(&app.snapshot(), &request)?;
    let (mapping_id, attribute) = protocol_fields(&mut request).await?;
    let value = app
        .plan(|snapshot, txn| {
            let read = protocol(snapshot, &request)?;
            check_mapping_there(snapshot, txn, &mapping_id)?;
            let mut value = (*read.value).clone();
            value.mapping_id = mapping_id.clone();
            if let Some(attribute) = &attribute {
                value.remote_id_attribute.clone_from(attribute);
            }
            txn.update(&read, &value);
            Ok(value)
        })
        .await?;
    Reply::json(200, &Wrapped("protocol", protocol_view(&request.base, &value, false)))
}

pub(super) async fn delete_protocol(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = protocol(snapshot, &request)?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn mapping(snapshot: &Snapshot, id: &str) -> Result<Object<Mapping>> {
    snapshot
        .get::<Mapping>(&MappingId::from(id))
        .ok_or_else(|| not_found("mapping", id))
}

fn mapping_view(base: &str, id: &str, m: &Mapping) -> Value {
    json!({"id": id, "rules": m.rules, "schema_version": m.schema_version,
        "links": {"self": format!("{base}/v3/OS-FEDERATION/mappings/{id}")}})
}

async fn mapping_fields(request: &mut Request) -> Result<(Value, Option<String>)> {
    let mut fields = Fields::read(request, "mapping").await?;
    let rules = fields
        .take("rules")
        .ok_or_else(|| Error::invalid("rules", "Invalid input for field 'rules': it is a required property."))?;
    // The stock client says the id of the address once more.
    if fields.id("id")?.flatten().is_some_and(|id| id != request.param("id")) {
        return Err(Error::invalid(
            "id",
            "Invalid input for field 'id': it is not the one of the address.",
        ));
    }
    let version = fields.nullable("schema_version")?.flatten();
    if let Some(v) = version.as_ref().filter(|v| !MAPPING_VERSIONS.contains(&v.as_str())) {
        return Err(Error::invalid(
            "schema_version",
            format!(
                "Invalid input for field 'schema_version': '{v}' is not one of {}.",
                MAPPING_VERSIONS.join(", ")
            ),
        ));
    }
    fields.nothing_else()?;
    Ok((rules, version))
}

pub(super) async fn list_mappings(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let found: Vec<_> = app.snapshot().list::<Mapping>().collect();
    let base = request.base.as_str();
    let view = |m: &Object<Mapping>| mapping_view(base, &m.id, &m.value);
    lists::paged(&request, "mappings", &found, |m| &m.id, view)
}

pub(super) async fn create_mapping(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = MappingId::from(new_id(&request, "id")?);
    let (rules, version) = mapping_fields(&mut request).await?;
    let value = Mapping {
        rules,
        schema_version: version.unwrap_or_else(|| "1.0".to_owned()),
    };
    check_mapping(&value.rules, &value.schema_version)?;
    app.plan(|snapshot, txn| {
        if snapshot.get::<Mapping>(&id).is_some() {
            return Err(taken("mapping", &id));
        }
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("mapping", mapping_view(&request.base, &id, &value)))
}

pub(super) async fn show_mapping(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let m = mapping(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("mapping", mapping_view(&request.base, &m.id, &m.value)))
}

pub(super) async fn update_mapping(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    mapping(&app.snapshot(), &id)?;
    let (rules, version) = mapping_fields(&mut request).await?;
    let value = app
        .plan(|snapshot, txn| {
            let read = mapping(snapshot, &id)?;
            let value = Mapping {
                rules: rules.clone(),
                schema_version: version.clone().unwrap_or_else(|| read.schema_version.clone()),
            };
            check_mapping(&value.rules, &value.schema_version)?;
            txn.update(&read, &value);
            Ok(value)
        })
        .await?;
    Reply::json(200, &Wrapped("mapping", mapping_view(&request.base, &id, &value)))
}

pub(super) async fn delete_mapping(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = mapping(snapshot, request.param("id"))?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
