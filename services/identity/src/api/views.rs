//! The answers' forms.

use maru_base::{DomainId, ProjectId};
use maru_identity_model::{Credential, Endpoint, Group, Project, Region, Role, Service, User};
use maru_store::Object;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

/// `{"self": address}`.
#[derive(Serialize)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    pub(crate) this: String,
}

impl Links {
    pub(crate) fn new(base: &str, collection: &str, id: &str) -> Self {
        Self {
            this: format!("{base}/v3/{collection}/{id}"),
        }
    }
}

/// `{"<name>": value}`.
pub(crate) struct Wrapped<T>(pub(crate) &'static str, pub(crate) T);

impl<T: Serialize> Serialize for Wrapped<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

#[derive(Serialize)]
pub(crate) struct DomainRef {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Serialize)]
pub(crate) struct UserRef {
    pub(crate) domain: DomainRef,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) password_expires_at: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct ProjectRef {
    pub(crate) domain: DomainRef,
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Serialize)]
pub(crate) struct RoleRef {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Serialize)]
pub(crate) struct CatalogEndpoint {
    pub(crate) id: String,
    pub(crate) interface: &'static str,
    pub(crate) region_id: Option<String>,
    pub(crate) url: String,
    pub(crate) region: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct CatalogService {
    pub(crate) endpoints: Vec<CatalogEndpoint>,
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Serialize)]
pub(crate) struct TokenView {
    pub(crate) methods: Vec<String>,
    pub(crate) user: UserRef,
    pub(crate) audit_ids: Vec<String>,
    pub(crate) expires_at: String,
    pub(crate) issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<ProjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_domain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<DomainRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<RoleRef>>,
    /// `application_credential`, `OS-TRUST:trust`.
    #[serde(flatten)]
    pub(crate) delegated: std::collections::BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) catalog: Option<Vec<CatalogService>>,
    /// Other clouds that take this one's word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) service_providers: Vec<Value>,
}

#[derive(Serialize)]
pub(crate) struct TokenBody {
    pub(crate) token: TokenView,
}

#[derive(Serialize)]
pub(crate) struct ProjectView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    name: &'a str,
    domain_id: Option<&'a DomainId>,
    description: &'a str,
    enabled: bool,
    parent_id: Option<&'a ProjectId>,
    is_domain: bool,
    tags: &'a [String],
    options: &'a Map<String, Value>,
    links: Links,
}

pub(crate) fn project<'a>(base: &str, id: &'a ProjectId, p: &'a Project) -> ProjectView<'a> {
    ProjectView {
        extra: &p.extra,
        id,
        name: &p.name,
        domain_id: p.domain_id.as_ref(),
        description: &p.description,
        enabled: p.enabled,
        parent_id: p.parent_id.as_ref(),
        is_domain: p.is_domain,
        tags: &p.tags,
        options: &p.options,
        links: Links::new(base, "projects", id),
    }
}

#[derive(Serialize)]
pub(crate) struct DomainView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    name: &'a str,
    description: &'a str,
    enabled: bool,
    tags: &'a [String],
    options: &'a Map<String, Value>,
    links: Links,
}

pub(crate) fn domain<'a>(base: &str, id: &'a ProjectId, p: &'a Project) -> DomainView<'a> {
    DomainView {
        extra: &p.extra,
        id,
        name: &p.name,
        description: &p.description,
        enabled: p.enabled,
        tags: &p.tags,
        options: &p.options,
        links: Links::new(base, "domains", id),
    }
}

#[derive(Serialize)]
pub(crate) struct UserView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    name: &'a str,
    domain_id: &'a DomainId,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_project_id: Option<&'a ProjectId>,
    password_expires_at: Option<String>,
    options: &'a Map<String, Value>,
    links: Links,
}

