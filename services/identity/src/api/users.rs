//! /v3/users.

use super::{
    domains::immutable,
    duplicate,
    fields::{Fields, merge_options},
    groups,
    lists::{self, Filters, flag},
    not_found, tokens,
    views::{self, Wrapped},
};
use crate::{
    App,
    app::{
        cascade::{Cascade, revoke_user},
        compliance::{SetBy, today},
        factors::check_options,
        lockout::plan_logins,
    },
};
use maru_auth::{Scope, Target};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{Group, Membership, Password, Project, User, domain};
use maru_store::{Object, Snapshot};
use serde_json::Map;
use std::sync::Arc;

/// The options that users have upstream.
const OPTIONS: [&str; 7] = [
    "ignore_change_password_upon_first_use",
    "ignore_password_expiry",
    "ignore_lockout_failure_attempts",
    "lock_password",
    "ignore_user_inactivity",
    "multi_factor_auth_enabled",
    "multi_factor_auth_rules",
];

pub(super) fn load(snapshot: &Snapshot, id: &str) -> Result<Object<User>> {
    snapshot
        .get::<User>(&UserId::from(id))
        .ok_or_else(|| not_found("user", id))
}

/// The target of a rule about a user that may not be there: a stranger learns nothing from the difference.
pub(super) fn target(snapshot: &Snapshot, id: &str) -> Target {
    let target = Target::none().with("target.user.id", id).with("user_id", id);
    match snapshot.get::<User>(&UserId::from(id)) {
        Some(user) => target.with("target.user.domain_id", &user.domain_id),
        None => target,
    }
}

/// The domain in which a new resource goes: as asked, else that of the caller's scope, else the caller's own.
pub(super) fn domain_for(request: &Request, asked: Option<String>) -> Result<DomainId> {
    if let Some(id) = asked {
        return Ok(DomainId::from(id));
    }
    let caller = request.caller()?;
    Ok(match &caller.scope {
        Scope::Domain(id) => id.clone(),
        Scope::Project(_) => caller
            .project_domain_id
            .clone()
            .unwrap_or_else(|| caller.user_domain_id.clone()),
        Scope::System | Scope::Unscoped => {
            return Err(Error::invalid(
                "domain_id",
                "Invalid input for field 'domain_id': name the domain; the token has no domain of its own.",
            ));
        }
    })
}

/// The only domain whose objects a caller with domain scope is shown: the token's own, unless the caller may list those
/// of all (an administrator may read each of them anyway).
pub(super) fn only_domain(request: &Request, rule: &str) -> Result<Option<DomainId>> {
    let mine = request.caller()?.domain_id().cloned();
    Ok(mine.filter(|_| !request.may(rule, &Target::none())))
}

/// A user's form: enabled only if it has also logged in lately, where that is demanded.
pub(super) fn view<'a>(
    app: &App,
    snapshot: &Snapshot,
    base: &str,
    id: &'a UserId,
    user: &'a User,
) -> views::UserView<'a> {
    let expires = snapshot
        .get::<Password>(id)
        .and_then(|p| p.expires_at)
        .map(crate::app::micros);
    views::user(base, id, user, app.enabled(snapshot, id, user), expires)
}

/// The filter `?password_expires_at=lt:2030-01-31T12:00:00Z`, with lt, lte, gt, gte, eq, neq. Passwords that never expire do
/// not pass.
pub(super) struct Expiry(Vec<(String, i64)>);

