//! WebSockets (RFC 6455): a request that turns into a two-way stream of bytes.

use crate::{Reply, Request};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use maru_base::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// Most bytes that are read from the stream, and that the client may send, as one message.
const MESSAGE: usize = 1 << 16;

/// Whether a header that is a list has this word.
fn has(request: &Request, header: &str, word: &str) -> bool {
    let words = request.header(header).unwrap_or_default().split(',');
    words.into_iter().any(|w| w.trim().eq_ignore_ascii_case(word))
}

impl Request {
    /// Whether the client asks for a WebSocket.
    #[must_use]
    pub fn asks_for_websocket(&self) -> bool {
        has(self, "connection", "upgrade") && has(self, "upgrade", "websocket")
    }

    /// Answers 101, and joins the client with `stream` from then on until either ends: what the client sends, binary or text, goes
    /// into the stream, and what comes out of it goes to the client as binary messages. Of the subprotocols that the client offers
    /// it chooses `binary`, as proxies of consoles do, or none. `held` is dropped when it has ended.
    ///
    /// # Errors
    /// 400 for a request that is no opening handshake, and on connections that cannot be turned into anything else (HTTP/2).
    pub fn join_websocket<S, H>(&mut self, stream: S, held: H) -> Result<Reply>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Send + 'static,
    {
        let refuse = |why: &str| {
            Error::bad_request(format!(
                "This address is for WebSockets (RFC 6455): {why}. Use a client that speaks them, such as noVNC."
            ))
        };
        if !self.asks_for_websocket() {
            return Err(refuse("the request does not ask to upgrade to one"));
        }
        if self.header("sec-websocket-version") != Some("13") {
            return Err(refuse("Sec-WebSocket-Version must be 13"));
        }
        let key = self.header("sec-websocket-key").filter(|k| k.len() == 24);
        let accept = derive_accept_key(key.ok_or_else(|| refuse("Sec-WebSocket-Key is missing"))?.as_bytes());
        let upgrade = self
            .upgrade
            .take()
            .ok_or_else(|| refuse("this connection cannot become one; use HTTP/1.1"))?;
        let binary = has(self, "sec-websocket-protocol", "binary");
        let request_id = self.id.clone();
        tokio::spawn(async move {
            let ended = match upgrade.await {
                Ok(upgraded) => join(TokioIo::new(upgraded), stream).await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            tracing::debug!(%request_id, ?ended, "a WebSocket ended");
            drop(held);
        });
        let reply = Reply::empty(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", &accept);
        Ok(if binary {
            reply.header("sec-websocket-protocol", "binary")
        } else {
            reply
        })
    }
}

/// Carries bytes both ways until one side ends.
async fn join<C, S>(client: C, stream: S) -> tungstenite::Result<()>
where
    C: AsyncRead + AsyncWrite + Send + Unpin,
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut out, mut into) = tokio::io::split(stream);
    let down = async {
        let mut buffer = vec![0; MESSAGE / 4];
        loop {
            match out.read(&mut buffer).await? {
                0 => return to_client.close().await,
                n => to_client.send(Message::binary(buffer[..n].to_vec())).await?,
            }
        }
    };
    let up = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) => into.write_all(&bytes).await?,
                Message::Text(text) => into.write_all(text.as_bytes()).await?,
                Message::Close(_) => break,
                // Pings are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = down => ended,
        ended = up => ended,
    }
}
