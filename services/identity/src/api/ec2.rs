//! /v3/users/{id}/credentials/OS-EC2: EC2 access keys, kept among the credentials under the SHA-256 of the access key.

use super::{
    credentials::{ec2_id, ec2_rights},
    delegation::may_delegate,
    fields::read_flat,
    lists, not_found,
    views::Wrapped,
};
use crate::App;
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{AssignmentTarget, Credential, Project, Secret, User, effective_roles};
use maru_store::{Object, Snapshot};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn of_user(request: &Request) -> Target {
    Target::none().with("target.credential.user_id", request.param("id"))
}

fn load(snapshot: &Snapshot, request: &Request) -> Result<Object<Credential>> {
    let access = request.param("access");
    snapshot
        .get::<Credential>(&ec2_id(access))
        .filter(|c| c.kind == "ec2" && c.user_id.as_str() == request.param("id"))
        .ok_or_else(|| not_found("credential", access))
}

fn view(base: &str, c: &Credential) -> Value {
    let blob: Value = serde_json::from_str(c.blob.reveal()).unwrap_or(Value::Null);
    let access = blob["access"].as_str().unwrap_or_default();
    json!({"access": access, "secret": blob["secret"], "user_id": c.user_id, "tenant_id": c.project_id,
        "trust_id": blob["trust_id"],
        "links": {"self": format!("{base}/v3/users/{}/credentials/OS-EC2/{access}", c.user_id)}})
}

fn fresh() -> String {
    let mut bytes = [0_u8; 16];
    maru_base::random::fill(&mut bytes);
    maru_base::hex(&bytes)
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let verified = may_delegate(&app, &request, "EC2 credentials").await?;
    let body = read_flat(&mut request, &["tenant_id"]).await?;
    let tenant = match body.get("tenant_id") {
        Some(Value::String(id)) if (1..=64).contains(&id.len()) => ProjectId::from(id),
        _ => {
            return Err(Error::invalid(
                "tenant_id",
                "Invalid input for field 'tenant_id': the id of a project is wanted.",
            ));
        }
    };
    let user_id = UserId::from(request.param("id"));
    let access = fresh();
    let id = ec2_id(&access);
    let mut blob = json!({"access": access, "secret": fresh(), "trust_id": null});
    ec2_rights(&verified, &mut blob);
    let value = Credential {
        user_id,
        project_id: Some(tenant.clone()),
        kind: "ec2".to_owned(),
        blob: Secret::new(blob.to_string()),
        extra: Map::new(),
    };
    app.plan(|snapshot, txn| {
        if snapshot.get::<User>(&value.user_id).is_none() {
            return Err(not_found("user", &value.user_id));
        }
        if snapshot.get::<Project>(&tenant).is_none() {
            return Err(not_found("project", &tenant));
        }
        if effective_roles(snapshot, &value.user_id, &AssignmentTarget::Project(tenant.clone())).is_empty() {
            return Err(Error::forbidden(format!(
                "User {} has no access to project {tenant}: give it a role there first.",
                value.user_id
            )));
        }
        txn.alive::<User>(&value.user_id).alive::<Project>(&tenant);
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("credential", view(&request.base, &value)))
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let user = request.param("id");
    let snapshot = app.snapshot();
    if snapshot.get::<User>(&UserId::from(user)).is_none() {
        return Err(not_found("user", user));
    }
    let found: Vec<_> = snapshot
        .find::<Credential>("user", user)
        .filter(|c| c.kind == "ec2")
        .map(|c| view(&request.base, &c.value))
        .collect();
    lists::whole(&request, "credentials", &found)
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let c = load(&app.snapshot(), &request)?;
    Reply::json(200, &Wrapped("credential", view(&request.base, &c.value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    may_delegate(&app, &request, "EC2 credentials").await?;
    app.plan(|snapshot, txn| {
        txn.delete(&load(snapshot, &request)?);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
