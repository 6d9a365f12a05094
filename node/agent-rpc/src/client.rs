//! The node's end.

use crate::codec::Raw;
use crate::frame::{Sink, opened, reader};
use crate::wire::{
    Ask, Down, JoinRequest, Joined, LARGEST, LaneHeader, Pull, Renew, Reports, SERVICE, decode, encode, from_status,
};
use crate::{CONTROL_NAME, lane};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use maru_agent_api::{
    ControlPlane, Delivery, Session,
    lane::{ByteStream, Lanes},
    observed::{Hello, Report},
};
use maru_base::{Error, ErrorKind, Result};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// How long a connection may take, with its handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection is asked whether the other end is there, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// How long a call may take that only stores something.
const CALL: Duration = Duration::from_secs(30);
/// How long a node's first word may take to be answered: its inventory is stored.
const HELLO: Duration = Duration::from_secs(30);
/// Deliveries that wait for the agent; then the stream waits for it.
const WAITING: usize = 1_024;

/// A connection to one of the control plane's nodes.
pub(crate) async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Channel> {
    let target = address.to_owned();
    let connector = service_fn(move |_: Uri| {
        let (target, tls) = (target.clone(), Arc::clone(&tls));
        async move {
            let stream = TcpStream::connect(&target).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(CONTROL_NAME).map_err(io::Error::other)?;
            let stream = TlsConnector::from(tls).connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://control.maru")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20);
    let connecting = tokio::time::timeout(CONNECT, endpoint.connect_with_connector(connector));
    match connecting.await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(e)) => {
            Err(Error::unavailable(format!("The control plane at {address} cannot be reached.")).with_source(e))
        }
        Err(_) => Err(Error::unavailable(format!(
            "The control plane at {address} did not answer within {} s.",
            CONNECT.as_secs()
        ))),
    }
}

fn path(method: &'static str) -> http::uri::PathAndQuery {
    // Each is a constant of this file.
    format!("/{SERVICE}/{method}")
        .parse()
        .unwrap_or_else(|_| http::uri::PathAndQuery::from_static("/"))
}

async fn grpc(channel: Channel) -> Result<Grpc<Channel>> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
    grpc.ready()
        .await
        .map_err(|e| Error::unavailable("The connection to the control plane is lost.").with_source(e))?;
    Ok(grpc)
}

pub(crate) async fn unary(channel: Channel, method: &'static str, message: Bytes) -> Result<Bytes> {
    let call = async {
        let answer = grpc(channel)
            .await?
            .unary(Request::new(message), path(method), Raw)
            .await;
        answer.map(tonic::Response::into_inner).map_err(from_status)
    };
    tokio::time::timeout(CALL, call).await.unwrap_or_else(|_| {
        Err(Error::unavailable(format!(
            "The control plane did not answer within {} s.",
            CALL.as_secs()
        )))
    })
}

pub(crate) async fn stream(channel: Channel, method: &'static str, message: Bytes) -> Result<Streaming<Bytes>> {
    let answer = grpc(channel)
        .await?
        .server_streaming(Request::new(message), path(method), Raw)
        .await;
    answer.map(tonic::Response::into_inner).map_err(from_status)
}

/// Joins a cloud: shows a token to the control plane whose CA has this hash.
///
/// # Errors
/// Why it is refused, and what would help.
pub async fn join(address: &str, ca_hash: &str, request: &JoinRequest) -> Result<Joined> {
    let channel = connect(address, crate::tls::joining(ca_hash)?).await?;
    let joined: Joined = decode(&unary(channel, "Join", encode(request)?).await?)?;
    if crate::tls::hash(&joined.ca)? != ca_hash.to_ascii_lowercase() {
        return Err(Error::forbidden(
            "The control plane named another CA than the token does; nothing was joined.",
        ));
    }
    Ok(joined)
}

/// Gets a new certificate for the key of a request, shown the present one.
///
/// # Errors
/// Why it is refused.
pub async fn renew(address: &str, tls: Arc<ClientConfig>, csr: &str) -> Result<Joined> {
    let channel = connect(address, tls).await?;
    decode(&unary(channel, "Renew", encode(&Renew { csr: csr.to_owned() })?).await?)
}

/// A session's connection.
struct Live {
    session: Session,
    channel: Channel,
    lanes: watch::Sender<Option<Arc<dyn Lanes>>>,
}

/// The control plane, from a machine that has joined.
pub struct Remote {
    /// `address:port` of the control plane's nodes; tried in turn.
    control: Vec<String>,
    next: AtomicUsize,
    tls: watch::Receiver<Arc<ClientConfig>>,
    live: Mutex<Option<Live>>,
}

