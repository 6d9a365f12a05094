//! Lists of servers: filters, sorting, pages.

use crate::{
    App,
    api::{
        server_view::{self, Shape},
        wire::{Link, invalid},
    },
};
use maru_base::{Error, Result};
use maru_compute_model::{Server, ServerId, Task, VmState, network, observed_power};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_store::{Object, Snapshot};
use serde::{Serialize, Serializer};
use std::{cmp::Ordering, net::IpAddr, sync::Arc};

/// Most servers of one page.
const MAX_PAGE: usize = 1_000;

/// Filters that everyone may use; others are for administrators.
const OPEN_FILTERS: &[&str] = &[
    "reservation_id",
    "name",
    "status",
    "image",
    "flavor",
    "ip",
    "changes-since",
    "changes-before",
    "all_tenants",
    "ip6",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "locked",
    "availability_zone",
    "config_drive",
    "key_name",
    "created_at",
    "launched_at",
    "terminated_at",
    "power_state",
    "task_state",
    "vm_state",
    "progress",
    "user_id",
];
/// Filters of administrators.
const ADMIN_FILTERS: &[&str] = &[
    "host",
    "node",
    "hostname",
    "project_id",
    "tenant_id",
    "uuid",
    "deleted",
    "kernel_id",
    "ramdisk_id",
    "root_device_name",
    "launch_index",
    "description",
    "display_description",
    "locked_by",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "soft_deleted",
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "instance_type_id",
    "display_name",
    "image_ref",
    "cell_name",
    "host_status",
    "default_ephemeral_device",
    "default_swap_device",
    "disable_terminate",
    "ephemeral_gb",
    "root_gb",
    "memory_mb",
    "vcpus",
    "os_type",
    "architecture",
    "vm_mode",
    "shutdown_terminate",
    "updated_at",
    "created_at",
];
const PAGE_KEYS: &[&str] = &["limit", "marker", "sort_key", "sort_dir"];
const SORT_KEYS: &[&str] = &[
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "availability_zone",
    "config_drive",
    "created_at",
    "display_description",
    "display_name",
    "host",
    "hostname",
    "image_ref",
    "instance_type_id",
    "kernel_id",
    "key_name",
    "launch_index",
    "launched_at",
    "locked",
    "locked_by",
    "node",
    "power_state",
    "progress",
    "project_id",
    "ramdisk_id",
    "root_device_name",
    "task_state",
    "terminated_at",
    "updated_at",
    "user_id",
    "uuid",
    "vm_state",
];

/// Sort keys that old microversions take and do not heed.
const IGNORED_SORT_KEYS: &[&str] = &[
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "deleted_at",
    "disable_terminate",
    "ephemeral_gb",
    "ephemeral_key_uuid",
    "id",
    "key_data",
    "launched_on",
    "memory_mb",
    "os_type",
    "reservation_id",
    "root_gb",
    "shutdown_terminate",
    "user_data",
    "vcpus",
    "vm_mode",
];

#[derive(Serialize)]
struct List<S> {
    servers: S,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    servers_links: Vec<Link>,
}

/// A list whose items are made one by one as they are written: a thousand views at once would be megabytes.
struct Each<F>(F);

impl<T: Serialize, I: Iterator<Item = T>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// `GET /servers`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let (found, links) = select(&snapshot, &request, "os_compute_api:servers:index:get_all_tenants")?;
    let servers = Each(|| found.iter().map(|s| server_view::brief(&request.base, s)));
    Reply::json(
        200,
        &List {
            servers,
            servers_links: links,
        },
    )
}

/// `GET /servers/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let (found, links) = select(&snapshot, &request, "os_compute_api:servers:detail:get_all_tenants")?;
    let shape = Shape::of(&request, false);
    let servers = Each(|| found.iter().map(|s| server_view::full(&snapshot, &shape, s)));
    Reply::json(
        200,
        &List {
            servers,
            servers_links: links,
        },
    )
}

