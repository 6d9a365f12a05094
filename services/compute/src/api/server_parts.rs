//! Parts of a server: addresses, metadata, tags, interfaces, security groups, diagnostics.

use crate::{
    App,
    api::{
        server_view,
        servers::{find, load, target},
        wire::{self, given, invalid, is_uuid, since},
    },
    app::server_actions::note,
    app::servers::{check_metadata, check_metadata_count, check_tag, check_tags},
};
use maru_base::{Error, Result};
use maru_compute_model::{Server, WantedPort, network, rules};
use maru_http::{Reply, Request};
use maru_store::{Object, Snapshot, Txn};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// `GET /servers/{id}/ips`.
pub(crate) async fn ips(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    #[derive(serde::Serialize)]
    struct Body {
        addresses: server_view::Addresses,
    }
    Reply::json(
        200,
        &Body {
            addresses: server_view::addresses(&snapshot, &server, false),
        },
    )
}

/// `GET /servers/{id}/ips/{network}`.
pub(crate) async fn ips_of(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let name = request.param("network");
    let mut all = server_view::addresses(&snapshot, &server, false);
    all.0.retain(|(n, _)| n == name);
    if all.0.is_empty() {
        return Err(Error::not_found("Instance is not a member of specified network"));
    }
    Reply::json(200, &all)
}

/// Plans a change of a server that is loaded and authorised for the route's rule.
async fn change<F>(app: &App, request: &Request, mut f: F) -> Result<Server>
where
    F: FnMut(&Snapshot, &mut Txn, &Object<Server>) -> Result<Server>,
{
    app.store
        .plan(|snapshot| {
            let server = find(snapshot, request, request.param("id"))?;
            request.authorize(&target(&server))?;
            let mut txn = Txn::new();
            let mut new = f(snapshot, &mut txn, &server)?;
            new.updated = maru_base::time::now();
            txn.update(&server, &new);
            Ok((txn, new))
        })
        .await
}

/// `GET /servers/{id}/metadata`.
pub(crate) async fn metadata(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, server) = load(&app, &request, request.param("id")).await?;
    Reply::json(200, &json!({"metadata": server.metadata}))
}

async fn set_metadata(app: &App, request: &Request, items: BTreeMap<String, String>, replace: bool) -> Result<Server> {
    check_metadata(&items)?;
    let caller = request.caller()?.clone();
    change(app, request, |snapshot, _, server| {
        rules::check_action(&caller, &server.id, server, "update_metadata")?;
        let mut new = (*server.value).clone();
        if replace {
            new.metadata.clone_from(&items);
        } else {
            new.metadata.extend(items.clone());
        }
        check_metadata_count(snapshot, &server.project_id, new.metadata.len())?;
        Ok(new)
    })
    .await
}

/// `POST /servers/{id}/metadata`: adds.
pub(crate) async fn add_metadata(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let items = wire::body(&mut request, "metadata").await?;
    let server = set_metadata(&app, &request, items, false).await?;
    Reply::json(200, &json!({"metadata": server.metadata}))
}

/// `PUT /servers/{id}/metadata`: replaces.
pub(crate) async fn put_metadata(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let items = wire::body(&mut request, "metadata").await?;
    let server = set_metadata(&app, &request, items, true).await?;
    Reply::json(200, &json!({"metadata": server.metadata}))
}

/// `GET /servers/{id}/metadata/{key}`.
pub(crate) async fn metadata_item(app: Arc<App>, request: Request) -> Result<Reply> {
    let (_, server) = load(&app, &request, request.param("id")).await?;
    let key = request.param("key");
    let value = server
        .metadata
        .get(key)
        .ok_or_else(|| Error::not_found("Metadata item was not found"))?;
    Reply::json(200, &json!({"meta": {key: value}}))
}

/// `PUT /servers/{id}/metadata/{key}`.
pub(crate) async fn put_metadata_item(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let items: BTreeMap<String, String> = wire::body(&mut request, "meta").await?;
    let key = request.param("key").to_owned();
    if items.len() != 1 {
        return Err(invalid("meta", "exactly one item is set at a time"));
    }
    if !items.contains_key(&key) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    set_metadata(&app, &request, items.clone(), false).await?;
    Reply::json(200, &json!({"meta": items}))
}

