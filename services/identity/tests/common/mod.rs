//! A cloud with nothing but identity, in this process.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{NoAudit, Policy};
use maru_http::Gateway;
use maru_identity::{App, Bootstrap, BootstrapReport, POLICY, Secret, Settings, bootstrap};
use maru_store::{Registry, Store};
use serde_json::{Value, json};
use std::sync::Arc;

pub struct Cloud {
    pub gateway: Arc<Gateway>,
    pub app: Arc<App>,
    pub store: Store,
    pub report: BootstrapReport,
    /// A token of the administrator for its project.
    pub admin: String,
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub json: Value,
    pub text: String,
}

impl Answer {
    pub fn token(&self) -> String {
        self.headers["x-subject-token"].to_str().unwrap().to_owned()
    }
    #[track_caller]
    pub fn ok(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or("")
    }
    /// Ids of a collection, sorted.
    pub fn ids(&self, collection: &str) -> Vec<String> {
        let mut ids: Vec<String> = self.json[collection]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    }
}

pub fn config() -> Bootstrap {
    Bootstrap {
        admin_password: Secret::new("admin-pass"),
        reset_password: false,
        region: "RegionOne".to_owned(),
        public_url: "http://cloud/identity".to_owned(),
        bcrypt_cost: 4,
    }
}

pub fn store() -> Store {
    let mut registry = Registry::new();
    maru_identity_model::register(&mut registry);
    Store::in_memory(registry)
}

pub fn settings() -> Settings {
    Settings {
        bcrypt_cost: 4,
        ..Settings::default()
    }
}

impl Cloud {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }
    pub async fn with(settings: Settings) -> Self {
        let store = store();
        let report = bootstrap(&store, &config()).await.unwrap();
        let (app, gateway) = node(&store, settings);
        let mut cloud = Self {
            gateway,
            app,
            store,
            report,
            admin: String::new(),
        };
        let body = password(
            "admin",
            "admin-pass",
            Some(json!({"project": {"name": "admin", "domain": {"id": "default"}}})),
        );
        cloud.admin = cloud
            .call("POST", "/v3/auth/tokens", "", Some(body))
            .await
            .ok(201)
            .token();
        cloud
    }
    pub async fn send(&self, request: http::Request<Bytes>) -> Answer {
        send(&self.gateway, request).await
    }
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        call(&self.gateway, method, path, token, body).await
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &self.admin, None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &self.admin, Some(body)).await
    }
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, &self.admin, Some(body)).await
    }
    pub async fn put(&self, path: &str) -> Answer {
        self.call("PUT", path, &self.admin, None).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &self.admin, None).await
    }
    /// A call by the administrator on a task of its own.
    pub fn spawn(&self, method: &'static str, path: &str, body: Option<Value>) -> tokio::task::JoinHandle<Answer> {
        let (gateway, token, path) = (Arc::clone(&self.gateway), self.admin.clone(), path.to_owned());
        tokio::spawn(async move { call(&gateway, method, &path, &token, body).await })
    }
    /// Creates a resource and gives its id.
    pub async fn make(&self, kind: &str, body: Value) -> String {
        let path = if kind == "policy" {
            "/v3/policies".to_owned()
        } else {
            format!("/v3/{kind}s")
        };
        let answer = self.post(&path, json!({ kind: body })).await.ok(201);
        answer.json[kind]["id"].as_str().unwrap().to_owned()
    }
    pub async fn role(&self, name: &str) -> String {
        self.get(&format!("/v3/roles?name={name}"))
            .await
            .ok(200)
            .ids("roles")
            .remove(0)
    }
    /// Logs in; `scope` may be null.
    pub async fn login(&self, user: &str, pass: &str, scope: Value) -> Answer {
        let scope = if scope.is_null() { None } else { Some(scope) };
        self.call("POST", "/v3/auth/tokens", "", Some(password(user, pass, scope)))
            .await
    }
    /// Whether a token is good, by the administrator's word.
    pub async fn good(&self, token: &str) -> bool {
        let answer = self.validate(token).await;
        assert!(matches!(answer.status, 200 | 404), "{}", answer.text);
        answer.status == 200
    }
    pub async fn validate(&self, token: &str) -> Answer {
        let request = http::Request::get("/v3/auth/tokens")
            .header("x-auth-token", &self.admin)
            .header("x-subject-token", token)
            .body(Bytes::new())
            .unwrap();
        self.send(request).await
    }
}

/// Another control node over the same store.
pub fn node(store: &Store, settings: Settings) -> (Arc<App>, Arc<Gateway>) {
    let app = App::new(store.clone(), settings);
    let policy = Arc::new(Policy::build(&[POLICY], None).unwrap());
    let gateway = Gateway::new(
        vec![maru_identity::service(Arc::clone(&app))],
        maru_identity::verifier(Arc::clone(&app)),
        policy,
        Arc::new(NoAudit),
    )
    .unwrap();
    (app, Arc::new(gateway))
}

pub async fn send(gateway: &Gateway, request: http::Request<Bytes>) -> Answer {
    let response = gateway.call(request).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

pub async fn call(gateway: &Gateway, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cloud");
    if !token.is_empty() {
        request = request.header("x-auth-token", token);
    }
    let bytes = match body {
        Some(v) => {
            request = request.header("content-type", "application/json");
            Bytes::from(v.to_string())
        }
        None => Bytes::new(),
    };
    send(gateway, request.body(bytes).unwrap()).await
}

pub fn password(user: &str, pass: &str, scope: Option<Value>) -> Value {
    let mut auth = json!({"identity": {"methods": ["password"],
        "password": {"user": {"name": user, "domain": {"id": "default"}, "password": pass}}}});
    if let Some(scope) = scope {
        auth["scope"] = scope;
    }
    json!({ "auth": auth })
}

pub fn project(id: &str) -> Value {
    json!({"project": {"id": id}})
}
