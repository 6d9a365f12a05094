//! Quota sets of projects, the quota class that all projects begin with, and the limits that clients ask for.

use crate::{
    App,
    api::wire::{self, Count, invalid, typed},
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{
    VolumeType,
    quota::{self, DEFAULTS, QuotaClass, QuotaClassId, QuotaSet, QuotaSetId},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Counted by type as well.
const BY_TYPE: &[&str] = &["volumes", "gigabytes", "snapshots"];

/// Every resource: the name that the API shows and the name that is counted (types are counted by id, shown by name).
fn resources(snapshot: &Snapshot) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = DEFAULTS
        .iter()
        .map(|(n, _)| ((*n).to_owned(), (*n).to_owned()))
        .collect();
    let mut types: Vec<Object<VolumeType>> = snapshot.list::<VolumeType>().collect();
    types.sort_by(|a, b| a.value.name.cmp(&b.value.name));
    for kind in types {
        for r in BY_TYPE {
            all.push((format!("{r}_{}", kind.value.name), format!("{r}_{}", kind.id)));
        }
    }
    all
}

fn view(snapshot: &Snapshot, id: Option<&str>, value: impl Fn(&str) -> Value) -> Value {
    let mut out = Map::new();
    if let Some(id) = id {
        out.insert("id".to_owned(), id.into());
    }
    for (shown, counted) in resources(snapshot) {
        out.insert(shown, value(&counted));
    }
    Value::Object(out)
}

/// `GET /os-quota-sets/{project}`; `usage=true` shows what is in use as well.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    request.authorize(&Target::project(project))?;
    let snapshot = app.store.current().await?;
    let usage = request.query.bool("usage")?.unwrap_or(false);
    let out = view(&snapshot, Some(project), |r| {
        let limit = quota::limit(&snapshot, project, r);
        if usage {
            json!({"limit": limit, "in_use": quota::used(&snapshot, project, r), "reserved": 0, "allocated": 0})
        } else {
            limit.into()
        }
    });
    Reply::json(200, &json!({"quota_set": out}))
}

/// `GET /os-quota-sets/{project}/defaults`.
pub(crate) async fn defaults(app: Arc<App>, request: Request) -> Result<Reply> {
    let project = request.param("project");
    request.authorize(&Target::project(project))?;
    let snapshot = app.store.current().await?;
    let out = view(&snapshot, Some(project), |r| quota::default_limit(&snapshot, r).into());
    Reply::json(200, &json!({"quota_set": out}))
}

fn limits_of(snapshot: &Snapshot, root: &str, given: &Map<String, Value>) -> Result<BTreeMap<String, i64>> {
    let known: BTreeMap<String, String> = resources(snapshot).into_iter().collect();
    let mut limits = BTreeMap::new();
    for (name, value) in given {
        if matches!(name.as_str(), "tenant_id" | "skip_validation" | "id" | "class_name") {
            continue;
        }
        let field = format!("{root}.{name}");
        let counted = known
            .get(name)
            .ok_or_else(|| invalid(&field, format!("Bad key in quota set: '{name}' is not limited here")))?;
        limits.insert(counted.clone(), typed::<Count>(&field, value.clone())?.0);
    }
    if limits.is_empty() {
        return Err(invalid(root, "It must set one limit at least."));
    }
    Ok(limits)
}

/// `PUT /os-quota-sets/{project}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: Map<String, Value> = wire::body(&mut request, "quota_set").await?;
    let project = request.param("project").to_owned();
    request.authorize(&Target::project(&project))?;
    let id = QuotaSetId::from(project.as_str());
    app.store
        .plan(|snapshot| {
            let limits = limits_of(snapshot, "quota_set", &given)?;
            let mut txn = Txn::new();
            match snapshot.get::<QuotaSet>(&id) {
                Some(old) => {
                    let mut new = (*old.value).clone();
                    new.limits.extend(limits);
                    txn.update(&old, &new);
                }
                None => {
                    txn.create(&id, &QuotaSet { limits });
                }
            }
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let out = view(&snapshot, None, |r| quota::limit(&snapshot, &project, r).into());
    Reply::json(200, &json!({"quota_set": out}))
}

/// `DELETE /os-quota-sets/{project}`: back to the defaults.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = QuotaSetId::from(request.param("project"));
    request.authorize(&Target::project(request.param("project")))?;
    app.store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if let Some(old) = snapshot.get::<QuotaSet>(&id) {
                txn.delete(&old);
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(200))
}

/// `GET /os-quota-class-sets/{class}`.
pub(crate) async fn class(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let out = view(&snapshot, Some(request.param("class")), |r| {
        quota::default_limit(&snapshot, r).into()
    });
    Reply::json(200, &json!({"quota_class_set": out}))
}

/// `PUT /os-quota-class-sets/{class}`.
pub(crate) async fn update_class(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: Map<String, Value> = wire::body(&mut request, "quota_class_set").await?;
    let id = QuotaClassId::from(request.param("class"));
    app.store
        .plan(|snapshot| {
            let limits = limits_of(snapshot, "quota_class_set", &given)?;
            let mut txn = Txn::new();
            match snapshot.get::<QuotaClass>(&id) {
                Some(old) => {
                    let mut new = (*old.value).clone();
                    new.limits.extend(limits);
                    txn.update(&old, &new);
                }
                None => {
                    txn.create(&id, &QuotaClass { limits });
                }
            }
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let out = view(&snapshot, None, |r| quota::default_limit(&snapshot, r).into());
    Reply::json(200, &json!({"quota_class_set": out}))
}

/// `GET /limits`.
pub(crate) async fn limits(app: Arc<App>, request: Request) -> Result<Reply> {
    let caller = request.caller()?;
    let own = caller.require_project()?.to_string();
    let project = match request
        .query
        .get("project_id")
        .or_else(|| request.query.get("tenant_id"))
    {
        Some(other) if other != own => {
            if !caller.is_admin() {
                return Err(Error::forbidden(
                    "The limits of another project are for administrators; leave project_id out.",
                ));
            }
            other.to_owned()
        }
        _ => own,
    };
    let snapshot = app.store.current().await?;
    let limit = |r| quota::limit(&snapshot, &project, r);
    let used = |r| quota::used(&snapshot, &project, r);
    Reply::json(
        200,
        &json!({"limits": {"rate": [], "absolute": {
            "maxTotalVolumes": limit("volumes"), "totalVolumesUsed": used("volumes"),
            "maxTotalVolumeGigabytes": limit("gigabytes"), "totalGigabytesUsed": used("gigabytes"),
            "maxTotalSnapshots": limit("snapshots"), "totalSnapshotsUsed": used("snapshots"),
            "maxTotalBackups": limit("backups"), "totalBackupsUsed": used("backups"),
            "maxTotalBackupGigabytes": limit("backup_gigabytes"), "totalBackupGigabytesUsed": used("backup_gigabytes"),
        }}}),
    )
}
