//! Migrations: changes of a server's flavor.

use crate::{
    App,
    api::{server_list::time, wire::Link},
};
use maru_base::{Error, Result, time::micros_bare};
use maru_compute_model::{Migration, numeric_id};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_store::Object;
use serde_json::{Value, json};
use std::sync::Arc;

fn view(request: &Request, m: &Object<Migration>) -> Value {
    let number = |flavor: &str| flavor.parse::<u32>().unwrap_or_else(|_| numeric_id(flavor));
    let mut v = json!({
        "id": m.id.as_str().parse::<u64>().unwrap_or(0),
        "instance_uuid": m.server_id.as_str(),
        "status": m.status.as_str(),
        "source_compute": m.source,
        "source_node": m.source,
        "dest_compute": m.target,
        "dest_node": m.target,
        "dest_host": null,
        "old_instance_type_id": number(&m.old_flavor),
        "new_instance_type_id": number(&m.new_flavor),
        "created_at": micros_bare(m.value.created),
        "updated_at": micros_bare(m.updated),
    });
    if request.at_least(2, 23) {
        v["migration_type"] = m.kind.as_str().into();
    }
    if request.at_least(2, 59) {
        v["uuid"] = m.uuid.as_str().into();
    }
    if request.at_least(2, 80) {
        v["user_id"] = m.user_id.as_str().into();
        v["project_id"] = m.project_id.as_str().into();
    }
    v
}

/// Filters, and the microversion that each came with.
const FILTERS: &[(&str, u16)] = &[
    ("status", 1),
    ("host", 1),
    ("source_compute", 1),
    ("instance_uuid", 1),
    ("migration_type", 1),
    ("user_id", 80),
    ("project_id", 80),
];

fn fits(m: &Migration, key: &str, value: &str) -> bool {
    match key {
        "status" => m.status.as_str() == value,
        "host" => m.source == value || m.target == value,
        "source_compute" => m.source == value,
        "instance_uuid" => m.server_id == *value,
        "migration_type" => m.kind == value,
        "user_id" => m.user_id == *value,
        "project_id" => m.project_id == *value,
        _ => true,
    }
}

/// `GET /os-migrations`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let query = &request.query;
    let mut found: Vec<Object<Migration>> = match query.get("instance_uuid") {
        Some(server) => snapshot.find::<Migration>("server", server).collect(),
        None => snapshot.list::<Migration>().collect(),
    };
    for (key, from) in FILTERS {
        if let Some(value) = query.get(key).filter(|_| request.at_least(2, *from)) {
            found.retain(|m| fits(m, key, value));
        }
    }
    // Newest first, as upstream sorts them since 2.59.
    found.sort_by(|a, b| b.value.created.cmp(&a.value.created).then_with(|| b.id.cmp(&a.id)));
    let mut body = json!({});
    if request.at_least(2, 59) {
        let page = Page::from_query(query, 1_000, 1_000)?;
        let since = query
            .get("changes-since")
            .map(|t| time("changes-since", t))
            .transpose()?;
        let before = match query.get("changes-before") {
            Some(t) if request.at_least(2, 66) => Some(time("changes-before", t)?),
            _ => None,
        };
        if let (Some(s), Some(b)) = (since, before)
            && s > b
        {
            return Err(Error::bad_request(
                "The value of changes-since must be less than or equal to changes-before.",
            ));
        }
        found.retain(|m| since.is_none_or(|s| m.updated >= s) && before.is_none_or(|b| m.updated <= b));
        let (items, _) = page.cut(found, |m| &m.uuid).map_err(|_| {
            Error::bad_request(format!(
                "Marker {} could not be found.",
                page.marker.as_deref().unwrap_or("")
            ))
        })?;
        found = items;
        if let Some(last) = found.last()
            && query.has("limit")
            && found.len() == page.limit
        {
            body["migrations_links"] = json!([Link {
                rel: "next",
                href: next_link(&request, &last.uuid)
            }]);
        }
    }
    body["migrations"] = found.iter().map(|m| view(&request, m)).collect();
    Reply::json(200, &body)
}
