//! The part of rtnetlink (rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, linux/fib_rules.h) that this crate speaks.
//!
//! Synchronous on purpose: one request costs some microseconds and the kernel carries it out inside `send`, so an event loop
//! would only add switches. A socket belongs for ever to the namespace in which it was opened, whichever thread uses it.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const NDA_DST: u16 = 1;
/// Of neighbours: answered for, and elsewhere.
const NTF_PROXY: u8 = 8;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_FLAGS: u16 = 2;
/// A VLAN device goes up and down by itself, not with the device below it.
const VLAN_FLAG_LOOSE_BINDING: u32 = 4;
const NLA_F_NESTED: u16 = 0x8000;
/// Leaves the counters out of link dumps.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;

/// Seconds are hundredths in the bridge's attributes (USER_HZ).
const USER_HZ: u32 = 100;

/// Route protocol of everything we add (RTPROT_STATIC); we only ever remove routes of this protocol.
pub(crate) const PROTOCOL: u8 = 4;
/// The main table.
pub(crate) const MAIN: u32 = 254;

/// A message in the making.
struct Msg {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Msg {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        Self {
            kind,
            flags,
            body: header.to_vec(),
        }
    }
    fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }
    fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }
    fn str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }
    fn ip(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) => self.attr(kind, &a.octets()),
            IpAddr::V6(a) => self.attr(kind, &a.octets()),
        }
    }
    /// An attribute of attributes.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self {
            kind: 0,
            flags: 0,
            body: Vec::new(),
        };
        fill(&mut inner);
        self.attr(kind | NLA_F_NESTED, &inner.body);
    }
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut h = vec![0; 4];
    h.extend_from_slice(&index.to_ne_bytes());
    h.extend_from_slice(&flags.to_ne_bytes());
    h.extend_from_slice(&change.to_ne_bytes());
    h
}

/// `struct ndmsg` of IPv6.
fn ndmsg(index: u32, flags: u8) -> Vec<u8> {
    // AF_INET6 and padding; the index; state, flags, type.
    let mut h = vec![10, 0, 0, 0];
    h.extend_from_slice(&index.to_ne_bytes());
    h.extend_from_slice(&[0, 0, flags, 0]);
    h
}

fn family(ip: IpAddr) -> u8 {
    // AF_INET, AF_INET6
    if ip.is_ipv4() { 2 } else { 10 }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub master: u32,
    pub alias: String,
    pub kind: String,
    /// Of a VLAN device: the device below it, and its VLAN id.
    pub vlan: Option<(u32, u16)>,
    pub up: bool,
    pub carrier: bool,
}

/// An address as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addr {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    pub link_scope: bool,
}

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub table: u32,
    pub dst: IpAddr,
    pub prefix: u8,
    pub via: Option<IpAddr>,
    /// Device index; 0 lets the kernel find it.
    pub oif: u32,
}

/// A policy rule "what comes in here for this address uses that table".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PolicyRule {
    pub iif: String,
    pub dst: IpAddr,
    pub table: u32,
}

/// What a new veth pair is like. The first end is made in the socket's namespace.
#[derive(Debug, Clone)]
pub(crate) struct Veth<'a> {
    pub name: &'a str,
    pub peer: &'a str,
    pub peer_netns: RawFd,
    pub peer_mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub master: u32,
    pub alias: &'a str,
}

/// An rtnetlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

type Res<T> = Result<T, Errno>;

