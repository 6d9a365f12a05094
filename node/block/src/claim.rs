//! Compares what an image is with what its owner says it is.
//!
//! | declared (Glance `disk_format`) | contents that are accepted | handled as |
//! |---|---|---|
//! | `raw` | no known format; an MBR or GPT disk; an ISO 9660 file system | `raw` |
//! | `gpt` | an MBR or GPT disk | `raw` |
//! | `iso` | ISO 9660 or UDF, also a hybrid with MBR or GPT | `iso` (bytes as they are: raw) |
//! | `qcow2` | qcow2 v2 or v3 without backing file, data file, encryption or unknown features | `qcow2` |
//! | `vmdk` | `monolithicSparse` or `streamOptimized` with one embedded extent | `vmdk` |
//! | `vhd`, `vhdx`, `vdi` | that format, not a differencing disk | the same |
//! | `ami`, `ari`, `aki` | no known format, or a kernel or archive that boots by itself (gzip, xz, cpio) | `raw` |
//! | `ploop`, anything else | nothing: it cannot be proven | - |
//!
//! A file that is two formats at once is refused under every name, except for the hybrids that the table lists.

use crate::inspect::{Format, Inspection};
use serde::{Deserialize, Serialize};

/// An image whose contents have been found to be what they were declared to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The format by which it is opened from now on, explicitly: `raw`, `qcow2`, `iso`, `vmdk`, `vhd`, `vhdx`, `vdi`.
    pub format: String,
    /// Size of the disk that it holds, in bytes.
    pub virtual_size: u64,
}

impl Proven {
    /// The format of the disk that a guest is booted from: `raw` for what is opened byte by byte, `qcow2` for itself,
    /// `None` for what must be converted first (this node does not boot from it).
    #[must_use]
    pub fn bootable_format(&self) -> Option<&'static str> {
        match self.format.as_str() {
            "raw" | "iso" => Some("raw"),
            "qcow2" => Some("qcow2"),
            _ => None,
        }
    }
}

/// Checks a declared `disk_format` against what was found.
///
/// # Errors
/// What was refused, why, and what would help, in words for the tenant.
pub fn check_claim(declared: &str, found: &Inspection) -> Result<Proven, String> {
    let refuse = |why: String| Err(format!("the image was refused: {why}"));
    if let Some(reason) = found.unsafe_reasons.first() {
        return refuse(format!("its contents are {}, and {reason}", found.format.name()));
    }
    let proven = |format: &str| {
        Ok(Proven {
            format: format.to_owned(),
            virtual_size: found.virtual_size,
        })
    };
    let mismatch = || {
        refuse(format!(
            "it was declared as {declared} but its contents are {}; declare disk_format {} or convert it with \
             qemu-img convert",
            found.format.name(),
            found.format.name()
        ))
    };
    match (declared, found.format) {
        ("raw", Format::Raw | Format::Mbr | Format::Gpt | Format::Iso) => proven("raw"),
        ("gpt", Format::Mbr | Format::Gpt) => proven("raw"),
        ("iso", Format::Iso) => proven("iso"),
        ("qcow2", Format::Qcow2) => proven("qcow2"),
        ("vmdk", Format::Vmdk) => proven("vmdk"),
        ("vhd", Format::Vhd) => proven("vhd"),
        ("vhdx", Format::Vhdx) => proven("vhdx"),
        ("vdi", Format::Vdi) => proven("vdi"),
        ("ami" | "ari" | "aki", Format::Raw | Format::Mbr | Format::Gpt | Format::Gzip | Format::Xz) => proven("raw"),
        ("raw" | "gpt" | "iso" | "qcow2" | "vmdk" | "vhd" | "vhdx" | "vdi" | "ami" | "ari" | "aki", _) => mismatch(),
        _ => refuse(format!(
            "disk_format {declared:?} cannot be inspected here; raw, gpt, qcow2, iso, vmdk, vhd, vhdx and vdi can"
        )),
    }
}
