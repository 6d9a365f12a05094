//! Disks that a create request lists: the boot disk from an image, blank local disks, swap.

use crate::{
    api::{
        servers::{CreateBody, DeviceBody},
        wire::invalid,
    },
    app::servers::check_tag,
};
use maru_base::{Error, Result};
use maru_compute_model::{BlockDevice, Flavor};

/// Most disks of a server on its host, the boot disk included; upstream's default.
const MOST_LOCAL_DISKS: usize = 3;

/// A volume that a create request lists.
#[derive(Debug, Clone)]
pub(crate) struct VolumeWish {
    /// What it is, or is made from.
    pub source: VolumeSource,
    /// GiB, where it is made.
    pub size: Option<u64>,
    /// Its type, where it is made (2.67).
    pub kind: Option<String>,
    pub boot: bool,
    pub bus: Option<String>,
    pub tag: Option<String>,
    pub delete_on_termination: bool,
    /// Name of its place in the request, for refusals.
    pub field: String,
}

impl VolumeWish {
    /// Whether it is one volume that only one server can have.
    pub(crate) const fn is_one_volume(&self) -> bool {
        matches!(self.source, VolumeSource::Existing(_))
    }
}

/// What a volume of a create request is, or is made from.
#[derive(Debug, Clone)]
pub(crate) enum VolumeSource {
    /// One that is there.
    Existing(String),
    /// A new one of a snapshot.
    Snapshot(String),
    /// A new one of an image.
    Image(String),
    /// A new one without anything.
    Blank,
}

/// What a create request says of disks.
pub(crate) struct Devices {
    /// The image to boot from, onto a local disk.
    pub image: Option<String>,
    /// Local disks with particulars.
    pub local: Vec<BlockDevice>,
    pub volumes: Vec<VolumeWish>,
}

fn invalid_mapping(why: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Block Device Mapping is Invalid: {why}"))
}

