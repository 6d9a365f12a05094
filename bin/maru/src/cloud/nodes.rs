//! The nodes as `maru status` tells of them: those that the store has and those that are connected, how each is, and what can be
//! done with what is unknown on it.

use super::Cloud;
use maru_agent_api::{NodeName, slice::ItemKey};
use maru_compute_model::{ComputeService, find_service};
use maru_nodes::{
    NodeView,
    liveness::{DOWN_AFTER, HEARTBEAT},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The item that makes an unknown thing known.
fn key_of(what: &str, id: &str) -> Option<ItemKey> {
    let id = id.to_owned();
    Some(match what {
        // Disks are their server's.
        "server" | "disk" => ItemKey::Server(id),
        "network" => ItemKey::Network(id),
        "router" => ItemKey::Router(id),
        "volume" => ItemKey::Volume(id),
        "volume-snapshot" => ItemKey::VolumeSnapshot(id),
        _ => return None,
    })
}

impl Cloud {
    /// The connected nodes. What a node told of and its slice has by now (a network that came back with its servers) is left out.
    pub(super) fn views(&self) -> Vec<NodeView> {
        let mut views = self.hub.views();
        let snapshot = self.store.snapshot();
        for view in views.iter_mut().filter(|v| !v.unknown.is_empty()) {
            let slice = maru_nodes::slice::of(&snapshot, &NodeName::from(view.node.as_str()));
            view.unknown.retain(|thing| {
                !key_of(&thing.what, &thing.id).is_some_and(|k| slice.items.contains_key(&k) || slice.gone.contains(&k))
            });
        }
        views
    }

    /// Nodes of the store that have not connected to this process.
    pub(super) fn nodes_away(&self) -> Vec<String> {
        let connected: BTreeSet<String> = self.hub.silence().into_iter().map(|(n, _)| n.to_string()).collect();
        let snapshot = self.store.snapshot();
        let mut away: Vec<String> = snapshot
            .list::<ComputeService>()
            .map(|s| s.host.clone())
            .filter(|host| !connected.contains(host))
            .collect();
        away.sort();
        away
    }

    /// All nodes, by name. `well` is false for a node that somebody should look at; `state` says how it is.
    #[must_use]
    pub fn nodes(&self) -> Vec<Value> {
        let snapshot = self.store.snapshot();
        let forced = |host: &str| find_service(&snapshot, host).is_some_and(|s| s.forced_down);
        let mut all: Vec<Value> = self
            .views()
            .into_iter()
            .map(|view| {
                let (mut well, mut state) = (true, "up".to_owned());
                if view.silent_s >= DOWN_AFTER.as_secs() {
                    (well, state) = (false, format!("down: silent for {} s", view.silent_s));
                } else if view.silent_s > 2 * HEARTBEAT.as_secs() {
                    let after = DOWN_AFTER.as_secs();
                    (well, state) = (
                        false,
                        format!("silent for {} s; taken as down after {after}", view.silent_s),
                    );
                }
                if forced(&view.node) {
                    (well, state) = (false, format!("{state}, and declared down by an operator"));
                }
                self.shown(view, well, &state)
            })
            .collect();
        for host in self.nodes_away() {
            let since = find_service(&snapshot, &host)
                .map(|s| s.seen.to_string())
                .unwrap_or_default();
            all.push(json!({
                "node": host,
                "well": false,
                "state": format!("has not connected since this process began; last change seen {since}"),
                "unknown": [],
            }));
        }
        all.sort_by(|a, b| a["node"].as_str().cmp(&b["node"].as_str()));
        all
    }

    fn shown(&self, view: NodeView, well: bool, state: &str) -> Value {
        let unknown: Vec<Value> = view
            .unknown
            .iter()
            .map(|thing| {
                let command = |verb| self.command(verb, &thing.what, &thing.id, None);
                let mut shown = json!({
                    "what": thing.what,
                    "id": thing.id,
                    "description": thing.description,
                    "discard": command("discard"),
                });
                if thing.what == "server" {
                    shown["adopt"] = command("adopt").into();
                }
                shown
            })
            .collect();
        json!({
            "node": view.node,
            "well": well,
            "state": state,
            "silent_s": view.silent_s,
            "hello": view.hello,
            "resources": view.resources,
            "unknown": unknown,
        })
    }
}
