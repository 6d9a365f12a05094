//! `maru up`, `maru down`, `maru restore`: the life of the process.

use crate::{
    admin::{self, Answer, Ask},
    credentials::Admin,
    logging,
    options::{Data, Down, Restore, Up},
    simulation, tls,
};
use anyhow::{Context, Result, bail};
use maru::{
    ca::Authority,
    cloud::{Cloud, Parts, Settings},
    joining::Gatekeeper,
};
use maru_agent::{Agent, AgentConfig};
use maru_agent_api::NodeName;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The lock on a data directory: one process at a time; the kernel frees it when the process dies.
pub struct DataLock(#[allow(dead_code)] File);

/// Locks a data directory, made if it is not there.
///
/// # Errors
/// When another process has it.
pub fn lock(data: &Path) -> Result<DataLock> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the data directory {}", data.display()))?;
    std::fs::set_permissions(data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        anyhow::anyhow!(
            "another maru runs on {}; stop it with `maru down --data {0}`, or choose another --data",
            data.display()
        )
    })?;
    Ok(DataLock(file))
}

/// Runs a cloud until it is told to stop.
///
/// # Errors
/// When it cannot start; the message says what would help.
pub async fn run(options: Up, origins: Vec<(String, &'static str)>) -> Result<()> {
    let begun = std::time::Instant::now();
    logging::start(&options.log, &options.log_format)?;
    if !rustix::process::geteuid().is_root() && options.simulate.is_none() {
        bail!(
            "root is needed to make namespaces and run guests; run with sudo, or try `maru up --simulate 1` without guests"
        );
    }
    more_files();
    let data = options.data.data.clone();
    let _lock = lock(&data)?;
    let node = match &options.node {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let parts = Parts::open(&data, &node).await?;
    let authority = Authority::settle(&parts.store, &data).await?;
    let plain = options.listen.ip().is_loopback() && options.tls_cert.is_none();
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(tls::from_files(cert, key)?),
        _ if plain => None,
        _ => Some(tls::own(&data, options.listen.ip(), &node)?),
    };
    let own_ca = (tls.is_some() && options.tls_cert.is_none()).then(|| data.join("tls/ca.pem").display().to_string());
    let metrics = match options.metrics {
        None => None,
        Some(address) => {
            let tls = match &tls {
                _ if address.ip().is_loopback() => None,
                Some(tls) => Some(Arc::clone(tls)),
                None => Some(tls::own(&data, address.ip(), &node)?),
            };
            Some(maru_http::Listener::bind(address, tls).await?)
        }
    };
    let listener = maru_http::Listener::bind(options.listen, tls).await?;
    let bound = listener.local_addr()?;
    let scheme = if plain { "http" } else { "https" };
    let url = options.public_url.clone().unwrap_or_else(|| {
        let host = if bound.ip().is_unspecified() {
            node.clone()
        } else {
            bound.ip().to_string()
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{scheme}://{host}:{}", bound.port())
    });
    let url = url.trim_end_matches('/').to_owned();

    let password = match Admin::load(&data) {
        Ok(admin) => admin.password,
        Err(_) => maru_base::random::hex32(),
    };
    let admin = Admin {
        auth_url: format!("{url}/identity/v3"),
        password,
        region: options.region.clone(),
        ca: own_ca,
    };
    admin.save(&data)?;
    let settings = settings(&options, &url, &admin.password)?;
    let cloud = Arc::new(Cloud::open(parts, &settings).await?);

    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(maru_http::serve(listener, Arc::clone(cloud.gateway()), stopped.clone()));
    if let Some(listener) = metrics {
        tracing::info!(metrics = %listener.local_addr()?, "the metrics answer");
        let gateway = cloud.metrics().gateway().map_err(|e| anyhow::anyhow!("metrics: {e}"))?;
        tokio::spawn(maru_http::serve(listener, Arc::new(gateway), stopped.clone()));
    }
    let gatekeeper = match options.join_listen() {
        Some(address) => Some(take_agents(&cloud, &authority, address, &options, stopped.clone()).await?),
        None => None,
    };
    let shown = url.clone();
    let with_guests = Arc::new(AtomicBool::new(false));
    let door = admin::serve(
        &data,
        Arc::new(Door {
            cloud: Arc::clone(&cloud),
            options: options.clone(),
            origins,
            url,
            stop: stop.clone(),
            with_guests: Arc::clone(&with_guests),
            gatekeeper,
        }),
    )?;

    tracing::info!(url = shown, micros = begun.elapsed().as_micros(), "the APIs answer");

    let link: Arc<dyn maru_agent_api::ControlPlane> = cloud.hub().clone();
    let mut simulated = Vec::new();
    let mut agents = Vec::new();
    if let Some(nodes) = options.simulate {
        let mut guests = simulation::load(&data)?;
        for n in 1..=nodes {
            let name = format!("{node}-{n}");
            let config = maru_sim::SimConfig::new(NodeName::from(name.as_str()));
            let sim = maru_sim::SimNode::new(config, Arc::clone(&link));
            sim.take_up(guests.remove(&name).unwrap_or_default());
            simulated.push((name, sim.clone()));
            tokio::spawn(async move { sim.run().await });
        }
    } else {
        for n in 1..=options.agents {
            let mut config = agent_config(&data, &options.instance, &node, n);
            config.uplink = options.uplink.clone().filter(|_| n == 1);
            config.address = options.node_address().to_string();
            agents.push(Agent::new(config, Arc::clone(&link)).await?);
        }
    }
    let agent_tasks: Vec<_> = agents
        .iter()
        .cloned()
        .map(|a| tokio::spawn(async move { a.run().await }))
        .collect();
    let controllers = tokio::spawn(Arc::clone(&cloud).controllers(stopped.clone()));

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stopping = stopped.clone();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = async { drop(stopping.wait_for(|s| *s).await) } => {}
    }
    tracing::info!("stopping; guests go on unless this is `maru down --guests`");
    stop.send_replace(true);
    door.abort();
    controllers.abort();
    serving.await.ok();
    for task in agent_tasks {
        task.abort();
        task.await.ok();
    }
    if with_guests.load(Ordering::Relaxed) {
        for agent in agents {
            agent.teardown().await?;
        }
    }
    if options.simulate.is_some() && !with_guests.load(Ordering::Relaxed) {
        simulation::save(&data, &simulated)?;
    }
    std::fs::remove_file(admin::socket(&data)).ok();
    Ok(())
}

/// Takes the agents of machines that have joined or want to.
async fn take_agents(
    cloud: &Arc<Cloud>,
    authority: &Authority,
    address: std::net::SocketAddr,
    options: &Up,
    stop: watch::Receiver<bool>,
) -> Result<Arc<Gatekeeper>> {
    let (certificate, key) = authority.control()?;
    let tls = maru_agent_rpc::tls::server(&authority.certificate, &certificate, &key)?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("machines cannot join at {address}; choose another address with --join-listen"))?;
    let bound = listener.local_addr()?;
    let told = match bound.ip().is_unspecified() {
        true => std::net::SocketAddr::new(options.node_address(), bound.port()),
        false => bound,
    };
    let gatekeeper = Arc::new(Gatekeeper::new(
        cloud.store().clone(),
        authority.clone(),
        vec![told.to_string()],
    ));
    let control: Arc<dyn maru_agent_api::ControlPlane> = cloud.hub().clone();
    let registrar = Arc::clone(&gatekeeper) as Arc<dyn maru_agent_rpc::Registrar>;
    tokio::spawn(async move {
        if let Err(error) = maru_agent_rpc::serve(listener, tls, control, registrar, stop).await {
            tracing::error!(error = %error.chain(), "machines cannot join or reach this control plane any more; start it anew");
        }
    });
    tracing::info!(address = %bound, "machines can join");
    Ok(gatekeeper)
}

