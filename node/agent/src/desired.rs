//! What shall be on this node: the slice as received.

use maru_agent_api::slice::{Item, ItemKey, Network, Port, Router, SecurityGroup, Server};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The slice.
#[derive(Default)]
pub(crate) struct Desired {
    items: BTreeMap<ItemKey, (u64, Arc<Item>)>,
    /// Ordered removals that are not carried out yet, with their revision.
    gone: BTreeMap<ItemKey, u64>,
    /// The highest revision seen of each key: nothing older is obeyed.
    seen: HashMap<ItemKey, u64>,
    /// Keys of the full set that is being received.
    arriving: BTreeSet<ItemKey>,
    synced: bool,
    /// The store's incarnation that `seen` and `gone` are of.
    incarnation: String,
}

/// What a server's task needs to know of its intent.
pub(crate) enum Intent {
    /// It shall be so, as of this revision.
    Set(u64, Arc<Item>),
    /// It shall not be.
    Gone,
    /// Nothing is known of it.
    Unknown,
}

impl Desired {
    /// A new session: a full set will arrive.
    pub(crate) fn begin(&mut self, incarnation: &str) {
        if self.incarnation != incarnation {
            incarnation.clone_into(&mut self.incarnation);
            self.seen.clear();
            self.gone.clear();
        }
        self.synced = false;
        self.arriving.clear();
    }
    /// Takes an item; `false` if it is older than what was seen.
    pub(crate) fn set(&mut self, revision: u64, item: Item) -> bool {
        let key = item.key();
        if self.seen.get(&key).is_some_and(|s| *s > revision) {
            return false;
        }
        self.seen.insert(key.clone(), revision);
        self.arriving.insert(key.clone());
        self.gone.remove(&key);
        self.items.insert(key, (revision, Arc::new(item)));
        true
    }
    /// Takes an order to remove.
    pub(crate) fn gone(&mut self, revision: u64, key: ItemKey) {
        if self.seen.get(&key).is_some_and(|s| *s > revision) {
            return;
        }
        self.seen.insert(key.clone(), revision);
        self.items.remove(&key);
        self.gone.insert(key, revision);
    }
    /// The full set is here. What was not in it is forgotten (and so unknown: kept on the machine). Gives all servers.
    pub(crate) fn synced(&mut self) -> Vec<String> {
        let arriving = std::mem::take(&mut self.arriving);
        self.items.retain(|key, _| arriving.contains(key));
        self.synced = true;
        self.servers()
    }
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }
    /// Whether the slice speaks of it.
    pub(crate) fn knows(&self, key: &ItemKey) -> bool {
        self.items.contains_key(key) || self.gone.contains_key(key)
    }
    /// An item that shall be, with its revision.
    pub(crate) fn get(&self, key: &ItemKey) -> Option<(u64, Arc<Item>)> {
        self.items.get(key).map(|(r, item)| (*r, Arc::clone(item)))
    }
    /// Whether it is ordered to be removed.
    pub(crate) fn is_gone(&self, key: &ItemKey) -> bool {
        self.gone.contains_key(key)
    }
    /// All volumes and snapshots that are set or to be removed.
    pub(crate) fn volumes(&self) -> Vec<ItemKey> {
        self.items
            .keys()
            .chain(self.gone.keys())
            .filter(|k| matches!(k, ItemKey::Volume(_) | ItemKey::VolumeSnapshot(_)))
            .cloned()
            .collect()
    }
    /// All servers that are set or to be removed.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.items
            .keys()
            .chain(self.gone.keys())
            .filter_map(|k| match k {
                ItemKey::Server(id) => Some(id.clone()),
                _ => None,
            })
            .collect()
    }
    pub(crate) fn server(&self, id: &str) -> Intent {
        let key = ItemKey::Server(id.to_owned());
        if let Some((revision, item)) = self.items.get(&key) {
            return Intent::Set(*revision, Arc::clone(item));
        }
        if self.gone.contains_key(&key) {
            Intent::Gone
        } else {
            Intent::Unknown
        }
    }
    /// A removal is carried out.
    pub(crate) fn removed(&mut self, key: &ItemKey) {
        self.gone.remove(key);
    }
    /// The network part, as of now.
    pub(crate) fn network_view(&self) -> NetworkView {
        let mut view = NetworkView {
            synced: self.synced,
            ..NetworkView::default()
        };
        for (revision, item) in self.items.values() {
            match &**item {
                Item::Network(x) => {
                    view.networks.insert(x.id.clone(), x.clone());
                }
                Item::Port(x) => {
                    view.ports.insert(x.id.clone(), (*revision, x.clone()));
                }
                Item::SecurityGroup(x) => view.groups.push(x.clone()),
                Item::Router(x) => view.routers.push(x.clone()),
                Item::Server(x) => view.servers.push(x.clone()),
                Item::Volume(_) | Item::VolumeSnapshot(_) => {}
            }
        }
        view.gone = self.gone.keys().cloned().collect();
        view
    }
}