impl Expiry {
    pub(super) fn of(request: &Request) -> Result<Self> {
        let bad = || {
            Error::invalid(
                "password_expires_at",
                "Invalid input for field 'password_expires_at': an operator (lt, lte, gt, gte, eq, neq) and a time are wanted, \
                 as lt:2030-01-31T12:00:00Z.",
            )
        };
        let one = |text: &str| -> Result<(String, i64)> {
            let (op, time) = text.split_once(':').ok_or_else(bad)?;
            let known = ["lt", "lte", "gt", "gte", "eq", "neq"].contains(&op);
            let time: jiff::Timestamp = time.parse().map_err(|_| bad())?;
            known.then(|| (op.to_owned(), time.as_microsecond())).ok_or_else(bad)
        };
        request
            .query
            .all("password_expires_at")
            .map(one)
            .collect::<Result<Vec<_>>>()
            .map(Self)
    }
    pub(super) fn pass(&self, snapshot: &Snapshot, user: &UserId) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(end) = snapshot.get::<Password>(user).and_then(|p| p.expires_at) else {
            return false;
        };
        self.0.iter().all(|(op, time)| match op.as_str() {
            "lt" => end < *time,
            "lte" => end <= *time,
            "gt" => end > *time,
            "gte" => end >= *time,
            "eq" => end == *time,
            _ => end != *time,
        })
    }
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let mine = only_domain(&request, "identity:list_users")?;
    let mut target = Target::none();
    if let Some(d) = &mine {
        target = target.with("target.domain_id", d).with("target.user.domain_id", d);
    }
    request.authorize(&target)?;
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["name", "enabled", "domain_id", "default_project_id"]);
    let expiry = Expiry::of(&request)?;
    let domain_id = mine
        .as_ref()
        .map(|d| d.as_str())
        .or_else(|| request.query.get("domain_id"));
    let all: Vec<Object<User>> = match domain_id {
        Some(d) => snapshot.find::<User>("domain", d).collect(),
        None => snapshot.list::<User>().collect(),
    };
    let found: Vec<_> = all
        .into_iter()
        .filter(|u| {
            filters.pass(|name| match name {
                "name" => Some(u.name.as_str()),
                "enabled" => flag(app.enabled(&snapshot, &u.id, u)),
                "domain_id" => Some(u.domain_id.as_str()),
                "default_project_id" => u.default_project_id.as_deref(),
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
        |u| view(&app, &snapshot, base, &u.id, &u.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut fields = Fields::read(&mut request, "user").await?;
    let domain_id = domain_for(&request, fields.id("domain_id")?.flatten())?;
    request.authorize(
        &Target::none()
            .with("target.user.domain_id", &domain_id)
            .with("domain_id", &domain_id),
    )?;
    let name = fields.required_name(255)?;
    let enabled = fields.bool("enabled")?.unwrap_or(true);
    let default_project_id = fields.id("default_project_id")?.flatten().map(ProjectId::from);
    let password = fields.password("password")?.flatten();
    let options = fields.options(&OPTIONS)?;
    check_options(options.as_ref().unwrap_or(&Map::new()))?;
    fields.extra_text("description")?;
    let mut value = User {
        name,
        domain_id,
        enabled,
        default_project_id,
        options: Map::new(),
        extra: fields.rest(),
    };
    merge_options(&mut value.options, options.unwrap_or_default());
    check(&app.snapshot(), &value)?;
    let password = match password {
        Some(p) => Some(app.new_password(&value, p, SetBy::Administrator, None).await?),
        None => None,
    };
    let id = UserId::new_hex();
    app.plan(|snapshot, txn| {
        check(snapshot, &value)?;
        if snapshot.owner("user", &value.domain_id, &value.name).is_some() {
            return Err(duplicate("user", &value.name));
        }
        txn.alive::<Project>(&ProjectId::from(value.domain_id.as_str()));
        txn.create(&id, &value)
            .claim("user", &value.domain_id, &value.name, &id);
        if let Some(p) = &password {
            txn.create(&id, p);
        }
        Ok(())
    })
    .await?;
    Reply::json(
        201,
        &Wrapped("user", view(&app, &app.snapshot(), &request.base, &id, &value)),
    )
}

fn check(snapshot: &Snapshot, value: &User) -> Result<()> {
    if domain(snapshot, &value.domain_id).is_none() {
        return Err(not_found("domain", &value.domain_id));
    }
    if let Some(p) = &value.default_project_id
        && domain(snapshot, &DomainId::from(p.as_str())).is_some()
    {
        return Err(Error::invalid(
            "default_project_id",
            "User's default project ID cannot be a domain ID.",
        ));
    }
    Ok(())
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let id = request.param("id");
    request.authorize(&target(&snapshot, id))?;
    let user = load(&snapshot, id)?;
    Reply::json(
        200,
        &Wrapped("user", view(&app, &snapshot, &request.base, &user.id, &user.value)),
    )
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, &id))?;
    let before = load(&snapshot, &id)?;
    let mut fields = Fields::read(&mut request, "user").await?;
    fields.not_empty("user")?;
    let name = fields.name(255)?;
    let enabled = fields.bool("enabled")?;
    let default_project = fields.id("default_project_id")?;
    let password = fields.password("password")?;
    let options = fields.options(&OPTIONS)?;
    check_options(options.as_ref().unwrap_or(&Map::new()))?;
    match fields.id("domain_id")?.flatten() {
        Some(d) if before.domain_id != *d => {
            return Err(Error::invalid(
                "domain_id",
                "Invalid input for field 'domain_id': a user cannot change its domain.",
            ));
        }
        _ => {}
    }
    fields.extra_text("description")?;
    let rest = fields.rest();
    let password = match password {
        Some(Some(p)) => {
            // By the options that are in force afterwards.
            let mut after = (*before.value).clone();
            merge_options(&mut after.options, options.clone().unwrap_or_default());
            let old = snapshot.get::<Password>(&before.id);
            let old = old.as_ref().map(|p| &*p.value);
            Some(Some(app.new_password(&after, p, SetBy::Administrator, old).await?))
        }
        other => other.map(|_| None),
    };
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(name) = &name
                && *name != value.name
            {
                if snapshot.owner("user", &value.domain_id, name).is_some() {
                    return Err(duplicate("user", name));
                }
                txn.release("user", &value.domain_id, &value.name)
                    .claim("user", &value.domain_id, name, &read.id);
                value.name.clone_from(name);
            }
            let disables = enabled == Some(false) && value.enabled;
            if let Some(e) = enabled {
                value.enabled = e;
            }
            if let Some(p) = &default_project {
                value.default_project_id = p.as_ref().map(ProjectId::from);
            }
            check(snapshot, &value)?;
            merge_options(&mut value.options, options.clone().unwrap_or_default());
            value.extra.extend(rest.clone());
            match &password {
                Some(Some(p)) => {
                    txn.put(&read.id, p);
                }
                Some(None) => {
                    if let Some(old) = snapshot.get::<Password>(&read.id) {
                        txn.delete(&old);
                    }
                }
                None => {}
            }
            if enabled == Some(true) || password.is_some() {
                // An administrator's word ends a lock-out, and lets who was away too long in again.
                plan_logins(snapshot, txn, &read.id, |l| {
                    l.failed = 0;
                    if enabled == Some(true) && l.active_on.is_some() {
                        l.active_on = Some(today());
                    }
                });
            }
            if disables || password.is_some() {
                revoke_user(txn, &read.id, if disables { "disabled" } else { "password set" });
            }
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(
        200,
        &Wrapped("user", view(&app, &app.snapshot(), &request.base, &id, &value)),
    )
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&app.snapshot(), &id))?;
    app.plan(|snapshot, txn| {
        let user = load(snapshot, &id)?;
        Cascade::new(snapshot, txn).user(&user);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// Needs no token: whoever knows the old password may set a new one. All tokens of the user end.
pub(super) async fn change_password(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let mut fields = Fields::read(&mut request, "user").await?;
    let wanted = |name: &str| {
        Error::invalid(
            name,
            format!("Invalid input for field '{name}': it is a required property."),
        )
    };
    let old = fields
        .password("original_password")?
        .flatten()
        .ok_or_else(|| wanted("original_password"))?;
    let new = fields
        .password("password")?
        .flatten()
        .ok_or_else(|| wanted("password"))?;
    fields.nothing_else()?;
    let user = app.check_password_of(&id, old).await?;
    let user_id = user.id.clone();
    if user.options.get("lock_password") == Some(&serde_json::Value::Bool(true)) {
        return Err(immutable("password of user", &id));
    }
    let Some(before) = app.snapshot().get::<Password>(&user_id) else {
        return Err(crate::app::refused());
    };
    app.strong(&new)?;
    app.may_change(&before, &new).await?;
    let hashed = app.new_password(&user, new, SetBy::User, Some(&before)).await?;
    app.plan(|snapshot, txn| {
        load(snapshot, &id)?;
        match snapshot.get::<Password>(&user_id) {
            // The password that was checked is still the password.
            Some(now) if now.revision == before.revision => txn.update(&now, &hashed),
            _ => return Err(crate::app::refused()),
        };
        revoke_user(txn, &user_id, "password changed");
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn groups(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let id = request.param("id");
    request.authorize(&target(&snapshot, id))?;
    let user = load(&snapshot, id)?;
    let filters = Filters::of(&request, &["name"]);
    let found: Vec<Object<Group>> = snapshot
        .find::<Membership>("user", &user.id)
        .filter_map(|m| snapshot.get::<Group>(&m.group_id))
        .filter(|g| groups::pass(&filters, g))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "groups",
        &found,
        |g| &g.id,
        |g| views::group(base, &g.id, &g.value),
    )
}

pub(super) async fn projects(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let id = request.param("id");
    request.authorize(&target(&snapshot, id))?;
    let user = load(&snapshot, id)?;
    let filters = Filters::of(&request, &["name", "enabled"]);
    let found: Vec<_> = tokens::projects_of(&snapshot, &user.id)
        .into_iter()
        .filter(|p| {
            filters.pass(|name| match name {
                "name" => Some(p.name.as_str()),
                "enabled" => flag(p.enabled),
                _ => None,
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "projects",
        &found,
        |p| &p.id,
        |p| views::project(base, &p.id, &p.value),
    )
}
