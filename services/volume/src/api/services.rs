//! Services, hosts, pools, capabilities: each node's storage is one of them.

use crate::{
    App,
    api::wire::{invalid, time},
    control::placing::free_gb,
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::{Backend, Volume, find_backend, given_gb};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tracing::level_filters::LevelFilter;

/// Binaries that clients know: each node has the first, the control plane the others.
const VOLUME: &str = "cinder-volume";
const CONTROL: &[&str] = &["cinder-scheduler", "cinder-backup"];

pub(crate) fn backends(snapshot: &Snapshot) -> Vec<Object<Backend>> {
    let mut all: Vec<Object<Backend>> = snapshot.list::<Backend>().collect();
    all.sort_by(|a, b| a.value.host.cmp(&b.value.host));
    all
}

fn service(binary: &str, host: &str, backend: &Backend, volume: bool) -> Value {
    let mut out = json!({
        "binary": binary, "host": host, "zone": backend.zone,
        "status": if volume && backend.disabled { "disabled" } else { "enabled" },
        "state": if backend.up || !volume { "up" } else { "down" },
        "updated_at": time(backend.seen), "disabled_reason": if volume { json!(backend.disabled_reason) } else { Value::Null },
    });
    if volume {
        out["frozen"] = backend.frozen.into();
        out["replication_status"] = "disabled".into();
        out["active_backend_id"] = Value::Null;
    }
    out
}

/// `GET /os-services`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let all = backends(&snapshot);
    let mut rows: Vec<Value> = all
        .iter()
        .map(|b| {
            let mut row = service(VOLUME, &format!("{}@local", b.value.host), &b.value, true);
            if request.at_least(3, 7) {
                row["cluster"] = Value::Null;
            }
            if request.at_least(3, 49) {
                row["backend_state"] = if b.value.up { "up" } else { "down" }.into();
            }
            row
        })
        .collect();
    if let Some(first) = all.first() {
        for binary in CONTROL {
            let mut row = service(binary, &first.value.host, &first.value, false);
            if request.at_least(3, 7) {
                row["cluster"] = Value::Null;
            }
            rows.push(row);
        }
    }
    for key in ["binary", "host"] {
        if let Some(wanted) = request.query.get(key) {
            rows.retain(|r| {
                let mine = r[key].as_str().unwrap_or_default();
                mine == wanted || mine.split('@').next() == Some(wanted)
            });
        }
    }
    Reply::json(200, &json!({"services": rows}))
}

#[derive(Debug, Deserialize)]
struct ServiceBody {
    host: String,
    binary: Option<String>,
    service: Option<String>,
    disabled_reason: Option<String>,
}

/// `PUT /os-services/{action}`: enable, disable, disable-log-reason, freeze, thaw.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let action = request.param("action").to_owned();
    if matches!(action.as_str(), "get-log" | "set-log") {
        return log(&app, &mut request, &action).await;
    }
    let given: ServiceBody = request.json().await?;
    let binary = given
        .binary
        .clone()
        .or(given.service.clone())
        .unwrap_or_else(|| VOLUME.to_owned());
    let node = given.host.split('@').next().unwrap_or_default().to_owned();
    if action == "disable-log-reason" && given.disabled_reason.as_deref().is_none_or(|r| r.trim().is_empty()) {
        return Err(invalid(
            "disabled_reason",
            "Disabled reason contains invalid characters or is too long: it must be 1 to 255 characters.",
        ));
    }
    if !matches!(
        action.as_str(),
        "enable" | "disable" | "disable-log-reason" | "freeze" | "thaw" | "failover_host" | "failover"
    ) {
        return Err(Error::not_found(format!("Unknown action: {action}")));
    }
    if CONTROL.contains(&binary.as_str()) {
        return Err(Error::not_implemented(format!(
            "Only {VOLUME} can be taken out of service here; {binary} is part of the control plane."
        )));
    }
    app.store
        .plan(|snapshot| {
            let missing = || {
                let why = format!("Service {binary} on host {} could not be found.", given.host);
                // Upstream's freeze and thaw answer 400 here.
                if matches!(action.as_str(), "freeze" | "thaw") {
                    Error::bad_request(why)
                } else {
                    Error::not_found(why)
                }
            };
            let backend = find_backend(snapshot, &node)
                .filter(|_| binary == VOLUME)
                .ok_or_else(missing)?;
            if matches!(action.as_str(), "failover_host" | "failover") {
                return Err(Error::bad_request(format!(
                    "Invalid input received: the back end {} has no replication target to fail over to: each node keeps its own \
                     storage.",
                    backend.value.pool()
                )));
            }
            let mut new = (*backend.value).clone();
            match action.as_str() {
                "enable" => {
                    new.disabled = false;
                    new.disabled_reason = None;
                }
                "freeze" => new.frozen = true,
                "thaw" => new.frozen = false,
                _ => {
                    new.disabled = true;
                    new.disabled_reason.clone_from(&given.disabled_reason);
                }
            }
            let mut txn = Txn::new();
            txn.update(&backend, &new);
            Ok((txn, ()))
        })
        .await?;
    if matches!(action.as_str(), "freeze" | "thaw") {
        return Ok(Reply::empty(202));
    }
    let mut out = json!({
        "host": given.host, "service": binary, "binary": binary, "disabled": action != "enable",
        "status": if action == "enable" { "enabled" } else { "disabled" },
    });
    if action == "disable-log-reason" {
        out["disabled_reason"] = json!(given.disabled_reason);
    }
    Reply::json(200, &out)
}

