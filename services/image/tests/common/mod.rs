//! An image service in memory behind a real gateway. A token is `<project>:<role>`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use http_body_util::BodyExt;
use maru_auth::{Caller, NoAudit, Policy, Scope, TokenVerifier};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_blob::{Blobs, DirBlobs};
use maru_http::{Gateway, Limits, Listener};
use maru_image::{App, Inspected, Inspector, POLICY, Settings, service};
use maru_image_model::{Image, ImageId, ImageStatus, LooseBlob};
use maru_store::{Registry, Store};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::sync::watch;

struct Tokens;

#[async_trait::async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let (project, role) = token.split_once(':').ok_or_else(|| Error::unauthorized("bad token"))?;
        let roles: &[&str] = match role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            "reader" => &["reader"],
            _ => &[],
        };
        let scope = match project {
            "-" => Scope::Unscoped,
            id => Scope::Project(ProjectId::from(id)),
        };
        Ok(Arc::new(Caller {
            user_id: UserId::from(format!("user-of-{project}")),
            user_name: project.to_owned(),
            user_domain_id: DomainId::from("default"),
            scope,
            project_domain_id: Some(DomainId::from("default")),
            project_name: Some(project.to_owned()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            methods: vec!["password".to_owned()],
            audit_ids: vec![],
            expires_at: maru_base::time::now() + jiff::SignedDuration::from_hours(1),
        }))
    }
}

/// The node's parser without its sandbox (which needs a child of a binary of ours).
pub struct Look;

#[async_trait::async_trait]
impl Inspector for Look {
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected> {
        let found = maru_block::inspect(&mut std::fs::File::open(file).unwrap()).unwrap();
        let proven = maru_block::check_claim(declared, &found).map_err(Error::bad_request)?;
        Ok(Inspected {
            proven_format: proven.format,
            virtual_size: Some(proven.virtual_size),
        })
    }
}

pub const ADMIN: &str = "ops:admin";
pub const A: &str = "aaa:member";
pub const B: &str = "bbb:member";
pub const C: &str = "ccc:member";
pub const PATCH: &str = "application/openstack-images-v2.1-json-patch";
pub const OLD_PATCH: &str = "application/openstack-images-v2.0-json-patch";
pub const OCTETS: &str = "application/octet-stream";

pub struct Cloud {
    pub store: Store,
    pub app: Arc<App>,
    pub blobs: DirBlobs,
    pub gateway: Arc<Gateway>,
    pub folder: Arc<tempfile::TempDir>,
}

/// An answer: status, headers, body.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

pub async fn cloud() -> Cloud {
    cloud_with(Settings::default(), Arc::new(Look)).await
}

pub async fn cloud_with(settings: Settings, inspector: Arc<dyn Inspector>) -> Cloud {
    let mut registry = Registry::new();
    maru_image_model::register(&mut registry);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    over(Store::in_memory(registry), folder, settings, inspector).await
}

/// The service over what another left: the start of a process.
pub async fn over(
    store: Store,
    folder: Arc<tempfile::TempDir>,
    settings: Settings,
    inspector: Arc<dyn Inspector>,
) -> Cloud {
    fetching(store, folder, settings, inspector, maru_fetch::Fetcher::default()).await
}

/// The same with a fetcher.
pub async fn fetching(
    store: Store,
    folder: Arc<tempfile::TempDir>,
    settings: Settings,
    inspector: Arc<dyn Inspector>,
    fetcher: maru_fetch::Fetcher,
) -> Cloud {
    let blobs = DirBlobs::open(folder.path(), "here").await.unwrap();
    let app = App::with_settings(store.clone(), Arc::new(blobs.clone()), inspector, settings).fetching(fetcher);
    let app = Arc::new(app);
    let policy = Arc::new(Policy::build(&[POLICY], None).unwrap());
    let gateway = Gateway::new(
        vec![service(Arc::clone(&app))],
        Arc::new(Tokens),
        policy,
        Arc::new(NoAudit),
    )
    .unwrap();
    Cloud {
        store,
        app,
        blobs,
        gateway: Arc::new(gateway),
        folder,
    }
}

