//! Lets machines in: tokens for the administrator, certificates for nodes.

use crate::ca::Authority;
use anyhow::{Result, bail};
use async_trait::async_trait;
use maru_agent_rpc::{
    JoinRequest, Joined, Registrar,
    tls::{self, Holder},
};
use maru_base::Error;
use maru_nodes::joining::{self, Redeem};
use maru_store::Store;
use std::net::SocketAddr;

/// The port that agents connect to unless another one is given.
pub const PORT: u16 = 5001;

/// A join token as it is handed over: `ID.SECRET.CA-HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Which token.
    pub id: String,
    /// What proves it.
    pub secret: String,
    /// SHA-256 of the CA's certificate: the machine trusts no other.
    pub ca: String,
}

impl Token {
    /// Reads one.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
        match text.trim().split('.').collect::<Vec<_>>().as_slice() {
            [id, secret, ca] if hex(id, 8) && hex(secret, 32) && hex(ca, 64) => Ok(Self {
                id: (*id).to_owned(),
                secret: (*secret).to_owned(),
                ca: (*ca).to_owned(),
            }),
            _ => bail!(
                "this is no whole token: `maru token` on a control node prints one, of three parts with dots between"
            ),
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.ca)
    }
}

/// Keeps the door of a cloud.
pub struct Gatekeeper {
    store: Store,
    authority: Authority,
    control: Vec<String>,
}

impl Gatekeeper {
    /// Over the cluster's CA; nodes are told to connect to `control` (`address:port` each).
    #[must_use]
    pub fn new(store: Store, authority: Authority, control: Vec<String>) -> Self {
        Self {
            store,
            authority,
            control,
        }
    }

    /// Where agents connect.
    #[must_use]
    pub fn control(&self) -> &[String] {
        &self.control
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn token(&self, node: Option<&str>, hours: u32) -> Result<Token> {
        let valid = jiff::SignedDuration::from_hours(i64::from(hours));
        let (id, secret) = joining::issue(&self.store, node, valid).await?;
        Ok(Token {
            id: id.to_string(),
            secret,
            ca: tls::hash(&self.authority.certificate)?,
        })
    }

    /// What a node gets with a certificate that was just signed.
    fn joined(&self, certificate: String) -> Joined {
        Joined {
            certificate,
            ca: self.authority.certificate.clone(),
            control: self.control.clone(),
        }
    }

    fn sign(&self, node: &str, csr: &str) -> maru_base::Result<(String, Holder)> {
        let refused = |e: anyhow::Error| Error::bad_request(format!("The certificate request is refused: {e:#}."));
        let certificate = self.authority.sign_node(node, csr).map_err(refused)?;
        let holder = tls::holder_of(&certificate)?;
        Ok((certificate, holder))
    }
}

#[async_trait]
impl Registrar for Gatekeeper {
    async fn join(&self, request: JoinRequest, from: SocketAddr) -> maru_base::Result<Joined> {
        // Nobody has the certificate before the token is used.
        let (certificate, holder) = self.sign(&request.node, &request.csr)?;
        let from = from.ip().to_string();
        let redeem = Redeem {
            token: &request.token,
            secret: &request.secret,
            node: &request.node,
            key: &holder.key,
            from: &from,
        };
        if let Err(error) = joining::redeem(&self.store, &redeem).await {
            tracing::warn!(node = request.node, from, error = %error.chain(), "a machine is not let in");
            return Err(error);
        }
        tracing::info!(node = request.node, from, "a machine has joined");
        Ok(self.joined(certificate))
    }

    async fn renew(&self, holder: &Holder, csr: &str) -> maru_base::Result<Joined> {
        let (certificate, signed) = self.sign(holder.node.as_str(), csr)?;
        if signed.key != holder.key {
            return Err(Error::forbidden(
                "A certificate is renewed for the same key only; another key joins with a token of its own.",
            ));
        }
        Ok(self.joined(certificate))
    }

    fn admit(&self, holder: &Holder) -> maru_base::Result<()> {
        joining::admit(&self.store.snapshot(), holder.node.as_str(), &holder.key)
    }
}
