//! What must always hold of a store, recounted from its objects.

use crate::Kit;
use maru_blob::Blobs;
use maru_compute_model::{KeyPair, Server, ServerGroup, ServerId, VmState, quota, quota_of};
use maru_control::Flow;
use maru_image_model::{Image, usage};
use maru_network_model::{
    FloatingIp, Network, NetworkId, Port, PortId, RbacPolicy, Router, SecurityGroup, SecurityGroupRule, Subnet,
    SubnetId, SubnetPool, TombstoneNetwork, TombstonePort, address, keys,
};
use maru_placement_model::{Consumer, ConsumerId, usage_key};
use maru_store::{Key, Kind, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// Something that does not hold, in words.
pub type Fault = String;

/// Claims of names (`uniq/<what>/...`) and the kind of object that their value names.
const CLAIMS: &[(&str, &str)] = &[
    ("domain", "project"),
    ("project", "project"),
    ("application-credential", "application-credential"),
    ("registered-limit", "registered-limit"),
    ("limit", "limit"),
    ("identity-provider-remote", "identity-provider"),
    ("user", "user"),
    ("group", "group"),
    ("role", "role"),
    ("aggregate", "aggregate"),
    ("flavor", "flavor"),
    ("compute_service", "compute_service"),
    ("resource_provider", "resource_provider"),
    ("mac", "port"),
    ("floating", "floating_ip"),
    ("forwarding", "port_forwarding"),
    ("qos-default", "qos_policy"),
    ("flat", "network"),
    ("default-external", "network"),
    ("ndp-proxy", "ndp_proxy"),
    ("default-group", "security_group"),
    ("group-rule", "security_group_rule"),
    ("agent", "agent"),
    ("volume_backend", "volume_backend"),
    ("volume_type", "volume_type"),
    ("volume_qos", "volume_qos"),
    ("volume_group_type", "volume_group_type"),
    ("default_subnetpool", "subnet_pool"),
];
/// Claims that outlive what they name.
const LASTING: &[&str] = &["image", "bootstrap-network"];
/// Counters that only ever grow: numbers that are given out.
const SEQUENCES: &[&str] = &["placement-generation", "compute-aggregate-id", "compute-migration-id"];

/// Collects what does not hold.
struct Check<'a> {
    snapshot: &'a Snapshot,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn hold(&mut self, holds: bool, fault: impl FnOnce() -> Fault) {
        if !holds {
            self.faults.push(fault());
        }
    }
    fn has(&self, kind: &str, id: &str) -> bool {
        use maru_compute_model as c;
        use maru_identity_model as i;
        use maru_network_model as n;
        use maru_placement_model as p;
        use maru_volume_model as v;
        fn is<K: Kind>(snapshot: &Snapshot, id: &str) -> bool {
            snapshot.get::<K>(&K::Id::from(id)).is_some()
        }
        let s = self.snapshot;
        match kind {
            "project" => is::<i::Project>(s, id),
            "user" => is::<i::User>(s, id),
            "application-credential" => is::<i::ApplicationCredential>(s, id),
            "registered-limit" => is::<i::RegisteredLimit>(s, id),
            "limit" => is::<i::Limit>(s, id),
            "identity-provider" => is::<i::IdentityProvider>(s, id),
            "group" => is::<i::Group>(s, id),
            "role" => is::<i::Role>(s, id),
            "aggregate" => is::<c::Aggregate>(s, id),
            "flavor" => is::<c::Flavor>(s, id),
            "compute_service" => is::<c::ComputeService>(s, id),
            "resource_provider" => is::<p::ResourceProvider>(s, id),
            "port" => is::<Port>(s, id),
            "floating_ip" => is::<FloatingIp>(s, id),
            "ndp_proxy" => is::<n::NdpProxy>(s, id),
            "qos_policy" => is::<n::QosPolicy>(s, id),
            "port_forwarding" => is::<n::PortForwarding>(s, id),
            "network" => is::<Network>(s, id),
            "security_group" => is::<SecurityGroup>(s, id),
            "security_group_rule" => is::<SecurityGroupRule>(s, id),
            "agent" => is::<n::Agent>(s, id),
            "volume_backend" => is::<v::Backend>(s, id),
            "volume_type" => is::<v::VolumeType>(s, id),
            "volume_qos" => is::<v::Qos>(s, id),
            "volume_group_type" => is::<v::GroupType>(s, id),
            "subnet_pool" => is::<SubnetPool>(s, id),
            _ => false,
        }
    }

    /// Every counter is what a recount gives.
    fn counters(&mut self) {
        let mut want: BTreeMap<Key, i64> = BTreeMap::new();
        let mut add = |key: Key, n: i64| *want.entry(key).or_default() += n;
        let s = self.snapshot;
        let owned = |project: &str| !project.is_empty();
        macro_rules! of_projects {
            ($kind:ty, $resource:literal) => {
                for object in s.list::<$kind>().filter(|o| owned(&o.value.project_id)) {
                    add(keys::quota_counter(&object.value.project_id, $resource), 1);
                }
            };
        }
        of_projects!(Network, "network");
        of_projects!(Subnet, "subnet");
        of_projects!(Port, "port");
        of_projects!(Router, "router");
        of_projects!(FloatingIp, "floatingip");
        of_projects!(SecurityGroup, "security_group");
        of_projects!(SecurityGroupRule, "security_group_rule");
        of_projects!(SubnetPool, "subnetpool");
        of_projects!(RbacPolicy, "rbac_policy");
        for image in s.list::<Image>() {
            add(usage::images_counter(&image.value.owner), 1);
            add(
                usage::bytes_counter(&image.value.owner),
                image.value.held().unwrap_or(0).try_into().unwrap_or(i64::MAX),
            );
        }
        for server in s.list::<Server>() {
            for (resource, n) in quota_of(&server) {
                add(quota::used_key(&server.value.project_id, resource), n);
            }
        }
        for group in s.list::<ServerGroup>() {
            add(quota::used_key(&group.value.project_id, "server_groups"), 1);
        }
        for pair in s.list::<KeyPair>() {
            // Key pairs are a user's, whatever the project.
            let owner = format!("user:{}", pair.value.user_id);
            add(quota::used_key(&owner, "key_pairs"), 1);
        }
        let mut volume_counts: Vec<(maru_base::ProjectId, Vec<(String, i64)>)> = Vec::new();
        for v in s.list::<maru_volume_model::Volume>() {
            let counts = maru_volume_model::quota::of_volume(&v.value.type_id, i64::from(v.value.size));
            volume_counts.push((v.value.project_id.clone(), counts));
        }
        for v in s.list::<maru_volume_model::Snapshot>() {
            let counts = maru_volume_model::quota::of_snapshot(&v.value.type_id, i64::from(v.value.size));
            volume_counts.push((v.value.project_id.clone(), counts));
        }
        for b in s.list::<maru_volume_model::Backup>() {
            let counts = maru_volume_model::quota::of_backup(i64::from(b.value.size));
            volume_counts.push((b.value.project_id.clone(), counts));
        }
        for g in s.list::<maru_volume_model::Group>() {
            volume_counts.push((g.value.project_id.clone(), vec![("groups".to_owned(), 1)]));
        }
        for (project, counts) in volume_counts {
            for (resource, n) in counts {
                add(maru_volume_model::quota::used_key(&project, &resource), n);
            }
        }
        for port in s.list::<Port>() {
            for fixed in &port.value.fixed_ips {
                let subnet = s.get::<Subnet>(&fixed.subnet_id);
                if subnet.is_some_and(|n| address::in_pools(&n.value.pools, fixed.ip_address)) {
                    add(keys::pool_counter(&fixed.subnet_id), 1);
                }
            }
        }
        for consumer in s.list::<Consumer>() {
            for (provider, resources) in &consumer.value.allocations {
                for (class, units) in resources {
                    add(usage_key(provider, class), i64::try_from(*units).unwrap_or(i64::MAX));
                }
            }
        }
        for (key, _) in s.raw_under(&Key::prefix(&["counter"])) {
            let family = key.parts().get(1).cloned().unwrap_or_default();
            if !SEQUENCES.contains(&family.as_str()) {
                want.entry(key).or_default();
            }
        }
        for (key, want) in want {
            let have = s.counter(&key);
            self.hold(have == want, || format!("{key} is {have}, a recount gives {want}"));
        }
    }

    /// Every address has its port, every port its addresses; numbers have their networks.
    fn addresses(&mut self) {
        let s = self.snapshot;
        for (key, owner) in s.raw_under(&Key::prefix(&["alloc"])) {
            let owner = String::from_utf8_lossy(&owner).into_owned();
            let parts = key.parts();
            let holds = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["alloc", "vni" | "zone", _] => {
                    let id = NetworkId::from(owner.as_str());
                    s.get::<Network>(&id).is_some() || s.get::<TombstoneNetwork>(&id).is_some()
                }
                ["alloc", subnet, ip] => s.get::<Port>(&PortId::from(owner.as_str())).is_some_and(|p| {
                    let here = |f: &maru_network_model::FixedIp| {
                        f.subnet_id.as_str() == *subnet && f.ip_address.to_string() == *ip
                    };
                    p.value.fixed_ips.iter().any(here)
                }),
                _ => false,
            };
            self.hold(holds, || format!("{key} is held by {owner}, which does not have it"));
        }
        for port in s.list::<Port>() {
            for fixed in &port.value.fixed_ips {
                let key = keys::address(&fixed.subnet_id, fixed.ip_address);
                let owner = s.raw(&key).map(|(_, v)| String::from_utf8_lossy(&v).into_owned());
                self.hold(owner.as_deref() == Some(&*port.id), || {
                    format!("port {} has {key}, which is held by {owner:?}", port.id)
                });
                self.hold(
                    s.get::<Subnet>(&SubnetId::from(fixed.subnet_id.as_str())).is_some(),
                    || format!("port {} is on subnet {}, which is gone", port.id, fixed.subnet_id),
                );
            }
            self.hold(s.get::<Network>(&port.value.network_id).is_some(), || {
                format!(
                    "port {} is on network {}, which is gone",
                    port.id, port.value.network_id
                )
            });
        }
    }

    /// Every claimed name has its object.
    fn claims(&mut self) {
        let s = self.snapshot;
        for (key, owner) in s.raw_under(&Key::prefix(&["uniq"])) {
            let owner = String::from_utf8_lossy(&owner).into_owned();
            let what = key.parts().get(1).cloned().unwrap_or_default();
            if LASTING.contains(&what.as_str()) {
                continue;
            }
            let Some((_, kind)) = CLAIMS.iter().find(|(claim, _)| *claim == what) else {
                self.faults
                    .push(format!("{key}: the kit does not know what claims '{what}'"));
                continue;
            };
            let lives = self.has(kind, &owner);
            self.hold(lives, || format!("{key} is claimed by {kind} {owner}, which is gone"));
        }
    }

    /// Servers, their allocations and their ports agree.
    fn servers(&mut self) {
        let s = self.snapshot;
        for consumer in s.list::<Consumer>() {
            let server = s.get::<Server>(&ServerId::from(consumer.id.as_str()));
            self.hold(server.is_some(), || {
                format!(
                    "consumer {} holds {:?} and has no server",
                    consumer.id, consumer.value.allocations
                )
            });
        }
        for (key, _) in s.raw_under(&Key::prefix(&["child", "resource_provider"])) {
            let parts = key.parts();
            let held = matches!(parts.as_slice(), [_, _, provider, consumer]
                if s.get::<Consumer>(&ConsumerId::from(consumer.as_str()))
                    .is_some_and(|c| c.value.allocations.keys().any(|p| p.as_str() == provider)));
            self.hold(held, || format!("{key} and no such allocation"));
        }
        for server in s.list::<Server>() {
            let id = &server.id;
            let held = s.get::<Consumer>(&ConsumerId::from(id.as_str()));
            self.hold(held.is_some() == server.value.provider.is_some(), || {
                format!(
                    "server {id} is at provider {:?} and holds {held:?}",
                    server.value.provider
                )
            });
            self.hold(server.value.provider.is_some() == server.value.host.is_some(), || {
                format!(
                    "server {id}: host {:?}, provider {:?}",
                    server.value.host, server.value.provider
                )
            });
            for port in &server.value.ports {
                let found = s.get::<Port>(&PortId::from(port.id.as_str()));
                self.hold(found.is_some_and(|p| p.value.device_id == id.as_str()), || {
                    format!("server {id} lists port {}, which is not its own", port.id)
                });
            }
        }
        for port in s
            .list::<Port>()
            .filter(|p| p.value.device_owner.starts_with("compute:"))
        {
            let device = &port.value.device_id;
            let server = s.get::<Server>(&ServerId::from(device.as_str()));
            let listed = server.is_some_and(|x| x.value.ports.iter().any(|p| p.id == port.id.as_str()));
            self.hold(listed, || {
                format!("port {} is of server {device}, which does not list it", port.id)
            });
        }
        for flow in s.list::<Flow>().filter(|f| f.value.kind == "server-create") {
            let there = s.get::<Server>(&ServerId::from(flow.value.subject.as_str())).is_some();
            // A list whose subject is gone ends at its next look.
            let just = flow.value.attempts == 0;
            self.hold(there || just, || format!("flow {} of a server that is gone", flow.id));
        }
    }

    /// Marks of networks on hosts have their network, or its tombstone.
    fn marks(&mut self) {
        let s = self.snapshot;
        for (key, _) in s.raw_under(&Key::prefix(&["nethost"])) {
            let id = NetworkId::from(key.parts().get(1).cloned().unwrap_or_default());
            let there = s.get::<Network>(&id).is_some() || s.get::<TombstoneNetwork>(&id).is_some();
            self.hold(there, || format!("{key} and no such network"));
        }
        for tomb in s.list::<TombstonePort>() {
            let lives = s.get::<Port>(&tomb.id).is_some();
            self.hold(!lives, || format!("port {} lives and has a tombstone", tomb.id));
        }
    }
}

