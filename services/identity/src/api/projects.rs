//! /v3/projects and their tags.

use super::{
    domains::immutable,
    duplicate,
    fields::{self, Fields, merge_options},
    lists::{self, Filters, flag},
    not_found, tokens,
    users::{domain_for, only_domain},
    views::{self, ProjectView, Wrapped},
};
use crate::{
    App,
    app::cascade::{Cascade, revoke_project},
};
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result};
use maru_http::{Reply, Request};
use maru_identity_model::{Project, ancestors, domain, freeze, project, subtree};
use maru_store::{Object, Snapshot};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

pub(super) fn load(snapshot: &Snapshot, id: &str) -> Result<Object<Project>> {
    project(snapshot, &ProjectId::from(id)).ok_or_else(|| not_found("project", id))
}

fn target(snapshot: &Snapshot, id: &str) -> Target {
    let target = Target::none().with("target.project.id", id).with("project_id", id);
    match project(snapshot, &ProjectId::from(id)) {
        Some(p) => match &p.domain_id {
            Some(d) => target.with("target.project.domain_id", d),
            None => target,
        },
        None => target,
    }
}

/// Whether a project passes `tags`, `tags-any`, `not-tags` and `not-tags-any`.
fn tags_pass(request: &Request, p: &Project) -> bool {
    ["tags", "tags-any", "not-tags", "not-tags-any"]
        .into_iter()
        .all(|kind| {
            request.query.get(kind).is_none_or(|list| {
                let mut wanted = list.split(',').filter(|t| !t.is_empty());
                let has = |t: &str| p.tags.iter().any(|have| have == t);
                match kind {
                    "tags" => wanted.all(has),
                    "tags-any" => wanted.any(has),
                    "not-tags" => !wanted.all(has),
                    _ => !wanted.any(has),
                }
            })
        })
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let mine = only_domain(&request, "identity:list_projects")?;
    let mut target = Target::none();
    if let Some(d) = &mine {
        target = target.with("target.domain_id", d);
    }
    request.authorize(&target)?;
    let snapshot = app.snapshot();
    let filters = Filters::of(&request, &["name", "enabled", "domain_id", "parent_id", "is_domain"]);
    let domains = request
        .query
        .get("is_domain")
        .is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"));
    let all: Vec<Object<Project>> = match mine
        .as_ref()
        .map(|d| d.as_str())
        .or_else(|| request.query.get("domain_id"))
    {
        Some(d) => snapshot.find::<Project>("domain", d).collect(),
        None if domains => snapshot.find::<Project>("is_domain", "true").collect(),
        None => snapshot.find::<Project>("is_domain", "false").collect(),
    };
    let found: Vec<_> = all
        .into_iter()
        .filter(|p| {
            filters.pass(|name| match name {
                "name" => Some(p.name.as_str()),
                "enabled" => flag(p.enabled),
                "domain_id" => p.domain_id.as_deref(),
                "parent_id" => p.parent_id.as_deref(),
                "is_domain" => flag(p.is_domain),
                _ => None,
            }) && tags_pass(&request, p)
        })
        .collect();
    let base = request.base.as_str();
    lists::paged(
        &request,
        "projects",
        &found,
        |p| &p.id,
        |p| views::project(base, &p.id, &p.value),
    )
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut fields = Fields::read(&mut request, "project").await?;
    let parent_id = fields.id("parent_id")?.flatten().map(ProjectId::from);
    let asked = fields.id("domain_id")?.flatten();
    if fields.bool("is_domain")?.unwrap_or(false) {
        return create_domain(app, request, fields, parent_id.is_some() || asked.is_some()).await;
    }
    let snapshot = app.snapshot();
    let domain_id = match (&parent_id, asked) {
        // The domain follows from the parent.
        (Some(parent), None) => match project(&snapshot, parent) {
            Some(p) => p.domain_id.clone().unwrap_or_else(|| DomainId::from(parent.as_str())),
            None => domain_for(&request, None)?,
        },
        (_, asked) => domain_for(&request, asked)?,
    };
    request.authorize(&Target::none().with("target.project.domain_id", &domain_id))?;
    let name = fields.required_name(64)?;
    let description = fields.nullable("description")?.flatten().unwrap_or_default();
    let enabled = fields.bool("enabled")?.unwrap_or(true);
    let options = fields.options(&["immutable"])?;
    let tags = fields.tags()?.unwrap_or_default();
    let parent_id = parent_id.unwrap_or_else(|| ProjectId::from(domain_id.as_str()));
    let mut value = Project {
        name,
        domain_id: Some(domain_id.clone()),
        parent_id: Some(parent_id.clone()),
        description,
        enabled,
        is_domain: false,
        tags,
        options: Map::new(),
        extra: fields.rest(),
    };
    merge_options(&mut value.options, options.unwrap_or_default());
    let id = ProjectId::new_hex();
    app.plan(|snapshot, txn| {
        check_place(snapshot, &domain_id, &parent_id, app.settings.project_depth)?;
        if snapshot.owner("project", &domain_id, &value.name).is_some() {
            return Err(duplicate("project", &value.name));
        }
        // An ancestor that is disabled meanwhile would not see this child: the parent must be as it was read.
        let parent = load(snapshot, &parent_id)?;
        txn.unchanged(&parent);
        txn.alive::<Project>(&ProjectId::from(domain_id.as_str()));
        txn.create(&id, &value).claim("project", &domain_id, &value.name, &id);
        Ok(())
    })
    .await?;
    Reply::json(201, &Wrapped("project", views::project(&request.base, &id, &value)))
}

