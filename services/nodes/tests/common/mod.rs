//! A hub over a store in memory, and objects to fill it with.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use maru_agent_api::{
    ControlPlane, Delivery, NodeName, Session,
    lane::{ByteStream, Duplex, Lanes},
    observed::Hello,
    slice::{Item, ItemKey},
};
use maru_base::{Error, Result};
use maru_blob::DirBlobs;
use maru_compute_model as compute;
use maru_network_model as network;
use maru_nodes::Hub;
use maru_store::{
    Key, Registry, Revision, Store, Txn,
    engine::{Commit, Engine, Entry, Mem, Outcome, Request, Sink},
    record::MemRecords,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct World {
    pub store: Store,
    pub hub: Arc<Hub>,
    pub records: Arc<MemRecords>,
    _folder: tempfile::TempDir,
}

pub fn registry() -> Registry {
    let mut registry = Registry::new();
    maru_placement_model::register(&mut registry);
    network::register(&mut registry);
    compute::register(&mut registry);
    registry
}

pub async fn world() -> World {
    over(Store::in_memory(registry())).await
}

/// A world whose commits let others go first, at random: what is sent at once meets.
pub async fn racing() -> World {
    let engine = Arc::new(Hesitant(Mem::new()));
    over(Store::open(engine, registry()).await.unwrap()).await
}

struct Hesitant(Mem);

#[async_trait::async_trait]
impl Engine for Hesitant {
    async fn commit(&self, request: Request) -> Outcome {
        for _ in 0..1 + maru_base::random::below(8) {
            tokio::task::yield_now().await;
        }
        self.0.commit(request).await
    }
    async fn resolve(&self, id: u128) -> std::result::Result<Option<Revision>, String> {
        self.0.resolve(id).await
    }
    async fn range(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> std::result::Result<(Revision, Vec<Entry>), String> {
        self.0.range(prefix, after, limit).await
    }
    async fn watch(&self, from: Revision) -> std::result::Result<mpsc::Receiver<Arc<Commit>>, String> {
        self.0.watch(from).await
    }
    async fn revision(&self) -> std::result::Result<Revision, String> {
        self.0.revision().await
    }
    async fn compact(&self, revision: Revision) -> std::result::Result<(), String> {
        self.0.compact(revision).await
    }
    fn attach(&self, from: Revision, sink: Sink) -> std::result::Result<(), Sink> {
        self.0.attach(from, sink)
    }
    fn name(&self) -> &'static str {
        "hesitant"
    }
}

pub async fn over(store: Store) -> World {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Arc::new(DirBlobs::open(folder.path(), "test").await.unwrap());
    let records = Arc::new(MemRecords::new());
    let hub = Hub::new(store.clone(), vec![blobs], records.clone());
    World {
        store,
        hub,
        records,
        _folder: folder,
    }
}

pub fn hello(node: &str, session: u64) -> Hello {
    Hello {
        node: NodeName::from(node),
        session,
        version: "0".to_owned(),
        hypervisor_type: "QEMU".to_owned(),
        hypervisor_version: 7_002_000,
        accelerator: "tcg: a test".to_owned(),
        storage: String::new(),
        cpu_model: "none".to_owned(),
        arch: "x86_64".to_owned(),
        vcpus: 8,
        memory_mib: 16_384,
        disk_gib: 100,
        address: "192.0.2.1".to_owned(),
    }
}

impl World {
    /// Writes in one transaction.
    pub async fn write(&self, change: impl Fn(&mut Txn)) {
        self.store
            .plan(|_| {
                let mut txn = Txn::new();
                change(&mut txn);
                Ok((txn, ()))
            })
            .await
            .unwrap();
    }
    pub async fn connect(&self, node: &str, session: u64) -> (Session, Agent) {
        let (session, stream) = self.hub.connect(hello(node, session)).await.unwrap();
        (session, Agent::new(stream))
    }
    pub fn service(&self, node: &str) -> compute::ComputeService {
        (*compute::find_service(&self.store.snapshot(), node).unwrap().value).clone()
    }
}

/// What an agent has heard.
pub struct Agent {
    pub stream: mpsc::Receiver<Delivery>,
    pub items: BTreeMap<ItemKey, Item>,
    pub gone: BTreeSet<ItemKey>,
    pub synced: u32,
    pub heard: usize,
    newest: u64,
}

impl Agent {
    pub fn new(stream: mpsc::Receiver<Delivery>) -> Self {
        Self {
            stream,
            items: BTreeMap::new(),
            gone: BTreeSet::new(),
            synced: 0,
            heard: 0,
            newest: 0,
        }
    }
    /// Takes one delivery; nothing is set twice to the same, and revisions never go back.
    pub fn take(&mut self, delivery: Delivery) {
        self.heard += 1;
        let (Delivery::Set(at, _) | Delivery::Gone(at, _) | Delivery::Synced(at)) = &delivery;
        assert!(*at >= self.newest, "{at} after {}", self.newest);
        self.newest = *at;
        match delivery {
            Delivery::Set(_, item) => {
                let key = item.key();
                self.gone.remove(&key);
                let before = self.items.insert(key.clone(), (*item).clone());
                assert_ne!(before, Some(*item), "{key:?} was told before");
            }
            Delivery::Gone(_, key) => {
                self.items.remove(&key);
                self.gone.insert(key);
            }
            Delivery::Synced(_) => self.synced += 1,
        }
    }
    /// Listens until something holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.within(DEADLINE, what, holds).await;
    }
    /// Listens until something holds, with no longer pause than this.
    pub async fn within(&mut self, patience: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let next = tokio::time::timeout(patience, self.stream.recv()).await;
            match next {
                Ok(Some(delivery)) => self.take(delivery),
                Ok(None) => panic!("the stream ended before {what}"),
                Err(_) => panic!("{what} did not happen"),
            }
        }
    }
    pub async fn synced(&mut self) {
        self.until("the full set", |a| a.synced > 0).await;
    }
    /// Hears everything that was written before: a server of the node is changed twice, and the second change comes
    /// after all that came with the first.
    pub async fn catch_up(&mut self, world: &World, node: &str) {
        for _ in 0..2 {
            let mark = maru_base::random::hex32();
            let sentinel = server(&mark, Some(node), true, &[]);
            world
                .write(|txn| {
                    txn.put(&compute::ServerId::from("sentinel"), &sentinel);
                })
                .await;
            let key = ItemKey::Server("sentinel".to_owned());
            self.until(
                "the sentinel",
                |a| matches!(a.items.get(&key), Some(Item::Server(s)) if s.name == mark),
            )
            .await;
        }
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

const THEN: &str = "2026-01-01T00:00:00Z";

pub fn meta() -> network::Meta {
    from(json!({"description": "", "tags": [], "created_at": THEN, "updated_at": THEN, "revision_number": 0}))
}

/// A small active server; what differs is set below.
const SERVER: &str = r#"{
    "name": "", "hostname": "host", "description": null, "project_id": "p", "user_id": "u",
    "flavor": {"id": "1", "name": "small", "vcpus": 1, "memory_mb": 64, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
        "extra_specs": {}},
    "image": {"id": "i", "digest": "d1", "format": "qcow2", "properties": {}},
    "block_devices": [], "key": null, "metadata": {}, "tags": [], "user_data": null, "files": [],
    "config_drive": false, "auto_disk_config": false, "admin_pass": null, "access_ipv4": null, "access_ipv6": null,
    "zone": null, "wanted_host": null, "group": null, "hints": {}, "networks": "none", "security_groups": [],
    "ports": [], "host": null, "provider": null, "placed": false, "vm_state": "active", "task": null,
    "power": "running", "reboot": {"count": 0, "hard": false}, "rebuild": 0, "asked_after": 0, "request_id": "req-1",
    "launch_index": 0, "reservation_id": "r-1", "lock": null, "fault": null, "trusted_certs": null,
    "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "launched_at": null
}"#;

