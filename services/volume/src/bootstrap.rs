//! What the service needs before its first request: the default volume type, and the group type of
//! consistency groups.

use maru_base::Result;
use maru_store::{Store, Txn};
use maru_volume_model::{
    CONSISTENT_SPEC, CONSISTENT_TYPE, DEFAULT_TYPE, GroupType, GroupTypeId, VolumeType, VolumeTypeId,
};
use std::collections::BTreeMap;

/// Makes the default volume type and the type of consistency groups, if there are none.
///
/// # Errors
/// When the store does not take it.
pub async fn bootstrap(store: &Store) -> Result<()> {
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            if snapshot.owner("volume_type", "", DEFAULT_TYPE).is_none() {
                let id = VolumeTypeId::new_uuid();
                txn.claim("volume_type", "", DEFAULT_TYPE, &id);
                txn.create(
                    &id,
                    &VolumeType {
                        name: DEFAULT_TYPE.to_owned(),
                        description: Some("Default Volume Type".to_owned()),
                        public: true,
                        access: std::collections::BTreeSet::new(),
                        extra_specs: std::collections::BTreeMap::new(),
                        qos_id: None,
                        encryption: None,
                        created: maru_base::time::now(),
                        updated: None,
                    },
                );
            }
            if snapshot.owner("volume_group_type", "", CONSISTENT_TYPE).is_none() {
                let id = GroupTypeId::new_uuid();
                txn.claim("volume_group_type", "", CONSISTENT_TYPE, &id);
                txn.create(
                    &id,
                    &GroupType {
                        name: CONSISTENT_TYPE.to_owned(),
                        description: Some("The type of consistency groups".to_owned()),
                        public: true,
                        specs: BTreeMap::from([(CONSISTENT_SPEC.to_owned(), "<is> True".to_owned())]),
                        created: maru_base::time::now(),
                        updated: None,
                    },
                );
            }
            Ok((txn, ()))
        })
        .await
}
