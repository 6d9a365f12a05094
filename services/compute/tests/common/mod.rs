//! Compute and network services in memory behind a real gateway, and simulated nodes that do what they are told.
//! A token is `<project>:<role>` or `<project>:<role>:<user>`; roles are `admin`, `member`, `reader`, `none`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{Caller, NoAudit, Policy, Scope, TokenVerifier};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_compute::{App, Consoles, reconcilers, service};
use maru_compute_model as m;
use maru_control::Reconciler;
use maru_http::Gateway;
use maru_image_model::{Image, ImageId, ImageStatus, Visibility};
use maru_store::{Registry, Snapshot, Store, Txn};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub struct Tokens;

#[async_trait::async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let parts: Vec<&str> = token.split(':').collect();
        let [project, role, rest @ ..] = parts.as_slice() else {
            return Err(Error::unauthorized("bad token"));
        };
        let roles: &[&str] = match *role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            _ => &[],
        };
        let user = rest
            .first()
            .map_or_else(|| format!("user-of-{project}"), |u| (*u).to_owned());
        Ok(Arc::new(Caller {
            user_id: UserId::from(user),
            user_name: (*project).to_owned(),
            user_domain_id: DomainId::from("default"),
            scope: Scope::Project(ProjectId::from(*project)),
            project_domain_id: Some(DomainId::from("default")),
            project_name: Some((*project).to_owned()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            methods: vec!["password".to_owned()],
            audit_ids: vec![],
            expires_at: maru_base::time::now() + jiff::SignedDuration::from_hours(1),
        }))
    }
}

/// What guests posted as their passwords, by server.
pub type Passwords = Arc<std::sync::Mutex<std::collections::BTreeMap<String, Vec<u8>>>>;

/// What nodes were told to pull: host and digest.
pub type Cached = Arc<std::sync::Mutex<Vec<(String, String)>>>;

/// The nodes' lanes: a log, a disk, the passwords, and the images.
struct Lanes(Store, Passwords, Cached);

#[async_trait::async_trait]
impl Consoles for Lanes {
    async fn log(&self, host: &str, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        let all: Vec<String> = (1..=20)
            .map(|n| format!("{n} of {server} on {host}\x07\u{1b}[0m"))
            .collect();
        let from = all.len() - lines.unwrap_or(all.len()).min(all.len());
        Ok([all[from..].join("\n").as_bytes(), b"\n\xff<script>\n"].concat())
    }
    /// A server whose name begins with `broken` has a disk that cannot be read.
    async fn upload_disk(&self, _host: &str, server: &str, image: &str) -> Result<()> {
        self.0
            .plan(|snapshot| {
                let server = snapshot.get::<m::Server>(&server.into()).unwrap();
                if server.name.starts_with("broken") {
                    return Err(Error::bad_request("its disk cannot be read"));
                }
                let mut txn = Txn::new();
                let queued = snapshot
                    .get::<Image>(&image.into())
                    .ok_or_else(|| Error::not_found("the image is gone"))?;
                let mut new = (*queued.value).clone();
                new.status = ImageStatus::Active;
                new.size = Some(1 << 20);
                new.digest = Some("d".repeat(128));
                new.proven_format = Some("qcow2".to_owned());
                maru_image_model::usage::plan_hold(&mut txn, &new.owner, 1 << 20, None);
                txn.update(&queued, &new);
                Ok((txn, ()))
            })
            .await
    }
    async fn inject_nmi(&self, _host: &str, _server: &str) -> Result<()> {
        Ok(())
    }
    async fn password(&self, _host: &str, server: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.1.lock().unwrap().get(server).cloned())
    }
    /// The host `alpha` is away.
    async fn cache_image(&self, host: &str, digest: &str, _format: &str) -> Result<()> {
        self.2.lock().unwrap().push((host.to_owned(), digest.to_owned()));
        if host == "alpha" {
            return Err(Error::unavailable("alpha is away"));
        }
        Ok(())
    }
    async fn clear_password(&self, _host: &str, server: &str) -> Result<()> {
        self.1.lock().unwrap().remove(server);
        Ok(())
    }
    async fn diagnostics(&self, _host: &str, _server: &str) -> Result<Value> {
        Ok(json!({"driver": "libvirt"}))
    }
}

