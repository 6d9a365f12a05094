//! Answers.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use maru_base::{Error, Result};
use serde::Serialize;
use std::pin::Pin;

/// A body that is streamed.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// The body of an answer.
pub(crate) enum ReplyBody {
    Empty,
    Bytes(Bytes),
    Stream(ByteStream),
}

/// An answer.
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ReplyBody,
}

impl Reply {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status: code(status),
            headers: HeaderMap::new(),
            body: ReplyBody::Empty,
        }
    }
    /// A JSON answer.
    ///
    /// # Errors
    /// 500 when the value cannot be encoded.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|e| Error::internal("The answer could not be encoded.", e))?;
        Ok(Self::raw_json(status, bytes))
    }
    /// A JSON answer whose text is ready.
    #[must_use]
    pub fn raw_json(status: u16, text: impl Into<Bytes>) -> Self {
        Self::bytes(status, "application/json", text)
    }
    /// An answer of bytes.
    #[must_use]
    pub fn bytes(status: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status: code(status),
            headers,
            body: ReplyBody::Bytes(bytes.into()),
        }
    }
    /// A streamed answer; `length` in bytes, if known.
    #[must_use]
    pub fn stream(status: u16, content_type: &'static str, length: Option<u64>, stream: ByteStream) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(n) = length {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(n));
        }
        Self {
            status: code(status),
            headers,
            body: ReplyBody::Stream(stream),
        }
    }
    /// Sets a header; one that is not valid in HTTP is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.insert(name, value);
        }
        self
    }
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
