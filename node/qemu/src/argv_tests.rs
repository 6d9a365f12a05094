//! Snapshots of whole command lines, and the rules that hold for every one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::config::{Backing, GuestConfig};

fn disk(name: &str, bus: &str, device: &str) -> GuestDisk {
    GuestDisk {
        name: name.into(),
        path: format!("/d/{name}.qcow2").into(),
        format: DiskFormat::Qcow2,
        backing: None,
        bus: bus.into(),
        device: device.into(),
        readonly: false,
        remote: None,
        limits: BTreeMap::new(),
        serial: None,
    }
}

fn config() -> GuestConfig {
    let mut root = disk("root", "virtio", "disk");
    root.backing = Some(Backing {
        path: "/b/base.raw".into(),
        format: DiskFormat::Raw,
    });
    GuestConfig {
        id: "11111111-2222-3333-4444-555555555555".into(),
        project_id: "p".into(),
        name: "$(reboot),readonly=on\n-drive file=/etc/shadow".into(),
        vcpus: 2,
        memory_mib: 256,
        disks: vec![root],
        nics: vec![GuestNic {
            port_id: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".into(),
            mac: "fa:16:3e:00:00:01".into(),
            tap: "tapaaaaaaaa-bb".into(),
            mtu: 1450,
        }],
        notes: BTreeMap::new(),
    }
}

fn handles() -> Handles {
    Handles {
        qmp: 7,
        taps: [("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".to_owned(), 8)].into(),
        incoming: false,
        vhost: false,
    }
}

/// Root ports are many and alike; the snapshot leaves them out.
fn lines(argv: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in argv {
        match lines.last_mut() {
            Some(line) if !word.starts_with('-') && line.starts_with('-') && !line.contains(' ') => {
                *line = format!("{line} {word}");
            }
            _ => lines.push(word.clone()),
        }
    }
    lines.retain(|l| !l.starts_with("-device pcie-root-port"));
    lines
}

#[test]
fn a_small_guest_under_tcg() {
    let argv = render(&Live::plan(&config()).unwrap(), AcceleratorKind::Tcg, &handles());
    assert_eq!(
        lines(&argv),
        [
            "-name guest=11111111-2222-3333-4444-555555555555,debug-threads=on",
            "-uuid 11111111-2222-3333-4444-555555555555",
            "-machine q35,usb=off,dump-guest-core=off",
            "-accel tcg,thread=multi,tb-size=256",
            "-cpu max",
            "-smp 2,sockets=2,cores=1,threads=1",
            "-m 256M",
            "-overcommit mem-lock=off",
            "-rtc base=utc,driftfix=slew",
            "-boot strict=on",
            "-smbios type=1,manufacturer=Maru,product=OpenStack Nova,version=1,\
             serial=11111111-2222-3333-4444-555555555555,uuid=11111111-2222-3333-4444-555555555555",
            "-smbios type=3,asset=OpenStack Compute",
            "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-msg timestamp=on",
            "-chardev socket,id=qmp,fd=7,server=on,wait=off",
            "-mon chardev=qmp,mode=control",
            "-chardev socket,id=serial0,path=serial.sock,server=on,wait=off,logfile=console.log,logappend=on",
            "-device isa-serial,chardev=serial0,id=serial0",
            "-vnc unix:vnc.sock",
            "-device VGA,id=video0,bus=pcie.0,addr=0x1,vgamem_mb=16",
            "-object rng-random,id=rng0,filename=/dev/urandom",
            "-device virtio-rng-pci,rng=rng0,id=rng0-dev,bus=pcie.0,addr=0x2,max-bytes=1024,period=1000",
            r#"-blockdev {"auto-read-only":false,"cache":{"direct":false,"no-flush":false},"driver":"file","filename":"/b/base.raw","node-name":"d0-base-file","read-only":true}"#,
            r#"-blockdev {"auto-read-only":false,"cache":{"direct":false,"no-flush":false},"driver":"raw","file":"d0-base-file","node-name":"d0-base","read-only":true}"#,
            r#"-blockdev {"auto-read-only":false,"cache":{"direct":false,"no-flush":false},"discard":"unmap","driver":"file","filename":"/d/root.qcow2","node-name":"d0-file","read-only":false}"#,
            r#"-blockdev {"auto-read-only":false,"backing":"d0-base","cache":{"direct":false,"no-flush":false},"discard":"unmap","driver":"qcow2","file":"d0-file","node-name":"d0","read-only":false}"#,
            r#"-device {"addr":"0x0","bootindex":1,"bus":"port0","drive":"d0","driver":"virtio-blk-pci","id":"disk0"}"#,
            r#"-netdev {"fd":"8","id":"net1","type":"tap"}"#,
            r#"-device {"addr":"0x0","bus":"port1","driver":"virtio-net-pci","host_mtu":1450,"id":"nic1","mac":"fa:16:3e:00:00:01","netdev":"net1","romfile":""}"#,
            "-no-user-config",
            "-nodefaults",
            "-no-shutdown",
            "-S",
        ]
    );
}

