//! Request bodies: bounded in bytes and in time, collected or streamed.
//!
//! ```text
//!   frames ──► Upload ──► collect (JSON: at most the route's limit)
//!                │   └──► stream  (uploads)
//!                └ dropped before its end: the rest is read and thrown away for a moment, so that a client that is
//!                  still sending can read why it was refused; then the connection is closed
//! ```
//! Time counts only while we wait for the client: a client may take a grace time plus one second for each
//! [`Pace::bytes_per_second`] that it has sent.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use maru_base::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::time::Instant;

/// Body limits in bytes.
pub mod limits {
    /// A JSON body, unless the route says otherwise.
    pub const JSON: u64 = 1 << 20;
    /// No limit of its own (image data: the quota bounds it).
    pub const NONE: u64 = u64::MAX;
}

/// How slowly a client may send a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time that any client has, however little it sends.
    pub grace: Duration,
    /// Each of these many bytes earns a second more.
    pub bytes_per_second: u64,
}

/// The rest of a refused body is read for at most this time ...
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// ... and at most so many bytes.
const DRAIN_BYTES: u64 = 256 << 20;

/// The body of a request.
pub(crate) enum RequestBody {
    Incoming(Upload),
    Ready(Bytes),
    Taken,
}

/// A body on its way in.
pub(crate) struct Upload {
    incoming: Option<Incoming>,
    pace: Pace,
    received: u64,
    waited: Duration,
    /// The client waits for leave to send (`Expect: 100-continue`): reading on would give it.
    expects: bool,
}

fn too_large(limit: u64) -> Error {
    Error::too_large(format!(
        "The request body is larger than the {limit} bytes that this request takes."
    ))
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, pace: Pace, expects: bool) -> Self {
        Self {
            incoming: Some(incoming),
            pace,
            received: 0,
            waited: Duration::ZERO,
            expects,
        }
    }

    /// What the client said the length is, if it did.
    fn announced(&self) -> u64 {
        self.incoming.as_ref().map_or(0, |i| i.size_hint().lower())
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let incoming = self.incoming.as_mut()?;
            let earned = Duration::from_secs(self.received / self.pace.bytes_per_second.max(1));
            let left = (self.pace.grace + earned).saturating_sub(self.waited);
            let begun = Instant::now();
            let frame = tokio::time::timeout(left, incoming.frame()).await;
            // From here on the client has had its leave to send.
            self.expects = false;
            let failed = match frame {
                Ok(Some(Ok(frame))) => {
                    self.waited += begun.elapsed();
                    let Ok(data) = frame.into_data() else { continue };
                    self.received += data.len() as u64;
                    return Some(Ok(data));
                }
                Ok(None) => {
                    self.incoming = None;
                    return None;
                }
                Ok(Some(Err(e))) => Error::bad_request("The request body ended before it was complete.").with_source(e),
                Err(_) => Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "The request body came too slowly: {} bytes in {} s; a body must come at {} bytes per second or more.",
                        self.received,
                        (self.waited + left).as_secs(),
                        self.pace.bytes_per_second
                    ),
                ),
            };
            // Nothing more is taken from this client; the connection is closed with the answer.
            self.incoming = None;
            return Some(Err(failed));
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take() else {
            return;
        };
        if incoming.is_end_stream() || self.expects {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let mut left = DRAIN_BYTES;
            let rest = async {
                while let Some(Ok(frame)) = incoming.frame().await {
                    let n = frame.data_ref().map_or(0, |d| d.len() as u64);
                    left = left.saturating_sub(n);
                    if left == 0 {
                        break;
                    }
                }
            };
            tokio::time::timeout(DRAIN_TIME, rest).await.ok();
        });
    }
}

impl RequestBody {
    pub(crate) async fn collect(&mut self, limit: u64) -> Result<Bytes> {
        match std::mem::replace(self, Self::Taken) {
            Self::Ready(bytes) if bytes.len() as u64 > limit => Err(too_large(limit)),
            Self::Ready(bytes) => Ok(bytes),
            Self::Taken => Ok(Bytes::new()),
            Self::Incoming(mut upload) => {
                if upload.announced() > limit {
                    return Err(too_large(limit));
                }
                let mut first: Option<Bytes> = None;
                let mut all = BytesMut::new();
                let mut total = 0_u64;
                while let Some(data) = upload.next().await {
                    let data = data?;
                    total += data.len() as u64;
                    if total > limit {
                        return Err(too_large(limit));
                    }
                    // Most bodies are one frame: hand it on without a copy.
                    match first.take() {
                        None if all.is_empty() => first = Some(data),
                        None => all.extend_from_slice(&data),
                        Some(f) => {
                            all.extend_from_slice(&f);
                            all.extend_from_slice(&data);
                        }
                    }
                }
                Ok(first.unwrap_or_else(|| all.freeze()))
            }
        }
    }

    pub(crate) fn take_stream(&mut self, limit: u64) -> crate::ByteStream {
        match std::mem::replace(self, Self::Taken) {
            Self::Ready(bytes) => Box::pin(futures_util::stream::once(async move { Ok(bytes) })),
            Self::Taken => Box::pin(futures_util::stream::empty()),
            Self::Incoming(upload) => Box::pin(futures_util::stream::unfold(Some(upload), move |upload| async move {
                let mut upload = upload?;
                if upload.announced().saturating_add(upload.received) > limit {
                    return Some((Err(into_io(too_large(limit))), None));
                }
                match upload.next().await? {
                    Ok(data) if upload.received <= limit => Some((Ok(data), Some(upload))),
                    Ok(_) => Some((Err(into_io(too_large(limit))), None)),
                    Err(error) => Some((Err(into_io(error)), None)),
                }
            })),
        }
    }
}

/// The error as a stream carries it; [`ErrorKind::Timeout`] is a timeout there, too.
fn into_io(error: Error) -> std::io::Error {
    let kind = match error.kind() {
        ErrorKind::Timeout => std::io::ErrorKind::TimedOut,
        ErrorKind::BadRequest => std::io::ErrorKind::UnexpectedEof,
        _ => std::io::ErrorKind::Other,
    };
    std::io::Error::new(kind, error)
}
