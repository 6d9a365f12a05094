//! Host aggregates.

use crate::{
    App,
    api::wire::{self, invalid, present},
};
use maru_base::{Error, Result, time::micros_bare};
use maru_compute_model::{Aggregate, AggregateId, Server, find_service};
use maru_http::{Reply, Request};
use maru_image_model::{ImageId, ImageStatus};
use maru_store::{Key, Kind, Object, Snapshot, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    #[serde(default)]
    availability_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    availability_zone: Option<Option<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheBody {
    cache: Vec<CachedImage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedImage {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostBody {
    host: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataBody {
    metadata: BTreeMap<String, Option<String>>,
}

fn view(request: &Request, a: &Object<Aggregate>) -> Value {
    let mut v = json!({
        "id": a.id.parse::<u64>().unwrap_or(0),
        "name": a.name,
        "availability_zone": a.zone(),
        "hosts": a.hosts,
        "metadata": a.metadata,
        "created_at": micros_bare(a.value.created),
        "updated_at": a.updated.map(micros_bare),
        "deleted": false,
        "deleted_at": null,
    });
    if request.at_least(2, 41) {
        v["uuid"] = a.uuid.as_str().into();
    }
    v
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Aggregate {id} could not be found."))
}

fn find(snapshot: &Snapshot, id: &str) -> Result<Object<Aggregate>> {
    // -1 is a number that no aggregate has.
    if id.parse::<i64>().is_err() {
        return Err(Error::bad_request(format!(
            "Invalid input for field/attribute aggregate_id. '{id}' is not a whole number"
        )));
    }
    snapshot
        .get::<Aggregate>(&AggregateId::from(id))
        .ok_or_else(|| missing(id))
}

/// `GET /os-aggregates`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let mut found: Vec<Object<Aggregate>> = snapshot.list::<Aggregate>().collect();
    found.sort_by_key(|a| a.id.parse::<u64>().unwrap_or(0));
    let list: Vec<Value> = found.iter().map(|a| view(&request, a)).collect();
    Reply::json(200, &json!({"aggregates": list}))
}

/// `GET /os-aggregates/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let aggregate = find(&app.store.current().await?, request.param("id"))?;
    Reply::json(200, &json!({"aggregate": view(&request, &aggregate)}))
}

fn check_zone(zone: &str) -> Result<()> {
    if zone.contains(':') {
        return Err(invalid("aggregate.availability_zone", "a zone's name has no colon"));
    }
    wire::check_name("aggregate.availability_zone", zone)
}

/// `POST /os-aggregates`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: CreateBody = wire::body(&mut request, "aggregate").await?;
    wire::check_name("aggregate.name", &body.name)?;
    if let Some(zone) = &body.availability_zone {
        check_zone(zone)?;
    }
    let counter = Key::of(&["counter", "compute-aggregate-id"]);
    let id = app
        .store
        .plan(|snapshot| {
            if snapshot.owner(Aggregate::NAME, "", &body.name).is_some() {
                return Err(Error::conflict(format!("Aggregate {} already exists.", body.name)));
            }
            let id = AggregateId::from((snapshot.counter(&counter) + 1).to_string());
            let mut txn = Txn::new();
            txn.add(counter.clone(), 1, None);
            txn.claim(Aggregate::NAME, "", &body.name, &id);
            let zone = body
                .availability_zone
                .iter()
                .map(|z| ("availability_zone".to_owned(), z.clone()))
                .collect();
            txn.create(
                &id,
                &Aggregate {
                    uuid: maru_base::random::uuid(),
                    name: body.name.clone(),
                    hosts: BTreeSet::new(),
                    metadata: zone,
                    created: maru_base::time::now(),
                    updated: None,
                },
            );
            Ok((txn, id))
        })
        .await?;
    let aggregate = find(&app.store.snapshot(), &id)?;
    let mut v = view(&request, &aggregate);
    if let Value::Object(map) = &mut v {
        // Upstream's answer to a creation has neither.
        map.remove("hosts");
        map.remove("metadata");
    }
    Reply::json(200, &json!({"aggregate": v}))
}

async fn change(
    app: &App,
    id: &str,
    mut f: impl FnMut(&Snapshot, &mut Txn, &mut Aggregate) -> Result<()>,
) -> Result<Object<Aggregate>> {
    app.store
        .plan(|snapshot| {
            let aggregate = find(snapshot, id)?;
            let mut new = (*aggregate.value).clone();
            let mut txn = Txn::new();
            // That a host is in one zone only is a rule over all aggregates.
            txn.over_set(snapshot, "aggregates");
            f(snapshot, &mut txn, &mut new)?;
            new.updated = Some(maru_base::time::now());
            txn.update(&aggregate, &new);
            Ok((txn, ()))
        })
        .await?;
    find(&app.store.snapshot(), id)
}

/// A zone may not change under servers that are in it.
fn check_move(snapshot: &Snapshot, hosts: &BTreeSet<String>, what: &str) -> Result<()> {
    let used = hosts
        .iter()
        .any(|h| snapshot.find::<Server>("host", h).next().is_some());
    if used {
        return Err(Error::conflict(format!(
            "Cannot {what} aggregate: One or more hosts contain instances in this zone."
        )));
    }
    Ok(())
}

/// `PUT /os-aggregates/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: UpdateBody = wire::body(&mut request, "aggregate").await?;
    if body.name.is_none() && body.availability_zone.is_none() {
        return Err(invalid("aggregate", "name or availability_zone is needed"));
    }
    if let Some(name) = &body.name {
        wire::check_name("aggregate.name", name)?;
    }
    if let Some(Some(zone)) = &body.availability_zone {
        check_zone(zone)?;
    }
    let id = request.param("id").to_owned();
    let aggregate = change(&app, &id, |snapshot, txn, a| {
        if let Some(name) = &body.name
            && *name != a.name
        {
            if snapshot.owner(Aggregate::NAME, "", name).is_some() {
                return Err(Error::conflict(format!("Aggregate {name} already exists.")));
            }
            txn.release(Aggregate::NAME, "", &a.name);
            txn.claim(Aggregate::NAME, "", name, &id);
            a.name.clone_from(name);
        }
        if let Some(zone) = &body.availability_zone
            && zone.as_deref() != a.zone()
        {
            check_move(snapshot, &a.hosts, "update")?;
            match zone {
                Some(zone) => a.metadata.insert("availability_zone".to_owned(), zone.clone()),
                None => a.metadata.remove("availability_zone"),
            };
        }
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"aggregate": view(&request, &aggregate)}))
}