pub struct Cloud {
    pub store: Store,
    pub app: Arc<App>,
    pub gateway: Gateway,
    pub controllers: Vec<Arc<dyn Reconciler>>,
    pub passwords: Passwords,
    pub cached: Cached,
}

pub const ADMIN: &str = "ops:admin";
pub const A: &str = "aaa:member";
pub const B: &str = "bbb:member";
pub const READER: &str = "aaa:reader";
/// The newest microversion.
pub const NEW: u16 = 96;
/// An image that everyone may use; private ones of the two projects.
pub const IMAGE: &str = "11111111-1111-4111-8111-111111111111";
pub const IMAGE_A: &str = "11111111-1111-4111-8111-11111111111a";
pub const IMAGE_B: &str = "11111111-1111-4111-8111-11111111111b";
/// An id that nothing has.
pub const NOBODY: &str = "99999999-9999-4999-8999-999999999999";

pub fn image(owner: &str, visibility: Visibility) -> Image {
    let now = maru_base::time::now();
    Image {
        name: Some("cirros".into()),
        owner: owner.into(),
        status: ImageStatus::Active,
        visibility,
        hidden: false,
        protected: false,
        disk_format: Some("qcow2".into()),
        container_format: Some("bare".into()),
        proven_format: Some("qcow2".into()),
        min_disk: 0,
        min_ram: 0,
        size: Some(10 << 20),
        virtual_size: Some(100 << 20),
        checksum: Some("0".repeat(32)),
        digest: Some("0".repeat(128)),
        tags: vec![],
        properties: BTreeMap::new(),
        created_at: now,
        updated_at: now,
        upload: None,
        staged: None,
    }
}

pub fn flavor(name: &str, vcpus: u32, memory_mb: u64, root_gb: u64) -> m::Flavor {
    m::Flavor {
        name: name.into(),
        description: None,
        vcpus,
        memory_mb,
        root_gb,
        ephemeral_gb: 0,
        swap_mb: 0,
        rxtx_factor: 1.0,
        is_public: true,
        extra_specs: BTreeMap::new(),
        access: std::collections::BTreeSet::new(),
        created: maru_base::time::now(),
    }
}

pub fn facts(host: &str, vcpus: u32, memory_mib: u64, disk_gib: u64) -> m::NodeFacts {
    m::NodeFacts {
        name: host.into(),
        hypervisor_type: "QEMU".into(),
        hypervisor_version: 7_002_000,
        accelerator: "tcg".into(),
        cpu_model: "sim".into(),
        arch: "x86_64".into(),
        vcpus,
        memory_mib,
        disk_gib,
        address: "192.0.2.1".into(),
    }
}

pub fn registry() -> Registry {
    let mut registry = Registry::new();
    m::register(&mut registry);
    maru_network_model::register(&mut registry);
    maru_image_model::register(&mut registry);
    maru_placement_model::register(&mut registry);
    registry.register::<maru_control::Flow>();
    registry
}

/// A cloud with one node (16 CPUs, 64 GiB, 1,000 GiB), three images, and flavors `1` (1 CPU, 512 MiB, 1 GiB) and
/// `2` (2 CPUs, 2 GiB, 20 GiB, 10 GiB ephemeral, 64 MiB swap).
pub async fn cloud() -> Cloud {
    let cloud = bare().await;
    cloud.node("node1", 16, 65_536, 1_000).await;
    cloud
}

