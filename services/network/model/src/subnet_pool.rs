//! Subnet pools: blocks out of which subnets are cut. Whoever cuts a subnet out of a pool, or changes its blocks, holds the
//! epoch `pool:<id>`: one at a time, so that no two subnets of a pool overlap.

use crate::{AddressScope, AddressScopeId, Meta, Subnet, address, errors, keys, quota, subnet::overlap};
use ipnet::IpNet;
use maru_base::{ErrorKind, ProjectId, Result};
use maru_store::{Index, Kind, Object, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a subnet pool, a UUID.
    SubnetPoolId
);

/// Name of the claim that a default pool holds, by IP version.
const DEFAULT: &str = "default_subnetpool";

/// A subnet pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// Owner.
    pub project_id: ProjectId,
    /// Name; need not be unique.
    pub name: String,
    /// Its blocks, merged and sorted.
    pub prefixes: Vec<IpNet>,
    /// Shortest prefix of a subnet.
    pub min_prefixlen: u8,
    /// Longest prefix of a subnet.
    pub max_prefixlen: u8,
    /// Prefix of a subnet that names none.
    pub default_prefixlen: u8,
    /// Addresses (IPv4) or /64 blocks (IPv6) that one project may have out of it; unlimited if `None`.
    pub default_quota: Option<u64>,
    /// The scope that it is in.
    pub address_scope_id: Option<AddressScopeId>,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether `use_default_subnetpool` means it.
    pub is_default: bool,
    /// Standard attributes.
    pub meta: Meta,
}

impl Kind for SubnetPool {
    type Id = SubnetPoolId;
    const NAME: &'static str = "subnet_pool";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |p| vec![p.project_id.to_string()],
            },
            Index {
                name: "visible",
                values: |p| p.shared.then(|| "shared".to_owned()).into_iter().collect(),
            },
            Index {
                name: "scope",
                values: |p| p.address_scope_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "name",
                values: |p| vec![p.name.clone()],
            },
        ]
    }
}

impl SubnetPool {
    /// 4 or 6.
    #[must_use]
    pub fn ip_version(&self) -> u8 {
        version(&self.prefixes)
    }
}

fn version(prefixes: &[IpNet]) -> u8 {
    if prefixes.first().is_some_and(|p| p.addr().is_ipv4()) {
        4
    } else {
        6
    }
}

fn bad(code: &'static str, message: String) -> maru_base::Error {
    errors::refuse(ErrorKind::BadRequest, code, message)
}

/// What shall change of a pool; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct SubnetPoolChange {
    /// See [`SubnetPool`].
    pub name: Option<String>,
    /// See [`Meta`].
    pub description: Option<String>,
    /// All blocks; those there are must stay covered.
    pub prefixes: Option<Vec<IpNet>>,
    /// See [`SubnetPool`].
    pub min_prefixlen: Option<u8>,
    /// See [`SubnetPool`].
    pub max_prefixlen: Option<u8>,
    /// See [`SubnetPool`].
    pub default_prefixlen: Option<u8>,
    /// See [`SubnetPool`].
    pub default_quota: Option<Option<u64>>,
    /// See [`SubnetPool`].
    pub address_scope_id: Option<Option<AddressScopeId>>,
    /// See [`SubnetPool`].
    pub is_default: Option<bool>,
}

/// Merges blocks of one IP version.
///
/// # Errors
/// 400 `EmptySubnetPoolPrefixList`, `PrefixVersionMismatch`.
pub fn merge(prefixes: &[IpNet]) -> Result<Vec<IpNet>> {
    if prefixes.is_empty() {
        return Err(bad(
            "EmptySubnetPoolPrefixList",
            "Empty subnet pool prefix list; name a block at least.".to_owned(),
        ));
    }
    let first = prefixes.first().is_some_and(|p| p.addr().is_ipv4());
    if prefixes.iter().any(|p| p.addr().is_ipv4() != first) {
        return Err(bad(
            "PrefixVersionMismatch",
            "Cannot mix IPv4 and IPv6 prefixes in a subnet pool; make a pool for each.".to_owned(),
        ));
    }
    let cut: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
    Ok(IpNet::aggregate(&cut))
}

