//! A placement service in memory behind a real gateway. A token is `<project>:<role>`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{Caller, NoAudit, Policy, Scope, TokenVerifier};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_http::Gateway;
use maru_placement::{App, POLICY, service};
use maru_store::{
    Key, Registry, Revision, Store,
    engine::{Commit, Engine, Entry, Mem, Outcome, Request, Sink},
};
use serde_json::{Value, json};
use std::sync::Arc;

struct Tokens;

#[async_trait::async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let (project, role) = token.split_once(':').ok_or_else(|| Error::unauthorized("bad token"))?;
        let roles: &[&str] = match role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            "service" => &["service"],
            _ => &[],
        };
        Ok(Arc::new(Caller {
            user_id: UserId::from(format!("user-of-{project}")),
            user_name: project.to_owned(),
            user_domain_id: DomainId::from("default"),
            scope: Scope::Project(ProjectId::from(project)),
            project_domain_id: Some(DomainId::from("default")),
            project_name: Some(project.to_owned()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            methods: vec!["password".to_owned()],
            audit_ids: vec![],
            expires_at: maru_base::time::now() + jiff::SignedDuration::from_hours(1),
        }))
    }
}

pub const ADMIN: &str = "ops:admin";
pub const SERVICE: &str = "svc:service";
pub const MEMBER: &str = "aaa:member";
pub const LATEST: &str = "1.39";

pub struct Cloud {
    pub store: Store,
    pub gateway: Gateway,
}

/// An answer, whole.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    /// Text and code of a refusal.
    pub fn refusal(&self) -> (String, String) {
        let e = &self.body["errors"][0];
        assert_eq!(e["status"], self.status, "{}", self.body);
        assert!(e["request_id"].as_str().unwrap().starts_with("req-"));
        assert!(e["title"].is_string());
        (
            e["detail"].as_str().unwrap().to_owned(),
            e["code"].as_str().unwrap_or("").to_owned(),
        )
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    maru_placement_model::register(&mut registry);
    registry
}

fn over(store: Store) -> Cloud {
    let gateway = Gateway::new(
        vec![service(Arc::new(App::new(store.clone())))],
        Arc::new(Tokens),
        Arc::new(Policy::build(&[POLICY], None).unwrap()),
        Arc::new(NoAudit),
    )
    .unwrap();
    Cloud { store, gateway }
}

pub fn cloud() -> Cloud {
    over(Store::in_memory(registry()))
}

/// A service whose commits take their time: requests that are sent at once plan on the same state.
pub async fn racing() -> Cloud {
    let engine = Arc::new(Hesitant(Mem::new()));
    over(Store::open(engine, registry()).await.unwrap())
}

/// An engine that lets others go first, at random, before it commits.
struct Hesitant(Mem);

