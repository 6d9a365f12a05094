//! A request as handlers see it.

use crate::{Microversion, Query, body::RequestBody};
use bytes::Bytes;
use http::{HeaderMap, Method};
use maru_auth::{Caller, Policy, Target};
use maru_base::{Error, RequestId, Result};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A request as handlers see it.
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path below the service's prefix.
    pub path: String,
    /// Parsed query string.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// The request's id.
    pub id: RequestId,
    /// The negotiated microversion; 0.0 where the service has none.
    pub version: Microversion,
    /// `http://host:port` and the service's prefix, for links: `http://127.0.0.1:5000/compute`.
    pub base: String,
    /// Address of the client.
    pub remote: std::net::IpAddr,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) rule: Option<&'static str>,
    pub(crate) body: RequestBody,
    pub(crate) body_limit: u64,
    /// What the connection can be turned into, over HTTP/1.1.
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Request {
    /// The verified caller.
    ///
    /// # Errors
    /// 401 on a public route without a token.
    pub fn caller(&self) -> Result<&Arc<Caller>> {
        self.caller
            .as_ref()
            .ok_or_else(|| Error::unauthorized("The request you have made requires authentication."))
    }
    /// A path parameter; empty if the route has none of that name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str())
    }
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
    /// Whether the negotiated microversion is at least 2.`minor` (of major `major`).
    #[must_use]
    pub fn at_least(&self, major: u16, minor: u16) -> bool {
        self.version >= Microversion::new(major, minor)
    }
    /// Checks the route's rule against an object's attributes.
    ///
    /// # Errors
    /// 403 that names the rule.
    pub fn authorize(&self, target: &Target) -> Result<()> {
        match self.rule {
            Some(rule) => self.authorize_rule(rule, target),
            None => Ok(()),
        }
    }
    /// Checks another rule against an object's attributes.
    ///
    /// # Errors
    /// 403 that names the rule.
    pub fn authorize_rule(&self, rule: &str, target: &Target) -> Result<()> {
        if self.may(rule, target) {
            Ok(())
        } else {
            Err(denied(rule))
        }
    }
    /// Whether the caller may do `rule` to `target`.
    #[must_use]
    pub fn may(&self, rule: &str, target: &Target) -> bool {
        self.caller
            .as_ref()
            .is_some_and(|caller| self.policy.allows(rule, caller, target))
    }
    /// The whole body, at most the route's limit.
    ///
    /// # Errors
    /// 413 beyond the limit; 400 when the client stops in the middle.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        self.body.collect(self.body_limit).await
    }
    /// The body as JSON of a type; errors name the field.
    ///
    /// # Errors
    /// 400 with the field's name, 413, 415.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let bytes = self.json_bytes().await?;
        let mut de = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut de).map_err(|e| {
            let field = e.path().to_string();
            let cause = e.into_inner();
            if !cause.is_data() {
                Error::bad_request(format!("The request body is not valid JSON: {cause}."))
            } else if field == "." {
                Error::bad_request(format!("The request body is not valid: {cause}."))
            } else {
                Error::invalid(
                    field.clone(),
                    format!("Invalid input for field/attribute {field}: {cause}."),
                )
            }
        })?;
        de.end()
            .map_err(|e| Error::bad_request(format!("The request body is not valid JSON: {e}.")))?;
        Ok(value)
    }
    /// The body as untyped JSON.
    ///
    /// # Errors
    /// 400, 413, 415.
    pub async fn json_value(&mut self) -> Result<serde_json::Value> {
        self.json().await
    }
    /// Takes the body as a stream of chunks; the route's limit holds on the whole.
    pub fn take_stream(&mut self) -> crate::ByteStream {
        self.body.take_stream(self.body_limit)
    }

    async fn json_bytes(&mut self) -> Result<Bytes> {
        if let Some(kind) = self.header("content-type") {
            let essence = kind.split(';').next().unwrap_or("").trim();
            let json = essence.eq_ignore_ascii_case("application/json")
                || essence.to_ascii_lowercase().ends_with("+json")
                || essence.eq_ignore_ascii_case("text/plain");
            if !essence.is_empty() && !json {
                return Err(Error::new(
                    maru_base::ErrorKind::UnsupportedMedia,
                    format!("The body is '{essence}'; this request takes application/json."),
                ));
            }
        }
        let bytes = self.bytes().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::bad_request("The request has no body; it takes a JSON object."));
        }
        std::str::from_utf8(&bytes).map_err(|_| Error::bad_request("The request body is not valid UTF-8."))?;
        Ok(bytes)
    }
}

/// The refusal of a rule.
pub(crate) fn denied(rule: &str) -> Error {
    Error::forbidden(format!("Policy doesn't allow {rule} to be performed."))
}
