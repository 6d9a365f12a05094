//! What the service needs before its first request: the default volume type.

use maru_base::Result;
use maru_store::{Store, Txn};
use maru_volume_model::{DEFAULT_TYPE, VolumeType, VolumeTypeId};

/// Makes the default volume type, if there is none.
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
            Ok((txn, ()))
        })
        .await
}
