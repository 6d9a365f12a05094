//! Class A of the attacks, format by format, and what must be accepted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::{Proven, check_claim, qcow2 as writer};
use proptest::prelude::*;
use std::io::Cursor;
use std::path::Path;

fn look(bytes: &[u8]) -> Inspection {
    inspect(&mut Cursor::new(bytes)).unwrap()
}

/// Checks that every claim is refused, and that the reason for `claim` has `why` in it.
fn refused(bytes: &[u8], claim: &str, why: &str) {
    let found = look(bytes);
    for declared in [
        "raw", "gpt", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "aki", "ari",
    ] {
        assert!(
            check_claim(declared, &found).is_err(),
            "{declared} was accepted for {found:?}"
        );
    }
    let reason = check_claim(claim, &found).unwrap_err();
    assert!(reason.contains(why), "{reason}");
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn qcow2() -> Vec<u8> {
    writer::empty(1 << 30, None).unwrap()
}

fn vmdk(descriptor: &str) -> Vec<u8> {
    let mut image = vec![0; 64 << 10];
    put(&mut image, 0, b"KDMV");
    put(&mut image, 4, &1_u32.to_le_bytes());
    put(&mut image, 12, &2048_u64.to_le_bytes());
    put(&mut image, 20, &128_u64.to_le_bytes());
    put(&mut image, 28, &1_u64.to_le_bytes());
    put(&mut image, 36, &20_u64.to_le_bytes());
    put(&mut image, 44, &512_u32.to_le_bytes());
    put(&mut image, 56, &30_u64.to_le_bytes());
    put(&mut image, 512, descriptor.as_bytes());
    image
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\n\n# Extent description\nRW 2048 SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n\
    ddb.adapterType = \"ide\"\n";

fn iso() -> Vec<u8> {
    let mut image = vec![0; 40 << 10];
    put(&mut image, 32 << 10, b"\x01CD001\x01");
    put(&mut image, (32 << 10) + 2048, b"\xffCD001\x01");
    image
}

fn mbr(image: &mut [u8]) {
    put(image, 446, &[0x80, 0, 0, 0, 0x83]);
    put(image, 510, &[0x55, 0xaa]);
}

fn vhd(kind: u32) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 16, &512_u64.to_be_bytes());
    put(&mut footer, 48, &(8_u64 << 20).to_be_bytes());
    put(&mut footer, 60, &kind.to_be_bytes());
    let sum: u32 = footer.iter().map(|b| u32::from(*b)).sum();
    put(&mut footer, 64, &(!sum).to_be_bytes());
    if kind == 2 {
        let mut image = vec![0; 8192];
        image.extend(footer);
        return image;
    }
    let mut image = footer.clone();
    image.resize(4096, 0);
    put(&mut image, 512, b"cxsparse");
    put(&mut image, 512 + 16, &2048_u64.to_be_bytes());
    put(&mut image, 512 + 28, &4_u32.to_be_bytes());
    put(&mut image, 512 + 32, &(2_u32 << 20).to_be_bytes());
    image.extend(footer);
    image
}

#[test]
fn what_is_whole_is_accepted_under_its_own_name() {
    let proven = |format: &str, virtual_size| {
        Ok(Proven {
            format: format.into(),
            virtual_size,
        })
    };
    assert_eq!(check_claim("qcow2", &look(&qcow2())), proven("qcow2", 1 << 30));
    assert_eq!(check_claim("raw", &look(&[7; 1000])), proven("raw", 1000));
    assert_eq!(check_claim("raw", &look(&[])), proven("raw", 0));
    assert_eq!(check_claim("vmdk", &look(&vmdk(DESCRIPTOR))), proven("vmdk", 1 << 20));
    assert_eq!(check_claim("vhd", &look(&vhd(2))), proven("vhd", 8 << 20));
    assert_eq!(check_claim("vhd", &look(&vhd(3))), proven("vhd", 8 << 20));
    assert_eq!(check_claim("iso", &look(&iso())), proven("iso", 40 << 10));
    assert_eq!(check_claim("raw", &look(&iso())), proven("raw", 40 << 10));
    let mut disk = vec![0; 8192];
    mbr(&mut disk);
    assert_eq!(look(&disk).format, Format::Mbr);
    assert_eq!(check_claim("raw", &look(&disk)), proven("raw", 8192));
    assert_eq!(check_claim("gpt", &look(&disk)), proven("raw", 8192));
    put(&mut disk, 450, &[0xee]);
    put(&mut disk, 512, b"EFI PART");
    assert_eq!(look(&disk).format, Format::Gpt);
    assert_eq!(check_claim("raw", &look(&disk)), proven("raw", 8192));
    assert_eq!(check_claim("gpt", &look(&disk)), proven("raw", 8192));
    let mut hybrid = iso();
    mbr(&mut hybrid);
    assert_eq!(check_claim("iso", &look(&hybrid)), proven("iso", 40 << 10));
    assert_eq!(
        check_claim("iso", &look(&hybrid)).unwrap().bootable_format(),
        Some("raw")
    );
}

