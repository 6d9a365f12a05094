//! VMware disks. Format: VMware's "Virtual Disk Format 5.0". Numbers are little-endian, a sector is 512 bytes.
//!
//! A VMDK is a text descriptor that names extents; it stands alone (then the extents are other files: A1, a host path is
//! all that it takes) or inside a sparse extent. Only the two self-contained kinds are accepted, and their one extent
//! must be a sparse one with a plain file name: QEMU takes a matching embedded extent from the file itself.

use super::{Bytes, Format, Inspection, Window, printable};
use std::io;

const SPARSE: &[u8] = b"KDMV";
const ESX: &[u8] = b"COWD";
/// A descriptor is a few hundred bytes; we read this much, and refuse one that claims more.
const MAX_DESCRIPTOR: u64 = 64 << 10;
/// `gdOffset` of a stream whose grain directory is in the footer.
const AT_END: u64 = u64::MAX;

pub(super) fn look(window: &mut Window<'_>) -> io::Result<Option<Inspection>> {
    let head = window.region(0, 512)?;
    if head.starts_with(SPARSE) {
        return sparse(window, &head).map(Some);
    }
    if head.starts_with(ESX) {
        let mut found = Inspection::new(Format::Vmdk, window.len);
        found.virtual_size = u64::from(head.le32(12)).saturating_mul(512);
        found.reject("an extent of an ESX host cannot stand alone; export it as streamOptimized");
        return Ok(Some(found));
    }
    let text = window.region(0, 4096)?;
    if !looks_like_descriptor(&text) {
        return Ok(None);
    }
    let mut found = Inspection::new(Format::Vmdk, window.len);
    found.features.push("descriptor file".to_owned());
    found.reject("a descriptor that names other files is never followed; export it as streamOptimized");
    let rest = window.region(0, usize::try_from(MAX_DESCRIPTOR).unwrap_or(0))?;
    descriptor(&rest, &mut found);
    Ok(Some(found))
}

/// A bare descriptor begins, after comments and blank lines, with `version=` or has the well-known comment. QEMU's own
/// probe skips comment and blank lines in the same way.
fn looks_like_descriptor(text: &[u8]) -> bool {
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        let lower = line.to_ascii_lowercase();
        if lower.starts_with(b"# disk descriptorfile") || lower.starts_with(b"version=") {
            return true;
        }
        if !(line.is_empty() || line.starts_with(b"#")) {
            return false;
        }
    }
    false
}

fn sparse(window: &mut Window<'_>, head: &[u8]) -> io::Result<Inspection> {
    let mut found = Inspection::new(Format::Vmdk, window.len);
    found.virtual_size = head.le64(12).saturating_mul(512);
    let (version, grain) = (head.le32(4), head.le64(20));
    let (offset, size) = (head.le64(28), head.le64(36));
    let (entries, directory) = (head.le32(44), head.le64(56));
    found.features.push(format!("version {version}"));
    if !(1..=3).contains(&version) {
        found.reject(format!("its version {version} is unknown"));
    }
    if !grain.is_power_of_two() || !(8..=2048).contains(&grain) || entries != 512 {
        found.reject("its grain tables are not valid");
    }
    if directory != AT_END && directory.saturating_mul(512) >= window.len {
        found.reject("its grain directory lies outside of the file");
    }
    let (start, bytes) = (offset.saturating_mul(512), size.saturating_mul(512));
    if offset == 0 || bytes == 0 || bytes > MAX_DESCRIPTOR || start.saturating_add(bytes) > window.len {
        found.reject("it has no descriptor of its own inside the file");
        return Ok(found);
    }
    let text = window.region(start, usize::try_from(bytes).unwrap_or(0))?;
    descriptor(&text, &mut found);
    if directory == AT_END {
        footer(window, head, &mut found)?;
    }
    Ok(found)
}

/// A stream's footer repeats the header; a reader that trusts it must find the same descriptor and size there.
fn footer(window: &mut Window<'_>, head: &[u8], found: &mut Inspection) -> io::Result<()> {
    let Some(at) = window.len.checked_sub(1024) else {
        found.reject("its footer is missing");
        return Ok(());
    };
    let foot = window.region(at, 512)?;
    let same = foot.starts_with(SPARSE) && foot.get(8..56) == head.get(8..56);
    if !same {
        found.reject("its footer is missing or contradicts its header");
    } else if foot.le64(56).saturating_mul(512) >= window.len {
        found.reject("its grain directory lies outside of the file");
    }
    Ok(())
}

fn descriptor(text: &[u8], found: &mut Inspection) {
    let end = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let Ok(text) = std::str::from_utf8(&text[..end]) else {
        return found.reject("its descriptor is not text");
    };
    if !text.is_ascii() || text.contains('\0') {
        return found.reject("its descriptor is not plain text");
    }
    let (mut extents, mut kinds) = (0, Vec::new());
    // QEMU splits on \n alone; a lone \r must not hide a line from us or from it.
    for line in text.split('\n').map(str::trim) {
        let lower = line.to_ascii_lowercase();
        let key = lower.split('=').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') || lower.starts_with("ddb.") {
            continue;
        }
        if line.contains('\r') {
            return found.reject("its descriptor has a hidden line");
        }
        if ["rw ", "rdonly ", "noaccess "]
            .iter()
            .any(|access| lower.starts_with(access))
        {
            extents += 1;
            extent(line, found);
        } else if lower.contains('=') && !key.contains(' ') {
            let value = line.split_once('=').map_or("", |(_, v)| v).trim().trim_matches('"');
            match key {
                "createtype" => kinds.push(value.to_owned()),
                "parentfilenamehint" => {
                    let name = printable(value.as_bytes());
                    found.reject(format!("it asks for the parent {name:?}"));
                    found.backing_file = Some(name);
                }
                "parentcid" if !value.eq_ignore_ascii_case("ffffffff") => {
                    found.reject("it is a difference to a parent disk; flatten it first");
                }
                _ => {}
            }
        } else {
            return found.reject(format!(
                "its descriptor has a line that is not understood: {:?}",
                printable(line.as_bytes())
            ));
        }
    }
    match kinds.as_slice() {
        [kind] if kind == "monolithicSparse" || kind == "streamOptimized" => found.features.push(kind.clone()),
        [kind] => found.reject(format!(
            "its type {:?} lies in other files; export it as streamOptimized",
            printable(kind.as_bytes())
        )),
        _ => found.reject("its descriptor does not say its type exactly once"),
    }
    if extents != 1 {
        found.reject(format!("it has {extents} extents where one is right"));
    }
}

/// `RW 4192256 SPARSE "name.vmdk"`.
fn extent(line: &str, found: &mut Inspection) {
    let mut words = line.splitn(4, ' ');
    let (_, sectors, kind, rest) = (
        words.next(),
        words.next(),
        words.next(),
        words.next().unwrap_or_default(),
    );
    let name = rest.trim().trim_matches('"');
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._- ()".contains(&b))
        && !name.starts_with('.');
    if kind != Some("SPARSE") || sectors.and_then(|s| s.parse::<u64>().ok()).is_none() {
        found.reject(format!(
            "its extent is not a sparse one inside this file: {:?}",
            printable(line.as_bytes())
        ));
        found.data_file = Some(printable(name.as_bytes()));
    } else if !plain || name.is_empty() {
        found.reject(format!("its extent names a path: {:?}", printable(name.as_bytes())));
        found.data_file = Some(printable(name.as_bytes()));
    }
}
