//! /v3/groups.

use super::{
    duplicate,
    fields::Fields,
    lists::{self, Filters, flag},
    not_found,
    users::{self, domain_for, only_domain},
    views::{self, Wrapped},
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{Group, GroupId, Membership, Project, User, domain};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

pub(super) fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Group>> {
    snapshot
        .get::<Group>(&GroupId::from(id))
        .ok_or_else(|| not_found("group", id))
}

fn target(snapshot: &Snapshot, id: &str) -> Target {
    let target = Target::none().with("target.group.id", id);
    match snapshot.get::<Group>(&GroupId::from(id)) {
        Some(group) => target.with("target.group.domain_id", &group.domain_id),
        None => target,
    }
}

/// The target of a rule about a user in a group.
fn both(snapshot: &Snapshot, request: &Request) -> Target {
    let target = target(snapshot, request.param("id"));
    match users::load(snapshot, request.param("user_id")) {
        Ok(user) => target
            .with("target.user.id", &user.id)
            .with("target.user.domain_id", &user.domain_id),
        Err(_) => target,
    }
}

pub(super) fn pass(filters: &Filters<'_>, g: &Group) -> bool {
    filters.pass(|name| match name {
        "name" => Some(g.name.as_str()),
        "domain_id" => Some(g.domain_id.as_str()),
        _ => None,
    })
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let mine = only_domain(&request, "identity:list_groups")?;
    let mut target = Target::none();
    if let Some(d) = &mine {
        target = target.with("target.domain_id", d);
    }
    request.authorize(&target)?;
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["name", "domain_id"]);
    let all: Vec<Object<Group>> = match mine
        .as_ref()
        .map(|d| d.as_str())
        .or_else(|| request.query.get("domain_id"))
    {
        Some(d) => snapshot.find::<Group>("domain", d).collect(),
        None => snapshot.list::<Group>().collect(),
    };
    let found: Vec<_> = all.into_iter().filter(|g| pass(&filters, g)).collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "groups",
        &found,
        |g| &g.id,
        |g| views::group(base, &g.id, &g.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut fields = Fields::read(&mut request, "group").await?;
    let domain_id = domain_for(&request, fields.id("domain_id")?.flatten())?;
    request.authorize(&Target::none().with("target.group.domain_id", &domain_id))?;
    let name = fields.required_name(255)?;
    let description = fields.nullable("description")?.flatten().unwrap_or_default();
    let value = Group {
        name,
        domain_id,
        description,
        extra: fields.rest(),
    };
    let id = GroupId::new_hex();
    app.plan(|snapshot, txn| {
        if domain(snapshot, &value.domain_id).is_none() {
            return Err(not_found("domain", &value.domain_id));
        }
        if snapshot.owner("group", &value.domain_id, &value.name).is_some() {
            return Err(duplicate("group", &value.name));
        }
        txn.alive::<Project>(&ProjectId::from(value.domain_id.as_str()));
        txn.create(&id, &value)
            .claim("group", &value.domain_id, &value.name, &id);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("group", views::group(&request.base, &id, &value)))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let group = load(&snapshot, request.param("id"))?;
    Reply::json(
        200,
        &Wrapped("group", views::group(&request.base, &group.id, &group.value)),
    )
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, &id))?;
    let before = load(&snapshot, &id)?;
    let mut fields = Fields::read(&mut request, "group").await?;
    fields.not_empty("group")?;
    let name = fields.name(255)?;
    let description = fields.nullable("description")?;
    if fields
        .id("domain_id")?
        .flatten()
        .is_some_and(|d| before.domain_id != *d)
    {
        return Err(Error::invalid(
            "domain_id",
            "Invalid input for field 'domain_id': a group cannot change its domain.",
        ));
    }
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(name) = &name
                && *name != value.name
            {
                if snapshot.owner("group", &value.domain_id, name).is_some() {
                    return Err(duplicate("group", name));
                }
                txn.release("group", &value.domain_id, &value.name)
                    .claim("group", &value.domain_id, name, &read.id);
                value.name.clone_from(name);
            }
            if let Some(d) = &description {
                value.description = d.clone().unwrap_or_default();
            }
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("group", views::group(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&app.snapshot(), &id))?;
    app.plan(|snapshot, txn| {
        let group = load(snapshot, &id)?;
        Cascade::new(snapshot, txn).group(&group);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn members(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let group = load(&snapshot, request.param("id"))?;
    let filters = Filters::of(&request, &["name", "enabled", "domain_id"]);
    let expiry = users::Expiry::of(&request)?;
    let found: Vec<_> = snapshot
        .find::<Membership>("group", &group.id)
        .filter_map(|m| snapshot.get::<User>(&m.user_id))
        .filter(|u| {
            filters.pass(|name| match name {
                "name" => Some(u.name.as_str()),
                "enabled" => flag(app.enabled(&snapshot, &u.id, u)),
                "domain_id" => Some(u.domain_id.as_str()),
                _ => None,
            }) && expiry.pass(&snapshot, &u.id)
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "users",
        &found,
        |u| &u.id,
        |u| users::view(&app, &snapshot, base, &u.id, &u.value),
    )
}

fn membership(snapshot: &Snapshot, request: &Request) -> Result<Membership> {
    let group = load(snapshot, request.param("id"))?;
    let user = users::load(snapshot, request.param("user_id"))?;
    Ok(Membership {
        group_id: group.id,
        user_id: user.id,
    })
}

fn not_member(m: &Membership) -> Error {
    Error::not_found(format!("User '{}' not found in group '{}'.", m.user_id, m.group_id))
}

pub(super) async fn check(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&both(&snapshot, &request))?;
    let m = membership(&snapshot, &request)?;
    match snapshot.get::<Membership>(&m.id()) {
        Some(_) => Ok(Reply::empty(204)),
        None => Err(not_member(&m)),
    }
}

pub(super) async fn add(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&both(&app.snapshot(), &request))?;
    app.plan(|snapshot, txn| {
        let m = membership(snapshot, &request)?;
        txn.alive::<Group>(&m.group_id).alive::<User>(&m.user_id);
        txn.put(&m.id(), &m);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn remove(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&both(&app.snapshot(), &request))?;
    app.plan(|snapshot, txn| {
        let m = membership(snapshot, &request)?;
        let found = snapshot.get::<Membership>(&m.id()).ok_or_else(|| not_member(&m))?;
        txn.delete(&found);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
