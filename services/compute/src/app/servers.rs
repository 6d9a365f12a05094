//! Servers: what a create request must be, and the one transaction that it becomes.

use crate::{
    App,
    api::{
        servers::{CreateBody, FileBody, NetworkBody, NetworksBody, UpdateBody, find, target},
        wire::{self, invalid},
    },
    app::{
        auto_network,
        server_devices::{Devices, VolumeWish, check_devices, devices},
        server_volumes,
    },
    control::servers::{self as control, group_epoch},
};
use base64::Engine;
use maru_auth::Caller;
use maru_base::{Error, Result};
use maru_compute_model::{
    BlockDevice, Flavor, GroupId, KeyPair, Networks, Power, Reboot, Server, ServerFlavor, ServerGroup, ServerId,
    ServerImage, ServerKey, Task, VmState, WantedPort, begin_action, find_visible_flavor, keypair_id, network,
    plan_delete_server, quota, quota_of, rules, zones,
};
use maru_http::Request;
use maru_image_model::{Image, ImageId, ImageStatus};
use maru_store::{Object, Snapshot, Txn};
use std::collections::{BTreeMap, BTreeSet};

/// Most servers of one request: with more, the one transaction that makes them would pass the store's limits.
const MOST_AT_ONCE: u64 = 300;
/// Bytes that the servers of one request may take in the store together.
const BYTES_AT_ONCE: usize = 3 << 20;
/// The longest user data, in base64 characters (upstream's limit).
const USER_DATA_MAX: usize = 65_535;

/// What a create request came to.
pub(crate) struct Made {
    pub first: ServerId,
    pub reservation_id: String,
    pub admin_pass: String,
    pub auto_disk_config: bool,
    pub security_groups: Vec<String>,
}

/// Scheduler hints as sent.
pub(crate) type Hints = BTreeMap<String, serde_json::Value>;

/// Makes one server or several: all or none.
pub(crate) async fn create(app: &App, request: &Request, body: CreateBody, hints: Hints) -> Result<Made> {
    let caller = request.caller()?.clone();
    let project = caller.require_project()?.clone();
    let min = body.min_count.map_or(Ok(1), |c| c.at_least("server.min_count", 1))?;
    let max = body.max_count.map_or(Ok(min), |c| c.at_least("server.max_count", 1))?;
    let min = if body.min_count.is_none() { min.min(max) } else { min };
    if min > max {
        return Err(Error::bad_request("min_count must be <= max_count"));
    }
    let wanted = Wanted::check(request, &caller, body, max)?;
    if matches!(wanted.networks, Networks::Auto) && request.at_least(2, 37) {
        // Nothing is made for a request that would be refused.
        wanted.resolve(&app.store.snapshot(), &caller, &hints, request)?;
        auto_network::ensure(app, &project).await?;
    }
    let reservation_id = format!("r-{}", random_word(8, b"abcdefghijklmnopqrstuvwxyz0123456789"));
    // The ids are fixed before the plan: a transaction that is planned again makes the same servers.
    let ids: Vec<ServerId> = (0..max.min(MOST_AT_ONCE)).map(|_| ServerId::new_uuid()).collect();
    let (made, count) = app
        .store
        .plan(|snapshot| {
            let template = wanted.resolve(snapshot, &caller, &hints, request)?;
            let count = affordable(snapshot, &project, &template, min, max)?;
            let count = storable(&template, min, count)?;
            check_group(snapshot, &project, &template, count)?;
            let mut txn = Txn::new();
            for (index, id) in ids.iter().take(usize::try_from(count).unwrap_or(0)).enumerate() {
                let mut server = template.clone();
                server.reservation_id.clone_from(&reservation_id);
                server.asked_after = snapshot.revision();
                server.launch_index = u32::try_from(index).unwrap_or(0);
                if count > 1 {
                    server.name = format!("{}-{}", template.name, index + 1);
                    server.hostname = format!("{}-{}", template.hostname, index + 1);
                }
                if template.hostname.is_empty() {
                    server.hostname = format!("server-{id}");
                }
                for (resource, amount) in quota_of(&server) {
                    quota::consume(snapshot, &mut txn, &project, resource, amount);
                }
                for wish in &wanted.volumes {
                    server_volumes::plan_wish(snapshot, &mut txn, request, (id, &mut server), wish)?;
                }
                txn.create(id, &server);
                begin_action(&mut txn, id, &project, &caller.user_id, &request.id, "create");
                control::begin_create(&mut txn, id, &request.id);
            }
            if let Some(group) = &template.group {
                // The limit of members is a rule over the set of them.
                txn.alive::<ServerGroup>(group);
                txn.over_set(snapshot, &group_epoch(group));
            }
            Ok((txn, (template, count)))
        })
        .await
        .map_err(quota::refusal)
        .map_err(maru_volume_model::quota::refusal)?;
    for id in ids.iter().take(usize::try_from(count).unwrap_or(0)) {
        app.record(id, &request.id, "accepted").await;
    }
    let first = ids.into_iter().next().unwrap_or_else(|| ServerId::from(""));
    Ok(Made {
        first,
        reservation_id,
        admin_pass: made.admin_pass.unwrap_or_default(),
        auto_disk_config: made.auto_disk_config,
        security_groups: made.security_groups,
    })
}

