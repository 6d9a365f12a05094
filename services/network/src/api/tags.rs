//! `/<resources>/{id}/tags`.

use super::body;
use crate::{
    App,
    app::tags::{TagChange, tags_of},
};
use maru_base::Result;
use maru_http::{Reply, Request, Routes};
use maru_network_model::errors;
use serde_json::json;
use std::sync::Arc;

/// Resources with tags: path, rule to read, rule to change.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("networks", "get_networks_tags", "update_networks_tags"),
    ("subnets", "get_subnets_tags", "update_subnets_tags"),
    ("ports", "get_ports_tags", "update_ports_tags"),
    ("routers", "get_routers_tags", "update_routers_tags"),
    ("subnetpools", "get_subnetpools_tags", "update_subnetpools_tags"),
    ("floatingips", "get_floatingips_tags", "update_floatingips_tags"),
    (
        "security-groups",
        "get_security_groups_tags",
        "update_security_groups_tags",
    ),
    ("trunks", "get_trunks_tags", "update_trunks_tags"),
];
/// Longest tag, in characters.
const LONGEST: usize = 255;

pub(crate) fn routes(mut r: Routes<App>) -> Routes<App> {
    for (resource, read, write) in RESOURCES {
        let all = format!("/v2.0/{resource}/{{id}}/tags");
        let one = format!("{all}/{{tag}}");
        r = r
            .get(&all, read, list)
            .put(&all, write, replace)
            .post(&all, write, add_all)
            .delete(&all, write, clear)
            .get(&one, read, has)
            .put(&one, write, add)
            .delete(&one, write, remove);
    }
    r
}

/// The resource of the path: `/v2.0/networks/…`.
fn resource(request: &Request) -> String {
    request.path.split('/').nth(2).unwrap_or_default().to_owned()
}

async fn change(app: &App, request: &Request, change: TagChange) -> Result<Vec<String>> {
    app.change_tags(request, &resource(request), request.param("id"), &change)
        .await
}

fn check(tag: String) -> Result<String> {
    let tag = body::check_text("tags", tag, LONGEST)?;
    // A comma separates tags in filters.
    if tag.is_empty() || tag.contains(',') {
        return Err(body::invalid(
            "tags",
            format!("'{tag}' is not a tag: it is empty or has a comma"),
        ));
    }
    Ok(tag)
}

async fn wanted(request: &mut Request) -> Result<Vec<String>> {
    let mut b = body::bare(request).await?;
    let tags = b.texts("tags", LONGEST)?;
    let tags = b.required("tags", tags)?;
    b.finish(&[])?;
    tags.into_iter().map(check).collect()
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let tags = tags_of(
        &request,
        &app.store.snapshot(),
        &resource(&request),
        request.param("id"),
    )?;
    Reply::json(200, &json!({"tags": tags}))
}
async fn replace(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let tags = wanted(&mut request).await?;
    let tags = change(&app, &request, TagChange::Replace(tags)).await?;
    Reply::json(200, &json!({"tags": tags}))
}
async fn add_all(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let tags = wanted(&mut request).await?;
    let tags = change(&app, &request, TagChange::Add(tags)).await?;
    Reply::json(201, &json!({"tags": tags}))
}
async fn clear(app: Arc<App>, request: Request) -> Result<Reply> {
    change(&app, &request, TagChange::Clear).await?;
    Ok(Reply::empty(204))
}
async fn has(app: Arc<App>, request: Request) -> Result<Reply> {
    let tags = tags_of(
        &request,
        &app.store.snapshot(),
        &resource(&request),
        request.param("id"),
    )?;
    let tag = request.param("tag");
    if tags.iter().any(|t| t == tag) {
        Ok(Reply::empty(204))
    } else {
        Err(errors::not_found("TagNotFound", "Tag", tag))
    }
}
async fn add(app: Arc<App>, request: Request) -> Result<Reply> {
    let tag = check(request.param("tag").to_owned())?;
    change(&app, &request, TagChange::Add(vec![tag])).await?;
    Ok(Reply::empty(201))
}
async fn remove(app: Arc<App>, request: Request) -> Result<Reply> {
    let tag = request.param("tag").to_owned();
    change(&app, &request, TagChange::Remove(tag)).await?;
    Ok(Reply::empty(204))
}
