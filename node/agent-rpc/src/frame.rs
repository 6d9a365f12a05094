//! Bytes in bulk: each message is a tag and its bytes. A stream that ends without [`Frame::End`] was cut, and is read as an error: a
//! cut image must never pass for a whole one.

use crate::wire::{WireError, decode, encode, from_status};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use maru_base::{Error, Result};
use std::io;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_util::io::StreamReader;
use tonic::Status;

/// Bytes of one frame.
const CHUNK: usize = 64 << 10;

/// One message of a byte stream.
#[derive(Debug)]
pub(crate) enum Frame {
    /// What was asked for is open: bytes follow.
    Open,
    /// Bytes.
    Data(Bytes),
    /// All of them have been sent.
    End,
    /// It cannot be opened, or cannot be read any further.
    Error(Error),
}

impl Frame {
    /// As a message.
    pub(crate) fn encode(&self) -> Bytes {
        let mut message = BytesMut::new();
        match self {
            Self::Open => message.put_u8(0),
            Self::Data(bytes) => {
                message.reserve(1 + bytes.len());
                message.put_u8(1);
                message.put_slice(bytes);
            }
            Self::End => message.put_u8(2),
            Self::Error(error) => {
                message.put_u8(3);
                message.put_slice(&encode(&WireError::from(error)).unwrap_or_default());
            }
        }
        message.freeze()
    }
    /// Out of a message.
    pub(crate) fn decode(mut message: Bytes) -> Result<Self> {
        if message.is_empty() {
            return Err(Error::bad_request("A frame of the other end is empty."));
        }
        let rest = message.split_off(1);
        match message[0] {
            0 => Ok(Self::Open),
            1 => Ok(Self::Data(rest)),
            2 => Ok(Self::End),
            3 => Ok(Self::Error(decode::<WireError>(&rest)?.into())),
            tag => Err(Error::bad_request(format!(
                "A frame of the other end has the unknown tag {tag}."
            ))),
        }
    }
}

/// A stream of messages.
pub(crate) trait Messages: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static {}
impl<T: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static> Messages for T {}

/// The next frame; a stream that ends is an error.
pub(crate) async fn next(messages: &mut (impl Messages + ?Sized)) -> Result<Frame> {
    match messages.next().await {
        Some(Ok(message)) => Frame::decode(message),
        Some(Err(status)) => Err(from_status(status)),
        None => Err(Error::unavailable(
            "The connection ended in the middle of a stream; try again.",
        )),
    }
}

/// Waits until the other end has opened what was asked for.
pub(crate) async fn opened(messages: &mut impl Messages) -> Result<()> {
    match next(messages).await? {
        Frame::Open => Ok(()),
        Frame::Error(error) => Err(error),
        other => Err(Error::bad_request(format!(
            "The other end sent {other:?} before it opened the stream."
        ))),
    }
}

/// The bytes that follow, to be read.
pub(crate) fn reader(messages: impl Messages) -> impl AsyncRead + Send + Unpin {
    let frames = stream::try_unfold(Some(messages), |messages| async {
        let Some(mut messages) = messages else { return Ok(None) };
        match next(&mut messages).await {
            Ok(Frame::Data(bytes)) => Ok(Some((bytes, Some(messages)))),
            Ok(Frame::End) => Ok(None),
            Ok(Frame::Open) => Ok(Some((Bytes::new(), Some(messages)))),
            Ok(Frame::Error(error)) | Err(error) => Err(io::Error::other(error)),
        }
    });
    // An empty chunk would be read as the end.
    let some = frames.filter(|chunk| std::future::ready(!matches!(chunk, Ok(bytes) if bytes.is_empty())));
    StreamReader::new(Box::pin(some))
}

/// Who takes messages.
#[derive(Clone)]
pub(crate) enum Sink {
    /// A server's answer.
    Answer(mpsc::Sender<Result<Bytes, Status>>),
    /// A client's request.
    Request(mpsc::Sender<Bytes>),
}

impl Sink {
    /// Sends a frame; says whether anyone took it.
    pub(crate) async fn send(&self, frame: &Frame) -> bool {
        let message = frame.encode();
        match self {
            Self::Answer(to) => to.send(Ok(message)).await.is_ok(),
            Self::Request(to) => to.send(message).await.is_ok(),
        }
    }
    /// Waits until nobody takes messages any more.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Answer(to) => to.closed().await,
            Self::Request(to) => to.closed().await,
        }
    }
}

/// Sends what is read, with the end or the error after it. Stops when nobody takes it any more.
pub(crate) async fn send_all(mut from: impl AsyncRead + Send + Unpin, to: &Sink) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        let mut chunk = (&mut from).take(CHUNK as u64);
        let read = tokio::select! {
            read = chunk.read_buf(&mut buffer) => read,
            () = to.closed() => return,
        };
        let frame = match read {
            Ok(0) => Frame::End,
            Ok(_) => Frame::Data(buffer.split().freeze()),
            Err(e) => Frame::Error(Error::unavailable("The bytes cannot be read any further.").with_source(e)),
        };
        if !to.send(&frame).await || !matches!(frame, Frame::Data(_)) {
            return;
        }
    }
}
