//! Grants: roles given to a user or group on a project, a domain or the system, and their OS-INHERIT form.

use super::{groups, lists, not_found, roles, users, views};
use crate::{App, app::cascade::actor_text};
use http::Method;
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request, Routes};
use maru_identity_model::{Actor, Assignment, AssignmentTarget, Group, Project, Role, User, domain, project};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

/// Adds the routes of all grants.
pub(super) fn routes(mut r: Routes<App>) -> Routes<App> {
    for actor in ["users/{user_id}", "groups/{group_id}"] {
        for target in ["projects", "domains"] {
            let path = format!("/v3/{target}/{{id}}/{actor}/roles");
            r = r.get(&path, "identity:list_grants", list);
            let path = format!("{path}/{{role_id}}");
            r = one(r, &path);
            let path = format!("/v3/OS-INHERIT/{target}/{{id}}/{actor}/roles");
            r = r.get(&format!("{path}/inherited_to_projects"), "identity:list_grants", list);
            r = one(r, &format!("{path}/{{role_id}}/inherited_to_projects"));
        }
    }
    macro_rules! system {
        ($actor:literal, $suffix:literal) => {
            r = r
                .get(
                    concat!("/v3/system/", $actor, "/roles"),
                    concat!("identity:list_system_grants_for_", $suffix),
                    list,
                )
                .get(
                    concat!("/v3/system/", $actor, "/roles/{role_id}"),
                    concat!("identity:check_system_grant_for_", $suffix),
                    check,
                )
                .put(
                    concat!("/v3/system/", $actor, "/roles/{role_id}"),
                    concat!("identity:create_system_grant_for_", $suffix),
                    create,
                )
                .on(
                    Method::DELETE,
                    concat!("/v3/system/", $actor, "/roles/{role_id}"),
                    concat!("identity:revoke_system_grant_for_", $suffix),
                    revoke,
                );
        };
    }
    system!("users/{user_id}", "user");
    system!("groups/{group_id}", "group");
    r
}

fn one(r: Routes<App>, path: &str) -> Routes<App> {
    r.get(path, "identity:check_grant", check)
        .put(path, "identity:create_grant", create)
        .delete(path, "identity:revoke_grant", revoke)
}

/// The grant that a path names; nothing of it need exist.
struct Named {
    target: AssignmentTarget,
    actor: Actor,
    inherited: bool,
}

fn named(request: &Request) -> Named {
    let path = request.path.trim_start_matches("/v3/");
    let (inherited, path) = match path.strip_prefix("OS-INHERIT/") {
        Some(rest) => (true, rest),
        None => (false, path),
    };
    let id = request.param("id");
    let target = match path.split('/').next() {
        Some("projects") => AssignmentTarget::Project(ProjectId::from(id)),
        Some("domains") => AssignmentTarget::Domain(DomainId::from(id)),
        _ => AssignmentTarget::System,
    };
    let user = request.param("user_id");
    let actor = if user.is_empty() {
        Actor::Group(request.param("group_id").into())
    } else {
        Actor::User(user.into())
    };
    Named {
        target,
        actor,
        inherited,
    }
}

/// The attributes for the rules; what does not exist adds none, so that only an administrator learns that it does not.
fn target(snapshot: &Snapshot, n: &Named, role: Option<&Object<Role>>) -> Target {
    let mut t = Target::none();
    match &n.target {
        AssignmentTarget::Project(id) => {
            t = t.with("target.project.id", id);
            if let Some(d) = project(snapshot, id).and_then(|p| p.domain_id.clone()) {
                t = t.with("target.project.domain_id", &d);
            }
        }
        AssignmentTarget::Domain(id) => t = t.with("target.domain.id", id),
        AssignmentTarget::System => {}
    }
    match &n.actor {
        Actor::User(id) => {
            t = t.with("target.user.id", id);
            if let Some(u) = snapshot.get::<User>(id) {
                t = t.with("target.user.domain_id", &u.domain_id);
            }
        }
        Actor::Group(id) => {
            t = t.with("target.group.id", id);
            if let Some(g) = snapshot.get::<Group>(id) {
                t = t.with("target.group.domain_id", &g.domain_id);
            }
        }
    }
    if let Some(role) = role {
        t = t.with("target.role.id", &role.id).with("target.role.name", &role.name);
        t = t.with(
            "target.role.domain_id",
            role.domain_id.as_ref().map_or("None", |d| d.as_str()),
        );
    }
    t
}

