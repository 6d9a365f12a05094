//! /v3/domains/{id}/config and its defaults. The options are kept and shown; no driver of this cloud reads them.

use super::{fields::Fields, not_found, views::Wrapped};
use crate::App;
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{DOMAIN_OPTIONS, DomainConfig, Project, domain, is_group, is_option, is_sensitive};
use maru_store::{Object, Snapshot};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Longest value of an option, in bytes of JSON.
const MAX_VALUE: usize = 8 << 10;

/// 403, as upstream has it.
fn refused(field: &str, why: &str) -> Error {
    Error::forbidden(format!("Invalid domain specific configuration: {why}.")).with_field(field)
}

/// Checks the names in a path, or in a body.
fn check(group: &str, option: Option<&str>) -> Result<()> {
    if !is_group(group) {
        return Err(refused(
            group,
            &format!("the group {group} is not supported; identity and ldap are"),
        ));
    }
    match option {
        Some(option) if !is_option(group, option) => Err(refused(
            option,
            &format!("the option {option} in group {group} is not supported"),
        )),
        _ => Ok(()),
    }
}

fn existing(snapshot: &Snapshot, id: &str) -> Result<DomainId> {
    domain(snapshot, &DomainId::from(id))
        .map(|d| DomainId::from(d.id.as_str()))
        .ok_or_else(|| not_found("domain", id))
}

fn config(snapshot: &Snapshot, id: &DomainId) -> Option<Object<DomainConfig>> {
    snapshot.get::<DomainConfig>(&DomainConfig::of(id))
}

fn missing(id: &str, group: Option<&str>, option: Option<&str>) -> Error {
    let what = match (group, option) {
        (Some(g), Some(o)) => format!("option {o} in group {g}"),
        (Some(g), None) => format!("group {g}"),
        _ => "any configuration".to_owned(),
    };
    Error::not_found(format!("Could not find {what} of the domain {id}."))
}

fn names(request: &Request) -> (Option<&str>, Option<&str>) {
    let named = |name| Some(request.param(name)).filter(|v| !v.is_empty());
    (named("group"), named("option"))
}

/// The part of the shown options that a path names, in the form of its answer.
fn part(shown: &Map<String, Value>, group: Option<&str>, option: Option<&str>) -> Option<Value> {
    match (group, option) {
        (None, _) => Some(Value::Object(shown.clone())),
        (Some(g), None) => shown.get(g).map(|v| json!({ g: v })),
        (Some(g), Some(o)) => shown.get(g).and_then(|v| v.get(o)).map(|v| json!({ o: v })),
    }
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.snapshot();
    let id = existing(&snapshot, request.param("id"))?;
    let (group, option) = names(&request);
    if let Some(group) = group {
        check(group, option)?;
    }
    let found = config(&snapshot, &id)
        .filter(|c| !c.shown.is_empty())
        .and_then(|c| part(&c.shown, group, option))
        .ok_or_else(|| missing(&id, group, option))?;
    Reply::json(200, &Wrapped("config", found))
}

