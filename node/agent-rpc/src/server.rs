//! The control plane's end.

use crate::codec::Raw;
use crate::frame::{Frame, Sink, send_all};
use crate::lane::{Opened, Pending, RemoteLanes};
use crate::tls::{self, Holder};
use crate::wire::{
    Down, JoinRequest, Joined, LARGEST, LaneHeader, Pull, Renew, Reports, SERVICE, decode, encode, to_status,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use maru_agent_api::{ControlPlane, Session, observed::Hello};
use maru_base::{Error, Result};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService},
    transport::server::Connected,
};
use tower::service_fn;

/// How long a machine may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: usize = 256;
/// How often an idle connection is asked whether it is there, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Messages that wait for a slow node; then who sends waits.
const WAITING: usize = 64;

/// Who lets machines in.
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// A machine that shows a token.
    async fn join(&self, request: JoinRequest, from: SocketAddr) -> Result<Joined>;
    /// A node whose certificate is to be renewed, with the key of the request.
    async fn renew(&self, holder: &Holder, csr: &str) -> Result<Joined>;
    /// Whether a holder of a certificate may come in: its node has not been removed, or joined anew with another key.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, holder: &Holder) -> Result<()>;
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    holder: Option<Holder>,
}

/// A connection after its handshake. It breaks when the server stops: agents go on, and connect again.
struct Secured {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for Secured {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Takes agents on a listener until told to stop.
///
/// # Errors
/// When the server cannot run.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    control: Arc<dyn ControlPlane>,
    registrar: Arc<dyn Registrar>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let (sender, incoming) = mpsc::channel(WAITING);
    let stopping = CancellationToken::new();
    let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(tls), sender, stopping.clone()));
    let door = Door {
        control,
        registrar,
        pending: Arc::default(),
    };
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(door)
        .serve_with_incoming(ReceiverStream::new(incoming));
    let outcome = tokio::select! {
        served = served => served.map_err(|e| Error::internal("Agents cannot be taken any more.", e)),
        _ = stop.wait_for(|s| *s) => Ok(()),
    };
    accepting.abort();
    stopping.cancel();
    outcome
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    to: mpsc::Sender<io::Result<Secured>>,
    stopping: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of an agent is not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, to, stopping) = (acceptor.clone(), to.clone(), stopping.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            drop(place);
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::info!(%address, %error, "a machine is refused: its certificate is not of this cloud");
                    return;
                }
                Err(_) => return,
            };
            stream.get_ref().0.set_nodelay(true).ok();
            let holder = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| tls::holder(chain.first()?));
            let peer = Peer { address, holder };
            let stopped = Box::pin(stopping.cancelled_owned());
            to.send(Ok(Secured { stream, peer, stopped })).await.ok();
        });
    }
}

/// The gRPC service.
#[derive(Clone)]
struct Door {
    control: Arc<dyn ControlPlane>,
    registrar: Arc<dyn Registrar>,
    pending: Arc<Pending>,
}

impl NamedService for Door {
    const NAME: &'static str = SERVICE;
}

/// The stream of an answer.
type Answers = ReceiverStream<Result<Bytes, Status>>;

impl tower::Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.clone();
        let mut grpc = Grpc::new(Raw).max_decoding_message_size(LARGEST);
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        async move {
            let answer = match method.as_str() {
                "Connect" => {
                    let one = service_fn(move |r| door.clone().connect(r).map(answered));
                    grpc.server_streaming(one, request).await
                }
                "Pull" => {
                    let one = service_fn(move |r| door.clone().pull(r).map(answered));
                    grpc.server_streaming(one, request).await
                }
                "Lane" => {
                    let one = service_fn(move |r| door.clone().lane(r).map(answered));
                    grpc.streaming(one, request).await
                }
                "Report" => {
                    let one = service_fn(move |r| door.clone().report(r).map(answered));
                    grpc.unary(one, request).await
                }
                "Heartbeat" => {
                    let one = service_fn(move |r| door.clone().heartbeat(r).map(answered));
                    grpc.unary(one, request).await
                }
                "Join" => {
                    let one = service_fn(move |r| door.clone().join(r).map(answered));
                    grpc.unary(one, request).await
                }
                "Renew" => {
                    let one = service_fn(move |r| door.clone().renew(r).map(answered));
                    grpc.unary(one, request).await
                }
                other => {
                    let error = Error::not_implemented(format!("This control plane has no call {other}."));
                    to_status(&error).into_http()
                }
            };
            Ok(answer)
        }
        .boxed()
    }
}

