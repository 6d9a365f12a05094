//! Disks: image formats, overlays, the base-image cache, volumes.
//!
//! Attack class A (a tenant's image makes the host read or write what it should not) ends here, by three rules:
//!
//! 1. **Content decides, once.** [`inspect`] reads a few bounded regions of an image and says what it is and what is
//!    unsafe about it; [`check_claim`] compares that with what the tenant declared. It runs in the sandbox
//!    ([`prove`]), before any other program opens the file.
//! 2. **A proven format is never guessed again.** It travels as `qcow2` or `raw` with the file's digest, and QEMU and
//!    qemu-img are always told the format of every file of a chain. A raw image stays raw even if a guest or a tenant
//!    writes a qcow2 header into it.
//! 3. **Guests never write raw host files.** A guest's writable disk is a qcow2 overlay or blank qcow2 whose header we
//!    wrote ([`qcow2`]); what the guest writes lands in data clusters, so nothing it does changes what the file is.

pub mod claim;
pub mod disks;
pub mod driver;
pub mod inspect;
mod kept;
pub mod qcow2;
pub mod volumes;

pub use claim::{Proven, check_claim};
pub use disks::{BaseImage, DiskFile, Disks, Room};
pub use driver::{Exporter, NbdDisk, Remote, VolumeDriver};
pub use inspect::{Format, Inspection, inspect};
pub use volumes::{VolumeFile, Volumes};

use maru_base::{Error, Result};
use maru_sandbox::ReadSeek;
use serde_json::{Value, json};
use std::fs::File;

/// Name of the inspecting parser in the sandbox's table.
pub const PARSER: &str = "image-inspect";

/// The entry for the table of `maru_sandbox::child_main`.
pub const SANDBOX_ENTRY: (&str, maru_sandbox::Parser) = (PARSER, parse);

/// The parser that runs in the sandbox: [`inspect`] as JSON.
fn parse(mut file: &mut dyn ReadSeek, _args: Value) -> std::result::Result<Value, String> {
    let inspection = inspect(&mut file).map_err(|e| format!("the image could not be read: {e}"))?;
    serde_json::to_value(inspection).map_err(|e| e.to_string())
}

/// Inspects an image in the sandbox.
///
/// # Errors
/// `BadRequest` when the image cannot be inspected within the sandbox's bounds.
pub async fn inspect_sandboxed(file: File) -> Result<Inspection> {
    let answer = maru_sandbox::run(PARSER, file, json!(null)).await?;
    serde_json::from_value(answer).map_err(|e| Error::internal("the image inspector's answer was not understood", e))
}

/// Inspects an image in the sandbox and compares it with what was declared (Glance's `disk_format`).
///
/// # Errors
/// `BadRequest` that says what was refused and why.
pub async fn prove(file: File, declared: &str) -> Result<Proven> {
    check_claim(declared, &inspect_sandboxed(file).await?).map_err(Error::bad_request)
}