/// `DELETE /os-aggregates/{id}`: an empty one.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let aggregate = find(snapshot, request.param("id"))?;
            if !aggregate.hosts.is_empty() {
                return Err(Error::conflict(format!(
                    "Cannot remove host from aggregate {}: it still has hosts; remove them first.",
                    aggregate.id
                )));
            }
            let mut txn = Txn::new();
            txn.release(Aggregate::NAME, "", &aggregate.name);
            txn.delete(&aggregate);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(200))
}

/// `POST /os-aggregates/{id}/action`: `add_host`, `remove_host`, `set_metadata`.
pub(crate) async fn act(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let map: serde_json::Map<String, Value> = request.json().await?;
    let mut entries = map.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(Error::bad_request(
            "The request body has exactly one key, the name of the action.",
        ));
    };
    let id = request.param("id").to_owned();
    let target = maru_auth::Target::of_caller(request.caller()?);
    let aggregate = match name.as_str() {
        "add_host" => {
            request.authorize_rule("os_compute_api:os-aggregates:add_host", &target)?;
            let body: HostBody = wire::typed("add_host", value)?;
            change(&app, &id, |snapshot, _, a| add_host(snapshot, a, &body.host)).await?
        }
        "remove_host" => {
            request.authorize_rule("os_compute_api:os-aggregates:remove_host", &target)?;
            let body: HostBody = wire::typed("remove_host", value)?;
            change(&app, &id, |snapshot, _, a| {
                if !a.hosts.contains(&body.host) {
                    return Err(Error::not_found(format!("Aggregate {id} has no host {}.", body.host)));
                }
                if a.zone().is_some() {
                    check_move(snapshot, &[body.host.clone()].into(), "remove host from")?;
                }
                a.hosts.remove(&body.host);
                Ok(())
            })
            .await?
        }
        "set_metadata" => {
            request.authorize_rule("os_compute_api:os-aggregates:set_metadata", &target)?;
            let body: MetadataBody = wire::typed("set_metadata", value)?;
            change(&app, &id, |snapshot, _, a| {
                for (key, value) in &body.metadata {
                    if key == "availability_zone" && value.as_deref() != a.zone() {
                        if let Some(zone) = value {
                            check_zone(zone)?;
                        }
                        check_move(snapshot, &a.hosts, "update")?;
                    }
                    match value {
                        Some(value) => {
                            wire::check_text("set_metadata.metadata", value)?;
                            a.metadata.insert(key.clone(), value.clone())
                        }
                        None => a.metadata.remove(key),
                    };
                }
                Ok(())
            })
            .await?
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}"))),
    };
    Reply::json(200, &json!({"aggregate": view(&request, &aggregate)}))
}

