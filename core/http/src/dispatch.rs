//! From an HTTP request to a handler and back: route, request id, microversion, token, policy, handler, audit.
//!
//! ```text
//! request ─ route ─ microversion ─ token ─ coarse policy ─ handler ─ reply
//!             │404      │406         │401       │403         │        │
//!             └─────────┴────────────┴──────────┴── error body in the service's own form ─► access log, audit
//! ```

use crate::{
    Access, Metrics, Microversion, Microversions, Pace, Query, Reply, Request, Service,
    body::{RequestBody, Upload},
    error_body,
    reply::ReplyBody,
    wire::Busy,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use maru_auth::{Audit, AuditRecord, Caller, Policy, Target, TokenVerifier};
use maru_base::{Error, ErrorKind, RequestId, Result, panics};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, task::Poll, time::Instant};
use tracing::Instrument;

/// The body of an answer on the wire.
pub(crate) type WireBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// All services behind one listener.
pub struct Gateway {
    services: Vec<Service>,
    router: matchit::Router<usize>,
    /// For each routed path: its methods, service and route.
    paths: Vec<HashMap<Method, (usize, usize)>>,
    verifier: Arc<dyn TokenVerifier>,
    policy: Arc<Policy>,
    audit: Arc<dyn Audit>,
    metrics: Arc<Metrics>,
}

/// Where a request came from, as the listener knows it.
pub(crate) struct Peer {
    /// The client's address.
    pub remote: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// How slowly it may send a body.
    pub pace: Pace,
    /// Held until the answer is on its way: the connection is not idle so long.
    pub busy: Option<Busy>,
}

impl Gateway {
    /// Puts services behind one router.
    ///
    /// # Errors
    /// When two routes collide or a route names a policy rule that is not declared: deny by default, found at start.
    pub fn new(
        services: Vec<Service>,
        verifier: Arc<dyn TokenVerifier>,
        policy: Arc<Policy>,
        audit: Arc<dyn Audit>,
    ) -> std::result::Result<Self, String> {
        let mut router = matchit::Router::new();
        let mut paths: Vec<HashMap<Method, (usize, usize)>> = Vec::new();
        let mut by_path: HashMap<String, usize> = HashMap::new();
        for (s, service) in services.iter().enumerate() {
            for prefix in service.prefixes {
                for (r, route) in service.routes.iter().enumerate() {
                    if let Access::Rule(rule) = route.access
                        && !policy.knows(rule)
                    {
                        return Err(format!(
                            "{} {}: policy rule {rule} is not declared",
                            route.method, route.path
                        ));
                    }
                    // A service's root is its prefix, with or without a slash after it.
                    let full = match route.path.as_str() {
                        "/" if !prefix.is_empty() => (*prefix).to_owned(),
                        path => format!("{prefix}{path}"),
                    };
                    let at = match by_path.get(&full) {
                        Some(at) => *at,
                        None => {
                            let at = paths.len();
                            router.insert(full.clone(), at).map_err(|e| format!("{full}: {e}"))?;
                            by_path.insert(full.clone(), at);
                            paths.push(HashMap::new());
                            at
                        }
                    };
                    if paths[at].insert(route.method.clone(), (s, r)).is_some() {
                        return Err(format!("{} {full} is routed twice", route.method));
                    }
                }
            }
        }
        Ok(Self {
            metrics: Arc::new(Metrics::new(&services)),
            services,
            router,
            paths,
            verifier,
            policy,
            audit,
        })
    }

