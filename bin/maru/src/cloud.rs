//! One control plane: the store, the services over it, the gateway in front, the controllers behind.

mod nodes;
mod unknown;

use crate::{
    adapters::{LaneConsoles, LaneVolumes, RecordedAudit, SandboxInspector, UploadedVolumes},
    metrics::Exporter,
};
use anyhow::{Context, Result, bail};
use maru_auth::{Audit, Policy};
use maru_blob::{Blobs, DirBlobs};
use maru_control::Runtime;
use maru_http::Gateway;
use maru_image::Inspector;
use maru_nodes::Hub;
use maru_store::{
    Registry, Store,
    engine::redb::{Options, Redb},
    record::{FileRecords, Records, Retention},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// A running control plane.
pub struct Cloud {
    store: Store,
    hub: Arc<Hub>,
    gateway: Arc<Gateway>,
    compute: Arc<maru_compute::App>,
    image: Arc<maru_image::App>,
    network: Arc<maru_network::App>,
    volume: Arc<maru_volume::App>,
    metrics: Arc<Exporter>,
    records: Arc<dyn Records>,
    /// See [`Settings::data`].
    data: Option<PathBuf>,
    /// Whoever holds it adopts or discards: one at a time, so that nothing is discarded that was adopted a moment ago.
    unknown_turn: tokio::sync::Mutex<()>,
}

/// Every service's rules with their defaults.
pub const POLICIES: &[&[maru_auth::RuleDefault]] = &[
    maru_identity::POLICY,
    maru_image::POLICY,
    maru_placement::POLICY,
    maru_network::POLICY,
    maru_compute::POLICY,
    maru_volume::POLICY,
    crate::metrics::POLICY,
];

/// Every kind that this release stores.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<maru_control::Flow>();
    maru_identity_model::register(&mut registry);
    maru_image_model::register(&mut registry);
    maru_placement_model::register(&mut registry);
    maru_network_model::register(&mut registry);
    maru_compute_model::register(&mut registry);
    maru_volume_model::register(&mut registry);
    maru_nodes::joining::register(&mut registry);
    registry
}

fn store_file(data: &Path) -> std::path::PathBuf {
    data.join("store.redb")
}

/// Opens the embedded store of a data directory.
async fn open_store(data: &Path) -> Result<Store> {
    let file = store_file(data);
    let engine = tokio::task::spawn_blocking({
        let file = file.clone();
        move || Redb::open(&file, Options::default())
    })
    .await?
    .map_err(|e| anyhow::anyhow!("the store {} cannot be opened: {e}", file.display()))?;
    Ok(Store::open(Arc::new(engine), registry()).await?)
}

/// What a cloud is made of; tests give their own.
pub struct Parts {
    /// Where the objects are.
    pub store: Store,
    /// Where the images' bytes are.
    pub blobs: Arc<dyn Blobs>,
    /// Where the bytes of volumes' backups are.
    pub backups: Arc<dyn Blobs>,
    /// Where audit records and the servers' stories are.
    pub records: Arc<dyn Records>,
    /// Who proves what an uploaded image is.
    pub inspector: Arc<dyn Inspector>,
}

impl Parts {
    /// The parts of a data directory: the embedded store, a directory of blobs, record files, the sandboxed parser.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn open(data: &Path, node: &str) -> Result<Self> {
        Ok(Self {
            store: open_store(data).await?,
            blobs: Arc::new(DirBlobs::open(data.join("blobs"), node).await?),
            backups: Arc::new(DirBlobs::open(data.join("backups"), node).await?),
            records: Arc::new(FileRecords::open(data.join("records"), Retention::default())?),
            inspector: Arc::new(SandboxInspector),
        })
    }
}

/// What a cloud is told when it opens.
#[derive(Clone)]
pub struct Settings {
    /// URL of the listener, without a slash at its end; the catalogue's endpoints begin with it.
    pub url: String,
    /// Region of the catalogue.
    pub region: String,
    /// Password of the administrator, for the first start.
    pub password: String,
    /// Text of a policy.yaml with overrides.
    pub policy: Option<String>,
    /// Cost of the passwords' bcrypt hash.
    pub bcrypt_cost: u32,
    /// What is demanded of passwords and log-ins.
    pub compliance: maru_identity::Compliance,
    /// What imports of images may be downloaded from besides public addresses.
    pub import_allow: maru_fetch::Allow,
    /// Block of the external network `public`.
    pub external_cidr: ipnet::Ipv4Net,
    /// Its gateway; the first address unless given.
    pub external_gateway: Option<std::net::Ipv4Addr>,
    /// Data directory that a command line must name to reach this cloud; `None` for the default one.
    pub data: Option<PathBuf>,
}

