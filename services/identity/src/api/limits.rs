//! /v3/registered_limits and /v3/limits: unified limits, kept for the services that ask for them. The model is flat: a limit
//! of a project or domain stands for itself, without regard to what lies above or below.

use super::{
    catalog,
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::Wrapped,
};
use crate::App;
use maru_auth::{Scope, Target};
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{
    Limit, LimitId, Project, Region, RegionId, RegisteredLimit, RegisteredLimitId, Service, ServiceId, domain, project,
};
use maru_store::{Object, Snapshot, Txn};
use serde_json::{Value, json};
use std::sync::Arc;

/// As many in one request.
const AT_ONCE: usize = 100;
/// The largest limit (as upstream's column).
const MOST: i64 = 0x7fff_ffff;

fn registered(snapshot: &Snapshot, id: &str) -> Result<Object<RegisteredLimit>> {
    snapshot
        .get::<RegisteredLimit>(&RegisteredLimitId::from(id))
        .ok_or_else(|| not_found("registered limit", id))
}

fn limit(snapshot: &Snapshot, id: &str) -> Result<Object<Limit>> {
    snapshot
        .get::<Limit>(&LimitId::from(id))
        .ok_or_else(|| not_found("limit", id))
}

fn registered_view(base: &str, id: &RegisteredLimitId, r: &RegisteredLimit) -> Value {
    json!({"id": id, "service_id": r.service_id, "region_id": r.region_id, "resource_name": r.resource_name,
        "default_limit": r.default_limit, "description": r.description,
        "links": {"self": format!("{base}/v3/registered_limits/{id}")}})
}

fn limit_view(snapshot: &Snapshot, base: &str, id: &LimitId, l: &Limit) -> Value {
    let of = snapshot.get::<RegisteredLimit>(&l.registered);
    json!({"id": id, "project_id": l.project_id, "domain_id": l.domain_id,
        "service_id": of.as_ref().map(|r| &r.service_id), "region_id": of.as_ref().and_then(|r| r.region_id.as_ref()),
        "resource_name": of.as_ref().map(|r| &r.resource_name), "resource_limit": l.resource_limit,
        "description": l.description, "links": {"self": format!("{base}/v3/limits/{id}")}})
}

/// Which resource a request names.
#[derive(Clone)]
struct Resource {
    service_id: ServiceId,
    region_id: Option<RegionId>,
    name: String,
}

impl Resource {
    fn read(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            service_id: ServiceId::from(fields.required("service_id", 64)?),
            region_id: fields.nullable("region_id")?.flatten().map(RegionId::from),
            name: fields.required("resource_name", 255)?,
        })
    }
    fn scope(&self) -> String {
        RegisteredLimit::scope(&self.service_id, self.region_id.as_ref())
    }
    /// Refuses a service or region that is not there, and guards that they live.
    fn exists(&self, snapshot: &Snapshot, txn: &mut Txn) -> Result<()> {
        let bad = |name: &str, e: &Error| Error::invalid(name, e.message().to_owned());
        catalog::service(snapshot, &self.service_id).map_err(|e| bad("service_id", &e))?;
        txn.alive::<Service>(&self.service_id);
        if let Some(r) = &self.region_id {
            catalog::region(snapshot, r).map_err(|e| bad("region_id", &e))?;
            txn.alive::<Region>(r);
        }
        Ok(())
    }
}

fn taken(what: &str, name: &str) -> Error {
    Error::conflict(format!(
        "Conflict occurred attempting to store {what} - Duplicate entry for the resource {name}."
    ))
}

// Registered limits.