fn select(snapshot: &Snapshot, request: &Request, all_rule: &str) -> Result<(Vec<Object<Server>>, Vec<Link>)> {
    let caller = request.caller()?;
    let query = &request.query;
    check_filters(request)?;
    let page = Page::from_query(query, MAX_PAGE, MAX_PAGE)?;
    let every_filter = request.may(
        "os_compute_api:servers:allow_all_filters",
        &maru_auth::Target::of_caller(caller),
    );
    let keys = sort_keys(request)?;
    // `all_tenants` without a value counts as true, as upstream reads it; `tenant_id` alone implies it.
    let wants_all = match query.get("all_tenants") {
        Some("") => true,
        None => every_filter && query.has("tenant_id"),
        _ => query.bool("all_tenants")?.unwrap_or(false),
    };
    let filters = Filters::read(request, every_filter)?;
    let mut found: Vec<Object<Server>> = if wants_all {
        request.authorize_rule(all_rule, &maru_auth::Target::of_caller(caller))?;
        match query.get("tenant_id").or_else(|| query.get("project_id")) {
            Some(project) => snapshot.find::<Server>("project", project).collect(),
            None => snapshot.list::<Server>().collect(),
        }
    } else {
        // Without `all_tenants` a list is of the caller's own project, whatever else is asked for.
        snapshot.find::<Server>("project", caller.require_project()?).collect()
    };
    let marker = match &page.marker {
        None => None,
        Some(id) => Some(
            snapshot
                .get::<Server>(&ServerId::from(id))
                .filter(|s| wants_all || Some(&s.project_id) == caller.project_id())
                .ok_or_else(|| Error::invalid("marker", format!("marker [{id}] not found")))?,
        ),
    };
    found.retain(|s| filters.fits(snapshot, s));
    found.sort_by(|a, b| compare(snapshot, &keys, a, b));
    // A page begins after the marker's place in the order: the marker itself need not fit the filters any more.
    let start = marker.map_or(0, |m| {
        found.partition_point(|s| compare(snapshot, &keys, s, &m) != Ordering::Greater)
    });
    let items: Vec<_> = found.into_iter().skip(start).take(page.limit).collect();
    let full = query.has("limit") && page.limit > 0 && items.len() == page.limit || items.len() == MAX_PAGE;
    let links = match items.last().filter(|_| full) {
        Some(last) => vec![Link {
            rel: "next",
            href: next_link(request, &last.id),
        }],
        None => Vec::new(),
    };
    Ok((items, links))
}

fn check_filters(request: &Request) -> Result<()> {
    if !request.at_least(2, 75) {
        return Ok(());
    }
    for (key, _) in request.query.pairs() {
        if !OPEN_FILTERS.contains(&key) && !ADMIN_FILTERS.contains(&key) && !PAGE_KEYS.contains(&key) {
            return Err(Error::invalid(
                key,
                format!(
                    "Invalid input for query parameters {key}. Additional properties are not allowed ('{key}' was unexpected)"
                ),
            ));
        }
    }
    Ok(())
}

struct SortKey {
    name: String,
    descending: bool,
}

fn sort_keys(request: &Request) -> Result<Vec<SortKey>> {
    let query = &request.query;
    let dirs: Vec<&str> = query.all("sort_dir").collect();
    let mut keys = Vec::new();
    for (i, key) in query.all("sort_key").enumerate() {
        // The order by host tells which servers share one.
        if matches!(key, "host" | "node") && !request.caller()?.is_admin() {
            return Err(Error::forbidden(format!(
                "Only administrators can sort servers by {key}"
            )));
        }
        let ignored = IGNORED_SORT_KEYS.contains(&key) || (key == "locked" && !request.at_least(2, 73));
        if ignored && !request.at_least(2, 75) {
            continue;
        }
        if ignored || !SORT_KEYS.contains(&key) {
            return Err(Error::invalid(
                "sort_key",
                format!("Invalid input for query parameters sort_key. '{key}' cannot be sorted by."),
            ));
        }
        keys.push(SortKey {
            name: key.to_owned(),
            descending: dirs.get(i).or(dirs.last()).copied().unwrap_or("desc") == "desc",
        });
    }
    if let Some(bad) = dirs.iter().find(|d| !matches!(**d, "asc" | "desc")) {
        return Err(Error::invalid(
            "sort_dir",
            format!("Invalid input for query parameters sort_dir. '{bad}' is not one of ['asc', 'desc']."),
        ));
    }
    if keys.is_empty() {
        keys.push(SortKey {
            name: "created_at".to_owned(),
            descending: dirs.first().copied().unwrap_or("desc") == "desc",
        });
    }
    Ok(keys)
}