/// Where the `n`-th node of this machine keeps its things; the first one's are where the cloud's are.
fn node_dir(data: &Path, n: u32) -> PathBuf {
    if n == 1 {
        data.to_owned()
    } else {
        data.join("nodes").join(n.to_string())
    }
}

/// The `n`-th agent of this machine.
fn agent_config(data: &Path, instance: &str, node: &str, n: u32) -> AgentConfig {
    let (node, instance) = match n {
        1 => (node.to_owned(), instance.to_owned()),
        n => (format!("{node}-{n}"), format!("{instance}{n}")),
    };
    AgentConfig::new(NodeName::from(node.as_str()), node_dir(data, n), instance)
}

/// Each connection and each guest holds file descriptors: use as many as this process may have.
pub fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn settings(options: &Up, url: &str, password: &str) -> Result<Settings> {
    let policy = match &options.policy {
        Some(file) => Some(
            std::fs::read_to_string(file).with_context(|| format!("cannot read the policy file {}", file.display()))?,
        ),
        None => None,
    };
    Ok(Settings {
        url: url.to_owned(),
        region: options.region.clone(),
        password: password.to_owned(),
        policy,
        bcrypt_cost: options.bcrypt_cost,
        compliance: options.compliance.settings()?,
        import_allow: maru_fetch::Allow::parse(&options.import_allow)
            .map_err(|e| anyhow::anyhow!("--import-allow: {e}"))?,
        external_cidr: options.external_cidr,
        external_gateway: options.external_gateway,
        data: (options.data.data != Path::new(crate::options::DATA)).then(|| options.data.data.clone()),
    })
}

/// Stops a running cloud, or what a dead one left running.
///
/// # Errors
/// When there is nothing to stop or it does not stop.
pub async fn down(options: Down) -> Result<()> {
    let data = &options.data.data;
    if !data.exists() {
        bail!("there is no data directory {}", data.display());
    }
    if lock(data).is_err() {
        admin::ask(data, &Ask::Stop { guests: options.guests }).await?;
        // The kernel frees the lock when the process is gone: that is the end we wait for.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            if lock(data).is_ok() {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                bail!("the cloud on {} did not stop within 120 s; see its log", data.display());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    if options.guests {
        // No control plane: the guests and links of its instance are stopped from here.
        for n in (1..=9).filter(|n| *n == 1 || node_dir(data, *n).exists()) {
            Agent::teardown_offline(agent_config(data, &options.instance, "-", n)).await?;
        }
        simulation::load(data)?;
    }
    Ok(())
}

