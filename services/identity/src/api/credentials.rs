//! /v3/credentials. A user sees its own; an administrator all. Who owns a credential never changes.

use super::{
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::{self, Wrapped},
};
use crate::{
    App,
    app::{Delegated, Verified},
};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{Credential, CredentialId, Project, Secret, User, project};
use maru_store::{Object, Snapshot};
use sha2::Digest;
use std::sync::Arc;

fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Credential>> {
    snapshot
        .get::<Credential>(&CredentialId::from(id))
        .ok_or_else(|| not_found("credential", id))
}

fn target(snapshot: &Snapshot, id: &str) -> Target {
    match load(snapshot, id) {
        Ok(c) => Target::none().with("target.credential.user_id", &c.user_id),
        Err(_) => Target::none(),
    }
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["user_id", "type"]);
    let all: Vec<Object<Credential>> = match request.query.get("user_id") {
        Some(user) => snapshot.find::<Credential>("user", user).collect(),
        None => snapshot.list::<Credential>().collect(),
    };
    // Each one is judged by itself: nobody sees another's (attack class C1).
    let found: Vec<_> = all
        .into_iter()
        .filter(|c| {
            request.may(
                "identity:list_credentials",
                &Target::none().with("target.credential.user_id", &c.user_id),
            ) && filters.pass(|name| match name {
                "user_id" => Some(c.user_id.as_str()),
                "type" => Some(c.kind.as_str()),
                _ => None,
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "credentials",
        &found,
        |c| &c.id,
        |c| views::credential(base, &c.id, &c.value),
    )
}

/// EC2 credentials are found by their access key: their id is its SHA-256.
fn id_for(kind: &str, blob: &str) -> Result<CredentialId> {
    if kind != "ec2" {
        return Ok(CredentialId::new_hex());
    }
    let bad = || {
        Error::invalid(
            "blob",
            "Invalid blob in credential: a JSON object with \"access\" and \"secret\" is wanted.",
        )
    };
    let parsed: serde_json::Value = serde_json::from_str(blob).map_err(|_| bad())?;
    let access = parsed
        .get("access")
        .and_then(serde_json::Value::as_str)
        .ok_or_else(bad)?;
    Ok(ec2_id(access))
}

/// The id of an EC2 credential.
pub(super) fn ec2_id(access: &str) -> CredentialId {
    CredentialId::from(maru_base::hex(&sha2::Sha256::digest(access.as_bytes())))
}

/// Writes into an EC2 credential by what delegated rights it was made, so that it never stands for more (attack class C3).
pub(super) fn ec2_rights(made_with: &Verified, blob: &mut serde_json::Value) {
    if let Some(Delegated::ApplicationCredential(c, _)) = &made_with.delegated {
        blob["app_cred_id"] = c.id.as_str().into();
    }
}

/// Refuses a new blob of an EC2 credential that is none, or would stand for other rights than the old one (C3, C6). The id
/// stays, as upstream: it is that of the first access key.
fn same_rights(old: &str, new: &str) -> Result<()> {
    id_for("ec2", new)?;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    for name in ["trust_id", "app_cred_id", "access_token_id"] {
        let of = |v: &serde_json::Value| v.get(name).filter(|v| !v.is_null()).cloned();
        if of(&old) != of(&new) {
            return Err(Error::invalid(
                "blob",
                format!("Invalid blob in credential: {name} cannot change."),
            ));
        }
    }
    Ok(())
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut fields = Fields::read(&mut request, "credential").await?;
    let kind = fields.required("type", 255)?;
    let blob = fields.required("blob", 16 << 10)?;
    let user_id = match fields.id("user_id")?.flatten() {
        Some(id) => UserId::from(id),
        None => request.caller()?.user_id.clone(),
    };
    request.authorize(&Target::none().with("target.credential.user_id", &user_id))?;
    let verified = super::delegation::may_delegate(&app, &request, "credentials").await?;
    let project_id = fields.id("project_id")?.flatten().map(ProjectId::from);
    if kind == "ec2" && project_id.is_none() {
        return Err(Error::invalid(
            "project_id",
            "Expecting to find project_id: an EC2 credential is for a project.",
        ));
    }
    let id = id_for(&kind, &blob)?;
    let blob = match serde_json::from_str::<serde_json::Value>(&blob) {
        Ok(mut parsed) if kind == "ec2" && verified.delegated.is_some() => {
            ec2_rights(&verified, &mut parsed);
            parsed.to_string()
        }
        _ => blob,
    };
    let value = Credential {
        user_id,
        project_id,
        kind,
        blob: Secret::new(blob),
        extra: fields.rest(),
    };
    app.plan(|snapshot, txn| {
        if snapshot.get::<User>(&value.user_id).is_none() {
            return Err(not_found("user", &value.user_id));
        }
        txn.alive::<User>(&value.user_id);
        if let Some(p) = &value.project_id {
            project(snapshot, p).ok_or_else(|| not_found("project", p))?;
            txn.alive::<Project>(p);
        }
        if snapshot.get::<Credential>(&id).is_some() {
            return Err(Error::conflict(
                "Conflict occurred attempting to store credential - Duplicate entry.",
            ));
        }
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(
        201,
        &Wrapped("credential", views::credential(&request.base, &id, &value)),
    )
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let c = load(&snapshot, request.param("id"))?;
    Reply::json(
        200,
        &Wrapped("credential", views::credential(&request.base, &c.id, &c.value)),
    )
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&app.snapshot(), &id))?;
    let before = load(&app.snapshot(), &id)?;
    super::delegation::may_delegate(&app, &request, "credentials").await?;
    let mut fields = Fields::read(&mut request, "credential").await?;
    fields.not_empty("credential")?;
    let kind = fields.string("type", 1, 255)?;
    let blob = fields.string("blob", 1, 16 << 10)?;
    // Attack class C3: a credential that changes hands would give its new owner the old one's rights.
    if fields
        .id("user_id")?
        .is_some_and(|u| u.as_deref() != Some(before.user_id.as_str()))
    {
        return Err(Error::invalid(
            "user_id",
            "Invalid input for field 'user_id': a credential cannot change its user.",
        ));
    }
    let fixed = |name: &str, what: &str| {
        Error::invalid(
            name,
            format!("Invalid input for field '{name}': a credential cannot change its {what}; make another one."),
        )
    };
    if fields
        .id("project_id")?
        .is_some_and(|p| p.as_deref() != before.project_id.as_deref())
    {
        return Err(fixed("project_id", "project"));
    }
    if kind.is_some_and(|k| k != before.kind) {
        return Err(fixed("type", "type"));
    }
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(b) = &blob {
                if value.kind == "ec2" {
                    same_rights(value.blob.reveal(), b)?;
                }
                value.blob = Secret::new(b);
            }
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(
        200,
        &Wrapped("credential", views::credential(&request.base, &id, &value)),
    )
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&app.snapshot(), &id))?;
    super::delegation::may_delegate(&app, &request, "credentials").await?;
    app.plan(|snapshot, txn| {
        txn.delete(&load(snapshot, &id)?);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