fn answered<T>(outcome: Result<T>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| {
        tracing::debug!(error = %error.chain(), "an agent's call is refused");
        to_status(&error)
    })
}

/// The node that a request comes from: the one of the connection's certificate.
fn holder<T>(request: &Request<T>) -> Result<Holder> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.holder.clone())
        .ok_or_else(|| Error::unauthorized("A node's certificate is needed; `maru join` gets one."))
}

impl Door {
    /// Refuses a session of another node.
    fn own(&self, holder: &Holder, session: &Session) -> Result<()> {
        if session.node == holder.node {
            return Ok(());
        }
        tracing::warn!(node = %holder.node, of = %session.node, "a node speaks for another one: refused");
        Err(Error::forbidden(format!(
            "The certificate is of node {}: it does not speak for node {}.",
            holder.node, session.node
        )))
    }

    async fn connect(self, request: Request<Bytes>) -> Result<Answers> {
        let holder = holder(&request)?;
        let hello: Hello = decode(request.get_ref())?;
        if hello.node != holder.node {
            tracing::warn!(node = %holder.node, of = %hello.node, "a node speaks for another one: refused");
            return Err(Error::forbidden(format!(
                "The certificate is of node {}: it does not speak for node {}.",
                holder.node, hello.node
            )));
        }
        self.registrar.admit(&holder)?;
        let (session, mut deliveries) = self.control.connect(hello).await?;
        let (down, mut asked) = mpsc::channel(WAITING);
        let lanes = RemoteLanes {
            node: holder.node,
            down,
            pending: Arc::clone(&self.pending),
        };
        self.control.offer_lanes(&session, Arc::new(lanes)).await?;
        let (sender, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut next = Some(Down::Connected(session));
            while let Some(message) = next {
                let message = encode(&message).map_err(|e| to_status(&e));
                if sender.send(message).await.is_err() {
                    return;
                }
                next = tokio::select! {
                    delivery = deliveries.recv() => delivery.map(Down::Delivery),
                    Some(lane) = asked.recv() => Some(lane),
                    () = sender.closed() => return,
                };
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn report(self, request: Request<Bytes>) -> Result<Bytes> {
        let holder = holder(&request)?;
        let reports: Reports = decode(request.get_ref())?;
        self.own(&holder, &reports.session)?;
        self.control
            .report(&reports.session, reports.sequence, reports.reports)
            .await?;
        Ok(Bytes::new())
    }

    async fn heartbeat(self, request: Request<Bytes>) -> Result<Bytes> {
        let holder = holder(&request)?;
        let session: Session = decode(request.get_ref())?;
        self.own(&holder, &session)?;
        self.control.heartbeat(&session).await?;
        Ok(Bytes::new())
    }

    async fn pull(self, request: Request<Bytes>) -> Result<Answers> {
        let holder = holder(&request)?;
        let pull: Pull = decode(request.get_ref())?;
        self.own(&holder, &pull.session)?;
        let bytes = self.control.pull(&pull.session, &pull.digest).await?;
        let (sender, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            let sink = Sink::Answer(sender);
            if sink.send(&Frame::Open).await {
                send_all(bytes, &sink).await;
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn lane(self, request: Request<Streaming<Bytes>>) -> Result<Answers> {
        let holder = holder(&request)?;
        let mut from = request.into_inner();
        let first = match tokio::time::timeout(HANDSHAKE, from.next()).await {
            Ok(Some(Ok(message))) => message,
            _ => return Err(Error::bad_request("A lane begins with its id.")),
        };
        let header: LaneHeader = decode(&first)?;
        let waiter = self.pending.take(&header.lane, &holder.node)?;
        let (sender, stream) = mpsc::channel(4);
        let opened = Opened {
            from,
            to: Sink::Answer(sender),
        };
        waiter
            .send(opened)
            .map_err(|_| Error::not_found("Nobody waits for that lane any more."))?;
        Ok(ReceiverStream::new(stream))
    }

    async fn join(self, request: Request<Bytes>) -> Result<Bytes> {
        let address = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.address)
            .ok_or_else(|| Error::unauthorized("The connection has no address."))?;
        let joined = self.registrar.join(decode(request.get_ref())?, address).await?;
        encode(&joined)
    }

    async fn renew(self, request: Request<Bytes>) -> Result<Bytes> {
        let holder = holder(&request)?;
        self.registrar.admit(&holder)?;
        let renew: Renew = decode(request.get_ref())?;
        encode(&self.registrar.renew(&holder, &renew.csr).await?)
    }
}
