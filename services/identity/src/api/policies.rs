//! /v3/policies: texts that are kept for whoever asks for them, as upstream does.

use super::{
    fields::Fields,
    lists::{self, Filters},
    not_found,
    views::Wrapped,
};
use crate::{App, app::cascade::Cascade};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_identity_model::{PolicyId, StoredPolicy};
use maru_store::{Object, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;

const MAX_BLOB: usize = 64 << 10;

pub(super) fn load(snapshot: &Snapshot, id: &str) -> Result<Object<StoredPolicy>> {
    snapshot
        .get::<StoredPolicy>(&PolicyId::from(id))
        .ok_or_else(|| not_found("policy", id))
}

pub(super) fn view(base: &str, id: &PolicyId, p: &StoredPolicy) -> Value {
    let mut view = Value::Object(p.extra.clone());
    view["id"] = json!(id);
    view["type"] = json!(p.kind);
    view["blob"] = json!(p.blob);
    view["links"] = json!({"self": format!("{base}/v3/policies/{id}")});
    view
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let filters = Filters::of(&request, &["type"]);
    let found: Vec<_> = app
        .snapshot()
        .list::<StoredPolicy>()
        .filter(|p| filters.pass(|_| Some(p.kind.as_str())))
        .collect();
    let base = request.base.as_str();
    lists::paged(&request, "policies", &found, |p| &p.id, |p| view(base, &p.id, &p.value))
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let mut fields = Fields::read(&mut request, "policy").await?;
    let value = StoredPolicy {
        kind: fields.required("type", 255)?,
        blob: fields.required("blob", MAX_BLOB)?,
        extra: fields.rest(),
    };
    let id = PolicyId::new_hex();
    app.plan(|_, txn| {
        txn.create(&id, &value);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("policy", view(&request.base, &id, &value)))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let p = load(&app.snapshot(), request.param("id"))?;
    Reply::json(200, &Wrapped("policy", view(&request.base, &p.id, &p.value)))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    load(&app.snapshot(), &id)?;
    let mut fields = Fields::read(&mut request, "policy").await?;
    fields.not_empty("policy")?;
    let kind = fields.string("type", 1, 255)?;
    let blob = fields.string("blob", 1, MAX_BLOB)?;
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            if let Some(k) = &kind {
                value.kind.clone_from(k);
            }
            if let Some(b) = &blob {
                value.blob.clone_from(b);
            }
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("policy", view(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id").to_owned();
    app.plan(|snapshot, txn| {
        let read = load(snapshot, &id)?;
        Cascade::new(snapshot, txn).policy(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