impl Cloud {
    /// Bootstraps what is missing in the store and puts the services behind a gateway.
    ///
    /// # Errors
    /// When a part cannot start.
    pub async fn open(parts: Parts, settings: &Settings) -> Result<Self> {
        let Parts {
            store,
            blobs,
            backups,
            records,
            inspector,
        } = parts;
        let Settings {
            url,
            region,
            bcrypt_cost,
            ..
        } = settings;
        let pulled = vec![Arc::clone(&blobs), Arc::clone(&backups)];
        let hub = Hub::new(store.clone(), pulled, Arc::clone(&records));
        let policy = Policy::build(POLICIES, settings.policy.as_deref()).map_err(|e| anyhow::anyhow!("policy: {e}"))?;

        let made = maru_identity::bootstrap(
            &store,
            &maru_identity::Bootstrap {
                admin_password: maru_identity::Secret::new(settings.password.as_str()),
                reset_password: false,
                region: region.clone(),
                public_url: format!("{url}/identity"),
                bcrypt_cost: *bcrypt_cost,
            },
        )
        .await?;
        let catalogue = catalogue(url);
        let entries: Vec<(&str, &str, &str)> = catalogue.iter().map(|(t, n, u)| (*t, *n, u.as_str())).collect();
        maru_identity::set_catalogue(&store, region, &entries).await?;
        let identity = maru_identity::App::new(
            store.clone(),
            maru_identity::Settings {
                bcrypt_cost: *bcrypt_cost,
                compliance: settings.compliance.clone(),
                ..maru_identity::Settings::default()
            },
        );
        maru_compute::bootstrap(&store).await?;
        maru_volume::bootstrap(&store).await?;
        external_network(&store, &made.admin_project, settings).await?;
        let image = maru_image::App::new(store.clone(), blobs, inspector)
            .fetching(maru_fetch::Fetcher::new(settings.import_allow.clone()))
            .in_region(region);
        let image = Arc::new(image);
        image.recover().await?;
        let network = Arc::new(maru_network::App::new(store.clone()));
        let compute = Arc::new(maru_compute::App::new(
            store.clone(),
            Arc::new(LaneConsoles(Arc::clone(&hub), Arc::clone(&image))),
            Some(Arc::clone(&records)),
        ));

        let volume = Arc::new(maru_volume::App::new(
            store.clone(),
            Arc::new(LaneVolumes(Arc::clone(&hub))),
            Arc::new(UploadedVolumes(Arc::clone(&image))),
            backups,
        ));
        volume.recover().await?;

        let metrics = Exporter::new(store.clone(), Arc::clone(&hub));
        let audit: Arc<dyn Audit> = Arc::new(RecordedAudit(Arc::clone(&records)));
        let mut services = vec![
            maru_identity::service(Arc::clone(&identity)),
            maru_image::service(Arc::clone(&image)),
            maru_placement::service(Arc::new(maru_placement::App::new(store.clone()))),
            maru_network::service(Arc::clone(&network)),
            maru_compute::service(Arc::clone(&compute)),
            metrics.service(),
        ];
        services.extend(maru_volume::services(&volume));
        let gateway = Gateway::new(
            services,
            maru_identity::verifier(Arc::clone(&identity)),
            Arc::new(policy),
            audit,
        )
        .map_err(|e| anyhow::anyhow!("routes: {e}"))?;
        let gateway = Arc::new(gateway);
        compute.connect(&gateway);
        metrics.add_http(gateway.metrics());
        Ok(Self {
            store,
            hub,
            gateway,
            compute,
            image,
            network,
            volume,
            metrics,
            records,
            data: settings.data.clone(),
            unknown_turn: tokio::sync::Mutex::default(),
        })
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The figures of this process.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Exporter> {
        &self.metrics
    }
    /// The nodes' sessions.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Runs the controllers until told to stop.
    pub async fn controllers(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let mut runtime = Runtime::new(self.store.clone());
        for reconciler in maru_image::reconcilers(Arc::clone(&self.image)) {
            runtime.add(reconciler);
        }
        for reconciler in maru_network::reconcilers(Arc::clone(&self.network)) {
            runtime.add(reconciler);
        }
        for reconciler in maru_compute::reconcilers(Arc::clone(&self.compute)) {
            runtime.add(reconciler);
        }
        for reconciler in maru_volume::reconcilers(&self.volume) {
            runtime.add(reconciler);
        }
        self.metrics.add_controllers(runtime.stats());
        tokio::join!(
            runtime.run(stop.clone()),
            maru_nodes::liveness::run(Arc::clone(&self.hub), stop)
        );
    }

    /// Health of each part.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn health(&self) -> Result<Value> {
        let snapshot = self.store.sync().await?;
        Ok(json!({
            "store": format!("ok, {} at revision {}", self.store.engine().name(), snapshot.revision()),
            "nodes": self.hub.silence().len(),
            "servers": snapshot.count::<maru_compute_model::Server>(),
            "ports": snapshot.count::<maru_network_model::Port>(),
            "images": snapshot.count::<maru_image_model::Image>(),
            "volumes": snapshot.count::<maru_volume_model::Volume>(),
        }))
    }
}

