//! /v3/regions, /v3/services, /v3/endpoints.

use super::{
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::{self, Wrapped},
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{
    Endpoint, EndpointId, Interface, Region, RegionId, RegisteredLimit, Service, ServiceId, freeze,
};
use maru_store::{Object, Snapshot};
use std::sync::Arc;

pub(super) fn region(snapshot: &Snapshot, id: &str) -> Result<Object<Region>> {
    snapshot
        .get::<Region>(&RegionId::from(id))
        .ok_or_else(|| not_found("region", id))
}

pub(super) fn service(snapshot: &Snapshot, id: &str) -> Result<Object<Service>> {
    snapshot
        .get::<Service>(&ServiceId::from(id))
        .ok_or_else(|| not_found("service", id))
}

pub(super) fn endpoint(snapshot: &Snapshot, id: &str) -> Result<Object<Endpoint>> {
    snapshot
        .get::<Endpoint>(&EndpointId::from(id))
        .ok_or_else(|| not_found("endpoint", id))
}

// Regions.

pub(super) async fn list_regions(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["parent_region_id"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<Region>()
        .filter(|r| filters.pass(|_| r.parent_region_id.as_deref()))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "regions",
        &found,
        |r| &r.id,
        |r| views::region(base, &r.id, &r.value),
    )
}

pub(super) async fn create_region(app: Arc<App>, request: Request) -> Result<Reply> {
    make_region(app, request, None).await
}

pub(super) async fn put_region(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    make_region(app, request, Some(id)).await
}

async fn make_region(app: Arc<App>, mut request: Request, path_id: Option<String>) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "region").await?;
    let given = fields.nullable("id")?.flatten().filter(|id| !id.is_empty());
    if let (Some(path), Some(body)) = (&path_id, &given)
        && path != body
    {
        return Err(Error::bad_request(
            "Conflicting region IDs specified: \"{}\" in the body is not the one of the address.",
        ));
    }
    let id = path_id.or(given).map_or_else(RegionId::new_hex, RegionId::from);
    if id.len() > 255 {
        return Err(Error::invalid(
            "id",
            "Invalid input for field 'id': at most 255 bytes are wanted.",
        ));
    }
    let description = fields.nullable("description")?.flatten().unwrap_or_default();
    let parent_region_id = fields
        .nullable("parent_region_id")?
        .flatten()
        .filter(|p| !p.is_empty())
        .map(RegionId::from);
    let value = Region {
        description,
        parent_region_id,
        extra: fields.rest(),
    };
    app.plan(|snapshot, txn| {
        if snapshot.get::<Region>(&id).is_some() {
            return Err(Error::conflict(format!(
                "Conflict occurred attempting to store region - Duplicate ID, {id}."
            )));
        }
        if let Some(p) = &value.parent_region_id {
            region(snapshot, p)?;
            txn.alive::<Region>(p);
        }
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("region", views::region(&request.base, &id, &value)))
}

pub(super) async fn show_region(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let r = region(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("region", views::region(&request.base, &r.id, &r.value)))
}

pub(super) async fn update_region(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    region(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "region").await?;
    fields.not_empty("region")?;
    let description = fields.nullable("description")?;
    let parent = fields.nullable("parent_region_id")?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = region(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(d) = &description {
                value.description = d.clone().unwrap_or_default();
            }
            if let Some(parent) = &parent {
                let parent = parent.as_ref().filter(|p| !p.is_empty()).map(RegionId::from);
                let mut above = parent.clone();
                while let Some(p) = above {
                    if p == read.id {
                        return Err(Error::bad_request(format!(
                            "A region cannot lie in itself: {p} lies in {}.",
                            read.id
                        )));
                    }
                    above = region(snapshot, &p)?.parent_region_id.clone();
                }
                freeze(snapshot, txn);
                value.parent_region_id = parent;
            }
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("region", views::region(&request.base, &id, &value)))
}

