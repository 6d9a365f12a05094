//! The network pass: networks, taps, firewall, routers, responders; one at a time, over the whole slice.
//!
//! ```text
//!  networks ─► taps (down) ─► firewall, one transaction ─► taps up ─► routers ─► responders ─► removals
//! ```
//! What is already as it shall be is not touched: each item is remembered as it was last made.

use crate::{Inner, RESYNC, desired::NetworkView};
use maru_agent_api::{
    observed::{PortState, Report, ServerEvent},
    slice::{ItemKey, Network, Port, Router},
};
use maru_base::Result;
use maru_firewall::{FirewallInput, RouterNat};
use maru_link::RouterSpec;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// What was made, as it was made.
#[derive(Default)]
struct Made {
    networks: HashMap<String, (Network, Option<Port>)>,
    ports: HashMap<String, Port>,
    routers: HashMap<String, (Router, Vec<Port>, Vec<Network>)>,
    /// Port states as reported: up, and the fault.
    reported: HashMap<String, (bool, Option<String>)>,
}

/// Runs passes until dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let mut made = Made::default();
    let mut wait = Duration::from_millis(100);
    let mut failed = false;
    loop {
        let pause = if failed { wait } else { RESYNC };
        tokio::select! {
            () = inner.network.notified() => {}
            () = tokio::time::sleep(pause) => if !failed {
                // The resync looks at the machine anew, in case somebody else touched it.
                made = Made { reported: made.reported, ..Made::default() };
            }
        }
        let view = inner.desired().network_view();
        if !view.synced {
            continue;
        }
        failed = match pass(inner, &view, &mut made).await {
            Ok(()) => {
                wait = Duration::from_millis(100);
                false
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "network pass failed, will try again");
                wait = (wait * 2).min(Duration::from_secs(10));
                true
            }
        };
    }
}

/// Whether a port has a tap on this node.
fn has_tap(port: &Port, node: &str) -> bool {
    port.host.as_deref() == Some(node) && port.device_owner.starts_with("compute:")
}

async fn pass(inner: &Arc<Inner>, view: &NetworkView, made: &mut Made) -> Result<()> {
    let begun = micros();
    for network in view.networks.values() {
        let now = (network.clone(), view.dhcp_port(&network.id).cloned());
        if made.networks.get(&network.id) != Some(&now) {
            inner.links.ensure_network(network, now.1.as_ref()).await?;
            made.networks.insert(network.id.clone(), now);
        }
    }
    let node = inner.config.node.as_str();
    let ports: Vec<&(u64, Port)> = view.ports.values().filter(|(_, p)| has_tap(p, node)).collect();
    let mut fresh: BTreeSet<&str> = BTreeSet::new();
    for (_, port) in &ports {
        let Some(network) = view.networks.get(&port.network_id) else {
            continue;
        };
        if made.ports.get(&port.id) != Some(port) {
            inner.links.ensure_port(port, network).await?;
            fresh.insert(&port.id);
        }
    }
    let linked = micros();
    let networks: Vec<&Network> = view.networks.values().collect();
    let applied = inner
        .firewall
        .apply(FirewallInput {
            networks: networks.clone(),
            ports: ports.iter().map(|(_, p)| p).collect(),
            groups: view.groups.iter().collect(),
        })
        .await?;
    let filtered = micros();
    let mut faults: BTreeMap<&str, &str> = BTreeMap::new();
    for fault in &applied.faults {
        if fault.what == "port" {
            faults.insert(&fault.id, &fault.reason);
        } else {
            tracing::warn!(
                what = fault.what,
                id = fault.id,
                reason = fault.reason,
                "left out of the firewall"
            );
        }
    }
    for (revision, port) in &ports {
        if !view.networks.contains_key(&port.network_id) {
            continue;
        }
        let up = port.admin_up;
        if made.ports.get(&port.id) != Some(port) {
            inner.links.port_up(&port.id, up).await?;
            made.ports.insert(port.id.clone(), port.clone());
        }
        inner.ready().insert(port.id.clone());
        let now = (up, faults.get(port.id.as_str()).map(|f| (*f).to_owned()));
        if made.reported.get(&port.id) != Some(&now) {
            inner.reporter.send(Report::Port(PortState {
                id: port.id.clone(),
                revision: *revision,
                up,
                fault: now.1.clone(),
            }));
            made.reported.insert(port.id.clone(), now);
        }
    }
    for server in view
        .servers
        .iter()
        .filter(|s| s.ports.iter().any(|p| fresh.contains(p.as_str())))
    {
        for (event, start, finish) in [("link", begun, linked), ("firewall", linked, filtered)] {
            inner.reporter.send(Report::Event(ServerEvent {
                server: server.id.clone(),
                request_id: server.request_id.clone(),
                event: event.to_owned(),
                start_us: start,
                finish_us: finish,
                ok: true,
                message: None,
            }));
        }
        inner.servers.kick(&server.id);
    }
    for router in &view.routers {
        ensure_router(inner, view, router, made).await?;
    }
    inner.responders.ensure(inner, view).await?;
    removals(inner, view, made).await
}

