//! Lists of images: who sees which, filters, order.

use crate::App;
use maru_auth::Caller;
use maru_http::paging::Direction;
use maru_image_model::{Image, ImageId, Member, MemberStatus, Visibility, find_visible};
use maru_store::{Object, Snapshot};
use std::{cmp::Ordering, collections::HashSet};

/// Attributes that a list can be sorted by.
pub(crate) const SORT_KEYS: &[&str] = &[
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
];

/// A comparison with a time, by whole seconds as the API shows them.
pub(crate) struct Time {
    /// Of `created_at`, or else of `updated_at`.
    pub created: bool,
    /// Which orders of image to threshold fit.
    pub fits: fn(Ordering) -> bool,
    pub when: i64,
}

/// The filters of an image list.
#[derive(Default)]
pub(crate) struct Filter {
    pub visibility: Option<String>,
    pub member_status: Option<String>,
    pub hidden: bool,
    /// Attribute or property, and the values of which one must fit.
    pub equal: Vec<(String, Vec<String>)>,
    /// Numeric attribute, least and greatest.
    pub ranges: Vec<(String, Option<i64>, Option<i64>)>,
    pub tags: Vec<String>,
    pub times: Vec<Time>,
}

/// What a list is sorted by.
pub(crate) type Order = Vec<(String, Direction)>;

impl App {
    /// The images that a caller sees in a list, filtered and sorted.
    pub(crate) fn list(
        &self,
        snapshot: &Snapshot,
        caller: &Caller,
        filter: &Filter,
        order: &Order,
    ) -> Vec<Object<Image>> {
        let wanted = filter.visibility.as_deref().filter(|v| *v != "all");
        let mut found: Vec<Object<Image>> = match (caller.is_admin(), wanted) {
            (true, None) => snapshot.list::<Image>().collect(),
            (true, Some(v)) | (false, Some(v @ ("public" | "community"))) => {
                snapshot.find::<Image>("visibility", v).collect()
            }
            (false, _) => seen_by(snapshot, caller, filter),
        };
        found.retain(|image| {
            filter.fits(image)
                // The community's images are listed for their own project only, unless asked for.
                && (filter.visibility.is_some()
                    || image.visibility != Visibility::Community
                    || caller.project_id() == Some(&image.owner))
        });
        found.sort_by(|a, b| compare(a, b, order));
        found
    }

    /// Leaves the images behind a marker; false when there is no such marker for this caller.
    pub(crate) fn skip_to(
        &self,
        snapshot: &Snapshot,
        caller: &Caller,
        images: &mut Vec<Object<Image>>,
        marker: &str,
        order: &Order,
    ) -> bool {
        // The marker need not fit the filters any more: an image that has changed since must not break the walk.
        let Some(marker) = find_visible(snapshot, caller, &ImageId::from(marker)) else {
            return false;
        };
        images.retain(|image| compare(image, &marker, order) == Ordering::Greater);
        true
    }
}

/// Public images, the project's own, and those it is a member of with the wanted answer.
fn seen_by(snapshot: &Snapshot, caller: &Caller, filter: &Filter) -> Vec<Object<Image>> {
    let mut found = Vec::new();
    let mut ids = HashSet::new();
    let mut add = |image: Object<Image>| {
        if ids.insert(image.id.clone()) {
            found.push(image);
        }
    };
    if filter.visibility.as_deref().is_none_or(|v| v == "all") {
        snapshot.find::<Image>("visibility", "public").for_each(&mut add);
        if filter.visibility.is_some() {
            snapshot.find::<Image>("visibility", "community").for_each(&mut add);
        }
    }
    let Some(project) = caller.project_id() else {
        return found;
    };
    snapshot.find::<Image>("owner", project).for_each(&mut add);
    let status = filter.member_status.as_deref().unwrap_or("accepted");
    for member in snapshot.find::<Member>("project", project) {
        let word = match member.status {
            MemberStatus::Accepted => "accepted",
            MemberStatus::Pending => "pending",
            MemberStatus::Rejected => "rejected",
        };
        if (status == "all" || status == word)
            && let Some(image) = snapshot.get::<Image>(&member.image_id)
            && image.visibility == Visibility::Shared
        {
            add(image);
        }
    }
    found
}

fn compare(a: &Object<Image>, b: &Object<Image>, order: &Order) -> Ordering {
    for (key, direction) in order {
        let by = match key.as_str() {
            "name" => a.name.as_deref().unwrap_or("").cmp(b.name.as_deref().unwrap_or("")),
            "status" => a.status.as_str().cmp(b.status.as_str()),
            "container_format" => a.container_format.cmp(&b.container_format),
            "disk_format" => a.disk_format.cmp(&b.disk_format),
            "size" => a.size.cmp(&b.size),
            "created_at" => a.value.created_at.cmp(&b.value.created_at),
            "updated_at" => a.value.updated_at.cmp(&b.value.updated_at),
            _ => a.id.cmp(&b.id),
        };
        match (by, direction) {
            (Ordering::Equal, _) => {}
            (by, Direction::Ascending) => return by,
            (by, Direction::Descending) => return by.reverse(),
        }
    }
    Ordering::Equal
}

/// A numeric attribute.
fn number(image: &Image, name: &str) -> Option<u64> {
    match name {
        "size" => image.size,
        "virtual_size" => image.virtual_size,
        "min_disk" => Some(image.min_disk),
        "min_ram" => Some(image.min_ram),
        _ => None,
    }
}

/// Whether a name is that of a numeric attribute.
pub(crate) fn is_number(name: &str) -> bool {
    matches!(name, "size" | "virtual_size" | "min_disk" | "min_ram")
}

impl Filter {
    fn fits(&self, image: &Object<Image>) -> bool {
        self.hidden == image.hidden
            && self
                .visibility
                .as_deref()
                .is_none_or(|v| v == "all" || v == image.visibility.as_str())
            && self.times.iter().all(|t| {
                let shown = if t.created {
                    image.value.created_at
                } else {
                    image.value.updated_at
                };
                (t.fits)(shown.as_second().cmp(&t.when))
            })
            && self.ranges.iter().all(|(name, least, greatest)| {
                number(image, name)
                    .and_then(|n| i64::try_from(n).ok())
                    .is_some_and(|n| {
                        least.is_none_or(|least| n >= least) && greatest.is_none_or(|greatest| n <= greatest)
                    })
            })
            && self.tags.iter().all(|tag| image.tags.contains(tag))
            && self.equal.iter().all(|(name, values)| equals(image, name, values))
    }
}

/// Whether an attribute or property has one of the values.
fn equals(image: &Object<Image>, name: &str, values: &[String]) -> bool {
    let is = |have: Option<&str>| have.is_some_and(|have| values.iter().any(|v| v == have));
    match name {
        "id" => is(Some(&image.id)),
        "name" => is(image.name.as_deref()),
        "status" => is(Some(image.status.as_str())),
        "owner" => is(Some(&image.owner)),
        "disk_format" => is(image.disk_format.as_deref()),
        "container_format" => is(image.container_format.as_deref()),
        "checksum" => is(image.checksum.as_deref()),
        "os_hash_value" => is(image.digest.as_deref()),
        "os_hash_algo" => is(image.digest.as_ref().map(|_| "sha512")),
        "protected" => is(Some(if image.protected { "true" } else { "false" })),
        n if is_number(n) => is(number(image, n).map(|n| n.to_string()).as_deref()),
        _ => is(image.properties.get(name).map(String::as_str)),
    }
}
