//! Wire types and thin handlers, one file a noun.

pub(crate) mod attachments;
pub(crate) mod backup_records;
pub(crate) mod backups;
pub(crate) mod clusters;
pub(crate) mod consistency_groups;
pub(crate) mod default_types;
pub(crate) mod group_snapshots;
pub(crate) mod group_types;
pub(crate) mod groups;
pub(crate) mod list;
pub(crate) mod manageable;
pub(crate) mod messages;
pub(crate) mod metadata;
pub(crate) mod misc;
pub(crate) mod qos;
pub(crate) mod quotas;
pub(crate) mod services;
pub(crate) mod snapshots;
pub(crate) mod transfers;
pub(crate) mod types;
pub(crate) mod versions;
pub(crate) mod volume_actions;
pub(crate) mod volume_moves;
pub(crate) mod volumes;
pub(crate) mod wire;
