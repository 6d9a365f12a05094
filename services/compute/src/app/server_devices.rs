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

pub(crate) fn no_volumes() -> Error {
    Error::bad_request(
        "Block Device Mapping is Invalid: this cloud has no block storage service yet, so a server boots from its image \
         onto a local disk. Leave volumes and snapshots out.",
    )
}

/// The image to boot from, and blank local disks.
pub(crate) fn devices(body: &CreateBody) -> Result<(Option<String>, Vec<BlockDevice>)> {
    let mut image = body.image.clone().filter(|i| !i.is_empty());
    let mut list = Vec::new();
    let mut blanks = 0;
    for (at, device) in body.block_device_mapping_v2.iter().flatten().enumerate() {
        let destination = device.destination_type.as_deref();
        let field = |name: &str| format!("server.block_device_mapping_v2[{at}].{name}");
        check_device(device, &field)?;
        if device.volume_id.is_some() || device.snapshot_id.is_some() || destination == Some("volume") {
            return Err(no_volumes());
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
            (Some("volume" | "snapshot"), _) => return Err(no_volumes()),
            (other, _) => {
                return Err(invalid(
                    &field("source_type"),
                    format!("'{}' is not one of image, blank, volume, snapshot", other.unwrap_or("")),
                ));
            }
        }
    }
    if image.is_none() {
        return Err(Error::bad_request("Invalid imageRef provided."));
    }
    Ok((image, list))
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