/// Puts a backup in place of the store; gives what to print.
///
/// # Errors
/// When a cloud runs on the data, or the backup is not one.
pub async fn restore(options: Restore) -> Result<String> {
    let Data { data } = &options.data;
    let _lock = lock(data)?;
    Cloud::restore(data, &options.file).await?;
    Ok(
        "Restored. A new incarnation begins with the next `maru up`; what runs here and the backup does not know is \
        kept and listed by `maru status` until it is adopted or discarded.\n"
            .to_owned(),
    )
}

/// Answers the administrator's socket.
struct Door {
    cloud: Arc<Cloud>,
    options: Up,
    origins: Vec<(String, &'static str)>,
    url: String,
    stop: watch::Sender<bool>,
    with_guests: Arc<AtomicBool>,
    gatekeeper: Option<Arc<Gatekeeper>>,
}

impl Door {
    async fn token(&self, node: Option<&str>, hours: u32) -> Result<Value> {
        let Some(gatekeeper) = &self.gatekeeper else {
            bail!(
                "no machine can reach this cloud: it listens on {}. Start it with `maru up --listen ADDRESS:5000`, an address that the \
                 other machines reach, or with --join-listen",
                self.options.listen
            );
        };
        let token = gatekeeper.token(node, hours).await?;
        Ok(json!({"token": token.to_string(), "control": gatekeeper.control().first()}))
    }

    async fn status(&self) -> Result<Value> {
        let o = &self.options;
        let mut used = serde_json::Map::new();
        let mut put = |name: &str, value: String| {
            let from = self
                .origins
                .iter()
                .find(|(n, _)| n == name)
                .map_or("default", |(_, f)| f);
            used.insert(name.replace('_', "-"), format!("{value} ({from})").into());
        };
        put("data", o.data.data.display().to_string());
        put("listen", o.listen.to_string());
        put(
            "public_url",
            o.public_url
                .clone()
                .unwrap_or_else(|| format!("{}, from listen", self.url)),
        );
        put("region", o.region.clone());
        put("node", o.node.clone().unwrap_or_else(|| "the host name".to_owned()));
        put("instance", o.instance.clone());
        put(
            "uplink",
            o.uplink
                .clone()
                .unwrap_or_else(|| "none: floating IPs are reached from this host only".to_owned()),
        );
        put(
            "node_address",
            format!("{}, volumes for other nodes at ports 10809 to 12808", o.node_address()),
        );
        put(
            "join_listen",
            o.join_listen()
                .map_or_else(|| "none: no machine can join".to_owned(), |a| a.to_string()),
        );
        put("agents", o.agents.to_string());
        put("external_cidr", o.external_cidr.to_string());
        put(
            "import_allow",
            if o.import_allow.is_empty() {
                "nothing: images are downloaded from public addresses only".to_owned()
            } else {
                o.import_allow.join(", ")
            },
        );
        put(
            "policy",
            o.policy
                .as_ref()
                .map_or_else(|| "the built-in defaults".to_owned(), |p| p.display().to_string()),
        );
        put(
            "metrics",
            o.metrics
                .map_or_else(|| "on the APIs' address, with a token".to_owned(), |a| a.to_string()),
        );
        put("bcrypt_cost", o.bcrypt_cost.to_string());
        for (name, value) in o.compliance.shown() {
            put(name, value);
        }
        put("log", o.log.clone());
        let layers = match maru_sandbox::layers().await {
            Ok(layers) => serde_json::to_value(layers)?,
            Err(e) => json!({"not usable": e.chain()}),
        };
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "url": self.url,
        });
        status["parts"] = self.cloud.health().await?;
        status["sandbox"] = layers;
        status["nodes"] = self.cloud.nodes().into();
        status["options"] = Value::Object(used);
        Ok(status)
    }
}

#[async_trait::async_trait]
impl Answer for Door {
    async fn answer(&self, ask: &Ask) -> Result<Value> {
        match ask {
            Ask::Status => self.status().await,
            Ask::Stop { guests } => Ok(json!({"stopping": true, "guests": guests})),
            Ask::Backup { file } => self.cloud.backup(file).await,
            Ask::Unknown { what, id, node, adopt } => self.cloud.unknown(what, id, node.as_deref(), *adopt).await,
            Ask::Dump { prefix } => self.cloud.dump(prefix).await,
            Ask::Check => self.cloud.check().await,
            Ask::Story { server } => self.cloud.story(server).await,
            Ask::Token { node, hours } => self.token(node.as_deref(), *hours).await,
        }
    }
    fn answered(&self, ask: &Ask) {
        if let Ask::Stop { guests } = ask {
            self.with_guests.store(*guests, Ordering::Relaxed);
            self.stop.send_replace(true);
        }
    }
}