impl Remote {
    /// Over the control plane's addresses, with the node's certificate; a renewed one is used from the next connection on.
    #[must_use]
    pub fn new(control: Vec<String>, tls: watch::Receiver<Arc<ClientConfig>>) -> Self {
        Self {
            control,
            next: AtomicUsize::new(0),
            tls,
            live: Mutex::default(),
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        // Every change is one assignment.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of a session that has not ended.
    fn channel(&self, session: &Session) -> Result<Channel> {
        match &*self.live() {
            Some(live) if live.session == *session => Ok(live.channel.clone()),
            _ => Err(Error::new(
                ErrorKind::Gone,
                format!("The session of node {} has ended; connect again.", session.node),
            )),
        }
    }

    /// The first of the control plane's nodes that answers; each call begins with another one.
    async fn reach(&self) -> Result<Channel> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last = Error::unavailable("No address of the control plane is known; join again.");
        for n in 0..self.control.len() {
            let tls = Arc::clone(&self.tls.borrow());
            match connect(&self.control[(first + n) % self.control.len()], tls).await {
                Ok(channel) => return Ok(channel),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[async_trait]
impl ControlPlane for Remote {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let channel = self.reach().await?;
        let hello = encode(&hello)?;
        let beginning = async {
            let mut messages = stream(channel.clone(), "Connect", hello).await?;
            match messages.next().await {
                Some(Ok(first)) => match decode(&first)? {
                    Down::Connected(session) => Ok((session, messages)),
                    other => Err(Error::bad_request(format!("The control plane began with {other:?}."))),
                },
                Some(Err(status)) => Err(from_status(status)),
                None => Err(Error::unavailable("The control plane ended the session at once.")),
            }
        };
        let (session, messages) = tokio::time::timeout(HELLO, beginning).await.unwrap_or_else(|_| {
            Err(Error::unavailable(
                "The control plane did not begin the session in time.",
            ))
        })?;
        let (lanes, offered) = watch::channel(None);
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(read(messages, channel.clone(), sender, offered));
        *self.live() = Some(Live {
            session: session.clone(),
            channel,
            lanes,
        });
        Ok((session, receiver))
    }

    async fn report(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()> {
        let channel = self.channel(session)?;
        let message = encode(&Reports {
            session: session.clone(),
            sequence,
            reports,
        })?;
        unary(channel, "Report", message).await.map(drop)
    }

    async fn heartbeat(&self, session: &Session) -> Result<()> {
        unary(self.channel(session)?, "Heartbeat", encode(session)?)
            .await
            .map(drop)
    }

    async fn pull(&self, session: &Session, digest: &str) -> Result<ByteStream> {
        let message = encode(&Pull {
            session: session.clone(),
            digest: digest.to_owned(),
        })?;
        let mut messages = stream(self.channel(session)?, "Pull", message).await?;
        opened(&mut messages).await?;
        Ok(Box::new(reader(messages)))
    }

    async fn offer_lanes(&self, session: &Session, lanes: Arc<dyn Lanes>) -> Result<()> {
        self.channel(session)?;
        if let Some(live) = &*self.live() {
            live.lanes.send_replace(Some(lanes));
        }
        Ok(())
    }
}

/// Reads a session's stream until either end leaves.
async fn read(
    mut messages: Streaming<Bytes>,
    channel: Channel,
    to: mpsc::Sender<Delivery>,
    lanes: watch::Receiver<Option<Arc<dyn Lanes>>>,
) {
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = to.closed() => return,
        };
        let down = match message {
            Some(Ok(message)) => decode::<Down>(&message),
            Some(Err(status)) => Err(from_status(status)),
            None => return,
        };
        match down {
            Ok(Down::Delivery(delivery)) => {
                if to.send(delivery).await.is_err() {
                    return;
                }
            }
            Ok(Down::Lane { lane, ask }) => {
                tokio::spawn(open(channel.clone(), lane, ask, lanes.clone()));
            }
            Ok(Down::Connected(_)) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the session with the control plane ends");
                return;
            }
        }
    }
}

/// Opens a lane that the control plane asked for.
async fn open(channel: Channel, lane: String, ask: Ask, mut lanes: watch::Receiver<Option<Arc<dyn Lanes>>>) {
    // They are offered right after the session began.
    let Ok(lanes) = lanes.wait_for(Option::is_some).await.map(|l| l.clone()) else {
        return;
    };
    let (sender, requests) = mpsc::channel(4);
    let call = async {
        sender.send(encode(&LaneHeader { lane })?).await.ok();
        let requests = Request::new(ReceiverStream::new(requests));
        let answer = grpc(channel).await?.streaming(requests, path("Lane"), Raw).await;
        answer.map(tonic::Response::into_inner).map_err(from_status)
    };
    match (call.await, lanes) {
        (Ok(from), Some(lanes)) => lane::serve(lanes, ask, from, Sink::Request(sender)).await,
        (Err(error), _) => tracing::info!(error = %error.chain(), "a lane is not wanted any more"),
        (Ok(_), None) => {}
    }
}