#[async_trait::async_trait]
impl Engine for Hesitant {
    async fn commit(&self, request: Request) -> Outcome {
        for _ in 0..1 + maru_base::random::below(4) {
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
    async fn watch(&self, from: Revision) -> std::result::Result<tokio::sync::mpsc::Receiver<Arc<Commit>>, String> {
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

/// A request under construction.
pub struct Ask<'a> {
    cloud: &'a Cloud,
    token: Option<String>,
    version: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Bytes>,
}

impl Ask<'_> {
    pub fn as_(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }
    pub fn nobody(mut self) -> Self {
        self.token = None;
        self
    }
    pub fn at(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(Bytes::from(body.to_string()));
        self.header("content-type", "application/json")
    }
    pub fn raw(mut self, body: &'static [u8]) -> Self {
        self.body = Some(Bytes::from_static(body));
        self
    }
    pub async fn send(self) -> Answer {
        let mut request = http::Request::builder()
            .method(self.method.as_str())
            .uri(format!("http://maru/placement{}", self.path))
            .header("openstack-api-version", format!("placement {}", self.version));
        if let Some(token) = &self.token {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = self
            .cloud
            .gateway
            .call(request.body(self.body.unwrap_or_default()).unwrap())
            .await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Answer { status, headers, body }
    }
    /// The answer, which must have this status.
    pub async fn want(self, status: u16) -> Answer {
        let what = format!("{} {} at {}", self.method, self.path, self.version);
        let sent = self.body.clone();
        let answer = self.send().await;
        assert_eq!(answer.status, status, "{what} {sent:?}: {}", answer.body);
        answer
    }
    /// The body of a 200.
    pub async fn ok(self) -> Value {
        self.want(200).await.body
    }
    /// The text of a refusal, which must contain this.
    pub async fn refused(self, status: u16, part: &str) -> String {
        let (text, code) = self.want(status).await.refusal();
        assert!(text.contains(part), "'{part}' is not in: {text}");
        code
    }
}

impl Cloud {
    pub fn ask(&self, method: &str, path: &str) -> Ask<'_> {
        Ask {
            cloud: self,
            token: Some(ADMIN.to_owned()),
            version: LATEST.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }
    pub fn get(&self, path: &str) -> Ask<'_> {
        self.ask("GET", path)
    }
    pub fn post(&self, path: &str, body: Value) -> Ask<'_> {
        self.ask("POST", path).json(body)
    }
    pub fn put(&self, path: &str, body: Value) -> Ask<'_> {
        self.ask("PUT", path).json(body)
    }
    pub fn delete(&self, path: &str) -> Ask<'_> {
        self.ask("DELETE", path)
    }

    /// A provider; gives its id.
    pub async fn provider(&self, name: &str, parent: Option<&str>) -> String {
        let body = json!({"name": name, "parent_provider_uuid": parent});
        self.post("/resource_providers", body).ok().await["uuid"]
            .as_str()
            .unwrap()
            .to_owned()
    }
    pub async fn generation(&self, id: &str) -> u64 {
        self.get(&format!("/resource_providers/{id}")).ok().await["generation"]
            .as_u64()
            .unwrap()
    }
    /// Sets all inventories: class, total and what else.
    pub async fn stock(&self, id: &str, inventories: Value) {
        let body = json!({"resource_provider_generation": self.generation(id).await, "inventories": inventories});
        self.put(&format!("/resource_providers/{id}/inventories"), body)
            .ok()
            .await;
    }
    pub async fn traits(&self, id: &str, traits: &[&str]) {
        for custom in traits.iter().filter(|t| t.starts_with("CUSTOM_")) {
            let status = self.ask("PUT", &format!("/traits/{custom}")).send().await.status;
            assert!(status == 201 || status == 204);
        }
        let body = json!({"resource_provider_generation": self.generation(id).await, "traits": traits});
        self.put(&format!("/resource_providers/{id}/traits"), body).ok().await;
    }
    pub async fn aggregates(&self, id: &str, aggregates: &[&str]) {
        let body = json!({"resource_provider_generation": self.generation(id).await, "aggregates": aggregates});
        self.put(&format!("/resource_providers/{id}/aggregates"), body)
            .ok()
            .await;
    }
    /// Replaces what a new consumer holds.
    pub fn allocate(&self, consumer: &str, allocations: Value) -> Ask<'_> {
        self.put(&format!("/allocations/{consumer}"), claim(allocations))
    }
    /// Every counter agrees with what consumers hold, nothing is held beyond capacity, and nothing is left of what is gone.
    pub fn audit(&self) {
        use maru_placement_model as m;
        use std::collections::BTreeMap;
        let s = self.store.snapshot();
        let mut held: BTreeMap<(String, String), i64> = BTreeMap::new();
        for c in s.list::<m::Consumer>() {
            assert!(!c.allocations.is_empty(), "{} holds nothing", c.id);
            for (provider, resources) in &c.allocations {
                assert!(s.get::<m::ResourceProvider>(provider).is_some(), "{provider} is gone");
                let child = maru_store::Key::of(&["child", "resource_provider", provider, &c.id]);
                assert!(s.raw(&child).is_some(), "{child} is missing");
                for (class, n) in resources {
                    *held.entry((provider.to_string(), class.clone())).or_default() += i64::try_from(*n).unwrap();
                }
            }
        }
        for p in s.list::<m::ResourceProvider>() {
            let root = s.get::<m::ResourceProvider>(&p.root).unwrap();
            assert_eq!(root.root, root.id, "the root of {} is no root", p.id);
            match &p.parent {
                None => assert_eq!(p.root, p.id),
                Some(parent) => assert_eq!(s.get::<m::ResourceProvider>(parent).unwrap().root, p.root),
            }
            assert_eq!(
                s.owner("resource_provider", "", &p.name).as_deref(),
                Some(p.id.as_str())
            );
            for (class, inventory) in &p.inventories {
                let n = held.get(&(p.id.to_string(), class.clone())).copied().unwrap_or(0);
                assert!(n <= inventory.capacity(), "{n} {class} of {inventory:?}");
            }
        }
        for (key, _) in s.raw_under(&maru_store::Key::prefix(&["counter", "placement"])) {
            let parts = key.parts();
            let have = held.remove(&(parts[2].clone(), parts[3].clone())).unwrap_or(0);
            assert_eq!(s.counter(&key), have, "{key}");
            assert!(
                s.get::<m::ResourceProvider>(&parts[2].as_str().into()).is_some(),
                "{key} outlived its provider"
            );
        }
        assert!(held.is_empty(), "not counted: {held:?}");
        for (key, _) in s.raw_under(&maru_store::Key::prefix(&["child", "resource_provider"])) {
            let parts = key.parts();
            let holds = s
                .get::<m::Consumer>(&parts[3].as_str().into())
                .is_some_and(|c| c.allocations.contains_key(parts[2].as_str()));
            assert!(holds, "{key} outlived its allocation");
        }
        for (key, _) in s.raw_under(&maru_store::Key::prefix(&["epoch"])) {
            let set = key.parts()[1].clone();
            let (kind, name) = set.split_once(':').unwrap();
            let there = match kind {
                "resource_class" => s.get::<m::CustomClass>(&name.into()).is_some(),
                "trait" => s.get::<m::CustomTrait>(&name.into()).is_some(),
                _ => s.get::<m::ResourceProvider>(&name.into()).is_some(),
            };
            assert!(there, "{key} outlived its object");
        }
    }
}

/// The body of a new consumer's allocations, at the latest microversion.
pub fn claim(allocations: Value) -> Value {
    json!({
        "allocations": allocations,
        "project_id": "aaa",
        "user_id": "user-of-aaa",
        "consumer_generation": null,
        "consumer_type": "INSTANCE",
    })
}

pub fn uuid() -> String {
    maru_base::random::uuid()
}
