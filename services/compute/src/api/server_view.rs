//! How a server looks on the wire, by microversion. Structs are written straight to JSON: lists are the hot path.

use crate::api::wire::{Link, bookmark, links};
use maru_base::time::{micros_bare, seconds_z};
use maru_compute_model::{Server, ServerGroup, VmState, find_service, network, observed_power};
use maru_http::Request;
use maru_store::{Object, Snapshot};
use serde::{Serialize, Serializer, ser::SerializeMap};
use sha2::{Digest, Sha224};
use std::collections::{BTreeMap, BTreeSet};

/// What of a server is shown, worked out once for a request.
pub(crate) struct Shape {
    pub base: String,
    pub minor: u16,
    /// Administrators see hosts and names of the hypervisor's side.
    pub extended: bool,
    /// Administrators see the details of faults.
    pub details: bool,
    /// Who may see `host_status`.
    pub host_status: bool,
    /// Whether embedded flavors show extra specs.
    pub extra_specs: bool,
    /// `server_groups` (2.71): not in lists.
    pub groups: bool,
    /// Answers of update and rebuild before 2.75 leave much out.
    pub brief: bool,
}

impl Shape {
    /// The shape for a request's caller and microversion.
    pub(crate) fn of(request: &Request, groups: bool) -> Self {
        let target = request
            .caller()
            .map(|c| maru_auth::Target::of_caller(c))
            .unwrap_or_default();
        Self {
            base: request.base.clone(),
            minor: request.version.minor,
            extended: request.may("os_compute_api:os-extended-server-attributes", &target),
            details: request.caller().is_ok_and(|c| c.is_admin()),
            host_status: request.may("os_compute_api:servers:show:host_status", &target),
            extra_specs: request.may("os_compute_api:os-flavor-extra-specs:index", &target),
            groups,
            brief: false,
        }
    }
}

/// The opaque name of the host a project's server is on.
pub(crate) fn host_id(project: &str, host: Option<&str>) -> String {
    match host {
        None => String::new(),
        Some(host) => {
            let mut hash = Sha224::new();
            hash.update(project.as_bytes());
            hash.update(host.as_bytes());
            maru_base::hex(&hash.finalize())
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Brief<'a> {
    id: &'a str,
    name: &'a str,
    links: [Link; 2],
}

/// The short view of lists.
pub(crate) fn brief<'a>(base: &str, server: &'a Object<Server>) -> Brief<'a> {
    Brief {
        id: &server.id,
        name: &server.name,
        links: links(base, "servers", &server.id),
    }
}

#[derive(Serialize)]
struct NamedGroup {
    name: String,
}

