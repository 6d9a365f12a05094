//! Quota sets of projects, and the quota class that all projects begin with.

use crate::{
    App,
    api::wire::{self, Flag, invalid},
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_compute_model::{QuotaClass, QuotaClassId, QuotaSet, QuotaSetId, ServerGroup, quota};
use maru_http::{Reply, Request};
use maru_store::{Snapshot, Txn};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

const NETWORK: &[&str] = &["fixed_ips", "floating_ips", "security_groups", "security_group_rules"];
const FILES: &[&str] = &[
    "injected_files",
    "injected_file_content_bytes",
    "injected_file_path_bytes",
];

/// The resources that a microversion shows.
fn resources(request: &Request) -> impl Iterator<Item = &'static str> {
    let (network, files) = (!request.at_least(2, 36), !request.at_least(2, 57));
    quota::DEFAULTS
        .iter()
        .map(|(n, _)| *n)
        .filter(move |n| (network || !NETWORK.contains(n)) && (files || !FILES.contains(n)))
}

fn view(request: &Request, id: Option<&str>, limit: impl Fn(&str) -> Value) -> Value {
    let mut v = Map::new();
    if let Some(id) = id {
        v.insert("id".to_owned(), id.into());
    }
    for r in resources(request) {
        v.insert(r.to_owned(), limit(r));
    }
    Value::Object(v)
}

fn used(snapshot: &Snapshot, project: &str, resource: &str) -> i64 {
    match resource {
        "instances" | "cores" | "ram" => quota::used(snapshot, project, resource),
        "server_groups" => i64::try_from(snapshot.find::<ServerGroup>("project", project).count()).unwrap_or(i64::MAX),
        _ => 0,
    }
}

/// `GET /os-quota-sets/{project}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    request.authorize(&Target::project(project))?;
    let snapshot = app.store.current().await?;
    let v = view(&request, Some(project), |r| quota::limit(&snapshot, project, r).into());
    Reply::json(200, &json!({"quota_set": v}))
}

/// `GET /os-quota-sets/{project}/defaults`.
pub(crate) async fn defaults(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    let snapshot = app.store.current().await?;
    let v = view(&request, Some(project), |r| quota::default_limit(&snapshot, r).into());
    Reply::json(200, &json!({"quota_set": v}))
}

/// `GET /os-quota-sets/{project}/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    request.authorize(&Target::project(project))?;
    let snapshot = app.store.current().await?;
    let v = view(
        &request,
        Some(project),
        |r| json!({"limit": quota::limit(&snapshot, project, r), "in_use": used(&snapshot, project, r), "reserved": 0}),
    );
    Reply::json(200, &json!({"quota_set": v}))
}

/// Limits out of a body: whole numbers from -1, also as texts.
fn limits_of(request: &Request, root: &str, body: Map<String, Value>) -> Result<(BTreeMap<String, i64>, bool)> {
    let mut limits = BTreeMap::new();
    let mut force = false;
    for (name, value) in body {
        let field = format!("{root}.{name}");
        if name == "force" && root == "quota_set" {
            force = wire::typed::<Flag>(&field, value)?.0;
            continue;
        }
        if name == "tenant_id" && root == "quota_set" {
            continue;
        }
        if !resources(request).any(|r| r == name) {
            return Err(invalid(
                &field,
                format!("Additional properties are not allowed ('{name}' was unexpected)"),
            ));
        }
        limits.insert(name, wire::typed::<wire::Count>(&field, value)?.0);
    }
    Ok((limits, force))
}

/// Limits are kept by project: a change for one user must not change them for all.
fn refuse_user(request: &Request) -> Result<()> {
    if request.query.has("user_id") {
        return Err(Error::not_implemented(
            "This cloud keeps quotas by project, not by user: leave user_id out to set those of the project.",
        ));
    }
    Ok(())
}

/// `PUT /os-quota-sets/{project}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    refuse_user(&request)?;
    let body: Map<String, Value> = wire::body(&mut request, "quota_set").await?;
    let (limits, force) = limits_of(&request, "quota_set", body)?;
    let project = request.param("project").to_owned();
    let id = QuotaSetId::from(&project);
    app.store
        .plan(|snapshot| {
            for (resource, limit) in &limits {
                let in_use = used(snapshot, &project, resource);
                if !force && *limit >= 0 && in_use > *limit {
                    return Err(Error::bad_request(format!("Quota limit {limit} for {resource} must be greater than or equal to already used and reserved {in_use}.")));
                }
            }
            let mut txn = Txn::new();
            match snapshot.get::<QuotaSet>(&id) {
                Some(old) => {
                    let mut new = (*old.value).clone();
                    new.limits.extend(limits.clone());
                    txn.update(&old, &new);
                }
                None => {
                    txn.create(&id, &QuotaSet { limits: limits.clone() });
                }
            }
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let v = view(&request, None, |r| quota::limit(&snapshot, &project, r).into());
    Reply::json(200, &json!({"quota_set": v}))
}

/// `DELETE /os-quota-sets/{project}`: back to the defaults.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    refuse_user(&request)?;
    let id = QuotaSetId::from(request.param("project"));
    app.store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if let Some(old) = snapshot.get::<QuotaSet>(&id) {
                txn.delete(&old);
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// The class shows the same resources but for those of the network before 2.50.
fn class_view(request: &Request, snapshot: &Snapshot, id: Option<&str>) -> Value {
    let mut v = view(request, id, |r| quota::default_limit(snapshot, r).into());
    if let Value::Object(map) = &mut v {
        if request.at_least(2, 50) {
            map.retain(|k, _| !NETWORK.contains(&k.as_str()));
        } else {
            map.retain(|k, _| !matches!(k.as_str(), "server_groups" | "server_group_members"));
            for r in NETWORK {
                map.insert((*r).to_owned(), quota::default_limit(snapshot, r).into());
            }
        }
    }
    v
}

/// `GET /os-quota-class-sets/{class}`.
pub(crate) async fn class(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let v = class_view(&request, &snapshot, Some(request.param("class")));
    Reply::json(200, &json!({"quota_class_set": v}))
}

/// `PUT /os-quota-class-sets/{class}`.
pub(crate) async fn update_class(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: Map<String, Value> = wire::body(&mut request, "quota_class_set").await?;
    let (limits, _) = limits_of(&request, "quota_class_set", body)?;
    let id = QuotaClassId::from(request.param("class"));
    app.store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            match snapshot.get::<QuotaClass>(&id) {
                Some(old) => {
                    let mut new = (*old.value).clone();
                    new.limits.extend(limits.clone());
                    txn.update(&old, &new);
                }
                None => {
                    txn.create(&id, &QuotaClass { limits: limits.clone() });
                }
            }
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    Reply::json(200, &json!({"quota_class_set": class_view(&request, &snapshot, None)}))
}
