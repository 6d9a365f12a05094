//! What the slice said of this node's guests, kept on disk.
//!
//! A restored store may have forgotten guests that run here. They go on untouched until they are adopted or discarded
//! (docs/adr/0004), and so must what their ports live on: firewall, leases, metadata. All of that is made of the slice, so the
//! agent keeps what the slice last said of its guests, and adds it to the view of guests that the slice no longer knows:
//!
//! ```text
//!  slice ──► view ──────────────(recall: guests that the slice does not know)──► network pass
//!              ▲                                                  │
//!              └── slice.json ◄──(keep: what the view's guests need)◄┘
//! ```
//!
//! The slice always wins: what it knows, or has ordered away, is never taken from memory. The file is not synced: it must
//! outlive the agent, and the guests do not outlive the machine. It holds what guests are told of themselves, so only root may
//! read it.

use crate::desired::{NetworkView, RECALLED};
use maru_agent_api::slice::{ItemKey, Network, Port, SecurityGroup, Server};
use maru_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Guests and what their ports live on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    servers: BTreeMap<String, Server>,
    /// Their ports, and those that answer DHCP on their networks.
    ports: BTreeMap<String, Port>,
    networks: BTreeMap<String, Network>,
    /// Groups of the ports, and remote groups of their rules.
    groups: BTreeMap<String, SecurityGroup>,
}

/// What the agent remembers of its slice.
pub(crate) struct Memory {
    path: PathBuf,
    kept: Kept,
}

fn io(e: std::io::Error) -> Error {
    Error::internal("what the slice says of the guests cannot be kept on disk", e)
}

impl Memory {
    /// Reads what an earlier process kept in `guests`. What cannot be read is left out, with a warning: it matters only when
    /// the control plane has forgotten guests.
    pub(crate) async fn open(guests: &Path) -> Self {
        let path = guests.join("slice.json");
        let read = match tokio::fs::read(&path).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Kept::default()),
            Err(e) => Err(e.to_string()),
        };
        let kept = read.unwrap_or_else(|error| {
            tracing::warn!(
                path = %path.display(), error,
                "what the slice said of the guests cannot be read: guests that the control plane has forgotten have no network until \
                 they are adopted"
            );
            Kept::default()
        });
        Self { path, kept }
    }

    /// Adds to the view what these guests need and the slice does not know. Gives the ports of remembered guests that are no
    /// more, nor in the slice: their taps are left from a guest that was discarded.
    pub(crate) fn recall(&self, guests: &BTreeSet<String>, view: &mut NetworkView) -> Vec<String> {
        let known: BTreeSet<String> = view.servers.iter().map(|s| s.id.clone()).collect();
        let ordered_away = |key: ItemKey| view.gone.contains(&key);
        let mut over = Vec::new();
        let mut recalled = Vec::new();
        for server in self.kept.servers.values().filter(|s| !known.contains(&s.id)) {
            if ordered_away(ItemKey::Server(server.id.clone())) {
                continue;
            }
            let ports = server
                .ports
                .iter()
                .filter(|id| !view.ports.contains_key(*id) && !ordered_away(ItemKey::Port((*id).clone())));
            if guests.contains(&server.id) {
                recalled.push((server, ports.cloned().collect::<Vec<_>>()));
            } else {
                over.extend(ports.cloned());
            }
        }
        for (server, ports) in recalled {
            for port in ports.iter().filter_map(|id| self.kept.ports.get(id)) {
                if self.recall_network(&port.network_id, view) {
                    view.ports.insert(port.id.clone(), (RECALLED, port.clone()));
                    self.recall_groups(port, view);
                }
            }
            view.servers.push(server.clone());
        }
        over
    }

    /// Sees that a port's network is in the view; `false` if it cannot be.
    fn recall_network(&self, id: &str, view: &mut NetworkView) -> bool {
        if !view.networks.contains_key(id) {
            let Some(network) = self.kept.networks.get(id) else {
                return false;
            };
            // The restored store may have given its numbers away. Two networks that share one would not be apart.
            let taken = |n: &&Network| n.vni == network.vni || n.zone == network.zone;
            if view.gone.contains(&ItemKey::Network(id.to_owned())) || view.networks.values().any(|n| taken(&n)) {
                tracing::warn!(
                    network = id,
                    "its numbers are another network's by now: its forgotten guests have no network"
                );
                return false;
            }
            view.networks.insert(id.to_owned(), network.clone());
        }
        if view.dhcp_port(id).is_none() {
            let answers = |p: &&Port| p.network_id == id && p.device_owner == "network:dhcp";
            if let Some(port) = self.kept.ports.values().find(answers) {
                view.ports.insert(port.id.clone(), (RECALLED, port.clone()));
            }
        }
        true
    }

    fn recall_groups(&self, port: &Port, view: &mut NetworkView) {
        for id in groups_of(port, |id| self.kept.groups.get(id)) {
            if !view.groups.iter().any(|g| g.id == id)
                && let Some(group) = self.kept.groups.get(&id)
            {
                view.groups.push(group.clone());
            }
        }
    }

    /// Remembers what the view's guests need, and nothing else.
    ///
    /// # Errors
    /// The file cannot be written; what was remembered before still is.
    pub(crate) async fn keep(&mut self, view: &NetworkView) -> Result<()> {
        let kept = Kept::of(view);
        if kept == self.kept {
            return Ok(());
        }
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &kept).map(|()| kept));
        self.kept = written
            .await
            .map_err(|e| Error::internal("the writing of the slice was cut off", e))?
            .map_err(io)?;
        Ok(())
    }
}

