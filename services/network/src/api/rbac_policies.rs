//! `/rbac-policies`: networks shared with one project.

use super::{
    body::{self, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::{Reply, Request};
use maru_network_model::{
    NetworkId, RbacPolicy, RbacPolicyId, errors,
    rbac::{EVERYONE, plan_create_rbac, plan_delete_rbac, plan_update_rbac},
};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

const LIST: List = List {
    plural: "rbac_policies",
    filters: &[],
    attributes: &[
        "id",
        "tenant_id",
        "project_id",
        "object_type",
        "object_id",
        "action",
        "target_tenant",
    ],
    missing: |id| not_found(id),
};
const KIND: &str = "network";
const ACTION: &str = "access_as_shared";

fn not_found(id: &str) -> maru_base::Error {
    errors::not_found("RbacPolicyNotFound", "RBAC policy", id)
}

fn row_of(id: &str, p: &RbacPolicy) -> Row {
    Row::new(id)
        .project(&p.project_id)
        .with("object_type", KIND)
        .with("object_id", p.network_id.as_str())
        .with("action", ACTION)
        .with("target_tenant", p.target.as_str())
}

fn find(request: &Request, snapshot: &Snapshot) -> Result<Object<RbacPolicy>> {
    let id = request.param("id");
    let found = snapshot
        .get::<RbacPolicy>(&RbacPolicyId::from(id))
        .filter(|p| request.may("get_rbac_policy", &Target::project(&p.value.project_id)));
    let found = found.ok_or_else(|| not_found(id))?;
    request.authorize(&Target::project(&found.value.project_id))?;
    Ok(found)
}

/// Sharing with everyone asks a rule of its own.
fn check_target(request: &Request, rule: &str, target: &str) -> Result<()> {
    if target.is_empty() {
        return Err(invalid("target_tenant", "it is empty; name a project, or *"));
    }
    if target == EVERYONE {
        request.authorize_rule(rule, &Target::none())?;
    }
    Ok(())
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_rbac_policy",
        &[("object_id", "object")],
        |_, p: &RbacPolicy| Target::project(&p.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = find(&request, &app.store.snapshot())?;
    row::one(200, "rbac_policy", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "rbac_policy", "rbac_policies").await?;
    let mut policies = Vec::with_capacity(bodies.len());
    for mut b in bodies {
        let project_id = access::project_for(&request, b.project()?)?;
        let kind = b.text("object_type", 255)?;
        let kind = b.required("object_type", kind)?;
        if kind != KIND {
            return Err(invalid(
                "object_type",
                format!("'{kind}' cannot be shared so here; {KIND} can"),
            ));
        }
        let action = b.text("action", 255)?;
        let action = b.required("action", action)?;
        if action != ACTION {
            return Err(invalid("action", format!("'{action}' is not served; use {ACTION}")));
        }
        let object = b.uuid("object_id")?;
        let object = b.required("object_id", object)?;
        let target = b.text("target_tenant", 255)?;
        let target = b.required("target_tenant", target)?;
        check_target(&request, "create_rbac_policy:target_tenant", &target)?;
        b.finish(&[])?;
        policies.push(RbacPolicy {
            project_id,
            network_id: NetworkId::from(object),
            target: ProjectId::from(target),
        });
    }
    let made = app
        .plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(policies.len());
            for policy in &policies {
                request.authorize(&Target::project(&policy.project_id))?;
                let network = access::network(&request, snapshot, &policy.network_id)?;
                if !request.caller()?.is_admin() && network.value.project_id != policy.project_id {
                    return Err(errors::invalid_input(
                        "only admins can manipulate policies on networks they do not own",
                    ));
                }
                made.push(plan_create_rbac(snapshot, txn, policy.clone())?);
            }
            Ok(made)
        })
        .await?;
    let rows = made.iter().map(|(id, p)| row_of(id, p)).collect();
    row::created(bulk, "rbac_policy", "rbac_policies", rows)
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "rbac_policy").await?;
    let target = b.text("target_tenant", 255)?;
    if let Some(target) = &target {
        check_target(&request, "update_rbac_policy:target_tenant", target)?;
    }
    b.finish(&["object_type", "object_id", "action"])?;
    let (id, policy) = app
        .plan(|snapshot, txn| {
            let read = find(&request, snapshot)?;
            let policy = match &target {
                Some(target) => plan_update_rbac(snapshot, txn, &read, ProjectId::from(target.as_str()))?,
                None => (*read.value).clone(),
            };
            Ok((read.id, policy))
        })
        .await?;
    row::one(200, "rbac_policy", row_of(&id, &policy), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = find(&request, snapshot)?;
        plan_delete_rbac(snapshot, txn, &read)
    })
    .await?;
    Ok(Reply::empty(204))
}