/// The revision of ports that the slice does not know: taken from memory for a guest that it has forgotten.
pub(crate) const RECALLED: u64 = 0;

/// The network part of the slice.
#[derive(Default)]
pub(crate) struct NetworkView {
    pub synced: bool,
    pub networks: BTreeMap<String, Network>,
    pub ports: BTreeMap<String, (u64, Port)>,
    pub groups: Vec<SecurityGroup>,
    pub routers: Vec<Router>,
    pub servers: Vec<Server>,
    pub gone: Vec<ItemKey>,
}

impl NetworkView {
    /// The port that answers DHCP on a network.
    pub(crate) fn dhcp_port(&self, network: &str) -> Option<&Port> {
        self.ports
            .values()
            .map(|(_, p)| p)
            .find(|p| p.network_id == network && p.device_owner == "network:dhcp")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn router(id: &str) -> Item {
        Item::Router(Router {
            id: id.into(),
            admin_up: true,
            gateway: None,
            interfaces: vec![],
            routes: vec![],
            floating_ips: vec![],
            forwardings: vec![],
            helpers: vec![],
            ndp_proxies: None,
        })
    }

    #[test]
    fn nothing_older_than_what_was_seen_is_obeyed() {
        let mut d = Desired::default();
        assert!(d.set(5, router("a")));
        assert!(!d.set(4, router("a")));
        d.gone(4, ItemKey::Router("a".into()));
        assert_eq!(d.network_view().routers.len(), 1);
        d.gone(6, ItemKey::Router("a".into()));
        assert!(d.network_view().routers.is_empty());
        assert!(!d.set(5, router("a")), "an old intent does not bring it back");
    }

    #[test]
    fn in_a_new_incarnation_revisions_count_anew_and_old_orders_are_void() {
        let mut d = Desired::default();
        d.begin("one");
        d.set(900, router("a"));
        d.set(900, router("b"));
        d.synced();
        d.gone(901, ItemKey::Router("b".into()));
        d.begin("two");
        assert!(
            d.set(5, router("a")),
            "5 of this incarnation is not older than 900 of the one before"
        );
        d.synced();
        assert!(
            d.network_view().gone.is_empty(),
            "nobody has ordered that in this incarnation"
        );
        // The same incarnation again, after a broken connection.
        d.begin("two");
        assert!(!d.set(4, router("a")));
    }

    #[test]
    fn a_new_full_set_forgets_what_it_lacks_and_orders_no_removal() {
        let mut d = Desired::default();
        d.begin("");
        d.set(1, router("a"));
        d.set(1, router("b"));
        d.synced();
        d.begin("");
        d.set(2, router("a"));
        d.synced();
        assert!(!d.knows(&ItemKey::Router("b".into())));
        assert!(d.network_view().gone.is_empty());
    }
}
