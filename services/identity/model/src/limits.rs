//! Unified limits: defaults by service and region, and what overrides them for a project or domain.

use crate::{RegionId, ServiceId};
use maru_base::{DomainId, ProjectId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};

typed_id!(
    /// Id of a registered limit.
    RegisteredLimitId
);
typed_id!(
    /// Id of a limit.
    LimitId
);

/// The default of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredLimit {
    /// The service that the resource is of.
    pub service_id: ServiceId,
    /// In which region; `None` for all.
    pub region_id: Option<RegionId>,
    /// `snapshot`, `volume`.
    pub resource_name: String,
    /// How many, -1 for no end.
    pub default_limit: i64,
    /// Free text.
    pub description: Option<String>,
}

impl RegisteredLimit {
    /// The scope of its unique name, which is the resource's.
    #[must_use]
    pub fn scope(service: &ServiceId, region: Option<&RegionId>) -> String {
        format!("{service}:{}", region.map_or("", |r| r.as_str()))
    }
}

impl Kind for RegisteredLimit {
    type Id = RegisteredLimitId;
    const NAME: &'static str = "registered-limit";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "service",
                values: |l| vec![l.service_id.to_string()],
            },
            Index {
                name: "region",
                values: |l| l.region_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

/// What a project or domain has instead of the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The default that it overrides.
    pub registered: RegisteredLimitId,
    /// For this project; else for the domain.
    pub project_id: Option<ProjectId>,
    /// For this domain.
    pub domain_id: Option<DomainId>,
    /// How many, -1 for no end.
    pub resource_limit: i64,
    /// Free text.
    pub description: Option<String>,
}

impl Limit {
    /// Its unique name below its registered limit: one for each project and domain.
    #[must_use]
    pub fn whose(&self) -> String {
        match (&self.project_id, &self.domain_id) {
            (Some(p), _) => format!("project:{p}"),
            (None, Some(d)) => format!("domain:{d}"),
            (None, None) => String::new(),
        }
    }
}

impl Kind for Limit {
    type Id = LimitId;
    const NAME: &'static str = "limit";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "registered",
                values: |l| vec![l.registered.to_string()],
            },
            Index {
                name: "project",
                values: |l| l.project_id.iter().map(ToString::to_string).collect(),
            },
            Index {
                name: "domain",
                values: |l| l.domain_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}
