//! Request bodies: bounded, collected or streamed.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use maru_base::{Error, Result};

/// Body limits in bytes.
pub mod limits {
    /// A JSON body, unless the route says otherwise.
    pub const JSON: u64 = 1 << 20;
    /// No limit of its own (image data: the quota bounds it).
    pub const NONE: u64 = u64::MAX;
}

/// The body of a request.
pub(crate) enum RequestBody {
    Incoming(hyper::body::Incoming),
    Ready(Bytes),
    Taken,
}

fn too_large(limit: u64) -> Error {
    Error::too_large(format!(
        "The request body is larger than the {limit} bytes that this request takes."
    ))
}

impl RequestBody {
    pub(crate) async fn collect(&mut self, limit: u64) -> Result<Bytes> {
        match std::mem::replace(self, Self::Taken) {
            Self::Ready(bytes) if bytes.len() as u64 > limit => Err(too_large(limit)),
            Self::Ready(bytes) => Ok(bytes),
            Self::Taken => Ok(Bytes::new()),
            Self::Incoming(mut incoming) => {
                let mut first: Option<Bytes> = None;
                let mut all = BytesMut::new();
                let mut total = 0_u64;
                while let Some(frame) = incoming.frame().await {
                    let frame = frame.map_err(|e| {
                        Error::bad_request("The request body ended before it was complete.").with_source(e)
                    })?;
                    let Ok(data) = frame.into_data() else { continue };
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
            Self::Incoming(incoming) => {
                let mut total = 0_u64;
                Box::pin(incoming.into_data_stream().map(move |chunk| {
                    let chunk = chunk.map_err(std::io::Error::other)?;
                    total += chunk.len() as u64;
                    if total > limit {
                        Err(std::io::Error::other(too_large(limit)))
                    } else {
                        Ok(chunk)
                    }
                }))
            }
        }
    }
}
