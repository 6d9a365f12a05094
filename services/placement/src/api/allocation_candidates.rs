//! `/allocation_candidates`.

use super::{accepts_json, filters, json, since};
use crate::{
    App,
    app::{unknown_class, unknown_traits},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, Routes};
use maru_placement_model::{
    ResourceProvider, Usages,
    candidates::{self, Candidate, Group, Wanted},
};
use maru_store::{Object, Snapshot};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The code of a value that contradicts another.
const BAD_VALUE: &str = "placement.query.bad_value";
/// The parameters of a group, and since when each is there.
const OF_GROUP: [(&str, u16); 4] = [("resources", 10), ("required", 17), ("member_of", 21), ("in_tree", 31)];
/// The other parameters.
const OF_ALL: [(&str, u16); 4] = [
    ("limit", 16),
    ("group_policy", 25),
    ("root_required", 35),
    ("same_subtree", 36),
];

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes.get("/allocation_candidates", "placement:allocation_candidates:list", list)
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 10)?;
    let wanted = wanted(&request)?;
    let snapshot = app.current().await?;
    let groups = wanted.groups.values();
    if let Some(class) = unknown_class(&snapshot, groups.clone().flat_map(|g| g.resources.keys())) {
        return Err(Error::invalid(
            "resources",
            format!("Invalid resource class in resources parameter: No such resource class {class}."),
        ));
    }
    let traits = groups
        .flat_map(|g| g.required.iter().flatten().chain(&g.forbidden))
        .chain(&wanted.root_required)
        .chain(&wanted.root_forbidden);
    if let Some(names) = unknown_traits(&snapshot, traits) {
        return Err(Error::invalid("required", format!("No such trait(s): {names}.")));
    }
    let usages = Usages::read(&snapshot);
    let found = candidates::find(&snapshot, &usages, &wanted);
    json(
        &request,
        200,
        &answer(&request, &snapshot, &usages, &wanted, &found),
        None,
    )
}

/// Reads the suffix of a group's parameter: digits, from microversion 1.33 on any name.
fn suffix<'a>(request: &Request, key: &'a str) -> Option<&'a str> {
    let (name, _) = OF_GROUP
        .iter()
        .find(|(name, since)| key.starts_with(name) && request.at_least(1, *since))?;
    let suffix = &key[name.len()..];
    let fits = if suffix.is_empty() {
        true
    } else if request.at_least(1, 33) {
        suffix.len() <= 64
            && suffix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    } else {
        request.at_least(1, 25) && !suffix.starts_with('0') && suffix.bytes().all(|b| b.is_ascii_digit())
    };
    fits.then_some(suffix)
}

fn wanted(request: &Request) -> Result<Wanted> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (key, _) in request.query.pairs() {
        if OF_ALL
            .iter()
            .any(|(name, since)| *name == key && request.at_least(1, *since))
        {
            continue;
        }
        let suffix = suffix(request, key).ok_or_else(|| filters::unexpected(key))?;
        if !groups.contains_key(suffix) {
            groups.insert(suffix.to_owned(), filters::group(request, suffix)?);
        }
    }
    let mut same_subtree = Vec::new();
    for text in request.query.all("same_subtree") {
        same_subtree.push(subtree(text)?);
    }
    check_groups(request, &groups, &same_subtree)?;
    let (root_required, root_forbidden) = root_traits(request)?;
    let isolate = match request.query.all("group_policy").next() {
        Some("isolate") => true,
        Some("none") => false,
        Some(other) => {
            return Err(filters::invalid(
                "group_policy",
                &format!("'{other}' is not one of ['none', 'isolate']"),
            ));
        }
        None if groups.keys().filter(|s| !s.is_empty()).count() > 1 => {
            return Err(Error::invalid(
                "group_policy",
                "The \"group_policy\" parameter is required when specifying more than one \"resources{$S}\" parameter.",
            ));
        }
        None => false,
    };
    let limit = match request.query.all("limit").next() {
        None => None,
        Some(text) => match text.parse::<usize>() {
            Ok(n) if n > 0 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0') => Some(n),
            _ => {
                return Err(filters::invalid(
                    "limit",
                    &format!("'{text}' does not match '^[1-9][0-9]*$'"),
                ));
            }
        },
    };
    Ok(Wanted {
        groups,
        isolate,
        same_subtree,
        root_required,
        root_forbidden,
        limit,
        nested: request.at_least(1, 29),
    })
}

