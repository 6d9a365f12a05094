//! What a new cloud begins with: small flavors, under the names and ids that DevStack made usual.

use maru_base::Result;
use maru_compute_model::{Flavor, FlavorId, plan_create_flavor};
use maru_store::{Snapshot, Store, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// id, name, processors, memory in MiB, root disk in GiB.
const FLAVORS: &[(&str, &str, u32, u64, u64)] = &[
    ("42", "m1.nano", 1, 128, 1),
    ("84", "m1.micro", 1, 192, 1),
    ("1", "m1.tiny", 1, 512, 1),
    ("2", "m1.small", 1, 2_048, 20),
];

/// Makes the first flavors, once in the life of a store: one that an operator deletes does not come back.
///
/// # Errors
/// When the store cannot be written.
pub async fn bootstrap(store: &Store) -> Result<()> {
    let mark = maru_store::Key::of(&["bootstrap", "compute-flavors"]);
    store
        .plan(|snapshot: &Snapshot| {
            let mut txn = Txn::new();
            if snapshot.raw(&mark).is_some() {
                return Ok((txn, ()));
            }
            txn.allocate(mark.clone(), "1");
            for (id, name, vcpus, memory_mb, root_gb) in FLAVORS {
                let flavor = Flavor {
                    name: (*name).to_owned(),
                    description: None,
                    vcpus: *vcpus,
                    memory_mb: *memory_mb,
                    root_gb: *root_gb,
                    ephemeral_gb: 0,
                    swap_mb: 0,
                    rxtx_factor: 1.0,
                    is_public: true,
                    extra_specs: BTreeMap::new(),
                    access: BTreeSet::new(),
                    created: maru_base::time::now(),
                };
                plan_create_flavor(snapshot, &mut txn, &FlavorId::from(*id), &flavor)?;
            }
            Ok((txn, ()))
        })
        .await
}