pub fn server(name: &str, host: Option<&str>, placed: bool, ports: &[String]) -> compute::Server {
    let mut server: compute::Server = serde_json::from_str(SERVER).unwrap();
    name.clone_into(&mut server.name);
    server.host = host.map(str::to_owned);
    server.placed = placed;
    server.ports = ports
        .iter()
        .map(|id| compute::ServerPort {
            id: id.clone(),
            ours: true,
            tag: None,
        })
        .collect();
    server
}

pub fn net(mtu: u32) -> network::Network {
    network::Network {
        project_id: "p".into(),
        name: String::new(),
        admin_state_up: true,
        shared: false,
        external: false,
        is_default: false,
        mtu,
        vni: 7,
        zone: 7,
        port_security_enabled: true,
        dns_domain: String::new(),
        network_type: "vxlan".to_owned(),
        physical_network: None,
        availability_zone_hints: Vec::new(),
        shared_with: Vec::new(),
        dhcp_on: Vec::new(),
        dhcp_off: Vec::new(),
        qos_policy_id: None,
        meta: meta(),
    }
}

pub fn port(net: &str, host: &str, device: &str, owner: &str, groups: &[String], ip: u8) -> network::Port {
    network::Port {
        project_id: "p".into(),
        network_id: net.into(),
        name: String::new(),
        mac_address: format!("fa:16:3e:00:00:{ip:02x}"),
        fixed_ips: vec![network::FixedIp {
            subnet_id: "s".into(),
            ip_address: std::net::Ipv4Addr::new(10, 0, 0, ip).into(),
        }],
        device_id: device.to_owned(),
        device_owner: owner.to_owned(),
        admin_state_up: true,
        security_groups: groups.iter().map(Into::into).collect(),
        port_security_enabled: true,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        host: host.to_owned(),
        vnic_type: "normal".to_owned(),
        profile: BTreeMap::new(),
        dns_name: String::new(),
        qos_policy_id: None,
        meta: meta(),
    }
}

