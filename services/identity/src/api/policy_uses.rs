//! OS-ENDPOINT-POLICY: which stored policy is for which endpoint, service, or service in a region.

use super::{catalog, lists, not_found, policies, views, views::Wrapped};
use crate::App;
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{Endpoint, PolicyId, PolicyUse, Region, RegionId, Service, StoredPolicy};
use maru_store::{Object, Snapshot};
use std::{collections::BTreeMap, sync::Arc};

/// What a path names: all of it must be there.
fn named(snapshot: &Snapshot, request: &Request) -> Result<PolicyUse> {
    let given = |name| Some(request.param(name)).filter(|v| !v.is_empty());
    Ok(PolicyUse {
        policy_id: policies::load(snapshot, request.param("id"))?.id,
        endpoint_id: given("endpoint_id")
            .map(|id| catalog::endpoint(snapshot, id).map(|e| e.id))
            .transpose()?,
        service_id: given("service_id")
            .map(|id| catalog::service(snapshot, id).map(|s| s.id))
            .transpose()?,
        region_id: given("region_id")
            .map(|id| catalog::region(snapshot, id).map(|r| r.id))
            .transpose()?,
    })
}

fn found(snapshot: &Snapshot, wanted: &PolicyUse) -> Result<Object<PolicyUse>> {
    snapshot
        .get::<PolicyUse>(&wanted.id())
        .filter(|u| u.policy_id == wanted.policy_id)
        .ok_or_else(|| Error::not_found(format!("Policy {} is not associated with that.", wanted.policy_id)))
}

pub(super) async fn check(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    found(&snapshot, &named(&snapshot, &request)?)?;
    Ok(Reply::empty(204))
}

pub(super) async fn create(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let u = named(snapshot, &request)?;
        txn.alive::<StoredPolicy>(&u.policy_id);
        if let Some(id) = &u.endpoint_id {
            txn.alive::<Endpoint>(id);
        }
        if let Some(id) = &u.service_id {
            txn.alive::<Service>(id);
        }
        if let Some(id) = &u.region_id {
            txn.alive::<Region>(id);
        }
        txn.put(&u.id(), &u);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        txn.delete(&found(snapshot, &named(snapshot, &request)?)?);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The policy that is for an endpoint: its own, else that of its service in its region or a region around that, else that
/// of its service.
fn policy_for(snapshot: &Snapshot, endpoint: &Object<Endpoint>) -> Option<PolicyId> {
    let of = |u: PolicyUse| snapshot.get::<PolicyUse>(&u.id()).map(|u| u.policy_id.clone());
    let blank = PolicyUse {
        policy_id: PolicyId::from(""),
        endpoint_id: None,
        service_id: None,
        region_id: None,
    };
    let own = of(PolicyUse {
        endpoint_id: Some(endpoint.id.clone()),
        ..blank.clone()
    });
    if own.is_some() {
        return own;
    }
    let mut region: Option<RegionId> = endpoint.region_id.clone();
    for _ in 0..64 {
        let Some(id) = region else { break };
        let here = of(PolicyUse {
            service_id: Some(endpoint.service_id.clone()),
            region_id: Some(id.clone()),
            ..blank.clone()
        });
        if here.is_some() {
            return here;
        }
        region = snapshot.get::<Region>(&id).and_then(|r| r.parent_region_id.clone());
    }
    of(PolicyUse {
        service_id: Some(endpoint.service_id.clone()),
        ..blank
    })
}

/// The policy for an endpoint.
pub(super) async fn of_endpoint(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let endpoint = catalog::endpoint(&snapshot, request.param("id"))?;
    let policy = policy_for(&snapshot, &endpoint)
        .and_then(|id| snapshot.get::<StoredPolicy>(&id))
        .ok_or_else(|| not_found("policy for endpoint", &endpoint.id))?;
    Reply::json(
        200,
        &Wrapped("policy", policies::view(&request.base, &policy.id, &policy.value)),
    )
}

/// The endpoints that a policy is for.
pub(super) async fn endpoints(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let policy = policies::load(&snapshot, request.param("id"))?;
    let mut candidates: BTreeMap<String, Object<Endpoint>> = BTreeMap::new();
    for u in snapshot.find::<PolicyUse>("policy", &policy.id) {
        if let Some(e) = u.endpoint_id.as_ref().and_then(|id| snapshot.get::<Endpoint>(id)) {
            candidates.insert(e.id.to_string(), e);
        } else if let Some(service) = &u.service_id {
            for e in snapshot.find::<Endpoint>("service", service) {
                candidates.insert(e.id.to_string(), e);
            }
        }
    }
    let found: Vec<_> = candidates
        .into_values()
        .filter(|e| policy_for(&snapshot, e).as_ref() == Some(&policy.id))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "endpoints",
        &found,
        |e| &e.id,
        |e| views::endpoint(base, &e.id, &e.value),
    )
}
