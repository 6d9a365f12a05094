//! Machines that join: tokens, certificates, and the contract over real connections (TLS on loopback), with simulated nodes at the
//! far end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maru::{
    ca::{self, Authority},
    joining::{Gatekeeper, Token},
};
use maru_agent_api::{ControlPlane, NodeName, lane::Lanes};
use maru_agent_rpc::{JoinRequest, Joined, Remote, tls};
use maru_base::{Error, ErrorKind};
use maru_kit::Kit;
use maru_sim::{SimConfig, SimNode};
use serde_json::json;
use std::sync::Arc;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::watch};

/// A cloud that takes agents on loopback.
struct Stage {
    kit: Kit,
    keeper: Arc<Gatekeeper>,
    address: String,
    _stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// A machine that has joined.
struct Machine {
    key: String,
    joined: Joined,
}

impl Machine {
    fn remote(&self) -> Remote {
        let tls = tls::node(&self.joined.ca, &self.joined.certificate, &self.key).unwrap();
        Remote::new(self.joined.control.clone(), watch::channel(tls).1)
    }
}

impl Stage {
    async fn start() -> Self {
        let kit = Kit::builder().nodes(1).start().await;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::settle(&kit.store(), dir.path()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let keeper = Arc::new(Gatekeeper::new(kit.store(), authority.clone(), vec![address.clone()]));
        let (certificate, key) = authority.control().unwrap();
        let server = tls::server(&authority.certificate, &certificate, &key).unwrap();
        let (stop, stopped) = watch::channel(false);
        let control: Arc<dyn ControlPlane> = kit.cloud().hub().clone();
        tokio::spawn(maru_agent_rpc::serve(
            listener,
            server,
            control,
            keeper.clone(),
            stopped,
        ));
        Self {
            kit,
            keeper,
            address,
            _stop: stop,
            _dir: dir,
        }
    }
    async fn token(&self) -> Token {
        self.keeper.token(None, 1).await.unwrap()
    }
    async fn try_join(&self, token: &Token, node: &str, key: &str) -> Result<Joined, Error> {
        let request = JoinRequest {
            token: token.id.clone(),
            secret: token.secret.clone(),
            node: node.to_owned(),
            csr: ca::request(key).unwrap(),
        };
        maru_agent_rpc::join(&self.address, &token.ca, &request).await
    }
    async fn join(&self, node: &str) -> Machine {
        let key = ca::key().unwrap();
        let joined = self.try_join(&self.token().await, node, &key).await.unwrap();
        Machine { key, joined }
    }
    /// A simulated node that is connected through its machine's certificate.
    async fn node(&self, name: &str, machine: &Machine) -> SimNode {
        let sim = SimNode::new(SimConfig::new(NodeName::from(name)), Arc::new(machine.remote()));
        let running = sim.clone();
        tokio::spawn(async move { running.run().await });
        let hub = self.kit.cloud().hub().clone();
        self.kit
            .until("the node is connected", |_| hub.lanes(name).is_ok())
            .await;
        sim
    }
}

/// What is refused, and that it says why.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind, why: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(
        error.message().contains(why),
        "{:?} does not say {why:?}",
        error.message()
    );
}

