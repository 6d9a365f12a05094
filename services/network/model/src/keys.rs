//! Raw keys of the network service and what transactions ask of them.

use maru_store::{Guard, Key, Kind, Op, Snapshot, Txn};
use std::net::IpAddr;

/// The key that an address in use has: `alloc/<subnet>/<ip>`.
#[must_use]
pub fn address(subnet: &str, ip: IpAddr) -> Key {
    Key::of(&["alloc", subnet, &ip.to_string()])
}
/// All addresses in use of a subnet.
#[must_use]
pub fn addresses(subnet: &str) -> Key {
    Key::prefix(&["alloc", subnet])
}
/// How many addresses of a subnet's pools are in use.
#[must_use]
pub fn pool_counter(subnet: &str) -> Key {
    Key::of(&["counter", "pool", subnet])
}
/// How much of a quota is used.
#[must_use]
pub fn quota_counter(project: &str, resource: &str) -> Key {
    Key::of(&["counter", "quota", project, resource])
}
/// `alloc/vni/<n>` and `alloc/zone/<n>`.
#[must_use]
pub fn number(family: &str, n: u64) -> Key {
    Key::of(&["alloc", family, &n.to_string()])
}
/// Says that a network is, or was and has not been reported removed, on a host.
#[must_use]
pub fn network_host(network: &str, host: &str) -> Key {
    Key::of(&["nethost", network, host])
}
/// All hosts of a network.
#[must_use]
pub fn network_hosts(network: &str) -> Key {
    Key::prefix(&["nethost", network])
}
/// The key of an object.
#[must_use]
pub fn object_key<K: Kind>(id: &K::Id) -> Key {
    Key::of(&[K::NAME, id.as_ref()])
}
/// The key of an epoch.
#[must_use]
pub fn epoch(set: &str) -> Key {
    Key::of(&["epoch", set])
}
/// The key of a claimed name.
#[must_use]
pub fn claim(kind: &str, scope: &str, name: &str) -> Key {
    Key::of(&["uniq", kind, scope, name])
}

/// Adds a guard unless it is there.
pub fn guard(txn: &mut Txn, guard: Guard) {
    if !txn.guards().contains(&guard) {
        txn.guard(guard);
    }
}
/// Guards that an object lives; one that this transaction creates does.
pub fn alive<K: Kind>(txn: &mut Txn, id: &K::Id) {
    let key = object_key::<K>(id);
    if !written(txn, &key) {
        guard(txn, Guard::Present(key));
    }
}
/// Guards that nobody writes an epoch meanwhile.
pub fn watch_epoch(snapshot: &Snapshot, txn: &mut Txn, set: &str) {
    let key = epoch(set);
    let at = match snapshot.raw(&key) {
        Some((revision, _)) => Guard::At(key, revision),
        None => Guard::Absent(key),
    };
    guard(txn, at);
}
/// Guards and writes an epoch: of all who do so, one at a time.
pub fn hold_epoch(snapshot: &Snapshot, txn: &mut Txn, set: &str) {
    watch_epoch(snapshot, txn, set);
    txn.bump_epoch(set);
}
/// Whether a transaction puts this key.
#[must_use]
pub fn written(txn: &Txn, key: &Key) -> bool {
    txn.ops().iter().any(|op| matches!(op, Op::Put(k, _) if k == key))
}
/// Whether a transaction touches this key in any way.
#[must_use]
pub fn touched(txn: &Txn, key: &Key) -> bool {
    txn.ops().iter().any(|op| op.key() == key)
}
/// What a transaction adds to a counter so far.
#[must_use]
pub fn pending_delta(txn: &Txn, counter: &Key) -> i64 {
    txn.ops()
        .iter()
        .find_map(|op| match op {
            Op::Add { key, delta, .. } if key == counter => Some(*delta),
            _ => None,
        })
        .unwrap_or(0)
}
/// The text that a transaction puts under a raw key.
#[must_use]
pub fn pending_text(txn: &Txn, key: &Key) -> Option<String> {
    txn.ops().iter().find_map(|op| match op {
        Op::Put(k, value) if k == key => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    })
}
/// Objects of a kind that a transaction writes, with their ids.
#[must_use]
pub fn pending<K: Kind>(txn: &Txn) -> Vec<(K::Id, K)> {
    /// The stored envelope as core/store writes it.
    #[derive(serde::Deserialize)]
    struct Envelope<V> {
        d: V,
    }
    let under = Key::prefix(&[K::NAME]);
    txn.ops()
        .iter()
        .filter_map(|op| match op {
            Op::Put(key, value) if key.under(&under) => {
                let envelope: Envelope<K> = serde_json::from_slice(value).ok()?;
                let id = key.parts().pop()?;
                Some((K::Id::from(id.as_str()), envelope.d))
            }
            _ => None,
        })
        .collect()
}
/// An object as it will be after this transaction: pending, or else of the snapshot.
#[must_use]
pub fn look<K: Kind>(snapshot: &Snapshot, txn: &Txn, id: &K::Id) -> Option<K> {
    if written(txn, &object_key::<K>(id)) {
        return pending::<K>(txn)
            .into_iter()
            .find(|(i, _)| i.as_ref() == id.as_ref())
            .map(|(_, v)| v);
    }
    snapshot.get::<K>(id).map(|o| (*o.value).clone())
}

/// Removes a key for good: what the transaction would write there so far is left out.
pub fn bury(txn: &mut Txn, key: Key) {
    if touched(txn, &key) {
        let mut rest = Txn::new();
        for guard in txn.guards() {
            rest.guard(guard.clone());
        }
        for op in txn.ops().iter().filter(|op| *op.key() != key) {
            rest.op(op.clone());
        }
        *txn = rest;
    }
    txn.op(Op::Delete(key));
}
