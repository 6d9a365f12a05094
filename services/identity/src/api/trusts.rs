//! /v3/OS-TRUST/trusts. The trustor makes a trust with roles that it has itself, and may hand a trust on, made smaller.

use super::{
    delegation,
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::Wrapped,
};
use crate::{
    App,
    app::{Delegated, cascade::Cascade, refused},
};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{AssignmentTarget, RoleId, Trust, TrustId, User, effective_roles, freeze, project};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

/// How many times in a row a trust may be handed on, as Keystone's default.
const MAX_REDELEGATION: u64 = 3;

fn load(snapshot: &Snapshot, request: &Request) -> Result<Object<Trust>> {
    let id = request.param("id");
    snapshot
        .get::<Trust>(&TrustId::from(id))
        .ok_or_else(|| not_found("trust", id))
}

/// Whoever is no party is told that there is no such trust (upstream tells 403 and 404 apart, and so which ids are trusts);
/// then the route's own rule.
fn allowed(snapshot: &Snapshot, request: &Request) -> Result<Object<Trust>> {
    let t = load(snapshot, request)?;
    let target = Target::none()
        .with("target.trust.trustor_user_id", &t.trustor_user_id)
        .with("target.trust.trustee_user_id", &t.trustee_user_id);
    if !request.may("identity:get_trust", &target) {
        return Err(not_found("trust", request.param("id")));
    }
    request.authorize(&target)?;
    Ok(t)
}

fn view(base: &str, id: &TrustId, t: &Trust, roles: Option<Vec<Value>>) -> Value {
    let expires_at = t
        .expires_at
        .and_then(|t| jiff::Timestamp::from_microsecond(t).ok())
        .map(maru_base::time::micros_z);
    let this = format!("{base}/v3/OS-TRUST/trusts/{id}");
    let mut view = json!({"id": id, "trustor_user_id": t.trustor_user_id, "trustee_user_id": t.trustee_user_id,
        "project_id": t.project_id, "impersonation": t.impersonation, "expires_at": expires_at, "deleted_at": null,
        "remaining_uses": t.remaining_uses, "redelegation_count": t.redelegation_count, "links": {"self": this}});
    if let Some(parent) = &t.redelegated_trust_id {
        view["redelegated_trust_id"] = json!(parent);
    }
    if let Some(roles) = roles {
        view["roles"] = Value::Array(roles);
        view["roles_links"] = json!({"self": format!("{this}/roles"), "next": null, "previous": null});
    }
    view
}

fn number(name: &'static str, value: Option<Value>, least: u64) -> Result<Option<u64>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(v) => match v.as_u64() {
            Some(n) if n >= least => Ok(Some(n)),
            _ => Err(Error::invalid(
                name,
                format!("Invalid input for field '{name}': a whole number of at least {least} is wanted."),
            )),
        },
    }
}

