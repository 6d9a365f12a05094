//! Flavors, their extra specs and their access lists.

use crate::{
    App,
    api::wire::{self, Count, Flag, Link, Word, given, invalid, links, present, since},
    app::flavors as app,
};
use maru_base::{Error, Result};
use maru_compute_model::{Flavor, FlavorId, find_visible_flavor};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_store::{Object, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// The body of `POST /flavors`, under `flavor`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    pub name: String,
    #[serde(default)]
    pub id: Option<Word>,
    pub ram: Count,
    pub vcpus: Count,
    pub disk: Count,
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    #[serde(default, deserialize_with = "given")]
    pub ephemeral: Option<Count>,
    #[serde(default, deserialize_with = "given")]
    pub swap: Option<Count>,
    #[serde(default, deserialize_with = "given")]
    pub rxtx_factor: Option<Word>,
    #[serde(rename = "os-flavor-access:is_public")]
    #[serde(default, deserialize_with = "given")]
    pub is_public: Option<Flag>,
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Option<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    /// Null clears it, but it must be there.
    #[serde(deserialize_with = "Option::deserialize")]
    description: Option<String>,
}

#[derive(Serialize)]
struct Brief<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Option<&'a str>>,
    links: [Link; 2],
}

#[derive(Serialize)]
struct Full<'a> {
    id: &'a str,
    name: &'a str,
    ram: u64,
    disk: u64,
    vcpus: u32,
    swap: Swap,
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    ephemeral: u64,
    #[serde(rename = "OS-FLV-DISABLED:disabled")]
    disabled: bool,
    rxtx_factor: f64,
    #[serde(rename = "os-flavor-access:is_public")]
    is_public: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_specs: Option<&'a BTreeMap<String, String>>,
    links: [Link; 2],
}

/// No swap is an empty text before 2.75 and 0 from then on.
#[derive(Serialize)]
#[serde(untagged)]
enum Swap {
    Empty(&'static str),
    Mib(u64),
}

fn full<'a>(request: &Request, flavor: &'a Object<Flavor>) -> Full<'a> {
    let target = request
        .caller()
        .map(|c| maru_auth::Target::of_caller(c))
        .unwrap_or_default();
    let specs = request.at_least(2, 61) && request.may("os_compute_api:os-flavor-extra-specs:index", &target);
    Full {
        id: &flavor.id,
        name: &flavor.name,
        ram: flavor.memory_mb,
        disk: flavor.root_gb,
        vcpus: flavor.vcpus,
        swap: if flavor.swap_mb == 0 && !request.at_least(2, 75) {
            Swap::Empty("")
        } else {
            Swap::Mib(flavor.swap_mb)
        },
        ephemeral: flavor.ephemeral_gb,
        disabled: false,
        rxtx_factor: flavor.rxtx_factor,
        is_public: flavor.is_public,
        description: request.at_least(2, 55).then_some(flavor.description.as_deref()),
        extra_specs: specs.then_some(&flavor.extra_specs),
        links: links(&request.base, "flavors", &flavor.id),
    }
}

pub(crate) fn missing(id: &str) -> Error {
    Error::not_found(format!("Flavor {id} could not be found."))
}