/// How many of `max` servers the quota allows; an error when it is fewer than `min`.
fn affordable(snapshot: &Snapshot, project: &str, server: &Server, min: u64, max: u64) -> Result<u64> {
    let mut most = i64::try_from(max).unwrap_or(i64::MAX);
    for (resource, each) in quota_of(server) {
        if let Some(free) = quota::headroom(snapshot, project, resource)
            && each > 0
        {
            most = most.min(free / each);
        }
    }
    let most = u64::try_from(most).unwrap_or(0);
    if most >= min {
        return Ok(most);
    }
    let n = i64::try_from(min).unwrap_or(i64::MAX);
    let wanted: Vec<_> = quota_of(server)
        .into_iter()
        .map(|(r, each)| (r, each.saturating_mul(n)))
        .collect();
    quota::check(snapshot, project, &wanted)?;
    Ok(min)
}

/// How many of `count` servers one transaction holds; an error when it is fewer than `min`.
fn storable(server: &Server, min: u64, count: u64) -> Result<u64> {
    let each = serde_json::to_vec(server).map_or(BYTES_AT_ONCE, |v| v.len() + 1_024);
    let most = u64::try_from(BYTES_AT_ONCE / each).unwrap_or(1).clamp(1, MOST_AT_ONCE);
    if most < min {
        return Err(invalid(
            "server.min_count",
            format!("One request makes at most {most} servers of this size; send several requests."),
        ));
    }
    Ok(count.min(most))
}

fn check_group(snapshot: &Snapshot, project: &str, server: &Server, count: u64) -> Result<()> {
    let Some(group) = &server.group else { return Ok(()) };
    let limit = quota::limit(snapshot, project, "server_group_members");
    let there = i64::try_from(snapshot.find::<Server>("group", group).count()).unwrap_or(i64::MAX);
    if limit >= 0 && there.saturating_add(i64::try_from(count).unwrap_or(i64::MAX)) > limit {
        return Err(Error::forbidden("Quota exceeded, too many servers in group"));
    }
    Ok(())
}

/// A create request whose form is right.
struct Wanted {
    body: CreateBody,
    networks: Networks,
    zone: Option<String>,
    host: Option<String>,
    hostname: String,
    image: Option<String>,
    devices: Vec<BlockDevice>,
    volumes: Vec<VolumeWish>,
    admin_pass: String,
    auto_disk_config: bool,
}

