//! Projects, and domains: a domain is a root project that acts as one.

use maru_base::{DomainId, ProjectId};
use maru_store::{Index, Kind, Object, Snapshot, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Id of the first domain.
pub const DEFAULT_DOMAIN: &str = "default";

/// A project or domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Unique in its domain; of domains, in the cloud.
    pub name: String,
    /// The domain it belongs to; `None` for a domain.
    pub domain_id: Option<DomainId>,
    /// What it lies under: a project, or its domain. `None` for a domain.
    pub parent_id: Option<ProjectId>,
    /// Free text.
    pub description: String,
    /// A disabled project or domain accepts no token.
    pub enabled: bool,
    /// Acts as a domain.
    #[serde(default)]
    pub is_domain: bool,
    /// Tags, sorted.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Resource options (`immutable`).
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Project {
    type Id = ProjectId;
    const NAME: &'static str = "project";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "domain",
                values: |p| p.domain_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "parent",
                values: |p| p.parent_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "is_domain",
                values: |p| vec![p.is_domain.to_string()],
            },
        ]
    }
}

impl Project {
    /// Whether the option `immutable` is on.
    #[must_use]
    pub fn immutable(&self) -> bool {
        self.options.get("immutable") == Some(&Value::Bool(true))
    }
}

/// A project by id (domains included).
#[must_use]
pub fn project(snapshot: &Snapshot, id: &ProjectId) -> Option<Object<Project>> {
    snapshot.get::<Project>(id)
}

/// A domain by id.
#[must_use]
pub fn domain(snapshot: &Snapshot, id: &DomainId) -> Option<Object<Project>> {
    snapshot
        .get::<Project>(&ProjectId::from(id.as_str()))
        .filter(|p| p.is_domain)
}

/// The domain of a project; of a domain, itself.
#[must_use]
pub fn domain_of(snapshot: &Snapshot, id: &ProjectId) -> Option<DomainId> {
    let p = project(snapshot, id)?;
    Some(p.domain_id.clone().unwrap_or_else(|| DomainId::from(id.as_str())))
}

/// All projects below one, nearest first.
#[must_use]
pub fn subtree(snapshot: &Snapshot, id: &ProjectId) -> Vec<Object<Project>> {
    let mut all: Vec<Object<Project>> = snapshot.find::<Project>("parent", id).collect();
    let mut at = 0;
    while at < all.len() {
        let below: Vec<_> = snapshot.find::<Project>("parent", &all[at].id).collect();
        all.extend(below);
        at += 1;
    }
    all
}