fn find(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<Flavor>> {
    find_visible_flavor(snapshot, request.caller()?, id).ok_or_else(|| missing(id))
}

const SORT_KEYS: &[&str] = &[
    "created_at",
    "description",
    "disabled",
    "ephemeral_gb",
    "flavorid",
    "id",
    "is_public",
    "memory_mb",
    "name",
    "root_gb",
    "rxtx_factor",
    "swap",
    "updated_at",
    "vcpu_weight",
    "vcpus",
];

fn select(snapshot: &Snapshot, request: &Request) -> Result<(Vec<Object<Flavor>>, Vec<Link>)> {
    let caller = request.caller()?;
    let query = &request.query;
    let page = Page::from_query(query, 1_000, 1_000)?;
    // `is_public` is for administrators: true is the default, none means both.
    let public = match query.get("is_public").map(str::to_ascii_lowercase).as_deref() {
        _ if !caller.is_admin() => None,
        None => Some(true),
        Some("none") => None,
        Some("t" | "true" | "on" | "y" | "yes" | "1") => Some(true),
        Some("f" | "false" | "off" | "n" | "no" | "0") => Some(false),
        Some(other) => {
            return Err(Error::invalid(
                "is_public",
                format!("Invalid is_public filter [{other}]"),
            ));
        }
    };
    let number = |key: &str, label: &str| {
        query
            .get(key)
            .map(|t| {
                t.parse::<u64>()
                    .map_err(|_| Error::invalid(key, format!("Invalid {label} filter [{t}]")))
            })
            .transpose()
    };
    let min_disk = number("minDisk", "minDisk")?.unwrap_or(0);
    let min_ram = number("minRam", "minRam")?.unwrap_or(0);
    let key = query.get("sort_key").unwrap_or("flavorid");
    let mut found: Vec<Object<Flavor>> = snapshot
        .list::<Flavor>()
        .filter(|f| {
            let granted = caller.project_id().is_some_and(|p| f.access.contains(p.as_str()));
            let seen = if caller.is_admin() {
                public.is_none_or(|p| p == f.is_public) || (public == Some(true) && granted)
            } else {
                f.is_public || granted
            };
            seen && f.root_gb >= min_disk && f.memory_mb >= min_ram
        })
        .collect();
    if !SORT_KEYS.contains(&key) {
        return Err(Error::invalid(
            "sort_key",
            format!("Invalid input for query parameters sort_key. '{key}' cannot be sorted by."),
        ));
    }
    found.sort_by(|a, b| {
        match key {
            "flavorid" | "id" => a.id.cmp(&b.id),
            "name" => a.name.cmp(&b.name),
            "memory_mb" => a.memory_mb.cmp(&b.memory_mb),
            "vcpus" => a.vcpus.cmp(&b.vcpus),
            "root_gb" => a.root_gb.cmp(&b.root_gb),
            "ephemeral_gb" => a.ephemeral_gb.cmp(&b.ephemeral_gb),
            "swap" => a.swap_mb.cmp(&b.swap_mb),
            "created_at" | "updated_at" => a.created.cmp(&b.created),
            "is_public" => a.is_public.cmp(&b.is_public),
            "rxtx_factor" => a.rxtx_factor.total_cmp(&b.rxtx_factor),
            _ => std::cmp::Ordering::Equal,
        }
        .then_with(|| a.id.cmp(&b.id))
    });
    match query.get("sort_dir") {
        None | Some("asc") => {}
        Some("desc") => found.reverse(),
        Some(other) => {
            return Err(Error::invalid(
                "sort_dir",
                format!("Invalid input for query parameters sort_dir. '{other}' is not one of ['asc', 'desc']."),
            ));
        }
    }
    let (items, _) = page
        .cut(found, |f| &f.id)
        .map_err(|_| Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or(""))))?;
    let links = match items.last() {
        Some(last) if query.has("limit") && items.len() == page.limit => vec![Link {
            rel: "next",
            href: next_link(request, &last.id),
        }],
        _ => Vec::new(),
    };
    Ok((items, links))
}

#[derive(Serialize)]
struct List<T> {
    flavors: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flavors_links: Vec<Link>,
}

/// `GET /flavors`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let (found, more) = select(&snapshot, &request)?;
    let flavors = found
        .iter()
        .map(|f| Brief {
            id: &f.id,
            name: &f.name,
            description: request.at_least(2, 55).then_some(f.description.as_deref()),
            links: links(&request.base, "flavors", &f.id),
        })
        .collect();
    Reply::json(
        200,
        &List {
            flavors,
            flavors_links: more,
        },
    )
}

/// `GET /flavors/detail`.
pub(crate) async fn detail(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let (found, more) = select(&snapshot, &request)?;
    let flavors = found.iter().map(|f| full(&request, f)).collect();
    Reply::json(
        200,
        &List {
            flavors,
            flavors_links: more,
        },
    )
}

#[derive(Serialize)]
struct One<'a> {
    flavor: Full<'a>,
}

/// `GET /flavors/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let flavor = find(&app.store.current().await?, &request, request.param("id"))?;
    Reply::json(
        200,
        &One {
            flavor: full(&request, &flavor),
        },
    )
}

/// `POST /flavors`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: CreateBody = wire::body(&mut request, "flavor").await?;
    if body.description.is_some() && !request.at_least(2, 55) {
        return Err(invalid(
            "flavor.description",
            "Additional properties are not allowed ('description' was unexpected)",
        ));
    }
    let id = app::create(&app, body).await?;
    let flavor = app.store.snapshot().get::<Flavor>(&id).ok_or_else(|| missing(&id))?;
    Reply::json(
        200,
        &One {
            flavor: full(&request, &flavor),
        },
    )
}

/// `PUT /flavors/{id}`: the description alone.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 55)?;
    let id = FlavorId::from(request.param("id"));
    let body: UpdateBody = wire::body(&mut request, "flavor").await?;
    app::change(&app, &id, |f| {
        f.description.clone_from(&body.description);
        Ok(())
    })
    .await?;
    let flavor = app.store.snapshot().get::<Flavor>(&id).ok_or_else(|| missing(&id))?;
    Reply::json(
        200,
        &One {
            flavor: full(&request, &flavor),
        },
    )
}

/// `DELETE /flavors/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app::delete(&app, request.param("id")).await?;
    Ok(Reply::empty(202))
}

/// `GET /flavors/{id}/os-extra_specs`.
pub(crate) async fn specs(app: Arc<App>, request: Request) -> Result<Reply> {
    let flavor = find(&app.store.current().await?, &request, request.param("id"))?;
    Reply::json(200, &json!({"extra_specs": flavor.extra_specs}))
}