/// The options of a body, each with its group.
async fn options(request: &mut Request) -> Result<Vec<(String, String, Value)>> {
    let (group, option) = names(request);
    let (group, option) = (group.map(str::to_owned), option.map(str::to_owned));
    if let Some(g) = &group {
        check(g, option.as_deref())?;
    }
    let given = Fields::read(request, "config").await?.all();
    let mut out = Vec::new();
    let mut take = |group: &str, option: &str, value: Value| {
        check(group, Some(option))?;
        if value.to_string().len() > MAX_VALUE {
            return Err(refused(option, &format!("{option} is longer than {MAX_VALUE} bytes")));
        }
        let fits = match &value {
            Value::Object(_) => false,
            Value::Array(items) => {
                default_of(group, option).is_array() && items.iter().all(|i| !i.is_array() && !i.is_object())
            }
            _ => true,
        };
        if !fits {
            return Err(refused(
                option,
                &format!("{option} is a string, number, boolean or null, or a list of these where its default is one"),
            ));
        }
        out.push((group.to_owned(), option.to_owned(), value));
        Ok(())
    };
    match (&group, &option) {
        (Some(group), Some(option)) => {
            for (name, value) in given {
                if name != *option {
                    return Err(refused(&name, &format!("the path is that of {option}")));
                }
                take(group, &name, value)?;
            }
        }
        _ => {
            for (name, value) in given {
                check(&name, None)?;
                if group.as_ref().is_some_and(|g| *g != name) {
                    return Err(refused(&name, "the path is that of another group"));
                }
                let Value::Object(options) = value else {
                    return Err(refused(&name, "the value of a group is an object with its options"));
                };
                for (option, value) in options {
                    take(&name, &option, value)?;
                }
            }
        }
    }
    if out.is_empty() {
        return Err(refused("config", "config has no option; name one at least"));
    }
    Ok(out)
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = existing(&app.snapshot(), request.param("id"))?;
    let options = options(&mut request).await?;
    let mut value = DomainConfig::default();
    for (group, option, v) in options {
        value.set(&group, &option, v);
    }
    let fresh = app
        .plan(|snapshot, txn| {
            existing(snapshot, &id)?;
            txn.alive::<Project>(&ProjectId::from(id.as_str()));
            let before = config(snapshot, &id);
            match &before {
                Some(read) => txn.update(read, &value),
                None => txn.create(&DomainConfig::of(&id), &value),
            };
            Ok(before.is_none())
        })
        .await?;
    Reply::json(if fresh { 201 } else { 200 }, &Wrapped("config", &value.shown))
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = existing(&app.snapshot(), request.param("id"))?;
    let options = options(&mut request).await?;
    let (group, option) = names(&request);
    let shown = app
        .plan(|snapshot, txn| {
            let read = config(snapshot, &id).ok_or_else(|| missing(&id, group, option))?;
            if let Some(g) = group.filter(|g| !read.has(g, option)) {
                return Err(missing(&id, Some(g), option));
            }
            let mut value = (*read.value).clone();
            for (group, option, v) in &options {
                value.set(group, option, v.clone());
            }
            txn.update(&read, &value);
            Ok(value.shown)
        })
        .await?;
    Reply::json(200, &Wrapped("config", shown))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = existing(&app.snapshot(), request.param("id"))?;
    let (group, option) = names(&request);
    if let Some(group) = group {
        check(group, option)?;
    }
    app.plan(|snapshot, txn| {
        let read = config(snapshot, &id).ok_or_else(|| missing(&id, group, option))?;
        let Some(g) = group else {
            txn.delete(&read);
            return Ok(());
        };
        if !read.has(g, option) {
            return Err(missing(&id, group, option));
        }
        let mut value = (*read.value).clone();
        value.unset(g, option);
        if value.is_empty() {
            txn.delete(&read);
        } else {
            txn.update(&read, &value);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The values of a domain that sets nothing; those of LDAP are upstream's.
fn default_of(group: &str, option: &str) -> Value {
    if group == "identity" {
        return match option {
            "driver" => json!("sql"),
            _ => Value::Null,
        };
    }
    match option {
        "url" => json!("ldap://localhost"),
        "suffix" => json!("cn=example,cn=com"),
        "query_scope" => json!("one"),
        "page_size" | "user_enabled_mask" => json!(0),
        "alias_dereferencing" => json!("default"),
        "user_objectclass" => json!("inetOrgPerson"),
        "user_id_attribute" | "group_id_attribute" => json!("cn"),
        "user_name_attribute" => json!("sn"),
        "user_mail_attribute" => json!("mail"),
        "user_description_attribute" | "group_desc_attribute" => json!("description"),
        "user_pass_attribute" => json!("userPassword"),
        "user_enabled_attribute" => json!("enabled"),
        "user_enabled_default" => json!("True"),
        "user_attribute_ignore" => json!(["default_project_id"]),
        "group_attribute_ignore" | "user_additional_attribute_mapping" | "group_additional_attribute_mapping" => {
            json!([])
        }
        "user_enabled_invert"
        | "user_enabled_emulation"
        | "user_enabled_emulation_use_group_config"
        | "group_members_are_ids"
        | "use_tls" => json!(false),
        "group_objectclass" => json!("groupOfNames"),
        "group_name_attribute" => json!("ou"),
        "group_member_attribute" => json!("member"),
        "tls_req_cert" => json!("demand"),
        "use_pool" | "use_auth_pool" => json!(true),
        "pool_size" => json!(10),
        "pool_retry_max" => json!(3),
        "pool_retry_delay" => json!(0.1),
        "pool_connection_timeout" => json!(-1),
        "pool_connection_lifetime" => json!(600),
        "auth_pool_size" => json!(100),
        "auth_pool_connection_lifetime" => json!(60),
        _ => Value::Null,
    }
}

pub(super) async fn defaults(_: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let (group, option) = names(&request);
    if let Some(group) = group {
        check(group, option)?;
        if option.is_some_and(|o| is_sensitive(group, o)) {
            return Err(missing("default", Some(group), option));
        }
    }
    let all: Map<String, Value> = DOMAIN_OPTIONS
        .iter()
        .map(|(group, options)| {
            let values: Map<String, Value> = options
                .iter()
                .map(|o| ((*o).to_owned(), default_of(group, o)))
                .collect();
            ((*group).to_owned(), Value::Object(values))
        })
        .collect();
    let found = part(&all, group, option).ok_or_else(|| missing("default", group, option))?;
    Reply::json(200, &Wrapped("config", found))
}

/// What users may know of what is demanded of their passwords: it is the cloud's, shown at the default domain.
pub(super) async fn security(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let id = request.param("id");
    if id != maru_identity_model::DEFAULT_DOMAIN {
        return Err(Error::forbidden(format!(
            "Invalid domain specific configuration: security_compliance is the cloud's; read it at the default domain, not {id}."
        )));
    }
    let regex = app.settings.compliance.password_regex.as_ref();
    let all = json!({"security_compliance": {
        "password_regex": regex.map(crate::PasswordRegex::text),
        "password_regex_description": regex.and_then(crate::PasswordRegex::description)}});
    let Value::Object(all) = all else {
        return Err(missing(id, None, None));
    };
    let option = names(&request).1;
    let found = part(&all, Some("security_compliance"), option)
        .ok_or_else(|| missing(id, Some("security_compliance"), option))?;
    Reply::json(200, &Wrapped("config", found))
}
