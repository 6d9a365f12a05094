//! Requests through the gateway, and what came back.

use crate::{Actor, Crashed, Kit};
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `GET /compute/v2.1/servers`, for messages of tests.
    pub asked: String,
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// A header's text; empty without it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {} {}",
            self.asked,
            self.status,
            self.text()
        );
        self.json()
    }
    /// The JSON of an answer that must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self.json()
    }
}

impl Kit {
    /// Sends a request; the control plane must not crash meanwhile.
    ///
    /// `body` of `Null` sends none.
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        self.try_call(method, path, token, body)
            .await
            .unwrap_or_else(|_| panic!("{method} {path}: the control plane crashed"))
    }
    /// Sends a request.
    ///
    /// # Errors
    /// When the control plane crashed before it answered.
    pub async fn try_call(&self, method: &str, path: &str, token: &str, body: Value) -> Result<Answer, Crashed> {
        let bytes = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        self.raw(method, path, token, "application/json", bytes).await
    }
    /// Sends a request with a body of bytes; an empty `content_type` or `token` leaves that header out.
    ///
    /// # Errors
    /// When the control plane crashed before it answered.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        token: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, Crashed> {
        let mut headers = Vec::new();
        if !token.is_empty() {
            headers.push(("x-auth-token", token));
        }
        if !content_type.is_empty() && !body.is_empty() {
            headers.push(("content-type", content_type));
        }
        if path.starts_with("/compute") {
            headers.push(("openstack-api-version", "compute 2.96"));
        }
        if path.starts_with("/placement") {
            headers.push(("openstack-api-version", "placement 1.39"));
        }
        self.send(method, path, &headers, body).await
    }
    /// Sends a request to Block Storage, in its newest microversion; `path` begins after the version. A body of `Null` sends none.
    ///
    /// # Errors
    /// When the control plane crashed before it answered.
    pub async fn try_volume_call(
        &self,
        who: &Actor,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Answer, Crashed> {
        let headers = [
            ("x-auth-token", who.token.as_str()),
            ("openstack-api-version", "volume 3.71"),
            ("content-type", "application/json"),
        ];
        let bytes = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        self.send(method, &format!("/volume/v3/{path}"), &headers, bytes).await
    }
    /// The same; the control plane must not crash meanwhile.
    pub async fn volume_call(&self, who: &Actor, method: &str, path: &str, body: Value) -> Answer {
        self.try_volume_call(who, method, path, &body)
            .await
            .unwrap_or_else(|_| panic!("{method} {path}: the control plane crashed"))
    }
    /// The same of a client that asks again when it got no answer: a control plane that died begins again, and what was asked may
    /// be done already.
    pub async fn insist_volume(&self, who: &Actor, method: &str, path: &str, body: Value) -> Answer {
        loop {
            match self.try_volume_call(who, method, path, &body).await {
                Ok(answer) => return answer,
                Err(Crashed) => self.restart().await,
            }
        }
    }
    /// Sends a request with exactly these headers.
    ///
    /// # Errors
    /// When the control plane crashed before it answered.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Crashed> {
        let life = self.life()?;
        let mut request = http::Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path)
            .header("host", "cloud:5000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let answer = async {
            let response = life.cloud.gateway().call(request).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            Answer {
                asked: format!("{method} {path}"),
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: body.unwrap_or_else(|e| panic!("{method} {path}: the body broke off: {e}")),
            }
        };
        tokio::select! {
            // What was answered before the crash is an answer.
            biased;
            answer = answer => Ok(answer),
            () = life.gate.dead() => Err(Crashed),
        }
    }
    /// `GET` that must succeed.
    pub async fn get(&self, who: &Actor, path: &str) -> Value {
        self.call("GET", path, &who.token, Value::Null).await.ok()
    }
    /// `POST` that must succeed.
    pub async fn post(&self, who: &Actor, path: &str, body: Value) -> Value {
        self.call("POST", path, &who.token, body).await.ok()
    }
    /// `PUT` that must succeed.
    pub async fn put(&self, who: &Actor, path: &str, body: Value) -> Value {
        self.call("PUT", path, &who.token, body).await.ok()
    }
    /// `DELETE` that must succeed.
    pub async fn delete(&self, who: &Actor, path: &str) {
        self.call("DELETE", path, &who.token, Value::Null).await.ok();
    }
}
