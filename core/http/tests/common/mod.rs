//! A listener on loopback with services made for the tests, and a client that speaks HTTP/1.1 byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

use bytes::Bytes;
use futures_util::StreamExt;
use maru_auth::{Audit, AuditRecord, Caller, Policy, RuleDefault, Scope, TokenVerifier};
use maru_base::{Error, ErrorKind, Result};
use maru_http::{
    ErrorStyle, Gateway, Limits, Listener, Microversion, MicroversionHeader, Microversions, Pace, Reply, Request,
    Routes, Service, Tls, limits, serve,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// No test waits longer for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A future's outcome, or a failed test after [`DEADLINE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits until something holds, or fails after [`DEADLINE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What the handlers share with the test.
pub struct Shop {
    /// Permits let waiting handlers go on.
    pub gate: Semaphore,
    /// Handlers that wait at the gate.
    pub waiting: AtomicUsize,
    /// Changes that were made.
    pub changes: AtomicUsize,
    /// Uploads that broke off.
    pub broken: AtomicUsize,
    /// Bytes that a download has handed on.
    pub sent: AtomicUsize,
    /// Streams that were dropped.
    pub dropped: AtomicUsize,
}

const POLICY: &[RuleDefault] = &[
    RuleDefault {
        name: "shop:read",
        check: "role:reader",
    },
    RuleDefault {
        name: "shop:write",
        check: "role:member",
    },
];

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Order {
    item: Item,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    size: u32,
    #[serde(default)]
    tags: Vec<String>,
}

async fn ping(_: Arc<Shop>, r: Request) -> Result<Reply> {
    Reply::json(200, &json!({"version": r.version.to_string()}))
}

async fn show(_: Arc<Shop>, r: Request) -> Result<Reply> {
    let pairs: Vec<_> = r.query.pairs().collect();
    Reply::json(
        200,
        &json!({"id": r.param("id"), "path": r.path, "base": r.base, "pairs": pairs, "a": r.query.get("a"),
            "request": r.id}),
    )
}

/// A WebSocket with something that greets, and then says everything twice until it is told to end.
async fn socket(_: Arc<Shop>, mut r: Request) -> Result<Reply> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    tokio::spawn(async move {
        theirs.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = theirs.read(&mut buffer).await {
            if &buffer[..n] == b"end" {
                return;
            }
            theirs.write_all(&[&buffer[..n], &buffer[..n]].concat()).await.unwrap();
        }
    });
    r.join_websocket(ours, ())
}

async fn order(_: Arc<Shop>, mut r: Request) -> Result<Reply> {
    let order: Order = r.json().await?;
    Reply::json(201, &order)
}

async fn bytes(_: Arc<Shop>, mut r: Request) -> Result<Reply> {
    let n = r.bytes().await?.len();
    Reply::json(200, &json!({ "bytes": n }))
}

async fn upload(shop: Arc<Shop>, mut r: Request) -> Result<Reply> {
    let mut n = 0;
    let mut stream = r.take_stream();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => n += chunk.len(),
            Err(e) => {
                shop.broken.fetch_add(1, Ordering::SeqCst);
                let kind = match e.kind() {
                    std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
                    std::io::ErrorKind::UnexpectedEof => ErrorKind::BadRequest,
                    _ => ErrorKind::TooLarge,
                };
                return Err(Error::new(kind, e.to_string()));
            }
        }
    }
    Reply::json(200, &json!({ "bytes": n }))
}

async fn wait(shop: Arc<Shop>, _: Request) -> Result<Reply> {
    shop.waiting.fetch_add(1, Ordering::SeqCst);
    let permit = shop.gate.acquire().await;
    shop.waiting.fetch_sub(1, Ordering::SeqCst);
    drop(permit);
    shop.changes.fetch_add(1, Ordering::SeqCst);
    Ok(Reply::bytes(200, "text/plain", "waited"))
}

