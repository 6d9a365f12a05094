//! /v3/users/{id}/application_credentials and /v3/users/{id}/access_rules. A user makes its own, for the project and at
//! most the roles of the token that it makes it with.

use super::{
    delegation::{self, may_delegate},
    duplicate,
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::Wrapped,
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{
    AccessRule, AccessRuleId, ApplicationCredential, ApplicationCredentialId, AssignmentTarget, Secret,
    effective_roles, freeze, project,
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

const WHAT: &str = "application credentials";

fn of_user(request: &Request) -> Target {
    Target::none().with("target.user.id", request.param("id"))
}

fn load(snapshot: &Snapshot, request: &Request) -> Result<Object<ApplicationCredential>> {
    let id = request.param("credential_id");
    snapshot
        .get::<ApplicationCredential>(&ApplicationCredentialId::from(id))
        .filter(|c| c.user_id.as_str() == request.param("id"))
        .ok_or_else(|| not_found("Application Credential", id))
}

fn load_rule(snapshot: &Snapshot, request: &Request) -> Result<Object<AccessRule>> {
    let id = request.param("rule_id");
    snapshot
        .get::<AccessRule>(&AccessRuleId::from(id))
        .filter(|r| r.user_id.as_str() == request.param("id"))
        .ok_or_else(|| not_found("Access Rule", id))
}

fn rule_view(id: &AccessRuleId, r: &AccessRule) -> Value {
    json!({"id": id, "service": r.service, "path": r.path, "method": r.method})
}

fn linked_rule(base: &str, r: &Object<AccessRule>) -> Value {
    let mut view = rule_view(&r.id, &r.value);
    view["links"] = json!({"self": format!("{base}/v3/users/{}/access_rules/{}", r.user_id, r.id)});
    view
}

fn view(snapshot: &Snapshot, base: &str, id: &ApplicationCredentialId, c: &ApplicationCredential) -> Value {
    let expires_at = c
        .expires_at
        .and_then(|t| jiff::Timestamp::from_microsecond(t).ok())
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string());
    let mut view = json!({"id": id, "name": c.name, "description": c.description, "project_id": c.project_id,
        "user_id": c.user_id, "system": null, "expires_at": expires_at, "unrestricted": c.unrestricted,
        "roles": delegation::role_views(snapshot, base, &c.roles),
        "links": {"self": format!("{base}/v3/users/{}/application_credentials/{id}", c.user_id)}});
    if let Some(rules) = &c.access_rules {
        view["access_rules"] = rules
            .iter()
            .filter_map(|id| snapshot.get::<AccessRule>(id))
            .map(|r| rule_view(&r.id, &r.value))
            .collect();
    }
    view
}

/// An access rule as a request gives it: one that the user has, by id, or a form of request.
enum Wanted {
    Id(String),
    New(AccessRule),
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

fn wanted_rule(user: &UserId, value: &Value) -> Result<Wanted> {
    let bad = |why: &str| {
        Error::invalid(
            "access_rules",
            format!("Invalid input for field 'access_rules': {why}."),
        )
    };
    let rule = value.as_object().ok_or_else(|| bad("a list of objects is wanted"))?;
    if let Some(other) = rule
        .keys()
        .find(|k| !["id", "service", "path", "method"].contains(&k.as_str()))
    {
        return Err(bad(&format!("the property '{other}' is not known")));
    }
    let text = |name: &str, most: usize| match rule.get(name) {
        Some(Value::String(t)) if (1..=most).contains(&t.len()) => Ok(t.clone()),
        _ => Err(bad(&format!("each rule has a {name} of 1 to {most} characters"))),
    };
    if rule.contains_key("id") {
        return Ok(Wanted::Id(text("id", 64)?));
    }
    let (service, path, method) = (text("service", 64)?, text("path", 128)?, text("method", 16)?);
    if !METHODS.contains(&method.as_str()) {
        return Err(bad(&format!("the method is one of {}", METHODS.join(", "))));
    }
    if !path.starts_with('/') || path.matches("**").count() > 4 {
        return Err(bad("the path begins with / and has at most four **"));
    }
    Ok(Wanted::New(AccessRule {
        user_id: user.clone(),
        service,
        path,
        method,
    }))
}

fn wanted_rules(user: &UserId, value: Option<Value>) -> Result<Option<Vec<Wanted>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(rules)) if rules.len() <= 100 => rules
            .iter()
            .map(|r| wanted_rule(user, r))
            .collect::<Result<_>>()
            .map(Some),
        Some(_) => Err(Error::invalid(
            "access_rules",
            "Invalid input for field 'access_rules': a list of at most 100 rules is wanted.",
        )),
    }
}