impl Socket {
    /// Opens it in the namespace of the calling thread.
    pub(crate) fn open() -> Res<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            fd,
            seq: 0,
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Sends, and gives every answer's type and body to `each` until the end of the answer.
    fn talk(&mut self, msg: &Msg, dump: bool, mut each: impl FnMut(u16, &[u8])) -> Res<()> {
        self.seq = self.seq.wrapping_add(1);
        let mut bytes = Vec::with_capacity(16 + msg.body.len());
        bytes.extend_from_slice(&u32::try_from(16 + msg.body.len()).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend_from_slice(&msg.kind.to_ne_bytes());
        let end = if dump { NLM_F_DUMP } else { NLM_F_ACK };
        bytes.extend_from_slice(&(msg.flags | NLM_F_REQUEST | end).to_ne_bytes());
        bytes.extend_from_slice(&self.seq.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&msg.body);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        loop {
            let n = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = self.buffer.get(..n).unwrap_or_default();
            while let (Some(len), Some(kind), Some(seq)) = (word(rest, 0), half(rest, 4), word(rest, 8)) {
                let len = len as usize;
                if len < 16 || len > rest.len() {
                    break;
                }
                let body = &rest[16..len];
                if seq == self.seq {
                    match kind {
                        NLMSG_DONE => return Ok(()),
                        NLMSG_ERROR => {
                            let code = word(body, 0).unwrap_or(0).cast_signed();
                            return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                        }
                        _ => each(kind, body),
                    }
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn ask(&mut self, msg: &Msg) -> Res<()> {
        self.talk(msg, false, |_, _| {})
    }

    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> Res<Vec<Link>> {
        let mut msg = Msg::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        msg.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut links = Vec::new();
        self.talk(&msg, true, |kind, body| {
            if kind == RTM_NEWLINK {
                links.push(parse_link(body));
            }
        })?;
        Ok(links)
    }

    /// One link by name.
    pub(crate) fn link(&mut self, name: &str) -> Res<Option<Link>> {
        let mut msg = Msg::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        msg.str(IFLA_IFNAME, name);
        msg.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut link = None;
        match self.talk(&msg, false, |kind, body| {
            if kind == RTM_NEWLINK {
                link = Some(parse_link(body));
            }
        }) {
            Err(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(link),
        }
    }

    /// All addresses of the namespace.
    pub(crate) fn addrs(&mut self) -> Res<Vec<Addr>> {
        let mut addrs = Vec::new();
        self.talk(&Msg::new(RTM_GETADDR, 0, &[0; 8]), true, |kind, body| {
            let (Some(&prefix), Some(&scope), Some(index)) = (body.get(1), body.get(3), word(body, 4)) else {
                return;
            };
            // IFA_LOCAL (2) is the address, IFA_ADDRESS (1) too unless the link is point to point.
            let ip = find(body, 8, 2).or_else(|| find(body, 8, 1)).and_then(to_ip);
            if let (RTM_NEWADDR, Some(ip)) = (kind, ip) {
                addrs.push(Addr {
                    index,
                    ip,
                    prefix,
                    link_scope: scope != 0,
                });
            }
        })?;
        Ok(addrs)
    }

    /// The routes that we added.
    pub(crate) fn routes(&mut self) -> Res<Vec<Route>> {
        let mut routes = Vec::new();
        self.talk(&Msg::new(RTM_GETROUTE, 0, &[0; 12]), true, |kind, body| {
            let (Some(&fam), Some(&prefix), Some(&proto), Some(&typ)) =
                (body.first(), body.get(1), body.get(5), body.get(7))
            else {
                return;
            };
            if kind != RTM_NEWROUTE || proto != PROTOCOL || typ != 1 {
                return;
            }
            let any: IpAddr = if fam == 2 { [0; 4].into() } else { [0_u8; 16].into() };
            routes.push(Route {
                table: find(body, 12, 15).and_then(|v| word(v, 0)).unwrap_or_default(),
                dst: find(body, 12, 1).and_then(to_ip).unwrap_or(any),
                prefix,
                via: find(body, 12, 5).and_then(to_ip),
                oif: find(body, 12, 4).and_then(|v| word(v, 0)).unwrap_or_default(),
            });
        })?;
        Ok(routes)
    }

    /// The IPv6 addresses that the namespace answers for, and the device on which it does.
    pub(crate) fn proxies(&mut self) -> Res<Vec<(u32, IpAddr)>> {
        let mut proxies = Vec::new();
        self.talk(&Msg::new(RTM_GETNEIGH, 0, &ndmsg(0, NTF_PROXY)), true, |kind, body| {
            let ip = find(body, 12, NDA_DST).and_then(to_ip);
            if let (RTM_NEWNEIGH, Some(ip), Some(index), Some(flags)) = (kind, ip, word(body, 4), body.get(10))
                && flags & NTF_PROXY != 0
            {
                proxies.push((index, ip));
            }
        })?;
        Ok(proxies)
    }

    /// Answers (`add`), or answers no more, for an address on a device.
    pub(crate) fn proxy(&mut self, add: bool, index: u32, ip: IpAddr) -> Res<()> {
        let (kind, flags) = if add {
            (RTM_NEWNEIGH, NLM_F_CREATE)
        } else {
            (RTM_DELNEIGH, 0)
        };
        let mut msg = Msg::new(kind, flags, &ndmsg(index, NTF_PROXY));
        msg.ip(NDA_DST, ip);
        match self.ask(&msg) {
            Err(Errno::ENOENT) if !add => Ok(()),
            other => other,
        }
    }

    /// The policy rules with an input device.
    pub(crate) fn rules(&mut self) -> Res<Vec<PolicyRule>> {
        let mut rules = Vec::new();
        self.talk(&Msg::new(RTM_GETRULE, 0, &[0; 12]), true, |kind, body| {
            let iif = find(body, 12, 3).map(to_str).unwrap_or_default();
            let table = find(body, 12, 15).and_then(|v| word(v, 0));
            if let (RTM_NEWRULE, false, Some(dst), Some(table)) =
                (kind, iif.is_empty(), find(body, 12, 1).and_then(to_ip), table)
            {
                rules.push(PolicyRule { iif, dst, table });
            }
        })?;
        Ok(rules)
    }

    /// Makes a bridge: no spanning tree, ageing of 300 s (never 0: that would flood everything to everyone), no snooping.
    pub(crate) fn add_bridge(&mut self, name: &str, mtu: u32, alias: &str) -> Res<()> {
        let mut msg = Msg::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0));
        msg.str(IFLA_IFNAME, name);
        msg.u32(IFLA_MTU, mtu);
        msg.nest(IFLA_LINKINFO, |info| {
            info.attr(IFLA_INFO_KIND, b"bridge");
            info.nest(IFLA_INFO_DATA, |data| {
                data.u32(1, 0); // IFLA_BR_FORWARD_DELAY: a port forwards at once
                data.u32(4, 300 * USER_HZ); // IFLA_BR_AGEING_TIME
                data.u32(5, 0); // IFLA_BR_STP_STATE
                data.attr(23, &[0]); // IFLA_BR_MCAST_SNOOPING: no querier, so snooping would lose groups
            });
        });
        self.ask(&msg)?;
        // The alias is not taken at creation by every kernel.
        let link = self.link(name)?.ok_or(Errno::ENODEV)?;
        self.set_alias(link.index, alias)
    }

    /// Makes a veth pair, both ends down.
    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>) -> Res<()> {
        let mut msg = Msg::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0));
        msg.str(IFLA_IFNAME, veth.name);
        msg.u32(IFLA_MTU, veth.mtu);
        msg.nest(IFLA_LINKINFO, |info| {
            info.attr(IFLA_INFO_KIND, b"veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.body.extend_from_slice(&ifinfo(0, 0, 0));
                    peer.str(IFLA_IFNAME, veth.peer);
                    peer.u32(IFLA_MTU, veth.mtu);
                    peer.u32(IFLA_NET_NS_FD, veth.peer_netns.cast_unsigned());
                    if let Some(mac) = veth.peer_mac {
                        peer.attr(IFLA_ADDRESS, &mac);
                    }
                });
            });
        });
        self.ask(&msg)?;
        let link = self.link(veth.name)?.ok_or(Errno::ENODEV)?;
        self.set_alias(link.index, veth.alias)?;
        self.set_master(link.index, veth.master)
    }

    /// Makes a VLAN device over another one, down.
    pub(crate) fn add_vlan(&mut self, name: &str, below: u32, id: u16, mtu: u32, alias: &str) -> Res<()> {
        let mut msg = Msg::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0));
        msg.str(IFLA_IFNAME, name);
        msg.u32(IFLA_LINK, below);
        msg.u32(IFLA_MTU, mtu);
        msg.nest(IFLA_LINKINFO, |info| {
            info.attr(IFLA_INFO_KIND, b"vlan");
            info.nest(IFLA_INFO_DATA, |data| {
                data.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
                // struct ifla_vlan_flags: flags and mask.
                let flag = VLAN_FLAG_LOOSE_BINDING.to_ne_bytes();
                data.attr(IFLA_VLAN_FLAGS, &[flag, flag].concat());
            });
        });
        self.ask(&msg)?;
        let link = self.link(name)?.ok_or(Errno::ENODEV)?;
        self.set_alias(link.index, alias)
    }

    fn change(&mut self, index: u32, flags: u32, mask: u32, fill: impl FnOnce(&mut Msg)) -> Res<()> {
        let mut msg = Msg::new(RTM_NEWLINK, 0, &ifinfo(index, flags, mask));
        fill(&mut msg);
        self.ask(&msg)
    }

    /// Administratively up or down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> Res<()> {
        self.change(index, if up { IFF_UP } else { 0 }, IFF_UP, |_| {})
    }
    /// Bytes.
    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> Res<()> {
        self.change(index, 0, 0, |m| m.u32(IFLA_MTU, mtu))
    }
    /// The link's own MAC address; on some kernels the link must be down.
    pub(crate) fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Res<()> {
        self.change(index, 0, 0, |m| m.attr(IFLA_ADDRESS, &mac))
    }
    /// The free text by which we recognise what we made.
    pub(crate) fn set_alias(&mut self, index: u32, alias: &str) -> Res<()> {
        self.change(index, 0, 0, |m| m.attr(IFLA_IFALIAS, alias.as_bytes()))
    }
    /// Puts a link on a bridge; 0 takes it off.
    pub(crate) fn set_master(&mut self, index: u32, master: u32) -> Res<()> {
        self.change(index, 0, 0, |m| m.u32(IFLA_MASTER, master))
    }
    /// Moves a link into another namespace.
    pub(crate) fn set_netns(&mut self, index: u32, netns: RawFd) -> Res<()> {
        self.change(index, 0, 0, |m| m.u32(IFLA_NET_NS_FD, netns.cast_unsigned()))
    }
    /// Removes a link.
    pub(crate) fn del_link(&mut self, index: u32) -> Res<()> {
        self.ask(&Msg::new(RTM_DELLINK, 0, &ifinfo(index, 0, 0)))
    }

    fn addr(&mut self, kind: u16, flags: u16, index: u32, ip: IpAddr, prefix: u8) -> Res<()> {
        let mut header = vec![family(ip), prefix, 0, 0];
        header.extend_from_slice(&index.to_ne_bytes());
        let mut msg = Msg::new(kind, flags, &header);
        msg.ip(2, ip);
        msg.ip(1, ip);
        if kind == RTM_NEWADDR {
            match ip {
                // IFA_BROADCAST, as `ip addr add ... brd +` does.
                IpAddr::V4(a) if prefix < 31 => {
                    msg.ip(4, IpAddr::from((u32::from(a) | (u32::MAX >> prefix)).to_be_bytes()))
                }
                IpAddr::V4(_) => {}
                // IFA_FLAGS: IFA_F_NODAD. The store gave the address to us alone; it must work at once.
                IpAddr::V6(_) => msg.u32(8, 0x02),
            }
        }
        self.ask(&msg)
    }
    /// Gives an address; no error if it is there.
    pub(crate) fn add_addr(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Res<()> {
        match self.addr(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, ip, prefix) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }
    /// Takes an address away.
    pub(crate) fn del_addr(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Res<()> {
        match self.addr(RTM_DELADDR, 0, index, ip, prefix) {
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    fn route(&mut self, kind: u16, flags: u16, r: &Route) -> Res<()> {
        let small = u8::try_from(r.table).unwrap_or(0);
        let scope = if r.via.is_none() && r.dst.is_ipv4() { 253 } else { 0 };
        let mut msg = Msg::new(
            kind,
            flags,
            &[family(r.dst), r.prefix, 0, 0, small, PROTOCOL, scope, 1, 0, 0, 0, 0],
        );
        if r.prefix > 0 {
            msg.ip(1, r.dst);
        }
        if let Some(via) = r.via {
            msg.ip(5, via);
        }
        if r.oif != 0 {
            msg.u32(4, r.oif);
        }
        msg.u32(15, r.table);
        self.ask(&msg)
    }
    /// Adds or replaces a route.
    pub(crate) fn add_route(&mut self, r: &Route) -> Res<()> {
        self.route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, r)
    }
    /// Removes a route.
    pub(crate) fn del_route(&mut self, r: &Route) -> Res<()> {
        match self.route(RTM_DELROUTE, 0, r) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    fn rule(&mut self, kind: u16, flags: u16, r: &PolicyRule) -> Res<()> {
        // FR_ACT_TO_TBL = 1
        let mut msg = Msg::new(kind, flags, &[family(r.dst), bits(r.dst), 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        msg.ip(1, r.dst);
        msg.str(3, &r.iif);
        msg.u32(6, 1000);
        msg.u32(15, r.table);
        self.ask(&msg)
    }
    /// Adds a policy rule.
    pub(crate) fn add_rule(&mut self, r: &PolicyRule) -> Res<()> {
        match self.rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, r) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }
    /// Removes a policy rule.
    pub(crate) fn del_rule(&mut self, r: &PolicyRule) -> Res<()> {
        match self.rule(RTM_DELRULE, 0, r) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The value of the attribute `wanted` behind a header of `skip` bytes.
fn find(body: &[u8], skip: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(skip..)?;
    while let (Some(len), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let len = usize::from(len);
        if len < 4 || len > rest.len() {
            return None;
        }
        // The two top bits are flags.
        if kind & 0x3fff == wanted {
            return rest.get(4..len);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn to_ip(v: &[u8]) -> Option<IpAddr> {
    if let Ok(a) = <[u8; 4]>::try_from(v) {
        return Some(a.into());
    }
    <[u8; 16]>::try_from(v).ok().map(IpAddr::from)
}

fn to_str(v: &[u8]) -> String {
    String::from_utf8_lossy(v).trim_end_matches('\0').to_owned()
}

fn parse_link(body: &[u8]) -> Link {
    let flags = word(body, 8).unwrap_or_default();
    let info = find(body, 16, IFLA_LINKINFO);
    let kind = info
        .and_then(|v| find(v, 0, IFLA_INFO_KIND))
        .map(to_str)
        .unwrap_or_default();
    let vlan = || {
        let id = find(find(info?, 0, IFLA_INFO_DATA)?, 0, IFLA_VLAN_ID)?;
        Some((word(find(body, 16, IFLA_LINK)?, 0)?, half(id, 0)?))
    };
    Link {
        index: word(body, 4).unwrap_or_default(),
        name: find(body, 16, IFLA_IFNAME).map(to_str).unwrap_or_default(),
        mac: find(body, 16, IFLA_ADDRESS).unwrap_or_default().to_vec(),
        mtu: find(body, 16, IFLA_MTU).and_then(|v| word(v, 0)).unwrap_or_default(),
        master: find(body, 16, IFLA_MASTER).and_then(|v| word(v, 0)).unwrap_or_default(),
        alias: find(body, 16, IFLA_IFALIAS).map(to_str).unwrap_or_default(),
        vlan: if kind == "vlan" { vlan() } else { None },
        kind,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
    }
}
