//! What the agent does to its machine, as traits: the real drivers, and in tests a machine made of maps.

use crate::responders::Responders;
use async_trait::async_trait;
use maru_agent_api::lane::ByteStream;
use maru_agent_api::slice::{Network, Port, Router};
use maru_base::{Error, Result};
use maru_block::{BaseImage, DiskFile, Disks, Exporter, Room, VolumeDriver, Volumes};
use maru_dhcp::NetworkView as DhcpView;
use maru_firewall::{Applied, Firewall, FirewallInput, RouterNat};
use maru_link::{Links, NetworkLinks, Observed, Responder, RouterLinks, RouterSpec};
use maru_metadata::{Directory, GuestView};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Guests of one network by address.
pub(crate) type Guests = HashMap<IpAddr, Arc<GuestView>>;

/// Links and firewall.
#[async_trait]
pub(crate) trait Wires: Send + Sync + 'static {
    async fn ensure_network(&self, network: &Network, dhcp_port: Option<&Port>) -> Result<NetworkLinks>;
    async fn remove_network(&self, id: &str) -> Result<()>;
    /// Makes the tap, down.
    async fn ensure_port(&self, port: &Port, network: &Network) -> Result<()>;
    async fn port_up(&self, id: &str, up: bool) -> Result<()>;
    async fn remove_port(&self, id: &str) -> Result<()>;
    /// Loads the rules of all ports, in one transaction.
    async fn apply(&self, input: FirewallInput<'_>) -> Result<Applied>;
    /// Makes namespace, address translation and links, in this order.
    async fn ensure_router(&self, router: &Router, ports: &[Port], networks: &[Network]) -> Result<RouterLinks>;
    async fn remove_router(&self, id: &str) -> Result<()>;
    async fn observe(&self) -> Result<Observed>;
    async fn teardown(&self) -> Result<()>;
}

/// DHCP, metadata and router advertisements.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers for this network from now on with this knowledge; starts what is not there.
    fn network(
        &self,
        network_id: &str,
        responder: &Responder,
        dhcp: Arc<DhcpView>,
        guests: Guests,
        directory: &Arc<dyn Directory>,
    ) -> Result<()>;
    /// Answers no more for this network.
    fn network_gone(&self, id: &str);
    /// Advertises these prefixes: interface port, device and view.
    fn router(&self, id: &str, links: &RouterLinks, views: Vec<(String, String, maru_dhcp::RaView)>) -> Result<()>;
    fn router_gone(&self, id: &str);
    /// The guest of a network that has an address.
    fn guest(&self, network_id: &str, source: IpAddr) -> Option<Arc<GuestView>>;
    fn stop_all(&self);
}

/// Opens a blob when it is needed.
pub(crate) type Pull<'a> = Box<dyn FnOnce() -> futures_util::future::BoxFuture<'a, Result<ByteStream>> + Send + 'a>;

/// Disks.
#[async_trait]
pub(crate) trait Storage: Send + Sync + 'static {
    async fn base(&self, digest: &str, format: &str, pull: Pull<'_>) -> Result<BaseImage>;
    async fn overlay(&self, server: &str, name: &str, base: &BaseImage, size: u64) -> Result<DiskFile>;
    async fn blank(&self, server: &str, name: &str, size: u64) -> Result<DiskFile>;
    async fn media(&self, server: &str, name: &str, bytes: Vec<u8>) -> Result<DiskFile>;
    /// The media that [`Storage::media`] made, if it is there.
    async fn find_media(&self, server: &str, name: &str) -> Result<Option<DiskFile>>;
    async fn remove(&self, server: &str, name: &str) -> Result<()>;
    async fn keep(&self, server: &str, number: u64) -> Result<()>;
    async fn restore(&self, server: &str, number: u64) -> Result<()>;
    async fn drop_kept(&self, server: &str) -> Result<()>;
    async fn fit(&self, server: &str, name: &str, size: u64) -> Result<()>;
    async fn remove_server(&self, server: &str) -> Result<()>;
    fn servers(&self) -> Result<Vec<String>>;
    fn room(&self) -> Result<Room>;
}

/// The real links and firewall.
pub(crate) struct Machine {
    pub links: Links,
    pub firewall: Firewall,
}

