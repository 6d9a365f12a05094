//! The network pass: networks, taps, firewall, routers, responders; one at a time, over the whole slice.
//!
//! ```text
//!  memory ─► networks ─► taps (down) ─► firewall, one transaction ─► taps up ─► routers ─► responders ─► removals
//! ```
//! What is already as it shall be is not touched: each item is remembered as it was last made. What fails is that item's own
//! misfortune: it is reported and tried again, and all others go on. Only the firewall is one for all, and without it no tap
//! goes up.

use crate::desired::{NetworkView, RECALLED};
use crate::memory::Memory;
use crate::responders::{advertised, guests};
use crate::{Inner, RESYNC};
use maru_agent_api::{
    observed::{PortState, Report, ServerEvent},
    slice::{ItemKey, Network, Port, Router},
};
use maru_base::{Error, Result, panics};
use maru_firewall::FirewallInput;
use maru_link::{NetworkLinks, RouterLinks};
use maru_metadata::Directory;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// What a router follows from: itself, its ports and their networks.
type RouterParts = (Router, Vec<Port>, Vec<Network>);

/// What was made, as it was made.
#[derive(Default)]
struct Made {
    networks: HashMap<String, (Network, Option<Port>, NetworkLinks)>,
    ports: HashMap<String, Port>,
    routers: HashMap<String, (RouterParts, RouterLinks)>,
    /// Ports that became ready and whose server was not yet told: when their links and rules were begun, the links made, the
    /// rules in force.
    fresh: HashMap<String, [i64; 3]>,
    /// Port states as reported in this session: up, and the fault.
    reported: HashMap<String, (bool, Option<String>)>,
    session: u64,
}

/// What went wrong in a pass.
#[derive(Default)]
struct Troubles(usize);

impl Troubles {
    /// Notes an error; gives the value if there was none.
    fn note<T>(&mut self, what: &str, id: &str, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.add(what, id, &e)).ok()
    }
    fn add(&mut self, what: &str, id: &str, error: &Error) {
        tracing::warn!(what, id, error = %error.chain(), "not as it shall be, will try again");
        self.0 += 1;
    }
}

/// Runs passes until dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let mut made = Made::default();
    let mut memory = Memory::open(&inner.config.data_dir.join("guests")).await;
    let mut wait = Duration::from_millis(100);
    let mut failed = false;
    loop {
        let pause = if failed { wait } else { RESYNC };
        tokio::select! {
            () = inner.network.notified() => {}
            () = tokio::time::sleep(pause) => if !failed {
                // The resync looks at the machine anew, in case somebody else touched it.
                made = Made { reported: made.reported, session: made.session, ..Made::default() };
            }
        }
        let mut view = inner.desired().network_view();
        if !view.synced {
            continue;
        }
        let session = *inner.sessions.borrow();
        if made.session != session {
            made.session = session;
            made.reported.clear();
        }
        let troubles = match panics::catch(pass(inner, &mut view, &mut memory, &mut made)).await {
            Ok(troubles) => troubles,
            Err(panicked) => {
                tracing::error!(
                    error = %panicked, backtrace = panicked.backtrace,
                    "the agent panicked over its networks; this is a bug; it will try again"
                );
                // What was made is not known any more: look at the machine anew.
                made = Made::default();
                Troubles(1)
            }
        };
        failed = troubles.0 > 0;
        wait = if failed {
            (wait * 2).min(Duration::from_secs(10))
        } else {
            Duration::from_millis(100)
        };
    }
}

/// Whether a port has a tap on this node, or is carried by one that has.
fn has_tap(port: &Port, node: &str) -> bool {
    port.host.as_deref() == Some(node) && (port.device_owner.starts_with("compute:") || port.trunk.is_some())
}

async fn pass(inner: &Arc<Inner>, view: &mut NetworkView, memory: &mut Memory, made: &mut Made) -> Troubles {
    let mut troubles = Troubles::default();
    // Without the guests it cannot be known whose rules must stay.
    let Some(guests) = troubles.note("guests", "", inner.hypervisor.list().await) else {
        return troubles;
    };
    let guests = guests.into_iter().map(|g| g.id).collect();
    let remembered = remember(inner, &guests, view, memory, made).await;
    troubles.note("memory", "", remembered);
    let view = &*view;
    let begun = micros();
    for network in view.networks.values() {
        let dhcp = view.dhcp_port(&network.id).cloned();
        if made
            .networks
            .get(&network.id)
            .is_some_and(|m| m.0 == *network && m.1 == dhcp)
        {
            continue;
        }
        let links = inner.wires.ensure_network(network, dhcp.as_ref()).await;
        if let Some(links) = troubles.note("network", &network.id, links) {
            made.networks.insert(network.id.clone(), (network.clone(), dhcp, links));
        }
    }
    ports(inner, view, made, begun, &mut troubles).await;
    for router in &view.routers {
        let ensured = ensure_router(inner, view, router, made).await;
        troubles.note("router", &router.id, ensured);
    }
    respond(inner, view, made, &mut troubles);
    removals(inner, view, made, &mut troubles).await;
    troubles
}

