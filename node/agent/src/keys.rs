//! Keys of volumes that servers of this node reach on other nodes: a file for each, which the guest's process reads.
//!
//! ```text
//! <dir>/guests/keys/<server>/<export>/keys.psk     `<export>:<64 hexadecimal digits>`, readable by the guest's process alone
//! ```
//!
//! Written before the guest gets the disk, removed when it has let go of it. Nothing else of a key is kept on the machine.

use crate::Inner;
use maru_agent_api::slice::RemoteVolume;
use maru_base::{Error, Result};
use std::{
    collections::BTreeSet,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::internal(what, e)
}

fn home(inner: &Inner, server: &str) -> PathBuf {
    inner.config.data_dir.join("guests").join("keys").join(server)
}

/// Keeps the key of a remote volume for a server's guest; gives its directory.
pub(crate) fn keep(inner: &Inner, server: &str, remote: &RemoteVolume) -> Result<PathBuf> {
    // Names of exports become names of directories.
    let plain = remote.export.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || remote.export.is_empty() {
        return Err(Error::bad_request(format!(
            "{:?} cannot be the name of an export",
            remote.export
        )));
    }
    let dir = home(inner, server).join(&remote.export);
    let line = format!("{}:{}\n", remote.export, remote.key.reveal());
    let file = dir.join("keys.psk");
    if std::fs::read_to_string(&file).is_ok_and(|there| there == line) {
        return Ok(dir);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&dir)
        .map_err(io("the directory of a volume's key was not made"))?;
    let part = dir.join("keys.part");
    write(&part, &line)
        .and_then(|()| std::fs::rename(&part, &file))
        .map_err(io("a volume's key was not kept"))?;
    Ok(dir)
}

fn write(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(line.as_bytes())
}

/// Removes the keys of a server but those of these exports.
pub(crate) fn forget_but(inner: &Inner, server: &str, wanted: &BTreeSet<&str>) -> Result<()> {
    let dir = home(inner, server);
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io("the keys of volumes were not listed"))?,
    };
    for entry in entries.flatten() {
        if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_dir_all(entry.path()).map_err(io("a volume's key was not removed"))?;
        }
    }
    if wanted.is_empty() {
        // Another file in it would be a bug; it stays to be seen.
        let _ = std::fs::remove_dir(&dir);
    }
    Ok(())
}