pub(super) async fn list_registered(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["service_id", "region_id", "resource_name"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<RegisteredLimit>()
        .filter(|r| {
            filters.pass(|name| match name {
                "service_id" => Some(r.service_id.as_str()),
                "region_id" => r.region_id.as_deref(),
                _ => Some(r.resource_name.as_str()),
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "registered_limits",
        &found,
        |r| &r.id,
        |r| registered_view(base, &r.id, &r.value),
    )
}

pub(super) async fn create_registered(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut wanted = Vec::new();
    for mut fields in Fields::read_many(&mut request, "registered_limits", AT_ONCE).await? {
        let resource = Resource::read(&mut fields)?;
        let default_limit = fields.integer("default_limit", -1, MOST)?.ok_or_else(|| {
            Error::invalid(
                "default_limit",
                "Invalid input for field 'default_limit': it is a required property.",
            )
        })?;
        let description = fields.nullable("description")?.flatten();
        fields.nothing_else()?;
        let value = RegisteredLimit {
            service_id: resource.service_id.clone(),
            region_id: resource.region_id.clone(),
            resource_name: resource.name.clone(),
            default_limit,
            description,
        };
        wanted.push((RegisteredLimitId::new_hex(), resource, value));
    }
    app.plan(|snapshot, txn| {
        let mut seen = std::collections::HashSet::new();
        for (id, resource, value) in &wanted {
            resource.exists(snapshot, txn)?;
            let scope = resource.scope();
            if snapshot.owner("registered-limit", &scope, &resource.name).is_some()
                || !seen.insert((scope.clone(), resource.name.clone()))
            {
                return Err(taken("registered_limit", &resource.name));
            }
            txn.create(id, value)
                .claim("registered-limit", &scope, &resource.name, id);
        }
        Ok(())
    })
    .await?;
    let views: Vec<Value> = wanted
        .iter()
        .map(|(id, _, value)| registered_view(&request.base, id, value))
        .collect();
    Reply::json(201, &Wrapped("registered_limits", views))
}

pub(super) async fn show_registered(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let r = registered(&app.snapshot(), request.param("id"))?;
    Reply::json(
        200,
        &Wrapped("registered_limit", registered_view(&request.base, &r.id, &r.value)),
    )
}

fn in_use(id: &str) -> Error {
    Error::forbidden(format!(
        "Unable to update or delete registered limit {id} because there are project limits associated with it."
    ))
}

pub(super) async fn update_registered(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    registered(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "registered_limit").await?;
    fields.not_empty("registered_limit")?;
    let service_id = fields.string("service_id", 1, 64)?.map(ServiceId::from);
    let region_id = fields.nullable("region_id")?.map(|r| r.map(RegionId::from));
    let name = fields.string("resource_name", 1, 255)?;
    let default_limit = fields.integer("default_limit", -1, MOST)?;
    let description = fields.nullable("description")?;
    fields.nothing_else()?;
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = registered(snapshot, &id)?;
            let mut value = (*read.value).clone();
            let resource = Resource {
                service_id: service_id.clone().unwrap_or_else(|| value.service_id.clone()),
                region_id: region_id.clone().unwrap_or_else(|| value.region_id.clone()),
                name: name.clone().unwrap_or_else(|| value.resource_name.clone()),
            };
            let before = RegisteredLimit::scope(&value.service_id, value.region_id.as_ref());
            if (before.as_str(), value.resource_name.as_str()) != (resource.scope().as_str(), resource.name.as_str()) {
                if snapshot.find::<Limit>("registered", &read.id).next().is_some() {
                    return Err(in_use(&read.id));
                }
                // No limit may come to it meanwhile.
                maru_identity_model::freeze(snapshot, txn);
                resource.exists(snapshot, txn)?;
                if snapshot
                    .owner("registered-limit", &resource.scope(), &resource.name)
                    .is_some()
                {
                    return Err(taken("registered_limit", &resource.name));
                }
                txn.release("registered-limit", &before, &value.resource_name).claim(
                    "registered-limit",
                    &resource.scope(),
                    &resource.name,
                    &read.id,
                );
                value.service_id = resource.service_id;
                value.region_id = resource.region_id;
                value.resource_name = resource.name;
            }
            value.default_limit = default_limit.unwrap_or(value.default_limit);
            if let Some(d) = &description {
                value.description.clone_from(d);
            }
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(
        200,
        &Wrapped("registered_limit", registered_view(&request.base, &id, &value)),
    )
}

pub(super) async fn delete_registered(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = registered(snapshot, request.param("id"))?;
        if snapshot.find::<Limit>("registered", &read.id).next().is_some() {
            return Err(in_use(&read.id));
        }
        maru_identity_model::freeze(snapshot, txn);
        let scope = RegisteredLimit::scope(&read.service_id, read.region_id.as_ref());
        txn.release("registered-limit", &scope, &read.resource_name);
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

// Limits.

/// Whether a caller sees a limit in its list: one with the whole system, or an administrator, all; else those of its own
/// domain or project.
fn sees(snapshot: &Snapshot, request: &Request, l: &Limit) -> bool {
    let Ok(caller) = request.caller() else { return false };
    match &caller.scope {
        _ if request.may("identity:create_limits", &Target::none()) => true,
        Scope::System => true,
        Scope::Domain(d) => {
            l.domain_id.as_ref() == Some(d)
                || l.project_id
                    .as_ref()
                    .is_some_and(|p| project(snapshot, p).is_some_and(|p| p.domain_id.as_ref() == Some(d)))
        }
        Scope::Project(p) => l.project_id.as_ref() == Some(p),
        Scope::Unscoped => false,
    }
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let filters = Filters::of(
        &request,
        &["service_id", "region_id", "resource_name", "project_id", "domain_id"],
    );
    let found: Vec<_> = snapshot
        .list::<Limit>()
        .filter(|l| sees(&snapshot, &request, l))
        .filter(|l| {
            let of = snapshot.get::<RegisteredLimit>(&l.registered);
            filters.pass(|name| match name {
                "service_id" => of.as_ref().map(|r| r.service_id.as_str()),
                "region_id" => of.as_ref().and_then(|r| r.region_id.as_deref()),
                "resource_name" => of.as_ref().map(|r| r.resource_name.as_str()),
                "project_id" => l.project_id.as_deref(),
                _ => l.domain_id.as_deref(),
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "limits",
        &found,
        |l| &l.id,
        |l| limit_view(&snapshot, base, &l.id, &l.value),
    )
}

pub(super) async fn model(_: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    Reply::json(
        200,
        &json!({"model": {"name": "flat",
            "description": "Limit enforcement and validation does not take project hierarchy into consideration."}}),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut wanted = Vec::new();
    for mut fields in Fields::read_many(&mut request, "limits", AT_ONCE).await? {
        let resource = Resource::read(&mut fields)?;
        let resource_limit = fields.integer("resource_limit", -1, MOST)?.ok_or_else(|| {
            Error::invalid(
                "resource_limit",
                "Invalid input for field 'resource_limit': it is a required property.",
            )
        })?;
        let project_id = fields.id("project_id")?.flatten().map(ProjectId::from);
        let domain_id = fields.id("domain_id")?.flatten().map(DomainId::from);
        if project_id.is_some() == domain_id.is_some() {
            return Err(Error::invalid(
                "project_id",
                "Invalid input for field 'project_id': name either project_id or domain_id.",
            ));
        }
        let description = fields.nullable("description")?.flatten();
        fields.nothing_else()?;
        let value = Limit {
            registered: RegisteredLimitId::from(""),
            project_id,
            domain_id,
            resource_limit,
            description,
        };
        wanted.push((LimitId::new_hex(), resource, value));
    }
    let made = app
        .plan(|snapshot, txn| {
            let mut made: Vec<(LimitId, Limit)> = Vec::new();
            for (id, resource, value) in &wanted {
                resource.exists(snapshot, txn)?;
                let registered = snapshot
                    .owner("registered-limit", &resource.scope(), &resource.name)
                    .map(RegisteredLimitId::from)
                    .ok_or_else(|| {
                        Error::forbidden(format!(
                            "Unable to create a limit that has no corresponding registered limit: register {} first.",
                            resource.name
                        ))
                    })?;
                if let Some(p) = &value.project_id {
                    project(snapshot, p)
                        .filter(|p| !p.is_domain)
                        .ok_or_else(|| Error::invalid("project_id", format!("Could not find project: {p}.")))?;
                    txn.alive::<Project>(p);
                }
                if let Some(d) = &value.domain_id {
                    domain(snapshot, d)
                        .ok_or_else(|| Error::invalid("domain_id", format!("Could not find domain: {d}.")))?;
                    txn.alive::<Project>(&ProjectId::from(d.as_str()));
                }
                let mut value = value.clone();
                value.registered = registered;
                if snapshot.owner("limit", &value.registered, &value.whose()).is_some()
                    || made
                        .iter()
                        .any(|(_, m)| m.registered == value.registered && m.whose() == value.whose())
                {
                    return Err(taken("limit", &resource.name));
                }
                txn.alive::<RegisteredLimit>(&value.registered);
                txn.create(id, &value)
                    .claim("limit", &value.registered, &value.whose(), id);
                made.push((id.clone(), value));
            }
            Ok(made)
        })
        .await?;
    let snapshot = app.snapshot();
    let views: Vec<Value> = made
        .iter()
        .map(|(id, value)| limit_view(&snapshot, &request.base, id, value))
        .collect();
    Reply::json(201, &Wrapped("limits", views))
}

/// The target of a rule about a limit: whose it is.
fn target(snapshot: &Snapshot, id: &str) -> Target {
    let Ok(l) = limit(snapshot, id) else {
        return Target::none();
    };
    let mut target = Target::none();
    if let Some(p) = &l.project_id {
        target = target.with("target.limit.project_id", p);
        if let Some(d) = project(snapshot, p).and_then(|p| p.domain_id.clone()) {
            target = target.with("target.limit.project.domain_id", &d);
        }
    }
    if let Some(d) = &l.domain_id {
        target = target.with("target.limit.domain.id", d);
    }
    target
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let l = limit(&snapshot, request.param("id"))?;
    Reply::json(
        200,
        &Wrapped("limit", limit_view(&snapshot, &request.base, &l.id, &l.value)),
    )
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    limit(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "limit").await?;
    fields.not_empty("limit")?;
    let resource_limit = fields.integer("resource_limit", -1, MOST)?;
    let description = fields.nullable("description")?;
    fields.nothing_else()?;
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = limit(snapshot, &id)?;
            let mut value = (*read.value).clone();
            value.resource_limit = resource_limit.unwrap_or(value.resource_limit);
            if let Some(d) = &description {
                value.description.clone_from(d);
            }
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(
        200,
        &Wrapped("limit", limit_view(&app.snapshot(), &request.base, &id, &value)),
    )
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = limit(snapshot, request.param("id"))?;
        txn.release("limit", &read.registered, &read.whose());
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