#[test]
fn a_claim_that_the_contents_do_not_bear_out_is_refused() {
    let reason = check_claim("qcow2", &look(&[0; 4096])).unwrap_err();
    assert!(
        reason.contains("declared as qcow2 but its contents are raw"),
        "{reason}"
    );
    assert!(check_claim("iso", &look(&[0; 4096])).is_err());
    assert!(
        check_claim("ploop", &look(&[0; 4096]))
            .unwrap_err()
            .contains("cannot be inspected")
    );
    assert!(
        check_claim("raw", &look(b"PK\x03\x04 and more"))
            .unwrap_err()
            .contains("zip")
    );
    let mut ova = vec![0; 2048];
    put(&mut ova, 257, b"ustar");
    assert!(check_claim("raw", &look(&ova)).unwrap_err().contains("OVA"));
    for bomb in [
        &b"\x1f\x8b\x08..."[..],
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"BZh91AY&SY",
    ] {
        assert!(check_claim("raw", &look(bomb)).is_err() && check_claim("qcow2", &look(bomb)).is_err());
    }
}

#[test]
fn a1_a_vmdk_that_names_a_host_path_is_refused() {
    let flat = "# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/shadow\" 0\n";
    refused(flat.as_bytes(), "vmdk", "names other files");
    assert_eq!(look(flat.as_bytes()).data_file.as_deref(), Some("/etc/shadow\" 0"));
    refused(b"\n\n# a comment\n  version=1\n", "vmdk", "names other files");
    let inside = |from: &str, to: &str| vmdk(&DESCRIPTOR.replace(from, to));
    refused(&inside("\"disk.vmdk\"", "\"/etc/shadow\""), "vmdk", "names a path");
    refused(&inside("\"disk.vmdk\"", "\"../x.vmdk\""), "vmdk", "names a path");
    refused(&inside("SPARSE", "FLAT"), "vmdk", "not a sparse one");
    refused(
        &inside("monolithicSparse", "monolithicFlat"),
        "vmdk",
        "lies in other files",
    );
    refused(
        &inside("monolithicSparse", "twoGbMaxExtentSparse"),
        "vmdk",
        "lies in other files",
    );
    refused(
        &inside("ddb.adapterType", "RW 1 FLAT \"/dev/sda\"\nddb.x"),
        "vmdk",
        "not a sparse one",
    );
    refused(
        &inside("CID=1234abcd", "createType=\"monolithicSparse\""),
        "vmdk",
        "exactly once",
    );
    refused(
        &inside("parentCID=ffffffff", "parentCID=12345678"),
        "vmdk",
        "difference",
    );
    refused(
        &inside("CID=1234abcd", "parentFileNameHint=\"/etc/shadow\""),
        "vmdk",
        "parent",
    );
    refused(&inside("CID=1234abcd", "anything else"), "vmdk", "not understood");
    refused(
        &inside("version=1\n", "version=1\rRW 1 FLAT \"/x\"\n"),
        "vmdk",
        "hidden line",
    );
    let mut none = vmdk(DESCRIPTOR);
    put(&mut none, 28, &[0; 16]);
    refused(&none, "vmdk", "no descriptor");
    refused(b"COWD and so on", "vmdk", "ESX");
}

#[test]
fn a2_a_qcow2_with_an_external_data_file_is_refused() {
    let mut flag = qcow2();
    put(&mut flag, 72, &4_u64.to_be_bytes());
    refused(&flag, "qcow2", "external file");
    let mut name = qcow2();
    put(&mut name, 104, &0x4441_5441_u32.to_be_bytes());
    put(&mut name, 108, &11_u32.to_be_bytes());
    put(&mut name, 112, b"/etc/shadow");
    refused(&name, "qcow2", "/etc/shadow");
    assert_eq!(look(&name).data_file.as_deref(), Some("/etc/shadow"));
}

