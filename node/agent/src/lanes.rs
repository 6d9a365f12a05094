//! Byte lanes into this node.

use crate::Inner;
use async_trait::async_trait;
use maru_agent_api::lane::{ByteStream, Duplex, Lanes};
use maru_agent_api::slice::ItemKey;
use maru_base::{Error, Result};
use maru_metadata::Directory;
use std::sync::Arc;

/// How the names of unfinished snapshots begin.
const SNAPSHOT: &str = "snapshot-";

/// Removes snapshots that a crash left half-made.
pub(crate) fn sweep(data_dir: &std::path::Path) {
    let entries = std::fs::read_dir(data_dir.join("guests"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(SNAPSHOT)) {
        if let Err(e) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), error = %e, "a half-made snapshot was not removed");
        }
    }
}

/// The lanes of this node.
pub(crate) struct NodeLanes(pub(crate) Arc<Inner>);

#[async_trait]
impl Lanes for NodeLanes {
    async fn console_log(&self, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        self.0.hypervisor.console_log(server, lines).await
    }
    async fn vnc(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.0.hypervisor.vnc(server).await
    }
    async fn serial(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.0.hypervisor.serial(server).await
    }
    async fn disk_image(&self, server: &str) -> Result<ByteStream> {
        let target = self
            .0
            .config
            .data_dir
            .join("guests")
            .join(format!("{SNAPSHOT}{}.part", maru_base::random::hex32()));
        if let Err(e) = self.0.hypervisor.snapshot(server, "root", &target).await {
            let _ = tokio::fs::remove_file(&target).await;
            return Err(e);
        }
        let file = tokio::fs::File::open(&target)
            .await
            .map_err(|e| Error::internal("the snapshot cannot be read back", e))?;
        // The bytes live as long as the open file; nothing is left when the reader is done or dies.
        tokio::fs::remove_file(&target)
            .await
            .map_err(|e| Error::internal("the snapshot's name cannot be removed", e))?;
        Ok(Box::new(file))
    }
    async fn volume_bytes(&self, id: &str, format: &str) -> Result<ByteStream> {
        crate::volume::bytes(&self.0, id, format).await
    }
    async fn diagnostics(&self, server: &str) -> Result<serde_json::Value> {
        self.0.hypervisor.diagnostics(server).await
    }
    async fn inject_nmi(&self, server: &str) -> Result<()> {
        self.0.hypervisor.inject_nmi(server).await
    }
    async fn cache_image(&self, digest: &str, format: &str) -> Result<()> {
        let pull = Box::new(|| Box::pin(crate::server::pull(&self.0, digest)) as _);
        self.0.disks.base(digest, format, pull).await.map(drop)
    }
    async fn password(&self, server: &str) -> Result<Option<Vec<u8>>> {
        self.0.register.password(server).await
    }
    async fn clear_password(&self, server: &str) -> Result<()> {
        self.0.register.forget(server).await
    }
    async fn origin(&self, server: &str) -> Result<String> {
        let config = self.0.hypervisor.status(server).await?.config;
        Ok(config
            .and_then(|c| c.notes.get(crate::server::ORIGIN).cloned())
            .unwrap_or_default())
    }
    async fn discard(&self, what: &str, id: &str) -> Result<()> {
        let key = match what {
            "network" => ItemKey::Network(id.to_owned()),
            "router" => ItemKey::Router(id.to_owned()),
            "volume" => ItemKey::Volume(id.to_owned()),
            "volume-snapshot" => ItemKey::VolumeSnapshot(id.to_owned()),
            _ => ItemKey::Server(id.to_owned()),
        };
        if self.0.desired().knows(&key) {
            return Err(Error::conflict(format!(
                "the {what} {id} belongs to the cloud and is kept; delete it through the API"
            )));
        }
        match what {
            "server" => {
                self.0.hypervisor.destroy(id).await?;
                self.0.disks.remove_server(id).await?;
                self.0.register.forget(id).await?;
                // Its taps go in the next pass.
                self.0.network.notify_one();
                Ok(())
            }
            "disk" => self.0.disks.remove_server(id).await,
            "network" => self.0.wires.remove_network(id).await,
            "router" => self.0.wires.remove_router(id).await,
            "volume" => {
                if let Some(guest) = crate::volume::user(&self.0, id).await? {
                    return Err(Error::conflict(format!(
                        "the volume {id} is kept: the guest {guest} runs with it; discard or stop that one first"
                    )));
                }
                self.0.exporter.withdraw(id).await?;
                self.0.volume_files.remove(id)
            }
            "volume-snapshot" => self.0.volume_files.remove_snapshot(id),
            other => Err(Error::bad_request(format!(
                "there is nothing of the kind '{other}' here"
            ))),
        }
    }
}
