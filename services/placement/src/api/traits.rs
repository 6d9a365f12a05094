//! `/traits` and `/resource_providers/{uuid}/traits`.

use super::{accepts_json, filters, inventories::generation, json, shape, since, stamped};
use crate::{
    App, PREFIX,
    app::{Shown, find},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, Routes};
use maru_placement_model::{
    CustomTrait, CustomTraitId, ResourceProvider, STANDARD_TRAITS, is_custom, knows_trait, plan_create_trait,
    plan_delete_trait,
};
use maru_store::Snapshot;
use serde_json::json as value;
use std::{collections::BTreeSet, sync::Arc};

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    let of_provider = "/resource_providers/{uuid}/traits";
    routes
        .get("/traits", "placement:traits:list", list)
        .get("/traits/{name}", "placement:traits:show", show)
        .put("/traits/{name}", "placement:traits:update", put)
        .delete("/traits/{name}", "placement:traits:delete", delete)
        .get(
            of_provider,
            "placement:resource_providers:traits:list",
            list_of_provider,
        )
        .put(of_provider, "placement:resource_providers:traits:update", replace)
        .delete(of_provider, "placement:resource_providers:traits:delete", clear)
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 6)?;
    filters::only(&request, &["name", "associated"])?;
    let named: Box<dyn Fn(&str) -> bool + Send> = match request.query.get("name").map(|n| (n, n.split_once(':'))) {
        None => Box::new(|_| true),
        Some((_, Some(("in", names)))) => {
            let names: BTreeSet<String> = names.split(',').map(str::to_owned).collect();
            Box::new(move |name| names.contains(name))
        }
        Some((_, Some(("startswith", prefix)))) => {
            let prefix = prefix.to_owned();
            Box::new(move |name| name.starts_with(&prefix))
        }
        Some((text, _)) => {
            return Err(Error::invalid(
                "name",
                format!(
                    "Badly formatted name parameter. Expected name query string parameter in form: \
                     ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{text}\"."
                ),
            ));
        }
    };
    let associated = match request.query.get("associated").map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            return Err(Error::invalid(
                "associated",
                "The query parameter \"associated\" only accepts \"true\" or \"false\".",
            ));
        }
    };
    let snapshot = app.current().await?;
    let used = |name: &str| snapshot.find::<ResourceProvider>("trait", name).next().is_some();
    let custom: Vec<_> = snapshot.list::<CustomTrait>().collect();
    let names: Vec<&str> = STANDARD_TRAITS
        .iter()
        .copied()
        .chain(custom.iter().map(|c| c.id.as_str()))
        .filter(|name| named(name) && associated.is_none_or(|wanted| used(name) == wanted))
        .collect();
    let modified = custom.iter().map(|c| c.value.created_at).max();
    json(&request, 200, &value!({ "traits": names }), modified)
}

/// When a custom trait was made.
fn made(snapshot: &Snapshot, name: &str) -> Option<jiff::Timestamp> {
    snapshot
        .get::<CustomTrait>(&CustomTraitId::from(name))
        .map(|c| c.value.created_at)
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("No such trait(s): {name}."))
}

async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 6)?;
    let name = request.param("name");
    let snapshot = app.current().await?;
    if !knows_trait(&snapshot, name) {
        return Err(unknown(name));
    }
    Ok(stamped(&request, Reply::empty(204), made(&snapshot, name)))
}

async fn put(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 6)?;
    let name = request.param("name");
    if !is_custom(name) {
        return Err(Error::invalid(
            "name",
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" \
             and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\".",
        ));
    }
    let created = app
        .plan(|snapshot, txn| {
            let fresh = !knows_trait(snapshot, name);
            if fresh {
                plan_create_trait(txn, name);
            }
            Ok(fresh)
        })
        .await?;
    let reply = Reply::empty(if created { 201 } else { 204 }).header("location", &format!("{PREFIX}/traits/{name}"));
    Ok(stamped(&request, reply, made(&app.store.snapshot(), name)))
}

async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 6)?;
    let name = request.param("name");
    app.plan(|snapshot, txn| {
        if STANDARD_TRAITS.contains(&name) {
            return Err(Error::bad_request(format!("Cannot delete standard trait {name}.")));
        }
        let custom = snapshot
            .get::<CustomTrait>(&CustomTraitId::from(name))
            .ok_or_else(|| unknown(name))?;
        if plan_delete_trait(snapshot, txn, &custom) {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "The trait {name} is in use by a resource provider; take it from the provider first."
        )))
    })
    .await?;
    Ok(Reply::empty(204))
}

fn body(request: &Request, shown: &Shown) -> Result<Reply> {
    let answer = value!({
        "traits": shown.provider.traits,
        "resource_provider_generation": shown.generation,
    });
    json(request, 200, &answer, Some(shown.provider.updated_at))
}

async fn list_of_provider(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 6)?;
    let snapshot = app.current().await?;
    body(
        &request,
        &Shown::of(&snapshot, &find(&snapshot, request.param("uuid"))?),
    )
}

async fn replace(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 6)?;
    let value = shape::body(&mut request).await?;
    let fields = shape::Node::root(&value).fields(&["traits", "resource_provider_generation"], &[])?;
    let given = generation(&fields)?;
    let mut traits = BTreeSet::new();
    for node in fields.need("traits")?.items()? {
        if !traits.insert(node.name(255)?.to_owned()) {
            return Err(node.fail("the list has non-unique elements"));
        }
    }
    body(
        &request,
        &app.set_traits(request.param("uuid"), Some(given), &traits).await?,
    )
}

async fn clear(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 6)?;
    app.set_traits(request.param("uuid"), None, &BTreeSet::new()).await?;
    Ok(Reply::empty(204))
}