impl Wanted {
    /// Checks all that can be known without the store.
    fn check(request: &Request, caller: &Caller, body: CreateBody, max: u64) -> Result<Self> {
        wire::check_name("server.name", &body.name)?;
        check_metadata(&body.metadata)?;
        if let Some(text) = &body.description {
            wire::check_text("server.description", text)?;
        }
        if let Some(tags) = &body.tags {
            check_tags(tags)?;
        }
        if let Some(data) = &body.user_data {
            check_user_data(data)?;
        }
        check_address("server.accessIPv4", body.access_ipv4.as_deref(), true)?;
        check_address("server.accessIPv6", body.access_ipv6.as_deref(), false)?;
        let auto_disk_config = disk_config(body.disk_config.as_deref(), true)?;
        let networks = networks(body.networks.as_ref(), request.version.minor)?;
        if max > 1
            && let Networks::Listed(list) = &networks
        {
            if list.iter().any(|w| w.port.is_some()) {
                return Err(Error::bad_request(
                    "Unable to launch multiple instances with a single configured port ID. Please launch your instances one by one with different ports.",
                ));
            }
            if list.iter().any(|w| w.fixed_ip.is_some()) {
                return Err(Error::bad_request(
                    "Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.",
                ));
            }
        }
        if let Some(certs) = &body.trusted_image_certificates {
            check_certificates("server.trusted_image_certificates", certs)?;
        }
        let (zone, host) = placement_of(request, caller, &body)?;
        let hostname = match &body.hostname {
            Some(name) => {
                check_hostname(name)?;
                name.clone()
            }
            None => hostname_of(&body.name),
        };
        let Devices { image, local, volumes } = devices(&body)?;
        if max > 1 && volumes.iter().any(VolumeWish::is_one_volume) {
            return Err(Error::bad_request(
                "Cannot attach one or more volumes to multiple instances",
            ));
        }
        let admin_pass = match &body.admin_pass {
            Some(p) => p.clone(),
            None => random_password(),
        };
        Ok(Self {
            networks,
            zone,
            host,
            hostname,
            image,
            devices: local,
            volumes,
            admin_pass,
            auto_disk_config,
            body,
        })
    }

    /// Finds in the store all that the request names, and makes the server of it.
    fn resolve(&self, snapshot: &Snapshot, caller: &Caller, hints: &Hints, request: &Request) -> Result<Server> {
        let body = &self.body;
        let project = caller.require_project()?.clone();
        let flavor_id = body.flavor_id();
        let flavor = find_visible_flavor(snapshot, caller, flavor_id)
            .ok_or_else(|| Error::bad_request(format!("Flavor {flavor_id} could not be found.")))?;
        if flavor.root_gb == 0
            && !self.volumes.iter().any(|v| v.boot)
            && !request.may(
                "os_compute_api:servers:create:zero_disk_flavor",
                &maru_auth::Target::of_caller(caller),
            )
        {
            return Err(Error::forbidden(
                "Only volume-backed servers are allowed for flavors with zero disk.",
            ));
        }
        check_devices(&self.devices, &flavor)?;
        let image = self
            .image
            .as_deref()
            .map(|id| image_for(snapshot, caller, id, &flavor))
            .transpose()?;
        if let Some(zone) = &self.zone
            && !zones(snapshot).contains_key(zone)
        {
            return Err(Error::bad_request(format!(
                "The requested availability zone is not available: {zone}"
            )));
        }
        if let Some(host) = &self.host
            && maru_compute_model::find_service(snapshot, host).is_none()
        {
            return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
        }
        let key = body
            .key_name
            .as_deref()
            .map(|name| {
                snapshot
                    .get::<KeyPair>(&keypair_id(&caller.user_id, name))
                    .map(|k| ServerKey {
                        name: name.to_owned(),
                        public_key: k.public_key.clone(),
                    })
                    .ok_or_else(|| Error::bad_request("Invalid key_name provided."))
            })
            .transpose()?;
        check_metadata_count(snapshot, &project, body.metadata.len())?;
        check_files(snapshot, &project, body.personality.as_deref().unwrap_or_default())?;
        let group = hints
            .get("group")
            .map(|g| {
                let id = GroupId::from(
                    g.as_str()
                        .filter(|t| wire::is_uuid(t))
                        .ok_or_else(|| invalid("os:scheduler_hints.group", format!("{g} is not a 'uuid'")))?,
                );
                snapshot
                    .get::<ServerGroup>(&id)
                    .filter(|g| g.project_id == project || caller.is_admin())
                    .map(|_| id.clone())
                    .ok_or_else(|| Error::bad_request(format!("Instance group {id} could not be found.")))
            })
            .transpose()?;
        network::check_networks(snapshot, caller, &self.networks, request.at_least(2, 37))?;
        let now = maru_base::time::now();
        let mut groups: Vec<String> = Vec::new();
        for name in body.security_groups.iter().flatten().filter_map(|g| g.name.as_ref()) {
            if !groups.contains(name) {
                groups.push(name.clone());
            }
        }
        network::check_security_groups(snapshot, &project, &groups)?;
        Ok(Server {
            name: body.name.clone(),
            hostname: self.hostname.clone(),
            description: body
                .description
                .clone()
                .or_else(|| (!request.at_least(2, 19)).then(|| body.name.clone())),
            project_id: project,
            user_id: caller.user_id.clone(),
            flavor: embed_flavor(&flavor),
            image,
            block_devices: self.devices.clone(),
            volumes: Vec::new(),
            key,
            metadata: body.metadata.clone(),
            tags: body.tags.iter().flatten().cloned().collect(),
            user_data: body.user_data.clone(),
            files: body
                .personality
                .iter()
                .flatten()
                .map(|f| (f.path.clone(), f.contents.clone()))
                .collect(),
            config_drive: body.config_drive.is_some_and(|f| f.0),
            auto_disk_config: self.auto_disk_config,
            admin_pass: Some(self.admin_pass.clone()),
            access_ipv4: body.access_ipv4.clone(),
            access_ipv6: body.access_ipv6.as_deref().map(shortest),
            zone: self.zone.clone(),
            wanted_host: self.host.clone(),
            group,
            hints: hints.clone(),
            networks: self.networks.clone(),
            security_groups: groups,
            ports: Vec::new(),
            host: None,
            provider: None,
            placed: false,
            vm_state: VmState::Building,
            task: Some(Task::Scheduling),
            power: Power::Running,
            reboot: Reboot::default(),
            rebuild: 0,
            resizes: 0,
            resize: None,
            rescue: None,
            root: None,
            shelved_image: None,
            backup: None,
            imaging: None,
            asked_after: 0,
            request_id: request.id.to_string(),
            launch_index: 0,
            reservation_id: String::new(),
            lock: None,
            fault: None,
            trusted_certs: body.trusted_image_certificates.clone(),
            created: now,
            updated: now,
            launched_at: None,
        })
    }
}