/// The same without a node.
pub async fn bare() -> Cloud {
    let store = Store::in_memory(registry());
    let passwords = Passwords::default();
    let cached = Cached::default();
    let lanes = Arc::new(Lanes(store.clone(), Arc::clone(&passwords), Arc::clone(&cached)));
    let app = Arc::new(App::new(store.clone(), lanes, None));
    let network = Arc::new(maru_network::App::new(store.clone()));
    let policy = Arc::new(Policy::build(&[maru_compute::POLICY, maru_network::POLICY], None).unwrap());
    let gateway = Gateway::new(
        vec![service(Arc::clone(&app)), maru_network::service(network)],
        Arc::new(Tokens),
        policy,
        Arc::new(NoAudit),
    )
    .unwrap();
    let controllers = reconcilers(Arc::clone(&app));
    let cloud = Cloud {
        store,
        app,
        gateway,
        controllers,
        passwords,
        cached,
    };
    cloud
        .plan(|snapshot, txn| {
            for (id, owner, sight) in [
                (IMAGE, "ops", Visibility::Public),
                (IMAGE_A, "aaa", Visibility::Private),
                (IMAGE_B, "bbb", Visibility::Private),
            ] {
                txn.create(&ImageId::from(id), &image(owner, sight));
            }
            m::plan_create_flavor(snapshot, txn, &"1".into(), &flavor("tiny", 1, 512, 1)).unwrap();
            let mut two = flavor("small", 2, 2_048, 20);
            two.ephemeral_gb = 10;
            two.swap_mb = 64;
            m::plan_create_flavor(snapshot, txn, &"2".into(), &two).unwrap();
        })
        .await;
    cloud
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: http::HeaderMap,
    pub bytes: usize,
}

