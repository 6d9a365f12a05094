//! Devices of a running guest: plug, unplug, grow, copy.

use super::{Vm, Waited};
use crate::argv;
use crate::config::{GuestDisk, GuestNic};
use crate::hypervisor::AcceleratorKind;
use crate::qmp::{Qmp, QmpError};
use crate::record::{Live, controller, disk_key, nic_key};
use crate::tap;
use maru_base::{Error, Result};
use maru_block::Remote;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a guest is asked to let go of a device; one that is still booting misses the first requests.
const ASK: Duration = Duration::from_secs(5);
/// How long the holder of a remote disk may take to answer.
const REACH: Duration = Duration::from_secs(3);
/// How many times it is asked.
const TIMES: u32 = 8;

impl Vm {
    /// The record's live devices, to be changed.
    fn live(&mut self) -> Result<&mut Live> {
        let id = self.id.clone();
        self.record
            .as_mut()
            .and_then(|r| r.live.as_mut())
            .ok_or_else(|| Error::conflict(format!("server {id} is not running, so this cannot be done now")))
    }

    pub(super) async fn attach_nic(&mut self, nic: GuestNic) -> Result<()> {
        let key = nic_key(&nic);
        if let Some(record) = &mut self.record
            && !record.config.nics.iter().any(|n| n.port_id == nic.port_id)
        {
            record.config.nics.push(nic.clone());
            self.save();
        }
        if self.process.is_none() || self.live()?.units.contains_key(&key) {
            self.publish_quietly();
            return Ok(());
        }
        let result = self.plug_nic(&nic, &key).await;
        self.finish_plug(&key, result)
    }

    async fn plug_nic(&mut self, nic: &GuestNic, key: &str) -> Result<()> {
        let qmp = self.qmp()?;
        let opened = tap::open(self.host.options.netns.clone(), nic.tap.clone()).await?;
        let unit = self.plan_plug(key, |live| live.config.nics.push(nic.clone()))?;
        let kvm = self.host.accelerator().await?.kind == AcceleratorKind::Kvm;
        let name = format!("tap{unit}");
        qmp.give(&name, opened).await?;
        let vhost = kvm && Path::new("/dev/vhost-net").exists();
        qmp.call("netdev_add", argv::netdev(unit, &name, vhost)).await?;
        if let Err(e) = qmp.call("device_add", argv::nic_device(nic, unit)).await {
            let _ = qmp.call("netdev_del", json!({ "id": format!("net{unit}") })).await;
            return Err(e.into());
        }
        Ok(())
    }

    pub(super) async fn attach_disk(&mut self, disk: GuestDisk) -> Result<()> {
        let key = disk_key(&disk);
        let running = self.process.is_some();
        if running && !self.live()?.units.contains_key(&key) && argv::effective_bus(&disk) == "ide" {
            return Err(Error::conflict(format!(
                "disk {} was refused: bus {} takes no disks while the server runs; use virtio or scsi, or stop it first",
                disk.name, disk.bus
            )));
        }
        if let Some(record) = &mut self.record
            && !record.config.disks.iter().any(|d| d.name == disk.name)
        {
            record.config.disks.push(disk.clone());
            self.save();
        }
        if !running || self.live()?.units.contains_key(&key) {
            self.publish_quietly();
            return Ok(());
        }
        let result = self.plug_disk(&disk, &key).await;
        self.finish_plug(&key, result)
    }

    async fn plug_disk(&mut self, disk: &GuestDisk, key: &str) -> Result<()> {
        let qmp = self.qmp()?;
        if let Some(controller) = controller(&disk.bus)
            && !self.live()?.units.contains_key(controller)
        {
            let unit = self.plan_plug(controller, |_| {})?;
            if let Some(device) = argv::controller_device(controller, unit)
                && let Err(e) = qmp.call("device_add", device).await
            {
                self.live()?.forget(controller);
                self.save();
                return Err(e.into());
            }
        }
        if let Some(owner) = self.host.options.run_as.filter(|_| disk.remote.is_none()) {
            std::os::unix::fs::chown(&disk.path, Some(owner.0), Some(owner.1))
                .map_err(|e| Error::internal(format!("disk {} was not handed over", disk.name), e))?;
        }
        reachable(disk).await?;
        let unit = self.plan_plug(key, |live| live.config.disks.push(disk.clone()))?;
        let device = argv::disk_device(self.live()?, disk, unit, None);
        let mut result = Ok(());
        if let Some(key) = argv::key_object(disk, unit) {
            self.hand_over_keys(disk)?;
            result = qmp.call("object-add", key).await.map(drop);
        }
        let nodes = if result.is_ok() {
            argv::block_nodes(disk, unit)
        } else {
            Vec::new()
        };
        for node in nodes {
            result = qmp.call("blockdev-add", node).await.map(drop);
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = qmp.call("device_add", device).await.map(drop);
        }
        if let Err(e) = result {
            remove_nodes(&qmp, disk, unit).await;
            return Err(e.into());
        }
        if disk.limits.is_empty() {
            return Ok(());
        }
        limit(&qmp, disk, unit).await
    }