/// `GET /flavors/{id}/os-extra_specs/{key}`.
pub(crate) async fn spec(app: Arc<App>, request: Request) -> Result<Reply> {
    let flavor = find(&app.store.current().await?, &request, request.param("id"))?;
    let key = request.param("key");
    let value = flavor.extra_specs.get(key).ok_or_else(|| no_spec(&flavor.id, key))?;
    Reply::json(200, &json!({ key: value }))
}

fn no_spec(id: &str, key: &str) -> Error {
    Error::not_found(format!("Flavor {id} has no extra specs with key {key}."))
}

/// Extra specs come as texts or numbers and are kept as texts.
fn specs_of(field: &str, map: serde_json::Map<String, serde_json::Value>) -> Result<BTreeMap<String, String>> {
    map.into_iter()
        .map(|(key, value)| {
            let good = !key.is_empty()
                && key.len() <= 255
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b));
            if !good {
                return Err(invalid(
                    field,
                    format!("'{key}' is not a key: letters, digits and -_:. characters"),
                ));
            }
            let text = match value {
                serde_json::Value::String(s) if s.chars().count() <= 255 => s,
                serde_json::Value::Number(n) => n.to_string(),
                _ => {
                    return Err(invalid(
                        &format!("{field}.{key}"),
                        "a value is a text of at most 255 characters",
                    ));
                }
            };
            Ok((key, text))
        })
        .collect()
}

/// `POST /flavors/{id}/os-extra_specs`.
pub(crate) async fn add_specs(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = FlavorId::from(request.param("id"));
    let map: serde_json::Map<_, _> = wire::body(&mut request, "extra_specs").await?;
    let specs = specs_of("extra_specs", map)?;
    app::change(&app, &id, |f| {
        f.extra_specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"extra_specs": specs}))
}

/// `PUT /flavors/{id}/os-extra_specs/{key}`.
pub(crate) async fn put_spec(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = FlavorId::from(request.param("id"));
    let key = request.param("key").to_owned();
    let map: serde_json::Map<String, serde_json::Value> = request.json().await?;
    if map.len() != 1 || !map.contains_key(&key) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    let specs = specs_of("extra_specs", map)?;
    app::change(&app, &id, |f| {
        f.extra_specs.extend(specs.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &specs)
}

/// `DELETE /flavors/{id}/os-extra_specs/{key}`.
pub(crate) async fn delete_spec(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = FlavorId::from(request.param("id"));
    let key = request.param("key").to_owned();
    app::change(&app, &id, |f| {
        f.extra_specs.remove(&key).map(|_| ()).ok_or_else(|| no_spec(&id, &key))
    })
    .await?;
    Ok(Reply::empty(200))
}

fn access_list(flavor: &Object<Flavor>) -> serde_json::Value {
    let list: Vec<_> = flavor
        .access
        .iter()
        .map(|p| json!({"flavor_id": flavor.id.as_str(), "tenant_id": p}))
        .collect();
    json!({"flavor_access": list})
}

/// `GET /flavors/{id}/os-flavor-access`.
pub(crate) async fn access(app: Arc<App>, request: Request) -> Result<Reply> {
    let flavor = find(&app.store.current().await?, &request, request.param("id"))?;
    if flavor.is_public {
        return Err(Error::not_found("Access list not available for public flavors."));
    }
    Reply::json(200, &access_list(&flavor))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantBody {
    tenant: String,
}

/// `POST /flavors/{id}/action`: `addTenantAccess`, `removeTenantAccess`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = FlavorId::from(request.param("id"));
    let map: serde_json::Map<String, serde_json::Value> = request.json().await?;
    let mut entries = map.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(Error::bad_request(
            "The request body has exactly one key, the name of the action.",
        ));
    };
    let target = maru_auth::Target::of_caller(request.caller()?);
    let add = match name.as_str() {
        "addTenantAccess" => {
            request.authorize_rule("os_compute_api:os-flavor-access:add_tenant_access", &target)?;
            true
        }
        "removeTenantAccess" => {
            request.authorize_rule("os_compute_api:os-flavor-access:remove_tenant_access", &target)?;
            false
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}"))),
    };
    let body: TenantBody = wire::typed(&name, value)?;
    if body.tenant.is_empty() || body.tenant.len() > 255 {
        return Err(invalid(
            &format!("{name}.tenant"),
            "a project id has 1 to 255 characters",
        ));
    }
    app::change(&app, &id, |f| {
        if add && f.is_public {
            return Err(Error::conflict(format!("Can not add access to a public flavor: {id}.")));
        }
        let changed = if add {
            f.access.insert(body.tenant.clone())
        } else {
            f.access.remove(&body.tenant)
        };
        match (changed, add) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::conflict(format!(
                "Flavor access already exists for flavor {id} and project {} combination.",
                body.tenant
            ))),
            (false, false) => Err(Error::not_found(format!(
                "Flavor access not found for {id} / {} combination.",
                body.tenant
            ))),
        }
    })
    .await?;
    let flavor = app.store.snapshot().get::<Flavor>(&id).ok_or_else(|| missing(&id))?;
    Reply::json(200, &access_list(&flavor))
}