#[async_trait]
impl Wires for Machine {
    async fn ensure_network(&self, network: &Network, dhcp_port: Option<&Port>) -> Result<NetworkLinks> {
        self.links.ensure_network(network, dhcp_port).await
    }
    async fn remove_network(&self, id: &str) -> Result<()> {
        self.links.remove_network(id).await
    }
    async fn ensure_port(&self, port: &Port, network: &Network) -> Result<()> {
        self.links.ensure_port(port, network).await.map(drop)
    }
    async fn port_up(&self, id: &str, up: bool) -> Result<()> {
        self.links.port_up(id, up).await
    }
    async fn remove_port(&self, id: &str) -> Result<()> {
        self.links.remove_port(id).await
    }
    async fn apply(&self, input: FirewallInput<'_>) -> Result<Applied> {
        self.firewall.apply(input).await
    }
    async fn ensure_router(&self, router: &Router, ports: &[Port], networks: &[Network]) -> Result<RouterLinks> {
        let (ports, networks): (Vec<&Port>, Vec<&Network>) = (ports.iter().collect(), networks.iter().collect());
        let netns = self.links.ensure_router_namespace(&router.id).await?;
        let nat = RouterNat {
            router,
            ports: ports.clone(),
            networks: networks.clone(),
        };
        for fault in self.firewall.apply_router(&netns.path(), &nat).await?.faults {
            tracing::warn!(
                router = router.id,
                what = fault.what,
                id = fault.id,
                reason = fault.reason,
                "left out of the rules"
            );
        }
        self.links
            .ensure_router(&RouterSpec {
                router,
                ports,
                networks,
            })
            .await
    }
    async fn remove_router(&self, id: &str) -> Result<()> {
        self.links.remove_router(id).await
    }
    async fn observe(&self) -> Result<Observed> {
        self.links.observe().await
    }
    async fn teardown(&self) -> Result<()> {
        self.links.teardown().await
    }
}

#[async_trait]
impl Storage for Disks {
    async fn base(&self, digest: &str, format: &str, pull: Pull<'_>) -> Result<BaseImage> {
        Disks::base(self, digest, format, pull).await
    }
    async fn overlay(&self, server: &str, name: &str, base: &BaseImage, size: u64) -> Result<DiskFile> {
        Disks::overlay(self, server, name, base, size).await
    }
    async fn blank(&self, server: &str, name: &str, size: u64) -> Result<DiskFile> {
        Disks::blank(self, server, name, size).await
    }
    async fn media(&self, server: &str, name: &str, bytes: Vec<u8>) -> Result<DiskFile> {
        Disks::media(self, server, name, bytes).await
    }
    async fn find_media(&self, server: &str, name: &str) -> Result<Option<DiskFile>> {
        let path: PathBuf = Disks::path(self, server, name, "raw")?;
        let there = tokio::fs::try_exists(&path)
            .await
            .map_err(|e| Error::internal("the server's disks cannot be looked at", e))?;
        Ok(there.then(|| DiskFile {
            path,
            format: "raw".to_owned(),
            backing: None,
        }))
    }
    async fn remove(&self, server: &str, name: &str) -> Result<()> {
        Disks::remove(self, server, name).await
    }
    async fn keep(&self, server: &str, number: u64) -> Result<()> {
        Disks::keep(self, server, number).await
    }
    async fn restore(&self, server: &str, number: u64) -> Result<()> {
        Disks::restore(self, server, number).await
    }
    async fn drop_kept(&self, server: &str) -> Result<()> {
        Disks::drop_kept(self, server).await
    }
    async fn fit(&self, server: &str, name: &str, size: u64) -> Result<()> {
        Disks::fit(self, server, name, size).await
    }
    async fn remove_server(&self, server: &str) -> Result<()> {
        Disks::remove_server(self, server).await
    }
    fn servers(&self) -> Result<Vec<String>> {
        Disks::servers(self)
    }
    fn room(&self) -> Result<Room> {
        Disks::room(self)
    }
}

/// All drivers of a machine.
pub(crate) struct Drivers {
    pub wires: Arc<dyn Wires>,
    pub answers: Arc<dyn Answers>,
    pub disks: Arc<dyn Storage>,
    pub volumes: Arc<dyn VolumeDriver>,
    pub exporter: Arc<dyn Exporter>,
    pub hypervisor: Arc<dyn maru_qemu::Hypervisor>,
}

impl Drivers {
    /// The real ones.
    pub(crate) fn of(
        links: Links,
        disks: Disks,
        volumes: Volumes,
        exporter: Arc<dyn Exporter>,
        hypervisor: Arc<dyn maru_qemu::Hypervisor>,
    ) -> Self {
        let firewall = Firewall::new(links.namespace().path());
        Self {
            wires: Arc::new(Machine { links, firewall }),
            answers: Arc::new(Responders::default()),
            disks: Arc::new(disks),
            volumes: Arc::new(volumes),
            exporter,
            hypervisor,
        }
    }
}