    /// Takes a unit and records the device before QEMU gets it: what adoption finds in the record and not in QEMU it
    /// forgets, while a device in QEMU that no record knows could never be taken away.
    fn plan_plug(&mut self, key: &str, add: impl FnOnce(&mut Live)) -> Result<u8> {
        let live = self.live()?;
        let unit = live.unit(key.to_owned())?;
        add(live);
        live.plugged.push(unit);
        self.save();
        Ok(unit)
    }

    fn finish_plug(&mut self, key: &str, result: Result<()>) -> Result<()> {
        if result.is_err() {
            if let Some(record) = &mut self.record {
                record.config.disks.retain(|d| disk_key(d) != key);
                record.config.nics.retain(|n| nic_key(n) != key);
                if let Some(live) = &mut record.live {
                    live.forget(key);
                }
            }
            self.save();
        }
        self.publish(if result.is_ok() { "attached" } else { "attach-failed" });
        result
    }

    pub(super) async fn detach(&mut self, key: &str) -> Result<()> {
        let unit = match self.record.as_ref().and_then(|r| r.live.as_ref()) {
            Some(live) if self.process.is_some() => live.units.get(key).copied(),
            _ => None,
        };
        if let Some(unit) = unit {
            let (kind, name) = key.split_once(' ').unwrap_or_default();
            let ide = self
                .live()?
                .config
                .disks
                .iter()
                .any(|d| disk_key(d) == key && argv::effective_bus(d) == "ide");
            if ide {
                return Err(Error::conflict(format!(
                    "disk {name} was refused: its bus gives no disk away while the server runs; stop it first"
                )));
            }
            self.unplug(&format!("{kind}{unit}"), key).await?;
        }
        if let Some(record) = &mut self.record {
            record.config.disks.retain(|d| disk_key(d) != key);
            record.config.nics.retain(|n| nic_key(n) != key);
            self.save();
        }
        self.publish("detached");
        Ok(())
    }

    /// Asks the guest to let go until it does.
    async fn unplug(&mut self, device: &str, key: &str) -> Result<()> {
        for _ in 0..TIMES {
            match self.qmp()?.call("device_del", json!({ "id": device })).await {
                Ok(_) => {}
                Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => {
                    self.on_device_deleted(device).await;
                }
                // "Already in the process of unplug": asked before, go on waiting.
                Err(QmpError::Refused { .. }) => {}
                Err(e) => return Err(e.into()),
            }
            let has = |vm: &Self| {
                vm.record
                    .as_ref()
                    .and_then(|r| r.live.as_ref())
                    .is_some_and(|l| l.units.contains_key(key))
            };
            match self.wait_for(ASK, |vm| !has(vm)).await {
                Waited::Met => return Ok(()),
                Waited::Late => {}
                Waited::Overtaken => return Err(Error::conflict("given up for a stop of the server")),
            }
        }
        Err(Error::unavailable(format!(
            "the guest did not let go of the device within {} s; is it running, and is the device out of use in it?",
            ASK.as_secs() * u64::from(TIMES)
        )))
    }

    /// QEMU says that a device is gone, now or long after it was asked to be.
    pub(super) async fn on_device_deleted(&mut self, device: &str) {
        let Some(live) = self.record.as_mut().and_then(|r| r.live.as_mut()) else {
            return;
        };
        let Some(key) = argv::key_of_device(live, device) else {
            return;
        };
        let Some(unit) = live.units.get(&key).copied() else {
            return;
        };
        let disk = live.config.disks.iter().find(|d| disk_key(d) == key).cloned();
        live.forget(&key);
        self.save();
        if let Some(qmp) = self.qmp.clone() {
            match disk {
                Some(disk) => remove_nodes(&qmp, &disk, unit).await,
                None => {
                    let _ = qmp.call("netdev_del", json!({ "id": format!("net{unit}") })).await;
                }
            }
        }
        self.publish("device-gone");
    }

