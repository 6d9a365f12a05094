//! `/allocations` and `/resource_providers/{uuid}/allocations`.
//!
//! | from | what changes in the body of a consumer |
//! |---|---|
//! | 1.0 | `allocations` is a list of provider and resources |
//! | 1.8 | `project_id` and `user_id` |
//! | 1.12 | `allocations` is an object by provider |
//! | 1.28 | `consumer_generation`; `allocations` may be empty |
//! | 1.34 | `mappings` is accepted |
//! | 1.38 | `consumer_type` |

use super::{
    accepts_json, json,
    shape::{self, Node},
    since,
};
use crate::{
    App,
    app::{
        Shown,
        allocations::{INCOMPLETE, Wish},
        find,
    },
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request, Routes};
use maru_placement_model::{Allocations, Consumer, ConsumerId, ProviderId, ResourceProvider};
use serde::Serialize;
use serde_json::json as value;
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes
        .post("/allocations", "placement:allocations:manage", manage)
        .get("/allocations/{consumer}", "placement:allocations:list", show)
        .put("/allocations/{consumer}", "placement:allocations:update", replace)
        .delete("/allocations/{consumer}", "placement:allocations:delete", delete)
        .get(
            "/resource_providers/{uuid}/allocations",
            "placement:resource_providers:allocations:list",
            of_provider,
        )
}

async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    #[derive(Serialize)]
    struct Of<'a> {
        resources: &'a BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        allocations: BTreeMap<&'a str, Of<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        project_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer_generation: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer_type: Option<&'a str>,
    }
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    let id = ConsumerId::from(shape::id(request.param("consumer")));
    // A consumer that holds nothing is not known: that is no error.
    let Some(consumer) = snapshot.get::<Consumer>(&id) else {
        return json(&request, 200, &value!({ "allocations": {} }), None);
    };
    let of = |id: &ProviderId| {
        snapshot
            .get::<ResourceProvider>(id)
            .map(|p| Shown::of(&snapshot, &p).generation)
    };
    let allocations = consumer.allocations.iter();
    let whose = request.at_least(1, 12);
    let body = Body {
        allocations: allocations
            .map(|(id, resources)| {
                (
                    id.as_str(),
                    Of {
                        resources,
                        generation: of(id),
                    },
                )
            })
            .collect(),
        project_id: whose.then_some(consumer.project_id.as_str()),
        user_id: whose.then_some(consumer.user_id.as_str()),
        consumer_generation: request.at_least(1, 28).then_some(consumer.value.generation),
        consumer_type: request.at_least(1, 38).then_some(consumer.consumer_type.as_str()),
    };
    json(&request, 200, &body, Some(consumer.value.updated_at))
}

async fn of_provider(app: Arc<App>, request: Request) -> Result<Reply> {
    #[derive(Serialize)]
    struct Of<'a> {
        resources: &'a BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer_generation: Option<u64>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        allocations: BTreeMap<&'a str, Of<'a>>,
        resource_provider_generation: u64,
    }
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    let provider = find(&snapshot, request.param("uuid"))?;
    let consumers: Vec<_> = snapshot.find::<Consumer>("provider", &provider.id).collect();
    let allocations = consumers.iter().filter_map(|c| {
        let of = Of {
            resources: c.allocations.get(&provider.id)?,
            consumer_generation: request.at_least(1, 28).then_some(c.value.generation),
        };
        Some((c.id.as_str(), of))
    });
    let body = Body {
        allocations: allocations.collect(),
        resource_provider_generation: Shown::of(&snapshot, &provider).generation,
    };
    json(&request, 200, &body, consumers.iter().map(|c| c.value.updated_at).max())
}

async fn replace(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let consumer = request.param("consumer").to_owned();
    let consumer = shape::canonical(&consumer)
        .ok_or_else(|| Error::invalid("consumer_uuid", format!("Malformed consumer_uuid: {consumer}.")))?;
    let value = shape::body(&mut request).await?;
    let wish = wish(&request, &consumer, &Node::root(&value), request.at_least(1, 28))?;
    app.allocate(&[wish]).await?;
    Ok(Reply::empty(204))
}

async fn manage(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 13)?;
    let value = shape::body(&mut request).await?;
    let root = Node::root(&value);
    let wishes = wishes(&request, &root)?;
    if wishes.is_empty() {
        return Err(root.fail("{} does not have enough properties: name a consumer at least"));
    }
    app.allocate(&wishes).await?;
    Ok(Reply::empty(204))
}

