//! The client: one connection a hop, to an address that was looked at.

use crate::{Allow, REDIRECTS, is_public, refuse, shown};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use maru_base::{Error, ErrorKind, Result};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use url::{Host, Url};

/// How long a name, a connection or an answer's head may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a body may stand still.
const STILL: Duration = Duration::from_secs(60);
/// The system's certificate authorities, as Debian and its kin, and as Red Hat's kin keep them.
const AUTHORITIES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Fetches what the rule lets it.
#[derive(Debug, Clone, Default)]
pub struct Fetcher {
    allow: Allow,
}

/// A download that has begun.
pub struct Fetched {
    /// Bytes that the server announced.
    pub length: Option<u64>,
    /// The bytes; an error ends them.
    pub body: Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

fn failed(url: &Url, what: &str) -> Error {
    Error::new(
        ErrorKind::BadRequest,
        format!("The download from {} failed: {what}.", shown(url)),
    )
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Fetcher {
    /// A fetcher that may also ask what `allow` names.
    #[must_use]
    pub fn new(allow: Allow) -> Self {
        Self { allow }
    }

    /// Checks a URL without asking anyone.
    ///
    /// # Errors
    /// As [`Allow::check`].
    pub fn check(&self, text: &str) -> Result<()> {
        self.allow.check(text).map(|_| ())
    }

    /// Begins a download; redirects are followed, each under the same rule.
    ///
    /// # Errors
    /// 400 that says what is refused, or what the server or the network did.
    pub async fn get(&self, text: &str) -> Result<Fetched> {
        let mut url = self.allow.check(text)?;
        for _ in 0..=REDIRECTS {
            let response = self.hop(&url).await?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(http::header::LOCATION);
                let to = to
                    .and_then(|l| l.to_str().ok())
                    .and_then(|l| url.join(l).ok())
                    .ok_or_else(|| failed(&url, "it redirects to nowhere"))?;
                if url.scheme() == "https" && to.scheme() != "https" {
                    return Err(refuse(&shown(&to), "a redirect leads from https to it"));
                }
                self.allow.check_url(&to)?;
                tracing::debug!(from = %shown(&url), to = %shown(&to), "redirected");
                url = to;
                continue;
            }
            if status != http::StatusCode::OK {
                return Err(failed(&url, &format!("the server answers {status}")));
            }
            if response.headers().contains_key(http::header::CONTENT_ENCODING) {
                return Err(failed(
                    &url,
                    "the server sends the data in an encoding that was not asked for",
                ));
            }
            let length = response
                .headers()
                .get(http::header::CONTENT_LENGTH)
                .and_then(|l| l.to_str().ok())
                .and_then(|l| l.parse().ok());
            return Ok(Fetched {
                length,
                body: Box::pin(bytes_of(response)),
            });
        }
        Err(failed(&url, &format!("it redirects more than {REDIRECTS} times")))
    }

    /// One request, to an address that passes the rule.
    async fn hop(&self, url: &Url) -> Result<Response<Incoming>> {
        let address = self.resolve(url).await?;
        let within =
            |what: &'static str| move |_| failed(url, &format!("{what} took longer than {} s", PATIENCE.as_secs()));
        let tcp = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .map_err(within("the connection"))?
            .map_err(|e| failed(url, &format!("no connection ({e})")))?;
        let io: Box<dyn Io> = if url.scheme() == "https" {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(|e| failed(url, &e.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(authorities()?);
            let tls = timeout(PATIENCE, connector.connect(name, tcp))
                .await
                .map_err(within("the TLS handshake"))?
                .map_err(|e| failed(url, &format!("no TLS ({e})")))?;
            Box::new(tls)
        } else {
            Box::new(tcp)
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| failed(url, &e.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a download's connection ended");
            }
        });
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let request = Request::get(path)
            .header(http::header::HOST, host)
            .header(http::header::USER_AGENT, "maru")
            .header(http::header::ACCEPT_ENCODING, "identity")
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(url, &e.to_string()))?;
        timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(within("the answer"))?
            .map_err(|e| failed(url, &e.to_string()))
    }

    /// The address to connect to. Every address of the name must pass, so that no choice of theirs is ours.
    async fn resolve(&self, url: &Url) -> Result<SocketAddr> {
        let port = url.port_or_known_default().unwrap_or(80);
        let all: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => vec![(IpAddr::V4(ip), port).into()],
            Some(Host::Ipv6(ip)) => vec![(IpAddr::V6(ip), port).into()],
            Some(Host::Domain(name)) => timeout(PATIENCE, tokio::net::lookup_host((name, port)))
                .await
                .map_err(|_| failed(url, "its name takes too long to resolve"))?
                .map_err(|e| failed(url, &format!("its name does not resolve ({e})")))?
                .collect(),
            None => Vec::new(),
        };
        if !self.allow.names(url)
            && let Some(bad) = all.iter().find(|a| !is_public(a.ip()))
        {
            return Err(refuse(
                &shown(url),
                &format!("its name resolves to {}, which is not a public address", bad.ip()),
            ));
        }
        // IPv4 first: a machine without IPv6 is more common than one without IPv4.
        let found = all.iter().find(|a| a.is_ipv4()).or_else(|| all.first());
        found.copied().ok_or_else(|| failed(url, "its name has no address"))
    }
}

/// The bytes of an answer; one that stands still ends with an error.
fn bytes_of(response: Response<Incoming>) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let frames = response.into_body();
    stream::unfold(Some(frames), |body| async {
        let mut body = body?;
        loop {
            let frame = match timeout(STILL, body.frame()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Some((Err(std::io::Error::other(error)), None)),
                Err(_) => {
                    let what = format!("the server sent nothing for {} s", STILL.as_secs());
                    return Some((Err(std::io::Error::new(std::io::ErrorKind::TimedOut, what)), None));
                }
            };
            if let Ok(data) = frame.into_data() {
                return Some((Ok(data), Some(body)));
            }
        }
    })
    .fuse()
}

/// TLS that trusts the system's authorities; with none of them, no server.
fn authorities() -> Result<Arc<rustls::ClientConfig>> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = rustls::RootCertStore::empty();
    for file in AUTHORITIES {
        if let Ok(all) = CertificateDer::pem_file_iter(file) {
            roots.add_parsable_certificates(all.flatten());
            break;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS cannot be set up.", e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}
