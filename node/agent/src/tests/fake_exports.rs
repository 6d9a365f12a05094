//! The exporter of the machine made of maps.

use super::fake::Fake;
use async_trait::async_trait;
use maru_agent_api::observed::PowerState;
use maru_agent_api::slice::VolumeExport;
use maru_base::{Error, Result};
use maru_block::Exporter;
use std::path::Path;
use tokio::sync::broadcast;

/// Where the fake offers volumes.
pub(crate) const AT: &str = "192.0.2.1:10809";

#[async_trait]
impl Exporter for Fake {
    async fn adopt_all(&self) -> Result<()> {
        Ok(())
    }
    fn has_open(&self, volume: &str) -> bool {
        self.state().exports.contains_key(volume)
    }
    async fn offer(&self, volume: &str, _: &Path, exports: &[VolumeExport]) -> Result<String> {
        let names = exports.iter().map(|e| e.name.clone()).collect();
        self.call(format!("offer {volume}"), |s| {
            let opened = s.guests.values().any(|g| {
                let remote = g.config.disks.iter().any(|d| d.name == volume && d.remote.is_some());
                g.power == PowerState::Running && !remote && g.attached.iter().any(|a| a == volume)
            });
            assert!(!opened, "a file is offered that a guest has open");
            assert!(s.volumes.contains_key(volume), "a volume is offered that is not there");
            s.exports.insert(volume.to_owned(), names);
            Ok(AT.to_owned())
        })
        .await
    }
    async fn withdraw(&self, volume: &str) -> Result<()> {
        if !self.has_open(volume) {
            return Ok(());
        }
        self.call(format!("withdraw {volume}"), |s| {
            s.exports.remove(volume);
            Ok(())
        })
        .await
    }
    async fn grow(&self, volume: &str, size: u64) -> Result<()> {
        self.call(format!("grow-offered {volume}"), |s| {
            if let Some(there) = s.volumes.get_mut(volume) {
                there.1 = size;
            }
            Ok(())
        })
        .await
    }
    async fn snapshot(&self, volume: &str, _: &Path) -> Result<()> {
        self.call(format!("copy-of-offered {volume}"), |s| {
            match s.exports.contains_key(volume) {
                true => Ok(()),
                false => Err(Error::unavailable("it is not offered")),
            }
        })
        .await
    }
    async fn stop_all(&self) -> Result<()> {
        self.state().exports.clear();
        Ok(())
    }
    fn ended(&self) -> broadcast::Receiver<String> {
        self.ended.subscribe()
    }
}
