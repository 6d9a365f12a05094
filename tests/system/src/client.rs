//! A client that never retries: a test must know what was answered and what was not.

use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An answer that arrived whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub head: String,
    /// The body; null when it is empty or no JSON.
    pub body: Value,
}

impl Answer {
    /// Whether the request was carried out.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }
}

/// Asks one cloud, with a token or without.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: String,
}

impl Client {
    /// A client without a token.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: String::new(),
        }
    }

    /// Logs in with a password in the default domain.
    ///
    /// # Errors
    /// The refusal, or `None` when no answer came.
    pub fn log_in(&self, user: &str, password: &str, project: &str) -> Result<Self, Option<Answer>> {
        let body = serde_json::json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": {"id": "default"}, "password": password}}},
            "scope": {"project": {"name": project, "domain": {"id": "default"}}}}});
        let answer = self.json("POST", "/identity/v3/auth/tokens", &body).ok_or(None)?;
        let token = answer.header("x-subject-token").map(str::to_owned);
        match token {
            Some(token) if answer.ok() => Ok(Self {
                address: self.address,
                token,
            }),
            _ => Err(Some(answer)),
        }
    }

    /// Asks with a JSON body. `None`: no whole answer came, so nobody knows whether it was carried out.
    #[must_use]
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        self.send(method, path, "application/json", body.to_string().as_bytes())
    }
    /// Asks without a body.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str) -> Option<Answer> {
        self.send(method, path, "application/json", b"")
    }
    /// Sends bytes.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, media: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.set_nodelay(true).ok()?;
        // HTTP/1.0: the answer comes in one piece and ends the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nX-Auth-Token: {}\r\nOpenStack-API-Version: compute 2.90\r\n\
             Content-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let cut = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..cut].to_vec()).ok()?;
        let rest = &bytes[cut + 4..];
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer {
            status,
            head,
            body: Value::Null,
        };
        if let Some(length) = answer.header("content-length").and_then(|l| l.parse::<usize>().ok())
            && rest.len() < length
        {
            return None;
        }
        if !rest.is_empty() {
            answer.body = serde_json::from_slice(rest).unwrap_or_default();
        }
        Some(answer)
    }
}