impl Kit {
    /// What does not hold of the store now; nothing, if all is well.
    pub async fn faults(&self) -> Vec<Fault> {
        let store = self.store();
        let snapshot = store.sync().await.expect("the store answers");
        let mut check = Check {
            snapshot: &snapshot,
            faults: Vec::new(),
        };
        check.counters();
        check.addresses();
        check.claims();
        check.servers();
        check.marks();
        let digest = store.digest().await.expect("the store answers");
        check.hold(digest.agrees(), || {
            format!("the mirror differs from the engine: {:?}", digest.differences)
        });
        check.faults
    }
    /// Everything that must always hold, holds: counters are what a recount gives, each allocation has its server, each
    /// address its port, each claimed name its object, and the mirror is what the engine says.
    pub async fn audit_consistency(&self) {
        let faults = self.faults().await;
        assert!(
            faults.is_empty(),
            "the store is not consistent:\n  {}",
            faults.join("\n  ")
        );
    }
    /// What must hold as well when the cloud is at rest: the nodes have the guests that the store says they have.
    pub async fn audit_rest(&self) {
        self.rest().await;
        self.audit_consistency().await;
        // Before the store is read: whatever is made was told to be made, and what is told afterwards is no fault.
        let bytes: Vec<_> = self
            .nodes()
            .into_iter()
            .map(|(name, node)| (name, node.volumes()))
            .collect();
        let snapshot = self.snapshot();
        let mut faults = self.blob_faults(&snapshot).await;
        for (name, node) in self.nodes() {
            for id in node.guests().keys() {
                let server = snapshot.get::<Server>(&ServerId::from(id.as_str()));
                if server.is_none_or(|s| s.value.host.as_deref() != Some(&name)) {
                    faults.push(format!(
                        "node {name} has guest {id}, which the store does not have there"
                    ));
                }
            }
        }
        for (name, there) in bytes {
            use maru_volume_model as v;
            let volumes = v::volume_intents(&snapshot, &name)
                .into_iter()
                .filter(|i| i.wanted.is_some())
                .map(|i| i.id);
            let snapshots = v::snapshot_intents(&snapshot, &name)
                .into_iter()
                .filter(|i| i.wanted)
                .map(|i| i.id);
            let told: std::collections::BTreeSet<String> = volumes.chain(snapshots).collect();
            for id in there.difference(&told) {
                faults.push(format!(
                    "node {name} has bytes of {id}, which nothing in the store is of"
                ));
            }
        }
        let guests = |host: &str, id: &str| {
            let nodes = self.nodes();
            nodes.get(host).is_some_and(|n| n.guests().contains_key(id))
        };
        for server in snapshot
            .list::<Server>()
            .filter(|s| s.value.vm_state == VmState::Active)
        {
            let host = server.value.host.clone().unwrap_or_default();
            if !guests(&host, &server.id) {
                faults.push(format!(
                    "server {} is ACTIVE on {host}, which does not have it",
                    server.id
                ));
            }
        }
        assert!(
            faults.is_empty(),
            "the nodes or blobs differ from the store:\n  {}",
            faults.join("\n  ")
        );
    }
    /// Every image with data has its blob, and every blob its image.
    async fn blob_faults(&self, snapshot: &Snapshot) -> Vec<Fault> {
        let there: BTreeSet<String> = self
            .blobs()
            .list()
            .await
            .expect("the blobs' list")
            .into_iter()
            .collect();
        let named: BTreeSet<String> = snapshot
            .list::<Image>()
            .filter_map(|i| i.value.digest.clone())
            .collect();
        let lost = named
            .difference(&there)
            .map(|d| format!("blob {d} is named by an image and is not there"));
        let loose = there
            .difference(&named)
            .map(|d| format!("blob {d} is there and no image names it"));
        lost.chain(loose).collect()
    }
    /// A digest of all keys of the store: equal before and after what must change nothing.
    pub async fn keys(&self) -> Vec<String> {
        let store = self.store();
        let (_, entries) = store
            .engine()
            .range(&Key::from_raw(""), None, usize::MAX)
            .await
            .expect("the store answers");
        // A refused request may have been planned and lost; its id is the engine's own.
        entries
            .into_iter()
            .map(|e| e.key.as_str().to_owned())
            .filter(|k| !k.starts_with("txn/"))
            .collect()
    }
}
