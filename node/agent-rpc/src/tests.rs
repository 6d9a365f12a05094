//! Both ends over real connections, between a control plane and a node that only note what reaches them.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::client::{Remote, connect, stream, unary};
use crate::codec::Raw;
use crate::frame::{Frame, next, opened};
use crate::server::{Registrar, serve};
use crate::tls::{self, Holder};
use crate::wire::{JoinRequest, Joined, LaneHeader, Pull, Reports, SERVICE, encode, from_status};
use async_trait::async_trait;
use bytes::Bytes;
use maru_agent_api::{
    ControlPlane, Delivery, NodeName, Session,
    lane::{ByteStream, Duplex, Lanes},
    observed::{Hello, Report},
    slice::ItemKey,
};
use maru_base::{Error, ErrorKind, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpListener,
    sync::{mpsc, watch},
};
use tonic::{Request, client::Grpc};

/// A control plane that notes what it is told.
#[derive(Default)]
struct Noting {
    said: Mutex<Vec<String>>,
    lanes: Mutex<Option<Arc<dyn Lanes>>>,
    stream: Mutex<Option<mpsc::Sender<Delivery>>>,
}

impl Noting {
    fn note(&self, text: String) {
        self.said.lock().unwrap().push(text);
    }
}

/// Bytes that end in an error.
struct Breaks(usize);

impl AsyncRead for Breaks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("the disk is gone")));
        }
        let n = self.0.min(into.remaining());
        into.put_slice(&vec![b'x'; n]);
        self.0 -= n;
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl ControlPlane for Noting {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        self.note(format!("connect {}", hello.node));
        let (sender, receiver) = mpsc::channel(4);
        *self.stream.lock().unwrap() = Some(sender);
        let session = Session {
            node: hello.node,
            id: hello.session,
            incarnation: "one".to_owned(),
        };
        Ok((session, receiver))
    }
    async fn report(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()> {
        self.note(format!("report {} {sequence} {}", session.node, reports.len()));
        if sequence == 13 {
            return Err(Error::conflict("not this one"));
        }
        Ok(())
    }
    async fn heartbeat(&self, session: &Session) -> Result<()> {
        self.note(format!("heartbeat {}", session.node));
        Ok(())
    }
    async fn pull(&self, _: &Session, digest: &str) -> Result<ByteStream> {
        match digest {
            "large" => Ok(Box::new(std::io::Cursor::new(vec![7_u8; 5_000_000]))),
            "breaks" => Ok(Box::new(Breaks(100_000))),
            other => Err(Error::not_found(format!("no blob {other}"))),
        }
    }
    async fn offer_lanes(&self, _: &Session, lanes: Arc<dyn Lanes>) -> Result<()> {
        *self.lanes.lock().unwrap() = Some(lanes);
        Ok(())
    }
}

/// Lets everybody in but one.
struct Open;

#[async_trait]
impl Registrar for Open {
    async fn join(&self, _: JoinRequest, _: SocketAddr) -> Result<Joined> {
        Err(Error::forbidden("nobody joins here"))
    }
    async fn renew(&self, _: &Holder, _: &str) -> Result<Joined> {
        Err(Error::forbidden("nothing is renewed here"))
    }
    fn admit(&self, holder: &Holder) -> Result<()> {
        match holder.node.as_str() {
            "removed" => Err(Error::forbidden("removed")),
            _ => Ok(()),
        }
    }
}

/// A node's machine.
struct Machine;

