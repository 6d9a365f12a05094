//! The part of ctnetlink (linux/netfilter/nfnetlink_conntrack.h) that this crate speaks: list and delete.

use crate::rules::Flow;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

const CT_GET: u16 = 0x0101;
const CT_DELETE: u16 = 0x0102;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const NLA_F_NESTED: u16 = 0x8000;
/// IPS_EXPECTED: begun by another connection's helper.
const EXPECTED: u32 = 1;
/// IPS_SRC_NAT and IPS_DST_NAT.
const SRC_NAT: u32 = 1 << 4;
const DST_NAT: u32 = 1 << 5;

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub zone: u16,
    /// Its first packet.
    pub flow: Flow,
    /// Source and target of the answers.
    pub reply: Option<(IpAddr, IpAddr)>,
    pub expected: bool,
    pub source_nat: bool,
    pub target_nat: bool,
    family: u8,
    /// The kernel's own words for it, to name it again.
    tuple: Vec<u8>,
    id: Vec<u8>,
}

#[cfg(test)]
impl Entry {
    pub(crate) fn for_test(zone: u16, flow: Flow) -> Self {
        Self {
            zone,
            flow,
            reply: None,
            expected: false,
            source_nat: false,
            target_nat: false,
            family: 2,
            tuple: vec![],
            id: vec![],
        }
    }
}

/// A ctnetlink socket of the namespace in which it was opened.
pub(crate) struct Conntrack {
    fd: OwnedFd,
    seq: u32,
}

impl Conntrack {
    /// Opens it in the calling thread's namespace.
    pub(crate) fn open() -> nix::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { fd, seq: 0 })
    }

    /// All entries. One that comes or goes meanwhile may or may not be among them.
    pub(crate) fn list(&mut self) -> nix::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.talk(CT_GET, NLM_F_DUMP, &[0, 0, 0, 0], |body| entries.extend(parse(body)))?;
        Ok(entries)
    }

    /// Makes the kernel forget it. No error if it is gone.
    pub(crate) fn delete(&mut self, entry: &Entry) -> nix::Result<()> {
        let mut body = vec![entry.family, 0, 0, 0];
        attr(&mut body, CTA_TUPLE_ORIG | NLA_F_NESTED, &entry.tuple);
        if entry.zone != 0 {
            attr(&mut body, CTA_ZONE, &entry.zone.to_be_bytes());
        }
        if !entry.id.is_empty() {
            attr(&mut body, CTA_ID, &entry.id);
        }
        match self.talk(CT_DELETE, NLM_F_ACK, &body, |_| {}) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn talk(&mut self, kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> nix::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let mut bytes = Vec::with_capacity(16 + body.len());
        bytes.extend_from_slice(&u32::try_from(16 + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&self.seq.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(body);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = buffer.get(..n).unwrap_or_default();
            while let (Some(len), Some(kind), Some(seq)) = (word(rest, 0), half(rest, 4), word(rest, 8)) {
                let len = len as usize;
                if len < 16 || len > rest.len() {
                    break;
                }
                let body = &rest[16..len];
                match kind {
                    _ if seq != self.seq => {}
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = word(body, 0).unwrap_or(0).cast_signed();
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                    }
                    _ => each(body),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn attr(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The value of an attribute.
fn find(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(len), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let len = usize::from(len);
        if len < 4 || len > rest.len() {
            return None;
        }
        if kind & 0x3fff == wanted {
            return rest.get(4..len);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn be16(v: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(v.try_into().ok()?))
}

fn be32(v: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(v.try_into().ok()?))
}

/// Source and target of a tuple.
fn ends(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ip = find(tuple, 1)?;
    let four = |k| find(ip, k).and_then(|v| <[u8; 4]>::try_from(v).ok()).map(IpAddr::from);
    let six = |k| find(ip, k).and_then(|v| <[u8; 16]>::try_from(v).ok()).map(IpAddr::from);
    Some((four(1).or_else(|| six(3))?, four(2).or_else(|| six(4))?))
}

fn parse(body: &[u8]) -> Option<Entry> {
    let family = *body.first()?;
    let attrs = body.get(4..)?;
    let tuple = find(attrs, CTA_TUPLE_ORIG)?;
    let (source, target) = ends(tuple)?;
    let proto = find(tuple, 2)?;
    let byte = |k| find(proto, k).and_then(|v| v.first().copied());
    let icmp = byte(5).zip(byte(6)).or_else(|| byte(8).zip(byte(9)));
    let status = find(attrs, CTA_STATUS).and_then(be32).unwrap_or_default();
    Some(Entry {
        zone: find(attrs, CTA_ZONE).and_then(be16).unwrap_or_default(),
        flow: Flow {
            source,
            target,
            protocol: byte(1)?,
            port: find(proto, 3).and_then(be16).unwrap_or_default(),
            icmp,
        },
        reply: find(attrs, CTA_TUPLE_REPLY).and_then(ends),
        expected: status & EXPECTED != 0,
        source_nat: status & SRC_NAT != 0,
        target_nat: status & DST_NAT != 0,
        family,
        tuple: tuple.to_vec(),
        id: find(attrs, CTA_ID).unwrap_or_default().to_vec(),
    })
}