/// A project that acts as a domain: the same as a domain, shown as a project.
async fn create_domain(app: Arc<App>, request: Request, mut fields: Fields, placed: bool) -> Result<Reply> {
    request.authorize_rule("identity:create_domain", &Target::none())?;
    if placed {
        return Err(Error::invalid(
            "is_domain",
            "Invalid input for field 'is_domain': a project that acts as a domain has no parent and no domain.",
        ));
    }
    let mut value = Project {
        name: fields.required_name(64)?,
        domain_id: None,
        parent_id: None,
        description: fields.nullable("description")?.flatten().unwrap_or_default(),
        enabled: fields.bool("enabled")?.unwrap_or(true),
        is_domain: true,
        tags: Vec::new(),
        options: Map::new(),
        extra: Map::new(),
    };
    merge_options(&mut value.options, fields.options(&["immutable"])?.unwrap_or_default());
    value.tags = fields.tags()?.unwrap_or_default();
    value.extra = fields.rest();
    let id = ProjectId::new_hex();
    super::domains::store(&app, &id, &value).await?;
    Reply::json(201, &Wrapped("project", views::project(&request.base, &id, &value)))
}

/// Whether a project may be created here.
fn check_place(snapshot: &Snapshot, domain_id: &DomainId, parent_id: &ProjectId, depth: usize) -> Result<()> {
    if domain(snapshot, domain_id).is_none() {
        return Err(not_found("domain", domain_id));
    }
    let parent = load(snapshot, parent_id)?;
    let parents_domain = parent
        .domain_id
        .clone()
        .unwrap_or_else(|| DomainId::from(parent.id.as_str()));
    if parents_domain != *domain_id {
        return Err(Error::invalid(
            "domain_id",
            format!(
                "Cannot create project, since it specifies its domain_id {domain_id}, but a parent in a different domain ({parents_domain})."
            ),
        ));
    }
    let mut above = ancestors(snapshot, parent_id);
    above.push(parent);
    if let Some(off) = above.iter().find(|p| !p.enabled) {
        return Err(Error::bad_request(format!(
            "cannot create a project in a branch containing a disabled project: {}",
            off.id
        )));
    }
    if above.len() > depth {
        return Err(Error::forbidden(format!(
            "Max hierarchy depth reached for {parent_id} branch."
        )));
    }
    Ok(())
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    view: ProjectView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parents: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<Value>,
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    let id = request.param("id");
    request.authorize(&target(&snapshot, id))?;
    let p = load(&snapshot, id)?;
    let query = &request.query;
    for (a, b) in [
        ("parents_as_list", "parents_as_ids"),
        ("subtree_as_list", "subtree_as_ids"),
    ] {
        if query.has(a) && query.has(b) {
            return Err(Error::invalid(
                a,
                format!("Cannot use {a} and {b} query params at the same time."),
            ));
        }
    }
    let visible = || -> Result<Vec<ProjectId>> {
        Ok(tokens::projects_of(&snapshot, &request.caller()?.user_id)
            .into_iter()
            .map(|p| p.id)
            .collect())
    };
    let as_list = |projects: Vec<Object<Project>>| -> Result<Value> {
        let visible = visible()?;
        let items = projects
            .iter()
            .filter(|p| visible.contains(&p.id))
            .map(|p| serde_json::to_value(Wrapped("project", views::project(&request.base, &p.id, &p.value))));
        let items = items.collect::<std::result::Result<Vec<_>, _>>();
        items
            .map(Value::from)
            .map_err(|e| Error::internal("The answer could not be encoded.", e))
    };
    let parents = if query.has("parents_as_list") {
        Some(as_list(ancestors(&snapshot, &p.id))?)
    } else if query.has("parents_as_ids") {
        Some(ancestors(&snapshot, &p.id).iter().rev().fold(Value::Null, |inner, p| {
            Value::Object(Map::from_iter([(p.id.to_string(), inner)]))
        }))
    } else {
        None
    };
    let below = if query.has("subtree_as_list") {
        Some(as_list(subtree(&snapshot, &p.id))?)
    } else if query.has("subtree_as_ids") {
        Some(tree(&snapshot, &p.id))
    } else {
        None
    };
    let view = views::project(&request.base, &p.id, &p.value);
    Reply::json(
        200,
        &Wrapped(
            "project",
            Shown {
                view,
                parents,
                subtree: below,
            },
        ),
    )
}