/// Adds to the view what guests need that the slice does not know, removes the taps of those that were discarded, and keeps
/// what all of them need.
async fn remember(
    inner: &Inner,
    guests: &BTreeSet<String>,
    view: &mut NetworkView,
    memory: &mut Memory,
    made: &mut Made,
) -> Result<()> {
    for port in memory.recall(guests, view) {
        inner.wires.remove_port(&port).await?;
        inner.ready().remove(&port);
        made.ports.remove(&port);
    }
    memory.keep(view).await
}

/// Taps, firewall, taps up; kicks the servers whose ports became ready.
async fn ports(inner: &Arc<Inner>, view: &NetworkView, made: &mut Made, begun: i64, troubles: &mut Troubles) {
    let node = inner.config.node.as_str();
    let mut ports: Vec<&(u64, Port)> = Vec::new();
    let mut broken: HashMap<String, String> = HashMap::new();
    let mut here: Vec<&(u64, Port)> = view.ports.values().filter(|(_, p)| has_tap(p, node)).collect();
    // Parents of trunks come before what they carry.
    here.sort_by_key(|(_, p)| p.trunk.is_some());
    let mut ensured: BTreeSet<&str> = BTreeSet::new();
    for entry in here {
        let port = &entry.1;
        let Some(network) = view.networks.get(&port.network_id) else {
            continue;
        };
        let parent = port.trunk.as_ref().map(|t| t.parent.as_str());
        let new = made.ports.get(&port.id) != Some(port) || parent.is_some_and(|p| ensured.contains(p));
        if new {
            ensured.insert(&port.id);
        }
        if new && let Err(e) = inner.wires.ensure_port(port, network).await {
            troubles.add("port", &port.id, &e);
            broken.insert(port.id.clone(), e.to_string());
            report_port(inner, made, entry, false, Some(e.to_string()));
            continue;
        }
        ports.push(entry);
    }
    let linked = micros();
    let input = FirewallInput {
        networks: view.networks.values().collect(),
        ports: ports.iter().map(|(_, p)| p).collect(),
        groups: view.groups.iter().collect(),
    };
    let applied = match inner.wires.apply(input).await {
        Ok(applied) => applied,
        Err(e) => {
            troubles.add("firewall", node, &e);
            broken.extend(ports.iter().map(|(_, p)| (p.id.clone(), e.to_string())));
            *inner.broken() = broken;
            return;
        }
    };
    let filtered = micros();
    for fault in &applied.faults {
        if fault.what == "port" {
            broken.insert(fault.id.clone(), fault.reason.clone());
        }
        tracing::warn!(
            what = fault.what,
            id = fault.id,
            reason = fault.reason,
            "left out of the firewall"
        );
    }
    for entry in ports {
        let port = &entry.1;
        if ensured.contains(port.id.as_str()) {
            let up = inner.wires.port_up(&port.id, port.admin_up).await;
            if troubles.note("port", &port.id, up).is_none() {
                continue;
            }
            made.ports.insert(port.id.clone(), port.clone());
        }
        if inner.ready().insert(port.id.clone()) && entry.0 != RECALLED {
            made.fresh.insert(port.id.clone(), [begun, linked, filtered]);
        }
        let fault = broken.get(&port.id).cloned();
        report_port(inner, made, entry, port.admin_up && fault.is_none(), fault);
    }
    *inner.broken() = broken;
    tell_servers(inner, made);
}