#[tokio::test]
async fn a_machine_joins_and_its_servers_live_there() {
    let s = Stage::start().await;
    let machine = s.join("far").await;
    let sim = s.node("far", &machine).await;
    // The control node's own one takes nothing: all goes to the machine that joined.
    s.kit.node_down("n1");
    let project = s.kit.project("blue").await;
    let image = s.kit.image(&project.member, "tiny").await;
    let (network, _) = s.kit.network(&project.member, "net", "10.0.0.0/24").await;
    let service = maru_compute_model::find_service(&s.kit.snapshot(), "n1")
        .unwrap()
        .id
        .to_string();
    let path = format!("/compute/v2.1/os-services/{service}");
    s.kit.put(&s.kit.admin(), &path, json!({"status": "disabled"})).await;
    let id = s.kit.server(&project.member, "one", &image, &network).await;
    let server = s.kit.server_active(&id).await;
    assert_eq!(server.host.as_deref(), Some("far"));
    assert!(sim.guests().contains_key(&id));

    // Lanes: an answer, a refusal of the node's own, a console both ways.
    let log = json!({"os-getConsoleOutput": {"length": 1}});
    let path = format!("/compute/v2.1/servers/{id}/action");
    let log = s.kit.post(&project.member, &path, log).await;
    assert_eq!(log["output"], format!("{id} login: \n"));
    let lanes: Arc<dyn Lanes> = s.kit.cloud().hub().lanes("far").unwrap();
    assert_eq!(
        lanes.console_log("no-such-server", None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let mut serial = lanes.serial(&id).await.unwrap();
    let mut greeting = [0_u8; 1];
    serial.read_exact(&mut greeting).await.unwrap();
    drop(serial);

    s.kit
        .delete(&project.member, &format!("/compute/v2.1/servers/{id}"))
        .await;
    s.kit.server_gone(&id).await;
    assert!(sim.guests().is_empty());
}

#[tokio::test]
async fn a_token_lets_one_machine_in_and_says_to_others_who_used_it() {
    let s = Stage::start().await;
    let token = s.token().await;
    let key = ca::key().unwrap();
    let first = s.try_join(&token, "far", &key).await.unwrap();
    // The answer was lost: the same machine asks again.
    let again = s.try_join(&token, "far", &key).await.unwrap();
    assert_eq!(
        tls::holder_of(&first.certificate).unwrap(),
        tls::holder_of(&again.certificate).unwrap()
    );

    let other = ca::key().unwrap();
    let outcome = s.try_join(&token, "far", &other).await;
    refused(outcome, ErrorKind::Forbidden, "by node far from 127.0.0.1");
    refused(
        s.try_join(&token, "near", &key).await,
        ErrorKind::Forbidden,
        "maru token",
    );
    // A name is one machine's, and the control node's own is nobody else's.
    let outcome = s.try_join(&s.token().await, "far", &other).await;
    refused(outcome, ErrorKind::Conflict, "maru token --node far");
    let outcome = s.try_join(&s.token().await, "n1", &other).await;
    refused(outcome, ErrorKind::Conflict, "control node's own");
    let outcome = s.try_join(&s.token().await, "../etc", &other).await;
    refused(outcome, ErrorKind::BadRequest, "cannot name a node");

    let mut wrong = s.token().await;
    wrong.secret = "0".repeat(32);
    refused(
        s.try_join(&wrong, "near", &key).await,
        ErrorKind::Forbidden,
        "not of this cloud",
    );
    let bound = s.keeper.token(Some("mid"), 1).await.unwrap();
    refused(
        s.try_join(&bound, "near", &key).await,
        ErrorKind::Forbidden,
        "for node mid",
    );
    // Of two machines that show one token at once, one gets in.
    let race = s.token().await;
    let (a, b) = (ca::key().unwrap(), ca::key().unwrap());
    let (a, b) = tokio::join!(s.try_join(&race, "left", &a), s.try_join(&race, "right", &b));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
}

#[tokio::test]
async fn a_machine_trusts_the_cloud_of_its_token_and_no_other() {
    let (s, other) = (Stage::start().await, Stage::start().await);
    let mut token = other.token().await;
    let key = ca::key().unwrap();
    // It never sends its token to whoever answers at the address.
    refused(
        s.try_join(&token, "far", &key).await,
        ErrorKind::Unavailable,
        "cannot be reached",
    );
    token.ca = s.token().await.ca;
    refused(
        s.try_join(&token, "far", &key).await,
        ErrorKind::Forbidden,
        "not of this cloud",
    );

    // A certificate of another cloud opens nothing.
    let stranger = other.join("far").await;
    let tls = tls::node(&s.token_ca().await, &stranger.joined.certificate, &stranger.key).unwrap();
    let remote = Remote::new(vec![s.address.clone()], watch::channel(tls).1);
    let outcome = remote.connect(hello("far")).await.map(|_| ());
    refused(outcome, ErrorKind::Unavailable, "");
}

impl Stage {
    async fn token_ca(&self) -> String {
        maru_nodes::joining::ca(&self.kit.snapshot()).unwrap().certificate
    }
}

fn hello(node: &str) -> maru_agent_api::observed::Hello {
    maru_agent_api::observed::Hello {
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

#[tokio::test]
async fn a_certificate_speaks_for_its_own_node_whatever_its_messages_say() {
    let s = Stage::start().await;
    let (good, evil) = (s.join("good").await, s.join("evil").await);
    let _sim = s.node("good", &good).await;
    let remote = evil.remote();
    let outcome = remote.connect(hello("good")).await.map(|_| ());
    refused(outcome, ErrorKind::Forbidden, "does not speak for node good");
    // Neither does a control node's own node, which needs no certificate.
    let outcome = remote.connect(hello("n1")).await.map(|_| ());
    refused(outcome, ErrorKind::Forbidden, "does not speak for node n1");
    remote.connect(hello("evil")).await.unwrap();
}

#[tokio::test]
async fn a_node_that_joins_anew_voids_its_old_certificate() {
    let s = Stage::start().await;
    let old = s.join("far").await;
    // A renewal is for the same key.
    let tls_of = |m: &Machine| tls::node(&m.joined.ca, &m.joined.certificate, &m.key).unwrap();
    let csr = ca::request(&old.key).unwrap();
    maru_agent_rpc::renew(&s.address, tls_of(&old), &csr).await.unwrap();
    let other = ca::key().unwrap();
    let outcome = maru_agent_rpc::renew(&s.address, tls_of(&old), &ca::request(&other).unwrap()).await;
    refused(outcome, ErrorKind::Forbidden, "same key only");

    let token = s.keeper.token(Some("far"), 1).await.unwrap();
    let joined = s.try_join(&token, "far", &other).await.unwrap();
    let new = Machine { key: other, joined };
    refused(
        old.remote().connect(hello("far")).await.map(|_| ()),
        ErrorKind::Forbidden,
        "this certificate is void",
    );
    let outcome = maru_agent_rpc::renew(&s.address, tls_of(&old), &csr).await;
    refused(outcome, ErrorKind::Forbidden, "this certificate is void");
    new.remote().connect(hello("far")).await.unwrap();
    let (from, until) = tls::validity(&new.joined.certificate).unwrap();
    assert_eq!((until - from) / 86_400, ca::NODE_DAYS + 1);
}
