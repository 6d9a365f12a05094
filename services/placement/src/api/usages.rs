//! `/resource_providers/{uuid}/usages` and `/usages`.

use super::{accepts_json, filters, json, shape, since};
use crate::{
    App,
    app::{Shown, allocations::UNKNOWN_TYPE, find},
};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request, Routes};
use maru_placement_model::{Consumer, usages};
use serde_json::json as value;
use std::{collections::BTreeMap, sync::Arc};

/// The consumer type that stands for all of them.
const ALL: &str = "all";

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes
        .get(
            "/resource_providers/{uuid}/usages",
            "placement:resource_providers:usages",
            of_provider,
        )
        .get("/usages", "placement:usages", of_project)
}

async fn of_provider(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    let snapshot = app.current().await?;
    let provider = find(&snapshot, request.param("uuid"))?;
    let answer = value!({
        "resource_provider_generation": Shown::of(&snapshot, &provider).generation,
        "usages": usages(&snapshot, &provider.id, &provider),
    });
    json(&request, 200, &answer, None)
}

async fn of_project(app: Arc<App>, request: Request) -> Result<Reply> {
    accepts_json(&request)?;
    since(&request, 9)?;
    let typed = request.at_least(1, 38);
    if typed {
        filters::only(&request, &["project_id", "user_id", "consumer_type"])?;
    } else {
        filters::only(&request, &["project_id", "user_id"])?;
    }
    let Some(project) = request.query.get("project_id") else {
        return Err(filters::invalid("project_id", "'project_id' is a required property"));
    };
    let user = request.query.get("user_id");
    for (key, text) in [("project_id", Some(project)), ("user_id", user)] {
        if text.is_some_and(|t| t.is_empty() || t.chars().count() > 255) {
            return Err(filters::invalid(key, "it must have 1 to 255 characters"));
        }
    }
    let wanted = request.query.get("consumer_type");
    if let Some(text) = wanted
        && (text.len() > 255 || !(shape::is_name(text) || text == ALL || text == UNKNOWN_TYPE))
    {
        return Err(filters::invalid(
            "consumer_type",
            &format!("'{text}' does not match '^[A-Z0-9_]+$|^all$|^unknown$'"),
        ));
    }
    request.authorize(&Target::project(project))?;
    let snapshot = app.current().await?;
    // By consumer type: how many consumers, and units by class.
    let mut sums: BTreeMap<String, (u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for consumer in snapshot.find::<Consumer>("project", project) {
        if user.is_some_and(|u| u != consumer.user_id) {
            continue;
        }
        let name = match wanted {
            _ if !typed => ALL,
            Some(ALL) => ALL,
            Some(one) if one != consumer.consumer_type => continue,
            _ => consumer.consumer_type.as_str(),
        };
        let (count, units) = sums.entry(name.to_owned()).or_default();
        *count += 1;
        for (class, amount) in consumer.allocations.values().flatten() {
            let sum = units.entry(class.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }
    if !typed {
        let units = sums.remove(ALL).map(|(_, units)| units).unwrap_or_default();
        return json(&request, 200, &value!({ "usages": units }), None);
    }
    let by_type: BTreeMap<String, BTreeMap<String, u64>> = sums
        .into_iter()
        .map(|(name, (count, mut units))| {
            units.insert("consumer_count".to_owned(), count);
            (name, units)
        })
        .collect();
    json(&request, 200, &value!({ "usages": by_type }), None)
}
