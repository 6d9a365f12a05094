//! /v3/domains.

use super::{
    duplicate,
    fields::{Fields, merge_options},
    lists::{self, Filters, flag},
    not_found,
    views::{self, Wrapped},
};
use crate::{
    App,
    app::cascade::{Cascade, revoke_project},
};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::Project;
use maru_store::{Object, Snapshot};
use serde_json::Map;
use std::sync::Arc;

fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Project>> {
    snapshot
        .get::<Project>(&ProjectId::from(id))
        .filter(|p| p.is_domain)
        .ok_or_else(|| not_found("domain", id))
}

fn target(id: &str) -> Target {
    Target::none().with("target.domain.id", id).with("domain_id", id)
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["name", "enabled"]);
    let found: Vec<_> = snapshot
        .find::<Project>("is_domain", "true")
        .filter(|d| {
            filters.pass(|name| match name {
                "name" => Some(d.name.as_str()),
                "enabled" => flag(d.enabled),
                _ => None,
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "domains",
        &found,
        |d| &d.id,
        |d| views::domain(base, &d.id, &d.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "domain").await?;
    let name = fields.required_name(64)?;
    let description = fields.nullable("description")?.flatten().unwrap_or_default();
    let enabled = fields.bool("enabled")?.unwrap_or(true);
    let options = fields.options(&["immutable"])?;
    let tags = fields.tags()?.unwrap_or_default();
    let id = match fields.id("explicit_domain_id")?.flatten() {
        Some(id) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => ProjectId::from(id.to_lowercase()),
        Some(_) => {
            return Err(Error::invalid(
                "explicit_domain_id",
                "Invalid input for field 'explicit_domain_id': 32 hexadecimal digits are wanted.",
            ));
        }
        None => ProjectId::new_hex(),
    };
    let mut value = Project {
        name,
        domain_id: None,
        parent_id: None,
        description,
        enabled,
        is_domain: true,
        tags,
        options: Map::new(),
        extra: fields.rest(),
    };
    merge_options(&mut value.options, options.unwrap_or_default());
    store(&app, &id, &value).await?;
    Reply::json(201, &Wrapped("domain", views::domain(&request.base, &id, &value)))
}

/// Stores a new domain.
pub(super) async fn store(app: &App, id: &ProjectId, value: &Project) -> Result<()> {
    app.plan(|snapshot, txn| {
        if snapshot.owner("domain", "", &value.name).is_some() {
            return Err(duplicate("domain", &value.name));
        }
        if snapshot.get::<Project>(id).is_some() {
            return Err(Error::conflict(format!(
                "Conflict occurred attempting to store domain - Duplicate ID, {id}. Choose another."
            )));
        }
        txn.create(id, value).claim("domain", "", &value.name, id);
        Ok(())
    })
    .await
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = load(&app.snapshot(), request.param("id"));
    request.authorize(&target(request.param("id")))?;
    let domain = found?;
    Reply::json(
        200,
        &Wrapped("domain", views::domain(&request.base, &domain.id, &domain.value)),
    )
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&id))?;
    load(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "domain").await?;
    fields.not_empty("domain")?;
    let name = fields.name(64)?;
    let description = fields.nullable("description")?;
    let enabled = fields.bool("enabled")?;
    let options = fields.options(&["immutable"])?;
    let tags = fields.tags()?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            let frees = options
                .as_ref()
                .is_some_and(|o| o.get("immutable").is_some_and(|v| v != true));
            if read.immutable() && !frees {
                return Err(immutable("domain", &id));
            }
            if let Some(name) = &name
                && *name != value.name
            {
                if snapshot.owner("domain", "", name).is_some() {
                    return Err(duplicate("domain", name));
                }
                txn.release("domain", "", &value.name)
                    .claim("domain", "", name, &read.id);
                value.name.clone_from(name);
            }
            if let Some(d) = &description {
                value.description = d.clone().unwrap_or_default();
            }
            if let Some(e) = enabled {
                if value.enabled && !e {
                    revoke_project(txn, &read.id, true);
                }
                value.enabled = e;
            }
            if let Some(t) = &tags {
                value.tags.clone_from(t);
            }
            merge_options(&mut value.options, options.clone().unwrap_or_default());
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("domain", views::domain(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&id))?;
    app.plan(|snapshot, txn| {
        let domain = load(snapshot, &id)?;
        if domain.immutable() {
            return Err(immutable("domain", &id));
        }
        Cascade::new(snapshot, txn).domain(&domain)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The 403 of a resource whose option `immutable` is on.
pub(super) fn immutable(what: &str, id: &str) -> Error {
    Error::forbidden(format!(
        "Cannot change or delete the {what} {id}: it is immutable. Set its option immutable to false first."
    ))
}