/// `DELETE /servers/{id}/metadata/{key}`.
pub(crate) async fn delete_metadata_item(app: Arc<App>, request: Request) -> Result<Reply> {
    let key = request.param("key").to_owned();
    let caller = request.caller()?.clone();
    change(&app, &request, |_, _, server| {
        rules::check_action(&caller, &server.id, server, "delete_metadata")?;
        let mut new = (*server.value).clone();
        new.metadata
            .remove(&key)
            .ok_or_else(|| Error::not_found("Metadata item was not found"))?;
        Ok(new)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// `GET /servers/{id}/tags`.
pub(crate) async fn tags(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 26)?;
    let (_, server) = load(&app, &request, request.param("id")).await?;
    Reply::json(200, &json!({"tags": server.tags}))
}

/// `PUT /servers/{id}/tags`.
pub(crate) async fn put_tags(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 26)?;
    let list: Vec<String> = wire::body(&mut request, "tags").await?;
    check_tags(&list)?;
    let server = change(&app, &request, |_, _, server| {
        rules::check_state(&server.id, server, "update tags")?;
        let mut new = (*server.value).clone();
        new.tags = list.iter().cloned().collect();
        Ok(new)
    })
    .await?;
    Reply::json(200, &json!({"tags": server.tags}))
}

/// `DELETE /servers/{id}/tags`.
pub(crate) async fn delete_tags(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 26)?;
    change(&app, &request, |_, _, server| {
        rules::check_state(&server.id, server, "delete tags")?;
        let mut new = (*server.value).clone();
        new.tags.clear();
        Ok(new)
    })
    .await?;
    Ok(Reply::empty(204))
}

fn no_tag(server: &Object<Server>, tag: &str) -> Error {
    Error::not_found(format!("Server {} has no tag '{tag}'", server.id))
}

/// `GET /servers/{id}/tags/{tag}`.
pub(crate) async fn tag(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 26)?;
    let (_, server) = load(&app, &request, request.param("id")).await?;
    let tag = request.param("tag");
    if server.tags.contains(tag) {
        Ok(Reply::empty(204))
    } else {
        Err(no_tag(&server, tag))
    }
}

/// `PUT /servers/{id}/tags/{tag}`.
pub(crate) async fn put_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 26)?;
    let tag = request.param("tag").to_owned();
    check_tag(&tag)?;
    let mut fresh = false;
    change(&app, &request, |_, _, server| {
        rules::check_state(&server.id, server, "update tag")?;
        let mut new = (*server.value).clone();
        fresh = new.tags.insert(tag.clone());
        if new.tags.len() > 50 {
            return Err(Error::bad_request(
                "The number of tags exceeded the per-server limit 50",
            ));
        }
        Ok(new)
    })
    .await?;
    let location = format!("{}/v2.1/servers/{}/tags/{tag}", request.base, request.param("id"));
    Ok(if fresh {
        Reply::empty(201).header("location", &location)
    } else {
        Reply::empty(204)
    })
}