/// Lanes that only remember what they were asked to discard, and pull what they are told to pull by the session of a hub.
#[derive(Default)]
pub struct Discards(pub Mutex<Vec<String>>, pub Mutex<Option<(Arc<Hub>, Session)>>);

fn no_lane<T>() -> Result<T> {
    Err(Error::not_implemented("this node has no such lane"))
}

#[async_trait::async_trait]
impl Lanes for Discards {
    async fn console_log(&self, _: &str, _: Option<usize>) -> Result<Vec<u8>> {
        no_lane()
    }
    async fn vnc(&self, _: &str) -> Result<Box<dyn Duplex>> {
        no_lane()
    }
    async fn serial(&self, _: &str) -> Result<Box<dyn Duplex>> {
        no_lane()
    }
    async fn disk_image(&self, _: &str) -> Result<ByteStream> {
        no_lane()
    }
    async fn volume_bytes(&self, _: &str, _: &str) -> Result<ByteStream> {
        no_lane()
    }
    async fn diagnostics(&self, _: &str) -> Result<Value> {
        no_lane()
    }
    async fn inject_nmi(&self, _: &str) -> Result<()> {
        no_lane()
    }
    async fn cache_image(&self, digest: &str, _: &str) -> Result<()> {
        let by = self.1.lock().unwrap().clone();
        let Some((hub, session)) = by else { return no_lane() };
        hub.pull(&session, digest).await.map(drop)
    }
    async fn origin(&self, _: &str) -> Result<String> {
        Ok(String::new())
    }
    async fn discard(&self, what: &str, id: &str) -> Result<()> {
        self.0.lock().unwrap().push(format!("{what} {id}"));
        Ok(())
    }
}