/// The external network `public`: floating addresses are the block without its first ten hosts and its gateway.
async fn external_network(store: &Store, project: &maru_base::ProjectId, options: &Settings) -> Result<()> {
    let block = options.external_cidr;
    if block.prefix_len() > 28 {
        bail!("--external-cidr {block} is too small for floating addresses; give a /28 or larger");
    }
    let at = |n: u32| std::net::Ipv4Addr::from(u32::from(block.network()) + n);
    let gateway = options.external_gateway.unwrap_or_else(|| at(1));
    if !block.contains(&gateway) {
        bail!("--external-gateway {gateway} is not in --external-cidr {block}");
    }
    let first = if block.prefix_len() <= 24 { 10 } else { 2 };
    let last = u32::from(block.broadcast()) - u32::from(block.network()) - 1;
    let pool = (at(first).into(), at(last).into());
    maru_network::bootstrap(store, project, ipnet::IpNet::V4(block), gateway.into(), pool).await?;
    Ok(())
}

/// The services of the catalogue: type, name, URL.
fn catalogue(url: &str) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("identity", "keystone", format!("{url}/identity")),
        ("image", "glance", format!("{url}/image")),
        ("placement", "placement", format!("{url}/placement")),
        ("network", "neutron", format!("{url}/network")),
        ("compute", "nova", format!("{url}/compute/v2.1")),
        ("block-storage", "cinder", format!("{url}/volume/v3")),
    ]
}

/// Replaces the fields of these names, at any depth.
fn hide(value: &mut Value, secrets: &[&str]) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if secrets.contains(&name.as_str()) && !value.is_null() {
                    *value = Value::from("(secret)");
                } else {
                    hide(value, secrets);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| hide(v, secrets)),
        _ => {}
    }
}

/// Raw keys that are no kind's: counters, names, addresses, epochs. Their values are numbers and ids.
const RAW: &[&str] = &["counter", "uniq", "alloc", "epoch", "clock", "txn", "meta", "cluster"];

impl Cloud {
    /// Writes a consistent copy of the store to a file that does not exist yet.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn backup(&self, file: &Path) -> Result<Value> {
        if file.exists() {
            bail!("{} exists; give a file that does not", file.display());
        }
        let backup = self.store.backup(file).await?;
        Ok(json!({ "file": file.display().to_string(), "keys": backup.entries, "revision": backup.revision }))
    }

    /// Puts a backup in place of the store of a data directory that no process uses. The old store is kept beside it.
    ///
    /// # Errors
    /// When the backup is damaged or the store cannot be written.
    pub async fn restore(data: &Path, file: &Path) -> Result<()> {
        let fresh = data.join("store.redb.restoring");
        if fresh.exists() {
            std::fs::remove_file(&fresh)?;
        }
        {
            let engine: Arc<dyn maru_store::Engine> = Arc::new(
                Redb::open(&fresh, Options::default()).map_err(|e| anyhow::anyhow!("{}: {e}", fresh.display()))?,
            );
            Store::restore(&engine, file).await?;
        }
        let store = store_file(data);
        if store.exists() {
            let old = data.join(format!("store.redb.before-{}", maru_base::time::now().as_second()));
            std::fs::rename(&store, &old).with_context(|| format!("cannot keep the old store as {}", old.display()))?;
        }
        std::fs::rename(&fresh, &store).with_context(|| format!("cannot put {} in place", store.display()))?;
        std::fs::File::open(data)?.sync_all()?;
        Ok(())
    }

    /// Objects whose key begins so, as JSON; secrets are left out.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub async fn dump(&self, prefix: &str) -> Result<Value> {
        let registry = registry();
        let prefix = maru_store::Key::from_raw(prefix);
        let (_, entries) = self
            .store
            .engine()
            .range(&prefix, None, 100_000)
            .await
            .map_err(|e| anyhow::anyhow!("the store: {e}"))?;
        let list: Vec<Value> = entries
            .into_iter()
            .map(|entry| {
                let kind = entry.key.as_str().split('/').next().unwrap_or_default();
                let secrets = if RAW.contains(&kind) {
                    &[]
                } else {
                    registry.secrets(kind)
                };
                let value = match serde_json::from_slice(&entry.value) {
                    _ if secrets.contains(&"*") => Value::from("(secret)"),
                    Ok(mut value) => {
                        hide(&mut value, secrets);
                        value
                    }
                    Err(_) => Value::from(String::from_utf8_lossy(&entry.value).into_owned()),
                };
                json!({ "key": entry.key.as_str(), "revision": entry.modified, "value": value })
            })
            .collect();
        Ok(Value::from(list))
    }

    /// What happened to a server, oldest first.
    ///
    /// # Errors
    /// When the records cannot be read or have nothing of it.
    pub async fn story(&self, server: &str) -> Result<Value> {
        let story = self.records.of_subject("server-event", server, 10_000).await?;
        if story.is_empty() {
            bail!("there is no record of a server {server}; `openstack server list --all-projects` shows the ids");
        }
        Ok(story.into())
    }

    /// Compares the mirror with the engine.
    ///
    /// # Errors
    /// When they differ, with the first objects that do.
    pub async fn check(&self) -> Result<Value> {
        let digest = self.store.digest().await?;
        if !digest.agrees() {
            bail!(
                "the mirror differs from the engine at revision {}: {:?}",
                digest.revision,
                digest.differences
            );
        }
        Ok(json!({ "revision": digest.revision, "mirror": "is what the engine says" }))
    }
}
