//! Smaller formats: VDI, QED, Parallels, Bochs, DMG; LUKS; archives; ISO 9660 and UDF; MBR and GPT.

use super::{Bytes, Format, Inspection, Window};
use std::io;

/// VDI (VirtualBox's VDICore.h), QED (QEMU's docs/interop/qed_spec), Parallels (QEMU's docs/interop/parallels), Bochs,
/// DMG. All of them but VDI are obsolete or readers' fancies, and never accepted.
pub(super) fn look_other_images(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 512)?;
    let len = window.len;
    let named = |format: Format, size: u64| {
        let mut found = Inspection::new(format, len);
        found.virtual_size = size;
        found.reject("this format is not served; convert it with qemu-img convert -O qcow2");
        Ok(Some(found))
    };
    if head.le32(64) == 0xbeda_107f {
        return Ok(Some(vdi(&head, len)));
    }
    if head.starts_with(b"QED\0") {
        return named(Format::Qed, head.le64(48));
    }
    if head.starts_with(b"WithoutFreeSpace") || head.starts_with(b"WithouFreSpacExt") {
        return named(Format::Parallels, head.le64(36).saturating_mul(512));
    }
    if head.starts_with(b"Bochs Virtual HD Image") {
        return named(Format::Bochs, len);
    }
    let tail = window.region(len.saturating_sub(512), 512)?;
    if tail.len() == 512 && tail.starts_with(b"koly") && tail.be32(8) == 512 {
        return named(Format::Dmg, tail.be64(492).saturating_mul(512));
    }
    Ok(None)
}

fn vdi(head: &[u8], len: u64) -> Inspection {
    let mut found = Inspection::new(Format::Vdi, len);
    found.virtual_size = head.le64(368);
    let (version, kind) = (head.le32(68), head.le32(76));
    let (map, data, block, blocks) = (head.le32(340), head.le32(344), head.le32(376), head.le32(384));
    found
        .features
        .push(format!("version {}.{}", version >> 16, version & 0xffff));
    if version != 0x0001_0001 {
        found.reject("its version is unknown");
    }
    match kind {
        1 => found.features.push("dynamic".to_owned()),
        2 => found.features.push("fixed".to_owned()),
        _ => {
            found.backing_file = Some(String::new());
            found.reject("it is a difference to a parent disk; merge it first");
        }
    }
    // The UUIDs of the parent are zero in an image that stands alone.
    if head.get(424..456).is_some_and(|parent| parent.iter().any(|b| *b != 0)) {
        found.backing_file = Some(String::new());
        found.reject("it names a parent disk; merge it first");
    }
    let holds = u64::from(block).saturating_mul(u64::from(blocks));
    if block != 1 << 20 || holds < found.virtual_size || u64::from(map) + u64::from(blocks) * 4 > len || data < map {
        found.reject("its block map does not fit its disk or its file");
    }
    found
}

/// LUKS 1 and 2 (the on-disk format specifications of cryptsetup); the second header of LUKS 2 may lie further in.
pub(super) fn look_luks(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 8)?;
    let mut version = head.starts_with(b"LUKS\xba\xbe").then(|| head.be16(6));
    for at in [
        0x4000_u64, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x10_0000, 0x20_0000, 0x40_0000,
    ] {
        if version.is_none() && window.region(at, 6)?.starts_with(b"SKUL\xba\xbe") {
            version = Some(2);
        }
    }
    let Some(version) = version else { return Ok(None) };
    let mut found = Inspection::new(Format::Luks, window.len);
    found.encrypted = true;
    found.features.push(format!("version {version}"));
    found.reject("it is encrypted; its key is not known here");
    Ok(Some(found))
}

/// Streams and archives: no disk at all until they are unpacked, which nothing here does (decompression bombs, paths in
/// tar archives and OVAs).
pub(super) fn look_archives(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 512)?;
    let format = if head.starts_with(&[0x1f, 0x8b, 8]) {
        Format::Gzip
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Format::Zip
    } else if head.starts_with(b"\xfd7zXZ\0") {
        Format::Xz
    } else if head.starts_with(b"BZh") && head.get(4..10) == Some(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) {
        Format::Bzip2
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Format::Zstd
    } else if head.get(257..262) == Some(b"ustar") {
        Format::Tar
    } else {
        return Ok(None);
    };
    Ok(Some(Inspection::new(format, window.len)))
}

/// ISO 9660 (ECMA-119) and UDF (ECMA-167): volume descriptors of 2 KiB from 32 KiB on.
pub(super) fn look_iso(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let area = window.region(32 << 10, 16 * 2048)?;
    let known = |d: &[u8]| matches!(d.get(1..6), Some(b"CD001" | b"BEA01" | b"NSR02" | b"NSR03" | b"TEA01"));
    if !area.chunks(2048).next().is_some_and(known) {
        return Ok(None);
    }
    let mut found = Inspection::new(Format::Iso, window.len);
    for d in area.chunks(2048).take_while(|d| known(d)) {
        match d.get(1..6) {
            Some(b"CD001") if d.first() == Some(&1) => {
                let holds = u64::from(d.le32(80)).saturating_mul(u64::from(d.le16(128)));
                found.features.push(format!("ISO 9660 volume of {holds} bytes"));
            }
            Some(b"NSR02" | b"NSR03") => found.features.push("UDF".to_owned()),
            _ => {}
        }
    }
    Ok(Some(found))
}

/// MBR, and GPT behind a protective MBR (UEFI specification, chapter 5).
///
/// A boot sector of a file system ends in 55 AA too, so a table counts only if its entries look like one.
pub(super) fn look_partitions(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 512)?;
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Ok(None);
    }
    let entries: Vec<&[u8]> = (0..4).filter_map(|i| head.get(446 + i * 16..462 + i * 16)).collect();
    let valid = entries
        .iter()
        .all(|e| e.first().is_some_and(|boot| *boot == 0 || *boot == 0x80));
    let used: Vec<&&[u8]> = entries
        .iter()
        .filter(|e| e.get(4).is_some_and(|kind| *kind != 0))
        .collect();
    if !valid || used.is_empty() {
        return Ok(None);
    }
    let protective = used.iter().any(|e| e.get(4) == Some(&0xee));
    // 4 KiB sectors put the header elsewhere.
    let header = window.region(512, 8)?.starts_with(b"EFI PART") || window.region(4096, 8)?.starts_with(b"EFI PART");
    let format = if protective && header { Format::Gpt } else { Format::Mbr };
    let mut found = Inspection::new(format, window.len);
    found.features.push(format!("{} MBR entries", used.len()));
    Ok(Some(found))
}
