//! Taps (linux/if_tun.h). The only unsafe code of this crate's drivers: three ioctls that the kernel offers no other door to.

use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

nix::ioctl_write_int!(tun_set_persist, b'T', 203);

const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
/// `TUNSETIFF`; its number says `int` but it takes a `struct ifreq *`.
const TUNSETIFF: libc_ioctl::Number = nix::request_code_write!(b'T', 202, size_of::<i32>());

mod libc_ioctl {
    pub(super) type Number = nix::sys::ioctl::ioctl_num_type;
}

/// Opens the tap of this name in the calling thread's namespace, and makes it if it is not there.
fn attach(name: &str) -> nix::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(nix::libc::EIO)))?;
    // struct ifreq: 16 bytes of name, then a union of 24 bytes whose first two are the flags.
    let mut request = [0_u8; 40];
    let bytes = name.as_bytes();
    if bytes.len() > 15 {
        return Err(Errno::ENAMETOOLONG);
    }
    request[..bytes.len()].copy_from_slice(bytes);
    request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
    // SAFETY: `file` is an open descriptor of /dev/net/tun; `request` is a live, writable buffer of sizeof(struct ifreq) = 40
    // bytes with a NUL-terminated name, and the kernel reads and writes no more than that.
    #[allow(unsafe_code)]
    let answer = unsafe { nix::libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    Errno::result(answer)?;
    Ok(file)
}

/// Makes the tap of this name in the calling thread's namespace and lets it stay when it is closed. It is down.
pub(crate) fn create(name: &str) -> nix::Result<()> {
    let file = attach(name)?;
    // SAFETY: `file` is a descriptor that has just been attached to a tap; the argument is a plain number.
    #[allow(unsafe_code)]
    unsafe { tun_set_persist(file.as_raw_fd(), 1) }.map(drop)
}

/// Opens an existing tap of the calling thread's namespace for a hypervisor.
pub(crate) fn open(name: &str) -> nix::Result<OwnedFd> {
    attach(name).map(OwnedFd::from)
}
