//! Server groups.

use crate::{
    App,
    api::wire::{self, Count, given, invalid},
    control::servers::group_epoch,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_compute_model::{GroupId, Server, ServerGroup, quota};
use maru_http::{Reply, Request, paging::Page};
use maru_store::{CommitError, Conflict, Guard, Key, Object, Snapshot, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    #[serde(default, deserialize_with = "given")]
    policies: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    policy: Option<String>,
    #[serde(default, deserialize_with = "given")]
    rules: Option<RulesBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesBody {
    #[serde(default, deserialize_with = "given")]
    max_server_per_host: Option<Count>,
}

fn view(snapshot: &Snapshot, request: &Request, g: &Object<ServerGroup>) -> Value {
    let members: Vec<Value> = snapshot
        .find::<Server>("group", &g.id)
        .map(|s| s.id.as_str().into())
        .collect();
    let mut v = json!({"id": g.id.as_str(), "name": g.name, "members": members});
    if request.at_least(2, 64) {
        v["policy"] = g.policy.as_str().into();
        v["rules"] = g
            .max_server_per_host
            .map_or_else(|| json!({}), |n| json!({"max_server_per_host": n}));
    } else {
        v["policies"] = json!([g.policy]);
        v["metadata"] = json!({});
    }
    if request.at_least(2, 13) {
        v["project_id"] = g.project_id.as_str().into();
        v["user_id"] = g.user_id.as_str().into();
    }
    v
}

fn find(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<ServerGroup>> {
    let caller = request.caller()?;
    snapshot
        .get::<ServerGroup>(&GroupId::from(id))
        .filter(|g| caller.is_admin() || caller.project_id() == Some(&g.project_id))
        .ok_or_else(|| Error::not_found(format!("Instance group {id} could not be found.")))
}

/// `GET /os-server-groups`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let caller = request.caller()?;
    let mut found: Vec<Object<ServerGroup>> = if request.query.has("all_projects") && caller.is_admin() {
        request.authorize_rule(
            "os_compute_api:os-server-groups:index:all_projects",
            &Target::of_caller(caller),
        )?;
        snapshot.list::<ServerGroup>().collect()
    } else {
        snapshot
            .find::<ServerGroup>("project", caller.require_project()?)
            .collect()
    };
    found.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
    let page = Page::from_query(&request.query, 1_000, 1_000)?;
    let offset = request.query.number("offset")?.unwrap_or(0);
    let list: Vec<Value> = found
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(page.limit)
        .map(|g| view(&snapshot, &request, g))
        .collect();
    Reply::json(200, &json!({"server_groups": list}))
}

/// `GET /os-server-groups/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let group = find(&snapshot, &request, request.param("id"))?;
    request.authorize(&Target::project(&group.project_id))?;
    Reply::json(200, &json!({"server_group": view(&snapshot, &request, &group)}))
}

/// `POST /os-server-groups`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: CreateBody = wire::body(&mut request, "server_group").await?;
    wire::check_name("server_group.name", &body.name)?;
    let newer = request.at_least(2, 64);
    let policy = if newer {
        if body.policies.is_some() {
            return Err(invalid(
                "server_group.policies",
                "Additional properties are not allowed ('policies' was unexpected)",
            ));
        }
        body.policy.clone()
    } else {
        if body.policy.is_some() || body.rules.is_some() {
            return Err(invalid(
                "server_group.policy",
                "Additional properties are not allowed before 2.64: use policies",
            ));
        }
        match body.policies.as_deref() {
            Some([one]) => Some(one.clone()),
            Some(_) => return Err(invalid("server_group.policies", "exactly one policy")),
            None => None,
        }
    };
    let name = if newer { "policy" } else { "policies" };
    let policy = policy.ok_or_else(|| {
        invalid(
            &format!("server_group.{name}"),
            format!("'{name}' is a required property"),
        )
    })?;
    let soft = request.at_least(2, 15);
    if !(matches!(policy.as_str(), "affinity" | "anti-affinity")
        || (soft && matches!(policy.as_str(), "soft-affinity" | "soft-anti-affinity")))
    {
        return Err(invalid(
            &format!("server_group.{name}"),
            format!("'{policy}' is not one of the policies"),
        ));
    }
    let max = match body.rules.and_then(|r| r.max_server_per_host) {
        None => None,
        Some(_) if policy != "anti-affinity" => {
            return Err(Error::bad_request("Only anti-affinity policy supports rules."));
        }
        Some(n) => Some(u32::try_from(n.at_least("server_group.rules.max_server_per_host", 1)?).unwrap_or(u32::MAX)),
    };
    let caller = request.caller()?.clone();
    let project = caller.require_project()?.clone();
    let group = ServerGroup {
        name: body.name,
        project_id: project.clone(),
        user_id: caller.user_id.clone(),
        policy,
        max_server_per_host: max,
        created: maru_base::time::now(),
    };
    let id = GroupId::new_uuid();
    let too_many = || Error::forbidden("Quota exceeded, too many server groups.");
    app.store
        .plan(|snapshot| {
            if quota::headroom(snapshot, &project, "server_groups") == Some(0) {
                return Err(too_many());
            }
            let mut txn = Txn::new();
            quota::consume(snapshot, &mut txn, &project, "server_groups", 1);
            txn.create(&id, &group);
            Ok((txn, ()))
        })
        .await
        .map_err(|e| match CommitError::conflict_of(&e) {
            Some(Conflict::Exceeded { .. }) => too_many(),
            _ => e,
        })?;
    let snapshot = app.store.snapshot();
    let group = find(&snapshot, &request, &id)?;
    Reply::json(200, &json!({"server_group": view(&snapshot, &request, &group)}))
}

/// `DELETE /os-server-groups/{id}`: its servers stay.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let group = find(snapshot, &request, request.param("id"))?;
            request.authorize(&Target::project(&group.project_id))?;
            let mut txn = Txn::new();
            quota::consume(snapshot, &mut txn, &group.project_id, "server_groups", -1);
            txn.delete(&group);
            let epoch = Key::of(&["epoch", &group_epoch(&group.id)]);
            match snapshot.raw(&epoch) {
                Some((revision, _)) => {
                    txn.guard(Guard::At(epoch.clone(), revision));
                    txn.op(maru_store::Op::Delete(epoch));
                }
                // One that a new member makes meanwhile would outlive the group.
                None => {
                    txn.guard(Guard::Absent(epoch));
                }
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(204))
}
