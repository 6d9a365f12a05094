//! Lanes over the wire: the control plane asks for one on the session's stream, the agent opens it by a call.
//!
//! ```text
//!  control plane                         node
//!   Lanes::vnc(server)
//!     Down::Lane { id, Vnc } ───────────►
//!                            ◄─────────── call Lane, first message { id }
//!                            ◄─────────── Open, or Error: what the node says to it
//!     Data ⇄ Data … End
//! ```
//! The id is random, of one use, and opened by the node that was asked or by nobody.

use crate::frame::{Frame, Sink, next, opened, reader, send_all};
use crate::wire::{Ask, Down, decode};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use maru_agent_api::{
    NodeName,
    lane::{ByteStream, Duplex, Lanes},
};
use maru_base::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
};
use tonic::Streaming;

/// How long a node may take to open a lane that it was asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of an answer that is not streamed on.
const ANSWER: u64 = 64 << 20;
/// Bytes that wait between a console and its reader.
const PIPE: usize = 64 << 10;

/// A lane that the node has opened: what comes from there, and how to send to it.
pub(crate) struct Opened {
    pub from: Streaming<Bytes>,
    pub to: Sink,
}

/// Lanes that were asked for and are not open yet.
#[derive(Default)]
pub(crate) struct Pending(Mutex<HashMap<String, (NodeName, oneshot::Sender<Opened>)>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (NodeName, oneshot::Sender<Opened>)>> {
        // Every change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes a lane for the node that it was asked of.
    pub(crate) fn take(&self, lane: &str, node: &NodeName) -> Result<oneshot::Sender<Opened>> {
        let mut pending = self.lock();
        match pending.get(lane) {
            Some((asked, _)) if asked == node => {}
            _ => {
                return Err(Error::not_found(
                    "Nobody asked this node for that lane, or not any more.",
                ));
            }
        }
        pending
            .remove(lane)
            .map(|(_, waiter)| waiter)
            .ok_or_else(|| Error::not_found("Nobody waits for that lane."))
    }
}

/// Forgets a lane that its asker no longer waits for.
struct Asked<'a> {
    pending: &'a Pending,
    lane: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.lane);
    }
}

/// The lanes of a node at the other end of a session.
pub(crate) struct RemoteLanes {
    pub node: NodeName,
    pub down: mpsc::Sender<Down>,
    pub pending: Arc<Pending>,
}

impl RemoteLanes {
    async fn open(&self, ask: Ask) -> Result<Opened> {
        let gone = || {
            Error::unavailable(format!(
                "Node {} is not connected; try again when it is back.",
                self.node
            ))
        };
        let (sender, waiter) = oneshot::channel();
        let lane = maru_base::random::hex32();
        self.pending.lock().insert(lane.clone(), (self.node.clone(), sender));
        let asked = Asked {
            pending: &self.pending,
            lane: lane.clone(),
        };
        let opening = async {
            self.down.send(Down::Lane { lane, ask }).await.map_err(|_| gone())?;
            tokio::select! {
                opened = waiter => opened.map_err(|_| gone()),
                () = self.down.closed() => Err(gone()),
            }
        };
        let mut lane = match tokio::time::timeout(PATIENCE, opening).await {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(Error::unavailable(format!(
                    "Node {} did not answer within {} s; try again.",
                    self.node,
                    PATIENCE.as_secs()
                )));
            }
        };
        drop(asked);
        opened(&mut lane.from).await?;
        Ok(lane)
    }
    /// The whole answer.
    async fn bytes(&self, ask: Ask) -> Result<Vec<u8>> {
        let lane = self.open(ask).await?;
        let mut answer = Vec::new();
        reader(lane.from)
            .take(ANSWER)
            .read_to_end(&mut answer)
            .await
            .map_err(|e| {
                Error::unavailable(format!("The answer of node {} was cut; try again.", self.node)).with_source(e)
            })?;
        Ok(answer)
    }
    async fn value<T: DeserializeOwned>(&self, ask: Ask) -> Result<T> {
        decode(&self.bytes(ask).await?)
    }
    async fn stream(&self, ask: Ask) -> Result<ByteStream> {
        let lane = self.open(ask).await?;
        Ok(Box::new(KeptOpen {
            from: Box::new(reader(lane.from)),
            _to: lane.to,
        }))
    }
    async fn duplex(&self, ask: Ask) -> Result<Box<dyn Duplex>> {
        let mut lane = self.open(ask).await?;
        let (near, far) = tokio::io::duplex(PIPE);
        tokio::spawn(async move { splice(far, &mut lane.from, &lane.to).await });
        Ok(Box::new(near))
    }
}

/// A reader that keeps its lane's other direction open as long as it is read.
struct KeptOpen {
    from: ByteStream,
    _to: Sink,
}

impl tokio::io::AsyncRead for KeptOpen {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.from).poll_read(cx, into)
    }
}

