//! Metadata definitions: namespaces of properties that images, volumes, flavors and so on may have, for forms that help to fill them
//! in. A namespace is one stored object with all that it defines.

use maru_base::ProjectId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

maru_base::typed_id!(
    /// Name of a namespace, which is its id.
    NamespaceName
);

/// Resource types that a cloud has from the start.
pub const RESOURCE_TYPES: &[&str] = &[
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
    "OS::Trove::Instance",
];

/// When something was made and last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it last changed.
    pub updated_at: jiff::Timestamp,
}

impl Times {
    /// Those of something new.
    #[must_use]
    pub fn new() -> Self {
        let now = maru_base::time::now();
        Self {
            created_at: now,
            updated_at: now,
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

/// That a namespace is for a type of resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// What stands before each property's name on such a resource.
    pub prefix: Option<String>,
    /// Which properties of the resource are meant: `image`, `metadata`, ...
    pub properties_target: Option<String>,
    /// Its times.
    pub times: Times,
}

/// A property: a part of JSON schema, with Glance's names. `name` stands in requests and answers and is not stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Its name, where it stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Title for people.
    pub title: String,
    /// `string`, `integer`, `number`, `boolean`, `array`, `object`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Operators that a search may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<String>>,
    /// Names of properties that must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<Vec<String>>,
    /// Smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// Longest text.
    #[serde(default, rename = "maxLength", skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Shortest text.
    #[serde(default, rename = "minLength", skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// Regular expression of texts; for clients, nothing here evaluates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// All values.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Whether users may not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// The value unless one is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Schema of a list's items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Map<String, Value>>,
    /// Whether a list has each item once.
    #[serde(default, rename = "uniqueItems", skip_serializing_if = "Option::is_none")]
    pub unique_items: Option<bool>,
    /// Fewest items.
    #[serde(default, rename = "minItems", skip_serializing_if = "Option::is_none")]
    pub min_items: Option<u64>,
    /// Most items.
    #[serde(default, rename = "maxItems", skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u64>,
    /// Whether other items are allowed.
    #[serde(default, rename = "additionalItems", skip_serializing_if = "Option::is_none")]
    pub additional_items: Option<bool>,
}

/// An object: properties that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Text for people.
    pub description: Option<String>,
    /// Names of properties that must be there.
    pub required: Vec<String>,
    /// The properties by name.
    pub properties: BTreeMap<String, Property>,
    /// Its times.
    pub times: Times,
}

/// A namespace with all that it defines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name for people.
    pub display_name: Option<String>,
    /// Text for people.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub public: bool,
    /// Whether it refuses deletion.
    pub protected: bool,
    /// Owner.
    pub owner: ProjectId,
    /// Its times.
    pub times: Times,
    /// The resource types that it is for.
    pub resource_types: BTreeMap<String, Association>,
    /// Objects by name.
    pub objects: BTreeMap<String, Definition>,
    /// Properties by name.
    pub properties: BTreeMap<String, Property>,
    /// Tags by name.
    pub tags: BTreeMap<String, Times>,
}

impl Kind for Namespace {
    type Id = NamespaceName;
    const NAME: &'static str = "metadef_namespace";
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "owner",
                values: |n| vec![n.owner.to_string()],
            },
            Index {
                name: "visibility",
                values: |n| n.public.then(|| "public".to_owned()).into_iter().collect(),
            },
        ]
    }
}
