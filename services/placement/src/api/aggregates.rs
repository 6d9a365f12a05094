//! `/resource_providers/{uuid}/aggregates`.

use super::{accepts_json, inventories::generation, json, shape, since};
use crate::{
    App,
    app::{Shown, find},
};
use maru_base::Result;
use maru_http::{Reply, Request, Routes};
use serde_json::json as value;
use std::{collections::BTreeSet, sync::Arc};

/// The microversion since which aggregates are part of what the generation stands for.
const WITH_GENERATION: u16 = 19;

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    let path = "/resource_providers/{uuid}/aggregates";
    routes
        .get(path, "placement:resource_providers:aggregates:list", list)
        .put(path, "placement:resource_providers:aggregates:update", replace)
}

fn body(request: &Request, shown: &Shown) -> Result<Reply> {
    let mut answer = value!({ "aggregates": shown.provider.aggregates });
    if request.at_least(1, WITH_GENERATION) {
        answer["resource_provider_generation"] = shown.generation.into();
    }
    json(request, 200, &answer, None)
}

async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 1)?;
    let snapshot = app.current().await?;
    body(
        &request,
        &Shown::of(&snapshot, &find(&snapshot, request.param("uuid"))?),
    )
}

async fn replace(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 1)?;
    find(&app.current().await?, request.param("uuid"))?;
    let value = shape::body(&mut request).await?;
    let root = shape::Node::root(&value);
    let (given, list) = if request.at_least(1, WITH_GENERATION) {
        let fields = root.fields(&["aggregates", "resource_provider_generation"], &[])?;
        (Some(generation(&fields)?), fields.need("aggregates")?)
    } else {
        (None, root)
    };
    let mut aggregates = BTreeSet::new();
    for node in list.items()? {
        let id = node.uuid()?;
        if !aggregates.insert(id) {
            return Err(node.fail("the list has non-unique elements"));
        }
    }
    body(
        &request,
        &app.set_aggregates(request.param("uuid"), given, &aggregates).await?,
    )
}