/// An IPv6 address in its shortest form, as upstream shows it (RFC 5952); what is none stays.
pub(crate) fn shortest(text: &str) -> String {
    text.parse::<std::net::Ipv6Addr>()
        .map_or_else(|_| text.to_owned(), |ip| ip.to_string())
}

/// Checks injected files against the project's limits.
pub(crate) fn check_files(snapshot: &Snapshot, project: &str, files: &[FileBody]) -> Result<()> {
    let over = |resource: &str, n: usize| {
        let limit = quota::limit(snapshot, project, resource);
        limit >= 0 && i64::try_from(n).unwrap_or(i64::MAX) > limit
    };
    if over("injected_files", files.len()) {
        return Err(Error::forbidden("Personality file limit exceeded"));
    }
    for file in files {
        if over("injected_file_path_bytes", file.path.len()) {
            return Err(Error::forbidden("Personality file path too long"));
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&file.contents)
            .map_err(|_| invalid("personality.contents", "it is not base64"))?;
        if over("injected_file_content_bytes", bytes.len()) {
            return Err(Error::forbidden("Personality file content too long"));
        }
    }
    Ok(())
}

/// Checks how many metadata items a server may have.
pub(crate) fn check_metadata_count(snapshot: &Snapshot, project: &str, count: usize) -> Result<()> {
    let limit = quota::limit(snapshot, project, "metadata_items");
    if limit >= 0 && i64::try_from(count).unwrap_or(i64::MAX) > limit {
        return Err(Error::forbidden(format!(
            "Maximum number of metadata items exceeds {limit}"
        )));
    }
    Ok(())
}

/// The flavor as servers keep it.
pub(crate) fn embed_flavor(flavor: &Object<Flavor>) -> ServerFlavor {
    ServerFlavor {
        id: flavor.id.to_string(),
        name: flavor.name.clone(),
        vcpus: flavor.vcpus,
        memory_mb: flavor.memory_mb,
        root_gb: flavor.root_gb,
        ephemeral_gb: flavor.ephemeral_gb,
        swap_mb: flavor.swap_mb,
        extra_specs: flavor.extra_specs.clone(),
    }
}

