//! Choosing a host: a pure function of a snapshot. Filters turn hosts down, each with its reason; weighers rank the rest.
//!
//! Filters and weighers bear upstream's names, so that what an operator knows of them stays true. The choice is only a
//! proposal: the transaction that allocates guards the provider and its counters, and a lost race plans again.

use crate::{ComputeService, GroupId, Server, ServerGroup, volume::holders, zone_of};
use maru_placement_model::{ResourceProvider, usage};
use maru_store::{Object, Snapshot};
use std::{collections::BTreeMap, fmt};

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The server's id; breaks ties.
    pub id: &'a str,
    /// The server.
    pub server: &'a Server,
    /// Hosts that must not be chosen, e.g. where an attempt failed.
    pub exclude: &'a [String],
}

/// The chosen host.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Its service.
    pub service: Object<ComputeService>,
    /// Its provider.
    pub provider: Object<ResourceProvider>,
    /// What to allocate.
    pub resources: BTreeMap<String, u64>,
    /// How many hosts passed all filters.
    pub fitting: usize,
}

/// One host that was turned down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The host.
    pub host: String,
    /// The filter.
    pub filter: &'static str,
    /// Why, in words.
    pub reason: String,
}

/// No host fits: each with the filter that turned it down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The hosts.
    pub rejected: Vec<Rejection>,
}

impl Refusal {
    /// A summary without host names, for the owner: `ComputeFilter 1, placement 2`.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.rejected.is_empty() {
            return "there is no compute host yet".to_owned();
        }
        let mut by_filter: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for r in &self.rejected {
            *by_filter.entry((r.filter, r.reason.as_str())).or_default() += 1;
        }
        let parts: Vec<String> = by_filter
            .iter()
            .map(|((f, why), n)| format!("{n} host{} by {f} ({why})", if *n == 1 { "" } else { "s" }))
            .collect();
        format!("turned down: {}", parts.join("; "))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rejected.is_empty() {
            return f.write_str("there is no compute host yet: start one with `maru up` or add one with `maru join`");
        }
        for (i, r) in self.rejected.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {} ({})", r.host, r.filter, r.reason)?;
        }
        Ok(())
    }
}