/// `GET /scheduler-stats/get_pools`.
pub(crate) async fn pools(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let detail = request.query.bool("detail")?.unwrap_or(false);
    let pools: Vec<Value> = backends(&snapshot)
        .iter()
        .map(|b| {
            let mut pool = json!({"name": b.value.pool()});
            if detail {
                let given = given_gb(&snapshot, &b.value.host);
                pool["capabilities"] = json!({
                    "volume_backend_name": "local", "vendor_name": "Open Source", "driver_version": env!("CARGO_PKG_VERSION"),
                    "storage_protocol": "file", "pool_name": "local", "total_capacity_gb": b.value.capacity_gb,
                    "free_capacity_gb": free_gb(&snapshot, &b.value).max(0), "allocated_capacity_gb": given,
                    "provisioned_capacity_gb": given, "reserved_percentage": 0, "max_over_subscription_ratio": "1.0",
                    "QoS_support": true, "multiattach": true, "thin_provisioning_support": true,
                    "thick_provisioning_support": false, "location_info": b.value.host, "updated": time(b.value.seen),
                });
            }
            pool
        })
        .collect();
    let pools: Vec<Value> = pools.into_iter().filter(|p| fits(&request, &snapshot, p)).collect();
    Reply::json(200, &json!({"pools": pools}))
}

/// Whether a pool is what the query's filters ask for: its name or capabilities (3.28), a volume type that it is fit for (3.35).
fn fits(request: &Request, snapshot: &Snapshot, pool: &Value) -> bool {
    let mut filters = request.query.pairs().filter(|(key, _)| *key != "detail");
    if !request.at_least(3, 28) {
        return true;
    }
    filters.all(|(key, wanted)| match key {
        "name" => pool["name"] == wanted,
        "volume_type" if request.at_least(3, 35) => maru_volume_model::find_type(snapshot, wanted)
            .is_some_and(|t| crate::app::capabilities::unmet(&t.value.extra_specs).is_none()),
        _ => match &pool["capabilities"][key] {
            Value::String(text) => text == wanted,
            Value::Null => crate::app::capabilities::offered()
                .get(key)
                .is_some_and(|have| *have == wanted),
            other => other.to_string().eq_ignore_ascii_case(wanted),
        },
    })
}

/// The part of the log that is meant when none is named.
const LOG: &str = "maru_volume";

/// `PUT /os-services/get-log` and `set-log` (3.32). All services here are one process with one log: what is set for one of them
/// holds for all, and until the process ends.
async fn log(app: &App, request: &mut Request, action: &str) -> Result<Reply> {
    super::wire::since(request, 32)?;
    let given: LogBody = request.json().await?;
    let prefix = given.prefix.as_deref().filter(|p| !p.is_empty()).unwrap_or(LOG);
    let snapshot = app.store.current().await?;
    let all = backends(&snapshot);
    let meant = |binary: &str, host: &str| {
        let binary_is = |w: &str| w.is_empty() || w == "*" || w == binary;
        given.binary.as_deref().is_none_or(binary_is)
            && given.server.as_deref().is_none_or(|w| w.is_empty() || w == host)
    };
    let volumes = all.iter().map(|b| (VOLUME, format!("{}@local", b.value.host)));
    let control = all
        .iter()
        .take(1)
        .flat_map(|b| CONTROL.iter().map(|binary| (*binary, b.value.host.clone())));
    let services: Vec<_> = volumes
        .chain(control)
        .filter(|(binary, host)| meant(binary, host))
        .collect();
    if action == "set-log" {
        let level = level_of(given.level.as_deref().unwrap_or_default())?;
        let levels = maru_base::levels::offered()
            .ok_or_else(|| Error::not_implemented("This process writes no log whose level could be changed."))?;
        if !services.is_empty() {
            levels.set(prefix, level)?;
        }
        return Ok(Reply::empty(202));
    }
    let level = maru_base::levels::offered().map_or_else(LevelFilter::current, |levels| levels.level(prefix));
    let rows: Vec<Value> = services
        .iter()
        .map(|(binary, host)| json!({"binary": binary, "host": host, "levels": {prefix: word_of(level)}}))
        .collect();
    Reply::json(200, &json!({"log_levels": rows}))
}