/// Tells and kicks the servers whose ports became ready. These are the servers of now, not those of the pass: the slice may have
/// brought a server while the pass was busy with its port, and that server found the port not ready and waits. One that comes
/// later still finds it ready, and the pass that it asks for tells it.
fn tell_servers(inner: &Inner, made: &mut Made) {
    if made.fresh.is_empty() {
        return;
    }
    for server in inner.desired().network_view().servers {
        let Some([begun, linked, filtered]) = server.ports.iter().filter_map(|p| made.fresh.remove(p)).last() else {
            continue;
        };
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
}

fn report_port(inner: &Inner, made: &mut Made, (revision, port): &(u64, Port), up: bool, fault: Option<String>) {
    if *revision == RECALLED {
        return;
    }
    let now = (up, fault);
    if made.reported.get(&port.id) == Some(&now) {
        return;
    }
    inner.reporter.send(Report::Port(PortState {
        id: port.id.clone(),
        revision: *revision,
        up: now.0,
        fault: now.1.clone(),
    }));
    made.reported.insert(port.id.clone(), now);
}

async fn ensure_router(inner: &Inner, view: &NetworkView, router: &Router, made: &mut Made) -> Result<()> {
    let mut ids: Vec<&String> = router.interfaces.iter().collect();
    ids.extend(router.gateway.iter().map(|g| &g.port_id));
    let entries: Vec<&(u64, Port)> = ids.iter().filter_map(|id| view.ports.get(*id)).collect();
    let ports: Vec<Port> = entries.iter().map(|(_, p)| p.clone()).collect();
    let mut networks: Vec<Network> = ports
        .iter()
        .filter_map(|p| view.networks.get(&p.network_id).cloned())
        .collect();
    networks.sort_by(|a, b| a.id.cmp(&b.id));
    networks.dedup_by(|a, b| a.id == b.id);
    let now = (router.clone(), ports, networks);
    if made.routers.get(&router.id).is_none_or(|m| m.0 != now) {
        let links = inner.wires.ensure_router(router, &now.1, &now.2).await?;
        for fault in &links.faults {
            tracing::warn!(router = router.id, fault, "route refused by the kernel");
        }
        made.routers.insert(router.id.clone(), (now, links));
    }
    // Its interfaces are up as soon as the router is.
    for entry in entries {
        report_port(inner, made, entry, router.admin_up && entry.1.admin_up, None);
    }
    Ok(())
}

/// Gives everyone who answers guests what is known now.
fn respond(inner: &Arc<Inner>, view: &NetworkView, made: &Made, troubles: &mut Troubles) {
    let node = inner.config.node.as_str();
    let mut guests = guests(view);
    let directory: Arc<dyn Directory> = Arc::clone(&inner.register) as Arc<dyn Directory>;
    for (id, (network, _, links)) in &made.networks {
        let Some(responder) = links.responder.as_ref().filter(|_| view.networks.contains_key(id)) else {
            inner.answers.network_gone(id);
            continue;
        };
        let local = view
            .ports
            .values()
            .map(|(_, p)| p)
            .filter(|p| p.host.as_deref() == Some(node));
        let dhcp = Arc::new(maru_dhcp::NetworkView::new(network, local));
        let guests = guests.remove(id).unwrap_or_default();
        let started = inner.answers.network(id, responder, dhcp, guests, &directory);
        troubles.note("responder", id, started);
    }
    for router in &view.routers {
        if let Some((_, links)) = made.routers.get(&router.id) {
            let views = if router.admin_up {
                advertised(view, links)
            } else {
                Vec::new()
            };
            let started = inner.answers.router(&router.id, links, views);
            troubles.note("advertiser", &router.id, started);
        }
    }
}

/// Carries out ordered removals: routers, then ports, then networks. What a trunk carried and does not carry any more leaves the
/// machine with them: it is a neighbour like any other then.
async fn removals(inner: &Inner, view: &NetworkView, made: &mut Made, troubles: &mut Troubles) {
    let node = inner.config.node.as_str();
    let left = |(id, port): &(&String, &Port)| {
        port.trunk.is_some() && view.ports.get(*id).is_some_and(|(_, p)| !has_tap(p, node))
    };
    let left: Vec<String> = made.ports.iter().filter(left).map(|(id, _)| id.clone()).collect();
    for id in left {
        let gone = inner.wires.remove_port(&id).await;
        inner.ready().remove(&id);
        if troubles.note("port", &id, gone).is_some() {
            made.ports.remove(&id);
            made.reported.remove(&id);
        }
    }
    if view.gone.is_empty() {
        return;
    }
    for key in &view.gone {
        if let ItemKey::Router(id) = key {
            inner.answers.router_gone(id);
            let gone = inner.wires.remove_router(id).await;
            made.routers.remove(id);
            if troubles.note("router", id, gone).is_some() {
                removed(inner, key);
            }
        }
    }
    let Some(held) = troubles.note("guests", "", held_ports(inner, view).await) else {
        return;
    };
    let mut waiting = false;
    for key in &view.gone {
        if let ItemKey::Port(id) = key {
            // A port leaves with its server: while a guest has the tap it stays, and the server's end asks for a new pass.
            if held.contains(id) {
                waiting = true;
                continue;
            }
            let gone = inner.wires.remove_port(id).await;
            inner.ready().remove(id);
            made.ports.remove(id);
            made.reported.remove(id);
            made.fresh.remove(id);
            if troubles.note("port", id, gone).is_some() {
                removed(inner, key);
            }
        }
    }
    for key in &view.gone {
        match key {
            // Ports that wait may be on it.
            ItemKey::Network(id) if !waiting => {
                inner.answers.network_gone(id);
                let gone = inner.wires.remove_network(id).await;
                made.networks.remove(id);
                if troubles.note("network", id, gone).is_some() {
                    removed(inner, key);
                }
            }
            ItemKey::SecurityGroup(_) => inner.desired().removed(key),
            _ => {}
        }
    }
}

/// Ports that a server shall have, or that a guest which the slice knows still has.
async fn held_ports(inner: &Inner, view: &NetworkView) -> Result<BTreeSet<String>> {
    let mut held: BTreeSet<String> = view.servers.iter().flat_map(|s| s.ports.iter().cloned()).collect();
    for guest in inner.hypervisor.list().await? {
        if inner.desired().knows(&ItemKey::Server(guest.id.clone())) {
            held.extend(guest.attached);
        }
    }
    Ok(held)
}

fn removed(inner: &Inner, key: &ItemKey) {
    inner.desired().removed(key);
    inner.reporter.send(Report::Removed(key.clone()));
}

/// Microseconds since the epoch.
pub(crate) fn micros() -> i64 {
    maru_base::time::now().as_microsecond()
}