#[test]
fn a3_a_raw_image_that_is_something_else_is_refused() {
    let beneath = writer::Beneath {
        path: Path::new("/etc/shadow"),
        format: "raw",
    };
    let overlay = writer::empty(1 << 20, Some(beneath)).unwrap();
    refused(&overlay, "raw", "/etc/shadow");
    refused(&overlay, "qcow2", "flatten");
    assert_eq!(look(&overlay).backing_file.as_deref(), Some("/etc/shadow"));
    // Also a harmless one: what is declared raw is opened as raw, so the tenant is told.
    assert!(
        check_claim("raw", &look(&qcow2()))
            .unwrap_err()
            .contains("contents are qcow2")
    );
    assert!(check_claim("raw", &look(&vmdk(DESCRIPTOR))).is_err());
    assert!(check_claim("raw", &look(&vhd(2))).is_err());
}

#[test]
fn a3_polyglots_are_refused_under_every_name() {
    let mut both = iso();
    put(&mut both, 0, &qcow2()[..512]);
    refused(&both, "iso", "qcow2 and iso");
    let mut tail = qcow2();
    tail.extend(vhd(2));
    refused(&tail, "qcow2", "qcow2 and vhd");
    let mut boot = qcow2();
    mbr(&mut boot);
    refused(&boot, "qcow2", "more than one");
    let mut disk = vec![0; 4096];
    mbr(&mut disk);
    put(&mut disk, 0, b"QED\0");
    refused(&disk, "raw", "qed");
}

#[test]
fn a_other_unsafe_qcow2_images_are_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut image = qcow2();
        put(&mut image, at, bytes);
        image
    };
    refused(&with(4, &1_u32.to_be_bytes()), "qcow2", "obsolete");
    refused(&with(4, &4_u32.to_be_bytes()), "qcow2", "unknown");
    refused(&with(32, &2_u32.to_be_bytes()), "qcow2", "encrypted");
    refused(&with(104, &0x0537_be77_u32.to_be_bytes()), "qcow2", "encryption");
    refused(&with(72, &(1_u64 << 40).to_be_bytes()), "qcow2", "unknown incompatible");
    refused(&with(72, &2_u64.to_be_bytes()), "qcow2", "corrupt");
    refused(&with(36, &u32::MAX.to_be_bytes()), "qcow2", "larger than any");
    refused(&with(36, &0_u32.to_be_bytes()), "qcow2", "too small");
    refused(&with(24, &u64::MAX.to_be_bytes()), "qcow2", "larger than any");
    refused(&with(20, &31_u32.to_be_bytes()), "qcow2", "cluster size");
    refused(&with(40, &u64::MAX.to_be_bytes()), "qcow2", "outside");
    refused(&with(48, &(1_u64 << 50).to_be_bytes()), "qcow2", "outside");
    refused(&with(56, &u32::MAX.to_be_bytes()), "qcow2", "reference counts");
    refused(&with(60, &u32::MAX.to_be_bytes()), "qcow2", "snapshots");
    refused(&with(100, &7_u32.to_be_bytes()), "qcow2", "header length");
    refused(&qcow2()[..90], "qcow2", "cut off");
}

#[test]
fn a_parents_of_other_formats_are_refused() {
    refused(&vhd(4), "vhd", "parent");
    let mut locator = vhd(3);
    put(&mut locator, 512 + 576, b"W2ku");
    refused(&locator, "vhd", "locators");
    let mut sum = vhd(2);
    let end = sum.len();
    sum[end - 100] = 1;
    refused(&sum, "vhd", "checksum");

    let mut vdi = vec![0; 4096];
    put(&mut vdi, 64, &0xbeda_107f_u32.to_le_bytes());
    put(&mut vdi, 68, &0x0001_0001_u32.to_le_bytes());
    put(&mut vdi, 76, &1_u32.to_le_bytes());
    put(&mut vdi, 340, &512_u32.to_le_bytes());
    put(&mut vdi, 344, &1024_u32.to_le_bytes());
    put(&mut vdi, 368, &(1_u64 << 20).to_le_bytes());
    put(&mut vdi, 376, &(1_u32 << 20).to_le_bytes());
    put(&mut vdi, 384, &1_u32.to_le_bytes());
    assert_eq!(check_claim("vdi", &look(&vdi)).unwrap().virtual_size, 1 << 20);
    put(&mut vdi, 76, &4_u32.to_le_bytes());
    refused(&vdi, "vdi", "parent");

    refused(b"vhdxfile", "vhdx", "metadata");
    refused(b"LUKS\xba\xbe\0\x02....", "raw", "encrypted");
}

