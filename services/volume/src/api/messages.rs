//! User messages (3.3): why what was accepted failed all the same.

use crate::{
    App,
    api::{
        list::{self, Row},
        wire::{self, links, own, time},
    },
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use maru_volume_model::message::{Message, MessageId};
use serde_json::{Value, json};
use std::sync::Arc;

impl Row for Object<Message> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        let m = &self.value;
        match name {
            "id" => Some(self.id.to_string()),
            "event_id" => Some(m.event_id.clone()),
            "resource_uuid" => Some(m.resource_id.clone()),
            "resource_type" => Some(m.resource_type.clone()),
            "request_id" => Some(m.request_id.clone()),
            "message_level" => Some("ERROR".to_owned()),
            "created_at" => Some(m.created.to_string()),
            "guaranteed_until" => Some(m.expires.to_string()),
            _ => None,
        }
    }
}

const FILTERS: &[&str] = &[
    "id",
    "event_id",
    "resource_uuid",
    "resource_type",
    "request_id",
    "message_level",
    "created_at",
];
const SORT_KEYS: &[&str] = &[
    "id",
    "event_id",
    "resource_uuid",
    "resource_type",
    "request_id",
    "message_level",
    "created_at",
    "guaranteed_until",
];

/// A message of the caller's project that has not expired.
fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Message>> {
    let missing = || Error::not_found(format!("Message {id} could not be found."));
    let found = snapshot
        .get::<Message>(&MessageId::from(id))
        .filter(|m| m.value.expires > maru_base::time::now())
        .ok_or_else(missing)?;
    own(request, &found.value.project_id, missing)?;
    Ok(found)
}

fn view(request: &Request, read: &Object<Message>) -> Value {
    let m = &read.value;
    json!({
        "id": read.id.as_str(), "event_id": m.event_id, "user_message": m.text, "message_level": "ERROR",
        "created_at": time(m.created), "guaranteed_until": time(m.expires), "request_id": m.request_id,
        "resource_type": m.resource_type, "resource_uuid": m.resource_id, "links": links(request, "messages", &read.id),
    })
}

/// `GET /messages`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 3)?;
    let snapshot = app.store.current().await?;
    let now = maru_base::time::now();
    let project = request.caller()?.require_project()?;
    let mut rows: Vec<Object<Message>> = snapshot
        .find::<Message>("project", project)
        .filter(|m| m.value.expires > now)
        .collect();
    list::filter(&request, &mut rows, FILTERS)?;
    let page = list::page(&request, rows, SORT_KEYS)?;
    let views = page.items.iter().map(|m| view(&request, m)).collect();
    Reply::json(200, &list::body(&request, "messages", &page, views)?)
}

/// `GET /messages/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 3)?;
    let snapshot = app.store.current().await?;
    let found = find(&request, &snapshot, request.param("id"))?;
    Reply::json(200, &json!({"message": view(&request, &found)}))
}

/// `DELETE /messages/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    wire::since(&request, 3)?;
    app.store
        .plan(|snapshot| {
            let read = find(&request, snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            txn.delete(&read);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(204))
}
