//! Metadata of volumes and snapshots: the same verbs over both.

use crate::{
    App,
    api::wire::{self, invalid},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Kind, Object, Snapshot, Txn};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

type Map = BTreeMap<String, String>;

/// A kind with metadata.
pub(crate) trait Described: Kind {
    /// The one of this id, if the caller may see it.
    fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Self>>;
    fn metadata(&mut self) -> &mut Map;
}

impl Described for maru_volume_model::Volume {
    fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Self>> {
        super::volumes::find(request, snapshot, id)
    }
    fn metadata(&mut self) -> &mut Map {
        &mut self.metadata
    }
}

impl Described for maru_volume_model::Snapshot {
    fn find(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<Self>> {
        super::snapshots::find(request, snapshot, id)
    }
    fn metadata(&mut self) -> &mut Map {
        &mut self.metadata
    }
}

/// `GET .../metadata`.
pub(crate) async fn index<K: Described>(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let mut value = (*K::find(&request, &snapshot, request.param("id"))?.value).clone();
    Reply::json(200, &json!({"metadata": value.metadata()}))
}

async fn change<K: Described>(
    app: &App,
    request: &Request,
    change: impl Fn(&mut Map) -> Result<()> + Send,
) -> Result<Map> {
    app.store
        .plan(|snapshot| {
            let read = K::find(request, snapshot, request.param("id"))?;
            let mut new = (*read.value).clone();
            change(new.metadata())?;
            let now = new.metadata().clone();
            let mut txn = Txn::new();
            if new != *read.value {
                txn.update(&read, &new);
            }
            Ok((txn, now))
        })
        .await
}

async fn given(request: &mut Request) -> Result<Map> {
    let map: Map = wire::body(request, "metadata").await?;
    wire::check_metadata("metadata", &map)?;
    Ok(map)
}

/// `POST .../metadata`: adds and replaces.
pub(crate) async fn add<K: Described>(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let map = given(&mut request).await?;
    let now = change::<K>(&app, &request, |m| {
        m.extend(map.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"metadata": now}))
}

/// `PUT .../metadata`: replaces all.
pub(crate) async fn put<K: Described>(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let map = given(&mut request).await?;
    let now = change::<K>(&app, &request, |m| {
        m.clone_from(&map);
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"metadata": now}))
}

fn missing(key: &str) -> Error {
    Error::not_found(format!("Metadata item '{key}' was not found."))
}

/// `GET .../metadata/{key}`.
pub(crate) async fn show<K: Described>(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let mut value = (*K::find(&request, &snapshot, request.param("id"))?.value).clone();
    let key = request.param("key");
    let item = value.metadata().get(key).ok_or_else(|| missing(key))?;
    Reply::json(200, &json!({"meta": {key: item}}))
}

/// `PUT .../metadata/{key}`.
pub(crate) async fn put_item<K: Described>(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let map: Map = wire::body(&mut request, "meta").await?;
    wire::check_metadata("meta", &map)?;
    let key = request.param("key").to_owned();
    let mut items = map.into_iter();
    let (Some((name, value)), None) = (items.next(), items.next()) else {
        return Err(invalid("meta", "Request body contains too many items; send one."));
    };
    if name != key {
        return Err(invalid(
            "meta",
            "Request body and URI mismatch: name the item of the address.",
        ));
    }
    change::<K>(&app, &request, |m| {
        m.insert(key.clone(), value.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &json!({"meta": {key: value}}))
}

/// `DELETE .../metadata/{key}`.
pub(crate) async fn delete<K: Described>(app: Arc<App>, request: Request) -> Result<Reply> {
    let key = request.param("key").to_owned();
    change::<K>(&app, &request, |m| {
        m.remove(&key).map(drop).ok_or_else(|| missing(&key))
    })
    .await?;
    Ok(Reply::empty(200))
}