/// Whether actor and target exist.
fn exist(snapshot: &Snapshot, n: &Named) -> Result<()> {
    match &n.actor {
        Actor::User(id) => drop(users::load(snapshot, id)?),
        Actor::Group(id) => drop(groups::load(snapshot, id)?),
    }
    match &n.target {
        AssignmentTarget::Project(id) => drop(project(snapshot, id).ok_or_else(|| not_found("project", id))?),
        AssignmentTarget::Domain(id) => drop(domain(snapshot, id).ok_or_else(|| not_found("domain", id))?),
        AssignmentTarget::System => {}
    }
    Ok(())
}

fn assignment(n: &Named, role: &Object<Role>) -> Assignment {
    Assignment {
        actor: n.actor.clone(),
        target: n.target.clone(),
        role_id: role.id.clone(),
        inherited: n.inherited,
    }
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let n = named(&request);
    request.authorize(&target(&snapshot, &n, None))?;
    exist(&snapshot, &n)?;
    let mut found: Vec<Object<Role>> = snapshot
        .find::<Assignment>("actor", &n.actor.key())
        .filter(|a| a.target == n.target && a.inherited == n.inherited)
        .filter_map(|a| snapshot.get::<Role>(&a.role_id))
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let base = request.base.as_str();
    lists::paged(&request, "roles", &found, |r| &r.id, |r| views::role_object(base, r))
}

async fn check(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let n = named(&request);
    let role = roles::load(&snapshot, request.param("role_id"));
    request.authorize(&target(&snapshot, &n, role.as_ref().ok()))?;
    let role = role?;
    exist(&snapshot, &n)?;
    let a = assignment(&n, &role);
    match snapshot.get::<Assignment>(&a.id()) {
        Some(_) => Ok(Reply::empty(204)),
        None => Err(no_grant(&a)),
    }
}

fn no_grant(a: &Assignment) -> Error {
    Error::not_found(format!(
        "Could not find role assignment with role: {}, {}, on {}.",
        a.role_id,
        actor_text(&a.actor),
        a.target.key().replace(':', " ")
    ))
}

async fn create(app: Arc<App>, request: Request) -> Result<Reply> {
    let n = named(&request);
    let snapshot = app.snapshot();
    let role = roles::load(&snapshot, request.param("role_id"));
    request.authorize(&target(&snapshot, &n, role.as_ref().ok()))?;
    app.plan(|snapshot, txn| {
        let role = roles::load(snapshot, request.param("role_id"))?;
        exist(snapshot, &n)?;
        if let Some(d) = &role.domain_id {
            let home = match &n.target {
                AssignmentTarget::Project(id) => project(snapshot, id).and_then(|p| p.domain_id.clone()),
                AssignmentTarget::Domain(id) => Some(id.clone()),
                AssignmentTarget::System => None,
            };
            if home.as_ref() != Some(d) {
                return Err(Error::forbidden(format!(
                    "Domain specific role {} of domain {d} can be given in that domain only.",
                    role.id
                )));
            }
        }
        txn.alive::<Role>(&role.id);
        match &n.actor {
            Actor::User(id) => txn.alive::<User>(id),
            Actor::Group(id) => txn.alive::<Group>(id),
        };
        match &n.target {
            AssignmentTarget::Project(id) => drop(txn.alive::<Project>(id)),
            AssignmentTarget::Domain(id) => drop(txn.alive::<Project>(&ProjectId::from(id.as_str()))),
            AssignmentTarget::System => {}
        }
        let a = assignment(&n, &role);
        txn.put(&a.id(), &a);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn revoke(app: Arc<App>, request: Request) -> Result<Reply> {
    let n = named(&request);
    let snapshot = app.snapshot();
    let role = roles::load(&snapshot, request.param("role_id"));
    request.authorize(&target(&snapshot, &n, role.as_ref().ok()))?;
    app.plan(|snapshot, txn| {
        let role = roles::load(snapshot, request.param("role_id"))?;
        let a = assignment(&n, &role);
        let found = snapshot.get::<Assignment>(&a.id()).ok_or_else(|| no_grant(&a))?;
        txn.delete(&found);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