fn tree(snapshot: &Snapshot, id: &ProjectId) -> Value {
    let children: Map<String, Value> = snapshot
        .find::<Project>("parent", id)
        .map(|c| (c.id.to_string(), tree(snapshot, &c.id)))
        .collect();
    if children.is_empty() {
        Value::Null
    } else {
        Value::Object(children)
    }
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, &id))?;
    let before = load(&snapshot, &id)?;
    let mut fields = Fields::read(&mut request, "project").await?;
    fields.not_empty("project")?;
    let name = fields.name(64)?;
    let description = fields.nullable("description")?;
    let enabled = fields.bool("enabled")?;
    let options = fields.options(&["immutable"])?;
    let tags = fields.tags()?;
    if fields
        .id("parent_id")?
        .is_some_and(|p| p.as_deref() != before.parent_id.as_deref())
    {
        return Err(Error::forbidden("Update of `parent_id` is not allowed."));
    }
    if fields.bool("is_domain")?.is_some_and(|b| b != before.is_domain) {
        return Err(Error::invalid("is_domain", "Update of `is_domain` is not allowed."));
    }
    if fields
        .id("domain_id")?
        .is_some_and(|d| d.as_deref() != before.domain_id.as_deref())
    {
        return Err(Error::invalid(
            "domain_id",
            "Invalid input for field 'domain_id': a project cannot change its domain.",
        ));
    }
    let rest = fields.rest();
    let (id, value) = app
        .plan(|snapshot, txn| {
            let read = load(snapshot, &id)?;
            let mut value = (*read.value).clone();
            let frees = options
                .as_ref()
                .is_some_and(|o| o.get("immutable").is_some_and(|v| v != true));
            if read.immutable() && !frees {
                return Err(immutable("project", &id));
            }
            if let Some(name) = &name
                && *name != value.name
            {
                let (kind, scope) = match &value.domain_id {
                    Some(d) => ("project", d.as_str()),
                    None => ("domain", ""),
                };
                if snapshot.owner(kind, scope, name).is_some() {
                    return Err(duplicate("project", name));
                }
                txn.release(kind, scope, &value.name).claim(kind, scope, name, &read.id);
                value.name.clone_from(name);
            }
            match enabled {
                Some(true) if !value.enabled => {
                    if ancestors(snapshot, &read.id).iter().any(|p| !p.enabled) {
                        return Err(Error::forbidden(format!(
                            "Cannot enable project {id} since it has disabled parents."
                        )));
                    }
                    freeze(snapshot, txn);
                }
                Some(false) if value.enabled => {
                    if !value.is_domain && subtree(snapshot, &read.id).iter().any(|p| p.enabled) {
                        return Err(Error::forbidden(format!(
                            "Cannot disable project {id} since its subtree contains enabled projects."
                        )));
                    }
                    freeze(snapshot, txn);
                    revoke_project(txn, &read.id, value.is_domain);
                }
                _ => {}
            }
            value.enabled = enabled.unwrap_or(value.enabled);
            if let Some(d) = &description {
                value.description = d.clone().unwrap_or_default();
            }
            if let Some(t) = &tags {
                value.tags.clone_from(t);
            }
            merge_options(&mut value.options, options.clone().unwrap_or_default());
            value.extra.extend(rest.clone());
            txn.update(&read, &value);
            Ok((read.id.clone(), value))
        })
        .await?;
    Reply::json(200, &Wrapped("project", views::project(&request.base, &id, &value)))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    request.authorize(&target(&app.snapshot(), &id))?;
    app.plan(|snapshot, txn| {
        let p = load(snapshot, &id)?;
        if p.immutable() {
            return Err(immutable("project", &id));
        }
        let mut cascade = Cascade::new(snapshot, txn);
        if p.is_domain {
            cascade.domain(&p)
        } else {
            cascade.project(&p)
        }
    })
    .await?;
    Ok(Reply::empty(204))
}

