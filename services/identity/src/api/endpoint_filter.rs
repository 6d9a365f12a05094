//! /v3/OS-EP-FILTER: groups of endpoints, and which endpoints a project sees.

use super::{
    catalog,
    fields::Fields,
    lists::{self, Filters},
    not_found, projects,
    views::{self, Wrapped},
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::{Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{
    Endpoint, EndpointFilter, EndpointGroup, EndpointGroupId, EndpointId, Interface, Project, ProjectEndpoint,
    ProjectEndpointGroup, RegionId, ServiceId, endpoints_in,
};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

fn load(snapshot: &Snapshot, id: &str) -> Result<Object<EndpointGroup>> {
    snapshot
        .get::<EndpointGroup>(&EndpointGroupId::from(id))
        .ok_or_else(|| not_found("endpoint group", id))
}

fn view(base: &str, id: &EndpointGroupId, g: &EndpointGroup) -> Value {
    json!({"id": id, "name": g.name, "description": g.description, "filters": g.filters,
        "links": {"self": format!("{base}/v3/OS-EP-FILTER/endpoint_groups/{id}")}})
}

fn filters(fields: &mut Fields) -> Result<Option<EndpointFilter>> {
    let bad = |why: &str| Error::invalid("filters", format!("Invalid input for field 'filters': {why}."));
    let map = match fields.take("filters") {
        // The stock client sends null, or nothing in it, when it changes something else.
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(map)) if map.is_empty() => return Ok(None),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(bad("an object with service_id, region_id or interface is wanted")),
    };
    let mut filter = EndpointFilter::default();
    for (name, value) in map {
        let Value::String(text) = value else {
            return Err(bad(&format!("{name} is a string")));
        };
        if text.is_empty() || text.len() > 255 {
            return Err(bad(&format!("{name} has 1 to 255 characters")));
        }
        match name.as_str() {
            "service_id" => filter.service_id = Some(ServiceId::from(text)),
            "region_id" => filter.region_id = Some(RegionId::from(text)),
            "interface" => {
                filter.interface =
                    Some(Interface::parse(&text).ok_or_else(|| bad("interface is admin, internal or public"))?);
            }
            other => {
                return Err(bad(&format!(
                    "{other} is not known; service_id, region_id and interface are"
                )));
            }
        }
    }
    Ok(Some(filter))
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["name"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<EndpointGroup>()
        .filter(|g| filters.pass(|_| Some(g.name.as_str())))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "endpoint_groups",
        &found,
        |g| &g.id,
        |g| view(base, &g.id, &g.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "endpoint_group").await?;
    let value = EndpointGroup {
        name: fields.required_name(255)?,
        description: fields.nullable("description")?.flatten(),
        filters: filters(&mut fields)?.ok_or_else(|| {
            Error::invalid(
                "filters",
                "Invalid input for field 'filters': it is a required property.",
            )
        })?,
    };
    fields.nothing_else()?;
    let id = EndpointGroupId::new_hex();
    app.plan(|_, txn| {
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("endpoint_group", view(&request.base, &id, &value)))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let g = load(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("endpoint_group", view(&request.base, &g.id, &g.value)))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    load(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "endpoint_group").await?;
    fields.not_empty("endpoint_group")?;
    let name = fields.name(255)?;
    let description = fields.nullable("description")?;
    let filters = filters(&mut fields)?;
    fields.nothing_else()?;
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(n) = &name {
                value.name.clone_from(n);
            }
            if let Some(d) = &description {
                value.description.clone_from(d);
            }
            if let Some(f) = &filters {
                value.filters.clone_from(f);
            }
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("endpoint_group", view(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let read = load(snapshot, request.param("id"))?;
        Cascade::new(snapshot, txn).endpoint_group(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The endpoints of a group.
pub(super) async fn endpoints(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let found = endpoints_in(&snapshot, &load(&snapshot, request.param("id"))?.filters);
    endpoint_list(&request, &found)
}

fn endpoint_list(request: &Request, found: &[Object<Endpoint>]) -> Result<Reply> {
    let base = request.base.as_str();
    lists::paged(
        request,
        "endpoints",
        found,
        |e| &e.id,
        |e| views::endpoint(base, &e.id, &e.value),
    )
}

fn project_list(snapshot: &Snapshot, request: &Request, ids: impl Iterator<Item = ProjectId>) -> Result<Reply> {
    let found: Vec<_> = ids.filter_map(|id| snapshot.get::<Project>(&id)).collect();
    let base = request.base.as_str();
    lists::paged(
        request,
        "projects",
        &found,
        |p| &p.id,
        |p| views::project(base, &p.id, &p.value),
    )
}

/// The projects that see a group.
pub(super) async fn projects_of_group(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let group = load(&snapshot, request.param("id"))?;
    let ids = snapshot.find::<ProjectEndpointGroup>("group", &group.id);
    project_list(&snapshot, &request, ids.map(|a| a.project_id.clone()))
}

/// The projects that see an endpoint.
pub(super) async fn projects_of_endpoint(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let endpoint = catalog::endpoint(&snapshot, request.param("id"))?;
    let ids = snapshot.find::<ProjectEndpoint>("endpoint", &endpoint.id);
    project_list(&snapshot, &request, ids.map(|a| a.project_id.clone()))
}

/// The endpoints that a project is associated with, itself or by groups.
pub(super) async fn endpoints_of_project(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let project = projects::load(&snapshot, request.param("id"))?;
    let ids = maru_identity_model::associated_endpoints(&snapshot, &project.id).unwrap_or_default();
    let found: BTreeMap<String, Object<Endpoint>> = ids
        .iter()
        .filter_map(|id| snapshot.get::<Endpoint>(id))
        .map(|e| (e.id.to_string(), e))
        .collect();
    endpoint_list(&request, &found.into_values().collect::<Vec<_>>())
}

/// The groups that a project sees.
pub(super) async fn groups_of_project(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let project = projects::load(&snapshot, request.param("id"))?;
    let found: Vec<_> = snapshot
        .find::<ProjectEndpointGroup>("project", &project.id)
        .filter_map(|a| snapshot.get::<EndpointGroup>(&a.endpoint_group_id))
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "endpoint_groups",
        &found,
        |g| &g.id,
        |g| view(base, &g.id, &g.value),
    )
}

fn pair(snapshot: &Snapshot, request: &Request) -> Result<ProjectEndpoint> {
    Ok(ProjectEndpoint {
        endpoint_id: catalog::endpoint(snapshot, request.param("endpoint_id"))?.id,
        project_id: projects::load(snapshot, request.param("id"))?.id,
    })
}

fn no_pair(a: &ProjectEndpoint) -> Error {
    Error::not_found(format!(
        "Endpoint {} is not associated with project {}.",
        a.endpoint_id, a.project_id
    ))
}

pub(super) async fn check(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let a = pair(&snapshot, &request)?;
    snapshot.get::<ProjectEndpoint>(&a.id()).ok_or_else(|| no_pair(&a))?;
    Ok(Reply::empty(204))
}

pub(super) async fn add(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let a = pair(snapshot, &request)?;
        if snapshot.get::<ProjectEndpoint>(&a.id()).is_some() {
            return Err(Error::conflict(format!(
                "Endpoint {} is already associated with project {}.",
                a.endpoint_id, a.project_id
            )));
        }
        txn.alive::<Project>(&a.project_id).alive::<Endpoint>(&a.endpoint_id);
        txn.create(&a.id(), &a);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn remove(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let a = ProjectEndpoint {
            endpoint_id: EndpointId::from(request.param("endpoint_id")),
            project_id: ProjectId::from(request.param("id")),
        };
        let found = snapshot.get::<ProjectEndpoint>(&a.id()).ok_or_else(|| no_pair(&a))?;
        txn.delete(&found);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn group_pair(snapshot: &Snapshot, request: &Request) -> Result<ProjectEndpointGroup> {
    Ok(ProjectEndpointGroup {
        project_id: projects::load(snapshot, request.param("project_id"))?.id,
        endpoint_group_id: load(snapshot, request.param("id"))?.id,
    })
}

fn no_group_pair(a: &ProjectEndpointGroup) -> Error {
    Error::not_found(format!(
        "Endpoint group {} is not associated with project {}.",
        a.endpoint_group_id, a.project_id
    ))
}

pub(super) async fn check_group(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let a = group_pair(&snapshot, &request)?;
    snapshot
        .get::<ProjectEndpointGroup>(&a.id())
        .ok_or_else(|| no_group_pair(&a))?;
    let link = format!(
        "{}/v3/OS-EP-FILTER/endpoint_groups/{}/projects/{}",
        request.base, a.endpoint_group_id, a.project_id
    );
    let view = json!({"endpoint_group_id": a.endpoint_group_id, "project_id": a.project_id, "links": {"self": link}});
    Reply::json(200, &Wrapped("project_endpoint_group", view))
}

pub(super) async fn add_group(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let a = group_pair(snapshot, &request)?;
        if snapshot.get::<ProjectEndpointGroup>(&a.id()).is_some() {
            return Err(Error::conflict(format!(
                "Endpoint group {} is already associated with project {}.",
                a.endpoint_group_id, a.project_id
            )));
        }
        txn.alive::<Project>(&a.project_id)
            .alive::<EndpointGroup>(&a.endpoint_group_id);
        txn.create(&a.id(), &a);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn remove_group(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    app.plan(|snapshot, txn| {
        let a = group_pair(snapshot, &request)?;
        let found = snapshot
            .get::<ProjectEndpointGroup>(&a.id())
            .ok_or_else(|| no_group_pair(&a))?;
        txn.delete(&found);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
