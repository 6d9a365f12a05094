//! Which endpoints a project sees: by name, or by groups of endpoints.

use crate::{Endpoint, EndpointId, Interface, RegionId, ServiceId};
use maru_base::{ProjectId, typed_id};
use maru_store::{Index, Kind, Object, Snapshot, Space};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

typed_id!(
    /// Id of a group of endpoints.
    EndpointGroupId
);
typed_id!(
    /// Id of an association: `<project>:<endpoint>` or `<project>:<endpoint group>`.
    AssociationId
);

/// What the endpoints of a group have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFilter {
    /// Their service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
    /// Their region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<RegionId>,
    /// Who they are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
}

impl EndpointFilter {
    /// Whether an endpoint is in the group.
    #[must_use]
    pub fn admits(&self, e: &Endpoint) -> bool {
        self.service_id.as_ref().is_none_or(|s| *s == e.service_id)
            && self.region_id.as_ref().is_none_or(|r| e.region_id.as_ref() == Some(r))
            && self.interface.is_none_or(|i| i == e.interface)
    }
}

/// A group of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointGroup {
    /// Any name; names need not differ.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Which endpoints.
    pub filters: EndpointFilter,
}

impl Kind for EndpointGroup {
    type Id = EndpointGroupId;
    const NAME: &'static str = "endpoint-group";
    const SPACE: Space = Space::Identity;
}

/// A project sees an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectEndpoint {
    /// The project.
    pub project_id: ProjectId,
    /// The endpoint.
    pub endpoint_id: EndpointId,
}

impl ProjectEndpoint {
    /// The id under which it is kept.
    #[must_use]
    pub fn id(&self) -> AssociationId {
        AssociationId::from(format!("{}:{}", self.project_id, self.endpoint_id))
    }
}

impl Kind for ProjectEndpoint {
    type Id = AssociationId;
    const NAME: &'static str = "project-endpoint";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |a| vec![a.project_id.to_string()],
            },
            Index {
                name: "endpoint",
                values: |a| vec![a.endpoint_id.to_string()],
            },
        ]
    }
}

/// A project sees a group's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectEndpointGroup {
    /// The project.
    pub project_id: ProjectId,
    /// The group.
    pub endpoint_group_id: EndpointGroupId,
}

impl ProjectEndpointGroup {
    /// The id under which it is kept.
    #[must_use]
    pub fn id(&self) -> AssociationId {
        AssociationId::from(format!("{}:{}", self.project_id, self.endpoint_group_id))
    }
}

impl Kind for ProjectEndpointGroup {
    type Id = AssociationId;
    const NAME: &'static str = "project-endpoint-group";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "project",
                values: |a| vec![a.project_id.to_string()],
            },
            Index {
                name: "group",
                values: |a| vec![a.endpoint_group_id.to_string()],
            },
        ]
    }
}

/// The endpoints in a group.
#[must_use]
pub fn endpoints_in(snapshot: &Snapshot, filter: &EndpointFilter) -> Vec<Object<Endpoint>> {
    match &filter.service_id {
        Some(service) => snapshot
            .find::<Endpoint>("service", service)
            .filter(|e| filter.admits(e))
            .collect(),
        None => snapshot.list::<Endpoint>().filter(|e| filter.admits(e)).collect(),
    }
}

/// The endpoints that a project is associated with; `None` when it is with none, and sees them all.
#[must_use]
pub fn associated_endpoints(snapshot: &Snapshot, project: &ProjectId) -> Option<HashSet<EndpointId>> {
    let mut direct = snapshot.find::<ProjectEndpoint>("project", project).peekable();
    let mut groups = snapshot.find::<ProjectEndpointGroup>("project", project).peekable();
    if direct.peek().is_none() && groups.peek().is_none() {
        return None;
    }
    let mut all: HashSet<EndpointId> = direct.map(|a| a.endpoint_id.clone()).collect();
    for a in groups {
        if let Some(group) = snapshot.get::<EndpointGroup>(&a.endpoint_group_id) {
            all.extend(endpoints_in(snapshot, &group.filters).into_iter().map(|e| e.id));
        }
    }
    Some(all)
}
