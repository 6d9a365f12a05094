//! Volume types that a project's volumes have whose maker named none (3.62).

use crate::VolumeTypeId;
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// A project's id, naming its default type.
    DefaultTypeId
);

/// A project's default type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultType {
    /// The type.
    pub type_id: VolumeTypeId,
}

impl Kind for DefaultType {
    type Id = DefaultTypeId;
    const NAME: &'static str = "volume_default_type";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "type",
            values: |d| vec![d.type_id.to_string()],
        }]
    }
}