async fn panics(_: Arc<Shop>, r: Request) -> Result<Reply> {
    panic!("the handler of {} is broken: secret-detail", r.path)
}

async fn panics_midway(_: Arc<Shop>, _: Request) -> Result<Reply> {
    let stream = futures_util::stream::iter(0..3).map(|n| {
        assert!(n < 2, "midway");
        Ok(Bytes::from_static(b"part "))
    });
    Ok(Reply::stream(200, "text/plain", None, Box::pin(stream)))
}

/// Says when it is dropped.
struct Dropped(Arc<Shop>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// 1 GiB in pieces of 64 KiB.
async fn download(shop: Arc<Shop>, _: Request) -> Result<Reply> {
    const PIECE: usize = 64 << 10;
    let held = Dropped(Arc::clone(&shop));
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let stream = futures_util::stream::iter(0..16_384).map(move |_| {
        held.0.sent.fetch_add(PIECE, Ordering::SeqCst);
        Ok(piece.clone())
    });
    Ok(Reply::stream(
        200,
        "application/octet-stream",
        Some(1 << 30),
        Box::pin(stream),
    ))
}

async fn legacy(_: Arc<Shop>, _: Request) -> Result<Reply> {
    Err(Error::conflict("It is not for sale.").with_code("NotForSale"))
}

fn versions(service: &'static str, legacy: Option<&'static str>) -> Microversions {
    Microversions {
        frozen: None,
        header: MicroversionHeader { service, legacy },
        min: Microversion::new(2, 1),
        max: Microversion::new(2, 50),
    }
}

fn services(shop: &Arc<Shop>) -> Vec<Service> {
    let routes = || Routes::new(Arc::clone(shop));
    vec![
        Service {
            name: "identity",
            prefixes: &["/identity", ""],
            errors: ErrorStyle::Identity,
            strict_slash: false,
            microversions: None,
            routes: routes()
                .public(http::Method::GET, "/v3/ping", ping)
                .get("/v3/secret", "shop:read", ping)
                .build(),
        },
        Service {
            name: "compute",
            prefixes: &["/shop"],
            errors: ErrorStyle::Compute,
            strict_slash: false,
            microversions: Some(versions("compute", Some("X-OpenStack-Nova-API-Version"))),
            routes: routes()
                .public(http::Method::GET, "/ping", ping)
                .public(http::Method::GET, "/items/{id}", show)
                .public(http::Method::DELETE, "/items/{id}", show)
                .public(http::Method::POST, "/orders", order)
                .post("/private-orders", "shop:write", order)
                .public(http::Method::POST, "/bytes", bytes)
                .limit(1_000)
                .public(http::Method::PUT, "/upload", upload)
                .limit(limits::NONE)
                .public(http::Method::PUT, "/small-upload", upload)
                .limit(1_000)
                .public(http::Method::GET, "/wait", wait)
                .public(http::Method::POST, "/wait", wait)
                .public(http::Method::GET, "/panic", panics)
                .public(http::Method::POST, "/panic", panics)
                .public(http::Method::GET, "/panic-midway", panics_midway)
                .public(http::Method::GET, "/download", download)
                .public(http::Method::GET, "/socket", socket)
                .build(),
        },
        Service {
            name: "network",
            prefixes: &["/network"],
            errors: ErrorStyle::Network,
            strict_slash: false,
            microversions: None,
            routes: routes()
                .public(http::Method::GET, "/v2.0/legacy", legacy)
                .public(http::Method::POST, "/v2.0/panic", panics)
                .build(),
        },
        Service {
            name: "image",
            prefixes: &["/image"],
            errors: ErrorStyle::Image,
            strict_slash: false,
            microversions: None,
            routes: routes().public(http::Method::GET, "/v2/ping", ping).build(),
        },
        Service {
            name: "placement",
            prefixes: &["/placement"],
            errors: ErrorStyle::Errors,
            strict_slash: false,
            microversions: Some(versions("placement", None)),
            routes: routes().public(http::Method::GET, "/ping", ping).build(),
        },
    ]
}

/// Knows the tokens `reader` and `member`.
struct Tokens;

#[async_trait::async_trait]
impl TokenVerifier for Tokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let roles: &[&str] = match token {
            "reader" => &["reader"],
            "member" => &["member", "reader"],
            _ => {
                return Err(Error::unauthorized(
                    "The request you have made requires authentication.",
                ));
            }
        };
        Ok(Arc::new(Caller {
            user_id: "u".into(),
            user_name: "u".into(),
            user_domain_id: "default".into(),
            scope: Scope::Project("p".into()),
            project_domain_id: Some("default".into()),
            project_name: Some("p".into()),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            methods: vec!["password".into()],
            audit_ids: Vec::new(),
            expires_at: maru_base::time::now(),
        }))
    }
}

