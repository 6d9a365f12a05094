//! `/resource_classes`.

use super::{accepts_json, filters, json, shape, since};
use crate::{App, PREFIX};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, Routes};
use maru_placement_model::{
    CustomClass, CustomClassId, STANDARD_CLASSES, is_custom, knows_class, plan_create_class, plan_delete_class,
};
use maru_store::Snapshot;
use serde_json::{Value, json as value};
use std::sync::Arc;

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes
        .get("/resource_classes", "placement:resource_classes:list", list)
        .post("/resource_classes", "placement:resource_classes:create", create)
        .get("/resource_classes/{name}", "placement:resource_classes:show", show)
        .put("/resource_classes/{name}", "placement:resource_classes:update", update)
        .delete("/resource_classes/{name}", "placement:resource_classes:delete", delete)
}

fn location(name: &str) -> String {
    format!("{PREFIX}/resource_classes/{name}")
}

fn body(name: &str) -> Value {
    value!({"name": name, "links": [{"rel": "self", "href": location(name)}]})
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("No such resource class {name}."))
}

/// Refuses a name that is not one of a custom class.
fn custom<'a>(node: &shape::Node<'a>) -> Result<&'a str> {
    let name = node.text(1, 255)?;
    if is_custom(name) {
        return Ok(name);
    }
    Err(node.fail(&format!("'{name}' does not match '^CUSTOM_[A-Z0-9_]+$'")))
}

/// When a custom class was made.
fn made(snapshot: &Snapshot, name: &str) -> Option<jiff::Timestamp> {
    snapshot
        .get::<CustomClass>(&CustomClassId::from(name))
        .map(|c| c.value.created_at)
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 2)?;
    filters::only(&request, &[])?;
    let snapshot = app.current().await?;
    let own: Vec<_> = snapshot.list::<CustomClass>().collect();
    let names = STANDARD_CLASSES
        .iter()
        .copied()
        .chain(own.iter().map(|c| c.id.as_str()));
    let answer = value!({ "resource_classes": names.map(body).collect::<Vec<_>>() });
    json(&request, 200, &answer, own.iter().map(|c| c.value.created_at).max())
}

async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 2)?;
    let name = request.param("name");
    let snapshot = app.current().await?;
    if !knows_class(&snapshot, name) {
        return Err(unknown(name));
    }
    json(&request, 200, &body(name), made(&snapshot, name))
}

async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 2)?;
    let value = shape::body(&mut request).await?;
    let name = custom(&shape::Node::root(&value).fields(&["name"], &[])?.need("name")?)?;
    app.plan(|snapshot, txn| {
        if knows_class(snapshot, name) {
            return Err(Error::conflict(format!(
                "Conflicting resource class already exists: {name}."
            )));
        }
        plan_create_class(txn, name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(201).header("location", &location(name)))
}

/// Before microversion 1.7 gives a class another name, since then makes it if it is not there.
async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 2)?;
    if !request.at_least(1, 7) {
        return rename(app, request).await;
    }
    let name = request.param("name").to_owned();
    if !is_custom(&name) {
        return Err(Error::invalid(
            "name",
            format!(
                "JSON does not validate: '{name}' does not match '^CUSTOM_[A-Z0-9_]+$' with at most 255 characters."
            ),
        ));
    }
    // The body has no meaning, but it must end before the answer begins.
    request.bytes().await?;
    let created = app
        .plan(|snapshot, txn| {
            let fresh = !knows_class(snapshot, &name);
            if fresh {
                plan_create_class(txn, &name);
            }
            Ok(fresh)
        })
        .await?;
    Ok(Reply::empty(if created { 201 } else { 204 }).header("location", &location(&name)))
}

async fn rename(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let value = shape::body(&mut request).await?;
    let new = custom(&shape::Node::root(&value).fields(&["name"], &[])?.need("name")?)?;
    let name = request.param("name");
    app.plan(|snapshot, txn| {
        if STANDARD_CLASSES.contains(&name) {
            return Err(Error::bad_request(format!(
                "Cannot update standard resource class {name}."
            )));
        }
        let old = snapshot
            .get::<CustomClass>(&CustomClassId::from(name))
            .ok_or_else(|| unknown(name))?;
        if new == name {
            return Ok(());
        }
        if knows_class(snapshot, new) {
            return Err(Error::conflict(format!("Resource class already exists: {new}.")));
        }
        // The class is its name here: one that is in use keeps it.
        if !plan_delete_class(snapshot, txn, &old) {
            return Err(in_use(name));
        }
        plan_create_class(txn, new);
        Ok(())
    })
    .await?;
    Reply::json(200, &body(new))
}

fn in_use(name: &str) -> Error {
    Error::conflict(format!(
        "Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory; remove those \
         inventories first."
    ))
}

async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 2)?;
    let name = request.param("name");
    app.plan(|snapshot, txn| {
        if STANDARD_CLASSES.contains(&name) {
            return Err(Error::bad_request(format!(
                "Error in delete resource class: Cannot delete standard resource class {name}."
            )));
        }
        let class = snapshot
            .get::<CustomClass>(&CustomClassId::from(name))
            .ok_or_else(|| unknown(name))?;
        if plan_delete_class(snapshot, txn, &class) {
            return Ok(());
        }
        Err(in_use(name))
    })
    .await?;
    Ok(Reply::empty(204))
}
