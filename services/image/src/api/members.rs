//! `/v2/images/{id}/members`.

use crate::App;
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{Reply, Request};
use maru_image_model::{Member, MemberStatus};
use maru_store::Object;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Other members of a body are passed over, as upstream does.
#[derive(Deserialize)]
struct Add {
    member: String,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
}

fn view(member: &Object<Member>) -> Value {
    json!({
        "member_id": member.project_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": seconds_z(member.value.created_at),
        "updated_at": seconds_z(member.value.updated_at),
        "schema": "/v2/schemas/member",
    })
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let members = app.members(&snapshot, &request, request.param("id"))?;
    let members: Vec<Value> = members.iter().map(view).collect();
    Reply::json(200, &json!({"members": members, "schema": "/v2/schemas/members"}))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let member = app.member(&snapshot, &request, request.param("id"), request.param("member"))?;
    Reply::json(200, &view(&member))
}

pub(super) async fn add(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: Add = request.json().await?;
    Reply::json(
        200,
        &view(&app.add_member(&request, request.param("id"), &body.member).await?),
    )
}

pub(super) async fn answer(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: Answer = request.json().await?;
    let status: MemberStatus = serde_json::from_value(Value::from(body.status))
        .map_err(|_| Error::invalid("status", "status must be one of pending, accepted, rejected."))?;
    let member = app
        .answer(&request, request.param("id"), request.param("member"), status)
        .await?;
    Reply::json(200, &view(&member))
}

pub(super) async fn remove(app: Arc<App>, request: Request) -> Result<Reply> {
    app.remove_member(&request, request.param("id"), request.param("member"))
        .await?;
    Ok(Reply::empty(204))
}