/// Several consumers, by their ids.
pub(super) fn wishes(request: &Request, node: &Node<'_>) -> Result<Vec<Wish>> {
    let mut wishes: Vec<Wish> = Vec::new();
    for (consumer, node) in node.entries(shape::is_uuid_key, "a UUID")? {
        let consumer = shape::id(consumer);
        if wishes.iter().any(|w| w.consumer == *consumer) {
            return Err(node.fail(&format!("consumer {consumer} is there twice")));
        }
        wishes.push(wish(request, &consumer, &node, true)?);
    }
    Ok(wishes)
}

async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.release(&shape::id(request.param("consumer"))).await?;
    Ok(Reply::empty(204))
}

/// What a request gives one consumer; `releases` tells whether that may be nothing.
fn wish(request: &Request, consumer: &str, node: &Node<'_>, releases: bool) -> Result<Wish> {
    let mut required = vec!["allocations"];
    let mut optional = vec![];
    if request.at_least(1, 8) {
        required.extend(["project_id", "user_id"]);
    }
    if request.at_least(1, 28) {
        required.push("consumer_generation");
    }
    if request.at_least(1, 34) {
        optional.push("mappings");
    }
    if request.at_least(1, 38) {
        required.push("consumer_type");
    }
    let fields = node.fields(&required, &optional)?;
    let allocations = fields.need("allocations")?;
    let wanted = if request.at_least(1, 12) {
        by_provider(&allocations)?
    } else {
        listed(&allocations)?
    };
    if wanted.is_empty() && !releases {
        return Err(allocations.fail("it does not have enough properties: name a provider at least"));
    }
    if let Some(mappings) = fields.get("mappings") {
        check_mappings(&mappings)?;
    }
    let text = |key: &str| -> Result<String> {
        match fields.get(key) {
            Some(node) => Ok(node.text(1, 255)?.to_owned()),
            None => Ok(INCOMPLETE.to_owned()),
        }
    };
    Ok(Wish {
        consumer: ConsumerId::from(consumer),
        project_id: text("project_id")?,
        user_id: text("user_id")?,
        consumer_type: fields
            .get("consumer_type")
            .map(|node| node.name(255).map(str::to_owned))
            .transpose()?,
        generation: fields
            .get("consumer_generation")
            .map(|node| {
                if node.value.is_null() {
                    Ok(None)
                } else {
                    node.integer(i64::MIN, i64::MAX).map(Some)
                }
            })
            .transpose()?,
        wanted,
    })
}

fn by_provider(node: &Node<'_>) -> Result<Allocations> {
    let mut wanted = Allocations::new();
    for (provider, node) in node.entries(shape::is_uuid_key, "a UUID")? {
        let fields = node.fields(&["resources"], &["generation"])?;
        if let Some(generation) = fields.get("generation") {
            generation.integer(i64::MIN, i64::MAX)?;
        }
        let id = ProviderId::from(shape::id(provider));
        if wanted.insert(id, resources(&fields.need("resources")?)?).is_some() {
            return Err(node.fail(&format!("provider {provider} is there twice")));
        }
    }
    Ok(wanted)
}

fn listed(node: &Node<'_>) -> Result<Allocations> {
    let mut wanted = Allocations::new();
    for node in node.items()? {
        let fields = node.fields(&["resource_provider", "resources"], &[])?;
        let provider = fields.need("resource_provider")?.fields(&["uuid"], &[])?;
        let id = ProviderId::from(provider.need("uuid")?.uuid()?);
        wanted.insert(id, resources(&fields.need("resources")?)?);
    }
    Ok(wanted)
}

fn resources(node: &Node<'_>) -> Result<BTreeMap<String, u64>> {
    let entries = node.entries(shape::is_name, "a resource class")?;
    if entries.is_empty() {
        return Err(node.fail("{} does not have enough properties: name a resource class at least"));
    }
    entries
        .into_iter()
        .map(|(class, node)| Ok((class.to_owned(), node.count(1, i64::MAX)?)))
        .collect()
}

/// Which providers serve which group: checked and not kept, as upstream.
fn check_mappings(node: &Node<'_>) -> Result<()> {
    let entries = node.entries(|_| true, "")?;
    if entries.is_empty() {
        return Err(node.fail("{} does not have enough properties: leave mappings out, or name a group"));
    }
    for (_, node) in entries {
        let items = node.items()?;
        if items.is_empty() {
            return Err(node.fail("[] is too short: name a provider at least"));
        }
        for item in items {
            item.uuid()?;
        }
    }
    Ok(())
}
