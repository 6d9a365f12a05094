//! Servers: create, show, update, delete, rebuild's wire types.

use crate::{
    App,
    api::{
        server_view::{self, Shape},
        wire::{self, Count, Flag, Word, given, present},
    },
    app::servers as app,
};
use maru_auth::Target;
use maru_base::{Error, Result};
use maru_compute_model::{Server, ServerId};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// The body of `POST /servers`, under `server`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    pub name: String,
    #[serde(rename = "imageRef")]
    #[serde(default, deserialize_with = "given")]
    pub image: Option<String>,
    #[serde(rename = "flavorRef")]
    pub flavor: Word,
    #[serde(rename = "adminPass")]
    #[serde(default, deserialize_with = "given")]
    pub admin_pass: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "given")]
    pub networks: Option<NetworksBody>,
    #[serde(rename = "OS-DCF:diskConfig")]
    #[serde(default, deserialize_with = "given")]
    pub disk_config: Option<String>,
    #[serde(rename = "accessIPv4")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv4: Option<String>,
    #[serde(rename = "accessIPv6")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv6: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub personality: Option<Vec<FileBody>>,
    #[serde(default, deserialize_with = "given")]
    pub availability_zone: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub config_drive: Option<Flag>,
    #[serde(default, deserialize_with = "given")]
    pub key_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub min_count: Option<Count>,
    #[serde(default, deserialize_with = "given")]
    pub max_count: Option<Count>,
    #[serde(default, deserialize_with = "given")]
    pub return_reservation_id: Option<Flag>,
    #[serde(default, deserialize_with = "given")]
    pub security_groups: Option<Vec<GroupBody>>,
    #[serde(default, deserialize_with = "given")]
    pub user_data: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub block_device_mapping: Option<Vec<serde_json::Value>>,
    #[serde(default, deserialize_with = "given")]
    pub block_device_mapping_v2: Option<Vec<DeviceBody>>,
    pub description: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub tags: Option<Vec<String>>,
    pub trusted_image_certificates: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    pub host: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub hypervisor_hostname: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub hostname: Option<String>,
}

impl CreateBody {
    /// The flavor's id; older clients send the flavor's address.
    pub(crate) fn flavor_id(&self) -> &str {
        self.flavor.0.rsplit('/').next().unwrap_or(&self.flavor.0)
    }
}

/// `none`, `auto`, or a list.
#[derive(Debug)]
pub(crate) enum NetworksBody {
    Word(String),
    List(Vec<NetworkBody>),
}

