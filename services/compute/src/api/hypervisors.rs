//! Hypervisors: the nodes as what they offer.

use crate::{
    App,
    api::wire::{Link, invalid, is_uuid, until},
};
use maru_base::{Error, Result};
use maru_compute_model::{ComputeService, Server, numeric_id};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_placement_model::usage;
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

fn id_of(request: &Request, s: &ComputeService) -> Value {
    if request.at_least(2, 53) {
        s.provider.as_str().into()
    } else {
        numeric_id(&s.provider).into()
    }
}

fn brief(request: &Request, s: &ComputeService) -> Value {
    json!({
        "id": id_of(request, s),
        "hypervisor_hostname": s.host,
        "state": if s.alive() { "up" } else { "down" },
        "status": if s.disabled { "disabled" } else { "enabled" },
    })
}

fn servers_of(snapshot: &Snapshot, host: &str) -> Vec<Value> {
    snapshot
        .find::<Server>("host", host)
        .map(|s| json!({"name": Server::instance_name(&s.id), "uuid": s.id.as_str()}))
        .collect()
}

struct Figures {
    vcpus_used: i64,
    memory_used: i64,
    disk_used: i64,
    running: usize,
}

fn figures(snapshot: &Snapshot, s: &ComputeService) -> Figures {
    let used = |class: &str| usage(snapshot, &s.provider, class);
    Figures {
        vcpus_used: used("VCPU"),
        memory_used: used("MEMORY_MB"),
        disk_used: used("DISK_GB"),
        running: snapshot.find::<Server>("host", &s.host).count(),
    }
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn full(snapshot: &Snapshot, request: &Request, s: &Object<ComputeService>) -> Value {
    let mut v = brief(request, s);
    let cpu = json!({"arch": s.facts.arch, "model": s.facts.cpu_model, "vendor": "", "features": [], "topology": {"cells": 1, "sockets": 1, "cores": s.facts.vcpus, "threads": 1}});
    v["host_ip"] = s.facts.address.as_str().into();
    v["hypervisor_type"] = s.facts.hypervisor_type.as_str().into();
    v["hypervisor_version"] = s.facts.hypervisor_version.into();
    v["service"] = json!({"id": if request.at_least(2, 53) { json!(s.id.as_str()) } else { json!(numeric_id(&s.id)) }, "host": s.host, "disabled_reason": s.disabled_reason});
    if request.at_least(2, 88) {
        v["uptime"] = Value::Null;
    } else {
        v["cpu_info"] = if request.at_least(2, 28) {
            cpu
        } else {
            cpu.to_string().into()
        };
        let f = figures(snapshot, s);
        v["vcpus"] = s.facts.vcpus.into();
        v["memory_mb"] = s.facts.memory_mib.into();
        v["local_gb"] = s.facts.disk_gib.into();
        v["vcpus_used"] = f.vcpus_used.into();
        v["memory_mb_used"] = f.memory_used.into();
        v["local_gb_used"] = f.disk_used.into();
        v["free_ram_mb"] = (whole(s.facts.memory_mib) - f.memory_used).into();
        v["free_disk_gb"] = (whole(s.facts.disk_gib) - f.disk_used).into();
        v["disk_available_least"] = (whole(s.facts.disk_gib) - f.disk_used).into();
        v["current_workload"] = 0.into();
        v["running_vms"] = f.running.into();
    }
    v
}

fn select(snapshot: &Snapshot, request: &Request) -> Result<(Vec<Object<ComputeService>>, Vec<Link>)> {
    let mut found: Vec<Object<ComputeService>> = snapshot.list::<ComputeService>().collect();
    found.sort_by(|a, b| a.provider.cmp(&b.provider));
    if !request.at_least(2, 33) {
        return Ok((found, Vec::new()));
    }
    if let Some(pattern) = request.query.get("hypervisor_hostname_pattern")
        && request.at_least(2, 53)
    {
        if request.query.has("limit") || request.query.has("marker") {
            return Err(Error::bad_request(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
            ));
        }
        found.retain(|s| s.host.contains(pattern));
        if found.is_empty() {
            return Err(Error::not_found(format!(
                "No hypervisor matching '{pattern}' could be found."
            )));
        }
    }
    let page = Page::from_query(&request.query, 1_000, 1_000)?;
    // The marker is an id as this microversion shows it.
    let named: Vec<(String, Object<ComputeService>)> = found
        .into_iter()
        .map(|s| match id_of(request, &s) {
            Value::String(id) => (id, s),
            other => (other.to_string(), s),
        })
        .collect();
    let (items, _) = page
        .cut(named, |(id, _)| id)
        .map_err(|_| Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or(""))))?;
    let links = match items.last() {
        Some((id, _)) if request.query.has("limit") && items.len() == page.limit => vec![Link {
            rel: "next",
            href: next_link(request, id),
        }],
        _ => Vec::new(),
    };
    Ok((items.into_iter().map(|(_, s)| s).collect(), links))
}