type Verdict = Result<(), (&'static str, String)>;

/// Chooses a host, or says of each why not.
///
/// # Errors
/// The list of all hosts with the filter that turned each down.
pub fn select(snapshot: &Snapshot, request: &Request<'_>) -> Result<Choice, Refusal> {
    let resources = request.server.resources();
    let group = request
        .server
        .group
        .as_ref()
        .and_then(|g| snapshot.get::<ServerGroup>(g));
    let spread = group
        .as_ref()
        .map(|g| members_by_host(snapshot, &g.id, request.id))
        .unwrap_or_default();
    let volumes = holders(snapshot, request.server);
    let mut refusal = Refusal::default();
    let mut fitting = Vec::new();
    for service in snapshot.list::<ComputeService>() {
        let provider = snapshot.get::<ResourceProvider>(&service.provider);
        let verdict = filter_host(snapshot, request, &service)
            .and_then(|()| filter_image(request.server, &service))
            .and_then(|()| {
                group
                    .as_ref()
                    .map_or(Ok(()), |g| filter_group(g, &spread, &service.host))
            })
            .and_then(|()| match &provider {
                Some(provider) => filter_resources(snapshot, request.server, &resources, provider, &service.host),
                None => Err(("placement", "it has no resource provider".to_owned())),
            });
        match (verdict, provider) {
            (Ok(()), Some(provider)) => fitting.push((service, provider)),
            (Err((filter, reason)), _) => {
                refusal.rejected.push(Rejection {
                    host: service.host.clone(),
                    filter,
                    reason,
                });
            }
            (Ok(()), None) => {}
        }
    }
    let best = rank(snapshot, request.id, group.as_deref(), &spread, &volumes, &fitting);
    match best.and_then(|at| fitting.get(at).cloned().map(|pair| (pair, fitting.len()))) {
        Some(((service, provider), n)) => Ok(Choice {
            service,
            provider,
            resources,
            fitting: n,
        }),
        None => Err(refusal),
    }
}

fn members_by_host(snapshot: &Snapshot, group: &GroupId, but: &str) -> BTreeMap<String, u32> {
    let mut hosts = BTreeMap::new();
    for member in snapshot.find::<Server>("group", group) {
        if member.id != *but
            && let Some(host) = &member.host
        {
            *hosts.entry(host.clone()).or_insert(0) += 1;
        }
    }
    hosts
}

fn filter_host(snapshot: &Snapshot, request: &Request<'_>, service: &ComputeService) -> Verdict {
    if let Some(wanted) = &request.server.wanted_host
        && *wanted != service.host
    {
        return Err(("RequestedHostFilter", format!("host {wanted} was asked for")));
    }
    if request.exclude.contains(&service.host) {
        return Err(("RetryFilter", "an earlier attempt failed there".to_owned()));
    }
    if let Some(zone) = &request.server.zone {
        let is_in = zone_of(snapshot, &service.host);
        if is_in != *zone {
            return Err(("AvailabilityZoneFilter", format!("it is in zone {is_in}, not {zone}")));
        }
    }
    if service.disabled {
        let why = service.disabled_reason.as_deref().unwrap_or("no reason given");
        return Err(("ComputeFilter", format!("the service is disabled: {why}")));
    }
    if service.forced_down {
        return Err(("ComputeFilter", "the service is forced down".to_owned()));
    }
    if !service.up {
        return Err(("ComputeFilter", "the service is down".to_owned()));
    }
    Ok(())
}

fn filter_image(server: &Server, service: &ComputeService) -> Verdict {
    let Some(image) = &server.image else { return Ok(()) };
    let name = "ImagePropertiesFilter";
    if let Some(arch) = image
        .properties
        .get("hw_architecture")
        .or_else(|| image.properties.get("architecture"))
        && canonical_arch(arch) != canonical_arch(&service.facts.arch)
    {
        return Err((
            name,
            format!("the image is for {arch}, the host is {}", service.facts.arch),
        ));
    }
    let kind = image
        .properties
        .get("img_hv_type")
        .or_else(|| image.properties.get("hypervisor_type"));
    if let Some(kind) = kind {
        let host = service.facts.hypervisor_type.to_ascii_lowercase();
        let wanted = kind.to_ascii_lowercase();
        // Upstream counts KVM and QEMU as one hypervisor.
        let same = |a: &str| matches!(a, "qemu" | "kvm");
        if wanted != host && !(same(&wanted) && same(&host)) {
            return Err((
                name,
                format!(
                    "the image is for {kind}, the host runs {}",
                    service.facts.hypervisor_type
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a server's image fits the host it is on (a rebuild with another image).
///
/// # Errors
/// Why not, in words.
pub fn image_fits(snapshot: &Snapshot, server: &Server, host: &str) -> Result<(), String> {
    let service = crate::find_service(snapshot, host).ok_or_else(|| format!("host {host} is not known"))?;
    filter_image(server, &service).map_err(|(filter, why)| format!("{filter} refuses it ({why})"))
}

/// Whether the host that a server is on could run it with its present flavor, its room aside.
///
/// # Errors
/// Why not, in words.
pub fn flavor_fits(snapshot: &Snapshot, server: &Server, host: &str) -> Result<(), String> {
    let service = crate::find_service(snapshot, host).ok_or_else(|| format!("host {host} is not known"))?;
    let provider = snapshot
        .get::<ResourceProvider>(&service.provider)
        .ok_or_else(|| format!("host {host} has no resource provider"))?;
    filter_traits(server, &provider).map_err(|(filter, why)| format!("{filter} refuses it ({why})"))
}

fn canonical_arch(arch: &str) -> String {
    match arch.to_ascii_lowercase().as_str() {
        "amd64" | "x86-64" => "x86_64".to_owned(),
        "arm64" => "aarch64".to_owned(),
        other => other.to_owned(),
    }
}

fn filter_group(group: &ServerGroup, spread: &BTreeMap<String, u32>, host: &str) -> Verdict {
    let here = spread.get(host).copied().unwrap_or(0);
    match group.policy.as_str() {
        "anti-affinity" if here >= group.max_server_per_host.unwrap_or(1) => Err((
            "ServerGroupAntiAffinityFilter",
            format!(
                "the group has {here} server{} there already",
                if here == 1 { "" } else { "s" }
            ),
        )),
        "affinity" if here == 0 && !spread.is_empty() => Err((
            "ServerGroupAffinityFilter",
            "the group's other servers are on another host".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn filter_resources(
    snapshot: &Snapshot,
    server: &Server,
    resources: &BTreeMap<String, u64>,
    provider: &Object<ResourceProvider>,
    host: &str,
) -> Verdict {
    for (class, amount) in resources {
        let Some(inventory) = provider.inventories.get(class) else {
            return Err(("placement", format!("it has no {class}")));
        };
        if *amount > inventory.max_unit {
            return Err((
                "placement",
                format!("{amount} {class} asked, at most {} at once", inventory.max_unit),
            ));
        }
        let mut free = inventory.capacity() - usage(snapshot, &provider.id, class);
        if class == "DISK_GB" {
            // Volumes lie on the same disk.
            free -= i64::try_from(maru_volume_model::given_gb(snapshot, host)).unwrap_or(i64::MAX);
        }
        if i64::try_from(*amount).unwrap_or(i64::MAX) > free {
            return Err(("placement", format!("{amount} {class} asked, {} free", free.max(0))));
        }
    }
    filter_traits(server, provider)
}

fn filter_traits(server: &Server, provider: &Object<ResourceProvider>) -> Verdict {
    for (spec, value) in &server.flavor.extra_specs {
        let Some(name) = spec.strip_prefix("trait:") else {
            continue;
        };
        let has = provider.traits.contains(name);
        match value.as_str() {
            "required" if !has => return Err(("placement", format!("it lacks the trait {name}"))),
            "forbidden" if has => return Err(("placement", format!("it has the forbidden trait {name}"))),
            _ => {}
        }
    }
    Ok(())
}

/// What being beside its volumes weighs for a server: more than all that is free elsewhere, less than what a group asks for.
const BESIDE_VOLUMES: f64 = 5.0;

/// The best of the fitting hosts: RAM, CPU and disk weighers (most free wins, each normalised), its volumes, soft affinity, and a
/// tie broken by a hash of server and host, so that a burst spreads.
fn rank(
    snapshot: &Snapshot,
    id: &str,
    group: Option<&ServerGroup>,
    spread: &BTreeMap<String, u32>,
    volumes: &BTreeMap<String, u32>,
    fitting: &[(Object<ComputeService>, Object<ResourceProvider>)],
) -> Option<usize> {
    if fitting.len() <= 1 {
        return (!fitting.is_empty()).then_some(0);
    }
    let mut scores = vec![0.0_f64; fitting.len()];
    for class in ["MEMORY_MB", "VCPU", "DISK_GB"] {
        let free: Vec<i64> = fitting
            .iter()
            .map(|(_, p)| {
                p.inventories
                    .get(class)
                    .map_or(0, |i| i.capacity() - usage(snapshot, &p.id, class))
            })
            .collect();
        add_normalised(&mut scores, &free, 1.0);
    }
    let soft = match group.map(|g| g.policy.as_str()) {
        Some("soft-affinity") => 10.0,
        Some("soft-anti-affinity") => -10.0,
        _ => 0.0,
    };
    if soft != 0.0 {
        let here: Vec<i64> = fitting
            .iter()
            .map(|(s, _)| i64::from(spread.get(&s.host).copied().unwrap_or(0)))
            .collect();
        add_normalised(&mut scores, &here, soft);
    }
    if !volumes.is_empty() {
        let held: Vec<i64> = fitting
            .iter()
            .map(|(s, _)| i64::from(volumes.get(&s.host).copied().unwrap_or(0)))
            .collect();
        add_normalised(&mut scores, &held, BESIDE_VOLUMES);
    }
    (0..fitting.len()).max_by(|&a, &b| {
        scores[a]
            .total_cmp(&scores[b])
            .then_with(|| tie(id, &fitting[a].0.host).cmp(&tie(id, &fitting[b].0.host)))
    })
}

#[allow(clippy::cast_precision_loss)]
fn add_normalised(scores: &mut [f64], values: &[i64], weight: f64) {
    let (Some(low), Some(high)) = (values.iter().min(), values.iter().max()) else {
        return;
    };
    if low == high {
        return;
    }
    for (score, value) in scores.iter_mut().zip(values) {
        *score += weight * (value - low) as f64 / (high - low) as f64;
    }
}

/// FNV-1a over both names: stable between processes and releases.
fn tie(id: &str, host: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes().chain(host.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