impl<'de> Deserialize<'de> for NetworksBody {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        // By hand, because an untagged enum would lose which item of the list is wrong.
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = NetworksBody;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of networks, 'auto' or 'none'")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> std::result::Result<NetworksBody, E> {
                Ok(NetworksBody::Word(word.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> std::result::Result<NetworksBody, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(NetworksBody::List)
            }
        }
        d.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkBody {
    #[serde(default, deserialize_with = "given")]
    pub uuid: Option<String>,
    pub port: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub fixed_ip: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub tag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileBody {
    pub path: String,
    pub contents: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupBody {
    #[serde(default, deserialize_with = "given")]
    pub name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceBody {
    #[serde(default, deserialize_with = "given")]
    pub uuid: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub source_type: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub destination_type: Option<String>,
    pub boot_index: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "given")]
    pub volume_size: Option<Count>,
    #[serde(default, deserialize_with = "given")]
    pub guest_format: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub disk_bus: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub device_type: Option<String>,
    #[serde(rename = "device_name")]
    #[serde(default, deserialize_with = "given")]
    pub _device_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub delete_on_termination: Option<Flag>,
    pub no_device: Option<serde_json::Value>,
    #[serde(rename = "virtual_name")]
    #[serde(default, deserialize_with = "given")]
    pub _virtual_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub volume_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub snapshot_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub tag: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub volume_type: Option<String>,
}

/// The server with this id, as far as the caller may know of it.
pub(crate) fn find(snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<Server>> {
    let missing = || Error::not_found(format!("Instance {id} could not be found."));
    let server = snapshot.get::<Server>(&ServerId::from(id)).ok_or_else(missing)?;
    let caller = request.caller()?;
    if !caller.is_admin() && caller.project_id() != Some(&server.project_id) {
        return Err(missing());
    }
    Ok(server)
}

/// The attributes that policy rules see of a server.
pub(crate) fn target(server: &Server) -> Target {
    Target::project(&server.project_id).with("user_id", &server.user_id)
}

/// Finds and authorises for the route's rule, in a view that has all that was committed before.
pub(crate) async fn load(app: &App, request: &Request, id: &str) -> Result<(Snapshot, Object<Server>)> {
    let snapshot = app.store.current().await?;
    let server = find(&snapshot, request, id)?;
    request.authorize(&target(&server))?;
    Ok((snapshot, server))
}

/// `POST /servers`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let serde_json::Value::Object(mut map) = request.json_value().await? else {
        return Err(Error::bad_request("The request body is not a JSON object."));
    };
    let inner = map
        .remove("server")
        .ok_or_else(|| wire::invalid("server", "'server' is a required property"))?;
    let hints = map
        .remove("os:scheduler_hints")
        .or_else(|| map.remove("OS-SCH-HNT:scheduler_hints"))
        .map(|h| wire::typed("os:scheduler_hints", h))
        .transpose()?
        .unwrap_or_default();
    if let Some(extra) = map.keys().next() {
        return Err(wire::invalid(
            extra,
            format!("Additional properties are not allowed ('{extra}' was unexpected)"),
        ));
    }
    let body: CreateBody = wire::typed("server", inner)?;
    gate_create(&request, &body)?;
    let by_reservation = body.return_reservation_id.is_some_and(|f| f.0);
    let made = app::create(&app, &request, body, hints).await?;
    if by_reservation {
        return Reply::json(202, &json!({"reservation_id": made.reservation_id}));
    }
    let links = wire::links(&request.base, "servers", &made.first);
    let mut server = json!({
        "id": made.first.as_str(),
        "links": links,
        "OS-DCF:diskConfig": if made.auto_disk_config { "AUTO" } else { "MANUAL" },
        "security_groups": made.security_groups.iter().map(|n| json!({"name": n})).collect::<Vec<_>>(),
        "adminPass": made.admin_pass,
    });
    if made.security_groups.is_empty() {
        server["security_groups"] = json!([{"name": "default"}]);
    }
    let location = format!("{}/v2.1/servers/{}", request.base, made.first);
    Ok(Reply::json(202, &json!({"server": server}))?.header("location", &location))
}

/// Fields that a microversion does not have yet, or no longer.
fn gate_create(request: &Request, body: &CreateBody) -> Result<()> {
    let minor = request.version.minor;
    let unexpected = |field: &str| {
        Err(wire::invalid(
            &format!("server.{field}"),
            format!("Additional properties are not allowed ('{field}' was unexpected)"),
        ))
    };
    let gates: [(&str, bool, u16); 6] = [
        ("description", body.description.is_some(), 19),
        ("tags", body.tags.is_some(), 52),
        (
            "trusted_image_certificates",
            body.trusted_image_certificates.is_some(),
            63,
        ),
        ("host", body.host.is_some(), 74),
        ("hypervisor_hostname", body.hypervisor_hostname.is_some(), 74),
        ("hostname", body.hostname.is_some(), 90),
    ];
    for (field, there, from) in gates {
        if there && minor < from {
            return unexpected(field);
        }
    }
    if body.personality.is_some() && minor >= 57 {
        return unexpected("personality");
    }
    match &body.networks {
        Some(NetworksBody::Word(w)) if minor < 37 || !matches!(w.as_str(), "auto" | "none") => Err(wire::invalid(
            "server.networks",
            format!("'{w}' is not a list of networks, or, from 2.37, 'auto' or 'none'"),
        )),
        None if minor >= 37 => Err(wire::invalid("server.networks", "'networks' is a required property")),
        _ => Ok(()),
    }
}

/// `GET /servers/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let view = server_view::full(&snapshot, &Shape::of(&request, true), &server);
    Reply::json(200, &Wrapped { server: view })
}

#[derive(serde::Serialize)]
pub(crate) struct Wrapped<T> {
    pub server: T,
}

/// The body of `PUT /servers/{id}`, under `server`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateBody {
    #[serde(default, deserialize_with = "given")]
    pub name: Option<String>,
    #[serde(rename = "OS-DCF:diskConfig")]
    #[serde(default, deserialize_with = "given")]
    pub disk_config: Option<String>,
    #[serde(rename = "accessIPv4")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv4: Option<String>,
    #[serde(rename = "accessIPv6")]
    #[serde(default, deserialize_with = "given")]
    pub access_ipv6: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    pub hostname: Option<String>,
}

/// `PUT /servers/{id}`.
pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let body: UpdateBody = wire::body(&mut request, "server").await?;
    for (field, there, from) in [
        ("description", body.description.is_some(), 19),
        ("hostname", body.hostname.is_some(), 90),
    ] {
        if there && !request.at_least(2, from) {
            return Err(wire::invalid(
                field,
                format!("Additional properties are not allowed ('{field}' was unexpected)"),
            ));
        }
    }
    load(&app, &request, &id).await?;
    app::update(&app, &request, &id, body).await?;
    let (snapshot, server) = load(&app, &request, &id).await?;
    let mut shape = Shape::of(&request, true);
    shape.brief = !request.at_least(2, 75);
    Reply::json(
        200,
        &Wrapped {
            server: server_view::full(&snapshot, &shape, &server),
        },
    )
}

/// `DELETE /servers/{id}`.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    load(&app, &request, &id).await?;
    app::delete(&app, &request, &id).await?;
    Ok(Reply::empty(204))
}
