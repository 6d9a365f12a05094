//! Availability zones.

use crate::App;
use maru_base::{Result, time::micros_bare};
use maru_compute_model::zones;
use maru_http::{Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /os-availability-zone`.
pub(crate) async fn index(app: Arc<App>, _request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let list: Vec<Value> = zones(&snapshot)
        .into_iter()
        .map(|(name, hosts)| {
            let available = hosts.is_empty() || hosts.iter().any(|s| !s.disabled);
            json!({"zoneName": name, "zoneState": {"available": available}, "hosts": null})
        })
        .collect();
    Reply::json(200, &json!({"availabilityZoneInfo": list}))
}

/// `GET /os-availability-zone/detail`.
pub(crate) async fn detail(app: Arc<App>, _request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let list: Vec<Value> = zones(&snapshot)
        .into_iter()
        .map(|(name, services)| {
            let available = services.is_empty() || services.iter().any(|s| !s.disabled);
            let hosts: serde_json::Map<String, Value> = services
                .iter()
                .map(|s| {
                    let state = json!({"nova-compute": {
                        "available": s.alive(), "active": !s.disabled, "updated_at": micros_bare(s.seen),
                    }});
                    (s.host.clone(), state)
                })
                .collect();
            json!({"zoneName": name, "zoneState": {"available": available}, "hosts": hosts})
        })
        .collect();
    Reply::json(200, &json!({"availabilityZoneInfo": list}))
}