#[test]
fn the_accelerator_is_named_and_never_falls_back() {
    let live = Live::plan(&config()).unwrap();
    let kvm = render(&live, AcceleratorKind::Kvm, &handles());
    assert!(kvm.contains(&"q35,usb=off,dump-guest-core=off,accel=kvm".to_owned()));
    assert!(kvm.contains(&"host,migratable=on".to_owned()));
    assert!(!kvm.iter().any(|w| w.contains("tcg")));
}

#[test]
fn every_bus_has_its_device() {
    let mut c = config();
    c.disks.extend([
        disk("s", "scsi", "disk"),
        disk("c", "scsi", "cdrom"),
        disk("i", "ide", "disk"),
        disk("v", "virtio", "cdrom"),
        disk("u", "usb", "disk"),
    ]);
    c.disks[1].serial = Some("0b0b0b0b-0c0c-0d0d-0e0e-0f0f0f0f0f0f".into());
    let live = Live::plan(&c).unwrap();
    let text = lines(&render(&live, AcceleratorKind::Tcg, &handles())).join("\n");
    for expected in [
        r#""driver":"virtio-scsi-pci","id":"scsi0""#,
        r#""driver":"scsi-hd""#,
        r#""serial":"0b0b0b0b-0c0c-0d0d-0""#,
        r#""driver":"scsi-cd""#,
        r#""bus":"ide.0","drive":"d4","driver":"ide-hd""#,
        r#""bus":"ide.1","drive":"d5","driver":"ide-cd""#,
        r#""driver":"qemu-xhci""#,
        r#""driver":"usb-storage""#,
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
}

/// A1-A6: there is no block node without an explicit driver, and no qcow2 node whose header decides what is beneath.
#[test]
fn a_qemu_never_probes_a_format() {
    let mut c = config();
    c.disks.push(disk("x", "virtio", "disk"));
    let argv = render(&Live::plan(&c).unwrap(), AcceleratorKind::Tcg, &handles());
    assert!(
        !argv
            .iter()
            .any(|w| w == "-drive" || w == "-hda" || w == "-cdrom" || w.contains("snapshot="))
    );
    let nodes = argv
        .iter()
        .zip(argv.iter().skip(1))
        .filter(|(option, _)| *option == "-blockdev");
    let mut seen = 0;
    for (_, node) in nodes {
        let node: Value = serde_json::from_str(node).unwrap();
        let driver = node["driver"].as_str().unwrap();
        assert!(["file", "raw", "qcow2"].contains(&driver));
        if driver == "qcow2" {
            assert!(node.get("backing").is_some(), "{node}: a header would decide");
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// F: what a tenant names things never reaches the command line.
#[test]
fn f_no_text_of_a_tenant_is_on_the_command_line() {
    let argv = render(&Live::plan(&config()).unwrap(), AcceleratorKind::Tcg, &handles());
    assert!(!argv.iter().any(|w| w.contains("reboot") || w.contains("shadow")));
}

#[test]
fn units_are_stable_and_bounded() {
    let mut live = Live::plan(&config()).unwrap();
    assert_eq!(live.unit("disk new".into()).unwrap(), 2);
    live.forget("nic aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
    assert_eq!(live.unit("disk other".into()).unwrap(), 1);
    assert_eq!(live.unit("disk new".into()).unwrap(), 2);
    assert_eq!(key_of_device(&live, "disk2").as_deref(), Some("disk new"));
    assert_eq!(key_of_device(&live, "nic2"), None);
    for n in 0..live.ports - 3 {
        live.unit(format!("disk f{n}")).unwrap();
    }
    assert!(
        live.unit("disk toomany".into())
            .unwrap_err()
            .message()
            .contains("slots")
    );
}

#[test]
fn a_remote_disk_names_its_key_and_never_shows_it() {
    let mut remote = disk("vol", "virtio", "disk");
    remote.remote = Some(maru_block::Remote::Nbd(maru_block::NbdDisk {
        host: "192.0.2.7".into(),
        port: 10_809,
        export: "one".into(),
        keys: "/keys/one".into(),
        size: 1,
    }));
    let nodes = block_nodes(&remote, 3);
    assert_eq!(
        (nodes.len(), &nodes[0]["driver"], &nodes[1]["driver"]),
        (2, &json!("nbd"), &json!("raw"))
    );
    assert_eq!(nodes[1]["node-name"], "d3");
    assert_eq!(nodes[1]["file"], nodes[0]["node-name"]);
    let key = key_object(&remote, 3).unwrap();
    assert_eq!(
        (&key["qom-type"], &key["dir"], &nodes[0]["tls-creds"]),
        (&json!("tls-creds-psk"), &json!("/keys/one"), &key["id"])
    );
    // Another size is another opening: both are there for a moment while the disk moves from one to the other.
    let mut larger = remote.clone();
    if let Some(maru_block::Remote::Nbd(nbd)) = &mut larger.remote {
        nbd.size = 2;
    }
    assert_ne!(block_nodes(&larger, 3)[0]["node-name"], nodes[0]["node-name"]);
    assert_ne!(key_object(&larger, 3).unwrap()["id"], key["id"]);
}