/// The suffixes of one `same_subtree`.
fn subtree(text: &str) -> Result<BTreeSet<String>> {
    let suffixes: BTreeSet<String> = text.split(',').map(|s| s.trim().to_owned()).collect();
    if suffixes.contains("") {
        return Err(Error::invalid(
            "same_subtree",
            format!("Empty string (unsuffixed group) can not be specified in `same_subtree`. Got: {text}."),
        )
        .with_code(BAD_VALUE));
    }
    Ok(suffixes)
}

/// Which groups may be without resources: none, and from microversion 1.36 on those that a `same_subtree` names.
fn check_groups(request: &Request, groups: &BTreeMap<String, Group>, same_subtree: &[BTreeSet<String>]) -> Result<()> {
    let empty: Vec<&str> = groups
        .iter()
        .filter(|(_, g)| g.resources.is_empty())
        .map(|(s, _)| s.as_str())
        .collect();
    if request.at_least(1, 36) {
        if empty.len() == groups.len() {
            return Err(Error::invalid(
                "resources",
                "There must be at least one resources or resources[$S] parameter.",
            )
            .with_code("placement.query.missing_value"));
        }
        let named: BTreeSet<&str> = same_subtree.iter().flatten().map(String::as_str).collect();
        let alone: Vec<&str> = empty.iter().copied().filter(|s| !named.contains(s)).collect();
        if !alone.is_empty() {
            return Err(Error::invalid(
                format!("resources{}", alone[0]),
                format!(
                    "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - \
                     {}.",
                    alone.join(", ")
                ),
            )
            .with_code(BAD_VALUE));
        }
        if let Some(unreal) = named.iter().find(|s| !groups.contains_key(**s)) {
            return Err(Error::invalid(
                "same_subtree",
                format!(
                    "Real suffixes should be specified in `same_subtree`: {unreal} not found in [{}].",
                    groups.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            )
            .with_code(BAD_VALUE));
        }
    } else if let Some(suffix) = empty.first() {
        let group = &groups[*suffix];
        let (key, what) = if !group.required.is_empty() || !group.forbidden.is_empty() {
            ("required", "All traits parameters")
        } else if !group.member_of.is_empty() || !group.not_member_of.is_empty() {
            ("member_of", "All member_of parameters")
        } else {
            ("in_tree", "All request groups")
        };
        return Err(Error::invalid(
            format!("{key}{suffix}"),
            format!(
                "{what} must be associated with resources. Found the following orphaned key: {key}{suffix}; add \
                 resources{suffix}."
            ),
        ));
    } else if groups.is_empty() {
        return Err(Error::invalid(
            "resources",
            "At least one request group (`resources` or `resources{$S}`) is required: 'resources' is a required property.",
        ));
    }
    for (suffix, group) in groups {
        if let Some(both) = group.required.iter().find(|any| any.is_subset(&group.forbidden)) {
            return Err(Error::invalid(
                format!("required{suffix}"),
                format!(
                    "Conflicting required and forbidden traits found in the following traits keys: required{suffix}: ({}).",
                    both.iter().cloned().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// Traits that the root of the anchor must and must not have.
fn root_traits(request: &Request) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let key = "root_required";
    let values: Vec<&str> = request.query.all(key).collect();
    if values.len() > 1 {
        return Err(
            Error::invalid(key, "Query parameter 'root_required' may be specified only once.")
                .with_code("placement.query.duplicate_key"),
        );
    }
    let mut sets = filters::Sets::default();
    if let Some(value) = values.first() {
        if value.starts_with("in:") {
            return Err(filters::invalid(
                key,
                &format!("the format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' is not supported here. Got: {value}"),
            ));
        }
        filters::one_of_traits(request, key, value, &mut sets)?;
    }
    let required: BTreeSet<String> = sets.0.into_iter().flatten().collect();
    let both: Vec<&str> = required.intersection(&sets.1).map(String::as_str).collect();
    if !both.is_empty() {
        return Err(Error::invalid(
            key,
            format!(
                "Conflicting required and forbidden traits found in root_required: {}.",
                both.join(", ")
            ),
        )
        .with_code(BAD_VALUE));
    }
    Ok((required, sets.1))
}

#[derive(Serialize)]
struct Answer<'a> {
    allocation_requests: Vec<AllocationRequest<'a>>,
    provider_summaries: BTreeMap<String, Summary>,
}

#[derive(Serialize)]
struct AllocationRequest<'a> {
    allocations: Allocated<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mappings: Option<&'a BTreeMap<String, BTreeSet<maru_placement_model::ProviderId>>>,
}

#[derive(Serialize)]
struct Of<'a> {
    resources: &'a BTreeMap<String, u64>,
}

/// What to allocate, in the form that `PUT /allocations/{consumer}` takes: an object from microversion 1.12 on.
#[derive(Serialize)]
#[serde(untagged)]
enum Allocated<'a> {
    Listed(Vec<Listed<'a>>),
    ByProvider(BTreeMap<&'a str, Of<'a>>),
}

#[derive(Serialize)]
struct Listed<'a> {
    resource_provider: Named<'a>,
    resources: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Named<'a> {
    uuid: &'a str,
}

#[derive(Serialize)]
struct Room {
    capacity: i64,
    used: i64,
}

/// A provider of a tree that candidates take from.
#[derive(Serialize)]
struct Summary {
    resources: BTreeMap<String, Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traits: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_provider_uuid: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_provider_uuid: Option<String>,
}

fn answer<'a>(
    request: &Request,
    snapshot: &Snapshot,
    usages: &Usages,
    wanted: &Wanted,
    found: &'a [Candidate],
) -> Answer<'a> {
    let by_provider = request.at_least(1, 12);
    let mapped = request.at_least(1, 34);
    let one = |candidate: &'a Candidate| AllocationRequest {
        allocations: if by_provider {
            let of = candidate.allocations.iter();
            Allocated::ByProvider(of.map(|(id, resources)| (id.as_str(), Of { resources })).collect())
        } else {
            let of = candidate.allocations.iter();
            Allocated::Listed(
                of.map(|(id, resources)| Listed {
                    resource_provider: Named { uuid: id },
                    resources,
                })
                .collect(),
            )
        },
        mappings: mapped.then_some(&candidate.mappings),
    };
    let asked: BTreeSet<&String> = wanted.groups.values().flat_map(|g| g.resources.keys()).collect();
    let taken: BTreeSet<_> = found.iter().flat_map(|c| c.allocations.keys()).collect();
    let has_trees = snapshot.list::<ResourceProvider>().any(|p| p.parent.is_some());
    Answer {
        allocation_requests: found.iter().map(one).collect(),
        provider_summaries: candidates::trees(snapshot, found)
            .iter()
            // Who cannot know of trees sees only the providers that are taken from.
            .filter(|p| wanted.nested || !has_trees || taken.contains(&p.id))
            .map(|p| (p.id.to_string(), summary(request, usages, p, &asked)))
            .collect(),
    }
}

fn summary(
    request: &Request,
    usages: &Usages,
    provider: &Object<ResourceProvider>,
    asked: &BTreeSet<&String>,
) -> Summary {
    let all = request.at_least(1, 27);
    let tree = request.at_least(1, 29);
    let room = provider
        .inventories
        .iter()
        .filter(|(class, _)| all || asked.contains(class))
        .map(|(class, inventory)| {
            let room = Room {
                capacity: inventory.capacity(),
                used: usages.of(&provider.id, class),
            };
            (class.clone(), room)
        });
    Summary {
        resources: room.collect(),
        traits: request.at_least(1, 17).then(|| provider.traits.clone()),
        parent_provider_uuid: tree.then(|| provider.parent.as_ref().map(ToString::to_string)),
        root_provider_uuid: tree.then(|| provider.root.to_string()),
    }
}
