//! Lanes into a simulated node: short texts in place of a guest's bytes.

use crate::Inner;
use async_trait::async_trait;
use maru_agent_api::lane::{ByteStream, Duplex, Lanes};
use maru_agent_api::slice::ItemKey;
use maru_base::{Error, Result};
use std::io::Cursor;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

pub(crate) struct SimLanes(pub(crate) Arc<Inner>);

impl SimLanes {
    fn check(&self, server: &str) -> Result<()> {
        if self.0.world().guests.contains_key(server) {
            return Ok(());
        }
        Err(Error::not_found(format!("There is no server {server} on this node.")))
    }
    async fn greeting(&self, server: &str, what: &str) -> Result<Box<dyn Duplex>> {
        self.check(server)?;
        let (near, mut far) = tokio::io::duplex(4096);
        let text = format!("simulated {what} of {server}\r\n");
        far.write_all(text.as_bytes())
            .await
            .map_err(|e| Error::internal("the lane is broken", e))?;
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            // It echoes until the other end is done.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Ok(Box::new(near))
    }
}

#[async_trait]
impl Lanes for SimLanes {
    async fn console_log(&self, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        self.check(server)?;
        let text = format!("[    0.000000] simulated boot of {server}\n{server} login: \n");
        let all: Vec<&str> = text.lines().collect();
        let from = all.len().saturating_sub(lines.unwrap_or(usize::MAX));
        Ok(all[from..]
            .iter()
            .flat_map(|l| [l.as_bytes(), b"\n"].concat())
            .collect())
    }
    async fn vnc(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.greeting(server, "screen").await
    }
    async fn serial(&self, server: &str) -> Result<Box<dyn Duplex>> {
        self.greeting(server, "serial console").await
    }
    async fn disk_image(&self, server: &str) -> Result<ByteStream> {
        self.check(server)?;
        Ok(Box::new(Cursor::new(empty_qcow2())))
    }
    async fn volume_bytes(&self, id: &str, format: &str) -> Result<ByteStream> {
        let world = self.0.world();
        if !world.volumes.contains_key(id) && !world.snapshots.contains(id) {
            return Err(Error::not_found(format!("the volume {id} has no bytes on this node")));
        }
        Ok(Box::new(Cursor::new(match format {
            "qcow2" => empty_qcow2(),
            _ => vec![0; 1 << 16],
        })))
    }
    /// A simulated node has no disks to fill.
    async fn cache_image(&self, _digest: &str, _format: &str) -> Result<()> {
        Ok(())
    }
    async fn inject_nmi(&self, server: &str) -> Result<()> {
        self.check(server)
    }
    async fn diagnostics(&self, server: &str) -> Result<serde_json::Value> {
        let world = self.0.world();
        let guest = world.guests.get(server);
        let guest = guest.ok_or_else(|| Error::not_found(format!("There is no server {server} on this node.")))?;
        Ok(serde_json::json!({
            "state": format!("{:?}", guest.power).to_lowercase(),
            "driver": "libvirt",
            "hypervisor": "qemu",
            "hypervisor_os": "linux",
            "config_drive": false,
            "uptime": 0,
            "num_cpus": 1,
            "num_nics": guest.ports.len(),
            "num_disks": guest.disks.len(),
            "cpu_details": [],
            "nic_details": [],
            "disk_details": [],
            "memory_details": { "maximum": guest.memory_mib, "used": guest.memory_mib },
        }))
    }
    async fn origin(&self, server: &str) -> Result<String> {
        self.check(server)?;
        Ok(self
            .0
            .world()
            .guests
            .get(server)
            .map(|g| g.origin.clone())
            .unwrap_or_default())
    }
    async fn discard(&self, what: &str, id: &str) -> Result<()> {
        let mut world = self.0.world();
        let key = match what {
            "volume" => ItemKey::Volume(id.to_owned()),
            "volume-snapshot" => ItemKey::VolumeSnapshot(id.to_owned()),
            _ => ItemKey::Server(id.to_owned()),
        };
        let known = world.items.contains_key(&key);
        if !matches!(what, "server" | "volume" | "volume-snapshot") || known {
            return Err(Error::conflict(format!(
                "The {what} {id} is not unknown to the slice and is kept."
            )));
        }
        match key {
            ItemKey::Volume(_) => drop(world.volumes.remove(id)),
            ItemKey::VolumeSnapshot(_) => drop(world.snapshots.remove(id)),
            _ => drop(world.guests.remove(id)),
        }
        Ok(())
    }
}

/// An empty qcow2 of 1 GiB.
fn empty_qcow2() -> Vec<u8> {
    // The header of an empty qcow2 file, version 3, of 1 GiB: enough for whoever looks at it.
    let mut image = vec![0_u8; 65_536 * 4];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    image[20..24].copy_from_slice(&16_u32.to_be_bytes());
    image[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
    image[36..40].copy_from_slice(&2_u32.to_be_bytes());
    image[40..48].copy_from_slice(&(3_u64 * 65_536).to_be_bytes());
    image[48..56].copy_from_slice(&65_536_u64.to_be_bytes());
    image[56..60].copy_from_slice(&1_u32.to_be_bytes());
    image[96..100].copy_from_slice(&4_u32.to_be_bytes());
    image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    // Reference counts: a table of one block, whose first four clusters (of 16 bits) are in use.
    image[65_536..65_544].copy_from_slice(&(2_u64 * 65_536).to_be_bytes());
    for cluster in 0..4 {
        image[2 * 65_536 + cluster * 2 + 1] = 1;
    }
    image
}
