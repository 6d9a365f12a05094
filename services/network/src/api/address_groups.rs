//! `/address-groups`.

use super::{
    body::{self, Body, block_of},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use ipnet::IpNet;
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    AddressGroup, AddressGroupId, Meta,
    address_group::{MOST, address_group_not_found, check_addresses, plan_change_addresses, plan_delete_address_group},
};
use serde_json::Value;
use std::sync::Arc;

const LIST: List = List {
    plural: "address_groups",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "description",
        "tenant_id",
        "project_id",
        "shared",
        "addresses",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| address_group_not_found(id),
};

fn row_of(id: &str, g: &AddressGroup) -> Row {
    let addresses: Vec<Value> = g.addresses.iter().map(|a| a.to_string().into()).collect();
    Row::new(id)
        .with("name", g.name.as_str())
        .project(&g.project_id)
        .with("shared", false)
        .with("addresses", addresses)
        .timeless(&g.meta)
}

fn addresses_of(b: &mut Body) -> Result<Option<Vec<IpNet>>> {
    match b.list("addresses", MOST)? {
        None => Ok(None),
        Some(items) => items
            .iter()
            .map(|v| block_of("addresses", v))
            .collect::<Result<_>>()
            .map(Some),
    }
}

fn request_of(request: &Request, mut b: Body) -> Result<AddressGroup> {
    let project_id = access::project_for(request, b.project()?)?;
    let group = AddressGroup {
        project_id,
        name: b.text("name", 255)?.unwrap_or_default(),
        meta: Meta::new(b.text("description", 255)?.unwrap_or_default()),
        addresses: addresses_of(&mut b)?
            .unwrap_or_default()
            .iter()
            .map(IpNet::trunc)
            .collect(),
    };
    b.finish(&["shared"])?;
    check_addresses(&group.addresses)?;
    Ok(group)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let found = candidates(
        &request,
        &app.store.snapshot(),
        "get_address_group",
        &[("name", "name")],
        |_, g: &AddressGroup| Target::project(&g.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::address_group(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "address_group", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "address_group", LIST.plural).await?;
    let groups: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let groups = groups?;
    let made = app
        .plan(|_, txn| {
            let mut made = Vec::with_capacity(groups.len());
            for g in &groups {
                request.authorize(&Target::project(&g.project_id))?;
                let id = AddressGroupId::new_uuid();
                txn.create(&id, g);
                made.push((id, g.clone()));
            }
            Ok(made)
        })
        .await?;
    row::created(
        bulk,
        "address_group",
        LIST.plural,
        made.iter().map(|(id, g)| row_of(id, g)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "address_group").await?;
    let (name, description) = (b.text("name", 255)?, b.text("description", 255)?);
    b.finish(&["addresses", "shared"])?;
    let (id, group) = app
        .plan(|snapshot, txn| {
            let read = access::address_group(&request, snapshot, request.param("id"))?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(&request, &read.value.meta)?;
            let mut group = (*read.value).clone();
            group.name = name.clone().unwrap_or(group.name);
            if let Some(description) = &description {
                group.meta.description.clone_from(description);
            }
            group.meta.touch();
            txn.update(&read, &group);
            Ok((read.id, group))
        })
        .await?;
    row::one(200, "address_group", row_of(&id, &group), &request.query)
}

async fn change(app: Arc<App>, mut request: Request, add: bool) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let blocks = addresses_of(&mut b)?;
    let blocks = b.required("addresses", blocks)?;
    b.finish(&[])?;
    let (id, group) = app
        .plan(|snapshot, txn| {
            let read = access::address_group(&request, snapshot, request.param("id"))?;
            request.authorize(&Target::project(&read.value.project_id))?;
            let group = plan_change_addresses(txn, &read, &blocks, add)?;
            Ok((read.id, group))
        })
        .await?;
    row::one(200, "address_group", row_of(&id, &group), &request.query)
}

pub(crate) async fn add_addresses(app: Arc<App>, request: Request) -> Result<Reply> {
    change(app, request, true).await
}
pub(crate) async fn remove_addresses(app: Arc<App>, request: Request) -> Result<Reply> {
    change(app, request, false).await
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = access::address_group(&request, snapshot, request.param("id"))?;
        request.authorize(&Target::project(&read.value.project_id))?;
        plan_delete_address_group(snapshot, txn, &read)
    })
    .await?;
    Ok(Reply::empty(204))
}