/// One item of the first form of mappings, in the form of the second.
fn old_form(at: usize, item: &serde_json::Value) -> Result<Option<DeviceBody>> {
    let field = |name: &str| format!("server.block_device_mapping[{at}].{name}");
    let serde_json::Value::Object(item) = item else {
        return Err(invalid(&field(""), "it must be an object"));
    };
    if item.get("no_device").is_some_and(|v| !v.is_null()) {
        return Ok(None);
    }
    let text = |name: &str| {
        item.get(name)
            .and_then(serde_json::Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let (source, id) = match (text("volume_id"), text("snapshot_id")) {
        (Some(id), _) => ("volume", Some(id)),
        (None, Some(id)) => ("snapshot", Some(id)),
        (None, None) => return Err(invalid(&field("volume_id"), "name a volume or a snapshot")),
    };
    let root =
        text("device_name").is_some_and(|n| matches!(n.trim_start_matches("/dev/"), "vda" | "sda" | "hda" | "xvda"));
    let mut made = serde_json::Map::new();
    for name in ["volume_size", "delete_on_termination", "device_name"] {
        if let Some(v) = item.get(name).filter(|v| !v.is_null()) {
            made.insert(name.to_owned(), v.clone());
        }
    }
    made.insert("uuid".to_owned(), id.into());
    made.insert("source_type".to_owned(), source.into());
    made.insert("destination_type".to_owned(), "volume".into());
    made.insert(
        "boot_index".to_owned(),
        if root { 0.into() } else { serde_json::Value::Null },
    );
    crate::api::wire::typed(&field(""), serde_json::Value::Object(made)).map(Some)
}

/// The image to boot from, local disks, and volumes.
pub(crate) fn devices(body: &CreateBody) -> Result<Devices> {
    let mut image = body.image.clone().filter(|i| !i.is_empty());
    let mut list = Vec::new();
    let mut volumes: Vec<VolumeWish> = Vec::new();
    let mut blanks = 0;
    let old = body.block_device_mapping.iter().flatten().enumerate();
    for (at, item) in old {
        if let Some(device) = old_form(at, item)? {
            volumes.push(wish(&device, &|name| {
                format!("server.block_device_mapping[{at}].{name}")
            })?);
        }
    }
    for (at, device) in body.block_device_mapping_v2.iter().flatten().enumerate() {
        let destination = device.destination_type.as_deref();
        let field = |name: &str| format!("server.block_device_mapping_v2[{at}].{name}");
        check_device(device, &field)?;
        if device.no_device.as_ref().is_some_and(|v| v.as_bool() == Some(true)) {
            continue;
        }
        let volume = destination == Some("volume")
            || matches!(device.source_type.as_deref(), Some("volume" | "snapshot"))
            || device.volume_id.is_some()
            || device.snapshot_id.is_some();
        if volume {
            if destination == Some("local") {
                return Err(invalid_mapping(
                    "Mapping a volume or a snapshot to local is not supported; its destination_type is volume.",
                ));
            }
            volumes.push(wish(device, &field)?);
            continue;
        }
        match (device.source_type.as_deref(), destination) {
            (Some("image"), Some("local") | None) => {
                if boot_index(device) != Some(0) {
                    return Err(Error::bad_request(
                        "Block Device Mapping is Invalid: Mapping image to local is not supported but for the boot disk.",
                    ));
                }
                let id = device
                    .uuid
                    .clone()
                    .ok_or_else(|| invalid(&field("uuid"), "an image needs its uuid"))?;
                if image
                    .as_ref()
                    .is_some_and(|i| i.rsplit('/').next() != Some(id.as_str()))
                {
                    return Err(Error::bad_request(
                        "Block Device Mapping is Invalid: two different images are named to boot from.",
                    ));
                }
                image = Some(id);
                list.push(device_of("root", 0, device));
            }
            (Some("blank"), Some("local") | None) => {
                let size = device
                    .volume_size
                    .ok_or_else(|| invalid(&field("volume_size"), "a blank disk needs a size"))?
                    .at_least(&field("volume_size"), 1)?;
                // The size of swap is in MiB, that of other disks in GiB, as upstream has it.
                if device.guest_format.as_deref() != Some("swap") {
                    list.push(device_of(&format!("ephemeral{blanks}"), size << 10, device));
                    blanks += 1;
                } else if list.iter().any(|d: &BlockDevice| d.name == "swap") {
                    return Err(Error::bad_request(
                        "Block Device Mapping is Invalid: More than one swap drive requested.",
                    ));
                } else {
                    list.push(device_of("swap", size, device));
                }
            }
            (other, _) => {
                return Err(invalid(
                    &field("source_type"),
                    format!("'{}' is not one of image, blank, volume, snapshot", other.unwrap_or("")),
                ));
            }
        }
    }
    let boots = volumes.iter().filter(|v| v.boot).count();
    if boots > 1 {
        return Err(invalid_mapping(
            "Boot sequence for the instance and image/block device mapping combination is not valid.",
        ));
    }
    if boots == 1 && list.iter().any(|d: &BlockDevice| d.name == "root") {
        return Err(invalid_mapping(
            "Boot sequence for the instance and image/block device mapping combination is not valid.",
        ));
    }
    if image.is_none() && boots == 0 {
        // A single volume in the first form boots whatever its name is.
        match volumes.as_mut_slice() {
            [only] if body.block_device_mapping.is_some() => only.boot = true,
            [] => return Err(Error::bad_request("Invalid imageRef provided.")),
            _ => {
                return Err(invalid_mapping(
                    "Boot sequence for the instance and image/block device mapping combination is not valid: give one the boot_index 0.",
                ));
            }
        }
    }
    if boots == 1 {
        // The volume boots; an image that is named beside it only says what it was made of.
        image = None;
    }
    Ok(Devices {
        image,
        local: list,
        volumes,
    })
}

/// A volume of the request.
fn wish(device: &DeviceBody, field: &impl Fn(&str) -> String) -> Result<VolumeWish> {
    let id = |own: &Option<String>| {
        own.clone()
            .or_else(|| device.uuid.clone())
            .filter(|id| crate::api::wire::is_uuid(id))
            .ok_or_else(|| invalid(&field("uuid"), "it needs the uuid of what is named by source_type"))
    };
    let source = match device.source_type.as_deref() {
        Some("volume") => VolumeSource::Existing(id(&device.volume_id)?),
        Some("snapshot") => VolumeSource::Snapshot(id(&device.snapshot_id)?),
        Some("image") => VolumeSource::Image(id(&None)?),
        Some("blank") => VolumeSource::Blank,
        None if device.volume_id.is_some() => VolumeSource::Existing(id(&device.volume_id)?),
        None if device.snapshot_id.is_some() => VolumeSource::Snapshot(id(&device.snapshot_id)?),
        other => {
            return Err(invalid(
                &field("source_type"),
                format!("'{}' is not one of image, blank, volume, snapshot", other.unwrap_or("")),
            ));
        }
    };
    let size = device
        .volume_size
        .map(|n| n.at_least(&field("volume_size"), 1))
        .transpose()?;
    if matches!(source, VolumeSource::Blank) && size.is_none() {
        return Err(invalid(&field("volume_size"), "a blank volume needs a size"));
    }
    Ok(VolumeWish {
        source,
        size,
        kind: device.volume_type.clone().filter(|t| !t.is_empty()),
        boot: boot_index(device) == Some(0),
        bus: device.disk_bus.clone(),
        tag: device.tag.clone(),
        delete_on_termination: device.delete_on_termination.is_some_and(|f| f.0),
        field: field("uuid"),
    })
}

/// What the schema says of a block device.
fn check_device(device: &DeviceBody, field: &impl Fn(&str) -> String) -> Result<()> {
    let texts = [
        ("disk_bus", &device.disk_bus),
        ("device_type", &device.device_type),
        ("guest_format", &device.guest_format),
        ("uuid", &device.uuid),
    ];
    for (name, text) in texts {
        if text.as_ref().is_some_and(|t| t.chars().count() > 255) {
            return Err(invalid(&field(name), "At most 255 characters."));
        }
    }
    if let Some(to) = device.destination_type.as_deref()
        && !matches!(to, "local" | "volume")
    {
        return Err(invalid(
            &field("destination_type"),
            format!("'{to}' is not one of ['local', 'volume']"),
        ));
    }
    if device.boot_index.as_ref().is_some_and(|v| !v.is_null()) && boot_index(device).is_none() {
        return Err(invalid(&field("boot_index"), "it is not a whole number"));
    }
    if let Some(tag) = &device.tag {
        check_tag(tag)?;
    }
    Ok(())
}

/// Local disks come out of what the flavor has: its second disk and its swap.
pub(crate) fn check_devices(devices: &[BlockDevice], flavor: &Flavor) -> Result<()> {
    let refused = |why: String| Err(Error::bad_request(format!("Block Device Mapping is Invalid: {why}")));
    if devices.len() + usize::from(devices.iter().all(|d| d.name != "root")) > MOST_LOCAL_DISKS {
        return refused(format!(
            "You specified more local devices than the limit allows ({MOST_LOCAL_DISKS})."
        ));
    }
    let blank: u64 = devices
        .iter()
        .filter(|d| d.name.starts_with("ephemeral"))
        .map(|d| d.size_mb)
        .sum();
    if blank > flavor.ephemeral_gb << 10 {
        return refused(format!(
            "Ephemeral disks requested are larger than the instance type allows: {} GiB asked, {} GiB allowed.",
            blank >> 10,
            flavor.ephemeral_gb
        ));
    }
    if let Some(swap) = devices.iter().find(|d| d.name == "swap")
        && swap.size_mb > flavor.swap_mb
    {
        return refused(format!(
            "Swap drive requested is larger than instance type allows: {} MiB asked, {} MiB allowed.",
            swap.size_mb, flavor.swap_mb
        ));
    }
    Ok(())
}

fn boot_index(device: &DeviceBody) -> Option<i64> {
    let value = device.boot_index.as_ref()?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn device_of(name: &str, size_mb: u64, device: &DeviceBody) -> BlockDevice {
    BlockDevice {
        name: name.to_owned(),
        size_mb,
        bus: device.disk_bus.clone(),
        device: device.device_type.clone(),
        tag: device.tag.clone(),
    }
}