/// The room that a server's flavor has, as a flavor: the one that it was made with may be changed or gone.
pub(crate) fn flavor_of(server: &Object<Server>) -> Flavor {
    let flavor = &server.flavor;
    Flavor {
        name: flavor.name.clone(),
        description: None,
        vcpus: flavor.vcpus,
        memory_mb: flavor.memory_mb,
        root_gb: flavor.root_gb,
        ephemeral_gb: flavor.ephemeral_gb,
        swap_mb: flavor.swap_mb,
        rxtx_factor: 1.0,
        is_public: true,
        extra_specs: BTreeMap::new(),
        access: BTreeSet::new(),
        created: server.value.created,
    }
}

/// The image as servers keep it, if a server of this flavor may be made from it.
pub(crate) fn image_for(snapshot: &Snapshot, caller: &Caller, reference: &str, flavor: &Flavor) -> Result<ServerImage> {
    let id = reference.rsplit('/').next().unwrap_or(reference);
    if !wire::is_uuid(id) {
        return Err(Error::bad_request("Invalid imageRef provided."));
    }
    let image: Object<Image> = maru_image_model::find_visible(snapshot, caller, &ImageId::from(id))
        .ok_or_else(|| Error::bad_request("Can not find requested image"))?;
    let (Some(digest), Some(format), ImageStatus::Active) = (&image.digest, &image.proven_format, image.status) else {
        return Err(Error::bad_request(format!("Image {id} is not active.")));
    };
    if image.min_ram > flavor.memory_mb {
        return Err(Error::bad_request("Flavor's memory is too small for requested image."));
    }
    if flavor.root_gb > 0 {
        let room = flavor.root_gb << 30;
        let size = image.virtual_size.or(image.size).unwrap_or(0);
        if size > room {
            return Err(Error::bad_request(format!(
                "Flavor's disk is too small for requested image. Flavor disk is {room} bytes, image is {size} bytes."
            )));
        }
        if image.min_disk > flavor.root_gb {
            return Err(Error::bad_request(format!(
                "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {room} bytes, minimum size is {} bytes.",
                image.min_disk << 30
            )));
        }
    }
    Ok(ServerImage {
        id: id.to_owned(),
        digest: digest.clone(),
        format: format.clone(),
        properties: image.properties.clone(),
    })
}

fn networks(body: Option<&NetworksBody>, minor: u16) -> Result<Networks> {
    match body {
        Some(NetworksBody::Word(word)) if word == "none" => Ok(Networks::None),
        None | Some(NetworksBody::Word(_)) => Ok(Networks::Auto),
        Some(NetworksBody::List(list)) if list.is_empty() => Ok(Networks::Auto),
        Some(NetworksBody::List(list)) => list
            .iter()
            .enumerate()
            .map(|(i, n)| wanted_port(i, n, minor))
            .collect::<Result<_>>()
            .map(Networks::Listed),
    }
}

fn wanted_port(index: usize, body: &NetworkBody, minor: u16) -> Result<WantedPort> {
    let field = |name: &str| format!("server.networks[{index}].{name}");
    for (name, id) in [("uuid", &body.uuid), ("port", &body.port)] {
        if let Some(id) = id
            && !wire::is_uuid(id)
        {
            return Err(invalid(&field(name), format!("'{id}' is not a 'uuid'")));
        }
    }
    if body.uuid.is_none() && body.port.is_none() {
        return Err(Error::bad_request(format!(
            "Bad networks format: network uuid is not in proper format ({})",
            field("uuid")
        )));
    }
    if let Some(tag) = &body.tag {
        check_tag(tag)?;
    }
    // Upstream had tags of NICs from 2.32 to 2.36, lost them, and has them again from 2.42 on.
    if body.tag.is_some() && !((32..=36).contains(&minor) || minor >= 42) {
        return Err(invalid(
            &field("tag"),
            "Additional properties are not allowed ('tag' was unexpected)",
        ));
    }
    let fixed_ip = body
        .fixed_ip
        .as_deref()
        .map(|text| {
            text.parse()
                .map_err(|_| invalid(&field("fixed_ip"), format!("'{text}' is not an IP address")))
        })
        .transpose()?;
    if fixed_ip.is_some() && body.port.is_some() {
        return Err(Error::bad_request(
            "Specified Fixed IP cannot be used with a port: choose one of them.",
        ));
    }
    Ok(WantedPort {
        network: body.uuid.clone(),
        port: body.port.clone(),
        fixed_ip,
        tag: body.tag.clone(),
    })
}

