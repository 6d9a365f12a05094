//! Notices nodes that fell silent, and nodes that came back.

use crate::{Hub, report};
use maru_agent_api::NodeName;
use maru_base::Result;
use maru_compute_model::ComputeService;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A node that was not heard of for this long is down (Nova's `service_down_time`).
pub const DOWN_AFTER: Duration = Duration::from_secs(60);
/// How often an agent says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Watches the nodes until told to stop. Only transitions are written.
///
/// A node that the store has as up and that has not connected since this began is silent since then: a node that died
/// together with the control plane is found as well.
pub async fn run(hub: Arc<Hub>, mut stop: watch::Receiver<bool>) {
    let begun = Instant::now();
    let mut known: HashMap<String, bool> = HashMap::new();
    loop {
        let mut silences: BTreeMap<NodeName, Duration> = hub.silence().into_iter().collect();
        if begun.elapsed() >= DOWN_AFTER {
            for service in hub.store().snapshot().list::<ComputeService>().filter(|s| s.up) {
                silences
                    .entry(NodeName::from(service.host.as_str()))
                    .or_insert_with(|| begun.elapsed());
            }
        }
        for (node, silence) in silences {
            let up = silence < DOWN_AFTER;
            if known.get(node.as_str()) != Some(&up) {
                match write(&hub, &node, up).await {
                    Ok(()) => {
                        known.insert(node.to_string(), up);
                    }
                    Err(error) => tracing::warn!(%node, error = %error.chain(), "liveness not written, will try again"),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = async { drop(stop.wait_for(|s| *s).await) } => return,
        }
    }
}

async fn write(hub: &Hub, node: &str, up: bool) -> Result<()> {
    if !up {
        tracing::warn!(node, "node is silent: taken as down");
    }
    report::set_alive(hub.store(), node, up).await
}