#[async_trait]
impl Lanes for Machine {
    async fn console_log(&self, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        Ok(format!("{server} {lines:?}").into_bytes())
    }
    async fn vnc(&self, _: &str) -> Result<Box<dyn Duplex>> {
        Err(Error::conflict("it is off"))
    }
    async fn serial(&self, _: &str) -> Result<Box<dyn Duplex>> {
        let (near, mut far) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let mut word = [0_u8; 5];
            far.read_exact(&mut word).await.unwrap();
            word.reverse();
            far.write_all(&word).await.unwrap();
        });
        Ok(Box::new(near))
    }
    async fn disk_image(&self, server: &str) -> Result<ByteStream> {
        match server {
            "whole" => Ok(Box::new(std::io::Cursor::new(vec![9_u8; 3_000_000]))),
            _ => Ok(Box::new(Breaks(100_000))),
        }
    }
    async fn volume_bytes(&self, id: &str, format: &str) -> Result<ByteStream> {
        Ok(Box::new(std::io::Cursor::new(format!("{id} as {format}").into_bytes())))
    }
    async fn diagnostics(&self, server: &str) -> Result<serde_json::Value> {
        Ok(serde_json::json!({ "of": server }))
    }
    async fn inject_nmi(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn password(&self, server: &str) -> Result<Option<Vec<u8>>> {
        Ok((server == "has").then(|| vec![1, 2, 3]))
    }
    async fn origin(&self, _: &str) -> Result<String> {
        Ok("here".to_owned())
    }
    async fn discard(&self, what: &str, _: &str) -> Result<()> {
        Err(Error::conflict(format!("the {what} is kept")))
    }
}

/// A CA and what it signs.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "CA");
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }
    fn control(&self) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![crate::CONTROL_NAME.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap().pem();
        tls::server(&self.pem, &signed, &key.serialize_pem()).unwrap()
    }
    fn node(&self, name: &str, organisation: &str) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &self.issuer).unwrap().pem();
        tls::node(&self.pem, &signed, &key.serialize_pem()).unwrap()
    }
}

struct Stage {
    ca: Ca,
    control: Arc<Noting>,
    address: String,
    stop: watch::Sender<bool>,
}

impl Stage {
    async fn start() -> Self {
        let ca = Ca::new();
        let control = Arc::new(Noting::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, ca.control(), control.clone(), Arc::new(Open), stopped));
        Self {
            ca,
            control,
            address,
            stop,
        }
    }
    fn remote(&self, node: &str) -> Remote {
        let tls = self.ca.node(node, tls::NODES);
        Remote::new(vec![self.address.clone()], watch::channel(tls).1)
    }
    /// The lanes into a node whose machine is [`Machine`].
    async fn lanes(&self, remote: &Remote) -> (Arc<dyn Lanes>, mpsc::Receiver<Delivery>) {
        let (session, stream) = remote.connect(hello("a")).await.unwrap();
        remote.offer_lanes(&session, Arc::new(Machine)).await.unwrap();
        (self.control.lanes.lock().unwrap().clone().unwrap(), stream)
    }
    fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.control.said.lock().unwrap())
    }
}

fn hello(node: &str) -> Hello {
    Hello {
        node: NodeName::from(node),
        session: 7,
        version: "test".to_owned(),
        hypervisor_type: "QEMU".to_owned(),
        hypervisor_version: 10_000_000,
        accelerator: "none".to_owned(),
        storage: String::new(),
        cpu_model: "test".to_owned(),
        arch: "x86_64".to_owned(),
        vcpus: 1,
        memory_mib: 1_024,
        disk_gib: 10,
        address: "127.0.0.1".to_owned(),
    }
}

fn session(node: &str) -> Session {
    Session {
        node: NodeName::from(node),
        id: 7,
        incarnation: "one".to_owned(),
    }
}

#[tokio::test]
async fn a_session_carries_the_slice_down_and_reports_up() {
    let s = Stage::start().await;
    let remote = s.remote("a");
    let (session, mut stream) = remote.connect(hello("a")).await.unwrap();
    assert_eq!((session.node.as_str(), session.incarnation.as_str()), ("a", "one"));
    let sender = s.control.stream.lock().unwrap().clone().unwrap();
    let gone = Delivery::Gone(5, ItemKey::Server("x".into()));
    sender.send(gone.clone()).await.unwrap();
    sender.send(Delivery::Synced(6)).await.unwrap();
    assert_eq!(stream.recv().await, Some(gone));
    assert_eq!(stream.recv().await, Some(Delivery::Synced(6)));
    let report = || vec![Report::ServerRemoved("x".into())];
    remote.report(&session, 1, report()).await.unwrap();
    let refused = remote.report(&session, 13, report()).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.message()),
        (ErrorKind::Conflict, "not this one")
    );
    remote.heartbeat(&session).await.unwrap();
    assert_eq!(s.said(), ["connect a", "report a 1 1", "report a 13 1", "heartbeat a"]);

    // A second session ends the first one's calls.
    let mut newer = hello("a");
    newer.session = 8;
    remote.connect(newer).await.unwrap();
    assert_eq!(remote.heartbeat(&session).await.unwrap_err().kind(), ErrorKind::Gone);
    // When the control plane goes, the stream ends.
    s.stop.send_replace(true);
    let end = tokio::time::timeout(Duration::from_secs(10), stream.recv())
        .await
        .unwrap();
    assert_eq!(end, None);
}

