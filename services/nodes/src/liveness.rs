//! Notices nodes that fell silent, and nodes that came back.

use crate::{Hub, report};
use maru_base::Result;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// A node that was not heard of for this long is down (Nova's `service_down_time`).
pub const DOWN_AFTER: Duration = Duration::from_secs(60);
/// How often an agent says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Watches the nodes until told to stop. Only transitions are written.
pub async fn run(hub: Arc<Hub>, mut stop: watch::Receiver<bool>) {
    let mut known: HashMap<String, bool> = HashMap::new();
    loop {
        for (node, silence) in hub.silence() {
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