async fn ensure_router(inner: &Inner, view: &NetworkView, router: &Router, made: &mut Made) -> Result<()> {
    let mut ids: Vec<&String> = router.interfaces.iter().collect();
    ids.extend(router.gateway.iter().map(|g| &g.port_id));
    let ports: Vec<Port> = ids
        .iter()
        .filter_map(|id| view.ports.get(*id).map(|(_, p)| p.clone()))
        .collect();
    let networks: Vec<Network> = ports
        .iter()
        .filter_map(|p| view.networks.get(&p.network_id).cloned())
        .collect();
    let now = (router.clone(), ports, networks);
    if made.routers.get(&router.id) == Some(&now) {
        return Ok(());
    }
    let netns = inner.links.ensure_router_namespace(&router.id).await?;
    let (ports, networks): (Vec<&Port>, Vec<&Network>) = (now.1.iter().collect(), now.2.iter().collect());
    let nat = RouterNat {
        router,
        ports: ports.clone(),
        networks: networks.clone(),
    };
    let applied = inner.firewall.apply_router(&netns.path(), &nat).await?;
    for fault in &applied.faults {
        tracing::warn!(
            what = fault.what,
            id = fault.id,
            reason = fault.reason,
            "left out of the router's rules"
        );
    }
    let links = inner
        .links
        .ensure_router(&RouterSpec {
            router,
            ports,
            networks,
        })
        .await?;
    for fault in &links.faults {
        tracing::warn!(router = router.id, fault, "route refused by the kernel");
    }
    inner.responders.router(view, &router.id, &links)?;
    // Its interfaces are up as soon as the router is.
    for port in &now.1 {
        let state = (true, None);
        if made.reported.get(&port.id) != Some(&state) {
            let revision = view.ports.get(&port.id).map_or(0, |(r, _)| *r);
            inner.reporter.send(Report::Port(PortState {
                id: port.id.clone(),
                revision,
                up: true,
                fault: None,
            }));
            made.reported.insert(port.id.clone(), state);
        }
    }
    made.routers.insert(router.id.clone(), now);
    Ok(())
}

/// Carries out ordered removals: routers, then ports, then networks.
async fn removals(inner: &Inner, view: &NetworkView, made: &mut Made) -> Result<()> {
    for key in &view.gone {
        if let ItemKey::Router(id) = key {
            inner.responders.router_gone(id);
            inner.links.remove_router(id).await?;
            made.routers.remove(id);
            removed(inner, key);
        }
    }
    for key in &view.gone {
        if let ItemKey::Port(id) = key {
            // A port leaves with its server: while QEMU has the tap it stays, and the server's end asks for a new pass.
            if view.servers.iter().any(|s| s.ports.contains(id)) {
                continue;
            }
            inner.links.remove_port(id).await?;
            inner.ready().remove(id);
            made.ports.remove(id);
            made.reported.remove(id);
            removed(inner, key);
        }
    }
    for key in &view.gone {
        match key {
            ItemKey::Network(id) => {
                inner.responders.network_gone(id);
                inner.links.remove_network(id).await?;
                made.networks.remove(id);
                removed(inner, key);
            }
            ItemKey::SecurityGroup(_) => inner.desired().removed(key),
            _ => {}
        }
    }
    Ok(())
}

fn removed(inner: &Inner, key: &ItemKey) {
    inner.desired().removed(key);
    inner.reporter.send(Report::Removed(key.clone()));
}

/// Microseconds since the epoch.
pub(crate) fn micros() -> i64 {
    maru_base::time::now().as_microsecond()
}