/// Replaces the file at once; nothing kept is no file.
fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    if *kept == Kept::default() {
        return match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    let temporary = path.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = BufWriter::new(options.open(&temporary)?);
    serde_json::to_writer(&mut file, kept)?;
    file.flush()?;
    std::fs::rename(&temporary, path)
}

/// The groups of a port and the remote groups of their rules.
fn groups_of<'a>(port: &Port, find: impl Fn(&str) -> Option<&'a SecurityGroup>) -> BTreeSet<String> {
    let own = port.security_groups.iter();
    let remote = own.clone().filter_map(|id| find(id)).flat_map(|g| &g.rules);
    own.cloned()
        .chain(remote.filter_map(|r| r.remote_group.clone()))
        .collect()
}

impl Kept {
    fn of(view: &NetworkView) -> Self {
        let mut kept = Self::default();
        for server in &view.servers {
            kept.servers.insert(server.id.clone(), server.clone());
            for (_, port) in server.ports.iter().filter_map(|id| view.ports.get(id)) {
                kept.ports.insert(port.id.clone(), port.clone());
                if let Some(network) = view.networks.get(&port.network_id) {
                    kept.networks.insert(network.id.clone(), network.clone());
                }
                if let Some(dhcp) = view.dhcp_port(&port.network_id) {
                    kept.ports.insert(dhcp.id.clone(), dhcp.clone());
                }
                let find = |id: &str| view.groups.iter().find(|g| g.id == id);
                for group in groups_of(port, find).iter().filter_map(|id| find(id)) {
                    kept.groups.insert(group.id.clone(), group.clone());
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tests::{network, port, server};
    use maru_agent_api::slice::{Item, Rule};

    fn group(id: &str, remote: Option<&str>) -> SecurityGroup {
        SecurityGroup {
            id: id.into(),
            stateful: true,
            rules: vec![Rule {
                id: format!("rule-{id}"),
                ingress: true,
                ip_version: 4,
                protocol: None,
                port_min: None,
                port_max: None,
                remote_cidr: None,
                remote_group: remote.map(Into::into),
            }],
            members: vec![],
        }
    }

    fn full() -> NetworkView {
        let mut view = NetworkView::default();
        let (Item::Network(net), Item::Port(mut own)) = (network(), port("port")) else {
            unreachable!()
        };
        own.security_groups = vec!["a".into()];
        let answers = Port {
            id: "dhcp".into(),
            device_owner: "network:dhcp".into(),
            ..own.clone()
        };
        let neighbour = Port {
            id: "other".into(),
            host: Some("n2".into()),
            ..own.clone()
        };
        for p in [own, answers, neighbour] {
            view.ports.insert(p.id.clone(), (7, p));
        }
        view.networks.insert(net.id.clone(), net);
        view.groups = vec![group("a", Some("b")), group("b", None), group("c", None)];
        view.servers = vec![server()];
        view
    }

    async fn memory(view: &NetworkView) -> (tempfile::TempDir, Memory) {
        let dir = tempfile::tempdir().unwrap();
        Memory::open(dir.path()).await.keep(view).await.unwrap();
        let read_back = Memory::open(dir.path()).await;
        (dir, read_back)
    }

    fn vm() -> BTreeSet<String> {
        BTreeSet::from(["vm".to_owned()])
    }

    #[tokio::test]
    async fn a_forgotten_guest_has_what_its_ports_live_on() {
        let (dir, memory) = memory(&full()).await;
        let mut view = NetworkView::default();
        assert_eq!(memory.recall(&vm(), &mut view), Vec::<String>::new());
        assert_eq!(view.servers, [server()]);
        assert_eq!(view.ports.keys().collect::<Vec<_>>(), ["dhcp", "port"]);
        assert!(view.ports.values().all(|(revision, _)| *revision == RECALLED));
        assert!(view.networks.contains_key("net"));
        let groups: Vec<&str> = view.groups.iter().map(|g| g.id.as_str()).collect();
        assert_eq!(groups, ["a", "b"], "its own, and the remote one of a rule");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join("slice.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_slice_wins() {
        let (_dir, memory) = memory(&full()).await;
        let mut view = full();
        view.ports.get_mut("port").unwrap().1.admin_up = false;
        view.groups.remove(0);
        let before = view.ports.clone();
        memory.recall(&vm(), &mut view);
        assert_eq!((view.ports, view.servers.len(), view.groups.len()), (before, 1, 2));

        let mut view = NetworkView {
            gone: vec![ItemKey::Server("vm".into())],
            ..NetworkView::default()
        };
        assert!(memory.recall(&vm(), &mut view).is_empty());
        assert!(view.servers.is_empty() && view.ports.is_empty(), "it is ordered away");
    }

    #[tokio::test]
    async fn numbers_that_another_network_has_by_now_are_not_shared() {
        let (_dir, memory) = memory(&full()).await;
        let Item::Network(net) = network() else { unreachable!() };
        let other = Network {
            id: "new".into(),
            vni: net.vni + 1,
            ..net
        };
        let mut view = NetworkView::default();
        view.networks.insert(other.id.clone(), other);
        memory.recall(&vm(), &mut view);
        assert!(
            view.ports.is_empty() && view.networks.len() == 1,
            "the conntrack zone is taken"
        );
    }

    #[tokio::test]
    async fn what_no_guest_needs_is_forgotten() {
        let (dir, mut memory) = memory(&full()).await;
        let mut view = NetworkView::default();
        assert_eq!(
            memory.recall(&BTreeSet::new(), &mut view),
            ["port"],
            "its tap is left over"
        );
        assert!(view.servers.is_empty() && view.ports.is_empty() && view.networks.is_empty());
        memory.keep(&view).await.unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_no_reason_to_stop() {
        let (dir, _) = memory(&full()).await;
        std::fs::write(dir.path().join("slice.json"), b"{\"servers\": 3").unwrap();
        let mut memory = Memory::open(dir.path()).await;
        let mut view = NetworkView::default();
        memory.recall(&vm(), &mut view);
        assert!(view.servers.is_empty());
        memory.keep(&full()).await.unwrap();
    }
}
