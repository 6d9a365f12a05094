//! What a node is told of a server: a pure function of the snapshot. The node service turns it into a slice item.

use crate::{Power, Reboot, Server, network};
use maru_store::{Object, Snapshot};
use maru_volume_model as volume;
use std::collections::BTreeMap;

/// A virtual machine that shall be on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestIntent {
    /// The node.
    pub host: String,
    /// Revision of the server that this was read from.
    pub revision: u64,
    /// The server's id.
    pub id: String,
    /// Owner.
    pub project_id: String,
    /// Maker.
    pub user_id: String,
    /// Display name.
    pub name: String,
    /// Host name inside the guest.
    pub hostname: String,
    /// The request that last changed the intent.
    pub request_id: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks, the boot disk first.
    pub disks: Vec<GuestDisk>,
    /// Port ids in NIC order.
    pub ports: Vec<String>,
    /// The power state it shall have.
    pub power: Power,
    /// Reboots asked.
    pub reboot: Reboot,
    /// Rebuilds asked.
    pub rebuild: u64,
    /// Changes of flavor asked.
    pub resize: GuestResize,
    /// Whether a config drive is attached.
    pub config_drive: bool,
    /// What metadata and config drive say.
    pub metadata: GuestMetadata,
    /// Seconds a graceful stop may take.
    pub stop_timeout: u32,
    /// What the node keeps with the guest, so that it can be adopted ([`crate::Origin`]).
    pub origin: String,
}

/// Counted changes of flavor, and what becomes of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestResize {
    /// How many were asked so far.
    pub count: u64,
    /// Under which number the disks are kept as they were before; `None` when nothing is to be kept (any more).
    pub kept: Option<u64>,
    /// Whether the kept disks shall be the disks again.
    pub restore: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestDisk {
    /// `root`, `ephemeral0`, `swap`.
    pub name: String,
    /// What it is made from.
    pub source: DiskSource,
    /// Bytes; 0 keeps the image's own size.
    pub size: u64,
    /// `virtio`, `scsi`, `ide`, `usb`.
    pub bus: String,
    /// `disk` or `cdrom`.
    pub device: String,
}

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// An image.
    Image {
        /// Glance's id.
        image_id: String,
        /// sha512 of the blob.
        digest: String,
        /// The proven format.
        format: String,
    },
    /// Nothing.
    Blank,
    /// A volume.
    Volume {
        /// Cinder's id.
        id: String,
        /// Whether the guest may only read it.
        readonly: bool,
        /// How it is reached, unless it is of the same host and this server's alone.
        remote: Option<RemoteVolume>,
        /// What its guest may do in a second, by upstream's names.
        limits: BTreeMap<String, u64>,
    },
}

/// How a server reaches a volume that another node holds, or that it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteVolume {
    /// The node that holds it.
    pub holder: String,
    /// Where that offers it; `None` until it has said so.
    pub address: Option<String>,
    /// The export's name.
    pub export: String,
    /// What opens it.
    pub key: maru_base::Secret,
    /// Bytes by the holder's last word.
    pub size: u64,
}

/// What a guest is told about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestMetadata {
    /// Public keys by name.
    pub public_keys: Vec<(String, String)>,
    /// The server's metadata.
    pub meta: BTreeMap<String, String>,
    /// User data, base64.
    pub user_data: Option<String>,
    /// Availability zone.
    pub availability_zone: String,
    /// Place in a multi-create.
    pub launch_index: u32,
    /// Initial password.
    pub admin_pass: Option<String>,
    /// Flavor name.
    pub instance_type: String,
    /// Security groups' names.
    pub security_groups: Vec<String>,
    /// Injected files: path, base64.
    pub files: Vec<(String, String)>,
}

/// Seconds a guest has to shut down before it is powered off; upstream's default.
const STOP_TIMEOUT: u32 = 60;

/// How a server on `host` has a volume.
fn volume_source(snapshot: &Snapshot, host: &str, place: &crate::ServerVolume) -> DiskSource {
    let attachment = snapshot.get::<volume::Attachment>(&volume::AttachmentId::from(place.attachment.as_str()));
    let found = snapshot.get::<volume::Volume>(&volume::VolumeId::from(place.id.as_str()));
    let limits = found
        .as_ref()
        .map(|v| volume::front_end_limits(snapshot, &v.value))
        .unwrap_or_default();
    let remote = found.filter(|v| volume::exported(&v.value, host)).and_then(|v| {
        let attachment = attachment.as_ref()?;
        let export = attachment.value.export(&attachment.id, host)?;
        let offer = attachment.value.offer.as_ref().filter(|o| o.export == export.name);
        Some(RemoteVolume {
            holder: v.value.host.clone().unwrap_or_default(),
            address: offer.map(|o| o.address.clone()),
            export: export.name,
            key: export.key,
            size: v.value.bytes_there(),
        })
    });
    DiskSource::Volume {
        id: place.id.clone(),
        readonly: attachment.is_some_and(|a| a.value.mode == volume::Mode::Ro),
        remote,
        limits,
    }
}

