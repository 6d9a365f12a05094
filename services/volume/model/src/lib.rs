//! Stored types, pure rules and planners of the block storage service (Cinder v3).
//!
//! A [`Volume`] is intent and the status that the API shows; its bytes are a file on its host. What a node is told is
//! [`volume_intents`] and [`snapshot_intents`], what it says comes back through [`plan_observe_volume`] and its
//! siblings. Compute composes the planners of [`attachment`] into its own transactions.

mod attachment;
mod backend;
mod backup;
mod default_type;
mod group;
mod group_type;
mod intent;
pub mod message;
mod observe;
mod plan;
mod qos;
pub mod quota;
mod snapshot;
mod status;
mod transfer;
mod unmanaged;
mod volume;
mod volume_type;

pub use attachment::{
    Attachment, AttachmentId, AttachmentStatus, Export, Mode, Offer, attachments_of, exported, plan_attach,
    plan_attach_new, plan_attached, plan_detach, plan_detached, plan_detaching, plan_offered, plan_reserve,
    plan_unreserve, status_by_attachments,
};
pub use backend::{Backend, BackendId, find_backend, given_gb, plan_upsert_backend};
pub use backup::{Backup, BackupId, BackupStatus};
pub use default_type::{DefaultType, DefaultTypeId};
pub use group::{Group, GroupId, GroupSnapshot, GroupSnapshotId, GroupStatus, group_epoch, group_type_epoch};
pub use group_type::{CONSISTENT_SPEC, CONSISTENT_TYPE, GroupType, GroupTypeId};
pub use intent::{SnapshotIntent, VolumeIntent, Wanted, pulls, snapshot_intents, volume_intents};
pub use observe::{
    SnapshotSeen, VolumeSeen, plan_observe_snapshot, plan_observe_volume, plan_snapshot_removed, plan_volume_removed,
};
pub use plan::{
    check_still, find_snapshot, find_volume, plan_create_snapshot, plan_create_volume, plan_delete_snapshot,
    plan_delete_volume, plan_end_epoch, plan_forget_snapshot, plan_forget_volume, plan_remove_snapshot,
    plan_remove_volume, type_epoch,
};
pub use qos::{Consumer, Qos, QosId, front_end_limits};
pub use snapshot::{Snapshot, SnapshotId, SnapshotStatus, snapshot_of_bytes};
pub use status::Status;
pub use transfer::{Transfer, TransferId};
pub use unmanaged::{Unmanaged, UnmanagedId};
pub use volume::{NewVolume, Source, Upload, Volume, VolumeId};
pub use volume_type::{DEFAULT_TYPE, Encryption, VolumeType, VolumeTypeId, find_type, visible_type};

/// Registers the kinds of this model.
pub fn register(registry: &mut maru_store::Registry) {
    registry
        .register::<Volume>()
        .register::<Snapshot>()
        .register::<Attachment>()
        .register::<VolumeType>()
        .register::<Qos>()
        .register::<Backup>()
        .register::<Transfer>()
        .register::<Backend>()
        .register::<Unmanaged>()
        .register::<GroupType>()
        .register::<Group>()
        .register::<GroupSnapshot>()
        .register::<message::Message>()
        .register::<DefaultType>()
        .register::<quota::QuotaSet>()
        .register::<quota::QuotaClass>();
}
