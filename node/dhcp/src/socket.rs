//! A packet socket on one device of one namespace, with a filter in the kernel (packet(7)).

use maru_base::{Error, Result};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::fs::File;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use tokio::io::unix::AsyncFd;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// The largest frame that is looked at.
const LARGEST: usize = 2048;

/// What a socket hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hears {
    Dhcp4,
    Dhcp6,
    Solicitations,
}

/// A packet socket.
#[derive(Debug)]
pub(crate) struct Frames {
    socket: AsyncFd<Socket>,
    /// Ordinary sockets on the same port: the kernel then neither answers "port unreachable" nor leaves the multicast group.
    _quiet: Option<Socket>,
}

/// Classic BPF (linux/filter.h): a frame is kept if the byte at each offset has its value, and two bytes at `port` are one.
fn filter(bytes: &[(u32, u8)], port: Option<(Vec<SockFilter>, u32)>) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_INDIRECT: u16 = 0x48;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = Vec::new();
    for (offset, value) in bytes {
        program.push(SockFilter::new(LOAD_BYTE, 0, 0, *offset));
        // If it is equal skip the refusal that follows.
        program.push(SockFilter::new(JUMP_EQUAL, 1, 0, u32::from(*value)));
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    if let Some((load_index, value)) = port {
        program.extend(load_index);
        program.push(SockFilter::new(LOAD_HALF_INDIRECT, 0, 0, 16));
        program.push(SockFilter::new(JUMP_EQUAL, 1, 0, value));
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    program.push(SockFilter::new(RETURN, 0, 0, LARGEST as u32));
    program
}

impl Hears {
    const fn protocol(self) -> u16 {
        match self {
            Self::Dhcp4 => ETH_P_IP,
            Self::Dhcp6 | Self::Solicitations => ETH_P_IPV6,
        }
    }

    fn filter(self) -> Vec<SockFilter> {
        const LOAD_HEADER_LENGTH: u16 = 0xb1;
        const LOAD_INDEX: u16 = 0x01;
        match self {
            // UDP (protocol at 14 + 9); the header length of IPv4 goes to the index register.
            Self::Dhcp4 => filter(
                &[(23, 17)],
                Some((vec![SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14)], 67)),
            ),
            Self::Dhcp6 => filter(&[(20, 17)], Some((vec![SockFilter::new(LOAD_INDEX, 0, 0, 40)], 547))),
            Self::Solicitations => filter(&[(20, 58), (54, 133)], None),
        }
    }
}

/// The address of a packet socket: sockaddr_ll of packet(7).
fn link_address(protocol: u16, index: u32) -> io::Result<SockAddr> {
    let family = u16::try_from(nix::libc::AF_PACKET).map_err(io::Error::other)?;
    let address = nix::libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is large enough and aligned for every socket address, `sockaddr_ll` is one and is plain data, and
    // the length that is set is the length of what was written.
    #[allow(unsafe_code)]
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<nix::libc::sockaddr_ll>().write(address);
            *length = size_of::<nix::libc::sockaddr_ll>() as _;
            Ok(())
        })
    };
    made.map(|((), address)| address)
}

fn open_here(device: &str, hears: Hears) -> io::Result<(Socket, Option<Socket>)> {
    let index = nix::net::if_::if_nametoindex(device)?;
    // With no protocol it hears nothing until it is bound, so nothing of another device can slip in before.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&hears.filter())?;
    socket.bind(&link_address(hears.protocol(), index)?)?;
    let quiet = match hears {
        Hears::Solicitations => None,
        Hears::Dhcp4 | Hears::Dhcp6 => {
            let six = hears == Hears::Dhcp6;
            let quiet = Socket::new(
                if six { Domain::IPV6 } else { Domain::IPV4 },
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            quiet.set_reuse_address(true)?;
            quiet.bind_device(Some(device.as_bytes()))?;
            quiet.set_recv_buffer_size(0)?;
            let any = if six { "[::]:547" } else { "0.0.0.0:67" };
            if six {
                quiet.set_only_v6(true)?;
                quiet.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), index)?;
            }
            quiet.bind(&any.parse::<SocketAddr>().map_err(io::Error::other)?.into())?;
            Some(quiet)
        }
    };
    Ok((socket, quiet))
}

impl Frames {
    /// Opens the socket inside the namespace (`None`: this process's own).
    pub(crate) fn open(netns: Option<&Path>, device: &str, hears: Hears) -> Result<Self> {
        let failed = |e: io::Error| {
            Error::internal(
                format!("{hears:?}: no packet socket on the device {device}; it needs CAP_NET_RAW"),
                e,
            )
        };
        // A thread of its own that ends: a thread that has entered a namespace must never do other work.
        let opened = std::thread::scope(|scope| {
            let work = || {
                if let Some(netns) = netns {
                    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
                }
                open_here(device, hears)
            };
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, work)?;
            thread.join().map_err(|_| io::Error::other("the opener panicked"))?
        });
        let (socket, quiet) = opened.map_err(failed)?;
        // SAFETY: the `Socket` owns its descriptor, always gives the same one, and is dropped only with this `AsyncFd`.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(socket) };
        let socket = socket.map_err(|e| failed(io::Error::other(e.to_string())))?;
        Ok(Self { socket, _quiet: quiet })
    }

    /// The next frame.
    pub(crate) async fn next<'a>(&self, buffer: &'a mut [u8; LARGEST]) -> io::Result<&'a [u8]> {
        let read = self
            .socket
            .async_io(tokio::io::Interest::READABLE, |s| {
                io::Read::read(&mut &*s, buffer.as_mut_slice())
            })
            .await?;
        Ok(&buffer[..read])
    }

    /// Sends a frame. One that does not fit now is dropped, as a network may.
    pub(crate) fn send(&self, frame: &[u8]) {
        if let Err(e) = self.socket.get_ref().send(frame) {
            tracing::debug!(error = %e, "a frame was not sent");
        }
    }

    pub(crate) const fn buffer() -> [u8; LARGEST] {
        [0; LARGEST]
    }
}