/// A secret that nobody guesses: 64 bytes of randomness.
fn fresh_secret() -> Secret {
    use base64::Engine;
    let mut bytes = [0_u8; 48];
    maru_base::random::fill(&mut bytes);
    Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let verified = may_delegate(&app, &request, WHAT).await?;
    let user_id = verified.payload.user_id.clone();
    let mut fields = Fields::read(&mut request, "application_credential").await?;
    let name = fields.required_name(255)?;
    let description = fields.nullable("description")?.flatten();
    let expires_at = delegation::expiry(fields.nullable("expires_at")?.flatten())?;
    let unrestricted = fields.bool("unrestricted")?.unwrap_or(false);
    let roles = delegation::roles(fields.take("roles"))?;
    let rules = wanted_rules(&user_id, fields.take("access_rules"))?;
    let secret = fields.password("secret")?.flatten().unwrap_or_else(fresh_secret);
    let project_id: Option<ProjectId> = fields.id("project_id")?.flatten().map(ProjectId::from);
    fields.nothing_else()?;
    let own = request.caller()?.require_project()?.clone();
    if project_id.is_some_and(|p| p != own) {
        return Err(Error::forbidden(
            "An application credential is for the project of the token that it is made with.",
        ));
    }
    let hash = app.passwords.hash(secret.clone()).await?;
    let id = ApplicationCredentialId::new_hex();
    let (snapshot, value) = app
        .plan(|snapshot, txn| {
            // A grant that is taken away meanwhile would be missed otherwise.
            freeze(snapshot, txn);
            let has = effective_roles(snapshot, &user_id, &AssignmentTarget::Project(own.clone()));
            // An unrestricted credential that makes another gives no role that it has not itself.
            let has: Vec<_> = has.into_iter().filter(|r| verified.has_role(&r.id)).collect();
            let roles = match &roles {
                None => has.iter().map(|r| r.id.clone()).collect(),
                Some(named) => {
                    let mut ids = Vec::new();
                    for n in named {
                        let role = delegation::role(snapshot, n)?;
                        if !has.iter().any(|r| r.id == role.id) {
                            return Err(Error::bad_request(format!(
                                "Invalid application credential: you have no role {} on the project {own}.",
                                role.name
                            )));
                        }
                        if !ids.contains(&role.id) {
                            ids.push(role.id.clone());
                        }
                    }
                    ids
                }
            };
            if roles.is_empty() {
                return Err(Error::bad_request(
                    "Invalid application credential: name one role at least, or leave roles out for all of yours.",
                ));
            }
            if project(snapshot, &own).is_none() {
                return Err(not_found("project", &own));
            }
            if snapshot.owner("application-credential", &user_id, &name).is_some() {
                return Err(duplicate("application_credential", &name));
            }
            let access_rules = match &rules {
                None => None,
                Some(wanted) => Some(settle_rules(snapshot, txn, &user_id, wanted)?),
            };
            let value = ApplicationCredential {
                name: name.clone(),
                description: description.clone(),
                user_id: user_id.clone(),
                project_id: own.clone(),
                roles,
                expires_at,
                unrestricted,
                access_rules,
                secret: hash.clone(),
            };
            txn.claim("application-credential", &user_id, &name, &id);
            txn.create(&id, &value);
            Ok(((), value))
        })
        .await
        .map(|((), value)| (app.snapshot(), value))?;
    let mut shown = view(&snapshot, &request.base, &id, &value);
    shown["secret"] = secret.reveal().into();
    Reply::json(201, &Wrapped("application_credential", shown))
}

/// The ids of the wanted rules; those that the user does not have yet are made.
fn settle_rules(
    snapshot: &Snapshot,
    txn: &mut maru_store::Txn,
    user: &UserId,
    wanted: &[Wanted],
) -> Result<Vec<AccessRuleId>> {
    let mut known: Vec<(AccessRuleId, AccessRule)> = snapshot
        .find::<AccessRule>("user", user)
        .map(|r| (r.id.clone(), (*r.value).clone()))
        .collect();
    let mut ids = Vec::new();
    for w in wanted {
        let id = match w {
            Wanted::Id(id) => known
                .iter()
                .find(|(k, _)| k.as_str() == id)
                .map(|(k, _)| k.clone())
                .ok_or_else(|| not_found("Access Rule", id))?,
            Wanted::New(rule) => match known.iter().find(|(_, k)| k == rule) {
                Some((k, _)) => k.clone(),
                None => {
                    let id = AccessRuleId::new_hex();
                    txn.create(&id, rule);
                    known.push((id.clone(), rule.clone()));
                    id
                }
            },
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["name"]);
    let found: Vec<_> = snapshot
        .find::<ApplicationCredential>("user", request.param("id"))
        .filter(|c| filters.pass(|_| Some(c.name.as_str())))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "application_credentials",
        &found,
        |c| &c.id,
        |c| view(&snapshot, base, &c.id, &c.value),
    )
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let snapshot = app.snapshot();
    let c = load(&snapshot, &request)?;
    let shown = view(&snapshot, &request.base, &c.id, &c.value);
    Reply::json(200, &Wrapped("application_credential", shown))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    may_delegate(&app, &request, WHAT).await?;
    app.plan(|snapshot, txn| {
        let c = load(snapshot, &request)?;
        Cascade::new(snapshot, txn).application_credential(&c);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn rules(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let filters = Filters::of(&request, &["service", "path", "method"]);
    let found: Vec<_> = app
        .snapshot()
        .find::<AccessRule>("user", request.param("id"))
        .filter(|r| {
            filters.pass(|name| match name {
                "service" => Some(r.service.as_str()),
                "path" => Some(r.path.as_str()),
                _ => Some(r.method.as_str()),
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(&request, "access_rules", &found, |r| &r.id, |r| linked_rule(base, r))
}

pub(super) async fn show_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    let r = load_rule(&app.snapshot(), &request)?;
    Reply::json(200, &Wrapped("access_rule", linked_rule(&request.base, &r)))
}

pub(super) async fn delete_rule(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&of_user(&request))?;
    may_delegate(&app, &request, WHAT).await?;
    app.plan(|snapshot, txn| {
        // No credential may come to use it meanwhile.
        freeze(snapshot, txn);
        let r = load_rule(snapshot, &request)?;
        let used = snapshot
            .find::<ApplicationCredential>("user", &r.user_id)
            .find(|c| c.access_rules.as_ref().is_some_and(|rules| rules.contains(&r.id)));
        if let Some(c) = used {
            return Err(Error::forbidden(format!(
                "The access rule is used by the application credential {}; delete that first.",
                c.id
            )));
        }
        txn.delete(&r);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
