//! TLS with a certificate of our own, clients that speak it badly, and HTTP/2 over it and without it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
use bytes::Bytes;
use common::{Client, Server, short, until, within};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use maru_http::Limits;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A CA, and server settings with a certificate of it for `localhost`.
fn pki() -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (ca_cert.der().clone(), Arc::new(server))
}

fn trusting(ca: &CertificateDer<'static>, alpn: &[&[u8]]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_is_served_and_links_say_https() {
    let (ca, tls) = pki();
    let server = Server::with(Limits::default(), Some(tls)).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let stream = trusting(&ca, &[b"http/1.1"]).connect(localhost(), tcp).await.unwrap();
    let mut client = Client::new(stream);
    let r = client.ask("GET", "/shop/items/x", "", b"").await;
    assert_eq!(r.json()["base"], "https://t:1/shop");
    let r = client.ask("GET", "/v3/secret", "", b"").await;
    assert_eq!(
        r.header("www-authenticate"),
        Some("Keystone uri=\"https://t:1/identity\"")
    );
    // Another CA's client does not go on.
    let (other, _) = pki();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    assert!(trusting(&other, &[]).connect(localhost(), tcp).await.is_err());
}

#[tokio::test]
async fn bytes_that_are_not_tls_end_their_connection_only() {
    let (ca, tls) = pki();
    let server = Server::with(short(), Some(tls)).await;
    for bytes in [
        &b"GET /shop/ping HTTP/1.1\r\nHost: t\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x80\x2e\x01\x03\x01",
        b"",
    ] {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        within("the end", tcp.read_to_end(&mut all)).await.ok();
        assert!(!all.starts_with(b"HTTP"), "{bytes:?} was answered in the clear");
    }
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let stream = trusting(&ca, &[]).connect(localhost(), tcp).await.unwrap();
    assert_eq!(Client::new(stream).ask("GET", "/shop/ping", "", b"").await.status, 200);
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2<S>(stream: S) -> Sender
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, method: &str, target: &str, body: &'static [u8]) -> (u16, Bytes) {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://t:1{target}"))
        .body(Full::new(Bytes::from_static(body)))
        .unwrap();
    let response = within("an answer", sender.send_request(request)).await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        within("a body", response.into_body().collect())
            .await
            .unwrap()
            .to_bytes(),
    )
}

#[tokio::test]
async fn http2_is_served_over_tls_and_in_the_clear() {
    let (ca, tls) = pki();
    let secure = Server::with(Limits::default(), Some(tls)).await;
    let tcp = TcpStream::connect(secure.address).await.unwrap();
    let stream = trusting(&ca, &[b"h2"]).connect(localhost(), tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let clear = Server::start().await;
    let tcp = TcpStream::connect(clear.address).await.unwrap();
    for mut sender in [h2(stream).await, h2(tcp).await] {
        let (status, body) = ask(&mut sender, "GET", "/shop/items/x", b"").await;
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["base"].as_str().unwrap().ends_with("://t:1/shop"), "{body}");
        assert_eq!(ask(&mut sender, "POST", "/shop/bytes", &[b'x'; 1_001]).await.0, 413);
        assert_eq!(ask(&mut sender, "GET", "/shop/panic", b"").await.0, 500);
        // Many at once on one connection.
        let many = (0..100).map(|_| {
            let mut sender = sender.clone();
            async move { ask(&mut sender, "POST", "/shop/bytes", b"abc").await.0 }
        });
        assert!(futures_util::future::join_all(many).await.iter().all(|s| *s == 200));
    }
}

#[tokio::test]
async fn http2_is_closed_when_idle_and_finished_when_stopped() {
    let server = Server::with(short(), None).await;
    let mut sender = h2(TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(ask(&mut sender, "GET", "/shop/ping", b"").await.0, 200);
    until("the idle connection is gone", || {
        server.gateway.metrics().connections() == 0
    })
    .await;

    let mut sender = h2(TcpStream::connect(server.address).await.unwrap()).await;
    let waiting = tokio::spawn(async move { ask(&mut sender, "GET", "/shop/wait", b"").await });
    until("the handler waits", || server.shop.waiting.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    server.stop.send_replace(true);
    server.shop.gate.add_permits(1);
    assert_eq!(within("the answer", waiting).await.unwrap().1, "waited");
    within("the end", server.task).await.unwrap();
}

/// A client that grants its stream nothing holds neither the download nor the connection for ever.
#[tokio::test]
async fn http2_streams_that_nobody_reads_are_cut_off() {
    let server = Server::with(short(), None).await;
    let mut sender = h2(TcpStream::connect(server.address).await.unwrap()).await;
    let request = http::Request::builder()
        .uri("http://t:1/shop/download")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = within("the head", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    until("the download is dropped", || {
        server.shop.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    until("no connection is left", || server.gateway.metrics().connections() == 0).await;
    drop(response);
}