/// What shall be on a node for this server; `None` when nothing shall: not placed yet, or being deleted.
#[must_use]
pub fn guest_intent(snapshot: &Snapshot, server: &Object<Server>) -> Option<GuestIntent> {
    if !server.placed
        || matches!(
            server.task,
            Some(crate::Task::Deleting | crate::Task::ShelvingOffloading)
        )
    {
        return None;
    }
    let host = server.host.clone()?;
    let property = |name: &str| server.image.as_ref().and_then(|i| i.properties.get(name)).cloned();
    let bus = property("hw_disk_bus").unwrap_or_else(|| "virtio".to_owned());
    let extra = |name: &str| server.block_devices.iter().find(|d| d.name == name);
    let disk = |name: &str, source: DiskSource, size: u64| GuestDisk {
        name: name.to_owned(),
        source,
        size,
        bus: extra(name).and_then(|d| d.bus.clone()).unwrap_or_else(|| bus.clone()),
        device: extra(name)
            .and_then(|d| d.device.clone())
            .unwrap_or_else(|| "disk".to_owned()),
    };
    let root = match server.root.as_ref().or(server.image.as_ref()) {
        Some(image) => DiskSource::Image {
            image_id: image.id.clone(),
            digest: image.digest.clone(),
            format: image.format.clone(),
        },
        None => DiskSource::Blank,
    };
    let of_volume = |v: &crate::ServerVolume| GuestDisk {
        name: v.id.clone(),
        source: volume_source(snapshot, &host, v),
        size: 0,
        bus: v.bus.clone().unwrap_or_else(|| bus.clone()),
        device: "disk".to_owned(),
    };
    let mut disks = match server.volumes.iter().find(|v| v.boot) {
        Some(boot) => vec![of_volume(boot)],
        None => vec![disk("root", root, server.flavor.root_gb << 30)],
    };
    if let Some(image) = &server.rescue {
        let source = DiskSource::Image {
            image_id: image.id.clone(),
            digest: image.digest.clone(),
            format: image.format.clone(),
        };
        disks.insert(0, disk("rescue", source, 0));
    }
    // Blank disks that the request listed replace the flavor's one second disk.
    let listed: Vec<_> = server
        .block_devices
        .iter()
        .filter(|d| d.name.starts_with("ephemeral"))
        .collect();
    if listed.is_empty() && server.flavor.ephemeral_gb > 0 {
        disks.push(disk("ephemeral0", DiskSource::Blank, server.flavor.ephemeral_gb << 30));
    }
    for device in listed {
        disks.push(disk(&device.name, DiskSource::Blank, device.size_mb << 20));
    }
    let swap = extra("swap")
        .map(|d| d.size_mb)
        .filter(|n| *n > 0)
        .unwrap_or(server.flavor.swap_mb);
    if swap > 0 {
        disks.push(disk("swap", DiskSource::Blank, swap << 20));
    }
    disks.extend(server.volumes.iter().filter(|v| !v.boot && !v.detaching).map(of_volume));
    let required = property("img_config_drive").is_some_and(|v| v == "mandatory");
    Some(GuestIntent {
        revision: server.revision,
        id: server.id.to_string(),
        project_id: server.project_id.to_string(),
        user_id: server.user_id.to_string(),
        name: server.name.clone(),
        hostname: server.hostname.clone(),
        request_id: server.request_id.clone(),
        vcpus: server.flavor.vcpus,
        memory_mib: server.flavor.memory_mb,
        disks,
        ports: network::interfaces(snapshot, server)
            .into_iter()
            .map(|i| i.port.id.to_string())
            .collect(),
        power: server.power,
        reboot: server.reboot,
        rebuild: server.rebuild,
        resize: GuestResize {
            count: server.resizes,
            kept: server.resize.as_ref().and_then(|r| r.kept),
            restore: server.task == Some(crate::Task::ResizeReverting),
        },
        config_drive: server.config_drive || required,
        metadata: GuestMetadata {
            public_keys: server
                .key
                .iter()
                .map(|k| (k.name.clone(), k.public_key.clone()))
                .collect(),
            meta: server.metadata.clone(),
            user_data: server.user_data.clone(),
            availability_zone: crate::zone_of(snapshot, &host),
            launch_index: server.launch_index,
            admin_pass: server.admin_pass.clone(),
            instance_type: server.flavor.name.clone(),
            security_groups: network::security_groups(snapshot, server),
            files: server.files.clone(),
        },
        stop_timeout: STOP_TIMEOUT,
        origin: crate::adopt::origin(snapshot, server),
        host,
    })
}