#[derive(Serialize)]
struct FaultView<'a> {
    code: u16,
    created: String,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FlavorView<'a> {
    Linked {
        id: &'a str,
        links: [Link; 1],
    },
    Embedded {
        vcpus: u32,
        ram: u64,
        disk: u64,
        ephemeral: u64,
        swap: u64,
        original_name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        extra_specs: Option<&'a BTreeMap<String, String>>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum ImageView<'a> {
    None(&'static str),
    Linked { id: &'a str, links: [Link; 1] },
}

/// One address on the wire.
#[derive(Serialize)]
pub(crate) struct AddressView {
    pub version: u8,
    pub addr: String,
    #[serde(rename = "OS-EXT-IPS:type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(rename = "OS-EXT-IPS-MAC:mac_addr", skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// Addresses by network, in the order of the NICs.
pub(crate) struct Addresses(pub Vec<(String, Vec<AddressView>)>);

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (network, list) in &self.0 {
            map.serialize_entry(network, list)?;
        }
        map.end()
    }
}

/// A server's addresses; `extended` adds type and MAC.
pub(crate) fn addresses(snapshot: &Snapshot, server: &Server, extended: bool) -> Addresses {
    let mut by_network: Vec<(String, Vec<AddressView>)> = Vec::new();
    for a in network::addresses(snapshot, server) {
        let view = AddressView {
            version: if a.ip.is_ipv4() { 4 } else { 6 },
            addr: a.ip.to_string(),
            kind: extended.then_some(if a.floating { "floating" } else { "fixed" }),
            mac: extended.then_some(a.mac),
        };
        match by_network.iter_mut().find(|(n, _)| *n == a.network) {
            Some((_, list)) => list.push(view),
            None => by_network.push((a.network, vec![view])),
        }
    }
    Addresses(by_network)
}

type Nullable<T> = Option<Option<T>>;

/// The full view.
#[derive(Serialize)]
pub(crate) struct Full<'a> {
    id: &'a str,
    name: &'a str,
    status: &'static str,
    tenant_id: &'a str,
    user_id: &'a str,
    metadata: &'a BTreeMap<String, String>,
    #[serde(rename = "hostId")]
    host_id: String,
    image: ImageView<'a>,
    flavor: FlavorView<'a>,
    created: String,
    updated: String,
    addresses: Addresses,
    #[serde(rename = "accessIPv4")]
    access_ipv4: &'a str,
    #[serde(rename = "accessIPv6")]
    access_ipv6: &'a str,
    links: [Link; 2],
    #[serde(rename = "OS-DCF:diskConfig")]
    disk_config: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    #[serde(rename = "OS-EXT-AZ:availability_zone", skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_availability_zone: Nullable<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_drive: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_name: Nullable<&'a str>,
    #[serde(rename = "OS-SRV-USG:launched_at", skip_serializing_if = "Option::is_none")]
    launched_at: Nullable<String>,
    #[serde(rename = "OS-SRV-USG:terminated_at", skip_serializing_if = "Option::is_none")]
    terminated_at: Nullable<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security_groups: Option<Vec<NamedGroup>>,
    #[serde(rename = "OS-EXT-SRV-ATTR:host", skip_serializing_if = "Option::is_none")]
    host: Nullable<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:instance_name", skip_serializing_if = "Option::is_none")]
    instance_name: Option<String>,
    #[serde(
        rename = "OS-EXT-SRV-ATTR:hypervisor_hostname",
        skip_serializing_if = "Option::is_none"
    )]
    hypervisor: Nullable<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:reservation_id", skip_serializing_if = "Option::is_none")]
    reservation_id: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:launch_index", skip_serializing_if = "Option::is_none")]
    launch_index: Option<u32>,
    #[serde(rename = "OS-EXT-SRV-ATTR:hostname", skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:kernel_id", skip_serializing_if = "Option::is_none")]
    kernel_id: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:ramdisk_id", skip_serializing_if = "Option::is_none")]
    ramdisk_id: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:root_device_name", skip_serializing_if = "Option::is_none")]
    root_device: Option<&'static str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:user_data", skip_serializing_if = "Option::is_none")]
    user_data: Nullable<&'a str>,
    #[serde(rename = "OS-EXT-STS:task_state", skip_serializing_if = "Option::is_none")]
    task_state: Nullable<&'static str>,
    #[serde(rename = "OS-EXT-STS:vm_state", skip_serializing_if = "Option::is_none")]
    vm_state: Option<&'static str>,
    #[serde(rename = "OS-EXT-STS:power_state", skip_serializing_if = "Option::is_none")]
    power_state: Option<u8>,
    #[serde(
        rename = "os-extended-volumes:volumes_attached",
        skip_serializing_if = "Option::is_none"
    )]
    volumes: Option<Vec<VolumeView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_reason: Nullable<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Nullable<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted_image_certificates: Nullable<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_groups: Option<Vec<&'a str>>,
    /// Only in the answer of a rebuild.
    #[serde(rename = "adminPass", skip_serializing_if = "Option::is_none")]
    pub admin_pass: Option<String>,
    /// Only in the answer of a rebuild (2.57 to 2.74; later versions have it above).
    #[serde(rename = "user_data", skip_serializing_if = "Option::is_none")]
    pub rebuilt_user_data: Nullable<String>,
}

/// A volume in a server's view.
#[derive(serde::Serialize)]
struct VolumeView<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_on_termination: Option<bool>,
}