pub(crate) fn user<'a>(
    base: &str,
    id: &'a str,
    u: &'a User,
    enabled: bool,
    password_expires_at: Option<String>,
) -> UserView<'a> {
    UserView {
        extra: &u.extra,
        id,
        name: &u.name,
        domain_id: &u.domain_id,
        enabled,
        default_project_id: u.default_project_id.as_ref(),
        password_expires_at,
        options: &u.options,
        links: Links::new(base, "users", id),
    }
}

#[derive(Serialize)]
pub(crate) struct GroupView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    name: &'a str,
    domain_id: &'a DomainId,
    description: &'a str,
    links: Links,
}

pub(crate) fn group<'a>(base: &str, id: &'a str, g: &'a Group) -> GroupView<'a> {
    GroupView {
        extra: &g.extra,
        id,
        name: &g.name,
        domain_id: &g.domain_id,
        description: &g.description,
        links: Links::new(base, "groups", id),
    }
}

#[derive(Serialize)]
pub(crate) struct RoleView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    name: &'a str,
    domain_id: Option<&'a DomainId>,
    description: Option<&'a str>,
    options: &'a Map<String, Value>,
    links: Links,
}

pub(crate) fn role<'a>(base: &str, id: &'a str, r: &'a Role) -> RoleView<'a> {
    RoleView {
        extra: &r.extra,
        id,
        name: &r.name,
        domain_id: r.domain_id.as_ref(),
        description: r.description.as_deref(),
        options: &r.options,
        links: Links::new(base, "roles", id),
    }
}

#[derive(Serialize)]
pub(crate) struct RegionView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    description: &'a str,
    parent_region_id: Option<&'a str>,
    links: Links,
}

pub(crate) fn region<'a>(base: &str, id: &'a str, r: &'a Region) -> RegionView<'a> {
    RegionView {
        extra: &r.extra,
        id,
        description: &r.description,
        parent_region_id: r.parent_region_id.as_deref(),
        links: Links::new(base, "regions", id),
    }
}

#[derive(Serialize)]
pub(crate) struct ServiceView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    name: &'a str,
    enabled: bool,
    links: Links,
}

pub(crate) fn service<'a>(base: &str, id: &'a str, s: &'a Service) -> ServiceView<'a> {
    ServiceView {
        extra: &s.extra,
        id,
        kind: &s.kind,
        name: &s.name,
        enabled: s.enabled,
        links: Links::new(base, "services", id),
    }
}

#[derive(Serialize)]
pub(crate) struct EndpointView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    interface: &'static str,
    region_id: Option<&'a str>,
    region: Option<&'a str>,
    service_id: &'a str,
    url: &'a str,
    enabled: bool,
    links: Links,
}

pub(crate) fn endpoint<'a>(base: &str, id: &'a str, e: &'a Endpoint) -> EndpointView<'a> {
    EndpointView {
        extra: &e.extra,
        id,
        interface: e.interface.as_str(),
        region_id: e.region_id.as_deref(),
        region: e.region_id.as_deref(),
        service_id: &e.service_id,
        url: &e.url,
        enabled: e.enabled,
        links: Links::new(base, "endpoints", id),
    }
}

#[derive(Serialize)]
pub(crate) struct CredentialView<'a> {
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    id: &'a str,
    user_id: &'a str,
    project_id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    /// The one place where a stored secret is shown: to its owner.
    blob: &'a str,
    links: Links,
}

pub(crate) fn credential<'a>(base: &str, id: &'a str, c: &'a Credential) -> CredentialView<'a> {
    CredentialView {
        extra: &c.extra,
        id,
        user_id: &c.user_id,
        project_id: c.project_id.as_deref(),
        kind: &c.kind,
        blob: c.blob.reveal(),
        links: Links::new(base, "credentials", id),
    }
}

/// A role in a list of what an actor has been granted.
pub(crate) fn role_object<'a>(base: &str, r: &'a Object<Role>) -> RoleView<'a> {
    role(base, &r.id, &r.value)
}
