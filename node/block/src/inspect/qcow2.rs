//! QEMU copy-on-write, versions 1 to 3. Format: QEMU's docs/interop/qcow2.rst. Numbers are big-endian.

use super::{Bytes, Format, Inspection, Window, printable};
use std::io;

const MAGIC: &[u8] = b"QFI\xfb";
/// Incompatible features: dirty, corrupt, external data file, compression type, extended L2.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
/// Header extensions.
const END: u32 = 0;
const EXTERNAL_DATA_FILE_NAME: u32 = 0x4441_5441;
const FULL_DISK_ENCRYPTION: u32 = 0x0537_be77;
/// QEMU's own bound of the L1 table.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Most snapshots that QEMU opens.
const MAX_SNAPSHOTS: u32 = 65_536;

pub(super) fn look(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let header = window.region(0, 112)?;
    if !header.starts_with(MAGIC) {
        return Ok(None);
    }
    let version = header.be32(4);
    let mut found = Inspection::new(Format::Qcow2, window.len);
    found.features.push(format!("version {version}"));
    if version == 1 {
        found.format = Format::Qcow1;
        found.virtual_size = header.be64(24);
        found.reject("this format is obsolete; convert it with qemu-img convert -O qcow2");
        return Ok(Some(found));
    }
    found.virtual_size = header.be64(24);
    if version != 2 && version != 3 {
        found.reject(format!("its version {version} is unknown"));
        return Ok(Some(found));
    }
    if header.len() < if version == 3 { 104 } else { 72 } {
        found.reject("its header is cut off");
        return Ok(Some(found));
    }
    backing(window, &header, &mut found)?;
    if header.be32(32) != 0 {
        found.encrypted = true;
        found.reject("it is encrypted; its key is not known here");
    }
    geometry(&header, &mut found);
    let mut header_length = 72;
    if version == 3 {
        features(header.be64(72), &mut found);
        header_length = header.be32(100);
        if header_length < 104 || header_length % 8 != 0 || header_length > 65_536 {
            found.reject(format!("its header length of {header_length} bytes is not valid"));
            return Ok(Some(found));
        }
        if header.be32(96) > 6 {
            found.reject("its reference counts are wider than the format allows");
        }
    }
    extensions(window, u64::from(header_length), &mut found)?;
    Ok(Some(found))
}

fn backing(window: &mut Window<'_>, header: &[u8], found: &mut Inspection) -> io::Result<()> {
    let (offset, length) = (header.be64(8), header.be32(16));
    if offset == 0 && length == 0 {
        return Ok(());
    }
    let name = window.region(offset, usize::try_from(length).unwrap_or(0).min(1023))?;
    let name = printable(&name);
    found.reject(format!(
        "it asks for the backing file {name:?}; flatten it with qemu-img convert"
    ));
    found.backing_file = Some(name);
    Ok(())
}

fn geometry(header: &[u8], found: &mut Inspection) {
    let (cluster_bits, l1_size) = (header.be32(20), header.be32(36));
    let (l1_offset, refcount_offset, refcount_clusters) = (header.be64(40), header.be64(48), header.be32(56));
    let (snapshots, snapshots_offset) = (header.be32(60), header.be64(64));
    if !(9..=21).contains(&cluster_bits) {
        found.reject(format!("its cluster size of 2^{cluster_bits} bytes is not valid"));
        return;
    }
    // A lower bound of the clusters that one L2 table maps: 16-byte entries (extended L2) map half as much.
    let entry_bytes = if header.be64(72) & EXTENDED_L2 != 0 && header.be32(4) == 3 {
        16
    } else {
        8
    };
    let per_l1_entry = (1_u64 << cluster_bits) / entry_bytes * (1_u64 << cluster_bits);
    let needed = found.virtual_size.div_ceil(per_l1_entry);
    let l1_bytes = u64::from(l1_size) * 8;
    if l1_bytes > MAX_L1_BYTES || needed * 8 > MAX_L1_BYTES {
        found.reject(format!(
            "its table of {} bytes is larger than any valid one",
            l1_bytes.max(needed * 8)
        ));
    } else if u64::from(l1_size) < needed {
        found.reject("its table is too small for the disk that it claims to hold");
    } else if l1_size > 0 && l1_offset.checked_add(l1_bytes).is_none_or(|end| end > found.file_size) {
        found.reject("its table lies outside of the file");
    }
    let refcount_bytes = u64::from(refcount_clusters) << cluster_bits;
    if refcount_bytes > 8 << 20 {
        found.reject("its table of reference counts is larger than any valid one");
    } else if refcount_offset
        .checked_add(refcount_bytes)
        .is_none_or(|end| end > found.file_size)
    {
        found.reject("its table of reference counts lies outside of the file");
    }
    if snapshots > MAX_SNAPSHOTS || snapshots > 0 && snapshots_offset >= found.file_size {
        found.reject("its table of internal snapshots is not valid");
    } else if snapshots > 0 {
        found.features.push(format!("{snapshots} internal snapshots"));
    }
}

fn features(incompatible: u64, found: &mut Inspection) {
    for (bit, name) in [
        (DIRTY, "dirty"),
        (CORRUPT, "corrupt"),
        (COMPRESSION_TYPE, "compression type"),
        (EXTENDED_L2, "extended L2"),
    ] {
        if incompatible & bit != 0 {
            found.features.push(name.to_owned());
        }
    }
    if incompatible & CORRUPT != 0 {
        found.reject("it is marked as corrupt; repair it with qemu-img check -r all");
    }
    if incompatible & DATA_FILE != 0 {
        found.data_file.get_or_insert_with(String::new);
        found.reject("its data lie in an external file; convert it with qemu-img convert");
    }
    if incompatible & !KNOWN != 0 {
        found.reject(format!(
            "it has unknown incompatible features ({:#x})",
            incompatible & !KNOWN
        ));
    }
}

/// Walks the header extensions: each is a type, a length, and data padded to 8 bytes.
fn extensions(window: &mut Window<'_>, start: u64, found: &mut Inspection) -> io::Result<()> {
    let area = window.region(start, 65_536)?;
    let mut at = 0_usize;
    // 65,536 bytes hold at most 8,192 extensions, so this ends.
    while at + 8 <= area.len() {
        let (kind, length) = (area.be32(at), usize::try_from(area.be32(at + 4)).unwrap_or(usize::MAX));
        if kind == END {
            break;
        }
        let Some(end) = at.checked_add(8).and_then(|s| s.checked_add(length)) else {
            break;
        };
        let Some(data) = area.get(at + 8..end) else {
            // Version 2 images of old writers have no end mark; what follows is data, not extensions.
            if found.features.iter().any(|f| f == "version 3") {
                found.reject("its header extensions run out of the header");
            }
            break;
        };
        match kind {
            EXTERNAL_DATA_FILE_NAME => {
                let name = printable(data);
                found.reject(format!(
                    "it names the external data file {name:?}; convert it with qemu-img convert"
                ));
                found.data_file = Some(name);
            }
            FULL_DISK_ENCRYPTION => {
                found.encrypted = true;
                found.reject("it has an encryption header; its key is not known here");
            }
            _ => {}
        }
        at = end.div_ceil(8).saturating_mul(8);
    }
    Ok(())
}
