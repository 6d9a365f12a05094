//! The other services of this process, asked as a client would ask them: with the caller's own token, so that their rules, quotas and
//! audit hold for what one service does for another's API.

use crate::{Gateway, Request};
use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use maru_base::{Error, Result};
use serde_json::Value;
use std::sync::{Arc, OnceLock, Weak};

/// Headers that go with the caller's question.
const PASSED: [&str; 3] = ["x-auth-token", "host", "x-forwarded-proto"];

/// A way to the gateway that the service itself is behind; [`Neighbours::connect`] opens it.
#[derive(Default)]
pub struct Neighbours(OnceLock<Weak<Gateway>>);

impl Neighbours {
    /// Opens the way; a second call changes nothing.
    pub fn connect(&self, gateway: &Arc<Gateway>) {
        let _ = self.0.set(Arc::downgrade(gateway));
    }

    /// Asks in the name of `request`'s caller: the status and the body (text as a JSON string, nothing as null).
    ///
    /// # Errors
    /// 503 while the services are not all there.
    pub async fn ask(
        &self,
        request: &Request,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(u16, Value)> {
        let gateway = self
            .0
            .get()
            .and_then(Weak::upgrade)
            .ok_or_else(|| Error::unavailable("The other services are not there yet; try again."))?;
        let mut asked = http::Request::builder().method(method).uri(path);
        for name in PASSED {
            if let Some(value) = request.headers.get(name) {
                asked = asked.header(name, value);
            }
        }
        if let Ok(id) = HeaderValue::from_str(&request.id) {
            asked = asked.header("x-openstack-request-id", id);
        }
        let bytes = match body {
            None => Bytes::new(),
            Some((media, value)) => {
                asked = asked.header("content-type", media);
                Bytes::from(value.to_string())
            }
        };
        let asked = asked
            .body(bytes)
            .map_err(|e| Error::internal("another service was not asked", e))?;
        let answer = gateway.call(asked).await;
        let status = answer.status().as_u16();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| Error::internal("another service's answer broke off", e))?
            .to_bytes();
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok((status, value))
    }
}