fn compare(snapshot: &Snapshot, keys: &[SortKey], a: &Object<Server>, b: &Object<Server>) -> Ordering {
    for key in keys {
        let order = match key.name.as_str() {
            "created_at" => a.created.cmp(&b.created),
            "updated_at" => a.updated.cmp(&b.updated),
            "launched_at" => a.launched_at.cmp(&b.launched_at),
            "display_name" => a.name.cmp(&b.name),
            "display_description" => a.description.cmp(&b.description),
            "uuid" => a.id.cmp(&b.id),
            "vm_state" => a.vm_state.as_str().cmp(b.vm_state.as_str()),
            "task_state" => a.task.map(Task::as_str).cmp(&b.task.map(Task::as_str)),
            "host" | "node" => a.host.cmp(&b.host),
            "hostname" => a.hostname.cmp(&b.hostname),
            "key_name" => a.key.as_ref().map(|k| &k.name).cmp(&b.key.as_ref().map(|k| &k.name)),
            "project_id" => a.project_id.cmp(&b.project_id),
            "user_id" => a.user_id.cmp(&b.user_id),
            "launch_index" => a.launch_index.cmp(&b.launch_index),
            "availability_zone" => a.zone.cmp(&b.zone),
            "access_ip_v4" => a.access_ipv4.cmp(&b.access_ipv4),
            "access_ip_v6" => a.access_ipv6.cmp(&b.access_ipv6),
            "image_ref" => a.image.as_ref().map(|i| &i.id).cmp(&b.image.as_ref().map(|i| &i.id)),
            "instance_type_id" => a.flavor.id.cmp(&b.flavor.id),
            "locked" => a.lock.is_some().cmp(&b.lock.is_some()),
            "power_state" => observed_power(snapshot, &a.id)
                .number()
                .cmp(&observed_power(snapshot, &b.id).number()),
            _ => Ordering::Equal,
        };
        let order = if key.descending { order.reverse() } else { order };
        if order != Ordering::Equal {
            return order;
        }
    }
    // Servers of one multi-create are made in one instant: the first made comes last, like the ids of upstream.
    b.created
        .cmp(&a.created)
        .then_with(|| b.launch_index.cmp(&a.launch_index))
        .then_with(|| b.id.cmp(&a.id))
}

/// The filters of a request.
#[derive(Default)]
struct Filters {
    name: Option<regex::Regex>,
    ip: Option<regex::Regex>,
    ip6: Option<regex::Regex>,
    statuses: Vec<String>,
    since: Option<jiff::Timestamp>,
    before: Option<jiff::Timestamp>,
    locked: Option<bool>,
    tags: Option<Vec<String>>,
    tags_any: Option<Vec<String>>,
    not_tags: Option<Vec<String>>,
    not_tags_any: Option<Vec<String>>,
    deleted: bool,
    impossible: bool,
    exact: Vec<(String, String)>,
}

