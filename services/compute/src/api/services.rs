//! Compute services: list, disable, force down, forget.

use crate::{
    App,
    api::wire::{self, Flag, given, invalid, is_uuid, since, until},
};
use maru_base::{Error, Result, time::micros_bare};
use maru_compute_model::{ComputeService, Server, ServiceId, find_service, numeric_id, zone_of};
use maru_http::{Reply, Request};
use maru_placement_model::ResourceProvider;
use maru_store::{Object, Snapshot, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const BINARY: &str = "nova-compute";

fn view(snapshot: &Snapshot, request: &Request, s: &Object<ComputeService>) -> Value {
    let mut v = json!({
        "id": s.id.as_str(),
        "binary": BINARY,
        "host": s.host,
        "zone": zone_of(snapshot, &s.host),
        "status": if s.disabled { "disabled" } else { "enabled" },
        "state": if s.alive() { "up" } else { "down" },
        "updated_at": micros_bare(s.seen),
        "disabled_reason": s.disabled_reason,
    });
    if !request.at_least(2, 53) {
        v["id"] = numeric_id(&s.id).into();
    }
    if request.at_least(2, 11) {
        v["forced_down"] = s.forced_down.into();
    }
    v
}

/// `GET /os-services`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let host = request.query.get("host");
    let binary = request.query.get("binary");
    let list: Vec<Value> = snapshot
        .list::<ComputeService>()
        .filter(|s| host.is_none_or(|h| h == s.host) && binary.is_none_or(|b| b == BINARY))
        .map(|s| view(&snapshot, &request, &s))
        .collect();
    Reply::json(200, &json!({"services": list}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldBody {
    host: String,
    binary: String,
    #[serde(default, deserialize_with = "given")]
    disabled_reason: Option<String>,
    #[serde(default, deserialize_with = "given")]
    forced_down: Option<Flag>,
}

async fn change(
    app: &App,
    find: impl Fn(&Snapshot) -> Result<Object<ComputeService>>,
    f: impl Fn(&mut ComputeService),
) -> Result<Object<ComputeService>> {
    let id = app
        .store
        .plan(|snapshot| {
            let service = find(snapshot)?;
            let mut new = (*service.value).clone();
            f(&mut new);
            let mut txn = Txn::new();
            txn.update(&service, &new);
            Ok((txn, service.id))
        })
        .await?;
    app.store
        .snapshot()
        .get::<ComputeService>(&id)
        .ok_or_else(|| Error::not_found(format!("Service {id} could not be found.")))
}

/// `PUT /os-services/{action}` of old (before 2.53), and `PUT /os-services/{id}` since.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    if request.at_least(2, 53) {
        return update_by_id(&app, &mut request, &id).await;
    }
    let body: OldBody = request.json().await?;
    if !matches!(id.as_str(), "enable" | "disable" | "disable-log-reason" | "force-down") {
        return Err(Error::not_found("Unknown action"));
    }
    if id == "force-down" {
        since(&request, 11)?;
    }
    if id == "disable-log-reason" && body.disabled_reason.as_deref().unwrap_or("").is_empty() {
        return Err(invalid("disabled_reason", "'disabled_reason' is a required property"));
    }
    let by_host = |snapshot: &Snapshot| {
        find_service(snapshot, &body.host)
            .filter(|_| body.binary == BINARY)
            .ok_or_else(|| Error::not_found(format!("Could not find binary {} on host {}.", body.binary, body.host)))
    };
    let service = change(&app, by_host, |s| match id.as_str() {
        "enable" => {
            s.disabled = false;
            s.disabled_reason = None;
        }
        "force-down" => s.forced_down = body.forced_down.is_some_and(|f| f.0),
        _ => {
            s.disabled = true;
            s.disabled_reason.clone_from(&body.disabled_reason);
        }
    })
    .await?;
    let mut v = json!({"host": service.host, "binary": BINARY});
    match id.as_str() {
        "force-down" => v["forced_down"] = service.forced_down.into(),
        "disable-log-reason" => {
            v["status"] = "disabled".into();
            v["disabled_reason"] = json!(service.disabled_reason);
        }
        _ => v["status"] = if service.disabled { "disabled" } else { "enabled" }.into(),
    }
    Reply::json(200, &json!({"service": v}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    #[serde(default, deserialize_with = "given")]
    status: Option<String>,
    disabled_reason: Option<String>,
    #[serde(default, deserialize_with = "given")]
    forced_down: Option<Flag>,
}

async fn update_by_id(app: &App, request: &mut Request, id: &str) -> Result<Reply> {
    if !is_uuid(id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    let body: NewBody = request.json().await?;
    if body.status.is_none() && body.forced_down.is_none() {
        return Err(Error::bad_request(
            "No updates were requested. Fields 'status' or 'forced_down' should be specified.",
        ));
    }
    match body.status.as_deref() {
        None | Some("enabled" | "disabled") => {}
        Some(other) => {
            return Err(invalid(
                "status",
                format!("'{other}' is not one of ['enabled', 'disabled']"),
            ));
        }
    }
    if body.disabled_reason.is_some() && body.status.as_deref() != Some("disabled") {
        return Err(Error::bad_request(
            "Specifying 'disabled_reason' when status is 'enabled' is invalid.",
        ));
    }
    if let Some(reason) = &body.disabled_reason {
        wire::check_text("disabled_reason", reason)?;
    }
    let by_id = |snapshot: &Snapshot| {
        snapshot
            .get::<ComputeService>(&ServiceId::from(id))
            .ok_or_else(|| Error::not_found(format!("Service {id} could not be found.")))
    };
    let service = change(app, by_id, |s| {
        match body.status.as_deref() {
            Some("enabled") => {
                s.disabled = false;
                s.disabled_reason = None;
            }
            Some(_) => {
                s.disabled = true;
                s.disabled_reason.clone_from(&body.disabled_reason);
            }
            None => {}
        }
        if let Some(down) = body.forced_down {
            s.forced_down = down.0;
        }
    })
    .await?;
    Reply::json(200, &json!({"service": view(&app.store.snapshot(), request, &service)}))
}

/// `DELETE /os-services/{id}`: forgets a node that has no servers.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let by_uuid = request.at_least(2, 53);
    if by_uuid && !is_uuid(&id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    if !by_uuid {
        until(&request, 52)?;
    }
    app.store
        .plan(|snapshot| {
            let service = snapshot
                .list::<ComputeService>()
                .find(|s| if by_uuid { s.id == *id } else { numeric_id(&s.id).to_string() == id })
                .ok_or_else(|| Error::not_found(format!("Service {id} could not be found.")))?;
            if snapshot.find::<Server>("host", &service.host).next().is_some() {
                return Err(Error::conflict("Unable to delete compute service that is hosting instances. Migrate or delete the instances first."));
            }
            if service.alive() {
                return Err(Error::conflict("Unable to delete a compute service that is up: stop the node first."));
            }
            let mut txn = Txn::new();
            txn.release(<ComputeService as maru_store::Kind>::NAME, "", &service.host);
            txn.delete(&service);
            if let Some(provider) = snapshot.get::<ResourceProvider>(&service.provider) {
                // Refused while a provider below it, or an allocation made through Placement's API, needs it.
                maru_placement_model::plan_delete_provider(snapshot, &mut txn, &provider)
                    .map_err(|e| Error::conflict(e.message().to_owned()))?;
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(204))
}
