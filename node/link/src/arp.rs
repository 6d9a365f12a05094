//! Gratuitous ARP (RFC 826, RFC 5227 section 3): tells a link that an address lives here now.

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

/// An ARP announcement: sender and target are both the announced address.
fn frame(mac: [u8; 6], ip: Ipv4Addr, operation: u16) -> Vec<u8> {
    let mut f = Vec::with_capacity(42);
    f.extend_from_slice(&[0xff; 6]);
    f.extend_from_slice(&mac);
    f.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    f.extend_from_slice(&operation.to_be_bytes());
    f.extend_from_slice(&mac);
    f.extend_from_slice(&ip.octets());
    f.extend_from_slice(&if operation == 1 { [0; 6] } else { mac });
    f.extend_from_slice(&ip.octets());
    f
}

/// Announces the addresses on the device with this index, as request and as reply: some stacks heed only one of them.
pub(crate) fn announce(index: u32, mac: [u8; 6], ips: &[Ipv4Addr]) -> nix::Result<()> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: sockaddr_ll is plain data, for which all zeroes is a valid value.
    #[allow(unsafe_code)]
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET.cast_unsigned().try_into().unwrap_or_default();
    to.sll_ifindex = index.cast_signed();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&[0xff; 6]);
    for ip in ips {
        for operation in [1, 2] {
            let f = frame(mac, *ip, operation);
            // SAFETY: `fd` is open; the frame and the address are live for the call, and their lengths are given with them.
            #[allow(unsafe_code)]
            let sent = unsafe {
                libc::sendto(
                    fd.as_raw_fd(),
                    f.as_ptr().cast(),
                    f.len(),
                    0,
                    (&raw const to).cast(),
                    libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default(),
                )
            };
            Errno::result(sent)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_a_whole_arp_frame() {
        let f = frame([2, 0, 0, 0, 0, 1], Ipv4Addr::new(203, 0, 113, 9), 1);
        assert_eq!(f.len(), 42);
        assert_eq!(&f[28..32], &f[38..42]);
    }
}
