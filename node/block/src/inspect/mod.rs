//! Says what an image is, from its contents alone, and what is unsafe about it.
//!
//! A pure function of bytes: it reads a bounded number of bounded regions (at most about 1.2 MiB in all), never follows a
//! name that it finds, never allocates by a number that it finds, and has no panic in it: it is fuzzed, and it runs in
//! the sandbox. Every known signature is looked for, not only the first that fits; a file with two is a polyglot and
//! refused, unless the pair is a hybrid that people really make (an ISO 9660 image that is a partitioned disk too).
//!
//! Behaviour follows `format_inspector` of oslo.utils, which Glance, Nova and Cinder share; we refuse more (encrypted and
//! differencing images, absurd tables, archives declared as disks).

mod disk;
mod microsoft;
mod qcow2;
mod vmdk;

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Seek, SeekFrom};

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// No signature that we know.
    Raw,
    /// A disk with an MBR partition table.
    Mbr,
    /// A disk with a GUID partition table.
    Gpt,
    /// An ISO 9660 or UDF file system, hybrid or not.
    Iso,
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// QEMU copy-on-write, version 1.
    Qcow1,
    /// VMware.
    Vmdk,
    /// Microsoft Virtual PC.
    Vhd,
    /// Microsoft Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// QEMU enhanced disk (obsolete).
    Qed,
    /// Parallels.
    Parallels,
    /// Bochs growing image.
    Bochs,
    /// Apple disk image.
    Dmg,
    /// LUKS, version 1 or 2.
    Luks,
    /// A gzip stream.
    Gzip,
    /// A zip archive.
    Zip,
    /// An xz stream.
    Xz,
    /// A bzip2 stream.
    Bzip2,
    /// A zstd stream.
    Zstd,
    /// A tar archive; OVA is one.
    Tar,
    /// More than one of these at once.
    Ambiguous,
}

impl Format {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mbr => "raw (MBR disk)",
            Self::Gpt => "raw (GPT disk)",
            Self::Iso => "iso",
            Self::Qcow2 => "qcow2",
            Self::Qcow1 => "qcow (version 1)",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Qed => "qed",
            Self::Parallels => "parallels",
            Self::Bochs => "bochs",
            Self::Dmg => "dmg",
            Self::Luks => "luks",
            Self::Gzip => "gzip",
            Self::Zip => "zip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
            Self::Tar => "tar (OVA)",
            Self::Ambiguous => "more than one format at once",
        }
    }
}

/// What was found in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What it is.
    pub format: Format,
    /// Bytes of the disk that it holds; the file's length where it holds none of its own.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// The name of a backing or parent file, if it asks for one (shortened, made printable).
    pub backing_file: Option<String>,
    /// The name of an external data file or extent, if it asks for one (shortened, made printable).
    pub data_file: Option<String>,
    /// Whether its contents are encrypted.
    pub encrypted: bool,
    /// What else was noticed: versions, sub-types, feature bits.
    pub features: Vec<String>,
    /// Why it must not be opened: each completes "its contents are F, and …".
    pub unsafe_reasons: Vec<String>,
}

impl Inspection {
    fn new(format: Format, file_size: u64) -> Self {
        Self {
            format,
            virtual_size: file_size,
            file_size,
            backing_file: None,
            data_file: None,
            encrypted: false,
            features: Vec::new(),
            unsafe_reasons: Vec::new(),
        }
    }

    /// Whether nothing unsafe was found.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.unsafe_reasons.is_empty()
    }

    fn reject(&mut self, reason: impl Into<String>) {
        self.unsafe_reasons.push(reason.into());
    }
}

