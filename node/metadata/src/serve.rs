//! The HTTP server of one network. Everything is bounded: connections, time, request head, body.

use crate::GuestView;
use crate::content::{Answer, Method, PASSWORD_LIMIT, respond};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use maru_base::{Error, Result};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Connections of one network at a time, and of one guest.
const CONNECTIONS: usize = 256;
const CONNECTIONS_OF_ONE: usize = 16;
/// How long a request head may take, and a connection may live.
const HEAD_TIME: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(60);
/// The largest request head in bytes.
const HEAD_SIZE: usize = 16 * 1024;
const PORT: u16 = 80;
const ADDRESS: [u8; 4] = [169, 254, 169, 254];
/// The metadata address of IPv6 guests.
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// Finds guests.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The guest of this network that has this address, if the slice has one.
    fn guest(&self, network_id: &str, source: IpAddr) -> Option<Arc<GuestView>>;
    /// The password that this server posted.
    async fn password(&self, server_id: &str) -> Result<Option<Vec<u8>>>;
    /// Keeps the password that this server posts; `Conflict` if there is one.
    async fn set_password(&self, server_id: &str, password: Vec<u8>) -> Result<()>;
}

/// The metadata server of one network; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    _tasks: JoinSet<()>,
}

fn open_here(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // The address may come a moment after the device.
    socket
        .set_freebind_v4(true)
        .or_else(|e| if address.is_ipv6() { Ok(()) } else { Err(e) })?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Opens the listeners inside the namespace: the IPv4 one must be had, the IPv6 one if it can.
fn open(netns: Option<&Path>, device: &str) -> Result<Vec<std::net::TcpListener>> {
    let work = || -> std::io::Result<Vec<std::net::TcpListener>> {
        if let Some(netns) = netns {
            setns(std::fs::File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
        }
        let mut listeners = vec![open_here((ADDRESS, PORT).into())?];
        let index = nix::net::if_::if_nametoindex(device)?;
        match open_here(SocketAddrV6::new(ADDRESS6, PORT, 0, index).into()) {
            Ok(listener) => listeners.push(listener),
            Err(e) => tracing::debug!(error = %e, "no metadata over IPv6 on this network"),
        }
        Ok(listeners)
    };
    let opened = std::thread::scope(|scope| {
        // A thread of its own that ends: a thread that has entered a namespace must never do other work.
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .map_err(|_| std::io::Error::other("the opener panicked"))?
    });
    opened.map_err(|e| {
        Error::internal(
            format!("The metadata server cannot listen at 169.254.169.254:80 on the device {device}."),
            e,
        )
    })
}

impl Server {
    /// Starts the server in the namespace (`None`: this process's own). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The namespace or device is not there, or the address is taken.
    pub fn start(
        netns: Option<PathBuf>,
        device: &str,
        network_id: &str,
        directory: Arc<dyn Directory>,
    ) -> Result<Self> {
        let mut tasks = JoinSet::new();
        for listener in open(netns.as_deref(), device)? {
            let listener = TcpListener::from_std(listener)
                .map_err(|e| Error::internal("The metadata server's socket was not taken over.", e))?;
            tasks.spawn(accept(listener, Arc::from(network_id), Arc::clone(&directory)));
        }
        Ok(Self { _tasks: tasks })
    }
}

/// Counts the connections of each source.
#[derive(Default)]
struct Counts(Mutex<HashMap<IpAddr, usize>>);

struct Counted {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Counts {
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= CONNECTIONS || counts.get(&source) >= Some(&CONNECTIONS_OF_ONE) {
            return None;
        }
        *counts.entry(source).or_default() += 1;
        Some(Counted {
            counts: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = counts.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

async fn accept(listener: TcpListener, network: Arc<str>, directory: Arc<dyn Directory>) {
    let counts = Arc::new(Counts::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(counted) = counts.enter(peer.ip()) else { continue };
                    let (network, directory) = (Arc::clone(&network), Arc::clone(&directory));
                    connections.spawn(async move {
                        let _counted = counted;
                        serve_connection(stream, peer.ip(), network, directory).await;
                    });
                }
                Err(e) => {
                    tracing::debug!(error = %e, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection of a guest of `network` that came from `source`, until it ends or its time is over.
pub async fn serve_connection<S>(stream: S, source: IpAddr, network: Arc<str>, directory: Arc<dyn Directory>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let (network, directory) = (Arc::clone(&network), Arc::clone(&directory));
        async move { Ok::<_, Infallible>(answer(request, source, &network, directory.as_ref()).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(e)) = tokio::time::timeout(LIFE, connection).await {
        tracing::debug!(error = %e, %source, "a metadata connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    source: IpAddr,
    network: &str,
    directory: &dyn Directory,
) -> Response<Full<Bytes>> {
    let answer = decide(request, source, network, directory).await.unwrap_or_else(|e| {
        tracing::warn!(error = e.chain(), %network, %source, "metadata could not be answered");
        Answer::refuse(500, "The metadata cannot be read now; try again.")
    });
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(answer.kind));
    response
}

async fn decide(
    request: Request<Incoming>,
    source: IpAddr,
    network: &str,
    directory: &dyn Directory,
) -> Result<Answer> {
    // Only the address of the connection says who asks; a guest can write into a header what it likes.
    let Some(guest) = directory.guest(network, source) else {
        tracing::debug!(%network, %source, "metadata was asked for by an unknown address");
        return Ok(Answer::refuse(404, "No server of this network has your address."));
    };
    let path = request.uri().path().to_owned();
    let method = match *request.method() {
        http::Method::GET | http::Method::HEAD => Method::Read,
        http::Method::POST => match Limited::new(request.into_body(), PASSWORD_LIMIT + 1).collect().await {
            Ok(body) => Method::Post(body.to_bytes().to_vec()),
            Err(_) => return Ok(Answer::refuse(413, "The body is too large.")),
        },
        _ => Method::Other,
    };
    let mut seed = [0; 512];
    maru_base::random::fill(&mut seed);
    let password = if path.ends_with("/password") {
        directory.password(&guest.server.id).await?
    } else {
        None
    };
    let answer = respond(&method, &path, &guest, &seed, password.as_deref());
    if let Some(password) = answer.password.clone() {
        match directory.set_password(&guest.server.id, password).await {
            Err(e) if e.kind() == maru_base::ErrorKind::Conflict => {
                return Ok(Answer::refuse(
                    409,
                    "The password is set already; it can be posted once.",
                ));
            }
            other => other?,
        }
    }
    Ok(answer)
}