    /// Gives the user that QEMU runs as the key of a remote disk.
    pub(super) fn hand_over_keys(&self, disk: &GuestDisk) -> Result<()> {
        let (Some(Remote::Nbd(nbd)), Some((uid, gid))) = (&disk.remote, self.host.options.run_as) else {
            return Ok(());
        };
        [nbd.keys.clone(), nbd.keys.join("keys.psk")]
            .iter()
            .try_for_each(|path| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
            .map_err(|e| Error::internal(format!("the key of disk {} was not handed over", disk.name), e))
    }

    /// Moves a running guest's remote disk to another opening of it: it has grown, or its holder offers it at one more address. The guest
    /// notices nothing but the new size. Each step looks whether it was done before a crash.
    pub(super) async fn follow_disk(&mut self, disk: GuestDisk) -> Result<()> {
        let key = disk_key(&disk);
        if self.process.is_none() {
            return Ok(());
        }
        let live = self.live()?;
        let Some(unit) = live.units.get(&key).copied() else {
            return Ok(());
        };
        let Some(old) = live.config.disks.iter().find(|d| d.name == disk.name).cloned() else {
            return Ok(());
        };
        if old.limits != disk.limits {
            limit(&self.qmp()?, &disk, unit).await?;
            if let Some(at) = self.live()?.config.disks.iter_mut().find(|d| d.name == disk.name) {
                at.limits.clone_from(&disk.limits);
            }
            self.save();
        }
        let (Some(Remote::Nbd(_)), Some(Remote::Nbd(new))) = (&old.remote, &disk.remote) else {
            return Ok(());
        };
        if old.remote == disk.remote {
            return Ok(());
        }
        let qmp = self.qmp()?;
        // What the guest has written is flushed on the way: without its holder that, and QEMU with it, would wait.
        reachable(&old).await?;
        reachable(&disk).await?;
        self.hand_over_keys(&disk)?;
        let objects = qmp.call("qom-list", json!({ "path": "/objects" })).await?;
        let nodes = qmp.call("query-named-block-nodes", json!({ "flat": true })).await?;
        let has = |list: &serde_json::Value, field: &str, name: &serde_json::Value| {
            list.as_array().into_iter().flatten().any(|x| x[field] == *name)
        };
        if let Some(object) = argv::key_object(&disk, unit)
            && !has(&objects, "name", &object["id"])
        {
            qmp.call("object-add", object).await?;
        }
        if let Some(node) = argv::block_nodes(&disk, unit).into_iter().next()
            && !has(&nodes, "node-name", &node["node-name"])
        {
            qmp.call("blockdev-add", node).await?;
        }
        let moved = json!({ "options": [argv::top_of_nbd(&disk, new, unit)] });
        qmp.call_within("blockdev-reopen", moved, Duration::from_secs(60))
            .await?;
        self.resize_disk(&disk.name, new.size).await?;
        if let Some(at) = self.live()?.config.disks.iter_mut().find(|d| d.name == disk.name) {
            at.clone_from(&disk);
        }
        self.save();
        if let Some(lower) = argv::node_names(&old, unit).last() {
            let _ = qmp.call("blockdev-del", json!({ "node-name": lower })).await;
        }
        remove_key(&qmp, &old, unit).await;
        Ok(())
    }

    pub(super) async fn resize_disk(&mut self, name: &str, bytes: u64) -> Result<()> {
        let qmp = self.qmp()?;
        let unit = self.unit_of_disk(name)?;
        qmp.call_within(
            "block_resize",
            json!({ "node-name": format!("d{unit}"), "size": bytes }),
            Duration::from_secs(60),
        )
        .await?;
        Ok(())
    }

    fn unit_of_disk(&mut self, name: &str) -> Result<u8> {
        let missing = Error::not_found(format!("server {} has no disk {name}", self.id));
        self.live()?.units.get(&format!("disk {name}")).copied().ok_or(missing)
    }

    /// Begins a copy of a disk into a new flat qcow2 at `target`; how it ends comes through the receiver.
    pub(super) async fn snapshot_begin(
        &mut self,
        name: &str,
        target: &Path,
    ) -> Result<(String, oneshot::Receiver<Result<()>>)> {
        let qmp = self.qmp()?;
        let unit = self.unit_of_disk(name)?;
        let nodes = qmp.call("query-named-block-nodes", json!({ "flat": true })).await?;
        let size = nodes
            .as_array()
            .into_iter()
            .flatten()
            .find(|n| n["node-name"] == format!("d{unit}"))
            .and_then(|n| n["image"]["virtual-size"].as_u64());
        let size = size.ok_or_else(|| Error::internal("the disk's size is not known", std::fmt::Error))?;
        maru_block::qcow2::create(target, size, None)?;
        if let Some(owner) = self.host.options.run_as {
            std::os::unix::fs::chown(target, Some(owner.0), Some(owner.1))
                .map_err(|e| Error::internal("the snapshot's file was not handed over", e))?;
        }
        self.job_count += 1;
        let job = format!("snap{}-{}", self.job_count, maru_base::random::below(1 << 32));
        let node = json!({
            "driver": "qcow2", "node-name": job, "backing": null,
            "file": { "driver": "file", "filename": target, "discard": "unmap" }, "discard": "unmap",
        });
        qmp.call("blockdev-add", node).await?;
        let (sender, receiver) = oneshot::channel();
        self.jobs.insert(job.clone(), sender);
        let begin = json!({ "device": format!("d{unit}"), "target": job, "sync": "full", "job-id": job });
        if let Err(e) = qmp.call("blockdev-backup", begin).await {
            self.jobs.remove(&job);
            let _ = qmp.call("blockdev-del", json!({ "node-name": job })).await;
            return Err(e.into());
        }
        Ok((job, receiver))
    }

    pub(super) async fn snapshot_end(&mut self, job: &str) -> Result<()> {
        if let Ok(qmp) = self.qmp() {
            if self.jobs.remove(job).is_some() {
                let _ = qmp
                    .call("block-job-cancel", json!({ "device": job, "force": true }))
                    .await;
            }
            qmp.call("blockdev-del", json!({ "node-name": job })).await?;
        }
        Ok(())
    }
}

/// Holds a guest's disk to its limits, or lets go of them.
pub(super) async fn limit(qmp: &Qmp, disk: &GuestDisk, unit: u8) -> Result<()> {
    if argv::effective_bus(disk) == "usb" {
        tracing::warn!(
            disk = disk.name,
            "a disk on USB is not limited: its bus has no name for it"
        );
        return Ok(());
    }
    qmp.call("block_set_io_throttle", argv::throttle(disk, unit)).await?;
    Ok(())
}

/// Looks whether the holder of a remote disk is there: QEMU waits for a connection with its monitor shut, however long that takes.
pub(super) async fn reachable(disk: &GuestDisk) -> Result<()> {
    let Some(Remote::Nbd(nbd)) = &disk.remote else {
        return Ok(());
    };
    let away = |why: &str| {
        Error::unavailable(format!(
            "the node that holds disk {} does not answer at {} port {}: {why}; is that node up, and may this one reach the port?",
            disk.name, nbd.host, nbd.port
        ))
    };
    match tokio::time::timeout(REACH, tokio::net::TcpStream::connect((nbd.host.as_str(), nbd.port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(away(&e.to_string())),
        Err(_) => Err(away("no answer")),
    }
}

/// Removes a disk's block nodes, the top one first; those that are not there are fine.
async fn remove_nodes(qmp: &Qmp, disk: &GuestDisk, unit: u8) {
    for name in argv::node_names(disk, unit) {
        if let Err(e) = qmp.call("blockdev-del", json!({ "node-name": name })).await {
            tracing::debug!(%name, error = %e, "a block node was not removed");
        }
    }
    remove_key(qmp, disk, unit).await;
}

async fn remove_key(qmp: &Qmp, disk: &GuestDisk, unit: u8) {
    if let Some(key) = argv::key_object(disk, unit)
        && let Err(e) = qmp.call("object-del", json!({ "id": key["id"] })).await
    {
        tracing::debug!(id = %key["id"], error = %e, "a key was not removed");
    }
}