/// Keeps what was audited.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<AuditRecord>>);

#[async_trait::async_trait]
impl Audit for Kept {
    async fn record(&self, record: AuditRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// A listener that runs.
pub struct Server {
    pub address: SocketAddr,
    pub shop: Arc<Shop>,
    pub audit: Arc<Kept>,
    pub gateway: Arc<Gateway>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

/// Deadlines that a test can wait for.
pub fn short() -> Limits {
    Limits {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(400),
        pace: Pace {
            grace: Duration::from_millis(300),
            bytes_per_second: 1_000,
        },
        write: Duration::from_millis(400),
        ..Limits::default()
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Limits::default(), None).await
    }

    pub async fn with(limits: Limits, tls: Option<Tls>) -> Self {
        let shop = Arc::new(Shop {
            gate: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        });
        let audit = Arc::new(Kept::default());
        let policy = Policy::build(&[POLICY], None).unwrap();
        let gateway = Gateway::new(
            services(&shop),
            Arc::new(Tokens),
            Arc::new(policy),
            Arc::clone(&audit) as Arc<dyn Audit>,
        )
        .unwrap();
        let gateway = Arc::new(gateway);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls)
            .await
            .unwrap()
            .with_limits(limits);
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&gateway), stopped));
        Self {
            address,
            shop,
            audit,
            gateway,
            stop,
            task,
        }
    }

    /// A fresh connection.
    pub async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request without a body on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        self.ask("GET", target, "", b"").await
    }

    /// One request on a connection of its own; `headers` are whole lines.
    pub async fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Response {
        let mut client = self.connect().await;
        client.ask(method, target, headers, body).await
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that reads answers one by one.
pub struct Client<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }
    pub async fn send(&mut self, bytes: &[u8]) {
        within("send", self.stream.write_all(bytes)).await.unwrap();
    }
    pub async fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Response {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: t:1\r\n{headers}{length}\r\n").as_bytes())
            .await;
        if !body.is_empty() {
            self.send(body).await;
        }
        self.answer(method == "HEAD").await
    }
    /// More bytes; false at the end.
    async fn more(&mut self) -> bool {
        let mut piece = [0_u8; 16 << 10];
        let n = within("an answer", self.stream.read(&mut piece)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }
    /// The next answer.
    pub async fn answer(&mut self, head_only: bool) -> Response {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more().await,
                "closed within an answer: {}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if head_only || status == 204 || status == 100 {
            return response;
        }
        if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                assert!(self.more().await, "closed within a body");
            }
            response.body = self.buffer.drain(..length).collect();
        } else if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") else {
                    if !self.more().await {
                        return response;
                    }
                    continue;
                };
                let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..at]).unwrap(), 16).unwrap();
                while self.buffer.len() < at + 2 + size + 2 {
                    assert!(self.more().await, "closed within a chunk");
                }
                response.body.extend_from_slice(&self.buffer[at + 2..at + 2 + size]);
                self.buffer.drain(..at + 2 + size + 2);
                if size == 0 {
                    break;
                }
            }
        }
        response
    }
    /// Everything until the server closes.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }
}