impl Cloud {
    pub async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://maru/image{path}"))
            .header("x-auth-token", token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.gateway.call(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
    pub async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let bytes = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let kind = if method == "PATCH" { PATCH } else { "application/json" };
        self.send(token, method, path, &[("content-type", kind)], bytes).await
    }
    /// The answer, which must have this status.
    pub async fn want(&self, status: u16, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let answer = self.call(token, method, path, body.clone()).await;
        assert_eq!(
            answer.status,
            status,
            "{token} {method} {path} {body}: {}",
            answer.text()
        );
        answer
    }
    /// A refusal whose text has all of these words.
    pub async fn refused(&self, status: u16, token: &str, method: &str, path: &str, body: Value, words: &[&str]) {
        let text = self.want(status, token, method, path, body.clone()).await.text();
        for word in words {
            assert!(text.contains(word), "{method} {path} {body}: no {word:?} in {text}");
        }
    }
    pub async fn get(&self, token: &str, path: &str) -> Value {
        self.want(200, token, "GET", path, Value::Null).await.json()
    }
    pub async fn patch(&self, status: u16, token: &str, id: &str, ops: Value) -> Answer {
        self.want(status, token, "PATCH", &format!("/v2/images/{id}"), ops)
            .await
    }
    /// A new record.
    pub async fn make(&self, token: &str, attributes: Value) -> Value {
        self.want(201, token, "POST", "/v2/images", attributes).await.json()
    }
    /// The id of a new raw image without data, with these attributes besides.
    pub async fn queued(&self, token: &str, more: Value) -> String {
        self.declared(token, "raw", more).await
    }
    pub async fn declared(&self, token: &str, format: &str, more: Value) -> String {
        let mut all = json!({"name": "image", "disk_format": format, "container_format": "bare"});
        for (k, v) in more.as_object().unwrap() {
            all[k] = v.clone();
        }
        id(&self.make(token, all).await)
    }
    pub async fn upload(&self, token: &str, image: &str, data: impl Into<Bytes>) -> Answer {
        let path = format!("/v2/images/{image}/file");
        self.send(token, "PUT", &path, &[("content-type", OCTETS)], data).await
    }
    /// The id of an image with data.
    pub async fn active(&self, token: &str, more: Value, data: &[u8]) -> String {
        let id = self.queued(token, more).await;
        let answer = self.upload(token, &id, data.to_vec()).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        id
    }
    pub async fn download(&self, token: &str, image: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(token, "GET", &format!("/v2/images/{image}/file"), headers, "")
            .await
    }
    /// The names in a list, in its order.
    pub async fn names(&self, token: &str, query: &str) -> Vec<String> {
        let list = self.get(token, &format!("/v2/images?{query}")).await;
        let name = |i: &Value| i["name"].as_str().unwrap_or("-").to_owned();
        list["images"].as_array().unwrap().iter().map(name).collect()
    }
    pub async fn status(&self, image: &str) -> Value {
        self.get(ADMIN, &format!("/v2/images/{image}")).await["status"].clone()
    }
    /// Waits until the image has this status.
    pub async fn until(&self, image: &str, status: ImageStatus) {
        let id = ImageId::from(image);
        let reached = self
            .store
            .until(|s| s.get::<Image>(&id).is_some_and(|i| i.status == status));
        tokio::time::timeout(std::time::Duration::from_secs(20), reached)
            .await
            .unwrap_or_else(|_| panic!("the image never became {status:?}"));
    }
    /// Blobs on the disk, unfinished files included.
    pub async fn files(&self) -> usize {
        let unfinished = std::fs::read_dir(self.folder.path().join("tmp")).unwrap().count();
        self.blobs.list().await.unwrap().len() + unfinished
    }
    /// Every blob has a name, every image its blob, every counter is right, nothing is half done.
    pub async fn audit(&self) {
        let snapshot = self.store.snapshot();
        let mut named: Vec<String> = snapshot.list::<Image>().filter_map(|i| i.digest.clone()).collect();
        named.sort();
        named.dedup();
        assert_eq!(self.blobs.list().await.unwrap(), named, "blobs and their names");
        assert_eq!(self.files().await, named.len(), "an unfinished file is left");
        assert_eq!(snapshot.count::<LooseBlob>(), 0, "loose blobs");
        let mut used = std::collections::BTreeMap::<String, (i64, i64)>::new();
        for image in snapshot.list::<Image>() {
            assert!(image.upload.is_none(), "{} is in an upload", image.id);
            assert_ne!(image.status, ImageStatus::Saving);
            let (count, bytes) = used.entry(image.owner.to_string()).or_default();
            *count += 1;
            *bytes += i64::try_from(image.size.unwrap_or(0)).unwrap();
        }
        for project in ["aaa", "bbb", "ccc", "ops"] {
            let owner = ProjectId::from(project);
            let have = (
                snapshot.counter(&maru_image_model::usage::images_counter(&owner)),
                snapshot.counter(&maru_image_model::usage::bytes_counter(&owner)),
            );
            assert_eq!(have, used.get(project).copied().unwrap_or_default(), "{project}");
        }
    }
    /// Serves on a socket until the sender is dropped or told.
    pub async fn listen(&self) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        self.listen_with(Limits::default()).await
    }
    pub async fn listen_with(&self, limits: Limits) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let listener = listener.with_limits(limits);
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(maru_http::serve(listener, Arc::clone(&self.gateway), stopped));
        (address, stop, serving)
    }
}

pub fn id(v: &Value) -> String {
    v["id"].as_str().unwrap_or_else(|| panic!("no id in {v}")).to_owned()
}

/// A sorted list of the keys of an object.
pub fn keys(v: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = v.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