/// Levels by upstream's words.
const LEVELS: &[(&str, LevelFilter)] = &[
    ("DEBUG", LevelFilter::DEBUG),
    ("INFO", LevelFilter::INFO),
    ("WARNING", LevelFilter::WARN),
    ("ERROR", LevelFilter::ERROR),
];

fn level_of(word: &str) -> Result<LevelFilter> {
    let found = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, level)| *level).ok_or_else(|| {
        invalid(
            "level",
            format!("'{word}' is not a level; choose from DEBUG, INFO, WARNING, ERROR."),
        )
    })
}

fn word_of(level: LevelFilter) -> String {
    let found = LEVELS.iter().find(|(_, known)| *known == level);
    found.map_or_else(|| level.to_string().to_uppercase(), |(name, _)| (*name).to_owned())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogBody {
    binary: Option<String>,
    server: Option<String>,
    prefix: Option<String>,
    level: Option<String>,
}

/// `GET /os-hosts`.
pub(crate) async fn hosts(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let _ = &request;
    let all = backends(&snapshot);
    let control = all
        .iter()
        .take(1)
        .flat_map(|b| CONTROL.iter().map(move |binary| (b, *binary, b.value.host.clone())));
    let rows: Vec<Value> = all
        .iter()
        .map(|b| (b, VOLUME, format!("{}@local", b.value.host)))
        .chain(control)
        .map(|(b, binary, host)| {
            json!({
                "host_name": host, "service": binary, "zone": b.value.zone,
                "service-status": if b.value.up { "available" } else { "unavailable" },
                "service-state": if b.value.disabled { "disabled" } else { "enabled" },
                "last-update": time(b.value.seen),
            })
        })
        .collect();
    Reply::json(200, &json!({"hosts": rows}))
}

/// `GET /os-hosts/{host}`: what projects have there.
pub(crate) async fn host(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let name = request.param("host");
    let node = name.split('@').next().unwrap_or_default();
    find_backend(&snapshot, node).ok_or_else(|| Error::not_found(format!("Host {name} could not be found.")))?;
    let mut by_project: std::collections::BTreeMap<String, (u64, u64)> = std::collections::BTreeMap::new();
    for v in snapshot.find::<Volume>("host", node) {
        let slot = by_project.entry(v.value.project_id.to_string()).or_default();
        slot.0 += 1;
        slot.1 += u64::from(v.value.size);
    }
    let resource = |project: &str, n: u64, gb: u64| {
        json!({"resource": {
            "host": name, "project": project, "volume_count": n.to_string(), "total_volume_gb": gb.to_string(),
            "snapshot_count": "0", "total_snapshot_gb": "0",
        }})
    };
    let total = by_project.values().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let mut rows = vec![resource("(total)", total.0, total.1)];
    rows.extend(by_project.iter().map(|(p, (n, gb))| resource(p, *n, *gb)));
    Reply::json(200, &json!({"host": rows}))
}

/// `GET /capabilities/{host}`.
pub(crate) async fn capabilities(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let name = request.param("host");
    let node = name.split('@').next().unwrap_or_default();
    let backend =
        find_backend(&snapshot, node).ok_or_else(|| Error::not_found(format!("Host {name} could not be found.")))?;
    Reply::json(
        200,
        &json!({
            "namespace": "OS::Storage::Capabilities::local", "vendor_name": "Open Source", "volume_backend_name": "local",
            "pool_name": Value::Null, "driver_version": env!("CARGO_PKG_VERSION"), "storage_protocol": "file",
            "display_name": backend.value.pool(), "description": Value::Null, "visibility": Value::Null,
            "replication_targets": [], "properties": Map::new(),
        }),
    )
}