/// The full view of a server.
pub(crate) fn full<'a>(snapshot: &Snapshot, shape: &Shape, server: &'a Object<Server>) -> Full<'a> {
    let s = &*server.value;
    let minor = shape.minor;
    let all = !shape.brief;
    let extended = all && shape.extended;
    let kernel = |name: &str| {
        s.image
            .as_ref()
            .and_then(|i| i.properties.get(name))
            .map_or("", String::as_str)
    };
    let status = s.status();
    Full {
        id: &server.id,
        name: &s.name,
        status,
        tenant_id: &s.project_id,
        user_id: &s.user_id,
        metadata: &s.metadata,
        host_id: host_id(&s.project_id, s.host.as_deref()),
        image: match &s.image {
            None => ImageView::None(""),
            Some(i) => ImageView::Linked {
                id: &i.id,
                links: bookmark(&shape.base, "images", &i.id),
            },
        },
        flavor: if minor < 47 {
            FlavorView::Linked {
                id: &s.flavor.id,
                links: bookmark(&shape.base, "flavors", &s.flavor.id),
            }
        } else {
            FlavorView::Embedded {
                vcpus: s.flavor.vcpus,
                ram: s.flavor.memory_mb,
                disk: s.flavor.root_gb,
                ephemeral: s.flavor.ephemeral_gb,
                swap: s.flavor.swap_mb,
                original_name: &s.flavor.name,
                extra_specs: shape.extra_specs.then_some(&s.flavor.extra_specs),
            }
        },
        created: seconds_z(s.created),
        updated: seconds_z(s.updated),
        addresses: addresses(snapshot, s, all),
        access_ipv4: s.access_ipv4.as_deref().unwrap_or(""),
        access_ipv6: s.access_ipv6.as_deref().unwrap_or(""),
        links: links(&shape.base, "servers", &server.id),
        disk_config: if s.auto_disk_config { "AUTO" } else { "MANUAL" },
        fault: s
            .fault
            .as_ref()
            .filter(|_| s.vm_state == VmState::Error && status == "ERROR")
            .map(|f| FaultView {
                code: f.code,
                created: seconds_z(f.created),
                message: &f.message,
                details: (shape.details && !f.details.is_empty()).then_some(f.details.as_str()),
            }),
        progress: matches!(status, "ACTIVE" | "BUILD" | "REBUILD").then_some(0),
        zone: all.then(|| {
            s.host.as_deref().map_or_else(
                || s.zone.clone().unwrap_or_default(),
                |h| maru_compute_model::zone_of(snapshot, h),
            )
        }),
        pinned_availability_zone: (all && minor >= 96).then_some(s.zone.as_deref()),
        config_drive: all.then_some(if s.config_drive { "True" } else { "" }),
        key_name: (all || minor >= 54).then_some(s.key.as_ref().map(|k| k.name.as_str())),
        launched_at: all.then(|| s.launched_at.map(micros_bare)),
        terminated_at: all.then_some(None),
        security_groups: all.then(|| security_groups(snapshot, s)).flatten(),
        host: extended.then_some(s.host.as_deref()),
        instance_name: extended.then(|| Server::instance_name(&server.id)),
        hypervisor: extended.then_some(s.host.as_deref()),
        reservation_id: (extended && minor >= 3).then_some(&s.reservation_id),
        launch_index: (extended && minor >= 3).then_some(s.launch_index),
        hostname: (all && ((extended && minor >= 3) || minor >= 90)).then_some(&s.hostname),
        kernel_id: (extended && minor >= 3).then(|| kernel("kernel_id")),
        ramdisk_id: (extended && minor >= 3).then(|| kernel("ramdisk_id")),
        root_device: (extended && minor >= 3).then(|| s.root_device()),
        user_data: (extended && minor >= 3).then_some(s.user_data.as_deref()),
        task_state: all.then_some(s.task.map(maru_compute_model::Task::as_str)),
        vm_state: all.then_some(s.vm_state.as_str()),
        power_state: all.then(|| observed_power(snapshot, &server.id).number()),
        volumes: all.then(|| {
            s.volumes
                .iter()
                .map(|v| VolumeView {
                    id: &v.id,
                    delete_on_termination: (minor >= 3).then_some(v.delete_on_termination),
                })
                .collect()
        }),
        host_status: (all && minor >= 16 && shape.host_status).then(|| host_status(snapshot, s.host.as_deref())),
        locked: (minor >= 9).then_some(s.lock.is_some()),
        locked_reason: (minor >= 73).then_some(s.lock.as_ref().and_then(|l| l.reason.as_deref())),
        description: (minor >= 19).then_some(s.description.as_deref()),
        tags: (minor >= 26).then_some(&s.tags),
        trusted_image_certificates: (minor >= 63).then_some(s.trusted_certs.as_deref()),
        server_groups: (minor >= 71 && shape.groups).then(|| {
            s.group
                .iter()
                .filter(|g| snapshot.get::<ServerGroup>(g).is_some())
                .map(|g| g.as_str())
                .collect()
        }),
        admin_pass: None,
        rebuilt_user_data: None,
    }
}

fn security_groups(snapshot: &Snapshot, server: &Server) -> Option<Vec<NamedGroup>> {
    let names = network::security_groups(snapshot, server);
    (!names.is_empty()).then(|| names.into_iter().map(|name| NamedGroup { name }).collect())
}

/// The host's state as `host_status` shows it.
pub(crate) fn host_status(snapshot: &Snapshot, host: Option<&str>) -> &'static str {
    let Some(host) = host else { return "" };
    match find_service(snapshot, host) {
        None => "UNKNOWN",
        Some(s) if s.forced_down || !s.up => "DOWN",
        Some(s) if s.disabled => "MAINTENANCE",
        Some(_) => "UP",
    }
}