fn add_host(snapshot: &Snapshot, a: &mut Aggregate, host: &str) -> Result<()> {
    if find_service(snapshot, host).is_none() {
        return Err(Error::not_found(format!("Compute host {host} could not be found.")));
    }
    if a.hosts.contains(host) {
        return Err(Error::conflict(format!("Aggregate already has host {host}.")));
    }
    if let Some(zone) = a.zone() {
        let other = snapshot
            .find::<Aggregate>("host", host)
            .find_map(|o| o.zone().filter(|z| *z != zone).map(str::to_owned));
        if let Some(other) = other {
            return Err(Error::conflict(format!(
                "Cannot add host to aggregate: host {host} is already in availability zone {other}."
            )));
        }
        if maru_compute_model::zone_of(snapshot, host) != zone {
            check_move(snapshot, &[host.to_owned()].into(), "add host to")?;
        }
    }
    a.hosts.insert(host.to_owned());
    Ok(())
}

/// `POST /os-aggregates/{id}/images`, since 2.81: every host of the aggregate pulls the images, one after another. As upstream it is
/// begun and not waited for; what fails is in the log, and a server that needs the image pulls it then.
pub(crate) async fn cache_images(app: Arc<App>, mut request: Request) -> Result<Reply> {
    wire::since(&request, 81)?;
    let body: CacheBody = request.json().await?;
    let caller = request.caller()?.clone();
    let snapshot = app.store.current().await?;
    let aggregate = find(&snapshot, request.param("id"))?;
    if body.cache.is_empty() {
        return Err(invalid("cache", "[] is too short"));
    }
    let mut images: Vec<(String, String)> = Vec::new();
    for CachedImage { id } in &body.cache {
        if !wire::is_uuid(id) {
            return Err(invalid("cache", format!("'{id}' is not a 'uuid'")));
        }
        if body.cache.iter().filter(|other| other.id == *id).count() > 1 {
            return Err(invalid("cache", format!("image {id} is named twice")));
        }
        let image = maru_image_model::find_visible(&snapshot, &caller, &ImageId::from(id.as_str()))
            .ok_or_else(|| Error::bad_request(format!("Image {id} could not be found.")))?;
        match (&image.digest, &image.proven_format, image.status) {
            (Some(digest), Some(format), ImageStatus::Active) => images.push((digest.clone(), format.clone())),
            _ => return Err(Error::bad_request(format!("Image {id} is not active."))),
        }
    }
    let request_id = request.id.clone();
    for host in aggregate.hosts.clone() {
        let (app, images, request_id) = (Arc::clone(&app), images.clone(), request_id.clone());
        tokio::spawn(async move {
            for (digest, format) in images {
                if let Err(e) = app.consoles.cache_image(&host, &digest, &format).await {
                    tracing::warn!(host, digest, %request_id, error = %e.chain(), "an image was not pulled ahead of its servers");
                }
            }
        });
    }
    Ok(Reply::empty(202))
}
