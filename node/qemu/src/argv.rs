//! Renders a guest to QEMU's command line, and its devices to the same JSON that hot-plug sends over QMP.
//!
//! Pure functions: text in, text out. Three rules of safety live here:
//! - every block node names its driver, down to the last backing file, so QEMU never probes a format (attack class A);
//! - nothing that a tenant chose but numbers reaches the command line: names stay out, ids are checked before;
//! - no default device, no configuration file, no helper process, and QEMU's own seccomp filter on.
//!
//! Layout of the q35 machine: PCI Express root ports `port0…` on `pcie.0` (slots 0x10 and up, eight functions each), one
//! device behind each, whether it was there at the start or was plugged later: so memory saved after hot-plug finds the
//! same machine when it is loaded.

use crate::config::{DiskFormat, GuestDisk, GuestNic};
use crate::hypervisor::AcceleratorKind;
use crate::record::{Live, disk_key, nic_key};
use maru_block::{NbdDisk, Remote};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::Path;

/// What a start brings along beside the guest itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handles {
    /// The listening QMP socket.
    pub qmp: RawFd,
    /// Open taps by port id.
    pub taps: BTreeMap<String, RawFd>,
    /// Wait for saved memory (`migrate-incoming` over QMP) instead of booting.
    pub incoming: bool,
    /// Whether `/dev/vhost-net` may be used.
    pub vhost: bool,
}

/// First PCI slot of the root ports.
const FIRST_SLOT: u8 = 0x10;

/// The whole command line, without the program.
#[must_use]
pub fn render(live: &Live, accelerator: AcceleratorKind, handles: &Handles) -> Vec<String> {
    let config = &live.config;
    let mut argv = Vec::new();
    let mut add = |option: &str, value: String| argv.extend([option.to_owned(), value]);
    add("-name", format!("guest={},debug-threads=on", config.id));
    add("-uuid", config.id.clone());
    match accelerator {
        AcceleratorKind::Kvm => {
            add(
                "-machine",
                format!("{},usb=off,dump-guest-core=off,accel=kvm", live.machine),
            );
            add("-cpu", "host,migratable=on".to_owned());
        }
        AcceleratorKind::Tcg => {
            add("-machine", format!("{},usb=off,dump-guest-core=off", live.machine));
            // A bound for translated code: its default is up to a gigabyte a guest.
            add("-accel", "tcg,thread=multi,tb-size=256".to_owned());
            add("-cpu", "max".to_owned());
        }
    }
    add("-smp", format!("{0},sockets={0},cores=1,threads=1", config.vcpus));
    add("-m", format!("{}M", config.memory_mib));
    add("-overcommit", "mem-lock=off".to_owned());
    add("-rtc", "base=utc,driftfix=slew".to_owned());
    add("-boot", "strict=on".to_owned());
    // What cloud-init and others recognise an OpenStack guest by.
    add(
        "-smbios",
        format!(
            "type=1,manufacturer=Maru,product=OpenStack Nova,version=1,serial={0},uuid={0}",
            config.id
        ),
    );
    add("-smbios", "type=3,asset=OpenStack Compute".to_owned());
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    );
    add("-msg", "timestamp=on".to_owned());
    add(
        "-chardev",
        format!("socket,id=qmp,fd={},server=on,wait=off", handles.qmp),
    );
    add("-mon", "chardev=qmp,mode=control".to_owned());
    add(
        "-chardev",
        "socket,id=serial0,path=serial.sock,server=on,wait=off,logfile=console.log,logappend=on".to_owned(),
    );
    add("-device", "isa-serial,chardev=serial0,id=serial0".to_owned());
    add("-vnc", "unix:vnc.sock".to_owned());
    add("-device", "VGA,id=video0,bus=pcie.0,addr=0x1,vgamem_mb=16".to_owned());
    add("-object", "rng-random,id=rng0,filename=/dev/urandom".to_owned());
    add(
        "-device",
        "virtio-rng-pci,rng=rng0,id=rng0-dev,bus=pcie.0,addr=0x2,max-bytes=1024,period=1000".to_owned(),
    );
    for port in 0..live.ports {
        let (slot, function) = (FIRST_SLOT + port / 8, port % 8);
        let multi = if function == 0 { ",multifunction=on" } else { "" };
        add(
            "-device",
            format!(
                "pcie-root-port,id=port{port},bus=pcie.0,chassis={},addr=0x{slot:x}.0x{function:x}{multi}",
                port + 1
            ),
        );
    }
    for (key, unit) in live.units.iter().filter(|(key, _)| key.starts_with("controller ")) {
        if let Some(device) = controller_device(key, *unit) {
            add("-device", device.to_string());
        }
    }
    for (index, disk) in config.disks.iter().enumerate() {
        let Some(unit) = live.units.get(&disk_key(disk)) else {
            continue;
        };
        if let Some(key) = key_object(disk, *unit) {
            add("-object", key.to_string());
        }
        for node in block_nodes(disk, *unit) {
            add("-blockdev", node.to_string());
        }
        let boot = (!live.plugged.contains(unit)).then_some(index + 1);
        add("-device", disk_device(live, disk, *unit, boot).to_string());
    }
    for nic in &config.nics {
        let (Some(unit), Some(tap)) = (live.units.get(&nic_key(nic)), handles.taps.get(&nic.port_id)) else {
            continue;
        };
        add("-netdev", netdev(*unit, &tap.to_string(), handles.vhost).to_string());
        add("-device", nic_device(nic, *unit).to_string());
    }
    if handles.incoming {
        add("-incoming", "defer".to_owned());
    }
    argv.extend(["-no-user-config", "-nodefaults", "-no-shutdown", "-S"].map(str::to_owned));
    argv
}