#[test]
fn what_qemu_img_makes_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    for (format, extra) in [
        ("qcow2", ""),
        ("qcow2", "compat=0.10"),
        ("qcow2", "extended_l2=on"),
        ("qcow2", "compression_type=zstd"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", ""),
        ("vpc", "subformat=fixed"),
        ("vhdx", ""),
        ("vdi", ""),
        ("vdi", "static=on"),
    ] {
        let path = dir.path().join("image");
        let mut command = std::process::Command::new("qemu-img");
        command.args(["create", "-q", "-f", format]);
        if !extra.is_empty() {
            command.args(["-o", extra]);
        }
        assert!(command.arg(&path).arg("64M").status().unwrap().success());
        let found = inspect(&mut std::fs::File::open(&path).unwrap()).unwrap();
        let name = if format == "vpc" { "vhd" } else { format };
        let proven = check_claim(name, &found).unwrap_or_else(|e| panic!("{format} {extra}: {e}"));
        assert!(
            proven.virtual_size >= 64 << 20 && proven.virtual_size < 65 << 20,
            "{format} {extra}: {proven:?}"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_we_write_is_understood_by_qemu_img() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.raw");
    std::fs::write(&base, vec![1; 1 << 20]).unwrap();
    for size in [512, 1 << 20, 5 << 30, 3 << 40, MAX_VIRTUAL_SIZE] {
        for beneath in [
            None,
            Some(writer::Beneath {
                path: &base,
                format: "raw",
            }),
        ] {
            let path = dir.path().join("disk.qcow2");
            writer::create(&path, size, beneath).unwrap();
            let output = std::process::Command::new("qemu-img")
                .args(["check", "-q", "-f", "qcow2"])
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{size}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let info = std::process::Command::new("qemu-img")
                .args(["info", "--output=json", "-f", "qcow2"])
                .arg(&path)
                .output()
                .unwrap();
            let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
            assert_eq!(info["virtual-size"], size);
            assert_eq!(info["backing-filename-format"].as_str(), beneath.map(|b| b.format));
            assert_eq!(
                info["backing-filename"].as_str(),
                beneath.map(|b| b.path.to_str().unwrap())
            );
        }
    }
    assert!(writer::empty(0, None).is_err() && writer::empty(513, None).is_err());
    assert!(writer::empty(MAX_VIRTUAL_SIZE + 512, None).is_err());
}

/// Seeds of the mutations: each format once.
fn seeds() -> Vec<Vec<u8>> {
    let mut gpt = vec![0; 8192];
    mbr(&mut gpt);
    let beneath = writer::Beneath {
        path: Path::new("/etc/shadow"),
        format: "raw",
    };
    let mut vhdx = vec![0; 400 << 10];
    put(&mut vhdx, 0, b"vhdxfile");
    put(&mut vhdx, 192 << 10, b"regi");
    put(&mut vhdx, (192 << 10) + 8, &1_u32.to_le_bytes());
    put(
        &mut vhdx,
        (192 << 10) + 16,
        &[
            0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 5, 0x0f, 0x88, 0x6e,
        ],
    );
    put(&mut vhdx, (192 << 10) + 32, &(330_u64 << 10).to_le_bytes());
    put(&mut vhdx, 330 << 10, b"metadata");
    put(&mut vhdx, (330 << 10) + 10, &1_u16.to_le_bytes());
    vec![
        qcow2(),
        writer::empty(1 << 20, Some(beneath)).unwrap(),
        vmdk(DESCRIPTOR),
        DESCRIPTOR.as_bytes().to_vec(),
        vhd(2),
        vhd(3),
        vhdx,
        iso(),
        gpt,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the bytes: an answer, no panic, and what is accepted refers to no other file.
    #[test]
    fn no_mutation_breaks_it(
        seed in 0..9_usize,
        changes in prop::collection::vec((0..1_usize << 19, any::<[u8; 8]>(), 1..9_usize), 0..12),
        near in prop::collection::vec((0..700_usize, any::<u8>()), 0..8),
        cut in prop::option::of(0..1_usize << 19),
    ) {
        let mut image = seeds().swap_remove(seed);
        for (at, bytes, n) in changes {
            let at = at % image.len();
            let n = n.min(8).min(image.len() - at);
            put(&mut image, at, &bytes[..n]);
        }
        for (at, byte) in near {
            let at = at % image.len();
            image[at] = byte;
        }
        if let Some(cut) = cut {
            image.truncate(cut % (image.len() + 1));
        }
        let found = look(&image);
        prop_assert!(found.file_size == image.len() as u64);
        for declared in ["raw", "gpt", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"] {
            if let Ok(proven) = check_claim(declared, &found) {
                prop_assert!(found.backing_file.is_none() && found.data_file.is_none() && !found.encrypted);
                prop_assert!(proven.virtual_size <= MAX_VIRTUAL_SIZE);
            }
        }
    }

    #[test]
    fn no_random_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        look(&bytes);
    }
}