impl Cloud {
    /// Commits what `f` plans.
    pub async fn plan(&self, f: impl Fn(&Snapshot, &mut Txn)) {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                f(snapshot, &mut txn);
                Ok((txn, ()))
            })
            .await
            .unwrap();
    }
    pub async fn node(&self, host: &str, vcpus: u32, memory_mib: u64, disk_gib: u64) {
        self.plan(|s, txn| m::plan_node_up(s, txn, &facts(host, vcpus, memory_mib, disk_gib)).unwrap())
            .await;
    }
    pub async fn send(&self, token: &str, minor: u16, method: &str, uri: &str, body: Bytes) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://maru{uri}"))
            .header("openstack-api-version", format!("compute 2.{minor}"))
            .header("content-type", "application/json");
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        let response = self.gateway.call(request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Answer {
            status,
            body,
            headers,
            bytes: bytes.len(),
        }
    }
    /// One request to the compute service.
    pub async fn at(&self, minor: u16, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        self.send(token, minor, method, &format!("/compute/v2.1{path}"), bytes)
            .await
    }
    /// The body of the answer, which must have this status, at this microversion.
    pub async fn want_at(&self, minor: u16, status: u16, token: &str, method: &str, path: &str, body: Value) -> Value {
        let answer = self.at(minor, token, method, path, body.clone()).await;
        assert_eq!(
            answer.status, status,
            "{method} {path} 2.{minor} {body}: {}",
            answer.body
        );
        answer.body
    }
    /// The same at the newest microversion.
    pub async fn want(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> Value {
        self.want_at(NEW, status, token, method, path, body).await
    }
    pub async fn get(&self, token: &str, path: &str) -> Value {
        self.want(200, token, "GET", path, Value::Null).await
    }
    pub async fn get_at(&self, minor: u16, token: &str, path: &str) -> Value {
        self.want_at(minor, 200, token, "GET", path, Value::Null).await
    }
    /// The message of a refusal, whose body must have upstream's form.
    pub async fn refused_at(
        &self,
        minor: u16,
        status: u16,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> String {
        let v = self.want_at(minor, status, token, method, path, body).await;
        let (name, inner) = v.as_object().unwrap().iter().next().unwrap();
        let expected = match status {
            400 => "badRequest",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "itemNotFound",
            409 => "conflictingRequest",
            413 => "overLimit",
            501 => "notImplemented",
            _ => name,
        };
        assert_eq!(name, expected);
        assert_eq!(inner["code"], status);
        inner["message"].as_str().unwrap().to_owned()
    }
    pub async fn refused(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> String {
        self.refused_at(NEW, status, token, method, path, body).await
    }
    /// One request to the network service; the created object.
    pub async fn net(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let answer = self
            .send(token, 1, method, &format!("/network/v2.0{path}"), bytes)
            .await;
        assert!(answer.status < 300, "{method} {path} {body}: {}", answer.body);
        match answer.body.as_object() {
            Some(map) if map.len() == 1 => map.values().next().unwrap().clone(),
            _ => answer.body,
        }
    }
    /// A network with a subnet.
    pub async fn network(&self, token: &str, name: &str, cidr: &str) -> String {
        let net = id(&self
            .net(token, "POST", "/networks", json!({"network": {"name": name}}))
            .await);
        let version = if cidr.contains(':') { 6 } else { 4 };
        let mut subnet = json!({"network_id": net, "cidr": cidr, "ip_version": version});
        // Addresses are given at random, from the upper half only: tests ask for those of the lower.
        if let Some(net) = cidr.strip_suffix(".0/24") {
            subnet["allocation_pools"] = json!([{"start": format!("{net}.128"), "end": format!("{net}.254")}]);
        }
        self.net(token, "POST", "/subnets", json!({"subnet": subnet})).await;
        net
    }
    /// Lets the controllers and the nodes work until nothing changes.
    pub async fn settle(&self) {
        loop {
            let before = self.store.snapshot().revision();
            self.control().await;
            self.nodes().await;
            if self.store.snapshot().revision() == before {
                return;
            }
        }
    }
    /// Lets the controllers work as far as they get without the nodes.
    pub async fn control(&self) {
        for controller in &self.controllers {
            for key in controller.all(&self.store.snapshot()) {
                controller.reconcile(&self.store, &key).await.unwrap();
            }
        }
    }
    /// Every node does what it is told and says so.
    pub async fn nodes(&self) {
        let ids: Vec<m::ServerId> = self.store.snapshot().list::<m::Server>().map(|s| s.id).collect();
        for id in ids {
            obey(&self.store, &id).await.unwrap();
        }
    }
    /// What a node reports of a server.
    pub async fn report(&self, id: &str, seen: m::Observation) {
        self.plan(|s, txn| m::plan_observe_server(s, txn, &id.into(), &seen).unwrap())
            .await;
    }
    pub fn server(&self, id: &str) -> Option<m::Server> {
        self.store
            .snapshot()
            .get::<m::Server>(&id.into())
            .map(|s| (*s.value).clone())
    }
    /// A server without networks, running.
    pub async fn boot(&self, token: &str, name: &str) -> String {
        let id = self.create(token, json!({"name": name})).await;
        self.settle().await;
        assert_eq!(self.server(&id).unwrap().status(), "ACTIVE");
        id
    }
    /// Asks for a server; what is not given is filled in.
    pub async fn create(&self, token: &str, fields: Value) -> String {
        let body = wanted(fields);
        id(&self.want(202, token, "POST", "/servers", body).await["server"])
    }
    pub async fn act(&self, status: u16, token: &str, id: &str, body: Value) -> Value {
        self.want(status, token, "POST", &format!("/servers/{id}/action"), body)
            .await
    }
    pub async fn quota(&self, project: &str, limits: Value) {
        let path = format!("/os-quota-sets/{project}");
        self.want(200, ADMIN, "PUT", &path, json!({ "quota_set": limits }))
            .await;
    }
    /// Every counter agrees with what is there, and nothing belongs to a server that is gone.
    pub fn audit(&self) {
        audit(&self.store.snapshot());
    }
    /// The same, where the controllers have nothing left to do: no step list either.
    pub fn idle(&self) {
        assert_eq!(self.store.snapshot().count::<maru_control::Flow>(), 0);
        self.audit();
    }
}

/// The body of a creation at the newest microversion.
pub fn wanted(fields: Value) -> Value {
    let mut server = json!({"name": "s", "imageRef": IMAGE, "flavorRef": "1", "networks": "none"});
    for (key, value) in fields.as_object().unwrap() {
        server[key] = value.clone();
    }
    json!({ "server": server })
}

/// A node that has this server does at once what it is told and says so.
pub async fn obey(store: &Store, id: &m::ServerId) -> Result<()> {
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            let Some(server) = snapshot.get::<m::Server>(id) else {
                return Ok((txn, ()));
            };
            let goes = matches!(server.task, Some(m::Task::Deleting | m::Task::ShelvingOffloading));
            if goes && server.placed {
                m::plan_server_removed(snapshot, &mut txn, id)?;
            } else if let Some(intent) = m::guest_intent(snapshot, &server) {
                let seen = m::Observation {
                    revision: intent.revision,
                    power: match intent.power {
                        m::Power::Running => m::PowerState::Running,
                        m::Power::Stopped => m::PowerState::Shutdown,
                        m::Power::Paused => m::PowerState::Paused,
                        m::Power::Suspended => m::PowerState::Suspended,
                    },
                    reboots: intent.reboot.count,
                    rebuilds: intent.rebuild,
                    resizes: intent.resize.count,
                    ..m::Observation::default()
                };
                // A node says nothing twice.
                if server.task.is_some() || m::observed_power(snapshot, id) != seen.power {
                    m::plan_observe_server(snapshot, &mut txn, id, &seen)?;
                }
            }
            Ok((txn, ()))
        })
        .await
}

