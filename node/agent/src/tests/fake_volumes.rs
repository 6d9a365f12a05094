//! The volumes of the machine made of maps, and their exporter.

use super::fake::Fake;
use async_trait::async_trait;
use maru_agent_api::lane::ByteStream;
use maru_agent_api::observed::PowerState;
use maru_agent_api::slice::VolumeExport;
use maru_base::{Error, Result};
use maru_block::{BaseImage, Exporter, VolumeDriver, VolumeFile};
use std::path::{Path, PathBuf};
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

#[async_trait]
impl VolumeDriver for Fake {
    fn describe(&self) -> String {
        "a map".to_owned()
    }
    fn find(&self, id: &str) -> Result<Option<VolumeFile>> {
        Ok(self.state().volumes.get(id).map(|(content, size)| VolumeFile {
            path: format!("/volumes/{id}.{content}").into(),
            content: *content,
            size: *size,
        }))
    }
    fn find_snapshot(&self, id: &str) -> Result<Option<PathBuf>> {
        Ok(self
            .state()
            .snapshots
            .contains(id)
            .then(|| format!("/snapshots/{id}").into()))
    }
    fn all(&self) -> Result<Vec<(&'static str, String)>> {
        let s = self.state();
        let volumes = s.volumes.keys().map(|id| ("volume", id.clone()));
        Ok(volumes
            .chain(s.snapshots.iter().map(|id| ("volume-snapshot", id.clone())))
            .collect())
    }
    async fn blank(&self, id: &str, content: u64, size: u64) -> Result<()> {
        self.make_volume("blank", id, content, size).await
    }
    async fn of_image(&self, id: &str, content: u64, size: u64, _: &BaseImage) -> Result<()> {
        self.make_volume("of-image", id, content, size).await
    }
    async fn copy(&self, id: &str, content: u64, size: u64, from: &Path) -> Result<()> {
        self.make_volume(&format!("of {}", from.display()), id, content, size)
            .await
    }
    async fn of_backup(&self, id: &str, content: u64, size: u64, _: &str, _: ByteStream) -> Result<()> {
        self.make_volume("of-backup", id, content, size).await
    }
    async fn snapshot(&self, id: &str, from: &Path) -> Result<()> {
        self.call(format!("snapshot {id} of {}", from.display()), |s| {
            s.snapshots.insert(id.to_owned());
            Ok(())
        })
        .await
    }
    async fn grow(&self, file: &VolumeFile, size: u64) -> Result<()> {
        let id = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.call(format!("grow {id}"), |s| {
            assert!(
                !s.guests
                    .values()
                    .any(|g| g.power == PowerState::Running && g.attached.contains(&id)),
                "a file is grown under a running guest"
            );
            if let Some(volume) = s.volumes.get_mut(&id) {
                volume.1 = size;
            }
            Ok(())
        })
        .await
    }
    async fn export(&self, _: &Path, _: &str, _: &Path) -> Result<()> {
        Err(Error::not_implemented("no bytes here"))
    }
    fn scratch(&self, id: &str) -> Result<PathBuf> {
        Ok(format!("/volumes/{id}.part").into())
    }
    fn remove(&self, id: &str) -> Result<()> {
        let mut s = self.state();
        assert!(
            !s.guests
                .values()
                .any(|g| g.power == PowerState::Running && g.attached.iter().any(|a| a == id)),
            "a volume is taken from a guest"
        );
        s.journal.push(format!("remove-volume {id}"));
        s.volumes.remove(id);
        Ok(())
    }
    fn remove_snapshot(&self, id: &str) -> Result<()> {
        let mut s = self.state();
        s.journal.push(format!("remove-snapshot {id}"));
        s.snapshots.remove(id);
        Ok(())
    }
}