    /// The services, for meta-tests that walk all routes.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }
    /// The listener's counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Answers one request of a listener.
    ///
    /// A request that may change something runs as a task of its own: a client that hangs up while it runs must not
    /// end it between its transaction and its audit record.
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: http::Request<hyper::body::Incoming>,
        peer: Peer,
    ) -> http::Response<WireBody> {
        let (parts, body) = request.into_parts();
        let expects = parts.headers.contains_key(header::EXPECT);
        let body = RequestBody::Incoming(Upload::new(body, peer.pace, expects));
        if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return self.answer(parts, body, peer).await;
        }
        let task = tokio::spawn(async move { self.answer(parts, body, peer).await });
        match task.await {
            Ok(response) => response,
            // Only at the end of the runtime: what panics in there is caught in there.
            Err(_) => {
                let mut response = http::Response::new(Empty::new().map_err(|e| match e {}).boxed_unsync());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    }

    /// Answers one request whose body is in memory; what in-process tests call.
    pub async fn call(&self, request: http::Request<Bytes>) -> http::Response<WireBody> {
        let (parts, body) = request.into_parts();
        let peer = Peer {
            remote: SocketAddr::from(([127, 0, 0, 1], 0)),
            scheme: "http",
            pace: crate::Limits::default().pace,
            busy: None,
        };
        self.answer(parts, RequestBody::Ready(body), peer).await
    }

    async fn answer(&self, parts: http::request::Parts, body: RequestBody, peer: Peer) -> http::Response<WireBody> {
        let Peer {
            remote, scheme, busy, ..
        } = peer;
        let running = self.metrics.request();
        let begun = Instant::now();
        let id = RequestId::generate();
        let method = parts.method.clone();
        let path = parts.uri.path().to_owned();
        let global = parts.headers.get("x-openstack-request-id").and_then(request_id);
        let mut seen = Seen::default();
        let span = tracing::info_span!("request", request_id = %id);
        let run = self.run(parts, body, remote, scheme, &id, &mut seen).instrument(span);
        let outcome = match panics::catch(run).await {
            Ok(outcome) => outcome,
            Err(panicked) => {
                self.metrics.panicked();
                tracing::error!(
                    request_id = %id, method = %method, path, panic = panicked.message, location = panicked.location,
                    backtrace = panicked.backtrace, "a handler panicked; this is a bug"
                );
                Err(Error::new(
                    ErrorKind::Internal,
                    format!("The server met a bug of its own; its log tells more under {id}."),
                ))
            }
        };
        let service = seen.service.map(|s| &self.services[s]);
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => {
                if error.kind().status() >= 500 {
                    tracing::error!(request_id = %id, error = %error.chain(), "request failed");
                } else {
                    tracing::debug!(request_id = %id, error = %error.chain(), "request refused");
                }
                error_reply(service, &error, &id, scheme, &seen)
            }
        };
        let status = reply.status;
        let mut busy = busy;
        if let Some(busy) = &mut busy {
            // The handler has answered; what follows waits for the client.
            busy.asked(false);
        }
        let response = self.finish(reply, service, &seen, &id, &method, busy);
        let took = begun.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.metrics.answered(seen.route, status, took);
        drop(running);
        tracing::info!(
            request_id = %id, remote = %remote.ip(), method = %method, path = %path, status = status.as_u16(), micros,
            global_request_id = global, user = seen.caller.as_ref().map(|c| tracing::field::display(c.user_id.clone())),
            "access"
        );
        let changes = !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
        if let Some(service) = service
            && (changes || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
        {
            let caller = seen.caller.as_deref();
            self.audit
                .record(AuditRecord {
                    time: maru_base::time::micros_z(maru_base::time::now()),
                    request_id: id.to_string(),
                    service: service.name.to_owned(),
                    action: seen.rule.unwrap_or("public").to_owned(),
                    method: method.to_string(),
                    path,
                    user_id: caller.map(|c| c.user_id.to_string()),
                    project_id: caller.and_then(Caller::project_id).map(ToString::to_string),
                    roles: caller.map(|c| c.roles.clone()).unwrap_or_default(),
                    remote: remote.ip().to_string(),
                    status: status.as_u16(),
                })
                .await;
        }
        response
    }

    async fn run(
        &self,
        mut parts: http::request::Parts,
        body: RequestBody,
        remote: SocketAddr,
        scheme: &'static str,
        id: &RequestId,
        seen: &mut Seen,
    ) -> Result<Reply> {
        seen.host = parts
            .headers
            .get(header::HOST)
            .and_then(|h| h.to_str().ok())
            .filter(|h| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b)))
            .or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))
            .unwrap_or("localhost")
            .to_owned();
        let asked = parts.uri.path();
        let thawed = self.thaw(asked);
        let path = thawed.as_deref().unwrap_or(asked);
        // The service whose prefix fits shapes the error even where no route does; an empty prefix fits last.
        seen.service = self.by_prefix(path);
        let query = parts.uri.query().map_or(0, str::len);
        if path.len() > PATH_MAX || query > QUERY_MAX {
            return Err(Error::new(
                ErrorKind::AddressTooLong,
                format!(
                    "The address of the request is too long: its path may have {PATH_MAX} bytes and its query {QUERY_MAX}."
                ),
            ));
        }
        let mut trimmed = if path.len() > 1 {
            path.trim_end_matches('/')
        } else {
            path
        };
        // `/image/v2/images/` is an image without an id, not the list of them; the version's own document takes either.
        let strict = seen.service.is_some_and(|s| self.services[s].strict_slash);
        if strict && trimmed.split('/').count() > 3 {
            trimmed = path;
        }
        let found = self
            .router
            .at(path)
            .or_else(|_| self.router.at(if trimmed.is_empty() { "/" } else { trimmed }));
        let Ok(matched) = found else {
            return Err(Error::not_found(
                "The resource could not be found: no such path is served.",
            ));
        };
        let methods = &self.paths[*matched.value];
        let head_as_get = (parts.method == Method::HEAD && !methods.contains_key(&Method::HEAD)).then_some(Method::GET);
        let Some(&(s, r)) = methods.get(head_as_get.as_ref().unwrap_or(&parts.method)) else {
            let mut allowed: Vec<&str> = methods.keys().map(Method::as_str).collect();
            allowed.sort_unstable();
            seen.allow = Some(allowed.join(", "));
            return Err(Error::new(
                ErrorKind::MethodNotAllowed,
                format!(
                    "The method {} is not allowed here; allowed: {}.",
                    parts.method,
                    allowed.join(", ")
                ),
            ));
        };
        let service = &self.services[s];
        let route = &service.routes[r];
        seen.service = Some(s);
        seen.route = Some((s, r));
        let mut params = Vec::with_capacity(matched.params.len());
        for (name, value) in matched.params.iter() {
            let value = percent_encoding::percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| Error::bad_request("The address of the request is not valid UTF-8."))?;
            params.push((name.to_owned(), value.into_owned()));
        }
        let prefix = service
            .prefixes
            .iter()
            .copied()
            .filter(|p| path.starts_with(p))
            .max_by_key(|p| p.len())
            .unwrap_or("");
        if let Some(versions) = &service.microversions {
            seen.version = Some(match &thawed {
                Some(_) => versions.min,
                None => negotiate(versions, &parts.headers)?,
            });
        }
        let token = parts.headers.get("x-auth-token").map(|t| t.to_str().unwrap_or(""));
        let rule = match route.access {
            Access::Public => None,
            Access::Rule(rule) => Some(rule),
        };
        seen.rule = rule;
        let below = &path[prefix.len()..];
        let verify = |token| {
            self.verifier
                .verify_for(token, service.name, parts.method.as_str(), below)
        };
        let caller = match (token, rule) {
            (Some(token), Some(_)) => Some(verify(token).await?),
            // A public route takes a token if it is good and does not mind if it is not.
            (Some(token), None) => verify(token).await.ok(),
            (None, Some(_)) => {
                return Err(Error::unauthorized(
                    "The request you have made requires authentication.",
                ));
            }
            (None, None) => None,
        };
        seen.caller.clone_from(&caller);
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let request = Request {
            method: parts.method.clone(),
            upgrade: upgrade.filter(|_| parts.version == http::Version::HTTP_11),
            path: below.to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or(""))?,
            base: format!("{scheme}://{}{prefix}", seen.host),
            headers: parts.headers,
            id: id.clone(),
            version: seen.version.unwrap_or(Microversion::new(0, 0)),
            remote: remote.ip(),
            params,
            caller,
            policy: Arc::clone(&self.policy),
            rule,
            body,
            body_limit: route.body_limit,
        };
        if let (Some(rule), Some(caller)) = (rule, &request.caller) {
            request.authorize_rule(rule, &Target::of_caller(caller).with("__coarse", "true"))?;
        }
        (route.handler)(request).await
    }

    /// The path of today for one under a service's frozen path; see [`crate::Microversions::frozen`].
    fn thaw(&self, path: &str) -> Option<String> {
        self.services.iter().find_map(|service| {
            let (from, to) = service.microversions.as_ref()?.frozen?;
            service.prefixes.iter().find_map(|prefix| {
                let rest = path.strip_prefix(prefix)?.strip_prefix(from)?;
                (rest.starts_with('/') && rest.len() > 1).then(|| format!("{prefix}{to}{rest}"))
            })
        })
    }

    fn by_prefix(&self, path: &str) -> Option<usize> {
        let fits = |p: &str| {
            path.strip_prefix(p)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.services
            .iter()
            .enumerate()
            .flat_map(|(i, s)| s.prefixes.iter().map(move |p| (i, *p)))
            .filter(|(_, p)| fits(p))
            .max_by_key(|(_, p)| p.len())
            .map(|(i, _)| i)
    }

    fn finish(
        &self,
        reply: Reply,
        service: Option<&Service>,
        seen: &Seen,
        id: &RequestId,
        method: &Method,
        busy: Option<Busy>,
    ) -> http::Response<WireBody> {
        let mut response = http::Response::new(match reply.body {
            ReplyBody::Empty => Empty::new().map_err(|e| match e {}).boxed_unsync(),
            ReplyBody::Bytes(bytes) => Full::new(bytes).map_err(|e| match e {}).boxed_unsync(),
            ReplyBody::Stream(stream) => {
                StreamBody::new(guarded(stream, id.clone(), busy).map(|c| c.map(hyper::body::Frame::data)))
                    .boxed_unsync()
            }
        });
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        let headers = response.headers_mut();
        set(headers, "x-openstack-request-id", id);
        if let Some(service) = service
            && let Some(v) = &service.microversions
        {
            let at = seen.version.unwrap_or(v.min);
            set(headers, "openstack-api-version", &format!("{} {at}", v.header.service));
            let mut vary = String::from("OpenStack-API-Version");
            if let Some(legacy) = v.header.legacy {
                if let Ok(name) = http::HeaderName::try_from(legacy) {
                    headers.insert(
                        name,
                        HeaderValue::try_from(at.to_string()).unwrap_or(HeaderValue::from_static("")),
                    );
                }
                vary.push_str(", ");
                vary.push_str(legacy);
            }
            set(headers, "vary", &vary);
        }
        if service.is_some_and(|s| s.name == "compute") {
            set(headers, "x-compute-request-id", id);
        }
        if service.is_some_and(|s| s.name == "identity") {
            headers
                .entry("vary")
                .or_insert(HeaderValue::from_static("X-Auth-Token"));
        }
        if method == Method::HEAD {
            // The length of what GET would answer stays; the bytes do not.
            if let Some(n) = hyper::body::Body::size_hint(response.body()).exact()
                && n > 0
            {
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(n));
            }
            *response.body_mut() = Empty::new().map_err(|e| match e {}).boxed_unsync();
        }
        response
    }
}