/// Zone and host that were asked for: `zone:host:node` of old, and `host`/`hypervisor_hostname` (2.74).
fn placement_of(request: &Request, caller: &Caller, body: &CreateBody) -> Result<(Option<String>, Option<String>)> {
    let target = maru_auth::Target::of_caller(caller);
    let (mut zone, mut host) = (None, None);
    if let Some(text) = body.availability_zone.as_deref().filter(|z| !z.is_empty()) {
        if text.chars().count() > 255 {
            return Err(invalid("server.availability_zone", "At most 255 characters."));
        }
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() > 3 {
            return Err(Error::bad_request(
                "Invalid availability_zone: it is zone, zone:host or zone:host:node.",
            ));
        }
        zone = parts.first().filter(|p| !p.is_empty()).map(|p| (*p).to_owned());
        host = parts.iter().skip(1).find(|p| !p.is_empty()).map(|p| (*p).to_owned());
        if host.is_some() {
            request.authorize_rule("os_compute_api:servers:create:forced_host", &target)?;
        }
    }
    if let (Some(a), Some(b)) = (&body.host, &body.hypervisor_hostname)
        && a != b
    {
        return Err(Error::bad_request(format!(
            "No host fits both: host is {a}, hypervisor_hostname is {b}; here they are one name."
        )));
    }
    if let Some(name) = body.host.as_ref().or(body.hypervisor_hostname.as_ref()) {
        request.authorize_rule("compute:servers:create:requested_destination", &target)?;
        if host.is_some() {
            return Err(Error::bad_request(
                "A host was asked for twice: by availability_zone and by host.",
            ));
        }
        host = Some(name.clone());
    }
    Ok((zone, host))
}

/// Checks metadata: keys and values of at most 255 characters.
pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in metadata {
        let fits = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b));
        if key.is_empty() || key.len() > 255 || !fits {
            return Err(invalid(
                "metadata",
                format!("'{key}' is not a key: 1 to 255 letters, digits and -_:. characters"),
            ));
        }
        if value.chars().count() > 255 {
            return Err(invalid(
                &format!("metadata.{key}"),
                "a value has at most 255 characters",
            ));
        }
    }
    Ok(())
}

/// Checks tags: at most 50, each 1 to 60 characters without `/` and `,`.
pub(crate) fn check_tags(tags: &[String]) -> Result<()> {
    if tags.iter().collect::<BTreeSet<_>>().len() > 50 {
        return Err(Error::bad_request(
            "The number of tags exceeded the per-server limit 50",
        ));
    }
    tags.iter().try_for_each(|t| check_tag(t))
}

/// Checks one tag.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    if tag.is_empty() || tag.chars().count() > 60 || tag.contains(['/', ',']) {
        return Err(invalid(
            "tags",
            format!("'{tag}' is not a tag: 1 to 60 characters without / and ,"),
        ));
    }
    Ok(())
}

/// Checks certificate ids: 1 to 50, all different.
pub(crate) fn check_certificates(field: &str, ids: &[String]) -> Result<()> {
    let different = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    if ids.is_empty() || ids.len() > 50 || !different || ids.iter().any(String::is_empty) {
        return Err(invalid(field, "1 to 50 certificate ids, each once and not empty."));
    }
    Ok(())
}

/// Checks user data: base64 (line ends inside it do not matter), at most 64 KiB.
pub(crate) fn check_user_data(data: &str) -> Result<()> {
    if data.len() > USER_DATA_MAX {
        return Err(invalid(
            "user_data",
            format!("it has {} characters, at most {USER_DATA_MAX}", data.len()),
        ));
    }
    base64::engine::general_purpose::STANDARD
        .decode(data.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>())
        .map(|_| ())
        .map_err(|_| invalid("user_data", "it is not base64"))
}

