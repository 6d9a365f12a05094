//! `/v2/images/{id}/members`.

use crate::App;
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{Reply, Request};
use maru_image_model::{Member, MemberStatus};
use maru_store::Object;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    member: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: MemberStatus,
}

fn view(member: &Object<Member>) -> Value {
    json!({
        "member_id": member.project_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": seconds_z(member.created_at),
        "updated_at": seconds_z(member.updated_at),
        "schema": "/v2/schemas/member",
    })
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let members: Vec<Value> = app.members(&request, request.param("id"))?.iter().map(view).collect();
    Reply::json(200, &json!({"members": members, "schema": "/v2/schemas/members"}))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    Reply::json(
        200,
        &view(&app.member(&request, request.param("id"), request.param("member"))?),
    )
}

pub(super) async fn add(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: Add = request.json().await?;
    Reply::json(
        200,
        &view(&app.add_member(&request, request.param("id"), &body.member).await?),
    )
}

pub(super) async fn answer(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: Answer = request.json().await.map_err(|e| {
        if e.field() == Some("status") {
            Error::invalid("status", "status must be one of pending, accepted, rejected.")
        } else {
            e
        }
    })?;
    let member = app
        .answer(&request, request.param("id"), request.param("member"), body.status)
        .await?;
    Reply::json(200, &view(&member))
}

pub(super) async fn remove(app: Arc<App>, request: Request) -> Result<Reply> {
    app.remove_member(&request, request.param("id"), request.param("member"))
        .await?;
    Ok(Reply::empty(204))
}
