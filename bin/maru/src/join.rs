//! `maru join`: a machine of somebody else's control plane. The agent alone runs here; it keeps a session with the control plane and
//! connects again whenever that ends.
//!
//! ```text
//!  no key ──► <data>/node/key.pem ──Join(token)──► ca.pem, certificate.pem, joined.json ──► agent, for good
//!                  ▲                                                                          │
//!                  └── a crash before joined.json: the same key and token once more           └── Renew after 60 of 90 days
//! ```

use crate::{
    admin::{self, Answer, Ask},
    logging,
    options::Join,
    up,
};
use anyhow::{Context, Result, bail};
use maru::{
    ca::{self, write_whole},
    joining::{PORT, Token},
};
use maru_agent::{Agent, AgentConfig};
use maru_agent_api::NodeName;
use maru_agent_rpc::{JoinRequest, Joined, Remote, tls};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How often the certificate's age is looked at.
const LOOK: Duration = Duration::from_secs(3_600);

/// What a machine knows of the cloud that it joined: `<data>/node/joined.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Membership {
    /// Its name there.
    node: String,
    /// `address:port` of the control plane's nodes.
    control: Vec<String>,
}

/// Where a machine keeps who it is.
struct Papers(PathBuf);

impl Papers {
    fn of(data: &Path) -> Result<Self> {
        let dir = data.join("node");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
    fn membership(&self) -> Result<Option<Membership>> {
        let path = self.file("joined.json");
        if !path.exists() {
            return Ok(None);
        }
        let known = serde_json::from_str(&self.read("joined.json")?);
        Ok(Some(known.with_context(|| format!("{} is damaged", path.display()))?))
    }
    /// The machine's key, made if there is none.
    fn key(&self) -> Result<String> {
        let path = self.file("key.pem");
        if !path.exists() {
            write_whole(&path, &ca::key()?)?;
        }
        self.read("key.pem")
    }
    /// Keeps what the control plane gave. `joined.json` is last: with it, the machine has joined.
    fn keep(&self, node: &str, joined: &Joined) -> Result<Membership> {
        write_whole(&self.file("ca.pem"), &joined.ca)?;
        write_whole(&self.file("certificate.pem"), &joined.certificate)?;
        let membership = Membership {
            node: node.to_owned(),
            control: joined.control.clone(),
        };
        write_whole(&self.file("joined.json"), &serde_json::to_string_pretty(&membership)?)?;
        Ok(membership)
    }
    fn tls(&self) -> Result<Arc<rustls::ClientConfig>> {
        let (ca, certificate, key) = (
            self.read("ca.pem")?,
            self.read("certificate.pem")?,
            self.read("key.pem")?,
        );
        Ok(tls::node(&ca, &certificate, &key)?)
    }
}

/// `address:port`, the usual port if none is said.
fn control_address(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT).to_string(),
        Err(_)
            if text
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
        {
            text.to_owned()
        }
        Err(_) => format!("{text}:{PORT}"),
    }
}

/// Joins with a token.
async fn join(papers: &Papers, options: &Join, node: &str) -> Result<Membership> {
    let (Some(token), Some(address)) = (&options.token, &options.address) else {
        bail!(
            "this machine has not joined a cloud yet ({} is not there): run `maru token` on a control node, and here what it prints",
            papers.file("joined.json").display()
        );
    };
    let token = Token::parse(token)?;
    let address = control_address(address);
    let request = JoinRequest {
        token: token.id,
        secret: token.secret,
        node: node.to_owned(),
        csr: ca::request(&papers.key()?)?,
    };
    let joined = maru_agent_rpc::join(&address, &token.ca, &request).await.map_err(|e| {
        let chain = e.chain();
        anyhow::anyhow!("{chain}").context(format!(
            "the cloud at {address} does not let this machine in (is it the address that `maru status` there shows as join-listen?)"
        ))
    })?;
    tracing::info!(node, address, "joined");
    papers.keep(node, &joined)
}