pub(super) async fn delete_region(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id");
    app.plan(|snapshot, txn| {
        let read = region(snapshot, id)?;
        let used = snapshot.find::<Endpoint>("region", id).next().is_some();
        if used || snapshot.find::<Region>("parent", id).next().is_some() {
            return Err(Error::forbidden(format!(
                "Unable to delete region {id} because it or its child regions have associated endpoints."
            )));
        }
        if snapshot.find::<RegisteredLimit>("region", id).next().is_some() {
            return Err(Error::forbidden(format!(
                "Unable to delete region {id} because registered limits are for it; delete these first."
            )));
        }
        Cascade::new(snapshot, txn).region(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

// Services.

pub(super) async fn list_services(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["type", "name"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<Service>()
        .filter(|s| {
            filters.pass(|name| match name {
                "type" => Some(s.kind.as_str()),
                "name" => Some(s.name.as_str()),
                _ => None,
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "services",
        &found,
        |s| &s.id,
        |s| views::service(base, &s.id, &s.value),
    )
}

pub(super) async fn create_service(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "service").await?;
    let kind = fields.required("type", 255)?;
    let name = fields.nullable("name")?.flatten().unwrap_or_default();
    let enabled = fields.bool("enabled")?.unwrap_or(true);
    fields.extra_text("description")?;
    let value = Service {
        kind,
        name,
        enabled,
        extra: fields.rest(),
    };
    let id = ServiceId::new_hex();
    app.plan(|_, txn| {
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("service", views::service(&request.base, &id, &value)))
}

pub(super) async fn show_service(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let s = service(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("service", views::service(&request.base, &s.id, &s.value)))
}

pub(super) async fn update_service(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    service(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "service").await?;
    fields.not_empty("service")?;
    let kind = fields.string("type", 1, 255)?;
    let name = fields.nullable("name")?;
    let enabled = fields.bool("enabled")?;
    fields.extra_text("description")?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = service(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(k) = &kind {
                value.kind.clone_from(k);
            }
            if let Some(n) = &name {
                value.name = n.clone().unwrap_or_default();
            }
            value.enabled = enabled.unwrap_or(value.enabled);
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("service", views::service(&request.base, &id, &value)))
}

pub(super) async fn delete_service(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id");
    app.plan(|snapshot, txn| {
        let read = service(snapshot, id)?;
        Cascade::new(snapshot, txn).service(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

// Endpoints.

pub(super) async fn list_endpoints(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["interface", "service_id", "region_id", "region"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<Endpoint>()
        .filter(|e| {
            filters.pass(|name| match name {
                "interface" => Some(e.interface.as_str()),
                "service_id" => Some(e.service_id.as_str()),
                "region_id" | "region" => e.region_id.as_deref(),
                _ => None,
            })
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "endpoints",
        &found,
        |e| &e.id,
        |e| views::endpoint(base, &e.id, &e.value),
    )
}

fn interface(text: Option<String>) -> Result<Option<Interface>> {
    text.map(|t| {
        // Older clients append `URL`.
        let name = t.strip_suffix("URL").unwrap_or(&t);
        Interface::parse(name).ok_or_else(|| {
            Error::invalid(
                "interface",
                "Invalid input for field 'interface': admin, internal or public is wanted.",
            )
        })
    })
    .transpose()
}

fn url(text: Option<String>) -> Result<Option<String>> {
    if let Some(fault) = text.as_deref().and_then(Endpoint::url_fault) {
        return Err(Error::invalid(
            "url",
            format!("Invalid input for field 'url': {fault}."),
        ));
    }
    Ok(text)
}

/// The region of an endpoint: `region_id` must exist, the older `region` is made when it does not.
struct Where {
    id: Option<Option<RegionId>>,
    make: bool,
}

fn place(fields: &mut Fields) -> Result<Where> {
    let legacy = fields.nullable("region")?;
    Ok(match fields.nullable("region_id")? {
        Some(id) => Where {
            id: Some(id.map(RegionId::from)),
            make: false,
        },
        None => Where {
            make: legacy.is_some(),
            id: legacy.map(|r| r.map(RegionId::from)),
        },
    })
}

impl Where {
    fn settle(&self, snapshot: &Snapshot, txn: &mut maru_store::Txn) -> Result<()> {
        let Some(Some(id)) = &self.id else { return Ok(()) };
        match (snapshot.get::<Region>(id), self.make) {
            (Some(_), _) => drop(txn.alive::<Region>(id)),
            (None, true) => {
                let value = Region {
                    description: String::new(),
                    parent_region_id: None,
                    extra: serde_json::Map::new(),
                };
                txn.create(id, &value);
            }
            (None, false) => {
                return Err(Error::invalid(
                    "region_id",
                    format!("Invalid input for field 'region_id': there is no region {id}."),
                ));
            }
        }
        Ok(())
    }
}

pub(super) async fn create_endpoint(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "endpoint").await?;
    let service_id = ServiceId::from(fields.required("service_id", 64)?);
    let interface = interface(Some(fields.required("interface", 64)?))?.unwrap_or(Interface::Public);
    let url = url(Some(fields.required("url", 2_048)?))?.unwrap_or_default();
    let enabled = fields.bool("enabled")?.unwrap_or(true);
    let place = place(&mut fields)?;
    let region_id = place.id.clone().flatten();
    let value = Endpoint {
        service_id,
        region_id,
        interface,
        url,
        enabled,
        extra: fields.rest(),
    };
    let id = EndpointId::new_hex();
    app.plan(|snapshot, txn| {
        if snapshot.get::<Service>(&value.service_id).is_none() {
            return Err(Error::invalid(
                "service_id",
                format!("Could not find service: {}.", value.service_id),
            ));
        }
        txn.alive::<Service>(&value.service_id);
        place.settle(snapshot, txn)?;
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("endpoint", views::endpoint(&request.base, &id, &value)))
}

pub(super) async fn show_endpoint(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let e = endpoint(&app.snapshot(), request.param("id"))?;
    Reply::json(
        200,
        &Wrapped("endpoint", views::endpoint(&request.base, &e.id, &e.value)),
    )
}

pub(super) async fn update_endpoint(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    endpoint(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "endpoint").await?;
    fields.not_empty("endpoint")?;
    let service_id = fields.string("service_id", 1, 64)?.map(ServiceId::from);
    let interface = interface(fields.string("interface", 1, 64)?)?;
    let url = url(fields.string("url", 1, 2_048)?)?;
    let enabled = fields.bool("enabled")?;
    let place = place(&mut fields)?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = endpoint(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(s) = &service_id {
                if snapshot.get::<Service>(s).is_none() {
                    return Err(Error::invalid("service_id", format!("Could not find service: {s}.")));
                }
                txn.alive::<Service>(s);
                value.service_id.clone_from(s);
            }
            if let Some(r) = &place.id {
                place.settle(snapshot, txn)?;
                value.region_id.clone_from(r);
            }
            value.interface = interface.unwrap_or(value.interface);
            if let Some(u) = &url {
                value.url.clone_from(u);
            }
            value.enabled = enabled.unwrap_or(value.enabled);
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("endpoint", views::endpoint(&request.base, &id, &value)))
}

pub(super) async fn delete_endpoint(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id");
    app.plan(|snapshot, txn| {
        let read = endpoint(snapshot, id)?;
        Cascade::new(snapshot, txn).endpoint(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