/// Checks the prefix lengths of a pool against each other.
fn check(pool: &SubnetPool) -> Result<()> {
    let most = if pool.ip_version() == 4 { 32 } else { 128 };
    let (min, max, default) = (pool.min_prefixlen, pool.max_prefixlen, pool.default_prefixlen);
    if max > most {
        return Err(bad(
            "IllegalSubnetPoolPrefixBounds",
            format!("Illegal prefix bounds: max_prefixlen={max} is longer than an address of {most} bits."),
        ));
    }
    if min > max {
        return Err(bad(
            "IllegalSubnetPoolPrefixBounds",
            format!(
                "Illegal prefix bounds: min_prefixlen={min}, max_prefixlen={max}; the first is at most the second."
            ),
        ));
    }
    if default < min || default > max {
        return Err(bad(
            "IllegalSubnetPoolPrefixBounds",
            format!(
                "Illegal prefix bounds: default_prefixlen={default} is not within min_prefixlen={min} and max_prefixlen={max}."
            ),
        ));
    }
    Ok(())
}

/// Holds or gives back the claim of the default pool of an IP version.
fn set_default(snapshot: &Snapshot, txn: &mut Txn, id: &SubnetPoolId, version: u8, on: bool) -> Result<()> {
    let name = version.to_string();
    if !on {
        txn.release(DEFAULT, "", &name);
        return Ok(());
    }
    if let Some(other) = snapshot.owner(DEFAULT, "", &name).filter(|o| *o != id.as_str()) {
        return Err(errors::invalid_input(format!(
            "a default subnetpool for this IP family has already been set, {other}; only one default may exist per IP family"
        )));
    }
    txn.claim(DEFAULT, "", &name, id);
    Ok(())
}

/// The default pool of an IP version.
#[must_use]
pub fn default_pool(snapshot: &Snapshot, version: u8) -> Option<SubnetPoolId> {
    snapshot
        .owner(DEFAULT, "", &version.to_string())
        .map(SubnetPoolId::from)
}

/// Checks that a pool may join a scope, and that no pool of it overlaps.
fn join_scope(snapshot: &Snapshot, txn: &mut Txn, id: &SubnetPoolId, pool: &SubnetPool) -> Result<()> {
    let Some(scope_id) = &pool.address_scope_id else {
        return Ok(());
    };
    let scope = snapshot
        .get::<AddressScope>(scope_id)
        .ok_or_else(|| errors::not_found("AddressScopeNotFound", "Address scope", scope_id))?;
    if scope.value.ip_version != pool.ip_version() {
        return Err(bad(
            "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: subnetpool {id} cannot be associated with address scope {scope_id} because its IP version is not {}.",
                scope.value.ip_version
            ),
        ));
    }
    if pool.shared && !scope.value.shared {
        return Err(bad(
            "IllegalSubnetPoolAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: shared subnetpool {id} cannot be associated with unshared address scope {scope_id}."
            ),
        ));
    }
    // Whoever joins or widens in this scope does so one at a time.
    keys::hold_epoch(snapshot, txn, &format!("pools:{scope_id}"));
    keys::alive::<AddressScope>(txn, scope_id);
    for other in snapshot.find::<SubnetPool>("scope", scope_id).filter(|o| o.id != *id) {
        if let Some(block) = pool
            .prefixes
            .iter()
            .find(|p| other.value.prefixes.iter().any(|q| overlap(p, q)))
        {
            return Err(errors::conflict(
                "AddressScopePrefixConflict",
                format!(
                    "Failed to associate address scope: {block} overlaps with subnetpool {} of the scope; choose other prefixes.",
                    other.id
                ),
            ));
        }
    }
    Ok(())
}

/// Plans a new pool.
///
/// # Errors
/// 400 for lengths or blocks that contradict each other, 404 for a scope that is not there, 409 over quota or for blocks that
/// overlap another pool of the scope.
pub fn plan_create_pool(
    snapshot: &Snapshot,
    txn: &mut Txn,
    mut pool: SubnetPool,
) -> Result<(SubnetPoolId, SubnetPool)> {
    let id = SubnetPoolId::new_uuid();
    pool.prefixes = merge(&pool.prefixes)?;
    check(&pool)?;
    quota::consume(snapshot, txn, &pool.project_id, "subnetpool")?;
    if pool.is_default {
        set_default(snapshot, txn, &id, pool.ip_version(), true)?;
    }
    join_scope(snapshot, txn, &id, &pool)?;
    txn.create(&id, &pool);
    Ok((id, pool))
}

