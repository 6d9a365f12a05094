//! Compute services: one for each node, with what its hypervisor offers.

use maru_base::Result;
use maru_placement_model::{Inventory, ProviderFacts, ProviderId, plan_upsert_provider};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

maru_base::typed_id!(
    /// Id of a compute service, a UUID.
    ServiceId
);

/// How often each processor may be given away, initially; upstream's default.
const CPU_RATIO: f64 = 4.0;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// `QEMU`.
    pub hypervisor_type: String,
    /// major * 1,000,000 + minor * 1,000 + micro.
    pub hypervisor_version: u64,
    /// How guests run and why.
    pub accelerator: String,
    /// Processor description.
    pub cpu_model: String,
    /// `x86_64`.
    pub arch: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Room for disks in GiB.
    pub disk_gib: u64,
    /// Address other nodes reach it at.
    pub address: String,
}

/// The compute service of a node (Nova's `nova-compute`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeService {
    /// The node's name.
    pub host: String,
    /// What it offers.
    pub facts: NodeFacts,
    /// Its provider in placement; also the id of its hypervisor (2.53).
    pub provider: ProviderId,
    /// Whether it is connected; only changes are written.
    pub up: bool,
    /// When `up` last changed or the node last connected.
    pub seen: jiff::Timestamp,
    /// Whether an operator took it out of scheduling.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Whether an operator declared it down.
    pub forced_down: bool,
}

impl Kind for ComputeService {
    type Id = ServiceId;
    const NAME: &'static str = "compute_service";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "host",
            values: |s| vec![s.host.clone()],
        }]
    }
}

impl ComputeService {
    /// Whether it counts as up.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.up && !self.forced_down
    }
}

/// The compute service of a node.
#[must_use]
pub fn find_service(snapshot: &Snapshot, host: &str) -> Option<Object<ComputeService>> {
    snapshot.find::<ComputeService>("host", host).next()
}

/// Makes or updates the compute service of a node alone.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_upsert_service(
    snapshot: &Snapshot,
    txn: &mut Txn,
    facts: &NodeFacts,
    provider: &ProviderId,
    up: bool,
) -> Result<()> {
    let now = maru_base::time::now();
    match find_service(snapshot, &facts.name) {
        None => {
            let id = ServiceId::new_uuid();
            txn.claim(ComputeService::NAME, "", &facts.name, &id);
            txn.create(
                &id,
                &ComputeService {
                    host: facts.name.clone(),
                    facts: facts.clone(),
                    provider: provider.clone(),
                    up,
                    seen: now,
                    disabled: false,
                    disabled_reason: None,
                    forced_down: false,
                },
            );
        }
        Some(old) => {
            let mut new = (*old.value).clone();
            new.facts = facts.clone();
            new.provider = provider.clone();
            new.up = up;
            if new != *old.value {
                new.seen = now;
                txn.update(&old, &new);
            }
        }
    }
    Ok(())
}

/// A node has connected: its service is up, its provider has its inventory.
///
/// # Errors
/// What the planners refuse.
pub fn plan_node_up(snapshot: &Snapshot, txn: &mut Txn, facts: &NodeFacts) -> Result<()> {
    let inventories: BTreeMap<String, Inventory> = [
        ("VCPU", u64::from(facts.vcpus), CPU_RATIO),
        ("MEMORY_MB", facts.memory_mib, 1.0),
        ("DISK_GB", facts.disk_gib, 1.0),
    ]
    .into_iter()
    .filter(|(_, total, _)| *total > 0)
    .map(|(class, total, ratio)| (class.to_owned(), Inventory::of(total, ratio)))
    .collect();
    let mut traits: BTreeSet<String> = [
        "COMPUTE_NODE",
        "COMPUTE_DEVICE_TAGGING",
        "COMPUTE_IMAGE_TYPE_QCOW2",
        "COMPUTE_IMAGE_TYPE_RAW",
        "COMPUTE_NET_VIF_MODEL_VIRTIO",
        "COMPUTE_STORAGE_BUS_VIRTIO",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    match facts.arch.as_str() {
        "x86_64" => {
            traits.extend(["HW_ARCH_X86_64".to_owned(), "COMPUTE_ARCH_X86_64".to_owned()]);
        }
        "aarch64" => {
            traits.extend(["HW_ARCH_AARCH64".to_owned(), "COMPUTE_ARCH_AARCH64".to_owned()]);
        }
        _ => {}
    }
    let id = ProviderId::new_uuid();
    let provider = plan_upsert_provider(
        snapshot,
        txn,
        &ProviderFacts {
            name: facts.name.clone(),
            id,
            inventories,
            traits,
        },
    )?;
    plan_upsert_service(snapshot, txn, facts, &provider, true)
}

/// A node is no longer connected.
///
/// # Errors
/// None today; a `Result` like every planner.
pub fn plan_node_down(snapshot: &Snapshot, txn: &mut Txn, name: &str) -> Result<()> {
    if let Some(old) = find_service(snapshot, name)
        && old.up
    {
        let mut new = (*old.value).clone();
        new.up = false;
        new.seen = maru_base::time::now();
        txn.update(&old, &new);
    }
    Ok(())
}