fn list(request: &Request, snapshot: &Snapshot, detail: bool) -> Result<Reply> {
    let (found, links) = select(snapshot, request)?;
    let with_servers = request.at_least(2, 53) && request.query.bool("with_servers")?.unwrap_or(false);
    let views: Vec<Value> = found
        .iter()
        .map(|s| {
            let mut v = if detail {
                full(snapshot, request, s)
            } else {
                brief(request, s)
            };
            if with_servers {
                let servers = servers_of(snapshot, &s.host);
                if !servers.is_empty() || request.at_least(2, 75) {
                    v["servers"] = servers.into();
                }
            }
            v
        })
        .collect();
    let mut body = json!({"hypervisors": views});
    if !links.is_empty() {
        body["hypervisors_links"] = json!(links);
    }
    Reply::json(200, &body)
}

/// `GET /os-hypervisors`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    list(&request, &app.store.current().await?, false)
}

/// `GET /os-hypervisors/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    list(&request, &app.store.current().await?, true)
}

fn find(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<ComputeService>> {
    if request.at_least(2, 53) && !is_uuid(id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    snapshot
        .list::<ComputeService>()
        .find(|s| {
            if request.at_least(2, 53) {
                s.provider == *id
            } else {
                numeric_id(&s.provider).to_string() == id
            }
        })
        .ok_or_else(|| Error::not_found(format!("Hypervisor with ID '{id}' could not be found.")))
}

/// `GET /os-hypervisors/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let service = find(&snapshot, &request, request.param("id"))?;
    let mut v = full(&snapshot, &request, &service);
    if request.at_least(2, 53) && request.query.bool("with_servers")?.unwrap_or(false) {
        let servers = servers_of(&snapshot, &service.host);
        if !servers.is_empty() || request.at_least(2, 75) {
            v["servers"] = servers.into();
        }
    }
    Reply::json(200, &json!({"hypervisor": v}))
}

/// `GET /os-hypervisors/statistics` (up to 2.87).
pub(crate) async fn statistics(app: Arc<App>, request: Request) -> Result<Reply> {
    until(&request, 87)?;
    let snapshot = app.store.current().await?;
    let mut sums = [0_i64; 10];
    let names = [
        "count",
        "vcpus",
        "vcpus_used",
        "memory_mb",
        "memory_mb_used",
        "local_gb",
        "local_gb_used",
        "free_ram_mb",
        "free_disk_gb",
        "running_vms",
    ];
    for s in snapshot.list::<ComputeService>().filter(|s| !s.disabled) {
        let f = figures(&snapshot, &s);
        let (memory, disk) = (whole(s.facts.memory_mib), whole(s.facts.disk_gib));
        let add = [
            1,
            i64::from(s.facts.vcpus),
            f.vcpus_used,
            memory,
            f.memory_used,
            disk,
            f.disk_used,
            memory - f.memory_used,
            disk - f.disk_used,
            i64::try_from(f.running).unwrap_or(i64::MAX),
        ];
        for (sum, n) in sums.iter_mut().zip(add) {
            *sum += n;
        }
    }
    let mut v: serde_json::Map<String, Value> = names
        .iter()
        .zip(sums)
        .map(|(n, s)| ((*n).to_owned(), s.into()))
        .collect();
    v.insert("disk_available_least".to_owned(), sums[8].into());
    v.insert("current_workload".to_owned(), 0.into());
    Reply::json(200, &json!({"hypervisor_statistics": v}))
}

/// `GET /os-hypervisors/{id}/uptime` (up to 2.87).
pub(crate) async fn uptime(app: Arc<App>, request: Request) -> Result<Reply> {
    until(&request, 87)?;
    let snapshot = app.store.current().await?;
    let service = find(&snapshot, &request, request.param("id"))?;
    if !service.alive() {
        return Err(Error::bad_request(format!(
            "Service is unavailable at this time: host {} is down.",
            service.host
        )));
    }
    let mut v = brief(&request, &service);
    let up = maru_base::time::now().as_second() - service.seen.as_second();
    v["uptime"] = format!(" connected for {up} s").into();
    Reply::json(200, &json!({"hypervisor": v}))
}

/// `GET /os-hypervisors/{pattern}/search` (up to 2.52).
pub(crate) async fn search(app: Arc<App>, request: Request) -> Result<Reply> {
    by_pattern(&app, &request, false).await
}

/// `GET /os-hypervisors/{pattern}/servers` (up to 2.52).
pub(crate) async fn servers(app: Arc<App>, request: Request) -> Result<Reply> {
    by_pattern(&app, &request, true).await
}

async fn by_pattern(app: &App, request: &Request, with_servers: bool) -> Result<Reply> {
    until(request, 52)?;
    let pattern = request.param("id");
    if pattern.is_empty() {
        return Err(invalid("pattern", "a part of a host's name"));
    }
    let snapshot = app.store.current().await?;
    let found: Vec<Value> = snapshot
        .list::<ComputeService>()
        .filter(|s| s.host.contains(pattern))
        .map(|s| {
            let mut v = brief(request, &s);
            if with_servers {
                let servers = servers_of(&snapshot, &s.host);
                if !servers.is_empty() {
                    v["servers"] = servers.into();
                }
            }
            v
        })
        .collect();
    if found.is_empty() {
        return Err(Error::not_found(format!(
            "No hypervisor matching '{pattern}' could be found."
        )));
    }
    Reply::json(200, &json!({"hypervisors": found}))
}
