//! `/network-ip-availabilities`.

use super::row::{self, List, Row};
use crate::App;
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{Network, NetworkId, Subnet, address, errors, keys};
use maru_store::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "network_ip_availabilities",
    filters: &["ip_version"],
    attributes: &[
        "network_id",
        "network_name",
        "tenant_id",
        "project_id",
        "total_ips",
        "used_ips",
        "subnet_ip_availability",
    ],
    missing: |id| errors::network_not_found(id),
};

/// A count as JSON: IPv6 pools have more addresses than 64 bits.
fn number(n: u128) -> Value {
    u64::try_from(n).map_or_else(
        |_| serde_json::from_str(&n.to_string()).unwrap_or(Value::Null),
        Value::from,
    )
}

fn row_of(snapshot: &Snapshot, id: &NetworkId, n: &Network, version: Option<u8>) -> Row {
    let mut total = 0_u128;
    let mut used = 0_u128;
    let mut subnets = Vec::new();
    for s in snapshot
        .find::<Subnet>("network", id)
        .filter(|s| version.is_none_or(|v| v == s.value.ip_version()))
    {
        let all: u128 = s
            .value
            .pools
            .iter()
            .map(address::pool_size)
            .fold(0, u128::saturating_add);
        let taken = snapshot.raw_under(&keys::addresses(&s.id)).count() as u128;
        total = total.saturating_add(all);
        used += taken;
        subnets.push(json!({
            "subnet_id": s.id.as_str(), "subnet_name": s.value.name, "cidr": s.value.cidr.to_string(),
            "ip_version": s.value.ip_version(), "total_ips": number(all), "used_ips": number(taken),
        }));
    }
    Row::new(id)
        .with("network_id", id.as_str())
        .with("network_name", n.name.as_str())
        .project(&n.project_id)
        .with("total_ips", number(total))
        .with("used_ips", number(used))
        .with("subnet_ip_availability", subnets)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.store.snapshot();
    let version = request.query.get("ip_version").and_then(|v| v.parse().ok());
    let rows = snapshot
        .list::<Network>()
        .map(|n| row_of(&snapshot, &n.id, &n.value, version))
        .collect();
    LIST.answer(&request, rows, |_, name, _| (name == "ip_version").then_some(true))
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.store.snapshot();
    let id = NetworkId::from(request.param("id"));
    let network = snapshot
        .get::<Network>(&id)
        .ok_or_else(|| errors::network_not_found(&id))?;
    row::one(
        200,
        "network_ip_availability",
        row_of(&snapshot, &id, &network.value, None),
        &request.query,
    )
}