/// What is known of a request so far; kept for the error body, the log and the audit.
#[derive(Default)]
struct Seen {
    service: Option<usize>,
    version: Option<Microversion>,
    caller: Option<Arc<Caller>>,
    rule: Option<&'static str>,
    host: String,
    /// The service's and the route's number.
    route: Option<(usize, usize)>,
    /// The methods that the path has, where another was asked for.
    allow: Option<String>,
}

/// Bytes of a path at most.
const PATH_MAX: usize = 8_192;
/// Bytes of a query string at most; hyper answers 414 itself beyond 65,534 bytes of address.
const QUERY_MAX: usize = 32_768;

/// A client's own request id, if it has the form of one: `req-` and a UUID. Anything else must not reach the log.
fn request_id(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let uuid = text.strip_prefix("req-")?;
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    let hex = uuid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    (hex && groups == [8, 4, 4, 4, 12]).then(|| text.to_owned())
}

/// A streamed answer; a panic in it ends the stream, not the connection's other streams. Keeps `busy` to its end.
fn guarded(
    mut stream: crate::ByteStream,
    id: RequestId,
    mut busy: Option<Busy>,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
    let mut ended = false;
    futures_util::stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        let piece = panics::run(|| stream.as_mut().poll_next(context)).unwrap_or_else(|panicked| {
            ended = true;
            tracing::error!(
                request_id = %id, panic = panicked.message, location = panicked.location,
                backtrace = panicked.backtrace, "a streamed answer panicked; this is a bug"
            );
            Poll::Ready(Some(Err(std::io::Error::other(panicked))))
        });
        if let Some(busy) = &mut busy {
            busy.asked(piece.is_pending());
        }
        piece
    })
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn error_reply(service: Option<&Service>, error: &Error, id: &RequestId, scheme: &str, seen: &Seen) -> Reply {
    let style = service.map_or(crate::ErrorStyle::Identity, |s| s.errors);
    let versions = error_body::Versions {
        range: service.and_then(|s| s.microversions),
        negotiated: seen.version,
    };
    let (content_type, text) = error_body::render(style, error, id, versions);
    let mut reply = Reply::bytes(error.kind().status(), content_type, text);
    match error.kind() {
        ErrorKind::Unauthorized => {
            let uri = format!("Keystone uri=\"{scheme}://{}/identity\"", seen.host);
            reply = reply.header("www-authenticate", &uri);
        }
        ErrorKind::Unavailable => reply = reply.header("retry-after", "1"),
        ErrorKind::MethodNotAllowed => reply = reply.header("allow", seen.allow.as_deref().unwrap_or("")),
        ErrorKind::Timeout => reply = reply.header("connection", "close"),
        _ => {}
    }
    reply
}