/// Plans a change of a pool and gives what it will be.
///
/// # Errors
/// As [`plan_create_pool`]; 400 `IllegalSubnetPoolUpdate` for blocks that do not cover those there are.
pub fn plan_update_pool(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<SubnetPool>,
    change: SubnetPoolChange,
) -> Result<SubnetPool> {
    let old = &read.value;
    let mut pool = (**old).clone();
    pool.name = change.name.unwrap_or(pool.name);
    pool.meta.description = change.description.unwrap_or(pool.meta.description);
    pool.min_prefixlen = change.min_prefixlen.unwrap_or(pool.min_prefixlen);
    pool.max_prefixlen = change.max_prefixlen.unwrap_or(pool.max_prefixlen);
    pool.default_prefixlen = change.default_prefixlen.unwrap_or(pool.default_prefixlen);
    pool.default_quota = change.default_quota.unwrap_or(pool.default_quota);
    pool.address_scope_id = change.address_scope_id.unwrap_or(pool.address_scope_id);
    if let Some(prefixes) = change.prefixes {
        let merged = merge(&prefixes)?;
        if version(&merged) != old.ip_version() {
            return Err(bad(
                "PrefixVersionMismatch",
                "Cannot mix IPv4 and IPv6 prefixes in a subnet pool; make a pool for each.".to_owned(),
            ));
        }
        if let Some(lost) = old.prefixes.iter().find(|p| !merged.iter().any(|m| m.contains(*p))) {
            return Err(bad(
                "IllegalSubnetPoolUpdate",
                format!("Illegal subnetpool update: the prefixes must cover those there are, and {lost} is missing."),
            ));
        }
        pool.prefixes = merged;
    }
    check(&pool)?;
    keys::hold_epoch(snapshot, txn, &format!("pool:{}", read.id));
    if let Some(on) = change.is_default.filter(|on| *on != old.is_default) {
        set_default(snapshot, txn, &read.id, pool.ip_version(), on)?;
        pool.is_default = on;
    }
    if pool.address_scope_id != old.address_scope_id || pool.prefixes != old.prefixes {
        join_scope(snapshot, txn, &read.id, &pool)?;
    }
    pool.meta.touch();
    txn.update(read, &pool);
    Ok(pool)
}

/// Plans to take blocks out of a pool.
///
/// # Errors
/// 409 `IllegalSubnetPoolPrefixUpdate` while a subnet is cut out of one of them, or when nothing would be left.
pub fn plan_remove_prefixes(
    snapshot: &Snapshot,
    txn: &mut Txn,
    read: &Object<SubnetPool>,
    gone: &[IpNet],
) -> Result<SubnetPool> {
    let refuse = |why: String| errors::conflict("IllegalSubnetPoolPrefixUpdate", why);
    if let Some(subnet) = snapshot
        .find::<Subnet>("pool", &read.id)
        .find(|s| gone.iter().any(|g| overlap(g, &s.value.cidr)))
    {
        return Err(refuse(format!(
            "Illegal subnet pool prefix update: subnet {} ({}) is allocated from the prefixes to remove; delete it first.",
            subnet.id, subnet.value.cidr
        )));
    }
    let mut pool = (*read.value).clone();
    pool.prefixes = pool.prefixes.iter().flat_map(|p| without(*p, gone)).collect();
    if pool.prefixes.is_empty() {
        return Err(refuse(
            "Illegal subnet pool prefix update: nothing would be left; delete the pool instead.".to_owned(),
        ));
    }
    keys::hold_epoch(snapshot, txn, &format!("pool:{}", read.id));
    pool.meta.touch();
    txn.update(read, &pool);
    Ok(pool)
}

