//! Opens the taps that the guests' NICs are connected to.
//!
//! A tap is made, persistent, by whoever builds the network, inside Maru's network namespace. QEMU lives in the host's:
//! it gets the tap as an open descriptor and needs no right to open any. Format: Linux' Documentation/networking/tuntap.
#![allow(unsafe_code)]

use maru_base::{Error, Result};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Opens the existing persistent tap `name` inside `netns` (`None`: this process's own namespace).
///
/// # Errors
/// `Unavailable` when the tap is not there or another process holds it; `Internal` for anything else.
pub async fn open(netns: Option<PathBuf>, name: String) -> Result<OwnedFd> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own that ends: a thread that has entered a namespace must never go back to a pool.
    let helper = std::thread::Builder::new().name("tap".to_owned()).spawn(move || {
        let _ = sender.send(open_here(netns.as_deref(), &name));
    });
    helper.map_err(|e| Error::internal("no thread could be started", e))?;
    receiver
        .await
        .map_err(|e| Error::internal("the opener of a tap stopped unexpectedly", e))?
}

fn open_here(netns: Option<&Path>, name: &str) -> Result<OwnedFd> {
    let failed = |what: &str| {
        let text = format!("the network device {name} {what}");
        move |e: std::io::Error| Error::internal(text, e)
    };
    if let Some(netns) = netns {
        let namespace = File::open(netns).map_err(failed("was not opened: its namespace is missing"))?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|e| failed("was not opened: its namespace cannot be entered")(e.into()))?;
    }
    // TUNSETIFF would make a new, unconnected device of this name: one that is not there yet must be an error.
    let before = nix::net::if_::if_nametoindex(name).map_err(|_| {
        Error::unavailable(format!(
            "the network device {name} is not there yet; the port's data path comes first"
        ))
    })?;
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(failed("was not opened"))?;
    // SAFETY: all-zero bytes are a valid `ifreq`: it holds integers and character arrays only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || !name.is_ascii() {
        return Err(Error::bad_request(format!(
            "{name:?} cannot be the name of a network device"
        )));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: `tun` is an open descriptor and `request` a valid ifreq that outlives the call; TUNSETIFF reads and writes
    // no more than that structure.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if done < 0 {
        let e = std::io::Error::last_os_error();
        return Err(match e.raw_os_error() {
            Some(libc::EBUSY) => {
                Error::unavailable(format!("the network device {name} is held by another process")).with_source(e)
            }
            _ => failed("was not attached")(e),
        });
    }
    match nix::net::if_::if_nametoindex(name) {
        Ok(after) if after == before => Ok(tun.into()),
        _ => Err(Error::unavailable(format!(
            "the network device {name} was replaced while it was opened"
        ))),
    }
}
