//! /v3/auth: tokens, and what the caller may authenticate for.

use super::{lists, not_found, views};
use crate::{
    App,
    app::{Outcome, Verified, authenticate::usable, catalog as catalogue},
};
use maru_auth::{Caller, Target};
use maru_base::{DomainId, ErrorKind, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{
    Actor, Assignment, AssignmentTarget, Membership, Project, domain, effective_roles, project, subtree,
};
use maru_store::{Object, Snapshot};
use serde::Serialize;
use std::{collections::BTreeSet, sync::Arc};

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body = request.json_value().await?;
    let (token, verified) = match app.authenticate(&body, &request).await? {
        Outcome::Token(token, verified) => (token, verified),
        Outcome::Receipt(receipt, body) => {
            return Ok(Reply::json(401, &body)?.header("openstack-auth-receipt", receipt.reveal()));
        }
    };
    let text = verified.body(&app.snapshot(), !request.query.has("nocatalog"))?;
    Ok(Reply::raw_json(201, text).header("x-subject-token", token.reveal()))
}

/// The token that a request is about. One that is not good is 404: it is the object, not the caller.
async fn subject(app: &App, request: &Request) -> Result<(String, Arc<Verified>)> {
    let missing = || not_found("token", "X-Subject-Token");
    let text = request.header("x-subject-token").ok_or_else(missing)?;
    let judged = match request.query.bool("allow_expired")? {
        Some(true) => app.verify_expired(text).await,
        _ => app.verify(text).await,
    };
    match judged {
        Ok(verified) => Ok((text.to_owned(), verified)),
        Err(e) if e.kind() == ErrorKind::Unauthorized => Err(maru_base::Error::not_found(
            "Could not find token: it has expired, was revoked or never was one.",
        )),
        Err(e) => Err(e),
    }
}

fn target(verified: &Verified) -> Target {
    Target::none()
        .with("target.token.user_id", &verified.payload.user_id)
        .with("target.token.user.domain.id", &verified.user.domain_id)
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let (text, verified) = subject(&app, &request).await?;
    request.authorize(&target(&verified))?;
    let body = verified.body(&app.snapshot(), !request.query.has("nocatalog"))?;
    Ok(Reply::raw_json(200, body).header("x-subject-token", &text))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, verified) = subject(&app, &request).await?;
    request.authorize(&target(&verified))?;
    app.end_token(&verified).await?;
    Ok(Reply::empty(204))
}

#[derive(Serialize)]
struct Catalogue {
    catalog: Vec<views::CatalogService>,
    links: serde_json::Value,
}

pub(super) async fn catalog(app: Arc<App>, request: Request) -> Result<Reply> {
    let caller = request.caller()?;
    let catalog = catalogue::render(&app.snapshot(), caller.project_id(), &caller.user_id);
    let links =
        serde_json::json!({"next": null, "self": format!("{}/v3/auth/catalog", request.base), "previous": null});
    Reply::json(200, &Catalogue { catalog, links })
}

/// The enabled projects on which a user has a role.
pub(super) fn projects_of(snapshot: &Snapshot, user: &maru_base::UserId) -> Vec<Object<Project>> {
    let mut ids = BTreeSet::new();
    for a in assignments_of(snapshot, user) {
        match (&a.target, a.inherited) {
            (AssignmentTarget::Project(id), false) => {
                ids.insert(id.to_string());
            }
            (AssignmentTarget::Project(id), true) => ids.extend(below(snapshot, id)),
            (AssignmentTarget::Domain(id), true) => ids.extend(below(snapshot, &ProjectId::from(id.as_str()))),
            _ => {}
        }
    }
    ids.iter()
        .map(ProjectId::from)
        .filter(|id| usable(snapshot, user, id))
        .filter_map(|id| project(snapshot, &id))
        .collect()
}

fn below(snapshot: &Snapshot, id: &ProjectId) -> Vec<String> {
    subtree(snapshot, id).into_iter().map(|p| p.id.to_string()).collect()
}

fn assignments_of(snapshot: &Snapshot, user: &maru_base::UserId) -> Vec<Object<Assignment>> {
    let mut all: Vec<_> = snapshot
        .find::<Assignment>("actor", &Actor::User(user.clone()).key())
        .collect();
    for m in snapshot.find::<Membership>("user", user) {
        all.extend(snapshot.find::<Assignment>("actor", &Actor::Group(m.group_id.clone()).key()));
    }
    all
}

pub(super) async fn projects(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = projects_of(&app.snapshot(), &request.caller()?.user_id);
    let base = request.base.as_str();
    lists::paged(
        &request,
        "projects",
        &found,
        |p| &p.id,
        |p| views::project(base, &p.id, &p.value),
    )
}

pub(super) async fn domains(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let user = &request.caller()?.user_id;
    let ids: BTreeSet<String> = assignments_of(&snapshot, user)
        .iter()
        .filter(|a| !a.inherited)
        .filter_map(|a| {
            if let AssignmentTarget::Domain(id) = &a.target {
                Some(id.to_string())
            } else {
                None
            }
        })
        .collect();
    let found: Vec<_> = ids
        .iter()
        .filter_map(|id| domain(&snapshot, &DomainId::from(id)))
        .filter(|d| d.enabled)
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "domains",
        &found,
        |p| &p.id,
        |p| views::domain(base, &p.id, &p.value),
    )
}

pub(super) async fn system(app: Arc<App>, request: Request) -> Result<Reply> {
    let caller: &Caller = request.caller()?;
    let has = !effective_roles(&app.snapshot(), &caller.user_id, &AssignmentTarget::System).is_empty();
    let items: Vec<serde_json::Value> = if has {
        vec![serde_json::json!({"all": true})]
    } else {
        Vec::new()
    };
    lists::whole(&request, "system", &items)
}