/// See [`Cloud::audit`].
pub fn audit(s: &Snapshot) {
    use maru_placement_model as p;
    use maru_store::Key;
    let mut used: BTreeMap<(String, String), i64> = BTreeMap::new();
    for server in s.list::<m::Server>() {
        for (resource, amount) in m::quota_of(&server) {
            *used
                .entry((server.project_id.to_string(), resource.to_owned()))
                .or_default() += amount;
        }
        assert_eq!(
            server.provider.is_some(),
            s.get::<p::Consumer>(&server.id.as_str().into()).is_some(),
            "server {} and its allocation",
            server.id
        );
        for port in server.ports.iter().filter(|p| p.ours) {
            let there = s.get::<maru_network_model::Port>(&port.id.as_str().into()).unwrap();
            assert_eq!(there.device_id, server.id.as_str());
        }
    }
    for group in s.list::<m::ServerGroup>() {
        *used
            .entry((group.project_id.to_string(), "server_groups".to_owned()))
            .or_default() += 1;
    }
    for key in s.list::<m::KeyPair>() {
        *used
            .entry((format!("user:{}", key.user_id), "key_pairs".to_owned()))
            .or_default() += 1;
    }
    for (key, _) in s.raw_under(&Key::prefix(&["counter", "compute-quota"])) {
        let parts = key.parts();
        let have = used.remove(&(parts[2].clone(), parts[3].clone())).unwrap_or(0);
        assert_eq!(s.counter(&key), have, "{key}");
    }
    assert!(used.is_empty(), "not counted: {used:?}");
    // Placement: what is used is what the servers hold.
    let mut held: BTreeMap<(String, String), i64> = BTreeMap::new();
    for consumer in s.list::<p::Consumer>() {
        assert!(
            s.get::<m::Server>(&consumer.id.as_str().into()).is_some(),
            "allocation of {} outlived it",
            consumer.id
        );
        for (provider, classes) in &consumer.allocations {
            for (class, n) in classes {
                *held.entry((provider.to_string(), class.clone())).or_default() += i64::try_from(*n).unwrap();
            }
        }
    }
    for provider in s.list::<p::ResourceProvider>() {
        for (class, inventory) in &provider.inventories {
            let n = held.remove(&(provider.id.to_string(), class.clone())).unwrap_or(0);
            assert_eq!(p::usage(s, &provider.id, class), n, "{class} of {}", provider.name);
            assert!(
                n <= inventory.capacity(),
                "{class} of {} is overcommitted",
                provider.name
            );
        }
    }
    assert!(held.is_empty(), "held nowhere: {held:?}");
    for port in s.list::<maru_network_model::Port>() {
        if port.device_owner.starts_with("compute:") {
            assert!(
                s.get::<m::Server>(&port.device_id.as_str().into()).is_some(),
                "port {} outlived server {}",
                port.id,
                port.device_id
            );
        }
    }
    for (key, _) in s.raw_under(&Key::prefix(&["epoch"])) {
        if let Some(group) = key.parts()[1].strip_prefix("server-group:") {
            assert!(
                s.get::<m::ServerGroup>(&group.into()).is_some(),
                "{key} outlived its group"
            );
        }
    }
}

pub fn id(v: &Value) -> String {
    v["id"].as_str().unwrap_or_else(|| panic!("no id in {v}")).to_owned()
}

/// The names of a list's entries.
pub fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect()
}

/// The sorted keys of an object.
pub fn keys(v: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = v.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
