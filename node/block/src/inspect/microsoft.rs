//! VHD (Virtual Hard Disk Image Format Specification, Microsoft 2006; big-endian) and VHDX ([MS-VHDX]; little-endian).

use super::{Bytes, Format, Inspection, Window};
use std::io;

const VHD: &[u8] = b"conectix";

/// VHD: a footer of 512 bytes at the end, and a copy of it at the start unless the disk is a fixed one.
pub(super) fn look_vhd(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 512)?;
    let last = window.region(window.len.saturating_sub(512), 512)?;
    let at_start = head.starts_with(VHD);
    // A footer may have lost its last byte (old Virtual PC wrote 511).
    let late = window.region(window.len.saturating_sub(511), 511)?;
    let footer = if at_start {
        head
    } else if last.starts_with(VHD) {
        last
    } else if late.starts_with(VHD) {
        late
    } else {
        return Ok(None);
    };
    let mut found = Inspection::new(Format::Vhd, window.len);
    found.virtual_size = footer.be64(48);
    match footer.be32(60) {
        2 if !at_start => found.features.push("fixed".to_owned()),
        2 => found.reject("it is fixed but has a header at its start"),
        3 if at_start => {
            found.features.push("dynamic".to_owned());
            dynamic(window, &footer, &mut found)?;
        }
        3 => found.reject("it is dynamic but has no header at its start"),
        4 => {
            found.backing_file = Some(String::new());
            found.reject("it is a difference to a parent disk; merge it first");
        }
        kind => found.reject(format!("its disk type {kind} is unknown")),
    }
    let sum = footer
        .iter()
        .enumerate()
        .filter(|(i, _)| !(64..68).contains(i))
        .fold(0_u32, |s, (_, b)| s.wrapping_add(u32::from(*b)));
    if !sum != footer.be32(64) {
        found.reject("the checksum of its footer is wrong");
    }
    Ok(Some(found))
}

fn dynamic(window: &mut Window<'_>, footer: &[u8], found: &mut Inspection) -> io::Result<()> {
    let header = window.region(footer.be64(16), 1024)?;
    let (table, entries, block) = (header.be64(16), header.be32(28), header.be32(32));
    if !header.starts_with(b"cxsparse") {
        found.reject("its dynamic header is missing");
    } else if !block.is_power_of_two() || !(512..=256 << 20).contains(&block) {
        found.reject(format!("its block size of {block} bytes is not valid"));
    } else if found.virtual_size.div_ceil(u64::from(block)) > u64::from(entries)
        || table.saturating_add(u64::from(entries) * 4) > window.len
    {
        found.reject("its block table does not fit its disk or its file");
    }
    if header
        .get(576..768)
        .is_some_and(|locators| locators.iter().any(|b| *b != 0))
    {
        found.backing_file = Some(String::new());
        found.reject("it has parent locators; merge it first");
    }
    Ok(())
}

const VHDX: &[u8] = b"vhdxfile";
/// GUIDs as they lie on disk.
const METADATA_REGION: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
const FILE_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
const VIRTUAL_DISK_SIZE: [u8; 16] = [
    0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8,
];
const PARENT_LOCATOR: [u8; 16] = [
    0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c,
];

/// VHDX: a region table at 192 KiB (a copy at 256 KiB), a metadata region with the disk's size.
pub(super) fn look_vhdx(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    if !window.region(0, 8)?.starts_with(VHDX) {
        return Ok(None);
    }
    let mut found = Inspection::new(Format::Vhdx, window.len);
    found.virtual_size = 0;
    let first = window.region(192 << 10, 64 << 10)?;
    let second = window.region(256 << 10, 64 << 10)?;
    // A reader may take either copy, so both must say the same where both are there.
    let (a, b) = (metadata_region(&first), metadata_region(&second));
    let region = match (a, b) {
        (Some(x), Some(y)) if x == y => x,
        (Some(x), None) | (None, Some(x)) => x,
        (Some(_), Some(_)) => {
            found.reject("its two region tables contradict each other");
            return Ok(Some(found));
        }
        (None, None) => {
            found.reject("it has no metadata region");
            return Ok(Some(found));
        }
    };
    metadata(window, region, &mut found)?;
    Ok(Some(found))
}

fn metadata_region(table: &[u8]) -> Option<u64> {
    if !table.starts_with(b"regi") {
        return None;
    }
    let entries = usize::try_from(table.le32(8)).ok()?.min(2047);
    (0..entries)
        .map(|i| 16 + i * 32)
        .find(|at| table.at::<16>(*at) == METADATA_REGION)
        .map(|at| table.le64(at + 16))
}

fn metadata(window: &mut Window<'_>, region: u64, found: &mut Inspection) -> io::Result<()> {
    let table = window.region(region, 64 << 10)?;
    if !table.starts_with(b"metadata") {
        found.reject("its metadata table is missing");
        return Ok(());
    }
    let entries = usize::from(table.le16(10)).min(2047);
    let mut sizes = Vec::new();
    for at in (0..entries).map(|i| 32 + i * 32) {
        let place = region.saturating_add(u64::from(table.le32(at + 16)));
        match table.at::<16>(at) {
            FILE_PARAMETERS => {
                let parameters = window.region(place, 8)?;
                if parameters.le32(4) & 2 != 0 {
                    found.backing_file = Some(String::new());
                    found.reject("it is a difference to a parent disk; merge it first");
                }
            }
            VIRTUAL_DISK_SIZE => sizes.push(window.region(place, 8)?.le64(0)),
            PARENT_LOCATOR => {
                found.backing_file = Some(String::new());
                found.reject("it has a parent locator; merge it first");
            }
            _ => {}
        }
    }
    match sizes.as_slice() {
        [size] => found.virtual_size = *size,
        _ => found.reject("it does not say its size exactly once"),
    }
    Ok(())
}
