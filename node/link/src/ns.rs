//! Network namespaces: make, enter, list, remove. Named as iproute2 names them, so that `ip netns` shows them.

use crate::model::Netns;
use maru_base::{Error, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// Where iproute2 keeps the names.
pub(crate) const RUN: &str = "/run/netns";

/// Runs `work` on a thread of its own inside the namespace and returns its result.
///
/// What `work` opens (sockets, taps) belongs to that namespace for ever; processes that it starts live in it.
///
/// # Errors
/// There is no such namespace, or entering it needs rights that this process lacks (CAP_SYS_ADMIN).
pub fn in_namespace<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(netns).map_err(|e| {
        Error::internal(
            format!("The network namespace {} cannot be opened.", netns.display()),
            e,
        )
    })?;
    on_thread(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| {
            Error::internal(
                format!(
                    "The network namespace {} cannot be entered; it needs root (CAP_SYS_ADMIN).",
                    netns.display()
                ),
                e,
            )
        })?;
        Ok(work())
    })?
}

/// A thread that ends with its work: its namespace is never seen by other work.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::internal("No thread could be started to enter a network namespace.", e))?;
        thread
            .join()
            .map_err(|_| Error::internal("Work inside a network namespace panicked.", "panic"))
    })
}

/// Makes the namespace if it is not there. Returns whether this call made it.
pub(crate) fn create(netns: &Netns) -> Result<bool> {
    let path = netns.path();
    if is_there(&path) {
        return Ok(false);
    }
    let refused = |what: &str, e: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal(
            format!(
                "The network namespace {} cannot be made ({what}); it needs root.",
                netns.name
            ),
            e,
        )
    };
    prepare_dir().map_err(|e| refused("its directory", e.into()))?;
    // The file of an interrupted earlier try may be there without a namespace on it.
    File::create(&path).map_err(|e| refused("its file", e.into()))?;
    let made = on_thread(|| -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    })?;
    if let Err(e) = made {
        let _ = fs::remove_file(&path);
        return Err(refused("unshare and mount", e.into()));
    }
    Ok(true)
}

/// Whether the file is a mounted namespace and not just a file.
fn is_there(path: &Path) -> bool {
    // A namespace file is on nsfs, whose magic number linux/magic.h gives.
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// As iproute2 does: the directory is a shared mount, so that an unmount is seen in other mount namespaces.
fn prepare_dir() -> nix::Result<()> {
    if let Err(e) = fs::create_dir_all(RUN) {
        return Err(nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)));
    }
    let share = || {
        mount(
            None::<&str>,
            RUN,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_err() {
        mount(
            Some(RUN),
            RUN,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?;
        share()?;
    }
    Ok(())
}

/// Removes the name; the namespace goes when no process and no open file is in it. No error if it is not there.
pub(crate) fn remove(netns: &Netns) -> Result<()> {
    let path = netns.path();
    while is_there(&path) {
        umount2(&path, MntFlags::MNT_DETACH)
            .map_err(|e| Error::internal(format!("The network namespace {} cannot be unmounted.", netns.name), e))?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::internal(
            format!("The file {} cannot be removed.", path.display()),
            e,
        )),
        _ => Ok(()),
    }
}

/// Names of the namespaces that begin so.
pub(crate) fn list(prefix: &str) -> Vec<String> {
    let Ok(dir) = fs::read_dir(RUN) else { return Vec::new() };
    let mut names: Vec<String> = dir
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// Sets a switch below /proc/sys of the calling thread's namespace.
pub(crate) fn sysctl(path: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|e| Error::internal(format!("The kernel switch {path} cannot be set to {value}."), e))
}