/// The microversion a request asks for.
fn negotiate(versions: &Microversions, headers: &HeaderMap) -> Result<Microversion> {
    let mut wanted: Option<&str> = None;
    for value in headers.get_all("openstack-api-version") {
        for piece in value.to_str().unwrap_or("").split(',') {
            if let Some((service, version)) = piece.trim().split_once(' ')
                && service.eq_ignore_ascii_case(versions.header.service)
            {
                wanted = Some(version.trim());
            }
        }
    }
    if wanted.is_none()
        && let Some(legacy) = versions.header.legacy
    {
        wanted = headers.get(legacy).and_then(|v| v.to_str().ok()).map(str::trim);
    }
    let Some(wanted) = wanted else { return Ok(versions.min) };
    if wanted.eq_ignore_ascii_case("latest") {
        return Ok(versions.max);
    }
    let version = Microversion::parse(wanted).ok_or_else(|| {
        Error::bad_request(format!(
            "API Version String {wanted} is of invalid format. Must be of format MajorNum.MinorNum."
        ))
    })?;
    if version < versions.min || version > versions.max {
        return Err(Error::new(
            ErrorKind::NotAcceptable,
            format!(
                "Version {version} is not supported by the API. Minimum is {} and maximum is {}.",
                versions.min, versions.max
            ),
        ));
    }
    Ok(version)
}
