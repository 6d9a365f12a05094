//! Addresses: arithmetic, pools, random choice, EUI-64, MACs.

use crate::{errors, keys, subnet::Subnet};
use ipnet::IpNet;
use maru_base::{Result, random};
use maru_store::{Key, Snapshot, Txn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many of the lowest addresses are looked at for a DHCP port.
const FIRST: u128 = 16;
/// Random probes before a dense pool is walked from a random place.
const PROBES: usize = 24;
/// Most steps of that walk.
const STEPS: u128 = 1 << 17;

/// An address as a number.
#[must_use]
pub fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}
/// The address of a number, of the family of `like`.
#[must_use]
pub fn from_number(n: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
    }
}
/// How many addresses a pool has.
#[must_use]
pub fn pool_size(pool: &(IpAddr, IpAddr)) -> u128 {
    to_number(pool.1).saturating_sub(to_number(pool.0)).saturating_add(1)
}
/// Whether an address lies in one of the pools.
#[must_use]
pub fn in_pools(pools: &[(IpAddr, IpAddr)], ip: IpAddr) -> bool {
    let n = to_number(ip);
    pools
        .iter()
        .any(|(a, b)| a.is_ipv4() == ip.is_ipv4() && (to_number(*a)..=to_number(*b)).contains(&n))
}
/// First and last address that a host may have in a block: without network and broadcast address where the family has
/// them (RFC 3021 for /31), without the subnet-router anycast address (RFC 4291 2.6.1).
#[must_use]
pub fn host_range(cidr: &IpNet) -> (u128, u128) {
    let (first, last) = (to_number(cidr.network()), to_number(cidr.broadcast()));
    match cidr {
        IpNet::V4(n) if n.prefix_len() >= 31 => (first, last),
        IpNet::V4(_) => (first + 1, last - 1),
        IpNet::V6(n) if n.prefix_len() >= 127 => (first, last),
        IpNet::V6(_) => (first + 1, last),
    }
}
/// Whether an address may belong to a host of this block.
#[must_use]
pub fn is_host(cidr: &IpNet, ip: IpAddr) -> bool {
    let (first, last) = host_range(cidr);
    cidr.contains(&ip) && (first..=last).contains(&to_number(ip))
}
/// The pools that a subnet has when none are named: all hosts but the gateway.
#[must_use]
pub fn default_pools(cidr: &IpNet, gateway: Option<IpAddr>) -> Vec<(IpAddr, IpAddr)> {
    let (first, last) = host_range(cidr);
    let like = cidr.network();
    let ranges = match gateway.map(to_number) {
        Some(g) if (first..=last).contains(&g) => {
            let mut cut = Vec::new();
            if g > first {
                cut.push((first, g - 1));
            }
            if g < last {
                cut.push((g + 1, last));
            }
            cut
        }
        _ => vec![(first, last)],
    };
    ranges
        .into_iter()
        .map(|(a, b)| (from_number(a, like), from_number(b, like)))
        .collect()
}

