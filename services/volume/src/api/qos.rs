//! QoS specifications and the types that name them.

use crate::{
    App,
    api::wire::{body, invalid},
};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_store::{Kind, Object, Snapshot, Txn};
use maru_volume_model::{Consumer, Qos, QosId, VolumeType, VolumeTypeId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

fn find(snapshot: &Snapshot, id: &str) -> Result<Object<Qos>> {
    snapshot
        .get::<Qos>(&QosId::from(id))
        .ok_or_else(|| Error::not_found(format!("No such QoS spec {id}.")))
}

fn view(qos: &Object<Qos>) -> Value {
    json!({
        "id": qos.id.as_str(), "name": qos.value.name, "consumer": qos.value.consumer.word(), "specs": qos.value.specs,
    })
}

fn links(request: &Request, id: &str) -> Value {
    super::wire::links(request, "qos-specs", id)
}

fn text_of(field: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) if text.chars().count() <= 255 => Ok(text.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err(invalid(field, "It must be a text of at most 255 characters.")),
    }
}

fn consumer(word: &str) -> Result<Consumer> {
    Consumer::parse(word).ok_or_else(|| {
        invalid(
            "qos_specs.consumer",
            format!("Valid consumer of QoS specs are: front-end, back-end, both; not '{word}'"),
        )
    })
}

#[derive(Debug, Deserialize)]
struct CreateBody {
    name: String,
    consumer: Option<String>,
    #[serde(flatten)]
    specs: BTreeMap<String, Value>,
}

fn specs_of(given: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|(key, value)| {
            let text = text_of(&format!("qos_specs.{key}"), value)?;
            super::wire::check_item("qos_specs", key, &text)?;
            Ok((key.clone(), text))
        })
        .collect()
}

/// `GET /qos-specs`.
pub(crate) async fn index(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let rows: Vec<Object<Qos>> = snapshot.list::<Qos>().collect();
    let page = super::list::page(&request, rows, &["id", "name", "consumer", "created_at"])?;
    let views: Vec<Value> = page.items.iter().map(view).collect();
    Reply::json(200, &super::list::body(&request, "qos_specs", &page, views)?)
}

impl super::list::Row for Object<Qos> {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.to_string()),
            "name" => Some(self.value.name.clone()),
            "consumer" => Some(self.value.consumer.word().to_owned()),
            "created_at" => Some(self.value.created.to_string()),
            _ => None,
        }
    }
}

/// `GET /qos-specs/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let qos = find(&snapshot, request.param("id"))?;
    Reply::json(
        200,
        &json!({"qos_specs": view(&qos), "links": links(&request, &qos.id)}),
    )
}

/// `POST /qos-specs`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let given: CreateBody = body(&mut request, "qos_specs").await?;
    let name = given.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 255 {
        return Err(invalid(
            "qos_specs.name",
            "A name has 1 to 255 characters and is not blank.",
        ));
    }
    let consumer = consumer(given.consumer.as_deref().unwrap_or("back-end"))?;
    let specs = specs_of(&given.specs)?;
    let id = QosId::new_uuid();
    app.store
        .plan(|snapshot| {
            if snapshot.owner(Qos::NAME, "", &name).is_some() {
                return Err(Error::conflict(format!("QoS Specs {name} already exists.")));
            }
            let mut txn = Txn::new();
            txn.claim(Qos::NAME, "", &name, &id);
            txn.create(
                &id,
                &Qos {
                    name: name.clone(),
                    consumer,
                    specs: specs.clone(),
                    created: maru_base::time::now(),
                },
            );
            Ok((txn, ()))
        })
        .await?;
    let snapshot = app.store.snapshot();
    let qos = find(&snapshot, &id)?;
    Reply::json(200, &json!({"qos_specs": view(&qos), "links": links(&request, &id)}))
}

async fn edit(app: &App, request: &Request, change: impl Fn(&mut Qos) -> Result<()> + Send) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let qos = find(snapshot, request.param("id"))?;
            let mut new = (*qos.value).clone();
            change(&mut new)?;
            let mut txn = Txn::new();
            txn.update(&qos, &new);
            Ok((txn, ()))
        })
        .await
}

