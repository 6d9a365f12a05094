//! OS-FEDERATION: whom this cloud trusts to say who someone is, what is made of it, and which other clouds trust this one.

use maru_base::{DomainId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::Value;

typed_id!(
    /// Id of an identity provider: a name of the administrator's choice.
    IdentityProviderId
);
typed_id!(
    /// Id of a protocol of an identity provider: `<identity provider>/<protocol>`.
    ProtocolId
);
typed_id!(
    /// Id of a mapping: a name of the administrator's choice.
    MappingId
);
typed_id!(
    /// Id of a service provider: a name of the administrator's choice.
    ServiceProviderId
);

/// Someone who says who a user is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityProvider {
    /// Where its users come to be.
    pub domain_id: DomainId,
    /// What it calls itself (an issuer, an entity id); no two providers share one.
    pub remote_ids: Vec<String>,
    /// Whether its word counts.
    pub enabled: bool,
    /// Free text.
    pub description: Option<String>,
    /// Minutes that memberships given by a mapping last.
    pub authorization_ttl: Option<u32>,
}

impl Kind for IdentityProvider {
    type Id = IdentityProviderId;
    const NAME: &'static str = "identity-provider";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "domain",
            values: |p| vec![p.domain_id.to_string()],
        }]
    }
}

/// How an identity provider says it, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Whose.
    pub idp_id: IdentityProviderId,
    /// Its name: `saml2`, `openid`, `mapped`.
    pub name: String,
    /// What is made of it.
    pub mapping_id: MappingId,
    /// The attribute that names the provider.
    pub remote_id_attribute: Option<String>,
}

impl Protocol {
    /// The id under which a provider's protocol is kept.
    #[must_use]
    pub fn id(provider: &str, name: &str) -> ProtocolId {
        ProtocolId::from(format!("{provider}/{name}"))
    }
}

impl Kind for Protocol {
    type Id = ProtocolId;
    const NAME: &'static str = "federation-protocol";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "idp",
                values: |p| vec![p.idp_id.to_string()],
            },
            Index {
                name: "mapping",
                values: |p| vec![p.mapping_id.to_string()],
            },
        ]
    }
}

/// What is made of an identity provider's words: rules as [`crate::check_mapping`] takes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// The rules.
    pub rules: Value,
    /// The form of the rules: `1.0` or `2.0`.
    pub schema_version: String,
}

impl Kind for Mapping {
    type Id = MappingId;
    const NAME: &'static str = "federation-mapping";
    const SPACE: Space = Space::Identity;
}

/// Another cloud that takes this one's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProvider {
    /// Where its users log in.
    pub auth_url: String,
    /// Where assertions are sent.
    pub sp_url: String,
    /// Whether tokens name it.
    pub enabled: bool,
    /// Free text.
    pub description: Option<String>,
    /// Begins the `RelayState` of an assertion.
    pub relay_state_prefix: Option<String>,
}

impl Kind for ServiceProvider {
    type Id = ServiceProviderId;
    const NAME: &'static str = "service-provider";
    const SPACE: Space = Space::Identity;
}
