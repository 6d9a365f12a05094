//! The listener: HTTP/1.1 and HTTP/2 on one TCP port, with TLS where it is on.

use crate::{
    Gateway, Pace,
    dispatch::Peer,
    wire::{Activity, Deadlined},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use maru_base::{Error, Result};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// TLS settings of a listener.
pub type Tls = Arc<rustls::ServerConfig>;

/// What a listener grants its clients. Each bound is there because someone will try what lies beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Bytes of a request's head (line and headers); more is answered 431.
    pub head_bytes: usize,
    /// Time for a TLS handshake, and for a request's head. On HTTP/1.1 a head is awaited from the end of the answer
    /// before it, so this is how long such a connection may be idle, too.
    pub head: Duration,
    /// A connection without a request for this time is closed, whatever it speaks.
    pub idle: Duration,
    /// How slowly a request's body may come; more slowly is answered 408.
    pub pace: Pace,
    /// A client that takes nothing of its answers for this time is cut off.
    pub write: Duration,
    /// Time that running requests have to finish once the listener is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            head_bytes: 128 << 10,
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            pace: Pace {
                grace: Duration::from_secs(30),
                bytes_per_second: 1_024,
            },
            write: Duration::from_secs(120),
            drain: Duration::from_secs(10),
        }
    }
}

/// Time that a connection has to say goodbye once it is idle.
const GOODBYE: Duration = Duration::from_secs(2);

/// A bound listener.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
}

impl Listener {
    /// Binds to an address.
    ///
    /// # Errors
    /// When the address is taken or not on this machine.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> Result<Self> {
        let tcp = TcpListener::bind(address).await.map_err(|e| {
            Error::internal(
                format!(
                    "Cannot listen on {address}; another process may have it. Choose another address with --listen."
                ),
                e,
            )
        })?;
        Ok(Self {
            tcp,
            tls,
            limits: Limits::default(),
        })
    }
    /// Sets what clients are granted.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
    /// The address that was bound (port 0 becomes a real one).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.tcp
            .local_addr()
            .map_err(|e| Error::internal("The listener has no address.", e))
    }
}

/// Serves until `stop` turns true; then no connection is taken any more and running requests get their time to finish.
pub async fn serve(listener: Listener, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let Listener { tcp, tls, limits } = listener;
    let permits = Arc::new(Semaphore::new(limits.connections));
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let permit = tokio::select! {
            p = Arc::clone(&permits).acquire_owned() => p,
            () = stopped(&mut stop) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, remote) = tokio::select! {
            accepted = tcp.accept() => match accepted {
                Ok(pair) => pair,
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end make room.
                    tracing::warn!(%error, "a connection cannot be taken; will try again");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay");
        }
        let serving = Serving {
            gateway: Arc::clone(&gateway),
            remote,
            limits,
            stop: stop.clone(),
        };
        let acceptor = acceptor.clone();
        let open = gateway.metrics().connection();
        tasks.spawn(async move {
            match acceptor {
                None => serving.connection(stream, "http").await,
                Some(acceptor) => serving.handshake(stream, &acceptor).await,
            }
            drop((permit, open));
        });
        while tasks.try_join_next().is_some() {}
    }
    // Refuse new connections from here on, instead of leaving them in the kernel's queue.
    drop(tcp);
    let drain = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drain).await.is_err() {
        tracing::warn!(
            seconds = limits.drain.as_secs(),
            "connections were cut at the end of their time to finish"
        );
    }
}

/// What serves one connection.
struct Serving {
    gateway: Arc<Gateway>,
    remote: SocketAddr,
    limits: Limits,
    stop: watch::Receiver<bool>,
}

impl Serving {
    async fn handshake(mut self, stream: TcpStream, acceptor: &tokio_rustls::TlsAcceptor) {
        let remote = self.remote;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.limits.head, acceptor.accept(stream)) => shaken,
            () = stopped(&mut self.stop) => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.connection(stream, "https").await,
            Ok(Err(error)) => tracing::debug!(%error, %remote, "TLS handshake failed"),
            Err(_) => tracing::debug!(%remote, "TLS handshake timed out"),
        }
    }

    async fn connection<S>(self, stream: S, scheme: &'static str)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            gateway,
            remote,
            limits,
            mut stop,
        } = self;
        let activity = Arc::new(Activity::default());
        let requests = Arc::clone(&activity);
        let service = hyper::service::service_fn(move |request| {
            let gateway = Arc::clone(&gateway);
            let peer = Peer {
                remote,
                scheme,
                pace: limits.pace,
                busy: Some(requests.begin()),
            };
            async move { Ok::<_, std::convert::Infallible>(gateway.handle(request, peer).await) }
        });
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(limits.idle / 2))
            .keep_alive_timeout(limits.head);
        let serving =
            builder.serve_connection_with_upgrades(TokioIo::new(Deadlined::new(stream, limits.write)), service);
        tokio::pin!(serving);
        let result = tokio::select! {
            r = serving.as_mut() => r,
            () = stopped(&mut stop) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            // On HTTP/2 a client can stop one stream by granting it nothing: no write ever waits for that.
            () = activity.stalled(limits.write) => {
                tracing::debug!(%remote, "connection cut: the client takes nothing");
                return;
            }
            () = activity.idle(limits.idle) => {
                serving.as_mut().graceful_shutdown();
                // A request that came at the last moment is still answered.
                tokio::select! {
                    r = serving => r,
                    () = activity.idle(GOODBYE.min(limits.idle)) => {
                        tracing::debug!(%remote, "idle connection cut");
                        return;
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(error = %error, %remote, "connection ended");
        }
    }
}

/// Waits until the stop is called, or its caller is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` gives must not live across an await of the caller.
    drop(stop.wait_for(|s| *s).await);
}