/// `DELETE /servers/{id}/tags/{tag}`.
pub(crate) async fn delete_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    since(&request, 26)?;
    let tag = request.param("tag").to_owned();
    change(&app, &request, |_, _, server| {
        rules::check_state(&server.id, server, "delete tag")?;
        let mut new = (*server.value).clone();
        if new.tags.remove(&tag) {
            Ok(new)
        } else {
            Err(no_tag(server, &tag))
        }
    })
    .await?;
    Ok(Reply::empty(204))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachBody {
    #[serde(default, deserialize_with = "given")]
    net_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    port_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    fixed_ips: Option<Vec<FixedIpBody>>,
    #[serde(default, deserialize_with = "given")]
    tag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedIpBody {
    ip_address: String,
}

fn interface_view(request: &Request, i: &network::Interface) -> Value {
    let ips: Vec<Value> = i
        .port
        .fixed_ips
        .iter()
        .map(|f| json!({"subnet_id": f.subnet_id.as_str(), "ip_address": f.ip_address.to_string()}))
        .collect();
    let mut v = json!({
        "port_state": i.state,
        "fixed_ips": ips,
        "net_id": i.port.network_id.as_str(),
        "port_id": i.port.id.as_str(),
        "mac_addr": i.port.mac_address,
    });
    if request.at_least(2, 70) {
        v["tag"] = json!(i.tag);
    }
    v
}

/// `GET /servers/{id}/os-interface`.
pub(crate) async fn interfaces(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let list: Vec<Value> = network::interfaces(&snapshot, &server)
        .iter()
        .map(|i| interface_view(&request, i))
        .collect();
    Reply::json(200, &json!({"interfaceAttachments": list}))
}

/// `GET /servers/{id}/os-interface/{port}`.
pub(crate) async fn interface(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let view = one_interface(&snapshot, &server, &request, request.param("port"))?;
    Reply::json(200, &json!({"interfaceAttachment": view}))
}

fn one_interface(snapshot: &Snapshot, server: &Server, request: &Request, port: &str) -> Result<Value> {
    network::interfaces(snapshot, server)
        .iter()
        .find(|i| i.port.id == *port)
        .map(|i| interface_view(request, i))
        .ok_or_else(|| {
            Error::not_found(format!(
                "Port {port} is not attached to instance {}.",
                request.param("id")
            ))
        })
}

/// `POST /servers/{id}/os-interface`.
pub(crate) async fn attach(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body: AttachBody = wire::body(&mut request, "interfaceAttachment").await?;
    if body.tag.is_some() && !request.at_least(2, 49) {
        return Err(invalid(
            "interfaceAttachment.tag",
            "Additional properties are not allowed ('tag' was unexpected)",
        ));
    }
    for (name, id) in [("net_id", &body.net_id), ("port_id", &body.port_id)] {
        if let Some(id) = id
            && !is_uuid(id)
        {
            return Err(invalid(
                &format!("interfaceAttachment.{name}"),
                format!("'{id}' is not a 'uuid'"),
            ));
        }
    }
    if let Some(tag) = &body.tag {
        check_tag(tag)?;
    }
    if body.net_id.is_some() && body.port_id.is_some() {
        return Err(Error::bad_request("Must not input both network_id and port_id"));
    }
    let ips = body.fixed_ips.as_deref().unwrap_or_default();
    if !ips.is_empty() && body.net_id.is_none() {
        return Err(Error::bad_request("Must input network_id when request IP address"));
    }
    if ips.len() > 1 {
        return Err(invalid("interfaceAttachment.fixed_ips", "at most one address"));
    }
    let fixed_ip = ips
        .first()
        .map(|f| {
            f.ip_address.parse().map_err(|_| {
                invalid(
                    "interfaceAttachment.fixed_ips[0].ip_address",
                    format!("'{}' is not an IP address", f.ip_address),
                )
            })
        })
        .transpose()?;
    let wanted = WantedPort {
        network: body.net_id,
        port: body.port_id,
        fixed_ip,
        tag: body.tag,
    };
    let caller = request.caller()?.clone();
    let mut made = String::new();
    change(&app, &request, |snapshot, txn, server| {
        rules::check_action(&caller, &server.id, server, "attach_interface")?;
        if !server.placed {
            return Err(Error::conflict(format!("Instance {} is not ready", server.id)));
        }
        let (new, port) = network::plan_attach(snapshot, txn, &caller, server, &wanted).map_err(|e| {
            // Upstream's statuses differ here from those of a creation.
            let text = e.message().to_owned();
            if text.ends_with("could not be found.") {
                Error::not_found(text)
            } else if text.contains("is already in use on instance") {
                Error::conflict(text)
            } else if text.starts_with("Multiple possible networks") {
                Error::bad_request(text)
            } else {
                e
            }
        })?;
        made = port;
        note(txn, server, &caller, &request, "attach_interface");
        Ok(new)
    })
    .await?;
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let view = one_interface(&snapshot, &server, &request, &made)?;
    Reply::json(200, &json!({"interfaceAttachment": view}))
}

/// `DELETE /servers/{id}/os-interface/{port}`.
pub(crate) async fn detach(app: Arc<App>, request: Request) -> Result<Reply> {
    let caller = request.caller()?.clone();
    change(&app, &request, |snapshot, txn, server| {
        rules::check_action(&caller, &server.id, server, "detach_interface")?;
        note(txn, server, &caller, &request, "detach_interface");
        network::plan_detach(snapshot, txn, server, request.param("port"))
    })
    .await?;
    Ok(Reply::empty(202))
}

/// `GET /servers/{id}/os-security-groups`.
pub(crate) async fn security_groups(app: Arc<App>, request: Request) -> Result<Reply> {
    let (snapshot, server) = load(&app, &request, request.param("id")).await?;
    let list: Vec<Value> = network::groups_of(&snapshot, &server)
        .iter()
        .map(|g| {
            json!({
                "id": g.id.as_str(), "name": g.name, "description": g.meta.description,
                "tenant_id": g.project_id.as_str(), "rules": rules_of(&snapshot, g.id.as_str()),
            })
        })
        .collect();
    Reply::json(200, &json!({"security_groups": list}))
}

/// Ingress rules of a group in the form of the old network API.
fn rules_of(snapshot: &Snapshot, group: &str) -> Vec<Value> {
    use maru_network_model::{Direction, SecurityGroup, SecurityGroupId, SecurityGroupRule};
    snapshot
        .find::<SecurityGroupRule>("group", group)
        .filter(|r| r.direction == Direction::Ingress)
        .map(|r| {
            let remote = r
                .remote_group_id
                .as_ref()
                .and_then(|id| snapshot.get::<SecurityGroup>(&SecurityGroupId::from(id.as_str())))
                .map_or_else(
                    || json!({}),
                    |g| json!({"name": g.name, "tenant_id": g.project_id.as_str()}),
                );
            let any = if r.ip_version() == 6 { "::/0" } else { "0.0.0.0/0" };
            let range = match (&r.remote_group_id, &r.remote_ip_prefix) {
                (Some(_), _) => json!({}),
                (None, Some(cidr)) => json!({"cidr": cidr.to_string()}),
                (None, None) => json!({"cidr": any}),
            };
            json!({
                "id": r.id.as_str(), "parent_group_id": group, "ip_protocol": r.protocol,
                "from_port": r.port_range_min, "to_port": r.port_range_max, "group": remote, "ip_range": range,
            })
        })
        .collect()
}

/// `GET /servers/{id}/diagnostics`.
pub(crate) async fn diagnostics(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id");
    let (_, server) = load(&app, &request, id).await?;
    rules::check_state(id, &server, "get_diagnostics")?;
    let Some(host) = server.host.as_deref().filter(|_| server.placed) else {
        return Err(Error::conflict(format!("Instance {id} is not ready")));
    };
    Reply::json(200, &app.consoles.diagnostics(host, id).await?)
}