/// The address of this machine that others reach it at: where it reaches the control plane from.
async fn own_address(control: &[String]) -> Result<IpAddr> {
    for address in control {
        // Connecting a datagram socket sends nothing; the kernel only chooses the way.
        let socket = tokio::net::UdpSocket::bind(if address.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        })
        .await?;
        if socket.connect(address.as_str()).await.is_ok() {
            return Ok(socket.local_addr()?.ip());
        }
    }
    bail!("this machine has no way to {}; give --node-address", control.join(", "))
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// When it cannot join or start; the message says what would help.
pub async fn run(options: Join) -> Result<()> {
    logging::start(&options.log, &options.log_format)?;
    if !rustix::process::geteuid().is_root() {
        bail!("root is needed to make namespaces and run guests; run with sudo");
    }
    up::more_files();
    let data = options.data.data.clone();
    let _lock = up::lock(&data)?;
    let papers = Papers::of(&data)?;
    let name = match &options.node {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let membership = match papers.membership()? {
        Some(known) => {
            if options.node.as_ref().is_some_and(|name| *name != known.node) {
                bail!(
                    "this machine joined as {}, not {name}; to join anew, move {} away",
                    known.node,
                    papers.0.display()
                );
            }
            known
        }
        None => join(&papers, &options, &name).await?,
    };
    let address = match options.node_address {
        Some(address) => address,
        None => own_address(&membership.control).await?,
    };
    let mut config = AgentConfig::new(
        NodeName::from(membership.node.as_str()),
        data.clone(),
        options.instance.clone(),
    );
    config.uplink = options.uplink.clone();
    config.address = address.to_string();

    let (certificates, newest) = watch::channel(papers.tls()?);
    let agent = Agent::new(config, Arc::new(Remote::new(membership.control.clone(), newest))).await?;
    let (stop, mut stopped) = watch::channel(false);
    let with_guests = Arc::new(AtomicBool::new(false));
    let door = admin::serve(
        &data,
        Arc::new(Door {
            membership: membership.clone(),
            address,
            stop,
            with_guests: Arc::clone(&with_guests),
        }),
    )?;
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    let renewing = tokio::spawn(renew(papers, membership, certificates));

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = async { drop(stopped.wait_for(|s| *s).await) } => {}
    }
    tracing::info!("stopping; guests go on unless this is `maru down --guests`");
    door.abort();
    renewing.abort();
    running.abort();
    running.await.ok();
    if with_guests.load(Ordering::Relaxed) {
        agent.teardown().await?;
    }
    fs::remove_file(admin::socket(&data)).ok();
    Ok(())
}

/// Renews the certificate before it ends.
async fn renew(papers: Papers, membership: Membership, certificates: watch::Sender<Arc<rustls::ClientConfig>>) {
    loop {
        if let Err(error) = renew_if_due(&papers, &membership, &certificates).await {
            tracing::warn!(error = %format!("{error:#}"), "the certificate is not renewed, will try again");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn renew_if_due(
    papers: &Papers,
    membership: &Membership,
    certificates: &watch::Sender<Arc<rustls::ClientConfig>>,
) -> Result<()> {
    let (from, until) = tls::validity(&papers.read("certificate.pem")?)?;
    if maru_base::time::now().as_second() < from + (until - from) / 3 * 2 {
        return Ok(());
    }
    let csr = ca::request(&papers.key()?)?;
    let mut last = anyhow::anyhow!("no address of the control plane is known");
    for address in &membership.control {
        let tls = Arc::clone(&certificates.borrow());
        match maru_agent_rpc::renew(address, tls, &csr).await {
            Ok(joined) => {
                papers.keep(&membership.node, &joined)?;
                certificates.send_replace(papers.tls()?);
                tracing::info!("the certificate is renewed");
                return Ok(());
            }
            Err(error) => last = anyhow::anyhow!("{}", error.chain()),
        }
    }
    Err(last)
}

/// Answers the administrator's socket of a machine that has joined.
struct Door {
    membership: Membership,
    address: IpAddr,
    stop: watch::Sender<bool>,
    with_guests: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Answer for Door {
    async fn answer(&self, ask: &Ask) -> Result<Value> {
        match ask {
            Ask::Status => Ok(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "node": self.membership.node,
                "address": self.address.to_string(),
                "control": self.membership.control,
            })),
            Ask::Stop { guests } => Ok(json!({"stopping": true, "guests": guests})),
            _ => bail!(
                "this machine is a node only; ask a control node (one of {})",
                self.membership.control.join(", ")
            ),
        }
    }
    fn answered(&self, ask: &Ask) {
        if let Ask::Stop { guests } = ask {
            self.with_guests.store(*guests, Ordering::Relaxed);
            self.stop.send_replace(true);
        }
    }
}
