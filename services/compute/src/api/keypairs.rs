//! Key pairs.

use crate::{
    App,
    api::wire::{self, Link, given, invalid},
    app::keypairs as app,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_compute_model::{KeyKind, KeyPair, keypair_id};
use maru_http::{
    Reply, Request,
    paging::{Page, next_link},
};
use maru_store::Object;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The body of `POST /os-keypairs`, under `keypair`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    pub name: String,
    #[serde(default, deserialize_with = "given")]
    pub public_key: Option<String>,
    #[serde(rename = "type")]
    #[serde(default, deserialize_with = "given")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub user_id: Option<String>,
}

fn word(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Ssh => "ssh",
        KeyKind::X509 => "x509",
    }
}

fn view(request: &Request, key: &KeyPair) -> Value {
    let mut v = json!({"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint});
    if request.at_least(2, 2) {
        v["type"] = word(key.kind).into();
    }
    v
}

/// Whose key pairs: the caller's own, or (2.10) another user's.
fn user(request: &Request) -> Result<String> {
    let own = request.caller()?.user_id.to_string();
    Ok(match request.query.get("user_id") {
        Some(other) if request.at_least(2, 10) => other.to_owned(),
        _ => own,
    })
}

/// `GET /os-keypairs`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let user = user(&request)?;
    request.authorize(&Target::none().with("user_id", &user))?;
    let snapshot = app.store.current().await?;
    let mut found: Vec<Object<KeyPair>> = snapshot.find::<KeyPair>("user", &user).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let mut links = Vec::new();
    if request.at_least(2, 35) {
        let page = Page::from_query(&request.query, 1_000, 1_000)?;
        let (items, _) = page
            .cut(found, |k| &k.name)
            .map_err(|_| Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or(""))))?;
        found = items;
        if let Some(last) = found.last()
            && request.query.has("limit")
            && found.len() == page.limit
        {
            links.push(Link {
                rel: "next",
                href: next_link(&request, &last.name),
            });
        }
    }
    let list: Vec<Value> = found.iter().map(|k| json!({"keypair": view(&request, k)})).collect();
    let mut body = json!({"keypairs": list});
    if !links.is_empty() {
        body["keypairs_links"] = json!(links);
    }
    Reply::json(200, &body)
}

/// `GET /os-keypairs/{name}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let user = user(&request)?;
    request.authorize(&Target::none().with("user_id", &user))?;
    let name = request.param("name");
    let key = app
        .store
        .snapshot()
        .get::<KeyPair>(&keypair_id(&user, name))
        .ok_or_else(|| app::missing(&user, name))?;
    let mut v = view(&request, &key);
    v["user_id"] = key.user_id.as_str().into();
    v["id"] = key.number.into();
    v["deleted"] = false.into();
    v["deleted_at"] = Value::Null;
    v["updated_at"] = Value::Null;
    v["created_at"] = maru_base::time::micros_bare(key.value.created).into();
    Reply::json(200, &json!({"keypair": v}))
}

/// `POST /os-keypairs`: import, or (before 2.92) generate.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: CreateBody = wire::body(&mut request, "keypair").await?;
    if body.kind.is_some() && !request.at_least(2, 2) {
        return Err(invalid(
            "keypair.type",
            "Additional properties are not allowed ('type' was unexpected)",
        ));
    }
    if body.user_id.is_some() && !request.at_least(2, 10) {
        return Err(invalid(
            "keypair.user_id",
            "Additional properties are not allowed ('user_id' was unexpected)",
        ));
    }
    let owner = body
        .user_id
        .clone()
        .unwrap_or_else(|| request.caller().map(|c| c.user_id.to_string()).unwrap_or_default());
    request.authorize(&Target::none().with("user_id", &owner))?;
    let (key, private) = app::create(&app, &request, body, &owner).await?;
    let mut v = view(&request, &key);
    v["user_id"] = key.user_id.as_str().into();
    if let Some(private) = private {
        v["private_key"] = private.into();
    }
    // Upstream's answer was a plain 200 before 2.2.
    Reply::json(if request.at_least(2, 2) { 201 } else { 200 }, &json!({"keypair": v}))
}

/// `DELETE /os-keypairs/{name}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let user = user(&request)?;
    request.authorize(&Target::none().with("user_id", &user))?;
    app::delete(&app, &user, request.param("name")).await?;
    Ok(Reply::empty(if request.at_least(2, 2) { 204 } else { 202 }))
}
