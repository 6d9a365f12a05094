//! /v3/OS-FEDERATION/service_providers: other clouds that take this one's word. Tokens name those that are enabled.

use super::{
    federation::{new_id, taken},
    fields::Fields,
    lists::{self, Filters, flag},
    not_found,
    views::Wrapped,
};
use crate::App;
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{ServiceProvider, ServiceProviderId};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

/// Keystone's `[saml] relay_state_prefix`.
const RELAY_STATE: &str = "ss:mem:";
/// Longest address, in characters.
const MAX_URL: usize = 225;

fn load(snapshot: &Snapshot, id: &str) -> Result<Object<ServiceProvider>> {
    snapshot
        .get::<ServiceProvider>(&ServiceProviderId::from(id))
        .ok_or_else(|| not_found("Service Provider", id))
}

fn view(base: &str, id: &str, p: &ServiceProvider) -> Value {
    json!({"id": id, "auth_url": p.auth_url, "sp_url": p.sp_url, "enabled": p.enabled, "description": p.description,
        "relay_state_prefix": p.relay_state_prefix,
        "links": {"self": format!("{base}/v3/OS-FEDERATION/service_providers/{id}")}})
}

/// What a body says; nothing but what is there.
struct Given {
    auth_url: Option<String>,
    sp_url: Option<String>,
    enabled: Option<bool>,
    description: Option<Option<String>>,
    relay_state_prefix: Option<Option<String>>,
}

fn url(fields: &mut Fields, name: &str) -> Result<Option<String>> {
    let Some(text) = fields.string(name, 1, MAX_URL)? else {
        return Ok(None);
    };
    let rest = ["http://", "https://"].into_iter().find_map(|s| text.strip_prefix(s));
    if rest.is_some_and(|r| !r.is_empty() && !r.starts_with('/')) && !text.contains(char::is_whitespace) {
        return Ok(Some(text));
    }
    Err(Error::invalid(
        name,
        format!("Invalid input for field '{name}': an http or https address is wanted."),
    ))
}

async fn given(request: &mut Request, whole: bool) -> Result<Given> {
    let mut fields = Fields::read(request, "service_provider").await?;
    fields.not_empty("service_provider")?;
    let given = Given {
        auth_url: url(&mut fields, "auth_url")?,
        sp_url: url(&mut fields, "sp_url")?,
        enabled: fields.bool("enabled")?,
        description: fields.nullable("description")?,
        relay_state_prefix: fields.nullable("relay_state_prefix")?,
    };
    fields.nothing_else()?;
    for (name, there) in [("auth_url", &given.auth_url), ("sp_url", &given.sp_url)] {
        if whole && there.is_none() {
            return Err(Error::invalid(
                name,
                format!("Invalid input for field '{name}': it is a required property."),
            ));
        }
    }
    Ok(given)
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["id", "enabled"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<ServiceProvider>()
        .filter(|p| {
            filters.pass(|name| match name {
                "id" => Some(p.id.as_str()),
                _ => flag(p.enabled),
            })
        })
        .collect();
    let base = request.base.as_str();
    let view = |p: &Object<ServiceProvider>| view(base, &p.id, &p.value);
    lists::paged(&request, "service_providers", &found, |p| &p.id, view)
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = ServiceProviderId::from(new_id(&request, "id")?);
    let given = given(&mut request, true).await?;
    let value = ServiceProvider {
        auth_url: given.auth_url.unwrap_or_default(),
        sp_url: given.sp_url.unwrap_or_default(),
        enabled: given.enabled.unwrap_or(false),
        description: given.description.flatten(),
        relay_state_prefix: given.relay_state_prefix.unwrap_or_else(|| Some(RELAY_STATE.to_owned())),
    };
    app.plan(|snapshot, txn| {
        if snapshot.get::<ServiceProvider>(&id).is_some() {
            return Err(taken("service_provider", &id));
        }
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("service_provider", view(&request.base, &id, &value)))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let p = load(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("service_provider", view(&request.base, &p.id, &p.value)))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    load(&app.snapshot(), &id)?;
    let given = given(&mut request, false).await?;
    let value = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(url) = &given.auth_url {
                value.auth_url.clone_from(url);
            }
            if let Some(url) = &given.sp_url {
                value.sp_url.clone_from(url);
            }
            value.enabled = given.enabled.unwrap_or(value.enabled);
            if let Some(text) = &given.description {
                value.description.clone_from(text);
            }
            if let Some(text) = &given.relay_state_prefix {
                value.relay_state_prefix.clone_from(text);
            }
            txn.update(&read, &value);
            Ok(value)
        })
        .await?;
    Reply::json(200, &Wrapped("service_provider", view(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = load(snapshot, request.param("id"))?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
