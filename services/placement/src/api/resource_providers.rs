//! `/resource_providers`.

use super::{accepts_json, filters, json, shape, stamped};
use crate::{
    App, PREFIX,
    app::{
        Shown, find,
        resource_providers::{Filter, list as filtered},
    },
};
use maru_base::Result;
use maru_http::{Reply, Request, Routes};
use serde::Serialize;
use std::sync::Arc;

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes
        .get("/resource_providers", "placement:resource_providers:list", list)
        .post("/resource_providers", "placement:resource_providers:create", create)
        .get("/resource_providers/{uuid}", "placement:resource_providers:show", show)
        .put(
            "/resource_providers/{uuid}",
            "placement:resource_providers:update",
            update,
        )
        .delete(
            "/resource_providers/{uuid}",
            "placement:resource_providers:delete",
            delete,
        )
}

#[derive(Serialize)]
struct Link {
    rel: &'static str,
    href: String,
}

/// A provider as the API shows it; the tree from microversion 1.14 on.
#[derive(Serialize)]
struct Body<'a> {
    uuid: &'a str,
    name: &'a str,
    generation: u64,
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_provider_uuid: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_provider_uuid: Option<&'a str>,
}

/// The path of a provider.
pub(super) fn location(id: &str) -> String {
    format!("{PREFIX}/resource_providers/{id}")
}

fn body<'a>(request: &Request, shown: &'a Shown) -> Body<'a> {
    let own = location(&shown.id);
    let rels = [
        ("inventories", 0),
        ("usages", 0),
        ("aggregates", 1),
        ("traits", 6),
        ("allocations", 11),
    ];
    let mut links = vec![Link {
        rel: "self",
        href: own.clone(),
    }];
    links.extend(
        rels.into_iter()
            .filter(|(_, since)| request.at_least(1, *since))
            .map(|(rel, _)| Link {
                rel,
                href: format!("{own}/{rel}"),
            }),
    );
    let nested = request.at_least(1, 14);
    Body {
        uuid: &shown.id,
        name: &shown.provider.name,
        generation: shown.generation,
        links,
        parent_provider_uuid: nested.then(|| shown.provider.parent.as_deref()),
        root_provider_uuid: nested.then_some(&*shown.provider.root),
    }
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    #[derive(Serialize)]
    struct Answer<'a> {
        resource_providers: Vec<Body<'a>>,
    }
    accepts_json(&request)?;
    let known = [
        ("name", 0),
        ("uuid", 0),
        ("member_of", 3),
        ("resources", 4),
        ("in_tree", 14),
        ("required", 18),
    ];
    let known: Vec<&str> = known
        .into_iter()
        .filter(|(_, since)| request.at_least(1, *since))
        .map(|(key, _)| key)
        .collect();
    filters::only(&request, &known)?;
    let filter = Filter {
        name: request.query.get("name").map(str::to_owned),
        uuid: request
            .query
            .get("uuid")
            .map(|text| filters::uuid("uuid", text))
            .transpose()?,
        group: filters::group(&request, "")?,
    };
    let snapshot = app.current().await?;
    let found: Vec<Shown> = filtered(&snapshot, &filter)?
        .iter()
        .map(|p| Shown::of(&snapshot, p))
        .collect();
    let modified = found.iter().map(|s| s.provider.updated_at).max();
    let answer = Answer {
        resource_providers: found.iter().map(|s| body(&request, s)).collect(),
    };
    json(&request, 200, &answer, modified)
}

async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    let shown = Shown::of(&snapshot, &find(&snapshot, request.param("uuid"))?);
    json(&request, 200, &body(&request, &shown), Some(shown.provider.updated_at))
}

/// Name and, from microversion 1.14 on, parent: what POST and PUT take.
struct Given {
    name: String,
    uuid: Option<String>,
    parent: Option<Option<String>>,
}

async fn given(request: &mut Request, with_uuid: bool) -> Result<Given> {
    let value = shape::body(request).await?;
    let mut optional = Vec::new();
    if with_uuid {
        optional.push("uuid");
    }
    if request.at_least(1, 14) {
        optional.push("parent_provider_uuid");
    }
    let fields = shape::Node::root(&value).fields(&["name"], &optional)?;
    let parent = fields
        .get("parent_provider_uuid")
        .map(|node| {
            if node.value.is_null() {
                Ok(None)
            } else {
                node.uuid().map(Some)
            }
        })
        .transpose()?;
    Ok(Given {
        name: fields.need("name")?.text(1, 200)?.to_owned(),
        uuid: fields.get("uuid").map(|node| node.uuid()).transpose()?,
        parent,
    })
}

async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given = given(&mut request, true).await?;
    let id = given.uuid.unwrap_or_else(maru_base::random::uuid);
    let shown = app
        .create_provider(&id, &given.name, given.parent.flatten().as_deref())
        .await?;
    // With a body from microversion 1.20 on, and then it is 200.
    let reply = if request.at_least(1, 20) {
        json(&request, 200, &body(&request, &shown), Some(shown.provider.updated_at))?
    } else {
        Reply::empty(201)
    };
    Ok(reply.header("location", &location(&shown.id)))
}

async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    find(&app.current().await?, request.param("uuid"))?;
    let given = given(&mut request, false).await?;
    let parent = given.parent.as_ref().map(Option::as_deref);
    let shown = app
        .update_provider(request.param("uuid"), &given.name, parent, request.at_least(1, 37))
        .await?;
    let reply = Reply::json(200, &body(&request, &shown))?;
    Ok(stamped(&request, reply, Some(shown.provider.updated_at)))
}

async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete_provider(request.param("uuid")).await?;
    Ok(Reply::empty(204))
}