impl Filters {
    fn read(request: &Request, admin: bool) -> Result<Self> {
        let (query, minor) = (&request.query, request.version.minor);
        let mut f = Self::default();
        for (key, value) in query.pairs() {
            let words = || Some(value.split(',').map(str::to_owned).collect::<Vec<_>>());
            match key {
                "name" | "display_name" => f.name = Some(pattern(key, value)?),
                "ip" => f.ip = Some(pattern(key, value)?),
                "ip6" if minor >= 5 || admin => f.ip6 = Some(pattern(key, value)?),
                "status" => f.statuses.push(value.to_uppercase()),
                "changes-since" => f.since = Some(time(key, value)?),
                "changes-before" if minor >= 66 => f.before = Some(time(key, value)?),
                "tags" if minor >= 26 => f.tags = words(),
                "tags-any" if minor >= 26 => f.tags_any = words(),
                "not-tags" if minor >= 26 => f.not_tags = words(),
                "not-tags-any" if minor >= 26 => f.not_tags_any = words(),
                "locked" if minor >= 73 => {
                    f.locked = query.bool("locked")?;
                }
                "deleted" if admin => f.deleted = query.bool("deleted").unwrap_or(None).unwrap_or(false),
                "image" | "flavor" | "reservation_id" | "uuid" => f.exact.push((key.to_owned(), value.to_owned())),
                "availability_zone" | "config_drive" | "key_name" | "power_state" | "task_state" | "vm_state"
                | "user_id"
                    if admin || minor >= 83 =>
                {
                    f.exact.push((key.to_owned(), value.to_owned()));
                }
                "host"
                | "node"
                | "hostname"
                | "launch_index"
                | "access_ip_v4"
                | "access_ip_v6"
                | "description"
                | "display_description"
                    if admin =>
                {
                    f.exact.push((key.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        if let (Some(since), Some(before)) = (f.since, f.before)
            && since > before
        {
            return Err(Error::bad_request(
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        if f.statuses.iter().any(|s| s == "DELETED") && !request.caller()?.is_admin() {
            return Err(Error::forbidden("Only administrators may list deleted servers"));
        }
        // A status that no server can have finds nothing; from 2.38 on it is an error.
        if !f.statuses.is_empty() && !f.statuses.iter().any(|s| STATUSES.contains(&s.as_str())) {
            if minor >= 38 {
                return Err(Error::invalid("status", "Invalid status value"));
            }
            f.impossible = true;
        }
        Ok(f)
    }

    fn fits(&self, snapshot: &Snapshot, s: &Object<Server>) -> bool {
        // Nothing is kept of servers that are gone.
        if self.deleted || self.impossible {
            return false;
        }
        if self.name.as_ref().is_some_and(|r| !r.is_match(&s.name)) {
            return false;
        }
        if !self.statuses.is_empty() && !self.statuses.iter().any(|w| w == s.status()) {
            return false;
        }
        // What is shown has no fraction of a second: what a client saw as `updated` is not before itself.
        if self.since.is_some_and(|t| s.updated < t)
            || self.before.is_some_and(|t| s.updated.as_second() > t.as_second())
        {
            return false;
        }
        if self.locked.is_some_and(|l| l != s.lock.is_some()) {
            return false;
        }
        let has = |t: &String| s.tags.contains(t);
        if self.tags.as_ref().is_some_and(|l| !l.iter().all(has))
            || self.tags_any.as_ref().is_some_and(|l| !l.iter().any(has))
            || self.not_tags.as_ref().is_some_and(|l| l.iter().all(has))
            || self.not_tags_any.as_ref().is_some_and(|l| l.iter().any(has))
        {
            return false;
        }
        if !self.exact.iter().all(|(k, v)| exact(snapshot, s, k, v)) {
            return false;
        }
        if self.ip.is_some() || self.ip6.is_some() {
            let ips: Vec<IpAddr> = network::addresses(snapshot, s)
                .into_iter()
                .filter(|a| !a.floating)
                .map(|a| a.ip)
                .collect();
            let some = |r: &Option<regex::Regex>, v4: bool| {
                r.as_ref()
                    .is_none_or(|r| ips.iter().any(|ip| ip.is_ipv4() == v4 && r.is_match(&ip.to_string())))
            };
            return some(&self.ip, true) && some(&self.ip6, false);
        }
        true
    }
}

/// The words of upstream; some of them no server of this cloud has yet.
const STATUSES: &[&str] = &[
    "ACTIVE",
    "BUILD",
    "DELETED",
    "ERROR",
    "HARD_REBOOT",
    "MIGRATING",
    "PASSWORD",
    "PAUSED",
    "REBOOT",
    "REBUILD",
    "RESCUE",
    "RESIZE",
    "REVERT_RESIZE",
    "SHELVED",
    "SHELVED_OFFLOADED",
    "SHUTOFF",
    "SOFT_DELETED",
    "SUSPENDED",
    "VERIFY_RESIZE",
];

fn exact(snapshot: &Snapshot, s: &Object<Server>, key: &str, value: &str) -> bool {
    match key {
        "image" => s
            .image
            .as_ref()
            .is_some_and(|i| i.id == value.rsplit('/').next().unwrap_or(value)),
        "flavor" => s.flavor.id == value.rsplit('/').next().unwrap_or(value),
        "reservation_id" => s.reservation_id == value,
        "uuid" => s.id == *value,
        "availability_zone" => {
            s.host
                .as_deref()
                .map_or_else(|| s.zone.clone(), |h| Some(maru_compute_model::zone_of(snapshot, h)))
                .as_deref()
                == Some(value)
        }
        "config_drive" => s.config_drive == matches!(value.to_ascii_lowercase().as_str(), "true" | "1"),
        "key_name" => s.key.as_ref().is_some_and(|k| k.name == value),
        "power_state" => observed_power(snapshot, &s.id).number().to_string() == value,
        "task_state" => s.task.is_some_and(|t| t.as_str() == value),
        "vm_state" => s.vm_state == VmState::Building && value == "building" || s.vm_state.as_str() == value,
        "user_id" => s.user_id == *value,
        "host" | "node" => s.host.as_deref() == Some(value),
        "hostname" => s.hostname == value,
        "launch_index" => s.launch_index.to_string() == value,
        "access_ip_v4" => s.access_ipv4.as_deref() == Some(value),
        "access_ip_v6" => s.access_ipv6.as_deref() == Some(value),
        "description" | "display_description" => s.description.as_deref() == Some(value),
        _ => true,
    }
}

/// A regular expression as upstream's databases take it. The engine is linear in time, so none can stall a request.
fn pattern(field: &str, text: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(text)
        .case_insensitive(true)
        .size_limit(1 << 18)
        .build()
        .map_err(|_| {
            Error::invalid(
                field,
                format!("Invalid input for query parameters {field}. '{text}' is not a 'regex'"),
            )
        })
}

/// A time as ISO 8601, with or without an offset.
pub(crate) fn time(field: &str, text: &str) -> Result<jiff::Timestamp> {
    text.parse::<jiff::Timestamp>()
        .or_else(|_| {
            text.parse::<jiff::civil::DateTime>()
                .and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC))
                .map(|z| z.timestamp())
        })
        .map_err(|_| invalid(field, format!("'{text}' is not a 'date-time'")))
}