/// What of a block is in none of `gone`.
fn without(block: IpNet, gone: &[IpNet]) -> Vec<IpNet> {
    if gone.iter().any(|g| g.contains(&block)) {
        return Vec::new();
    }
    if !gone.iter().any(|g| overlap(g, &block)) {
        return vec![block];
    }
    match block.subnets(block.prefix_len() + 1) {
        Ok(halves) => halves.flat_map(|half| without(half, gone)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Plans the deletion of a pool.
///
/// # Errors
/// 400 `SubnetPoolDeleteError` (upstream's status) while subnets are cut out of it.
pub fn plan_delete_pool(snapshot: &Snapshot, txn: &mut Txn, read: &Object<SubnetPool>) -> Result<()> {
    if let Some(subnet) = snapshot.find::<Subnet>("pool", &read.id).next() {
        return Err(bad(
            "SubnetPoolDeleteError",
            format!(
                "Unable to delete subnet pool {}: subnets are allocated from it, such as {}; delete them first.",
                read.id, subnet.id
            ),
        ));
    }
    keys::watch_epoch(snapshot, txn, &format!("pool:{}", read.id));
    keys::bury(txn, keys::epoch(&format!("pool:{}", read.id)));
    if read.value.is_default {
        set_default(snapshot, txn, &read.id, read.value.ip_version(), false)?;
    }
    if let Some(scope) = &read.value.address_scope_id {
        txn.bump_epoch(&format!("pools:{scope}"));
    }
    quota::release(txn, &read.value.project_id, "subnetpool");
    txn.delete(read);
    Ok(())
}

/// What a subnet asks of a pool.
#[derive(Debug, Clone)]
pub struct PoolWish {
    /// The pool.
    pub pool: SubnetPoolId,
    /// Length of the prefix; the pool's default if `None`.
    pub prefixlen: Option<u8>,
    /// Exactly this block.
    pub cidr: Option<IpNet>,
}

/// Cuts a block out of a pool for a project; the caller creates the subnet. `taken` are blocks that the same transaction cuts.
///
/// # Errors
/// 404 for a pool that is not there; 400 for a length that it does not give; 409 when no room is left, or over its quota.
pub fn plan_cut(
    snapshot: &Snapshot,
    txn: &mut Txn,
    wish: &PoolWish,
    project: &ProjectId,
    taken: &[(ProjectId, IpNet)],
) -> Result<IpNet> {
    let read = snapshot
        .get::<SubnetPool>(&wish.pool)
        .ok_or_else(|| errors::not_found("SubnetPoolNotFound", "Subnet pool", &wish.pool))?;
    let pool = &read.value;
    keys::alive::<SubnetPool>(txn, &wish.pool);
    keys::hold_epoch(snapshot, txn, &format!("pool:{}", wish.pool));
    let length = match (&wish.cidr, wish.prefixlen) {
        (Some(cidr), _) => cidr.prefix_len(),
        (None, Some(length)) => length,
        (None, None) => pool.default_prefixlen,
    };
    if length < pool.min_prefixlen || length > pool.max_prefixlen {
        let (code, bound) = if length < pool.min_prefixlen {
            ("MinPrefixSubnetAllocationError", pool.min_prefixlen)
        } else {
            ("MaxPrefixSubnetAllocationError", pool.max_prefixlen)
        };
        return Err(bad(
            code,
            format!(
                "Unable to allocate subnet with prefix length {length}, {} allowed prefix is {bound}.",
                if length < pool.min_prefixlen {
                    "minimum"
                } else {
                    "maximum"
                }
            ),
        ));
    }
    let mut used: Vec<(ProjectId, IpNet)> = snapshot
        .find::<Subnet>("pool", &wish.pool)
        .map(|s| (s.value.project_id.clone(), s.value.cidr))
        .collect();
    used.extend(taken.iter().cloned());
    if let Some(limit) = pool.default_quota {
        let have: u128 = used
            .iter()
            .filter(|(p, _)| p == project)
            .map(|(_, n)| weight(n.prefix_len(), pool))
            .sum();
        if have + weight(length, pool) > u128::from(limit) {
            return Err(errors::conflict(
                "SubnetPoolQuotaExceeded",
                format!(
                    "Per-tenant subnet pool prefix quota exceeded: {have} of {limit} are used; ask for a longer prefix."
                ),
            ));
        }
    }
    let blocks: Vec<IpNet> = used.into_iter().map(|(_, n)| n).collect();
    let found = match wish.cidr {
        Some(cidr) => {
            let fits = pool.prefixes.iter().any(|p| p.contains(&cidr)) && !blocks.iter().any(|b| overlap(b, &cidr));
            fits.then_some(cidr)
        }
        None => first_free(&pool.prefixes, &blocks, length),
    };
    found.ok_or_else(|| {
        errors::conflict(
            "SubnetAllocationError",
            match wish.cidr {
                Some(cidr) => format!("Failed to allocate subnet: cannot allocate {cidr} from subnet pool {}.", wish.pool),
                None => format!(
                    "Failed to allocate subnet: insufficient prefix space to allocate subnet size /{length} in subnet pool {}.",
                    wish.pool
                ),
            },
        )
    })
}

/// How much of a pool's quota a block takes: addresses, or /64 blocks.
fn weight(length: u8, pool: &SubnetPool) -> u128 {
    let bits = if pool.ip_version() == 4 { 32 } else { 64 };
    1_u128 << u32::from(bits - length.min(bits)).min(127)
}

/// The first free block of a length.
fn first_free(prefixes: &[IpNet], used: &[IpNet], length: u8) -> Option<IpNet> {
    let bits = if version(prefixes) == 4 { 32_u32 } else { 128 };
    let size = 1_u128.checked_shl(bits - u32::from(length)).unwrap_or(u128::MAX);
    for prefix in prefixes.iter().filter(|p| p.prefix_len() <= length) {
        let (start, end) = (
            address::to_number(prefix.network()),
            address::to_number(prefix.broadcast()),
        );
        let mut inside: Vec<(u128, u128)> = used
            .iter()
            .filter(|u| overlap(u, prefix))
            .map(|u| (address::to_number(u.network()), address::to_number(u.broadcast())))
            .collect();
        inside.sort_unstable();
        let mut at = start;
        loop {
            let last = at.checked_add(size - 1).filter(|l| *l <= end);
            let Some(last) = last else { break };
            match inside.iter().find(|(a, b)| *a <= last && at <= *b) {
                None => {
                    return IpNet::new(address::from_number(at, prefix.network()), length).ok();
                }
                Some((_, b)) => {
                    // The next boundary of this size behind what is in the way.
                    let Some(next) = b.checked_add(1).and_then(|n| n.checked_next_multiple_of(size)) else {
                        break;
                    };
                    at = next;
                }
            }
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_taken_out_of_blocks() {
        let left = without(net("10.0.0.0/8"), &[net("10.128.0.0/9"), net("10.0.0.0/10")]);
        assert_eq!(left, [net("10.64.0.0/10")]);
        assert!(without(net("10.0.0.0/24"), &[net("10.0.0.0/8")]).is_empty());
        assert_eq!(without(net("10.0.0.0/24"), &[net("11.0.0.0/8")]), [net("10.0.0.0/24")]);
    }

    #[test]
    fn the_first_free_block_lies_on_its_boundary() {
        let pool = [net("10.0.0.0/16")];
        assert_eq!(first_free(&pool, &[], 24), Some(net("10.0.0.0/24")));
        assert_eq!(first_free(&pool, &[net("10.0.0.0/28")], 24), Some(net("10.0.1.0/24")));
        assert_eq!(first_free(&pool, &[net("10.0.0.0/17")], 16), None);
        assert_eq!(first_free(&[net("::/0")], &[], 64), Some(net("::/64")));
        assert_eq!(
            first_free(&[net("ffff::/16")], &[net("ffff::/17")], 17),
            Some(net("ffff:8000::/17"))
        );
        assert_eq!(
            first_free(&[net("0.0.0.0/0")], &[net("0.0.0.0/1"), net("128.0.0.0/1")], 32),
            None
        );
    }

    proptest! {
        #[test]
        fn what_is_cut_never_overlaps(lengths in proptest::collection::vec(20_u8..=30, 1..60)) {
            let pool = [net("10.0.0.0/20"), net("172.16.0.0/22")];
            let mut used: Vec<IpNet> = Vec::new();
            for length in lengths {
                if let Some(block) = first_free(&pool, &used, length) {
                    prop_assert!(pool.iter().any(|p| p.contains(&block)));
                    prop_assert!(!used.iter().any(|u| overlap(u, &block)));
                    used.push(block);
                }
            }
        }
    }
}
