//! Whether new security groups track connections when their maker does not say: for the whole cloud, or for one project.

use crate::{errors, keys};
use maru_base::{ProjectId, Result};
use maru_store::{Index, Kind, Snapshot, Txn};
use serde::{Deserialize, Serialize};

maru_base::typed_id!(
    /// Id of a setting, a UUID.
    DefaultStatefulnessId
);

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultStatefulness {
    /// Whose groups; the whole cloud's if `None`.
    pub project_id: Option<ProjectId>,
    /// See [`crate::SecurityGroup`].
    pub stateful: bool,
}

impl Kind for DefaultStatefulness {
    type Id = DefaultStatefulnessId;
    const NAME: &'static str = "default_statefulness";
    fn indexes() -> Vec<Index<Self>> {
        Vec::new()
    }
}

/// What a new group of a project is: as its own setting says, else the cloud's, else stateful.
#[must_use]
pub fn default_statefulness(snapshot: &Snapshot, project: &ProjectId) -> bool {
    let mut cloud = true;
    for setting in snapshot.list::<DefaultStatefulness>() {
        match &setting.value.project_id {
            Some(p) if p == project => return setting.value.stateful,
            Some(_) => {}
            None => cloud = setting.value.stateful,
        }
    }
    cloud
}

/// Plans a new setting.
///
/// # Errors
/// 409 when the project, or the cloud, has one.
pub fn plan_create_statefulness(
    snapshot: &Snapshot,
    txn: &mut Txn,
    setting: &DefaultStatefulness,
) -> Result<DefaultStatefulnessId> {
    keys::hold_epoch(snapshot, txn, "default-statefulness");
    let same = |s: &DefaultStatefulness| s.project_id == setting.project_id;
    if let Some(other) = snapshot.list::<DefaultStatefulness>().find(|o| same(&o.value)) {
        return Err(errors::conflict(
            "SecurityGroupDefaultStatefulnessExists",
            format!("There is such a setting already, {}; change that one.", other.id),
        ));
    }
    let id = DefaultStatefulnessId::new_uuid();
    txn.create(&id, setting);
    Ok(id)
}