/// Checks an address of an IP version; the empty text clears it.
pub(crate) fn check_address(field: &str, text: Option<&str>, v4: bool) -> Result<()> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(());
    };
    let good = text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4() == v4);
    if good {
        Ok(())
    } else {
        Err(invalid(
            field,
            format!("'{text}' is not an 'ipv{}'", if v4 { 4 } else { 6 }),
        ))
    }
}

/// Reads `OS-DCF:diskConfig`.
pub(crate) fn disk_config(text: Option<&str>, default: bool) -> Result<bool> {
    match text {
        None => Ok(default),
        Some("AUTO") => Ok(true),
        Some("MANUAL") => Ok(false),
        Some(other) => Err(invalid(
            "OS-DCF:diskConfig",
            format!("'{other}' is not one of ['AUTO', 'MANUAL']"),
        )),
    }
}

/// Checks a host name that was given (2.90).
pub(crate) fn check_hostname(name: &str) -> Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 255 || !name.split('.').all(label) {
        return Err(invalid("hostname", format!("'{name}' is not a host name")));
    }
    Ok(())
}

/// A host name made from a display name; empty when nothing of it can be used.
pub(crate) fn hostname_of(name: &str) -> String {
    let mut host = String::new();
    for c in name.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => host.push(c),
            ' ' | '_' | '.' | '-' => host.push('-'),
            _ => {}
        }
    }
    let host = host.trim_matches('-');
    host.get(..host.len().min(60))
        .unwrap_or("")
        .trim_end_matches('-')
        .to_owned()
}

/// A password for a guest: 12 characters, none of which is taken for another one.
pub(crate) fn random_password() -> String {
    random_word(12, b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
}

/// A random word of these characters.
pub(crate) fn random_word(length: usize, of: &[u8]) -> String {
    let bound = u64::try_from(of.len()).unwrap_or(1);
    (0..length)
        .filter_map(|_| of.get(usize::try_from(maru_base::random::below(bound)).ok()?))
        .map(|b| char::from(*b))
        .collect()
}

/// Changes name, description, access addresses, host name.
pub(crate) async fn update(app: &App, request: &Request, id: &str, body: UpdateBody) -> Result<()> {
    if let Some(name) = &body.name {
        wire::check_name("server.name", name)?;
    }
    if let Some(Some(text)) = &body.description {
        wire::check_text("server.description", text)?;
    }
    if let Some(name) = &body.hostname {
        check_hostname(name)?;
    }
    check_address("server.accessIPv4", body.access_ipv4.as_deref(), true)?;
    check_address("server.accessIPv6", body.access_ipv6.as_deref(), false)?;
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize(&target(&server))?;
            let mut new = (*server.value).clone();
            if let Some(name) = &body.name {
                new.name.clone_from(name);
            }
            if let Some(text) = &body.description {
                new.description.clone_from(text);
            }
            if let Some(name) = &body.hostname {
                new.hostname.clone_from(name);
            }
            if let Some(ip) = &body.access_ipv4 {
                new.access_ipv4 = Some(ip.clone()).filter(|t| !t.is_empty());
            }
            if let Some(ip) = &body.access_ipv6 {
                new.access_ipv6 = Some(shortest(ip)).filter(|t| !t.is_empty());
            }
            new.auto_disk_config = disk_config(body.disk_config.as_deref(), new.auto_disk_config)?;
            new.updated = maru_base::time::now();
            let mut txn = Txn::new();
            txn.update(&server, &new);
            Ok((txn, ()))
        })
        .await
}

/// Asks for deletion. A server stays visible until its node has removed it.
pub(crate) async fn delete(app: &App, request: &Request, id: &str) -> Result<()> {
    let caller = request.caller()?.clone();
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, id)?;
            request.authorize_rule("os_compute_api:servers:delete", &target(&server))?;
            rules::check_lock(&caller, id, &server)?;
            let mut txn = Txn::new();
            plan_delete_server(snapshot, &mut txn, &server, &request.id, &caller.user_id)?;
            Ok((txn, ()))
        })
        .await?;
    app.record(id, &request.id, "deletion asked").await;
    Ok(())
}
