//! Regions, services and endpoints: where each API is found.

use maru_base::{ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a region: its name.
    RegionId
);
typed_id!(
    /// Id of a service.
    ServiceId
);
typed_id!(
    /// Id of an endpoint.
    EndpointId
);

/// A region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Free text.
    pub description: String,
    /// The region that it lies in.
    pub parent_region_id: Option<RegionId>,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Region {
    type Id = RegionId;
    const NAME: &'static str = "region";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "parent",
            values: |r| r.parent_region_id.iter().map(ToString::to_string).collect(),
        }]
    }
}

/// A service of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `compute`, `network`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `nova`.
    pub name: String,
    /// A disabled service is not in the catalogue.
    pub enabled: bool,
    /// Other attributes that a client gave (`description`).
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Service {
    type Id = ServiceId;
    const NAME: &'static str = "service";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "type",
            values: |s| vec![s.kind.clone()],
        }]
    }
}

/// Who an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// Operators.
    Admin,
    /// Other services.
    Internal,
    /// Users.
    Public,
}

impl Interface {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Internal, Self::Public];
    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
    /// From its name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.as_str() == text)
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its service.
    pub service_id: ServiceId,
    /// Its region.
    pub region_id: Option<RegionId>,
    /// Who it is for.
    pub interface: Interface,
    /// Address, with `$(project_id)s` where a project belongs.
    pub url: String,
    /// A disabled endpoint is not in the catalogue.
    pub enabled: bool,
    /// Other attributes that a client gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Kind for Endpoint {
    type Id = EndpointId;
    const NAME: &'static str = "endpoint";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "service",
                values: |e| vec![e.service_id.to_string()],
            },
            Index {
                name: "region",
                values: |e| e.region_id.iter().map(ToString::to_string).collect(),
            },
        ]
    }
}

/// The names that an address may ask for.
const NAMES: [&str; 3] = ["project_id", "tenant_id", "user_id"];

impl Endpoint {
    /// The address for a project and user: `$(project_id)s`, `%(tenant_id)s` and `$(user_id)s` replaced. `None` when it
    /// asks for a project and there is none.
    #[must_use]
    pub fn url_for(&self, project: Option<&ProjectId>, user: &UserId) -> Option<String> {
        if !self.url.contains(")s") {
            return Some(self.url.clone());
        }
        let mut out = String::with_capacity(self.url.len() + 32);
        let mut rest = self.url.as_str();
        while let Some(at) = rest.find("$(").into_iter().chain(rest.find("%(")).min() {
            let end = rest[at..].find(")s")? + at;
            out.push_str(&rest[..at]);
            match &rest[at + 2..end] {
                "project_id" | "tenant_id" => out.push_str(project?),
                "user_id" => out.push_str(user),
                _ => return None,
            }
            rest = &rest[end + 2..];
        }
        out.push_str(rest);
        Some(out)
    }
    /// What is wrong with an address, if something is.
    #[must_use]
    pub fn url_fault(url: &str) -> Option<String> {
        let mut rest = url;
        while let Some(at) = rest.find("$(").into_iter().chain(rest.find("%(")).min() {
            let Some(end) = rest[at..].find(")s") else {
                return Some("a $( is not closed by )s".to_owned());
            };
            let name = &rest[at + 2..at + end];
            if !NAMES.contains(&name) {
                return Some(format!(
                    "'{name}' cannot be substituted; choose from {}",
                    NAMES.join(", ")
                ));
            }
            rest = &rest[at + end + 2..];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_substituted_for_the_caller() {
        let mut e = Endpoint {
            service_id: "s".into(),
            region_id: None,
            interface: Interface::Public,
            url: "http://h/v1/AUTH_$(project_id)s/%(user_id)s".to_owned(),
            enabled: true,
            extra: Map::new(),
        };
        let (p, u) = (ProjectId::from("p"), UserId::from("u"));
        assert_eq!(e.url_for(Some(&p), &u).as_deref(), Some("http://h/v1/AUTH_p/u"));
        assert_eq!(e.url_for(None, &u), None);
        e.url = "http://h/$(password)s".to_owned();
        assert_eq!(e.url_for(Some(&p), &u), None);
        assert!(Endpoint::url_fault(&e.url).is_some_and(|f| f.contains("'password'")));
        assert!(Endpoint::url_fault("http://h/$(tenant_id").is_some());
        assert_eq!(Endpoint::url_fault("http://h/$(tenant_id)s"), None);
    }
}
