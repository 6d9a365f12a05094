//! `os-hosts`, up to 2.42: what `os-services` and `os-hypervisors` say of a node, in the form of before them.

use crate::{
    App,
    api::wire::{self, invalid},
};
use maru_base::{Error, Result};
use maru_compute_model::{ComputeService, Server, find_service, zone_of};
use maru_http::{Reply, Request};
use maru_placement_model::{ResourceProvider, usage};
use maru_store::{Object, Snapshot, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The last microversion with these addresses.
const LAST: u16 = 42;

fn missing(host: &str) -> Error {
    Error::not_found(format!("Compute host {host} could not be found."))
}

/// `GET /os-hosts`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let snapshot = app.store.current().await?;
    let wanted = request.query.get("zone").filter(|z| !z.is_empty());
    let hosts: Vec<Value> = snapshot
        .list::<ComputeService>()
        .map(|s| (s.host.clone(), zone_of(&snapshot, &s.host)))
        .filter(|(_, zone)| wanted.is_none_or(|w| w == zone))
        .map(|(host, zone)| json!({"host_name": host, "service": "compute", "zone": zone}))
        .collect();
    Reply::json(200, &json!({"hosts": hosts}))
}

fn resource(host: &str, project: &str, (cpu, memory_mb, disk_gb): (i64, i64, i64)) -> Value {
    json!({"resource": {"host": host, "project": project, "cpu": cpu, "memory_mb": memory_mb, "disk_gb": disk_gb}})
}

fn resources(snapshot: &Snapshot, service: &Object<ComputeService>) -> Vec<Value> {
    let host = &service.host;
    let provider = snapshot.get::<ResourceProvider>(&service.provider);
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let total = |class: &str| {
        provider
            .as_ref()
            .and_then(|p| p.inventories.get(class))
            .map_or(0, |i| whole(i.total))
    };
    let used = |class: &str| usage(snapshot, &service.provider, class);
    let now = (used("VCPU"), used("MEMORY_MB"), used("DISK_GB"));
    let mut shown = vec![
        resource(host, "(total)", (total("VCPU"), total("MEMORY_MB"), total("DISK_GB"))),
        resource(host, "(used_now)", now),
        resource(host, "(used_max)", now),
    ];
    let mut projects: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for server in snapshot.find::<Server>("host", host) {
        let sum = projects.entry(server.project_id.to_string()).or_default();
        sum.0 += i64::from(server.flavor.vcpus);
        sum.1 += whole(server.flavor.memory_mb);
        sum.2 += whole(server.flavor.root_gb + server.flavor.ephemeral_gb);
    }
    shown.extend(projects.into_iter().map(|(project, sum)| resource(host, &project, sum)));
    shown
}

/// `GET /os-hosts/{host}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let snapshot = app.store.current().await?;
    let host = request.param("host");
    let service = find_service(&snapshot, host).ok_or_else(|| missing(host))?;
    Reply::json(200, &json!({"host": resources(&snapshot, &service)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    maintenance_mode: Option<String>,
}

/// `enable` or `disable`, in any case.
fn switch(name: &str, value: Option<&str>) -> Result<Option<bool>> {
    match value.map(|v| v.trim().to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("enable") => Ok(Some(true)),
        Some("disable") => Ok(Some(false)),
        Some(other) => Err(invalid(name, format!("'{other}' is not one of ['enable', 'disable']"))),
    }
}

/// `GET /os-hosts/{host}/startup`, `shutdown`, `reboot`: the machines are not the hypervisor's to switch, as with upstream's libvirt.
pub(crate) async fn power(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let host = request.param("host");
    find_service(&app.store.current().await?, host).ok_or_else(|| missing(host))?;
    Err(Error::not_implemented(
        "The hypervisor cannot start, shut down or restart its machine; do it there, or by the machine's own management.",
    ))
}

/// `PUT /os-hosts/{host}`: whether new servers may come.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::until(&request, LAST)?;
    let host = request.param("host").to_owned();
    let body: UpdateBody = request.json().await?;
    let status = switch("status", body.status.as_deref())?;
    let maintenance = switch("maintenance_mode", body.maintenance_mode.as_deref())?;
    if status.or(maintenance).is_none() {
        return Err(invalid(
            "status",
            "'status' or 'maintenance_mode' is a required property",
        ));
    }
    find_service(&app.store.current().await?, &host).ok_or_else(|| missing(&host))?;
    let (Some(enabled), None) = (status, maintenance) else {
        return Err(Error::not_implemented(
            "The hypervisor has no maintenance mode; disable the service instead.",
        ));
    };
    let disabled = !enabled;
    app.store
        .plan(|snapshot| {
            let service = find_service(snapshot, &host).ok_or_else(|| missing(&host))?;
            let mut new = (*service.value).clone();
            new.disabled = disabled;
            if !disabled {
                new.disabled_reason = None;
            }
            let mut txn = Txn::new();
            txn.update(&service, &new);
            Ok((txn, ()))
        })
        .await?;
    let status = if disabled { "disabled" } else { "enabled" };
    Reply::json(200, &json!({"host": host, "status": status}))
}