/// Largest disk that an image may claim to hold: 64 TiB, more than any base image is, less than what overflows.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// One of the lookers: what it found, if the image is of its kind.
type Look = fn(&mut Window<'_>) -> io::Result<Option<Inspection>>;

/// Inspects an image.
///
/// # Errors
/// Only what reading gives; contents never make an error, they make [`Inspection::unsafe_reasons`].
pub fn inspect(file: &mut (impl Read + Seek + ?Sized)) -> io::Result<Inspection> {
    let len = file.seek(SeekFrom::End(0))?;
    let mut source = Adapter(file);
    let mut window = Window {
        source: &mut source,
        len,
    };
    let mut found: Vec<Inspection> = Vec::new();
    let looks: [Look; 9] = [
        qcow2::look,
        vmdk::look,
        microsoft::look_vhd,
        microsoft::look_vhdx,
        disk::look_other_images,
        disk::look_luks,
        disk::look_archives,
        disk::look_iso,
        disk::look_partitions,
    ];
    for look in looks {
        found.extend(look(&mut window)?);
    }
    let mut inspection = settle(found, window.len);
    if inspection.virtual_size > MAX_VIRTUAL_SIZE {
        let size = inspection.virtual_size;
        inspection.reject(format!("it claims to hold a disk of {size} bytes, more than 64 TiB"));
    }
    Ok(inspection)
}

/// Makes one finding out of all.
fn settle(mut found: Vec<Inspection>, len: u64) -> Inspection {
    let has = |found: &[Inspection], f: Format| found.iter().any(|i| i.format == f);
    // A hybrid: boots from an optical drive and from a USB stick. One set of bytes, opened as bytes in either case.
    if has(&found, Format::Iso)
        && found
            .iter()
            .all(|i| matches!(i.format, Format::Iso | Format::Mbr | Format::Gpt))
    {
        let others: Vec<String> = found
            .iter()
            .filter(|i| i.format != Format::Iso)
            .map(|i| format!("hybrid with {}", i.format.name()))
            .collect();
        found.retain(|i| i.format == Format::Iso);
        if let Some(iso) = found.first_mut() {
            iso.features.extend(others);
        }
    }
    match found.len() {
        0 => Inspection::new(Format::Raw, len),
        1 => found.remove(0),
        _ => {
            let names: Vec<&str> = found.iter().map(|i| i.format.name()).collect();
            let mut all = Inspection::new(Format::Ambiguous, len);
            all.reject(format!(
                "a file that is {} can be read as whichever serves an attacker",
                names.join(" and ")
            ));
            for one in &mut found {
                all.encrypted |= one.encrypted;
                all.backing_file = all.backing_file.take().or_else(|| one.backing_file.take());
                all.data_file = all.data_file.take().or_else(|| one.data_file.take());
                all.features.append(&mut one.features);
                all.unsafe_reasons.append(&mut one.unsafe_reasons);
            }
            all
        }
    }
}

/// Most bytes that one region may have.
const MAX_REGION: usize = 1 << 20;

/// Bounded reads of a file.
pub(crate) struct Window<'a> {
    source: &'a mut dyn Source,
    /// The file's length.
    pub len: u64,
}

/// `Read + Seek` as one object.
pub(crate) trait Source {
    /// Fills `into` from `offset`; fewer bytes only at the file's end.
    fn fill(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

struct Adapter<'f, F: ?Sized>(&'f mut F);

impl<F: Read + Seek + ?Sized> Source for Adapter<'_, F> {
    fn fill(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
}

impl Window<'_> {
    /// The bytes from `offset` on, at most `length`; fewer, or none, where the file ends before.
    pub fn region(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset >= self.len {
            return Ok(Vec::new());
        }
        let there = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(MAX_REGION).min(there)];
        let filled = self.source.fill(offset, &mut bytes)?;
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Reads numbers at offsets; what lies outside is 0, so a short file looks like zeros and matches no signature.
pub(crate) trait Bytes {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N];
    fn be16(&self, offset: usize) -> u16 {
        u16::from_be_bytes(self.at(offset))
    }
    fn be32(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.at(offset))
    }
    fn be64(&self, offset: usize) -> u64 {
        u64::from_be_bytes(self.at(offset))
    }
    fn le16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.at(offset))
    }
    fn le32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset))
    }
    fn le64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset))
    }
}

impl Bytes for [u8] {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        offset
            .checked_add(N)
            .and_then(|end| self.get(offset..end))
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }
}

/// A name out of an image, fit to be shown: printable ASCII, at most 200 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(200)
        .map(|b| {
            if b.is_ascii_graphic() || *b == b' ' {
                char::from(*b)
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
