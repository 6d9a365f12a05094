//! Server groups: servers that shall be together or apart.

use maru_base::{ProjectId, UserId};
use maru_store::{Index, Kind};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a server group, a UUID.
    GroupId
);

/// A server group. Its members are the servers that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// Name; need not be unique.
    pub name: String,
    /// Owner.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// `affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`.
    pub policy: String,
    /// For anti-affinity: how many may be on one host.
    pub max_server_per_host: Option<u32>,
    /// When it was made.
    pub created: jiff::Timestamp,
}

impl Kind for ServerGroup {
    type Id = GroupId;
    const NAME: &'static str = "server_group";
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "project",
            values: |g| vec![g.project_id.to_string()],
        }]
    }
}