/// What a trust made from another may not pass.
fn smaller(parent: &Object<Trust>, child: &Trust) -> Result<()> {
    let no = |why: String| {
        Err(Error::forbidden(format!(
            "The trust {} cannot be handed on: {why}.",
            parent.id
        )))
    };
    if parent.redelegation_count == 0 {
        return no("it may not be handed on (any more)".to_owned());
    }
    if child.redelegation_count >= parent.redelegation_count {
        return no(format!(
            "redelegation_count is below {} at most",
            parent.redelegation_count
        ));
    }
    if child.project_id != parent.project_id {
        return no("it is for another project".to_owned());
    }
    if child.impersonation && !parent.impersonation {
        return no("it does not impersonate its trustor".to_owned());
    }
    if let Some(end) = parent.expires_at
        && child.expires_at.is_none_or(|e| e > end)
    {
        return no("expires_at may not be later than its own".to_owned());
    }
    if let Some(role) = child.roles.iter().find(|r| !parent.roles.contains(r)) {
        return no(format!("it does not give the role {role}"));
    }
    Ok(())
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let token = request.header("x-auth-token").ok_or_else(refused)?;
    let verified = app.verify(token).await?;
    let mut fields = Fields::read(&mut request, "trust").await?;
    let trustor = UserId::from(fields.required("trustor_user_id", 64)?);
    let trustee = UserId::from(fields.required("trustee_user_id", 64)?);
    let impersonation = fields.bool("impersonation")?.ok_or_else(|| {
        Error::invalid(
            "impersonation",
            "Invalid input for field 'impersonation': it is a required property.",
        )
    })?;
    let project_id = fields.id("project_id")?.flatten().map(ProjectId::from);
    let expires_at = delegation::expiry(fields.nullable("expires_at")?.flatten())?;
    let remaining_uses = number("remaining_uses", fields.take("remaining_uses"), 1)?;
    let allow = fields.bool("allow_redelegation")?.unwrap_or(false);
    let count = number("redelegation_count", fields.take("redelegation_count"), 0)?;
    let roles = delegation::roles(fields.take("roles"))?.unwrap_or_default();
    fields.nothing_else()?;
    request.authorize(&Target::none().with("target.trust.trustor_user_id", &trustor))?;
    let parent = match &verified.delegated {
        // Only its own trustor hands a trust on, which is who an impersonating token shows.
        Some(Delegated::Trust(parent)) => Some(parent.clone()),
        _ => {
            verified.may_delegate("trusts")?;
            None
        }
    };
    let Some(project_id) = project_id.filter(|_| !roles.is_empty()) else {
        return Err(Error::forbidden(
            "At least one role should be specified, and the project that it is for.",
        ));
    };
    if allow && remaining_uses.is_some() {
        return Err(Error::invalid(
            "remaining_uses",
            "Invalid input for field 'remaining_uses': it must not be set if redelegation is allowed.",
        ));
    }
    let most = parent
        .as_ref()
        .map_or(MAX_REDELEGATION, |p| p.redelegation_count.saturating_sub(1));
    let count = if allow { count.unwrap_or(most) } else { 0 };
    if count > MAX_REDELEGATION {
        return Err(Error::forbidden(format!(
            "Requested redelegation depth of {count} is greater than allowed {MAX_REDELEGATION}."
        )));
    }
    let id = TrustId::new_hex();
    let value = app
        .plan(|snapshot, txn| {
            // A grant that is taken away meanwhile would be missed otherwise.
            freeze(snapshot, txn);
            for user in [&trustor, &trustee] {
                if snapshot.get::<User>(user).is_none() {
                    return Err(not_found("user", user));
                }
            }
            if project(snapshot, &project_id).is_none() {
                return Err(not_found("project", &project_id));
            }
            let has = effective_roles(snapshot, &trustor, &AssignmentTarget::Project(project_id.clone()));
            let mut ids: Vec<RoleId> = Vec::new();
            for named in &roles {
                let role = delegation::role(snapshot, named)?;
                let mine = has.iter().any(|r| r.id == role.id);
                // A token for this project gives only what it has itself, an application credential's too.
                let here = verified.caller.project_id() != Some(&project_id) || verified.has_role(&role.id);
                let whole = verified.delegated.is_none() || verified.caller.project_id() == Some(&project_id);
                if !mine || !here || !whole {
                    return Err(Error::forbidden(format!(
                        "The trustor has no role {} on the project {project_id} to give.",
                        role.name
                    )));
                }
                if !ids.contains(&role.id) {
                    ids.push(role.id.clone());
                }
            }
            let value = Trust {
                trustor_user_id: trustor.clone(),
                trustee_user_id: trustee.clone(),
                project_id: project_id.clone(),
                roles: ids,
                impersonation,
                expires_at,
                remaining_uses,
                redelegation_count: count,
                redelegated_trust_id: parent.as_ref().map(|p| p.id.clone()),
            };
            if let Some(p) = &parent {
                let p = snapshot.get::<Trust>(&p.id).ok_or_else(|| not_found("trust", &p.id))?;
                smaller(&p, &value)?;
            }
            txn.create(&id, &value);
            Ok(value)
        })
        .await?;
    let roles = delegation::role_views(&app.snapshot(), &request.base, &value.roles);
    Reply::json(201, &Wrapped("trust", view(&request.base, &id, &value, Some(roles))))
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let given = |name: &str| request.query.get(name);
    match (given("trustor_user_id"), given("trustee_user_id")) {
        (None, None) => request.authorize_rule("identity:list_trusts", &Target::none())?,
        (trustor, trustee) => {
            if let Some(user) = trustor {
                let target = Target::none().with("target.trust.trustor_user_id", user);
                request.authorize_rule("identity:list_trusts_for_trustor", &target)?;
            }
            if let Some(user) = trustee {
                let target = Target::none().with("target.trust.trustee_user_id", user);
                request.authorize_rule("identity:list_trusts_for_trustee", &target)?;
            }
        }
    }
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["trustor_user_id", "trustee_user_id"]);
    let all: Vec<_> = match (given("trustor_user_id"), given("trustee_user_id")) {
        (Some(user), _) => snapshot.find::<Trust>("trustor", user).collect(),
        (None, Some(user)) => snapshot.find::<Trust>("trustee", user).collect(),
        (None, None) => snapshot.list::<Trust>().collect(),
    };
    let found: Vec<_> = all
        .into_iter()
        .filter(|t| {
            filters.pass(|name| match name {
                "trustor_user_id" => Some(t.trustor_user_id.as_str()),
                _ => Some(t.trustee_user_id.as_str()),
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "trusts",
        &found,
        |t| &t.id,
        |t| view(base, &t.id, &t.value, None),
    )
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let t = allowed(&snapshot, &request)?;
    let roles = delegation::role_views(&snapshot, &request.base, &t.roles);
    Reply::json(
        200,
        &Wrapped("trust", view(&request.base, &t.id, &t.value, Some(roles))),
    )
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    allowed(&app.snapshot(), &request)?;
    super::delegation::may_delegate(&app, &request, "trusts").await?;
    app.plan(|snapshot, txn| {
        let t = load(snapshot, &request)?;
        Cascade::new(snapshot, txn).trust(&t);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn roles(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let t = allowed(&snapshot, &request)?;
    lists::whole(
        &request,
        "roles",
        &delegation::role_views(&snapshot, &request.base, &t.roles),
    )
}

pub(super) async fn role(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let t = allowed(&snapshot, &request)?;
    let id = request.param("role_id");
    let found = t
        .roles
        .iter()
        .find(|r| r.as_str() == id)
        .map(|r| delegation::role_views(&snapshot, &request.base, std::slice::from_ref(r)))
        .and_then(|mut r| r.pop())
        .ok_or_else(|| not_found("role", id))?;
    Reply::json(200, &Wrapped("role", found))
}