/// The block nodes of a disk, the lowest first, each with an explicit driver. The top one is `d<unit>`.
#[must_use]
pub fn block_nodes(disk: &GuestDisk, unit: u8) -> Vec<Value> {
    let mut nodes = Vec::new();
    if let Some(Remote::Nbd(nbd)) = &disk.remote {
        nodes.push(nbd_node(nbd, unit, disk.readonly));
        nodes.push(top_of_nbd(disk, nbd, unit));
        return nodes;
    }
    let mut beneath = Value::Null;
    if let Some(backing) = &disk.backing {
        nodes.push(file_node(&backing.path, &format!("d{unit}-base-file"), true));
        nodes.push(format_node(backing.format, &format!("d{unit}-base"), true, Value::Null));
        beneath = json!(format!("d{unit}-base"));
    }
    let readonly = disk.readonly || disk.device == "cdrom";
    nodes.push(file_node(&disk.path, &format!("d{unit}-file"), readonly));
    nodes.push(format_node(disk.format, &format!("d{unit}"), readonly, beneath));
    nodes
}

/// Seconds that a guest's requests wait for a holder that is away: a holder's restart is a pause, not an error.
const RECONNECT: u32 = 300;

/// What tells one opening of an export from the next: a node and its key of another address or size are others.
fn opening(nbd: &NbdDisk) -> String {
    let words = format!("{} {} {} {}", nbd.host, nbd.port, nbd.export, nbd.size);
    let hash = words.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

fn nbd_node(nbd: &NbdDisk, unit: u8, readonly: bool) -> Value {
    let opening = opening(nbd);
    json!({
        "driver": "nbd", "node-name": format!("d{unit}-nbd-{opening}"),
        "server": { "type": "inet", "host": nbd.host, "port": nbd.port.to_string() },
        "export": nbd.export, "tls-creds": format!("d{unit}-tls-{opening}"), "reconnect-delay": RECONNECT,
        "read-only": readonly, "auto-read-only": false, "discard": "unmap",
    })
}

/// The top node of a remote disk, which names the lower one: opened anew, it moves to another.
#[must_use]
pub fn top_of_nbd(disk: &GuestDisk, nbd: &NbdDisk, unit: u8) -> Value {
    json!({
        "driver": "raw", "node-name": format!("d{unit}"), "file": format!("d{unit}-nbd-{}", opening(nbd)),
        "read-only": disk.readonly, "auto-read-only": false, "discard": "unmap",
    })
}

/// The key of a remote disk as an object of QEMU's; QEMU reads the file itself, so no key is on a command line.
#[must_use]
pub fn key_object(disk: &GuestDisk, unit: u8) -> Option<Value> {
    let Some(Remote::Nbd(nbd)) = &disk.remote else {
        return None;
    };
    Some(json!({
        "qom-type": "tls-creds-psk", "id": format!("d{unit}-tls-{}", opening(nbd)), "dir": nbd.keys,
        "endpoint": "client", "username": nbd.export,
    }))
}

fn file_node(path: &Path, name: &str, readonly: bool) -> Value {
    let driver = if path.starts_with("/dev") {
        "host_device"
    } else {
        "file"
    };
    let mut node = json!({
        "driver": driver, "node-name": name, "filename": path, "read-only": readonly, "auto-read-only": false,
        "cache": { "direct": false, "no-flush": false },
    });
    if !readonly {
        node["discard"] = json!("unmap");
    }
    node
}

fn format_node(format: DiskFormat, name: &str, readonly: bool, backing: Value) -> Value {
    let mut node = json!({
        "driver": format.driver(), "node-name": name, "file": format!("{name}-file"), "read-only": readonly,
        "auto-read-only": false, "cache": { "direct": false, "no-flush": false },
    });
    if !readonly {
        node["discard"] = json!("unmap");
    }
    if format == DiskFormat::Qcow2 {
        // Null says "nothing beneath, whatever the header says".
        node["backing"] = backing;
    }
    node
}

/// Names of a disk's block nodes, the top one first: the order in which they are removed.
#[must_use]
pub fn node_names(disk: &GuestDisk, unit: u8) -> Vec<String> {
    let names = block_nodes(disk, unit);
    names
        .iter()
        .rev()
        .filter_map(|n| n.get("node-name")?.as_str().map(str::to_owned))
        .collect()
}

/// The bus that a disk is really put on.
#[must_use]
pub fn effective_bus(disk: &GuestDisk) -> &'static str {
    match (disk.bus.as_str(), disk.device.as_str()) {
        ("scsi", _) => "scsi",
        ("usb", _) => "usb",
        ("ide" | "sata", _) => "ide",
        // There is no virtio optical drive.
        (_, "cdrom") => "ide",
        _ => "virtio",
    }
}

