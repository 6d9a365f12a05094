//! `/resource_providers/{uuid}/inventories`.

use super::{
    accepts_json, json, resource_providers,
    shape::{self, Fields, MAX_INT, Node},
};
use crate::{
    App,
    app::{
        Shown, find,
        inventories::{Inventories, check_capacity},
    },
};
use maru_base::{Error, ErrorKind, Result};
use maru_http::{Reply, Request, Routes};
use maru_placement_model::Inventory;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// The largest number of a 32-bit float, which upstream keeps ratios in.
const MAX_RATIO: f64 = 3.402_823_466_385_29e38;
/// The fields of an inventory without the one that must be there.
const OPTIONAL: [&str; 5] = ["reserved", "min_unit", "max_unit", "step_size", "allocation_ratio"];

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    let all = "/resource_providers/{uuid}/inventories";
    let one = "/resource_providers/{uuid}/inventories/{resource_class}";
    routes
        .get(all, "placement:resource_providers:inventories:list", list)
        .post(all, "placement:resource_providers:inventories:create", create)
        .put(all, "placement:resource_providers:inventories:update", replace)
        .delete(all, "placement:resource_providers:inventories:delete", clear)
        .get(one, "placement:resource_providers:inventories:show", show)
        .put(one, "placement:resource_providers:inventories:update", update)
        .delete(one, "placement:resource_providers:inventories:delete", delete)
}

/// An inventory as the API shows it.
#[derive(Serialize)]
struct Body {
    total: u64,
    reserved: u64,
    min_unit: u64,
    max_unit: u64,
    step_size: u64,
    allocation_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_provider_generation: Option<u64>,
}

#[derive(Serialize)]
struct Bodies<'a> {
    resource_provider_generation: u64,
    inventories: BTreeMap<&'a str, Body>,
}

fn body(inventory: &Inventory, generation: Option<u64>) -> Body {
    Body {
        total: inventory.total,
        reserved: inventory.reserved,
        min_unit: inventory.min_unit,
        max_unit: inventory.max_unit,
        step_size: inventory.step_size,
        allocation_ratio: inventory.allocation_ratio,
        resource_provider_generation: generation,
    }
}

fn bodies(request: &Request, shown: &Shown) -> Result<Reply> {
    let inventories = shown.provider.inventories.iter();
    let answer = Bodies {
        resource_provider_generation: shown.generation,
        inventories: inventories.map(|(class, i)| (class.as_str(), body(i, None))).collect(),
    };
    json(request, 200, &answer, Some(shown.provider.updated_at))
}

fn one(request: &Request, status: u16, shown: &Shown, class: &str) -> Result<Reply> {
    let inventory = shown
        .provider
        .inventories
        .get(class)
        .ok_or_else(|| Error::not_found(format!("No inventory of class {class} for {}.", shown.id)))?;
    let answer = body(inventory, Some(shown.generation));
    json(request, status, &answer, Some(shown.provider.updated_at))
}

/// The inventory in these fields, with upstream's defaults for what is not given.
fn read(fields: &Fields<'_>) -> Result<Inventory> {
    let number = |key: &str, least: i64, default: u64| match fields.get(key) {
        Some(node) => node.count(least, MAX_INT),
        None => Ok(default),
    };
    Ok(Inventory {
        total: fields.need("total")?.count(1, MAX_INT)?,
        reserved: number("reserved", 0, 0)?,
        min_unit: number("min_unit", 1, 1)?,
        max_unit: number("max_unit", 1, MAX_INT.unsigned_abs())?,
        step_size: number("step_size", 1, 1)?,
        allocation_ratio: match fields.get("allocation_ratio") {
            Some(node) => node.number(MAX_RATIO)?,
            None => 1.0,
        },
    })
}

/// Inventories by class, as PUT and the reshaper take them.
pub(super) fn read_all(node: &Node<'_>) -> Result<Inventories> {
    let mut inventories = Inventories::new();
    for (class, node) in node.entries(shape::is_name, "a resource class")? {
        let mut optional = OPTIONAL.to_vec();
        optional.push("resource_provider_generation");
        inventories.insert(class.to_owned(), read(&node.fields(&["total"], &optional)?)?);
    }
    Ok(inventories)
}

/// What the caller saw.
pub(super) fn generation(fields: &Fields<'_>) -> Result<i64> {
    fields.need("resource_provider_generation")?.integer(i64::MIN, i64::MAX)
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    bodies(
        &request,
        &Shown::of(&snapshot, &find(&snapshot, request.param("uuid"))?),
    )
}

async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    let shown = Shown::of(&snapshot, &find(&snapshot, request.param("uuid"))?);
    one(&request, 200, &shown, request.param("resource_class"))
}

async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    find(&app.current().await?, request.param("uuid"))?;
    let value = shape::body(&mut request).await?;
    let mut optional = OPTIONAL.to_vec();
    optional.push("resource_provider_generation");
    let fields = Node::root(&value).fields(&["resource_class", "total"], &optional)?;
    let class = fields.need("resource_class")?.name(255)?;
    let given = fields
        .get("resource_provider_generation")
        .map(|node| node.integer(i64::MIN, i64::MAX))
        .transpose()?;
    let inventory = read(&fields)?;
    let id = request.param("uuid");
    check_capacity(id, class, &inventory, request.at_least(1, 26))?;
    let shown = app.add_inventory(id, given, class, &inventory).await?;
    let at = format!("{}/inventories/{class}", resource_providers::location(&shown.id));
    Ok(one(&request, 201, &shown, class)?.header("location", &at))
}

async fn replace(app: Arc<App>, mut request: Request) -> Result<Reply> {
    find(&app.current().await?, request.param("uuid"))?;
    let value = shape::body(&mut request).await?;
    let fields = Node::root(&value).fields(&["resource_provider_generation", "inventories"], &[])?;
    let given = generation(&fields)?;
    let inventories = read_all(&fields.need("inventories")?)?;
    let id = request.param("uuid");
    for (class, inventory) in &inventories {
        check_capacity(id, class, inventory, request.at_least(1, 26))?;
    }
    bodies(&request, &app.set_inventories(id, Some(given), &inventories).await?)
}

async fn clear(app: Arc<App>, request: Request) -> Result<Reply> {
    if !request.at_least(1, 5) {
        return Err(Error::new(
            ErrorKind::MethodNotAllowed,
            "The method DELETE is allowed here from microversion 1.5 on.",
        ));
    }
    app.set_inventories(request.param("uuid"), None, &Inventories::new())
        .await?;
    Ok(Reply::empty(204))
}

async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    find(&app.current().await?, request.param("uuid"))?;
    let value = shape::body(&mut request).await?;
    let fields = Node::root(&value).fields(&["total", "resource_provider_generation"], &OPTIONAL)?;
    let given = generation(&fields)?;
    let inventory = read(&fields)?;
    let (id, class) = (request.param("uuid"), request.param("resource_class"));
    check_capacity(id, class, &inventory, request.at_least(1, 26))?;
    let shown = app.update_inventory(id, given, class, &inventory).await?;
    one(&request, 200, &shown, class)
}

async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_inventory(request.param("uuid"), request.param("resource_class"))
        .await?;
    Ok(Reply::empty(204))
}
