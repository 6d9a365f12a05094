//! Backends: the storage of each node, Cinder's `cinder-volume` service and pool.

use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a backend, a UUID.
    BackendId
);

/// The storage of a node. Only transitions are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The node.
    pub host: String,
    /// Room in GiB.
    pub capacity_gb: u64,
    /// Availability zone.
    pub zone: String,
    /// Whether the node is connected.
    pub up: bool,
    /// When that last changed.
    pub seen: jiff::Timestamp,
    /// Whether an operator took it out of scheduling.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Whether an operator froze it: no volume is made or removed.
    pub frozen: bool,
}

impl Kind for Backend {
    type Id = BackendId;
    const NAME: &'static str = "volume_backend";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |b| vec![b.host.clone()],
        }]
    }
}

impl Backend {
    /// Name of its one pool as clients write it: `node@local#local`.
    #[must_use]
    pub fn pool(&self) -> String {
        pool_of(&self.host)
    }
}

/// Name of a node's pool.
#[must_use]
pub fn pool_of(host: &str) -> String {
    format!("{host}@local#local")
}

/// The backend of a node.
#[must_use]
pub fn find_backend(snapshot: &Snapshot, host: &str) -> Option<Object<Backend>> {
    snapshot.find::<Backend>("host", host).next()
}

/// GiB that volumes and snapshots of a node were given: its one disk holds them beside the disks of its servers, which placement
/// counts (docs/adr/0005).
#[must_use]
pub fn given_gb(snapshot: &Snapshot, host: &str) -> u64 {
    let volumes = snapshot
        .find::<crate::Volume>("host", host)
        .map(|v| u64::from(v.value.size));
    let snapshots = snapshot
        .find::<crate::Snapshot>("host", host)
        .map(|s| u64::from(s.value.size));
    volumes.chain(snapshots).sum()
}

/// Plans that a node is there with its storage, connected or not; nothing is written when nothing changes.
pub fn plan_upsert_backend(
    snapshot: &Snapshot,
    txn: &mut Txn,
    host: &str,
    capacity_gb: Option<u64>,
    up: bool,
    zone: &str,
) {
    let now = maru_base::time::now();
    match find_backend(snapshot, host) {
        Some(old) => {
            let mut new = (*old.value).clone();
            new.up = up;
            zone.clone_into(&mut new.zone);
            if let Some(gb) = capacity_gb {
                new.capacity_gb = gb;
            }
            if new != *old.value {
                new.seen = now;
                txn.update(&old, &new);
            }
        }
        None => {
            let id = BackendId::new_uuid();
            if snapshot.owner(Backend::NAME, "", host).is_some() {
                return;
            }
            txn.claim(Backend::NAME, "", host, &id);
            txn.create(
                &id,
                &Backend {
                    host: host.to_owned(),
                    capacity_gb: capacity_gb.unwrap_or(0),
                    zone: zone.to_owned(),
                    up,
                    seen: now,
                    disabled: false,
                    disabled_reason: None,
                    frozen: false,
                },
            );
        }
    }
}