#[tokio::test]
async fn bytes_come_whole_or_as_an_error() {
    let s = Stage::start().await;
    let remote = s.remote("a");
    let (session, _stream) = remote.connect(hello("a")).await.unwrap();
    let mut large = Vec::new();
    remote
        .pull(&session, "large")
        .await
        .unwrap()
        .read_to_end(&mut large)
        .await
        .unwrap();
    assert_eq!(large, vec![7_u8; 5_000_000]);
    let Err(none) = remote.pull(&session, "none").await else {
        panic!("a blob that is not there was opened")
    };
    assert_eq!((none.kind(), none.message()), (ErrorKind::NotFound, "no blob none"));
    let mut cut = Vec::new();
    let mut breaks = remote.pull(&session, "breaks").await.unwrap();
    assert!(breaks.read_to_end(&mut cut).await.is_err());
    assert_eq!(cut.len(), 100_000);
    // The control plane dies in the middle.
    let mut large = remote.pull(&session, "large").await.unwrap();
    large.read_exact(&mut [0_u8; 1_000]).await.unwrap();
    s.stop.send_replace(true);
    assert!(
        large.read_to_end(&mut Vec::new()).await.is_err(),
        "a cut image passed for a whole one"
    );
}

#[tokio::test]
async fn lanes_answer_refuse_and_stream() {
    let s = Stage::start().await;
    let remote = s.remote("a");
    let (lanes, stream) = s.lanes(&remote).await;
    assert_eq!(lanes.console_log("x", Some(3)).await.unwrap(), b"x Some(3)");
    assert_eq!(lanes.diagnostics("x").await.unwrap()["of"], "x");
    lanes.inject_nmi("x").await.unwrap();
    lanes.clear_password("x").await.unwrap();
    assert_eq!(lanes.password("has").await.unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(lanes.password("none").await.unwrap(), None);
    assert_eq!(lanes.origin("x").await.unwrap(), "here");
    let Err(off) = lanes.vnc("x").await else {
        panic!("a screen of a guest that is off was opened")
    };
    assert_eq!((off.kind(), off.message()), (ErrorKind::Conflict, "it is off"));
    let kept = lanes.discard("disk", "x").await.unwrap_err();
    assert_eq!(kept.message(), "the disk is kept");
    assert_eq!(
        lanes.cache_image("d", "raw").await.unwrap_err().kind(),
        ErrorKind::NotImplemented
    );

    let mut serial = lanes.serial("x").await.unwrap();
    serial.write_all(b"abcde").await.unwrap();
    let mut word = Vec::new();
    serial.read_to_end(&mut word).await.unwrap();
    assert_eq!(word, b"edcba");

    let mut whole = Vec::new();
    let mut image = lanes.disk_image("whole").await.unwrap();
    image.read_to_end(&mut whole).await.unwrap();
    assert_eq!(whole, vec![9_u8; 3_000_000]);
    let mut bytes = String::new();
    let mut volume = lanes.volume_bytes("v", "raw").await.unwrap();
    volume.read_to_string(&mut bytes).await.unwrap();
    assert_eq!(bytes, "v as raw");
    let mut cut = Vec::new();
    let mut image = lanes.disk_image("breaks").await.unwrap();
    assert!(
        image.read_to_end(&mut cut).await.is_err(),
        "a cut disk passed for a whole one"
    );

    // The session ends: nothing can be opened any more, and it is said at once.
    drop((stream, remote));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while lanes.origin("x").await.is_ok() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "a lane opens into a node that has left"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(lanes.origin("x").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_node_whatever_its_messages_say() {
    let s = Stage::start().await;
    let evil = connect(&s.address, s.ca.node("evil", tls::NODES)).await.unwrap();
    let stolen = session("good");
    let reports = Reports {
        session: stolen.clone(),
        sequence: 1,
        reports: Vec::new(),
    };
    let pull = Pull {
        session: stolen.clone(),
        digest: "large".to_owned(),
    };
    let calls = [
        ("Report", encode(&reports).unwrap()),
        ("Heartbeat", encode(&stolen).unwrap()),
        ("Pull", encode(&pull).unwrap()),
        ("Connect", encode(&hello("good")).unwrap()),
    ];
    for (method, message) in &calls {
        let refused = match *method {
            "Pull" | "Connect" => stream(evil.clone(), method, message.clone()).await.map(drop),
            _ => unary(evil.clone(), method, message.clone()).await.map(drop),
        };
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden, "{method}: {}", refused.chain());
        assert!(refused.message().contains("does not speak for node good"), "{method}");
    }
    // Without a certificate, or with one of the CA that names no node, there is joining and nothing else.
    let bare = tls::joining(&tls::hash(&s.ca.pem).unwrap()).unwrap();
    for client in [bare, s.ca.node("evil", "maru:control")] {
        let client = connect(&s.address, client).await.unwrap();
        for (method, message) in calls.iter().chain(&[("Renew", Bytes::new())]) {
            let refused = stream(client.clone(), method, message.clone()).await.map(drop);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unauthorized, "{method}");
        }
        let request = JoinRequest {
            token: String::new(),
            secret: String::new(),
            node: String::new(),
            csr: String::new(),
        };
        let refused = unary(client, "Join", encode(&request).unwrap()).await.unwrap_err();
        assert_eq!(refused.message(), "nobody joins here");
    }
    // One whose node was removed does not get in.
    let refused = s.remote("removed").connect(hello("removed")).await.map(drop);
    assert_eq!(refused.unwrap_err().message(), "removed");
    assert_eq!(s.said(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lane_is_opened_by_the_node_that_was_asked() {
    let s = Stage::start().await;
    // The asked node notes the id and does not open the lane: somebody else tries.
    let asked = connect(&s.address, s.ca.node("a", tls::NODES)).await.unwrap();
    let mut messages = stream(asked.clone(), "Connect", encode(&hello("a")).unwrap())
        .await
        .unwrap();
    futures_util::StreamExt::next(&mut messages).await.unwrap().unwrap();
    let lanes = s.control.lanes.lock().unwrap().clone().unwrap();
    let waiting = tokio::spawn(async move { lanes.origin("x").await });
    let ask = futures_util::StreamExt::next(&mut messages).await.unwrap().unwrap();
    let ask: serde_json::Value = serde_json::from_slice(&ask).unwrap();
    let lane = ask["Lane"]["lane"].as_str().unwrap().to_owned();
    let open = async |channel: tonic::transport::Channel, lane: &str| {
        let header = encode(&LaneHeader { lane: lane.to_owned() }).unwrap();
        let answer = Frame::Data(Bytes::from_static(b"\"mine\"")).encode();
        let messages = vec![header, Frame::Open.encode(), answer, Frame::End.encode()];
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = format!("/{SERVICE}/Lane").parse().unwrap();
        let request = Request::new(tokio_stream::iter(messages));
        grpc.streaming(request, path, Raw).await.map(drop).map_err(from_status)
    };
    let evil = connect(&s.address, s.ca.node("evil", tls::NODES)).await.unwrap();
    assert_eq!(open(evil, &lane).await.unwrap_err().kind(), ErrorKind::NotFound);
    let wrong = open(asked.clone(), &"0".repeat(32)).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::NotFound);
    open(asked.clone(), &lane).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "mine");
    // Once.
    assert_eq!(open(asked, &lane).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn frames_that_are_none_are_refused() {
    for bad in [&b""[..], b"\x09", b"\x03{"] {
        assert_eq!(
            Frame::decode(Bytes::copy_from_slice(bad)).unwrap_err().kind(),
            ErrorKind::BadRequest
        );
    }
    let frames =
        |frames: Vec<Frame>| tokio_stream::iter(frames.into_iter().map(|f| Ok(f.encode())).collect::<Vec<_>>());
    assert!(opened(&mut frames(vec![Frame::Data(Bytes::new())])).await.is_err());
    let mut ended = frames(vec![Frame::Open]);
    opened(&mut ended).await.unwrap();
    assert_eq!(next(&mut ended).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