/// `PUT /qos-specs/{id}`: adds and replaces specs.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut given: BTreeMap<String, Value> = body(&mut request, "qos_specs").await?;
    let to = given
        .remove("consumer")
        .map(|v| consumer(v.as_str().unwrap_or_default()))
        .transpose()?;
    let specs = specs_of(&given)?;
    edit(&app, &request, |qos| {
        qos.specs.extend(specs.clone());
        if let Some(to) = to {
            qos.consumer = to;
        }
        Ok(())
    })
    .await?;
    let mut out: Map<String, Value> = specs.into_iter().map(|(k, v)| (k, v.into())).collect();
    if let Some(to) = to {
        out.insert("consumer".to_owned(), to.word().into());
    }
    Reply::json(200, &json!({"qos_specs": out}))
}

/// `PUT /qos-specs/{id}/delete_keys`.
pub(crate) async fn delete_keys(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let keys: Vec<String> = body(&mut request, "keys").await?;
    edit(&app, &request, |qos| {
        for key in &keys {
            qos.specs.remove(key).ok_or_else(|| {
                Error::bad_request(format!("QoS spec {} has no spec with key {key}.", request.param("id")))
            })?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// `DELETE /qos-specs/{id}`; `force=true` takes it from the types that name it.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let force = request.query.bool("force")?.unwrap_or(false);
    app.store
        .plan(|snapshot| {
            let qos = find(snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            for kind in snapshot.find::<VolumeType>("qos", &qos.id) {
                if !force {
                    return Err(Error::bad_request(format!(
                        "QoS Specs {} is still associated with entities; disassociate them or pass force.",
                        qos.id
                    )));
                }
                let mut new = (*kind.value).clone();
                new.qos_id = None;
                txn.update(&kind, &new);
            }
            txn.release(Qos::NAME, "", &qos.value.name);
            txn.delete(&qos);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `GET /qos-specs/{id}/associations`.
pub(crate) async fn associations(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.current().await?;
    let qos = find(&snapshot, request.param("id"))?;
    let list: Vec<Value> = snapshot
        .find::<VolumeType>("qos", &qos.id)
        .map(|t| json!({"association_type": "volume_type", "name": t.value.name, "id": t.id.as_str()}))
        .collect();
    Reply::json(200, &json!({"qos_associations": list}))
}

async fn set(app: &App, request: &Request, on: bool) -> Result<Reply> {
    let Some(kind_id) = request.query.get("vol_type_id") else {
        return Err(invalid("vol_type_id", "Volume Type id must not be None."));
    };
    app.store
        .plan(|snapshot| {
            let qos = find(snapshot, request.param("id"))?;
            let kind = snapshot
                .get::<VolumeType>(&VolumeTypeId::from(kind_id))
                .ok_or_else(|| Error::not_found(format!("Volume type {kind_id} could not be found.")))?;
            let mut new = (*kind.value).clone();
            match (&new.qos_id, on) {
                (Some(other), true) if *other != qos.id => {
                    return Err(Error::bad_request(format!(
                        "Type {kind_id} is already associated with another qos specs: {other}."
                    )));
                }
                (Some(mine), false) if *mine == qos.id => new.qos_id = None,
                (_, true) => new.qos_id = Some(qos.id.clone()),
                (_, false) => {}
            }
            let mut txn = Txn::new();
            txn.alive::<Qos>(&qos.id);
            txn.update(&kind, &new);
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}

/// `GET /qos-specs/{id}/associate`.
pub(crate) async fn associate(app: Arc<App>, request: Request) -> Result<Reply> {
    set(&app, &request, true).await
}

/// `GET /qos-specs/{id}/disassociate`.
pub(crate) async fn disassociate(app: Arc<App>, request: Request) -> Result<Reply> {
    set(&app, &request, false).await
}

/// `GET /qos-specs/{id}/disassociate_all`.
pub(crate) async fn disassociate_all(app: Arc<App>, request: Request) -> Result<Reply> {
    app.store
        .plan(|snapshot| {
            let qos = find(snapshot, request.param("id"))?;
            let mut txn = Txn::new();
            for kind in snapshot.find::<VolumeType>("qos", &qos.id) {
                let mut new = (*kind.value).clone();
                new.qos_id = None;
                txn.update(&kind, &new);
            }
            Ok((txn, ()))
        })
        .await?;
    Ok(Reply::empty(202))
}
