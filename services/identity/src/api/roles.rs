//! /v3/roles, implied roles and /v3/role_inferences.

use super::{
    domains::immutable,
    duplicate,
    fields::{Fields, merge_options},
    lists::{self, Filters},
    not_found,
    views::{self, Links, Wrapped},
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{Implication, Project, Role, RoleId, domain, expand_implied};
use maru_store::{Object, Snapshot};
use serde::Serialize;
use serde_json::Map;
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Role>> {
    snapshot
        .get::<Role>(&RoleId::from(id))
        .ok_or_else(|| not_found("role", id))
}

/// Checks the route's rule, or for a domain's role the rule of its own.
fn authorize(request: &Request, role: Option<&Role>, rule_for_domain: &str) -> Result<()> {
    match role.and_then(|r| r.domain_id.as_ref()) {
        Some(d) => request.authorize_rule(rule_for_domain, &Target::none().with("target.role.domain_id", d)),
        None => request.authorize(&Target::none().with("target.role.domain_id", "None")),
    }
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let domain_id = request.query.get("domain_id").unwrap_or("");
    if domain_id.is_empty() {
        request.authorize(&Target::none())?;
    } else {
        request.authorize_rule("identity:list_domain_roles", &Target::none())?;
    }
    let filters = Filters::of(&request, &["name"]);
    let found: Vec<_> = app
        .snapshot()
        .find::<Role>("domain", domain_id)
        .filter(|r| filters.pass(|name| (name == "name").then_some(r.name.as_str())))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "roles",
        &found,
        |r| &r.id,
        |r| views::role(base, &r.id, &r.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut fields = Fields::read(&mut request, "role").await?;
    let name = fields.required_name(255)?;
    let description = fields.nullable("description")?.flatten();
    let domain_id = fields.id("domain_id")?.flatten().map(DomainId::from);
    let options = fields.options(&["immutable"])?;
    let mut value = Role {
        name,
        domain_id,
        description,
        options: Map::new(),
        extra: fields.rest(),
    };
    merge_options(&mut value.options, options.unwrap_or_default());
    authorize(&request, Some(&value), "identity:create_domain_role")?;
    let id = RoleId::new_hex();
    app.plan(|snapshot, txn| {
        let scope = value.domain_id.as_ref().map_or("", |d| d.as_str());
        if let Some(d) = &value.domain_id {
            if domain(snapshot, d).is_none() {
                return Err(not_found("domain", d));
            }
            txn.alive::<Project>(&ProjectId::from(d.as_str()));
        }
        if snapshot.owner("role", scope, &value.name).is_some() {
            return Err(duplicate("role", &value.name));
        }
        txn.create(&id, &value).claim("role", scope, &value.name, &id);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("role", views::role(&request.base, &id, &value)))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = load(&app.snapshot(), request.param("id"));
    authorize(
        &request,
        found.as_ref().ok().map(|r| &*r.value),
        "identity:get_domain_role",
    )?;
    let role = found?;
    Reply::json(200, &Wrapped("role", views::role(&request.base, &role.id, &role.value)))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let found = load(&app.snapshot(), &id);
    authorize(
        &request,
        found.as_ref().ok().map(|r| &*r.value),
        "identity:update_domain_role",
    )?;
    found?;
    let mut fields = Fields::read(&mut request, "role").await?;
    fields.not_empty("role")?;
    let name = fields.name(255)?;
    let description = fields.nullable("description")?;
    let options = fields.options(&["immutable"])?;
    let domain_id = fields.id("domain_id")?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if domain_id
                .as_ref()
                .is_some_and(|d| d.as_deref() != value.domain_id.as_deref())
            {
                return Err(Error::invalid(
                    "domain_id",
                    "Update of `domain_id` of a role is not allowed.",
                ));
            }
            let frees = options
                .as_ref()
                .is_some_and(|o| o.get("immutable").is_some_and(|v| v != true));
            if read.immutable() && !frees {
                return Err(immutable("role", &id));
            }
            if let Some(name) = &name
                && *name != value.name
            {
                let scope = value.domain_id.as_ref().map_or("", |d| d.as_str());
                if snapshot.owner("role", scope, name).is_some() {
                    return Err(duplicate("role", name));
                }
                txn.release("role", scope, &value.name)
                    .claim("role", scope, name, &read.id);
                value.name.clone_from(name);
            }
            if let Some(d) = &description {
                value.description.clone_from(d);
            }
            merge_options(&mut value.options, options.clone().unwrap_or_default());
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("role", views::role(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let found = load(&app.snapshot(), &id);
    authorize(
        &request,
        found.as_ref().ok().map(|r| &*r.value),
        "identity:delete_domain_role",
    )?;
    app.plan(|snapshot, txn| {
        let role = load(snapshot, &id)?;
        if role.immutable() {
            return Err(immutable("role", &id));
        }
        Cascade::new(snapshot, txn).role(&role);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// A role as the implied-roles API shows it.
#[derive(Serialize)]
struct Brief {
    id: String,
    name: String,
    links: Links,
}

fn brief(base: &str, r: &Object<Role>) -> Brief {
    Brief {
        id: r.id.to_string(),
        name: r.name.clone(),
        links: Links::new(base, "roles", &r.id),
    }
}

#[derive(Serialize)]
struct Inference {
    prior_role: Brief,
    implies: Brief,
}

#[derive(Serialize)]
struct Inferences {
    prior_role: Brief,
    implies: Vec<Brief>,
}

#[derive(Serialize)]
struct Linked<T> {
    #[serde(flatten)]
    inner: T,
    links: serde_json::Value,
}

fn pair(snapshot: &Snapshot, request: &Request) -> Result<(Object<Role>, Object<Role>, Implication)> {
    let prior = load(snapshot, request.param("id"))?;
    let implied = load(snapshot, request.param("implied_id"))?;
    let i = Implication {
        prior: prior.id.clone(),
        implied: implied.id.clone(),
    };
    Ok((prior, implied, i))
}

fn no_rule(i: &Implication) -> Error {
    Error::not_found(format!("{} does not imply {}.", i.prior, i.implied))
}

fn inference(request: &Request, prior: &Object<Role>, implied: &Object<Role>, status: u16) -> Result<Reply> {
    let base = request.base.as_str();
    let inner = Wrapped(
        "role_inference",
        Inference {
            prior_role: brief(base, prior),
            implies: brief(base, implied),
        },
    );
    Reply::json(
        status,
        &Linked {
            inner,
            links: serde_json::json!({"self": format!("{base}{}", request.path)}),
        },
    )
}

pub(super) async fn implied(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let prior = load(&snapshot, request.param("id"))?;
    let base = request.base.as_str();
    let implies = snapshot
        .find::<Implication>("prior", &prior.id)
        .filter_map(|i| snapshot.get::<Role>(&i.implied))
        .map(|r| brief(base, &r))
        .collect();
    let inner = Wrapped(
        "role_inference",
        Inferences {
            prior_role: brief(base, &prior),
            implies,
        },
    );
    Reply::json(
        200,
        &Linked {
            inner,
            links: serde_json::json!({"self": format!("{base}{}", request.path)}),
        },
    )
}

pub(super) async fn show_implied(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let (prior, implied, i) = pair(&snapshot, &request)?;
    snapshot.get::<Implication>(&i.id()).ok_or_else(|| no_rule(&i))?;
    inference(&request, &prior, &implied, 200)
}

pub(super) async fn check_implied(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let (_, _, i) = pair(&snapshot, &request)?;
    snapshot.get::<Implication>(&i.id()).ok_or_else(|| no_rule(&i))?;
    Ok(Reply::empty(204))
}

pub(super) async fn imply(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let (prior, implied) = app
        .plan(|snapshot, txn| {
            let (prior, implied, i) = pair(snapshot, &request)?;
            if implied.name.eq_ignore_ascii_case("admin") && implied.domain_id.is_none() {
                return Err(Error::forbidden(format!("{} cannot be an implied role.", implied.id)));
            }
            // A domain's role may imply any other; a global one, which is in tokens everywhere, no domain's.
            if implied.domain_id.is_some() && prior.domain_id.is_none() {
                return Err(Error::forbidden(format!(
                    "{} cannot be implied by {}: a global role cannot imply the role of a domain.",
                    implied.id, prior.id
                )));
            }
            let mut back = vec![implied.id.clone()];
            expand_implied(snapshot, &mut back);
            if back.contains(&prior.id) {
                return Err(Error::forbidden(format!(
                    "{} cannot imply {}: it is implied by it, and a circle would arise.",
                    prior.id, implied.id
                )));
            }
            // Two halves of a circle must not be written at once.
            maru_identity_model::freeze(snapshot, txn);
            txn.put(&i.id(), &i);
            Ok((prior, implied))
        })
        .await?;
    inference(&request, &prior, &implied, 201)
}

pub(super) async fn unimply(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let (_, _, i) = pair(snapshot, &request)?;
        let found = snapshot.get::<Implication>(&i.id()).ok_or_else(|| no_rule(&i))?;
        txn.delete(&found);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn inferences(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let base = request.base.as_str();
    let mut by_prior: BTreeMap<String, Inferences> = BTreeMap::new();
    for i in snapshot.list::<Implication>() {
        let (Some(prior), Some(implied)) = (snapshot.get::<Role>(&i.prior), snapshot.get::<Role>(&i.implied)) else {
            continue;
        };
        let entry = by_prior.entry(prior.id.to_string()).or_insert_with(|| Inferences {
            prior_role: brief(base, &prior),
            implies: Vec::new(),
        });
        entry.implies.push(brief(base, &implied));
    }
    let items: Vec<Inferences> = by_prior.into_values().collect();
    lists::whole(&request, "role_inferences", &items)
}