/// The device of a disk. `boot`: its place in the boot order.
#[must_use]
pub fn disk_device(live: &Live, disk: &GuestDisk, unit: u8, boot: Option<usize>) -> Value {
    let cdrom = disk.device == "cdrom";
    let (node, id) = (format!("d{unit}"), format!("disk{unit}"));
    let mut device = match effective_bus(disk) {
        "scsi" => json!({
            "driver": if cdrom { "scsi-cd" } else { "scsi-hd" }, "bus": "scsi0.0", "channel": 0, "scsi-id": 0, "lun": unit,
            "device_id": format!("drive-{id}"),
        }),
        "usb" => json!({ "driver": "usb-storage", "bus": "usb0.0", "removable": cdrom }),
        "ide" => {
            let place = live
                .config
                .disks
                .iter()
                .filter(|d| effective_bus(d) == "ide")
                .position(|d| d.name == disk.name);
            let driver = if cdrom { "ide-cd" } else { "ide-hd" };
            json!({ "driver": driver, "bus": format!("ide.{}", place.unwrap_or(0)), "unit": 0 })
        }
        _ => json!({ "driver": "virtio-blk-pci", "bus": format!("port{unit}"), "addr": "0x0" }),
    };
    device["id"] = json!(id);
    device["drive"] = json!(node);
    if let Some(serial) = &disk.serial {
        // What fits into the IDENTIFY data of any bus.
        let fits: String = serial
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(20)
            .collect();
        device["serial"] = json!(fits);
    }
    if let Some(boot) = boot {
        device["bootindex"] = json!(boot);
    }
    device
}

/// The arguments of `block_set_io_throttle` for a disk; 0 is no limit. QEMU's names: bytes are `bps`, requests `iops`.
#[must_use]
pub fn throttle(disk: &GuestDisk, unit: u8) -> Value {
    // A virtio disk's backend is a part of the device on the PCI bus.
    let part = if effective_bus(disk) == "virtio" {
        "/virtio-backend"
    } else {
        ""
    };
    let mut limits = json!({ "id": format!("/machine/peripheral/disk{unit}{part}") });
    for (what, short) in [("bytes_sec", "bps"), ("iops_sec", "iops")] {
        for (part, end) in [("total", ""), ("read", "_rd"), ("write", "_wr")] {
            let rate = disk.limits.get(&format!("{part}_{what}"));
            limits[format!("{short}{end}")] = json!(rate.copied().unwrap_or(0));
            if let Some(burst) = disk.limits.get(&format!("{part}_{what}_max")) {
                limits[format!("{short}{end}_max")] = json!(burst);
            }
        }
    }
    limits
}

/// A controller by its key in [`Live::units`].
#[must_use]
pub fn controller_device(key: &str, unit: u8) -> Option<Value> {
    let (driver, id) = match key {
        "controller scsi" => ("virtio-scsi-pci", "scsi0"),
        "controller usb" => ("qemu-xhci", "usb0"),
        _ => return None,
    };
    Some(json!({ "driver": driver, "id": id, "bus": format!("port{unit}"), "addr": "0x0" }))
}

/// The host's side of a NIC. `fd`: a number at the start, a name given before over QMP.
#[must_use]
pub fn netdev(unit: u8, fd: &str, vhost: bool) -> Value {
    let mut netdev = json!({ "type": "tap", "id": format!("net{unit}"), "fd": fd });
    if vhost {
        netdev["vhost"] = json!(true);
    }
    netdev
}

/// The guest's side of a NIC.
#[must_use]
pub fn nic_device(nic: &GuestNic, unit: u8) -> Value {
    let mut device = json!({
        "driver": "virtio-net-pci", "id": format!("nic{unit}"), "netdev": format!("net{unit}"), "mac": nic.mac,
        "bus": format!("port{unit}"), "addr": "0x0",
        // No boot ROM: servers boot from disks, and loading one costs time.
        "romfile": "",
    });
    if nic.mtu >= 68 {
        device["host_mtu"] = json!(nic.mtu);
    }
    device
}

/// The key of the device that QEMU calls `id` (`disk3`, `nic1`).
#[must_use]
pub fn key_of_device(live: &Live, id: &str) -> Option<String> {
    let unit: u8 = id
        .strip_prefix("disk")
        .or_else(|| id.strip_prefix("nic"))?
        .parse()
        .ok()?;
    let (key, _) = live.units.iter().find(|(_, u)| **u == unit)?;
    (key.starts_with("disk ") == id.starts_with("disk")).then(|| key.clone())
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