/// The address that a host makes for itself from a prefix and its MAC (RFC 4291, appendix A).
#[must_use]
pub fn eui64(cidr: &IpNet, mac: &str) -> Option<IpAddr> {
    let IpNet::V6(net) = cidr else { return None };
    let m = parse_mac(mac)?;
    let tail = u64::from_be_bytes([m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]);
    let head = u128::from(net.network()) & !u128::from(u64::MAX);
    Some(IpAddr::V6(Ipv6Addr::from(head | u128::from(tail))))
}
/// Six octets of a MAC written with colons or dashes.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0_u8; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut out {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}
/// A MAC in the stored form: lower case with colons.
#[must_use]
pub fn normal_mac(text: &str) -> Option<String> {
    let m = parse_mac(text)?;
    Some(m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}
/// A random MAC under Neutron's prefix that is free on a network.
#[must_use]
pub fn choose_mac(snapshot: &Snapshot, txn: &Txn, network: &str) -> String {
    loop {
        let n = random::below(1 << 24);
        let mac = format!("fa:16:3e:{:02x}:{:02x}:{:02x}", n >> 16, (n >> 8) & 0xff, n & 0xff);
        let key = keys::claim("mac", network, &mac);
        if snapshot.raw(&key).is_none() && !keys::written(txn, &key) {
            return mac;
        }
    }
}

fn taken(snapshot: &Snapshot, txn: &Txn, key: &Key) -> bool {
    snapshot.raw(key).is_some() || keys::written(txn, key)
}
/// Whether an address is in use, or will be by this transaction.
#[must_use]
pub fn in_use(snapshot: &Snapshot, txn: &Txn, subnet: &str, ip: IpAddr) -> bool {
    taken(snapshot, txn, &keys::address(subnet, ip))
}
/// A number below a bound of up to 128 bits.
fn below(bound: u128) -> u128 {
    if bound == 0 { 0 } else { random::u128() % bound }
}

/// Picks a free address of a subnet's pools at random; `None` when all are in use.
#[must_use]
pub fn choose(snapshot: &Snapshot, txn: &Txn, id: &str, subnet: &Subnet) -> Option<IpAddr> {
    let total = subnet.pools.iter().map(pool_size).fold(0_u128, u128::saturating_add);
    let counter = keys::pool_counter(id);
    let used = snapshot.counter(&counter) + keys::pending_delta(txn, &counter);
    if u128::try_from(used).unwrap_or(0) >= total {
        return None;
    }
    let nth = |mut n: u128| {
        for pool in &subnet.pools {
            let size = pool_size(pool);
            if n < size {
                return Some(from_number(to_number(pool.0) + n, pool.0));
            }
            n -= size;
        }
        None
    };
    let free = |ip: &IpAddr| !in_use(snapshot, txn, id, *ip);
    if let Some(ip) = (0..PROBES).filter_map(|_| nth(below(total))).find(&free) {
        return Some(ip);
    }
    // The pool is dense, so it is small or nearly full: go round from a random place.
    let start = below(total);
    (0..total.min(STEPS))
        .filter_map(|i| nth((start + i) % total))
        .find(&free)
}

/// The lowest free address of a subnet's pools, looked for among the first few of them; else any.
#[must_use]
pub fn choose_first(snapshot: &Snapshot, txn: &Txn, id: &str, subnet: &Subnet) -> Option<IpAddr> {
    let low = subnet.pools.iter().flat_map(|pool| {
        let first = to_number(pool.0);
        (0..pool_size(pool).min(FIRST)).map(move |n| from_number(first + n, pool.0))
    });
    low.take(usize::try_from(FIRST).unwrap_or(usize::MAX))
        .find(|ip| !in_use(snapshot, txn, id, *ip))
        .or_else(|| choose(snapshot, txn, id, subnet))
}

/// Allocates an address in the transaction.
///
/// # Errors
/// 409 `IpAddressAlreadyAllocated`.
pub fn take(snapshot: &Snapshot, txn: &mut Txn, id: &str, subnet: &Subnet, ip: IpAddr, owner: &str) -> Result<()> {
    let key = keys::address(id, ip);
    if taken(snapshot, txn, &key) {
        return Err(errors::conflict(
            "IpAddressAlreadyAllocated",
            format!(
                "IP address {ip} is already allocated in subnet {id}; choose another or leave the choice to the cloud."
            ),
        ));
    }
    txn.allocate(key, owner);
    txn.bump_epoch(&format!("ports:{id}"));
    if in_pools(&subnet.pools, ip) {
        txn.add(keys::pool_counter(id), 1, None);
    }
    Ok(())
}
/// Gives an address back.
pub fn give(txn: &mut Txn, id: &str, subnet: Option<&Subnet>, ip: IpAddr) {
    txn.op(maru_store::Op::Delete(keys::address(id, ip)));
    if let Some(subnet) = subnet {
        txn.bump_epoch(&format!("ports:{id}"));
        if in_pools(&subnet.pools, ip) {
            txn.add(keys::pool_counter(id), -1, None);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn eui64_flips_the_local_bit() {
        let net: IpNet = "2001:db8:1:2::/64".parse().unwrap();
        let ip = eui64(&net, "fa:16:3e:00:00:01").unwrap();
        assert_eq!(ip.to_string(), "2001:db8:1:2:f816:3eff:fe00:1");
    }

    #[test]
    fn macs_are_read_strictly() {
        assert_eq!(normal_mac("FA-16-3E-00-00-0a").unwrap(), "fa:16:3e:00:00:0a");
        for bad in [
            "",
            "fa:16:3e:00:00",
            "fa:16:3e:00:00:0g",
            "fa:16:3e:00:00:01:02",
            "fa163e000001",
            "+a:16:3e:00:00:01",
        ] {
            assert!(normal_mac(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn default_pools_hold_all_hosts_but_the_gateway(a in any::<u32>(), len in 8_u8..=30, pick in any::<u32>()) {
            let cidr: IpNet = ipnet::Ipv4Net::new(Ipv4Addr::from(a), len).unwrap().trunc().into();
            let (first, last) = host_range(&cidr);
            let gateway = from_number(first + u128::from(pick) % (last - first + 1), cidr.network());
            let pools = default_pools(&cidr, Some(gateway));
            prop_assert!(!in_pools(&pools, gateway));
            let total: u128 = pools.iter().map(pool_size).sum();
            prop_assert_eq!(total, last - first);
        }
    }
}
