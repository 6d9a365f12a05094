//! The listener: HTTP/1.1 and HTTP/2 on one TCP port, with TLS where it is on.

use crate::Gateway;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use maru_base::{Error, Result};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
};

/// TLS settings of a listener.
pub type Tls = Arc<rustls::ServerConfig>;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8_192;
/// A client that does not finish its request head in this time is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A bound listener.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Tls>,
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
        Ok(Self { tcp, tls })
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

/// Serves until `stop` turns true; then running requests get ten seconds to finish.
pub async fn serve(listener: Listener, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let acceptor = listener.tls.map(tokio_rustls::TlsAcceptor::from);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let permit = tokio::select! {
            p = Arc::clone(&permits).acquire_owned() => p,
            () = stopped(&mut stop) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, remote) = tokio::select! {
            accepted = listener.tcp.accept() => match accepted {
                Ok(pair) => pair,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay");
        }
        let gateway = Arc::clone(&gateway);
        let acceptor = acceptor.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            match acceptor {
                None => connection(stream, remote, "http", gateway, stop).await,
                Some(acceptor) => match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, remote, "https", gateway, stop).await,
                    Ok(Err(error)) => tracing::debug!(%error, %remote, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%remote, "TLS handshake timed out"),
                },
            }
            drop(permit);
        });
        while tasks.try_join_next().is_some() {}
    }
    let drain = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(10), drain).await.is_err() {
        tracing::warn!("connections were cut at the end of their ten seconds");
    }
}

async fn connection<S>(
    stream: S,
    remote: SocketAddr,
    scheme: &'static str,
    gateway: Arc<Gateway>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, std::convert::Infallible>(gateway.handle(request, remote, scheme).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(256 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(128);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        r = serving.as_mut() => r,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, %remote, "connection ended");
    }
}

/// Waits until the stop is called, or its caller is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` gives must not live across an await of the caller.
    drop(stop.wait_for(|s| *s).await);
}
