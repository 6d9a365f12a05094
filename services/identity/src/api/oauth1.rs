//! /v3/OS-OAUTH1 and what users have granted by it.
//!
//! ```text
//! consumer ─ request token (signed) ─► user authorises it with roles, hands over the verifier
//!          ─ access token (signed with the verifier; the request token is used up) ─► tokens, by the method oauth1
//! ```

use super::{
    delegation::{self, may_delegate},
    fields::Fields,
    lists, not_found,
    views::{self, Wrapped},
};
use crate::{
    App,
    app::{
        cascade::Cascade,
        compliance::now,
        micros,
        oauth1::{Signed, unsigned},
    },
};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{
    AccessToken, AccessTokenId, AssignmentTarget, Consumer, ConsumerId, Granted, Project, RequestToken, RequestTokenId,
    RoleId, Secret, User, effective_roles, project,
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a request token waits for its user and its consumer, in microseconds (upstream's default).
const REQUEST_LIFE: i64 = 28_800 * 1_000_000;
/// How long an access token is good, in microseconds (upstream's default).
const ACCESS_LIFE: i64 = 86_400 * 1_000_000;

fn fresh() -> Secret {
    let mut bytes = [0_u8; 16];
    maru_base::random::fill(&mut bytes);
    Secret::new(maru_base::hex(&bytes))
}

fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Consumer>> {
    snapshot
        .get::<Consumer>(&ConsumerId::from(id))
        .ok_or_else(|| not_found("consumer", id))
}

fn view(base: &str, id: &ConsumerId, c: &Consumer) -> Value {
    let mut view = Value::Object(c.extra.clone());
    view["id"] = json!(id);
    view["description"] = json!(c.description);
    view["links"] = json!({"self": format!("{base}/v3/OS-OAUTH1/consumers/{id}")});
    view
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let found: Vec<_> = app.snapshot().list::<Consumer>().collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "consumers",
        &found,
        |c| &c.id,
        |c| view(base, &c.id, &c.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "consumer").await?;
    let description = fields.nullable("description")?.flatten();
    // Made here, never chosen.
    fields.take("secret");
    let value = Consumer {
        description,
        secret: fresh(),
        extra: fields.rest(),
    };
    let id = ConsumerId::new_hex();
    app.plan(|_, txn| {
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    let mut view = view(&request.base, &id, &value);
    // Shown this once.
    view["secret"] = json!(value.secret.reveal());
    Reply::json(201, &Wrapped("consumer", view))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let c = load(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("consumer", view(&request.base, &c.id, &c.value)))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    load(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "consumer").await?;
    fields.not_empty("consumer")?;
    let description = fields.nullable("description")?;
    if fields.take("secret").is_some() {
        return Err(Error::invalid(
            "secret",
            "Invalid input for field 'secret': a consumer cannot change its secret; make another one.",
        ));
    }
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(d) = &description {
                value.description.clone_from(d);
            }
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("consumer", view(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = load(snapshot, request.param("id"))?;
        Cascade::new(snapshot, txn).consumer(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn form(key: &str, secret: &Secret, expires_at: i64) -> Reply {
    let text = format!(
        "oauth_token={key}&oauth_token_secret={}&oauth_expires_at={}",
        secret.reveal(),
        micros(expires_at)
    );
    Reply::bytes(201, "application/x-www-form-urlencoded", text)
}

/// Signed by the consumer alone. Who is not a consumer learns nothing, not even whether there is such a project.
pub(super) async fn request_token(app: Arc<App>, request: Request) -> Result<Reply> {
    let signed = Signed::of(&request)?;
    let consumer_id = signed.consumer()?;
    let wanted = request.header("requested-project-id").ok_or_else(|| {
        Error::invalid(
            "Requested-Project-Id",
            "Expecting to find the header Requested-Project-Id: the project to act in.",
        )
    })?;
    let consumer = app.snapshot().get::<Consumer>(&consumer_id);
    app.nonces.check(&signed, consumer.as_ref().map(|c| &c.secret), None)?;
    let id = RequestTokenId::new_hex();
    let value = RequestToken {
        consumer_id,
        secret: fresh(),
        project_id: ProjectId::from(wanted),
        expires_at: now() + REQUEST_LIFE,
        granted: None,
    };
    app.plan(|snapshot, txn| {
        load(snapshot, &value.consumer_id)?;
        project(snapshot, &value.project_id).ok_or_else(|| not_found("project", &value.project_id))?;
        txn.alive::<Consumer>(&value.consumer_id)
            .alive::<Project>(&value.project_id);
        // What nobody came for is forgotten on the way.
        for old in snapshot
            .find::<RequestToken>("consumer", &value.consumer_id)
            .filter(|t| t.expires_at < now())
            .take(100)
        {
            txn.delete(&old);
        }
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Ok(form(&id, &value.secret, value.expires_at))
}

fn waiting(snapshot: &Snapshot, id: &str) -> Result<Object<RequestToken>> {
    snapshot
        .get::<RequestToken>(&RequestTokenId::from(id))
        .ok_or_else(|| not_found("request token", id))
}

/// A user lets the consumer act with some of the user's roles.
pub(super) async fn authorize(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let verified = app
        .verify(request.header("x-auth-token").ok_or_else(crate::app::refused)?)
        .await?;
    if verified.delegated.is_some() {
        return Err(Error::forbidden(
            "Cannot authorize a request token with a token issued via delegation; authenticate with a password.",
        ));
    }
    let body = super::fields::read_flat(&mut request, &["roles"]).await?;
    let roles = delegation::roles(body.get("roles").cloned())?
        .filter(|r| !r.is_empty())
        .ok_or_else(|| Error::invalid("roles", "Invalid input for field 'roles': name one role at least."))?;
    let user_id = verified.payload.user_id.clone();
    let id = request.param("id").to_owned();
    let mut letters = [0_u8; 16];
    maru_base::random::fill(&mut letters);
    let verifier = Secret::new(maru_base::hex(&letters));
    app.plan(|snapshot, txn| {
        let read = waiting(snapshot, &id)?;
        if read.expires_at < now() {
            return Err(Error::unauthorized(
                "The request token has expired; ask for another one.",
            ));
        }
        if read.granted.as_ref().is_some_and(|g| g.user_id != user_id) {
            return Err(Error::forbidden("The request token was authorized by another user."));
        }
        let target = AssignmentTarget::Project(read.project_id.clone());
        let has = effective_roles(snapshot, &user_id, &target);
        let mut ids: Vec<RoleId> = Vec::new();
        for named in &roles {
            let role = delegation::role(snapshot, named)?;
            if !has.iter().any(|r| r.id == role.id) {
                return Err(Error::unauthorized(format!(
                    "The authorizing user does not have the role {} on the project {}.",
                    role.id, read.project_id
                )));
            }
            if !ids.contains(&role.id) {
                ids.push(role.id);
            }
        }
        let mut value = (*read.value).clone();
        value.granted = Some(Granted {
            user_id: user_id.clone(),
            roles: ids,
            verifier: verifier.clone(),
        });
        txn.alive::<User>(&user_id).update(&read, &value);
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"token": {"oauth_verifier": verifier.reveal()}}))
}

/// Signed by the consumer and the request token, which is used up.
pub(super) async fn access_token(app: Arc<App>, request: Request) -> Result<Reply> {
    let signed = Signed::of(&request)?;
    let consumer_id = signed.consumer()?;
    let token = signed.get("oauth_token")?.to_owned();
    let verifier = Secret::new(signed.get("oauth_verifier")?);
    let snapshot = app.snapshot();
    let consumer = snapshot.get::<Consumer>(&consumer_id);
    let asked = snapshot
        .get::<RequestToken>(&RequestTokenId::from(token.as_str()))
        .filter(|t| t.consumer_id == consumer_id);
    let secret = consumer.as_ref().filter(|_| asked.is_some()).map(|c| &c.secret);
    app.nonces.check(&signed, secret, asked.as_ref().map(|t| &t.secret))?;
    let id = AccessTokenId::new_hex();
    let secret = fresh();
    let expires_at = now() + ACCESS_LIFE;
    app.plan(|snapshot, txn| {
        let read = waiting(snapshot, &token)?;
        if read.expires_at < now() {
            return Err(Error::unauthorized(
                "The request token has expired; ask for another one.",
            ));
        }
        let granted = read
            .granted
            .as_ref()
            .ok_or_else(|| Error::unauthorized("The request token was not authorized by a user yet."))?;
        if granted.verifier != verifier {
            return Err(unsigned());
        }
        let value = AccessToken {
            consumer_id: read.consumer_id.clone(),
            secret: secret.clone(),
            user_id: granted.user_id.clone(),
            project_id: read.project_id.clone(),
            roles: granted.roles.clone(),
            expires_at,
        };
        if snapshot.get::<User>(&value.user_id).is_none() {
            return Err(unsigned());
        }
        txn.alive::<Consumer>(&value.consumer_id)
            .alive::<Project>(&value.project_id)
            .alive::<User>(&value.user_id);
        txn.delete(&read);
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Ok(form(&id, &secret, expires_at))
}

// What a user has granted.

fn target(request: &Request) -> Target {
    Target::none()
        .with("target.user.id", request.param("id"))
        .with("user_id", request.param("id"))
}

fn granted(snapshot: &Snapshot, request: &Request) -> Result<Object<AccessToken>> {
    let id = request.param("access_token_id");
    snapshot
        .get::<AccessToken>(&AccessTokenId::from(id))
        .filter(|t| t.user_id.as_str() == request.param("id"))
        .ok_or_else(|| not_found("access token", id))
}

fn token_view(base: &str, t: &Object<AccessToken>) -> Value {
    let this = format!("{base}/v3/users/{}/OS-OAUTH1/access_tokens/{}", t.user_id, t.id);
    json!({"id": t.id, "consumer_id": t.consumer_id, "project_id": t.project_id,
        "authorizing_user_id": t.user_id, "expires_at": micros(t.expires_at),
        "links": {"roles": format!("{this}/roles"), "self": this}})
}

pub(super) async fn tokens(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&target(&request))?;
    may_delegate(&app, &request, "access tokens").await?;
    let snapshot = app.snapshot();
    let user = UserId::from(request.param("id"));
    let found: Vec<_> = snapshot.find::<AccessToken>("user", &user).collect();
    let base = request.base.as_str();
    lists::paged(&request, "access_tokens", &found, |t| &t.id, |t| token_view(base, t))
}

pub(super) async fn token(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&target(&request))?;
    let t = granted(&app.snapshot(), &request)?;
    Reply::json(200, &Wrapped("access_token", token_view(&request.base, &t)))
}

pub(super) async fn delete_token(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&target(&request))?;
    may_delegate(&app, &request, "access tokens").await?;
    app.plan(|snapshot, txn| {
        txn.delete(&granted(snapshot, &request)?);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn token_roles(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&target(&request))?;
    let snapshot = app.snapshot();
    let t = granted(&snapshot, &request)?;
    let found = delegation::role_views(&snapshot, &request.base, &t.roles);
    lists::whole(&request, "roles", &found)
}

pub(super) async fn token_role(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&target(&request))?;
    let snapshot = app.snapshot();
    let t = granted(&snapshot, &request)?;
    let id = RoleId::from(request.param("role_id"));
    let role = Some(&id)
        .filter(|id| t.roles.contains(id))
        .and_then(|id| snapshot.get::<maru_identity_model::Role>(id))
        .ok_or_else(|| not_found("role", &id))?;
    Reply::json(200, &Wrapped("role", views::role_object(&request.base, &role)))
}