#[derive(Serialize)]
struct Tags<'a> {
    tags: &'a [String],
    links: Value,
}

fn tags_reply(request: &Request, id: &str, tags: &[String]) -> Result<Reply> {
    let this = format!("{}/v3/projects/{id}/tags", request.base);
    Reply::json(
        200,
        &Tags {
            tags,
            links: serde_json::json!({"next": null, "self": this, "previous": null}),
        },
    )
}

pub(super) async fn tags(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let p = load(&snapshot, request.param("id"))?;
    tags_reply(&request, &p.id, &p.tags)
}

pub(super) async fn has_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.snapshot();
    request.authorize(&target(&snapshot, request.param("id")))?;
    let p = load(&snapshot, request.param("id"))?;
    let tag = request.param("tag");
    if p.tags.iter().any(|t| t == tag) {
        Ok(Reply::empty(204))
    } else {
        Err(not_found("project tag", tag))
    }
}

/// Changes a project's tags in one transaction.
async fn change(app: &App, request: &Request, edit: impl Fn(&mut Vec<String>) -> Result<()>) -> Result<Vec<String>> {
    let id = request.param("id");
    request.authorize(&target(&app.snapshot(), id))?;
    app.plan(|snapshot, txn| {
        let read = load(snapshot, id)?;
        if read.immutable() {
            return Err(immutable("project", id));
        }
        let mut value = (*read.value).clone();
        edit(&mut value.tags)?;
        txn.update(&read, &value);
        Ok(value.tags)
    })
    .await
}

pub(super) async fn set_tags(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body = request.json_value().await?;
    let wanted = match body.get("tags") {
        Some(tags) => fields::tags(tags)?,
        None => {
            return Err(Error::invalid(
                "tags",
                "Invalid input for field 'tags': it is a required property.",
            ));
        }
    };
    let tags = change(&app, &request, |tags| {
        tags.clone_from(&wanted);
        Ok(())
    })
    .await?;
    tags_reply(&request, request.param("id"), &tags)
}

pub(super) async fn clear_tags(app: Arc<App>, request: Request) -> Result<Reply> {
    change(&app, &request, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn add_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let tag = request.param("tag").to_owned();
    fields::check_tag(&tag)?;
    change(&app, &request, |tags| {
        if !tags.contains(&tag) {
            if tags.len() >= 80 {
                return Err(Error::invalid(
                    "tags",
                    "The project has 80 tags already; remove one first.",
                ));
            }
            tags.push(tag.clone());
            tags.sort_unstable();
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(201).header("location", &format!("{}{}", request.base, request.path)))
}

pub(super) async fn remove_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    let tag = request.param("tag").to_owned();
    change(&app, &request, |tags| {
        let at = tags
            .iter()
            .position(|t| *t == tag)
            .ok_or_else(|| not_found("project tag", &tag))?;
        tags.remove(at);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