/// Carries bytes both ways until either side ends.
async fn splice(
    socket: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
    from: &mut Streaming<Bytes>,
    to: &Sink,
) {
    let (read, mut write) = tokio::io::split(socket);
    let inward = async {
        while let Ok(Frame::Data(bytes)) = next(from).await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        write.shutdown().await.ok();
    };
    tokio::select! {
        () = inward => {}
        () = send_all(read, to) => {}
    }
}

#[async_trait]
impl Lanes for RemoteLanes {
    async fn console_log(&self, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        let server = server.to_owned();
        self.bytes(Ask::ConsoleLog { server, lines }).await
    }
    async fn vnc(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.duplex(Ask::Vnc {
            server: server.to_owned(),
        })
        .await
    }
    async fn serial(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.duplex(Ask::Serial {
            server: server.to_owned(),
        })
        .await
    }
    async fn disk_image(&self, server: &str) -> Result<ByteStream> {
        self.stream(Ask::DiskImage {
            server: server.to_owned(),
        })
        .await
    }
    async fn volume_bytes(&self, id: &str, format: &str) -> Result<ByteStream> {
        let (id, format) = (id.to_owned(), format.to_owned());
        self.stream(Ask::VolumeBytes { id, format }).await
    }
    async fn diagnostics(&self, server: &str) -> Result<Value> {
        self.value(Ask::Diagnostics {
            server: server.to_owned(),
        })
        .await
    }
    async fn inject_nmi(&self, server: &str) -> Result<()> {
        self.value(Ask::InjectNmi {
            server: server.to_owned(),
        })
        .await
    }
    async fn password(&self, server: &str) -> Result<Option<Vec<u8>>> {
        self.value(Ask::Password {
            server: server.to_owned(),
        })
        .await
    }
    async fn clear_password(&self, server: &str) -> Result<()> {
        self.value(Ask::ClearPassword {
            server: server.to_owned(),
        })
        .await
    }
    async fn cache_image(&self, digest: &str, format: &str) -> Result<()> {
        let (digest, format) = (digest.to_owned(), format.to_owned());
        self.value(Ask::CacheImage { digest, format }).await
    }
    async fn origin(&self, server: &str) -> Result<String> {
        self.value(Ask::Origin {
            server: server.to_owned(),
        })
        .await
    }
    async fn discard(&self, what: &str, id: &str) -> Result<()> {
        let (what, id) = (what.to_owned(), id.to_owned());
        self.value(Ask::Discard { what, id }).await
    }
}

/// What a node has to say to an ask.
enum Answer {
    Bytes(Vec<u8>),
    Stream(ByteStream),
    Duplex(Box<dyn Duplex>),
}

fn json(value: impl serde::Serialize) -> Result<Answer> {
    Ok(Answer::Bytes(crate::wire::encode(&value)?.to_vec()))
}

async fn carry_out(lanes: &dyn Lanes, ask: Ask) -> Result<Answer> {
    match ask {
        Ask::ConsoleLog { server, lines } => lanes.console_log(&server, lines).await.map(Answer::Bytes),
        Ask::Vnc { server } => lanes.vnc(&server).await.map(Answer::Duplex),
        Ask::Serial { server } => lanes.serial(&server).await.map(Answer::Duplex),
        Ask::DiskImage { server } => lanes.disk_image(&server).await.map(Answer::Stream),
        Ask::VolumeBytes { id, format } => lanes.volume_bytes(&id, &format).await.map(Answer::Stream),
        Ask::Diagnostics { server } => json(lanes.diagnostics(&server).await?),
        Ask::InjectNmi { server } => json(lanes.inject_nmi(&server).await?),
        Ask::Password { server } => json(lanes.password(&server).await?),
        Ask::ClearPassword { server } => json(lanes.clear_password(&server).await?),
        Ask::CacheImage { digest, format } => json(lanes.cache_image(&digest, &format).await?),
        Ask::Origin { server } => json(lanes.origin(&server).await?),
        Ask::Discard { what, id } => json(lanes.discard(&what, &id).await?),
    }
}

/// The node's end: carries out what was asked and sends what comes of it.
pub(crate) async fn serve(lanes: Arc<dyn Lanes>, ask: Ask, mut from: Streaming<Bytes>, to: Sink) {
    let answer = tokio::select! {
        answer = carry_out(lanes.as_ref(), ask) => answer,
        () = to.closed() => return,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(error = %error.chain(), "a lane is refused");
            to.send(&Frame::Error(error)).await;
            return leave(from, to).await;
        }
    };
    if !to.send(&Frame::Open).await {
        return;
    }
    match answer {
        Answer::Bytes(bytes) => send_all(bytes.as_slice(), &to).await,
        Answer::Stream(stream) => send_all(stream, &to).await,
        Answer::Duplex(socket) => {
            splice(socket, &mut from, &to).await;
        }
    }
    leave(from, to).await;
}

/// Ends a lane after the control plane has: leaving first would cancel the call, and what is still on its way with it.
async fn leave(mut from: Streaming<Bytes>, to: Sink) {
    drop(to);
    let left = async { while let Some(Ok(_)) = from.next().await {} };
    tokio::time::timeout(PATIENCE, left).await.ok();
}
